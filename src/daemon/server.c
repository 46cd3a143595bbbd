/* SPDX-License-Identifier: MIT */

#include "daemon/server.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "daemon/connection.h"
#include "daemon/notify.h"
#include "daemon/reload.h"
#include "daemon/service.h"
#include "util/timer.h"
#include "util/util.h"

#define EVENTS_MAX          256 /* taken from the kernel at a time */
#define ACCEPTS_MAX         64  /* connections in a row before what has arrived is worked on */
#define CONNECTIONS_MAX     16384
#define SENDS_SHARE         4u    /* one in this many free descriptors is for a send */
#define INHERITED_FDS_MAX   1024u /* how many are checked for being open */
#define SPIN_USEC           20u   /* how long to look again before sleeping: a wake-up costs more */
#define TURN_USEC           5000u /* longest turn; then signals, timers and jobs have theirs */
#define TIMER_ACCURACY_USEC (10 * USEC_PER_MSEC)
#define ACCEPT_PAUSE_USEC   (100 * USEC_PER_MSEC) /* when accept(2) fails */
#define STOP_USEC           (2 * USEC_PER_SEC) /* for short work to finish before the process ends */
#define IDLE_USEC_MIN       (5 * USEC_PER_SEC) /* shortest max_idle under systemd: it limits starts */
#define LIFE_USEC_MIN       (5 * USEC_PER_SEC)    /* likewise, shortest life without a signal */
#define STATUS_USEC         (1 * USEC_PER_SEC)    /* between two lines for systemctl status */
#define DRAIN_USEC          (200 * USEC_PER_MSEC) /* without accepting, to find a moment to leave */
#define DRAIN_AGAIN_USEC    (2 * USEC_PER_SEC)    /* then clients have their turn */

/*
 *     SERVING --max_use--> RETIRING <--DRAIN_USEC, DRAIN_AGAIN_USEC--> DRAINING
 *        |                    |                                           |
 *        |--------------------+----- the queue directory is another ------'--> MOVED
 *        |                    |                                                  |
 *        `--------------------'------------- SIGTERM, SIGINT --------------------'--> STOPPING
 *
 * In DRAINING, MOVED and STOPPING the process ends as soon as no connection is open; in the first
 * two not before it has lived for LIFE_USEC_MIN. When it has been in MOVED or STOPPING for
 * STOP_USEC it closes the connections that are left. In SERVING and RETIRING it ends when it has
 * been idle.
 */
typedef enum ServerState {
        SERVER_SERVING,
        SERVER_RETIRING, /* is to end, but accepts: one client must not keep all others waiting */
        SERVER_DRAINING, /* accepts none: else a moment without connections may never come */
        SERVER_MOVED,    /* accepts none: what it would record now, nobody would find */
        SERVER_STOPPING, /* accepts none */
} ServerState;

struct Server {
        sd_event *event;
        Notify notify;
        const Settings *settings; /* in use; the first are the caller's, later ones the Reload's */
        Service *service;
        Reload *reload;
        Connections *connections;
        const int *listen_fds;
        unsigned n_listen_fds;
        ServerState state;
        bool listening;      /* the listening sockets are in the epoll set */
        bool accept_paused;  /* until accept_again goes off: accept(2) has failed */
        bool accept_failing; /* accept(2) has failed since the last success, and the journal has an
                                entry */
        sd_event_source *turn, *idle, *accept_again, *status, *drain, *stop;
        unsigned connections_max;
        unsigned fds_limit, fds_open; /* LimitNOFILE=, and what is open all the time */
        uint64_t n_requests;
        uint64_t active_usec; /* when something last happened */
        uint64_t max_idle;
        uint64_t started_usec;
        bool under_systemd;
};

static void update_listening(Server *server);

/* ----------------------------------------------------------------------------------- listening */

static void set_listening(Server *server, bool on) {
        if (server->listening == on)
                return;
        for (unsigned i = 0; i < server->n_listen_fds; i++) {
                struct epoll_event e = {.events = EPOLLIN,
                                        .data.ptr = (void *) (uintptr_t) &server->listen_fds[i]};

                if (epoll_ctl(connections_fd(server->connections),
                              on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, server->listen_fds[i], &e) < 0) {
                        journal_message(LOG_ERR, "epoll_ctl: %s", strerror(errno));
                        (void) sd_event_exit(server->event, -errno);
                        return;
                }
        }
        server->listening = on;
}

/* systemd does not start a service that has started too often, and then its socket fails. */
static uint64_t too_young_usec(const Server *server) {
        uint64_t lived = now_usec() - server->started_usec;

        return server->under_systemd && lived < LIFE_USEC_MIN ? LIFE_USEC_MIN - lived : 0;
}

/* The only place where the state changes. */
static void server_set_state(Server *server, ServerState state) {
        uint64_t young = too_young_usec(server);

        if (server->state == SERVER_SERVING && state == SERVER_RETIRING) {
                connections_hurry(server->connections, now_usec() + young);
                state = SERVER_DRAINING; /* without a wait */
        }
        /* It could not leave yet. The timer may have come early: it counts from the start of a
         * turn. */
        if (state == SERVER_DRAINING && young > 0)
                state = SERVER_RETIRING;
        if (state == SERVER_RETIRING)
                timer_arm(server->drain, young > 0 ? young : DRAIN_AGAIN_USEC);
        else if (state == SERVER_DRAINING)
                timer_arm(server->drain, DRAIN_USEC);
        else if (state == SERVER_MOVED)
                timer_arm(server->stop, young > STOP_USEC ? young : STOP_USEC);
        else if (state == SERVER_STOPPING)
                timer_arm(server->stop, STOP_USEC);
        server->state = state;
        update_listening(server);
}

static int on_drain(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        if (server->state == SERVER_DRAINING)
                server_set_state(server, SERVER_RETIRING);
        else if (server->state == SERVER_RETIRING)
                server_set_state(server, SERVER_DRAINING);
        return 0;
}

/* To be called after any change of what it looks at. Connections beyond the limit wait in the
 * backlog of the kernel. */
static void update_listening(Server *server) {
        unsigned n = connections_count(server->connections);
        bool leaving = server->state >= SERVER_DRAINING;

        if (server->state == SERVER_SERVING && server->settings->max_use > 0 &&
            server->n_requests >= server->settings->max_use) {
                server_set_state(server, SERVER_RETIRING);
                return;
        }
        set_listening(server, !leaving && !server->accept_paused && n < server->connections_max);
        if (leaving && n == 0 && (server->state == SERVER_STOPPING || too_young_usec(server) == 0))
                (void) sd_event_exit(server->event, 0);
}

/* The descriptor and the sandbox of this process belong to the directory of its start. */
static void move_out(Server *server) {
        if (server->state >= SERVER_MOVED)
                return;
        journal_message(LOG_NOTICE,
                        "the queue directory is another one now: leaving, so that the next "
                        "request finds it");
        server_set_state(server, SERVER_MOVED);
}

static int on_accept_again(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        server->accept_paused = false;
        update_listening(server);
        return 0;
}

static void pause_accept(Server *server, int error) {
        if (!server->accept_failing) /* one entry, not one for each attempt */
                journal_event(LOG_ERR,
                              &(JournalEvent){.message_id = JOURNAL_ID_FAILED, .error = error},
                              "cannot accept connections, will try again: %s", strerror(-error));
        server->accept_failing = true;
        server->accept_paused = true;
        timer_arm(server->accept_again, ACCEPT_PAUSE_USEC);
        update_listening(server);
}

/* After activity: on_status() sends the numbers to systemd, and looks for changed files. */
static void arm_status(Server *server) {
        if (!timer_is_armed(server->status))
                timer_arm(server->status, STATUS_USEC);
}

/* Return: true if a connection was accepted. One at a time: the next epoll_wait(2) tells whether
 * there are more, and costs less than an accept(2) that fails with EAGAIN. */
static bool accept_one(Server *server, int listen_fd) {
        int fd;

        if (!server->listening)
                return false;
        if (!connections_have_spare(server->connections)) {
                pause_accept(server, -ENOMEM);
                return false;
        }
        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
                if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
                        pause_accept(server, -errno);
                return false;
        }
        server->accept_failing = false;
        connections_add(server->connections, fd);
        arm_status(server); /* a silent client may be one of a Postfix that was upgraded just now */
        update_listening(server);
        return true;
}

/* --------------------------------------------------------------------------------------- turns */

/* Is anything ready for the next turn? */
static bool is_client_waiting(void *userdata) {
        const Server *server = userdata;
        struct pollfd p = {.fd = connections_fd(server->connections), .events = POLLIN};

        return poll(&p, 1, 0) > 0;
}

static bool is_listener(const Server *server, const void *ptr) {
        const int *fd = ptr;

        return fd >= server->listen_fds && fd < server->listen_fds + server->n_listen_fds;
}

/* Return: how many connections were accepted, or -1 if nothing was ready. */
static int poll_connections(Server *server, int fd) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(fd, events, EVENTS_MAX, 0), accepted = 0;

        for (int i = 0; i < n; i++) {
                void *ptr = events[i].data.ptr;

                if (is_listener(server, ptr))
                        accepted += accept_one(server, *(const int *) ptr);
                else
                        connections_on_event(ptr);
        }
        connections_make_room(server->connections);
        return n > 0 ? accepted : -1;
}

/* Return: true if anything was ready. New connections are accepted first: what earlier clients send
 * meanwhile makes the batch of adds larger. */
static bool take_what_is_ready(Server *server, int fd) {
        int n = 0, accepted;
        bool ready = false;

        do {
                accepted = poll_connections(server, fd);
                ready |= accepted >= 0;
                n += accepted;
        } while (accepted > 0 && n < ACCEPTS_MAX);
        ready |= connections_try_fresh(server->connections);
        if (ready)
                service_end_turn(server->service);
        return ready;
}

/* Takes everything that is ready, then writes all adds of it together and replies. Then it looks
 * again for SPIN_USEC: a client that has just read the announcement sends its request within
 * microseconds, and to sleep and wake up, or to wait for a slice of a job, would cost more. */
static int on_turn(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Server *server = userdata;
        uint64_t start = now_usec(), last = start, now;
        uint64_t longest = service_turn_usec(server->service, TURN_USEC);

        do {
                bool ready = take_what_is_ready(server, fd);

                if (!ready) /* the client that is waited for may need this CPU */
                        (void) sched_yield();
                now = now_usec();
                if (ready)
                        last = now;
        } while (now - last < SPIN_USEC && now - start < longest && server->listening);
        connections_watch_fresh(server->connections);
        server->active_usec = last;
        service_step(server->service);
        return 0;
}

/* ----------------------------------------------------------------- for connections and service */

static Server *server_of(const Call *call) {
        return connection_userdata(call);
}

static void on_finish(Call *call) {
        Server *server = server_of(call);

        server->n_requests++;
        server->active_usec = now_usec();
        arm_status(server);
        connection_finish(call);
}

static bool on_renew(Call *call) {
        Server *server = server_of(call);
        /* Somebody who asks for a self-test may have just repaired something. */
        bool anyway = call->request.kind == REQUEST_SELF_TEST;

        if (server->state >= SERVER_MOVED || (reload_in_vain(server->reload) && !anyway))
                return false;
        if (!reload_running(server->reload))
                reload_start(server->reload);
        return true;
}

static const ServiceCallbacks service_callbacks = {.reply = connection_reply,
                                                   .finish = on_finish,
                                                   .identify = connection_identify,
                                                   .renew = on_renew};

static void on_submit(Call *call, void *userdata) {
        Server *server = userdata;

        service_submit(server->service, call);
}

static void on_refuse(Call *call, RequestStatus status, const char *why, const char *bytes,
                      size_t n, void *userdata) {
        Server *server = userdata;

        service_refuse(server->service, call, status, why, bytes, n);
}

static void on_settle(void *userdata) {
        Server *server = userdata;

        service_end_turn(server->service);
}

static void on_closed(void *userdata) {
        update_listening(userdata);
}

static const ConnectionCallbacks connection_callbacks = {
        .submit = on_submit, .refuse = on_refuse, .settle = on_settle, .closed = on_closed};

/* -------------------------------------------------------------------------------------- status */

static void notify_status(const Server *server) {
        notify_send(&server->notify, "STATUS=%s%s%llu requests, %u open connections%s",
                    server->settings->problems || service_trouble_lasts(server->service)
                            ? "CONFIGURATION PROBLEM, see the journal. "
                            : "",
                    service_findings(server->service) > 0 ? "BROKEN, see fflushctl status. " : "",
                    (unsigned long long) server->n_requests, connections_count(server->connections),
                    server->state == SERVER_STOPPING ? ", stopping" : "");
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        notify_status(server);
        if (server->state >= SERVER_MOVED)
                return 0;
        if (service_is_at(server->service, server->settings->queue_directory) == 0)
                move_out(server);
        else if (service_outdated(server->service) && !reload_running(server->reload) &&
                 !reload_in_vain(server->reload))
                reload_start(server->reload);
        return 0;
}

/* ----------------------------------------------------------------------------------- reloading */

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

/* Descriptors that the work needs come first, whatever the limit: a client that is accepted is
 * served, and the others wait in the backlog. */
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
        n_sends = service_limit_sends(server->service, left / SENDS_SHARE);
        server->connections_max =
                left - n_sends < CONNECTIONS_MAX ? left - n_sends : CONNECTIONS_MAX;
        return 0;
}

static void set_max_idle(Server *server) {
        server->max_idle = server->settings->max_idle;
        if (server->under_systemd && server->max_idle < IDLE_USEC_MIN)
                server->max_idle = IDLE_USEC_MIN;
        timer_arm_at(server->idle, server->active_usec + server->max_idle);
}

static int on_take(const Settings *settings, void *userdata) {
        Server *server = userdata;
        int r;

        r = service_is_at(server->service, settings->queue_directory);
        if (r == 0 && access(settings->queue_directory, F_OK) < 0)
                r = -errno; /* it does not exist: stay with the present one */
        if (r < 0)
                return r;
        if (r == 0) {
                service_not_reconfigured(server->service, NULL, true);
                move_out(server);
                return -ECANCELED;
        }
        r = service_reconfigure(server->service, settings);
        if (r < 0)
                return r;
        if (!same(settings->problems, server->settings->problems))
                report_lines(LOG_ERR, settings->problems);
        journal_message(LOG_INFO, "the configuration was read anew, and is in use now");
        server->settings = settings;
        journal_set_names(settings->syslog_name, settings->instance);
        /* If there are too few for the new tables, it has written that, and clients may get FAIL.
         */
        (void) share_fds(server);
        set_max_idle(server);
        connections_configure(server->connections, settings);
        arm_status(server); /* the files may have changed while they were read */
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

/* One entry for each reason, however often it is tried. That main.cf is being edited is not an
 * error. */
static void on_fail(const Settings *settings, int error, bool in_vain, void *userdata) {
        Server *server = userdata;
        const Settings *current = server->settings;
        _cleanup_free_ char *trouble = describe(settings, error);
        bool told = !trouble || same(trouble, service_trouble(server->service)) ||
                    (current->incomplete && same(trouble, current->problems));

        if (!told) {
                report_lines(in_vain ? LOG_ERR : LOG_NOTICE, trouble);
                if (!current->incomplete)
                        journal_message(LOG_NOTICE,
                                        "serving with the configuration as it was before");
        }
        service_not_reconfigured(server->service, trouble, in_vain);
        arm_status(server);
}

static const ReloadCallbacks reload_callbacks = {.take = on_take, .fail = on_fail};

/* ------------------------------------------------------------------------------------ stopping */

static bool backlog_empty(const Server *server) {
        for (unsigned i = 0; i < server->n_listen_fds; i++) {
                struct pollfd p = {.fd = server->listen_fds[i], .events = POLLIN};

                if (poll(&p, 1, 0) != 0)
                        return false;
        }
        return true;
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;
        uint64_t now = now_usec(), due = server->active_usec + server->max_idle;

        if (now >= due && connections_count(server->connections) == 0 &&
            service_may_exit(server->service) && backlog_empty(server)) {
                journal_message(LOG_DEBUG, "idle for %llu s, leaving",
                                (unsigned long long) (server->max_idle / USEC_PER_SEC));
                return sd_event_exit(server->event, 0);
        }
        if (due <= now)
                due = now + server->max_idle;
        timer_arm_at(source, due);
        return 0;
}

/* Short work has finished by now. What has not been done stays recorded. */
static int on_stop_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        Server *server = userdata;

        server_set_state(server, SERVER_STOPPING); /* from MOVED, or it is already */
        service_cancel(server->service);
        connections_close_all(server->connections);
        return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Server *server = userdata;

        journal_message(LOG_DEBUG, "signal %u, leaving", si->ssi_signo);
        if (server->state == SERVER_STOPPING)
                return 0;
        notify_send(&server->notify, "STOPPING=1");
        server_set_state(server, SERVER_STOPPING);
        notify_status(server);
        return 0;
}

static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Server *server = userdata;

        if (server->state < SERVER_MOVED)
                reload_start(server->reload);
        return 0;
}

/* -------------------------------------------------------------------------------------- set-up */

/* systemd sets a low soft limit for programs that use select(2). */
static unsigned raise_fd_limit(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 0;
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit); /* if it fails, the present limit stays */
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

/* To be called when everything is open that stays open. */
static void count_fds(Server *server) {
        server->fds_limit = raise_fd_limit();
        server->fds_open = count_open_fds(server->fds_limit);
}

static int add_timers(Server *server) {
        const struct {
                sd_event_source **timer;
                sd_event_time_handler_t handler;
        } timers[] = {{&server->idle, on_idle},
                      {&server->accept_again, on_accept_again},
                      {&server->status, on_status},
                      {&server->drain, on_drain},
                      {&server->stop, on_stop_timeout}};
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(timers) && r >= 0; i++)
                r = timer_new(server->event, TIMER_ACCURACY_USEC, timers[i].handler, server,
                              timers[i].timer);
        return r;
}

static int add_signals(Server *server) {
        const struct {
                int signal;
                sd_event_signal_handler_t handler;
        } signals[] = {{SIGTERM, on_signal}, {SIGINT, on_signal}, {SIGHUP, on_hangup}};
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(signals) && r >= 0; i++)
                r = sd_event_add_signal(server->event, NULL, signals[i].signal, signals[i].handler,
                                        server);
        return r;
}

static void server_freep(Server **server) {
        server_free(*server);
}

int server_new(sd_event *event, const Settings *settings, const int *listen_fds, unsigned n_fds,
               Server **ret) {
        _cleanup_(server_freep) Server *server = calloc(1, sizeof *server);
        int r;

        if (!server)
                return -ENOMEM;
        server->event = event;
        server->notify.fd = -EBADF;
        server->settings = settings;
        server->listen_fds = listen_fds;
        server->n_listen_fds = n_fds;
        server->under_systemd = getenv("NOTIFY_SOCKET");
        r = connections_new(event, settings, &connection_callbacks, server, &server->connections);
        if (r < 0)
                return r;
        r = sd_event_add_io(event, &server->turn, connections_fd(server->connections), EPOLLIN,
                            on_turn, server);
        if (r < 0)
                return r;
        r = add_timers(server);
        if (r < 0)
                return r;
        r = add_signals(server);
        if (r < 0)
                return r;
        r = notify_init(&server->notify, event);
        if (r < 0)
                return r;
        r = service_new(event, settings, &service_callbacks, &server->service);
        if (r < 0)
                return r;
        r = reload_new(event, settings, &reload_callbacks, server, &server->reload);
        if (r < 0)
                return r;
        service_give_way(server->service, is_client_waiting, server);
        count_fds(server);
        r = share_fds(server);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(server);
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
        if (!server)
                return NULL;
        if (server->connections)
                connections_close_all(server->connections);
        service_free(server->service);
        reload_free(server->reload);
        sd_event_source_disable_unref(server->turn); /* before its descriptor is closed */
        connections_free(server->connections);
        sd_event_source_disable_unref(server->idle);
        sd_event_source_disable_unref(server->accept_again);
        sd_event_source_disable_unref(server->status);
        sd_event_source_disable_unref(server->drain);
        sd_event_source_disable_unref(server->stop);
        notify_done(&server->notify);
        free(server);
        return NULL;
}
