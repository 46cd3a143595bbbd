/* SPDX-License-Identifier: MIT */
#pragma once

/* Reads the configuration again, while the daemon serves with the one that it has. */

#include "core/settings.h"

typedef struct Reload Reload;

typedef struct ReloadCallbacks {
        /* New settings, at least as complete as those in use, to take their place. They stay valid
         * until the next are taken. Return: 0, or a negative errno: not taken, and fail() follows;
         * -ECANCELED: neither these nor any others are wanted. */
        int (*take)(const Settings *settings, void *userdata);
        /* There are no new settings. @settings: what was read, with its problems, or NULL. @error:
         * what failed beside these problems, or 0. @in_vain: another attempt is of no use before
         * somebody has changed something. */
        void (*fail)(const Settings *settings, int error, bool in_vain, void *userdata);
} ReloadCallbacks;

/**
 * reload_new() - nothing is read yet
 * @settings:  those in use, borrowed
 *
 * Return: 0, or a negative errno.
 */
int reload_new(sd_event *event, const Settings *settings, const ReloadCallbacks *callbacks,
               void *userdata, Reload **ret);
Reload *reload_free(Reload *reload);

/**
 * reload_start() - read the files, ask Postfix; a callback follows, never from within this call
 *
 * If a reload runs already, another follows it. A reload that has failed is repeated every
 * RELOAD_RETRY_USEC.
 */
void reload_start(Reload *reload);

/** reload_running() - does a reload run, or begin at once? Not while the next attempt is waited
 * for. */
bool reload_running(const Reload *reload);

/** reload_in_vain() - did the last reload fail for a reason that has not changed since? */
bool reload_in_vain(const Reload *reload);

#define RELOAD_RETRY_USEC (2 * USEC_PER_SEC)
