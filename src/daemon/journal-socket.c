/* SPDX-License-Identifier: MIT */

#include "daemon/journal-socket.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <utlist.h>

#include "util/util.h"

#define SOCKET_PATH "/run/systemd/journal/socket"

typedef struct Waiting {
        struct Waiting *prev, *next;
        size_t n;
        char entry[];
} Waiting;

static struct {
        int fd; /* connected, or negative */
        sd_event *event;
        sd_event_source *writable;
        Waiting *waiting; /* the oldest */
        size_t n_bytes;
        void (*calm)(void);
} journal = {.fd = -EBADF};

static bool send_waiting(void);

/* Connected, so that poll(2) knows whether journald has room. */
static int connect_journal(void) {
        const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET_PATH};
        _cleanup_close_ int fd = -EBADF;

        journal.writable = sd_event_source_disable_unref(journal.writable);
        closep(&journal.fd);
        journal.fd = -EBADF;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *) &address, sizeof address) < 0)
                return -errno;
        journal.fd = TAKE_FD(fd);
        return 0;
}

static int send_once(const char *entry, size_t n) {
        return send(journal.fd, entry, n, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Return: 0, -EAGAIN (there is no room), or another negative errno. */
static int send_entry(const char *entry, size_t n) {
        int r = journal.fd < 0 ? -ENOTCONN : send_once(entry, n);

        if (r != -ENOTCONN && r != -ECONNREFUSED)
                return r;
        r = connect_journal(); /* journald may have made another socket */
        return r < 0 ? r : send_once(entry, n);
}

static int on_writable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        if (send_waiting())
                journal.calm();
        return 0;
}

static void watch_journal(int error) {
        if (error == -EAGAIN && journal.event && journal.fd >= 0 && !journal.writable)
                (void) sd_event_add_io(journal.event, &journal.writable, journal.fd, EPOLLOUT,
                                       on_writable, NULL);
}

static void forget_entry(Waiting *w) {
        DL_DELETE(journal.waiting, w);
        journal.n_bytes -= sizeof *w + w->n;
        free(w);
}

/* Return: true if nothing waits any more. */
static bool send_waiting(void) {
        Waiting *w, *tmp;

        DL_FOREACH_SAFE (journal.waiting, w, tmp) {
                int r = send_entry(w->entry, w->n);

                if (r < 0) {
                        watch_journal(r);
                        return false;
                }
                forget_entry(w);
        }
        journal.writable = sd_event_source_disable_unref(journal.writable);
        return true;
}

static bool make_wait(const char *entry, size_t n) {
        size_t size = sizeof(Waiting) + n;
        Waiting *w = journal.n_bytes + size <= JOURNAL_SOCKET_WAITING_MAX ? malloc(size) : NULL;

        if (!w)
                return false;
        w->n = n;
        memcpy(w->entry, entry, n);
        DL_APPEND(journal.waiting, w);
        journal.n_bytes += size;
        return true;
}

bool journal_socket_put(const char *entry, size_t n) {
        int r = send_waiting() ? send_entry(entry, n) : -EAGAIN;

        if (r == 0)
                return true;
        watch_journal(r);
        return make_wait(entry, n);
}

bool journal_socket_is_calm(void) {
        return journal.n_bytes <= JOURNAL_SOCKET_WAITING_MAX / 2;
}

void journal_socket_open(void (*calm)(void)) {
        journal.calm = calm;
        (void) connect_journal(); /* if it is not there, the next entry tries again */
}

void journal_socket_attach(sd_event *event) {
        journal.writable = sd_event_source_disable_unref(journal.writable);
        journal.event = event;
        if (journal.waiting)
                watch_journal(-EAGAIN);
}

void journal_socket_close(void) {
        uint64_t end = now_usec() + JOURNAL_SOCKET_CLOSE_MSEC * USEC_PER_MSEC, now;
        Waiting *w, *tmp;

        journal_socket_attach(NULL);
        while (!send_waiting() && journal.fd >= 0 && (now = now_usec()) < end) {
                struct pollfd p = {.fd = journal.fd, .events = POLLOUT};

                (void) poll(&p, 1, (int) ((end - now) / USEC_PER_MSEC) + 1);
        }
        if (!journal.waiting && journal.calm)
                journal.calm();
        DL_FOREACH_SAFE (journal.waiting, w, tmp)
                forget_entry(w);
        closep(&journal.fd);
        journal.fd = -EBADF;
}
