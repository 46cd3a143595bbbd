/* SPDX-License-Identifier: MIT */

#include "core/settings.h"

#include <fcntl.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define POSTCONF   POSTFIX_COMMAND_DIR "/postconf"

#define MINUTE     (60 * USEC_PER_SEC)
#define HOUR       (60 * MINUTE)
#define DAY        (24 * HOUR)

#define NO_POSTFIX "postfix_config_directory = \"\"\n"

static Settings settings;
static char *file;

static void setup(void) {
        spool_setup();
        ck_assert_int_gt(asprintf(&file, "%s/fflushd.conf", spool_dir), 0);
}

static void teardown(void) {
        settings_done(&settings);
        free(file);
        spool_teardown();
}

static void load(void) {
        settings_done(&settings);
        ck_assert_int_eq(settings_load(file, NULL, &settings), 0);
}

static void load_text(const char *text) {
        spool_write("fflushd.conf", text);
        load();
}

static void expect_no_problem(void) {
        ck_assert_msg(!settings.problems, "%s", settings.problems);
}

/* @where: ":LINE: " or "" */
static void expect_problem(const char *name, const char *where, const char *what) {
        _cleanup_free_ char *begin = NULL;
        const char *problem;

        ck_assert_int_gt(asprintf(&begin, "%s/%s%s", spool_dir, name, where), 0);
        ck_assert_ptr_nonnull(settings.problems);
        problem = strstr(settings.problems, begin);
        ck_assert_msg(problem, "%s: not in \"%s\"", begin, settings.problems);
        ck_assert_msg(strstr(problem, what), "%s: not in \"%s\"", what, settings.problems);
}

START_TEST(without_a_file_and_postfix_all_is_as_documented) {
        load_text(NO_POSTFIX);
        expect_no_problem();
        ck_assert_str_eq(settings.queue_directory, "/var/spool/postfix");
        ck_assert_str_eq(settings.fast_flush_domains, "");
        ck_assert_str_eq(settings.hash_queue_names, "deferred, defer");
        ck_assert_str_eq(settings.queue_service_name, "qmgr");
        ck_assert_str_eq(settings.postfix_config_directory, "");
        ck_assert(settings.subdomains);
        ck_assert(settings.announce);
        ck_assert(!settings.sync);
        ck_assert_uint_eq(settings.hash_queue_depth, 1);
        ck_assert_uint_eq(settings.max_use, 0);
        ck_assert_uint_eq(settings.fast_flush_refresh_time, 12 * HOUR);
        ck_assert_uint_eq(settings.fast_flush_purge_time, 7 * DAY);
        ck_assert_uint_eq(settings.trigger_timeout, 10 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.ipc_timeout, 3600 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.request_timeout, 100 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.max_idle, 100 * USEC_PER_SEC);
}
END_TEST

#define ALL_VALUES                                                                                 \
        "queue_directory = /srv/queue\n"                                                           \
        "fast_flush_domains = \"example.com, !bad.example.com\"\n"                                 \
        "parent_domain_matches_subdomains = 'relay_domains'\n"                                     \
        "fast_flush_refresh_time = 6h\n"                                                           \
        "fast_flush_purge_time = 2w\n"                                                             \
        "hash_queue_names = \"deferred, incoming flush\"\n"                                        \
        "hash_queue_depth = 3\n"                                                                   \
        "queue_service_name = other\n"                                                             \
        "trigger_timeout = 3s\n"                                                                   \
        "ipc_timeout = 1m\n"                                                                       \
        "protocol_announcement = off\n"                                                            \
        "request_timeout = 20\n"                                                                   \
        "max_idle = 5m\n"                                                                          \
        "max_use = 17\n"                                                                           \
        "sync = yes\n"

static void expect_all_values(void) {
        expect_no_problem();
        ck_assert_str_eq(settings.queue_directory, "/srv/queue");
        ck_assert_str_eq(settings.fast_flush_domains, "example.com, !bad.example.com");
        ck_assert_str_eq(settings.hash_queue_names, "deferred, incoming flush");
        ck_assert_str_eq(settings.queue_service_name, "other");
        ck_assert(!settings.subdomains);
        ck_assert(!settings.announce);
        ck_assert(settings.sync);
        ck_assert_uint_eq(settings.hash_queue_depth, 3);
        ck_assert_uint_eq(settings.max_use, 17);
        ck_assert_uint_eq(settings.fast_flush_refresh_time, 6 * HOUR);
        ck_assert_uint_eq(settings.fast_flush_purge_time, 14 * DAY);
        ck_assert_uint_eq(settings.trigger_timeout, 3 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.ipc_timeout, MINUTE);
        ck_assert_uint_eq(settings.request_timeout, 20 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.max_idle, 5 * MINUTE);
}

START_TEST(each_value_can_be_set) {
        load_text(NO_POSTFIX ALL_VALUES);
        expect_all_values();
}
END_TEST

/* What is printed, with the value that names its source. */
static char *printed(void) {
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        ck_assert_ptr_nonnull(f);
        settings_print(&settings, f);
        ck_assert_int_eq(fclose(f), 0);
        return text;
}

START_TEST(what_is_printed_can_be_read_back) {
        _cleanup_free_ char *first = NULL, *second = NULL, *line = NULL;

        load_text(NO_POSTFIX ALL_VALUES);
        first = printed();
        ck_assert_int_gt(asprintf(&line, "max_idle = '5m' # %s\n", file), 0);
        ck_assert_ptr_nonnull(strstr(first, line));
        load_text(first);
        expect_all_values();
        second = printed();
        ck_assert_str_eq(first, second);
}
END_TEST

START_TEST(a_printed_default_is_marked) {
        _cleanup_free_ char *text = NULL;

        load_text(NO_POSTFIX);
        text = printed();
        ck_assert_ptr_nonnull(strstr(text, "\nmax_idle = '100s' # default\n"));
}
END_TEST

/* Values with characters that mean something to the configuration's syntax. */
static const struct {
        const char *written, *value;
} odd_values[] = {
        {"'regexp:/etc/a\\.b'", "regexp:/etc/a\\.b"},
        {"\"inline:{ { a.example = x } }\"", "inline:{ { a.example = x } }"},
        {"'a#b #c'", "a#b #c"},
        {"\"it's.example\"", "it's.example"},
        {"'say \"a\"'", "say \"a\""},
        {"'back\\\\slash'", "back\\slash"},
};

START_TEST(an_odd_value_can_be_read_printed_and_read_back) {
        _cleanup_free_ char *text = NULL, *again = NULL;

        ck_assert_int_gt(
                asprintf(&text, NO_POSTFIX "fast_flush_domains = %s\n", odd_values[_i].written), 0);
        load_text(text);
        expect_no_problem();
        ck_assert_str_eq(settings.fast_flush_domains, odd_values[_i].value);
        again = printed();
        load_text(again);
        expect_no_problem();
        ck_assert_str_eq(settings.fast_flush_domains, odd_values[_i].value);
}
END_TEST

START_TEST(a_time_without_letter_has_the_unit_of_the_default) {
        load_text(NO_POSTFIX "fast_flush_refresh_time = 1\n"
                             "fast_flush_purge_time = 1\n"
                             "trigger_timeout = 1\n"
                             "ipc_timeout = 2\n"
                             "request_timeout = 3\n"
                             "max_idle = 4\n");
        expect_no_problem();
        ck_assert_uint_eq(settings.fast_flush_refresh_time, HOUR);
        ck_assert_uint_eq(settings.fast_flush_purge_time, DAY);
        ck_assert_uint_eq(settings.trigger_timeout, USEC_PER_SEC);
        ck_assert_uint_eq(settings.ipc_timeout, 2 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.request_timeout, 3 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.max_idle, 4 * USEC_PER_SEC);
}
END_TEST

START_TEST(comments_and_empty_lines_do_not_count) {
        load_text("# max_use = 1\n\n// max_use = 2\n/* max_use = 3\n */\n" NO_POSTFIX
                  "   max_idle=7s # not max_use = 4\n");
        expect_no_problem();
        ck_assert_uint_eq(settings.max_use, 0);
        ck_assert_uint_eq(settings.max_idle, 7 * USEC_PER_SEC);
}
END_TEST

START_TEST(the_last_of_several_values_counts) {
        load_text(NO_POSTFIX "max_use = 1\nmax_use = 2\n");
        expect_no_problem();
        ck_assert_uint_eq(settings.max_use, 2);
}
END_TEST

/* Wrong files: the line that is to be named, and what is to be said about it. */
static const struct {
        const char *text;
        const char *line, *what;
} wrong_files[] = {
        /* libconfuse by itself counts a line that has a comment three times */
        {"max_use = 7\n# x\nmax_idle = 2M\n", ":3: ", "max_idle"},
        {"max_use = 7 # x\nmax_idle = 2M\n", ":2: ", "max_idle"},
        {"max_use = 7\n/* x\ny */\nmax_idle = 2M\n", ":4: ", "max_idle"},
        {"max_use = 7\n\n\nmax_idle = 2M\n", ":4: ", "max_idle"},
        {"max_use = 7\nmax_idle = 0\n", ":2: ", "range"},
        {"max_use = 7\nmax_idle = \"\"\n", ":2: ", "not a time"},
        {"max_use = 7\nfast_flush_refresh_time = 3551w\n", ":2: ", "fast_flush_refresh_time"},
        {"max_use = 7\nmax_use = -1\n", ":2: ", "not a number"},
        {"max_use = 7\nmax_use = 1x\n", ":2: ", "not a number"},
        {"max_use = 7\nmax_use = 99999999999999999999\n", ":2: ", "range"},
        {"max_use = 7\nhash_queue_depth = 0\n", ":2: ", "hash_queue_depth"},
        {"max_use = 7\nhash_queue_depth = 17\n", ":2: ", "range"},
        {"max_use = 7\nsync = perhaps\n", ":2: ", "\"yes\" nor \"no\""},
        {"max_use = 7\nprotocol_announcement = yes\n", ":2: ", "\"auto\", \"on\", \"off\""},
        {"max_use = 7\nqueue_directory = spool\n", ":2: ", "absolute"},
        {"max_use = 7\nqueue_service_name = ../qmgr\n", ":2: ", "service name"},
        {"max_use = 7\nqueue_service_name = \"\"\n", ":2: ", "service name"},
        {"max_use = 7\nfast_flush_domains = '$relay_domains'\n", ":2: ", "$name"},
        {"max_use = 7\n\nno_such_key = 1\n", ":3: ", "no_such_key"},
        {"max_use = 7\nmail_version = 3.5.0\n", ":2: ", "mail_version"},
        {"max_use = 7\n=\n", ":2: ", ""},
        {"=", ":1: ", ""},
        {"max_use = 7\nmax_idle\n", "", ""},
        {"max_use = 7\nmax_idle =\n", "", ""},
        {"max_use = 7\nmax_idle = {1, 2}\n", ":2: ", ""},
        {"max_use = 7\nsection {\n}\n", ":2: ", ""},
        {"max_use = 7\nqueue_directory = \"/a\n", "", ""},
        {"max_use = 7\nmax_idle = 1s }\n", ":2: ", ""},
        {"max_use = 7\n/* never ends\nmax_idle = 3s\n", "", ""},
};

START_TEST(a_wrong_file_is_named_with_its_line_and_as_good_as_empty) {
        load_text(wrong_files[_i].text);
        expect_problem("fflushd.conf", wrong_files[_i].line, wrong_files[_i].what);
        ck_assert_uint_eq(settings.max_use, 0);
        ck_assert_uint_eq(settings.max_idle, 100 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.request_timeout, 100 * USEC_PER_SEC);
        ck_assert(!settings.sync);
}
END_TEST

START_TEST(a_problem_is_one_line_whatever_it_quotes) {
        load_text("max_use = 7\nmax_idle = \"1\\n<0>forged\\x1b\"\n");
        expect_problem("fflushd.conf", ":2: ", "forged");
        ck_assert_ptr_null(strchr(settings.problems, '\x1b'));
        ck_assert_ptr_null(strstr(settings.problems, "\n<0>"));
}
END_TEST

START_TEST(an_empty_file_is_no_problem) {
        load_text("");
        ck_assert(!settings.problems || !strstr(settings.problems, spool_dir));
        ck_assert_uint_eq(settings.max_idle, 100 * USEC_PER_SEC);
        load_text("\n\n# nothing\n");
        ck_assert(!settings.problems || !strstr(settings.problems, spool_dir));
}
END_TEST

START_TEST(a_file_that_was_asked_for_must_be_there) {
        load();
        expect_problem("fflushd.conf", ": ", "No such file");
        ck_assert_uint_eq(settings.max_idle, 100 * USEC_PER_SEC);
}
END_TEST

START_TEST(a_directory_in_place_of_the_file_is_a_problem) {
        ck_assert_int_eq(mkdirat(spool_fd, "fflushd.conf", 0700), 0);
        load();
        expect_problem("fflushd.conf", ": ", "not a regular file");
}
END_TEST

START_TEST(a_fifo_in_place_of_the_file_does_not_block) {
        ck_assert_int_eq(mkfifoat(spool_fd, "fflushd.conf", 0600), 0);
        load();
        expect_problem("fflushd.conf", ": ", "not a regular file");
}
END_TEST

START_TEST(a_file_that_may_not_be_read_is_a_problem) {
        spool_write("fflushd.conf", NO_POSTFIX);
        ck_assert_int_eq(fchmodat(spool_fd, "fflushd.conf", 0, 0), 0);
        ck_assert(spool_unprivileged());
        load();
        expect_problem("fflushd.conf", ": ", "Permission denied");
        ck_assert_uint_eq(settings.max_idle, 100 * USEC_PER_SEC);
}
END_TEST

START_TEST(a_file_of_absurd_size_is_a_problem) {
        spool_write("fflushd.conf", "max_use = 7\n");
        ck_assert_int_eq(truncate(file, (off_t) 1 << 40), 0);
        load();
        expect_problem("fflushd.conf", ": ", "too large");
        ck_assert_uint_eq(settings.max_use, 0);
}
END_TEST

START_TEST(garbage_is_a_problem_and_no_more) {
        char bytes[4096];
        unsigned state = 1;

        for (size_t i = 0; i < sizeof bytes; i++) {
                state = state * 1103515245 + 12345;
                bytes[i] = (char) (state >> 16);
        }
        spool_write_bytes("fflushd.conf", bytes, sizeof bytes);
        load();
        expect_problem("fflushd.conf", "", "");
        ck_assert_uint_eq(settings.max_use, 0);
}
END_TEST

/* ------------------------------------------------------------------------------- conf.d */

START_TEST(drop_ins_come_after_the_file_in_the_order_of_their_names) {
        spool_write("conf.d/20-second.conf", "max_use = 20\nmax_idle = 20s\n");
        spool_write("conf.d/10-first.conf", "max_use = 10\nmax_idle = 10s\nipc_timeout = 10s\n");
        load_text(NO_POSTFIX "max_use = 1\nrequest_timeout = 1s\n");
        expect_no_problem();
        ck_assert_uint_eq(settings.max_use, 20);
        ck_assert_uint_eq(settings.max_idle, 20 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.ipc_timeout, 10 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.request_timeout, 1 * USEC_PER_SEC);
}
END_TEST

START_TEST(only_conf_files_are_drop_ins) {
        spool_write("conf.d/a.conf.bak", "max_use = 1\n");
        spool_write("conf.d/.hidden.conf", "max_use = 2\n");
        spool_write("conf.d/.conf", "max_use = 3\n");
        spool_write("conf.d/README", "max_use = 4\n");
        spool_write("conf.d/a.CONF", "max_use = 5\n");
        load_text(NO_POSTFIX);
        expect_no_problem();
        ck_assert_uint_eq(settings.max_use, 0);
}
END_TEST

START_TEST(a_wrong_drop_in_is_named_with_its_own_line) {
        spool_write("conf.d/a.conf", "max_use = 1\n");
        spool_write("conf.d/b.conf", "\nmax_idle = 1x\n");
        load_text(NO_POSTFIX);
        expect_problem("conf.d/b.conf", ":2: ", "max_idle");
}
END_TEST

/* settings.h: "a file that ... has a wrong value is as good as empty": that file, no other. */
START_TEST(a_wrong_drop_in_takes_nothing_from_the_other_files) {
        spool_write("conf.d/a.conf", "ipc_timeout = 7s\n");
        spool_write("conf.d/b.conf", "request_timeout = 7s\nmax_idle = 1x\n");
        load_text(NO_POSTFIX "max_use = 7\n");
        expect_problem("conf.d/b.conf", ":2: ", "max_idle");
        ck_assert_uint_eq(settings.request_timeout, 100 * USEC_PER_SEC);
        ck_assert_str_eq(settings.postfix_config_directory, "");
        ck_assert_uint_eq(settings.max_use, 7);
        ck_assert_uint_eq(settings.ipc_timeout, 7 * USEC_PER_SEC);
}
END_TEST

START_TEST(a_drop_in_that_is_a_directory_is_a_problem) {
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "conf.d/a.conf/"), 0);
        load_text(NO_POSTFIX);
        expect_problem("conf.d/a.conf", ": ", "not a regular file");
}
END_TEST

START_TEST(drop_ins_that_cannot_be_listed_are_a_problem) {
        spool_write("conf.d", "");
        load_text(NO_POSTFIX);
        expect_problem("conf.d", ": ", "Not a directory");
}
END_TEST

START_TEST(a_file_without_slash_has_its_drop_ins_beside_it) {
        spool_write("conf.d/a.conf", "max_use = 7\n");
        spool_write("fflushd.conf", NO_POSTFIX);
        ck_assert_int_eq(fchdir(spool_fd), 0);
        settings_done(&settings);
        ck_assert_int_eq(settings_load("fflushd.conf", NULL, &settings), 0);
        expect_no_problem();
        ck_assert_uint_eq(settings.max_use, 7);
}
END_TEST

/* ------------------------------------------------------------------------------ meanings */

static const struct {
        const char *list;
        bool subdomains;
} parents[] = {
        {"fast_flush_domains", true},
        {"mynetworks, fast_flush_domains relay_domains", true},
        {"relay_domains", false},
        {"", false},
        {"!fast_flush_domains, static:all", false},
        {"static:all", true},
        {"domains", false},
        {"fast_flush_domains.x", false},
};

START_TEST(parent_mode_is_a_matter_of_being_in_the_list) {
        _cleanup_free_ char *text = NULL;

        ck_assert_int_gt(asprintf(&text, NO_POSTFIX "parent_domain_matches_subdomains = '%s'\n",
                                  parents[_i].list),
                         0);
        load_text(text);
        expect_no_problem();
        ck_assert_int_eq(settings.subdomains, parents[_i].subdomains);
}
END_TEST

START_TEST(a_table_of_parameter_names_is_a_problem) {
        load_text(NO_POSTFIX "parent_domain_matches_subdomains = 'hash:x'\n");
        ck_assert_ptr_nonnull(settings.problems);
        ck_assert_ptr_nonnull(strstr(settings.problems, "parent_domain_matches_subdomains"));
}
END_TEST

START_TEST(the_announcement_can_be_forced) {
        load_text(NO_POSTFIX "protocol_announcement = on\n");
        ck_assert(settings.announce);
        load_text(NO_POSTFIX "protocol_announcement = off\n");
        ck_assert(!settings.announce);
        load_text(NO_POSTFIX "protocol_announcement = auto\n");
        ck_assert(settings.announce); /* without Postfix */
}
END_TEST

START_TEST(settings_can_be_freed_twice) {
        load_text(NO_POSTFIX);
        settings_done(&settings);
        ck_assert_ptr_null(settings.text);
        settings_done(&settings);
}
END_TEST

START_TEST(a_further_instance_has_its_own_postfix_directory) {
        settings_done(&settings);
        ck_assert_int_eq(settings_load(NULL, "no-such-instance", &settings), 0);
        ck_assert_str_eq(settings.postfix_config_directory, "/etc/no-such-instance");
        ck_assert_str_eq(settings.syslog_name, "no-such-instance");
        ck_assert(settings.incomplete);
        if (access(POSTCONF, X_OK) == 0)
                ck_assert_ptr_nonnull(strstr(settings.problems, "/etc/no-such-instance"));
        /* which its file can change */
        spool_write("fflushd.conf", NO_POSTFIX);
        settings_done(&settings);
        ck_assert_int_eq(settings_load(file, "no-such-instance", &settings), 0);
        expect_no_problem();
        ck_assert_str_eq(settings.postfix_config_directory, "");
}
END_TEST

/* ------------------------------------------------------------- with Postfix's own postconf */

/* A configuration of Postfix in the test's directory, and a file that names it, and @ours. */
static void load_with(const char *main_cf, const char *ours) {
        _cleanup_free_ char *text = NULL;

        spool_write("postfix/main.cf", main_cf);
        spool_set_times("postfix/main.cf", -60, -60); /* or postconf(1) waits for more */
        ck_assert_int_gt(
                asprintf(&text, "postfix_config_directory = %s/postfix\n%s", spool_dir, ours), 0);
        load_text(text);
}

START_TEST(what_the_file_does_not_set_is_postfix_s) {
        load_with("compatibility_level = 3.6\n"
                  "relay_domains = example.com, example.net\n"
                  "queue_directory = /srv/other\n"
                  "hash_queue_names = deferred, flush\n"
                  "hash_queue_depth = 2\n"
                  "fast_flush_refresh_time = 3h\n"
                  "fast_flush_purge_time = 4\n"
                  "trigger_timeout = 5s\n"
                  "ipc_timeout = 6s\n"
                  "max_idle = 77s\n"
                  "max_use = 77\n"
                  "queue_service_name = qqmgr\n",
                  "ipc_timeout = 9s\n");
        expect_no_problem();
        ck_assert_str_eq(settings.fast_flush_domains, "example.com, example.net");
        ck_assert_str_eq(settings.queue_directory, "/srv/other");
        ck_assert_str_eq(settings.hash_queue_names, "deferred, flush");
        ck_assert_uint_eq(settings.hash_queue_depth, 2);
        ck_assert_uint_eq(settings.fast_flush_refresh_time, 3 * HOUR);
        ck_assert_uint_eq(settings.fast_flush_purge_time, 4 * DAY);
        ck_assert_uint_eq(settings.trigger_timeout, 5 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.ipc_timeout, 9 * USEC_PER_SEC); /* the file's */
        ck_assert_str_eq(settings.queue_service_name, "qqmgr");
        /* these have another meaning there */
        ck_assert_uint_eq(settings.max_idle, 100 * USEC_PER_SEC);
        ck_assert_uint_eq(settings.max_use, 0);
        ck_assert(settings.subdomains);
}
END_TEST

START_TEST(a_long_list_of_postfix_is_taken_whole) {
        char *main_cf = malloc(5000 * 24 + 100), *p;

        p = stpcpy(main_cf, "compatibility_level = 3.6\nrelay_domains =");
        for (unsigned i = 0; i < 5000; i++)
                p += sprintf(p, "\n site%u.example", i);
        (void) strcpy(p, "\n");
        load_with(main_cf, "");
        free(main_cf);
        expect_no_problem();
        ck_assert_ptr_nonnull(strstr(settings.fast_flush_domains, "site0.example"));
        ck_assert_ptr_nonnull(strstr(settings.fast_flush_domains, "site4999.example"));
}
END_TEST

START_TEST(a_value_with_an_equals_sign_is_taken_whole) {
        load_with("compatibility_level = 3.6\n"
                  "fast_flush_domains = inline:{ a.example=x, { b.example = y } }\n",
                  "");
        expect_no_problem();
        ck_assert_str_eq(settings.fast_flush_domains, "inline:{ a.example=x, { b.example = y } }");
}
END_TEST

START_TEST(an_empty_list_of_postfix_is_empty_and_not_unknown) {
        load_with("compatibility_level = 3.6\nfast_flush_domains =\n", "");
        expect_no_problem();
        ck_assert(!settings.incomplete);
        ck_assert_str_eq(settings.fast_flush_domains, "");
}
END_TEST

START_TEST(strict_mode_is_taken_from_postfix) {
        load_with("compatibility_level = 3.6\nparent_domain_matches_subdomains =\n", "");
        expect_no_problem();
        ck_assert(!settings.subdomains);
}
END_TEST

START_TEST(a_wrong_value_of_postfix_is_a_problem_of_its_own) {
        load_with("compatibility_level = 3.6\n"
                  "fast_flush_refresh_time = 2M\n"
                  "fast_flush_domains = example.com\n",
                  "");
        ck_assert_ptr_nonnull(settings.problems);
        ck_assert_ptr_nonnull(strstr(settings.problems, "main.cf: fast_flush_refresh_time = 2M"));
        ck_assert_uint_eq(settings.fast_flush_refresh_time, 12 * HOUR);
        ck_assert_str_eq(settings.fast_flush_domains, "example.com");
}
END_TEST

START_TEST(a_directory_without_postfix_leaves_the_list_unknown) {
        _cleanup_free_ char *text = NULL;

        ck_assert_int_gt(
                asprintf(&text, "postfix_config_directory = %s/nowhere\nmax_use = 7\n", spool_dir),
                0);
        load_text(text);
        expect_problem("nowhere", "", "");
        ck_assert(settings.incomplete);
        ck_assert_uint_eq(settings.hash_queue_depth, 1);
        ck_assert_str_eq(settings.queue_directory, "/var/spool/postfix");
        ck_assert_uint_eq(settings.max_use, 7); /* the file itself is right */
}
END_TEST

START_TEST(a_list_of_our_own_needs_no_postfix_to_be_known) {
        _cleanup_free_ char *text = NULL;

        ck_assert_int_gt(asprintf(&text,
                                  "postfix_config_directory = %s/nowhere\n"
                                  "fast_flush_domains = example.com\n",
                                  spool_dir),
                         0);
        load_text(text);
        expect_problem("nowhere", "", "");
        ck_assert_str_eq(settings.fast_flush_domains, "example.com");
}
END_TEST

START_TEST(a_new_postfix_announces_and_an_old_one_does_not) {
        _cleanup_free_ char *text = NULL;
        int major, minor;

        load_with("compatibility_level = 3.6\n", "");
        text = printed();
        ck_assert_ptr_nonnull(strstr(text, "# mail_version = '"));
        ck_assert_int_eq(sscanf(strstr(text, "# mail_version = '"), "# mail_version = '%d.%d",
                                &major, &minor),
                         2);
        ck_assert_int_eq(settings.announce, major > 3 || (major == 3 && minor >= 6));
        load_with("compatibility_level = 3.6\nmail_version = 3.5.25\n", "");
        ck_assert(!settings.announce);
        load_with("compatibility_level = 3.6\nmail_version = 3.12-20260821\n", "");
        ck_assert(settings.announce);
        load_with("compatibility_level = 3.6\nmail_version = 2.11.11\n", "");
        ck_assert(!settings.announce);
        load_with("compatibility_level = 3.6\nmail_version = 4.0.1\n", "");
        ck_assert(settings.announce);
}
END_TEST

/* ------------------------------------------------------------- taking the place of others */

START_TEST(a_start_makes_do_with_what_postfix_said_last) {
        ck_assert_int_eq(setenv("CACHE_DIRECTORY", spool_dir, 1), 0);
        load_with("compatibility_level = 3.6\nfast_flush_domains = one.test\n", "");
        ck_assert(!settings.outdated && !settings_changed(&settings));
        spool_write("postfix/main.cf",
                    "compatibility_level = 3.6\nfast_flush_domains = two.test\n");
        spool_set_times("postfix/main.cf", -30, -30);
        ck_assert(settings_changed(&settings));

        settings_done(&settings);
        ck_assert_int_eq(settings_start(file, NULL, &settings), 0);
        expect_no_problem();
        ck_assert_str_eq(settings.fast_flush_domains, "one.test");
        ck_assert(settings.outdated && settings_changed(&settings));

        load(); /* asks */
        ck_assert_str_eq(settings.fast_flush_domains, "two.test");
        ck_assert(!settings.outdated && !settings_changed(&settings));
        ck_assert_int_eq(unsetenv("CACHE_DIRECTORY"), 0);
}
END_TEST

/* After a move to another disk nothing can be served at the old place, and so nothing would ever be
 * kept of the new one. */
START_TEST(a_start_does_not_make_do_with_a_queue_that_has_gone) {
        _cleanup_free_ char *text = NULL;

        ck_assert_int_eq(setenv("CACHE_DIRECTORY", spool_dir, 1), 0);
        load_with("compatibility_level = 3.6\nqueue_directory = /nowhere/spool\n", "");
        ck_assert_int_gt(
                asprintf(&text, "compatibility_level = 3.6\nqueue_directory = %s\n", spool_dir), 0);
        spool_write("postfix/main.cf", text);
        spool_set_times("postfix/main.cf", -30, -30);
        settings_done(&settings);
        ck_assert_int_eq(settings_start(file, NULL, &settings), 0);
        expect_no_problem();
        ck_assert_str_eq(settings.queue_directory, spool_dir);
        ck_assert(!settings.outdated);
        ck_assert_int_eq(unsetenv("CACHE_DIRECTORY"), 0);
}
END_TEST

START_TEST(what_is_less_whole_does_not_improve) {
        Settings whole, part;

        load_text(NO_POSTFIX "fast_flush_domains = one.test\n");
        whole = settings;
        ck_assert(settings_improve(&whole, &whole));

        settings = (Settings){0};
        load_text(NO_POSTFIX "fast_flush_domains = one.test\nnonsense = 1\n");
        part = settings;
        ck_assert(part.broken && !settings_improve(&part, &whole));
        ck_assert(settings_improve(&whole, &part) && settings_improve(&part, &part));
        settings_done(&part);

        settings = (Settings){0};
        load_text("postfix_config_directory = /nonexistent\nfast_flush_domains = one.test\n");
        part = settings;
        ck_assert(part.unasked && part.incomplete && !settings_improve(&part, &whole));
        ck_assert(settings_improve(&whole, &part));
        settings_done(&part);
        settings = whole;
}
END_TEST

static TCase *files(void) {
        TCase *tc = tcase_create("file");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, without_a_file_and_postfix_all_is_as_documented);
        tcase_add_test(tc, each_value_can_be_set);
        tcase_add_test(tc, what_is_printed_can_be_read_back);
        tcase_add_test(tc, a_printed_default_is_marked);
        tcase_add_loop_test(tc, an_odd_value_can_be_read_printed_and_read_back, 0,
                            ARRAY_SIZE(odd_values));
        tcase_add_test(tc, a_time_without_letter_has_the_unit_of_the_default);
        tcase_add_test(tc, comments_and_empty_lines_do_not_count);
        tcase_add_test(tc, the_last_of_several_values_counts);
        tcase_add_loop_test(tc, a_wrong_file_is_named_with_its_line_and_as_good_as_empty, 0,
                            ARRAY_SIZE(wrong_files));
        tcase_add_test(tc, a_problem_is_one_line_whatever_it_quotes);
        tcase_add_test(tc, an_empty_file_is_no_problem);
        tcase_add_test(tc, a_file_that_was_asked_for_must_be_there);
        tcase_add_test(tc, a_directory_in_place_of_the_file_is_a_problem);
        tcase_add_test(tc, a_fifo_in_place_of_the_file_does_not_block);
        tcase_add_test(tc, a_file_that_may_not_be_read_is_a_problem);
        tcase_add_test(tc, a_file_of_absurd_size_is_a_problem);
        tcase_add_test(tc, garbage_is_a_problem_and_no_more);
        return tc;
}

static TCase *drop_ins(void) {
        TCase *tc = tcase_create("conf.d");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, drop_ins_come_after_the_file_in_the_order_of_their_names);
        tcase_add_test(tc, only_conf_files_are_drop_ins);
        tcase_add_test(tc, a_wrong_drop_in_is_named_with_its_own_line);
        tcase_add_test(tc, a_wrong_drop_in_takes_nothing_from_the_other_files);
        tcase_add_test(tc, a_drop_in_that_is_a_directory_is_a_problem);
        tcase_add_test(tc, drop_ins_that_cannot_be_listed_are_a_problem);
        tcase_add_test(tc, a_file_without_slash_has_its_drop_ins_beside_it);
        return tc;
}

static TCase *meanings(void) {
        TCase *tc = tcase_create("meanings");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_loop_test(tc, parent_mode_is_a_matter_of_being_in_the_list, 0,
                            ARRAY_SIZE(parents));
        tcase_add_test(tc, a_table_of_parameter_names_is_a_problem);
        tcase_add_test(tc, the_announcement_can_be_forced);
        tcase_add_test(tc, settings_can_be_freed_twice);
        tcase_add_test(tc, what_is_less_whole_does_not_improve);
        tcase_add_test(tc, a_further_instance_has_its_own_postfix_directory);
        return tc;
}

static TCase *postfix(void) {
        TCase *tc = tcase_create("postconf");

        tcase_add_checked_fixture(tc, setup, teardown);
        if (access(POSTCONF, X_OK) < 0) {
                (void) printf("no " POSTCONF ": its tests are left out\n");
                return tc;
        }
        tcase_add_test(tc, what_the_file_does_not_set_is_postfix_s);
        tcase_add_test(tc, a_start_does_not_make_do_with_a_queue_that_has_gone);
        tcase_add_test(tc, a_long_list_of_postfix_is_taken_whole);
        tcase_add_test(tc, a_value_with_an_equals_sign_is_taken_whole);
        tcase_add_test(tc, an_empty_list_of_postfix_is_empty_and_not_unknown);
        tcase_add_test(tc, strict_mode_is_taken_from_postfix);
        tcase_add_test(tc, a_wrong_value_of_postfix_is_a_problem_of_its_own);
        tcase_add_test(tc, a_directory_without_postfix_leaves_the_list_unknown);
        tcase_add_test(tc, a_list_of_our_own_needs_no_postfix_to_be_known);
        tcase_add_test(tc, a_new_postfix_announces_and_an_old_one_does_not);
        tcase_add_test(tc, a_start_makes_do_with_what_postfix_said_last);
        return tc;
}

int main(void) {
        TCase *tcs[] = {files(), drop_ins(), meanings(), postfix()};

        return run_cases("settings", tcs, ARRAY_SIZE(tcs));
}
