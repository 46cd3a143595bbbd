/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl on another host, as a child ssh(1), and what it prints. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define REMOTE_SSH_FAILED 255 /* exit status of ssh(1): its own failure, as no connection */

typedef enum RemoteOutput { REMOTE_STDOUT, REMOTE_STDERR, _REMOTE_OUTPUT_MAX } RemoteOutput;

/* Called with @n bytes as they come. */
typedef void (*remote_read_t)(RemoteOutput output, const char *bytes, size_t n, void *userdata);

#define REMOTE_CHUNK 4096u /* the most at once */

typedef struct Remote {
        pid_t pid;                   /* 0: not started, or its end has been seen */
        int fds[_REMOTE_OUTPUT_MAX]; /* negative: it has ended */
        remote_read_t read;
        void *userdata;
} Remote;

/**
 * remote_start() - run ssh(1)
 * @ssh_options:  of it, ends in NULL
 * @variable:     NULL, or "NAME=VALUE" for the environment of fflushctl
 * @words:        its options and arguments, @n of them, for the shell to pass on as they are
 * @input:        standard input, or negative: that of this process
 *
 * Return: 0, -ENOENT (there is no ssh(1)), or another negative errno.
 */
int remote_start(Remote *r, const char *const ssh_options[], const char *host, const char *variable,
                 char *const words[], size_t n, int input);

/**
 * remote_relay() - wait until one of them prints something or ends, and have it read
 * @remotes:  @n of them, some of which may have ended
 *
 * If this process is interrupted or ended, so are they: once, so that what they have said by then
 * can be shown. A second time it ends as ever.
 *
 * Return: 0, or a negative errno.
 */
int remote_relay(Remote *const remotes[], size_t n);

/** remote_has_ended() - has it closed both outputs? */
bool remote_has_ended(const Remote *r);

/** remote_wait() - Return: its exit status, or 128 + the signal that has ended it. */
int remote_wait(Remote *r);

/** remote_was_interrupted() - the signal that this process has got and passed on; 0: none */
int remote_was_interrupted(void);

/** remote_end_as_interrupted() - end this process by that signal, if there was one: a shell then
 * ends the loop that it is in, too */
void remote_end_as_interrupted(void);

/** remote_done() - close what is open; ends it if it is still there */
void remote_done(Remote *r);
