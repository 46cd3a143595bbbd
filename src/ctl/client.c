/* SPDX-License-Identifier: MIT */

#include "ctl/client.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "util/util.h"

/* connect(2) to a Unix socket with a full backlog waits for SO_SNDTIMEO, and then fails with
 * EAGAIN. */
static int limit_writes(int fd, uint64_t timeout_usec) {
        const struct timeval limit = {.tv_sec = (time_t) (timeout_usec / USEC_PER_SEC),
                                      .tv_usec = (suseconds_t) (timeout_usec % USEC_PER_SEC)};

        return RET_NERRNO(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
}

static int write_error(void) {
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
}

/* By way of /proc, as a path may be longer than a socket address holds. Return: a descriptor, to be
 * open as long as @ret is used, or a negative errno. */
static int find_address(const char *path, struct sockaddr_un *ret) {
        int pin_fd = open(path, O_PATH | O_CLOEXEC);

        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        if (pin_fd < 0)
                return -errno;
        (void) snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d", pin_fd);
        return pin_fd;
}

int client_connect(const char *path, uint64_t timeout_usec) {
        _cleanup_close_ int pin_fd = -EBADF, fd = -EBADF;
        struct sockaddr_un sa;
        int r;

        pin_fd = find_address(path, &sa);
        if (pin_fd < 0)
                return pin_fd;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        r = limit_writes(fd, timeout_usec);
        if (r < 0)
                return r;
        if (connect(fd, (const struct sockaddr *) &sa, sizeof sa) < 0)
                return write_error();
        return TAKE_FD(fd);
}

/* A socket of another type is refused, before which the kernel has looked who has this one. */
int client_is_bound(const char *path) {
        _cleanup_close_ int pin_fd = -EBADF, fd = -EBADF;
        struct sockaddr_un sa;

        pin_fd = find_address(path, &sa);
        if (pin_fd < 0)
                return pin_fd == -ENOENT ? 0 : pin_fd;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) &sa, sizeof sa) == 0 || errno == EPROTOTYPE)
                return 1;
        return errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
}

int client_find_listener(const char *path, uint64_t timeout_usec) {
        struct ucred peer;
        socklen_t n = sizeof peer;
        _cleanup_close_ int fd = client_connect(path, timeout_usec);

        if (fd < 0)
                return fd;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
                return -errno;
        return (int) peer.pid;
}

int client_find_label(const char *path, uint64_t timeout_usec, char *ret, size_t size) {
        socklen_t n = (socklen_t) size - 1;
        _cleanup_close_ int fd = client_connect(path, timeout_usec);

        if (fd < 0)
                return fd;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERSEC, ret, &n) < 0)
                return -errno;
        ret[n] = '\0';
        return 0;
}

static int send_all(int fd, const char *bytes, size_t n) {
        while (n > 0) {
                ssize_t w = send(fd, bytes, n, MSG_NOSIGNAL);

                if (w < 0)
                        return write_error();
                bytes += w;
                n -= (size_t) w;
        }
        return 0;
}

static int send_request(int fd, const Request *request) {
        size_t size = REQUEST_OVERHEAD + (request->site ? strlen(request->site) : 0) +
                      (request->queue_id ? strlen(request->queue_id) : 0) +
                      (request->reason ? strlen(request->reason) : 0);
        _cleanup_free_ char *bytes = malloc(size);

        if (!bytes)
                return -ENOMEM;
        return send_all(fd, bytes, request_encode(request, bytes, size));
}

/* A ClientWait that has begun. */
typedef struct Waiting {
        uint64_t until_usec; /* USEC_INFINITY: for ever */
        const ClientWait *wait;
} Waiting;

static uint64_t until(uint64_t timeout_usec) {
        return timeout_usec > 0 ? now_usec() + timeout_usec : USEC_INFINITY;
}

static Waiting begin_waiting(const ClientWait *wait) {
        return (Waiting){.until_usec = until(wait->timeout_usec), .wait = wait};
}

/* Return: how long it is until then, as a timeout: 0 for ever. */
static uint64_t rest_of(uint64_t until_usec) {
        uint64_t now = now_usec();

        return until_usec == USEC_INFINITY ? 0 : until_usec > now ? until_usec - now : 1;
}

static int milliseconds(uint64_t now, uint64_t until_usec) {
        uint64_t ms = until_usec > now ? (until_usec - now) / USEC_PER_MSEC + 1 : 0;

        return until_usec == USEC_INFINITY ? -1 : ms < INT_MAX ? (int) ms : INT_MAX;
}

/* Return: 0, -ETIMEDOUT, or another negative errno. */
static int wait_for(struct pollfd *fds, nfds_t n, const Waiting *w) {
        uint64_t until_usec = w->until_usec, start = now_usec(), now = start, next;
        int r;

        for (;;) {
                next = w->wait->progress ? now + USEC_PER_SEC : USEC_INFINITY;
                r = poll(fds, n, milliseconds(now, next < until_usec ? next : until_usec));
                if (r > 0)
                        return 0;
                if (r < 0 && errno != EINTR)
                        return -errno;
                now = now_usec();
                if (now >= until_usec)
                        return -ETIMEDOUT;
                if (r == 0 && w->wait->progress)
                        w->wait->progress(now - start, w->wait->userdata);
        }
}

/* Return: how many bytes, 0 at the end, or a negative errno. */
static ssize_t receive(int fd, char *buf, size_t size, const Waiting *w) {
        ssize_t n;
        int r;

        r = wait_for(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, w);
        if (r < 0)
                return r;
        n = recv(fd, buf, size, 0);
        return n < 0 ? -errno : n;
}

/* What a reply is read into: counts or findings. */
typedef struct Reply {
        RequestStatus *status;
        RequestCounts *counts;
        bool *has_counts;
        TestFindings *findings; /* NULL: counts */
} Reply;

static int read_any(int fd, AttrReader *in, const Waiting *w, const Reply *ret) {
        for (;;) {
                size_t size;
                char *space;
                ssize_t n;
                int r;

                r = ret->findings
                            ? request_decode_findings(in, ret->status, ret->findings)
                            : request_decode_reply(in, ret->status, ret->counts, ret->has_counts);
                if (r != 0)
                        return r < 0 ? r : 0;
                r = attr_reader_space(in, &space, &size);
                if (r < 0)
                        return r == -EMSGSIZE ? -EBADMSG : r;
                n = receive(fd, space, size, w);
                if (n <= 0)
                        return n < 0 ? (int) n : -ECONNRESET;
                attr_reader_commit(in, (size_t) n);
        }
}

static int read_reply(int fd, AttrReader *in, const Waiting *w, RequestStatus *ret,
                      RequestCounts *ret_counts, bool *ret_has_counts) {
        return read_any(
                fd, in, w,
                &(Reply){.status = ret, .counts = ret_counts, .has_counts = ret_has_counts});
}

int client_self_test(int fd, uint64_t timeout_usec, RequestStatus *ret,
                     TestFindings *ret_findings) {
        const Request request = {.kind = REQUEST_SELF_TEST};
        const Waiting w = begin_waiting(&(ClientWait){.timeout_usec = timeout_usec});
        AttrReader in = {0};
        int r, sent;

        sent = send_request(fd, &request);
        r = read_any(fd, &in, &w, &(Reply){.status = ret, .findings = ret_findings});
        attr_reader_done(&in);
        return r < 0 && sent < 0 ? sent : r;
}

int client_ask(int fd, const Request *request, const ClientWait *wait, RequestStatus *ret,
               RequestCounts *ret_counts, bool *ret_has_counts) {
        Waiting w = begin_waiting(wait);
        AttrReader in = {0};
        int r, sent;

        /* flush(8) and fflushd both take the request before their announcement has been read. If
         * the server refuses while the request is being sent, its reply has the reason. */
        sent = send_request(fd, request);
        r = read_reply(fd, &in, &w, ret, ret_counts, ret_has_counts);
        attr_reader_done(&in);
        return r < 0 && sent < 0 ? sent : r;
}

/* Until the server hangs up. Return: 0, -ETIMEDOUT, or another negative errno. */
static int wait_for_end(int fd, const Waiting *w) {
        char waste[64];
        ssize_t n;

        do
                n = receive(fd, waste, sizeof waste, w);
        while (n > 0);
        return n == -ECONNRESET ? 0 : (int) n;
}

static int ask_for_work(int fd, const Request *request, const Waiting *w, RequestStatus *ret,
                        RequestCounts *ret_counts, bool *ret_has_counts) {
        AttrReader in = {0};
        int r, sent;

        sent = send_request(fd, request);
        r = read_reply(fd, &in, w, ret, ret_counts, ret_has_counts);
        if (r < 0 && sent < 0)
                r = sent;
        if (r == 0 && *ret == REQUEST_OK)
                r = request->detail ? read_reply(fd, &in, w, ret, ret_counts, ret_has_counts)
                                    : wait_for_end(fd, w);
        attr_reader_done(&in);
        return r;
}

int client_work(int fd, const char *path, const Request *request, const ClientWait *wait,
                RequestStatus *ret, RequestCounts *ret_counts, bool *ret_has_counts) {
        Waiting w = begin_waiting(wait);
        _cleanup_close_ int again_fd = -EBADF;
        Request plain = {.kind = request->kind};
        int r;

        *ret = REQUEST_BAD;
        r = ask_for_work(fd, request, &w, ret, ret_counts, ret_has_counts);
        if (*ret != REQUEST_BAD || (r < 0 && r != -ECONNRESET && r != -EPIPE))
                return r;
        again_fd = client_connect(path, rest_of(w.until_usec));
        return again_fd < 0 ? again_fd
                            : ask_for_work(again_fd, &plain, &w, ret, ret_counts, ret_has_counts);
}

/* ---------------------------------------------------------------------------- many at once */

typedef struct Exchange {
        bool busy;
        void *item;
        uint64_t until_usec;
        AttrReader in;
} Exchange;

typedef struct Batch {
        const ClientBatch *batch;
        Exchange exchanges[CLIENT_CONNECTIONS];
        struct pollfd fds[CLIENT_CONNECTIONS]; /* fd is negative where none is busy */
        unsigned n_busy;
        bool more;
        int error;
} Batch;

static void finish(Batch *b, size_t i, const ClientAnswer *answer) {
        Exchange *e = &b->exchanges[i];

        closep(&b->fds[i].fd);
        b->fds[i].fd = -1;
        attr_reader_done(&e->in);
        e->in = (AttrReader){0};
        e->busy = false;
        b->n_busy--;
        b->batch->done(e->item, answer, b->batch->userdata);
}

static void begin(Batch *b, size_t i, const char *path, uint64_t timeout_usec) {
        Exchange *e = &b->exchanges[i];
        Request request;

        if (!b->batch->next(&request, &e->item, b->batch->userdata)) {
                b->more = false;
                return;
        }
        e->busy = true;
        b->n_busy++;
        e->until_usec = until(timeout_usec);
        b->fds[i] = (struct pollfd){.fd = client_connect(path, timeout_usec), .events = POLLIN};
        if (b->fds[i].fd < 0) {
                b->error = b->fds[i].fd;
                b->more = false;
                finish(b, i, &(ClientAnswer){.error = b->error});
                return;
        }
        /* If the server refuses while the request is being sent, its reply has the reason. */
        (void) send_request(b->fds[i].fd, &request);
}

/* Return: 1 (an answer, or trouble, in @ret), or 0 (more is needed). */
static int go_on(Exchange *e, int fd, ClientAnswer *ret) {
        size_t size;
        char *space;
        ssize_t n;
        int r;

        *ret = (ClientAnswer){0};
        r = attr_reader_space(&e->in, &space, &size);
        if (r < 0) {
                ret->error = r == -EMSGSIZE ? -EBADMSG : r;
                return 1;
        }
        n = recv(fd, space, size, MSG_DONTWAIT);
        if (n < 0) {
                ret->error = -errno;
                return errno != EAGAIN && errno != EINTR;
        }
        attr_reader_commit(&e->in, (size_t) n);
        r = request_decode_reply(&e->in, &ret->status, &ret->counts, &ret->has_counts);
        if (r == 0 && n == 0)
                r = -ECONNRESET;
        ret->error = r < 0 ? r : 0;
        return r != 0;
}

static int wait_any(Batch *b) {
        uint64_t first = USEC_INFINITY;
        int r;

        for (size_t i = 0; i < CLIENT_CONNECTIONS; i++)
                if (b->exchanges[i].busy && b->exchanges[i].until_usec < first)
                        first = b->exchanges[i].until_usec;
        r = wait_for(b->fds, CLIENT_CONNECTIONS,
                     &(Waiting){.until_usec = first, .wait = &(ClientWait){0}});
        return r == -ETIMEDOUT ? 0 : r;
}

static void work(Batch *b) {
        ClientAnswer answer;
        uint64_t now = now_usec();

        for (size_t i = 0; i < CLIENT_CONNECTIONS; i++) {
                Exchange *e = &b->exchanges[i];

                if (!e->busy)
                        continue;
                if (b->fds[i].revents != 0 && go_on(e, b->fds[i].fd, &answer))
                        finish(b, i, &answer);
                else if (now >= e->until_usec)
                        finish(b, i, &(ClientAnswer){.error = -ETIMEDOUT});
        }
}

int client_ask_all(const char *path, uint64_t timeout_usec, const ClientBatch *batch) {
        Batch b = {.batch = batch, .more = true};

        for (size_t i = 0; i < CLIENT_CONNECTIONS; i++)
                b.fds[i].fd = -1;
        for (;;) {
                int r;

                for (size_t i = 0; i < CLIENT_CONNECTIONS && b.more; i++)
                        if (!b.exchanges[i].busy)
                                begin(&b, i, path, timeout_usec);
                if (b.n_busy == 0 && !b.more)
                        return b.error;
                r = b.n_busy > 0 ? wait_any(&b) : 0;
                if (r < 0) {
                        b.error = r;
                        break;
                }
                work(&b);
        }
        for (size_t i = 0; i < CLIENT_CONNECTIONS; i++)
                if (b.exchanges[i].busy)
                        finish(&b, i, &(ClientAnswer){.error = b.error});
        return b.error;
}
