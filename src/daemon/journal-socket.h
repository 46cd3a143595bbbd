/* SPDX-License-Identifier: MIT */
#pragma once

/* Takes entries to journald without waiting for it. What is in an entry is the caller's business
 * (journal). */

#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#define JOURNAL_SOCKET_WAITING_MAX                                                                 \
        (1024u * 1024)                 /* bytes of entries that journald has not taken yet */
#define JOURNAL_SOCKET_CLOSE_MSEC 1000 /* for it to take them at the end */

/**
 * journal_socket_open() - get ready; journald need not be there yet
 * @calm:  called when journald has taken all entries that waited
 */
void journal_socket_open(void (*calm)(void));

/**
 * journal_socket_attach() - have what waits sent from this loop, as soon as there is room
 * @event:  borrowed until the next call; NULL: what waits is sent when the next entry comes
 */
void journal_socket_attach(sd_event *event);

/**
 * journal_socket_put() - send an entry, or queue it after those that wait
 * @entry:  in the journal's native protocol, without file descriptors; copied
 *
 * Return: true, or false: it is lost, since too much waits or memory is short.
 * Source: systemd.io/JOURNAL_NATIVE_PROTOCOL. sd_journal_sendv(3) speaks the same protocol, but
 *         blocks while journald is stopped or slow.
 */
bool journal_socket_put(const char *entry, size_t n);

/** journal_socket_is_calm() - do the waiting entries take less than half of
 * JOURNAL_SOCKET_WAITING_MAX? */
bool journal_socket_is_calm(void);

/** journal_socket_close() - give journald JOURNAL_SOCKET_CLOSE_MSEC for what waits; the rest is
 * lost */
void journal_socket_close(void);
