/* SPDX-License-Identifier: MIT */

/* fflushctl flush, deliver, add, refresh, purge: what changes something, over the socket. */

#include <limits.h>
#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-flush.h"
#include "ctl/ctl-history.h"
#include "ctl/ctl-input.h"
#include "ctl/ctl-print.h"
#include "ctl/eligible.h"
#include "ctl/pattern.h"
#include "ctl/reader.h"
#include "ctl/relay.h"
#include "util/grow.h"
#include "util/util.h"

#define RECENT_SITES_MAX 16u                   /* of more than this the journal is not asked */
#define RECENT_USEC      (3600 * USEC_PER_SEC) /* mail that was flushed then may be on its way */

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

/* Of a message that was left alone, if this user may look. */
static const char *where_it_is(Ctl *ctl, const char *id) {
        QueueName queue;
        struct stat st;

        if (ctl_may_look(ctl) && ctl_queue(ctl) == EX_OK &&
            queue_find(&ctl->queue, id, &queue, &st) == 0) {
                if (queue == QUEUE_HOLD)
                        return "on hold; postsuper -H releases it";
                if (queue == QUEUE_ACTIVE)
                        return "active: it is being delivered";
        }
        return "active, on hold, or still being written";
}

static void say_delivered(Ctl *ctl, const char *id, const RequestCounts *c) {
        ctl_print("%s: %s\n", id,
                  c->moved  ? (ctl->dry_run ? "would be moved" : "moved")
                  : c->gone ? "no such message in the queue"
                  : c->busy ? where_it_is(ctl, id)
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

static Request request_for(const Ctl *ctl, const CtlSite *site, unsigned long limit) {
        return (Request){.kind = REQUEST_SEND_SITE,
                         .site = site->site,
                         .detail = true,
                         .limit = limit,
                         .reason = ctl->reason};
}

void ctl_say_flushed(const Ctl *ctl, const char *site, RequestStatus status,
                     const RequestCounts *counts) {
        if (ctl->json && !ctl->quiet)
                say_json(ctl, "site", site, status, counts);
        else if (status == REQUEST_OK && counts && !ctl->quiet) /* flush(8) does not tell */
                say_flushed(ctl, site, counts);
}

static int refuse_unnamed(const CtlSite *site) {
        return ctl_fail(EX_DATAERR,
                        "%s: a log of flush(8), whose site is unknown; see import and flush --all",
                        site->site);
}

int ctl_flush_site(Ctl *ctl, const CtlSite *site, unsigned long limit, RequestCounts *ret) {
        Request request = request_for(ctl, site, limit);
        RequestStatus answer = REQUEST_FAIL;
        bool has_counts = ctl->dry_run;
        int status;

        *ret = (RequestCounts){0};
        if (!site->named)
                return refuse_unnamed(site);
        if (ctl->dry_run) {
                answer = REQUEST_OK;
                status = preview_site(ctl, site, ret);
        } else
                status = ctl_ask(ctl, &request, site->site, &answer, ret, &has_counts);
        ctl_say_flushed(ctl, site->site, answer, has_counts ? ret : NULL);
        return status == EX_OK && ret->failed > 0 ? EX_TEMPFAIL : status;
}

static int follow_site(Ctl *ctl, const CtlSite *site, unsigned group, CtlWait *w) {
        _cleanup_(survey_done) SurveyLog log = {0};
        const StrSetEntry *e = NULL;
        int status;

        status = ctl_read_site(ctl, site, &log);
        while (status == EX_OK && (e = strset_next(&log.ids, e)))
                status = ctl_wait_add(w, strset_entry_id(e), group);
        return status;
}

int ctl_follow_sites(Ctl *ctl, const CtlSites *sites, CtlWait *w) {
        int status = ctl_wait_begin(ctl, w);

        for (size_t i = 0; status == EX_OK && i < sites->n; i++)
                status = follow_site(ctl, &sites->items[i], (unsigned) i, w);
        return status;
}

void ctl_audit_sites(const Ctl *ctl, const CtlSites *sites, const bool *flushed,
                     const CtlReport *report) {
        for (size_t i = 0; i < sites->n; i++)
                if (flushed[i])
                        ctl_audit(ctl, "send_site", sites->items[i].site, NULL,
                                  report && report->groups && report->groups[i].moved > 0
                                          ? &report->groups[i]
                                          : NULL);
}

/* What was recorded may be on its way, because somebody else has flushed it: it is recorded again
 * when it is deferred again. */
static void say_recent(Ctl *ctl, const char *site) {
        char command[CTL_UNIT_SIZE], age[CTL_AGE_SIZE];
        CtlLastFlush last;

        if (ctl->quiet || !ctl_last_flush(ctl, site, RECENT_USEC, &last))
                return;
        if (ctl->json) {
                ctl_print_json(json_pack("{ss so sI so so}", "type", "recent_flush", "site",
                                         ctl_json_text(site), "time",
                                         (json_int_t) (last.time / USEC_PER_SEC), "by",
                                         ctl_json_text(last.who), "reason",
                                         ctl_json_text(last.reason[0] ? last.reason : NULL)));
                return;
        }
        ctl_command_name(ctl, command);
        ctl_print("flushed %s ago by %s%s%s%s; \"%s watch %s\" follows it\n",
                  ctl_age((time_t) (last.age / USEC_PER_SEC), 0, age), last.who,
                  last.reason[0] ? " (" : "", last.reason, last.reason[0] ? ")" : "", command,
                  site);
}

/* Of many sites, asked for side by side. */
typedef struct Pass {
        Ctl *ctl;
        const CtlSites *sites;
        size_t *places; /* in @sites, of what is asked for */
        bool *flushed;  /* site by site, whether the service has done it */
        unsigned long moved;
        bool all_moved;
        int status;
} Pass;

static void on_answer(size_t i, const CtlAnswer *a, void *userdata) {
        Pass *pass = userdata;
        size_t place = pass->places[i];
        const char *site = pass->sites->items[place].site;
        int status = a->status == EX_OK && a->counts.failed > 0 ? EX_TEMPFAIL : a->status;

        ctl_say_flushed(pass->ctl, site, a->answer, a->has_counts ? &a->counts : NULL);
        if (status == EX_OK && a->has_counts && a->counts.found == 0 && !pass->ctl->dry_run &&
            pass->sites->n <= RECENT_SITES_MAX)
                say_recent(pass->ctl, site);
        pass->flushed[place] = status == EX_OK || a->counts.moved > 0;
        pass->all_moved &= status == EX_OK;
        pass->moved += a->counts.moved;
        pass->status = ctl_worse(pass->status, status);
}

/* A purge: the service does not ask for which destinations. */
static bool is_purge(const Ctl *ctl) {
        return ctl->all && ctl->limit == 0;
}

/* What the service would refuse, and what it could not decide. */
static int find_refused(Pass *pass, size_t n, StrSet *ret, StrSet *ret_undecided) {
        _cleanup_(strset_clear) StrSet asked = {0};
        int r = 0;

        for (size_t i = 0; i < n && r >= 0; i++)
                r = strset_add(&asked, pass->sites->items[pass->places[i]].site);
        return r < 0 ? ctl_no_memory() : eligible_refused(pass->ctl, &asked, ret, ret_undecided);
}

static void preview_all(Pass *pass, size_t n) {
        _cleanup_(strset_clear) StrSet refused = {0}, undecided = {0};

        if (!is_purge(pass->ctl))
                pass->status = ctl_worse(pass->status, find_refused(pass, n, &refused, &undecided));
        for (size_t i = 0; i < n; i++) {
                const CtlSite *site = &pass->sites->items[pass->places[i]];
                CtlAnswer answer = {.answer = REQUEST_OK, .has_counts = true};

                if (strset_contains(&refused, site->site))
                        answer = (CtlAnswer){
                                .answer = REQUEST_DENY,
                                .status = ctl_say_status(pass->ctl, site->site, REQUEST_DENY)};
                else if (strset_contains(&undecided, site->site))
                        answer = (CtlAnswer){
                                .answer = REQUEST_FAIL,
                                .status = ctl_fail(EX_TEMPFAIL, "%s: would fail", site->site)};
                else
                        answer.status = preview_site(pass->ctl, site, &answer.counts);
                on_answer(i, &answer, pass);
        }
}

static void ask_all(Pass *pass, size_t n) {
        _cleanup_free_ Request *requests = calloc(n + 1, sizeof *requests);
        int status;

        for (size_t i = 0; i < n && requests; i++)
                requests[i] = request_for(pass->ctl, &pass->sites->items[pass->places[i]],
                                          pass->ctl->limit);
        status = requests ? ctl_ask_all(pass->ctl, requests, n, on_answer, pass) : ctl_no_memory();
        pass->status = ctl_worse(pass->status, status);
        pass->all_moved &= status == EX_OK;
}

/* @flushed: receives, site by site, whether the service has done it. */
static int flush_sites(Ctl *ctl, const CtlSites *sites, bool *flushed, bool *ret_all_moved) {
        _cleanup_free_ size_t *places = calloc(sites->n + 1, sizeof *places);
        Pass pass = {.ctl = ctl,
                     .sites = sites,
                     .places = places,
                     .flushed = flushed,
                     .all_moved = true};
        size_t n = 0;

        if (!places)
                return ctl_no_memory();
        for (size_t i = 0; i < sites->n; i++)
                if (sites->items[i].named || (is_purge(ctl) && ctl->dry_run))
                        places[n++] = i;
                else {
                        pass.status = ctl_worse(pass.status, refuse_unnamed(&sites->items[i]));
                        pass.all_moved = false;
                }
        (ctl->dry_run ? preview_all : ask_all)(&pass, n);
        *ret_all_moved = pass.all_moved;
        if (!ctl->wait && !ctl->dry_run && pass.moved > 0)
                (void) ctl_warn_stopped(ctl);
        return pass.status;
}

static int flush_only(Ctl *ctl, const CtlSites *sites) {
        _cleanup_free_ bool *flushed = calloc(sites->n + 1, sizeof *flushed);
        bool all_moved;
        int status;

        if (!flushed)
                return ctl_no_memory();
        status = flush_sites(ctl, sites, flushed, &all_moved);
        if (!ctl->dry_run)
                ctl_audit_sites(ctl, sites, flushed, NULL);
        return status;
}

static int flush_and_wait(Ctl *ctl, const CtlSites *sites, CtlPatterns *recipients) {
        _cleanup_(ctl_wait_done) CtlWait w = CTL_WAIT_INIT;
        _cleanup_(ctl_report_done) CtlReport report = {0};
        _cleanup_free_ bool *flushed = calloc(sites->n + 1, sizeof *flushed);
        bool all_moved = false;
        int status;

        if (!flushed)
                return ctl_no_memory();
        status = ctl_follow_sites(ctl, sites, &w);
        if (status != EX_OK)
                return status; /* cppcheck-suppress memleak ; freed by the cleanup attribute */
        status = flush_sites(ctl, sites, flushed, &all_moved);
        status = ctl_worse(status, ctl_wait_end(ctl, &w, all_moved));
        status = ctl_worse(status, ctl_report_make(ctl, &w, recipients, sites->n, &report));
        ctl_report_print(ctl, &report, "moved");
        ctl_audit_sites(ctl, sites, flushed, &report);
        return ctl_worse(status, ctl_report_status(&report.total));
}

/* A refresh or purge. @ret_done: the service has done it. Return: an exit status. */
static int ask_for_all(Ctl *ctl, RequestKind kind, RequestCounts *ret, bool *ret_done) {
        Request request = {.kind = kind, .detail = true, .reason = ctl->reason};
        RequestStatus answer = REQUEST_FAIL;
        bool has_counts = false;
        int status;

        *ret = (RequestCounts){0};
        status = ctl_ask(ctl, &request, request_name(kind), &answer, ret, &has_counts);
        if (ctl->json && !ctl->quiet)
                say_json(ctl, "request", request_name(kind), answer, has_counts ? ret : NULL);
        else if (has_counts && !ctl->quiet)
                say_flushed(ctl, request_name(kind), ret);
        *ret_done = status == EX_OK;
        return status == EX_OK && ret->failed > 0 ? EX_TEMPFAIL : status;
}

/* By the service's own list of logs, which has those of flush(8) too. */
static int purge_and_wait(Ctl *ctl) {
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        _cleanup_(ctl_wait_done) CtlWait w = CTL_WAIT_INIT;
        _cleanup_(ctl_report_done) CtlReport report = {0};
        CtlPatterns all = {0};
        char *no_args[] = {NULL};
        RequestCounts counts;
        bool done;
        int status;

        status = ctl_find_sites(ctl, no_args, true, &sites);
        if (status == EX_OK)
                status = ctl_follow_sites(ctl, &sites, &w);
        if (status != EX_OK)
                return status;
        status = ask_for_all(ctl, REQUEST_PURGE, &counts, &done);
        status = ctl_worse(status, ctl_wait_end(ctl, &w, status == EX_OK));
        status = ctl_worse(status, ctl_report_make(ctl, &w, &all, sites.n, &report));
        ctl_report_print(ctl, &report, "moved");
        if (done)
                ctl_audit(ctl, "purge", NULL, NULL, report.total.moved > 0 ? &report.total : NULL);
        return ctl_worse(status, ctl_report_status(&report.total));
}

/* Most users may connect to the socket but not look at the logs, and need not if they name sites.
 * Return: EX_OK, with the sites, none if the logs have to be looked at; or an exit status. */
static int take_sites(const Ctl *ctl, char *args[], CtlSites *ret) {
        bool look = ctl->subdomains || ctl->dry_run || ctl->wait || ctl->every > 0;
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
        if (ctl->every > 0 && ctl->dry_run)
                return ctl_usage("--every cannot be combined with --dry-run");
        if (ctl->stop_if_deferred > 100)
                return ctl_usage("--stop-if-deferred must be at most 100 percent");
        if (ctl->stop_if_deferred > 0 && (!ctl->wait || ctl->every == 0))
                return ctl_usage("--stop-if-deferred needs --wait, --limit and --every");
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
        _cleanup_(ctl_patterns_done) CtlPatterns recipients = {0};
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
        status = ctl_worse(status, ctl_patterns_parse(ctl, input.words, &recipients));
        if (status != EX_OK && (status != EX_NOINPUT || sites.n == 0))
                return status;
        return ctl_worse(status, ctl->every > 0 ? ctl_flush_paced(ctl, &sites, &recipients)
                                 : ctl->wait    ? flush_and_wait(ctl, &sites, &recipients)
                                                : flush_only(ctl, &sites));
}

static int preview_message(Ctl *ctl, const char *id, RequestCounts *ret) {
        int status = ctl_queue(ctl);

        if (status != EX_OK)
                return status;
        ret->found = 1;
        preview(ctl, id, true, ret);
        return EX_OK;
}

static int deliver(Ctl *ctl, const char *id, RequestCounts *ret) {
        Request request = {
                .kind = REQUEST_SEND_FILE, .queue_id = id, .detail = true, .reason = ctl->reason};
        RequestStatus answer = REQUEST_FAIL;
        bool has_counts = ctl->dry_run;
        int status;

        *ret = (RequestCounts){0};
        status = ctl_check_id(id);
        if (status != EX_OK)
                answer = REQUEST_BAD;
        else if (ctl->dry_run) {
                answer = REQUEST_OK;
                status = preview_message(ctl, id, ret);
        } else
                status = ctl_ask(ctl, &request, id, &answer, ret, &has_counts);
        if (ctl->json && !ctl->quiet)
                say_json(ctl, "queue_id", id, answer, has_counts ? ret : NULL);
        else if (status == EX_OK && has_counts && !ctl->quiet)
                say_delivered(ctl, id, ret);
        if (status != EX_OK)
                return status;
        return ret->failed > 0 ? EX_TEMPFAIL : ret->gone > 0 ? EX_NOINPUT : EX_OK;
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

/* How many messages were moved: there may have been nothing to warn of. */
static int deliver_id(Ctl *ctl, char *id, void *userdata) {
        unsigned long *moved = userdata;
        RequestCounts counts;
        int status = deliver(ctl, id, &counts);

        *moved += counts.moved;
        if (!ctl->dry_run && status == EX_OK)
                ctl_audit(ctl, "send_file", NULL, id, NULL);
        return status;
}

static int deliver_only(Ctl *ctl, char *args[]) {
        unsigned long moved = 0;
        int status = each_id(ctl, args, deliver_id, &moved);

        if (moved > 0 && !ctl->dry_run)
                (void) ctl_warn_stopped(ctl);
        return status;
}

/* Standard input can be read only once, and following has to begin before the first delivery: so
 * collect all IDs first. */
typedef struct Waiting {
        CtlWait wait;
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
        return queueid_valid(id, strlen(id)) ? ctl_wait_add(&w->wait, id, (unsigned) w->n - 1)
                                             : EX_OK;
}

static void waiting_done(Waiting *w) {
        while (w->n > 0)
                free(w->ids[--w->n]);
        free(w->ids);
        ctl_wait_done(&w->wait);
}

static int deliver_and_wait(Ctl *ctl, char *args[]) {
        _cleanup_(waiting_done) Waiting w = {.wait = CTL_WAIT_INIT};
        _cleanup_(ctl_report_done) CtlReport report = {0};
        CtlPatterns all = {0};
        RequestCounts counts;
        int status = ctl_wait_begin(ctl, &w.wait);

        if (status == EX_OK)
                status = each_id(ctl, args, collect_id, &w);
        if (status != EX_OK)
                return status;
        for (size_t i = 0; i < w.n; i++)
                status = ctl_worse(status, deliver(ctl, w.ids[i], &counts));
        status = ctl_worse(status,
                           ctl_wait_end(ctl, &w.wait, status == EX_OK || status == EX_NOINPUT));
        status = ctl_worse(status, ctl_report_make(ctl, &w.wait, &all, w.n, &report));
        ctl_report_print(ctl, &report, "moved");
        for (size_t i = 0; report.groups && i < w.n; i++)
                if (report.groups[i].moved > 0)
                        ctl_audit(ctl, "send_file", NULL, w.ids[i], &report.groups[i]);
        return ctl_worse(status, ctl_report_status(&report.total));
}

int ctl_deliver(Ctl *ctl, char *args[]) {
        int status = check_options(ctl);

        if (status != EX_OK)
                return status;
        return ctl->wait ? deliver_and_wait(ctl, args) : deliver_only(ctl, args);
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
        RequestCounts counts;
        bool done;
        int status = ask_for_all(ctl, kind, &counts, &done);

        if (done)
                ctl_audit(ctl, request_name(kind), NULL, NULL, NULL);
        if (counts.moved > 0)
                (void) ctl_warn_stopped(ctl);
        return status;
}

int ctl_refresh(Ctl *ctl, char *args[]) {
        return work(ctl, REQUEST_REFRESH);
}

int ctl_purge(Ctl *ctl, char *args[]) {
        return work(ctl, REQUEST_PURGE);
}
