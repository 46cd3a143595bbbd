/* SPDX-License-Identifier: MIT */

#include "daemon/selftest.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/domains.h"
#include "core/qmgr.h"
#include "core/sitelog.h"
#include "core/survey.h"
#include "daemon/journal.h"
#include "util/timer.h"
#include "util/util.h"

#define TIMER_ACCURACY_USEC 1000

struct SelfTest {
        Job job;
        SelfTestContext context;
        selftest_done_t done;
        void *userdata;
        bool parked; /* waits for tables */
        sd_event_source *late;
        bool is_late; /* SELFTEST_TABLE_USEC are over: it does not wait any more */
        bool read_only;
        Domains *domains;
        bool *answered; /* by table: its answer has been taken */
        bool unaskable; /* main.cf cannot be read: postmap(1) would fail as well, once for each
                           table */
        size_t n_answered;
        char (*logs)[QUEUE_PATH_SIZE]; /* their names */
        size_t n_logs, n_opened, n_bad;
        char first_bad[QUEUE_PATH_SIZE];
        int first_error;
        bool more_logs;
        TestFindings findings;
};

static SelfTest *self_test_of(Job *job) {
        static_assert(offsetof(SelfTest, job) == 0, "a Job is a SelfTest");
        return (SelfTest *) (void *) job;
}

#define failed(t, check, ...)  findings_add(&(t)->findings, check, FINDING_FAILED, __VA_ARGS__)
#define warning(t, check, ...) findings_add(&(t)->findings, check, FINDING_WARNING, __VA_ARGS__)

/* Options for Postfix's commands, if the instance is not the one that they use without options. */
static const char *options_for(const SelfTest *t, char ret[static PATH_MAX]) {
        const char *directory = t->context.settings->postfix_config_directory;

        ret[0] = '\0';
        if (directory[0] && !streq(directory, "/etc/postfix"))
                (void) snprintf(ret, PATH_MAX, " -c '%s'", directory);
        return ret;
}

/* The same for our own commands. */
static const char *instance_for(const SelfTest *t, char ret[static PATH_MAX]) {
        const char *instance = t->context.settings->instance;

        (void) snprintf(ret, PATH_MAX, "%s%s", instance ? " -i " : "", instance ? instance : "");
        return ret;
}

/* ---------------------------------------------------------------------------- the settings */

/* fast_flush_domains has a check of its own: read_list(). */
static bool is_about_list(const char *problems) {
        static const char start[] = "fast_flush_domains: ";

        return strncmp(problems, start, strlen(start)) == 0 && !strchr(problems, '\n');
}

static void report_trouble(SelfTest *t, const char *directory) {
        const char *trouble = t->context.trouble;
        char instance[PATH_MAX];
        TestFinding *f =
                failed(t, "settings", "the configuration has changed and cannot be read: %.*s",
                       (int) strcspn(trouble, "\n"), trouble);

        t->unaskable = strstr(trouble, "/postconf");
        if (t->unaskable)
                finding_set_remedy(f, "postconf -c '%s', and mend what it complains of", directory);
        else
                finding_set_remedy(f, "fflushd%s --check-config, and mend what it complains of",
                                   instance_for(t, instance));
}

static void report_outdated(SelfTest *t) {
        finding_set_remedy(
                warning(t, FINDING_OUTDATED, "the service has not yet read its configuration anew"),
                "ask again");
}

static void check_settings(SelfTest *t) {
        const Settings *settings = t->context.settings;
        const char *directory = settings->postfix_config_directory;
        char remedy[FINDING_TEXT_SIZE], instance[PATH_MAX];
        TestFinding *f;
        int n, r;

        t->findings.checks++;
        n = settings->problems ? (int) strcspn(settings->problems, "\n") : 0;
        r = directory[0] ? remedy_postfix(t->context.facts, directory, remedy) : 0;
        if (t->context.outdated && !t->context.trouble && r == 0)
                report_outdated(t);
        t->unaskable = r < 0;
        if (r < 0) {
                f = failed(t, "settings", "%s/main.cf cannot be read by the service: %s", directory,
                           strerror(-r));
                finding_set_remedy(f, "%s", remedy);
        } else if (settings->incomplete) {
                f = failed(t, "settings", "postconf(1) has not told what must be known: %.*s", n,
                           settings->problems ? settings->problems : "");
                finding_set_remedy(f, "postconf -c '%s', and mend what it complains of", directory);
        } else if (t->context.trouble) {
                report_trouble(t, directory);
        } else if (settings->problems && !is_about_list(settings->problems)) {
                f = warning(t, "settings", "the configuration has errors: %.*s", n,
                            settings->problems);
                finding_set_remedy(f, "fflushd%s --check-config shows all of them",
                                   instance_for(t, instance));
        }
}

/* ------------------------------------------------------------- the list, and each of its tables */

static void report_list(SelfTest *t, const char *problem) {
        char path[PATH_MAX], remedy[FINDING_TEXT_SIZE] = "";
        TestFinding *f = failed(t, "list", "fast_flush_domains cannot be used: %s", problem);

        (void) snprintf(path, sizeof path, "%.*s", (int) strcspn(problem, ":"), problem);
        if (path[0] == '/')
                (void) remedy_path(t->context.facts, path, R_OK, remedy);
        finding_set_remedy(f, "%s", remedy);
}

/* Reads the list again: the one in memory may be an hour old, and say nothing about now. */
static int read_list(SelfTest *t) {
        const Settings *settings = t->context.settings;
        _cleanup_free_ char *problem = NULL;
        char options[PATH_MAX], instance[PATH_MAX];
        int r;

        t->findings.checks++;
        r = domains_new(settings->fast_flush_domains, settings->subdomains, t->context.postmap,
                        &t->domains, &problem);
        if (r < 0)
                return r;
        if (problem)
                report_list(t, problem);
        else if (!settings->incomplete && !domains_can_match(t->domains))
                finding_set_remedy(
                        failed(t, "list", "fast_flush_domains is empty: nothing is recorded"),
                        "postconf%s -e fast_flush_domains=static:all, or the domains that are to "
                        "be recorded; then postfix%s reload; fflushctl%s import",
                        options_for(t, options), options, instance_for(t, instance));
        t->answered = calloc(domains_n_tables(t->domains) + 1, sizeof *t->answered);
        return t->answered ? 0 : -ENOMEM;
}

static void report_table(SelfTest *t, const char *name, const char *why) {
        char remedy[FINDING_TEXT_SIZE];
        TestFinding *f = failed(t, "table", "table %s cannot be asked: %s", name, why);

        (void) remedy_table(t->context.facts, name, remedy);
        finding_set_remedy(f, "%s", remedy);
}

static bool ask_tables(SelfTest *t) {
        size_t n = t->unaskable ? 0 : domains_n_tables(t->domains);

        for (size_t i = 0; i < n; i++) {
                const char *name, *why;
                TableAnswer answer;

                if (t->answered[i])
                        continue;
                answer = domains_ask_table(t->domains, i, SELFTEST_SITE, &name, &why);
                if (answer == TABLE_PENDING && !t->is_late)
                        continue;
                t->answered[i] = true;
                t->n_answered++;
                t->findings.checks++;
                if (answer == TABLE_PENDING)
                        report_table(t, name, "it does not answer in time");
                else if (answer == TABLE_ERROR)
                        report_table(t, name, why);
        }
        return t->n_answered == n;
}

/* --------------------------------------------------------------------------- files, disk, qmgr */

/* @optional: the service creates it when it needs it. Return: true if it is there. */
static bool check_directory(SelfTest *t, const char *name, int access_wanted, bool optional) {
        char path[PATH_MAX], remedy[FINDING_TEXT_SIZE];
        int r;

        t->findings.checks++;
        (void) snprintf(path, sizeof path, "%s/%s", t->context.settings->queue_directory, name);
        r = remedy_owned(t->context.facts, path, access_wanted, remedy);
        if (r == 0)
                return true;
        if (r == -EROFS && t->read_only)
                return false;
        if (r == -ENOENT && optional && euidaccess(t->context.settings->queue_directory, W_OK) == 0)
                return false;
        finding_set_remedy(
                failed(t, "queue", "the service has no access to %s: %s", path, strerror(-r)), "%s",
                r == -ENOENT ? "postfix check makes it" : remedy);
        return false;
}

static uint64_t mount_of(int fd, const char *name) {
#ifdef STATX_MNT_ID
        struct statx st;

        if (statx(fd, name, AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &st) == 0 &&
            (st.stx_mask & STATX_MNT_ID))
                return st.stx_mnt_id;
#else
#endif
        return 0; /* this kernel cannot say */
}

static void check_same_mount(SelfTest *t) {
        int fd = t->context.queue->fd;
        struct stat deferred, incoming;

        t->findings.checks++;
        if (fstatat(fd, "deferred", &deferred, AT_SYMLINK_NOFOLLOW) < 0 ||
            fstatat(fd, "incoming", &incoming, AT_SYMLINK_NOFOLLOW) < 0)
                return;
        if (deferred.st_dev != incoming.st_dev ||
            mount_of(fd, "deferred") != mount_of(fd, "incoming"))
                finding_set_remedy(
                        failed(t, "queue",
                               "deferred and incoming are on different mounts: no message can be "
                               "moved"),
                        "Postfix wants both on one file system; a drop-in may name only the queue "
                        "directory as a whole in ReadWritePaths= or BindPaths=");
}

static void check_queues(SelfTest *t) {
        static const struct {
                QueueName name;
                int access;
        } queues[] = {{QUEUE_DEFERRED, R_OK | W_OK | X_OK},
                      {QUEUE_INCOMING, R_OK | W_OK | X_OK},
                      {QUEUE_ACTIVE, X_OK},
                      {QUEUE_HOLD, X_OK}};

        for (size_t i = 0; i < ARRAY_SIZE(queues); i++)
                (void) check_directory(t, queue_name(queues[i].name), queues[i].access, false);
        check_same_mount(t);
}

static void check_disk(SelfTest *t) {
        const char *directory = t->context.settings->queue_directory;
        struct statvfs st;

        t->findings.checks++;
        if (fstatvfs(t->context.queue->fd, &st) < 0)
                return;
        if (st.f_flag & ST_RDONLY) {
                char remedy[FINDING_TEXT_SIZE];

                t->read_only = true; /* so are its directories: reported once, not for each */
                remedy_read_only(t->context.facts, directory, remedy);
                finding_set_remedy(failed(t, "disk", "%s is read-only for the service", directory),
                                   "%s", remedy);
        } else if (st.f_bavail == 0 && st.f_blocks > 0)
                finding_set_remedy(failed(t, "disk", "no space is left for %s", directory),
                                   "make room: df '%s'", directory);
        else if (st.f_favail == 0 && st.f_files > 0)
                finding_set_remedy(failed(t, "disk", "no inodes are left for %s", directory),
                                   "remove files: df -i '%s'", directory);
}

/* If there is a unit for Postfix, a Postfix that was started by hand would get in its way. Restart,
 * not start: a unit that stands for all instances is active even if one of them does not run. */
static const char *how_to_start(const SelfTest *t, char ret[static FINDING_TEXT_SIZE]) {
        const char *instance = t->context.settings->instance;
        char options[PATH_MAX];

        (void) snprintf(ret, FINDING_TEXT_SIZE,
                        "systemctl restart postfix%s%s, or postfix%s start if no unit runs it",
                        instance ? "@" : "", instance ? instance : "", options_for(t, options));
        return ret;
}

static void check_qmgr(SelfTest *t) {
        char remedy[FINDING_TEXT_SIZE];
        int r = qmgr_probe(t->context.queue->fd, t->context.endpoint);

        t->findings.checks++;
        if (r == -ENOENT || r == -ENXIO || r == -ECONNREFUSED)
                finding_set_remedy(failed(t, "qmgr",
                                          "Postfix is not running: the queue manager does not "
                                          "listen on %s: %s",
                                          t->context.endpoint, strerror(-r)),
                                   "%s", how_to_start(t, remedy));
        else if (r < 0 && r != -EAGAIN) /* -EAGAIN: the backlog is full, so somebody listens */
                failed(t, "qmgr", "the queue manager cannot be reached on %s: %s",
                       t->context.endpoint, strerror(-r));
}

/* ------------------------------------------------------------------------------------ requests */

static void check_requests(SelfTest *t) {
        const Metrics *m = t->context.metrics;
        uint64_t now = (uint64_t) time(NULL);

        t->findings.checks++;
        for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++) {
                uint64_t last = m->last_failure_sec[c];

                /* The other checks have just tried it, and know better than a past failure. */
                if (metrics_class_is_tested(c) || last <= m->last_success_sec[c] ||
                    last + SELFTEST_RECENT_SEC < now)
                        continue;
                finding_set_remedy(warning(t, "requests",
                                           "requests have failed within the last hour: %s",
                                           metrics_class_name(c)),
                                   "journalctl MESSAGE_ID=%s", JOURNAL_ID_FAILED);
        }
}

/* ---------------------------------------------------------------------------------------- logs */

static int note_log(const SurveyEntry *entry, void *userdata) {
        SelfTest *t = userdata;

        if (!entry->in_place)
                return 0;
        if (t->n_logs == SELFTEST_LOGS_MAX) {
                t->more_logs = true;
                return 1;
        }
        (void) snprintf(t->logs[t->n_logs++], QUEUE_PATH_SIZE, "%s", entry->name);
        return 0;
}

static int find_logs(SelfTest *t) {
        int r;

        t->logs = calloc(SELFTEST_LOGS_MAX, sizeof *t->logs);
        if (!t->logs)
                return -ENOMEM;
        if (!check_directory(t, queue_name(QUEUE_FLUSH), R_OK | W_OK | X_OK, true))
                return 0;
        r = survey_walk(t->context.queue, QUEUE_FLUSH, note_log, t);
        if (r < 0)
                failed(t, "logs", "the logs cannot be listed: %s", strerror(-r));
        return 0;
}

/* A log that somebody has locked, or that is gone by now, is in order. */
static void try_log(SelfTest *t, const char *name) {
        SiteLog log = SITELOG_INIT;
        int r = sitelog_open(t->context.queue, name, false, &log);

        sitelog_close(&log);
        if (r == 0 || r == -EAGAIN || r == -ENOENT)
                return;
        if (t->n_bad++ == 0) {
                queue_path(t->context.queue, QUEUE_FLUSH, name, t->first_bad);
                t->first_error = r;
        }
}

static void report_logs(SelfTest *t) {
        const char *instance = t->context.settings->instance;
        char path[PATH_MAX], user[REMEDY_NAME_SIZE];
        TestFinding *f;

        t->findings.checks++;
        if (t->n_bad > 0) {
                (void) snprintf(path, sizeof path, "%s/%s", t->context.settings->queue_directory,
                                t->first_bad);
                f = failed(t, "logs", "logs that cannot be opened: %zu, the first is %s: %s",
                           t->n_bad, path, strerror(-t->first_error));
                if (t->first_error == -EACCES || t->first_error == -EPERM)
                        finding_set_remedy(f, "chown %s '%s' && chmod 600 '%s'",
                                           remedy_user(t->context.facts, user), path, path);
                else
                        finding_set_remedy(f, "fflushctl%s%s verify tells more of each",
                                           instance ? " -i " : "", instance ? instance : "");
        }
        if (t->more_logs)
                findings_add(&t->findings, "logs", FINDING_OK, "only the first %u logs were opened",
                             SELFTEST_LOGS_MAX);
}

/* --------------------------------------------------------------------------------------- steps */

static void selftest_go_on(SelfTest *t) {
        if (t->parked)
                jobs_start(t->context.jobs, &t->job);
        t->parked = false;
}

static void selftest_on_answers(const Table *failed, void *userdata) {
        if (failed)
                journal_table_error(failed);
        selftest_go_on(userdata);
}

static JobResult selftest_step(Job *job, JobSlice *slice) {
        SelfTest *t = self_test_of(job);

        while (t->n_opened < t->n_logs) {
                try_log(t, t->logs[t->n_opened++]);
                if (job_slice_is_over(slice, JOB_COST_LOOK))
                        return JOB_MORE;
        }
        if (ask_tables(t))
                return JOB_DONE;
        /* This also asks those tables again whose answer has expired before it was taken. */
        t->parked = domains_start(t->domains, t->context.event, selftest_on_answers, t) == 0;
        return t->parked ? JOB_PARKED : JOB_MORE; /* the next step finds that it failed */
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata) {
        SelfTest *t = userdata;

        t->is_late = true;
        selftest_go_on(t);
        return 0;
}

static void selftest_done(Job *job, bool cancelled) {
        SelfTest *t = self_test_of(job);

        if (cancelled)
                finding_set_remedy(failed(t, "service", SELFTEST_STOPPED), "ask again");
        else
                report_logs(t);
        t->done(&t->findings, t->userdata);
}

static int selftest_begin(SelfTest *t) {
        int r;

        check_settings(t);
        check_disk(t);
        check_queues(t);
        check_qmgr(t);
        check_requests(t);
        r = read_list(t);
        if (r < 0)
                return r;
        r = find_logs(t);
        if (r < 0)
                return r;
        if (!ask_tables(t))
                /* If it fails, the first step finds that. */
                (void) domains_start(t->domains, t->context.event, selftest_on_answers, t);
        return 0;
}

static void selftest_freep(SelfTest **t) {
        selftest_free(*t);
}

int selftest_start(const SelfTestContext *context, selftest_done_t done, void *userdata,
                   SelfTest **ret) {
        _cleanup_(selftest_freep) SelfTest *t = calloc(1, sizeof *t);
        int r;

        if (!t)
                return -ENOMEM;
        t->context = *context;
        t->done = done;
        t->userdata = userdata;
        t->job = (Job){.step = selftest_step, .done = selftest_done};
        r = timer_new(context->event, TIMER_ACCURACY_USEC, on_late, t, &t->late);
        if (r < 0)
                return r;
        timer_arm(t->late, SELFTEST_TABLE_USEC);
        r = selftest_begin(t);
        if (r < 0)
                return r;
        jobs_start(context->jobs, &t->job);
        *ret = TAKE_PTR(t);
        return 0;
}

void selftest_hurry(SelfTest *t) {
        selftest_go_on(t);
}

void selftest_reconfigure(SelfTest *t, const Settings *settings) {
        t->context.settings = settings;
}

SelfTest *selftest_free(SelfTest *t) {
        if (!t)
                return NULL;
        sd_event_source_disable_unref(t->late);
        domains_free(t->domains);
        free(t->answered);
        free(t->logs);
        free(t);
        return NULL;
}
