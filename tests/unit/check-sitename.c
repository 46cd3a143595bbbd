/* SPDX-License-Identifier: MIT */

#include "core/sitename.h"

#include <stdio.h>

#include "core/queueid.h"
#include "tests/lib/spool.h"
#include "util/util.h"

#define A10 "aaaaaaaaaa"
#define A63 A10 A10 A10 A10 A10 A10 "aaa"
#define A61 A10 A10 A10 A10 A10 A10 "a"

/* Valid sites, their normal form, their log. */
static const struct {
        const char *text, *site, *log;
} valid[] = {
        /* spec 4.1 */
        {"Example.COM", "example.com", "example_com"},
        {"bücher.example", "xn--bcher-kva.example", "xnDDbcherDkva_example"},
        {"BÜCHER.example", "xn--bcher-kva.example", "xnDDbcherDkva_example"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example", "xnDDbcherDkva_example"},
        {"XN--BCHER-KVA.Example", "xn--bcher-kva.example", "xnDDbcherDkva_example"},
        {"faß.example", "xn--fa-hia.example", "xnDDfaDhia_example"},
        {"EXAMPLE。com", "example.com", "example_com"},
        {"\u212a.example", "k.example", "k_example"},
        {"a-b.example", "a-b.example", "aDb_example"},
        {"a_b.example", "a_b.example", "aUb_example"},
        {"a.b.example", "a.b.example", "a_b_example"},
        {"x", "x", "xZ"},
        /* address literals, which newer flush(8) refuses by accident */
        {"[192.0.2.1]", "[192.0.2.1]", "L192_0_2_1R"},
        {"[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]", "Lipv6C2001Cdb8CC1R"},
        {"[ipv6:::1]", "[ipv6:::1]", "Lipv6CCC1R"},
        {"[ipv6:::ffff:192.0.2.1]", "[ipv6:::ffff:192.0.2.1]", "Lipv6CCCffffC192_0_2_1R"},
        /* vectors 48, 50 */
        {"localhost", "localhost", "localhost"},
        {"___", "___", "UUU"},
        {"a_b.c", "a_b.c", "aUb_c"},
        {"a.b", "a.b", "a_b"},
        {"café", "xn--caf-dma", "xnDDcafDdma"},
        {A63 ".example.com", A63 ".example.com", A63 "_example_com"},
        {A63 "." A63 "." A63 "." A61, A63 "." A63 "." A63 "." A61,
         A63 "_" A63 "_" A63 "_" A61}, /* 253 */
        /* ours */
        {"_dmarc.example", "_dmarc.example", "Udmarc_example"},
        {"1.2.3.4a", "1.2.3.4a", "1_2_3_4a"},
        {"1a", "1a", "1a"},
        {"_", "_", "UZ"},
        {"a--b.example", "a--b.example", "aDDb_example"},
        {"abc--d.example", "abc--d.example", "abcDDd_example"},
        {"ｅｘａｍｐｌｅ.com", "example.com", "example_com"}, /* full width */
        {"b\u00fccher.ex\u00adample", "xn--bcher-kva.example", "xnDDbcherDkva_example"},
};

START_TEST(a_valid_site_has_one_normal_form_and_one_log) {
        char site[SITE_SIZE], log[SITE_LOG_SIZE], back[SITE_SIZE];

        ck_assert_int_eq(sitename_normalize(valid[_i].text, site), 0);
        ck_assert_str_eq(site, valid[_i].site);
        sitename_to_log(site, log);
        ck_assert_str_eq(log, valid[_i].log);
        ck_assert_int_eq(sitename_from_log(log, back), 0);
        ck_assert_str_eq(back, site);
}
END_TEST

static const char *const invalid[] = {
        /* spec 4.1, vectors 45-47, 50 */
        "", "example.com.", ".x", "a..b", "-a", "a-", "*", "x:25", "a@b", "1.2.3.4", "123", "1",
        A63 "a", A63 "a.example.com", "a..b.example.com", "-x.example.com", "x-.example.com",
        ".example.com", "a b.example.com", "*.example.com", "x@y.example.com", "x/y.example.com",
        "x\xff.example.com", "ab--cd.example", "xn--a.example", "::1", "%", "ex\nample.com",
        "a\nb.example.com", A63 "." A63 "." A63 "." A61 "a", /* 254 */
        /* ours: address literals are checked */
        "[", "[]", "[a", "[192.0.2.1", "[192.0.2]", "[192.0.2.256]", "[192.0.2.1].", "[192.0.2.1]]",
        "[example.com]", "[::1]", "[ipv6:]", "[ipv6:192.0.2.1]", "[ipv6:fe80::1%lo]",
        "[ipv6:1:2:3:4:5:6:7:8:9]",
        "[ipv6:1111:2222:3333:4444:5555:6666:7777:8888:9999:1111:2222:3333]", "192.0.2.1]",
        /* and what becomes one of the above by mapping */
        "。", "example。", "\u00ad", "１２３", "b\u00fccher..example", "-b\u00fccher.example",
        "xn--", /* A-labels of nothing, of ASCII, of what has another one */
        "xn--.example", "xn--example-.example", "xn--bcher-kva-.example", "xn--BCHER-KVA8.example",
        "xn--bucher-xyd.example", /* u and a combining diaeresis */
        "xn--bcher-2pa.example",  /* a capital letter */
        "xn--x-6q0i.example",     /* full width */
        "xn--62g.example",        /* the sign of Kelvin */
        "xn--b-9fa5827a.example", /* an ideographic full stop */
};

START_TEST(symbols_are_names_as_registries_have_them) {
        char site[SITE_SIZE];

        ck_assert_int_eq(sitename_normalize("xn--LS8H.la", site), 0);
        ck_assert_str_eq(site, "xn--ls8h.la");
        ck_assert_int_eq(sitename_normalize("xn--i-7iq.ws", site), 0);
        ck_assert_int_eq(sitename_normalize("xn--a.example", site),
                         -EINVAL); /* a control character */
}
END_TEST

START_TEST(what_is_no_site_is_refused) {
        char site[SITE_SIZE];

        ck_assert_int_eq(sitename_normalize(invalid[_i], site), -EINVAL);
}
END_TEST

START_TEST(a_very_long_text_is_refused) {
        _cleanup_free_ char *text = calloc(1, 1000001);
        char site[SITE_SIZE];

        memset(text, 'a', 1000000);
        ck_assert_int_eq(sitename_normalize(text, site), -EINVAL);
        for (size_t i = 0; i + 1 < 1000000; i += 2)
                memcpy(text + i, "\xc3\xa4", 2);
        ck_assert_int_eq(sitename_normalize(text, site), -EINVAL);
        text[SITE_TEXT_MAX - 1] = '\0'; /* may be looked at, but no name is that long */
        ck_assert_int_eq(sitename_normalize(text, site), -EINVAL);
}
END_TEST

START_TEST(a_dot_a_hyphen_and_an_underscore_make_three_logs) {
        static const char *const sites[] = {"a-b", "a_b", "a.b"};
        char logs[3][SITE_LOG_SIZE];

        for (size_t i = 0; i < 3; i++)
                sitename_to_log(sites[i], logs[i]);
        ck_assert_str_ne(logs[0], logs[1]);
        ck_assert_str_ne(logs[1], logs[2]);
        ck_assert_str_ne(logs[0], logs[2]);
        for (size_t i = 0; i < 3; i++) { /* of which flush(8) has one */
                sitename_to_original(sites[i], logs[i]);
                ck_assert_str_eq(logs[i], "a_b");
        }
}
END_TEST

/* Such a name in the log directory keeps Postfix from starting. */
START_TEST(no_log_has_a_name_of_one_character) {
        static const char chars[] = "abcdefghijklmnopqrstuvwxyz0123456789_";

        for (size_t i = 0; chars[i]; i++) {
                const char site[2] = {chars[i], '\0'};
                char log[SITE_LOG_SIZE], back[SITE_SIZE], longer[3] = {chars[i], 'z', '\0'};

                sitename_to_log(site, log);
                ck_assert_uint_eq(strlen(log), 2);
                ck_assert(queueid_valid(log, 2));
                ck_assert_int_eq(sitename_from_log(log, back), 0);
                ck_assert_str_eq(back, site);
                /* and it is nobody else's */
                sitename_to_log(longer, back);
                ck_assert_str_ne(back, log);
        }
}
END_TEST

static unsigned random_below(unsigned n) {
        static uint64_t state = 1; /* the same names each time */

        state = state * 6364136223846793005u + 1442695040888963407u;
        return (unsigned) (state >> 33) % n;
}

static size_t random_label(char *ret, size_t max) {
        static const char inner[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
        size_t n = 1 + random_below((unsigned) max);

        for (size_t i = 0; i < n; i++) {
                bool at_end = i == 0 || i == n - 1;

                ret[i] = inner[random_below(sizeof inner - 1 - at_end)];
        }
        if (n >= 4 && ret[2] == '-' && ret[3] == '-')
                ret[2] = 'x';
        return n;
}

START_TEST(every_valid_name_can_be_read_back_from_its_log) {
        for (unsigned i = 0; i < 20000; i++) {
                char text[SITE_SIZE], site[SITE_SIZE], log[SITE_LOG_SIZE], back[SITE_SIZE];
                unsigned n_labels = 1 + random_below(4);
                size_t n = 0;

                for (unsigned k = 0; k < n_labels; k++) {
                        n += random_label(text + n, i % 2 ? 3 : 60);
                        text[n++] = '.';
                }
                text[n - 1] = '\0';
                if (text[strspn(text, "0123456789.")] == '\0')
                        text[0] = 'a';
                ck_assert_msg(sitename_normalize(text, site) == 0, "%s", text);
                ck_assert_str_eq(site, text);
                sitename_to_log(site, log);
                ck_assert(queueid_valid(log, strlen(log)));
                ck_assert_uint_ge(strlen(log), 2);
                ck_assert_int_eq(sitename_from_log(log, back), 0);
                ck_assert_str_eq(back, site);
        }
}
END_TEST

static const char *const other_logs[] = {
        "",    "a",  "Z",   "example.com", "a-b",       "Example_com", "aEb_com", "exampleZ",
        "aZZ", "Zx", "a b", "a/b",         "a\xc3\xa4", "[192.0.2.1]", "a_Z_b",
};

START_TEST(a_name_that_is_not_ours_is_no_site) {
        char site[SITE_SIZE];

        ck_assert_int_eq(sitename_from_log(other_logs[_i], site), -EINVAL);
}
END_TEST

START_TEST(a_log_name_longer_than_any_site_is_not_ours) {
        char name[SITE_SIZE + 1], site[SITE_SIZE];

        memset(name, 'a', SITE_MAX + 1);
        name[SITE_MAX + 1] = '\0';
        ck_assert_int_eq(sitename_from_log(name, site), -EINVAL);
        name[SITE_MAX] = '\0';
        ck_assert_int_eq(sitename_from_log(name, site), 0);
}
END_TEST

static const struct {
        const char *text, *folded;
} folds[] = {
        {"Example.COM", "example.com"},
        {"example.com", "example.com"},
        {"", ""},
        {"[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"},
        {"BÜCHER.example", "bücher.example"},
        {"STRASSE.example", "strasse.example"},
        {"Straße.example", "strasse.example"}, /* full folding, no IDNA */
        {"ΣΊΣΥΦΟΣ", "σίσυφοσ"},
        {"xn--bcher-kva.EXAMPLE", "xn--bcher-kva.example"},
        {"X\xff.EXAMPLE", "x\xff.example"}, /* no UTF-8: ASCII only */
        {"\xc3", "\xc3"},
};

START_TEST(case_is_folded_as_the_eligibility_list_is_compared) {
        _cleanup_free_ char *folded = NULL;

        ck_assert_int_eq(sitename_fold(folds[_i].text, &folded), 0);
        ck_assert_str_eq(folded, folds[_i].folded);
}
END_TEST

static const struct {
        const char *site, *unicode;
} unicodes[] = {
        {"example.com", NULL},
        {"[ipv6:2001:db8::1]", NULL},
        {"ax--b.example", NULL},
        {"xn--bcher-kva.example", "bücher.example"},
        {"a.xn--bcher-kva.xn--fa-hia.example", "a.bücher.faß.example"},
        {"xn--wgv71a119e", "日本語"},
        {"xn--n3h.example", "☃.example"}, /* which nobody may type */
};

START_TEST(a_site_can_be_written_with_u_labels) {
        _cleanup_free_ char *unicode = NULL;

        ck_assert_int_eq(sitename_unicode(unicodes[_i].site, &unicode), 0);
        if (unicodes[_i].unicode)
                ck_assert_str_eq(unicode, unicodes[_i].unicode);
        else
                ck_assert_ptr_null(unicode);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("site");

        tcase_add_loop_test(tc, a_valid_site_has_one_normal_form_and_one_log, 0, ARRAY_SIZE(valid));
        tcase_add_test(tc, symbols_are_names_as_registries_have_them);
        tcase_add_loop_test(tc, what_is_no_site_is_refused, 0, ARRAY_SIZE(invalid));
        tcase_add_test(tc, a_very_long_text_is_refused);
        tcase_add_test(tc, a_dot_a_hyphen_and_an_underscore_make_three_logs);
        tcase_add_test(tc, no_log_has_a_name_of_one_character);
        tcase_add_test(tc, every_valid_name_can_be_read_back_from_its_log);
        tcase_add_loop_test(tc, a_name_that_is_not_ours_is_no_site, 0, ARRAY_SIZE(other_logs));
        tcase_add_test(tc, a_log_name_longer_than_any_site_is_not_ours);
        tcase_add_loop_test(tc, case_is_folded_as_the_eligibility_list_is_compared, 0,
                            ARRAY_SIZE(folds));
        tcase_add_loop_test(tc, a_site_can_be_written_with_u_labels, 0, ARRAY_SIZE(unicodes));
        return run_case("site", tc);
}
