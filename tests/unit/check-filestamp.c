/* SPDX-License-Identifier: MIT */

#include "util/filestamp.h"

#include <stdio.h>
#include <sys/stat.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static Filestamp *watch;
static char *file, *directory, *missing;

static void setup(void) {
        spool_setup();
        watch = NULL;
        spool_write("file", "before");
        ck_assert_int_eq(mkdirat(spool_fd, "conf.d", 0700), 0);
        ck_assert_int_gt(asprintf(&file, "%s/file", spool_dir), 0);
        ck_assert_int_gt(asprintf(&directory, "%s/conf.d", spool_dir), 0);
        ck_assert_int_gt(asprintf(&missing, "%s/missing", spool_dir), 0);
        ck_assert_int_eq(filestamp_add(&watch, file), 0);
        ck_assert_int_eq(filestamp_add(&watch, directory), 0);
        ck_assert_int_eq(filestamp_add(&watch, missing), 0);
        spool_tick();
}

static void teardown(void) {
        watch = filestamp_free(watch);
        free(file);
        free(directory);
        free(missing);
        spool_teardown();
}

START_TEST(what_is_only_read_has_not_changed) {
        _cleanup_free_ char *text = spool_read("file");

        ck_assert_str_eq(text, "before");
        ck_assert(!filestamp_changed(watch));
        ck_assert(!filestamp_changed(NULL));
}
END_TEST

START_TEST(a_file_that_is_written_has_changed) {
        spool_write("file", "behind"); /* of the same size */
        ck_assert(filestamp_changed(watch));
}
END_TEST

/* It could not be read, and now it can. */
START_TEST(a_file_with_another_mode_has_changed) {
        ck_assert_int_eq(fchmodat(spool_fd, "file", 0444, 0), 0);
        ck_assert(filestamp_changed(watch));
}
END_TEST

START_TEST(a_file_that_is_replaced_has_changed) {
        spool_write("new", "before");
        ck_assert_int_eq(renameat(spool_fd, "new", spool_fd, "file"), 0);
        ck_assert(filestamp_changed(watch));
}
END_TEST

START_TEST(a_file_that_is_removed_has_changed) {
        ck_assert_int_eq(unlinkat(spool_fd, "file", 0), 0);
        ck_assert(filestamp_changed(watch));
}
END_TEST

START_TEST(a_file_that_was_not_there_has_changed_when_it_is) {
        spool_write("missing", "");
        ck_assert(filestamp_changed(watch));
}
END_TEST

START_TEST(a_directory_has_changed_with_its_entries) {
        spool_write("conf.d/10.conf", "");
        ck_assert(filestamp_changed(watch));
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("watch");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, what_is_only_read_has_not_changed);
        tcase_add_test(tc, a_file_that_is_written_has_changed);
        tcase_add_test(tc, a_file_with_another_mode_has_changed);
        tcase_add_test(tc, a_file_that_is_replaced_has_changed);
        tcase_add_test(tc, a_file_that_is_removed_has_changed);
        tcase_add_test(tc, a_file_that_was_not_there_has_changed_when_it_is);
        tcase_add_test(tc, a_directory_has_changed_with_its_entries);
        return run_case("watch", tc);
}
