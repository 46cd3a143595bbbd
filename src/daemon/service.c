/* SPDX-License-Identifier: MIT */

#include "daemon/service.h"

#include <assert.h>
#include <stdio.h>
#include <utlist.h>

#include "core/domains.h"
#include "core/metrics.h"
#include "core/qmgr.h"
#include "core/sitename.h"
#include "daemon/refresh.h"
#include "daemon/selftest.h"
#include "util/child.h"
#include "util/escape.h"
#include "util/timer.h"
#include "util/util.h"

#define FDS_OF_A_CALL                                                                              \
        3u /* the most that one step of add, send_file, trigger or send has open at a time */
#define FDS_SPARE           8u /* for reading a new configuration, and for directories left by an old one */

#define TIMER_ACCURACY_USEC 1000

#define SELF_TEST_USEC      (5 * USEC_PER_SEC) /* a self-test waits for newer settings */

struct Service {
        sd_event *event;
        const Settings *settings;
        const ServiceCallbacks *callbacks;
        Queue queue;
        Domains *domains;
        const char *postmap[7];
        Sites sites;
        Jobs jobs;
        Trigger trigger;
        SendContext context;
        Metrics *metrics;
        sd_event_source *lock_retry; /* for adds whose log somebody else has locked */
        Call *undecided;             /* a table has to be asked */
        Call *unsettled;             /* newer settings have to be read */
        char *trouble;               /* why the settings could not be read anew, or NULL */
        bool trouble_lasts;          /* and will not be before somebody has changed something */
        sd_event_source *give_up; /* goes off when a call has waited too long for newer settings */
        uint64_t give_up_usec;    /* when it goes off */
        Call *delivered; /* send_file: answered at the end of the turn, after qmgr was woken */
        Refresh *refresh;
        bool purging;         /* the one that runs is a purge */
        Call *refreshing;     /* wait for its end */
        Call *next_refreshes; /* purges that came while a refresh ran */
        SelfTest *test;
        Call *testers;      /* wait for its end */
        Call *next_testers; /* came later: what they ask about may have changed since it began */
        bool test_due;      /* a self-test begins when newer settings have been read */
        bool cancelling;    /* service_cancel() runs: nothing new begins */
        bool untold;        /* the refresh has moved messages, and qmgr was not told yet */
};

static void start_refresh(Service *s);
static void start_self_test(Service *s);
static void start_due_test(Service *s);

/* ------------------------------------------------------------------ replies and the journal */

static bool is_probe(const Call *call) {
        return call->request.kind == REQUEST_SEND_FILE &&
               streq(call->request.queue_id, REQUEST_PROBE_ID);
}

static void count_request(Service *s, const Call *call) {
        if (is_probe(call))
                return;
        if (call->status == REQUEST_OK)
                metrics_succeeded(s->metrics, call->request.kind, (uint64_t) time(NULL));
        s->metrics->requests[call->request.kind][call->status == REQUEST_OK     ? METRICS_OK
                                                 : call->status == REQUEST_DENY ? METRICS_DENIED
                                                                                : METRICS_FAILED]++;
}

static void answer_call(Service *s, Call *call, RequestStatus status) {
        call->status = status;
        count_request(s, call);
        s->callbacks->reply(call);
        s->callbacks->finish(call);
}

/* An entry about a request: what it is about, and, to follow the message, who asked for it. */
typedef struct Entry {
        JournalEvent event;
        char site[SITE_SIZE], reason[ESCAPE_SIZE(JOURNAL_REASON_MAX)];
        char who[ESCAPE_SIZE(JOURNAL_REASON_MAX) +
                 sizeof " (uid 4294967295, pid 2147483647) (reason: )"];
} Entry;

_Static_assert(SITE_SIZE >= ESCAPE_SIZE(JOURNAL_TEXT_MAX), "a site has room for what is none");

/* The site as it is recorded, however it was sent; if it is not a site, what was sent, made
 * printable. */
static const char *show_site(const char *text, char ret[static SITE_SIZE]) {
        if (sitename_normalize(text, ret) == 0)
                return ret;
        return escape_bytes(text, strlen(text), JOURNAL_TEXT_MAX, ret);
}

static void entry_init(Service *s, Call *call, const char *message_id, Entry *e) {
        const Request *request = &call->request;
        int n;

        if (call->caller.pid == 0)
                s->callbacks->identify(call);
        e->event = (JournalEvent){.message_id = message_id,
                                  .request = request_name(request->kind),
                                  .queue_id = request->queue_id,
                                  .caller = &call->caller};
        if (request->site)
                e->event.site = show_site(request->site, e->site);
        n = snprintf(e->who, sizeof e->who, " (uid %u, pid %d)", (unsigned) call->caller.uid,
                     (int) call->caller.pid);
        if (!request->reason || request->reason[0] == '\0')
                return;
        e->event.reason = escape_bytes(request->reason, strlen(request->reason), JOURNAL_REASON_MAX,
                                       e->reason);
        (void) snprintf(e->who + n, sizeof e->who - (size_t) n, " (reason: %s)", e->reason);
}

static void refuse_call(Service *s, Call *call, RequestStatus status, int level, const char *why,
                        int error) {
        Entry e;

        entry_init(s, call, status == REQUEST_FAIL ? JOURNAL_ID_FAILED : JOURNAL_ID_REFUSED, &e);
        e.event.status = &status;
        e.event.error = error;
        journal_event(level, &e.event, "%s%s%s: %s: %s%s", e.event.request, e.event.site ? " " : "",
                      e.event.site ? e.event.site : "",
                      status == REQUEST_FAIL ? "failed" : "refused", why, e.who);
        answer_call(s, call, status);
}

static void note_failure(Service *s, MetricsClass c) {
        metrics_failed(s->metrics, c, (uint64_t) time(NULL));
}

static void fail_call(Service *s, Call *call, int error) {
        if (error != -ECANCELED)
                note_failure(s, metrics_class(error));
        /* That the service stops is not an error. */
        refuse_call(s, call, REQUEST_FAIL, error == -ECANCELED ? LOG_NOTICE : LOG_ERR,
                    strerror(-error), error);
}

void service_refuse(Service *s, Call *call, RequestStatus status, const char *why,
                    const char *bytes, size_t n_bytes) {
        char text[ESCAPE_SIZE(JOURNAL_TEXT_MAX)];

        s->callbacks->identify(call);
        journal_event(LOG_WARNING,
                      &(JournalEvent){.message_id = JOURNAL_ID_REFUSED,
                                      .status = &status,
                                      .caller = &call->caller},
                      "%s: %s; it begins \"%s\" (uid %u, pid %d)",
                      status == REQUEST_FAIL ? "request could not be read" : "malformed request",
                      why, escape_bytes(bytes, n_bytes, JOURNAL_TEXT_MAX, text),
                      (unsigned) call->caller.uid, (int) call->caller.pid);
        s->metrics->bad_requests++; /* their kind is unknown */
        call->status = status;
        s->callbacks->reply(call);
        s->callbacks->finish(call);
}

/* ------------------------------------------------------------------------------------- add */

static void on_added(Call *call, int error, void *userdata) {
        Service *s = userdata;

        if (error < 0) {
                fail_call(s, call, error);
                return;
        }
        if (call->is_new)
                s->metrics->appended++;
        else
                s->metrics->coalesced++;
        if (journal_wanted(LOG_DEBUG)) {
                Entry e;

                entry_init(s, call, JOURNAL_ID_ADDED, &e);
                e.event.site = call->site->name;
                journal_event(LOG_DEBUG, &e.event, "add %s %s", e.event.site, e.event.queue_id);
        }
        call->has_counts = true; /* all are 0 */
        answer_call(s, call, REQUEST_OK);
}

static void count_moves(Service *s, const RequestCounts *counts) {
        metrics_count(s->metrics, counts);
        if (counts->failed > 0)
                note_failure(s, METRICS_QUEUE);
        else if (counts->moved > 0)
                s->metrics->last_success_sec[METRICS_QUEUE] = (uint64_t) time(NULL);
}

/* ------------------------------------------------------------------------------- send_site */

/* @call:  what asked for it; a refresh or purge has counts of its own, the sums */
static void report_sent(Service *s, Call *call, const Site *site, const RequestCounts *c) {
        char left[sizeof ", 18446744073709551615 left"] = "";
        Entry e;

        entry_init(s, call, JOURNAL_ID_SENT, &e);
        e.event.site = site->name;
        e.event.status = &call->status;
        e.event.counts = c;
        if (c->left > 0)
                (void) snprintf(left, sizeof left, ", %lu left", c->left);
        journal_event(LOG_INFO, &e.event,
                      "%s %s: %lu found, %lu moved, %lu gone, %lu busy, %lu failed, %lu "
                      "duplicate%s%s",
                      e.event.request, site->name, c->found, c->moved, c->gone, c->busy, c->failed,
                      c->duplicate, left, e.who);
}

static void send_site(Service *s, Call *call) {
        int r = send_request(&s->context, call->site, call);

        if (r < 0)
                fail_call(s, call, r);
}

static void fail_calls(Service *s, Call *calls, int error) {
        Call *call, *tmp;

        LL_FOREACH_SAFE (calls, call, tmp)
                fail_call(s, call, error);
}

/* Somebody wants messages that the refresh may have just moved: qmgr must not hear of them at its
 * end only. */
static void tell_of_refresh(Service *s) {
        if (s->untold)
                trigger_send(&s->trigger, QMGR_SCAN_INCOMING);
        s->untold = false;
}

static void end_send_site(Service *s, Call *call, const SendResult *result) {
        if (result->error < 0) {
                fail_call(s, call, result->error);
                return;
        }
        call->counts = result->counts;
        call->has_counts = true;
        call->status = REQUEST_OK;
        report_sent(s, call, call->site, &call->counts);
        answer_call(s, call, REQUEST_OK);
}

static void on_sent(Site *site, const SendResult *result, Call *calls, void *userdata) {
        Service *s = userdata;
        Call *call, *tmp;

        if (result->kind != SEND_COMPACT)
                count_moves(s, &result->counts);
        s->untold |= result->kind == SEND_REFRESH && result->counts.moved > 0;
        /* The entry of the refresh has the sum only. */
        if (result->kind == SEND_REFRESH && result->counts.moved > 0 && s->refreshing)
                report_sent(s, s->refreshing, site, &result->counts);
        if (result->kind == SEND_SITE || result->is_awaited)
                tell_of_refresh(s);
        LL_FOREACH_SAFE (calls, call, tmp)
                end_send_site(s, call, result);
        if (s->refresh)
                refresh_sent(s->refresh, site, result);
}

/* -------------------------------------------------------------------------------- send_file */

static void report_delivered(Service *s, Call *call, const char *outcome, int error) {
        Entry e;

        entry_init(s, call, error < 0 ? JOURNAL_ID_FILE : JOURNAL_ID_DELIVER, &e);
        e.event.status = &call->status;
        e.event.counts = &call->counts;
        e.event.error = error;
        journal_event(error < 0 ? LOG_WARNING : LOG_INFO, &e.event, "send_file %s: %s%s",
                      e.event.queue_id, outcome, e.who);
}

/* As in flush(8) the answer is OK whatever became of the message; the counts and the journal
 * tell. The reply waits for the end of the turn, so that qmgr is woken once for all of it. */
static void send_file(Service *s, Call *call) {
        QueueResult result;
        int r;

        call->status = REQUEST_OK;
        call->has_counts = true;
        call->counts.found = 1;
        r = queue_unthrottle(&s->queue, call->request.queue_id, &result);
        if (r < 0) {
                call->counts.failed = 1;
                report_delivered(s, call, strerror(-r), r);
        } else if (result == QUEUE_MOVED) {
                call->counts.moved = 1;
                report_delivered(s, call, "moved", 0);
        } else if (result == QUEUE_GONE) {
                call->counts.gone = 1;
                report_delivered(s, call, "no such message", 0);
        } else {
                call->counts.busy = 1;
                report_delivered(s, call,
                                 result == QUEUE_BUSY ? "active or on hold" : "still being written",
                                 0);
        }
        if (!is_probe(call))
                count_moves(s, &call->counts);
        LL_PREPEND(s->delivered, call);
}

static void end_deliveries(Service *s) {
        Call *calls = s->delivered, *call, *tmp;
        bool moved = false;

        s->delivered = NULL;
        LL_FOREACH (calls, call)
                moved |= call->counts.moved > 0;
        if (moved)
                trigger_send(&s->trigger, QMGR_SCAN_INCOMING);
        LL_FOREACH_SAFE (calls, call, tmp)
                answer_call(s, call, REQUEST_OK);
}

/* ----------------------------------------------------------------------- refresh and purge */

/* fflush-refresh.timer asks all day, and mostly there is nothing to do: no entry for that. */
static int refreshed_level(const Call *call, const RefreshResult *result) {
        bool idle = result->flushed + result->failed + result->compacted + result->removed == 0;

        if (result->error < 0)
                return result->error == -ECANCELED ? LOG_NOTICE : LOG_ERR;
        return idle && call->request.kind == REQUEST_REFRESH && !call->request.reason ? LOG_DEBUG
                                                                                      : LOG_INFO;
}

static void report_refreshed(Service *s, Call *call, const RefreshResult *result) {
        const RequestCounts *c = &call->counts;
        Entry e;

        entry_init(s, call, JOURNAL_ID_REFRESH, &e);
        e.event.status = &call->status;
        e.event.counts = c;
        e.event.error = result->error;
        journal_event(refreshed_level(call, result), &e.event,
                      "%s%s%s: %lu logs, %lu flushed, %lu failed, %lu compacted, %lu removed; %lu "
                      "messages moved, %lu gone, %lu busy, %lu failed%s",
                      e.event.request, result->error < 0 ? " ended early: " : "",
                      result->error < 0 ? strerror(-result->error) : "", result->logs,
                      result->flushed, result->failed, result->compacted, result->removed, c->moved,
                      c->gone, c->busy, c->failed, e.who);
}

static void finish_refreshes(Service *s, const RefreshResult *result) {
        Call *calls = s->refreshing, *call, *tmp;

        s->refreshing = NULL;
        LL_FOREACH_SAFE (calls, call, tmp) {
                call->counts = result->counts;
                call->counts.sites = result->flushed;
                call->has_counts = true;
                call->status = result->error < 0 || result->failed > 0 ? REQUEST_FAIL : REQUEST_OK;
                report_refreshed(s, call, result);
                if (call->request.detail)
                        s->callbacks->reply(call);
                s->callbacks->finish(call);
        }
}

static void count_refresh(Service *s, const RefreshResult *result) {
        Metrics *m = s->metrics;

        m->refreshes++;
        m->refreshes_failed += result->error < 0;
        m->flushed += result->flushed;
        m->compacted += result->compacted;
        m->removed += result->removed;
        if (result->error < 0 && result->error != -ECANCELED)
                note_failure(s, metrics_class(result->error));
        else if (result->failed > 0)
                note_failure(s, METRICS_LOG);
        if (result->error == 0)
                *(s->purging ? &m->last_purge_sec : &m->last_refresh_sec) = (uint64_t) time(NULL);
}

static void on_refreshed(const RefreshResult *result, void *userdata) {
        Service *s = userdata;

        s->refresh = NULL;
        count_refresh(s, result);
        s->untold |= result->had_lines;
        tell_of_refresh(s);
        finish_refreshes(s, result);
        /* The process runs anyway: what is broken is found even if nobody asks. */
        s->test_due = result->error != -ECANCELED;
        if (s->trouble_lasts || !service_outdated(s))
                start_due_test(s);

        s->refreshing = s->next_refreshes;
        s->next_refreshes = NULL;
        if (!s->refreshing)
                return;
        s->purging = true;
        if (result->error == -ECANCELED)
                finish_refreshes(s, &(RefreshResult){.error = -ECANCELED});
        else
                start_refresh(s);
}

static void start_refresh(Service *s) {
        int r = refresh_start(&s->context, s->purging ? 0 : s->settings->fast_flush_refresh_time,
                              s->settings->fast_flush_purge_time, on_refreshed, s, &s->refresh);

        if (r < 0)
                finish_refreshes(s, &(RefreshResult){.error = r});
}

/* Answered before the work, as in flush(8); but the connection stays open until its end. */
static void refresh(Service *s, Call *call) {
        bool purge = call->request.kind == REQUEST_PURGE;

        call->status = REQUEST_OK;
        count_request(s, call);
        s->callbacks->reply(call);
        if (s->refresh && purge && !s->purging) {
                LL_PREPEND(s->next_refreshes, call);
                return;
        }
        LL_PREPEND(s->refreshing, call);
        if (s->refresh)
                return;
        s->purging = purge;
        start_refresh(s);
}

/* -------------------------------------------------------------------------------- self-test */

static void answer_self_test(Service *s, const TestFindings *findings) {
        Call *calls = s->testers, *call, *tmp;

        s->testers = NULL;
        LL_FOREACH_SAFE (calls, call, tmp) {
                call->findings = findings;
                call->status = findings->worst == FINDING_FAILED ? REQUEST_FAIL : REQUEST_OK;
                s->callbacks->reply(call);
                call->findings = NULL;
                s->callbacks->finish(call);
        }
}

/* An entry when trouble begins and one when it ends, however often monitoring asks. */
static void report_health(const TestFindings *findings, bool was_broken) {
        bool is_broken = findings->worst == FINDING_FAILED;

        if (was_broken && !is_broken)
                journal_event(LOG_NOTICE, &(JournalEvent){.message_id = JOURNAL_ID_HEALTH},
                              "self-test: all is in order again");
        for (size_t i = 0; !was_broken && i < findings->n; i++) {
                const TestFinding *f = &findings->items[i];

                if (f->result == FINDING_FAILED)
                        journal_event(LOG_ERR, &(JournalEvent){.message_id = JOURNAL_ID_HEALTH},
                                      "self-test: %s%s%s", f->reason,
                                      f->remedy[0] ? "; remedy: " : "", f->remedy);
        }
}

static void on_tested(const TestFindings *findings, void *userdata) {
        Service *s = userdata;
        bool cancelled = s->cancelling;
        /* That a changed configuration is about to be read is not an error. */
        bool early = findings_have(findings, FINDING_OUTDATED);

        if (!cancelled && !early) {
                report_health(findings, s->metrics->self_test_failed > 0);
                metrics_tested(s->metrics, findings, (uint64_t) time(NULL));
        }
        answer_self_test(s, findings);
        s->testers = s->next_testers;
        s->next_testers = NULL;
        if (cancelled)
                answer_self_test(s, findings);
        s->test = selftest_free(s->test);
        if (s->testers)
                start_self_test(s);
}

static void start_self_test(Service *s) {
        bool outdated = service_outdated(s);
        const SelfTestContext context = {.event = s->event,
                                         .settings = s->settings,
                                         .queue = &s->queue,
                                         .endpoint = s->trigger.endpoint,
                                         .postmap = s->postmap,
                                         .outdated = outdated,
                                         .trouble =
                                                 outdated && s->trouble_lasts ? s->trouble : NULL,
                                         .metrics = s->metrics,
                                         .jobs = &s->jobs,
                                         .facts = &remedy_facts};
        int r = selftest_start(&context, on_tested, s, &s->test);
        TestFindings findings = {.checks = 1};

        if (r == 0)
                return;
        (void) findings_add(&findings, "service", FINDING_FAILED,
                            "the self-test could not begin: %s", strerror(-r));
        answer_self_test(s, &findings);
}

static void start_due_test(Service *s) {
        if (s->test_due && !s->test)
                start_self_test(s);
        s->test_due = false;
}

static void arm_give_up(Service *s, uint64_t usec) {
        if (usec >= s->give_up_usec)
                return;
        s->give_up_usec = usec;
        timer_arm_at(s->give_up, usec);
}

/* How long a call may wait for newer settings. */
static uint64_t patience(const Service *s, const Call *call) {
        return call->request.kind == REQUEST_SELF_TEST ? SELF_TEST_USEC
                                                       : s->settings->request_timeout;
}

/* A self-test examines the configuration of now, so it waits for newer settings if there are any.
 * That may take a while: postconf(1) waits while somebody edits main.cf. */
static bool awaits_settings(Service *s, Call *call) {
        if (call->since_usec != 0 || !service_outdated(s) || !s->callbacks->renew(call))
                return false;
        call->since_usec = now_usec();
        arm_give_up(s, call->since_usec + patience(s, call));
        LL_PREPEND(s->unsettled, call);
        return true;
}

static void self_test(Service *s, Call *call) {
        if (awaits_settings(s, call))
                return;
        if (s->test) {
                LL_PREPEND(s->next_testers, call);
                return;
        }
        LL_PREPEND(s->testers, call);
        start_self_test(s);
}

/* ------------------------------------------------------------------------------ eligibility */

static void submit_eligible(Service *s, Call *call, const char *site) {
        char log[SITE_LOG_SIZE];

        sitename_to_log(site, log);
        call->site = sites_get(&s->sites, log);
        if (!call->site)
                fail_call(s, call, -ENOMEM);
        else if (call->request.kind == REQUEST_ADD)
                sites_put_add(&s->sites, call->site, call);
        else
                send_site(s, call);
}

static const char no_settings[] =
        "postconf(1) has not told what must be known, see the messages before this";
static const char old_settings[] =
        "the configuration has changed and cannot be read, see the messages before this";

static const char *why_unsettled(const Service *s) {
        return s->settings->incomplete ? no_settings : old_settings;
}

static void refuse_unsettled(Service *s, Call *call, int error) {
        note_failure(s, METRICS_SETTINGS);
        refuse_call(s, call, REQUEST_FAIL, LOG_ERR, why_unsettled(s), error);
}

/* A record that is refused because the list is out of date is lost. So the call waits for the new
 * one. */
static void await_settings(Service *s, Call *call) {
        if (!s->callbacks->renew(call)) {
                refuse_unsettled(s, call, 0);
                return;
        }
        if (call->since_usec == 0) /* else it has waited before */
                call->since_usec = now_usec();
        arm_give_up(s, call->since_usec + patience(s, call));
        LL_PREPEND(s->unsettled, call);
}

static void give_up_call(Service *s, Call *call, int error) {
        if (call->request.kind == REQUEST_SELF_TEST) /* it reports why */
                self_test(s, call);
        else
                refuse_unsettled(s, call, error);
}

static int on_give_up(sd_event_source *source, uint64_t usec, void *userdata) {
        Service *s = userdata;
        uint64_t now = now_usec();
        Call *call, *tmp;

        s->give_up_usec = USEC_INFINITY;
        LL_FOREACH_SAFE (s->unsettled, call, tmp)
                if (call->since_usec + patience(s, call) <= now) {
                        LL_DELETE(s->unsettled, call);
                        give_up_call(s, call, -ETIMEDOUT);
                } else
                        arm_give_up(s, call->since_usec + patience(s, call));
        return 0;
}

/* The site is normalised first: the answer must not depend on how it is written, and nothing but
 * valid sites may get into a lookup of a table. */
static void decide_call(Service *s, Call *call) {
        DomainsAnswer answer;
        char site[SITE_SIZE];
        const char *why = "";
        int r = sitename_normalize(call->request.site, site);

        if (r == -EINVAL) {
                refuse_call(s, call, REQUEST_DENY, LOG_WARNING,
                            "neither a valid host name nor an address literal", 0);
                return;
        }
        if (r < 0) {
                fail_call(s, call, r);
                return;
        }
        answer = domains_match(s->domains, site, &why);
        if (answer == DOMAINS_YES)
                submit_eligible(s, call, site);
        else if (answer == DOMAINS_PENDING)
                LL_PREPEND(s->undecided, call);
        else if (service_outdated(s))
                await_settings(s, call);
        else if (answer == DOMAINS_NO)
                refuse_call(s, call, REQUEST_DENY, LOG_NOTICE, "not in fast_flush_domains", 0);
        else {
                note_failure(s, METRICS_LIST);
                refuse_call(s, call, REQUEST_FAIL, LOG_WARNING, why, 0);
        }
}

/* What a refresh or a purge flushes and is deferred again has to be recorded again. It is refused
 * while that would fail: its records would be lost. Asked for a site that nobody has, as the whole
 * list is then looked through. */
static void decide_refresh(Service *s, Call *call) {
        const char *why = "";
        DomainsAnswer answer = domains_match(s->domains, SELFTEST_SITE, &why);

        if (answer == DOMAINS_PENDING)
                LL_PREPEND(s->undecided, call);
        else if (answer != DOMAINS_ERROR)
                refresh(s, call);
        else if (service_outdated(s))
                await_settings(s, call);
        else {
                note_failure(s, METRICS_LIST);
                refuse_call(s, call, REQUEST_FAIL, LOG_ERR, why, 0);
                s->test_due = true;
                start_due_test(s);
        }
}

static void decide(Service *s, Call *call) {
        if (call->request.site)
                decide_call(s, call);
        else
                decide_refresh(s, call);
}

static void decide_again(Service *s) {
        Call *calls = s->undecided, *call, *tmp;

        s->undecided = NULL;
        LL_FOREACH_SAFE (calls, call, tmp)
                decide(s, call);
}

static void on_table_answers(const Table *failed, void *userdata) {
        Service *s = userdata;

        if (failed)
                journal_table_error(failed);
        decide_again(s);
        service_end_turn(s);
}

/* ------------------------------------------------------------------------------------ turns */

static void begin_call(Service *s, Call *call) {
        if (call->request.kind == REQUEST_SELF_TEST) {
                self_test(s, call);
                return;
        }
        if (s->settings->incomplete) {
                await_settings(s, call);
                return;
        }
        if (call->request.kind == REQUEST_SEND_FILE)
                send_file(s, call);
        else
                decide(s, call);
}

void service_submit(Service *s, Call *call) {
        if (call->request.n_unknown > 0)
                journal_message(LOG_NOTICE, "%s: %u unknown attributes ignored",
                                request_name(call->request.kind), call->request.n_unknown);
        begin_call(s, call);
}

static void write_adds(Service *s) {
        if (sites_write(&s->sites, on_added, s))
                timer_arm(s->lock_retry, SITELOG_RETRY_USEC);
}

void service_end_turn(Service *s) {
        if (s->undecided && domains_start(s->domains, s->event, on_table_answers, s) < 0)
                decide_again(s);
        if (s->delivered)
                end_deliveries(s);
        if (sites_have_adds(&s->sites))
                write_adds(s);
}

void service_give_way(Service *s, bool (*is_wanted)(void *userdata), void *userdata) {
        jobs_give_way(&s->jobs, is_wanted, userdata);
}

void service_step(Service *s) {
        jobs_step(&s->jobs);
}

static int on_lock_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        Service *s = userdata;

        write_adds(s);
        return 0;
}

unsigned service_fds(const Service *s) {
        unsigned n_dirs = 1 + (s->queue.hashed[QUEUE_FLUSH] ? s->queue.hash_depth : 0);
        unsigned n_children = 2 * domains_n_tables(s->domains) + 1; /* a self-test; postconf(1) */

        return FDS_OF_A_CALL + n_dirs + n_children * CHILD_FDS + FDS_SPARE;
}

unsigned service_limit_sends(Service *s, unsigned n) {
        n = n < 1 ? 1 : n > SENDS_MAX ? SENDS_MAX : n;
        s->context.n_kept = SENDS_MAX - n;
        return n;
}

bool service_outdated(const Service *s) {
        return settings_changed(s->settings) || domains_changed(s->domains);
}

int service_is_at(const Service *s, const char *queue_directory) {
        return s->queue.fd < 0 ? 1 : queue_is_at(&s->queue, queue_directory);
}

const char *service_trouble(const Service *s) {
        return s->trouble;
}

bool service_trouble_lasts(const Service *s) {
        return s->trouble_lasts;
}

uint64_t service_findings(const Service *s) {
        return s->metrics->self_test_failed;
}

uint64_t service_turn_usec(const Service *s, uint64_t longest) {
        return jobs_busy(&s->jobs) && longest > JOB_SLICE_USEC ? JOB_SLICE_USEC : longest;
}

bool service_may_exit(const Service *s) {
        return !trigger_pending(&s->trigger) && !s->test;
}

/* Answers all self-tests, also those that wait for newer settings, with one finding: stopped. */
static void cancel_waiting_tests(Service *s) {
        TestFindings findings = {.checks = 1};
        Call *call, *tmp;

        LL_FOREACH_SAFE (s->unsettled, call, tmp)
                if (call->request.kind == REQUEST_SELF_TEST) {
                        LL_DELETE(s->unsettled, call);
                        LL_PREPEND(s->testers, call);
                }
        (void) findings_add(&findings, "service", FINDING_FAILED, SELFTEST_STOPPED);
        answer_self_test(s, &findings);
}

void service_cancel(Service *s) {
        s->cancelling = true;
        if (s->test)
                selftest_hurry(s->test);
        jobs_cancel(&s->jobs);
        s->cancelling = false;
        fail_calls(s, TAKE_PTR(s->undecided), -ECANCELED);
        cancel_waiting_tests(s);
        fail_calls(s, TAKE_PTR(s->unsettled), -ECANCELED);
        sites_cancel(&s->sites, on_added, s);
}

/* ---------------------------------------------------------------------------------- set-up */

static void set_postmap(Service *s) {
        size_t n = 0;

        s->postmap[n++] = POSTFIX_COMMAND_DIR "/postmap";
        if (s->settings->postfix_config_directory[0]) {
                s->postmap[n++] = "-c";
                s->postmap[n++] = s->settings->postfix_config_directory;
        }
        s->postmap[n++] = "-f"; /* as flush(8): do not fold keys; the site is folded already */
        s->postmap[n++] = "-q";
        s->postmap[n++] = "-";
        s->postmap[n] = NULL;
}

static void domains_freep(Domains **domains) {
        domains_free(*domains);
}

/* What may fail comes first, so that an error leaves everything as it was. */
static int configure(Service *s) {
        const Settings *settings = s->settings;
        _cleanup_free_ char *problem = NULL; /* settings_finish() has reported it */
        _cleanup_(domains_freep) Domains *domains = NULL;
        int r;

        if (s->queue.fd < 0 && !settings->incomplete) {
                r = queue_open(settings->queue_directory, settings->hash_queue_names,
                               settings->hash_queue_depth, &s->queue);
                if (r < 0)
                        return r;
        }
        r = domains_new(settings->fast_flush_domains, settings->subdomains, s->postmap, &domains,
                        &problem);
        if (r < 0)
                return r;
        r = trigger_configure(&s->trigger, s->queue.fd, settings->queue_service_name,
                              settings->trigger_timeout);
        if (r < 0)
                return r;
        domains_free(s->domains); /* ends the postmap(1) that it runs */
        s->domains = TAKE_PTR(domains);
        set_postmap(s);
        queue_set_layout(&s->queue, settings->hash_queue_names, settings->hash_queue_depth);
        s->sites.sync = s->context.sync = settings->sync;
        s->sites.lock_usec = s->context.lock_usec = settings->request_timeout;
        return 0;
}

/* Without memory for a copy of @why, the self-test and the journal say less. */
static void set_trouble(Service *s, const char *why, bool lasts) {
        free(s->trouble);
        s->trouble = why ? strdup(why) : NULL;
        s->trouble_lasts = lasts && s->trouble;
}

int service_reconfigure(Service *s, const Settings *settings) {
        const Settings *old = s->settings;
        Call *calls, *call, *tmp;
        int r;

        s->settings = settings;
        r = configure(s);
        if (r < 0) {
                s->settings = old;
                return r;
        }
        set_trouble(s, NULL, false);
        if (s->test)
                selftest_reconfigure(s->test, settings);
        start_due_test(s);
        decide_again(s);
        calls = TAKE_PTR(s->unsettled);
        LL_FOREACH_SAFE (calls, call, tmp)
                begin_call(s, call);
        service_end_turn(s);
        return 0;
}

void service_not_reconfigured(Service *s, const char *why, bool lasts) {
        Call *calls, *call, *tmp;

        set_trouble(s, why, lasts);
        if (!lasts)
                return;
        start_due_test(s);
        calls = TAKE_PTR(s->unsettled);
        LL_FOREACH_SAFE (calls, call, tmp)
                give_up_call(s, call, 0);
}

static int open_metrics(Service *s) {
        const char *directory = getenv("STATE_DIRECTORY");
        int r = metrics_open(directory, &s->metrics);

        if (!s->metrics)
                return r;
        if (!directory)
                journal_message(LOG_INFO, "no STATE_DIRECTORY: what is counted is lost at the end");
        else if (r < 0)
                journal_event(LOG_WARNING,
                              &(JournalEvent){.message_id = JOURNAL_ID_CONFIG, .error = r},
                              "%s/" METRICS_FILE ": %s; what is counted is lost at the end",
                              directory, strerror(-r));
        s->metrics->starts++;
        return 0;
}

static void service_freep(Service **s) {
        service_free(*s);
}

int service_new(sd_event *event, const Settings *settings, const ServiceCallbacks *callbacks,
                Service **ret) {
        _cleanup_(service_freep) Service *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return -ENOMEM;
        s->event = event;
        s->settings = settings;
        s->callbacks = callbacks;
        s->give_up_usec = USEC_INFINITY;
        s->queue.fd = -EBADF;
        sites_init(&s->sites, &s->queue, settings->sync, settings->request_timeout);
        s->context = (SendContext){.queue = &s->queue, /* the rest: configure() */
                                   .sites = &s->sites,
                                   .jobs = &s->jobs,
                                   .trigger = &s->trigger,
                                   .done = on_sent,
                                   .userdata = s};
        r = trigger_init(&s->trigger, event, s->queue.fd, settings->queue_service_name,
                         settings->trigger_timeout);
        if (r < 0)
                return r;
        r = configure(s);
        if (r < 0)
                return r;
        r = open_metrics(s);
        if (r < 0)
                return r;
        r = jobs_init(&s->jobs, event);
        if (r < 0)
                return r;
        r = timer_new(event, TIMER_ACCURACY_USEC, on_lock_retry, s, &s->lock_retry);
        if (r < 0)
                return r;
        r = timer_new(event, TIMER_ACCURACY_USEC, on_give_up, s, &s->give_up);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(s);
        return 0;
}

Service *service_free(Service *s) {
        if (!s)
                return NULL;
        sd_event_source_disable_unref(s->lock_retry);
        sd_event_source_disable_unref(s->give_up);
        selftest_free(s->test);
        free(s->trouble);
        jobs_done(&s->jobs);
        trigger_done(&s->trigger);
        sites_done(&s->sites);
        domains_free(s->domains);
        metrics_close(s->metrics);
        closep(&s->queue.fd);
        free(s);
        return NULL;
}
