/* SPDX-License-Identifier: MIT */

/* fflushctl status: who serves, who asks, with which configuration, how much is recorded, and what
 * is wrong with any of it. */

#include <stdio.h>
#include <time.h>

#include "ctl/commands.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-health.h"
#include "ctl/ctl-print.h"
#include "util/util.h"

/* ----------------------------------------------------------------------------- for people */

static const char *process_name(pid_t pid, char *buf, size_t size) {
        char path[64];
        FILE *f;

        if (pid == 0)
                return "a process out of sight";
        (void) snprintf(path, sizeof path, "/proc/%d/comm", (int) pid);
        f = fopen(path, "re");
        if (!f || !fgets(buf, (int) size, f))
                (void) snprintf(buf, size, "process %d", (int) pid);
        if (f)
                (void) fclose(f);
        buf[strcspn(buf, "\n")] = '\0';
        return buf;
}

static void say(const char *what, CtlStyle style, const char *text) {
        ctl_print_in(CTL_BOLD, "%-10s", what);
        ctl_print_in(style, "%s", text);
}

static size_t count_findings(const Health *h, FindingResult result) {
        size_t n = 0;

        for (size_t i = 0; i < h->findings.n; i++)
                n += h->findings.items[i].result == result;
        return n;
}

static void say_health(const Health *h) {
        size_t n_failed = count_findings(h, FINDING_FAILED);
        size_t n_warnings = count_findings(h, FINDING_WARNING);
        char text[80];

        if (!health_has_answer(h)) {
                say("Health", CTL_YELLOW, "unknown, see below");
                ctl_print("\n");
                return;
        }
        if (n_failed > 0)
                (void) snprintf(text, sizeof text, "%zu problem%s, see below", n_failed,
                                n_failed > 1 ? "s" : "");
        else if (n_warnings > 0)
                (void) snprintf(text, sizeof text, "%zu warning%s, see below", n_warnings,
                                n_warnings > 1 ? "s" : "");
        else
                (void) snprintf(text, sizeof text, "%s", h->tested ? "OK" : "nothing seen");
        say("Health", n_failed > 0 ? CTL_RED : n_warnings > 0 ? CTL_YELLOW : CTL_GREEN, text);
        if (h->findings.checks > 0)
                ctl_print(" (self-test of the service: %u checks)", h->findings.checks);
        else if (!h->tested)
                ctl_print(" (the service was not started, and not tested)");
        ctl_print("\n");
}

static void say_socket(const Health *h) {
        const HealthUnit *u = &h->units[HEALTH_SOCKET];
        char name[64], text[128];

        if (!h->tested)
                say("Socket", u->active ? CTL_PLAIN : CTL_RED, h->ctl->socket_path);
        else if (h->listen_error == -EACCES || h->listen_error == -EPERM)
                say("Socket", CTL_YELLOW, "permission denied (run as root or postfix)");
        else if (h->listen_error < 0) {
                say("Socket", CTL_RED, "nobody listens");
                ctl_print(" on %s", h->ctl->socket_path);
        } else {
                (void) snprintf(text, sizeof text, "%s listens",
                                process_name(h->listener, name, sizeof name));
                say("Socket", health_is_served(h) ? CTL_GREEN : CTL_RED, text);
                ctl_print(" on %s", h->ctl->socket_path);
        }
        if (u->state[0])
                ctl_print("; %s: %s, %s", u->name, u->state,
                          u->enabled[0] ? u->enabled : "unknown");
        ctl_print("\n");
}

static void say_service(const Health *h) {
        const HealthUnit *u = &h->units[HEALTH_SERVICE];
        bool idle = streq(u->state, "inactive (dead)");

        say("Service", u->failed ? CTL_RED : CTL_PLAIN,
            idle          ? "idle, started on demand"
            : u->state[0] ? u->state
                          : "unknown");
        ctl_print(", %s\n", u->name);
}

static void say_refresh(const Health *h) {
        const HealthUnit *u = &h->units[HEALTH_TIMER];
        time_t last = health_last_refresh(h);
        char age[CTL_AGE_SIZE];

        say("Refresh", u->state[0] && !u->active ? CTL_RED : CTL_PLAIN,
            u->state[0] ? u->state : "unknown");
        ctl_print(", %s", u->name);
        if (u->state[0])
                ctl_print(", %s", u->enabled[0] ? u->enabled : "unknown");
        if (last > 0)
                ctl_print(", last %s ago", ctl_age(time(NULL), last, age));
        else if (u->active)
                ctl_print(", not yet run");
        ctl_print("\n");
}

static void say_postfix(const Health *h) {
        bool ours;

        if (!h->postfix_asks) {
                say("Postfix", CTL_YELLOW, "unknown (cannot read flush_service_name)");
                ctl_print("\n");
                return;
        }
        ours = streq(h->postfix_asks, health_service_name(h));
        say("Postfix", ours ? CTL_GREEN : CTL_RED,
            ours                              ? "uses fflushd"
            : streq(h->postfix_asks, "flush") ? "uses flush(8), not fflushd"
                                              : "does not use fflushd");
        ctl_print(" (flush_service_name = ");
        ctl_print("%s", h->postfix_asks);
        ctl_print(")\n");
}

/* Not a fault: most hosts record mail for some destinations only. */
static void say_unrecorded(const Health *h) {
        char command[CTL_UNIT_SIZE];

        if (!h->knows_unrecorded || h->unrecorded == 0)
                return;
        ctl_command_name(h->ctl, command);
        say("", CTL_PLAIN, "");
        ctl_print("%lu more deferred message%s not recorded: \"%s import\" records those that are "
                  "eligible\n",
                  h->unrecorded, h->unrecorded == 1 ? " is" : "s are", command);
}

static void say_records(const Health *h) {
        char age[CTL_AGE_SIZE];

        if (h->survey_status != EX_OK) {
                say("Recorded", CTL_YELLOW,
                    h->survey_status == EX_NOPERM ? "permission denied (run as root or postfix)"
                                                  : "unknown");
                ctl_print("\n");
                return;
        }
        say("Recorded", CTL_PLAIN, "");
        ctl_print("%lu message%s for %lu destination%s", h->messages, h->messages == 1 ? "" : "s",
                  h->sites, h->sites == 1 ? "" : "s");
        if (h->messages > 0 && h->deferred == h->messages)
                ctl_print(", all deferred");
        else if (h->messages > 0)
                ctl_print(", %lu of them deferred", h->deferred);
        if (h->oldest > 0)
                ctl_print(", the oldest for %s", ctl_age(time(NULL), h->oldest, age));
        ctl_print("\n");
        say_unrecorded(h);
}

static void say_all(const Health *h) {
        const Settings *settings = &h->ctl->settings;

        say_health(h);
        say_socket(h);
        say_service(h);
        say_refresh(h);
        say_postfix(h);
        say("Config", settings->problems ? CTL_RED : CTL_PLAIN,
            settings->problems ? "has errors (see above)" : "OK");
        ctl_print(", %s%s%s\n", h->config, h->config[0] ? ", " : "",
                  settings->postfix_config_directory[0] ? settings->postfix_config_directory
                                                        : "no Postfix");
        say_records(h);
        if (h->findings.n > 0) {
                ctl_print("\n");
                ctl_print_findings(stdout, &h->findings);
        }
}

/* ----------------------------------------------------------------------------- for programs */

static json_t *json_units(const Health *h, size_t member) {
        json_t *units = json_object();

        for (size_t i = 0; i < _HEALTH_UNIT_MAX; i++) {
                const char *text = (const char *) &h->units[i] + member;

                (void) json_object_set_new(units, h->units[i].name,
                                           text[0] ? json_string(text) : json_null());
        }
        return units;
}

json_t *health_json_findings(const Health *h) {
        json_t *findings = json_array();

        for (size_t i = 0; i < h->findings.n; i++) {
                const TestFinding *f = &h->findings.items[i];

                (void) json_array_append_new(
                        findings, json_pack("{ss ss ss ss?}", "check", f->check, "result",
                                            finding_result_name(f->result), "reason", f->reason,
                                            "remedy", f->remedy[0] ? f->remedy : NULL));
        }
        return findings;
}

static void add_counts(json_t *o, const Health *h) {
        const struct {
                const char *name;
                unsigned long value;
        } counts[] = {{"sites", h->sites},
                      {"records", h->records},
                      {"messages", h->messages},
                      {"deferred", h->deferred}};

        for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
                (void) json_object_set_new(o, counts[i].name,
                                           h->survey_status == EX_OK
                                                   ? json_integer((json_int_t) counts[i].value)
                                                   : json_null());
        (void) json_object_set_new(o, "unrecorded",
                                   h->knows_unrecorded ? json_integer((json_int_t) h->unrecorded)
                                                       : json_null());
        (void) json_object_set_new(o, "oldest", h->oldest ? json_integer(h->oldest) : json_null());
}

static void say_json(const Health *h) {
        const Settings *settings = &h->ctl->settings;
        time_t refreshed = health_last_refresh(h);
        json_t *o = json_pack(
                "{so sb sI so so so so so so so sb so so sb}", "healthy",
                health_has_answer(h) ? json_boolean(h->findings.worst != FINDING_FAILED)
                                     : json_null(),
                "tested", h->tested, "checks", (json_int_t) h->findings.checks, "findings",
                health_json_findings(h), "socket", ctl_json_text(h->ctl->socket_path), "listening",
                h->tested ? json_boolean(h->listen_error == 0) : json_null(), "listener_pid",
                h->listener > 0 ? json_integer(h->listener) : json_null(), "units",
                json_units(h, offsetof(HealthUnit, state)), "enabled",
                json_units(h, offsetof(HealthUnit, enabled)), "flush_service_name",
                ctl_json_text(h->postfix_asks), "served", health_is_served(h), "config",
                ctl_json_text(h->config[0] ? h->config : NULL), "postfix_config_directory",
                ctl_json_text(settings->postfix_config_directory), "config_problems",
                settings->problems != NULL);

        if (o)
                (void) json_object_set_new(o, "last_refresh",
                                           refreshed > 0 ? json_integer(refreshed) : json_null());
        if (o)
                add_counts(o, h);
        ctl_print_json(o);
}

int ctl_status(Ctl *ctl, char *args[]) {
        _cleanup_(health_done) Health h;
        int status;

        status = health_gather(ctl, !ctl->no_start, &h);
        if (status != EX_OK)
                return status;
        if (!ctl->quiet)
                (ctl->json ? say_json : say_all)(&h);
        if (!health_has_answer(&h))
                return h.test_status;
        if (h.findings.worst == FINDING_FAILED)
                return EX_UNAVAILABLE;
        return ctl->settings.problems ? EX_CONFIG : h.survey_status;
}
