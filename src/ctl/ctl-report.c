/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-report.h"

#include <stdio.h>
#include <unistd.h>

#include "ctl/cause.h"
#include "ctl/ctl-print.h"
#include "ctl/messages.h"
#include "ctl/relay.h"
#include "util/grow.h"
#include "util/hash.h"
#include "util/strset.h"
#include "util/util.h"

#define REASONS_MAX 10 /* that are shown to people */

#define ELSEWHERE   "(for other destinations only)"
#define NO_REASON   "(no reason is known)"

/* Why messages were returned or deferred. */
struct CtlReason {
        UT_hash_handle hh;
        unsigned long count;
        char example[QUEUEID_MAX + 1];
        char text[];
};

/* ----------------------------------------------------------------------------------- reasons */

static bool add_reason(CtlReason **reasons, const char *text, const char *id) {
        bool oom = false;
        CtlReason *reason;

        HASH_FIND_STR(*reasons, text, reason);
        if (!reason) {
                size_t n = strlen(text);

                reason = calloc(1, sizeof *reason + n + 1);
                if (!reason)
                        return false;
                memcpy(reason->text, text, n);
                (void) snprintf(reason->example, sizeof reason->example, "%s", id);
                HASH_ADD_KEYPTR(hh, *reasons, reason->text, n, reason);
                if (oom) {
                        free(reason);
                        return false;
                }
        }
        reason->count++;
        return true;
}

/* A message has one reason, so that the counts add up: that of its first recipient who was asked
 * for. */
typedef struct Search {
        CtlPatterns *recipients;
        char text[CAUSE_MAX + 1];
        bool found, elsewhere;
} Search;

static void look_at(Search *s, const char *address, const char *reason) {
        if (s->found || !reason || !*reason)
                return;
        s->found = ctl_patterns_match_address(s->recipients, address);
        s->elsewhere |= !s->found;
        if (s->found)
                (void) cause_of(reason, s->text);
}

static bool end_search(const Search *s, CtlReason **reasons, const char *id) {
        return add_reason(reasons, s->found ? s->text : s->elsewhere ? ELSEWHERE : NO_REASON, id);
}

static void search_log(Search *s, const CtlWait *w, const char *id, MaillogEvent event) {
        const void *state = NULL;
        const char *address, *reason;

        while ((address = outcomes_next_reason(w->outcomes, id, event, &state, &reason)))
                look_at(s, address, reason);
}

static void search_queue(Search *s, const json_t *message) {
        const json_t *recipients = json_object_get(message, "recipients"), *one;
        size_t i;

        json_array_foreach(recipients, i, one) {
                const char *address = json_string_value(json_object_get(one, "address"));

                if (address)
                        look_at(s, address,
                                json_string_value(json_object_get(one, "delay_reason")));
        }
}

static int by_count(const CtlReason *a, const CtlReason *b) {
        return (a->count < b->count) - (a->count > b->count);
}

static void free_reasons(CtlReason *reasons) {
        CtlReason *reason = reasons, *next;

        HASH_CLEAR(hh, reasons);
        for (; reason; reason = next) {
                next = reason->hh.next;
                free(reason);
        }
}

/* ------------------------------------------------------------------------------------ counts */

typedef enum Fate {
        FATE_NONE, /* not moved */
        FATE_DELIVERED,
        FATE_RETURNED,
        FATE_EXPIRED,
        FATE_DELETED,
        FATE_DEFERRED,
        FATE_HELD,
        FATE_UNDER_WAY,
        FATE_UNKNOWN,
} Fate;

/* The log has the last word: it may tell of the end of a message that was deferred first, or whose
 * end has not been seen. */
static Fate fate_of(const CtlWait *w, const FollowItem *m, OutcomeRecipients *n) {
        Outcome outcome = outcomes_of(w->outcomes, m->id, n);

        if (m->state == FOLLOW_NOT_MOVED)
                return FATE_NONE;
        switch (outcome) {
        case OUTCOME_DELIVERED:
                return FATE_DELIVERED;
        case OUTCOME_RETURNED:
                return FATE_RETURNED;
        case OUTCOME_EXPIRED:
                return FATE_EXPIRED;
        case OUTCOME_DELETED:
                return FATE_DELETED;
        default:
                break;
        }
        switch (m->state) {
        case FOLLOW_DEFERRED: /* may have been returned for others of its recipients */
                return n->bounced > 0 ? FATE_RETURNED : FATE_DEFERRED;
        case FOLLOW_HELD:
                return FATE_HELD;
        case FOLLOW_MOVING:
                return FATE_UNDER_WAY;
        default:
                return FATE_UNKNOWN;
        }
}

static void count_message(AuditOutcome *o, Fate fate) {
        o->moved += fate != FATE_NONE;
        o->delivered += fate == FATE_DELIVERED;
        o->returned += fate == FATE_RETURNED;
        o->expired += fate == FATE_EXPIRED;
        o->deleted += fate == FATE_DELETED;
        o->deferred += fate == FATE_DEFERRED;
        o->held += fate == FATE_HELD;
        o->under_way += fate == FATE_UNDER_WAY;
        o->unknown += fate == FATE_UNKNOWN;
}

/* An expired message is returned for those recipients for whom it was deferred last. */
static void count_recipients(CtlReport *report, Fate fate, const OutcomeRecipients *n) {
        unsigned long all = n->sent + n->bounced + n->deferred;
        AuditOutcome *o = &report->recipients;

        if (fate == FATE_NONE || all == 0)
                return;
        o->moved += all;
        o->delivered += n->sent;
        o->returned += n->bounced;
        *(fate == FATE_EXPIRED ? &o->expired : &o->deferred) += n->deferred;
        report->several |= all > 1;
}

static bool is_deferred(const CtlWait *w, const char *id) {
        FollowItem m = {.id = id, .state = follow_state(&w->follow, id)};
        OutcomeRecipients n;

        return fate_of(w, &m, &n) == FATE_DEFERRED;
}

/* By what postqueue(1) says. @ret_told: of which messages. Return: an exit status. */
static int read_queue(const Ctl *ctl, const CtlWait *w, CtlPatterns *recipients, CtlReport *report,
                      StrSet *ret_told) {
        _cleanup_free_ char *errors = NULL;
        int status = EX_OK;
        Messages in;
        json_t *message;

        if (report->total.deferred == 0 || !ctl->settings.postfix_config_directory[0])
                return EX_OK;
        if (messages_open(&in, ctl->settings.postfix_config_directory) < 0) {
                ctl_error("postqueue cannot be run, so the reasons are taken from the log only");
                return EX_OK;
        }
        while ((message = messages_next(&in))) {
                const char *id = json_string_value(json_object_get(message, "queue_id"));
                Search s = {.recipients = recipients};

                if (status == EX_OK && is_deferred(w, id) && !strset_contains(ret_told, id)) {
                        search_queue(&s, message);
                        if ((s.found || s.elsewhere) && (strset_add(ret_told, id) < 0 ||
                                                         !end_search(&s, &report->deferred, id)))
                                status = ctl_no_memory();
                }
                json_decref(message);
        }
        if (messages_close(&in, &errors) < 0)
                ctl_error("postqueue failed, so the reasons are taken from the log only");
        if (errors)
                ctl_error_lines(errors);
        return status;
}

static int find_reasons(const Ctl *ctl, const CtlWait *w, CtlPatterns *recipients,
                        CtlReport *report) {
        _cleanup_(strset_clear) StrSet told = {0};
        const void *cursor = NULL;
        FollowItem m;
        int status;

        status = read_queue(ctl, w, recipients, report, &told);
        while (status == EX_OK && follow_next(&w->follow, &cursor, &m)) {
                Search s = {.recipients = recipients};
                OutcomeRecipients n;
                Fate fate = fate_of(w, &m, &n);
                bool returned = fate == FATE_RETURNED || fate == FATE_EXPIRED;

                if (!returned && (fate != FATE_DEFERRED || strset_contains(&told, m.id)))
                        continue;
                if (returned)
                        search_log(&s, w, m.id, MAILLOG_BOUNCED);
                if (fate != FATE_RETURNED)
                        search_log(&s, w, m.id, MAILLOG_DEFERRED);
                if (!end_search(&s, returned ? &report->returned : &report->deferred, m.id))
                        status = ctl_no_memory();
        }
        HASH_SORT(report->returned, by_count);
        HASH_SORT(report->deferred, by_count);
        return status;
}

int ctl_report_make(Ctl *ctl, const CtlWait *w, CtlPatterns *recipients, size_t n_groups,
                    CtlReport *ret) {
        const void *cursor = NULL;
        FollowItem m;

        *ret = (CtlReport){.groups = calloc(n_groups + 1, sizeof *ret->groups)};
        if (!ret->groups)
                return ctl_no_memory();
        while (follow_next(&w->follow, &cursor, &m)) {
                OutcomeRecipients n;
                Fate fate = fate_of(w, &m, &n);

                count_message(&ret->total, fate);
                count_message(&ret->groups[m.group], fate);
                count_recipients(ret, fate, &n);
        }
        if (ret->total.unknown > 0 && !maillog_is_readable(w->log))
                ctl_error("Postfix's log cannot be read%s",
                          geteuid() == 0 ? ": there is neither a journal nor a file of it"
                                         : " (run as root, or as a member of the group "
                                           "systemd-journal)");
        return ctl->quiet ? EX_OK : find_reasons(ctl, w, recipients, ret);
}

void ctl_report_done(CtlReport *report) {
        free_reasons(report->returned);
        free_reasons(report->deferred);
        free(report->groups);
}

/* ------------------------------------------------------------------------------------ output */

static void print_reasons(const char *title, const CtlReason *reason) {
        unsigned long others = 0;

        if (reason)
                ctl_print("%s:\n", title);
        for (int i = 0; reason; reason = reason->hh.next, i++)
                if (i < REASONS_MAX)
                        ctl_print("%6lu  %s   e.g. %s\n", reason->count, reason->text,
                                  reason->example);
                else
                        others += reason->count;
        if (others > 0)
                ctl_print("%6lu  (for other reasons)\n", others);
}

static void print_text(const CtlReport *report, const char *what) {
        char text[AUDIT_TEXT_SIZE];

        if (report->total.moved == 0)
                return;
        if (what)
                ctl_print("%lu %s: %s\n", report->total.moved, what,
                          audit_describe(&report->total, text));
        relay_count(report->total.delivered, "delivered");
        relay_count(report->total.returned + report->total.expired, "returned to sender");
        relay_count(report->total.deferred, "deferred again");
        if (report->several)
                ctl_print("recipients: %s\n", audit_describe(&report->recipients, text));
        print_reasons("returned to sender", report->returned);
        print_reasons("deferred again", report->deferred);
}

static void add_json(json_t *reasons, const char *outcome, const CtlReason *reason) {
        for (; reason; reason = reason->hh.next)
                (void) json_array_append_new(reasons,
                                             json_pack("{ss sI so so}", "outcome", outcome, "count",
                                                       (json_int_t) reason->count, "reason",
                                                       ctl_json_text(reason->text), "example",
                                                       ctl_json_text(reason->example)));
}

static void print_json(const CtlReport *report) {
        const AuditOutcome *o = &report->total, *n = &report->recipients;
        json_t *reasons = json_array();

        add_json(reasons, "returned", report->returned);
        add_json(reasons, "deferred", report->deferred);
        ctl_print_json(json_pack(
                "{ss sI sI sI sI sI sI sI sI sI s{sI sI sI sI} so}", "type", "outcome", "moved",
                (json_int_t) o->moved, "delivered", (json_int_t) o->delivered, "returned",
                (json_int_t) o->returned, "expired", (json_int_t) o->expired, "deleted",
                (json_int_t) o->deleted, "deferred", (json_int_t) o->deferred, "held",
                (json_int_t) o->held, "under_way", (json_int_t) o->under_way, "unknown",
                (json_int_t) o->unknown, "recipients", "delivered", (json_int_t) n->delivered,
                "returned", (json_int_t) n->returned, "expired", (json_int_t) n->expired,
                "deferred", (json_int_t) n->deferred, "reasons", reasons));
}

void ctl_report_print(const Ctl *ctl, const CtlReport *report, const char *what) {
        if (ctl->quiet)
                return;
        if (ctl->json)
                print_json(report);
        else
                print_text(report, what);
}

int ctl_report_status(const AuditOutcome *o) {
        if (o->returned + o->expired > 0)
                return EX_NOUSER;
        return o->deferred + o->under_way + o->unknown > 0 ? EX_TEMPFAIL : EX_OK;
}

void ctl_audit(const Ctl *ctl, const char *request, const char *site, const char *queue_id,
               const AuditOutcome *outcome) {
        audit_write(&(AuditEvent){.instance = ctl->instance ? ctl->instance : "postfix",
                                  .request = request,
                                  .site = site,
                                  .queue_id = queue_id,
                                  .reason = ctl->reason,
                                  .outcome = outcome});
}
