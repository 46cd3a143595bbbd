/* SPDX-License-Identifier: MIT */

#include "daemon/connection.h"

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define BYTES(s) (s), sizeof(s) - 1 /* without the NUL of C */
#define ADD      "request\0add\0site\0example.com\0queue_id\0ABC123\0\0"
#define STATUS   "status\0"
#define BAD      STATUS "3\0\0"
#define OK       STATUS "0\0\0"
#define FAR_USEC (60 * USEC_PER_SEC)

static sd_event *event;
static Settings settings;
static Connections *pool;
static Call *submitted; /* the last one, until it is finished */
static unsigned n_submitted, n_refused, n_closed, n_settled;
static RequestStatus refused_with;
static char why_refused[128];
static size_t n_bytes_refused;

static void on_submit(Call *call, void *userdata) {
        ck_assert_ptr_eq(userdata, &settings);
        ck_assert_ptr_eq(connection_userdata(call), &settings);
        submitted = call;
        n_submitted++;
}

static void on_refuse(Call *call, RequestStatus status, const char *why, const char *bytes,
                      size_t n, void *userdata) {
        ck_assert_ptr_eq(userdata, &settings);
        n_refused++;
        refused_with = call->status = status;
        (void) snprintf(why_refused, sizeof why_refused, "%s", why);
        n_bytes_refused = n;
        connection_reply(call);
        connection_finish(call);
}

static void on_settle(void *userdata) {
        n_settled++;
}

static void on_closed(void *userdata) {
        n_closed++;
}

static const ConnectionCallbacks callbacks = {
        .submit = on_submit, .refuse = on_refuse, .settle = on_settle, .closed = on_closed};

static void setup(void) {
        ck_assert_int_ge(sd_event_new(&event), 0);
        settings = (Settings){.ipc_timeout = FAR_USEC, .request_timeout = FAR_USEC};
        ck_assert_int_eq(connections_new(event, &settings, &callbacks, &settings, &pool), 0);
        submitted = NULL;
        n_submitted = n_refused = n_closed = n_settled = 0;
        why_refused[0] = '\0';
}

static void teardown(void) {
        pool = connections_free(pool);
        event = sd_event_unref(event);
}

/* Return: the client's end of a new connection. */
static int connect_client(void) {
        int fds[2];

        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
                         0);
        ck_assert(connections_have_spare(pool));
        connections_add(pool, fds[0]);
        return fds[1];
}

/* What the server does in a turn: all that is ready, and then timers. */
static unsigned turn(int timeout_msec) {
        struct epoll_event events[64];
        int n;

        (void) connections_try_fresh(pool);
        connections_watch_fresh(pool);
        n = epoll_wait(connections_fd(pool), events, ARRAY_SIZE(events), timeout_msec);
        for (int i = 0; i < n; i++)
                connections_on_event(events[i].data.ptr);
        connections_make_room(pool);
        ck_assert_int_ge(sd_event_run(event, 0), 0);
        return n > 0 ? (unsigned) n : 0;
}

static void say(int fd, const char *bytes, size_t n) {
        ck_assert_int_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t) n);
}

static void expect_bytes(int fd, const char *bytes, size_t n) {
        char buf[512];

        ck_assert_int_eq(recv(fd, buf, sizeof buf, 0), (ssize_t) n);
        ck_assert_mem_eq(buf, bytes, n);
}

static void expect_nothing(int fd) {
        char c;

        ck_assert_int_eq(recv(fd, &c, 1, 0), -1);
        ck_assert_int_eq(errno, EAGAIN);
}

static void expect_end(int fd) {
        char c;

        ck_assert_int_eq(recv(fd, &c, 1, 0), 0);
}

static void run_until_closed(unsigned n, uint64_t limit_usec) {
        uint64_t until = now_usec() + limit_usec;

        while (n_closed < n && now_usec() < until)
                (void) turn(10);
        ck_assert_uint_eq(n_closed, n);
}

/* ------------------------------------------------------------------------- requests */

START_TEST(a_whole_request_is_submitted_and_answered) {
        _cleanup_close_ int fd = connect_client();

        ck_assert_uint_eq(connections_count(pool), 1);
        say(fd, BYTES(ADD));
        (void) turn(0);
        ck_assert_uint_eq(n_submitted, 1);
        ck_assert_str_eq(submitted->request.site, "example.com");
        ck_assert_str_eq(submitted->request.queue_id, "ABC123");
        connection_identify(submitted);
        ck_assert_int_eq(submitted->caller.pid, getpid());
        ck_assert_uint_eq(submitted->caller.uid, geteuid());
        expect_nothing(fd);
        submitted->status = REQUEST_OK;
        connection_reply(submitted);
        expect_bytes(fd, BYTES(OK));
        expect_nothing(fd);
        connection_finish(submitted);
        expect_end(fd);
        ck_assert_uint_eq(n_closed, 1);
        ck_assert_uint_eq(connections_count(pool), 0);
}
END_TEST

START_TEST(a_request_may_come_byte_by_byte) {
        static const char bytes[] = ADD;
        _cleanup_close_ int fd = connect_client();

        for (size_t i = 0; i < sizeof bytes - 1; i++) {
                ck_assert_uint_eq(n_submitted, 0);
                say(fd, bytes + i, 1);
                (void) turn(0);
        }
        ck_assert_uint_eq(n_submitted, 1);
        ck_assert_str_eq(submitted->request.queue_id, "ABC123");
}
END_TEST

START_TEST(counts_are_sent_to_a_client_that_wants_them) {
        _cleanup_close_ int plain = connect_client(), detailed = connect_client();
        char buf[512];
        ssize_t n;

        say(plain, BYTES("request\0send_site\0site\0example.com\0\0"));
        say(detailed, BYTES("request\0send_site\0site\0example.com\0detail\0"
                            "1\0\0"));
        (void) turn(0);
        ck_assert_uint_eq(n_submitted, 2);
        ck_assert(submitted->request.detail);
        submitted->counts.moved = 7;
        submitted->has_counts = true;
        connection_reply(submitted);
        n = recv(detailed, buf, sizeof buf, 0);
        ck_assert_int_gt(n, (ssize_t) sizeof OK);
        ck_assert_ptr_nonnull(memmem(buf, (size_t) n,
                                     BYTES("moved\0"
                                           "7\0")));
        expect_nothing(plain);
}
END_TEST

START_TEST(the_protocol_is_announced_if_it_is_to_be) {
        _cleanup_close_ int silent = connect_client(), fd = -EBADF;

        settings.announce = true;
        fd = connect_client();
        expect_bytes(fd, REQUEST_ANNOUNCEMENT, REQUEST_ANNOUNCEMENT_SIZE);
        expect_nothing(silent);
}
END_TEST

START_TEST(clients_that_wait_for_an_announcement_get_it_late) {
        _cleanup_close_ int silent = connect_client(), speaks = connect_client(), fd = -EBADF;
        Settings other = settings;

        say(speaks, BYTES("request\0add\0"));
        (void) turn(0);
        other.announce = true;
        connections_configure(pool, &other);
        expect_bytes(silent, REQUEST_ANNOUNCEMENT, REQUEST_ANNOUNCEMENT_SIZE);
        expect_nothing(speaks);
        connections_configure(pool, &other);
        expect_nothing(silent); /* once */
        fd = connect_client();
        expect_bytes(fd, REQUEST_ANNOUNCEMENT, REQUEST_ANNOUNCEMENT_SIZE);
        connections_configure(pool, &settings);
}
END_TEST

/* ----------------------------------------------------------------------- the end of it */

START_TEST(a_client_that_closes_without_a_word_is_told_bad_and_not_reported) {
        _cleanup_close_ int fd = connect_client();

        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        (void) turn(0);
        expect_bytes(fd, BYTES(BAD));
        expect_end(fd);
        ck_assert_uint_eq(n_submitted + n_refused, 0);
        ck_assert_uint_eq(n_closed, 1);
}
END_TEST

START_TEST(half_a_request_at_the_end_is_malformed) {
        _cleanup_close_ int fd = connect_client();

        say(fd, BYTES("request\0add\0site\0exam"));
        (void) turn(0);
        ck_assert_uint_eq(n_refused, 0);
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        (void) turn(100);
        ck_assert_uint_eq(n_refused, 1);
        ck_assert_int_eq(refused_with, REQUEST_BAD);
        ck_assert_uint_eq(n_bytes_refused, sizeof "request\0add\0site\0exam" - 1);
        expect_bytes(fd, BYTES(BAD));
}
END_TEST

START_TEST(what_is_too_long_is_refused) {
        _cleanup_close_ int fd = connect_client();
        static char bytes[ATTR_LIST_MAX + 1];

        memset(bytes, 'a', sizeof bytes);
        memcpy(bytes, BYTES("request\0add\0site\0"));
        say(fd, bytes, sizeof bytes);
        for (int i = 0; i < 100 && n_refused == 0; i++)
                (void) turn(100);
        ck_assert_int_eq(refused_with, REQUEST_BAD);
        ck_assert_str_eq(why_refused, "longer than 65536 bytes");
        expect_bytes(fd, BYTES(BAD));
}
END_TEST

/* Postfix's clients would take an error of the socket for a service that is not there. */
START_TEST(a_client_that_is_refused_can_go_on_sending_and_reads_why) {
        _cleanup_close_ int fd = connect_client();
        char bytes[4096] = {0};

        say(fd, BYTES("request\0nonsense\0\0"));
        (void) turn(0);
        ck_assert_uint_eq(n_refused, 1);
        for (int i = 0; i < 32; i++) {
                say(fd, bytes, sizeof bytes);
                (void) turn(0);
        }
        expect_bytes(fd, BYTES(BAD));
        expect_end(fd); /* of what the service has to say */
        ck_assert_uint_eq(n_closed, 0);
        closep(&fd);
        fd = -EBADF;
        (void) turn(100);
        ck_assert_uint_eq(n_closed, 1);
}
END_TEST

START_TEST(a_refused_client_that_stays_is_closed_after_a_while) {
        _cleanup_close_ int fd = connect_client();
        uint64_t start = now_usec();

        say(fd, BYTES("request\0nonsense\0\0"));
        run_until_closed(1, 30 * USEC_PER_SEC);
        ck_assert_uint_ge(now_usec() - start, USEC_PER_SEC);
}
END_TEST

START_TEST(a_refused_client_cannot_send_for_ever) {
        _cleanup_close_ int fd = connect_client();
        uint64_t until = now_usec() + 30 * USEC_PER_SEC;
        char bytes[16384] = {0};
        size_t n_sent = 0;

        say(fd, BYTES("request\0nonsense\0\0"));
        (void) turn(0);
        while (n_closed == 0 && now_usec() < until) {
                ssize_t n = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);

                n_sent += n > 0 ? (size_t) n : 0;
                (void) turn(0);
        }
        ck_assert_uint_eq(n_closed, 1);
        ck_assert_uint_ge(n_sent, 64u * 1024); /* one that stops soon is not cut off */
        ck_assert_uint_le(n_sent, 5u * 1024 * 1024);
}
END_TEST

/* ------------------------------------------------------------------------- deadlines */

START_TEST(a_silent_client_is_refused_in_time) {
        _cleanup_close_ int fd = -EBADF;
        uint64_t start = now_usec();

        settings.ipc_timeout = 200 * USEC_PER_MSEC;
        fd = connect_client();
        while (n_refused == 0 && now_usec() - start < 30 * USEC_PER_SEC)
                (void) turn(10);
        ck_assert_uint_ge(now_usec() - start, 200 * USEC_PER_MSEC);
        ck_assert_int_eq(refused_with, REQUEST_BAD);
        ck_assert_str_eq(why_refused, "nothing was sent in time");
        ck_assert_uint_ge(n_settled, 1); /* what that led to can be answered */
        expect_bytes(fd, BYTES(BAD));
}
END_TEST

START_TEST(half_a_request_is_closed_without_a_word) {
        _cleanup_close_ int fd = -EBADF;

        settings.ipc_timeout = 100 * USEC_PER_MSEC;
        fd = connect_client();
        say(fd, BYTES("request\0add\0"));
        run_until_closed(1, 30 * USEC_PER_SEC);
        ck_assert_uint_eq(n_refused + n_submitted, 0);
        expect_end(fd);
}
END_TEST

/* One byte now and then puts off the time-out of silence, but not that of the whole request. */
START_TEST(a_slow_client_has_the_time_of_a_request_and_no_more) {
        _cleanup_close_ int fd = -EBADF;
        uint64_t start = now_usec(), sent = 0;

        settings.ipc_timeout = 700 * USEC_PER_MSEC; /* of silence; a busy machine makes some */
        settings.request_timeout = 800 * USEC_PER_MSEC;
        fd = connect_client();
        while (n_closed == 0 && now_usec() - start < 30 * USEC_PER_SEC) {
                if (now_usec() - sent >= 20 * USEC_PER_MSEC) {
                        (void) send(fd, "r", 1, MSG_NOSIGNAL);
                        sent = now_usec();
                }
                (void) turn(20);
        }
        ck_assert_uint_eq(n_closed, 1);
        ck_assert_uint_ge(now_usec() - start, 800 * USEC_PER_MSEC);
        ck_assert_uint_eq(n_refused + n_submitted, 0);
}
END_TEST

START_TEST(a_request_that_is_worked_on_has_no_deadline_here) {
        _cleanup_close_ int fd = -EBADF, silent = -EBADF;

        settings.ipc_timeout = settings.request_timeout = 100 * USEC_PER_MSEC;
        fd = connect_client();
        silent = connect_client();
        say(fd, BYTES(ADD));
        (void) turn(0);
        ck_assert_uint_eq(n_submitted, 1);
        while (n_refused == 0)
                (void) turn(10); /* the silent one's */
        for (int i = 0; i < 20; i++)
                (void) turn(10);
        expect_nothing(fd);
        submitted->status = REQUEST_OK;
        connection_reply(submitted);
        expect_bytes(fd, BYTES(OK));
}
END_TEST

/* Else it would wake the service over and over until its reply. */
START_TEST(a_client_that_hangs_up_during_the_work_is_not_heard) {
        int fd = connect_client();

        (void) turn(0); /* from now on epoll watches it */
        say(fd, BYTES(ADD));
        (void) turn(0);
        ck_assert_uint_eq(n_submitted, 1);
        closep(&fd);
        for (int i = 0; i < 3; i++)
                ck_assert_uint_eq(turn(10), 0);
        ck_assert_uint_eq(n_closed, 0);
        submitted->status = REQUEST_OK;
        connection_reply(submitted); /* to nobody, and without SIGPIPE */
        connection_finish(submitted);
        ck_assert_uint_eq(n_closed, 1);
}
END_TEST

START_TEST(who_is_silent_does_not_keep_a_process_that_has_to_go) {
        _cleanup_close_ int fd = connect_client();
        uint64_t start = now_usec();

        connections_hurry(pool, start);
        while (n_refused == 0 && now_usec() - start < 30 * USEC_PER_SEC)
                (void) turn(10);
        ck_assert_uint_ge(now_usec() - start, 3 * USEC_PER_SEC);
        ck_assert_uint_eq(n_refused, 1);
        expect_bytes(fd, BYTES(BAD));
}
END_TEST

/* ---------------------------------------------------------------------------- memory */

START_TEST(the_oldest_of_too_many_long_requests_are_closed) {
        enum { N = 300, LENGTH = 60000 };
        struct rlimit limit;
        static char bytes[LENGTH];
        static int fds[N];
        _cleanup_close_ int whole = -EBADF, brief = -EBADF;

        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        memset(bytes, 'a', sizeof bytes);
        memcpy(bytes, BYTES("request\0send_site\0site\0"));

        brief = connect_client(); /* takes no memory of its own */
        say(brief, BYTES("request\0add\0"));
        whole = connect_client(); /* and this one is not half a request */
        bytes[LENGTH - 2] = bytes[LENGTH - 1] = '\0';
        say(whole, bytes, LENGTH);
        (void) turn(0);
        for (int i = 0; i < 10; i++)
                (void) turn(0);
        ck_assert_uint_eq(n_submitted, 1);
        bytes[LENGTH - 2] = bytes[LENGTH - 1] = 'a';
        for (int i = 0; i < N; i++) {
                fds[i] = connect_client();
                say(fds[i], bytes, LENGTH);
                for (int j = 0; j < 8; j++)
                        (void) turn(0);
        }
        ck_assert_uint_ge(n_closed, N - 16 * 1024 * 1024 / LENGTH);
        ck_assert_uint_lt(n_closed, N / 2);
        expect_nothing(brief);
        expect_nothing(whole);
        for (int i = 0; i < N; i++) {
                char c;
                ssize_t n = recv(fds[i], &c, 1, 0);

                ck_assert(((unsigned) i < n_closed) == (n == 0 || errno == ECONNRESET));
                closep(&fds[i]);
        }
}
END_TEST

START_TEST(all_can_be_closed_at_once) {
        _cleanup_close_ int a = connect_client(), b = connect_client(), c = connect_client();

        say(a, BYTES(ADD));
        say(b, BYTES("request\0"));
        (void) turn(0);
        say(c, BYTES("request\0nonsense\0\0"));
        (void) turn(100);
        connections_close_all(pool);
        ck_assert_uint_eq(connections_count(pool), 0);
        ck_assert_uint_eq(n_closed, 3);
        expect_end(a);
        expect_end(b);
}
END_TEST

static TCase *requests(void) {
        TCase *tc = tcase_create("requests");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_whole_request_is_submitted_and_answered);
        tcase_add_test(tc, a_request_may_come_byte_by_byte);
        tcase_add_test(tc, counts_are_sent_to_a_client_that_wants_them);
        tcase_add_test(tc, the_protocol_is_announced_if_it_is_to_be);
        tcase_add_test(tc, clients_that_wait_for_an_announcement_get_it_late);
        return tc;
}

static TCase *ends(void) {
        TCase *tc = tcase_create("ends");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_set_timeout(tc, 60);
        tcase_add_test(tc, a_client_that_closes_without_a_word_is_told_bad_and_not_reported);
        tcase_add_test(tc, half_a_request_at_the_end_is_malformed);
        tcase_add_test(tc, what_is_too_long_is_refused);
        tcase_add_test(tc, a_client_that_is_refused_can_go_on_sending_and_reads_why);
        tcase_add_test(tc, a_refused_client_that_stays_is_closed_after_a_while);
        tcase_add_test(tc, a_refused_client_cannot_send_for_ever);
        return tc;
}

static TCase *deadlines(void) {
        TCase *tc = tcase_create("deadlines");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_set_timeout(tc, 60);
        tcase_add_test(tc, a_silent_client_is_refused_in_time);
        tcase_add_test(tc, half_a_request_is_closed_without_a_word);
        tcase_add_test(tc, a_slow_client_has_the_time_of_a_request_and_no_more);
        tcase_add_test(tc, a_request_that_is_worked_on_has_no_deadline_here);
        tcase_add_test(tc, a_client_that_hangs_up_during_the_work_is_not_heard);
        tcase_add_test(tc, who_is_silent_does_not_keep_a_process_that_has_to_go);
        return tc;
}

static TCase *memory(void) {
        TCase *tc = tcase_create("memory");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_set_timeout(tc, 60);
        tcase_add_test(tc, the_oldest_of_too_many_long_requests_are_closed);
        tcase_add_test(tc, all_can_be_closed_at_once);
        return tc;
}

int main(void) {
        return run_cases("connection", (TCase *[]){requests(), ends(), deadlines(), memory()}, 4);
}
