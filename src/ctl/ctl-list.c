/* SPDX-License-Identifier: MIT */

/* fflushctl list, show: what is recorded, and where those messages are. */

#include <stdio.h>
#include <time.h>

#include "ctl/columns.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "util/util.h"

typedef struct Row {
        const CtlSite *site;
        unsigned long records, messages, deferred;
        time_t newest, flushed;
} Row;

typedef int (*compare_t)(const void *a, const void *b);

static int by_number(unsigned long a, unsigned long b) { /* the largest first */
        return (a < b) - (a > b);
}

static int by_site(const void *a, const void *b) {
        return strcmp(((const Row *) a)->site->site, ((const Row *) b)->site->site);
}

#define BY(name, result)                                                                           \
        static int by_##name(const void *x, const void *y) {                                       \
                const Row *a = x, *b = y;                                                          \
                int r = (result);                                                                  \
                return r != 0 ? r : by_site(x, y);                                                 \
        }
BY(records, by_number(a->records, b->records))
BY(messages, by_number(a->messages, b->messages))
BY(deferred, by_number(a->deferred, b->deferred))
BY(newest, (a->newest < b->newest) - (a->newest > b->newest))
BY(flushed, (a->flushed > b->flushed) - (a->flushed < b->flushed)) /* the longest ago first */

static compare_t find_order(const char *name) {
        static const struct {
                const char *name;
                compare_t compare;
        } orders[] = {{"records", by_records}, {"messages", by_messages}, {"deferred", by_deferred},
                      {"newest", by_newest},   {"flushed", by_flushed},   {"site", by_site}};

        if (!name)
                return by_deferred;
        for (size_t i = 0; i < ARRAY_SIZE(orders); i++)
                if (streq(name, orders[i].name))
                        return orders[i].compare;
        ctl_error("--by records, messages, deferred, newest, flushed or site; not %s", name);
        return NULL;
}

static int look(Ctl *ctl, const CtlSite *site, Row *ret) {
        SurveyLog log;
        int status;

        *ret = (Row){.site = site,
                     .newest = site->st.st_mtim.tv_sec,
                     .flushed = site->st.st_atim.tv_sec};
        status = ctl_read_site(ctl, site, &log);
        ret->records = log.records;
        ret->messages = strset_size(&log.ids);
        ret->deferred = ctl_count_deferred(ctl, &log);
        survey_done(&log);
        return status;
}

static json_t *json_of(const Row *row) {
        return json_pack("{ss? so sI sI sI sI sI}", "site",
                         row->site->named ? row->site->site : NULL, "log",
                         ctl_json_text(strrchr(row->site->path, '/') + 1), "records",
                         (json_int_t) row->records, "messages", (json_int_t) row->messages,
                         "deferred", (json_int_t) row->deferred, "newest", (json_int_t) row->newest,
                         "flushed", (json_int_t) row->flushed);
}

static int print_rows(Ctl *ctl, const Row *rows, size_t n) {
        static const char *const titles[] = {"SITE",    ">RECORDS", ">MESSAGES", ">DEFERRED",
                                             ">NEWEST", ">FLUSHED", NULL};
        _cleanup_(columns_done) Columns c = {.titles = titles};
        char newest[CTL_AGE_SIZE], flushed[CTL_AGE_SIZE];
        time_t now = time(NULL);
        int r = 0;

        for (size_t i = 0; i < n && ctl->json; i++)
                ctl_print_json(json_of(&rows[i]));
        if (ctl->json)
                return EX_OK;
        for (size_t i = 0; i < n && r == 0; i++) {
                r |= columns_add(&c, "%s", rows[i].site->site);
                r |= columns_add(&c, "%lu", rows[i].records);
                r |= columns_add(&c, "%lu", rows[i].messages);
                r |= columns_add(&c, "%lu", rows[i].deferred);
                r |= columns_add(&c, "%s", ctl_age(now, rows[i].newest, newest));
                r |= columns_add(&c, "%s", ctl_age(now, rows[i].flushed, flushed));
        }
        if (r < 0)
                return ctl_no_memory();
        columns_print(&c, stdout, ctl_style(CTL_BOLD), ctl_style(CTL_PLAIN));
        return EX_OK;
}

int ctl_list(Ctl *ctl, char *args[]) {
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        _cleanup_free_ Row *rows = NULL;
        compare_t compare = find_order(ctl->by);
        size_t n;
        int status;

        if (!compare)
                return EX_USAGE;
        status = ctl_find_sites(ctl, args, false, &sites);
        if (status != EX_OK && status != EX_NOINPUT)
                return status;
        rows = calloc(sites.n + 1, sizeof *rows);
        if (!rows)
                return ctl_no_memory();
        for (n = 0; n < sites.n; n++)
                status = ctl_worse(status, look(ctl, &sites.items[n], &rows[n]));
        qsort(rows, n, sizeof *rows, compare);
        if (ctl->top > 0 && ctl->top < n)
                n = ctl->top;
        return ctl->quiet || n == 0 ? status : ctl_worse(status, print_rows(ctl, rows, n));
}

typedef struct Place {
        const char *name;
        time_t due; /* a deferred message: its next attempt; else 0 */
} Place;

static Place place_of(const Queue *q, const char *id) {
        QueueName queue;
        struct stat st;
        int r = queue_find(q, id, &queue, &st);

        if (r < 0)
                return (Place){.name = r == -ENOENT ? "gone" : "unknown"};
        return (Place){.name = queue_name(queue),
                       .due = queue == QUEUE_DEFERRED ? st.st_mtim.tv_sec : 0};
}

static void show_json(const CtlSite *site, const char *id, const Place *place) {
        json_t *object = json_pack("{so ss ss}", "site", ctl_json_text(site->site), "queue_id", id,
                                   "queue", place->name);

        if (place->due)
                (void) json_object_set_new(object, "due", json_integer(place->due));
        ctl_print_json(object);
}

static int show_row(Columns *c, const CtlSite *site, const char *id, const Place *place) {
        char due[CTL_AGE_SIZE] = "";
        time_t now = time(NULL);
        int r;

        if (place->due)
                (void) ctl_age(place->due > now ? place->due : now, now, due);
        r = columns_add(c, "%s", site->site);
        r |= columns_add(c, "%s", id);
        r |= columns_add(c, "%s", place->name);
        r |= columns_add(c, "%s", !place->due || place->due > now ? due : "now");
        return r;
}

static int show(Ctl *ctl, const CtlSite *site, Columns *c) {
        _cleanup_(survey_done) SurveyLog log = {0};
        const StrSetEntry *e = NULL;
        int status;

        status = ctl_read_site(ctl, site, &log);
        while ((e = strset_next(&log.ids, e))) {
                Place place = place_of(&ctl->queue, strset_entry_id(e));

                if (ctl->json)
                        show_json(site, strset_entry_id(e), &place);
                else if (show_row(c, site, strset_entry_id(e), &place) < 0)
                        return ctl_no_memory();
        }
        return status;
}

int ctl_show(Ctl *ctl, char *args[]) {
        static const char *const titles[] = {"SITE", "MESSAGE", "QUEUE", ">DUE IN", NULL};
        _cleanup_(columns_done) Columns c = {.titles = titles};
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        int status;

        status = ctl_find_sites(ctl, args, false, &sites);
        for (size_t i = 0; i < sites.n; i++)
                status = ctl_worse(status, show(ctl, &sites.items[i], &c));
        if (c.n > 0 && !ctl->quiet)
                columns_print(&c, stdout, ctl_style(CTL_BOLD), ctl_style(CTL_PLAIN));
        return status;
}
