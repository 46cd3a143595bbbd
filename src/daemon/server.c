/* SPDX-License-Identifier: MIT */

#include "daemon/server.h"

#include <assert.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <utlist.h>

#include "daemon/notify.h"
#include "daemon/reload.h"
#include "daemon/send.h"
#include "daemon/service.h"
#include "util/util.h"

#define EVENTS_MAX        256 /* taken from the kernel at a time */
#define ACCEPTS_MAX       64  /* connections in a row before what has arrived is worked on */
#define CONNECTIONS_MAX   16384
#define REQUESTS_MAX_MIB  16 /* of requests beyond ATTR_INLINE_SIZE, all connections together */
#define REQUESTS_MAX      ((size_t) REQUESTS_MAX_MIB * 1024 * 1024)
#define TRIM_MIN          (4u * 1024 * 1024) /* memory in use that is worth giving back at once */
#define SENDS_SHARE       4u /* of descriptors that are left: one for a send, the others for clients */
#define INHERITED_FDS_MAX 1024u /* how many are looked at, to find those that are open */
#define FRESH_TRIES       3     /* to read from a new connection before it is watched */
#define SPIN_USEC         20u   /* how long to look again before sleeping: a wake-up costs more */
#define TURN_USEC         5000u /* then signals, timers and jobs have their turn */
#define ACCEPT_PAUSE_USEC (100 * USEC_PER_MSEC) /* when accept(2) fails */
#define STOP_USEC         (2 * USEC_PER_SEC)    /* what is quick may finish before it ends */
#define IDLE_USEC_MIN     (5 * USEC_PER_SEC)    /* under systemd, whose limits count starts */
#define LIFE_USEC_MIN     (5 * USEC_PER_SEC)    /* likewise, before it leaves by its own decision */
#define LEAVE_USEC        (3 * USEC_PER_SEC)    /* for requests to arrive whole when it leaves */
#define STATUS_USEC       (1 * USEC_PER_SEC)    /* between two lines for systemctl status */
#define LINGER_USEC       (1 * USEC_PER_SEC)
#define DRAIN_USEC        (200 * USEC_PER_MSEC) /* without accepting, to find a moment to leave */
#define DRAIN_AGAIN_USEC  (2 * USEC_PER_SEC)    /* then clients have their turn */
#define LATE_USEC         (1 * USEC_PER_SEC)    /* a timer that comes so late: we did not run */
#define HALF_LINES_MAX    10u                   /* about half requests, in HALF_LINES_USEC */
#define HALF_LINES_USEC   (10 * USEC_PER_SEC)
#define LINGER_MAX        (4u * 1024 * 1024) /* bytes read off a client that was refused */

typedef enum ConnectionState {
        CONNECTION_READING,
        CONNECTION_WORKING,   /* the service has its call */
        CONNECTION_LINGERING, /* refused; what it still sends is read, so that it sees why */
} ConnectionState;

typedef struct Connection {
        Call call; /* first: a Call of ours is a Connection */
        Server *server;
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

struct Server {
        sd_event *event;
        Notify notify;
        const Settings *settings; /* in use; those after the first are the Reload's */
        Service *service;
        Reload *reload;
        char *trouble; /* why the configuration could not be read anew, as it was logged */
        bool troubled; /* and that will last until somebody does something */
        const int *listen_fds;
        unsigned n_listen_fds;
        bool listening;
        int epoll_fd;
        sd_event_source *turn, *idle, *deadlines, *accept_again, *status, *drain, *stop,
                *half_lines;
        Connection *connections, *spare;
        Connection *fresh, *last_fresh; /* accepted in this turn, not watched yet */
        Connection *longs;              /* with a long request or a part of one, the oldest first */
        size_t n_held;                  /* of all of them */
        size_t peak;                    /* of memory for connections, since it was given back */
        unsigned n_half_lines;          /* wanted about half requests, in this HALF_LINES_USEC */
        unsigned n_connections, connections_max;
        unsigned fds_limit, fds_open; /* LimitNOFILE=, and what is open all the time */
        uint64_t n_requests;
        uint64_t active_usec; /* when something last happened */
        uint64_t max_idle;
        uint64_t started_usec;
        uint64_t retired_usec;   /* from when on it may leave */
        uint64_t deadlines_usec; /* when they are looked at, USEC_INFINITY for never */
        bool under_systemd;
        bool status_armed, accept_paused, accept_failing;
        bool retiring; /* leaves at the next quiet moment */
        bool moved;    /* for the queue directory is another one */
        enum {
                DRAIN_NO,
                DRAIN_NOW,   /* does not accept, for DRAIN_USEC */
                DRAIN_LATER, /* in vain; accepts, for DRAIN_AGAIN_USEC */
        } drain_state;
        bool stopping; /* leaves within STOP_USEC */
};

static void refuse(Connection *c, RequestStatus status, const char *why);
static void update_listening(Server *server);
static void arm_status(Server *server);
static void arm_deadlines(Server *server, uint64_t when);

/* ------------------------------------------------------------------------------ connections */

static Connection *connection_of(Call *call) {
        static_assert(offsetof(Connection, call) == 0, "a Call is a Connection");
        return (Connection *) (void *) call;
}

/* For the next flood it is had anew; until then others may use it. */
static void return_memory(Server *server) {
        size_t used = server->n_held + server->n_connections * sizeof(Connection);

        if (used > server->peak)
                server->peak = used;
        else if (server->peak > TRIM_MIN && used < server->peak / 4) {
                (void) malloc_trim(0);
                server->peak = used;
        }
}

/* After anything that may change how much memory the request takes. */
static void account(Connection *c) {
        Server *server = c->server;
        size_t n = c->decoder.in.size;

        if (n == c->n_held)
                return;
        if (c->n_held == 0)
                DL_APPEND2(server->longs, c, prev_long, next_long);
        else if (n == 0)
                DL_DELETE2(server->longs, c, prev_long, next_long);
        server->n_held = server->n_held - c->n_held + n;
        c->n_held = n;
        return_memory(server);
}

/* One spare is kept: a client that comes again and again costs no allocation. */
static void connection_close(Connection *c) {
        Server *server = c->server;

        DL_DELETE2(server->connections, c, prev_open, next_open);
        server->n_connections--;
        closep(&c->fd); /* takes it out of the epoll set as well */
        request_decoder_done(&c->decoder);
        account(c);
        return_memory(server);
        if (server->spare)
                free(c);
        else
                server->spare = c;
        update_listening(server);
}

/* Had before accept(2): a connection must not be accepted only to be dropped. */
static bool have_spare(Server *server) {
        if (!server->spare)
                server->spare = malloc(sizeof *server->spare);
        return server->spare;
}

static Connection *connection_new(Server *server, int fd) {
        Connection *c = TAKE_PTR(server->spare);

        memset(c, 0, sizeof *c);
        c->server = server;
        c->fd = fd;
        c->accepted_usec = c->read_usec = now_usec();
        DL_APPEND2(server->connections, c, prev_open, next_open);
        server->n_connections++;
        return c;
}

/* One event and then silence until we ask again: so a client that hangs up while its request is
 * worked on does not wake us over and over. */
static int watch(Connection *c) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = c};
        int op = c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        int r = RET_NERRNO(epoll_ctl(c->server->epoll_fd, op, c->fd, &e));

        c->watched |= r == 0;
        return r;
}

static void rearm(Connection *c) {
        int r = watch(c);

        if (r < 0 && c->state == CONNECTION_READING)
                refuse(c, REQUEST_FAIL, "the kernel cannot watch it");
        else if (r < 0)
                connection_close(c);
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

static void on_reply(Call *call) {
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

/* Closing while the client still sends would destroy the reply it has not read yet. */
static void linger(Connection *c) {
        c->state = CONNECTION_LINGERING;
        request_decoder_done(&c->decoder);
        account(c);
        c->linger_until_usec = now_usec() + LINGER_USEC;
        arm_deadlines(c->server, c->linger_until_usec);
        (void) shutdown(c->fd, SHUT_WR);
        rearm(c);
}

static void on_finish(Call *call) {
        Connection *c = connection_of(call);

        c->server->n_requests++;
        c->server->active_usec = now_usec();
        arm_status(c->server);
        if (call->status == REQUEST_BAD)
                linger(c);
        else
                connection_close(c);
}

static void on_identify(Call *call) {
        struct ucred cred = {.pid = 0};
        socklen_t size = sizeof cred;

        (void) getsockopt(connection_of(call)->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size);
        call->caller = (JournalCaller){.pid = cred.pid, .uid = cred.uid};
}

static bool on_renew(Call *call) {
        Server *server = connection_of(call)->server;

        /* A self-test is asked for by who has just mended something. */
        bool anyway = call->request.kind == REQUEST_SELF_TEST;

        if (server->stopping || server->moved || (reload_in_vain(server->reload) && !anyway))
                return false;
        if (!reload_running(server->reload))
                reload_start(server->reload);
        return true;
}

static const ServiceCallbacks callbacks = {
        .reply = on_reply, .finish = on_finish, .identify = on_identify, .renew = on_renew};

static void refuse(Connection *c, RequestStatus status, const char *why) {
        const char *bytes = attr_reader_string(&c->decoder.in, 0);

        c->state = CONNECTION_WORKING;
        service_refuse(c->server->service, &c->call, status, why, bytes, c->decoder.in.n);
}

/* All that has arrived, or one buffer full of it. Return: 1, 0 (end), or a negative errno. */
static int read_some(Connection *c) {
        size_t n_space;
        char *space;
        ssize_t n;
        int r;

        r = attr_reader_space(&c->decoder.in, &space, &n_space);
        account(c);
        if (r < 0)
                return r;
        n = recv(c->fd, space, n_space, MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        attr_reader_commit(&c->decoder.in, (size_t) n);
        c->read_usec = now_usec();
        return n > 0;
}

static void decode(Connection *c, bool eof) {
        int r = request_decode(&c->decoder, eof, &c->call.request);

        account(c);
        if (r > 0) {
                c->state = CONNECTION_WORKING;
                service_submit(c->server->service, &c->call);
        } else if (r == -EBADMSG)
                refuse(c, REQUEST_BAD, c->decoder.error);
        else if (r == -ENODATA) {
                /* A probe, or a client that died: BAD as in flush(8), but nothing to report. */
                c->call.status = REQUEST_BAD;
                on_reply(&c->call);
                connection_close(c);
        } else
                rearm(c);
}

/* @r: of read_some() */
static void on_read(Connection *c, int r) {
        if (r >= 0)
                decode(c, r == 0);
        else if (r == -EAGAIN || r == -EINTR)
                rearm(c);
        else if (r == -EMSGSIZE)
                refuse(c, REQUEST_BAD, "longer than 65536 bytes");
        else if (r == -ENOMEM)
                refuse(c, REQUEST_FAIL, strerror(ENOMEM));
        else if (r == -ECONNRESET)
                /* The end, of a client that closed without reading the announcement: postkick(1).
                 */
                decode(c, true);
        else /* the client is gone, half a request is none */
                connection_close(c);
}

static void on_lingering(Connection *c) {
        char waste[16384];
        ssize_t n = recv(c->fd, waste, sizeof waste, MSG_DONTWAIT);

        if (n > 0)
                c->lingered += (size_t) n;
        if ((n > 0 && c->lingered < LINGER_MAX) || (n < 0 && errno == EAGAIN))
                rearm(c);
        else
                connection_close(c);
}

/* --------------------------------------------------------------------------------- deadlines */

static uint64_t deadline_of(const Connection *c) {
        const Settings *settings = c->server->settings;
        uint64_t whole = c->accepted_usec + settings->request_timeout;
        uint64_t idle = c->read_usec + settings->ipc_timeout;

        if (c->state == CONNECTION_LINGERING)
                return c->linger_until_usec;
        if (idle < whole)
                whole = idle;
        if (c->server->retiring) { /* who is silent must not keep a process that has to go */
                uint64_t since = c->server->retired_usec;
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
        Server *server = c->server;

        if (server->n_half_lines == 0) {
                (void) sd_event_source_set_time_relative(server->half_lines, HALF_LINES_USEC);
                (void) sd_event_source_set_enabled(server->half_lines, SD_EVENT_ONESHOT);
        }
        if (++server->n_half_lines > HALF_LINES_MAX)
                return;
        on_identify(&c->call);
        journal_event(LOG_WARNING,
                      &(JournalEvent){.message_id = JOURNAL_ID_REFUSED, .caller = caller},
                      "half a request%s: closed (uid %u, pid %d)", why, (unsigned) caller->uid,
                      (int) caller->pid);
}

static void log_other_halves(Server *server) {
        if (server->n_half_lines > HALF_LINES_MAX)
                journal_event(LOG_WARNING, &(JournalEvent){.message_id = JOURNAL_ID_REFUSED},
                              "%u more half requests were closed",
                              server->n_half_lines - HALF_LINES_MAX);
        server->n_half_lines = 0;
}

static int on_half_lines(sd_event_source *source, uint64_t usec, void *userdata) {
        log_other_halves(userdata);
        return 0;
}

/*
 * Who began first has had the most time to go on. Not to be called while events of connections are
 * gone through, as others than the one at hand are closed. Complete requests stay: they have been
 * cut to what they need.
 */
static void make_room(Server *server) {
        Connection *c, *tmp;

        if (server->n_held <= REQUESTS_MAX)
                return;
        DL_FOREACH_SAFE2 (server->longs, c, tmp, next_long) {
                if (server->n_held <= REQUESTS_MAX)
                        break;
                if (c->state != CONNECTION_READING)
                        continue;
                report_half(c, ", and the memory for all of them is used up");
                connection_close(c);
        }
}

/* As flush(8): BAD for a client that never said anything, and nothing for half a request. */
static void expire(Connection *c) {
        if (c->state == CONNECTION_READING && c->decoder.in.n == 0) {
                refuse(c, REQUEST_BAD, "nothing was sent in time");
                return;
        }
        if (c->state == CONNECTION_READING)
                report_half(c, " and then nothing for too long");
        connection_close(c);
}

static void arm_deadlines(Server *server, uint64_t when) {
        if (when >= server->deadlines_usec)
                return;
        server->deadlines_usec = when;
        (void) sd_event_source_set_time(server->deadlines, when);
        (void) sd_event_source_set_enabled(server->deadlines, SD_EVENT_ONESHOT);
}

/* Looks at all connections, but no more often than the shortest time-out allows: the time of
 * the next look is never later than the first deadline then. If this one is late itself, the
 * process was frozen, or a disk was: what clients have sent meanwhile must be read first. */
static int on_deadlines(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;
        uint64_t now = now_usec(), next = USEC_INFINITY;
        Connection *c, *tmp;

        server->deadlines_usec = USEC_INFINITY;
        if (now > usec + LATE_USEC) {
                arm_deadlines(server, now + LATE_USEC);
                return 0;
        }
        DL_FOREACH_SAFE2 (server->connections, c, tmp, next_open) {
                uint64_t deadline = deadline_of(c);

                if (c->state == CONNECTION_WORKING)
                        continue; /* whatever it waits for has limits of its own */
                if (deadline <= now)
                        expire(c); /* if it lingers now, its new deadline is noted */
                else if (deadline < next)
                        next = deadline;
        }
        service_end_turn(server->service);
        if (next != USEC_INFINITY)
                arm_deadlines(server, next);
        return 0;
}

/* --------------------------------------------------------------------------------- listening */

static void set_listening(Server *server, bool on) {
        if (server->listening == on)
                return;
        for (unsigned i = 0; i < server->n_listen_fds; i++) {
                struct epoll_event e = {.events = EPOLLIN,
                                        .data.ptr = (void *) (uintptr_t) &server->listen_fds[i]};

                if (epoll_ctl(server->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
                              server->listen_fds[i], &e) < 0) {
                        journal_message(LOG_ERR, "epoll_ctl: %s", strerror(errno));
                        (void) sd_event_exit(server->event, -errno);
                        return;
                }
        }
        server->listening = on;
}

/* A service that starts too often is started no more by systemd, and then its socket fails. */
static uint64_t too_young_usec(const Server *server) {
        uint64_t lived = now_usec() - server->started_usec;

        return server->under_systemd && lived < LIFE_USEC_MIN ? LIFE_USEC_MIN - lived : 0;
}

static void begin_to_retire(Server *server) {
        if (server->retiring)
                return;
        server->retiring = true;
        server->retired_usec = now_usec() + too_young_usec(server);
        arm_deadlines(server, server->retired_usec + LEAVE_USEC);
}

static bool is_retiring(Server *server) {
        if (server->settings->max_use > 0 && server->n_requests >= server->settings->max_use)
                begin_to_retire(server);
        return server->retiring;
}

static void set_drain(Server *server, int state, uint64_t usec) {
        server->drain_state = state;
        (void) sd_event_source_set_time_relative(server->drain, usec);
        (void) sd_event_source_set_enabled(server->drain, SD_EVENT_ONESHOT);
}

static int on_drain(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        if (server->drain_state == DRAIN_NOW)
                set_drain(server, DRAIN_LATER, DRAIN_AGAIN_USEC);
        else
                server->drain_state = DRAIN_NO;
        update_listening(server);
        return 0;
}

/*
 * To leave takes a moment without any connection. One may never come by itself, so none is
 * accepted for a short time; for a short time only, since a client that is connected and silent, or
 * whose send takes long, must not keep all others waiting.
 *
 * Connections beyond the limit stay in the backlog, which is the kernel's to hold.
 */
static void update_listening(Server *server) {
        bool leaving;

        if (server->drain_state == DRAIN_NO && is_retiring(server)) {
                uint64_t young = too_young_usec(server);

                set_drain(server, young > 0 ? DRAIN_LATER : DRAIN_NOW,
                          young > 0 ? young : DRAIN_USEC);
        }
        leaving = server->stopping || server->moved || server->drain_state == DRAIN_NOW;
        set_listening(server, !leaving && !server->accept_paused &&
                                      server->n_connections < server->connections_max);
        if (leaving && server->n_connections == 0 &&
            (server->stopping || too_young_usec(server) == 0))
                (void) sd_event_exit(server->event, 0);
}

/* Its descriptor and its sandbox are of the directory that was there at its start: what would be
 * recorded in that one, nobody would find. */
static void move_out(Server *server) {
        uint64_t young = too_young_usec(server);

        if (server->moved)
                return;
        journal_message(LOG_NOTICE,
                        "the queue directory is another one now: leaving, so that the next "
                        "request finds it");
        server->moved = true;
        (void) sd_event_source_set_time_relative(server->stop,
                                                 young > STOP_USEC ? young : STOP_USEC);
        (void) sd_event_source_set_enabled(server->stop, SD_EVENT_ONESHOT);
        update_listening(server);
}

static int on_accept_again(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        server->accept_paused = false;
        update_listening(server);
        return 0;
}

static void pause_accept(Server *server, int error) {
        if (!server->accept_failing) /* once, not each time it is tried */
                journal_event(LOG_ERR,
                              &(JournalEvent){.message_id = JOURNAL_ID_FAILED, .error = error},
                              "cannot accept connections, will try again: %s", strerror(-error));
        server->accept_failing = true;
        server->accept_paused = true;
        (void) sd_event_source_set_time_relative(server->accept_again, ACCEPT_PAUSE_USEC);
        (void) sd_event_source_set_enabled(server->accept_again, SD_EVENT_ONESHOT);
        update_listening(server);
}

static void put_fresh(Connection *c) {
        Server *server = c->server;

        c->next_fresh = NULL;
        if (server->fresh)
                server->last_fresh->next_fresh = c;
        else
                server->fresh = c;
        server->last_fresh = c;
}

static int announce(Connection *c) {
        c->announced = true;
        return send_bytes(c, REQUEST_ANNOUNCEMENT, REQUEST_ANNOUNCEMENT_SIZE);
}

static void greet(Server *server, int fd) {
        Connection *c = connection_new(server, fd);
        int r = 0;

        server->accept_failing = false;
        if (server->settings->announce)
                r = announce(c);
        if (r == -ENOMEM || r == -ENOBUFS) { /* the client would wait for it */
                connection_close(c);
                return;
        }
        put_fresh(c);
        arm_deadlines(server, deadline_of(c));
        arm_status(server); /* silent, it may be one of a Postfix that has just been replaced */
        update_listening(server);
}

/* One at a time: the look that follows in any case tells whether there is another one, for a
 * fraction of what an accept(2) in vain costs. Return: true if a connection was accepted. */
static bool on_connection(Server *server, int listen_fd) {
        int fd;

        if (!server->listening)
                return false;
        if (!have_spare(server)) {
                pause_accept(server, -ENOMEM);
                return false;
        }
        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
                greet(server, fd);
        else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
                pause_accept(server, -errno);
        return fd >= 0;
}

/* ------------------------------------------------------------------------------------- turns */

static bool is_listener(const Server *server, const void *ptr) {
        const int *fd = ptr;

        return fd >= server->listen_fds && fd < server->listen_fds + server->n_listen_fds;
}

static void on_connection_event(Connection *c) {
        switch (c->state) {
        case CONNECTION_READING:
                on_read(c, read_some(c));
                break;
        case CONNECTION_LINGERING:
                on_lingering(c);
                break;
        default: /* cannot be: not watched while its call is worked on */
                break;
        }
}

/* Return: how many connections were accepted, or -1 if nothing was ready. */
static int look(Server *server, int fd) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(fd, events, EVENTS_MAX, 0), accepted = 0;

        for (int i = 0; i < n; i++) {
                void *ptr = events[i].data.ptr;

                if (is_listener(server, ptr))
                        accepted += on_connection(server, *(const int *) ptr);
                else
                        on_connection_event(ptr);
        }
        make_room(server);
        return n > 0 ? accepted : -1;
}

static bool worth_another_try(Connection *c, uint64_t now) {
        return ++c->n_tries < FRESH_TRIES || now - c->accepted_usec < SPIN_USEC;
}

/*
 * Most requests come within microseconds of the announcement, and to try to read them costs less
 * than to have the kernel watch for them. Return: true if there was any.
 */
static bool try_fresh(Server *server) {
        Connection *c = server->fresh, *next;
        uint64_t now = now_usec();
        bool found = false;

        server->fresh = NULL;
        for (; c; c = next) {
                int r = read_some(c);

                next = c->next_fresh;
                found |= r != -EAGAIN;
                if (r == -EAGAIN && worth_another_try(c, now))
                        put_fresh(c);
                else
                        on_read(c, r);
        }
        make_room(server);
        return found;
}

/* Those from whom nothing has come: now it may take longer. */
static void watch_fresh(Server *server) {
        Connection *c, *tmp;

        LL_FOREACH_SAFE2 (server->fresh, c, tmp, next_fresh)
                rearm(c);
        server->fresh = NULL;
}

/* Return: true if anything was ready. While clients come, they come in first: what the earlier of
 * them say meanwhile makes the batch larger. */
static bool take_what_is_ready(Server *server, int fd) {
        int n = 0, accepted;
        bool ready = false;

        do {
                accepted = look(server, fd);
                ready |= accepted >= 0;
                n += accepted;
        } while (accepted > 0 && n < ACCEPTS_MAX);
        ready |= try_fresh(server);
        if (ready)
                service_end_turn(server->service);
        return ready;
}

/*
 * Takes everything that is ready, then writes the adds of all of it together and replies. Looks
 * again for a moment before it leaves: a client that has just read the announcement is back with
 * its request within microseconds, and to sleep and wake up, or to wait for a job's slice, would
 * cost more. With jobs to do a turn is as long as a slice, so that both get on.
 */
static int on_turn(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Server *server = userdata;
        uint64_t start = now_usec(), last = start, now;
        uint64_t longest = service_busy(server->service) ? JOB_SLICE_USEC : TURN_USEC;

        do {
                bool ready = take_what_is_ready(server, fd);

                if (!ready) /* whom we wait for may need this CPU */
                        (void) sched_yield();
                now = now_usec();
                if (ready)
                        last = now;
        } while (now - last < SPIN_USEC && now - start < longest && server->listening);
        watch_fresh(server);
        server->active_usec = last;
        service_step(server->service);
        return 0;
}

/* ---------------------------------------------------------------------------------- stopping */

static bool backlog_empty(const Server *server) {
        for (unsigned i = 0; i < server->n_listen_fds; i++) {
                struct pollfd p = {.fd = server->listen_fds[i], .events = POLLIN};

                if (poll(&p, 1, 0) != 0)
                        return false;
        }
        return true;
}

static void notify_status(const Server *server) {
        notify_send(&server->notify, "STATUS=%s%s%llu requests, %u open connections%s",
                    server->settings->problems || server->troubled
                            ? "CONFIGURATION PROBLEM, see the journal. "
                            : "",
                    service_findings(server->service) > 0 ? "BROKEN, see fflushctl status. " : "",
                    (unsigned long long) server->n_requests, server->n_connections,
                    server->stopping ? ", stopping" : "");
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        server->status_armed = false;
        notify_status(server);
        if (server->moved || server->stopping)
                return 0;
        if (service_is_at(server->service, server->settings->queue_directory) == 0)
                move_out(server);
        else if (service_outdated(server->service) && !reload_running(server->reload) &&
                 !reload_in_vain(server->reload))
                reload_start(server->reload);
        return 0;
}

static void arm_status(Server *server) {
        if (server->status_armed)
                return;
        server->status_armed = true;
        (void) sd_event_source_set_time_relative(server->status, STATUS_USEC);
        (void) sd_event_source_set_enabled(server->status, SD_EVENT_ONESHOT);
}

/* -------------------------------------------------------------------------------- reloading */

/* @text: lines; each is an entry. */
static void report_lines(int level, const char *text) {
        while (text && *text) {
                size_t n = strcspn(text, "\n");

                journal_event(level, &(JournalEvent){.message_id = JOURNAL_ID_CONFIG}, "%.*s",
                              (int) n, text);
                text += n + (text[n] == '\n');
        }
}

static bool same(const char *a, const char *b) {
        if (!a || !b)
                return a == b;
        return streq(a, b);
}

/* They connected while Postfix was thought to be one whose clients speak first. One that did would
 * have spoken by now. */
static void announce_late(Server *server) {
        Connection *c;

        DL_FOREACH2(server->connections, c, next_open)
        if (!c->announced && c->state == CONNECTION_READING && c->decoder.in.n == 0)
                (void) announce(c);
}

/* systemd sets a low soft limit for programs that use select(2). */
static unsigned raise_fd_limit(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 0;
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit); /* or what is allowed already has to do */
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 0;
        return limit.rlim_cur < UINT_MAX ? (unsigned) limit.rlim_cur : UINT_MAX;
}

static unsigned count_open_fds(unsigned limit) {
        unsigned n = limit < INHERITED_FDS_MAX ? limit : INHERITED_FDS_MAX, n_open = 0;
        struct pollfd fds[INHERITED_FDS_MAX];

        for (unsigned i = 0; i < n; i++)
                fds[i] = (struct pollfd){.fd = (int) i};
        if (poll(fds, n, 0) < 0)
                return n;
        for (unsigned i = 0; i < n; i++)
                n_open += !(fds[i].revents & POLLNVAL);
        return n_open;
}

/* When all is open that stays open: how many more may be. */
static void count_fds(Server *server) {
        server->fds_limit = raise_fd_limit();
        server->fds_open = count_open_fds(server->fds_limit);
}

/*
 * What the work needs is kept back, whatever the limit: a client that was accepted is served, and
 * who is not accepted yet waits in the backlog.
 */
static int share_fds(Server *server) {
        unsigned needed = server->fds_open + service_fds(server->service), left, n_sends;

        if (server->fds_limit < needed + 2) { /* one send, one client */
                journal_event(LOG_ERR,
                              &(JournalEvent){.message_id = JOURNAL_ID_FAILED, .error = -EMFILE},
                              "%u descriptors are allowed (LimitNOFILE=), at least %u are needed",
                              server->fds_limit, needed + 2);
                return -EMFILE;
        }
        left = server->fds_limit - needed;
        n_sends = left / SENDS_SHARE;
        n_sends = n_sends < 1 ? 1 : n_sends > SENDS_MAX ? SENDS_MAX : n_sends;
        service_limit_sends(server->service, n_sends);
        server->connections_max =
                left - n_sends < CONNECTIONS_MAX ? left - n_sends : CONNECTIONS_MAX;
        return 0;
}

static void set_max_idle(Server *server) {
        server->max_idle = server->settings->max_idle;
        if (server->under_systemd && server->max_idle < IDLE_USEC_MIN)
                server->max_idle = IDLE_USEC_MIN;
        (void) sd_event_source_set_time(server->idle, server->active_usec + server->max_idle);
        (void) sd_event_source_set_enabled(server->idle, SD_EVENT_ONESHOT);
}

static int on_take(const Settings *settings, void *userdata) {
        Server *server = userdata;
        int r;

        r = service_is_at(server->service, settings->queue_directory);
        if (r == 0 && access(settings->queue_directory, F_OK) < 0)
                r = -errno; /* no reason to leave the one that is there */
        if (r == 0) {
                service_not_reconfigured(server->service, NULL);
                move_out(server);
                return -ECANCELED;
        }
        if (r >= 0)
                r = service_reconfigure(server->service, settings);
        if (r < 0)
                return r;
        if (!same(settings->problems, server->settings->problems))
                report_lines(LOG_ERR, settings->problems);
        journal_message(LOG_INFO, "the configuration was read anew, and is in use now");
        free(server->trouble);
        server->trouble = NULL;
        server->troubled = false;
        server->settings = settings;
        journal_set_names(settings->syslog_name, settings->instance);
        (void) share_fds(
                server); /* too few for more tables: it has been said, and clients may get FAIL */
        set_max_idle(server);
        if (settings->announce)
                announce_late(server);
        arm_deadlines(server, now_usec());
        arm_status(server); /* the files may have changed meanwhile */
        update_listening(server);
        return 0;
}

static char *describe(const Settings *settings, int error) {
        const char *problems = settings && settings->problems ? settings->problems : "";
        char *text;

        if (error == 0)
                return strdup(problems);
        if (asprintf(&text, "%s%s%s%s%s", problems, problems[0] ? "\n" : "",
                     settings ? settings->queue_directory : "the configuration", ": ",
                     strerror(-error)) < 0)
                return NULL;
        return text;
}

/* Said once, however often it is tried. That main.cf is being edited is no trouble. */
static void on_fail(const Settings *settings, int error, bool in_vain, void *userdata) {
        Server *server = userdata;
        const Settings *current = server->settings;
        char *trouble = describe(settings, error);
        bool told = !trouble || same(trouble, server->trouble) ||
                    (current->incomplete && same(trouble, current->problems));

        if (!told) {
                report_lines(in_vain ? LOG_ERR : LOG_NOTICE, trouble);
                if (!current->incomplete)
                        journal_message(LOG_NOTICE,
                                        "serving with the configuration as it was before");
        }
        free(server->trouble);
        server->trouble = trouble;
        server->troubled = in_vain;
        if (in_vain)
                service_not_reconfigured(server->service, trouble);
        arm_status(server);
}

static const ReloadCallbacks reload_callbacks = {.take = on_take, .fail = on_fail};

/* ---------------------------------------------------------------------------------- stopping */

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;
        uint64_t now = now_usec(), due = server->active_usec + server->max_idle;

        if (now >= due && server->n_connections == 0 && service_idle(server->service) &&
            backlog_empty(server)) {
                journal_message(LOG_DEBUG, "idle for %llu s, leaving",
                                (unsigned long long) (server->max_idle / USEC_PER_SEC));
                return sd_event_exit(server->event, 0);
        }
        if (due <= now)
                due = now + server->max_idle;
        (void) sd_event_source_set_time(source, due);
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* Gives what is quick the time to end. What is not stays recorded. */
static int on_stop_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;
        Connection *c, *tmp;

        server->stopping = true;
        service_cancel(server->service);
        DL_FOREACH_SAFE2 (server->connections, c, tmp, next_open)
                connection_close(c);
        update_listening(server);
        return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Server *server = userdata;

        journal_message(LOG_DEBUG, "signal %u, leaving", si->ssi_signo);
        if (server->stopping)
                return 0;
        server->stopping = true;
        notify_send(&server->notify, "STOPPING=1");
        notify_status(server);
        update_listening(server);
        (void) sd_event_source_set_time_relative(server->stop, STOP_USEC);
        return sd_event_source_set_enabled(server->stop, SD_EVENT_ONESHOT);
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Server *server = userdata;

        if (!server->moved && !server->stopping)
                reload_start(server->reload);
        return 0;
}

/* ------------------------------------------------------------------------------------ set-up */

static int add_timer(Server *server, sd_event_time_handler_t handler, sd_event_source **ret) {
        int r = sd_event_add_time(server->event, ret, CLOCK_MONOTONIC, 0, 10 * USEC_PER_MSEC,
                                  handler, server);

        return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

static int add_sources(Server *server) {
        int r;

        r = sd_event_add_io(server->event, &server->turn, server->epoll_fd, EPOLLIN, on_turn,
                            server);
        if (r >= 0)
                r = add_timer(server, on_idle, &server->idle);
        if (r >= 0)
                r = add_timer(server, on_deadlines, &server->deadlines);
        if (r >= 0)
                r = add_timer(server, on_accept_again, &server->accept_again);
        if (r >= 0)
                r = add_timer(server, on_status, &server->status);
        if (r >= 0)
                r = add_timer(server, on_drain, &server->drain);
        if (r >= 0)
                r = add_timer(server, on_stop_timeout, &server->stop);
        if (r >= 0)
                r = add_timer(server, on_half_lines, &server->half_lines);
        if (r >= 0)
                r = sd_event_add_signal(server->event, NULL, SIGTERM, on_signal, server);
        if (r >= 0)
                r = sd_event_add_signal(server->event, NULL, SIGINT, on_signal, server);
        if (r >= 0)
                r = sd_event_add_signal(server->event, NULL, SIGHUP, on_hangup, server);
        if (r >= 0)
                r = notify_init(&server->notify, server->event);
        return r < 0 ? r : 0;
}

int server_new(sd_event *event, const Settings *settings, const int *listen_fds, unsigned n_fds,
               Server **ret) {
        Server *server = calloc(1, sizeof *server);
        int r;

        if (!server)
                return -ENOMEM;
        server->event = event;
        server->notify.fd = -EBADF;
        server->settings = settings;
        server->listen_fds = listen_fds;
        server->n_listen_fds = n_fds;
        server->deadlines_usec = USEC_INFINITY;
        server->under_systemd = getenv("NOTIFY_SOCKET");
        server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        r = RET_NERRNO(server->epoll_fd);
        if (r >= 0)
                r = add_sources(server);
        if (r >= 0)
                r = service_new(event, settings, &callbacks, &server->service);
        if (r >= 0)
                r = reload_new(event, settings, &reload_callbacks, server, &server->reload);
        if (r >= 0) {
                count_fds(server);
                r = share_fds(server);
        }
        if (r < 0) {
                server_free(server);
                return r;
        }
        *ret = server;
        return 0;
}

int server_run(Server *server) {
        server->started_usec = server->active_usec = now_usec();
        set_max_idle(server);
        report_lines(LOG_ERR, server->settings->problems);
        if (server->settings->incomplete || server->settings->outdated)
                reload_start(server->reload);
        update_listening(server);
        notify_ready(&server->notify);
        notify_status(server);
        return sd_event_loop(server->event);
}

Server *server_free(Server *server) {
        Connection *c, *tmp;

        if (!server)
                return NULL;
        DL_FOREACH_SAFE2 (server->connections, c, tmp, next_open)
                connection_close(c);
        log_other_halves(server);
        free(server->spare);
        service_free(server->service);
        reload_free(server->reload);
        free(server->trouble);
        sd_event_source_disable_unref(server->turn);
        sd_event_source_disable_unref(server->idle);
        sd_event_source_disable_unref(server->deadlines);
        sd_event_source_disable_unref(server->accept_again);
        sd_event_source_disable_unref(server->status);
        sd_event_source_disable_unref(server->drain);
        sd_event_source_disable_unref(server->stop);
        sd_event_source_disable_unref(server->half_lines);
        notify_free(&server->notify);
        closep(&server->epoll_fd);
        free(server);
        return NULL;
}
