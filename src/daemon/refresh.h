/* SPDX-License-Identifier: MIT */
#pragma once

/* Going through all logs: flush those that nobody has flushed for long, compact those full of
 * duplicates, remove those that have been empty for long. */

#include "daemon/send.h"

typedef struct RefreshResult {
        RequestCounts counts; /* of all logs that were flushed */
        unsigned long logs;   /* seen */
        unsigned long flushed, failed, compacted, removed;
        bool had_lines; /* at least one was not empty */
        int error;      /* the logs could not be listed, or -ECANCELED; negative errno */
} RefreshResult;

typedef struct Refresh Refresh;
typedef void (*refresh_done_t)(const RefreshResult *result, void *userdata);

/**
 * refresh_start() - begin
 * @context:  for the sends; refresh_sent() must be told of their end
 * @max_age:  flush a log whose last flush is longer ago, in microseconds; 0: all (purge)
 * @max_empty_age:  remove a log that has been empty for longer than this, unless somebody has it
 *                  open
 * @done:     called once; the Refresh is gone then
 *
 * One log at a time. A log that has a send already is skipped. One that is out of place is moved to
 * its place first (sitelog_gather()). A time stamp in the future counts as old.
 *
 * Return: 0, or -ENOMEM.
 * Source: spec 5.5. Unlike flush(8): under the lock, one trigger at the end (the caller's), an
 *         entry of one character that is not a directory is skipped.
 */
int refresh_start(SendContext *context, uint64_t max_age, uint64_t max_empty_age,
                  refresh_done_t done, void *userdata, Refresh **ret);

/** refresh_sent() - a send has ended, perhaps the one that the refresh waits for */
void refresh_sent(Refresh *refresh, const Site *site, const SendResult *result);
