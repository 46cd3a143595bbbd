/* SPDX-License-Identifier: MIT */
#pragma once

/* Which queue IDs have been met before: a set that never grows, so that no step of it is long. When
 * it is full it keeps what it has, and takes no more. */

#include <stddef.h>

#define SEEN_ID_SIZE 16u        /* bytes for an ID on average, its NUL included */
#define SEEN_IDS_MAX (1u << 24) /* IDs of one set */

typedef struct SeenSlot SeenSlot;
typedef struct Seen {
        SeenSlot *slots; /* a power of two; NULL: nothing is remembered */
        size_t n_slots, n_ids, ids_max;
        char *text; /* the IDs, in the memory after the slots */
        size_t n_text;
} Seen;

/**
 * seen_init() - get the memory for a set, 32 to 48 bytes an ID
 * @ids_max:  how many it can hold, 1 to SEEN_IDS_MAX; fewer if they are longer than SEEN_ID_SIZE
 *
 * If memory is short it can hold half as many, a quarter, and so on, in the end none. seen_done()
 * it.
 */
void seen_init(Seen *set, size_t ids_max);
void seen_done(Seen *set);

/**
 * seen_add() - remember an ID
 * @id:  ends in NUL; copied
 *
 * Return: 1 (new), 0 (was there), -ENOBUFS (was not there, and will not be remembered).
 */
int seen_add(Seen *set, const char *id);
