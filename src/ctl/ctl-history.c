/* SPDX-License-Identifier: MIT */

/* fflushctl history: who had what flushed, and what became of it, by the journal's entries of the
 * service and of fflushctl (audit). */

#include <pwd.h>
#include <stdio.h>
#include <systemd/sd-journal.h>

#include "core/request.h"
#include "ctl/audit.h"
#include "ctl/columns.h"
#include "ctl/commands.h"
#include "ctl/ctl-history.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "util/grow.h"
#include "util/timespan.h"
#include "util/util.h"

#define FIELD_SIZE 1024u /* a reason of REQUEST_REASON_MAX bytes, escaped, has room */
#define WHO_SIZE   160u
#define SINCE_USEC (7 * 86400 * USEC_PER_SEC) /* without --since */
#define ROWS_MAX   100000u                    /* the oldest are left out */

/* A flush, by what the service said; then by what fflushctl said of the same process. */
typedef struct Row {
        uint64_t time; /* microseconds since 1970 */
        unsigned long pid, uid;
        const char *request; /* static */
        char *what;          /* site or queue ID; NULL: all of a refresh or purge */
        char *reason, *who;  /* the former may be NULL */
        unsigned long moved, sites;
        bool is_failed, has_who, has_outcome;
        AuditOutcome outcome;
} Row;

typedef struct History {
        Row *rows;
        size_t n, size;
        unsigned long n_left_out;
        const char *unit; /* of the service */
} History;

static void row_done(Row *row) {
        free(row->what);
        free(row->reason);
        free(row->who);
}

static void history_done(History *h) {
        while (h->n > 0)
                row_done(&h->rows[--h->n]);
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

/* Return: NULL if the entry has none of these fields. */
static char *copy_text(sd_journal *j, const char *name, const char *other) {
        char text[FIELD_SIZE];

        read_text(j, name, text);
        if (!text[0] && other)
                read_text(j, other, text);
        return text[0] ? strdup(text) : NULL;
}

/* -------------------------------------------------------------------------------------- entries */

static void name_user(unsigned long uid, char ret[static WHO_SIZE]) {
        const struct passwd *pw = getpwuid((uid_t) uid);

        if (pw)
                (void) snprintf(ret, WHO_SIZE, "%s", pw->pw_name);
        else
                (void) snprintf(ret, WHO_SIZE, "uid %lu", uid);
}

static Row *new_row(History *h) {
        if (h->n == ROWS_MAX) {
                size_t n_old = h->n / 2;

                for (size_t i = 0; i < n_old; i++)
                        row_done(&h->rows[i]);
                memmove(h->rows, h->rows + n_old, (h->n - n_old) * sizeof *h->rows);
                h->n -= n_old;
                h->n_left_out += n_old;
        }
        return GROW(h->rows, h->n, h->size) ? &h->rows[h->n] : NULL;
}

/* By the word on the wire; NULL: not a flush. */
static const char *find_request(sd_journal *j) {
        static const RequestKind kinds[] = {REQUEST_SEND_SITE, REQUEST_SEND_FILE, REQUEST_REFRESH,
                                            REQUEST_PURGE};

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (field_is(j, "FFLUSHD_REQUEST", request_name(kinds[i])))
                        return request_name(kinds[i]);
        return NULL;
}

/* Refused is what anybody may ask by ETRN, a refresh that moved nothing is the timer's, and a probe
 * is enable-postfix's: none of it is a flush. */
static bool is_flush(const Row *row, sd_journal *j) {
        unsigned long status = read_number(j, "FFLUSHD_STATUS");

        if (status == REQUEST_BAD || status == REQUEST_DENY)
                return false;
        if (field_is(j, "FFLUSHD_QUEUE_ID", REQUEST_PROBE_ID))
                return false;
        return row->is_failed || row->moved > 0 || !streq(row->request, "refresh");
}

static int take_service(History *h, sd_journal *j, uint64_t time) {
        const char *request = find_request(j);
        char who[WHO_SIZE];
        Row *row;

        /* Everybody may write the other fields. */
        if (!request || !field_is(j, "_SYSTEMD_UNIT", h->unit))
                return 0;
        row = new_row(h);
        if (!row)
                return -ENOMEM;
        *row = (Row){.time = time,
                     .request = request,
                     .pid = read_number(j, "FFLUSHD_CALLER_PID"),
                     .uid = read_number(j, "FFLUSHD_CALLER_UID"),
                     .moved = read_number(j, "FFLUSHD_MOVED"),
                     .sites = read_number(j, "FFLUSHD_SITES"),
                     .is_failed = field_is(j, "FFLUSHD_STATUS", "-1")};
        if (!is_flush(row, j))
                return 0;
        name_user(row->uid, who);
        row->who = strdup(who);
        row->what = copy_text(j, "FFLUSHD_SITE", "FFLUSHD_QUEUE_ID");
        row->reason = copy_text(j, "FFLUSHD_REASON", NULL);
        h->n++;
        return row->who ? 0 : -ENOMEM;
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

/* A process can say of itself what it likes: root and journald are believed. */
static bool is_believed(sd_journal *j, const char *login) {
        char user[WHO_SIZE], login_user[WHO_SIZE];

        name_user(read_number(j, "_UID"), user);
        name_user(read_number(j, "_AUDIT_LOGINUID"), login_user);
        return field_is(j, "_UID", "0") || streq(login, user) || streq(login, login_user);
}

static void describe_who(sd_journal *j, Row *row) {
        char login[FIELD_SIZE], remote[FIELD_SIZE], *who;
        bool sudo = field_is(j, "FFLUSHD_SUDO", "1"), more;

        read_text(j, "FFLUSHD_LOGIN", login);
        read_text(j, "FFLUSHD_REMOTE", remote);
        more = sudo || remote[0];
        if (!login[0] || !is_believed(j, login) ||
            asprintf(&who, "%.63s%s%s%s%.63s%s", login, more ? " (" : "", sudo ? "sudo" : "",
                     sudo && remote[0] ? ", " : "", remote, more ? ")" : "") < 0)
                return;
        free(row->who);
        row->who = who;
}

/* An entry of fflushctl belongs to the rows of the process that wrote it, of which journald knows
 * the number and the user. One that names nothing is about all that the process asked for.
 * Its outcome is that of all portions of a site: the last row shows it. */
static void take_audit(History *h, sd_journal *j) {
        unsigned long pid = read_number(j, "_PID"), uid = read_number(j, "_UID");
        bool has_outcome = read_number(j, "FFLUSHD_MOVED") > 0;
        const char *request = find_request(j);
        _cleanup_free_ char *what = copy_text(j, "FFLUSHD_SITE", "FFLUSHD_QUEUE_ID");

        for (size_t i = h->n; request && i > 0; i--) {
                Row *row = &h->rows[i - 1];
                bool same = row->what ? what && streq(row->what, what) : !what;

                if (row->pid != pid || row->uid != uid || row->has_who || row->request != request ||
                    (what && !same))
                        continue;
                describe_who(j, row);
                row->has_who = true;
                row->has_outcome = has_outcome && same;
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

/* ----------------------------------------------------------------------------------------- time */

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

/* --------------------------------------------------------------------------------------- output */

static const char *verb_of(const Row *row) {
        return streq(row->request, "send_site")   ? "flush"
               : streq(row->request, "send_file") ? "deliver"
                                                  : row->request;
}

static json_t *json_outcome(const AuditOutcome *o) {
        return json_pack("{sI sI sI sI sI sI sI sI}", "delivered", (json_int_t) o->delivered,
                         "returned", (json_int_t) o->returned, "expired", (json_int_t) o->expired,
                         "deleted", (json_int_t) o->deleted, "deferred", (json_int_t) o->deferred,
                         "held", (json_int_t) o->held, "under_way", (json_int_t) o->under_way,
                         "unknown", (json_int_t) o->unknown);
}

static json_t *json_of(const Row *row) {
        bool is_message = streq(row->request, "send_file");

        return json_pack("{ss sI ss so so so so sI so sI ss so}", "type", "history", "time",
                         (json_int_t) (row->time / USEC_PER_SEC), "request", row->request, "site",
                         ctl_json_text(is_message ? NULL : row->what), "queue_id",
                         ctl_json_text(is_message ? row->what : NULL), "sites",
                         row->what ? json_null() : json_integer((json_int_t) row->sites), "by",
                         ctl_json_text(row->who), "uid", (json_int_t) row->uid, "reason",
                         ctl_json_text(row->reason), "moved", (json_int_t) row->moved, "status",
                         row->is_failed ? "failed" : "ok", "outcome",
                         row->has_outcome ? json_outcome(&row->outcome) : json_null());
}

/* Of a run in portions, the last row has the outcome of them all. */
static const char *note_of(const Row *row) {
        return row->has_outcome && row->outcome.moved > row->moved ? " (whole run)" : "";
}

static int add_cells(Columns *c, const Row *row) {
        char when[32], outcome[AUDIT_TEXT_SIZE] = "", all[64];
        time_t t = (time_t) (row->time / USEC_PER_SEC);
        struct tm tm;

        (void) localtime_r(&t, &tm);
        (void) strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
        (void) snprintf(all, sizeof all, "(%lu destination%s)", row->sites,
                        row->sites == 1 ? "" : "s");
        if (row->has_outcome)
                (void) audit_describe(&row->outcome, outcome);
        return columns_add(c, "%s", when) | columns_add(c, "%s", row->who) |
               columns_add(c, "%s", verb_of(row)) |
               columns_add(c, "%s", row->what ? row->what : all) |
               columns_add(c, "%lu", row->moved) |
               columns_add(c, "%s%s", row->is_failed ? "failed" : outcome,
                           row->is_failed ? "" : note_of(row)) |
               columns_add(c, "%s", row->reason ? row->reason : "");
}

static int print_rows(const Ctl *ctl, const History *h) {
        static const char *const titles[] = {"TIME",   "BY",      "COMMAND", "DESTINATION",
                                             ">MOVED", "OUTCOME", "REASON",  NULL};
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

/* -------------------------------------------------------------------------------------- command */

/* Those of the sites that are meant; all, if none is named. */
static void select_rows(History *h, CtlPatterns *patterns) {
        size_t n = 0;

        for (size_t i = 0; i < h->n; i++)
                if (patterns->n == 0 ||
                    (h->rows[i].what && ctl_patterns_match(patterns, h->rows[i].what)))
                        h->rows[n++] = h->rows[i];
                else
                        row_done(&h->rows[i]);
        h->n = n;
}

/* Whoever may not read it can open it, and finds it empty, or finds what he has written himself. */
static int may_read(void) {
        sd_journal *j;
        int r = sd_journal_open(&j, SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_SYSTEM);

        if (r < 0)
                return r;
        if (sd_journal_has_runtime_files(j) <= 0 && sd_journal_has_persistent_files(j) <= 0)
                r = geteuid() == 0 ? -ENOENT : -EACCES;
        sd_journal_close(j);
        return r;
}

/* With the journals of users: fflushctl may be run by one. @site: NULL: of all. */
static int open_journal(const Ctl *ctl, uint64_t since, const char *site, sd_journal **ret) {
        char match[SITE_SIZE + FIELD_SIZE];
        int r = may_read();

        if (r >= 0)
                r = sd_journal_open(ret, SD_JOURNAL_LOCAL_ONLY);
        if (r < 0)
                return r;
        (void) snprintf(match, sizeof match, "FFLUSHD_INSTANCE=%s",
                        ctl->instance ? ctl->instance : "postfix");
        r = sd_journal_add_match(*ret, match, 0);
        if (site)
                (void) snprintf(match, sizeof match, "FFLUSHD_SITE=%s", site);
        if (r >= 0 && site)
                r = sd_journal_add_match(*ret, match, 0);
        return r < 0 ? r : sd_journal_seek_realtime_usec(*ret, since);
}

static void close_journal(sd_journal **j) {
        if (*j)
                sd_journal_close(*j);
}

static int read_journal(const Ctl *ctl, History *h, uint64_t since) {
        _cleanup_(close_journal) sd_journal *j = NULL;
        int r = open_journal(ctl, since, NULL, &j);

        if (r < 0) {
                ctl_error("cannot read the journal: %s%s", strerror(-r),
                          r == -EACCES ? " (run as root, or as a member of systemd-journal)" : "");
                return r == -EACCES ? EX_NOPERM : EX_OSERR;
        }
        while (r >= 0 && (r = sd_journal_next(j)) > 0)
                r = take_entry(h, j);
        if (r == -ENOMEM)
                return ctl_no_memory();
        if (r < 0) {
                ctl_error("cannot read the journal: %s", strerror(-r));
                return EX_IOERR;
        }
        if (h->n_left_out > 0)
                ctl_error("%lu older flushes are left out: see --since", h->n_left_out);
        return EX_OK;
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
                (void) snprintf(ret->reason, sizeof ret->reason, "%s",
                                row->reason ? row->reason : "");
                return true;
        }
        return false;
}

int ctl_history(Ctl *ctl, char *args[]) {
        _cleanup_(ctl_patterns_done) CtlPatterns patterns = {0};
        _cleanup_(history_done) History h = {0};
        char unit[CTL_UNIT_SIZE];
        uint64_t since;
        int status;

        if (parse_since(ctl->since, &since) < 0)
                return ctl_usage("--since: \"today\", \"yesterday\", a time span such as 2h, or "
                                 "YYYY-MM-DD [HH:MM[:SS]]; not %s",
                                 ctl->since);
        status = ctl_patterns_parse(ctl, args, &patterns);
        if (status != EX_OK)
                return status;
        ctl_unit_name(ctl, "fflushd", "service", unit);
        h.unit = unit;
        status = read_journal(ctl, &h, since);
        if (status != EX_OK)
                return status;
        select_rows(&h, &patterns);
        return h.n > 0 && !ctl->quiet ? print_rows(ctl, &h) : EX_OK;
}
