/* SPDX-License-Identifier: MIT */
#pragma once

/* Queue IDs, which are file names: validity, and the hash directory they live in. */

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#define QUEUEID_MAX         255u
#define QUEUEID_FOREST_MAX  16u /* deepest hash_queue_depth that we accept */
#define QUEUEID_FOREST_SIZE (2 * QUEUEID_FOREST_MAX + 1)

/**
 * queueid_valid() - may these bytes be the name of a queue file or of a log?
 * @id:  bytes to look at; need not end in NUL
 * @n:   how many
 *
 * Valid are 1 to QUEUEID_MAX ASCII letters, digits and underscores, whatever the locale. No
 * valid name can hence leave its directory.
 *
 * Source: spec 3.2.
 */
bool queueid_valid(const char *id, size_t n);

/**
 * queueid_forest() - hash directories of a file in a hashed queue
 * @id:     a valid name, ends in NUL
 * @depth:  1 to QUEUEID_FOREST_MAX, hash_queue_depth
 * @ret:    receives one directory a level, each followed by a slash: "A/B/"
 *
 * A long queue ID (the last 'z' at offset 10 or later) is hashed by its microseconds, so that
 * files spread evenly; the rule looks at the name only, so it strikes logs as well.
 *
 * Source: spec 3.3.
 */
void queueid_forest(const char *id, unsigned depth, char ret[static QUEUEID_FOREST_SIZE]);

/**
 * queueid_arrival() - when a message with a long queue ID arrived: its first digits are that time
 * Return: seconds since 1970; 0: the ID is short, and does not tell.
 * Source: postconf(5), enable_long_queue_ids.
 */
time_t queueid_arrival(const char *id);
