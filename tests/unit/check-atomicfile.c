/* SPDX-License-Identifier: MIT */

#include "util/atomicfile.h"

#include <dirent.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static char *path;

static void setup(void) {
        spool_setup();
        ck_assert_int_gt(asprintf(&path, "%s/file", spool_dir), 0);
}

static void teardown(void) {
        free(path);
        spool_teardown();
}

static unsigned count_files(void) {
        DIR *dir = opendir(spool_dir);
        unsigned n = 0;

        while (readdir(dir))
                n++;
        (void) closedir(dir);
        return n;
}

static void write_new(const char *text, bool wanted, int expected) {
        char *temporary;
        FILE *f;

        ck_assert_int_eq(atomicfile_begin(path, 0640, &f, &temporary), 0);
        (void) fputs(text, f);
        ck_assert_int_eq(atomicfile_end(f, temporary, wanted ? path : NULL), expected);
}

START_TEST(a_file_appears_whole_and_with_its_mode) {
        char *temporary;
        FILE *f;

        ck_assert_int_eq(atomicfile_begin(path, 0640, &f, &temporary), 0);
        (void) fputs("new\n", f);
        ck_assert_int_eq(atomicfile_sync(f), 0);
        ck_assert(!spool_exists("file"));
        ck_assert_int_eq(atomicfile_end(f, temporary, path), 0);
        spool_expect("file", "new\n");
        ck_assert_uint_eq(spool_stat("file").st_mode & 07777, 0640);
}
END_TEST

START_TEST(the_old_file_is_there_until_the_new_one_is) {
        unsigned n;

        spool_write("file", "old\n");
        n = count_files();
        write_new("new\n", false, 0);
        spool_expect("file", "old\n");
        write_new("new\n", true, 0);
        spool_expect("file", "new\n");
        ck_assert_uint_eq(count_files(), n); /* no temporary one is left */
}
END_TEST

START_TEST(a_full_disk_leaves_the_old_file) {
        unsigned n;

        spool_write("file", "old\n");
        n = count_files();
        spool_limit(0);
        write_new("new\n", true, -EFBIG);
        spool_unlimit();
        spool_expect("file", "old\n");
        ck_assert_uint_eq(count_files(), n);
}
END_TEST

START_TEST(what_is_no_plain_file_is_not_replaced) {
        char *temporary;
        FILE *f;

        ck_assert_int_eq(mkdir(path, 0755), 0);
        ck_assert_int_eq(atomicfile_begin(path, 0640, &f, &temporary), -EINVAL);
        ck_assert(S_ISDIR(spool_stat("file").st_mode));
}
END_TEST

START_TEST(a_directory_that_is_missing_is_an_error) {
        char *temporary;
        FILE *f;

        ck_assert_int_eq(atomicfile_begin("/nonexistent/file", 0640, &f, &temporary), -ENOENT);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("atomicfile");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_file_appears_whole_and_with_its_mode);
        tcase_add_test(tc, the_old_file_is_there_until_the_new_one_is);
        tcase_add_test(tc, a_full_disk_leaves_the_old_file);
        tcase_add_test(tc, what_is_no_plain_file_is_not_replaced);
        tcase_add_test(tc, a_directory_that_is_missing_is_an_error);
        return run_case("atomicfile", tc);
}
