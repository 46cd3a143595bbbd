/* SPDX-License-Identifier: MIT */
#pragma once

/* The way of an entry to journald, without waiting; what is in an entry is the caller's (log). */

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#define JOURNAL_SOCKET_WAITING_MAX                                                                 \
        (1024u * 1024)                 /* bytes of entries that journald has not taken yet */
#define JOURNAL_SOCKET_CLOSE_MSEC 1000 /* for it to take them at the end */

/**
 * journal_socket_open() - get ready; journald need not be there yet
 * @calm:  called when all that had to wait has been taken
 */
void journal_socket_open(void (*calm)(void));

/**
 * journal_socket_attach() - have what waits sent from this loop, as soon as there is room
 * @event:  borrowed until the next call; NULL: what waits is sent when the next entry comes
 */
void journal_socket_attach(sd_event *event);

/**
 * journal_socket_put() - send an entry, or have it wait behind those that do
 * @entry:  in the journal's native protocol, without file descriptors; copied
 *
 * Return: true, or false: it is lost, as too much waits or there is no memory.
 * Source: systemd.io/JOURNAL_NATIVE_PROTOCOL. sd_journal_sendv(3) speaks it as well, but waits for
 *         a journald that is stopped or slow, for as long as that is so, and cannot be told not to.
 */
bool journal_socket_put(const char *entry, size_t n);

/** journal_socket_is_calm() - does less wait than half of what may? */
bool journal_socket_is_calm(void);

/** journal_socket_close() - give journald JOURNAL_SOCKET_CLOSE_MSEC for what waits; the rest is
 * lost */
void journal_socket_close(void);
