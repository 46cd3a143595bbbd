/* SPDX-License-Identifier: MIT */

/* fflushctl flush, deliver, add, refresh, purge: what changes something, over the socket. */

#include <limits.h>
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-input.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-sites.h"
#include "ctl/ctl-wait.h"
#include "ctl/pattern.h"
#include "ctl/reader.h"
#include "ctl/relay.h"
#include "util/grow.h"
#include "util/util.h"

static void say_flushed(const Ctl *ctl, const char *what, const RequestCounts *c) {
        ctl_print("%s: ", what);
        if (c->sites)
                ctl_print("%lu site%s, ", c->sites, c->sites == 1 ? "" : "s");
        ctl_print("%lu found, %lu %s", c->found, c->moved,
                  ctl->dry_run ? "would be moved" : "moved");
        if (c->gone)
                ctl_print(", %lu gone", c->gone);
        if (c->busy)
                ctl_print(", %lu active or on hold", c->busy);
        if (c->failed)
                ctl_print(", %lu failed", c->failed);
        if (c->duplicate)
                ctl_print(", %lu recorded twice", c->duplicate);
        if (c->left)
                ctl_print("; %lu left", c->left);
        ctl_print("\n");
        relay_count(c->found, "found");
        relay_count(c->moved, ctl->dry_run ? "would be moved" : "moved");
        relay_count(c->gone, "gone");
        relay_count(c->busy, "active or on hold");
        relay_count(c->failed, "failed");
}

static void say_delivered(const Ctl *ctl, const char *id, const RequestCounts *c) {
        ctl_print("%s: %s\n", id,
                  c->moved  ? (ctl->dry_run ? "would be moved" : "moved")
                  : c->gone ? "no such message in the queue"
                  : c->busy ? "active, on hold, or still being written"
                            : "could not be moved, the journal says why");
}

static void say_json(const Ctl *ctl, const char *key, const char *value, RequestStatus status,
                     const RequestCounts *counts) {
        json_t *object = ctl_json_counts(key, value, status, counts);

        if (object && streq(key, "request"))
                (void) json_object_set_new(object, "sites",
                                           counts ? json_integer((json_int_t) counts->sites)
                                                  : json_null());
        if (object)
                (void) json_object_set_new(object, "dry_run", json_boolean(ctl->dry_run));
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
        unsigned long limit = ctl->limit > 0 ? ctl->limit : ULONG_MAX;
        _cleanup_(survey_done) SurveyLog log = {0};
        _cleanup_(strset_clear) StrSet seen = {0};
        int r, status;

        status = ctl_read_site(ctl, site, &log);
        ret->invalid = log.invalid;
        for (size_t i = 0; i < log.n_text; i += strlen(log.text + i) + 1) {
                if (ret->moved == limit) {
                        ret->left++;
                        continue;
                }
                ret->found++;
                r = strset_add(&seen, log.text + i);
                if (r < 0)
                        return ctl_no_memory();
                ret->duplicate += r == 0;
                if (r > 0)
                        preview(ctl, log.text + i, false, ret);
        }
        return status;
}

static Request request_for(const Ctl *ctl, const CtlSite *site) {
        return (Request){.kind = REQUEST_SEND_SITE,
                         .site = site->site,
                         .detail = true,
                         .limit = ctl->limit,
                         .reason = ctl->reason};
}

static int say_answer(const Ctl *ctl, const CtlSite *site, const CtlAnswer *a) {
        const RequestCounts *counts = a->has_counts ? &a->counts : NULL;

        if (ctl->json && !ctl->quiet)
                say_json(ctl, "site", site->site, a->answer, counts);
        else if (a->status == EX_OK && counts && !ctl->quiet) /* flush(8) does not tell */
                say_flushed(ctl, site->site, counts);
        return a->status == EX_OK && a->counts.failed > 0 ? EX_TEMPFAIL : a->status;
}

/* One pass over the sites. Those of which records are left come to the front. */
typedef struct Pass {
        Ctl *ctl;
        CtlSites *sites;
        const size_t *places; /* in @sites, of what was asked for */
        size_t n_left;
        int status;
        bool all_moved;
} Pass;

static void on_answer(size_t i, const CtlAnswer *answer, void *userdata) {
        Pass *pass = userdata;
        size_t place = pass->places[i];
        CtlSite site = pass->sites->items[place];
        int flushed = say_answer(pass->ctl, &site, answer);

        pass->status = ctl_worse(pass->status, flushed);
        pass->all_moved &= flushed == EX_OK;
        if (answer->counts.left == 0)
                return;
        pass->sites->items[place] = pass->sites->items[pass->n_left];
        pass->sites->items[pass->n_left++] = site;
}

static void preview_pass(Pass *pass, size_t n) {
        for (size_t i = 0; i < n; i++) {
                CtlAnswer answer = {.answer = REQUEST_OK, .has_counts = true};

                answer.status = preview_site(pass->ctl, &pass->sites->items[pass->places[i]],
                                             &answer.counts);
                on_answer(i, &answer, pass);
        }
}

static void ask_pass(Pass *pass, size_t n) {
        _cleanup_free_ Request *requests = calloc(n + 1, sizeof *requests);
        int r;

        for (size_t i = 0; i < n && requests; i++)
                requests[i] = request_for(pass->ctl, &pass->sites->items[pass->places[i]]);
        r = requests ? ctl_ask_all(pass->ctl, requests, n, on_answer, pass) : ctl_no_memory();
        pass->status = ctl_worse(pass->status, r);
        pass->all_moved &= r == EX_OK;
}

static void flush_pass(Pass *pass, size_t n) {
        _cleanup_free_ size_t *places = calloc(n + 1, sizeof *places);
        size_t n_named = 0;

        for (size_t i = 0; i < n && places; i++) {
                const CtlSite *site = &pass->sites->items[i];

                if (site->named || (pass->ctl->all && pass->ctl->dry_run)) {
                        places[n_named++] = i;
                        continue;
                }
                pass->status = ctl_worse(
                        pass->status,
                        ctl_fail(EX_DATAERR,
                                 "%s: a log of flush(8), whose site is unknown; see import and "
                                 "flush --all",
                                 site->site));
                pass->all_moved = false;
        }
        if (!places)
                pass->status = ctl_no_memory();
        pass->places = places;
        (pass->ctl->dry_run ? preview_pass : ask_pass)(pass, n_named);
}

static int pause_between(const Ctl *ctl) {
        if (fflush(stdout) != 0 || !reader_wait(ctl->every))
                return EX_IOERR; /* who would know how far it got? */
        return EX_OK;
}

/* With --every, again and again: sites of which something is left come to the front, the others
 * have had their turn. What is left when somebody ends this stays recorded. */
static int flush_portions(Ctl *ctl, CtlSites *sites, bool *all_moved) {
        Pass pass = {.ctl = ctl, .sites = sites, .n_left = sites->n, .all_moved = *all_moved};

        for (;;) {
                size_t n = pass.n_left;

                pass.n_left = 0;
                flush_pass(&pass, n);
                *all_moved = pass.all_moved;
                if (pass.n_left == 0 || ctl->every == 0)
                        return pass.status;
                if (pause_between(ctl) != EX_OK)
                        return EX_IOERR;
        }
}

static int follow_site(Ctl *ctl, const CtlSite *site, Follow *f) {
        _cleanup_(survey_done) SurveyLog log = {0};
        const StrSetEntry *e = NULL;
        int status;

        status = ctl_read_site(ctl, site, &log);
        while (status == EX_OK && (e = strset_next(&log.ids, e)))
                status = ctl_wait_add(f, strset_entry_id(e));
        return status;
}

static int flush_sites(Ctl *ctl, CtlSites *sites) {
        bool all_moved = true;

        return flush_portions(ctl, sites, &all_moved);
}

static int flush_and_wait(Ctl *ctl, CtlSites *sites) {
        _cleanup_(follow_done) Follow follow = {.fd = -EBADF};
        bool all_moved = true;
        int status;

        status = ctl_wait_begin(ctl, &follow);
        for (size_t i = 0; status == EX_OK && i < sites->n; i++)
                status = follow_site(ctl, &sites->items[i], &follow);
        if (status != EX_OK)
                return status;
        status = flush_portions(ctl, sites, &all_moved);
        return ctl_worse(status, ctl_wait_end(ctl, &follow, all_moved));
}

static int work(Ctl *ctl, RequestKind kind);

/* By the service's own list of logs, which has those of flush(8) too. */
static int purge_and_wait(Ctl *ctl) {
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        _cleanup_(follow_done) Follow follow = {.fd = -EBADF};
        char *all[] = {NULL};
        int status;

        status = ctl_find_sites(ctl, all, true, &sites);
        if (status == EX_OK)
                status = ctl_wait_begin(ctl, &follow);
        for (size_t i = 0; status == EX_OK && i < sites.n; i++)
                status = follow_site(ctl, &sites.items[i], &follow);
        if (status != EX_OK)
                return status;
        status = work(ctl, REQUEST_PURGE);
        return ctl_worse(status, ctl_wait_end(ctl, &follow, status == EX_OK));
}

/* Most users may connect to the socket but not look at the logs, and need not if they name sites.
 * Return: EX_OK, with the sites, none if the logs have to be looked at; or an exit status. */
static int take_sites(const Ctl *ctl, char *args[], CtlSites *ret) {
        bool look = ctl->subdomains || ctl->dry_run || ctl->wait;
        size_t n = 0;

        while (args[n])
                n++;
        ret->items = calloc(n + 1, sizeof *ret->items);
        if (!ret->items)
                return ctl_no_memory();
        for (size_t i = 0; i < n; i++) {
                _cleanup_(pattern_done) Pattern pattern = {0};
                int r = pattern_parse(args[i], &pattern);

                if (r < 0)
                        return r == -EINVAL ? ctl_no_site(args[i]) : ctl_no_memory();
                look |= pattern.glob != NULL;
                ret->items[i] = (CtlSite){.site = strdup(pattern.exact), .named = true};
                ret->n++;
                if (!ret->items[i].site)
                        return ctl_no_memory();
        }
        if (look)
                ctl_sites_done(ret);
        return EX_OK;
}

static int check_options(const Ctl *ctl) {
        if (ctl->wait && ctl->dry_run)
                return ctl_usage("--wait cannot be combined with --dry-run");
        if (ctl->every > 0 && ctl->limit == 0)
                return ctl_usage("--every needs --limit N");
        if (ctl->every > 0 && (ctl->wait || ctl->dry_run))
                return ctl_usage("--every cannot be combined with --wait or --dry-run");
        return EX_OK;
}

static int hex_value(char c) {
        const char *digits = "0123456789abcdef", *digit = c ? strchr(digits, c) : NULL;

        return digit ? (int) (digit - digits) : -1;
}

/* "\x2d" is "-", as systemd-escape(1) writes for the name of a unit. A site has no backslash of its
 * own; a byte 0 would end it, and stays as it is written. */
static void unescape(char *text) {
        char *to = text;

        while (*text) {
                bool escaped = text[0] == '\\' && text[1] == 'x';
                int high = escaped ? hex_value(text[2]) : -1;
                int low = high >= 0 ? hex_value(text[3]) : -1;

                if (low >= 0 && high + low > 0) {
                        *to++ = (char) (high * 16 + low);
                        text += 4;
                } else
                        *to++ = *text++;
        }
        *to = '\0';
}

int ctl_flush(Ctl *ctl, char *args[]) {
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        _cleanup_(ctl_input_done) Input input = {0};
        int status;

        status = check_options(ctl);
        if (status == EX_OK && ctl->all == (*args != NULL))
                status = ctl_usage(ctl->all ? "--all cannot be combined with a pattern"
                                            : "usage: fflushctl flush PATTERN...|-|--all");
        if (status != EX_OK)
                return status;
        if (ctl->all && !ctl->dry_run && ctl->limit == 0)
                return ctl->wait ? purge_and_wait(ctl) : ctl_purge(ctl, args);
        status = ctl_input(args, &input);
        if (status != EX_OK || (input.n == 0 && !ctl->all))
                return status;
        for (size_t i = 0; i < input.n; i++)
                unescape(input.words[i]);
        status = take_sites(ctl, input.words, &sites);
        if (status != EX_OK)
                return status;
        if (sites.n == 0)
                status = ctl_find_sites(ctl, input.words, true, &sites);
        if (status != EX_OK && (status != EX_NOINPUT || sites.n == 0))
                return status;
        return ctl_worse(status,
                         ctl->wait ? flush_and_wait(ctl, &sites) : flush_sites(ctl, &sites));
}

static int preview_message(Ctl *ctl, const char *id, RequestCounts *ret) {
        int status = ctl_queue(ctl);

        if (status != EX_OK)
                return status;
        ret->found = 1;
        preview(ctl, id, true, ret);
        return EX_OK;
}

static int deliver(Ctl *ctl, const char *id) {
        Request request = {
                .kind = REQUEST_SEND_FILE, .queue_id = id, .detail = true, .reason = ctl->reason};
        RequestStatus answer = REQUEST_FAIL;
        RequestCounts counts = {0};
        bool has_counts = ctl->dry_run;
        int status;

        status = ctl_check_id(id);
        if (status != EX_OK)
                answer = REQUEST_BAD;
        else if (ctl->dry_run) {
                answer = REQUEST_OK;
                status = preview_message(ctl, id, &counts);
        } else
                status = ctl_ask(ctl, &request, id, &answer, &counts, &has_counts);
        if (ctl->json && !ctl->quiet)
                say_json(ctl, "queue_id", id, answer, has_counts ? &counts : NULL);
        else if (status == EX_OK && has_counts && !ctl->quiet)
                say_delivered(ctl, id, &counts);
        if (status != EX_OK)
                return status;
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
        return deliver(ctl, id);
}

/* Standard input can be read only once, and following has to begin before the first delivery: so
 * collect all IDs first. */
typedef struct Waiting {
        Follow follow;
        char **ids;
        size_t n, size;
} Waiting;

static int collect_id(Ctl *ctl, char *id, void *userdata) {
        Waiting *w = userdata;

        if (!GROW(w->ids, w->n, w->size))
                return ctl_no_memory();
        w->ids[w->n] = strdup(id);
        if (!w->ids[w->n])
                return ctl_no_memory();
        w->n++;
        return queueid_valid(id, strlen(id)) ? ctl_wait_add(&w->follow, id) : EX_OK;
}

static void waiting_done(Waiting *w) {
        while (w->n > 0)
                free(w->ids[--w->n]);
        free(w->ids);
        follow_done(&w->follow);
}

static int deliver_and_wait(Ctl *ctl, char *args[]) {
        _cleanup_(waiting_done) Waiting w = {.follow.fd = -EBADF};
        int status = ctl_wait_begin(ctl, &w.follow);

        if (status != EX_OK)
                return status;
        status = each_id(ctl, args, collect_id, &w);
        if (status != EX_OK)
                return status;
        for (size_t i = 0; i < w.n; i++)
                status = ctl_worse(status, deliver(ctl, w.ids[i]));
        return ctl_worse(status,
                         ctl_wait_end(ctl, &w.follow, status == EX_OK || status == EX_NOINPUT));
}

int ctl_deliver(Ctl *ctl, char *args[]) {
        int status = check_options(ctl);

        if (status != EX_OK)
                return status;
        return ctl->wait ? deliver_and_wait(ctl, args) : each_id(ctl, args, deliver_id, NULL);
}

int ctl_add(Ctl *ctl, char *args[]) {
        char site[SITE_SIZE];
        Request request = {.kind = REQUEST_ADD, .site = site, .queue_id = args[1]};
        RequestStatus answer = REQUEST_BAD;
        RequestCounts counts;
        bool has_counts;
        int r, status;

        r = pattern_site(args[0], site);
        if (r < 0)
                return r == -ENOMEM ? ctl_no_memory() : ctl_no_site(args[0]);
        status = ctl_check_id(args[1]);
        if (status == EX_OK)
                status = ctl_ask(ctl, &request, site, &answer, &counts, &has_counts);
        if (ctl->json && !ctl->quiet)
                ctl_print_json(json_pack("{ss so ss}", "site", site, "queue_id",
                                         ctl_json_text(args[1]), "status",
                                         ctl_status_name(answer)));
        return status;
}

static int work(Ctl *ctl, RequestKind kind) {
        Request request = {.kind = kind, .detail = true, .reason = ctl->reason};
        RequestStatus answer = REQUEST_FAIL;
        RequestCounts counts = {0};
        bool has_counts = false;
        int status = ctl_ask(ctl, &request, request_name(kind), &answer, &counts, &has_counts);

        if (ctl->json && !ctl->quiet)
                say_json(ctl, "request", request_name(kind), answer, has_counts ? &counts : NULL);
        else if (has_counts && !ctl->quiet)
                say_flushed(ctl, request_name(kind), &counts);
        return status == EX_OK && counts.failed > 0 ? EX_TEMPFAIL : status;
}

int ctl_refresh(Ctl *ctl, char *args[]) {
        return work(ctl, REQUEST_REFRESH);
}

int ctl_purge(Ctl *ctl, char *args[]) {
        return work(ctl, REQUEST_PURGE);
}
