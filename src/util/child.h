/* SPDX-License-Identifier: MIT */
#pragma once

/* One of Postfix's commands as a child process: input in, output out, without blocking. */

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

/* Standard output and standard error, each. A command that prints more is ended (SIGXFSZ). The same
 * limit holds for files that it writes; those that are run here write none, or small ones. */
#define CHILD_OUTPUT_MAX_MIB 8
#define CHILD_OUTPUT_MAX     (CHILD_OUTPUT_MAX_MIB * 1024 * 1024)

#define CHILD_FDS            4u /* that each has open: three files, and its end to be waited for */

typedef struct Child Child;

typedef struct ChildResult {
        int status;   /* exit status, 128 + signal number, or 127: its output could not be read */
        char *output; /* standard output, ends in NUL, or NULL; belongs to the Child */
        char *errors; /* standard error, likewise */
        int error;    /* why its output could not be read: -EFBIG (too long), ...; 0 if it can */
} ChildResult;

/**
 * child_done_t - called once, when the command has ended
 * @result:  valid during the call only
 */
typedef void (*child_done_t)(Child *child, const ChildResult *result, void *userdata);

/**
 * child_start() - run a command
 * @event:         the loop that tells of its end; SIGCHLD must be blocked
 * @argv:          absolute path and arguments, ends in NULL
 * @input:         its standard input, @n_input bytes
 * @timeout_usec:  after this time it is killed, and has ended with status 128 + SIGKILL
 * @ret:           receives the child; child_free() it from @done or later
 *
 * The environment is reduced to what Postfix's commands use, and it is in a process group of its
 * own: Ctrl-C does not end it half-way.
 *
 * Return: 0, -ENOENT or -EACCES (there is no such program, or not for us), or another negative
 *         errno.
 */
int child_start(sd_event *event, const char *const argv[], const char *input, size_t n_input,
                uint64_t timeout_usec, child_done_t done, void *userdata, Child **ret);

/** child_free() - forget the child; one that still runs is killed. Returns NULL. */
Child *child_free(Child *child);

/**
 * child_run() - run a command and wait for it; only for use before the daemon serves
 * @ret:  receives the result; free its output and errors
 *
 * Return: 0, -EFBIG (its output is longer than CHILD_OUTPUT_MAX), or as child_start().
 */
int child_run(const char *const argv[], uint64_t timeout_usec, ChildResult *ret);
