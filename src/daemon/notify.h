/* SPDX-License-Identifier: MIT */
#pragma once

/* What systemd is told (sd_notify(3)), and its watchdog; without waiting. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-event.h>

typedef struct Notify {
        int fd; /* negative: nobody wants to be told */
        struct sockaddr_un address;
        socklen_t address_size;
        sd_event_source *timer;
        uint64_t watchdog_usec; /* between two pings, or 0 */
        bool ready_untold;      /* READY=1 has not been taken yet */
} Notify;

/**
 * notify_init() - find out whom to tell, and ping the watchdog from the event loop
 *
 * In the place of sd_notify() and sd_event_set_watchdog(), which wait while the socket is full: of
 * a manager that is busy or stopped, and then for as long as it is. What is told here is lost then,
 * but for notify_ready().
 *
 * Return: 0, also if there is nobody to tell; -EINVAL ($NOTIFY_SOCKET is no address of a UNIX
 *         socket); or another negative errno.
 * Source: sd_notify(3), "Notes": the protocol is stable.
 */
int notify_init(Notify *n, sd_event *event);
void notify_done(Notify *n);

/** notify_send() - "STATUS=...", "STOPPING=1"; lost if it is not taken now */
void notify_send(const Notify *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** notify_ready() - READY=1, again and again until it is taken: a start waits for it */
void notify_ready(Notify *n);
