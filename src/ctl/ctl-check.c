/* SPDX-License-Identifier: MIT */

/* fflushctl check: status in one line for Nagios, Icinga and whatever runs their plugins. The line
 * and the exit status are those of the Monitoring Plugins Development Guidelines. */

#include <stdio.h>
#include <time.h>

#include "ctl/commands.h"
#include "ctl/ctl-health.h"
#include "ctl/ctl-print.h"
#include "util/util.h"

#define CHECK_USEC (10 * USEC_PER_SEC) /* as plugins do, when no --timeout is given */

/* In the order of the exit status. */
typedef enum State {
        STATE_OK,
        STATE_WARNING,
        STATE_CRITICAL,
        STATE_UNKNOWN = CTL_CHECK_UNKNOWN
} State;

static const char *const names[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};

typedef struct Check {
        State state;
        char *text; /* reasons, with commas between them */
        FILE *out;  /* writes @text */
        size_t size;
        bool has_text;
} Check;

/* What is known to be broken is worse than what is not known. */
static State worse(State a, State b) {
        static const int ranks[] = {
                [STATE_OK] = 0, [STATE_WARNING] = 1, [STATE_UNKNOWN] = 2, [STATE_CRITICAL] = 3};

        return ranks[a] > ranks[b] ? a : b;
}

static void begin_reason(Check *c, State state) {
        c->state = worse(c->state, state);
        if (c->has_text)
                (void) fputs(", ", c->out);
        c->has_text = true;
}

/* A bar would begin the performance data. */
static void write_reason(Check *c, const char *text) {
        char copy[FINDING_TEXT_SIZE];

        (void) snprintf(copy, sizeof copy, "%s", text);
        for (char *p = copy; *p; p++)
                if (*p == '|')
                        *p = '/';
        ctl_write_text(c->out, copy);
}

/* ---------------------------------------------------------------------------------- findings */

/* No answer for a reason of this end is not the service's fault. That none came in time is: Postfix
 * waits for it as well; unless it waits while main.cf is being edited. */
static bool is_own_trouble(const Health *h, const TestFinding *f) {
        bool late = h->test_status == EX_TEMPFAIL && !h->ctl->settings.unasked;

        return streq(f->check, "service") && !health_has_answer(h) && !late;
}

/* A playbook that edits main.cf for longer than a check may take is no alarm: served is what was
 * before, and who is not eligible by that waits. */
static bool is_no_trouble(const TestFinding *f) {
        return f->result == FINDING_WARNING || streq(f->check, FINDING_OUTDATED);
}

static void judge_findings(Check *c, const Health *h) {
        for (size_t i = 0; i < h->findings.n; i++) {
                const TestFinding *f = &h->findings.items[i];

                if (f->result == FINDING_OK)
                        continue;
                begin_reason(c, is_own_trouble(h, f) ? STATE_UNKNOWN
                                : is_no_trouble(f)   ? STATE_WARNING
                                                     : STATE_CRITICAL);
                write_reason(c, f->reason);
                if (!f->remedy[0])
                        continue;
                (void) fputs(" (", c->out);
                write_reason(c, f->remedy);
                (void) fputc(')', c->out);
        }
        if (h->survey_status != EX_OK) {
                begin_reason(c, STATE_UNKNOWN);
                write_reason(c, h->survey_status == EX_NOPERM
                                        ? "permission denied: the queue (run it as root or as the "
                                          "owner of the queue, postfix)"
                                        : "the logs could not be read");
        }
}

/* -------------------------------------------------------------------------------- thresholds */

typedef struct Value {
        const char *label, *key, *unit, *what; /* @key: for JSON */
        bool known;
        uint64_t value, warning, critical; /* thresholds are 0 if there are none */
} Value;

static void judge_value(Check *c, const Value *v) {
        uint64_t limit = v->critical > 0 && v->value > v->critical ? v->critical
                         : v->warning > 0 && v->value > v->warning ? v->warning
                                                                   : 0;

        if (!v->known && (v->warning > 0 || v->critical > 0)) {
                begin_reason(c, STATE_UNKNOWN);
                (void) fprintf(c->out, "%s: not known", v->what);
        } else if (v->known && limit > 0) {
                begin_reason(c, limit == v->critical ? STATE_CRITICAL : STATE_WARNING);
                (void) fprintf(c->out, "%s: %llu%s, more than %llu%s", v->what,
                               (unsigned long long) v->value, v->unit, (unsigned long long) limit,
                               v->unit);
        }
}

static void print_number(FILE *f, uint64_t n) {
        (void) fputc(';', f);
        if (n > 0)
                (void) fprintf(f, "%llu", (unsigned long long) n);
}

/* 'label'=value[UOM];warn;crit;min */
static void print_value(FILE *f, const Value *v) {
        (void) fprintf(f, " '%s'=", v->label);
        if (v->known)
                (void) fprintf(f, "%llu%s", (unsigned long long) v->value, v->unit);
        else
                (void) fputc('U', f);
        print_number(f, v->warning);
        print_number(f, v->critical);
        (void) fputs(";0", f);
}

static uint64_t age_of(uint64_t then) {
        uint64_t now = (uint64_t) time(NULL);

        return now > then ? now - then : 0;
}

#define VALUES 6u

static void fill_values(const Health *h, Value values[static VALUES]) {
        const Ctl *ctl = h->ctl;
        bool counted = h->survey_status == EX_OK;
        uint64_t refreshed = h->has_counters ? h->counters.last_refresh_sec : 0, failures = 0;

        for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++)
                failures += h->has_counters ? h->counters.failures[c] : 0;
        values[0] = (Value){"deferred",
                            "deferred",
                            "",
                            "deferred messages",
                            counted,
                            h->deferred,
                            ctl->deferred_warning,
                            ctl->deferred_critical};
        /* Where there is none, none is old. */
        values[1] = (Value){"oldest",
                            "oldest_age",
                            "s",
                            "age of the oldest message",
                            counted && (h->deferred == 0 || h->oldest > 0),
                            h->oldest > 0 ? age_of((uint64_t) h->oldest) : 0,
                            ctl->oldest_warning / USEC_PER_SEC,
                            ctl->oldest_critical / USEC_PER_SEC};
        values[2] = (Value){"last_refresh",
                            "last_refresh_age",
                            "s",
                            "time since the last refresh",
                            refreshed > 0,
                            refreshed > 0 ? age_of(refreshed) : 0,
                            ctl->refresh_warning / USEC_PER_SEC,
                            ctl->refresh_critical / USEC_PER_SEC};
        values[3] = (Value){"destinations", "sites", "", "destinations", counted, h->sites, 0, 0};
        values[4] =
                (Value){"failures", "failures", "c", "failures", h->has_counters, failures, 0, 0};
        values[5] = (Value){"unrecorded",
                            "unrecorded",
                            "",
                            "deferred messages that are not recorded",
                            h->knows_unrecorded,
                            h->unrecorded,
                            ctl->unrecorded_warning,
                            ctl->unrecorded_critical};
}

/* ------------------------------------------------------------------------------------- output */

static json_t *to_json(const Check *c, const Health *h, const Value values[static VALUES]) {
        json_t *o = json_pack("{ss si ss so}", "state", names[c->state], "exit", (int) c->state,
                              "text", c->text, "findings", health_json_findings(h));

        for (size_t i = 0; o && i < VALUES; i++)
                (void) json_object_set_new(
                        o, values[i].key,
                        values[i].known ? json_integer((json_int_t) values[i].value) : json_null());
        return o;
}

static int report(Check *c, const Health *h) {
        Value values[VALUES];

        fill_values(h, values);
        for (size_t i = 0; i < VALUES; i++)
                judge_value(c, &values[i]);
        if (!c->has_text) {
                (void) fprintf(c->out, "%lu deferred for %lu destination%s, ", h->deferred,
                               h->sites, h->sites == 1 ? "" : "s");
                if (h->unrecorded > 0)
                        (void) fprintf(c->out, "%lu more not recorded, ", h->unrecorded);
                (void) fprintf(c->out, "%u checks passed", h->findings.checks);
        }
        if (fclose(c->out) != 0)
                return STATE_UNKNOWN;
        if (h->ctl->json) {
                ctl_print_json(to_json(c, h, values));
                return (int) c->state;
        }
        ctl_print("FFLUSHD %s - %s |", names[c->state], c->text);
        for (size_t i = 0; i < VALUES; i++)
                print_value(stdout, &values[i]);
        ctl_print("\n");
        return (int) c->state;
}

int ctl_check(Ctl *ctl, char *args[]) {
        _cleanup_(health_done) Health h;
        Check c = {.state = STATE_OK};
        int status;

        if (ctl->timeout == 0)
                ctl->timeout = CHECK_USEC;
        status = health_gather(ctl, true, &h);
        if (status != EX_OK)
                return status;
        c.out = open_memstream(&c.text, &c.size);
        if (!c.out)
                return ctl_no_memory();
        judge_findings(&c, &h);
        status = report(&c, &h);
        free(c.text);
        return status;
}
