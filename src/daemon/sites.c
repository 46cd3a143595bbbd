/* SPDX-License-Identifier: MIT */

#include "daemon/sites.h"

#include <inttypes.h>
#include <stdio.h>
#include <utlist.h>

#include "core/sitename.h"
#include "util/util.h"

void sites_init(Sites *sites, const Queue *queue, bool sync, uint64_t lock_usec) {
        *sites = (Sites){
                .queue = queue, .sync = sync, .lock_usec = lock_usec, .forget_at = SITES_MAX};
}

static void free_site(Sites *sites, Site *site) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a table with a site exists */
        HASH_DEL(sites->table, site);
        free(site);
}

void sites_done(Sites *sites) {
        Site *site, *tmp;

        HASH_ITER (hh, sites->table, site, tmp)
                free_site(sites, site);
        strset_clear(&sites->known);
}

static void forget_idle(Sites *sites) {
        Site *site, *tmp;

        HASH_ITER (hh, sites->table, site, tmp) {
                if (!site->adds && !site->send)
                        free_site(sites, site);
        }
        /* If most were in use, the next attempt would cost more than it gains: it must not come
         * soon. */
        sites->forget_at = 2 * HASH_COUNT(sites->table);
        if (sites->forget_at < SITES_MAX)
                sites->forget_at = SITES_MAX;
}

static Site *new_site(const char *log) {
        char name[QUEUEID_MAX + 1];
        const char *shown = name;
        Site *site;

        if (sitename_from_log(log, name) < 0)
                /* A log of flush(8) for a name that is not a site here: the name of the file has to
                 * do. */
                shown = log;
        site = calloc(1, sizeof *site + strlen(log) + 1 + strlen(shown) + 1);
        if (!site)
                return NULL;
        site->name = strcpy(stpcpy(site->log, log) + 1, shown);
        return site;
}

Site *sites_get(Sites *sites, const char *log) {
        bool oom = false;
        Site *site;

        HASH_FIND_STR(sites->table, log, site);
        if (site)
                return site;
        if (HASH_COUNT(sites->table) >= sites->forget_at)
                forget_idle(sites);
        site = new_site(log);
        if (!site)
                return NULL;
        HASH_ADD_STR(sites->table, log, site);
        if (oom) {
                free(site);
                return NULL;
        }
        sites_forget_known(sites, site);
        return site;
}

void sites_forget_known(Sites *sites, Site *site) {
        site->tag = ++sites->last_tag;
}

void sites_observe(Sites *sites, Site *site, SiteLog *log) {
        if (sitelog_unchanged(log, &site->stamp))
                return;
        site->changes++;
        site->stamp = sitelog_stamp(log);
        sites_forget_known(sites, site);
}

void sites_wrote(Site *site, const SiteLog *log, int error) {
        bool undone = log->st.st_size == site->stamp.size;

        site->stamp = error == 0 || undone ? sitelog_stamp(log) : (SiteLogStamp){0};
}

bool sites_have_adds(const Sites *sites) {
        return sites->waiting != NULL;
}

void sites_put_add(Sites *sites, Site *site, Call *call) {
        call->next = NULL;
        call->since_usec = now_usec();
        if (site->adds)
                site->last_add->next = call;
        else {
                site->adds = call;
                LL_PREPEND2(sites->waiting, site, next_waiting);
        }
        site->last_add = call;
}

#define KNOWN_SIZE (sizeof "/ffffffffffffffff" + QUEUEID_MAX)

static const char *known_key(const Site *site, const char *id, char ret[static KNOWN_SIZE]) {
        (void) snprintf(ret, KNOWN_SIZE, "%s/%" PRIx64, id, site->tag);
        return ret;
}

/* Return: 1 (new), 0 (was known), -ENOMEM. */
static int make_known(Sites *sites, const Site *site, const char *id) {
        char key[KNOWN_SIZE];
        int r = strset_add(&sites->known, known_key(site, id, key));

        if (r > 0 && strset_size(&sites->known) > SITES_KNOWN_MAX)
                strset_remove(&sites->known, strset_entry_id(strset_next(&sites->known, NULL)));
        return r;
}

/* Undoes what collect_lines() has made known. */
static void forget_new(Sites *sites, Site *site) {
        char key[KNOWN_SIZE];
        Call *call;

        LL_FOREACH (site->adds, call)
                if (call->is_new)
                        strset_remove(&sites->known, known_key(site, call->request.queue_id, key));
}

/* The lines to write: each ID once, and none that the log is known to have. This makes them known,
 * so a caller that cannot write them has to call forget_new(). */
static int collect_lines(Sites *sites, Site *site, char **ret, size_t *ret_n) {
        size_t n = 0, size = 0;
        _cleanup_free_ char *lines = NULL;
        Call *call;

        LL_FOREACH (site->adds, call) {
                call->is_new = false;
                size += strlen(call->request.queue_id) + 1;
        }
        lines = malloc(size);
        if (!lines)
                return -ENOMEM;
        LL_FOREACH (site->adds, call) {
                const char *id = call->request.queue_id;
                int r = make_known(sites, site, id);

                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                call->is_new = true;
                n = (size_t) (stpcpy(lines + n, id) - lines);
                lines[n++] = '\n';
        }
        *ret = TAKE_PTR(lines);
        *ret_n = n;
        return 0;
}

static int append_adds(Sites *sites, Site *site, SiteLog *log) {
        _cleanup_free_ char *lines = NULL;
        size_t n;
        int r;

        r = collect_lines(sites, site, &lines, &n);
        if (r == 0 && n > 0) {
                r = sitelog_append(sites->queue, log, lines, n, sites->sync);
                sites_wrote(site, log, r);
        }
        if (r < 0)
                forget_new(sites, site);
        return r;
}

static int write_site(Sites *sites, Site *site) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        int r;

        r = sitelog_open(sites->queue, site->log, true, &log);
        if (r < 0)
                return r;
        sites_observe(sites, site, &log);
        return append_adds(sites, site, &log);
}

static void finish_adds(Site *site, int error, sites_done_t done, void *userdata) {
        Call *calls = site->adds, *call, *tmp;

        site->adds = NULL;
        LL_FOREACH_SAFE (calls, call, tmp)
                done(call, error, userdata);
}

/* Ends those that have waited too long for the lock. The oldest is the first. */
static void expire_adds(Sites *sites, Site *site, sites_done_t done, void *userdata) {
        uint64_t now = now_usec();
        Call *call;

        while ((call = site->adds) && now - call->since_usec > sites->lock_usec) {
                site->adds = call->next;
                done(call, -ETIMEDOUT, userdata);
        }
}

/* First all writes, then all replies. If a reply went out between two writes, the CPU of its client
 * would be idle again before the next reply, and to wake a CPU costs more than a write. */
bool sites_write(Sites *sites, sites_done_t done, void *userdata) {
        Site *waiting = sites->waiting, *site, *tmp;

        for (site = waiting; site; site = site->next_waiting)
                site->error = write_site(sites, site);
        sites->waiting = NULL;
        LL_FOREACH_SAFE2 (waiting, site, tmp, next_waiting) {
                if (site->error == -EAGAIN)
                        expire_adds(sites, site, done, userdata);
                else
                        finish_adds(site, site->error, done, userdata);
                if (site->adds)
                        LL_PREPEND2(sites->waiting, site, next_waiting);
        }
        return sites->waiting;
}

void sites_cancel(Sites *sites, sites_done_t done, void *userdata) {
        Site *waiting = sites->waiting, *site, *tmp;

        sites->waiting = NULL;
        LL_FOREACH_SAFE2 (waiting, site, tmp, next_waiting)
                finish_adds(site, -ECANCELED, done, userdata);
}
