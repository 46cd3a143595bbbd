/* SPDX-License-Identifier: MIT */
#pragma once

/* All deferred messages, recorded or not, and when they arrived. */

#include <stdbool.h>
#include <time.h>

#include "core/queue.h"
#include "util/hash.h"

typedef struct DeferredMessage {
        UT_hash_handle hh;
        time_t arrival; /* seconds since 1970; 0: unknown */
        bool recorded;  /* for the caller */
        char id[];
} DeferredMessage;

typedef struct Deferred {
        DeferredMessage *messages; /* a table by ID */
} Deferred;

/**
 * deferred_read() - walk through the deferred queue
 * @ret:  receives its messages; deferred_done() it in any case
 *
 * A long queue ID tells the arrival; for a short one it is the birth of the file, which is later if
 * the queue was copied to where it is, and unknown if the file system does not tell.
 *
 * Return: 0, or a negative errno: a directory cannot be read.
 */
int deferred_read(const Queue *q, Deferred *ret);
DeferredMessage *deferred_find(const Deferred *d, const char *id);
void deferred_done(Deferred *d);

/** time_is_older() - is @t known, and @than unknown or later? Both are 0 if unknown. */
static inline bool time_is_older(time_t t, time_t than) {
        return t != 0 && (than == 0 || t < than);
}
