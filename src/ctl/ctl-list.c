/* SPDX-License-Identifier: MIT */

/* fflushctl list: what is stuck, for whom, since when, and why. */

#include <stdio.h>
#include <time.h>

#include "ctl/backlog.h"
#include "ctl/columns.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/deferred.h"
#include "ctl/eligible.h"
#include "ctl/frame.h"
#include "ctl/pager.h"
#include "ctl/relay.h"
#include "util/util.h"

#define NOT_ELIGIBLE                                                                               \
        "(not eligible)"              /* for deferred mail that is in no log of its destination:   \
                                       */
#define NOT_RECORDED "(not recorded)" /* eligible; "import" records it */

typedef const BacklogRow *const *row_t;
typedef int (*compare_t)(const BacklogRow *a, const BacklogRow *b);

static int largest_first(unsigned long a, unsigned long b) {
        return (a < b) - (a > b);
}

/* What is unknown, or is not there, comes last; never comes before all times. */
static int earliest_first(time_t a, time_t b) {
        if (a == 0 || b == 0)
                return (a == 0) - (b == 0);
        return (a > b) - (a < b);
}

static int by_reason(const BacklogRow *a, const BacklogRow *b) {
        if (!a->causes || !b->causes)
                return (a->causes == NULL) - (b->causes == NULL);
        return strcmp(a->causes->text, b->causes->text);
}

static int by_site(const BacklogRow *a, const BacklogRow *b) {
        return strcmp(a->site, b->site);
}

#define BY(name, result)                                                                           \
        static int by_##name(const BacklogRow *a, const BacklogRow *b) {                           \
                return (result);                                                                   \
        }
BY(records, largest_first(a->records, b->records))
BY(messages, largest_first(a->messages, b->messages))
BY(deferred, largest_first(a->deferred, b->deferred))
BY(active, largest_first(a->active, b->active))
BY(hold, largest_first(a->hold, b->hold))
BY(oldest, earliest_first(a->oldest, b->oldest))
BY(flushed, earliest_first(a->flushed, b->flushed))

static const struct {
        const char *name;
        compare_t compare;
} orders[] = {{"site", by_site},         {"records", by_records}, {"messages", by_messages},
              {"deferred", by_deferred}, {"active", by_active},   {"hold", by_hold},
              {"oldest", by_oldest},     {"flushed", by_flushed}, {"reason", by_reason}};

typedef struct List {
        Ctl *ctl;
        compare_t compare;
        Backlog backlog;
        BacklogRow not_eligible, not_recorded;
        const BacklogRow **rows; /* that are shown */
        size_t n, n_all;         /* shown; of those that are wanted, before --top */
} List;

static int find_order(const Ctl *ctl, compare_t *ret) {
        const char *name = ctl->by ? ctl->by : "deferred";

        for (size_t i = 0; i < ARRAY_SIZE(orders); i++)
                if (streq(name, orders[i].name)) {
                        *ret = orders[i].compare;
                        return EX_OK;
                }
        ctl_error("--by: unknown column \"%s\" (site, records, messages, deferred, active, hold, "
                  "oldest, flushed, reason)",
                  name);
        return EX_USAGE;
}

static int compare_rows(const void *x, const void *y, void *userdata) {
        const BacklogRow *a = *(row_t) x, *b = *(row_t) y;
        const List *list = userdata;
        int r = list->compare(a, b);

        if (list->ctl->reverse)
                r = -r;
        return r != 0 ? r : by_site(a, b);
}

/* ---------------------------------------------------------------------- mail without a record */

static int add_to(BacklogRow *sum, const BacklogRow *row) {
        const StrSetEntry *e = NULL;

        sum->matches |= row->matches;
        if (row->oldest > 0 && (sum->oldest == 0 || row->oldest < sum->oldest))
                sum->oldest = row->oldest;
        while ((e = strset_next(&row->ids, e)))
                if (strset_add(&sum->ids, strset_entry_id(e)) < 0)
                        return -ENOMEM;
        return 0;
}

static void count(List *list, BacklogRow *sum) {
        const StrSetEntry *e = NULL;

        while ((e = strset_next(&sum->ids, e))) {
                const BacklogMail *mail = backlog_mail(&list->backlog, strset_entry_id(e));

                sum->deferred += mail->error == 0 && mail->queue == QUEUE_DEFERRED;
        }
        if (sum->deferred > 0)
                list->rows[list->n++] = sum;
}

/* If the list of sites cannot be read or asked, none counts as refused. */
static int add_unrecorded(List *list) {
        const BacklogRow *all = list->backlog.unrecorded;
        StrSet sites = {0}, refused = {0};
        int r = 0, status;

        for (const BacklogRow *row = all; row && r >= 0; row = row->hh.next)
                r = row->site[0] ? strset_add(&sites, row->site) : 0;
        status = r < 0 ? ctl_no_memory() : eligible_refused(list->ctl, &sites, &refused, NULL);
        for (const BacklogRow *row = all; row && r >= 0; row = row->hh.next)
                r = add_to(!row->site[0] || strset_contains(&refused, row->site)
                                   ? &list->not_eligible
                                   : &list->not_recorded,
                           row);
        strset_clear(&sites);
        strset_clear(&refused);
        count(list, &list->not_eligible);
        count(list, &list->not_recorded);
        return r < 0 ? ctl_no_memory() : status;
}

/* ------------------------------------------------------------------------------ what is shown */

static bool has_mail(const BacklogRow *row) {
        return row->deferred + row->active + row->hold > 0;
}

static bool is_wanted(const List *list, const BacklogRow *row) {
        const Ctl *ctl = list->ctl;
        time_t since = time(NULL) - (time_t) (ctl->older_than / USEC_PER_SEC);

        if (ctl->older_than > 0 && (row->oldest == 0 || row->oldest > since))
                return false;
        if (ctl->match && !row->matches)
                return false;
        return has_mail(row) || ctl->all || list->backlog.patterns.n > 0;
}

static int choose(List *list) {
        const Backlog *b = &list->backlog;
        size_t n = 0;
        int status;

        list->rows = calloc(b->n + 2, sizeof(BacklogRow *));
        if (!list->rows)
                return ctl_no_memory();
        for (; list->n < b->n; list->n++)
                list->rows[list->n] = b->rows[list->n];
        status = add_unrecorded(list);
        for (size_t i = 0; i < list->n; i++)
                if (is_wanted(list, list->rows[i]))
                        list->rows[n++] = list->rows[i];
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        qsort_r(list->rows, n, sizeof *list->rows, compare_rows, list);
        list->n_all = n;
        list->n = list->ctl->top > 0 && list->ctl->top < n ? list->ctl->top : n;
        return status;
}

static json_t *json_time(time_t t) {
        return t > 0 ? json_integer(t) : json_null();
}

static json_t *json_reasons(const List *list, const BacklogRow *row) {
        json_t *reasons = list->backlog.listed ? json_array() : json_null();

        for (const BacklogCause *c = row->causes; c && reasons; c = c->hh.next)
                (void) json_array_append_new(reasons,
                                             json_pack("{sI so}", "count", (json_int_t) c->count,
                                                       "reason", ctl_json_text(c->text)));
        return reasons;
}

static bool knows_active(const List *list) {
        return list->backlog.listed || list->backlog.idle;
}

/* Or is it a sum of what is in no log of its site? */
static bool is_site(const List *list, const BacklogRow *row) {
        return row != &list->not_eligible && row != &list->not_recorded;
}

static json_t *json_of(const List *list, const BacklogRow *row) {
        bool real = is_site(list, row);

        return json_pack("{ss ss? so sI sI sI so sI so so so}", "type",
                         real                         ? "site"
                         : row == &list->not_eligible ? "not_eligible"
                                                      : "not_recorded",
                         "site", row->named && real ? row->site : NULL, "log",
                         ctl_json_text(row->log), "records", (json_int_t) row->records, "messages",
                         (json_int_t) row->messages, "deferred", (json_int_t) row->deferred,
                         "active",
                         knows_active(list) ? json_integer((json_int_t) row->active) : json_null(),
                         "hold", (json_int_t) row->hold, "oldest", json_time(row->oldest),
                         "flushed", json_time(row->flushed), "reasons", json_reasons(list, row));
}

static int add_age(Columns *c, time_t now, time_t then) {
        char age[CTL_AGE_SIZE];

        return columns_add(c, "%s",
                           then == BACKLOG_NEVER ? "never"
                           : then == 0           ? "-"
                                                 : ctl_age(now, then, age));
}

static int add_row(const List *list, const BacklogRow *row, Columns *c) {
        time_t now = time(NULL);
        int r = columns_add(c, "%s", row->site);

        if (list->ctl->long_list) {
                r |= columns_add(c, "%lu", row->records);
                r |= columns_add(c, "%lu", row->messages);
        }
        r |= columns_add(c, "%lu", row->deferred);
        r |= knows_active(list) ? columns_add(c, "%lu", row->active) : columns_add(c, "-");
        r |= columns_add(c, "%lu", row->hold);
        r |= add_age(c, now, row->oldest);
        r |= add_age(c, now, row->flushed);
        if (list->backlog.listed)
                r |= columns_add(c, "%s", row->causes ? row->causes->text : "-");
        return r;
}

static const char *const *titles_of(const List *list) {
        static const char *const titles[][10] = {
                {"SITE", ">DEFERRED", ">ACTIVE", ">HOLD", ">OLDEST", ">FLUSHED", NULL},
                {"SITE", ">DEFERRED", ">ACTIVE", ">HOLD", ">OLDEST", ">FLUSHED", "REASON", NULL},
                {"SITE", ">RECORDS", ">MESSAGES", ">DEFERRED", ">ACTIVE", ">HOLD", ">OLDEST",
                 ">FLUSHED", NULL},
                {"SITE", ">RECORDS", ">MESSAGES", ">DEFERRED", ">ACTIVE", ">HOLD", ">OLDEST",
                 ">FLUSHED", "REASON", NULL},
        };

        return titles[2 * list->ctl->long_list + list->backlog.listed];
}

typedef struct Totals {
        size_t sites;
        BacklogCounts messages; /* one to three destinations is one message */
} Totals;

static void add_totals(List *list, size_t from, size_t to, Totals *totals) {
        for (size_t i = from; i < to; i++) {
                totals->sites += is_site(list, list->rows[i]);
                backlog_count(&list->backlog, list->rows[i], &totals->messages);
        }
}

static bool has_record(const char *id, void *userdata) {
        return backlog_mail(userdata, id) != NULL;
}

/* What a listing would show as not recorded, or not eligible. Return: 0 also if it is not known, or
 * not of all destinations. */
static unsigned long count_unrecorded(List *list) {
        Backlog *b = &list->backlog;
        unsigned long n;

        if (b->listed || b->patterns.n > 0 || list->ctl->match || list->ctl->older_than > 0 ||
            deferred_count_unrecorded(&list->ctl->queue, has_record, b, &n) < 0)
                return 0;
        return n;
}

static void print_total(List *list, FILE *f) {
        bool has_postfix = list->ctl->settings.postfix_config_directory[0] != '\0';
        unsigned long unrecorded = count_unrecorded(list);
        Totals shown = {0}, all;

        add_totals(list, 0, list->n, &shown);
        all = shown;
        add_totals(list, list->n, list->n_all, &all);
        if (list->n < list->n_all)
                (void) fprintf(f, "%zu of %zu destinations: %lu of %lu deferred", shown.sites,
                               all.sites, shown.messages.deferred, all.messages.deferred);
        else
                (void) fprintf(f, "%zu destination%s: %lu deferred", shown.sites,
                               shown.sites == 1 ? "" : "s", shown.messages.deferred);
        if (shown.messages.active)
                (void) fprintf(f, ", %lu active", shown.messages.active);
        if (shown.messages.hold)
                (void) fprintf(f, ", %lu on hold", shown.messages.hold);
        if (unrecorded > 0)
                (void) fprintf(f, "; %lu more deferred, not recorded (see import)", unrecorded);
        (void) fprintf(f, "%s\n",
                       list->backlog.listed || !has_postfix ? "" : "; --long for reasons");
}

static int print_table(List *list, FILE *f, size_t width) {
        _cleanup_(columns_done) Columns c = {
                .titles = titles_of(list), .width = width, .no_titles = list->ctl->no_legend};

        for (size_t i = 0; i < list->n; i++)
                if (add_row(list, list->rows[i], &c) < 0)
                        return ctl_no_memory();
        if (list->n > 0)
                columns_print(&c, f, ctl_style(CTL_BOLD), ctl_style(CTL_PLAIN));
        if (!list->ctl->no_legend && !relay_is_on()) /* who asks many hosts adds them up */
                print_total(list, f);
        return EX_OK;
}

static BacklogEffort effort_of(const Ctl *ctl) {
        bool reasons = ctl->long_list || ctl->match || (ctl->by && streq(ctl->by, "reason"));

        return reasons ? BACKLOG_LISTED : ctl->older_than > 0 ? BACKLOG_DATED : BACKLOG_CHEAP;
}

static void list_done(List *list) {
        strset_clear(&list->not_eligible.ids);
        strset_clear(&list->not_recorded.ids);
        free(list->rows);
        backlog_done(&list->backlog);
}

static int list_once(Ctl *ctl, char *args[], FILE *f, size_t width) {
        char eligible[] = NOT_ELIGIBLE, recorded[] = NOT_RECORDED;
        _cleanup_(list_done) List list = {.ctl = ctl, .backlog.match = ctl->match};
        int status = find_order(ctl, &list.compare);

        if (status != EX_OK)
                return status;
        list.not_eligible.site = eligible;
        list.not_recorded.site = recorded;
        status = backlog_collect(ctl, args, effort_of(ctl), &list.backlog);
        if (list.backlog.n == 0 && !list.backlog.listed && (status != EX_OK || *args))
                return status;
        status = ctl_worse(status, choose(&list));
        if (ctl->quiet)
                return status;
        for (size_t i = 0; i < list.n && ctl->json; i++)
                ctl_print_json(json_of(&list, list.rows[i]));
        return ctl->json ? status : ctl_worse(status, print_table(&list, f, width));
}

/* ------------------------------------------------------------------------------------- --watch */

typedef struct Watch {
        char *table, *errors; /* of this time */
        char *last_error;     /* with its time; NULL: there was none */
} Watch;

static void forget_texts(Watch *w) {
        free(w->table);
        free(w->errors);
        w->table = w->errors = NULL;
}

static void watch_done(Watch *w) {
        forget_texts(w);
        free(w->last_error);
}

/* Return: an exit status, or a negative errno: there is no memory for the texts. */
static int list_into(Watch *w, Ctl *ctl, char *args[], size_t width) {
        size_t n, n_errors;
        FILE *table = open_memstream(&w->table, &n),
             *errors = open_memstream(&w->errors, &n_errors);
        int status = -ENOMEM;

        if (table && errors) {
                ctl_divert_errors(errors); /* else the next screen would be drawn over them */
                status = list_once(ctl, args, table, width);
                ctl_divert_errors(NULL);
        }
        if ((table && fclose(table) != 0) || (errors && fclose(errors) != 0))
                status = -ENOMEM;
        return status;
}

/* On one line. */
static void keep_error(Watch *w) {
        time_t now = time(NULL);
        char when[16], *text;
        struct tm tm;

        if (!w->errors[0])
                return;
        w->errors[strlen(w->errors) - 1] = '\0';
        for (char *p = w->errors; (p = strchr(p, '\n'));)
                *p = ' ';
        (void) localtime_r(&now, &tm);
        (void) strftime(when, sizeof when, "%H:%M:%S", &tm);
        if (asprintf(&text, "%s %s", when, w->errors) < 0)
                return;
        free(w->last_error);
        w->last_error = text;
}

static void draw(const Watch *w, const Ctl *ctl, int status, const Terminal *t) {
        char title[FRAME_TITLE_SIZE], none[] = "0 destinations\n";
        bool is_empty = !w->table[0] && (status == EX_OK || status == EX_NOINPUT);
        const Frame frame = {.title = frame_title(title),
                             .table = is_empty ? none : w->table,
                             .legend = !ctl->no_legend,
                             .error = w->last_error ? w->last_error : ""};

        frame_draw(&frame, t, stdout);
}

/* Postfix's settings are looked up once, unless that failed. */
static void forget_settings(Ctl *ctl) {
        if (!ctl->has_settings || !ctl->settings.incomplete)
                return;
        settings_done(&ctl->settings);
        ctl->settings = (Settings){0};
        ctl->has_settings = false;
}

/* As ctl_error() has written them. */
static void pass_errors_on(char *lines) {
        const char *line;

        while ((line = strsep(&lines, "\n")))
                if (*line)
                        ctl_pass_on(stderr, line, true);
}

/* Return: EX_OK: go on. */
static int watch_once(Watch *w, Ctl *ctl, char *args[]) {
        const Terminal t = terminal_open(false); /* its size may have changed */
        int status = list_into(w, ctl, args, t.width);

        if (status < 0)
                return ctl_no_memory();
        if (status == EX_USAGE || status == EX_DATAERR) { /* no time will help */
                pass_errors_on(w->errors);
                return status;
        }
        keep_error(w);
        draw(w, ctl, status, &t);
        forget_texts(w);
        forget_settings(ctl);
        return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

static int watch(Ctl *ctl, char *args[]) {
        const struct timespec pause = {
                .tv_sec = (time_t) (ctl->watch / USEC_PER_SEC),
                .tv_nsec = (long) (ctl->watch % USEC_PER_SEC * 1000),
        };
        _cleanup_(watch_done) Watch w = {0};
        int status;

        if (ctl->json || ctl->quiet)
                return ctl_usage("--watch cannot be combined with --json or --quiet");
        if (terminal_open(false).width == 0)
                return ctl_usage("--watch needs a terminal");
        while ((status = watch_once(&w, ctl, args)) == EX_OK)
                (void) nanosleep(&pause, NULL);
        return status;
}

int ctl_list(Ctl *ctl, char *args[]) {
        Terminal t;
        int status;

        if (ctl->watch > 0)
                return watch(ctl, args);
        t = terminal_open(!ctl->no_pager && !ctl->json && !ctl->quiet);
        status = list_once(ctl, args, stdout, t.width);
        terminal_close(&t);
        return status;
}
