/* SPDX-License-Identifier: MIT */

#include "daemon/seen.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static Seen set;

static void teardown(void) {
        seen_done(&set);
}

static int add_number(unsigned i) {
        char id[16];

        (void) snprintf(id, sizeof id, "%011X", i);
        return seen_add(&set, id);
}

START_TEST(an_id_is_new_once) {
        seen_init(&set, 10);
        ck_assert_int_eq(seen_add(&set, "ABC123"), 1);
        ck_assert_int_eq(seen_add(&set, "ABC123"), 0);
        ck_assert_int_eq(seen_add(&set, "ABC12"), 1);
        ck_assert_int_eq(seen_add(&set, "BC123"), 1);
        ck_assert_int_eq(seen_add(&set, "abc123"), 1);
        ck_assert_int_eq(seen_add(&set, "ABC12"), 0);
}
END_TEST

START_TEST(the_set_keeps_a_copy) {
        char id[] = "ABC123";

        seen_init(&set, 10);
        ck_assert_int_eq(seen_add(&set, id), 1);
        id[0] = 'X';
        ck_assert_int_eq(seen_add(&set, "ABC123"), 0);
        ck_assert_int_eq(seen_add(&set, "XBC123"), 1);
}
END_TEST

START_TEST(a_full_set_remembers_what_it_has) {
        const unsigned n = 20000;

        seen_init(&set, n);
        for (unsigned i = 0; i < n; i++)
                ck_assert_int_eq(add_number(i), 1);
        for (unsigned i = 0; i < n; i++)
                ck_assert_int_eq(add_number(i), 0);
        for (unsigned i = n; i < 2 * n; i++)
                ck_assert_int_eq(add_number(i), -ENOBUFS);
        for (unsigned i = 0; i < n; i++)
                ck_assert_int_eq(add_number(i), 0);
}
END_TEST

START_TEST(longer_ids_are_fewer) {
        char id[3 * SEEN_ID_SIZE];

        memset(id, 'A', sizeof id);
        id[sizeof id - 1] = '\0';
        seen_init(&set, 4);
        ck_assert_int_eq(seen_add(&set, id), 1);
        id[0] = 'B';
        ck_assert_int_eq(seen_add(&set, id), -ENOBUFS);
        ck_assert_int_eq(seen_add(&set, "A23456789ABCDEF"), 1); /* just fits */
        ck_assert_int_eq(seen_add(&set, ""), -ENOBUFS);
}
END_TEST

START_TEST(a_set_of_one_is_a_set) {
        seen_init(&set, 1);
        ck_assert_int_eq(seen_add(&set, "A"), 1);
        ck_assert_int_eq(seen_add(&set, "B"), -ENOBUFS);
        ck_assert_int_eq(seen_add(&set, "A"), 0);
}
END_TEST

/* What malloc(3) has not even one slot for. */
START_TEST(without_memory_nothing_is_remembered) {
        ck_assert_int_eq(seen_add(&set, "A"), -ENOBUFS);
        ck_assert_int_eq(seen_add(&set, "A"), -ENOBUFS);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("seen");

        tcase_add_checked_fixture(tc, NULL, teardown);
        tcase_add_test(tc, an_id_is_new_once);
        tcase_add_test(tc, the_set_keeps_a_copy);
        tcase_add_test(tc, a_full_set_remembers_what_it_has);
        tcase_add_test(tc, longer_ids_are_fewer);
        tcase_add_test(tc, a_set_of_one_is_a_set);
        tcase_add_test(tc, without_memory_nothing_is_remembered);
        return run_case("seen", tc);
}
