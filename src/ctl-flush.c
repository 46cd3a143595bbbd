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

static int flush_site(Ctl *ctl, const CtlSite *site) {
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
        return r == EX_OK && counts.failed > 0 ? EX_TEMPFAIL : r;
}

/* Most users may connect to the socket but not look at the logs, and need not for this. */
static bool are_plain_sites(const Ctl *ctl, char *args[]) {
        bool plain = !ctl->subdomains && !ctl->dry_run;

        for (; plain && *args; args++) {
                Pattern pattern;

                plain = pattern_parse(*args, &pattern) < 0 || !pattern.glob;
                pattern_free(&pattern);
        }
        return plain;
}

int ctl_flush(Ctl *ctl, char *args[]) {
        _cleanup_(ctl_free_sites) CtlSites sites = {0};
        int r = EX_OK;

        if (are_plain_sites(ctl, args)) {
                for (; *args; args++)
                        r = ctl_worse(r, flush_site(ctl, &(CtlSite){.site = *args, .named = true}));
                return r;
        }
        r = ctl_find_sites(ctl, args, true, &sites);
        if (r != EX_OK && r != EX_NOINPUT)
                return r;
        for (size_t i = 0; i < sites.n; i++)
                r = ctl_worse(r, flush_site(ctl, &sites.items[i]));
        return r;
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

/* From standard input, between blanks; a "-" among others has its place in the order. */
static int deliver_input(Ctl *ctl) {
        _cleanup_free_ char *line = NULL;
        int status = EX_OK;
        size_t size = 0;

        while (getline(&line, &size, stdin) > 0) {
                char *rest = line, *id;

                while ((id = strsep(&rest, " \t\r\n")))
                        if (*id)
                                status = ctl_worse(status, deliver(ctl, id));
        }
        if (ferror(stdin)) {
                ctl_error("standard input: %s", strerror(errno));
                status = ctl_worse(status, EX_IOERR);
        }
        return status;
}

int ctl_deliver(Ctl *ctl, char *args[]) {
        int status = EX_OK;

        for (; *args; args++)
                status = ctl_worse(status,
                                   streq(*args, "-") ? deliver_input(ctl) : deliver(ctl, *args));
        return status;
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
