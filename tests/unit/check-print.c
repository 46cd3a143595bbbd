/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-print.h"

#include <sysexits.h>

#include "tests/lib/spool.h"

START_TEST(an_object_without_memory_makes_the_command_fail) {
        ctl_print_json(json_object());
        ck_assert_int_eq(ctl_print_status(), EX_OK);
        ctl_print_json(NULL);
        ck_assert_int_eq(ctl_print_status(), EX_OSERR);
        ctl_print_json(json_object());
        ck_assert_int_eq(ctl_print_status(), EX_OSERR);
}
END_TEST

START_TEST(an_age_has_one_unit_of_which_there_are_two) {
        char age[CTL_AGE_SIZE];

        ck_assert_str_eq(ctl_age(1000, 1000 - 12, age), "12s");
        ck_assert_str_eq(ctl_age(1000, 1000 - 119, age), "119s");
        ck_assert_str_eq(ctl_age(1000, 1000 - 120, age), "2min");
        ck_assert_str_eq(ctl_age(1000000, 1000000 - 7200, age), "2h");
        ck_assert_str_eq(ctl_age(1000000, 1000000 - 172800, age), "2d");
        ck_assert_str_eq(ctl_age(1000, 2000, age), "0s"); /* the clock was set back */
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("print");

        tcase_add_test(tc, an_object_without_memory_makes_the_command_fail);
        tcase_add_test(tc, an_age_has_one_unit_of_which_there_are_two);
        return run_case("print", tc);
}
