/* SPDX-License-Identifier: MIT */

#include "daemon/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "util/timer.h"
#include "util/util.h"

#define MESSAGE_SIZE    512
#define PINGS           3u /* in each WatchdogSec=: two may be lost */
#define READY_MSEC      100u
#define READY_USEC      (READY_MSEC * USEC_PER_MSEC) /* before it is told again */
#define ABSTRACT_PREFIX '@'

/* Return: 0, -EAGAIN (it is full), or another negative errno. */
static int put(const Notify *n, const char *message) {
        if (n->fd < 0)
                return 0;
        return sendto(n->fd, message, strlen(message), MSG_DONTWAIT | MSG_NOSIGNAL,
                      (const struct sockaddr *) &n->address, n->address_size) < 0
                       ? -errno
                       : 0;
}

void notify_send(const Notify *n, const char *format, ...) {
        char message[MESSAGE_SIZE];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(message, sizeof message, format, ap);
        va_end(ap);
        (void) put(n, message);
}

static void arm(Notify *n) {
        uint64_t usec = n->ready_untold ? READY_USEC : n->watchdog_usec;

        if (usec == 0)
                return;
        timer_arm(n->timer, usec);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        Notify *n = userdata;

        if (n->ready_untold)
                n->ready_untold = put(n, "READY=1") < 0;
        if (n->watchdog_usec > 0)
                (void) put(n, "WATCHDOG=1");
        arm(n);
        return 0;
}

void notify_ready(Notify *n) {
        n->ready_untold = put(n, "READY=1") < 0;
        arm(n);
}

static int set_address(Notify *n, const char *path) {
        size_t length = strlen(path);

        if ((path[0] != '/' && path[0] != ABSTRACT_PREFIX) || length >= sizeof n->address.sun_path)
                return -EINVAL;
        n->address.sun_family = AF_UNIX;
        memcpy(n->address.sun_path, path, length);
        if (path[0] == ABSTRACT_PREFIX)
                n->address.sun_path[0] = '\0';
        n->address_size = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length);
        return 0;
}

int notify_init(Notify *n, sd_event *event) {
        const char *path = getenv("NOTIFY_SOCKET");
        uint64_t watchdog_usec = 0;
        int r;

        *n = (Notify){.fd = -EBADF};
        if (!path)
                return 0;
        r = set_address(n, path);
        if (r == 0)
                r = timer_new(event, 0, on_timer, n, &n->timer);
        if (r >= 0) {
                n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
                r = RET_NERRNO(n->fd);
        }
        if (r < 0)
                return r;
        if (sd_watchdog_enabled(false, &watchdog_usec) > 0)
                n->watchdog_usec = watchdog_usec / PINGS;
        arm(n);
        return 0;
}

void notify_done(Notify *n) {
        sd_event_source_disable_unref(n->timer);
        closep(&n->fd);
}
