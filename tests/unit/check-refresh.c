/* SPDX-License-Identifier: MIT */

#include "daemon/refresh.h"

#include <fcntl.h>
#include <stdio.h>

#include "tests/lib/sends.h"
#include "tests/lib/spool.h"
#include "util/util.h"

#define NAME   "example_com"
#define PATH   "flush/" NAME

#define MINUTE 60
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* Postfix's defaults. */
#define REFRESH_USEC (12 * HOUR * USEC_PER_SEC)
#define EMPTY_USEC   (7 * DAY * USEC_PER_SEC)

static Refresh *refresh;
static RefreshResult result;
static SendResult last_sent;
static unsigned n_sent;

static void on_sent(Site *site, const SendResult *r, Call *calls, void *userdata) {
        last_sent = *r;
        n_sent++;
        if (refresh)
                refresh_sent(refresh, site, r);
}

static void on_done(const RefreshResult *r, void *userdata) {
        ck_assert_ptr_eq(userdata, &result);
        ck_assert_ptr_nonnull(refresh);
        result = *r;
        refresh = NULL;
}

static void setup(void) {
        sends_setup(on_sent);
        refresh = NULL;
        result = (RefreshResult){.error = 1};
        n_sent = 0;
}

static void start(uint64_t max_age) {
        ck_assert_int_eq(refresh_start(&context, max_age, EMPTY_USEC, on_done, &result, &refresh),
                         0);
        ck_assert_ptr_nonnull(refresh);
}

static void finish(void) {
        for (unsigned i = 0; refresh && i < 1000000; i++)
                turn();
        ck_assert_ptr_null(refresh);
}

static void run_refresh(void) {
        start(REFRESH_USEC);
        finish();
}

static void run_purge(void) {
        start(0);
        finish();
}

/* A log that was flushed and written to so many seconds ago. */
static void put_log(const char *path, const char *text, long atime, long mtime) {
        spool_write(path, text);
        spool_set_times(path, atime, mtime);
}

static void put_message(const char *id) {
        char path[QUEUE_PATH_SIZE];

        queue_path(&spool_queue, QUEUE_DEFERRED, id, path);
        spool_put(path, 0700, HOUR);
}

START_TEST(a_log_that_nobody_flushed_for_long_is_flushed) { /* 95 */
        put_message("ABC123");
        put_log(PATH, "ABC123\n", -13 * HOUR, -13 * HOUR);
        run_refresh();
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.logs, 1);
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert_uint_eq(result.failed, 0);
        ck_assert_uint_eq(result.counts.moved, 1);
        ck_assert(result.had_lines);
        ck_assert(spool_exists("incoming/ABC123"));
        ck_assert_int_eq(spool_stat("incoming/ABC123").st_mode & 07777, 0700);
        spool_expect(PATH, "");
        ck_assert_int_ge(spool_atime(PATH), -MINUTE);
        ck_assert_str_eq(spool_triggers(), ""); /* the caller's I, at the end, is the only one */
}
END_TEST

START_TEST(a_log_that_was_flushed_lately_waits) { /* 96 */
        put_message("ABC123");
        put_log(PATH, "ABC123\n", -11 * HOUR, -13 * HOUR);
        run_refresh();
        ck_assert_uint_eq(result.logs, 1);
        ck_assert_uint_eq(result.flushed, 0);
        ck_assert(!result.had_lines);
        ck_assert(spool_exists("deferred/A/ABC123"));
        spool_expect(PATH, "ABC123\n");
        ck_assert_int_le(spool_atime(PATH), -11 * HOUR + MINUTE);
}
END_TEST

START_TEST(a_log_as_old_as_that_is_not_older) {
        put_log("flush/a_b", "ABC123\n", -12 * HOUR + 30, 0);
        put_log("flush/a_c", "ABC123\n", -12 * HOUR - 30, 0);
        run_refresh();
        ck_assert_uint_eq(result.flushed, 1);
        spool_expect("flush/a_b", "ABC123\n");
        spool_expect("flush/a_c", "");
}
END_TEST

START_TEST(a_log_that_has_been_empty_for_long_is_removed) { /* 97 */
        put_log("flush/a_b", "", 0, -8 * DAY);
        put_log("flush/a_c", "", -8 * DAY, -6 * DAY);
        run_refresh();
        ck_assert_uint_eq(result.logs, 2);
        ck_assert_uint_eq(result.removed, 1);
        ck_assert_uint_eq(result.flushed, 0);
        ck_assert(!spool_exists("flush/a_b"));
        ck_assert(spool_exists("flush/a_c"));
        ck_assert_int_le(spool_mtime("flush/a_c"), -6 * DAY + MINUTE);
}
END_TEST

START_TEST(an_empty_log_that_is_in_use_is_not_removed) {
        int fd;

        put_log(PATH, "", 0, -8 * DAY);
        fd = spool_lock(PATH);
        run_refresh();
        ck_assert_uint_eq(result.removed, 0);
        ck_assert_uint_eq(result.failed, 0);
        ck_assert(spool_exists(PATH));
        closep(&fd);
        run_refresh();
        ck_assert_uint_eq(result.removed, 1);
}
END_TEST

/* As flush(8), which opens a log, then waits for its lock, or is yet to ask for it. */
START_TEST(an_empty_log_that_somebody_has_open_is_not_removed) {
        int flags = _i ? O_RDONLY : O_WRONLY | O_APPEND, fd;

        put_log(PATH, "", 0, -8 * DAY);
        fd = openat(spool_fd, PATH, flags | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        run_refresh();
        ck_assert_uint_eq(result.removed, 0);
        ck_assert_uint_eq(result.failed, 0);
        if (!_i) {
                ck_assert_int_eq(write(fd, "ABC123\n", 7), 7);
                spool_expect(PATH, "ABC123\n");
                put_log(PATH, "", 0, -8 * DAY);
        }
        closep(&fd);
        run_refresh();
        ck_assert_uint_eq(result.removed, 1);
        ck_assert(!spool_exists(PATH));
}
END_TEST

START_TEST(times_in_the_future_count_as_old) {
        put_message("ABC123");
        put_log("flush/a_b", "ABC123\n", 400 * DAY, 0);
        put_log("flush/a_c", "", 0, 400 * DAY);
        put_log("flush/a_d", "ABC123\n", 30, 0); /* the clock of a file server */
        put_log("flush/a_e", "", 0, 30);
        run_refresh();
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert_uint_eq(result.removed, 1);
        ck_assert(spool_exists("incoming/ABC123"));
        spool_expect("flush/a_b", "");
        ck_assert_int_le(spool_atime("flush/a_b"), MINUTE);
        ck_assert(!spool_exists("flush/a_c"));
        spool_expect("flush/a_d", "ABC123\n");
        spool_expect("flush/a_e", "");
}
END_TEST

START_TEST(a_purge_flushes_all_but_what_was_flushed_just_now) { /* 99 */
        put_message("ABC123");
        put_message("DEF456");
        put_log("flush/a_b", "ABC123\n", -HOUR, 0);
        put_log("flush/a_c", "DEF456\n", 5, 0); /* the current second may be over soon */
        run_purge();
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert(spool_exists("incoming/ABC123"));
        ck_assert(spool_exists("deferred/D/DEF456"));
        spool_expect("flush/a_c", "DEF456\n");
}
END_TEST

START_TEST(all_that_was_flushed_is_summed_up) { /* 100, 101 */
        put_message("ABC123");
        put_message("DEF456");
        spool_put("active/GHI789", 0700, 0);
        put_log("flush/a_b", "ABC123\nABC123\n!!\n", -HOUR, 0);
        put_log("flush/nosuch_example", "DEF456\nGHI789\nJKL012\n", -HOUR, 0);
        put_log("flush/a_c", "", 0, 0);
        run_purge();
        ck_assert_uint_eq(result.logs, 3);
        ck_assert_uint_eq(result.flushed, 2);
        ck_assert_uint_eq(result.removed, 0);
        ck_assert_uint_eq(result.counts.found, 5);
        ck_assert_uint_eq(result.counts.moved, 2);
        ck_assert_uint_eq(result.counts.gone, 1);
        ck_assert_uint_eq(result.counts.busy, 1);
        ck_assert_uint_eq(result.counts.failed, 0);
        ck_assert_uint_eq(result.counts.duplicate, 1);
        ck_assert_uint_eq(result.counts.invalid, 1);
        ck_assert(spool_exists("flush/a_c"));
        ck_assert_str_eq(spool_triggers(), "");
}
END_TEST

START_TEST(many_logs_are_all_flushed) {
        for (unsigned i = 0; i < 300; i++) {
                char path[32];

                (void) snprintf(path, sizeof path, "flush/site%u", i);
                put_log(path, "ABC123\n", -HOUR, 0);
        }
        run_purge();
        ck_assert_uint_eq(result.logs, 300);
        ck_assert_uint_eq(result.flushed, 300);
        ck_assert_uint_eq(result.counts.gone, 300);
}
END_TEST

START_TEST(what_has_no_log_s_name_is_passed_over) { /* 102 */
        put_log("flush/example.com", "ABC123\n", -DAY, 0);
        put_log("flush/a-b", "ABC123\n", -DAY, 0);
        put_log("flush/.hidden", "", -DAY, -30 * DAY);
        run_purge();
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.logs, 0);
        spool_expect("flush/example.com", "ABC123\n");
        spool_expect("flush/a-b", "ABC123\n");
        ck_assert(spool_exists("flush/.hidden"));
}
END_TEST

START_TEST(in_a_hashed_directory_logs_are_where_they_belong) { /* 103 */
        spool_queue.hashed[QUEUE_FLUSH] = true;
        spool_queue.hash_depth = 2;
        put_log("flush/e/x/" NAME, "ABC123\n", -DAY, 0);
        put_log("flush/4/3/a_very_long_bcdfz_example", "ABC123\n", -DAY, 0);
        run_purge();
        ck_assert_uint_eq(result.logs, 2);
        ck_assert_uint_eq(result.flushed, 2);
        spool_expect("flush/e/x/" NAME, "");
        spool_expect("flush/4/3/a_very_long_bcdfz_example", "");
}
END_TEST

START_TEST(logs_that_are_out_of_place_are_brought_into_it_and_flushed) {
        static const char *const ids[] = {"A1", "A2", "A3", "A4", "A5"};

        spool_queue.hashed[QUEUE_FLUSH] = true;
        spool_queue.hash_depth = 2;
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                put_message(ids[i]);
        put_log("flush/e/y/a_b", "A1\n", -DAY, 0); /* where no layout has it */
        put_log("flush/a_c", "A2\n", -DAY, 0);
        put_log("flush/a/_/d/a_d", "A3\n", -DAY, 0);
        put_log("flush/" NAME, "A4\n", -DAY, 0);
        put_log("flush/e/x/" NAME, "A5\n", -MINUTE, 0);
        run_refresh();
        ck_assert_uint_eq(result.flushed, 4);
        ck_assert_uint_eq(result.counts.moved, 5);
        ck_assert_uint_eq(result.failed, 0);
        ck_assert(!spool_exists("flush/e/y/a_b"));
        ck_assert(!spool_exists("flush/a_c"));
        ck_assert(!spool_exists("flush/a/_/d/a_d"));
        ck_assert(!spool_exists("flush/" NAME));
        spool_expect("flush/a/_/a_b", "");
        spool_expect("flush/a/_/a_c", "");
        spool_expect("flush/a/_/a_d", "");
        spool_expect("flush/e/x/" NAME, "");
}
END_TEST

START_TEST(a_log_that_cannot_be_brought_into_place_stays_and_counts_as_failed) {
        spool_queue.hashed[QUEUE_FLUSH] = true;
        put_log("flush/a_b", "A1\n", -DAY, 0);
        ck_assert_int_eq(linkat(spool_fd, "flush/a_b", spool_fd, "other", 0), 0);
        put_log("flush/a_c", "A1\n", -DAY, 0);
        run_purge();
        ck_assert_uint_eq(result.failed, 1);
        ck_assert_uint_eq(result.flushed, 1);
        spool_expect("flush/a_b", "A1\n");
        spool_expect("flush/a/a_c", "");
}
END_TEST

/* With these flush(8) dies. */
START_TEST(a_name_of_one_character_that_is_no_directory_is_passed_over) {
        put_log("flush/x", "ABC123\n", -DAY, -30 * DAY);
        ck_assert_int_eq(mkfifoat(spool_fd, "flush/y", 0600), 0);
        spool_write("other/a_c", "ABC123\n");
        spool_set_times("other/a_c", -DAY, -DAY);
        ck_assert_int_eq(symlinkat("../other", spool_fd, "flush/z"), 0);
        put_log("flush/a_b", "ABC123\n", -DAY, 0);
        run_purge();
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.logs, 1);
        ck_assert_uint_eq(result.flushed, 1);
        spool_expect("flush/x", "ABC123\n");
        spool_expect("other/a_c", "ABC123\n");
        spool_expect("flush/a_b", "");
}
END_TEST

START_TEST(directories_may_not_be_nested_without_end) {
        char path[] = "flush/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/";

        ck_assert_int_eq(queue_make_dirs(&spool_queue, path), 0);
        put_log("flush/b_c", "ABC123\n", -DAY, 0);
        run_purge();
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.flushed, 1);
}
END_TEST

START_TEST(a_log_that_is_refused_keeps_no_other_from_being_flushed) {
        spool_write("target", "ABC123\n");
        ck_assert_int_eq(symlinkat("../target", spool_fd, "flush/a_b"), 0);
        spool_set_times("flush/a_b", -DAY, -DAY);
        put_log("flush/a_c", "ABC123\n", -DAY, 0);
        put_log("flush/a_d", "ABC123\n", -DAY, 0);
        ck_assert_int_eq(linkat(spool_fd, "flush/a_d", spool_fd, "other", 0), 0);
        run_purge();
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.logs, 3);
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert_uint_eq(result.failed, 2);
        spool_expect("flush/a_c", "");
        spool_expect("target", "ABC123\n");
        spool_expect("other", "ABC123\n");
}
END_TEST

START_TEST(without_a_directory_of_logs_there_is_nothing_to_do) {
        ck_assert_int_eq(unlinkat(spool_fd, "flush", AT_REMOVEDIR), 0);
        run_purge();
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.logs, 0);
}
END_TEST

START_TEST(logs_that_cannot_be_listed_are_an_error) {
        ck_assert_int_eq(renameat(spool_fd, "flush", spool_fd, "other"), 0);
        ck_assert_int_eq(symlinkat("other", spool_fd, "flush"), 0);
        put_log("other/a_b", "ABC123\n", -DAY, 0);
        run_purge();
        ck_assert_int_eq(result.error, -ENOTDIR);
        spool_expect("other/a_b", "ABC123\n");
}
END_TEST

/* ---------------------------------------------------------------------------- compaction */

/* Several kilobytes: @n times the same two IDs. */
static char *repeated(unsigned n) {
        char *text = calloc(n, 14), *p = text;

        ck_assert_ptr_nonnull(text);
        for (unsigned i = 0; i < n; i++)
                p = stpcpy(p, i + 1 < n ? "ABC123\nDEF456\n" : "ABC123\nDEF45\n");
        return text;
}

START_TEST(a_large_log_full_of_duplicates_is_compacted) {
        _cleanup_free_ char *text = repeated(300);

        put_message("ABC123");
        put_log(PATH, text, -HOUR, -HOUR);
        run_refresh();
        ck_assert_uint_eq(result.logs, 1);
        ck_assert_uint_eq(result.compacted, 1);
        ck_assert_uint_eq(result.flushed, 0);
        ck_assert(!result.had_lines);
        ck_assert_uint_eq(result.counts.found, 0);
        spool_expect(PATH, "ABC123\nDEF456\nDEF45\n");
        ck_assert(spool_exists("deferred/A/ABC123"));
        ck_assert_int_le(spool_atime(PATH), -HOUR + MINUTE); /* its refresh is not put off */
}
END_TEST

START_TEST(a_small_log_is_not_worth_a_compaction) {
        _cleanup_free_ char *text = repeated(100);

        put_log(PATH, text, -HOUR, -HOUR);
        run_refresh();
        ck_assert_uint_eq(result.compacted, 0);
        spool_expect(PATH, text);
}
END_TEST

START_TEST(a_large_log_with_few_duplicates_is_not_counted_as_compacted) {
        _cleanup_free_ char *text = calloc(1000, 6);

        for (unsigned i = 0; i < 1000; i++)
                (void) sprintf(text + 5 * (size_t) i, "%04X\n", i < 990 ? i : 0);
        put_log(PATH, text, -HOUR, -HOUR);
        run_refresh();
        spool_expect(PATH, text);
        ck_assert_uint_eq(result.compacted, 0);
}
END_TEST

START_TEST(an_old_log_is_flushed_rather_than_compacted) {
        _cleanup_free_ char *text = repeated(300);

        put_log(PATH, text, -DAY, -HOUR);
        run_refresh();
        ck_assert_uint_eq(result.compacted, 0);
        ck_assert_uint_eq(result.flushed, 1);
        spool_expect(PATH, "");
}
END_TEST

/* ------------------------------------------------------------------------ sends, the end */

/* A log that takes several turns. */
static void put_long_log(const char *path) {
        enum { N = 10000 };
        char *text = malloc(12 * N + 1);

        ck_assert_ptr_nonnull(text);
        for (unsigned i = 0; i < N; i++)
                (void) sprintf(text + 12 * (size_t) i, "%011X\n", i);
        put_log(path, text, -DAY, -DAY);
        free(text);
}

START_TEST(a_log_whose_send_runs_is_left_to_it) {
        Site *site = sites_get(&sites, NAME);

        put_long_log(PATH);
        put_log("flush/a_b", "ABC123\n", -DAY, 0);
        ck_assert_int_eq(send_start(&context, site, SEND_SITE, 0), 0);
        turn();
        ck_assert_msg(send_is_running(site), "the log is too short for this test");
        start(0);
        finish();
        ck_assert_uint_eq(result.logs, 2);
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert_uint_eq(result.counts.gone, 1);
        spool_expect("flush/a_b", "");
        while (send_is_running(site))
                turn();
        ck_assert_uint_eq(n_sent, 2);
        ck_assert_int_eq(last_sent.kind, SEND_SITE);
        ck_assert_uint_eq(last_sent.counts.gone, 10000);
}
END_TEST

START_TEST(another_send_s_end_is_not_taken_for_its_own) {
        Site *other = sites_get(&sites, "a_b");

        put_long_log(PATH);
        start(0);
        turn();
        put_log("flush/a_b", "ABC123\nDEF456\n", 5, 0);
        ck_assert_int_eq(send_start(&context, other, SEND_SITE, 0), 0);
        while (send_is_running(other))
                turn();
        ck_assert_ptr_nonnull(refresh);
        finish();
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert_uint_eq(result.counts.gone, 10000);
}
END_TEST

START_TEST(a_log_that_stays_locked_counts_as_failed) {
        int fd;

        put_log("flush/a_b", "ABC123\n", -DAY, 0);
        put_log("flush/a_c", "ABC123\n", -DAY, 0);
        fd = spool_lock("flush/a_b");
        context.lock_usec = 1;
        run_purge();
        ck_assert_uint_eq(result.flushed, 1);
        ck_assert_uint_eq(result.failed, 1);
        spool_expect("flush/a_b", "ABC123\n");
        spool_expect("flush/a_c", "");
        closep(&fd);
}
END_TEST

START_TEST(a_cancelled_refresh_ends_with_the_send_it_waits_for) {
        put_long_log(PATH);
        start(0);
        for (int i = 0; i < 3; i++)
                turn();
        ck_assert(send_is_running(sites_get(&sites, NAME)));
        jobs_cancel(&jobs);
        ck_assert_ptr_null(refresh);
        ck_assert_int_eq(result.error, -ECANCELED);
        ck_assert_uint_eq(result.flushed, 0);
        ck_assert_uint_eq(n_sent, 1);
        ck_assert_int_eq(spool_stat(PATH).st_size, 120000);
}
END_TEST

START_TEST(a_refresh_can_be_cancelled_before_its_first_step) {
        put_log(PATH, "ABC123\n", -DAY, 0);
        start(0);
        jobs_cancel(&jobs);
        ck_assert_ptr_null(refresh);
        ck_assert_int_eq(result.error, -ECANCELED);
        spool_expect(PATH, "ABC123\n");
}
END_TEST

static TCase *ages(void) {
        TCase *tc = tcase_create("ages");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, a_log_that_nobody_flushed_for_long_is_flushed);
        tcase_add_test(tc, a_log_that_was_flushed_lately_waits);
        tcase_add_test(tc, a_log_as_old_as_that_is_not_older);
        tcase_add_test(tc, a_log_that_has_been_empty_for_long_is_removed);
        tcase_add_test(tc, an_empty_log_that_is_in_use_is_not_removed);
        tcase_add_loop_test(tc, an_empty_log_that_somebody_has_open_is_not_removed, 0, 2);
        tcase_add_test(tc, times_in_the_future_count_as_old);
        tcase_add_test(tc, a_purge_flushes_all_but_what_was_flushed_just_now);
        tcase_add_test(tc, all_that_was_flushed_is_summed_up);
        tcase_add_test(tc, many_logs_are_all_flushed);
        return tc;
}

static TCase *names(void) {
        TCase *tc = tcase_create("names");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, what_has_no_log_s_name_is_passed_over);
        tcase_add_test(tc, in_a_hashed_directory_logs_are_where_they_belong);
        tcase_add_test(tc, logs_that_are_out_of_place_are_brought_into_it_and_flushed);
        tcase_add_test(tc, a_log_that_cannot_be_brought_into_place_stays_and_counts_as_failed);
        tcase_add_test(tc, a_name_of_one_character_that_is_no_directory_is_passed_over);
        tcase_add_test(tc, directories_may_not_be_nested_without_end);
        tcase_add_test(tc, a_log_that_is_refused_keeps_no_other_from_being_flushed);
        tcase_add_test(tc, without_a_directory_of_logs_there_is_nothing_to_do);
        tcase_add_test(tc, logs_that_cannot_be_listed_are_an_error);
        return tc;
}

static TCase *compaction(void) {
        TCase *tc = tcase_create("compaction");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, a_large_log_full_of_duplicates_is_compacted);
        tcase_add_test(tc, a_small_log_is_not_worth_a_compaction);
        tcase_add_test(tc, a_large_log_with_few_duplicates_is_not_counted_as_compacted);
        tcase_add_test(tc, an_old_log_is_flushed_rather_than_compacted);
        return tc;
}

static TCase *ends(void) {
        TCase *tc = tcase_create("ends");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, a_log_whose_send_runs_is_left_to_it);
        tcase_add_test(tc, another_send_s_end_is_not_taken_for_its_own);
        tcase_add_test(tc, a_log_that_stays_locked_counts_as_failed);
        tcase_add_test(tc, a_cancelled_refresh_ends_with_the_send_it_waits_for);
        tcase_add_test(tc, a_refresh_can_be_cancelled_before_its_first_step);
        return tc;
}

int main(void) {
        TCase *tcs[] = {ages(), names(), compaction(), ends()};

        return run_cases("refresh", tcs, ARRAY_SIZE(tcs));
}
