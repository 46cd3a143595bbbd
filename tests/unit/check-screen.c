/* SPDX-License-Identifier: MIT */

#include "ctl/screen.h"

#include "tests/lib/spool.h"
#include "util/util.h"

/* In pieces of @size bytes. */
static void expect_in_pieces(const char *bytes, size_t n, size_t size, const char *wanted) {
        static Screen s;
        char *text = NULL;
        size_t n_text;

        s = (Screen){.to = open_memstream(&text, &n_text)};
        ck_assert_ptr_nonnull(s.to);
        for (size_t i = 0; i < n; i += size)
                screen_write(&s, bytes + i, n - i < size ? n - i : size);
        screen_end(&s);
        (void) fclose(s.to);
        ck_assert_str_eq(text, wanted);
        free(text);
}

static void expect(const char *bytes, const char *wanted) {
        for (size_t size = 1; size <= strlen(bytes); size++)
                expect_in_pieces(bytes, strlen(bytes), size, wanted);
}

START_TEST(what_fflushctl_draws_passes) {
        expect("\r\033[K1 of 2\r\033[Kdone\r\n", "\r\033[K1 of 2\r\033[Kdone\r\n");
        expect("\033[1mSITE\033[0m\n\033[31mx\033[32my\033[33mz\033[2m",
               "\033[1mSITE\033[0m\r\n\033[31mx\033[32my\033[33mz\033[2m");
        expect("b\303\274cher \342\202\254 \360\237\223\254\n",
               "b\303\274cher \342\202\254 \360\237\223\254\r\n");
}
END_TEST

START_TEST(all_else_is_escaped) {
        expect("\033]0;x\007", "\\x1b]0;x\\x07");
        expect("a\rb", "a\\x0db");
        expect("\r\033[2K", "\\x0d\\x1b[2K");
        expect("\033[7m\033[5;1m\033", "\\x1b[7m\\x1b[5;1m\\x1b");
        expect("\302\233x\342\200\256", "\\xc2\\x9bx\\xe2\\x80\\xae");
        expect("\b\t\177", "\\x08\\x09\\x7f");
        expect_in_pieces("a\0b", 3, 1, "a?b");
}
END_TEST

START_TEST(bytes_that_are_not_utf8_do_not_stay) {
        expect("\377\376x", "\\xff\\xfex");
        expect("\342\202", "\\xe2\\x82");
        expect("\200\200\200\200\n", "\\x80\\x80\\x80\\x80\r\n");
}
END_TEST

START_TEST(there_may_be_much_of_it) {
        char bytes[SCREEN_SIZE / 2], *wanted = calloc(1, 16 * sizeof bytes + 1);

        ck_assert_ptr_nonnull(wanted);
        memset(bytes, 'x', sizeof bytes);
        memset(wanted, 'x', sizeof bytes);
        expect_in_pieces(bytes, sizeof bytes, sizeof bytes, wanted);
        memset(bytes, '\033', sizeof bytes);
        for (size_t i = 0; i < sizeof bytes; i++)
                (void) strcpy(wanted + 4 * i, "\\x1b");
        expect_in_pieces(bytes, sizeof bytes, sizeof bytes, wanted);
        free(wanted);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("screen");

        tcase_add_test(tc, what_fflushctl_draws_passes);
        tcase_add_test(tc, all_else_is_escaped);
        tcase_add_test(tc, bytes_that_are_not_utf8_do_not_stay);
        tcase_add_test(tc, there_may_be_much_of_it);
        return run_case("screen", tc);
}
