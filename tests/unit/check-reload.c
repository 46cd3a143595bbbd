/* SPDX-License-Identifier: MIT */

#include "daemon/reload.h"

#include <signal.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define NO_POSTFIX "postfix_config_directory = \"\"\n"

static Settings first;
static char *file;
static sd_event *event;
static Reload *reload;
static const Settings *taken;
static int n_taken, n_failed, take_error, fail_error;
static bool failed_in_vain;

static int on_take(const Settings *settings, void *userdata) {
        if (take_error < 0)
                return take_error;
        taken = settings;
        n_taken++;
        return 0;
}

static void on_fail(const Settings *settings, int error, bool in_vain, void *userdata) {
        n_failed++;
        fail_error = error;
        failed_in_vain = in_vain;
}

static const ReloadCallbacks callbacks = {.take = on_take, .fail = on_fail};

static void setup(void) {
        spool_setup();
        spool_block_sigchld();
        ck_assert_int_gt(asprintf(&file, "%s/fflushd.conf", spool_dir), 0);
        spool_write("fflushd.conf", NO_POSTFIX "fast_flush_domains = one.test\n");
        ck_assert_int_eq(settings_load(file, NULL, &first), 0);
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(reload_new(event, &first, &callbacks, NULL, &reload), 0);
        taken = NULL;
        n_taken = n_failed = take_error = fail_error = 0;
}

static void teardown(void) {
        reload = reload_free(reload);
        event = sd_event_unref(event);
        settings_done(&first);
        free(file);
        spool_teardown();
}

/* Until it has come to an end @n times in all. */
static void run(int n) {
        uint64_t until = now_usec() + 30 * USEC_PER_SEC;

        while (n_taken + n_failed < n && now_usec() < until)
                ck_assert_int_ge(sd_event_run(event, USEC_PER_SEC), 0);
        ck_assert_int_eq(n_taken + n_failed, n);
}

START_TEST(new_settings_are_handed_over_and_stay) {
        spool_write("fflushd.conf", NO_POSTFIX "fast_flush_domains = two.test\n");
        ck_assert(!reload_running(reload));
        reload_start(reload);
        reload_start(reload);
        ck_assert(reload_running(reload));
        ck_assert_int_eq(n_taken, 0); /* not from within the call */
        run(1);
        ck_assert(!reload_running(reload) && !reload_in_vain(reload));
        ck_assert_str_eq(taken->fast_flush_domains, "two.test");
        ck_assert_int_ge(sd_event_run(event, 0), 0);
        ck_assert_int_eq(n_taken, 1);

        spool_write("fflushd.conf", NO_POSTFIX "fast_flush_domains = three.test\n");
        reload_start(reload);
        run(2);
        ck_assert_str_eq(taken->fast_flush_domains, "three.test");
}
END_TEST

START_TEST(what_is_broken_is_tried_again_until_it_is_mended) {
        spool_write("fflushd.conf", NO_POSTFIX "nonsense = 1\n");
        reload_start(reload);
        run(2); /* the second time by itself */
        ck_assert_int_eq(n_failed, 2);
        ck_assert(failed_in_vain && reload_in_vain(reload) && !reload_running(reload));
        spool_write("fflushd.conf", NO_POSTFIX "fast_flush_domains = two.test\n");
        ck_assert(!reload_in_vain(reload)); /* worth another try */
        run(3);
        ck_assert_str_eq(taken->fast_flush_domains, "two.test");
}
END_TEST

START_TEST(what_was_never_whole_is_no_reason_to_take_it) {
        reload = reload_free(reload);
        settings_done(&first);
        spool_write("fflushd.conf", "postfix_config_directory = /nonexistent\n");
        ck_assert_int_eq(settings_load(file, NULL, &first), 0);
        ck_assert(first.incomplete);
        ck_assert_int_eq(reload_new(event, &first, &callbacks, NULL, &reload), 0);
        reload_start(reload);
        run(1);
        ck_assert_int_eq(n_failed, 1);
        ck_assert(failed_in_vain);
        spool_write("fflushd.conf", NO_POSTFIX);
        reload_start(reload);
        run(2);
        ck_assert_int_eq(n_taken, 1);
}
END_TEST

START_TEST(who_cannot_take_it_says_why) {
        take_error = -ENOENT;
        reload_start(reload);
        run(1);
        ck_assert_int_eq(fail_error, -ENOENT);
        ck_assert(failed_in_vain);
        take_error = -ENOMEM;
        reload_start(reload);
        run(2);
        ck_assert_int_eq(fail_error, -ENOMEM);
        ck_assert(!failed_in_vain);
        take_error = 0;
        run(3);
        ck_assert_int_eq(n_taken, 1);
}
END_TEST

START_TEST(who_wants_no_more_gets_no_more) {
        take_error = -ECANCELED;
        reload_start(reload);
        while (reload_running(reload))
                ck_assert_int_ge(sd_event_run(event, USEC_PER_SEC), 0);
        reload_start(reload);
        ck_assert(!reload_running(reload));
        ck_assert_int_eq(n_taken + n_failed, 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("reload");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_set_timeout(tc, 60);
        tcase_add_test(tc, new_settings_are_handed_over_and_stay);
        tcase_add_test(tc, what_is_broken_is_tried_again_until_it_is_mended);
        tcase_add_test(tc, what_was_never_whole_is_no_reason_to_take_it);
        tcase_add_test(tc, who_cannot_take_it_says_why);
        tcase_add_test(tc, who_wants_no_more_gets_no_more);
        return run_case("reload", tc);
}
