/* SPDX-License-Identifier: MIT */
#pragma once

/* Going through one log: move its messages (send), or drop its duplicates (compaction). */

#include "job.h"
#include "sites.h"
#include "trigger.h"

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

#define SENDS_MAX 64u /* at a time; further ones wait. Each has a descriptor and 64 KiB. */

/* What a send works with. */
typedef struct SendContext {
        Sites *sites;
        Jobs *jobs;
        Trigger *trigger;
        unsigned n_open;  /* sends that have their log open */
        unsigned n_kept;  /* of SENDS_MAX, how many may not: descriptors are few */
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
 * Return: 0, or -ENOMEM.
 * Source: spec 5.3; DESIGN: "the log as it was when the request came".
 */
int send_start(SendContext *context, Site *site, SendKind kind, unsigned long limit);
