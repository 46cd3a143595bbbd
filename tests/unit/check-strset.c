/* SPDX-License-Identifier: MIT */

#include "util/strset.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static StrSet set;

static void setup(void) {
        set = (StrSet){0};
}

static void teardown(void) {
        strset_clear(&set);
}

START_TEST(an_id_is_new_once) {
        ck_assert_int_eq(strset_add(&set, "ABC123"), 1);
        ck_assert_int_eq(strset_add(&set, "ABC123"), 0);
        ck_assert_int_eq(strset_add(&set, "ABC12"), 1);
        ck_assert_int_eq(strset_add(&set, "abc123"), 1);
        ck_assert_uint_eq(strset_size(&set), 3);
        ck_assert(strset_contains(&set, "ABC123"));
        ck_assert(strset_contains(&set, "ABC12"));
        ck_assert(!strset_contains(&set, "ABC1234"));
        ck_assert(!strset_contains(&set, "ABC1"));
}
END_TEST

START_TEST(an_empty_set_contains_nothing) {
        ck_assert_uint_eq(strset_size(&set), 0);
        ck_assert(!strset_contains(&set, "A"));
        ck_assert_ptr_null(strset_next(&set, NULL));
        strset_clear(&set); /* and may be cleared */
        ck_assert_uint_eq(strset_size(&set), 0);
}
END_TEST

START_TEST(the_set_keeps_a_copy) {
        char id[] = "ABC123";

        ck_assert_int_eq(strset_add(&set, id), 1);
        id[0] = 'X';
        ck_assert(strset_contains(&set, "ABC123"));
        ck_assert(!strset_contains(&set, "XBC123"));
        ck_assert_str_eq(strset_find(&set, "ABC123"), "ABC123");
        ck_assert_ptr_null(strset_find(&set, id));
}
END_TEST

START_TEST(what_is_removed_is_new_again) {
        ck_assert_int_eq(strset_add(&set, "ABC123"), 1);
        ck_assert_int_eq(strset_add(&set, "DEF456"), 1);
        strset_remove(&set, "ABC123");
        strset_remove(&set, "ABC123");
        ck_assert_uint_eq(strset_size(&set), 1);
        ck_assert(!strset_contains(&set, "ABC123"));
        ck_assert(strset_contains(&set, "DEF456"));
        ck_assert_int_eq(strset_add(&set, "ABC123"), 1);
}
END_TEST

START_TEST(the_walk_is_in_the_order_of_insertion) {
        static const char *const ids[] = {"Z", "A", "M", "z", "_", "0"};
        const StrSetEntry *e = NULL;

        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                ck_assert_int_eq(strset_add(&set, ids[i]), 1);
        ck_assert_int_eq(strset_add(&set, "A"), 0);
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
                e = strset_next(&set, e);
                ck_assert_ptr_nonnull(e);
                ck_assert_str_eq(strset_entry_id(e), ids[i]);
        }
        ck_assert_ptr_null(strset_next(&set, e));
}
END_TEST

START_TEST(many_ids_are_told_apart_and_a_cleared_set_is_as_new) {
        char id[16];

        for (unsigned round = 0; round < 2; round++) {
                for (unsigned i = 0; i < 20000; i++) {
                        (void) snprintf(id, sizeof id, "%X", i);
                        ck_assert_int_eq(strset_add(&set, id), 1);
                }
                for (unsigned i = 0; i < 20000; i++) {
                        (void) snprintf(id, sizeof id, "%X", i);
                        ck_assert_int_eq(strset_add(&set, id), 0);
                }
                ck_assert_uint_eq(strset_size(&set), 20000);
                ck_assert(!strset_contains(&set, "4E20"));
                strset_clear(&set);
                ck_assert_uint_eq(strset_size(&set), 0);
                ck_assert(!strset_contains(&set, "1"));
        }
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("idset");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, an_id_is_new_once);
        tcase_add_test(tc, an_empty_set_contains_nothing);
        tcase_add_test(tc, the_set_keeps_a_copy);
        tcase_add_test(tc, what_is_removed_is_new_again);
        tcase_add_test(tc, the_walk_is_in_the_order_of_insertion);
        tcase_add_test(tc, many_ids_are_told_apart_and_a_cleared_set_is_as_new);
        return run_case("idset", tc);
}
