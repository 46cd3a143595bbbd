/* SPDX-License-Identifier: MIT */
#pragma once

/* What postconf(1) prints. It costs more than all else when fflushd starts, and waits for as long
 * as main.cf is being edited, so its output is kept for the next start. */

#include <stdbool.h>
#include <systemd/sd-event.h>

/* Borrowed strings, which have to stay until there is an answer. */
typedef struct PostconfQuery {
        const char **argv;     /* absolute path and arguments, ends in NULL */
        const char *main_cf;   /* the file it reads */
        const char *directory; /* where its output is kept, in a file "postconf"; NULL: nowhere */
} PostconfQuery;

/**
 * postconf_kept() - what it printed last time, for the same command, program and host
 * @ret_output:   receives it, to be freed
 * @ret_current:  receives false if main.cf (inode, size, times) is not what it was then
 *
 * A file that was cut short or damaged, as by a loss of power, is none: it ends in a checksum.
 *
 * Return: 0, or a negative errno: there is nothing of use.
 */
int postconf_kept(const PostconfQuery *q, char **ret_output, bool *ret_current);

/**
 * postconf_ask() - have postconf(1)'s answer, and wait for it
 * @ret_output:   receives what it has printed, now or last time if it is current; to be freed
 * @ret_problem:  receives in words why there is no output, to be freed
 *
 * Failing to keep the output for the next start is not an error.
 *
 * Return: 0, -ENODATA or -ETIMEDOUT (both with @ret_problem), or -ENOMEM.
 */
int postconf_ask(const PostconfQuery *q, char **ret_output, char **ret_problem);

typedef struct Postconf Postconf;

/**
 * postconf_done_t - called once, when it has ended
 * @r:        0, -ENODATA or -ETIMEDOUT (both with @problem), or -ENOMEM
 * @output:   may be changed; like @problem, valid during the call only
 */
typedef void (*postconf_done_t)(int r, char *output, const char *problem, void *userdata);

/**
 * postconf_start() - the same without waiting, and whatever was kept
 * @ret:  postconf_free() it from @done or later
 *
 * Return: 0, or a negative errno.
 */
int postconf_start(sd_event *event, const PostconfQuery *q, postconf_done_t done, void *userdata,
                   Postconf **ret);

/** postconf_free() - forget it; one that still runs is killed. Returns NULL. */
Postconf *postconf_free(Postconf *p);
