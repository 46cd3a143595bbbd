/* SPDX-License-Identifier: MIT */
#pragma once

/* The configuration, read anew while the daemon serves with the one that it has. */

#include "core/settings.h"

typedef struct Reload Reload;

typedef struct ReloadCallbacks {
        /* Settings as whole as those so far, or more: they take their place. They stay until the
         * next ones are taken. Return: 0, or a negative errno: not taken, for a reason that is
         * told; -ECANCELED: nor will any others be. */
        int (*take)(const Settings *settings, void *userdata);
        /* There are none. @settings: what there is, with its problems, or NULL; @error: if that is
         * not all, or 0; @in_vain: it is no use to wait until somebody has done something. */
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
 * If that is being done already, it is done once more after it. When it fails it is tried again,
 * every RELOAD_RETRY_USEC.
 */
void reload_start(Reload *reload);

/** reload_running() - is it being done, or about to be? Retries do not count until they begin. */
bool reload_running(const Reload *reload);

/** reload_in_vain() - has it failed, for a reason that has not changed since? */
bool reload_in_vain(const Reload *reload);

#define RELOAD_RETRY_USEC (2 * USEC_PER_SEC)
