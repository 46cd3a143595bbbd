/* SPDX-License-Identifier: MIT */

#include "ctl/columns.h"

#include "ctl/relay.h"
#include "tests/lib/spool.h"
#include "util/util.h"

static const char *const titles[] = {"NAME", ">N", "WHERE", NULL};

static void expect(const Columns *c, const char *on, const char *off, const char *wanted) {
        char *text = NULL;
        size_t n;
        FILE *f = open_memstream(&text, &n);

        ck_assert_ptr_nonnull(f);
        columns_print(c, f, on, off);
        (void) fclose(f);
        ck_assert_str_eq(text, wanted);
        free(text);
}

START_TEST(a_cell_is_printable) {
        static const char *const one[] = {"NAME", NULL};
        Columns c = {.titles = one};

        ck_assert_int_eq(columns_add(&c, "%s", "a\n\033]0;x\007"), 0);
        expect(&c, "", "",
               "NAME\n"
               "a\\x0a\\x1b]0;x\\x07\n");
        columns_done(&c);
}
END_TEST

static void add(Columns *c, const char *name, int n, const char *where) {
        ck_assert_int_eq(columns_add(c, "%s", name), 0);
        ck_assert_int_eq(columns_add(c, "%d", n), 0);
        ck_assert_int_eq(columns_add(c, "%s", where), 0);
}

START_TEST(columns_are_as_wide_as_what_is_in_them) {
        Columns c = {.titles = titles};

        add(&c, "a", 5, "there");
        add(&c, "example.com", 12345, "");
        expect(&c, "<", ">",
               "<NAME             N  WHERE>\n"
               "a                5  there\n"
               "example.com  12345  \n");
        columns_done(&c);
}
END_TEST

START_TEST(a_row_that_is_not_complete_is_left_out) {
        Columns c = {.titles = titles};

        add(&c, "a", 5, "b");
        ck_assert_int_eq(columns_add(&c, "%s", "half"), 0);
        expect(&c, "", "", "NAME  N  WHERE\na     5  b\n");
        columns_done(&c);
        expect(&c, "", "", "NAME  N  WHERE\n");
}
END_TEST

START_TEST(a_row_is_cut_where_the_terminal_ends) {
        Columns c = {.titles = titles, .width = 20};

        add(&c, "a", 5, "there");
        add(&c, "b\u00fccher.example", 7, "somewhere");
        expect(&c, "<", ">",
               "<NAME            N...>\n"
               "a               5...\n"
               "b\u00fccher.example  7...\n");
        c.width = 27;
        c.no_titles = true;
        expect(&c, "<", ">",
               "a               5  there\n"
               "b\u00fccher.example  7  somew...\n");
        columns_done(&c);
}
END_TEST

START_TEST(a_long_name_leaves_room_for_the_reason) {
        Columns c = {.titles = titles, .width = 40};

        add(&c, "a", 5, "there");
        add(&c, "a-quite-long-b\u00fccher.shop.example", 7, "somewhere");
        expect(&c, "", "",
               "NAME                        N  WHERE\n"
               "a                           5  there\n"
               "a-quite-long-b\u00fccher.sho...  7  somewhere\n");
        c.width = 30;
        expect(&c, "", "",
               "NAME                  N  WHERE\n"
               "a                     5  there\n"
               "a-quite-long-b\u00fcch...  7  so...\n");
        c.width = 0;
        expect(&c, "", "",
               "NAME                              N  WHERE\n"
               "a                                 5  there\n"
               "a-quite-long-b\u00fccher.shop.example  7  somewhere\n");
        columns_done(&c);
}
END_TEST

START_TEST(there_may_be_many_rows) {
        Columns c = {.titles = titles};
        char *text = NULL, *p;
        size_t n, lines = 0;
        FILE *f;

        for (int i = 0; i < 1000; i++)
                add(&c, "a", i, "b");
        f = open_memstream(&text, &n);
        columns_print(&c, f, "", "");
        (void) fclose(f);
        for (p = text; *p; p++)
                lines += *p == '\n';
        ck_assert_uint_eq(lines, 1001);
        ck_assert_ptr_nonnull(strstr(text, "\na     999  b\n"));
        free(text);
        columns_done(&c);
}
END_TEST

START_TEST(another_fflushctl_is_given_fields) {
        Columns c = {.titles = titles};

        add(&c, "a", 5, "there");
        add(&c, "example.com", 12345, "");
        ck_assert_int_eq(setenv(RELAY_VARIABLE, "1", 1), 0);
        expect(&c, "<", ">",
               "\002\037NAME\037>N\037WHERE\n"
               "\003\037a\0375\037there\n"
               "\003\037example.com\03712345\037\n");
        ck_assert_int_eq(unsetenv(RELAY_VARIABLE), 0);
        columns_done(&c);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("columns");

        tcase_add_test(tc, a_cell_is_printable);
        tcase_add_test(tc, columns_are_as_wide_as_what_is_in_them);
        tcase_add_test(tc, a_row_that_is_not_complete_is_left_out);
        tcase_add_test(tc, a_row_is_cut_where_the_terminal_ends);
        tcase_add_test(tc, a_long_name_leaves_room_for_the_reason);
        tcase_add_test(tc, there_may_be_many_rows);
        tcase_add_test(tc, another_fflushctl_is_given_fields);
        return run_case("columns", tc);
}
