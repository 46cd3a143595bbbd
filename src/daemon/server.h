/* SPDX-License-Identifier: MIT */
#pragma once

/* Listening sockets, connections, turns; when to stop. */

#include <systemd/sd-event.h>

#include "core/settings.h"

typedef struct Server Server;

/**
 * server_new() - serve the listening sockets that systemd passed
 * @event:       the loop that server_run() runs
 * @settings:    borrowed; its file and instance are read again when that is needed
 * @listen_fds:  listening stream sockets, non-blocking; borrowed
 *
 * Return: 0, or a negative errno.
 */
int server_new(sd_event *event, const Settings *settings, const int *listen_fds, unsigned n_fds,
               Server **ret);

/**
 * server_run() - serve until idle for max_idle, max_use requests are done, the queue directory is
 *                another one, or SIGTERM
 *
 * No accepted connection is dropped, and none is accepted on the way out: what is in the backlog
 * then makes systemd start the next daemon.
 *
 * Return: 0, or a negative errno (of the event loop).
 */
int server_run(Server *server);
Server *server_free(Server *server);
