/* SPDX-License-Identifier: MIT */

#include "log.h"

#include <fcntl.h>
#include <stdio.h>

#include "spool.h"
#include "util.h"

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
        log_open();
}

static void teardown(void) {
        (void) fflush(stderr);
        ck_assert_int_ge(dup2(old_stderr_fd, STDERR_FILENO), 0);
        closep(&old_stderr_fd);
        (void) setenv(LEVEL_VARIABLE, "info", 1);
        log_open();
        (void) unsetenv(LEVEL_VARIABLE);
        spool_teardown();
}

static const struct {
        const char *text;
        size_t n;
        const char *shown;
} texts[] = {
        {"", 0, ""},
        {"example.com", 11, "example.com"},
        {"a b~!", 5, "a b~!"},
        {"a\nb\r\0c", 6, "a\\x0ab\\x0d\\x00c"},
        {"\x1b[31m", 5, "\\x1b[31m"},
        {"b\xc3\xbc"
         "cher",
         7, "b\\xc3\\xbccher"},
        {"\x7f\x80\xff", 3, "\\x7f\\x80\\xff"},
        {"a\\x0a", 5, "a\\x5cx0a"}, /* nothing that is shown can be forged */
        {"%s%n", 4, "%s%n"},
        {"012345678901234567890123456789", 30, "012345678901234567890123456789"},
        {"0123456789012345678901234567890", 31, "012345678901234567890123456789..."},
        {"abcdef", 3, "abc"},
};

START_TEST(bytes_from_outside_are_made_printable) {
        char shown[LOG_ESCAPE_SIZE];

        ck_assert_ptr_eq(log_escape(texts[_i].text, texts[_i].n, shown), shown);
        ck_assert_str_eq(shown, texts[_i].shown);
}
END_TEST

START_TEST(the_longest_result_fits_exactly) {
        char text[100], shown[LOG_ESCAPE_SIZE];

        memset(text, '\xff', sizeof text);
        (void) log_escape(text, sizeof text, shown);
        ck_assert_uint_eq(strlen(shown), LOG_ESCAPE_SIZE - 1);
        ck_assert_str_eq(shown + LOG_ESCAPE_SIZE - 8, "\\xff...");
}
END_TEST

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
        log_open();
        for (int level = LOG_EMERG; level <= LOG_DEBUG; level++)
                ck_assert_int_eq(log_wanted(level), level <= levels[_i].level);
}
END_TEST

START_TEST(a_message_outside_the_journal_is_a_line_with_its_level) {
        log_message(LOG_WARNING, "%s: %d", "example.com", 3);
        log_event(LOG_ERR, &(LogEvent){.message_id = LOG_ID_FAILED, .error = -ENOSPC}, "failed");
        spool_expect("stderr", "<4>example.com: 3\n<3>failed\n");
}
END_TEST

START_TEST(a_message_below_the_level_is_not_shown) {
        log_message(LOG_DEBUG, "nothing");
        spool_expect("stderr", "");
        (void) setenv(LEVEL_VARIABLE, "debug", 1);
        log_open();
        log_message(LOG_DEBUG, "something");
        spool_expect("stderr", "<7>something\n");
}
END_TEST

START_TEST(a_very_long_message_is_one_line_cut_short) {
        char text[5000], *got;

        memset(text, 'a', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        log_message(LOG_INFO, "%s", text);
        got = spool_read("stderr");
        ck_assert_uint_lt(strlen(got), 2000);
        ck_assert_uint_gt(strlen(got), 500);
        ck_assert_ptr_eq(strchr(got, '\n'), got + strlen(got) - 1);
        free(got);
}
END_TEST

START_TEST(a_journal_that_is_not_standard_error_is_not_used) {
        (void) setenv("JOURNAL_STREAM", "1:1", 1);
        log_open();
        log_message(LOG_INFO, "here");
        (void) unsetenv("JOURNAL_STREAM");
        spool_expect("stderr", "<6>here\n");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("log");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_loop_test(tc, bytes_from_outside_are_made_printable, 0, ARRAY_SIZE(texts));
        tcase_add_test(tc, the_longest_result_fits_exactly);
        tcase_add_loop_test(tc, a_level_has_a_name_or_number, 0, ARRAY_SIZE(levels));
        tcase_add_test(tc, a_message_outside_the_journal_is_a_line_with_its_level);
        tcase_add_test(tc, a_message_below_the_level_is_not_shown);
        tcase_add_test(tc, a_very_long_message_is_one_line_cut_short);
        tcase_add_test(tc, a_journal_that_is_not_standard_error_is_not_used);
        return run_case("log", tc);
}
