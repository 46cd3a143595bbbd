/* SPDX-License-Identifier: MIT */

#include "ctl/client.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define SOON_USEC (100 * USEC_PER_MSEC)
#define LONG_USEC (20 * USEC_PER_SEC) /* no test waits for this */

/* Bytes of a string literal with NULs in it, but for the one that C adds. */
#define BYTES(text)  (text), sizeof(text) - 1

#define ANNOUNCEMENT "protocol\0private/flush\0\0"
#define REPLY_OK                                                                                   \
        "status\0"                                                                                 \
        "0\0\0"
#define REPLY_BAD                                                                                  \
        "status\0"                                                                                 \
        "3\0\0"

static int ours, theirs; /* both ends of a connection */
static RequestStatus status;
static RequestCounts counts;
static bool has_counts;

static void setup(void) {
        int fds[2];

        spool_setup();
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ours = fds[0];
        theirs = fds[1];
        status = REQUEST_FAIL;
}

static void teardown(void) {
        closep(&ours);
        closep(&theirs);
        spool_teardown();
}

static void answer(const char *bytes, size_t n) {
        ck_assert_int_eq(send(theirs, bytes, n, MSG_NOSIGNAL), (ssize_t) n);
}

static void hang_up(void) {
        closep(&theirs);
        theirs = -EBADF;
}

static int ask_for(uint64_t timeout_usec) {
        const Request request = {
                .kind = REQUEST_ADD, .site = "a.example", .queue_id = "ABCDEF0123"};

        return client_ask(ours, &request, &(ClientWait){.timeout_usec = timeout_usec}, &status,
                          &counts, &has_counts);
}

/* ------------------------------------------------------------------------ one connection */

START_TEST(a_request_gets_its_reply) {
        char request[256];

        answer(BYTES(REPLY_OK));
        ck_assert_int_eq(ask_for(LONG_USEC), 0);
        ck_assert_int_eq(status, REQUEST_OK);
        ck_assert(!has_counts);
        ck_assert_int_gt(recv(theirs, request, sizeof request, 0), 0);
        ck_assert_str_eq(request, "request");
}
END_TEST

START_TEST(flush_8_announces_itself_first) {
        answer(BYTES(ANNOUNCEMENT REPLY_BAD));
        ck_assert_int_eq(ask_for(LONG_USEC), 0);
        ck_assert_int_eq(status, REQUEST_BAD);
}
END_TEST

static void *answer_in_pieces(void *userdata) {
        static const char bytes[] = ANNOUNCEMENT REPLY_OK;

        for (size_t i = 0; i < sizeof bytes - 1; i++) {
                (void) send(theirs, bytes + i, 1, MSG_NOSIGNAL);
                (void) usleep(1000);
        }
        return NULL;
}

START_TEST(a_reply_may_come_byte_by_byte) {
        pthread_t thread;

        ck_assert_int_eq(pthread_create(&thread, NULL, answer_in_pieces, NULL), 0);
        ck_assert_int_eq(ask_for(LONG_USEC), 0);
        (void) pthread_join(thread, NULL);
        ck_assert_int_eq(status, REQUEST_OK);
}
END_TEST

START_TEST(what_never_answers_is_given_up_in_time) {
        uint64_t begun = now_usec();

        ck_assert_int_eq(ask_for(SOON_USEC), -ETIMEDOUT);
        ck_assert_uint_ge(now_usec() - begun, SOON_USEC);
}
END_TEST

START_TEST(part_of_a_reply_does_not_prolong_the_wait) {
        answer(BYTES("status\0"));
        ck_assert_int_eq(ask_for(SOON_USEC), -ETIMEDOUT);
}
END_TEST

static void do_nothing(int sig) {
}

START_TEST(signals_do_not_end_a_wait) {
        const struct sigaction action = {.sa_handler = do_nothing};
        const struct itimerval every = {{.tv_usec = 5000}, {.tv_usec = 5000}}, off = {0};
        uint64_t begun = now_usec();

        ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
        ck_assert_int_eq(setitimer(ITIMER_REAL, &every, NULL), 0);
        ck_assert_int_eq(ask_for(SOON_USEC), -ETIMEDOUT);
        ck_assert_int_eq(setitimer(ITIMER_REAL, &off, NULL), 0);
        ck_assert_uint_ge(now_usec() - begun, SOON_USEC);
}
END_TEST

START_TEST(a_connection_that_is_closed_has_no_reply) {
        ck_assert_int_eq(shutdown(theirs, SHUT_WR), 0);
        ck_assert_int_eq(ask_for(LONG_USEC), -ECONNRESET);
        hang_up();
        ck_assert_int_lt(ask_for(LONG_USEC), 0);
}
END_TEST

/* Source: spec 1.4: a server may refuse a request before it has read it. */
START_TEST(a_refusal_counts_although_the_request_was_not_taken) {
        answer(BYTES(REPLY_BAD));
        ck_assert_int_eq(shutdown(ours, SHUT_WR), 0);
        ck_assert_int_eq(ask_for(LONG_USEC), 0);
        ck_assert_int_eq(status, REQUEST_BAD);
}
END_TEST

START_TEST(what_is_not_a_reply_is_not_taken_for_one) {
        answer(BYTES("status\0okay\0\0"));
        ck_assert_int_eq(ask_for(LONG_USEC), -EBADMSG);
}
END_TEST

static void count_call(uint64_t usec, void *userdata) {
        ++*(unsigned *) userdata;
}

START_TEST(progress_is_shown_while_nothing_comes) {
        const Request request = {.kind = REQUEST_REFRESH};
        unsigned calls = 0;
        const ClientWait wait = {
                .timeout_usec = 1200 * USEC_PER_MSEC, .progress = count_call, .userdata = &calls};

        ck_assert_int_eq(client_ask(ours, &request, &wait, &status, &counts, &has_counts),
                         -ETIMEDOUT);
        ck_assert_uint_eq(calls, 1);
}
END_TEST

/* ----------------------------------------------------------------------------- a server */

/* For each connection in turn: what it says once it has read a request, before it hangs up. */
typedef struct Script {
        const char *bytes;
        size_t n;
} Script;

typedef struct Server {
        int fd;
        pthread_t thread;
        const Script *scripts;
        size_t n_scripts;
        bool was_plain;
} Server;

static void *serve(void *userdata) {
        Server *server = userdata;
        char request[512];

        for (size_t i = 0; i < server->n_scripts; i++) {
                int fd = accept(server->fd, NULL, NULL);

                if (recv(fd, request, sizeof request, 0) > 0)
                        server->was_plain = streq(request, "request");
                (void) send(fd, server->scripts[i].bytes, server->scripts[i].n, MSG_NOSIGNAL);
                (void) close(fd);
        }
        return NULL;
}

static char path[sizeof((struct sockaddr_un *) NULL)->sun_path];

static void begin_server(Server *server, const Script *scripts, size_t n) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};

        (void) snprintf(path, sizeof path, "%s/socket", spool_dir);
        (void) snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
        *server = (Server){.scripts = scripts, .n_scripts = n};
        server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(server->fd, (const struct sockaddr *) &sa, sizeof sa), 0);
        ck_assert_int_eq(listen(server->fd, 64), 0);
        if (n > 0)
                ck_assert_int_eq(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void end_server(Server *server) {
        if (server->n_scripts > 0)
                (void) pthread_join(server->thread, NULL);
        closep(&server->fd);
}

static int work(bool detail) {
        const Request request = {.kind = REQUEST_REFRESH, .detail = detail};
        _cleanup_close_ int fd = client_connect(path, LONG_USEC);

        ck_assert_int_ge(fd, 0);
        return client_work(fd, path, &request, &(ClientWait){.timeout_usec = LONG_USEC}, &status,
                           &counts, &has_counts);
}

START_TEST(flush_8_is_asked_again_without_extensions) {
        static const Script scripts[] = {{BYTES(ANNOUNCEMENT REPLY_BAD)},
                                         {BYTES(ANNOUNCEMENT REPLY_OK)}};
        Server server;

        begin_server(&server, scripts, ARRAY_SIZE(scripts));
        ck_assert_int_eq(work(true), 0);
        end_server(&server);
        ck_assert_int_eq(status, REQUEST_OK);
        ck_assert(server.was_plain);
        ck_assert(!has_counts);
}
END_TEST

START_TEST(flush_8_may_close_without_a_reply_before_it_is_asked_again) {
        static const Script scripts[] = {{BYTES(ANNOUNCEMENT)}, {BYTES(ANNOUNCEMENT REPLY_OK)}};
        Server server;

        begin_server(&server, scripts, ARRAY_SIZE(scripts));
        ck_assert_int_eq(work(true), 0);
        end_server(&server);
        ck_assert_int_eq(status, REQUEST_OK);
}
END_TEST

START_TEST(the_second_reply_of_a_refresh_is_its_end) {
        static const Script scripts[] = {{BYTES(REPLY_OK "status\0"
                                                         "4294967295\0\0")}};
        Server server;

        begin_server(&server, scripts, ARRAY_SIZE(scripts));
        ck_assert_int_eq(work(true), 0);
        end_server(&server);
        ck_assert_int_eq(status, REQUEST_FAIL);
}
END_TEST

START_TEST(a_full_backlog_of_a_server_that_hangs_times_out) {
        int fds[70], n = 0, r;
        Server server;

        begin_server(&server, NULL, 0);
        do
                r = fds[n] = client_connect(path, SOON_USEC);
        while (r >= 0 && ++n < (int) ARRAY_SIZE(fds));
        ck_assert_int_eq(r, -ETIMEDOUT);
        while (n > 0)
                (void) close(fds[--n]);
        end_server(&server);
}
END_TEST

START_TEST(a_socket_without_a_listener_refuses) {
        Server server;

        ck_assert_int_eq(client_connect("/nonexistent/socket", SOON_USEC), -ENOENT);
        begin_server(&server, NULL, 0);
        end_server(&server);
        ck_assert_int_eq(client_connect(path, SOON_USEC), -ECONNREFUSED);
}
END_TEST

/* ------------------------------------------------------------------------------- many */

typedef struct Many {
        unsigned n_begun, n_ok, n_timed_out, total;
} Many;

static bool next(Request *ret, void **ret_item, void *userdata) {
        Many *many = userdata;

        if (many->n_begun == many->total)
                return false;
        many->n_begun++;
        *ret = (Request){.kind = REQUEST_ADD, .site = "a.example", .queue_id = "ABCDEF0123"};
        return true;
}

static void done(void *item, const ClientAnswer *a, void *userdata) {
        Many *many = userdata;

        many->n_ok += a->error == 0 && a->status == REQUEST_OK;
        many->n_timed_out += a->error == -ETIMEDOUT;
}

START_TEST(each_of_many_requests_is_answered_once) {
        static Script scripts[100];
        Many many = {.total = ARRAY_SIZE(scripts)};
        Server server;

        for (size_t i = 0; i < ARRAY_SIZE(scripts); i++)
                scripts[i] = (Script){BYTES(ANNOUNCEMENT REPLY_OK)};
        begin_server(&server, scripts, ARRAY_SIZE(scripts));
        ck_assert_int_eq(
                client_ask_all(path, LONG_USEC,
                               &(ClientBatch){.next = next, .done = done, .userdata = &many}),
                0);
        end_server(&server);
        ck_assert_uint_eq(many.n_ok, many.total);
}
END_TEST

START_TEST(many_requests_time_out_each_for_itself) {
        Many many = {.total = 5};
        Server server;

        begin_server(&server, NULL, 0);
        ck_assert_int_eq(
                client_ask_all(path, SOON_USEC,
                               &(ClientBatch){.next = next, .done = done, .userdata = &many}),
                0);
        end_server(&server);
        ck_assert_uint_eq(many.n_timed_out, many.total);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("client");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_request_gets_its_reply);
        tcase_add_test(tc, flush_8_announces_itself_first);
        tcase_add_test(tc, a_reply_may_come_byte_by_byte);
        tcase_add_test(tc, what_never_answers_is_given_up_in_time);
        tcase_add_test(tc, part_of_a_reply_does_not_prolong_the_wait);
        tcase_add_test(tc, signals_do_not_end_a_wait);
        tcase_add_test(tc, a_connection_that_is_closed_has_no_reply);
        tcase_add_test(tc, a_refusal_counts_although_the_request_was_not_taken);
        tcase_add_test(tc, what_is_not_a_reply_is_not_taken_for_one);
        tcase_add_test(tc, progress_is_shown_while_nothing_comes);
        tcase_add_test(tc, flush_8_is_asked_again_without_extensions);
        tcase_add_test(tc, flush_8_may_close_without_a_reply_before_it_is_asked_again);
        tcase_add_test(tc, the_second_reply_of_a_refresh_is_its_end);
        tcase_add_test(tc, a_full_backlog_of_a_server_that_hangs_times_out);
        tcase_add_test(tc, a_socket_without_a_listener_refuses);
        tcase_add_test(tc, each_of_many_requests_is_answered_once);
        tcase_add_test(tc, many_requests_time_out_each_for_itself);
        return run_case("client", tc);
}
