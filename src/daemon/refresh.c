/* SPDX-License-Identifier: MIT */

#include "daemon/refresh.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>

#include "util/util.h"

/* Smaller logs are not compacted: reading and rewriting would cost more than a few hundred
 * duplicates do. */
#define COMPACT_SIZE_MIN 4096

/* A time further in the future than this is wrong; less may be the clock of a file server. */
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
        char hash[QUEUEID_FOREST_SIZE]; /* path of the last one below the first, with a slash at the
                                           end */
        StrSet gathered;                /* names of logs that were brought into their place */
        SiteLog removed;                /* one that flush(8) was opening when it was removed */
        char removed_name[QUEUEID_MAX + 1];
        uint64_t removed_usec;
        RefreshResult result;
};

static Refresh *refresh_of(Job *job) {
        static_assert(offsetof(Refresh, job) == 0, "a Job of this module is a Refresh");
        return (Refresh *) (void *) job;
}

static void report_path(const char *path, int error, const char *what) {
        journal_event(LOG_WARNING,
                      &(JournalEvent){.message_id = JOURNAL_ID_FILE, .file = path, .error = error},
                      "%s: %s: %s", path, what, strerror(-error));
}

static void report_file(const Refresh *refresh, const char *name, int error, const char *what) {
        char path[QUEUE_PATH_SIZE];

        queue_path(refresh->context->queue, QUEUE_FLUSH, name, path);
        report_path(path, error, what);
}

static int open_dir(Refresh *refresh, int parent_fd, const char *name) {
        int r;

        if (refresh->depth == ARRAY_SIZE(refresh->dirs))
                return -ELOOP;
        r = queue_open_dir(parent_fd, name, &refresh->dirs[refresh->depth]);
        if (r < 0)
                return r;
        if (refresh->depth > 0)
                (void) strcpy(stpcpy(refresh->hash + strlen(refresh->hash), name), "/");
        refresh->depth++;
        return 0;
}

static void close_dir(Refresh *refresh) {
        (void) closedir(refresh->dirs[--refresh->depth]);
        if (refresh->depth > 0)
                refresh->hash[2 * (refresh->depth - 1)] = '\0';
}

/* Is @then longer ago than @usec? As in flush(8) in whole seconds, and not if it is as long. A time
 * in the future comes from a clock that was wrong. It counts as old, or the log would stay young
 * until that time has come. */
static bool is_older(time_t then, uint64_t usec) {
        time_t now = time(NULL);

        return then > now + AHEAD_SEC || then + (time_t) (usec / USEC_PER_SEC) < now;
}

/* Look for records of flush(8) in the removed file before any other log is worked on. */
static JobResult keep_removed(Refresh *refresh, const char *name, SiteLog *log) {
        refresh->removed = *log;
        log->fd = -EBADF;
        (void) snprintf(refresh->removed_name, sizeof refresh->removed_name, "%s", name);
        refresh->removed_usec = now_usec();
        return JOB_PAUSE;
}

static JobResult rescue_removed(Refresh *refresh) {
        const SendContext *context = refresh->context;
        int r = sitelog_rescue(context->queue, refresh->removed_name, &refresh->removed,
                               context->sync);

        if (r == -EAGAIN && now_usec() - refresh->removed_usec < context->lock_usec)
                return JOB_PAUSE;
        if (r < 0)
                report_file(refresh, refresh->removed_name, r,
                            "what was recorded while it was being removed is lost");
        sitelog_close(&refresh->removed);
        return JOB_MORE;
}

static JobResult remove_empty(Refresh *refresh, const char *name) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        int r = sitelog_open(refresh->context->queue, name, false, &log);

        if (r == 0 && is_older(log.st.st_mtime, refresh->max_empty_age))
                r = sitelog_remove_if_empty(refresh->context->queue, &log);
        else if (r == 0)
                return JOB_MORE;
        if (r >= 0)
                refresh->result.removed++;
        if (r > 0)
                return keep_removed(refresh, name, &log);
        if (r < 0 && r != -EAGAIN && r != -EBUSY && r != -ENOENT && r != -ENOTEMPTY) /* in use */
                report_file(refresh, name, r, "cannot remove");
        return JOB_MORE;
}

static JobResult send_log(Refresh *refresh, const char *name, SendKind kind) {
        Site *site = sites_get(refresh->context->sites, name);
        int r = site ? 0 : -ENOMEM;

        if (site && send_is_running(site))
                return JOB_MORE;
        if (site)
                r = send_start(refresh->context, site, kind, 0);
        if (r < 0) {
                refresh->result.failed++;
                report_file(refresh, name, r, "cannot flush");
                return JOB_MORE;
        }
        refresh->waiting_for = site;
        return JOB_PARKED;
}

static JobResult refresh_log(Refresh *refresh, const char *name) {
        char path[QUEUE_PATH_SIZE];
        struct stat st;

        queue_path(refresh->context->queue, QUEUE_FLUSH, name, path);
        if (fstatat(refresh->context->queue->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                if (errno != ENOENT)
                        report_file(refresh, name, -errno, "cannot look at");
                return JOB_MORE;
        }
        refresh->result.logs++;
        if (st.st_size == 0)
                return is_older(st.st_mtime, refresh->max_empty_age) ? remove_empty(refresh, name)
                                                                     : JOB_MORE;
        if (is_older(st.st_atime, refresh->max_age))
                return send_log(refresh, name, SEND_REFRESH);
        if (st.st_size >= COMPACT_SIZE_MIN)
                return send_log(refresh, name, SEND_COMPACT);
        return JOB_MORE;
}

/* Move a log to its place, where it is treated like any other. Return: false if that is impossible
 * now. */
static bool bring_into_place(Refresh *refresh, const char *name, const char *path) {
        const SendContext *context = refresh->context;
        const Site *site = sites_get(context->sites, name);
        int r;

        if (site && send_is_running(site)) /* which works on the log */
                return false;
        r = sitelog_gather_from(context->queue, name, path, context->sync);
        if (r < 0 && r != -EAGAIN) {
                refresh->result.failed++;
                report_path(path, r, "cannot be brought into its place");
        }
        /* The walk may yet come to where it is now. Without memory the log is worked on twice. */
        if (r == 0)
                (void) strset_add(&refresh->gathered, name);
        return r == 0;
}

static JobResult refresh_found(Refresh *refresh, const char *name) {
        char path[QUEUE_PATH_SIZE], found[QUEUE_PATH_SIZE];

        queue_path(refresh->context->queue, QUEUE_FLUSH, name, path);
        (void) snprintf(found, sizeof found, "%s/%s%s", queue_name(QUEUE_FLUSH), refresh->hash,
                        name);
        if (streq(path, found))
                return strset_contains(&refresh->gathered, name) ? JOB_MORE
                                                                 : refresh_log(refresh, name);
        return bring_into_place(refresh, name, found) ? refresh_log(refresh, name) : JOB_MORE;
}

static JobResult refresh_entry(Refresh *refresh, const char *name) {
        int r;

        if (name[0] == '.' || !queueid_valid(name, strlen(name)))
                return JOB_MORE;
        if (name[1] != '\0')
                return refresh_found(refresh, name);
        r = open_dir(refresh, dirfd(refresh->dirs[refresh->depth - 1]), name);
        if (r < 0)
                report_file(refresh, name, r, "not a hash directory, passed over");
        return JOB_MORE;
}

static JobResult refresh_step(Job *job, JobSlice *slice) {
        Refresh *refresh = refresh_of(job);

        if (refresh->removed.fd >= 0 && rescue_removed(refresh) == JOB_PAUSE)
                return JOB_PAUSE;
        while (refresh->depth > 0) {
                const struct dirent *e = readdir(refresh->dirs[refresh->depth - 1]);
                JobResult result = JOB_MORE;

                if (e)
                        result = refresh_entry(refresh, e->d_name);
                else
                        close_dir(refresh);
                if (result != JOB_MORE || job_slice_is_over(slice, JOB_COST_FILE))
                        return result;
        }
        return JOB_DONE;
}

static void refresh_done(Job *job, bool cancelled) {
        Refresh *refresh = refresh_of(job);

        if (cancelled)
                refresh->result.error = -ECANCELED;
        while (refresh->depth > 0)
                close_dir(refresh);
        strset_clear(&refresh->gathered);
        if (refresh->removed.fd >= 0) /* cancelled: one attempt has to do */
                (void) rescue_removed(refresh);
        sitelog_close(&refresh->removed);
        refresh->done(&refresh->result, refresh->userdata);
        free(refresh);
}

void refresh_sent(Refresh *refresh, const Site *site, const SendResult *result) {
        if (refresh->waiting_for != site)
                return;
        refresh->waiting_for = NULL;
        if (result->error < 0) {
                refresh->result.failed++;
                if (result->error != -ECANCELED)
                        report_file(refresh, site->log, result->error, "cannot flush");
        } else if (result->kind == SEND_COMPACT)
                refresh->result.compacted += result->shortened;
        else {
                refresh->result.flushed++;
                refresh->result.had_lines |= result->had_lines;
                request_counts_add(&refresh->result.counts, &result->counts);
        }
        jobs_start(refresh->context->jobs, &refresh->job);
}

int refresh_start(SendContext *context, uint64_t max_age, uint64_t max_empty_age,
                  refresh_done_t done, void *userdata, Refresh **ret) {
        Refresh *refresh = calloc(1, sizeof *refresh);

        if (!refresh)
                return -ENOMEM;
        refresh->job = (Job){.step = refresh_step, .done = refresh_done};
        refresh->context = context;
        refresh->removed = (SiteLog) SITELOG_INIT;
        refresh->max_age = max_age;
        refresh->max_empty_age = max_empty_age;
        refresh->done = done;
        refresh->userdata = userdata;
        /* No directory yet: nothing has been recorded. */
        refresh->result.error = open_dir(refresh, context->queue->fd, queue_name(QUEUE_FLUSH));
        if (refresh->result.error == -ENOENT)
                refresh->result.error = 0;
        *ret = refresh;
        jobs_start(context->jobs, &refresh->job);
        return 0;
}
