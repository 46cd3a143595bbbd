/* SPDX-License-Identifier: MIT */

/* fflushctl show: which messages are recorded for a destination, and what Postfix says of them. */

#include <stdio.h>
#include <time.h>

#include "ctl/backlog.h"
#include "ctl/cause.h"
#include "ctl/columns.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/pager.h"
#include "util/grow.h"
#include "util/util.h"

#define SHORT_ID_MIN 6u /* digits of a short queue ID */

/* A message, for one of its destinations. */
typedef struct Item {
        const char *site; /* NULL: a message that was asked for by its ID, and is not listed */
        const BacklogMail *mail;
        const char *sender, *recipient, *reason; /* the first of that site; NULL: unknown */
        size_t n_recipients;
        json_int_t size;
        size_t place; /* as it was found */
} Item;

typedef int (*compare_t)(const Item *a, const Item *b);

typedef struct Show {
        Ctl *ctl;
        compare_t compare;
        Backlog backlog;
        StrSet sites; /* of messages that were asked for by ID */
        Item *items;
        size_t n, size;
} Show;

/* What is unknown comes last. */
static int compare_texts(const char *a, const char *b) {
        if (!a || !b)
                return (a == NULL) - (b == NULL);
        return strcmp(a, b);
}

static const char *queue_of(const Item *item) {
        return item->mail->error == 0         ? queue_name(item->mail->queue)
               : item->mail->error == -ENOENT ? "gone"
                                              : "unknown";
}

/* Those that have none come last. */
static int compare_times(time_t a, time_t b) {
        if (a == 0 || b == 0)
                return (a == 0) - (b == 0);
        return (a > b) - (a < b);
}

#define BY(name, result)                                                                           \
        static int by_##name(const Item *a, const Item *b) {                                       \
                return (result);                                                                   \
        }
BY(site, compare_texts(a->site, b->site))
BY(id, strcmp(a->mail->id, b->mail->id))
BY(queue, strcmp(queue_of(a), queue_of(b)))
BY(age, compare_times(a->mail->arrival, b->mail->arrival))
BY(size, (a->size < b->size) - (a->size > b->size))
BY(due, compare_times(a->mail->due, b->mail->due))
BY(sender, compare_texts(a->sender, b->sender))
BY(recipient, compare_texts(a->recipient, b->recipient))
BY(reason, compare_texts(a->reason, b->reason))
BY(place, (a->place > b->place) - (a->place < b->place))

static const struct {
        const char *name;
        compare_t compare;
} orders[] = {
        {"site", by_site},    {"id", by_id},   {"queue", by_queue},   {"age", by_age},
        {"size", by_size},    {"due", by_due}, {"sender", by_sender}, {"recipient", by_recipient},
        {"reason", by_reason}};

static int find_order(const Ctl *ctl, compare_t *ret) {
        *ret = by_place;
        for (size_t i = 0; ctl->by && i < ARRAY_SIZE(orders); i++)
                if (streq(ctl->by, orders[i].name))
                        *ret = orders[i].compare;
        if (!ctl->by || *ret != by_place)
                return EX_OK;
        ctl_error("--by: unknown column \"%s\" (site, id, queue, age, size, due, sender, "
                  "recipient, reason)",
                  ctl->by);
        return EX_USAGE;
}

static int compare_items(const void *x, const void *y, void *userdata) {
        const Item *a = x, *b = y;
        const Show *s = userdata;
        int r = s->compare(a, b);

        if (s->ctl->reverse)
                r = -r;
        return r != 0 ? r : by_place(a, b);
}

/* ------------------------------------------------------------------------------ what is shown */

static bool is_for(const char *site, const char *wanted) {
        return !wanted || streq(site, wanted);
}

/* @site: NULL: of all */
static void take_recipients(Item *item, const char *site) {
        const char *address, *reason;
        char other[SITE_SIZE];

        for (size_t i = 0; (address = backlog_recipient(item->mail->listed, i, other, &reason));
             i++) {
                if (!is_for(other, site))
                        continue;
                if (item->n_recipients++ == 0)
                        item->recipient = address;
                if (!item->reason)
                        item->reason = reason;
        }
}

static int add_item(Show *s, const char *site, const char *id) {
        const BacklogMail *mail = backlog_mail(&s->backlog, id);
        Item *item;

        if (!GROW(s->items, s->n, s->size))
                return -ENOMEM;
        item = &s->items[s->n];
        *item = (Item){.site = site, .mail = mail, .size = mail->size, .place = s->n};
        s->n++;
        if (!mail->listed)
                return 0;
        item->size = json_integer_value(json_object_get(mail->listed, "message_size"));
        item->sender = json_string_value(json_object_get(mail->listed, "sender"));
        take_recipients(item, site);
        if (item->n_recipients == 0) /* a log whose site cannot be told */
                take_recipients(item, NULL);
        return 0;
}

static int add_row(Show *s, const BacklogRow *row) {
        const StrSetEntry *e = NULL;
        int r = 0;

        if (strset_size(&row->ids) == 0) {
                ctl_error("nothing is recorded for %s", row->site);
                return EX_NOINPUT;
        }
        while (r >= 0 && (e = strset_next(&row->ids, e)))
                r = add_item(s, row->site, strset_entry_id(e));
        return r < 0 ? ctl_no_memory() : EX_OK;
}

/* Once for each of its destinations. */
static int add_message(Show *s, const char *id) {
        const json_t *listed = backlog_mail(&s->backlog, id)->listed;
        const StrSetEntry *e = NULL;
        StrSet sites = {0};
        const char *reason;
        char site[SITE_SIZE];
        int r = 0;

        for (size_t i = 0; r >= 0 && backlog_recipient(listed, i, site, &reason); i++) {
                r = strset_add(&sites, site);
                if (r >= 0)
                        r = strset_add(&s->sites, site); /* outlives this */
        }
        while (r >= 0 && (e = strset_next(&sites, e)))
                r = add_item(s, strset_find(&s->sites, strset_entry_id(e)), id);
        strset_clear(&sites);
        if (r >= 0 && !listed)
                r = add_item(s, NULL, id);
        return r < 0 ? ctl_no_memory() : EX_OK;
}

/* --------------------------------------------------------------------------------- the output */

static json_t *json_text_or_null(const char *text) {
        return text ? ctl_json_text(text) : json_null();
}

static json_t *json_recipients(const Item *item) {
        json_t *all = item->mail->listed ? json_array() : json_null();
        const char *address, *reason;
        char site[SITE_SIZE];

        for (size_t i = 0;
             all && (address = backlog_recipient(item->mail->listed, i, site, &reason)); i++)
                (void) json_array_append_new(all,
                                             json_pack("{so so}", "address", ctl_json_text(address),
                                                       "reason", json_text_or_null(reason)));
        return all;
}

static json_t *json_of(const Item *item) {
        const BacklogMail *mail = item->mail;

        return json_pack("{ss so ss ss so so so so so}", "type", "message", "site",
                         json_text_or_null(item->site), "queue_id", mail->id, "queue",
                         queue_of(item), "arrival",
                         mail->arrival > 0 && mail->error == 0 ? json_integer(mail->arrival)
                                                               : json_null(),
                         "size", mail->error == 0 ? json_integer(item->size) : json_null(), "due",
                         mail->due > 0 ? json_integer(mail->due) : json_null(), "sender",
                         json_text_or_null(item->sender), "recipients", json_recipients(item));
}

static const char *text_of(const char *text) {
        return text ? text : "-";
}

static int add_recipient(Columns *c, const Item *item) {
        if (item->n_recipients > 1)
                return columns_add(c, "%s, and %zu more", item->recipient, item->n_recipients - 1);
        return columns_add(c, "%s", text_of(item->recipient));
}

static int add_due(Columns *c, time_t now, time_t due) {
        char text[CTL_AGE_SIZE];

        if (due == 0)
                return columns_add(c, "-");
        return columns_add(c, "%s", due > now ? ctl_age(due, now, text) : "now");
}

static int add_line(const Show *s, const Item *item, Columns *c) {
        const BacklogMail *mail = item->mail;
        bool there = mail->error == 0;
        time_t now = time(NULL);
        char age[CTL_AGE_SIZE];
        int r = columns_add(c, "%s", text_of(item->site));

        r |= columns_add(c, "%s", mail->id);
        r |= columns_add(c, "%s", queue_of(item));
        r |= columns_add(c, "%s",
                         there && mail->arrival > 0 ? ctl_age(now, mail->arrival, age) : "-");
        r |= there ? columns_add(c, "%" JSON_INTEGER_FORMAT, item->size) : columns_add(c, "-");
        r |= add_due(c, now, mail->due);
        if (!s->backlog.listed)
                return r;
        r |= columns_add(c, "%s", item->sender && !item->sender[0] ? "<>" : text_of(item->sender));
        r |= add_recipient(c, item);
        return r | columns_add(c, "%s", item->reason ? cause_skip_host(item->reason) : "-");
}

static int print_table(const Show *s, size_t width) {
        static const char *const titles[][10] = {
                {"SITE", "MESSAGE", "QUEUE", ">AGE", ">SIZE", ">DUE IN", NULL},
                {"SITE", "MESSAGE", "QUEUE", ">AGE", ">SIZE", ">DUE IN", "SENDER", "RECIPIENT",
                 "REASON", NULL}};
        _cleanup_(columns_done) Columns c = {.titles = titles[s->backlog.listed],
                                             .width = width,
                                             .no_titles = s->ctl->no_legend};

        for (size_t i = 0; i < s->n; i++)
                if (add_line(s, &s->items[i], &c) < 0)
                        return ctl_no_memory();
        columns_print(&c, stdout, ctl_style(CTL_BOLD), ctl_style(CTL_PLAIN));
        return EX_OK;
}

/* Each message once, whatever its destinations, and none that has left. */
static int print_ids(const Show *s) {
        StrSet seen = {0};
        int r = 0;

        for (size_t i = 0; i < s->n && r >= 0; i++) {
                const BacklogMail *mail = s->items[i].mail;

                if (mail->error == -ENOENT)
                        continue;
                r = strset_add(&seen, mail->id);
                if (r > 0)
                        ctl_print("%s\n", mail->id);
        }
        strset_clear(&seen);
        return r < 0 ? ctl_no_memory() : EX_OK;
}

static int print(const Show *s) {
        Terminal t;
        int status;

        if (s->ctl->quiet || s->n == 0)
                return EX_OK;
        if (s->ctl->json) {
                for (size_t i = 0; i < s->n; i++)
                        ctl_print_json(json_of(&s->items[i]));
                return EX_OK;
        }
        if (s->ctl->ids)
                return print_ids(s);
        t = terminal_open(!s->ctl->no_pager);
        status = print_table(s, t.width);
        terminal_close(&t);
        return status;
}

/* ---------------------------------------------------------------------------------- what to show
 */

/* A site hardly looks like a short queue ID. */
static bool looks_like_id(const char *text) {
        size_t n = strlen(text);

        return n >= SHORT_ID_MIN && strspn(text, "0123456789ABCDEF") == n;
}

/* A word that is a message's ID is that. The others stay, for patterns. */
static int take_ids(Show *s, char *args[], char *ids[]) {
        size_t n = 0, n_ids = 0;
        int status = ctl_queue(s->ctl), gone = EX_OK;

        for (size_t i = 0; args[i] && status == EX_OK; i++) {
                QueueName queue;
                struct stat st;

                if (queueid_valid(args[i], strlen(args[i])) &&
                    queue_find(&s->ctl->queue, args[i], &queue, &st) == 0) {
                        ids[n_ids++] = args[i];
                        status = backlog_message(&s->backlog, args[i]);
                } else if (looks_like_id(args[i]))
                        gone = ctl_fail(EX_NOINPUT, "%s: no such message in the queue", args[i]);
                else
                        args[n++] = args[i];
        }
        args[n] = NULL;
        return status == EX_OK ? gone : status;
}

static int collect(Show *s, char *args[], char *ids[]) {
        bool has_postfix;
        int status = take_ids(s, args, ids), gone = status;

        if (status != EX_OK && (status != EX_NOINPUT || (!args[0] && !ids[0])))
                return status;
        has_postfix = s->ctl->settings.postfix_config_directory[0] != '\0';
        status = backlog_collect(s->ctl, args[0] ? args : NULL,
                                 has_postfix ? BACKLOG_LISTED : BACKLOG_RECORDED, &s->backlog);
        if (status == EX_DATAERR)
                return status;
        status = ctl_worse(status, gone);
        for (size_t i = 0; i < s->backlog.n; i++)
                status = ctl_worse(status, add_row(s, s->backlog.rows[i]));
        for (size_t i = 0; ids[i]; i++)
                status = ctl_worse(status, add_message(s, ids[i]));
        if (s->n > 1)
                qsort_r(s->items, s->n, sizeof *s->items, compare_items, s);
        if (s->ctl->top > 0 && s->ctl->top < s->n)
                s->n = s->ctl->top;
        return status;
}

static void show_done(Show *s) {
        free(s->items);
        strset_clear(&s->sites);
        backlog_done(&s->backlog);
}

int ctl_show(Ctl *ctl, char *args[]) {
        _cleanup_(show_done) Show s = {.ctl = ctl, .backlog.keep = true};
        _cleanup_free_ char **ids = NULL;
        size_t n = 0;
        int status = find_order(ctl, &s.compare);

        if (status != EX_OK)
                return status;
        while (args[n])
                n++;
        ids = calloc(n + 1, sizeof *ids);
        if (!ids)
                return ctl_no_memory();
        status = collect(&s, args, ids);
        return ctl_worse(status, print(&s));
}
