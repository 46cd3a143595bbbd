/* SPDX-License-Identifier: MIT */

/* fflushctl history: who had what flushed, and what became of it, by the journal's entries of the
 * service and of fflushctl (audit). */

#include <pwd.h>
#include <stdio.h>
#include <systemd/sd-journal.h>

#include "ctl/audit.h"
#include "ctl/columns.h"
#include "ctl/commands.h"
#include "ctl/ctl-history.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "util/timespan.h"
#include "util/util.h"

#define FIELD_SIZE 256u
#define WHO_SIZE   160u
#define SINCE_USEC (7 * 86400 * USEC_PER_SEC) /* without --since */
#define ROWS_MAX   100000u                    /* the oldest are left out */

/* A flush, by what the service said; then by what fflushctl said of the same process. */
typedef struct Row {
        uint64_t time; /* microseconds since 1970 */
        unsigned long pid, uid;
        char request[16], site[FIELD_SIZE], reason[FIELD_SIZE], who[WHO_SIZE];
        unsigned long found, moved;
        bool has_outcome;
        AuditOutcome outcome;
} Row;

typedef struct History {
        Row *rows;
        size_t n, size;
        unsigned long n_left_out;
        const char *unit; /* of the service */
} History;

static void history_done(History *h) {
        free(h->rows);
}

/* --------------------------------------------------------------------------------------- fields */

/* @ret: "" if the entry has no such field. */
static void read_text(sd_journal *j, const char *name, char ret[static FIELD_SIZE]) {
        size_t n, n_name = strlen(name) + 1;
        const void *data;

        ret[0] = '\0';
        if (sd_journal_get_data(j, name, &data, &n) < 0 || n < n_name)
                return;
        (void) snprintf(ret, FIELD_SIZE, "%.*s", (int) (n - n_name), (const char *) data + n_name);
}

static unsigned long read_number(sd_journal *j, const char *name) {
        char text[FIELD_SIZE];

        read_text(j, name, text);
        return strtoul(text, NULL, 10);
}

static bool field_is(sd_journal *j, const char *name, const char *value) {
        char text[FIELD_SIZE];

        read_text(j, name, text);
        return streq(text, value);
}

/* -------------------------------------------------------------------------------------- entries */

static void name_user(unsigned long uid, char ret[static WHO_SIZE]) {
        const struct passwd *pw = getpwuid((uid_t) uid);

        if (pw)
                (void) snprintf(ret, WHO_SIZE, "%s", pw->pw_name);
        else
                (void) snprintf(ret, WHO_SIZE, "uid %lu", uid);
}

static int add_row(History *h, const Row *row) {
        if (h->n == ROWS_MAX) {
                h->n_left_out += h->n / 2;
                memmove(h->rows, h->rows + h->n / 2, (h->n - h->n / 2) * sizeof *h->rows);
                h->n -= h->n / 2;
        }
        if (h->n == h->size) {
                size_t size = h->size ? 2 * h->size : 64;
                Row *rows = reallocarray(h->rows, size, sizeof *rows);

                if (!rows)
                        return -ENOMEM;
                h->rows = rows;
                h->size = size;
        }
        h->rows[h->n++] = *row;
        return 0;
}

/* An entry of the service: who may write one cannot choose _SYSTEMD_UNIT. */
static int take_service(History *h, sd_journal *j, uint64_t time) {
        Row row = {.time = time};
        char request[FIELD_SIZE];

        if (!field_is(j, "_SYSTEMD_UNIT", h->unit))
                return 0;
        read_text(j, "FFLUSHD_REQUEST", request);
        if (!streq(request, "send_site") && !streq(request, "send_file") &&
            !streq(request, "refresh") && !streq(request, "purge"))
                return 0;
        (void) snprintf(row.request, sizeof row.request, "%.15s", request);
        read_text(j, "FFLUSHD_SITE", row.site);
        if (!row.site[0])
                read_text(j, "FFLUSHD_QUEUE_ID", row.site);
        read_text(j, "FFLUSHD_REASON", row.reason);
        row.pid = read_number(j, "FFLUSHD_CALLER_PID");
        row.uid = read_number(j, "FFLUSHD_CALLER_UID");
        row.found = read_number(j, "FFLUSHD_FOUND");
        row.moved = read_number(j, "FFLUSHD_MOVED");
        name_user(row.uid, row.who);
        return add_row(h, &row);
}

static void read_outcome(sd_journal *j, AuditOutcome *ret) {
        *ret = (AuditOutcome){.moved = read_number(j, "FFLUSHD_MOVED"),
                              .delivered = read_number(j, "FFLUSHD_DELIVERED"),
                              .returned = read_number(j, "FFLUSHD_RETURNED"),
                              .expired = read_number(j, "FFLUSHD_EXPIRED"),
                              .deleted = read_number(j, "FFLUSHD_DELETED"),
                              .deferred = read_number(j, "FFLUSHD_DEFERRED"),
                              .held = read_number(j, "FFLUSHD_HELD"),
                              .under_way = read_number(j, "FFLUSHD_UNDER_WAY"),
                              .unknown = read_number(j, "FFLUSHD_UNKNOWN")};
}

static void describe_who(sd_journal *j, char ret[static WHO_SIZE]) {
        char login[FIELD_SIZE], remote[FIELD_SIZE];
        bool sudo = field_is(j, "FFLUSHD_SUDO", "1");

        read_text(j, "FFLUSHD_LOGIN", login);
        read_text(j, "FFLUSHD_REMOTE", remote);
        if (!login[0])
                return;
        (void) snprintf(ret, WHO_SIZE, "%.60s%s%s%s%.60s%s", login, sudo || remote[0] ? " (" : "",
                        sudo ? "sudo" : "", sudo && remote[0] ? ", " : "", remote,
                        sudo || remote[0] ? ")" : "");
}

/* An entry of fflushctl belongs to the rows of the process that wrote it, as journald has seen. Its
 * outcome is that of all portions of the site: the last row shows it. */
static void take_audit(History *h, sd_journal *j) {
        unsigned long pid = read_number(j, "_PID");
        bool has_outcome = read_number(j, "FFLUSHD_MOVED") > 0;
        char site[FIELD_SIZE];

        read_text(j, "FFLUSHD_SITE", site);
        if (!site[0])
                read_text(j, "FFLUSHD_QUEUE_ID", site);
        for (size_t i = h->n; i > 0; i--) {
                Row *row = &h->rows[i - 1];

                if (row->pid != pid || row->has_outcome)
                        continue;
                describe_who(j, row->who);
                row->has_outcome = has_outcome && streq(row->site, site);
                has_outcome = has_outcome && !row->has_outcome;
                if (row->has_outcome)
                        read_outcome(j, &row->outcome);
        }
}

static int take_entry(History *h, sd_journal *j) {
        uint64_t time;

        if (sd_journal_get_realtime_usec(j, &time) < 0)
                return 0;
        if (field_is(j, "MESSAGE_ID", AUDIT_MESSAGE_ID)) {
                take_audit(h, j);
                return 0;
        }
        return take_service(h, j, time);
}

/* ------------------------------------------------------------------------------------------ time
 */

static bool parse_date(const char *text, uint64_t *ret) {
        static const char *const formats[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"};

        for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
                struct tm tm = {.tm_isdst = -1};
                const char *end = strptime(text, formats[i], &tm);
                time_t t = end && *end == '\0' ? mktime(&tm) : (time_t) -1;

                if (t != (time_t) -1) {
                        *ret = (uint64_t) t * USEC_PER_SEC;
                        return true;
                }
        }
        return false;
}

/* Midnight, @days ago. */
static uint64_t start_of_day(int days) {
        time_t now = time(NULL);
        struct tm tm;

        (void) localtime_r(&now, &tm);
        tm = (struct tm){.tm_year = tm.tm_year,
                         .tm_mon = tm.tm_mon,
                         .tm_mday = tm.tm_mday - days,
                         .tm_isdst = -1};
        return (uint64_t) mktime(&tm) * USEC_PER_SEC;
}

/* "today", "yesterday", "2h", "2026-11-27 03:00" */
static int parse_since(const char *text, uint64_t *ret) {
        uint64_t now = realtime_usec(), span;

        if (!text)
                *ret = now - SINCE_USEC;
        else if (streq(text, "today"))
                *ret = start_of_day(0);
        else if (streq(text, "yesterday"))
                *ret = start_of_day(1);
        else if (!parse_date(text, ret)) {
                if (timespan_parse(text, 's', &span) < 0 || span > now)
                        return -EINVAL;
                *ret = now - span;
        }
        return 0;
}

/* ---------------------------------------------------------------------------------------- output
 */

static const char *name_of(const Row *row) {
        if (streq(row->request, "send_site") || streq(row->request, "send_file"))
                return row->site;
        return streq(row->request, "purge") ? "(all)" : "(refresh)";
}

static json_t *json_of(const Row *row) {
        const AuditOutcome *o = &row->outcome;
        json_t *outcome =
                row->has_outcome
                        ? json_pack("{sI sI sI sI sI sI sI sI}", "delivered",
                                    (json_int_t) o->delivered, "returned", (json_int_t) o->returned,
                                    "expired", (json_int_t) o->expired, "deleted",
                                    (json_int_t) o->deleted, "deferred", (json_int_t) o->deferred,
                                    "held", (json_int_t) o->held, "under_way",
                                    (json_int_t) o->under_way, "unknown", (json_int_t) o->unknown)
                        : json_null();

        return json_pack("{ss sI ss so so sI sI so? so}", "type", "flush", "time",
                         (json_int_t) (row->time / USEC_PER_SEC), "request", row->request,
                         streq(row->request, "send_file") ? "queue_id" : "site",
                         row->site[0] ? ctl_json_text(row->site) : json_null(), "by",
                         ctl_json_text(row->who), "uid", (json_int_t) row->uid, "moved",
                         (json_int_t) row->moved, "reason",
                         row->reason[0] ? ctl_json_text(row->reason) : json_null(), "outcome",
                         outcome);
}

static int add_cells(Columns *c, const Row *row) {
        char when[32], outcome[AUDIT_TEXT_SIZE] = "";
        time_t t = (time_t) (row->time / USEC_PER_SEC);
        struct tm tm;

        (void) localtime_r(&t, &tm);
        (void) strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
        if (row->has_outcome)
                (void) audit_describe(&row->outcome, outcome);
        return columns_add(c, "%s", when) | columns_add(c, "%s", row->who) |
               columns_add(c, "%s", name_of(row)) | columns_add(c, "%lu", row->moved) |
               columns_add(c, "%s", outcome) | columns_add(c, "%s", row->reason);
}

static int print_rows(const Ctl *ctl, const History *h) {
        static const char *const titles[] = {"TIME",    "BY",     "DESTINATION", ">MOVED",
                                             "OUTCOME", "REASON", NULL};
        _cleanup_(columns_done) Columns c = {.titles = titles};
        size_t first = ctl->top > 0 && ctl->top < h->n ? h->n - ctl->top : 0;
        int r = 0;

        for (size_t i = first; i < h->n && r == 0; i++)
                if (ctl->json)
                        ctl_print_json(json_of(&h->rows[i]));
                else
                        r = add_cells(&c, &h->rows[i]);
        if (r < 0)
                return ctl_no_memory();
        if (!ctl->json)
                columns_print(&c, stdout, ctl_style(CTL_BOLD), ctl_style(CTL_PLAIN));
        return EX_OK;
}

/* ---------------------------------------------------------------------------------------- command
 */

/* Those of the sites that are meant; all, if none is named. */
static void select_rows(History *h, CtlPatterns *patterns) {
        size_t n = 0;

        for (size_t i = 0; i < h->n; i++)
                if (ctl_patterns_match(patterns, h->rows[i].site))
                        h->rows[n++] = h->rows[i];
        h->n = n;
}

/* @site: NULL: of all. */
static int open_journal(const Ctl *ctl, uint64_t since, const char *site, sd_journal **ret) {
        const char *instance = ctl->instance ? ctl->instance : "postfix";
        char match[SITE_SIZE + FIELD_SIZE];
        sd_journal *j;
        int r = sd_journal_open(&j, SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_SYSTEM);

        if (r < 0)
                return r;
        (void) snprintf(match, sizeof match, "FFLUSHD_INSTANCE=%s", instance);
        r = sd_journal_add_match(j, match, 0);
        if (site)
                (void) snprintf(match, sizeof match, "FFLUSHD_SITE=%s", site);
        if (r >= 0 && site)
                r = sd_journal_add_match(j, match, 0);
        if (r >= 0)
                r = sd_journal_seek_realtime_usec(j, since);
        /* Without permission it can be opened, and is empty. */
        if (r >= 0 && sd_journal_has_runtime_files(j) <= 0 &&
            sd_journal_has_persistent_files(j) <= 0)
                r = -EACCES;
        if (r < 0) {
                sd_journal_close(j);
                return r;
        }
        *ret = j;
        return 0;
}

static void close_journal(sd_journal **j) {
        if (*j)
                sd_journal_close(*j);
}

bool ctl_last_flush(Ctl *ctl, const char *site, uint64_t age, CtlLastFlush *ret) {
        _cleanup_(history_done) History h = {0};
        _cleanup_(close_journal) sd_journal *j = NULL;
        uint64_t now = realtime_usec();
        char unit[CTL_UNIT_SIZE];

        ctl_unit_name(ctl, "fflushd", "service", unit);
        h.unit = unit;
        if (open_journal(ctl, now - age, site, &j) < 0)
                return false;
        while (sd_journal_next(j) > 0)
                if (take_entry(&h, j) < 0)
                        return false;
        for (size_t i = h.n; i > 0; i--) {
                const Row *row = &h.rows[i - 1];

                if (row->moved == 0 || !streq(row->request, "send_site"))
                        continue;
                *ret = (CtlLastFlush){.time = row->time,
                                      .age = now > row->time ? now - row->time : 0};
                (void) snprintf(ret->who, sizeof ret->who, "%s", row->who);
                (void) snprintf(ret->reason, sizeof ret->reason, "%s", row->reason);
                return true;
        }
        return false;
}

int ctl_history(Ctl *ctl, char *args[]) {
        _cleanup_(history_done) History h = {0};
        _cleanup_(close_journal) sd_journal *j = NULL;
        _cleanup_(ctl_patterns_done) CtlPatterns patterns = {0};
        char unit[CTL_UNIT_SIZE];
        uint64_t since;
        int r, status;

        if (parse_since(ctl->since, &since) < 0)
                return ctl_usage("--since: \"today\", \"yesterday\", a time span such as 2h, or "
                                 "YYYY-MM-DD [HH:MM[:SS]]; not %s",
                                 ctl->since);
        status = ctl_patterns_parse(ctl, args, &patterns);
        if (status != EX_OK)
                return status;
        ctl_unit_name(ctl, "fflushd", "service", unit);
        h.unit = unit;
        r = open_journal(ctl, since, NULL, &j);
        if (r < 0) {
                ctl_error("cannot read the journal: %s%s", strerror(-r),
                          r == -EACCES ? " (run as root, or as a member of systemd-journal)" : "");
                return r == -EACCES ? EX_NOPERM : EX_OSERR;
        }
        while (r >= 0 && sd_journal_next(j) > 0)
                r = take_entry(&h, j);
        if (r < 0)
                return ctl_no_memory();
        if (h.n_left_out > 0)
                ctl_error("%lu older flushes are left out: see --since", h.n_left_out);
        select_rows(&h, &patterns);
        return h.n > 0 && !ctl->quiet ? print_rows(ctl, &h) : EX_OK;
}
