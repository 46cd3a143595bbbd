/* SPDX-License-Identifier: MIT */
#pragma once

/* The queue manager's wake-up: single bytes that make qmgr(8) look at its queues. */

#include <stddef.h>

#define QMGR_SCAN_INCOMING 'I'
#define QMGR_FLUSH_DEAD    'F' /* forget which destinations were unreachable */

/**
 * qmgr_trigger() - send one request to the queue manager
 * @queue_fd:  queue directory
 * @endpoint:  below it, a FIFO or stream socket; normally "public/qmgr"
 * @request:   QMGR_*
 *
 * Never blocks. Success means that the kernel has the byte, not that qmgr has acted on it. SIGPIPE
 * must be ignored.
 *
 * Return: 0, -ENOENT (no endpoint), -ENXIO (a FIFO nobody reads), -ECONNREFUSED (a socket nobody
 *         listens on), -EAGAIN (its backlog is full), -EPROTOTYPE (neither FIFO nor socket;
 *         symbolic links included), or another negative errno.
 * Source: spec 5.8. Unlike Postfix we do not wait for qmgr to hang up: Linux keeps what was
 *         written to a socket that is closed again.
 */
int qmgr_trigger(int queue_fd, const char *endpoint, char request);

/**
 * qmgr_probe() - would somebody hear it? Sends nothing.
 * Return: as qmgr_trigger().
 */
int qmgr_probe(int queue_fd, const char *endpoint);
