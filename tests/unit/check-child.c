/* SPDX-License-Identifier: MIT */

#include "util/child.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define LONG (60 * USEC_PER_SEC)

static sd_event *event;
static ChildResult result;
static unsigned n_done;

static void setup(void) {
        sigset_t mask;

        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGCHLD);
        ck_assert_int_eq(sigprocmask(SIG_BLOCK, &mask, NULL), 0);
        ck_assert_int_ge(sd_event_new(&event), 0);
        n_done = 0;
}

static void teardown(void) {
        event = sd_event_unref(event);
        free(result.output);
        free(result.errors);
        result = (ChildResult){0};
}

static void on_done(Child *child, const ChildResult *r, void *userdata) {
        ck_assert_ptr_eq(userdata, &result);
        ck_assert_ptr_nonnull(child);
        result = *r;
        result.output = r->output ? strdup(r->output) : NULL;
        result.errors = r->errors ? strdup(r->errors) : NULL;
        n_done++;
}

static void run(const char *script, const char *input, uint64_t timeout_usec) {
        const char *argv[] = {"/bin/sh", "-c", script, NULL};
        Child *child;

        ck_assert_int_eq(child_start(event, argv, input, strlen(input), timeout_usec, on_done,
                                     &result, &child),
                         0);
        while (n_done == 0)
                ck_assert_int_ge(sd_event_run(event, LONG), 0);
        ck_assert_uint_eq(n_done, 1);
        child_free(child);
}

START_TEST(what_a_command_is_given_and_says_is_passed_on) {
        run("tr a-z A-Z; echo trouble >&2; exit 3", "some\ninput", LONG);
        ck_assert_int_eq(result.status, 3);
        ck_assert_str_eq(result.output, "SOME\nINPUT");
        ck_assert_str_eq(result.errors, "trouble\n");
}
END_TEST

START_TEST(a_command_has_little_of_our_environment) {
        (void) setenv("SECRET", "x", 1);
        run("printf %s \"$SECRET$LC_ALL\"; trap", "", LONG);
        ck_assert_str_eq(result.output, "C");
}
END_TEST

START_TEST(a_signal_is_a_status_of_its_own) {
        run("kill -TERM $$", "", LONG);
        ck_assert_int_eq(result.status, 128 + SIGTERM);
}
END_TEST

START_TEST(a_command_that_takes_too_long_is_killed) {
        run("echo begun; exec sleep 1000", "", 200 * USEC_PER_MSEC);
        ck_assert_int_eq(result.status, 128 + SIGKILL);
}
END_TEST

static const char *const endless[] = {
        "exec cat /dev/zero",
        "exec cat /dev/zero >&2",
        "trap '' XFSZ; cat /dev/zero; echo goes on; exit 0",
};

/* As if the command had not been run: whoever trusts the status must not miss it. It ends by
 * itself, long before the time-out, as it can go no further. */
START_TEST(output_without_end_is_a_failure_at_once) {
        run(endless[_i], "", LONG);
        ck_assert_int_eq(result.status, 127);
        ck_assert_int_eq(result.error, -EFBIG);
        ck_assert(!result.output || !result.errors);
}
END_TEST

START_TEST(output_up_to_the_limit_is_had) {
        run("head -c 8388607 /dev/zero; printf err >&2", "", LONG);
        ck_assert_int_eq(result.status, 0);
        ck_assert_int_eq(result.error, 0);
        ck_assert_str_eq(result.errors, "err");
}
END_TEST

#define LOW (1024 * 1024u) /* what runs the suite, as valgrind does, writes to a file meanwhile */

/* The limit is the command's; it must not be lower than one that is there anyway. */
START_TEST(only_the_command_has_a_limit_of_file_size) {
        static const char *const argv[] = {"/bin/sh", "-c", "ulimit -f", NULL};
        struct rlimit old, low, now;
        int r;

        ck_assert_int_eq(child_run(argv, LONG, &result), 0);
        ck_assert_str_eq(result.output, "16384\n"); /* times 512 bytes */
        ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
        ck_assert_uint_gt(old.rlim_cur, CHILD_OUTPUT_MAX);
        teardown();
        low = (struct rlimit){.rlim_cur = LOW, .rlim_max = old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
        r = child_run(argv, LONG, &result);
        (void) getrlimit(RLIMIT_FSIZE, &now);
        (void) setrlimit(RLIMIT_FSIZE, &old); /* the suite writes its results to a file */
        ck_assert_int_eq(r, 0);
        ck_assert_uint_eq(now.rlim_cur, LOW);
        ck_assert_str_eq(result.output, "2048\n");
}
END_TEST

START_TEST(a_child_that_is_forgotten_ends) {
        static const char *const argv[] = {"/bin/sleep", "1000", NULL};
        siginfo_t info = {.si_pid = 0};
        Child *child;

        ck_assert_int_eq(child_start(event, argv, NULL, 0, LONG, on_done, &result, &child), 0);
        ck_assert_ptr_null(child_free(child));
        ck_assert(waitid(P_ALL, 0, &info, WEXITED) < 0 || info.si_status == SIGKILL);
        ck_assert_uint_eq(n_done, 0);
}
END_TEST

/* A configuration that is read anew ends the commands of the one before. */
START_TEST(of_children_that_are_forgotten_nothing_stays) {
        static const char *const argv[] = {"/bin/sleep", "1000", NULL};
        siginfo_t info;
        Child *child;

        for (unsigned i = 0; i < 10; i++) {
                ck_assert_int_eq(child_start(event, argv, NULL, 0, LONG, on_done, &result, &child),
                                 0);
                child_free(child);
        }
        while (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0)
                ck_assert_int_gt(sd_event_run(event, LONG), 0);
        ck_assert_int_eq(errno, ECHILD);
        ck_assert_uint_eq(n_done, 0);
}
END_TEST

START_TEST(a_command_can_be_waited_for) {
        static const char *const good[] = {"/bin/sh", "-c", "echo out; echo err >&2; exit 5", NULL};
        static const char *const slow[] = {"/bin/sleep", "1000", NULL};
        static const char *const endless_one[] = {"/bin/cat", "/dev/zero", NULL};
        static const char *const missing[] = {"/nonexistent/program", NULL};
        int r;

        ck_assert_int_eq(child_run(good, LONG, &result), 0);
        ck_assert_int_eq(result.status, 5);
        ck_assert_str_eq(result.output, "out\n");
        ck_assert_str_eq(result.errors, "err\n");
        teardown();
        ck_assert_int_eq(child_run(slow, 200 * USEC_PER_MSEC, &result), 0);
        ck_assert_int_eq(result.status, 128 + SIGKILL);
        teardown();
        ck_assert_int_eq(child_run(endless_one, LONG, &result), -EFBIG);
        r = child_run(missing, LONG, &result); /* found out late in valgrind */
        ck_assert(r == -ENOENT || (r == 0 && result.status == 127));
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("child");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, what_a_command_is_given_and_says_is_passed_on);
        tcase_add_test(tc, a_command_has_little_of_our_environment);
        tcase_add_test(tc, a_signal_is_a_status_of_its_own);
        tcase_add_test(tc, a_command_that_takes_too_long_is_killed);
        tcase_add_loop_test(tc, output_without_end_is_a_failure_at_once, 0, ARRAY_SIZE(endless));
        tcase_add_test(tc, output_up_to_the_limit_is_had);
        tcase_add_test(tc, only_the_command_has_a_limit_of_file_size);
        tcase_add_test(tc, a_child_that_is_forgotten_ends);
        tcase_add_test(tc, of_children_that_are_forgotten_nothing_stays);
        tcase_add_test(tc, a_command_can_be_waited_for);
        return run_case("child", tc);
}
