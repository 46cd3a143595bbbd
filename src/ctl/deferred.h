/* SPDX-License-Identifier: MIT */
#pragma once

/* All deferred messages, recorded or not, and when they arrived. */

#include <stdbool.h>
#include <time.h>

#include "core/queue.h"
#include "util/hash.h"

typedef struct DeferredMessage {
        UT_hash_handle hh;
        time_t arrival; /* queue_arrival() */
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
 * Return: 0, or a negative errno: a directory cannot be read.
 */
int deferred_read(const Queue *q, Deferred *ret);

/**
 * deferred_count_unrecorded() - how many deferred messages are not among these
 * @is_recorded:  asked for the ID of each
 *
 * Costs a look at each file, and asks nothing of Postfix. Return: 0, or a negative errno, as above.
 */
int deferred_count_unrecorded(const Queue *q, bool (*is_recorded)(const char *id, void *userdata),
                              void *userdata, unsigned long *ret);

DeferredMessage *deferred_find(const Deferred *d, const char *id);
void deferred_done(Deferred *d);
