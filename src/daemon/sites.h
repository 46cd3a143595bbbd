/* SPDX-License-Identifier: MIT */
#pragma once

/* What this process remembers of sites between requests: the adds that wait to be written, the
 * IDs known to be in a log, the send that runs. All of it may be forgotten at any time; the
 * logs are the truth. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sitelog.h"
#include "daemon/call.h"
#include "util/hash.h"
#include "util/strset.h"

#define SITES_KNOWN_MAX 4096u  /* IDs remembered, the newest of all sites together */
#define SITES_MAX       10000u /* sites remembered that have nothing to do */

typedef struct Send Send;

struct Site {
        UT_hash_handle hh;
        /* Of sites. */
        Call *adds, *last_add; /* not yet written, in order of arrival */
        Site *next_waiting;    /* in Sites.waiting, if there are @adds */
        int error;             /* of the last write of @adds */
        uint64_t known_number; /* of its IDs in Sites.known */
        SiteLogStamp stamp;    /* as this process left it */
        unsigned changes;      /* times that somebody else had changed it; send compares it */
        /* Of send. */
        Send *send;         /* the one that runs */
        Call *callers;      /* wait for its end */
        Call *next_callers; /* came later: wait for the one after it */
        /* For all to read. */
        const char *name; /* at the end of @log */
        char log[];
};

typedef struct Sites {
        const Queue *queue;
        bool sync;
        uint64_t lock_usec; /* how long an add may wait for somebody else's lock */
        Site *table;
        Site *waiting; /* those with adds */
        /* "ID/number" of each record known to be in a log that nobody else has changed. A site that
         * gets another number forgets them all at once. */
        StrSet known;
        uint64_t last_number;
        unsigned forget_at; /* number of sites at which those that have nothing to do are dropped */
} Sites;

typedef void (*sites_done_t)(Call *call, int error, void *userdata);

void sites_init(Sites *sites, const Queue *queue, bool sync, uint64_t lock_usec);
void sites_free(Sites *sites);

/**
 * sites_get() - the site of a log
 * Return: it, new or not, or NULL (out of memory). It stays for as long as it has adds or a send,
 *         others may be gone after the next sites_get().
 */
Site *sites_get(Sites *sites, const char *log);

/**
 * sites_observe() - the log has just been opened or locked: is it as this process left it?
 *
 * If somebody else changed it, all that was known about it is forgotten, and @site->changes grows.
 */
void sites_observe(Sites *sites, Site *site, SiteLog *log);

/**
 * sites_wrote() - this process has just changed the log, under its lock
 * @error:  0, or the negative errno with which it failed: unless that was undone, nobody knows
 *          how the log was left
 */
void sites_wrote(Site *site, const SiteLog *log, int error);

/** sites_forget_known() - IDs added from now on are new, whatever the log has */
void sites_forget_known(Sites *sites, Site *site);

/** sites_have_adds() - is there anything for sites_write()? */
bool sites_have_adds(const Sites *sites);

/** sites_put_add() - the call waits for sites_write() */
void sites_put_add(Sites *sites, Site *site, Call *call);

/**
 * sites_write() - write all adds that wait, with one write a site
 * @done:  called for each add that has been written (0) or could not be (negative errno), after all
 *         writes; it may free the call, but must not put another
 *
 * Adds to a log that somebody else has locked go on waiting, until @lock_usec are over
 * (-ETIMEDOUT).
 *
 * Return: true if some wait.
 */
bool sites_write(Sites *sites, sites_done_t done, void *userdata);

/** sites_cancel() - give up all adds that wait (-ECANCELED) */
void sites_cancel(Sites *sites, sites_done_t done, void *userdata);
