/* SPDX-License-Identifier: MIT */

#include "ctl/frame.h"

#include "tests/lib/spool.h"
#include "util/util.h"

#define TABLE "SITE\na.test\nb.test\nc.test\nd.test\n4 destinations: 7 deferred\n"

/* Without what clears the rest of a line. */
static void expect(const Terminal *t, bool legend, const char *wanted) {
        char table[] = TABLE, *text = NULL, *p;
        Frame frame = {.title = "now", .table = table, .legend = legend, .error = "wrong"};
        size_t n;
        FILE *f = open_memstream(&text, &n);

        ck_assert_ptr_nonnull(f);
        frame_draw(&frame, t, f);
        (void) fclose(f);
        while ((p = strstr(text, "\033[K")))
                memmove(p, p + 3, strlen(p + 3) + 1);
        ck_assert_str_eq(text, wanted);
        free(text);
}

START_TEST(all_of_it_is_drawn_if_there_is_room) {
        expect(&(Terminal){.width = 80, .height = 8}, true,
               "\033[Hnow\n" TABLE "\033[J\033[8Hwrong\033[8H");
        expect(&(Terminal){.width = 80, .height = 24}, false,
               "\033[Hnow\n" TABLE "\033[J\033[24Hwrong\033[8H");
}
END_TEST

START_TEST(rows_give_way_to_the_total) {
        expect(&(Terminal){.width = 80, .height = 7}, true,
               "\033[Hnow\nSITE\na.test\nb.test\n+2 more\n4 destinations: 7 deferred\n"
               "\033[J\033[7Hwrong\033[7H");
        expect(&(Terminal){.width = 80, .height = 7}, false,
               "\033[Hnow\nSITE\na.test\nb.test\nc.test\n+2 more\n\033[J\033[7Hwrong\033[7H");
}
END_TEST

START_TEST(a_tiny_screen_has_what_says_most) {
        expect(&(Terminal){.width = 80, .height = 5}, true,
               "\033[Hnow\nSITE\n+4 more\n4 destinations: 7 deferred\n\033[J\033[5Hwrong\033[5H");
        expect(&(Terminal){.width = 80, .height = 4}, true,
               "\033[Hnow\n+4 more\n4 destinations: 7 deferred\n\033[J\033[4Hwrong\033[4H");
        expect(&(Terminal){.width = 80, .height = 3}, true,
               "\033[Hnow\n4 destinations: 7 deferred\n\033[J\033[3Hwrong\033[3H");
        expect(&(Terminal){.width = 80, .height = 1}, true, "\033[H\033[J\033[1Hwrong\033[1H");
        expect(&(Terminal){.width = 10, .height = 3}, true,
               "\033[Hnow\n4 desti...\n\033[J\033[3Hwrong\033[3H");
}
END_TEST

START_TEST(the_title_is_one_line) {
        char title[FRAME_TITLE_SIZE];

        (void) frame_title(title);
        ck_assert_ptr_nonnull(strstr(title, "  fflushctl"));
        ck_assert_ptr_null(strchr(title, '\n'));
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("frame");

        tcase_add_test(tc, all_of_it_is_drawn_if_there_is_room);
        tcase_add_test(tc, rows_give_way_to_the_total);
        tcase_add_test(tc, a_tiny_screen_has_what_says_most);
        tcase_add_test(tc, the_title_is_one_line);
        return run_case("frame", tc);
}
