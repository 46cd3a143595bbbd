/* SPDX-License-Identifier: MIT */

/* fflushctl flush, deliver, add, refresh, purge: what changes something, over the socket. */

#include <stdio.h>

#include "ctl.h"
#include "util.h"

static void say_flushed(const char *site, const RequestCounts *c) {
        printf("%s: %lu found, %lu moved", site, c->found, c->moved);
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

static void say_delivered(const char *id, const RequestCounts *c) {
        printf("%s: %s\n", id,
               c->moved  ? "moved"
               : c->gone ? "no such message in the queue"
               : c->busy ? "active, on hold, or still being written"
                         : "could not be moved, the journal says why");
}

static int flush_site(Ctl *ctl, const char *site) {
        Request request = {.kind = REQUEST_SEND_SITE, .site = site, .detail = true};
        RequestStatus status = REQUEST_FAIL;
        RequestCounts counts = {0};
        bool has_counts = false;
        int r;

        r = ctl_ask(ctl, &request, site, &status, &counts, &has_counts);
        if (ctl->json && !ctl->quiet)
                ctl_print_json(ctl_json_counts("site", site, status, has_counts ? &counts : NULL));
        else if (r == EX_OK && has_counts && !ctl->quiet) /* flush(8) does not tell */
                say_flushed(site, &counts);
        return r == EX_OK && counts.failed > 0 ? EX_TEMPFAIL : r;
}

static int deliver(Ctl *ctl, const char *id) {
        Request request = {.kind = REQUEST_SEND_FILE, .queue_id = id, .detail = true};
        RequestStatus status = REQUEST_FAIL;
        RequestCounts counts = {0};
        bool has_counts = false;
        int r;

        r = ctl_check_id(id);
        if (r == EX_OK)
                r = ctl_ask(ctl, &request, id, &status, &counts, &has_counts);
        if (ctl->json && !ctl->quiet)
                ctl_print_json(
                        ctl_json_counts("queue_id", id, status, has_counts ? &counts : NULL));
        else if (r == EX_OK && has_counts && !ctl->quiet)
                say_delivered(id, &counts);
        if (r != EX_OK)
                return r;
        return counts.failed > 0 ? EX_TEMPFAIL : counts.gone > 0 ? EX_NOINPUT : EX_OK;
}

int ctl_flush(Ctl *ctl, char *args[]) {
        int status = EX_OK;

        for (; *args; args++)
                status = ctl_worse(status, flush_site(ctl, *args));
        return status;
}

int ctl_deliver(Ctl *ctl, char *args[]) {
        int status = EX_OK;

        for (; *args; args++)
                status = ctl_worse(status, deliver(ctl, *args));
        return status;
}

/* A request that has nothing to tell but whether it was done. */
static int ask(Ctl *ctl, const Request *request, const char *first, const char *value) {
        RequestStatus status = REQUEST_FAIL;
        RequestCounts counts;
        bool has_counts;
        int r = ctl_ask(ctl, request, value, &status, &counts, &has_counts);

        if (ctl->json && !ctl->quiet)
                ctl_print_json(ctl_json_counts(first, value, status, NULL));
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
