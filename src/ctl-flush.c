/* SPDX-License-Identifier: MIT */

/* fflushctl flush, deliver, add, refresh, purge: what changes something, over the socket. */

#include <stdio.h>

#include "ctl.h"
#include "pattern.h"
#include "util.h"

static void say_flushed(const Ctl *ctl, const char *site, const RequestCounts *c) {
        printf("%s: %lu found, %lu %s", site, c->found, c->moved,
               ctl->dry_run ? "would be moved" : "moved");
        if (c->gone)
                printf(", %lu gone", c->gone);
        if (c->busy)
                printf(", %lu active or on hold", c->busy);
        if (c->failed)
                printf(", %lu failed", c->failed);
        if (c->duplicate)
                printf(", %lu recorded twice", c->duplicate);
        putchar('\n');
}

static void say_delivered(const Ctl *ctl, const char *id, const RequestCounts *c) {
        printf("%s: %s\n", id,
               c->moved  ? (ctl->dry_run ? "would be moved" : "moved")
               : c->gone ? "no such message in the queue"
               : c->busy ? "active, on hold, or still being written"
                         : "could not be moved, the journal says why");
}

static void say_json(const Ctl *ctl, const char *key, const char *value, RequestStatus status,
                     const RequestCounts *counts) {
        json_t *object = ctl_json_counts(key, value, status, counts);

        if (object && ctl->dry_run)
                (void) json_object_set_new(object, "dry_run", json_true());
        ctl_print_json(object);
}

static void preview(Ctl *ctl, const char *id, bool unthrottle, RequestCounts *counts) {
        QueueResult result;
        int r = queue_preview(&ctl->queue, id, unthrottle, &result);

        counts->moved += r == 0 && result == QUEUE_MOVED;
        counts->gone += r == 0 && result == QUEUE_GONE;
        counts->busy += r == 0 && (result == QUEUE_BUSY || result == QUEUE_NOT_READY);
        counts->failed += r < 0;
}

static int preview_site(Ctl *ctl, const CtlSite *site, RequestCounts *ret) {
        SurveyLog log;
        IdSet seen = {0};
        int r = ctl_read_site(ctl, site, &log), k = 0;

        ret->invalid = log.invalid;
        for (size_t i = 0; k >= 0 && i < log.n_text; i += strlen(log.text + i) + 1) {
                ret->found++;
                k = idset_add(&seen, log.text + i);
                ret->duplicate += k == 0;
                if (k > 0)
                        preview(ctl, log.text + i, false, ret);
        }
        idset_clear(&seen);
        survey_free(&log);
        return k < 0 ? ctl_no_memory() : r;
}

static int flush_site(Ctl *ctl, const CtlSite *site, bool *all_moved) {
        Request request = {.kind = REQUEST_SEND_SITE, .site = site->site, .detail = true};
        RequestStatus status = REQUEST_FAIL;
        RequestCounts counts = {0};
        bool has_counts = ctl->dry_run;
        int r;

        if (!site->named) {
                ctl_error("%s: a log of flush(8), whose site is unknown; see import and purge",
                          site->site);
                return EX_DATAERR;
        }
        if (ctl->dry_run) {
                status = REQUEST_OK;
                r = preview_site(ctl, site, &counts);
        } else
                r = ctl_ask(ctl, &request, site->site, &status, &counts, &has_counts);
        if (ctl->json && !ctl->quiet)
                say_json(ctl, "site", site->site, status, has_counts ? &counts : NULL);
        else if (r == EX_OK && has_counts && !ctl->quiet) /* flush(8) does not tell */
                say_flushed(ctl, site->site, &counts);
        *all_moved &= r == EX_OK && counts.failed == 0;
        return r == EX_OK && counts.failed > 0 ? EX_TEMPFAIL : r;
}

/* Most users may connect to the socket but not look at the logs, and need not for this. */
static bool are_plain_sites(const Ctl *ctl, char *args[]) {
        bool plain = !ctl->subdomains && !ctl->dry_run && !ctl->wait;

        for (; plain && *args; args++) {
                Pattern pattern;

                plain = pattern_parse(*args, &pattern) < 0 || !pattern.glob;
                pattern_free(&pattern);
        }
        return plain;
}

static int follow_site(Ctl *ctl, const CtlSite *site, Follow *f) {
        const IdSetEntry *e = NULL;
        SurveyLog log;
        int r = ctl_read_site(ctl, site, &log);

        while (r == EX_OK && (e = idset_next(&log.ids, e)))
                r = ctl_wait_add(f, idset_entry_id(e));
        survey_free(&log);
        return r;
}

static int flush_sites(Ctl *ctl, const CtlSites *sites) {
        _cleanup_(follow_free) Follow follow = {.fd = -EBADF};
        bool all_moved = true;
        int r = EX_OK;

        if (ctl->wait)
                r = ctl_wait_begin(ctl, &follow);
        for (size_t i = 0; r == EX_OK && ctl->wait && i < sites->n; i++)
                r = follow_site(ctl, &sites->items[i], &follow);
        if (r != EX_OK)
                return r;
        for (size_t i = 0; i < sites->n; i++)
                r = ctl_worse(r, flush_site(ctl, &sites->items[i], &all_moved));
        return ctl->wait ? ctl_worse(r, ctl_wait_end(ctl, &follow, all_moved)) : r;
}

int ctl_flush(Ctl *ctl, char *args[]) {
        _cleanup_(ctl_free_sites) CtlSites sites = {0};
        bool all_moved;
        int r = EX_OK;

        if (are_plain_sites(ctl, args)) {
                for (; *args; args++)
                        r = ctl_worse(r, flush_site(ctl, &(CtlSite){.site = *args, .named = true},
                                                    &all_moved));
                return r;
        }
        if (ctl->wait && ctl->dry_run)
                return ctl_usage("--wait and --dry-run: there will be nothing to wait for");
        r = ctl_find_sites(ctl, args, true, &sites);
        return r == EX_OK || r == EX_NOINPUT ? ctl_worse(r, flush_sites(ctl, &sites)) : r;
}

static int preview_message(Ctl *ctl, const char *id, RequestCounts *ret) {
        int r = ctl_queue(ctl);

        ret->found = r == EX_OK;
        if (r == EX_OK)
                preview(ctl, id, true, ret);
        return r;
}

static int deliver(Ctl *ctl, const char *id) {
        Request request = {.kind = REQUEST_SEND_FILE, .queue_id = id, .detail = true};
        RequestStatus status = REQUEST_FAIL;
        RequestCounts counts = {0};
        bool has_counts = ctl->dry_run;
        int r;

        r = ctl_check_id(id);
        if (r != EX_OK)
                status = REQUEST_BAD;
        else if (ctl->dry_run) {
                status = REQUEST_OK;
                r = preview_message(ctl, id, &counts);
        } else
                r = ctl_ask(ctl, &request, id, &status, &counts, &has_counts);
        if (ctl->json && !ctl->quiet)
                say_json(ctl, "queue_id", id, status, has_counts ? &counts : NULL);
        else if (r == EX_OK && has_counts && !ctl->quiet)
                say_delivered(ctl, id, &counts);
        if (r != EX_OK)
                return r;
        return counts.failed > 0 ? EX_TEMPFAIL : counts.gone > 0 ? EX_NOINPUT : EX_OK;
}

typedef int (*each_id_t)(Ctl *ctl, char *id, void *userdata);

/* Between blanks, each as soon as it is there. */
static int each_of_input(Ctl *ctl, each_id_t each, void *userdata) {
        _cleanup_free_ char *line = NULL;
        int status = EX_OK;
        size_t size = 0;

        while (getline(&line, &size, stdin) > 0) {
                char *rest = line, *id;

                while ((id = strsep(&rest, " \t\r\n")))
                        if (*id)
                                status = ctl_worse(status, each(ctl, id, userdata));
        }
        if (ferror(stdin)) {
                ctl_error("standard input: %s", strerror(errno));
                status = ctl_worse(status, EX_IOERR);
        }
        return status;
}

static int each_id(Ctl *ctl, char *args[], each_id_t each, void *userdata) {
        int status = EX_OK;

        for (; *args; args++)
                status = ctl_worse(status, streq(*args, "-") ? each_of_input(ctl, each, userdata)
                                                             : each(ctl, *args, userdata));
        return status;
}

static int deliver_id(Ctl *ctl, char *id, void *userdata) {
        (void) userdata;
        return deliver(ctl, id);
}

/* IDs are known only once; to follow them, all have to be known before the first is delivered. */
typedef struct Waiting {
        Follow follow;
        char **ids;
        size_t n;
} Waiting;

static int collect_id(Ctl *ctl, char *id, void *userdata) {
        Waiting *w = userdata;
        char **ids = reallocarray(w->ids, w->n + 1, sizeof *ids);

        (void) ctl;
        if (!ids)
                return ctl_no_memory();
        w->ids = ids;
        ids[w->n] = strdup(id);
        if (!ids[w->n])
                return ctl_no_memory();
        w->n++;
        return queueid_valid(id, strlen(id)) ? ctl_wait_add(&w->follow, id) : EX_OK;
}

static void waiting_free(Waiting *w) {
        while (w->n > 0)
                free(w->ids[--w->n]);
        free(w->ids);
        follow_free(&w->follow);
}

static int deliver_and_wait(Ctl *ctl, char *args[]) {
        _cleanup_(waiting_free) Waiting w = {.follow.fd = -EBADF};
        int r = ctl_wait_begin(ctl, &w.follow);

        if (r == EX_OK)
                r = each_id(ctl, args, collect_id, &w);
        if (r != EX_OK)
                return r;
        for (size_t i = 0; i < w.n; i++)
                r = ctl_worse(r, deliver(ctl, w.ids[i]));
        return ctl_worse(r, ctl_wait_end(ctl, &w.follow, r == EX_OK || r == EX_NOINPUT));
}

int ctl_deliver(Ctl *ctl, char *args[]) {
        if (ctl->wait && ctl->dry_run)
                return ctl_usage("--wait and --dry-run: there will be nothing to wait for");
        return ctl->wait ? deliver_and_wait(ctl, args) : each_id(ctl, args, deliver_id, NULL);
}

/* A request that has nothing to tell but whether it was done. */
static int ask(Ctl *ctl, const Request *request, const char *first, const char *value) {
        RequestStatus status = REQUEST_FAIL;
        RequestCounts counts;
        bool has_counts;
        int r = ctl_ask(ctl, request, value, &status, &counts, &has_counts);

        if (ctl->json && !ctl->quiet)
                say_json(ctl, first, value, status, NULL);
        return r;
}

int ctl_add(Ctl *ctl, char *args[]) {
        Request request = {.kind = REQUEST_ADD, .site = args[0], .queue_id = args[1]};
        int r = ctl_check_id(args[1]);

        return r == EX_OK ? ask(ctl, &request, "site", args[0]) : r;
}

int ctl_refresh(Ctl *ctl, char *args[]) {
        (void) args;
        return ask(ctl, &(Request){.kind = REQUEST_REFRESH}, "request", "refresh");
}

int ctl_purge(Ctl *ctl, char *args[]) {
        (void) args;
        return ask(ctl, &(Request){.kind = REQUEST_PURGE}, "request", "purge");
}
