/* SPDX-License-Identifier: MIT */
#pragma once

/* Messages to systemd (sd_notify(3)), and its watchdog, without waiting for it. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-event.h>

typedef struct Notify {
        int fd; /* negative: there is no manager to tell */
        struct sockaddr_un address;
        socklen_t address_size;
        sd_event_source *timer;
        uint64_t watchdog_usec; /* between two pings, or 0 */
        bool ready_untold;      /* READY=1 has not been accepted yet */
} Notify;

/**
 * notify_init() - find the manager's socket, and ping its watchdog from the event loop
 *
 * Used instead of sd_notify() and sd_event_set_watchdog(), which block while the socket is full, as
 * it is when the manager is busy or stopped. Here the message is lost then, except that of
 * notify_ready().
 *
 * Return: 0, also if there is no manager; -EINVAL ($NOTIFY_SOCKET is not the address of a UNIX
 *         socket); or another negative errno.
 * Source: sd_notify(3), "Notes": the protocol is stable.
 */
int notify_init(Notify *n, sd_event *event);
void notify_done(Notify *n);

/** notify_send() - "STATUS=...", "STOPPING=1"; lost if the socket is full */
void notify_send(const Notify *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** notify_ready() - READY=1, repeated until it is accepted, since the start of the unit waits for
 * it */
void notify_ready(Notify *n);
