/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): --wait. */

#include <stdbool.h>

#include "ctl/ctl.h"
#include "ctl/follow.h"

/** ctl_wait_begin() - before anything is moved; follow_done() in any case */
int ctl_wait_begin(Ctl *ctl, Follow *f);

/** ctl_wait_add() - follow this message, if the request is going to move it */
int ctl_wait_add(Follow *f, const char *id);

/**
 * ctl_wait_end() - wait, and say what became of the messages
 * @all_moved:  no message could not be moved
 *
 * Return: EX_OK (all have left), or EX_TEMPFAIL (some are deferred again, or the watching ended
 *         early, by --timeout or SIGINT).
 */
int ctl_wait_end(Ctl *ctl, Follow *f, bool all_moved);
