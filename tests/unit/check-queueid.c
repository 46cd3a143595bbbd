/* SPDX-License-Identifier: MIT */

#include "core/queueid.h"

#include "core/queue.h"
#include "tests/lib/spool.h"
#include "util/util.h"

#define LETTERS_50  "abcdefghijklmnopqrstuvwxyabcdefghijklmnopqrstuvwxy"
#define LETTERS_250 LETTERS_50 LETTERS_50 LETTERS_50 LETTERS_50 LETTERS_50

#define ID(text)    text, sizeof text - 1

static const struct {
        const char *id;
        size_t n;
        bool valid;
} ids[] = {
        {ID("A"), true},
        {ID("_abc"), true},
        {ID("abc"), true},
        {ID("A_B"), true},
        {ID("ABC123"), true},
        {ID("E34BF11814B"), true},
        {ID("4jY8076wjqz8d3T"), true},
        {ID("xn__bcher_kva_example"), true},
        {ID(LETTERS_250 "12345"), true},
        {ID(LETTERS_250 "123456"), false},
        {ID(""), false},
        {ID("."), false},
        {ID(".."), false},
        {ID("../x"), false},
        {ID("A/B"), false},
        {ID("A-B"), false},
        {ID("AB\nCD"), false},
        {ID("ABC123\r"), false},
        {ID("AB C"), false},
        {ID("A\0B"), false},
        {ID("A\xc3\xa9"), false},
        {ID("A\xff"), false},
        {ID("@"), false}, /* the neighbours of letters and digits */
        {ID("["), false},
        {ID("`"), false},
        {ID("{"), false},
        {ID("/"), false},
        {ID(":"), false},
};

START_TEST(only_letters_digits_and_underscores_make_an_id) {
        ck_assert_int_eq(queueid_valid(ids[_i].id, ids[_i].n), ids[_i].valid);
}
END_TEST

START_TEST(bytes_behind_the_length_do_not_count) {
        ck_assert(queueid_valid("ABC/", 3));
        ck_assert(!queueid_valid("ABC/", 4));
}
END_TEST

/* The examples of the specification, all seen with Postfix's own programs. */
static const struct {
        QueueName queue;
        unsigned depth;
        const char *id, *path;
} paths[] = {
        {QUEUE_DEFERRED, 1, "ABC123", "deferred/A/ABC123"},
        {QUEUE_DEFERRED, 1, "_abc", "deferred/_/_abc"},
        {QUEUE_DEFERRED, 1, "abc", "deferred/a/abc"},
        {QUEUE_DEFERRED, 2, "A", "deferred/A/_/A"},
        {QUEUE_DEFERRED, 2, "AB", "deferred/A/B/AB"},
        {QUEUE_INCOMING, 3, "AB", "incoming/A/B/_/AB"},
        {QUEUE_INCOMING, 3, "ABC123", "incoming/A/B/C/ABC123"},
        {QUEUE_DEFERRED, 2, "4jY8076wjqz8d3T", "deferred/E/E/4jY8076wjqz8d3T"},
        {QUEUE_DEFERRED, 2, "4jY8076vx1z8d3D", "deferred/E/D/4jY8076vx1z8d3D"},
        {QUEUE_DEFERRED, 2, "4jY8076txJz8d2s", "deferred/E/C/4jY8076txJz8d2s"},
        {QUEUE_DEFERRED, 3, "3pt2mN2VXxznjll", "deferred/5/6/3/3pt2mN2VXxznjll"},
        {QUEUE_DEFERRED, 5, "4jY8076wjqz8d3T", "deferred/E/E/2/2/F/4jY8076wjqz8d3T"},
        {QUEUE_DEFERRED, 6, "4jY8076wjqz8d3T", "deferred/E/E/2/2/F/_/4jY8076wjqz8d3T"},
        {QUEUE_DEFERRED, 1, "12345678zAB", "deferred/1/12345678zAB"},
        {QUEUE_DEFERRED, 1, "1234567A90zAB", "deferred/0/1234567A90zAB"},
        {QUEUE_FLUSH, 2, "example_com", "flush/e/x/example_com"},
        {QUEUE_FLUSH, 2, "ab", "flush/a/b/ab"},
        {QUEUE_FLUSH, 2, "www_example_zone", "flush/0/0/www_example_zone"},
        {QUEUE_FLUSH, 2, "a_very_long_bcdfz_example", "flush/4/3/a_very_long_bcdfz_example"},
        {QUEUE_FLUSH, 2, "0123456789zz_example", "flush/F/5/0123456789zz_example"},
        /* The last 'z' counts, and only from offset 10 on. */
        {QUEUE_DEFERRED, 1, "123456789z", "deferred/1/123456789z"},
        {QUEUE_DEFERRED, 2, "1234567890z", "deferred/F/5/1234567890z"},
        {QUEUE_DEFERRED, 2, "1234560000zA", "deferred/0/0/1234560000zA"},
        /* 52^4 - 1 is 6F90FF: six digits, and the first ones are used. */
        {QUEUE_DEFERRED, 2, "123456zzzzz", "deferred/6/F/123456zzzzz"},
};

START_TEST(a_hashed_path_is_postfix_s) {
        Queue q = {.hash_depth = paths[_i].depth};
        char path[QUEUE_PATH_SIZE];

        q.hashed[paths[_i].queue] = true;
        queue_path(&q, paths[_i].queue, paths[_i].id, path);
        ck_assert_str_eq(path, paths[_i].path);
}
END_TEST

START_TEST(a_queue_that_is_not_hashed_has_no_forest) {
        Queue q = {.hash_depth = 3, .hashed[QUEUE_DEFERRED] = true};
        char path[QUEUE_PATH_SIZE];

        queue_path(&q, QUEUE_FLUSH, "www_example_zone", path);
        ck_assert_str_eq(path, "flush/www_example_zone");
        queue_path(&q, QUEUE_ACTIVE, "ABC123", path);
        ck_assert_str_eq(path, "active/ABC123");
}
END_TEST

START_TEST(the_deepest_forest_of_the_longest_name_fits) {
        Queue q = {.hash_depth = QUEUEID_FOREST_MAX, .hashed[QUEUE_INCOMING] = true};
        char path[QUEUE_PATH_SIZE];

        queue_path(&q, QUEUE_INCOMING, LETTERS_250 "12345", path);
        ck_assert_uint_eq(strlen(path), sizeof path - 2);
        ck_assert_int_eq(strncmp(path, "incoming/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/abcdef", 47), 0);
}
END_TEST

START_TEST(a_long_id_tells_when_the_message_arrived) {
        ck_assert_int_eq(queueid_arrival("3Pt2mN2VXxznjll"), 1300631508); /* of postconf(5) */
        ck_assert_int_eq(queueid_arrival("AED9EE0"), 0);
        ck_assert_int_eq(queueid_arrival("z"), 0);
        ck_assert_int_eq(queueid_arrival(LETTERS_250 "z"), 0);
        ck_assert_int_eq(queueid_arrival("AAAAAAAAAAz1"), 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("queueid");

        tcase_add_loop_test(tc, only_letters_digits_and_underscores_make_an_id, 0, ARRAY_SIZE(ids));
        tcase_add_test(tc, bytes_behind_the_length_do_not_count);
        tcase_add_loop_test(tc, a_hashed_path_is_postfix_s, 0, ARRAY_SIZE(paths));
        tcase_add_test(tc, a_queue_that_is_not_hashed_has_no_forest);
        tcase_add_test(tc, the_deepest_forest_of_the_longest_name_fits);
        tcase_add_test(tc, a_long_id_tells_when_the_message_arrived);
        return run_case("queueid", tc);
}
