/* SPDX-License-Identifier: MIT */

#include "core/survey.h"

#include <fcntl.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static SurveyLog log_;

static void setup(void) {
        spool_setup();
        log_ = (SurveyLog){0};
}

static void teardown(void) {
        survey_done(&log_);
        spool_teardown();
}

static int read_log(const char *path) {
        survey_done(&log_);
        return survey_read(&spool_queue, path, &log_);
}

START_TEST(a_log_is_read_as_a_flush_would) {
        spool_write_bytes("flush/example_com", "A1\nA2\n\nA1\nno id\nB1\0junk\nA3", 26);
        ck_assert_int_eq(read_log("flush/example_com"), 0);
        ck_assert_uint_eq(log_.records, 5);
        ck_assert_uint_eq(strset_size(&log_.ids), 4);
        ck_assert_uint_eq(log_.invalid, 1);
        ck_assert_uint_eq(log_.lost_tail, 2);
        ck_assert_uint_eq(log_.n_text, 15);
        ck_assert_mem_eq(log_.text, "A1\0A2\0A1\0B1\0A3", 15);
}
END_TEST

START_TEST(an_empty_log_is_empty) {
        spool_write("flush/example_com", "");
        ck_assert_int_eq(read_log("flush/example_com"), 0);
        ck_assert_uint_eq(log_.records + log_.invalid + log_.lost_tail, 0);
}
END_TEST

START_TEST(reading_leaves_the_times_alone) {
        struct stat before, after;

        spool_write("flush/example_com", "A1\n");
        spool_set_times("flush/example_com", -86400, -3600); /* relatime would set this one */
        before = spool_stat("flush/example_com");
        ck_assert_int_eq(read_log("flush/example_com"), 0);
        after = spool_stat("flush/example_com");
        ck_assert_int_eq(after.st_atim.tv_sec, before.st_atim.tv_sec);
        ck_assert_int_eq(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
}
END_TEST

START_TEST(another_ones_log_is_read_as_well) {
        spool_write("flush/example_com", "A1\n");
        if (geteuid() != 0 || chmod(spool_dir, 0755) < 0)
                return;
        ck_assert_int_eq(fchmodat(spool_fd, "flush/example_com", 0644, 0), 0);
        ck_assert_int_eq(fchmodat(spool_fd, "flush", 0755, 0), 0);
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(read_log("flush/example_com"), 0);
        ck_assert_uint_eq(log_.records, 1);
}
END_TEST

START_TEST(what_is_no_log_is_refused) {
        ck_assert_int_eq(read_log("flush/nosuch"), -ENOENT);
        spool_write("flush/example_com", "A1\n");
        ck_assert_int_eq(symlinkat("example_com", spool_fd, "flush/link"), 0);
        ck_assert_int_eq(read_log("flush/link"), -ELOOP);
        ck_assert_int_eq(mkfifoat(spool_fd, "flush/fifo", 0600), 0);
        ck_assert_int_eq(read_log("flush/fifo"), -EPROTOTYPE); /* and does not wait for a writer */
        ck_assert_int_eq(mkdirat(spool_fd, "flush/dir", 0700), 0);
        ck_assert_int_eq(read_log("flush/dir"), -EPROTOTYPE);
}
END_TEST

START_TEST(without_noatime_the_access_time_is_put_back) {
        spool_write("flush/example_com", "A1\n");
        spool_set_times("flush/example_com", -2 * 86400, -86400);
        spool_refuse_noatime();
        ck_assert_int_eq(read_log("flush/example_com"), 0);
        ck_assert_uint_eq(log_.records, 1);
        ck_assert_int_le(spool_atime("flush/example_com"), -2 * 86400 + 60);
}
END_TEST

START_TEST(all_parts_of_a_log_are_read) {
        ck_assert_int_eq(survey_read_log(&spool_queue, "example_com", &log_), -ENOENT);
        spool_write("flush/e/x/example_com", "A1\nA2\n!!\n");
        spool_set_times("flush/e/x/example_com", -86400, -3600);
        ck_assert_int_eq(survey_read_log(&spool_queue, "example_com", &log_), 0);
        ck_assert_uint_eq(log_.records, 2);
        survey_done(&log_);
        spool_write("flush/example_com", "A1\nB1\nB");
        ck_assert_int_eq(survey_read_log(&spool_queue, "example_com", &log_), 0);
        ck_assert_uint_eq(log_.records, 5);
        ck_assert_uint_eq(strset_size(&log_.ids), 4);
        ck_assert_uint_eq(log_.invalid, 1);
        ck_assert_uint_eq(log_.lost_tail, 1);
        ck_assert_mem_eq(log_.text, "A1\0B1\0B\0A1\0A2", 14);
        ck_assert_int_le(log_.st.st_atime, time(NULL) - 86400 + 60);
        ck_assert_int_ge(log_.st.st_mtime, time(NULL) - 60);
}
END_TEST

START_TEST(a_part_that_cannot_be_looked_at_is_an_error) {
        spool_write("flush/e/x/example_com", "A1\n");
        spool_write("flush/example_com", "B1\n");
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(fchmodat(spool_fd, "flush/e", 0, 0), 0);
        ck_assert_int_eq(survey_read_log(&spool_queue, "example_com", &log_), -EACCES);
        ck_assert_int_eq(fchmodat(spool_fd, "flush/e", 0700, 0), 0);
}
END_TEST

START_TEST(a_line_may_be_of_any_length) {
        static char line[300001];

        memset(line, 'A', sizeof line - 1);
        line[sizeof line - 2] = '\n';
        spool_write("flush/example_com", line);
        spool_append("flush/example_com", "A1\n");
        ck_assert_int_eq(read_log("flush/example_com"), 0);
        ck_assert_uint_eq(log_.records, 1);
        ck_assert_uint_eq(log_.invalid, 1);
}
END_TEST

/* ------------------------------------------------------------------------------------- walk */

typedef struct Seen {
        char text[4096];
        int end_with;
} Seen;

static int see(const SurveyEntry *e, void *userdata) {
        Seen *seen = userdata;
        size_t n = strlen(seen->text);

        (void) snprintf(seen->text + n, sizeof seen->text - n, "%s%s ", e->path,
                        e->in_place ? ""
                        : e->found  ? "?"
                                    : "!");
        return seen->end_with;
}

static bool has_seen(const Seen *seen, const char *path) {
        char word[QUEUE_PATH_SIZE + 2];
        const char *at;

        (void) snprintf(word, sizeof word, "%s ", path);
        at = strstr(seen->text, word);
        return at && (at == seen->text || at[-1] == ' ');
}

START_TEST(the_walk_tells_what_belongs_where_it_is) {
        Seen seen = {0};

        spool_write("flush/example_com", "A1\n");
        spool_write("flush/x", "");
        spool_write("flush/.hidden", "");
        spool_write("flush/no-name", "");
        spool_write("flush/h/a/hashed_test", "");
        spool_write("flush/h/x/hashed_test", "");
        spool_write("flush/a/hashed_test", "");
        ck_assert_int_eq(mkdirat(spool_fd, "flush/directory", 0700), 0);
        ck_assert_int_eq(survey_walk(&spool_queue, QUEUE_FLUSH, see, &seen), 0);
        ck_assert(has_seen(&seen, "flush/example_com"));
        ck_assert(has_seen(&seen, "flush/x!"));
        ck_assert(has_seen(&seen, "flush/.hidden!"));
        ck_assert(has_seen(&seen, "flush/no-name!"));
        ck_assert(has_seen(&seen, "flush/directory"));
        ck_assert(has_seen(&seen, "flush/h/a/hashed_test?")); /* where another layout has it */
        ck_assert(has_seen(&seen, "flush/h/x/hashed_test!"));
        ck_assert(has_seen(&seen, "flush/a/hashed_test!"));
        ck_assert(!has_seen(&seen, "flush/h"));
}
END_TEST

START_TEST(the_walk_goes_through_hash_directories) {
        Queue q = spool_queue;
        Seen seen = {0};

        q.hashed[QUEUE_FLUSH] = true;
        q.hash_depth = 2;
        spool_write("flush/e/x/example_com", "A1\n");
        spool_write("flush/e/example_net", "A1\n");
        spool_write("flush/example_org", "A1\n");
        ck_assert_int_eq(survey_walk(&q, QUEUE_FLUSH, see, &seen), 0);
        ck_assert(has_seen(&seen, "flush/e/x/example_com"));
        ck_assert(has_seen(&seen, "flush/e/example_net?"));
        ck_assert(has_seen(&seen, "flush/example_org?"));
}
END_TEST

START_TEST(the_walk_of_the_deferred_queue) {
        Seen seen = {0};

        spool_put("deferred/A/A1", 0700, 0);
        spool_put("deferred/B/A2", 0700, 0);
        ck_assert_int_eq(survey_walk(&spool_queue, QUEUE_DEFERRED, see, &seen), 0);
        ck_assert(has_seen(&seen, "deferred/A/A1"));
        ck_assert(has_seen(&seen, "deferred/B/A2!"));
}
END_TEST

START_TEST(the_walk_ends_when_it_is_told_to) {
        Seen seen = {.end_with = -ENOMEM};

        spool_write("flush/example_com", "");
        spool_write("flush/example_net", "");
        ck_assert_int_eq(survey_walk(&spool_queue, QUEUE_FLUSH, see, &seen), -ENOMEM);
        ck_assert_ptr_eq(strchr(seen.text, ' '), strrchr(seen.text, ' '));
}
END_TEST

START_TEST(a_queue_that_is_not_there_is_empty) {
        Seen seen = {0};

        ck_assert_int_eq(unlinkat(spool_fd, "flush", AT_REMOVEDIR), 0);
        ck_assert_int_eq(survey_walk(&spool_queue, QUEUE_FLUSH, see, &seen), 0);
        ck_assert_str_eq(seen.text, "");
}
END_TEST

START_TEST(names_of_logs_tell_their_sites) {
        char site[QUEUEID_MAX + 3];

        ck_assert(survey_site("example_com", site));
        ck_assert_str_eq(site, "example.com");
        ck_assert(survey_site("xZ", site));
        ck_assert_str_eq(site, "x");
        ck_assert(survey_site("LipvZ", site) == false);
        ck_assert(!survey_site("xn__bcher_kva_example", site)); /* flush(8)'s, for an A-label */
        ck_assert_str_eq(site, "(xn__bcher_kva_example)");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("survey");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_log_is_read_as_a_flush_would);
        tcase_add_test(tc, an_empty_log_is_empty);
        tcase_add_test(tc, reading_leaves_the_times_alone);
        tcase_add_test(tc, another_ones_log_is_read_as_well);
        tcase_add_test(tc, what_is_no_log_is_refused);
        tcase_add_test(tc, without_noatime_the_access_time_is_put_back);
        tcase_add_test(tc, all_parts_of_a_log_are_read);
        tcase_add_test(tc, a_part_that_cannot_be_looked_at_is_an_error);
        tcase_add_test(tc, a_line_may_be_of_any_length);
        tcase_add_test(tc, the_walk_tells_what_belongs_where_it_is);
        tcase_add_test(tc, the_walk_goes_through_hash_directories);
        tcase_add_test(tc, the_walk_of_the_deferred_queue);
        tcase_add_test(tc, the_walk_ends_when_it_is_told_to);
        tcase_add_test(tc, a_queue_that_is_not_there_is_empty);
        tcase_add_test(tc, names_of_logs_tell_their_sites);
        return run_case("survey", tc);
}
