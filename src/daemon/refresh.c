/* SPDX-License-Identifier: MIT */

#include "daemon/refresh.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>

#include "util/util.h"

/* A log below this size is not worth a look: reading and rewriting would cost more than a few
 * hundred duplicates do. */
#define COMPACT_SIZE_MIN 4096

/* Times that lie further ahead than this are wrong; less is the clock of a file server. */
#define AHEAD_SEC 60

struct Refresh {
        Job job;
        SendContext *context;
        uint64_t max_age, max_empty_age;
        refresh_done_t done;
        void *userdata;
        const Site *waiting_for; /* its send has to end first */
        unsigned depth;          /* open directories; the last one is being read */
        DIR *dirs[QUEUEID_FOREST_MAX + 1];
        char hash[QUEUEID_FOREST_SIZE]; /* names of these but the first, each with a slash */
        StrSet gathered;                /* logs that were out of place and have been dealt with */
        SiteLog removed;                /* one that flush(8) was just opening, */
        char removed_name[QUEUEID_MAX + 1];
        uint64_t removed_usec;
        RefreshResult result;
};

static void report_path(const char *path, int error, const char *what) {
        journal_event(LOG_WARNING,
                      &(JournalEvent){.message_id = JOURNAL_ID_FILE, .file = path, .error = error},
                      "%s: %s: %s", path, what, strerror(-error));
}

static void report_file(const Refresh *r, const char *name, int error, const char *what) {
        char path[QUEUE_PATH_SIZE];

        queue_path(r->context->queue, QUEUE_FLUSH, name, path);
        report_path(path, error, what);
}

static int open_dir(Refresh *r, int parent_fd, const char *name) {
        int k;

        if (r->depth == ARRAY_SIZE(r->dirs))
                return -ELOOP;
        k = queue_open_dir(parent_fd, name, &r->dirs[r->depth]);
        if (k < 0)
                return k;
        if (r->depth > 0)
                (void) strcpy(stpcpy(r->hash + strlen(r->hash), name), "/");
        r->depth++;
        return 0;
}

static void close_dir(Refresh *r) {
        (void) closedir(r->dirs[--r->depth]);
        if (r->depth > 0)
                r->hash[2 * (r->depth - 1)] = '\0';
}

/* Older than so many microseconds? As in flush(8), whole seconds count, and "as old" is not. What
 * lies in the future was stamped by a clock that was wrong: it would stay young until that time
 * comes, so it counts as old. */
static bool is_older(time_t then, uint64_t usec) {
        time_t now = time(NULL);

        return then > now + AHEAD_SEC || then + (time_t) (usec / USEC_PER_SEC) < now;
}

/* The next thing to do, before any other log, is to see what has been recorded in it. */
static JobResult keep_removed(Refresh *r, const char *name, SiteLog *log) {
        r->removed = *log;
        log->fd = -EBADF;
        (void) snprintf(r->removed_name, sizeof r->removed_name, "%s", name);
        r->removed_usec = now_usec();
        return JOB_PAUSE;
}

static JobResult rescue(Refresh *r) {
        const SendContext *context = r->context;
        int k = sitelog_rescue(context->queue, r->removed_name, &r->removed, context->sync);

        if (k == -EAGAIN && now_usec() - r->removed_usec < context->lock_usec)
                return JOB_PAUSE;
        if (k < 0)
                report_file(r, r->removed_name, k,
                            "what was recorded while it was being removed is lost");
        sitelog_close(&r->removed);
        return JOB_MORE;
}

static JobResult remove_empty(Refresh *r, const char *name) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        int k = sitelog_open(r->context->queue, name, false, &log);

        if (k == 0 && is_older(log.st.st_mtime, r->max_empty_age))
                k = sitelog_remove_if_empty(r->context->queue, &log);
        else if (k == 0)
                return JOB_MORE;
        if (k >= 0)
                r->result.removed++;
        if (k > 0)
                return keep_removed(r, name, &log);
        if (k < 0 && k != -EAGAIN && k != -EBUSY && k != -ENOENT && k != -ENOTEMPTY) /* in use */
                report_file(r, name, k, "cannot remove");
        return JOB_MORE;
}

static JobResult send(Refresh *r, const char *name, SendKind kind) {
        Site *site = sites_get(r->context->sites, name);
        int k = site ? 0 : -ENOMEM;

        if (site && send_is_running(site))
                return JOB_MORE;
        if (site)
                k = send_start(r->context, site, kind, 0);
        if (k < 0) {
                r->result.failed++;
                report_file(r, name, k, "cannot flush");
                return JOB_MORE;
        }
        r->waiting_for = site;
        return JOB_PARKED;
}

static JobResult work_log(Refresh *r, const char *name) {
        char path[QUEUE_PATH_SIZE];
        struct stat st;

        queue_path(r->context->queue, QUEUE_FLUSH, name, path);
        if (fstatat(r->context->queue->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                if (errno != ENOENT)
                        report_file(r, name, -errno, "cannot look at");
                return JOB_MORE;
        }
        r->result.logs++;
        if (st.st_size == 0)
                return is_older(st.st_mtime, r->max_empty_age) ? remove_empty(r, name) : JOB_MORE;
        if (is_older(st.st_atime, r->max_age))
                return send(r, name, SEND_REFRESH);
        if (st.st_size >= COMPACT_SIZE_MIN)
                return send(r, name, SEND_COMPACT);
        return JOB_MORE;
}

/* Where it belongs, so that it is treated like any other. Return: false if that cannot be now. */
static bool bring_into_place(Refresh *r, const char *name, const char *path) {
        const SendContext *context = r->context;
        const Site *site = sites_get(r->context->sites, name);
        int k;

        if (site && send_is_running(site)) /* that works on it */
                return false;
        k = sitelog_gather_from(context->queue, name, path, context->sync);
        if (k < 0 && k != -EAGAIN) {
                r->result.failed++;
                report_path(path, k, "cannot be brought into its place");
        }
        if (k ==
            0) /* the walk may yet come to where it is now; out of memory, it is looked at twice */
                (void) strset_add(&r->gathered, name);
        return k == 0;
}

static JobResult work_found(Refresh *r, const char *name) {
        char path[QUEUE_PATH_SIZE], found[QUEUE_PATH_SIZE];

        queue_path(r->context->queue, QUEUE_FLUSH, name, path);
        (void) snprintf(found, sizeof found, "%s/%s%s", queue_name(QUEUE_FLUSH), r->hash, name);
        if (streq(path, found))
                return strset_contains(&r->gathered, name) ? JOB_MORE : work_log(r, name);
        return bring_into_place(r, name, found) ? work_log(r, name) : JOB_MORE;
}

static JobResult work_entry(Refresh *r, const char *name) {
        int k;

        if (name[0] == '.' || !queueid_valid(name, strlen(name)))
                return JOB_MORE;
        if (name[1] != '\0')
                return work_found(r, name);
        k = open_dir(r, dirfd(r->dirs[r->depth - 1]), name);
        if (k < 0)
                report_file(r, name, k, "not a hash directory, passed over");
        return JOB_MORE;
}

static JobResult step(Job *job, JobSlice *slice) {
        Refresh *r = (Refresh *) (void *) job;

        if (r->removed.fd >= 0 && rescue(r) == JOB_PAUSE)
                return JOB_PAUSE;
        while (r->depth > 0) {
                const struct dirent *e = readdir(r->dirs[r->depth - 1]);
                JobResult result = JOB_MORE;

                if (e)
                        result = work_entry(r, e->d_name);
                else
                        close_dir(r);
                if (result != JOB_MORE || job_slice_is_over(slice, JOB_COST_FILE))
                        return result;
        }
        return JOB_DONE;
}

static void done(Job *job, bool cancelled) {
        Refresh *r = (Refresh *) (void *) job;

        if (cancelled)
                r->result.error = -ECANCELED;
        while (r->depth > 0)
                close_dir(r);
        strset_clear(&r->gathered);
        if (r->removed.fd >= 0) /* cancelled: not waited for */
                (void) rescue(r);
        sitelog_close(&r->removed);
        r->done(&r->result, r->userdata);
        free(r);
}

static void sum_counts(RequestCounts *sum, const RequestCounts *c) {
        sum->found += c->found;
        sum->moved += c->moved;
        sum->gone += c->gone;
        sum->busy += c->busy;
        sum->failed += c->failed;
        sum->duplicate += c->duplicate;
        sum->invalid += c->invalid;
}

void refresh_sent(Refresh *r, const Site *site, const SendResult *result) {
        if (r->waiting_for != site)
                return;
        r->waiting_for = NULL;
        if (result->error < 0) {
                r->result.failed++;
                if (result->error != -ECANCELED)
                        report_file(r, site->log, result->error, "cannot flush");
        } else if (result->kind == SEND_COMPACT)
                r->result.compacted += result->shortened;
        else {
                r->result.flushed++;
                r->result.had_lines |= result->had_lines;
                sum_counts(&r->result.counts, &result->counts);
        }
        jobs_start(r->context->jobs, &r->job);
}

int refresh_start(SendContext *context, uint64_t max_age, uint64_t max_empty_age,
                  refresh_done_t done_callback, void *userdata, Refresh **ret) {
        Refresh *r = calloc(1, sizeof *r);

        static_assert(offsetof(Refresh, job) == 0, "a Refresh is a Job");

        if (!r)
                return -ENOMEM;
        r->job = (Job){.step = step, .done = done};
        r->context = context;
        r->removed = (SiteLog) SITELOG_INIT;
        r->max_age = max_age;
        r->max_empty_age = max_empty_age;
        r->done = done_callback;
        r->userdata = userdata;
        /* No directory yet: nothing has been recorded. */
        r->result.error = open_dir(r, context->queue->fd, queue_name(QUEUE_FLUSH));
        if (r->result.error == -ENOENT)
                r->result.error = 0;
        *ret = r;
        jobs_start(context->jobs, &r->job);
        return 0;
}
