/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): following messages until each has left the queue or is deferred again, and
 * Postfix's log meanwhile. What became of them is ctl-report's. */

#include <stdbool.h>

#include "ctl/ctl.h"
#include "ctl/follow.h"
#include "ctl/outcome.h"

typedef struct CtlWait {
        Follow follow;
        Maillog *log;
        Outcomes *outcomes;
        char *maillog_file; /* of Postfix's, or NULL */
} CtlWait;

#define CTL_WAIT_INIT                                                                              \
        {                                                                                          \
                .follow = {.fd = -EBADF }                                                          \
        }

/** ctl_wait_begin() - before anything is moved; ctl_wait_done() in any case */
int ctl_wait_begin(Ctl *ctl, CtlWait *w);
void ctl_wait_done(CtlWait *w);

/** ctl_wait_add() - follow this message, if the request is going to move it; as follow_add() */
int ctl_wait_add(CtlWait *w, const char *id, unsigned group);

/** ctl_wait_join() - as follow_join(), with a message for trouble
 * @ret_joined:  is it on its way?
 */
int ctl_wait_join(CtlWait *w, const char *id, unsigned group, bool *ret_joined);

/** ctl_wait_moved() - how many of the messages have been moved so far */
unsigned long ctl_wait_moved(const CtlWait *w);

/** ctl_wait_catch() - let SIGINT end the waiting, not the process; a second one does */
void ctl_wait_catch(void);
bool ctl_wait_interrupted(void);

/** ctl_wait_pause() - take in what has happened, and what happens for @usec, or until SIGINT;
 * Return: an exit status. */
int ctl_wait_pause(Ctl *ctl, CtlWait *w, uint64_t usec);

/**
 * ctl_wait_end() - wait until no message is on its way, and a little longer for what the log still
 *                  has to tell
 * @all_moved:  no message could not be moved
 *
 * While Postfix is stopped this says so and does not wait.
 *
 * Return: EX_OK, or EX_TEMPFAIL (the waiting ended early, by --timeout or SIGINT, or with a message
 *         for trouble).
 */
int ctl_wait_end(Ctl *ctl, CtlWait *w, bool all_moved);

/** ctl_warn_stopped() - say that Postfix is not running, if that is so; Return: that. */
bool ctl_warn_stopped(const Ctl *ctl);
