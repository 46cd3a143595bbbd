/* SPDX-License-Identifier: MIT */

#include "core/qmgr.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

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

int main(void) {
        TCase *tc = tcase_create("trigger");

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
        return run_case("qmgr", tc);
}
