/* SPDX-License-Identifier: MIT */

#include "ctl/ghosts.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "core/sitelog.h"
#include "core/sitename.h"
#include "core/survey.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "util/util.h"

/* flush(8) has a log locked for as long as it flushes it. */
#define LOCK_USEC (30 * USEC_PER_SEC)

/* The sites whose records flush(8) has in one log. */
typedef struct Group {
        const Queue *queue;
        const char *name;     /* of that log */
        const GhostSite *own; /* whose log it is for fflushd; NULL: nothing is listed for it */
        const GhostSite *sites;
        size_t n;
} Group;

static int compare_folded(const void *x, const void *y) {
        const GhostSite *a = x, *b = y;
        char name_a[SITE_LOG_SIZE], name_b[SITE_LOG_SIZE];

        sitename_to_original(a->site, name_a);
        sitename_to_original(b->site, name_b);
        return strcmp(name_a, name_b);
}

/* The records of a locked log. Return: 0, -EAGAIN (postsuper(1), which heeds no lock, has moved
 * it), or another negative errno. */
static int read_locked(const Queue *q, const SiteLog *log, SurveyLog *ret) {
        int r = survey_read(q, log->path, ret);

        if (r < 0)
                return r;
        return ret->st.st_dev == log->st.st_dev && ret->st.st_ino == log->st.st_ino ? 0 : -EAGAIN;
}

/* Which of the records are in the log of this site as well? That log is on the disk then. */
static int find_in(const Group *g, const GhostSite *site, const SurveyLog *records, StrSet *ret) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        _cleanup_(survey_done) SurveyLog own = {0};
        const StrSetEntry *e = NULL;
        char name[SITE_LOG_SIZE];
        int r;

        sitename_to_log(site->site, name);
        r = sitelog_open(g->queue, name, false, &log);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        r = sitelog_append(g->queue, &log, "", 0, true);
        if (r == 0)
                r = read_locked(g->queue, &log, &own);
        while (r >= 0 && (e = strset_next(&records->ids, e))) {
                const char *id = strset_entry_id(e);

                if (strset_contains(site->listed, id) && strset_contains(&own.ids, id))
                        r = strset_add(ret, id);
        }
        return r < 0 ? r : 0;
}

static bool is_gone(const Queue *q, const char *id) {
        QueueName queue;
        struct stat st;

        return queue_find(q, id, &queue, &st) == -ENOENT;
}

/* Return: how many records go; @ret receives the lines that stay, @ret_n bytes, to be freed; or a
 * negative errno. */
static int choose(const Group *g, const SurveyLog *records, char **ret, size_t *ret_n) {
        _cleanup_free_ char *keep = malloc(records->n_text + 1);
        StrSet elsewhere = {0};
        const StrSetEntry *e = NULL;
        char *end = keep;
        int n = 0, r = keep ? 0 : -ENOMEM;

        for (size_t i = 0; i < g->n && r == 0; i++)
                if (&g->sites[i] != g->own) /* that is this very log */
                        r = find_in(g, &g->sites[i], records, &elsewhere);
        while (r == 0 && (e = strset_next(&records->ids, e))) {
                const char *id = strset_entry_id(e);
                bool own = g->own && strset_contains(g->own->listed, id);

                if ((strset_contains(&elsewhere, id) && !own) || is_gone(g->queue, id)) {
                        n++;
                        continue;
                }
                end = stpcpy(end, id);
                *end++ = '\n';
        }
        strset_clear(&elsewhere);
        if (r < 0)
                return r;
        *ret_n = (size_t) (end - keep);
        *ret = TAKE_PTR(keep);
        return n;
}

/* Neither lock is waited for while the other one is held. */
static int try_clear(const Group *g, unsigned long *ret_removed) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        _cleanup_(survey_done) SurveyLog records = {0};
        _cleanup_free_ char *keep = NULL;
        size_t n_keep = 0;
        int n, r;

        r = sitelog_open(g->queue, g->name, false, &log);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        r = sitelog_append(g->queue, &log, "", 0, false); /* ends a torn last line */
        if (r == 0)
                r = read_locked(g->queue, &log, &records);
        if (r < 0)
                return r;
        n = choose(g, &records, &keep, &n_keep);
        if (n <= 0)
                return n;
        r = sitelog_replace_prefix(&log, log.st.st_size, keep, n_keep, true);
        if (r < 0)
                return r;
        *ret_removed += (unsigned long) n;
        if (n_keep > 0)
                return 0;
        r = sitelog_remove_if_empty(g->queue, &log);
        if (r > 0) /* flush(8) may still write into it */
                r = sitelog_rescue(g->queue, g->name, &log, true);
        return r == -EBUSY || r == -ENOTEMPTY ? 0 : r; /* the log can stay */
}

static int clear_one(const Group *g, unsigned long *ret_removed) {
        uint64_t end = now_usec() + LOCK_USEC;
        int r;

        do
                r = try_clear(g, ret_removed);
        while (r == -EAGAIN && ctl_await_lock(end));
        if (r == 0)
                return EX_OK;
        ctl_error("flush/%s: %s", g->name, r == -EAGAIN ? "the log is in use" : strerror(-r));
        return r == -EAGAIN ? EX_TEMPFAIL : EX_IOERR;
}

static const GhostSite *find_own(const GhostSite sites[], size_t n, const char *log) {
        char name[SITE_LOG_SIZE];

        for (size_t i = 0; i < n; i++) {
                sitename_to_log(sites[i].site, name);
                if (streq(name, log))
                        return &sites[i];
        }
        return NULL;
}

/* @sites are sorted by the names that flush(8) has for them. */
static int clear_all(Ctl *ctl, const GhostSite sites[], size_t n, unsigned long *ret_removed) {
        int status = EX_OK;
        size_t end;

        for (size_t i = 0; i < n; i = end) {
                char name[SITE_LOG_SIZE];
                Group g;

                for (end = i + 1; end < n && compare_folded(&sites[i], &sites[end]) == 0; end++)
                        ;
                sitename_to_original(sites[i].site, name);
                g = (Group){.queue = &ctl->queue,
                            .name = name,
                            .own = find_own(sites + i, end - i, name),
                            .sites = sites + i,
                            .n = end - i};
                /* Its own log alone: nothing that could be elsewhere. */
                if ((g.own && g.n == 1) || name[1] == '\0') /* the latter: see "verify" */
                        continue;
                status = ctl_worse(status, clear_one(&g, ret_removed));
        }
        return status;
}

static bool is_flush_idle(Ctl *ctl) {
        _cleanup_free_ char *asked = ctl_postconf(ctl, "flush_service_name");

        return asked && streq(asked, CTL_SERVICE);
}

/* Root would have to give its rights up for good. */
static int clear_in_child(Ctl *ctl, const GhostSite sites[], size_t n, unsigned long *ret_removed) {
        int fds[2], status;
        pid_t pid;

        (void) fflush(stdout);
        if (pipe2(fds, O_CLOEXEC) < 0)
                return EX_OSERR;
        pid = fork();
        if (pid == 0) {
                status = ctl_become_owner(ctl);
                if (status == EX_OK)
                        status = clear_all(ctl, sites, n, ret_removed);
                if (write(fds[1], ret_removed, sizeof *ret_removed) < 0)
                        status = EX_OSERR;
                _exit(status);
        }
        closep(&fds[1]);
        if (pid > 0 && read(fds[0], ret_removed, sizeof *ret_removed) != sizeof *ret_removed)
                *ret_removed = 0;
        closep(&fds[0]);
        while (pid > 0 && waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return EX_OSERR;
        return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : EX_OSERR;
}

int ghosts_clear(Ctl *ctl, GhostSite sites[], size_t n, unsigned long *ret_removed) {
        *ret_removed = 0;
        if (n == 0 || !is_flush_idle(ctl))
                return EX_OK;
        qsort(sites, n, sizeof *sites, compare_folded);
        if (geteuid() != 0)
                return clear_all(ctl, sites, n, ret_removed);
        return clear_in_child(ctl, sites, n, ret_removed);
}
