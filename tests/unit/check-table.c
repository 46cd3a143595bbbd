/* SPDX-License-Identifier: MIT */

/* One table; check-domains has what the list makes of several, and the tables of Postfix. */

#include "core/table.h"

#include <signal.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static sd_event *event;
static Table *table;
static char *command; /* of the scripted postmap */
static const char *postmap[] = {"/bin/sh", "-c", NULL, NULL};
static unsigned n_done, n_failed;

static void setup(void) {
        spool_setup();
        spool_block_sigchld();
        ck_assert_int_ge(sd_event_new(&event), 0);
        n_done = n_failed = 0;
}

static void teardown(void) {
        table = table_free(table);
        free(command);
        command = NULL;
        event = sd_event_unref(event);
        spool_teardown();
}

/* @script runs for each call, in the directory of the test; what it is given is added to "keys". */
static void make(const char *name, bool subdomains, const char *script) {
        table = table_free(table);
        free(command);
        ck_assert_int_gt(asprintf(&command, "cd %s; cat >>keys; %s", spool_dir, script), 0);
        postmap[2] = command;
        ck_assert_int_eq(table_new(name, subdomains, postmap, &table), 0);
        ck_assert_str_eq(table_name(table), name);
}

static void on_done(const Table *failed, void *userdata) {
        ck_assert_ptr_eq(userdata, &n_done);
        ck_assert(!failed || failed == table);
        n_done++;
        n_failed += failed != NULL;
}

static void ask(void) {
        unsigned before = n_done;

        ck_assert_int_eq(table_start(table, event, on_done, &n_done), 0);
        while (n_done == before)
                ck_assert_int_gt(sd_event_run(event, 30 * USEC_PER_SEC), 0);
}

static void expect(const char *site, TableAnswer expected) {
        ck_assert_int_eq(table_lookup(table, site, NULL), expected);
}

#define FOUND(key) "printf '" key "\\tok\\n'; "

START_TEST(an_answer_is_asked_for_once) {
        make("hash:x", true, FOUND("a.test"));
        for (int i = 0; i < 3; i++) {
                expect("a.test", TABLE_PENDING);
                expect("b.test", TABLE_PENDING);
        }
        ask();
        for (int i = 0; i < 3; i++) {
                expect("a.test", TABLE_HIT);
                expect("b.test", TABLE_MISS);
        }
        ck_assert_int_eq(table_start(table, event, on_done, &n_done), 0); /* nothing is wanted */
        ck_assert_int_eq(sd_event_run(event, 0), 0);
        ck_assert_uint_eq(n_done, 1);
        spool_expect("keys", "a.test\ntest\nb.test\ntest\n");
}
END_TEST

static const struct {
        const char *name;
        bool subdomains;
        const char *keys, *found; /* asked for, of a.b.c; and found */
        TableAnswer answer;
} asked[] = {
        {"hash:x", true, "a.b.c\nb.c\nc\n", FOUND("c"), TABLE_HIT},
        {"hash:x", true, "a.b.c\nb.c\nc\n", "", TABLE_MISS},
        {"hash:x", false, "a.b.c\n.b.c\n.c\n", FOUND(".c"), TABLE_HIT},
        {"hash:x", false, "a.b.c\n.b.c\n.c\n", FOUND("c") FOUND("b.c"), TABLE_MISS},
        {"regexp:x", true, "a.b.c\n", "", TABLE_MISS},
        {"pcre:x", true, "a.b.c\n", FOUND("a.b.c"), TABLE_HIT},
        {"cidr:x", true, "a.b.c\n", FOUND("c"), TABLE_MISS},
        {"tcp:x:1", true, "a.b.c\n", "", TABLE_MISS},
        {"proxy:regexp:x", true, "a.b.c\n", "", TABLE_MISS},
        {"proxy:unionmap:{cidr:x,hash:y}", true, "a.b.c\n", "", TABLE_MISS},
        {"unionmap:{hash:y,cidr:x}", true, "a.b.c\nb.c\nc\n", "", TABLE_MISS},
};

START_TEST(parents_are_asked_for_where_they_are_keys) {
        _cleanup_free_ char *script = NULL;

        ck_assert_int_gt(asprintf(&script, "%s exit 0", asked[_i].found), 0);
        make(asked[_i].name, asked[_i].subdomains, script);
        expect("a.b.c", TABLE_PENDING);
        ask();
        expect("a.b.c", asked[_i].answer);
        spool_expect("keys", asked[_i].keys);
}
END_TEST

START_TEST(a_hit_for_either_spelling_is_one) {
        make("hash:x", true, FOUND("\\303\\274.test"));
        ck_assert_int_eq(table_lookup(table, "xn--tda.test", "\303\274.test"), TABLE_PENDING);
        ask();
        ck_assert_int_eq(table_lookup(table, "xn--tda.test", "\303\274.test"), TABLE_HIT);
        spool_expect("keys", "xn--tda.test\ntest\n\303\274.test\ntest\n");
}
END_TEST

/* What was found before postmap failed holds; the rest is asked for again, a second later. */
START_TEST(an_error_is_soon_forgotten) {
        uint64_t failed_usec;

        make("hash:x", true,
             "test -e mended || { " FOUND(
                     "a.test") "echo 'postmap: fatal: no server' >&2; exit 1; }; " FOUND("b.test"));
        expect("a.test", TABLE_PENDING);
        expect("b.test", TABLE_PENDING);
        failed_usec = now_usec();
        ask();
        ck_assert_uint_eq(n_failed, 1);
        expect("a.test", TABLE_HIT);
        if (now_usec() - failed_usec < USEC_PER_SEC)
                expect("b.test", TABLE_ERROR);
        ck_assert_str_eq(table_error(table), "no server");
        spool_write("mended", "");
        while (table_lookup(table, "b.test", NULL) == TABLE_ERROR)
                (void) usleep(10000);
        ck_assert_uint_ge(now_usec() - failed_usec, USEC_PER_SEC);
        expect("b.test", TABLE_PENDING);
        ask();
        expect("b.test", TABLE_HIT);
        expect("a.test", TABLE_HIT); /* not asked for again */
        ck_assert_uint_eq(n_failed, 1);
}
END_TEST

static const struct {
        const char *script, *error;
} errors[] = {
        {"printf 'postmap: fatal: a\\033[1m\\nmore\\n' >&2; exit 1", "a\\x1b[1m"},
        {"printf 'postmap: panic: torn' >&2; exit 1", "postmap: panic: torn"},
        {"exit 9", "/bin/sh ended with status 9"},
};

/* It is shown to people, and may quote what a client sent. */
START_TEST(an_error_is_a_line_that_can_be_shown) {
        make("hash:x", true, errors[_i].script);
        expect("a.test", TABLE_PENDING);
        ask();
        expect("a.test", TABLE_ERROR);
        ck_assert_str_eq(table_error(table), errors[_i].error);
}
END_TEST

/* Whoever asks for ever new names cannot make it grow, nor make it forget what is being asked. */
START_TEST(the_answers_are_bounded) {
        enum { N = 10000 };
        char site[32];

        make("hash:x", true, "exit 1");
        for (unsigned i = 0; i < N; i++) {
                (void) snprintf(site, sizeof site, "site%u.test", i);
                expect(site, TABLE_PENDING);
        }
        ask();
        expect("site0.test", TABLE_MISS);
        expect("one-more.test", TABLE_PENDING);
        expect("site0.test", TABLE_PENDING); /* all that was known is forgotten */
        expect("one-more.test", TABLE_PENDING);
        ask();
        expect("one-more.test", TABLE_MISS);
}
END_TEST

START_TEST(it_can_be_freed_while_it_is_asked) {
        make("hash:x", true, "while :; do :; done");
        expect("a.test", TABLE_PENDING);
        ck_assert_int_eq(table_start(table, event, on_done, &n_done), 0);
        table = table_free(table);
        ck_assert_int_ge(sd_event_run(event, 0), 0);
        ck_assert_uint_eq(n_done, 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("table");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, an_answer_is_asked_for_once);
        tcase_add_loop_test(tc, parents_are_asked_for_where_they_are_keys, 0, ARRAY_SIZE(asked));
        tcase_add_test(tc, a_hit_for_either_spelling_is_one);
        tcase_add_test(tc, an_error_is_soon_forgotten);
        tcase_add_loop_test(tc, an_error_is_a_line_that_can_be_shown, 0, ARRAY_SIZE(errors));
        tcase_add_test(tc, the_answers_are_bounded);
        tcase_add_test(tc, it_can_be_freed_while_it_is_asked);
        return run_case("table", tc);
}
