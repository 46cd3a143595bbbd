/* SPDX-License-Identifier: MIT */

/* fflushctl verify: do the logs and the queue agree? With --repair, what can be mended safely is:
 * under the locks, by the owner of the queue, and never at the price of a record. */

#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/sitelog.h"
#include "core/sitename.h"
#include "core/survey.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "ctl/deferred.h"
#include "util/util.h"

#define MODE_LOG 0600

/* fflushd holds a lock for milliseconds, but flush(8) for as long as a flush takes: such a log is
 * left as it is. */
#define LOCK_USEC (2 * USEC_PER_SEC)

typedef struct Verify {
        Ctl *ctl;
        uid_t owner; /* of the logs' directory, and so of all there */
        StrSet recorded;
        unsigned long logs, records, stale, duplicate, unrecorded, problems;
        unsigned long repaired, mended; /* all of it; the problems among it */
        unsigned long repairable;       /* by --repair, which was not given */
} Verify;

/* Something wrong with a log. A note is not a fault, but can be repaired. */
typedef struct Finding {
        const char *kind; /* for programs */
        unsigned long count;
        bool note;
        bool repairable; /* by --repair */
        char text[160];
        char remedy[PATH_MAX + 64]; /* what a person can do; "": nothing */
} Finding;

static Finding __attribute__((format(printf, 3, 4)))
finding(const char *kind, unsigned long count, const char *format, ...) {
        Finding f = {.kind = kind, .count = count};
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(f.text, sizeof f.text, format, ap);
        va_end(ap);
        return f;
}

static void report_json(const char *path, const Finding *f, bool repaired) {
        ctl_print_json(json_pack("{ss so ss sI sb sb sb ss?}", "type", "finding", "path",
                                 ctl_json_text(path), "finding", f->kind, "count",
                                 (json_int_t) f->count, "problem", !f->note, "repairable",
                                 f->repairable, "repaired", repaired, "remedy",
                                 f->remedy[0] ? f->remedy : NULL));
}

/* @repair: what came of --repair; -EOPNOTSUPP: it was not tried */
static void report(Verify *v, const char *path, const Finding *f, int repair) {
        bool repaired = v->ctl->repair && repair == 0;
        bool failed = v->ctl->repair && repair < 0 && repair != -EOPNOTSUPP;

        v->problems += !f->note;
        v->repaired += repaired;
        v->mended += repaired && !f->note;
        v->repairable += f->repairable && !v->ctl->repair;
        if (v->ctl->quiet && (f->note || repaired))
                return;
        if (v->ctl->json) {
                report_json(path, f, repaired);
                return;
        }
        ctl_print_in(f->note || repaired ? CTL_PLAIN : CTL_RED, "%s: %s%s%s%s%s%s", path, f->text,
                     repaired ? " (repaired)" : "", failed ? "; cannot be repaired: " : "",
                     failed ? strerror(-repair) : "", f->remedy[0] && !repaired ? ": " : "",
                     repaired ? "" : f->remedy);
        ctl_print("\n");
}

static const char *plural(unsigned long n) {
        return n == 1 ? "" : "s";
}

/* ---------------------------------------------------------------------------------- repairs */

static bool is_stale(const Queue *q, const char *id) {
        QueueName name;
        struct stat st;

        return queue_find(q, id, &name, &st) == -ENOENT;
}

typedef struct Text {
        char *data;
        size_t n;
} Text;

static void text_done(Text *t) {
        free(t->data);
}

static int collect_lines(const Queue *q, const SurveyLog *log, Text *ret) {
        const StrSetEntry *e = NULL;
        char *p = malloc(log->n_text + 1);

        if (!p)
                return -ENOMEM;
        ret->data = p;
        while ((e = strset_next(&log->ids, e)))
                if (!is_stale(q, strset_entry_id(e))) {
                        p = stpcpy(p, strset_entry_id(e));
                        *p++ = '\n';
                }
        ret->n = (size_t) (p - ret->data);
        return 0;
}

/* The records of a locked log that are worth keeping, a line each. */
static int kept_lines(const Queue *q, const SiteLog *log, Text *ret) {
        _cleanup_(survey_done) SurveyLog content = {0};
        int r;

        r = survey_read(q, log->path, &content);
        if (r < 0)
                return r;
        if (content.st.st_dev != log->st.st_dev || content.st.st_ino != log->st.st_ino)
                return -EBUSY; /* postsuper(1) heeds no lock */
        return collect_lines(q, &content, ret);
}

static int lock_log(const Queue *q, const char *name, bool create, SiteLog *ret) {
        uint64_t end = now_usec() + LOCK_USEC;
        int r;

        do
                r = sitelog_open(q, name, create, ret);
        while (r == -EAGAIN && ctl_await_lock(end));
        return r == -EAGAIN ? -EBUSY : r;
}

/* The file that was found, not another part of the same log. */
static int lock_found(const Queue *q, const SurveyEntry *e, SiteLog *ret) {
        int r = lock_log(q, e->name, false, ret);

        return r < 0 || streq(ret->path, e->path) ? r : -EBUSY;
}

/* Removes lines that are not records, duplicates, and records of messages that are gone. */
static int repair_lines(const Verify *v, const SurveyEntry *e) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        _cleanup_(text_done) Text keep = {0};
        const Queue *q = &v->ctl->queue;
        int r;

        r = lock_found(q, e, &log);
        if (r < 0)
                return r;
        r = sitelog_append(q, &log, "", 0, false); /* ends a torn last line */
        if (r < 0)
                return r;
        r = kept_lines(q, &log, &keep);
        if (r < 0)
                return r;
        return sitelog_replace_prefix(&log, log.st.st_size, keep.data, keep.n, true);
}

/* flush(8) may have been about to open the log, and records in it all the same. */
static int rescue_lines(const Queue *q, const char *name, SiteLog *removed) {
        uint64_t end = now_usec() + LOCK_USEC;
        int r;

        do
                r = sitelog_rescue(q, name, removed, true);
        while (r == -EAGAIN && ctl_await_lock(end));
        return r;
}

/* Moves flush(8)'s log of a site of one letter to the name that fflushd uses. */
static int repair_name(const Verify *v, const SurveyEntry *e) {
        _cleanup_(sitelog_close) SiteLog from = SITELOG_INIT, to = SITELOG_INIT;
        _cleanup_(text_done) Text keep = {0};
        char name[SITE_LOG_SIZE];
        const Queue *q = &v->ctl->queue;
        int r;

        sitename_to_log(e->name, name);
        r = lock_found(q, e, &from);
        if (r < 0)
                return r;
        r = lock_log(q, name, true, &to);
        if (r < 0)
                return r;
        r = kept_lines(q, &from, &keep);
        if (r < 0)
                return r;
        r = sitelog_append(q, &to, keep.data, keep.n, true);
        if (r < 0)
                return r;
        r = sitelog_replace_prefix(&from, from.st.st_size, "", 0, false);
        if (r < 0)
                return r;
        sitelog_close(&to);
        r = sitelog_remove_if_empty(q, &from);
        return r > 0 ? rescue_lines(q, name, &from) : r;
}

static int repair_mode(const Verify *v, const SurveyEntry *e) {
        _cleanup_(sitelog_close) SiteLog log = SITELOG_INIT;
        int r = lock_found(&v->ctl->queue, e, &log);

        return r < 0 ? r : RET_NERRNO(fchmod(log.fd, MODE_LOG));
}

/* ----------------------------------------------------------------------------------- checks */

/* Not where flush(8) looks for it. fflushd finds it, but where no layout has it only in a refresh.
 */
static void report_place(Verify *v, const SurveyEntry *e, int repair) {
        Finding f = finding("place", 1,
                            "not where it belongs since hash_queue_names or hash_queue_depth "
                            "changed; \"postfix reload\", a flush or a refresh moves it");

        f.note = e->found;
        f.repairable = true;
        report(v, e->path, &f, repair);
}

static bool is_out_of_place(const SurveyEntry *e) {
        return S_ISREG(e->st.st_mode) && queueid_valid(e->name, strlen(e->name)) &&
               e->name[1] != '\0' && !e->in_place;
}

/* Before anything is counted, so that nothing is counted where it was and where it went. */
static int visit_misplaced(const SurveyEntry *e, void *userdata) {
        uint64_t end = now_usec() + LOCK_USEC;
        Verify *v = userdata;
        int r;

        if (!is_out_of_place(e))
                return 0;
        do
                r = sitelog_gather_from(&v->ctl->queue, e->name, e->path, true);
        while (r == -EAGAIN && ctl_await_lock(end));
        report_place(v, e, r);
        return 0;
}

static const char *user_name(uid_t uid, char ret[static sizeof "4294967295"]) {
        const struct passwd *user = getpwuid(uid);

        if (user)
                return user->pw_name;
        (void) snprintf(ret, sizeof "4294967295", "%u", (unsigned) uid);
        return ret;
}

/* @path: has no character that a shell would take for more than itself */
static Finding wrong_owner(const Verify *v, const char *path, const struct stat *st) {
        char is[sizeof "4294967295"], should[sizeof "4294967295"];
        Finding f;

        /* getpwuid() has one place for its result. */
        f = finding("owner", 1, "owned by %s", user_name(st->st_uid, is));
        (void) snprintf(f.text + strlen(f.text), sizeof f.text - strlen(f.text), ", should be %s",
                        user_name(v->owner, should));
        (void) snprintf(f.remedy, sizeof f.remedy, "chown -h %s '%s/%s'",
                        user_name(v->owner, should), v->ctl->settings.queue_directory, path);
        return f;
}

static Finding unwanted(const char *kind, const char *text, const char *remedy) {
        Finding f = finding(kind, 1, "%s", text);

        (void) snprintf(f.remedy, sizeof f.remedy, "%s", remedy);
        return f;
}

static bool can_rename(const Verify *v, const SurveyEntry *e) {
        char site[SITE_SIZE];

        return !v->ctl->queue.hashed[QUEUE_FLUSH] && sitename_normalize(e->name, site) == 0 &&
               streq(site, e->name);
}

static Finding short_name(const Verify *v, const SurveyEntry *e) {
        const char *text = "a name of one character: Postfix does not start with it there";
        char command[CTL_UNIT_SIZE], remedy[CTL_UNIT_SIZE + 64];
        Finding f = finding("short_name", 1, "%s", text);

        f.repairable = can_rename(v, e);
        ctl_command_name(v->ctl, command);
        (void) snprintf(remedy, sizeof remedy, "move it elsewhere, then run \"%s import\"",
                        command);
        if (!f.repairable)
                f = unwanted("short_name", text, remedy);
        return f;
}

/* Return: whether something is wrong with the file, so that it is not read. */
static bool check_file(const Verify *v, const SurveyEntry *e, Finding *ret) {
        const struct stat *st = &e->st;

        if (!queueid_valid(e->name, strlen(e->name)))
                *ret = unwanted("name", "not the name of a log", "move it elsewhere");
        else if (!S_ISREG(st->st_mode))
                *ret = unwanted("type", "not a plain file", "move it elsewhere");
        else if (e->name[1] == '\0')
                *ret = short_name(v, e);
        else if (st->st_nlink > 1)
                *ret = unwanted("links", "has other hard links", "replace it by a copy");
        else if (st->st_uid != v->owner)
                *ret = wrong_owner(v, e->path, st);
        else
                return false;
        return true;
}

static int remember(Verify *v, const SurveyLog *log, unsigned long *ret_stale) {
        const StrSetEntry *e = NULL;
        int r = 0;

        *ret_stale = 0;
        while (r >= 0 && (e = strset_next(&log->ids, e))) {
                r = strset_add(&v->recorded, strset_entry_id(e));
                *ret_stale += is_stale(&v->ctl->queue, strset_entry_id(e));
        }
        return r < 0 ? r : 0;
}

static void check_lines(Verify *v, const SurveyEntry *e, const SurveyLog *log,
                        unsigned long stale) {
        unsigned long duplicate = log->records - strset_size(&log->ids);
        unsigned long torn = log->lost_tail, n = log->invalid;
        Finding findings[] = {
                finding("invalid", n, "%lu line%s not %squeue ID%s", n, n == 1 ? " is" : "s are",
                        n == 1 ? "a " : "", plural(n)),
                finding("torn", torn, "incomplete last line (%lu byte%s)", torn, plural(torn)),
                finding("duplicate", duplicate, "%lu record%s", duplicate,
                        duplicate == 1 ? " is a duplicate" : "s are duplicates"),
                finding("gone", stale, "%lu message%s no longer in the queue", stale,
                        stale == 1 ? " is" : "s are"),
        };
        bool any = false;
        int r = -EOPNOTSUPP;

        v->logs++;
        v->records += log->records;
        v->duplicate += duplicate;
        v->stale += stale;
        for (size_t i = 0; i < ARRAY_SIZE(findings); i++)
                any |= findings[i].count > 0;
        if (any && v->ctl->repair)
                r = repair_lines(v, e);
        for (size_t i = 0; i < ARRAY_SIZE(findings); i++) {
                findings[i].note = i >= 2;
                findings[i].repairable = true;
                if (findings[i].count > 0)
                        report(v, e->path, &findings[i], r);
        }
}

static void report_unreadable(Verify *v, const SurveyEntry *e, int error) {
        const Finding f = finding("unreadable", 1, "%s", strerror(-error));

        report(v, e->path, &f, -EOPNOTSUPP);
}

static int check_content(Verify *v, const SurveyEntry *e) {
        unsigned long stale = 0;
        _cleanup_(survey_done) SurveyLog log = {0};
        int r;

        r = survey_read(&v->ctl->queue, e->path, &log);
        if (r == 0)
                r = remember(v, &log, &stale);
        if (r == 0)
                check_lines(v, e, &log, stale);
        else if (r != -ENOMEM && r != -ENOENT)
                report_unreadable(v, e, r);
        return r == -ENOMEM ? r : 0;
}

static void check_mode(Verify *v, const SurveyEntry *e) {
        unsigned mode = e->st.st_mode & 07777;
        Finding f = finding("mode", 1, "mode is %04o, should be %04o", mode, MODE_LOG);

        f.repairable = true;
        if (mode != MODE_LOG)
                report(v, e->path, &f, v->ctl->repair ? repair_mode(v, e) : -EOPNOTSUPP);
}

static void check_name(Verify *v, const SurveyEntry *e) {
        char site[QUEUEID_MAX + 3];
        Finding f = finding("foreign", 1,
                            "written by flush(8), its site cannot be told; \"import\" records its "
                            "mail anew");

        f.note = true;
        if (!survey_site(e->name, site))
                report(v, e->path, &f, -EOPNOTSUPP);
}

static int visit_log(const SurveyEntry *e, void *userdata) {
        Verify *v = userdata;
        Finding f;

        if (check_file(v, e, &f)) {
                report(v, e->path, &f,
                       v->ctl->repair && f.repairable ? repair_name(v, e) : -EOPNOTSUPP);
                return 0;
        }
        if (!e->in_place && !v->ctl->repair)
                report_place(v, e, -EOPNOTSUPP);
        check_mode(v, e);
        check_name(v, e);
        return check_content(v, e);
}

static bool is_recorded(const char *id, void *userdata) {
        const Verify *v = userdata;

        return strset_contains(&v->recorded, id);
}

static void summarize_json(const Verify *v) {
        ctl_print_json(json_pack("{ss sI sI sI sI sI sI sI}", "type", "verify", "logs",
                                 (json_int_t) v->logs, "records", (json_int_t) v->records, "gone",
                                 (json_int_t) v->stale, "duplicate", (json_int_t) v->duplicate,
                                 "unrecorded", (json_int_t) v->unrecorded, "problems",
                                 (json_int_t) v->problems, "repairs", (json_int_t) v->repaired));
}

static void summarize(const Verify *v) {
        char command[CTL_UNIT_SIZE];

        if (v->ctl->quiet)
                return;
        if (v->ctl->json) {
                summarize_json(v);
                return;
        }
        ctl_command_name(v->ctl, command);
        ctl_print("%lu log%s, %lu record%s: %lu gone, %lu duplicate; %lu deferred message%s "
                  "without a record; %lu problem%s",
                  v->logs, plural(v->logs), v->records, plural(v->records), v->stale, v->duplicate,
                  v->unrecorded, plural(v->unrecorded), v->problems, plural(v->problems));
        if (v->ctl->repair)
                ctl_print("; %lu finding%s repaired", v->repaired, plural(v->repaired));
        ctl_print("\n");
        if (v->repairable > 0)
                ctl_print("\"%s verify --repair\" mends %lu of these findings\n", command,
                          v->repairable);
        if (v->unrecorded > 0)
                ctl_print("\"%s import\" records deferred messages of eligible sites\n", command);
}

/* The directory of the logs is a finding like any other; all that is in it goes by the queue. */
static void check_directory(Verify *v, const struct stat *st) {
        const Finding f = wrong_owner(v, queue_name(QUEUE_FLUSH), st);

        if (st->st_uid != v->owner)
                report(v, queue_name(QUEUE_FLUSH), &f, -EOPNOTSUPP);
}

static int walk(Verify *v) {
        int r = v->ctl->repair ? survey_walk(&v->ctl->queue, QUEUE_FLUSH, visit_misplaced, v) : 0;

        if (r == 0)
                r = survey_walk(&v->ctl->queue, QUEUE_FLUSH, visit_log, v);
        if (r == 0)
                r = deferred_count_unrecorded(&v->ctl->queue, is_recorded, v, &v->unrecorded);
        strset_clear(&v->recorded);
        if (r == 0)
                return EX_OK;
        ctl_error("cannot look at the queue: %s", ctl_strerror(r));
        return r == -EACCES ? EX_NOPERM : EX_IOERR;
}

int ctl_verify(Ctl *ctl, char *args[]) {
        Verify v = {.ctl = ctl};
        struct stat queue, logs;
        int status;

        status = ctl_queue(ctl);
        if (status != EX_OK)
                return status;
        if (fstatat(ctl->queue.fd, queue_name(QUEUE_INCOMING), &queue, 0) < 0 ||
            fstatat(ctl->queue.fd, queue_name(QUEUE_FLUSH), &logs, AT_SYMLINK_NOFOLLOW) < 0) {
                ctl_error("%s: %s", ctl->settings.queue_directory, strerror(errno));
                return EX_NOINPUT;
        }
        v.owner = queue.st_uid;
        status = ctl->repair ? ctl_become_owner(ctl) : EX_OK;
        if (status != EX_OK)
                return status;
        check_directory(&v, &logs);
        status = walk(&v);
        if (status != EX_OK)
                return status;
        summarize(&v);
        return v.problems > v.mended ? EX_DATAERR : EX_OK;
}
