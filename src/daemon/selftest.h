/* SPDX-License-Identifier: MIT */
#pragma once

/* The service tests itself, as the user and in the sandbox in which it serves: would a record be
 * written, would a message be moved, would the queue manager hear of it? Changes nothing, never
 * waits, does not log. fflushd(8) has a table of all it can find, with what to do. */

#include <systemd/sd-event.h>

#include "core/finding.h"
#include "core/metrics.h"
#include "core/queue.h"
#include "core/settings.h"
#include "daemon/job.h"
#include "daemon/remedy.h"

#define SELFTEST_LOGS_MAX 1024u /* logs that are opened */
#define SELFTEST_TABLE_USEC                                                                        \
        ((uint64_t) 7000000)      /* for the tables; monitoring gives up after ten seconds */
#define SELFTEST_RECENT_SEC 3600u /* failures longer ago are not reported */

/* The site that every table is asked for. No domain below .invalid can exist (RFC 6761). */
#define SELFTEST_SITE    "self-test.fflushd.invalid"

#define SELFTEST_STOPPED "the service was stopped meanwhile" /* of the check "service" */

/* All borrowed. Members without a comment are those of the service. */
typedef struct SelfTestContext {
        sd_event *event;
        const Settings *settings;
        const Queue *queue;
        const char *endpoint; /* of the queue manager, below the queue directory */
        const char *const *postmap;
        const char *trouble; /* why a changed configuration cannot be read, or NULL; only at the
                                start */
        bool outdated;       /* files have changed since @settings were read */
        const Metrics *metrics;
        Jobs *jobs; /* the self-test is one of them */
        const RemedyFacts *facts;
} SelfTestContext;

typedef struct SelfTest SelfTest;

/**
 * selftest_done_t - called once, from the event loop
 * @findings:  valid during the call only
 */
typedef void (*selftest_done_t)(const TestFindings *findings, void *userdata);

/**
 * selftest_start() - begin: quick checks run at once, those of logs and tables in a job
 * @ret:  receives it; selftest_free() it from @done or, to end it, before
 *
 * Return: 0, or a negative errno: it could not begin.
 */
int selftest_start(const SelfTestContext *context, selftest_done_t done, void *userdata,
                   SelfTest **ret);

/** selftest_hurry() - do not wait for tables any more: before jobs_cancel() */
void selftest_hurry(SelfTest *t);

/** selftest_reconfigure() - other settings have taken the place of those with which it began */
void selftest_reconfigure(SelfTest *t, const Settings *settings);

SelfTest *selftest_free(SelfTest *t);
