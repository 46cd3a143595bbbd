/* SPDX-License-Identifier: MIT */

#include "util/timespan.h"

#include "tests/lib/spool.h"
#include "util/util.h"

#define MINUTE 60
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

static const struct {
        const char *text;
        char unit;
        int r;
        uint64_t seconds;
} times[] = {
        {"1", 's', 0, 1},
        {"1", 'h', 0, HOUR},
        {"1", 'd', 0, DAY},
        {"12h", 'h', 0, 12 * HOUR},
        {"12h", 'd', 0, 12 * HOUR},
        {"100s", 'h', 0, 100},
        {"5m", 's', 0, 5 * MINUTE},
        {"7d", 's', 0, 7 * DAY},
        {"2w", 's', 0, 14 * DAY},
        {"007s", 's', 0, 7},
        {"12hours", 's', 0, 12 * HOUR},
        {"1sxyz", 'h', 0, 1},
        {"2147483647", 's', 0, 2147483647},
        {"2147483647s", 'd', 0, 2147483647},
        {"2147483648", 's', -ERANGE, 0},
        {"3550w", 's', 0, (uint64_t) 3550 * 7 * DAY},
        {"3551w", 's', -ERANGE, 0},
        {"99999999999999999999999", 's', -ERANGE, 0},
        {"18446744073709551615w", 's', -ERANGE, 0},
        {"0", 's', -ERANGE, 0},
        {"0d", 's', -ERANGE, 0},
        {"", 's', -EINVAL, 0},
        {"h", 's', -EINVAL, 0},
        {"2M", 's', -EINVAL, 0},
        {"1x", 's', -EINVAL, 0},
        {"1 h", 's', -EINVAL, 0},
        {"1.5h", 's', -EINVAL, 0},
        {"-1", 's', -EINVAL, 0},
        {"+1", 's', -EINVAL, 0},
        {" 1", 's', -EINVAL, 0},
        {"0x10", 's', -EINVAL, 0},
};

START_TEST(a_time_is_read_as_postfix_reads_it) {
        uint64_t usec = 4711;

        ck_assert_int_eq(timespan_parse(times[_i].text, times[_i].unit, &usec), times[_i].r);
        ck_assert_uint_eq(usec, times[_i].r == 0 ? times[_i].seconds * USEC_PER_SEC : 4711);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("timespan");

        tcase_add_loop_test(tc, a_time_is_read_as_postfix_reads_it, 0, ARRAY_SIZE(times));
        return run_case("timespan", tc);
}
