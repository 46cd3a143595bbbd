/* SPDX-License-Identifier: MIT */

#include "core/metrics.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static char directory[256], path[300];

static mode_t old_umask;

static void setup(void) {
        spool_setup();
        old_umask = umask(077); /* the daemon's */
        (void) snprintf(directory, sizeof directory, "%s", spool_dir);
        (void) snprintf(path, sizeof path, "%s/" METRICS_FILE, directory);
}

static void teardown(void) {
        (void) umask(old_umask);
        spool_teardown();
}

static Metrics *open_file(void) {
        Metrics *m;

        ck_assert_int_eq(metrics_open(directory, &m), 0);
        ck_assert_ptr_nonnull(m);
        return m;
}

/* The counters work, and are not in the file. */
static void expect_memory(int error) {
        Metrics *m;

        ck_assert_int_eq(metrics_open(directory, &m), error);
        ck_assert_ptr_nonnull(m);
        ck_assert_uint_eq(m->starts, 0);
        m->starts++;
        metrics_close(m);
}

static void overwrite(off_t offset, const void *bytes, size_t n) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(pwrite(fd, bytes, n, offset), n);
}

START_TEST(counters_go_on_where_they_stopped) {
        RequestCounts counts = {.found = 30,
                                .moved = 5,
                                .gone = 4,
                                .busy = 3,
                                .failed = 2,
                                .duplicate = 16,
                                .invalid = 9};
        Metrics *m = open_file(), got;
        struct stat st;

        m->starts++;
        m->requests[REQUEST_PURGE][METRICS_DENIED] = UINT64_MAX;
        metrics_count(m, &counts);
        metrics_close(m);
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_eq(st.st_mode, S_IFREG | 0644);
        ck_assert_int_eq(st.st_size, sizeof *m);
        ck_assert_int_ge(st.st_blocks, 1);

        m = open_file();
        m->starts++;
        metrics_count(m, &counts);
        ck_assert_int_eq(metrics_read(directory, &got), 0); /* at once, not when it is closed */
        ck_assert_mem_eq(&got, m, sizeof got);
        metrics_close(m);
        ck_assert_uint_eq(got.starts, 2);
        ck_assert_uint_eq(got.requests[REQUEST_PURGE][METRICS_DENIED], UINT64_MAX);
        ck_assert_uint_eq(got.moved, 10);
        ck_assert_uint_eq(got.gone, 8);
        ck_assert_uint_eq(got.busy, 6);
        ck_assert_uint_eq(got.failed, 4);
        ck_assert_uint_eq(got.duplicate, 32);
        ck_assert_uint_eq(got.invalid, 18);
}
END_TEST

START_TEST(a_killed_process_loses_nothing) {
        Metrics *m;
        Metrics got;
        pid_t pid = fork();

        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                m = open_file();
                m->appended += 7;
                (void) raise(SIGKILL);
        }
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        ck_assert_int_eq(metrics_read(directory, &got), 0);
        ck_assert_uint_eq(got.appended, 7);
}
END_TEST

/* Magic, version and size, 16 bytes in all. */
START_TEST(a_file_of_another_kind_starts_at_zero) {
        Metrics *m = open_file(), got;

        m->starts = 5;
        metrics_close(m);
        overwrite(_i, "\xff", 1);
        ck_assert_int_eq(metrics_read(directory, &got), -EBADMSG);
        m = open_file();
        ck_assert_uint_eq(m->starts, 0);
        metrics_close(m);
        ck_assert_int_eq(metrics_read(directory, &got), 0);
}
END_TEST

START_TEST(a_file_of_another_size_starts_at_zero) {
        Metrics *m, got;
        struct stat st;

        for (size_t size = 0; size < sizeof got + 2; size++) {
                if (size == sizeof got)
                        continue;
                m = open_file();
                m->starts = 5;
                metrics_close(m);
                ck_assert_int_eq(truncate(path, (off_t) size), 0);
                if (size < sizeof got)
                        ck_assert_int_eq(metrics_read(directory, &got), -EBADMSG);
                m = open_file();
                ck_assert_uint_eq(m->starts, 0);
                metrics_close(m);
                ck_assert_int_eq(stat(path, &st), 0);
                ck_assert_int_eq(st.st_size, sizeof got);
        }
}
END_TEST

/* It ended before the counters of failures. */
START_TEST(a_file_of_the_version_before_is_carried_over) {
        const uint32_t header[] = {1, offsetof(Metrics, failures)};
        Metrics *m = open_file(), got;

        m->starts = 5;
        m->last_purge_sec = 7;
        m->self_tests = 9;
        metrics_close(m);
        overwrite(offsetof(Metrics, version), header, sizeof header);
        ck_assert_int_eq(metrics_read(directory, &got), -EBADMSG); /* too long for that version */
        ck_assert_int_eq(truncate(path, offsetof(Metrics, failures)), 0);
        ck_assert_int_eq(metrics_read(directory, &got), 0);
        ck_assert_uint_eq(got.last_purge_sec, 7);
        ck_assert_uint_eq(got.self_tests, 0);
        m = open_file();
        ck_assert_uint_eq(m->starts, 5);
        ck_assert_uint_eq(m->last_purge_sec, 7);
        ck_assert_uint_eq(m->self_tests, 0);
        metrics_close(m);
        ck_assert_int_eq(metrics_read(directory, &got), 0);
        ck_assert_uint_eq(got.version, METRICS_VERSION);
        ck_assert_uint_eq(got.size, sizeof got);
}
END_TEST

START_TEST(health_is_what_was_seen_last) {
        Metrics m = {.starts = 1};
        TestFindings findings = {.checks = 1};

        ck_assert(metrics_healthy(&m)); /* nothing is known */
        metrics_failed(&m, METRICS_LOG, 100);
        ck_assert(!metrics_healthy(&m));
        metrics_succeeded(&m, REQUEST_SEND_FILE, 101); /* has nothing to do with logs */
        ck_assert(!metrics_healthy(&m));
        metrics_succeeded(&m, REQUEST_ADD, 102);
        ck_assert(metrics_healthy(&m));
        metrics_failed(&m, METRICS_QUEUE, 103);
        metrics_succeeded(&m, REQUEST_SEND_SITE, 104); /* its answer does not tell of messages */
        ck_assert(!metrics_healthy(&m));
        metrics_tested(&m, &findings, 105);
        ck_assert(metrics_healthy(&m));
        metrics_failed(&m, METRICS_LIST, 106);
        (void) findings_add(&findings, "table", FINDING_FAILED, "x");
        (void) findings_add(&findings, "requests", FINDING_WARNING, "x");
        metrics_tested(&m, &findings, 107);
        ck_assert(!metrics_healthy(&m));
        ck_assert_uint_eq(m.last_success_sec[METRICS_LIST], 105);
        ck_assert_uint_eq(m.last_success_sec[METRICS_LOG], 107);
        ck_assert_uint_eq(m.failures[METRICS_LIST], 1);
        ck_assert_uint_eq(m.self_test_failed, 1);
        ck_assert_uint_eq(m.self_test_warnings, 1);
        findings.n = 0;
        metrics_tested(&m, &findings, 108);
        ck_assert(metrics_healthy(&m));
        ck_assert_uint_eq(m.self_tests, 3);
        metrics_failed(&m, METRICS_LOCK, 109); /* which a self-test does not try */
        metrics_tested(&m, &findings, 110);
        ck_assert(!metrics_healthy(&m));
}
END_TEST

START_TEST(errors_have_a_class) {
        ck_assert_int_eq(metrics_class(-ENOMEM), METRICS_RESOURCE);
        ck_assert_int_eq(metrics_class(-EMFILE), METRICS_RESOURCE);
        ck_assert_int_eq(metrics_class(-ETIMEDOUT), METRICS_LOCK);
        ck_assert_int_eq(metrics_class(-ENOSPC), METRICS_LOG);
        for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++)
                ck_assert_ptr_nonnull(metrics_class_name(c));
}
END_TEST

START_TEST(what_cannot_be_a_file_is_replaced_by_memory) {
        Metrics *m;

        ck_assert_int_eq(metrics_open(NULL, &m), -ENOENT);
        ck_assert_ptr_nonnull(m);
        m->starts++;
        metrics_close(m);

        ck_assert_int_eq(mkdir(path, 0700), 0);
        expect_memory(-EISDIR);
        ck_assert_int_eq(rmdir(path), 0);
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        expect_memory(-EPROTOTYPE);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(symlink("elsewhere", path), 0);
        expect_memory(-ELOOP);
        ck_assert_int_eq(faccessat(spool_fd, "elsewhere", F_OK, 0), -1);
        (void) strcat(directory, "/nosuch");
        expect_memory(-ENOENT);
}
END_TEST

/* Whoever cuts the file off, or a file system that has no block for it after all: the next access
 * is one behind its end. */
START_TEST(a_file_that_goes_away_under_the_mapping_is_replaced_by_memory) {
        Metrics *m = open_file();

        m->starts = 5;
        ck_assert_int_eq(truncate(path, 0), 0);
        m->moved += 3;
        ck_assert_uint_eq(m->moved, 3);
        m->moved++;
        ck_assert_uint_eq(m->moved, 4);
        metrics_close(m);
        m = open_file(); /* and the next process has a file again */
        m->starts = 1;
        metrics_close(m);
        m = open_file();
        ck_assert_uint_eq(m->starts, 1);
        metrics_close(m);
}
END_TEST

START_TEST(a_bus_error_elsewhere_ends_the_process) {
        Metrics *m = open_file();

        ck_assert_ptr_nonnull(m);
        (void) raise(SIGBUS);
        (void) raise(SIGBUS);
}
END_TEST

START_TEST(what_is_not_there_cannot_be_read) {
        Metrics got;

        ck_assert_int_eq(metrics_read(directory, &got), -ENOENT);
        spool_put(METRICS_FILE, 0644, 0);
        ck_assert_int_eq(metrics_read(directory, &got), -EBADMSG);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("metrics");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, counters_go_on_where_they_stopped);
        tcase_add_test(tc, a_killed_process_loses_nothing);
        tcase_add_loop_test(tc, a_file_of_another_kind_starts_at_zero, 0, 16);
        tcase_add_loop_test(tc, a_file_of_another_size_starts_at_zero, 0, 4);
        tcase_add_test(tc, a_file_of_the_version_before_is_carried_over);
        tcase_add_test(tc, health_is_what_was_seen_last);
        tcase_add_test(tc, errors_have_a_class);
        tcase_add_test(tc, what_cannot_be_a_file_is_replaced_by_memory);
        tcase_add_test(tc, a_file_that_goes_away_under_the_mapping_is_replaced_by_memory);
        if (getenv("CK_FORK") == NULL) /* else this would be the end of the suite */
                tcase_add_test_raise_signal(tc, a_bus_error_elsewhere_ends_the_process, SIGBUS);
        tcase_add_test(tc, what_is_not_there_cannot_be_read);
        return run_case("metrics", tc);
}
