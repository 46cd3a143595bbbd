/* SPDX-License-Identifier: MIT */

/* fflushctl disable-postfix: have Postfix ask its own service again. */

#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-switch.h"
#include "util/util.h"

/* The units are stopped last: nobody who may still ask fflushd is there then. */
static bool are_units_clear(Switch *s) {
        char *state;
        bool clear = true;

        if (sd_booted() <= 0)
                return false;
        for (SwitchUnit u = SWITCH_SOCKET; u <= SWITCH_TIMER && clear; u++) {
                state = switch_read_unit(s, s->units[u]);
                clear = state && (!switch_has_property(state, "LoadState", "loaded") ||
                                  switch_is_clear(state));
                free(state);
        }
        return clear;
}

static int stop_units(Switch *s) {
        if (sd_booted() <= 0)
                return switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "disable",
                                        s->units[SWITCH_TIMER], s->units[SWITCH_SOCKET]);
        return switch_run_words(s, SWITCH_CHANGE, SWITCH_SYSTEMCTL, "disable", "--now",
                                s->units[SWITCH_TIMER], s->units[SWITCH_SOCKET]);
}

static bool is_unset(Switch *s) {
        return !switch_asked(s, CTL_SERVICE);
}

/* Units that are clear say that a run got to its end, or none began: then main.cf may have been
 * changed for other reasons, and who changed it says when it counts. */
static bool is_told(Switch *s) {
        return switch_is_told(s) || (!switch_asked(s, CTL_SERVICE) && are_units_clear(s));
}

static bool needs_no_probe(Switch *s) {
        return !s->running || !s->changed ||
               !(switch_asked(s, CTL_SERVICE) || switch_asked(s, SWITCH_BUILT_IN));
}

static int probe(Switch *s) {
        int status = switch_probe(s, SWITCH_BUILT_IN);

        if (status == EX_OK || !switch_asked(s, CTL_SERVICE))
                return status;
        ctl_error("rolling back:");
        if (switch_set(s) == EX_OK)
                (void) switch_tell(s);
        return status;
}

static bool are_agents_gone(Switch *s) {
        return switch_agents_are_gone(s) || are_units_clear(s);
}

static int await_agents(Switch *s) {
        SwitchProcesses left;
        int status = switch_await_agents(s, true);

        if (status == EX_OK || switch_interrupted())
                return status;
        left = switch_find_processes(s);
        ctl_error("Postfix uses flush(8) again, but %lu delivery agents are still busy and know "
                  "only %s (such as process %d); it listens until the same command is run again",
                  left.agents, s->units[SWITCH_SOCKET], (int) left.agent);
        return status;
}

/* Nothing says that they have been exported but that none is left to be. */
static int give_records(Switch *s) {
        int status;

        switch_interruptible(); /* each log is in one place or in both at any time */
        status = ctl_export_logs(s->ctl);
        if (status == EX_OK && !s->ctl->dry_run)
                switch_remove_socket(s);
        return status;
}

static int check(Switch *s) {
        int status;

        if (!switch_asked(s, CTL_SERVICE))
                return switch_check_takeover(s);
        status = switch_run_words(s, SWITCH_ASK, SWITCH_POSTCONF, "-M", SWITCH_BUILT_IN "/unix");
        if (status != EX_OK || s->output[0])
                return EX_OK;
        return switch_refuse("master.cf has no service \"flush\": Postfix would be left without "
                             "one. \"postfix%s%s upgrade-configuration\" adds it",
                             s->dir ? " -c " : "", s->dir ? s->dir : "");
}

int ctl_disable_postfix(Ctl *ctl, char *args[]) {
        static const Step steps[] = {
                {is_unset, switch_unset},
                {is_told, switch_tell},
                {needs_no_probe, probe, .only_looks = true},
                {are_agents_gone, await_agents, .only_looks = true},
                {are_units_clear, stop_units},
                {NULL, give_records},
        };
        Switch s = SWITCH_INIT(ctl);
        int status;

        status = switch_begin(&s);
        if (status == EX_OK)
                status = check(&s);
        if (status == EX_OK)
                status = switch_steps(&s, steps, ARRAY_SIZE(steps));
        if (status != EX_OK && switch_interrupted())
                ctl_error("interrupted: run the same command again to go on from there");
        if (status != EX_OK)
                return switch_end(&s, status, NULL);
        if (ctl->dry_run)
                switch_say(&s, "Nothing was changed.");
        else
                switch_say(&s, "Postfix %s.",
                           s.changed ? "uses flush(8) again" : "already uses flush(8)");
        return switch_end(&s, status, switch_asked(&s, CTL_SERVICE) ? SWITCH_BUILT_IN : s.asks);
}
