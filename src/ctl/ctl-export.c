/* SPDX-License-Identifier: MIT */

/* fflushctl export: logs under the names that flush(8) looks for. */

#include <stdio.h>
#include <sys/stat.h>

#include "core/sitelog.h"
#include "core/sitename.h"
#include "core/survey.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "util/util.h"

/* flush(8) has a log locked for as long as it flushes it. */
#define LOCK_USEC (30 * USEC_PER_SEC)

typedef struct Export {
        Ctl *ctl;
        StrSet names; /* of logs; one may have parts in several places */
        unsigned long logs, records, one_letter;
} Export;

/* Names are kept for later: logs that are made meanwhile shall not be met by the same walk. */
static int keep_name(const SurveyEntry *e, void *userdata) {
        char site[SITE_SIZE], folded[SITE_LOG_SIZE];
        Export *x = userdata;
        int r;

        if (!e->found || !S_ISREG(e->st.st_mode) || sitename_from_log(e->name, site) < 0)
                return 0;
        sitename_to_original(site, folded);
        if (streq(folded, e->name))
                return 0;
        if (strlen(folded) < 2) { /* a name of one character would keep Postfix from starting */
                x->one_letter++;
                return 0;
        }
        r = strset_add(&x->names, e->name);
        return r < 0 ? r : 0;
}

/* All of a locked log, with a newline at its end. */
static int read_all(const SiteLog *log, char **ret, size_t *ret_n) {
        size_t size = (size_t) log->st.st_size, n = 0;
        _cleanup_free_ char *text = NULL;

        if ((uintmax_t) log->st.st_size >= SIZE_MAX) /* of 32 bits */
                return -EFBIG;
        text = malloc(size + 1);
        if (!text)
                return -ENOMEM;
        while (n < size) {
                ssize_t k = sitelog_read(log, text + n, size - n, (off_t) n);

                if (k <= 0)
                        return k < 0 ? (int) k : -EIO;
                n += (size_t) k;
        }
        if (n > 0 && text[n - 1] != '\n')
                text[n++] = '\n';
        *ret = TAKE_PTR(text);
        *ret_n = n;
        return 0;
}

static unsigned long count_lines(const char *text, size_t n) {
        unsigned long lines = 0;

        for (size_t i = 0; i < n; i++)
                lines += text[i] == '\n';
        return lines;
}

/* The records of @from are appended to @to, and are on the disk there before they are removed from
 * @from: a crash in between leaves it in both, which does no harm. */
static int merge(const Queue *q, SiteLog *from, SiteLog *to, unsigned long *ret_records) {
        struct timespec times[2] = {from->st.st_atim, from->st.st_mtim};
        _cleanup_free_ char *text = NULL;
        bool is_new = to->st.st_size == 0;
        size_t n = 0;
        int r;

        r = read_all(from, &text, &n);
        if (r == 0 && n > 0)
                r = sitelog_append(q, to, text, n, true);
        if (r < 0)
                return r;
        if (is_new) /* by these it is known when the log was last flushed */
                (void) futimens(to->fd, times);
        *ret_records = count_lines(text, n);
        r = sitelog_replace_prefix(from, from->st.st_size, NULL, 0, true);
        if (r == 0)
                r = sitelog_remove_if_empty(q, from);
        /* Busy: somebody has it open; it is empty, so it can stay. 1: fflushd looks after itself,
         * and flush(8) opens no such name. */
        return r == -EBUSY || r > 0 ? 0 : r;
}

static int try_export(const Queue *q, const char *name, const char *folded,
                      unsigned long *ret_records) {
        _cleanup_(sitelog_close) SiteLog from = SITELOG_INIT, to = SITELOG_INIT;
        int r;

        *ret_records = 0;
        r = sitelog_gather(q, name, true);
        if (r < 0)
                return r;
        r = sitelog_gather(q, folded, true); /* flush(8) looks where the settings have it only */
        if (r < 0)
                return r;
        r = sitelog_open(q, name, false, &from);
        if (r < 0) /* gone meanwhile: what was in it was flushed */
                return r == -ENOENT ? 0 : r;
        r = sitelog_open(q, folded, true, &to);
        if (r < 0)
                return r;
        return merge(q, &from, &to, ret_records);
}

static int preview(Ctl *ctl, const char *name, unsigned long *ret_records) {
        _cleanup_(survey_done) SurveyLog log = {0};
        int r;

        r = survey_read_log(&ctl->queue, name, &log);
        *ret_records = log.records;
        return r == -ENOENT ? 0 : r;
}

/* Neither lock is waited for while the other one is held. */
static int export_log(Export *x, const char *name, const char *folded, unsigned long *ret_records) {
        uint64_t end = now_usec() + LOCK_USEC;
        int r;

        if (x->ctl->dry_run)
                return preview(x->ctl, name, ret_records);
        do
                r = try_export(&x->ctl->queue, name, folded, ret_records);
        while (r == -EAGAIN && ctl_await_lock(end));
        return r;
}

static int export_one(Export *x, const char *name) {
        char site[SITE_SIZE], folded[SITE_LOG_SIZE];
        unsigned long records;
        int r;

        (void) sitename_from_log(name, site); /* keep_name() has seen that it works */
        sitename_to_original(site, folded);
        r = export_log(x, name, folded, &records);
        if (r < 0) {
                ctl_error("%s: %s", site, r == -EAGAIN ? "its log is in use" : strerror(-r));
                return r == -EAGAIN ? EX_TEMPFAIL : EX_IOERR;
        }
        x->logs++;
        x->records += records;
        if (x->ctl->json)
                ctl_print_json(json_pack("{ss ss ss sI sb}", "site", site, "from", name, "to",
                                         folded, "records", (json_int_t) records, "dry_run",
                                         x->ctl->dry_run));
        else if (!x->ctl->quiet)
                ctl_print("%s: %lu record%s: flush/%s -> flush/%s\n", site, records,
                          records == 1 ? "" : "s", name, folded);
        return EX_OK;
}

static int export_all(Export *x) {
        const StrSetEntry *e = NULL;
        int r, worst = EX_OK;

        r = survey_walk(&x->ctl->queue, QUEUE_FLUSH, keep_name, x);
        if (r < 0) {
                ctl_error("cannot look at the logs: %s", strerror(-r));
                return r == -EACCES ? EX_NOPERM : EX_IOERR;
        }
        while ((e = strset_next(&x->names, e)))
                worst = ctl_worse(worst, export_one(x, strset_entry_id(e)));
        return worst;
}

int ctl_export_logs(Ctl *ctl) {
        Export x = {.ctl = ctl};
        int status;

        status = ctl_queue(ctl);
        if (status == EX_OK && !ctl->dry_run)
                status = ctl_become_owner(ctl);
        if (status == EX_OK)
                status = export_all(&x);
        strset_clear(&x.names);
        if (x.one_letter > 0)
                ctl_error("%lu logs of one-letter sites stay: Postfix does not start with such a "
                          "name; a refresh flushes them",
                          x.one_letter);
        return status;
}

int ctl_export(Ctl *ctl, char *args[]) {
        _cleanup_free_ char *asked = NULL;
        char command[CTL_UNIT_SIZE];
        int status;

        status = ctl_settings(ctl);
        if (status != EX_OK)
                return status;
        asked = ctl_postconf(ctl, "flush_service_name");
        if (!asked && ctl->settings.postfix_config_directory[0]) {
                ctl_error("cannot read with postconf(1) whether Postfix uses fflushd, which would "
                          "not find "
                          "these logs any more");
                return EX_CONFIG;
        }
        if (!asked || !streq(asked, CTL_SERVICE))
                return ctl_export_logs(ctl);
        ctl_command_name(ctl, command);
        ctl_error("Postfix uses fflushd, which would not find these logs any more: %s "
                  "disable-postfix exports them when it has switched back",
                  command);
        return EX_CONFIG;
}
