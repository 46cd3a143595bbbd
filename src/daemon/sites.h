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
#define SITES_MAX       10000u /* sites in memory before those without work are dropped */

typedef struct Send Send;

/* Owned by this module. Others read @name, @log and @changes; only send writes @send. */
struct Site {
        UT_hash_handle hh;
        Call *adds, *last_add; /* not yet written, in order of arrival */
        Site *next_waiting;    /* in Sites.waiting, if there are @adds */
        int error;             /* of the last write of @adds */
        uint64_t tag;          /* of its keys in Sites.known */
        SiteLogStamp stamp;    /* of the log as this process left it */
        unsigned changes;      /* how often another process had changed the log */
        Send *send;            /* the one that runs, or NULL. The site stays as long as it does. */
        const char *name;      /* for people: the site; stored after @log */
        char log[];            /* name of its log */
};

typedef struct Sites {
        const Queue *queue;
        bool sync;
        uint64_t lock_usec; /* how long an add may wait for somebody else's lock */
        Site *table;
        Site *waiting; /* those with adds */
        /* Keys "ID/tag" of the records in a log that nobody else has changed since this process
         * wrote it. A new tag for a site makes all of its keys invalid at once. */
        StrSet known;
        uint64_t last_tag;
        unsigned forget_at; /* size of the table at which sites without work are dropped */
} Sites;

typedef void (*sites_done_t)(Call *call, int error, void *userdata);

void sites_init(Sites *sites, const Queue *queue, bool sync, uint64_t lock_usec);
void sites_done(Sites *sites);

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
 * @error:  0, or the negative errno with which it failed: unless the change was undone, the state
 *          of the log is unknown
 */
void sites_wrote(Site *site, const SiteLog *log, int error);

/** sites_forget_known() - IDs added from now on are written, whatever the log contains */
void sites_forget_known(Sites *sites, Site *site);

/** sites_put_add() - the call waits for sites_write() */
void sites_put_add(Sites *sites, Site *site, Call *call);

/** sites_have_adds() - does any add wait for sites_write()? */
bool sites_have_adds(const Sites *sites);

/**
 * sites_write() - write all adds that wait, with one write a site
 * @done:  called for each add that has been written (0) or could not be (negative errno), after all
 *         writes; it may free the call, but must not put another
 *
 * Adds to a log that somebody else has locked go on waiting, until @lock_usec have passed
 * (-ETIMEDOUT).
 *
 * Return: true if some wait.
 */
bool sites_write(Sites *sites, sites_done_t done, void *userdata);

/** sites_cancel() - give up all adds that wait (-ECANCELED) */
void sites_cancel(Sites *sites, sites_done_t done, void *userdata);
