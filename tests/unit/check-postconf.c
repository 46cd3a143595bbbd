/* SPDX-License-Identifier: MIT */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/postconf.h"
#include "tests/lib/spool.h"
#include "util/util.h"

/* In place of postconf(1): prints main.cf, and notes that it has run. */
#define PROGRAM  "#!/bin/sh\nd=${0%/*}\necho >>$d/runs\ncat $2/main.cf\n"
#define LONG_AGO 1000000000

static char program[256], main_cf[256];
static char *output, *problem;

static void write_main_cf(const char *text, time_t mtime) {
        struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};

        spool_write("main.cf", text);
        ck_assert_int_eq(utimensat(spool_fd, "main.cf", times, 0), 0);
}

static void write_program(const char *text) {
        struct timespec times[2] = {{.tv_sec = LONG_AGO}, {.tv_sec = LONG_AGO}};

        (void) unlinkat(spool_fd, "program", 0);
        spool_write("program", text);
        ck_assert_int_eq(fchmodat(spool_fd, "program", 0755, 0), 0);
        ck_assert_int_eq(utimensat(spool_fd, "program", times, 0), 0);
}

static void setup(void) {
        spool_setup();
        (void) snprintf(program, sizeof program, "%s/program", spool_dir);
        (void) snprintf(main_cf, sizeof main_cf, "%s/main.cf", spool_dir);
        write_program(PROGRAM);
        write_main_cf("a = 1\n", LONG_AGO);
        spool_write("runs", "");
        spool_block_sigchld();
}

static void forget(void) {
        free(output);
        free(problem);
        output = problem = NULL;
}

static void teardown(void) {
        forget();
        spool_teardown();
}

static int ask_for(const char *name, const char *directory) {
        const char *argv[] = {program, "-c", spool_dir, name, NULL};
        PostconfQuery query = {.argv = argv, .main_cf = main_cf, .directory = directory};

        forget();
        return postconf_ask(&query, &output, &problem);
}

/* Return: as postconf_kept(). */
static int look(bool *ret_current) {
        const char *argv[] = {program, "-c", spool_dir, "a", NULL};
        PostconfQuery query = {.argv = argv, .main_cf = main_cf, .directory = spool_dir};

        forget();
        return postconf_kept(&query, &output, ret_current);
}

static int ask(void) {
        return ask_for("a", spool_dir);
}

static int runs(void) {
        return (int) spool_stat("runs").st_size;
}

START_TEST(what_was_printed_is_kept) {
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(ask(), 0);
                ck_assert_str_eq(output, "a = 1\n");
                ck_assert_int_eq(runs(), 1);
        }
}
END_TEST

START_TEST(nothing_is_kept_without_a_place_for_it) {
        ck_assert_int_eq(ask_for("a", NULL), 0);
        ck_assert_int_eq(ask_for("a", NULL), 0);
        ck_assert_int_eq(runs(), 2);
        ck_assert_int_eq(ask_for("a", "/nonexistent"), 0);
        ck_assert_str_eq(output, "a = 1\n");
        ck_assert_int_eq(runs(), 3);
}
END_TEST

START_TEST(a_change_is_seen) {
        ck_assert_int_eq(ask(), 0);
        write_main_cf("a = 2\n", LONG_AGO + 1);
        ck_assert_int_eq(ask(), 0);
        ck_assert_str_eq(output, "a = 2\n");
        write_program(PROGRAM "echo b = 3\n"); /* an upgrade of Postfix */
        ck_assert_int_eq(ask(), 0);
        ck_assert_str_eq(output, "a = 2\nb = 3\n");
        ck_assert_int_eq(ask_for("b", spool_dir), 0); /* other parameters */
        ck_assert_int_eq(runs(), 4);
        ck_assert_int_eq(unlinkat(spool_fd, "main.cf", 0), 0);
        ck_assert_int_eq(ask(), 0);
        ck_assert_str_eq(output, "b = 3\n");
}
END_TEST

START_TEST(what_has_just_changed_is_not_kept) {
        write_main_cf("a = 1\n", time(NULL) + 60);
        ck_assert_int_eq(ask(), 0);
        ck_assert_int_eq(ask(), 0);
        ck_assert_int_eq(runs(), 2);
}
END_TEST

START_TEST(a_failure_is_told_and_not_kept) {
        write_program("#!/bin/sh\necho some; echo this is wrong >&2; echo more >&2; exit 1\n");
        for (int i = 0; i < 2; i++) {
                ck_assert_int_eq(ask(), -ENODATA);
                ck_assert_ptr_null(output);
                ck_assert_ptr_nonnull(strstr(problem, ": this is wrong"));
                ck_assert_ptr_null(strstr(problem, "more"));
        }
        ck_assert_int_eq(unlinkat(spool_fd, "program", 0), 0);
        ck_assert_int_eq(ask(), -ENODATA);
        ck_assert_ptr_nonnull(strstr(problem, program)); /* under valgrind only its name */
}
END_TEST

static char *read_all_of(const char *name, size_t *ret_n) {
        *ret_n = (size_t) spool_stat(name).st_size;
        return spool_read(name);
}

START_TEST(another_text_in_its_place_is_no_answer) {
        static const char *const texts[] = {"", "a = 5\n", "\f\na = 5\n"};
        bool current;

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                spool_write("postconf", texts[i]);
                ck_assert_int_lt(look(&current), 0);
                ck_assert_int_eq(ask(), 0);
                ck_assert_str_eq(output, "a = 1\n");
        }
}
END_TEST

START_TEST(one_of_an_earlier_file_is_known_as_such) {
        bool current = false;

        ck_assert_int_lt(look(&current), 0);
        ck_assert_int_eq(ask(), 0);
        ck_assert_int_eq(look(&current), 0);
        ck_assert(current);
        write_main_cf("a = 2\n", LONG_AGO + 1);
        ck_assert_int_eq(look(&current), 0);
        ck_assert(!current);
        ck_assert_str_eq(output, "a = 1\n");
        write_program(PROGRAM "# another release\n");
        ck_assert_int_eq(look(&current), -ESTALE);
        ck_assert_int_eq(runs(), 1);
}
END_TEST

/* As a loss of power can leave it: the new name, and the file too short or with a hole. */
START_TEST(one_that_is_not_whole_is_never_believed) {
        _cleanup_free_ char *whole = NULL;
        bool current;
        size_t n;

        write_main_cf("a = 1\nfast_flush_domains = one.test, two.test, three.test\n", LONG_AGO);
        ck_assert_int_eq(ask(), 0);
        whole = read_all_of("postconf", &n);
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *cut = strndup(whole, i), *hole = strdup(whole);

                spool_write("postconf", cut);
                ck_assert_msg(look(&current) < 0, "believed with %zu of %zu bytes", i, n);
                hole[i] = hole[i] == 'x' ? 'y' : 'x';
                spool_write("postconf", hole);
                ck_assert_msg(look(&current) < 0, "believed with byte %zu changed", i);
                hole[i] = '\0';
                spool_write_bytes("postconf", hole, n);
                ck_assert_msg(look(&current) < 0, "believed with byte %zu zero", i);
        }
        spool_write("postconf", whole);
        ck_assert_int_eq(look(&current), 0);
}
END_TEST

static int answer, answers;

static void on_answer(int r, char *text, const char *why, void *userdata) {
        forget();
        answer = r;
        answers++;
        output = text ? strdup(text) : NULL;
        problem = why ? strdup(why) : NULL;
        (void) sd_event_exit(userdata, 0);
}

/* Has it answer through an event loop. */
static int start(void) {
        const char *argv[] = {program, "-c", spool_dir, "a", NULL};
        PostconfQuery query = {.argv = argv, .main_cf = main_cf, .directory = spool_dir};
        sd_event *event = NULL;
        Postconf *p = NULL;
        int r;

        answers = 0;
        ck_assert_int_ge(sd_event_new(&event), 0);
        r = postconf_start(event, &query, on_answer, event, &p);
        if (r == 0) {
                ck_assert_int_ge(sd_event_loop(event), 0);
                ck_assert_int_eq(answers, 1);
                r = answer;
        }
        postconf_free(p);
        sd_event_unref(event);
        return r;
}

START_TEST(it_can_be_asked_without_waiting) {
        bool current = false;

        ck_assert_int_eq(start(), 0);
        ck_assert_str_eq(output, "a = 1\n");
        ck_assert_int_eq(look(&current), 0);
        ck_assert(current);
        ck_assert_int_eq(start(), 0); /* not what was kept */
        ck_assert_int_eq(runs(), 2);
        write_program("#!/bin/sh\necho this is wrong >&2; exit 1\n");
        ck_assert_int_eq(start(), -ENODATA);
        ck_assert_ptr_nonnull(strstr(problem, ": this is wrong"));
        write_program("#!/bin/sh\nkill -9 $$\n"); /* as the time-out does */
        ck_assert_int_eq(start(), -ETIMEDOUT);
        ck_assert_ptr_nonnull(problem);
}
END_TEST

START_TEST(what_changes_while_it_runs_is_not_kept) {
        bool current;

        write_program("#!/bin/sh\necho a = 1\ntouch -d '2001-02-03' $2/main.cf\n");
        ck_assert_int_eq(start(), 0);
        ck_assert_int_lt(look(&current), 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("postconf");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, what_was_printed_is_kept);
        tcase_add_test(tc, nothing_is_kept_without_a_place_for_it);
        tcase_add_test(tc, a_change_is_seen);
        tcase_add_test(tc, what_has_just_changed_is_not_kept);
        tcase_add_test(tc, a_failure_is_told_and_not_kept);
        tcase_add_test(tc, another_text_in_its_place_is_no_answer);
        tcase_add_test(tc, one_of_an_earlier_file_is_known_as_such);
        tcase_add_test(tc, one_that_is_not_whole_is_never_believed);
        tcase_add_test(tc, it_can_be_asked_without_waiting);
        tcase_add_test(tc, what_changes_while_it_runs_is_not_kept);
        return run_case("postconf", tc);
}
