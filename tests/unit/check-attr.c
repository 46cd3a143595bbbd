/* SPDX-License-Identifier: MIT */

#include "core/attr.h"

#include "tests/lib/spool.h"
#include "util/util.h"

static AttrReader reader;

static void setup(void) {
        reader = (AttrReader){0};
}

static void teardown(void) {
        attr_reader_done(&reader);
}

/* Return: what attr_reader_space() said when there was no more room, or 0. */
static int put(const char *bytes, size_t n) {
        while (n > 0) {
                size_t room;
                char *space;
                int r = attr_reader_space(&reader, &space, &room);

                if (r < 0)
                        return r;
                ck_assert_uint_ge(room, 1);
                if (room > n)
                        room = n;
                memcpy(space, bytes, room);
                attr_reader_commit(&reader, room);
                bytes += room;
                n -= room;
        }
        return 0;
}

static const char *next(void) {
        size_t offset;

        return attr_reader_next(&reader, &offset) == 1 ? attr_reader_string(&reader, offset) : NULL;
}

START_TEST(strings_are_taken_one_by_one) {
        ck_assert_int_eq(put("one\0\0three\0fo", 13), 0);
        ck_assert_str_eq(next(), "one");
        ck_assert_str_eq(next(), "");
        ck_assert_str_eq(next(), "three");
        ck_assert_ptr_null(next());
}
END_TEST

START_TEST(a_string_may_come_byte_by_byte) {
        static const char bytes[] = "request";

        for (size_t i = 0; i < sizeof bytes; i++) {
                ck_assert_ptr_null(next());
                ck_assert_int_eq(put(bytes + i, 1), 0);
        }
        ck_assert_str_eq(next(), "request");
        ck_assert_ptr_null(next());
}
END_TEST

START_TEST(an_offset_outlives_the_move_to_a_larger_buffer) {
        char filler[ATTR_INLINE_SIZE];
        size_t first, second;

        memset(filler, 'x', sizeof filler);
        ck_assert_int_eq(put("name", 5), 0);
        ck_assert_int_eq(attr_reader_next(&reader, &first), 1);
        ck_assert_int_eq(put(filler, sizeof filler), 0);
        ck_assert_int_eq(put("", 1), 0);
        ck_assert_int_eq(attr_reader_next(&reader, &second), 1);
        ck_assert_str_eq(attr_reader_string(&reader, first), "name");
        ck_assert_uint_eq(strlen(attr_reader_string(&reader, second)), sizeof filler);
}
END_TEST

START_TEST(a_buffer_is_never_twice_what_it_holds) {
        ck_assert_uint_eq(reader.size, 0);
        for (size_t n = 0; n < ATTR_LIST_MAX; n++) {
                ck_assert_int_eq(put("x", 1), 0);
                ck_assert(reader.size <= 2 * reader.n);
        }
        ck_assert_uint_eq(reader.size, ATTR_LIST_MAX);
        ck_assert_int_eq(put("x", 1), -EMSGSIZE);
}
END_TEST

static const struct {
        size_t n_waste, max;
        const char *kept;
} keeps[] = {
        {0, 100, "second"}, /* was short: stays where it is */
        {1000, 100, "second"}, {1000, 3, "sec"}, {1000, 6, "second"}, {1000, 0, ""},
};

START_TEST(what_is_kept_of_a_long_list_is_short) {
        size_t offsets[2], dummy;
        const size_t max[2] = {100, keeps[_i].max};

        for (size_t i = 0; i < keeps[_i].n_waste; i++)
                ck_assert_int_eq(put("", 1), 0);
        ck_assert_int_eq(put("first\0second", 13), 0);
        for (size_t i = 0; i < keeps[_i].n_waste; i++)
                ck_assert_int_eq(attr_reader_next(&reader, &dummy), 1);
        ck_assert_int_eq(attr_reader_next(&reader, &offsets[0]), 1);
        ck_assert_int_eq(attr_reader_next(&reader, &offsets[1]), 1);
        attr_reader_keep(&reader, offsets, max, 2);
        ck_assert_uint_eq(reader.size, 0);
        ck_assert_ptr_null(reader.heap);
        ck_assert_str_eq(attr_reader_string(&reader, offsets[0]), "first");
        ck_assert_str_eq(attr_reader_string(&reader, offsets[1]), keeps[_i].kept);
}
END_TEST

START_TEST(what_is_kept_may_be_long_and_takes_no_more_than_that) {
        char text[5000];
        size_t offset, dummy;
        const size_t max = ATTR_LIST_MAX;

        memset(text, 'x', sizeof text);
        text[sizeof text - 1] = '\0';
        ck_assert_int_eq(put("name", 5), 0);
        ck_assert_int_eq(put(text, sizeof text), 0);
        ck_assert_int_eq(attr_reader_next(&reader, &dummy), 1);
        ck_assert_int_eq(attr_reader_next(&reader, &offset), 1);
        attr_reader_keep(&reader, &offset, &max, 1);
        ck_assert_uint_eq(reader.size, sizeof text);
        ck_assert_str_eq(attr_reader_string(&reader, offset), text);
}
END_TEST

START_TEST(the_rest_is_what_has_not_been_taken) {
        size_t n;

        (void) attr_reader_rest(&reader, &n);
        ck_assert_uint_eq(n, 0);
        ck_assert_int_eq(put("a\0bcd", 5), 0);
        ck_assert_str_eq(next(), "a");
        ck_assert_ptr_null(next());
        ck_assert_mem_eq(attr_reader_rest(&reader, &n), "bcd", 3);
        ck_assert_uint_eq(n, 3);
}
END_TEST

START_TEST(a_list_of_the_longest_length_fits_and_no_byte_more) {
        _cleanup_free_ char *bytes = calloc(1, ATTR_LIST_MAX);
        const char *s;

        memset(bytes, 'a', ATTR_LIST_MAX - 1);
        ck_assert_int_eq(put(bytes, ATTR_LIST_MAX), 0);
        s = next();
        ck_assert_ptr_nonnull(s);
        ck_assert_uint_eq(strlen(s), ATTR_LIST_MAX - 1);
        ck_assert_int_eq(put("x", 1), -EMSGSIZE);
}
END_TEST

START_TEST(a_list_is_written_as_postfix_writes_it) {
        static const char expected[] = "site\0example.com\0status\0"
                                       "4294967295\0n\0"
                                       "4294967295\0e\0\0"; /* and the literal's own NUL */
        char bytes[128];
        AttrWriter w = {.data = bytes, .size = sizeof bytes};

        attr_put(&w, "site", "example.com");
        attr_put_int(&w, "status", -1);
        attr_put_int(&w, "n", UINT32_MAX);
        attr_put(&w, "e", "");
        attr_end(&w);
        ck_assert_uint_eq(w.n, sizeof expected);
        ck_assert_mem_eq(bytes, expected, sizeof expected);
}
END_TEST

START_TEST(a_list_may_fill_its_buffer_to_the_last_byte) {
        char bytes[6];
        AttrWriter w = {.data = bytes, .size = sizeof bytes};

        attr_put(&w, "a", "bc");
        attr_end(&w);
        ck_assert_uint_eq(w.n, sizeof bytes);
        ck_assert_mem_eq(bytes, "a\0bc\0", sizeof bytes);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("attr");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, strings_are_taken_one_by_one);
        tcase_add_test(tc, a_string_may_come_byte_by_byte);
        tcase_add_test(tc, an_offset_outlives_the_move_to_a_larger_buffer);
        tcase_add_test(tc, a_buffer_is_never_twice_what_it_holds);
        tcase_add_loop_test(tc, what_is_kept_of_a_long_list_is_short, 0, ARRAY_SIZE(keeps));
        tcase_add_test(tc, what_is_kept_may_be_long_and_takes_no_more_than_that);
        tcase_add_test(tc, the_rest_is_what_has_not_been_taken);
        tcase_add_test(tc, a_list_of_the_longest_length_fits_and_no_byte_more);
        tcase_add_test(tc, a_list_is_written_as_postfix_writes_it);
        tcase_add_test(tc, a_list_may_fill_its_buffer_to_the_last_byte);
        return run_case("attr", tc);
}
