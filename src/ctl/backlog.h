/* SPDX-License-Identifier: MIT */
#pragma once

/* What is stuck: the recorded destinations, the messages of each, where those are now, and why they
 * are deferred. Only looks. */

#include <jansson.h>
#include <time.h>

#include "ctl/ctl-sites.h"
#include "util/hash.h"
#include "util/strset.h"

/* Where a message is. */
typedef struct BacklogMail {
        UT_hash_handle hh;
        int error; /* 0: it is in @queue; -ENOENT: in none; else nobody knows */
        QueueName queue;
        time_t arrival; /* 0: unknown */
        time_t due;     /* deferred: its next attempt; else 0 */
        off_t size;     /* of its file */
        json_t *listed; /* as messages_next() has it; NULL: not listed, or not asked for */
        bool counted;   /* for backlog_count() */
        char id[];
} BacklogMail;

/* Why mail for a destination is deferred: cause_of() the reasons of its recipients. */
typedef struct BacklogCause {
        UT_hash_handle hh;
        unsigned long count;
        char text[];
} BacklogCause;

#define BACKLOG_NEVER ((time_t) -1)

typedef struct BacklogRow {
        UT_hash_handle hh;
        char *site;
        char *log;  /* the name of its log; NULL: nothing is recorded, but mail is under way */
        bool named; /* as in CtlSite */
        StrSet ids; /* recorded, or under way without a record */
        unsigned long records, messages; /* in the log: lines; distinct ones */
        unsigned long deferred, active, hold;
        time_t oldest;  /* the arrival of the oldest message that is there; 0: unknown, none */
        time_t flushed; /* BACKLOG_NEVER, 0: unknown; see backlog_collect() */
        BacklogCause *causes; /* the commonest first; NULL also if the queue was not listed */
        bool matches;         /* a reason contains what was asked for */
} BacklogRow;

typedef struct BacklogCounts {
        unsigned long deferred, active, hold;
} BacklogCounts;

typedef enum BacklogEffort {
        BACKLOG_RECORDED, /* only what is recorded */
        BACKLOG_CHEAP,    /* list the queue if something is in delivery, or little is recorded */
        BACKLOG_DATED,  /* if there is a Postfix, list the queue: it knows ages that files do not */
        BACKLOG_LISTED, /* list the queue */
} BacklogEffort;

/* Up to so many recorded messages the queue is listed without being asked for it; the latter if
 * something is in delivery. postqueue(1) needs about 90 ms for a thousand. */
#define BACKLOG_FEW  1000u
#define BACKLOG_MANY 10000u

typedef struct Backlog {
        Ctl *ctl;
        CtlPatterns patterns;
        const char *match; /* for BacklogRow.matches; NULL: none */
        bool no_sites;     /* only backlog_message() */
        bool keep;         /* BacklogMail.listed is wanted */
        BacklogRow **rows; /* by site */
        size_t n, size;
        BacklogRow *by_site;
        BacklogMail *mails;
        bool listed;            /* by postqueue(1), all of it */
        bool idle;              /* nothing was in delivery: that is known without a listing */
        BacklogRow *unrecorded; /* listed and deferred, but not in the log of their site; by site */
} Backlog;

/**
 * backlog_collect() - find out what is stuck
 * @b:     with @match and @keep; backlog_done() it in any case
 * @args:  patterns, to be read into @b->patterns; none: all; NULL: no site, but single messages
 *
 * A log's access time is that of its last flush (spec 4.2), unless somebody else has read it. It is
 * that of its creation until then: so "never flushed" is told by the birth time of the file, where
 * the file system has one. Of a log that was copied neither is known, and the time it came with is
 * taken for that of a flush.
 *
 * Return: EX_OK; EX_NOINPUT (a pattern matches nothing); EX_UNAVAILABLE (postqueue(1) failed: the
 *         rest counts, but @listed is false); or trouble. A message has been printed.
 */
int backlog_collect(Ctl *ctl, char *args[], BacklogEffort effort, Backlog *b);
void backlog_done(Backlog *b);

/** backlog_message() - look at one message as well, and find it in the listing if there is one
 * Return: EX_OK or EX_OSERR; call it before backlog_collect(). */
int backlog_message(Backlog *b, const char *id);

/** backlog_mail() - Return: the message, which is of one of the rows; or NULL. */
BacklogMail *backlog_mail(const Backlog *b, const char *id);

/** backlog_count() - add the messages of a row which were not counted before, of another row */
void backlog_count(Backlog *b, const BacklogRow *row, BacklogCounts *counts);

/** backlog_recipient() - a recipient of a listed message
 * @ret_site:    receives its site in normal form; "" if it has none
 * @ret_reason:  receives why it is deferred, or NULL
 *
 * Return: its address; or NULL: there are no more. */
const char *backlog_recipient(const json_t *listed, size_t i, char ret_site[static SITE_SIZE],
                              const char **ret_reason);
