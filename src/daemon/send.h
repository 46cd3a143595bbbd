/* SPDX-License-Identifier: MIT */
#pragma once

/* Going through one log: move its messages (send), or drop its duplicates (compaction). */

#include "daemon/job.h"
#include "daemon/sites.h"
#include "daemon/trigger.h"

typedef enum SendKind {
        SEND_SITE,    /* asked for: qmgr forgets which destinations were dead */
        SEND_REFRESH, /* it is time: qmgr's knowledge stays, and the caller triggers */
        SEND_COMPACT, /* nothing is moved */
} SendKind;

typedef struct SendResult {
        SendKind kind;
        RequestCounts counts;
        bool had_lines;  /* the log was not empty */
        bool shortened;  /* there were lines, and they have been removed */
        bool is_awaited; /* callers wait for the next send of this site, which begins now */
        int error;       /* the log could not be opened or locked; negative errno */
} SendResult;

/* @calls: whose send_request() this was, in one list, now the callee's; NULL: nobody's */
typedef void (*send_done_t)(Site *site, const SendResult *result, Call *calls, void *userdata);

#define SENDS_MAX    64u     /* at a time; more wait. Each has a descriptor and up to 128 KiB. */
#define SEND_IDS_MAX 524288u /* IDs that all of them remember together; at 32 to 48 bytes each */
#define SEND_IDS_MIN 4096u   /* but each of them so many, whatever the others do */

/* What a send works with. */
typedef struct SendContext {
        const Queue *queue;
        bool sync;
        uint64_t lock_usec; /* how long to wait for somebody else's lock */
        Sites *sites;
        Jobs *jobs;
        Trigger *trigger;
        unsigned n_open;  /* sends that have their log open */
        unsigned n_kept;  /* of SENDS_MAX, how many may not: descriptors are few */
        unsigned n_ids;   /* that they may remember */
        send_done_t done; /* called once for each send, when it does not run any more */
        void *userdata;
} SendContext;

/**
 * send_start() - begin to go through the log of a site as it is now
 * @context:  borrowed until done
 * @site:     has no send running; gets one
 * @limit:    stop when so many messages have been moved, and leave the rest of the log as it is;
 *            0: never
 *
 * The log is locked only to look at its size and, in the end, to remove what was gone through;
 * adds are written meanwhile. Records stay whose message is in active, on hold, or could not
 * be moved, and all of them if somebody else (flush(8)) changed the log meanwhile: then nobody
 * knows which of them are new.
 *
 * No step is long and the memory is bounded, however large the log. Duplicates of IDs that cannot
 * be remembered are looked at like others: one whose message waits in incoming counts as duplicate,
 * and one that was moved, tried and deferred again meanwhile is moved again.
 *
 * Return: 0, or -ENOMEM.
 * Source: spec 5.3; DESIGN: "the log as it was when the request came".
 */
int send_start(SendContext *context, Site *site, SendKind kind, unsigned long limit);

/**
 * send_request() - have a site flushed for a caller
 * @call:  a send_site; comes back by the context's @done
 *
 * One send of a site at a time: what comes while one runs waits, all together, for one more over
 * what has been recorded since. A send that several wait for has the largest of their limits.
 *
 * Return: 0, or -ENOMEM: the call stays the caller's.
 */
int send_request(SendContext *context, Site *site, Call *call);

/** send_is_running() - does a send of this site run? */
bool send_is_running(const Site *site);
