/* SPDX-License-Identifier: MIT */

#include "core/qmgr.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/trigger.h"
#include "tests/lib/spool.h"
#include "util/util.h"

static int trigger(char request) {
        return qmgr_trigger(spool_fd, "public/qmgr", request);
}

/* A socket at public/qmgr that nobody listens on yet. */
static int bind_qmgr(void) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "public/qmgr"};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(fchdir(spool_fd), 0);
        ck_assert_int_eq(bind(fd, (const struct sockaddr *) &sa, sizeof sa), 0);
        return fd;
}

START_TEST(a_fifo_gets_the_byte_alone) {
        spool_listen();
        ck_assert_int_eq(trigger(QMGR_FLUSH_DEAD), 0);
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), 0);
        ck_assert_str_eq(spool_triggers(), "FI");
}
END_TEST

START_TEST(a_socket_gets_a_nul_as_well) {
        _cleanup_close_ int listen_fd = bind_qmgr(), fd = -EBADF;
        char buf[8];

        ck_assert_int_eq(listen(listen_fd, 1), 0);
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), 0);
        fd = accept(listen_fd, NULL, NULL); /* after the sender has gone */
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(read(fd, buf, sizeof buf), 2);
        ck_assert_mem_eq(buf, "I\0", 2);
        ck_assert_int_eq(read(fd, buf, sizeof buf), 0);
}
END_TEST

START_TEST(a_probe_says_nothing_and_knows_the_same) {
        _cleanup_close_ int listen_fd = bind_qmgr(), fd = -EBADF;
        char byte;

        ck_assert_int_eq(qmgr_probe(spool_fd, "public/qmgr"), -ECONNREFUSED);
        ck_assert_int_eq(listen(listen_fd, 1), 0);
        ck_assert_int_eq(qmgr_probe(spool_fd, "public/qmgr"), 0);
        fd = accept(listen_fd, NULL, NULL);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(read(fd, &byte, 1), 0);
        ck_assert_int_eq(unlinkat(spool_fd, "public/qmgr", 0), 0);
        ck_assert_int_eq(qmgr_probe(spool_fd, "public/qmgr"), -ENOENT);
        spool_listen();
        ck_assert_int_eq(qmgr_probe(spool_fd, "public/qmgr"), 0);
        ck_assert_str_eq(spool_triggers(), "");
        ck_assert_int_eq(qmgr_probe(spool_fd, "public"), -EPROTOTYPE);
}
END_TEST

START_TEST(no_endpoint_has_its_errno) {
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), -ENOENT);
}
END_TEST

START_TEST(a_socket_nobody_listens_on_has_its_errno) {
        _cleanup_close_ int fd = bind_qmgr();

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), -ECONNREFUSED);
}
END_TEST

START_TEST(a_full_backlog_does_not_block) {
        _cleanup_close_ int listen_fd = bind_qmgr();
        int r = 0;

        ck_assert_int_eq(listen(listen_fd, 1), 0);
        for (int i = 0; i < 100 && r == 0; i++)
                r = trigger(QMGR_SCAN_INCOMING);
        ck_assert_int_eq(r, -EAGAIN);
}
END_TEST

START_TEST(a_fifo_nobody_reads_has_its_errno) {
        ck_assert_int_eq(mkfifoat(spool_fd, "public/qmgr", 0600), 0);
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), -ENXIO);
}
END_TEST

START_TEST(a_full_fifo_does_not_block) {
        int r = 0;

        spool_listen();
        for (int i = 0; i < 1000000 && r == 0; i++)
                r = trigger(QMGR_SCAN_INCOMING);
        ck_assert_int_eq(r, -EAGAIN);
}
END_TEST

START_TEST(a_symbolic_link_is_not_followed) {
        spool_listen();
        ck_assert_int_eq(renameat(spool_fd, "public/qmgr", spool_fd, "public/other"), 0);
        ck_assert_int_eq(symlinkat("other", spool_fd, "public/qmgr"), 0);
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), -EPROTOTYPE);
        ck_assert_str_eq(spool_triggers(), "");
}
END_TEST

START_TEST(a_plain_file_or_directory_is_no_endpoint) {
        spool_write("public/qmgr", "");
        ck_assert_int_eq(trigger(QMGR_SCAN_INCOMING), -EPROTOTYPE);
        spool_expect("public/qmgr", "");
        ck_assert_int_eq(qmgr_trigger(spool_fd, "public", QMGR_SCAN_INCOMING), -EPROTOTYPE);
}
END_TEST

/* The wake-up with a second try. */

static sd_event *event;
static Trigger second;

static void setup_trigger(void) {
        spool_setup();
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(trigger_init(&second, event, spool_fd, "qmgr", USEC_PER_MSEC), 0);
}

static void teardown_trigger(void) {
        trigger_done(&second);
        event = sd_event_unref(event);
        spool_teardown();
}

static void run_until_sent_again(void) {
        uint64_t until = now_usec() + 30 * USEC_PER_SEC;

        while (trigger_pending(&second) && now_usec() < until)
                ck_assert_int_ge(sd_event_run(event, USEC_PER_SEC), 0);
        ck_assert(!trigger_pending(&second));
}

START_TEST(a_trigger_that_arrives_is_not_repeated) {
        spool_listen();
        trigger_send(&second, QMGR_FLUSH_DEAD);
        ck_assert(!trigger_pending(&second));
        ck_assert_str_eq(spool_triggers(), "F");
        for (int i = 0; i < 3; i++)
                ck_assert_int_ge(sd_event_run(event, 2 * USEC_PER_MSEC), 0);
        ck_assert_str_eq(spool_triggers(), "");
}
END_TEST

START_TEST(a_lost_trigger_is_sent_once_more) {
        trigger_send(&second, QMGR_SCAN_INCOMING);
        ck_assert(trigger_pending(&second));
        spool_listen();
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "I");
}
END_TEST

START_TEST(lost_triggers_are_repeated_once_each_and_in_their_order) {
        trigger_send(&second, QMGR_SCAN_INCOMING);
        trigger_send(&second, QMGR_FLUSH_DEAD);
        trigger_send(&second, QMGR_SCAN_INCOMING);
        spool_listen();
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "FI");
}
END_TEST

START_TEST(a_trigger_that_is_lost_again_is_given_up) {
        trigger_send(&second, QMGR_SCAN_INCOMING);
        run_until_sent_again();
        spool_listen();
        for (int i = 0; i < 3; i++)
                ck_assert_int_ge(sd_event_run(event, 2 * USEC_PER_MSEC), 0);
        ck_assert_str_eq(spool_triggers(), "");
        trigger_send(&second, QMGR_FLUSH_DEAD); /* and the next is as good as the first */
        ck_assert_str_eq(spool_triggers(), "F");
}
END_TEST

START_TEST(what_is_lost_goes_to_the_queue_manager_of_now) {
        ck_assert_int_eq(trigger_configure(&second, spool_fd, "other", USEC_PER_MSEC), 0);
        trigger_send(&second, QMGR_SCAN_INCOMING);
        ck_assert(trigger_pending(&second));
        ck_assert_int_eq(trigger_configure(&second, spool_fd, "qmgr", USEC_PER_MSEC), 0);
        spool_listen();
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "I");
}
END_TEST

START_TEST(what_is_lost_is_sent_once_more_at_the_end) {
        trigger_send(&second, QMGR_FLUSH_DEAD);
        trigger_send(&second, QMGR_SCAN_INCOMING);
        spool_listen();
        trigger_done(&second);
        ck_assert_str_eq(spool_triggers(), "FI");
        ck_assert_int_eq(trigger_init(&second, event, spool_fd, "qmgr", USEC_PER_MSEC), 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("trigger"), *retry = tcase_create("second try");

        tcase_add_checked_fixture(tc, spool_setup, spool_teardown);
        tcase_add_test(tc, a_fifo_gets_the_byte_alone);
        tcase_add_test(tc, a_socket_gets_a_nul_as_well);
        tcase_add_test(tc, a_probe_says_nothing_and_knows_the_same);
        tcase_add_test(tc, no_endpoint_has_its_errno);
        tcase_add_test(tc, a_socket_nobody_listens_on_has_its_errno);
        tcase_add_test(tc, a_full_backlog_does_not_block);
        tcase_add_test(tc, a_fifo_nobody_reads_has_its_errno);
        tcase_add_test(tc, a_full_fifo_does_not_block);
        tcase_add_test(tc, a_symbolic_link_is_not_followed);
        tcase_add_test(tc, a_plain_file_or_directory_is_no_endpoint);

        tcase_add_checked_fixture(retry, setup_trigger, teardown_trigger);
        tcase_add_test(retry, a_trigger_that_arrives_is_not_repeated);
        tcase_add_test(retry, a_lost_trigger_is_sent_once_more);
        tcase_add_test(retry, lost_triggers_are_repeated_once_each_and_in_their_order);
        tcase_add_test(retry, a_trigger_that_is_lost_again_is_given_up);
        tcase_add_test(retry, what_is_lost_goes_to_the_queue_manager_of_now);
        tcase_add_test(retry, what_is_lost_is_sent_once_more_at_the_end);
        return run_cases("qmgr", (TCase *[]){tc, retry}, 2);
}
