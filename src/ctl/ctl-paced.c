/* SPDX-License-Identifier: MIT */

/* fflushctl flush --limit --every: a portion of each log at a time, until all messages that were
 * recorded at the beginning have been tried once. */

#include <stdio.h>

#include "ctl/ctl-ask.h"
#include "ctl/ctl-flush.h"
#include "ctl/ctl-print.h"
#include "util/util.h"

typedef struct Paced {
        Ctl *ctl;
        const CtlSites *sites;
        CtlWait wait;
        bool *flushed, *over; /* by site */
        bool all_moved;
        unsigned long percent; /* deferred again, if that has ended the run, else 0 */
} Paced;

static void paced_done(Paced *p) {
        ctl_wait_done(&p->wait);
        free(p->flushed);
        free(p->over);
}

/* What to ask for next. A flush moves what is first in the log, and what was deferred again comes
 * last, so that asking for N messages does it; unless a message that was tried is recorded further
 * ahead as well: twice, or for another site. The rest is then asked for by ID. */
typedef struct Plan {
        unsigned long of_site;
        StrSet ids;
        bool more; /* is there something for the next portion? */
} Plan;

static void plan_done(Plan *plan) {
        strset_clear(&plan->ids);
}

/* Would a flush move it now, though it was tried in this run or is not a part of it? */
static bool is_in_the_way(const Paced *p, const FollowItem *m, bool followed, const char *id) {
        QueueName queue;
        struct stat st;

        if (followed)
                return m->state == FOLLOW_DEFERRED || m->state == FOLLOW_MOVING;
        return queue_find(&p->ctl->queue, id, &queue, &st) == 0 && queue != QUEUE_HOLD;
}

static int make_plan(const Paced *p, const SurveyLog *log, Plan *ret) {
        _cleanup_(strset_clear) StrSet seen = {0};
        bool blocked = false;

        for (size_t i = 0; i < log->n_text && !ret->more; i += strlen(log->text + i) + 1) {
                const char *id = log->text + i;
                FollowItem m;
                bool followed = follow_find(&p->wait.follow, id, &m);
                int r;

                if (!followed || m.state != FOLLOW_NOT_MOVED) {
                        blocked = blocked || is_in_the_way(p, &m, followed, id);
                        continue;
                }
                r = strset_add(&seen, id);
                if (r <= 0) {
                        if (r < 0)
                                return ctl_no_memory();
                        continue;
                }
                if (ret->of_site + strset_size(&ret->ids) == p->ctl->limit)
                        ret->more = true;
                else if (!blocked)
                        ret->of_site++;
                else if (strset_add(&ret->ids, id) < 0)
                        return ctl_no_memory();
        }
        return EX_OK;
}

/* As a flush of the site says it. */
static int deliver_ids(Paced *p, const CtlSite *site, const Plan *plan, RequestCounts *ret) {
        const StrSetEntry *e = NULL;
        int status = EX_OK;

        while (status == EX_OK && (e = strset_next(&plan->ids, e))) {
                Request request = {.kind = REQUEST_SEND_FILE,
                                   .queue_id = strset_entry_id(e),
                                   .detail = true,
                                   .reason = p->ctl->reason};
                RequestStatus answer;
                RequestCounts counts = {0};
                bool has_counts;

                status = ctl_ask(p->ctl, &request, request.queue_id, &answer, &counts, &has_counts);
                ret->found += counts.found;
                ret->moved += counts.moved;
                ret->gone += counts.gone;
                ret->busy += counts.busy;
                ret->failed += counts.failed;
        }
        ctl_say_flushed(p->ctl, site->site, status == EX_OK ? REQUEST_OK : REQUEST_FAIL, ret);
        return status;
}

static int flush_portion(Paced *p, size_t i) {
        const CtlSite *site = &p->sites->items[i];
        _cleanup_(survey_done) SurveyLog log = {0};
        _cleanup_(plan_done) Plan plan = {0};
        RequestCounts counts = {0}, more = {0};
        int status;

        /* What was moved for the site before may be recorded for this one too. */
        status = ctl_wait_pause(p->ctl, &p->wait, 0);
        if (status == EX_OK)
                status = ctl_read_site(p->ctl, site, &log);
        if (status == EX_OK)
                status = make_plan(p, &log, &plan);
        /* The first time it is asked even for nothing, and says so, or why it refuses. */
        if (status == EX_OK && (plan.of_site > 0 || (!plan.ids.entries && !p->flushed[i])))
                status = ctl_flush_site(p->ctl, site, plan.of_site ? plan.of_site : p->ctl->limit,
                                        &counts);
        if (status == EX_OK && plan.ids.entries)
                status = deliver_ids(p, site, &plan, &more);
        p->flushed[i] |= status == EX_OK;
        p->all_moved &= status == EX_OK;
        /* If nothing moves another time will not help. */
        p->over[i] = status != EX_OK || !plan.more || counts.moved + more.moved == 0 ||
                     counts.failed + more.failed > 0;
        return status;
}

/* Return: is anything left of any site? */
static bool flush_portions(Paced *p, int *status) {
        bool more = false;

        for (size_t i = 0; i < p->sites->n && !ctl_wait_interrupted(); i++)
                if (!p->over[i]) {
                        *status = ctl_worse(*status, flush_portion(p, i));
                        more |= !p->over[i];
                }
        return more;
}

static bool too_many_deferred(Paced *p) {
        const unsigned long *n = p->wait.follow.count;
        unsigned long tried = ctl_wait_moved(&p->wait) - n[FOLLOW_MOVING];
        unsigned long percent = tried > 0 ? 100 * n[FOLLOW_DEFERRED] / tried : 0;

        if (p->ctl->stop_if_deferred == 0 || percent < p->ctl->stop_if_deferred)
                return false;
        p->percent = percent;
        return true;
}

static void print_run(const Paced *p, const AuditOutcome *outcome) {
        unsigned long tried = ctl_wait_moved(&p->wait);
        unsigned long left = p->wait.follow.count[FOLLOW_NOT_MOVED];
        char text[AUDIT_TEXT_SIZE];

        if (p->ctl->quiet)
                return;
        if (p->ctl->json) {
                const char *stopped = p->percent > 0           ? "deferred"
                                      : ctl_wait_interrupted() ? "interrupted"
                                                               : NULL;

                ctl_print_json(json_pack("{ss sI sI sI so}", "type", "run", "recorded",
                                         (json_int_t) tried + (json_int_t) left, "tried",
                                         (json_int_t) tried, "left", (json_int_t) left, "stopped",
                                         ctl_json_text(stopped)));
                return;
        }
        ctl_print("%lu of %lu tried", tried, tried + left);
        if (outcome && tried > 0)
                ctl_print(": %s", audit_describe(outcome, text));
        if (p->percent > 0)
                ctl_print("; stopped, as %lu%% were deferred again", p->percent);
        if (left > 0)
                ctl_print("; %lu left, run it again to go on", left);
        ctl_print("\n");
}

static int end_waiting(Paced *p, CtlPatterns *recipients, CtlReport *report) {
        int status = ctl_wait_end(p->ctl, &p->wait, p->all_moved);

        status = ctl_worse(status,
                           ctl_report_make(p->ctl, &p->wait, recipients, p->sites->n, report));
        ctl_report_print(p->ctl, report, NULL);
        return ctl_worse(status, ctl_report_status(&report->total));
}

static int run(Paced *p) {
        int status = EX_OK;

        ctl_wait_catch();
        while (flush_portions(p, &status) && !ctl_wait_interrupted() &&
               !ctl_postfix_is_stopped(p->ctl)) {
                int paused = ctl_wait_pause(p->ctl, &p->wait, p->ctl->every);

                status = ctl_worse(status, paused);
                if (paused != EX_OK || ctl_wait_interrupted() || too_many_deferred(p))
                        break;
        }
        return status;
}

int ctl_flush_paced(Ctl *ctl, const CtlSites *sites, CtlPatterns *recipients) {
        _cleanup_(paced_done)
                Paced p = {.ctl = ctl, .sites = sites, .wait = CTL_WAIT_INIT, .all_moved = true};
        _cleanup_(ctl_report_done) CtlReport report = {0};
        int status;

        p.flushed = calloc(sites->n + 1, sizeof *p.flushed);
        p.over = calloc(sites->n + 1, sizeof *p.over);
        if (!p.flushed || !p.over)
                return ctl_no_memory(); /* cppcheck-suppress memleak ; freed by paced_done() */
        status = ctl_follow_sites(ctl, sites, &p.wait);
        if (status != EX_OK)
                return status;
        status = run(&p);
        if (ctl->wait)
                status = ctl_worse(status, end_waiting(&p, recipients, &report));
        else {
                status = ctl_worse(status, ctl_wait_pause(ctl, &p.wait, 0));
                follow_settle(&p.wait.follow, p.all_moved);
                if (ctl_wait_moved(&p.wait) > 0)
                        (void) ctl_warn_stopped(ctl);
        }
        print_run(&p, ctl->wait ? &report.total : NULL);
        ctl_audit_sites(ctl, sites, p.flushed, ctl->wait ? &report : NULL);
        return status == EX_OK && p.wait.follow.count[FOLLOW_NOT_MOVED] > 0 ? EX_TEMPFAIL : status;
}
