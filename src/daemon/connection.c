/* SPDX-License-Identifier: MIT */

#include "daemon/connection.h"

#include <assert.h>
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utlist.h>

#include "util/timer.h"
#include "util/util.h"

#define REQUESTS_MAX_MIB       16 /* of requests beyond ATTR_INLINE_SIZE, all connections together */
#define REQUESTS_MAX           ((size_t) REQUESTS_MAX_MIB * 1024 * 1024)
#define TRIM_MIN               (4u * 1024 * 1024) /* memory in use that is worth giving back at once */
#define FRESH_TRIES            3   /* to read from a new connection before it is watched */
#define FRESH_USEC             20u /* or more often, until the connection is this old */
#define DEADLINE_ACCURACY_USEC (10 * USEC_PER_MSEC)
#define LEAVE_USEC             (3 * USEC_PER_SEC) /* for requests to arrive whole: connections_hurry() */
#define LINGER_USEC            (1 * USEC_PER_SEC)
#define LINGER_MAX             (4u * 1024 * 1024) /* bytes read off a client that was refused */
#define LATE_USEC              (1 * USEC_PER_SEC) /* a timer this late shows that the process did not run */
#define HALF_LINES_MAX         10u                /* about half requests, in HALF_LINES_USEC */
#define HALF_LINES_USEC        (10 * USEC_PER_SEC)

typedef enum ConnectionState {
        CONNECTION_READING,
        CONNECTION_WORKING,   /* the service has its call */
        CONNECTION_LINGERING, /* refused; what it still sends is read, so that it sees why */
} ConnectionState;

typedef struct Connection {
        Call call; /* the first member: connection_of() */
        Connections *pool;
        int fd;
        ConnectionState state;
        bool watched; /* in the epoll set */
        bool announced;
        unsigned n_tries;
        uint64_t accepted_usec, read_usec;
        uint64_t linger_until_usec;
        size_t lingered;
        struct Connection *prev_open, *next_open;
        struct Connection *next_fresh;
        struct Connection *prev_long, *next_long; /* if @n_held is not 0 */
        size_t n_held;                            /* bytes allocated for its request */
        RequestDecoder decoder;
} Connection;

struct Connections {
        const ConnectionCallbacks *callbacks;
        void *userdata;
        const Settings *settings;
        int epoll_fd;
        sd_event_source *deadlines, *half_lines;
        Connection *open, *spare;
        unsigned n_open;
        Connection *fresh, *last_fresh; /* accepted in this turn, not watched yet */
        Connection *longs;              /* with a long request or a part of one, the oldest first */
        size_t n_held;                  /* bytes of all of them */
        size_t peak;                    /* of memory for connections, since it was given back */
        unsigned n_half_lines;          /* wanted about half requests, in this HALF_LINES_USEC */
        uint64_t hurry_usec;            /* connections_hurry(); USEC_INFINITY for never */
        uint64_t deadlines_usec;        /* when they are looked at, USEC_INFINITY for never */
};

static void connections_freep(Connections **pool) {
        connections_free(*pool);
}

static void refuse_connection(Connection *c, RequestStatus status, const char *why);
static void arm_deadlines(Connections *pool, uint64_t when);

/* ---------------------------------------------------------------------------------- one of them */

static Connection *connection_of(Call *call) {
        static_assert(offsetof(Connection, call) == 0, "a Call is a Connection");
        return (Connection *) (void *) call;
}

/* Gives back the memory of a flood of connections that is over. */
static void return_memory(Connections *pool) {
        size_t used = pool->n_held + pool->n_open * sizeof(Connection);

        if (used > pool->peak)
                pool->peak = used;
        else if (pool->peak > TRIM_MIN && used < pool->peak / 4) {
                (void) malloc_trim(0);
                pool->peak = used;
        }
}

/* After anything that may change how much memory the request takes. */
static void account_memory(Connection *c) {
        Connections *pool = c->pool;
        size_t n = request_decoder_held(&c->decoder);

        if (n == c->n_held)
                return;
        if (c->n_held == 0)
                DL_APPEND2(pool->longs, c, prev_long, next_long);
        else if (n == 0)
                DL_DELETE2(pool->longs, c, prev_long, next_long);
        pool->n_held = pool->n_held - c->n_held + n;
        c->n_held = n;
        return_memory(pool);
}

/* One spare is kept: a client that comes again and again costs no allocation. */
static void close_connection(Connection *c) {
        Connections *pool = c->pool;

        DL_DELETE2(pool->open, c, prev_open, next_open);
        pool->n_open--;
        closep(&c->fd); /* takes it out of the epoll set as well */
        request_decoder_done(&c->decoder);
        account_memory(c);
        return_memory(pool);
        if (pool->spare)
                free(c);
        else
                pool->spare = c;
        pool->callbacks->closed(pool->userdata);
}

bool connections_have_spare(Connections *pool) {
        if (!pool->spare)
                pool->spare = malloc(sizeof *pool->spare);
        return pool->spare;
}

static Connection *open_connection(Connections *pool, int fd) {
        Connection *c = TAKE_PTR(pool->spare);

        memset(c, 0, sizeof *c);
        c->pool = pool;
        c->fd = fd;
        c->accepted_usec = c->read_usec = now_usec();
        DL_APPEND2(pool->open, c, prev_open, next_open);
        pool->n_open++;
        return c;
}

/* One event, and then silence until it is watched again: a client that hangs up while its request
 * is worked on does not wake the service over and over. */
static int watch_connection(Connection *c) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = c};
        int op = c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        int r = RET_NERRNO(epoll_ctl(c->pool->epoll_fd, op, c->fd, &e));

        c->watched |= r == 0;
        return r;
}

static void rearm(Connection *c) {
        int r = watch_connection(c);

        if (r < 0 && c->state == CONNECTION_READING)
                refuse_connection(c, REQUEST_FAIL, "the kernel cannot watch it");
        else if (r < 0)
                close_connection(c);
}

/* A socket that has taken less than its buffer holds takes these few bytes, or its peer is gone:
 * either way there is nothing to wait for, so a client that never reads costs nothing. */
static int send_bytes(const Connection *c, const char *bytes, size_t n) {
        return send(c->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void reply_findings(Call *call) {
        char bytes[REQUEST_FINDINGS_SIZE];
        size_t n = request_encode_findings(call->status, call->findings, bytes);

        (void) send_bytes(connection_of(call), bytes, n);
}

void connection_reply(Call *call) {
        char bytes[REQUEST_REPLY_SIZE];
        const RequestCounts *counts = NULL;
        size_t n;

        if (call->findings) {
                reply_findings(call);
                return;
        }
        if (call->request.detail && call->has_counts)
                counts = &call->counts;
        n = request_encode_reply(call->status, counts, bytes);
        (void) send_bytes(connection_of(call), bytes, n);
}

static void begin_to_linger(Connection *c) {
        c->state = CONNECTION_LINGERING;
        request_decoder_done(&c->decoder);
        account_memory(c);
        c->linger_until_usec = now_usec() + LINGER_USEC;
        arm_deadlines(c->pool, c->linger_until_usec);
        (void) shutdown(c->fd, SHUT_WR);
        rearm(c);
}

void connection_finish(Call *call) {
        Connection *c = connection_of(call);

        if (call->status == REQUEST_BAD)
                begin_to_linger(c);
        else
                close_connection(c);
}

void connection_identify(Call *call) {
        struct ucred cred = {.pid = 0};
        socklen_t size = sizeof cred;

        (void) getsockopt(connection_of(call)->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size);
        call->caller = (JournalCaller){.pid = cred.pid, .uid = cred.uid};
}

void *connection_userdata(const Call *call) {
        return ((const Connection *) (const void *) call)->pool->userdata;
}

static void refuse_connection(Connection *c, RequestStatus status, const char *why) {
        c->state = CONNECTION_WORKING;
        c->pool->callbacks->refuse(&c->call, status, why, attr_reader_string(&c->decoder.in, 0),
                                   request_decoder_seen(&c->decoder), c->pool->userdata);
}

/* Reads what has arrived, at most one buffer. Return: 1, 0 (end), or a negative errno. */
static int read_some(Connection *c) {
        size_t n_space;
        char *space;
        ssize_t n;
        int r;

        r = attr_reader_space(&c->decoder.in, &space, &n_space);
        account_memory(c);
        if (r < 0)
                return r;
        n = recv(c->fd, space, n_space, MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        attr_reader_commit(&c->decoder.in, (size_t) n);
        c->read_usec = now_usec();
        return n > 0;
}

static void decode_request(Connection *c, bool eof) {
        int r = request_decode(&c->decoder, eof, &c->call.request);

        account_memory(c);
        if (r > 0) {
                c->state = CONNECTION_WORKING;
                c->pool->callbacks->submit(&c->call, c->pool->userdata);
        } else if (r == -EBADMSG)
                refuse_connection(c, REQUEST_BAD, c->decoder.error);
        else if (r == -ENODATA) {
                /* A probe, or a client that died: BAD as in flush(8), but nothing to report. */
                c->call.status = REQUEST_BAD;
                connection_reply(&c->call);
                close_connection(c);
        } else
                rearm(c);
}

/* @r: of read_some() */
static void on_read(Connection *c, int r) {
        if (r >= 0)
                decode_request(c, r == 0);
        else if (r == -EAGAIN || r == -EINTR)
                rearm(c);
        else if (r == -EMSGSIZE)
                refuse_connection(c, REQUEST_BAD, "longer than " TEXT_OF(ATTR_LIST_MAX) " bytes");
        else if (r == -ENOMEM)
                refuse_connection(c, REQUEST_FAIL, strerror(ENOMEM));
        else if (r == -ECONNRESET)
                /* A client that closes without having read the announcement, as postkick(1) does.
                 * It is the end of its request. */
                decode_request(c, true);
        else /* the client is gone, and half a request is not acted upon */
                close_connection(c);
}

static void on_lingering(Connection *c) {
        char waste[16384];
        ssize_t n = recv(c->fd, waste, sizeof waste, MSG_DONTWAIT);

        if (n > 0)
                c->lingered += (size_t) n;
        if ((n > 0 && c->lingered < LINGER_MAX) || (n < 0 && errno == EAGAIN))
                rearm(c);
        else
                close_connection(c);
}

/* ----------------------------------------------------------------------------------- deadlines */

static uint64_t deadline_of(const Connection *c) {
        const Settings *settings = c->pool->settings;
        uint64_t whole = c->accepted_usec + settings->request_timeout;
        uint64_t idle = c->read_usec + settings->ipc_timeout;

        if (c->state == CONNECTION_LINGERING)
                return c->linger_until_usec;
        if (idle < whole)
                whole = idle;
        if (c->pool->hurry_usec != USEC_INFINITY) { /* connections_hurry(): the process is to end */
                uint64_t since = c->pool->hurry_usec;
                uint64_t leave = (since > c->accepted_usec ? since : c->accepted_usec) + LEAVE_USEC;

                if (leave < whole)
                        return leave;
        }
        return whole;
}

/* Thousands may end in one moment: a line for each would make journald suppress all that follows.
 */
static void report_half(Connection *c, const char *why) {
        JournalCaller *caller = &c->call.caller;
        Connections *pool = c->pool;

        if (pool->n_half_lines == 0)
                timer_arm(pool->half_lines, HALF_LINES_USEC);
        if (++pool->n_half_lines > HALF_LINES_MAX)
                return;
        connection_identify(&c->call);
        journal_event(LOG_WARNING,
                      &(JournalEvent){.message_id = JOURNAL_ID_REFUSED, .caller = caller},
                      "half a request%s: closed (uid %u, pid %d)", why, (unsigned) caller->uid,
                      (int) caller->pid);
}

static void report_other_halves(Connections *pool) {
        if (pool->n_half_lines > HALF_LINES_MAX)
                journal_event(LOG_WARNING, &(JournalEvent){.message_id = JOURNAL_ID_REFUSED},
                              "%u more half requests were closed",
                              pool->n_half_lines - HALF_LINES_MAX);
        pool->n_half_lines = 0;
}

static int on_half_lines(sd_event_source *source, uint64_t usec, void *userdata) {
        report_other_halves(userdata);
        return 0;
}

/* The oldest first: these clients have had the most time. Complete requests stay; a long one has
 * been cut to what it needs. */
void connections_make_room(Connections *pool) {
        Connection *c, *tmp;

        if (pool->n_held <= REQUESTS_MAX)
                return;
        DL_FOREACH_SAFE2 (pool->longs, c, tmp, next_long) {
                if (pool->n_held <= REQUESTS_MAX)
                        break;
                if (c->state != CONNECTION_READING)
                        continue;
                report_half(c, ", and the memory for all of them is used up");
                close_connection(c);
        }
}

/* As flush(8): BAD for a client that never said anything, and nothing for half a request. */
static void expire_connection(Connection *c) {
        if (c->state == CONNECTION_READING && request_decoder_seen(&c->decoder) == 0) {
                refuse_connection(c, REQUEST_BAD, "nothing was sent in time");
                return;
        }
        if (c->state == CONNECTION_READING)
                report_half(c, " and then nothing for too long");
        close_connection(c);
}

static void arm_deadlines(Connections *pool, uint64_t when) {
        if (when >= pool->deadlines_usec)
                return;
        pool->deadlines_usec = when;
        timer_arm_at(pool->deadlines, when);
}

/* Looks at all connections, at the earliest of their deadlines, so no more often than the shortest
 * time-out allows. If this timer itself is late, the process or its disk was frozen: what clients
 * have sent meanwhile must be read before any of them is called too slow. */
static int on_deadlines(sd_event_source *source, uint64_t usec, void *userdata) {
        Connections *pool = userdata;
        uint64_t now = now_usec(), next = USEC_INFINITY;
        Connection *c, *tmp;

        pool->deadlines_usec = USEC_INFINITY;
        if (now > usec + LATE_USEC) {
                arm_deadlines(pool, now + LATE_USEC);
                return 0;
        }
        DL_FOREACH_SAFE2 (pool->open, c, tmp, next_open) {
                uint64_t deadline = deadline_of(c);

                if (c->state == CONNECTION_WORKING)
                        continue; /* whatever it waits for has limits of its own */
                if (deadline <= now)
                        expire_connection(c); /* if it lingers now, its new deadline is noted */
                else if (deadline < next)
                        next = deadline;
        }
        pool->callbacks->settle(pool->userdata);
        if (next != USEC_INFINITY)
                arm_deadlines(pool, next);
        return 0;
}

/* ------------------------------------------------------------------------------- accepted ones */

static void put_fresh(Connection *c) {
        Connections *pool = c->pool;

        c->next_fresh = NULL;
        if (pool->fresh)
                pool->last_fresh->next_fresh = c;
        else
                pool->fresh = c;
        pool->last_fresh = c;
}

static int announce_protocol(Connection *c) {
        c->announced = true;
        return send_bytes(c, REQUEST_ANNOUNCEMENT, REQUEST_ANNOUNCEMENT_SIZE);
}

void connections_add(Connections *pool, int fd) {
        Connection *c = open_connection(pool, fd);
        int r = pool->settings->announce ? announce_protocol(c) : 0;

        if (r == -ENOMEM || r == -ENOBUFS) { /* the client would wait for it for ever */
                close_connection(c);
                return;
        }
        put_fresh(c);
        arm_deadlines(pool, deadline_of(c));
}

void connections_on_event(void *connection) {
        Connection *c = connection;

        switch (c->state) {
        case CONNECTION_READING:
                on_read(c, read_some(c));
                break;
        case CONNECTION_LINGERING:
                on_lingering(c);
                break;
        default: /* cannot happen: it is not watched while its call is worked on */
                break;
        }
}

static bool worth_another_try(Connection *c, uint64_t now) {
        return ++c->n_tries < FRESH_TRIES || now - c->accepted_usec < FRESH_USEC;
}

bool connections_try_fresh(Connections *pool) {
        Connection *c = pool->fresh, *next;
        uint64_t now = now_usec();
        bool found = false;

        pool->fresh = NULL;
        for (; c; c = next) {
                int r = read_some(c);

                next = c->next_fresh;
                found |= r != -EAGAIN;
                if (r == -EAGAIN && worth_another_try(c, now))
                        put_fresh(c);
                else
                        on_read(c, r);
        }
        connections_make_room(pool);
        return found;
}

void connections_watch_fresh(Connections *pool) {
        Connection *c, *tmp;

        LL_FOREACH_SAFE2 (pool->fresh, c, tmp, next_fresh)
                rearm(c);
        pool->fresh = NULL;
}

/* --------------------------------------------------------------------------------- all of them */

/* These clients connected while the settings said that Postfix's clients speak first. Such a client
 * would have spoken by now; one that has not waits for the announcement. */
static void announce_late(Connections *pool) {
        Connection *c;

        DL_FOREACH2(pool->open, c, next_open)
        if (!c->announced && c->state == CONNECTION_READING &&
            request_decoder_seen(&c->decoder) == 0)
                (void) announce_protocol(c);
}

void connections_configure(Connections *pool, const Settings *settings) {
        pool->settings = settings;
        if (settings->announce)
                announce_late(pool);
        arm_deadlines(pool, now_usec());
}

void connections_hurry(Connections *pool, uint64_t from_usec) {
        pool->hurry_usec = from_usec;
        arm_deadlines(pool, from_usec + LEAVE_USEC);
}

int connections_fd(const Connections *pool) {
        return pool->epoll_fd;
}

unsigned connections_count(const Connections *pool) {
        return pool->n_open;
}

void connections_close_all(Connections *pool) {
        Connection *c, *tmp;

        DL_FOREACH_SAFE2 (pool->open, c, tmp, next_open)
                close_connection(c);
}

int connections_new(sd_event *event, const Settings *settings, const ConnectionCallbacks *callbacks,
                    void *userdata, Connections **ret) {
        _cleanup_(connections_freep) Connections *pool = calloc(1, sizeof *pool);
        int r;

        if (!pool)
                return -ENOMEM;
        pool->callbacks = callbacks;
        pool->userdata = userdata;
        pool->settings = settings;
        pool->hurry_usec = pool->deadlines_usec = USEC_INFINITY;
        pool->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        r = RET_NERRNO(pool->epoll_fd);
        if (r < 0)
                return r; /* cppcheck-suppress memleak ; freed by the cleanup attribute */
        r = timer_new(event, DEADLINE_ACCURACY_USEC, on_deadlines, pool, &pool->deadlines);
        if (r < 0)
                return r;
        r = timer_new(event, DEADLINE_ACCURACY_USEC, on_half_lines, pool, &pool->half_lines);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(pool);
        return 0;
}

Connections *connections_free(Connections *pool) {
        if (!pool)
                return NULL;
        connections_close_all(pool);
        report_other_halves(pool);
        free(pool->spare);
        sd_event_source_disable_unref(pool->deadlines);
        sd_event_source_disable_unref(pool->half_lines);
        closep(&pool->epoll_fd);
        free(pool);
        return NULL;
}
