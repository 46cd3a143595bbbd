/* SPDX-License-Identifier: MIT */

#include "daemon/journal.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define LEVEL_VARIABLE "SYSTEMD_LOG_LEVEL"

static int old_stderr_fd;

/* Standard error is the file "stderr" of the spool while a test runs. */
static void setup(void) {
        int fd;

        spool_setup();
        fd = openat(spool_fd, "stderr", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        ck_assert_int_ge(fd, 0);
        old_stderr_fd = dup(STDERR_FILENO);
        ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
        closep(&fd);
        (void) unsetenv("JOURNAL_STREAM");
        (void) setenv(LEVEL_VARIABLE, "info", 1);
        journal_open();
}

static void teardown(void) {
        (void) fflush(stderr);
        ck_assert_int_ge(dup2(old_stderr_fd, STDERR_FILENO), 0);
        closep(&old_stderr_fd);
        (void) setenv(LEVEL_VARIABLE, "info", 1);
        journal_open();
        (void) unsetenv(LEVEL_VARIABLE);
        spool_teardown();
}

static const struct {
        const char *name;
        int level;
} levels[] = {
        {"emerg", LOG_EMERG},
        {"alert", LOG_ALERT},
        {"crit", LOG_CRIT},
        {"err", LOG_ERR},
        {"warning", LOG_WARNING},
        {"notice", LOG_NOTICE},
        {"info", LOG_INFO},
        {"debug", LOG_DEBUG},
        {"0", LOG_EMERG},
        {"3", LOG_ERR},
        {"7", LOG_DEBUG},
        /* what is no level is the default */
        {"", LOG_INFO},
        {"8", LOG_INFO},
        {"77", LOG_INFO},
        {"Debug", LOG_INFO},
        {"nonsense", LOG_INFO},
};

START_TEST(a_level_has_a_name_or_number) {
        (void) setenv(LEVEL_VARIABLE, levels[_i].name, 1);
        journal_open();
        for (int level = LOG_EMERG; level <= LOG_DEBUG; level++)
                ck_assert_int_eq(journal_wanted(level), level <= levels[_i].level);
}
END_TEST

START_TEST(a_message_outside_the_journal_is_a_line_with_its_level) {
        journal_message(LOG_WARNING, "%s: %d", "example.com", 3);
        journal_event(LOG_ERR, &(JournalEvent){.message_id = JOURNAL_ID_FAILED, .error = -ENOSPC},
                      "failed");
        spool_expect("stderr", "<4>example.com: 3\n<3>failed\n");
}
END_TEST

START_TEST(a_message_below_the_level_is_not_shown) {
        journal_message(LOG_DEBUG, "nothing");
        spool_expect("stderr", "");
        (void) setenv(LEVEL_VARIABLE, "debug", 1);
        journal_open();
        journal_message(LOG_DEBUG, "something");
        spool_expect("stderr", "<7>something\n");
}
END_TEST

/* Else who gets a newline into a message has a line of his own, with a level of his choice. */
START_TEST(a_message_is_one_line_whatever_it_quotes) {
        journal_message(LOG_INFO, "%s: \xc3\xa4\\x0a", "/etc/x\n<0>forged\x1b[2J\xc2\x9b\xff");
        spool_expect("stderr", "<6>/etc/x\\x0a<0>forged\\x1b[2J\\xc2\\x9b\\xff: \xc3\xa4\\x0a\n");
}
END_TEST

START_TEST(a_very_long_message_is_one_line_cut_short) {
        char text[5000], *got;

        memset(text, 'a', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        journal_message(LOG_INFO, "%s", text);
        got = spool_read("stderr");
        ck_assert_uint_lt(strlen(got), 2000);
        ck_assert_uint_gt(strlen(got), 500);
        ck_assert_ptr_eq(strchr(got, '\n'), got + strlen(got) - 1);
        free(got);
}
END_TEST

START_TEST(a_journal_that_is_not_standard_error_is_not_used) {
        (void) setenv("JOURNAL_STREAM", "1:1", 1);
        journal_open();
        journal_message(LOG_INFO, "here");
        (void) unsetenv("JOURNAL_STREAM");
        spool_expect("stderr", "<6>here\n");
}
END_TEST

/* A journal of the test's own, where journald's would be: root can have one that nobody else sees.
 */
static int listen_as_journal(void) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
        char stream[64];
        struct stat st;
        int fd;

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
                return -errno;
        ck_assert_int_eq(mkdir("/run/systemd", 0755), 0);
        ck_assert_int_eq(mkdir("/run/systemd/journal", 0755), 0);
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(fd, (const struct sockaddr *) &sa, sizeof sa), 0);
        ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
        (void) snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long) st.st_dev,
                        (unsigned long long) st.st_ino);
        (void) setenv("JOURNAL_STREAM", stream, 1);
        journal_open();
        (void) unsetenv("JOURNAL_STREAM");
        return fd;
}

static const char *const fields[] = {
        "MESSAGE=example.com: 3",
        "PRIORITY=6",
        "SYSLOG_FACILITY=2",
        "SYSLOG_IDENTIFIER=postfix/fflushd",
        "FFLUSHD_INSTANCE=postfix",
        ("MESSAGE_ID=" JOURNAL_ID_SENT),
        "FFLUSHD_REQUEST=send_site",
        "FFLUSHD_SITE=example.com",
        "FFLUSHD_QUEUE_ID=A1",
        "FFLUSHD_FILE=flush/example_com",
        "FFLUSHD_STATUS=-1",
        "FFLUSHD_FOUND=21",
        "FFLUSHD_MOVED=6",
        "FFLUSHD_GONE=5",
        "FFLUSHD_BUSY=4",
        "FFLUSHD_FAILED=3",
        "FFLUSHD_DUPLICATE=2",
        "FFLUSHD_INVALID=1",
        "FFLUSHD_LEFT=7",
        "FFLUSHD_SITES=8",
        "FFLUSHD_CALLER_UID=12",
        "FFLUSHD_CALLER_PID=34",
        "FFLUSHD_REASON=ticket 7",
        "ERRNO=28",
};

/* Whole lines of an entry, and no others. */
static void expect_fields(int fd, size_t n_expected) {
        char entry[4096];
        ssize_t n = recv(fd, entry, sizeof entry - 1, MSG_DONTWAIT);
        size_t n_lines = 0;

        ck_assert_int_gt(n, 0);
        entry[n] = '\0';
        for (char *line = strtok(entry, "\n"); line; line = strtok(NULL, "\n"), n_lines++)
                ck_assert_str_eq(line, fields[n_lines]);
        ck_assert_uint_eq(n_lines, n_expected);
}

START_TEST(a_message_in_the_journal_has_a_field_for_each_thing_it_is_about) {
        const RequestStatus status = REQUEST_FAIL;
        const RequestCounts counts = {21, 6, 5, 4, 3, 2, 1, 7, 8};
        const JournalCaller caller = {.pid = 34, .uid = 12};
        const JournalEvent event = {JOURNAL_ID_SENT,     "send_site", "example.com", "A1",
                                    "flush/example_com", &status,     &counts,       &caller,
                                    "ticket 7",          -ENOSPC};
        _cleanup_close_ int fd = listen_as_journal();

        if (fd < 0) /* not root, or not allowed */
                return;
        journal_event(LOG_INFO, &event, "%s: %d", "example.com", 3);
        expect_fields(fd, ARRAY_SIZE(fields));
        journal_message(LOG_INFO, "%s: %d", "example.com", 3);
        expect_fields(fd, 5);
        spool_expect("stderr", "");
}
END_TEST

/* The next entry, ends in NUL; false: there is none. */
static bool next_entry(int fd, char ret[static 8192]) {
        ssize_t n = recv(fd, ret, 8191, MSG_DONTWAIT);

        if (n < 0)
                return false;
        ret[n] = '\0';
        return true;
}

static void expect_in_entry(int fd, const char *text) {
        char entry[8192];

        ck_assert(next_entry(fd, entry));
        ck_assert_msg(strstr(entry, text), "%s\nis not in\n%s", text, entry);
}

START_TEST(an_instance_has_a_name_of_its_own_in_the_journal) {
        _cleanup_close_ int fd = listen_as_journal();
        char long_name[200];

        if (fd < 0)
                return;
        journal_set_names("postfix-b", "b");
        journal_message(LOG_INFO, "one");
        expect_in_entry(fd, "\nSYSLOG_IDENTIFIER=postfix-b/fflushd\nFFLUSHD_INSTANCE=b\n");
        journal_set_names("", NULL);
        journal_message(LOG_INFO, "two");
        expect_in_entry(fd, "\nSYSLOG_IDENTIFIER=postfix/fflushd\nFFLUSHD_INSTANCE=postfix\n");
        journal_set_names("a b\nPRIORITY=0", "x\ty");
        journal_message(LOG_INFO, "three");
        expect_in_entry(fd, "\nSYSLOG_IDENTIFIER=a_b_PRIORITY=0/fflushd\nFFLUSHD_INSTANCE=x_y\n");
        memset(long_name, 'n', sizeof long_name - 1);
        long_name[sizeof long_name - 1] = '\0';
        journal_set_names(long_name, long_name);
        journal_message(LOG_INFO, "four");
        expect_in_entry(fd, "nnn/fflushd\n");
        journal_set_names("postfix", NULL);
}
END_TEST

START_TEST(a_line_end_in_a_message_does_not_begin_a_field) {
        _cleanup_close_ int fd = listen_as_journal();

        if (fd < 0)
                return;
        journal_message(LOG_INFO, "one\nPRIORITY=0\n");
        expect_in_entry(fd, "MESSAGE=one\\x0aPRIORITY=0\\x0a\nPRIORITY=6\n");
}
END_TEST

enum { MANY = 20000 };

static void log_many(void) {
        for (unsigned i = 0; i < MANY; i++)
                journal_message(LOG_INFO, "entry %u", i);
}

/* Reads what has come. What came in order is counted in @n, what is told to be lost in @n_lost. */
static void read_many(int fd, unsigned *n, unsigned long *n_lost) {
        char entry[8192];

        while (next_entry(fd, entry)) {
                unsigned number;
                unsigned long lost;

                if (sscanf(entry, "MESSAGE=entry %u\n", &number) == 1) {
                        ck_assert_uint_eq(number, *n + *n_lost);
                        ++*n;
                } else {
                        ck_assert_int_eq(sscanf(entry, "MESSAGE=%lu entries were lost", &lost), 1);
                        ck_assert_ptr_nonnull(strstr(entry, "\nPRIORITY=4\n"));
                        ck_assert_ptr_nonnull(strstr(entry, "\nMESSAGE_ID=" JOURNAL_ID_LOST "\n"));
                        *n_lost += lost;
                }
        }
}

/* Were one of them to wait, the test would never end. */
START_TEST(a_journal_that_takes_nothing_holds_up_nobody_and_is_told_what_was_lost) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        _cleanup_close_ int fd = listen_as_journal();
        unsigned long n_lost = 0;
        unsigned n = 0;

        if (fd < 0)
                return;
        ck_assert_int_ge(sd_event_new(&event), 0);
        journal_attach(event);
        log_many();
        while (n + n_lost < MANY) {
                read_many(fd, &n, &n_lost);
                ck_assert_int_ge(sd_event_run(event, 0), 0);
        }
        ck_assert_uint_gt(n_lost, 0);
        ck_assert_uint_gt(n, 1000); /* a megabyte waits */
        journal_message(LOG_INFO, "entry %u", MANY);
        read_many(fd, &n, &n_lost);
        ck_assert_uint_eq(n + n_lost, MANY + 1);
        journal_attach(NULL);
}
END_TEST

/* As at the start, before there is a loop. */
START_TEST(what_waits_is_sent_when_the_next_entry_comes) {
        _cleanup_close_ int fd = listen_as_journal();
        unsigned long n_lost = 0;
        unsigned n = 0;

        if (fd < 0)
                return;
        for (unsigned i = 0; i < 800; i++) {
                journal_message(LOG_INFO, "entry %u", i);
                if (i > 700)
                        read_many(fd, &n, &n_lost);
        }
        read_many(fd, &n, &n_lost);
        ck_assert_uint_eq(n, 800);
        ck_assert_uint_eq(n_lost, 0);
}
END_TEST

START_TEST(the_end_waits_for_the_journal_for_a_bounded_time) {
        _cleanup_close_ int fd = listen_as_journal();
        unsigned long n_lost = 0;
        unsigned n = 0;
        uint64_t start;

        if (fd < 0)
                return;
        for (unsigned i = 0; i < 800; i++)
                journal_message(LOG_INFO, "entry %u", i);
        start = now_usec();
        journal_close();
        ck_assert_uint_lt(now_usec() - start, 20 * USEC_PER_SEC);
        read_many(fd, &n, &n_lost);
        ck_assert_uint_gt(n, 0);
        ck_assert_uint_lt(n, 800);
}
END_TEST

START_TEST(a_journal_that_is_started_anew_is_found) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
        int fd = listen_as_journal();

        if (fd < 0)
                return;
        journal_message(LOG_INFO, "one");
        expect_in_entry(fd, "MESSAGE=one\n");
        closep(&fd);
        ck_assert_int_eq(unlink(sa.sun_path), 0);
        journal_message(LOG_INFO, "two"); /* waits */
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(fd, (const struct sockaddr *) &sa, sizeof sa), 0);
        journal_message(LOG_INFO, "three");
        expect_in_entry(fd, "MESSAGE=two\n");
        expect_in_entry(fd, "MESSAGE=three\n");
        closep(&fd);
}
END_TEST

START_TEST(a_pipe_that_nobody_reads_holds_up_nobody) {
        static char text[1 << 20];
        _cleanup_close_ int old = dup(STDERR_FILENO);
        int pipe_fds[2];
        ssize_t n;

        ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
        ck_assert_int_ge(dup2(pipe_fds[1], STDERR_FILENO), 0);
        log_many();
        n = read(pipe_fds[0], text, sizeof text - 1);
        ck_assert_int_gt(n, 0);
        journal_message(LOG_INFO, "after it");
        n = read(pipe_fds[0], text, sizeof text - 1);
        ck_assert_int_gt(n, 0);
        ck_assert_int_ge(dup2(old, STDERR_FILENO), 0);
        text[n] = '\0';
        ck_assert_msg(strstr(text, " entries were lost while standard error did not take them\n"
                                   "<6>after it\n"),
                      "%s", text);
        closep(&pipe_fds[0]);
        closep(&pipe_fds[1]);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("log");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_loop_test(tc, a_level_has_a_name_or_number, 0, ARRAY_SIZE(levels));
        tcase_add_test(tc, a_message_outside_the_journal_is_a_line_with_its_level);
        tcase_add_test(tc, a_message_below_the_level_is_not_shown);
        tcase_add_test(tc, a_message_is_one_line_whatever_it_quotes);
        tcase_add_test(tc, a_very_long_message_is_one_line_cut_short);
        tcase_add_test(tc, a_journal_that_is_not_standard_error_is_not_used);
        tcase_add_test(tc, a_message_in_the_journal_has_a_field_for_each_thing_it_is_about);
        tcase_add_test(tc, an_instance_has_a_name_of_its_own_in_the_journal);
        tcase_add_test(tc, a_line_end_in_a_message_does_not_begin_a_field);
        tcase_add_test(tc, a_journal_that_takes_nothing_holds_up_nobody_and_is_told_what_was_lost);
        tcase_add_test(tc, what_waits_is_sent_when_the_next_entry_comes);
        tcase_add_test(tc, the_end_waits_for_the_journal_for_a_bounded_time);
        tcase_add_test(tc, a_journal_that_is_started_anew_is_found);
        tcase_add_test(tc, a_pipe_that_nobody_reads_holds_up_nobody);
        return run_case("log", tc);
}
