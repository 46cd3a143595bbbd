/* SPDX-License-Identifier: MIT */

/* fflushctl verify: do the logs and the queue agree? With --repair, what can be mended safely is:
 * under the locks, by the owner of the queue, and never at the price of a record. */

#include <fcntl.h>
#include <stdio.h>

#include "core/sitelog.h"
#include "core/sitename.h"
#include "core/survey.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "util/util.h"

#define MODE_LOG 0600

/* fflushd holds a lock for milliseconds, but flush(8) for as long as a flush takes: such a log is
 * left as it is. */
#define LOCK_USEC (2 * USEC_PER_SEC)

typedef struct Verify {
        Ctl *ctl;
        uid_t owner; /* of the logs' directory, and so of all there */
        StrSet recorded;
        unsigned long logs, records, stale, duplicate, unrecorded, problems, repaired;
} Verify;

/* Something wrong with a log. A note is not a fault, but can be repaired. */
typedef struct Finding {
        const char *kind; /* for programs */
        const char *text;
        unsigned long count; /* of what @text says; 0: once */
        bool note;
} Finding;

static void report(Verify *v, const char *path, const Finding *f, int repair) {
        bool repaired = v->ctl->repair && repair == 0;
        char count[sizeof "18446744073709551615 "] = "";
        const char *outcome = repaired                                   ? " (repaired)"
                              : !v->ctl->repair || repair == -EOPNOTSUPP ? ""
                                                                         : strerror(-repair);

        v->problems += !f->note;
        v->repaired += repaired && !f->note;
        if (v->ctl->quiet && (f->note || repaired))
                return;
        if (v->ctl->json) {
                ctl_print_json(json_pack("{so ss sI sb sb}", "path", ctl_json_text(path), "finding",
                                         f->kind, "count", (json_int_t) (f->count ? f->count : 1),
                                         "problem", !f->note, "repaired", repaired));
                return;
        }
        if (f->count > 0)
                (void) snprintf(count, sizeof count, "%lu ", f->count);
        ctl_print_in(f->note || repaired ? CTL_PLAIN : CTL_RED, "%s: %s%s%s%s", path, count,
                     f->text, outcome[0] && !repaired ? "; cannot be repaired: " : "", outcome);
        ctl_print("\n");
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
        return sitelog_replace_prefix(&log, (size_t) log.st.st_size, keep.data, keep.n, true);
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
        char site[SITE_SIZE], name[SITE_LOG_SIZE];
        const Queue *q = &v->ctl->queue;
        int r;

        if (q->hashed[QUEUE_FLUSH] || sitename_normalize(e->name, site) < 0 ||
            !streq(site, e->name))
                return -EOPNOTSUPP;
        sitename_to_log(site, name);
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
        r = sitelog_replace_prefix(&from, (size_t) from.st.st_size, "", 0, false);
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
        const Finding f = {"place",
                           "not where it belongs since hash_queue_names or hash_queue_depth "
                           "changed; \"postfix reload\", a flush or a refresh moves it",
                           .note = e->found};

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

static const Finding *check_file(const Verify *v, const SurveyEntry *e) {
        static const Finding findings[] = {
                {"name", "not the name of a log"},
                {"short_name", "a name of one character: Postfix does not start with it there"},
                {"type", "not a plain file"},
                {"links", "has other hard links"},
                {"owner", "not owned by the owner of the queue"},
        };
        const struct stat *st = &e->st;

        if (!queueid_valid(e->name, strlen(e->name)))
                return &findings[0];
        if (!S_ISREG(st->st_mode))
                return &findings[2];
        if (e->name[1] == '\0')
                return &findings[1];
        if (st->st_nlink > 1)
                return &findings[3];
        return st->st_uid != v->owner ? &findings[4] : NULL;
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
        const Finding findings[] = {
                {"invalid", "lines are no queue IDs", log->invalid},
                {"torn", "bytes of a last line that does not end", log->lost_tail},
                {"duplicate", "records are there twice", duplicate, true},
                {"stale", "messages are no longer in the queue", stale, true},
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
        for (size_t i = 0; i < ARRAY_SIZE(findings); i++)
                if (findings[i].count > 0)
                        report(v, e->path, &findings[i], r);
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
                report(v, e->path, &(Finding){"unreadable", strerror(-r)}, -EOPNOTSUPP);
        return r == -ENOMEM ? r : 0;
}

static int visit_log(const SurveyEntry *e, void *userdata) {
        char site[QUEUEID_MAX + 3];
        const Finding *f;
        Verify *v = userdata;

        f = check_file(v, e);
        if (f) {
                report(v, e->path, f,
                       v->ctl->repair && streq(f->kind, "short_name") ? repair_name(v, e)
                                                                      : -EOPNOTSUPP);
                return 0;
        }
        if (!e->in_place && !v->ctl->repair)
                report_place(v, e, -EOPNOTSUPP);
        if ((e->st.st_mode & 07777) != MODE_LOG)
                report(v, e->path,
                       &(Finding){"mode", "others may read or write it, or its owner may not"},
                       v->ctl->repair ? repair_mode(v, e) : -EOPNOTSUPP);
        if (!survey_site(e->name, site))
                report(v, e->path,
                       &(Finding){"foreign",
                                  "written by flush(8), its site cannot be told; "
                                  "\"import\" records its mail anew",
                                  .note = true},
                       -EOPNOTSUPP);
        return check_content(v, e);
}

static int visit_deferred(const SurveyEntry *e, void *userdata) {
        Verify *v = userdata;

        v->unrecorded += queueid_valid(e->name, strlen(e->name)) && S_ISREG(e->st.st_mode) &&
                         !strset_contains(&v->recorded, e->name);
        return 0;
}

static void summarize(const Verify *v) {
        char command[CTL_UNIT_SIZE];

        if (v->ctl->quiet)
                return;
        ctl_command_name(v->ctl, command);
        if (v->ctl->json)
                ctl_print_json(
                        json_pack("{sI sI sI sI sI sI sI}", "logs", (json_int_t) v->logs, "records",
                                  (json_int_t) v->records, "stale", (json_int_t) v->stale,
                                  "duplicate", (json_int_t) v->duplicate, "unrecorded",
                                  (json_int_t) v->unrecorded, "problems", (json_int_t) v->problems,
                                  "repaired", (json_int_t) v->repaired));
        else {
                ctl_print("%lu logs, %lu records: %lu of messages that are gone, %lu twice; %lu "
                          "deferred messages are recorded nowhere; %lu problems, %lu repaired\n",
                          v->logs, v->records, v->stale, v->duplicate, v->unrecorded, v->problems,
                          v->repaired);
                if (v->unrecorded > 0)
                        ctl_print("\"%s import\" records those of eligible sites\n", command);
        }
}

/* The directory of the logs is a finding like any other; all that is in it goes by the queue. */
static void check_directory(Verify *v, const struct stat *st) {
        if (st->st_uid != v->owner)
                report(v, queue_name(QUEUE_FLUSH),
                       &(Finding){"owner", "not owned by the owner of the queue"}, -EOPNOTSUPP);
}

static int walk(Verify *v) {
        int r = v->ctl->repair ? survey_walk(&v->ctl->queue, QUEUE_FLUSH, visit_misplaced, v) : 0;

        if (r == 0)
                r = survey_walk(&v->ctl->queue, QUEUE_FLUSH, visit_log, v);
        if (r == 0)
                r = survey_walk(&v->ctl->queue, QUEUE_DEFERRED, visit_deferred, v);
        strset_clear(&v->recorded);
        if (r == 0)
                return EX_OK;
        ctl_error("cannot look at the queue: %s", strerror(-r));
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
        return v.problems > v.repaired ? EX_DATAERR : EX_OK;
}
