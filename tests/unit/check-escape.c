/* SPDX-License-Identifier: MIT */

#include "util/escape.h"

#include "tests/lib/spool.h"
#include "util/util.h"

#define MAX 30

static const struct {
        const char *text;
        size_t n;
        const char *shown;
} texts[] = {
        {"", 0, ""},
        {"example.com", 11, "example.com"},
        {"a b~!", 5, "a b~!"},
        {"a\nb\r\0c", 6, "a\\x0ab\\x0d\\x00c"},
        {"\x1b[31m", 5, "\\x1b[31m"},
        {"b\xc3\xbc"
         "cher",
         7, "b\\xc3\\xbccher"},
        {"\x7f\x80\xff", 3, "\\x7f\\x80\\xff"},
        {"a\\x0a", 5, "a\\x5cx0a"}, /* nothing that is shown can be forged */
        {"%s%n", 4, "%s%n"},
        {"012345678901234567890123456789", 30, "012345678901234567890123456789"},
        {"0123456789012345678901234567890", 31, "012345678901234567890123456789..."},
        {"abcdef", 3, "abc"},
};

START_TEST(bytes_from_outside_are_made_printable) {
        char shown[ESCAPE_SIZE(MAX)];

        ck_assert_ptr_eq(escape_bytes(texts[_i].text, texts[_i].n, MAX, shown), shown);
        ck_assert_str_eq(shown, texts[_i].shown);
}
END_TEST

START_TEST(the_longest_result_fits_exactly) {
        char text[100], shown[ESCAPE_SIZE(MAX)];

        memset(text, '\xff', sizeof text);
        (void) escape_bytes(text, sizeof text, MAX, shown);
        ck_assert_uint_eq(strlen(shown), ESCAPE_SIZE(MAX) - 1);
        ck_assert_str_eq(shown + ESCAPE_SIZE(MAX) - 8, "\\xff...");
}
END_TEST

static const struct {
        const char *text, *line, *json;
} lines[] = {
        {"", "", ""},
        {"example.com: 3 found", "example.com: 3 found", "example.com: 3 found"},
        {"a\\x2db", "a\\x2db", "a\\x2db"}, /* the name of a unit */
        {"b\u00fccher \u65e5\u672c \U0001f600", "b\u00fccher \u65e5\u672c \U0001f600",
         "b\u00fccher \u65e5\u672c \U0001f600"},
        {"\033]0;x\007", "\\x1b]0;x\\x07", "\\u001B]0;x\\u0007"},
        {"a\r\n\tb\x7f", "a\\x0d\\x0a\\x09b\\x7f", "a\\u000D\\u000A\\u0009b\\u007F"},
        {"\xc2\x9b"
         "2J",
         "\\xc2\\x9b2J", "\\u009B2J"},                                              /* C1 */
        {"a\u202eb\u2066", "a\\xe2\\x80\\xaeb\\xe2\\x81\\xa6", "a\\u202Eb\\u2066"}, /* direction */
        {"a\u2028b\u2029", "a\\xe2\\x80\\xa8b\\xe2\\x80\\xa9", "a\\u2028b\\u2029"},
        {"\u200b\ufeff", "\\xe2\\x80\\x8b\\xef\\xbb\\xbf", "\\u200B\\uFEFF"}, /* of no width */
        {"\U000e0001", "\\xf3\\xa0\\x80\\x81", "\\uDB40\\uDC01"},
        {"\ue000", "\\xee\\x80\\x80", "\\uE000"}, /* for private use */
};

START_TEST(a_line_shows_what_it_has) {
        char shown[200];
        char *json;

        ck_assert_ptr_eq(escape_line(lines[_i].text, shown, sizeof shown), shown);
        ck_assert_str_eq(shown, lines[_i].line);
        json = escape_json(lines[_i].text);
        ck_assert_str_eq(json, lines[_i].json);
        free(json);
}
END_TEST

START_TEST(what_is_not_utf8_is_shown_byte_by_byte) {
        static const struct {
                const char *text, *shown;
        } broken[] = {{"\x9b"
                       "2J",
                       "\\x9b2J"},
                      {"a\xc3", "a\\xc3"},
                      {"\xc0\x9b", "\\xc0\\x9b"},          /* overlong */
                      {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* a surrogate */
                      {"\xff\u00e4", "\\xff\u00e4"}};

        for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
                char shown[100];
                char *utf8 = escape_utf8(broken[i].text);

                ck_assert_str_eq(escape_line(broken[i].text, shown, sizeof shown), broken[i].shown);
                ck_assert_str_eq(utf8, broken[i].shown);
                free(utf8);
        }
}
END_TEST

/* Not in the middle of a character, nor of what stands for one. */
START_TEST(a_line_is_cut_to_its_room) {
        char shown[6];

        ck_assert_str_eq(escape_line("abcdefg", shown, sizeof shown), "abcde");
        ck_assert_str_eq(escape_line("abcd\u00e4", shown, sizeof shown), "abcd");
        ck_assert_str_eq(escape_line("abc\u00e4", shown, sizeof shown), "abc\u00e4");
        ck_assert_str_eq(escape_line("a\nb", shown, sizeof shown), "a\\x0a");
        ck_assert_str_eq(escape_line("ab\n", shown, sizeof shown), "ab");
        ck_assert_str_eq(escape_line("\xc2\x9b", shown, sizeof shown), "");
        ck_assert_str_eq(escape_line("abc", shown, 1), "");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("escape");

        tcase_add_loop_test(tc, bytes_from_outside_are_made_printable, 0, ARRAY_SIZE(texts));
        tcase_add_test(tc, the_longest_result_fits_exactly);
        tcase_add_loop_test(tc, a_line_shows_what_it_has, 0, ARRAY_SIZE(lines));
        tcase_add_test(tc, what_is_not_utf8_is_shown_byte_by_byte);
        tcase_add_test(tc, a_line_is_cut_to_its_room);
        return run_case("escape", tc);
}
