/* SPDX-License-Identifier: MIT */

/* fflushctl enable-postfix: have Postfix ask fflushd. */

#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "ctl/commands.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-selinux.h"
#include "ctl/ctl-switch.h"
#include "util/util.h"

/* ------------------------------------------------------------------------- what is there */

/* Postfix's clients go by its main.cf, whatever fflushd.conf has. */
static int check_queue(Switch *s) {
        const char *ours = s->ctl->settings.queue_directory;
        struct stat a, b;
        int status = switch_parameter(s, "queue_directory");

        if (status != EX_OK)
                return status;
        if (stat(ours, &a) < 0 || stat(s->output, &b) < 0)
                return switch_refuse("%s: %s", ours, strerror(errno));
        if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
                return switch_refuse("the queue directory is %s in fflushd.conf, but %s in main.cf",
                                     ours, s->output);
        return EX_OK;
}

/* As on many a host that has never used it. Known before anything is begun, also to --dry-run; a
 * list that only excludes is for the self-test. */
static int check_list(const Switch *s) {
        if (s->ctl->settings.fast_flush_domains[0])
                return EX_OK;
        ctl_error("fast_flush_domains is empty: nothing would be recorded");
        ctl_error("%s -e fast_flush_domains=static:all records every destination; or set the "
                  "domains that are to be recorded",
                  s->postconf);
        return EX_UNAVAILABLE;
}

static int check_units(Switch *s) {
        int status;

        for (size_t i = 0; i < _SWITCH_UNIT_MAX; i++)
                if (!switch_has_property(s->states[i], "LoadState", "loaded"))
                        return switch_refuse("%s is not there, or masked; newly installed: "
                                             "systemctl daemon-reload",
                                             s->units[i]);
        status = switch_check_takeover(s);
        return status == EX_OK ? switch_check_fit(s) : status;
}

static int check_master_cf(Switch *s) {
        if (switch_run_words(s, SWITCH_ASK, SWITCH_POSTCONF, "-M", CTL_SERVICE "/unix") == EX_OK &&
            s->output[0])
                return switch_refuse("master.cf has a service named " CTL_SERVICE
                                     ": master(8) would take the socket's path");
        if (switch_run_words(s, SWITCH_ASK, SWITCH_POSTCONF, "-P", "*/*/flush_service_name") ==
                    EX_OK &&
            s->output[0])
                return switch_refuse(
                        "master.cf has a flush_service_name of its own for a service: %.*s",
                        (int) strcspn(s->output, "\n"), s->output);
        return EX_OK;
}

static int check_listener(Switch *s) {
        const char *path = s->ctl->socket_path, *unit = s->units[SWITCH_SOCKET];
        int pid = switch_find_listener(s);

        if (pid < 0)
                return ctl_connect_error(s->ctl, pid);
        if (pid > 1)
                return switch_refuse("process %d listens on %s, and it is not systemd", pid, path);
        if (pid == 0 && switch_has_property(s->states[SWITCH_SOCKET], "ActiveState", "active"))
                return switch_refuse("%s is active, but nobody listens on %s: systemctl restart %s",
                                     unit, path, unit);
        return EX_OK;
}

static int check(Switch *s) {
        int status;

        if (!switch_asked(s, SWITCH_BUILT_IN) && !switch_asked(s, CTL_SERVICE))
                return switch_refuse("flush_service_name is \"%s\" in main.cf, which is neither "
                                     "Postfix's own nor fflushd's: whoever set it should take it "
                                     "back (%s -X flush_service_name)",
                                     s->asks, s->postconf);
        if (sd_booted() <= 0) {
                ctl_error("systemd does not run here");
                return EX_UNAVAILABLE;
        }
        status = check_queue(s);
        if (status != EX_OK)
                return status;
        status = check_list(s);
        if (status != EX_OK)
                return status;
        status = check_units(s);
        if (status != EX_OK)
                return status;
        status = check_master_cf(s);
        if (status != EX_OK)
                return status;
        return check_listener(s);
}

/* -------------------------------------------------------------------------------------- steps */

static bool are_units_up(Switch *s) {
        bool up = true;

        for (SwitchUnit u = SWITCH_SOCKET; u <= SWITCH_TIMER && up; u++) {
                char *state = switch_read_unit(s, s->units[u]);

                up = state && switch_is_up(state);
                free(state);
        }
        return up;
}

static int start_units(Switch *s) {
        int status;

        for (size_t i = 0; i < _SWITCH_UNIT_MAX; i++)
                if (switch_has_property(s->states[i], "ActiveState", "failed"))
                        (void) switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "reset-failed",
                                                s->units[i]);
        status = switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "enable", "--now",
                                  s->units[SWITCH_SOCKET], s->units[SWITCH_TIMER]);
        /* systemctl succeeds although a condition of the unit is false, and nothing was started. */
        if (status == EX_OK && !s->ctl->dry_run && !are_units_up(s))
                status = switch_refuse("%s or %s did not start: systemctl status %s",
                                       s->units[SWITCH_SOCKET], s->units[SWITCH_TIMER],
                                       s->units[SWITCH_SOCKET]);
        return status;
}

/* Of a Postfix that does not run the queue manager cannot be reached, and is not missed. */
static bool has_failed(const Switch *s, const TestFindings *findings) {
        size_t others = findings->n;

        for (size_t i = 0; i < findings->n; i++)
                if (findings->items[i].result != FINDING_FAILED ||
                    (!s->running && streq(findings->items[i].check, "qmgr")))
                        others--;
        return others > 0 || findings->n == FINDINGS_MAX;
}

/* Before anybody relies on it: as the user and in the sandbox in which it serves. */
static int test_service(Switch *s) {
        TestFindings findings;
        int status = ctl_self_test(s->ctl, &findings);

        if (status == EX_OK ||
            (status == EX_UNAVAILABLE && findings.checks > 0 && !has_failed(s, &findings)))
                return EX_OK;
        ctl_error("the self-test of fflushd failed:");
        ctl_print_findings(stderr, &findings);
        return status;
}

/* As this command and postqueue do reach it, nothing else would tell. */
static int test_policy(Switch *s) {
        TestFindings findings = {0};

        ctl_judge_selinux(s->ctl, &findings);
        if (findings.n == 0)
                return EX_OK;
        ctl_error("Postfix could not reach fflushd here:");
        ctl_print_findings(stderr, &findings);
        return EX_CONFIG;
}

static bool is_set(Switch *s) {
        return switch_asked(s, CTL_SERVICE);
}

static int probe(Switch *s) {
        int status = switch_probe(s, CTL_SERVICE);

        if (status != EX_OK)
                return status;
        s->proven = true;
        switch_say(s, "Postfix %s fflushd. To switch back: %s disable-postfix",
                   s->changed ? "now uses" : "already uses", s->command);
        if (!s->running)
                switch_say(s, "Postfix is not running.");
        return EX_OK;
}

/* What flush(8) recorded for sites with other characters than letters, digits and dots is under
 * names that do not tell whose it is; agents of before still have it do so. That all of it has been
 * recorded anew nobody can tell but by looking at all of it. */
static int take_records(Switch *s) {
        int imported, status = switch_await_agents(s, true);
        bool quiet = s->ctl->quiet;
        unsigned long added;

        if (status != EX_OK && switch_interrupted())
                return status;
        switch_interruptible();        /* a record made twice is seen as a duplicate */
        s->ctl->quiet |= s->ctl->json; /* --json prints one object, that of this command */
        imported = ctl_import_deferred(s->ctl, &added);
        s->ctl->quiet = quiet;
        s->changed |= added > 0;
        if (imported != EX_OK)
                ctl_error("not all deferred mail could be recorded: %s import tries again",
                          s->command);
        if (status != EX_OK)
                ctl_error("%lu delivery agents are still busy and use flush(8) until they end "
                          "(such as "
                          "process %d): run the same command again then, to record what they leave",
                          switch_find_processes(s).agents, (int) switch_find_processes(s).agent);
        return ctl_worse(imported, status);
}

/* ------------------------------------------------------------------------------- taking it back */

/* What this run has enabled or started, and no more. */
static void stop_unit(Switch *s, SwitchUnit u) {
        const char *before = s->states[u], *unit = s->units[u];
        bool enabled = switch_has_property(before, "UnitFileState", "enabled");
        bool active = switch_has_property(before, "ActiveState", "active");

        if (!enabled && !active)
                (void) switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "disable", "--now",
                                        unit);
        else if (!enabled)
                (void) switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "disable", unit);
        else if (!active)
                (void) switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "stop", unit);
}

static void stop_units(Switch *s) {
        char refresh[CTL_UNIT_SIZE]; /* which the timer may have started meanwhile */

        stop_unit(s, SWITCH_TIMER);
        stop_unit(s, SWITCH_SOCKET);
        for (size_t i = 0; i < _SWITCH_UNIT_MAX; i++)
                if (!switch_has_property(s->states[i], "ActiveState", "failed"))
                        (void) switch_run_words(s, SWITCH_ASK, SWITCH_SYSTEMCTL, "reset-failed",
                                                s->units[i]);
        ctl_unit_name(s->ctl, "fflush-refresh", "service", refresh);
        if (!switch_has_property(s->states[SWITCH_TIMER], "ActiveState", "active"))
                (void) switch_run_words(s, SWITCH_ASK, SWITCH_SYSTEMCTL, "reset-failed", refresh);
        if (!switch_has_property(s->states[SWITCH_SOCKET], "ActiveState", "active"))
                switch_remove_socket(s);
}

/* The socket stays for agents that know no other. Return: may it be stopped? */
static bool ask_flush_again(Switch *s) {
        int status = switch_unset(s);

        if (status == EX_OK && !switch_is_told(s))
                status = switch_tell(s);
        if (status == EX_OK && switch_await_agents(s, false) == EX_OK)
                return true;
        ctl_error("some of Postfix may still use fflushd, so that %s stays: %s disable-postfix "
                  "finishes it",
                  s->units[SWITCH_SOCKET], s->command);
        return false;
}

static void take_back(Switch *s) {
        const char *why = switch_interrupted() ? "interrupted: " : "";

        if (s->proven || switch_asked(s, CTL_SERVICE)) {
                if (switch_interrupted())
                        ctl_error("%srun the same command again to go on from there", why);
        } else if (!s->changed)
                ctl_error("%snothing was changed", why);
        else {
                ctl_error("%srolling back:", why);
                if (!s->set || ask_flush_again(s))
                        stop_units(s);
        }
}

int ctl_enable_postfix(Ctl *ctl, char *args[]) {
        static const Step steps[] = {
                {are_units_up, start_units},
                {NULL, test_service, .only_looks = true},
                {NULL, test_policy, .only_looks = true},
                {is_set, switch_set},
                {switch_is_told, switch_tell},
                {NULL, probe, .only_looks = true},
                {NULL, take_records, .only_looks = true},
        };
        Switch s = SWITCH_INIT(ctl);
        int status;

        status = switch_begin(&s);
        if (status == EX_OK)
                status = check(&s);
        if (status != EX_OK)
                return switch_end(&s, status, NULL);
        status = switch_steps(&s, steps, ARRAY_SIZE(steps));
        if (status != EX_OK && !ctl->dry_run)
                take_back(&s);
        if (status == EX_OK && ctl->dry_run)
                switch_say(&s, "Nothing was changed.");
        return switch_end(&s, status, CTL_SERVICE);
}
