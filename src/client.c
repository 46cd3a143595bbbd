/* SPDX-License-Identifier: MIT */

#include "client.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "util.h"

#define REQUEST_OVERHEAD 128u

int client_connect(const char *path) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int pin_fd = -EBADF, fd = -EBADF;

        /* By way of /proc, as a path may be longer than a socket address holds. */
        pin_fd = open(path, O_PATH | O_CLOEXEC);
        if (pin_fd < 0)
                return -errno;
        (void) snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d", pin_fd);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) &sa, sizeof sa) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static int send_all(int fd, const char *bytes, size_t n) {
        while (n > 0) {
                ssize_t w = send(fd, bytes, n, MSG_NOSIGNAL);

                if (w < 0)
                        return -errno;
                bytes += w;
                n -= (size_t) w;
        }
        return 0;
}

static int send_request(int fd, const Request *request) {
        size_t size = REQUEST_OVERHEAD + (request->site ? strlen(request->site) : 0) +
                      (request->queue_id ? strlen(request->queue_id) : 0);
        _cleanup_free_ char *bytes = malloc(size);

        if (!bytes)
                return -ENOMEM;
        return send_all(fd, bytes, request_encode(request, bytes, size));
}

static int wait_readable(int fd, uint64_t until_usec) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int timeout_ms = -1, r;

        if (until_usec != USEC_INFINITY) {
                uint64_t now = now_usec();
                uint64_t ms = until_usec > now ? (until_usec - now) / USEC_PER_MSEC + 1 : 0;

                timeout_ms = ms < INT_MAX ? (int) ms : INT_MAX;
        }
        do
                r = poll(&p, 1, timeout_ms);
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return -errno;
        return r == 0 ? -ETIMEDOUT : 0;
}

static uint64_t until(uint64_t timeout_usec) {
        return timeout_usec > 0 ? now_usec() + timeout_usec : USEC_INFINITY;
}

/* Return: how many bytes, 0 at the end, or a negative errno. */
static ssize_t receive(int fd, char *buf, size_t size, uint64_t until_usec) {
        ssize_t n;
        int r;

        r = wait_readable(fd, until_usec);
        if (r < 0)
                return r;
        n = recv(fd, buf, size, 0);
        return n < 0 ? -errno : n;
}

static int read_reply(int fd, AttrReader *in, uint64_t until_usec, RequestStatus *ret,
                      RequestCounts *ret_counts, bool *ret_has_counts) {
        for (;;) {
                size_t size;
                char *space;
                ssize_t n;
                int r;

                r = attr_reader_space(in, &space, &size);
                if (r < 0)
                        return r == -EMSGSIZE ? -EBADMSG : r;
                n = receive(fd, space, size, until_usec);
                if (n < 0)
                        return (int) n;
                attr_reader_commit(in, (size_t) n);
                r = request_decode_reply(in, ret, ret_counts, ret_has_counts);
                if (r != 0)
                        return r < 0 ? r : 0;
                if (n == 0)
                        return -ECONNRESET;
        }
}

int client_ask(int fd, const Request *request, uint64_t timeout_usec, RequestStatus *ret,
               RequestCounts *ret_counts, bool *ret_has_counts) {
        uint64_t until_usec = until(timeout_usec);
        AttrReader in = {0};
        int r, sent;

        /* A server of either dialect takes the request before its announcement has been read. If
         * it refuses while we still send, its reply says why. */
        sent = send_request(fd, request);
        r = read_reply(fd, &in, until_usec, ret, ret_counts, ret_has_counts);
        attr_reader_free(&in);
        return r < 0 && sent < 0 ? sent : r;
}

int client_wait(int fd, uint64_t timeout_usec) {
        uint64_t until_usec = until(timeout_usec);
        char waste[64];
        ssize_t n;

        do
                n = receive(fd, waste, sizeof waste, until_usec);
        while (n > 0);
        return n == -ECONNRESET ? 0 : (int) n;
}
