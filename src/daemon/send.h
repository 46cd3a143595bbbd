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

/**
 * send_done_t - called once for each send, when it does not run any more
 * @calls:  a list of those from send_request() that it was for; they belong to the callee again
 */
typedef void (*send_done_t)(Site *site, const SendResult *result, Call *calls, void *userdata);

#define SENDS_MAX    64u     /* at a time; more wait. Each has a descriptor and up to 128 KiB. */
#define SEND_IDS_MAX 524288u /* IDs that all of them remember together; at 32 to 48 bytes each */
#define SEND_IDS_MIN 4096u   /* but each send at least this many, whatever the others take */

/* What all sends share. The owner may change @sync, @lock_usec and @n_kept at any time. */
typedef struct SendContext {
        const Queue *queue;
        bool sync;          /* have moves and removals on the disk before the next step */
        uint64_t lock_usec; /* how long to wait for a log that another process has locked */
        Sites *sites;
        Jobs *jobs;
        Trigger *trigger;
        unsigned n_open; /* sends that have their log open; 0 at first */
        unsigned n_kept; /* how many of SENDS_MAX may not run, since descriptors are few */
        unsigned n_ids;  /* IDs that the sends may remember; 0 at first */
        send_done_t done;
        void *userdata;
} SendContext;

/**
 * send_start() - begin to go through the log of a site as it is now, for no call
 * @context:  borrowed until done
 * @site:     send_is_running() is false
 * @limit:    stop after moving this many messages, and leave the rest of the log as it is; 0: never
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
 * @call:  a send_site; comes back by the context's @done, never from within this call
 *
 * A site has one send at a time. Calls that come while it runs wait for the next one, which goes
 * through what has been recorded since, and share it: it has the largest of their limits.
 *
 * Return: 0, or -ENOMEM: the call stays the caller's.
 */
int send_request(SendContext *context, Site *site, Call *call);

/** send_is_running() - does a send of this site run? */
bool send_is_running(const Site *site);
