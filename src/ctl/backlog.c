/* SPDX-License-Identifier: MIT */

#include "ctl/backlog.h"

#include <fcntl.h>

#include "ctl/cause.h"
#include "ctl/ctl-print.h"
#include "ctl/messages.h"
#include "util/grow.h"
#include "util/util.h"

/* -------------------------------------------------------------------------------- what is kept */

BacklogMail *backlog_mail(const Backlog *b, const char *id) {
        BacklogMail *mail;

        HASH_FIND_STR(b->mails, id, mail);
        return mail;
}

static int add_mail(Backlog *b, const char *id) {
        size_t n = strlen(id);
        BacklogMail *mail;
        bool oom = false;

        if (backlog_mail(b, id))
                return 0;
        mail = calloc(1, sizeof *mail + n + 1);
        if (!mail)
                return -ENOMEM;
        memcpy(mail->id, id, n);
        HASH_ADD_KEYPTR(hh, b->mails, mail->id, n, mail);
        if (oom)
                free(mail);
        return oom ? -ENOMEM : 0;
}

static void free_row(BacklogRow *row) {
        BacklogCause *cause, *next;

        HASH_ITER (hh, row->causes, cause, next) {
                HASH_DEL(row->causes, cause);
                free(cause);
        }
        strset_clear(&row->ids);
        free(row->site);
        free(row->log);
        free(row);
}

/* Return: the row of a site, which is made if it is not there; or NULL: no memory. */
static BacklogRow *get_row(BacklogRow **table, const char *site) {
        BacklogRow *row;
        bool oom = false;

        HASH_FIND_STR(*table, site, row);
        if (row)
                return row;
        row = calloc(1, sizeof *row);
        if (!row)
                return NULL;
        row->named = true;
        row->site = strdup(site);
        if (row->site)
                HASH_ADD_KEYPTR(hh, *table, row->site, strlen(site), row);
        if (!row->site || oom) {
                free_row(row);
                return NULL;
        }
        return row;
}

static int add_cause(BacklogRow *row, const char *reason) {
        char text[CAUSE_MAX + 1];
        BacklogCause *cause;
        bool oom = false;
        size_t n;

        n = strlen(cause_of(reason, text));
        HASH_FIND(hh, row->causes, text, n, cause);
        if (cause) {
                cause->count++;
                return 0;
        }
        cause = calloc(1, sizeof *cause + n + 1);
        if (!cause)
                return -ENOMEM;
        cause->count = 1;
        memcpy(cause->text, text, n);
        HASH_ADD_KEYPTR(hh, row->causes, cause->text, n, cause);
        if (oom)
                free(cause);
        return oom ? -ENOMEM : 0;
}

int backlog_message(Backlog *b, const char *id) {
        return add_mail(b, id) < 0 ? ctl_no_memory() : EX_OK;
}

/* ------------------------------------------------------------------------------------- the logs */

static time_t flushed_at(const Backlog *b, const CtlSite *site) {
        const struct timespec *atime = &site->st.st_atim;
        struct timespec birth;

        if (queue_birth(&b->ctl->queue, site->path, &birth) == 0 && birth.tv_sec == atime->tv_sec &&
            birth.tv_nsec == atime->tv_nsec)
                return BACKLOG_NEVER;
        return atime->tv_sec;
}

static int read_log(Backlog *b, const CtlSite *site) {
        _cleanup_(survey_done) SurveyLog log = {0};
        BacklogRow *row = get_row(&b->by_site, site->site);
        const StrSetEntry *e = NULL;
        int status;

        if (!row)
                return ctl_no_memory();
        row->named = site->named;
        row->log = strdup(strrchr(site->path, '/') + 1);
        if (!row->log)
                return ctl_no_memory();
        row->flushed = flushed_at(b, site);
        status = ctl_read_site(b->ctl, site, &log);
        row->records = log.records;
        row->messages = strset_size(&log.ids);
        row->ids = log.ids;
        log.ids = (StrSet){0};
        while ((e = strset_next(&row->ids, e)))
                if (add_mail(b, strset_entry_id(e)) < 0)
                        return ctl_no_memory();
        return status;
}

static int read_logs(Backlog *b, const CtlSites *sites) {
        int status = EX_OK;

        for (size_t i = 0; i < sites->n && status != EX_OSERR; i++)
                status = ctl_worse(status, read_log(b, &sites->items[i]));
        return status;
}

/* --------------------------------------------------------------------------- what Postfix lists */

static int is_message(const SurveyEntry *e, void *userdata) {
        return S_ISREG(e->st.st_mode) && queueid_valid(e->name, strlen(e->name));
}

/* Flushed mail has no record until it is deferred again. */
static bool is_in_delivery(const Ctl *ctl) {
        return survey_walk(&ctl->queue, QUEUE_INCOMING, is_message, NULL) != 0 ||
               survey_walk(&ctl->queue, QUEUE_ACTIVE, is_message, NULL) != 0;
}

const char *backlog_recipient(const json_t *listed, size_t i, char ret_site[static SITE_SIZE],
                              const char **ret_reason) {
        const json_t *recipient = json_array_get(json_object_get(listed, "recipients"), i);
        const char *address, *site;

        if (!recipient)
                return NULL;
        address = json_string_value(json_object_get(recipient, "address"));
        site = address ? messages_site(address) : NULL;
        if (!site || sitename_normalize(site, ret_site) < 0)
                ret_site[0] = '\0';
        *ret_reason = json_string_value(json_object_get(recipient, "delay_reason"));
        return address ? address : "";
}

/* It is under way to this site: it has no record there, or is just about to lose it. */
static int note_delivery(Backlog *b, const char *site, const char *id) {
        BacklogRow *row;

        if (b->no_sites || !site[0] || !ctl_patterns_match(&b->patterns, site))
                return 0;
        row = get_row(&b->by_site, site);
        if (!row || strset_add(&row->ids, id) < 0)
                return -ENOMEM;
        return add_mail(b, id);
}

static int note_deferral(Backlog *b, const char *site, const char *id, const char *reason) {
        bool all = b->patterns.n == 0 && !b->no_sites;
        BacklogRow *row;

        HASH_FIND_STR(b->by_site, site, row);
        if (!row || !strset_contains(&row->ids, id)) {
                row = all ? get_row(&b->unrecorded, site) : NULL;
                if (!row)
                        return all ? -ENOMEM : 0;
                if (strset_add(&row->ids, id) < 0 || add_mail(b, id) < 0)
                        return -ENOMEM;
        }
        if (!reason)
                return 0;
        row->matches |= b->match && strcasestr(reason, b->match);
        return add_cause(row, reason);
}

static int note_listed(Backlog *b, json_t *listed) {
        const char *id = json_string_value(json_object_get(listed, "queue_id"));
        const char *queue = json_string_value(json_object_get(listed, "queue_name")), *reason;
        bool deferred = streq(queue, queue_name(QUEUE_DEFERRED));
        char site[SITE_SIZE];
        BacklogMail *mail;
        int r = 0;

        if (!queueid_valid(id, strlen(id)))
                return 0;
        for (size_t i = 0; r == 0 && backlog_recipient(listed, i, site, &reason); i++)
                if (deferred)
                        r = note_deferral(b, site, id, reason);
                else if (!streq(queue, queue_name(QUEUE_HOLD)))
                        r = note_delivery(b, site, id);
        mail = r == 0 ? backlog_mail(b, id) : NULL;
        if (!mail)
                return r;
        mail->arrival = json_integer_value(json_object_get(listed, "arrival_time"));
        if (b->keep && !mail->listed)
                mail->listed = json_incref(listed);
        return 0;
}

static int close_listing(Messages *m) {
        _cleanup_free_ char *errors = NULL;
        int r = messages_close(m, &errors);

        if (errors)
                ctl_error_lines(errors);
        if (r == 0)
                return EX_OK;
        ctl_error("postqueue failed: what is in delivery, and why mail is deferred, is not known");
        return EX_UNAVAILABLE;
}

static int list_queue(Backlog *b) {
        const char *directory = b->ctl->settings.postfix_config_directory;
        json_t *listed;
        Messages m;
        int r, status;

        r = messages_open(&m, directory);
        if (r < 0) {
                ctl_error("postqueue: %s", strerror(-r));
                return EX_UNAVAILABLE;
        }
        while (r == 0 && (listed = messages_next(&m))) {
                r = note_listed(b, listed);
                json_decref(listed);
        }
        status = close_listing(&m);
        b->listed = r == 0 && status == EX_OK;
        return r < 0 ? ctl_no_memory() : status;
}

static int list_if_wanted(Backlog *b, BacklogEffort effort) {
        bool has_postfix = b->ctl->settings.postfix_config_directory[0] != '\0';
        size_t n = HASH_COUNT(b->mails);

        b->idle = !is_in_delivery(b->ctl);
        if (effort == BACKLOG_LISTED && !has_postfix) {
                ctl_error("postfix_config_directory is empty: there is no Postfix to ask");
                return EX_CONFIG;
        }
        if (effort == BACKLOG_RECORDED || !has_postfix ||
            (effort == BACKLOG_CHEAP && n > (b->idle ? BACKLOG_FEW : BACKLOG_MANY)))
                return EX_OK;
        return list_queue(b);
}

/* ---------------------------------------------------------------------------- where it is now */

/* Unless the ID tells, the time that Postfix has listed is better if it is earlier. */
static void find_arrival(const Queue *q, BacklogMail *mail) {
        bool is_told = queueid_arrival(mail->id) != 0;
        char path[QUEUE_PATH_SIZE];
        time_t arrival;

        queue_path(q, mail->queue, mail->id, path);
        arrival = queue_arrival(q, path, mail->id);
        if (arrival != 0 && (is_told || mail->arrival <= 0 || arrival < mail->arrival))
                mail->arrival = arrival;
}

/* After all lists have been read: what they say of a message may be of before it was moved. */
static void look_for_mail(const Backlog *b) {
        for (BacklogMail *mail = b->mails; mail; mail = mail->hh.next) {
                struct stat st;

                mail->error = queue_find(&b->ctl->queue, mail->id, &mail->queue, &st);
                if (mail->error < 0)
                        continue;
                mail->due = mail->queue == QUEUE_DEFERRED ? st.st_mtim.tv_sec : 0;
                mail->size = st.st_size;
                find_arrival(&b->ctl->queue, mail);
        }
}

static void count_one(const BacklogMail *mail, unsigned long *deferred, unsigned long *active,
                      unsigned long *hold) {
        if (mail->error < 0)
                return;
        *deferred += mail->queue == QUEUE_DEFERRED;
        *active += mail->queue == QUEUE_ACTIVE || mail->queue == QUEUE_INCOMING;
        *hold += mail->queue == QUEUE_HOLD;
}

static int by_count(const BacklogCause *a, const BacklogCause *b) {
        return a->count != b->count ? (a->count < b->count) - (a->count > b->count)
                                    : strcmp(a->text, b->text);
}

static void sum_up(const Backlog *b, BacklogRow *row) {
        const StrSetEntry *e = NULL;

        while ((e = strset_next(&row->ids, e))) {
                const BacklogMail *mail = backlog_mail(b, strset_entry_id(e));

                count_one(mail, &row->deferred, &row->active, &row->hold);
                if (mail->error == 0 && queue_arrived_before(mail->arrival, row->oldest))
                        row->oldest = mail->arrival;
        }
        HASH_SORT(row->causes, by_count);
}

static int by_site(const BacklogRow *a, const BacklogRow *b) {
        return strcmp(a->site, b->site);
}

static int make_rows(Backlog *b) {
        HASH_SORT(b->by_site, by_site);
        for (BacklogRow *row = b->by_site; row; row = row->hh.next) {
                /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
                if (!GROW(b->rows, b->n, b->size))
                        return ctl_no_memory();
                b->rows[b->n++] = row;
                sum_up(b, row);
        }
        for (BacklogRow *row = b->unrecorded; row; row = row->hh.next)
                sum_up(b, row);
        return EX_OK;
}

void backlog_count(Backlog *b, const BacklogRow *row, BacklogCounts *counts) {
        const StrSetEntry *e = NULL;

        while ((e = strset_next(&row->ids, e))) {
                BacklogMail *mail = backlog_mail(b, strset_entry_id(e));

                if (!mail->counted)
                        count_one(mail, &counts->deferred, &counts->active, &counts->hold);
                mail->counted = true;
        }
}

/* All but the patterns. */
static int collect(Backlog *b, const CtlSites *sites, BacklogEffort effort) {
        int status = read_logs(b, sites), listed;

        if (status == EX_OSERR)
                return status;
        listed = list_if_wanted(b, effort);
        if (listed == EX_OSERR || listed == EX_CONFIG)
                return listed;
        look_for_mail(b);
        return ctl_worse(ctl_worse(status, listed), make_rows(b));
}

int backlog_collect(Ctl *ctl, char *args[], BacklogEffort effort, Backlog *b) {
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        int status;

        b->ctl = ctl;
        b->no_sites = args == NULL;
        status = args ? ctl_patterns_parse(ctl, args, &b->patterns) : EX_OK;
        if (status == EX_OK)
                status = args ? ctl_survey_sites(ctl, &b->patterns, &sites) : ctl_queue(ctl);
        if (status != EX_OK)
                return status;
        status = collect(b, &sites, effort);
        return ctl_worse(status, ctl_patterns_unused(&b->patterns));
}

static void free_rows(BacklogRow *rows) {
        BacklogRow *row, *next;

        HASH_ITER (hh, rows, row, next) {
                HASH_DEL(rows, row);
                free_row(row);
        }
}

void backlog_done(Backlog *b) {
        BacklogMail *mail, *next;

        HASH_ITER (hh, b->mails, mail, next) {
                HASH_DEL(b->mails, mail);
                json_decref(mail->listed);
                free(mail);
        }
        free_rows(b->by_site);
        free_rows(b->unrecorded);
        free(b->rows);
        ctl_patterns_done(&b->patterns);
        *b = (Backlog){0};
}
