/* SPDX-License-Identifier: MIT */

#include "util/number.h"

#include <limits.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/grow.h"
#include "util/util.h"

static const struct {
        const char *text;
        int r;
        unsigned long value;
} numbers[] = {
        {"0", 0, 0},
        {"1", 0, 1},
        {"007", 0, 7},
        {"2147483648", 0, 2147483648},
        {"", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1e3", -EINVAL, 0},
        {"99999999999999999999999", -ERANGE, 0},
        {"99999999999999999999999x", -EINVAL, 0},
};

START_TEST(only_digits_are_a_number) {
        unsigned long value = 4711;

        ck_assert_int_eq(parse_ulong(numbers[_i].text, &value), numbers[_i].r);
        ck_assert_uint_eq(value, numbers[_i].r == 0 ? numbers[_i].value : 4711);
}
END_TEST

START_TEST(the_largest_number_is_one) {
        unsigned long value = 0;
        char text[64];

        (void) snprintf(text, sizeof text, "%lu", ULONG_MAX);
        ck_assert_int_eq(parse_ulong(text, &value), 0);
        ck_assert_uint_eq(value, ULONG_MAX);
}
END_TEST

START_TEST(an_array_grows_by_doubling_and_keeps_what_it_has) {
        _cleanup_free_ unsigned *items = NULL;
        size_t size = 0, n_grown = 0;

        for (unsigned i = 0; i < 1000; i++) {
                size_t before = size;

                ck_assert(GROW(items, i, size));
                ck_assert_uint_gt(size, i);
                ck_assert_uint_eq(items[i], 0);
                n_grown += size != before;
                items[i] = i + 1;
        }
        for (unsigned i = 0; i < 1000; i++)
                ck_assert_uint_eq(items[i], i + 1);
        ck_assert_uint_le(n_grown, 10);
}
END_TEST

START_TEST(an_array_grows_to_an_index_far_away) {
        _cleanup_free_ unsigned *items = NULL;
        size_t size = 0;

        ck_assert(GROW(items, 5000, size));
        ck_assert_uint_gt(size, 5000);
        for (size_t i = 0; i < size; i++)
                ck_assert_uint_eq(items[i], 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("number");

        tcase_add_loop_test(tc, only_digits_are_a_number, 0, ARRAY_SIZE(numbers));
        tcase_add_test(tc, the_largest_number_is_one);
        tcase_add_test(tc, an_array_grows_by_doubling_and_keeps_what_it_has);
        tcase_add_test(tc, an_array_grows_to_an_index_far_away);
        return run_case("number", tc);
}
