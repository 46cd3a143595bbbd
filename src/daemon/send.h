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
        bool had_lines; /* the log was not empty */
        bool shortened; /* there were lines, and they have been removed */
        int error;      /* the log could not be opened or locked; negative errno */
} SendResult;

typedef void (*send_done_t)(Site *site, const SendResult *result, void *userdata);

#define SENDS_MAX    64u     /* at a time; more wait. Each has a descriptor and up to 128 KiB. */
#define SEND_IDS_MAX 524288u /* IDs that all of them remember together; at 32 to 48 bytes each */
#define SEND_IDS_MIN 4096u   /* but each of them so many, whatever the others do */

/* What a send works with. */
typedef struct SendContext {
        Sites *sites;
        Jobs *jobs;
        Trigger *trigger;
        unsigned n_open;  /* sends that have their log open */
        unsigned n_kept;  /* of SENDS_MAX, how many may not: descriptors are few */
        unsigned n_ids;   /* that they may remember */
        send_done_t done; /* called once for each send; @site->send is NULL by then */
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
