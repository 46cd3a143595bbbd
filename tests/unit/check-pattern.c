/* SPDX-License-Identifier: MIT */

#include "ctl/pattern.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static bool matches(const char *text, bool subdomains, const char *site) {
        Pattern p;
        bool r;

        ck_assert_int_eq(pattern_parse(text, &p), 0);
        r = pattern_matches(&p, subdomains, site);
        pattern_done(&p);
        return r;
}

START_TEST(a_site_means_itself) {
        ck_assert(matches("Example.COM", false, "example.com"));
        ck_assert(matches("b\xc3\xbc"
                          "cher.example",
                          false, "xn--bcher-kva.example"));
        ck_assert(matches("Example.COM.", false, "example.com"));
        ck_assert(!matches("example.com", false, "mail.example.com"));
        ck_assert(!matches("example.com", false, "example.com.test"));
}
END_TEST

START_TEST(with_subdomains_it_means_them_as_well) {
        ck_assert(matches("example.com", true, "example.com"));
        ck_assert(matches("example.com", true, "a.b.example.com"));
        ck_assert(!matches("example.com", true, "notexample.com"));
        ck_assert(!matches("example.com", true, "com"));
        ck_assert(!matches("a.example.com", true, "example.com"));
}
END_TEST

START_TEST(a_glob_means_what_it_matches) {
        ck_assert(matches("*", false, "example.com"));
        ck_assert(matches("*", false, "[192.0.2.1]"));
        ck_assert(matches("*.COM", false, "a.example.com"));
        ck_assert(matches("?.test", false, "a.test"));
        ck_assert(matches("[ab].test", false, "b.test"));
        ck_assert(!matches("[ab].test", false, "c.test"));
        ck_assert(!matches("*.com", true, "com"));
        ck_assert(matches("*.b\u00fccher.example", false, "a.xn--bcher-kva.example"));
        ck_assert(matches("*B\u00dcCH*", false, "a.xn--bcher-kva.example"));
        ck_assert(matches("*.xn--bcher*", false, "a.xn--bcher-kva.example"));
        ck_assert(!matches("*.b\u00fccher.example", false, "a.xn--bucher.example"));
}
END_TEST

START_TEST(an_address_literal_is_no_glob) {
        ck_assert(matches("[192.0.2.1]", false, "[192.0.2.1]"));
        ck_assert(!matches("[192.0.2.1]", false, "1"));
        ck_assert(matches("[IPv6:2001:DB8::1]", false, "[ipv6:2001:db8::1]"));
}
END_TEST

START_TEST(the_name_of_a_strange_log_can_be_given) {
        ck_assert(matches("(xn__bcher_kva_example)", false, "(xn__bcher_kva_example)"));
        ck_assert(matches("(aD*", false, "(aDb)"));
        ck_assert(!matches("(ad*", false, "(aDb)"));
}
END_TEST

START_TEST(what_is_neither_is_refused) {
        static const char *const texts[] = {
                "",        ".",  "a b",           "a..b",         "-a.test",
                "1.2.3.4", "..", "example.com..", "x@example.com"};
        Pattern p;

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                ck_assert_int_eq(pattern_parse(texts[i], &p), -EINVAL);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("pattern");

        tcase_add_test(tc, a_site_means_itself);
        tcase_add_test(tc, with_subdomains_it_means_them_as_well);
        tcase_add_test(tc, a_glob_means_what_it_matches);
        tcase_add_test(tc, an_address_literal_is_no_glob);
        tcase_add_test(tc, the_name_of_a_strange_log_can_be_given);
        tcase_add_test(tc, what_is_neither_is_refused);
        return run_case("pattern", tc);
}
