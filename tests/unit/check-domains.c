/* SPDX-License-Identifier: MIT */

#include "core/domains.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "core/sitename.h"
#include "tests/lib/spool.h"
#include "util/child.h"
#include "util/util.h"

#define POSTMAP POSTFIX_COMMAND_DIR "/postmap"

#define NO      DOMAINS_NO
#define YES     DOMAINS_YES
#define ERROR   DOMAINS_ERROR

static sd_event *event;
static Domains *domains;
static char *problem;
static unsigned n_done;
static const char *why;
static char *command; /* of the scripted postmap */

/* Postfix's own, with a configuration of the test's. */
static const char *postmap[] = {POSTMAP, "-c", NULL, "-q", "-", NULL};

/* A file that Postfix's programs take to be complete: while it is new, they wait for more. */
static void put_settled(const char *path, const char *text) {
        spool_write(path, text);
        spool_set_times(path, -60, -60);
}

static void setup(void) {
        spool_setup();
        spool_block_sigchld();
        ck_assert_int_ge(sd_event_new(&event), 0);
        put_settled("main.cf", "compatibility_level = 3.6\n");
        postmap[2] = spool_dir;
        n_done = 0;
        why = NULL;
}

static void teardown(void) {
        domains = domains_free(domains);
        free(problem);
        problem = NULL;
        free(command);
        command = NULL;
        event = sd_event_unref(event);
        spool_teardown();
}

/* '@' stands for the directory of the test. */
static char *expand(const char *text) {
        size_t n = 1;
        char *expanded, *p;

        for (const char *c = text; *c; c++)
                n += *c == '@' ? strlen(spool_dir) : 1;
        p = expanded = malloc(n);
        ck_assert_ptr_nonnull(p);
        for (const char *c = text; *c; c++)
                if (*c == '@')
                        p = stpcpy(p, spool_dir);
                else
                        *p++ = *c;
        *p = '\0';
        return expanded;
}

static void write_expanded(const char *path, const char *text) {
        _cleanup_free_ char *expanded = expand(text);

        spool_write(path, expanded);
}

static void read_list_with(const char *list, bool subdomains, const char *const *argv) {
        _cleanup_free_ char *text = expand(list);

        domains = domains_free(domains);
        free(problem);
        problem = NULL;
        ck_assert_int_eq(domains_new(text, subdomains, argv, &domains, &problem), 0);
        ck_assert_ptr_nonnull(domains);
}

static void read_list(const char *list, bool subdomains) {
        read_list_with(list, subdomains, postmap);
}

static void on_done(const Table *failed, void *userdata) {
        ck_assert_ptr_eq(userdata, &n_done);
        n_done++;
}

/* Asks all tables that have to be asked, and waits for all of them. */
static int ask(unsigned n_tables) {
        unsigned before = n_done;
        int r = domains_start(domains, event, on_done, &n_done);

        while (r == 0 && n_done < before + n_tables)
                ck_assert_int_gt(sd_event_run(event, 30 * USEC_PER_SEC), 0);
        return r;
}

static DomainsAnswer match(const char *site) {
        char normal[SITE_SIZE];
        DomainsAnswer answer;

        ck_assert_int_eq(sitename_normalize(site, normal), 0);
        answer = domains_match(domains, normal, &why);
        for (int i = 0; answer == DOMAINS_PENDING && i < 10; i++) {
                (void) ask(1);
                answer = domains_match(domains, normal, &why);
        }
        return answer;
}

static void expect(const char *site, DomainsAnswer expected) {
        DomainsAnswer answer = match(site);

        ck_assert_msg(answer == expected, "%s: %d, expected %d", site, (int) answer,
                      (int) expected);
}

/* --------------------------------------------------------------------- without a postmap */

#define SITES_MAX 8

static const struct {
        const char *list;
        bool subdomains;
        struct {
                const char *site;
                DomainsAnswer answer;
        } sites[SITES_MAX];
} lists[] = {
        {"", true, {{"example.com", NO}}},
        {" ,\t\n, ", true, {{"example.com", NO}}},
        {"!bad.example.com,example.com",
         true,
         {{"example.com", YES},
          {"a.example.com", YES},
          {"bad.example.com", NO},
          {"x.bad.example.com", NO},
          {"other.com", NO}}},
        {"example.com,!bad.example.com", true, {{"bad.example.com", YES}}},
        {"example.com,.example.com,.dot.example",
         false,
         {{"example.com", YES},
          {"a.example.com", YES},
          {"a.b.example.com", YES},
          {"dot.example", NO},
          {"a.dot.example", YES},
          {"xexample.com", NO}}},
        {"example.com", false, {{"example.com", YES}, {"a.example.com", NO}}},
        {".dot.example,Example.NET",
         true,
         {{"dot.example", NO},
          {"a.dot.example", NO},
          {"EXAMPLE.net", YES},
          {"a.example.net", YES},
          {"aexample.net", NO},
          {"net", NO}}},
        /* separators, as postconf(1) may give them */
        {"a.example b.example\tc.example\r\nd.example,,e.example",
         true,
         {{"a.example", YES},
          {"b.example", YES},
          {"c.example", YES},
          {"d.example", YES},
          {"e.example", YES},
          {"example", NO}}},
        /* '!' toggles, the first match decides */
        {"!!a.example !!!b.example b.example", true, {{"a.example", YES}, {"b.example", NO}}},
        {"!a.example a.example", true, {{"a.example", NO}, {"x.a.example", NO}}},
        {"x.a.example !a.example example",
         true,
         {{"x.a.example", YES}, {"y.x.a.example", YES}, {"a.example", NO}, {"b.example", YES}}},
        {"a.example,!example,b.example", true, {{"a.example", YES}, {"b.example", NO}}},
        {"!.a.example,.example", false, {{"x.a.example", NO}, {"a.example", YES}}},
        /* static: matches all but the empty site */
        {"static:all", true, {{"example.com", YES}, {"[192.0.2.1]", YES}}},
        {"!static:all,example.com", true, {{"example.com", NO}}},
        {"example.com !static:all static:all", true, {{"example.com", YES}, {"a.b", NO}}},
        /* address literals are text */
        {"[192.0.2.1],[IPv6:2001:DB8::1]",
         true,
         {{"[192.0.2.1]", YES}, {"[ipv6:2001:db8::1]", YES}, {"[192.0.2.2]", NO}}},
        /* one site, however it and the item are written */
        {"bücher.example",
         true,
         {{"BÜCHER.example", YES},
          {"xn--bcher-kva.example", YES},
          {"XN--BCHER-KVA.example", YES},
          {"bu\u0308cher.example", YES},
          {"bücher。example", YES},
          {"a.bücher.example", YES},
          {"a.xn--bcher-kva.example", YES},
          {"bucher.example", NO}}},
        {"BÜCHER.EXAMPLE", true, {{"bücher.example", YES}, {"xn--bcher-kva.example", YES}}},
        {"xn--bcher-kva.example",
         true,
         {{"bücher.example", YES},
          {"XN--bcher-KVA.example", YES},
          {"käse.BÜCHER.example", YES},
          {"xn--kse-qla.bücher.example", YES},
          {"books.example", NO}}},
        {"ｅxample.com", true, {{"example.com", YES}, {"EXAMPLE.com", YES}}},
        {".xn--bcher-kva.example",
         false,
         {{"bücher.example", NO}, {"a.bücher.example", YES}, {"a.xn--bcher-kva.example", YES}}},
        {".BÜCHER.example",
         false,
         {{"xn--bcher-kva.example", NO}, {"ä.xn--bcher-kva.example", YES}}},
        {"bücher.example", false, {{"xn--bcher-kva.example", YES}, {"a.bücher.example", NO}}},
        {".bücher.example", true, {{"bücher.example", NO}, {"a.bücher.example", NO}}},
        /* the first one decides, whichever spelling it has */
        {"!xn--bcher-kva.example bücher.example",
         true,
         {{"bücher.example", NO}, {"xn--bcher-kva.example", NO}, {"a.bücher.example", NO}}},
        {"bücher.example !xn--bcher-kva.example",
         true,
         {{"bücher.example", YES}, {"xn--bcher-kva.example", YES}}},
        {"!bücher.example example",
         true,
         {{"xn--bcher-kva.example", NO}, {"a.xn--bcher-kva.example", NO}, {"a.example", YES}}},
        {"a.bücher.example !xn--bcher-kva.example static:all",
         true,
         {{"a.xn--bcher-kva.example", YES}, {"b.bücher.example", NO}, {"b.example", YES}}},
        /* what flush(8) folds into one is still one to the list */
        {"straße.example", true, {{"strasse.example", YES}, {"xn--strae-oqa.example", YES}}},
        {"strasse.example", true, {{"STRASSE.example", YES}, {"straße.example", YES}}},
        {"σας.example", true, {{"σασ.example", YES}, {"ΣΑΣ.example", YES}, {"σας.example", YES}}},
        /* a name of IDNA 2003 that libidn2 does not take from people */
        {"☃.example", true, {{"xn--n3h.example", YES}, {"a.xn--n3h.example", YES}}},
        /* an item that is no site at all matches none */
        {"xn--a.example \xff.example a..b", true, {{"a.example", NO}, {"example", NO}}},
        {"static:all", false, {{"example.com", YES}}},
};

START_TEST(a_list_matches_as_in_postfix) {
        read_list(lists[_i].list, lists[_i].subdomains);
        ck_assert_ptr_null(problem);
        for (size_t i = 0; i < SITES_MAX && lists[_i].sites[i].site; i++)
                expect(lists[_i].sites[i].site, lists[_i].sites[i].answer);
        ck_assert_uint_eq(n_done, 0); /* no table was asked */
}
END_TEST

START_TEST(a_long_list_is_matched_by_its_first_item) {
        char *list = malloc(20000 * 24), *p = list;

        for (unsigned i = 0; i < 20000; i++)
                p += sprintf(p, "%ssite%u.example\n", i % 2 ? "!" : "", i);
        (void) strcpy(p, "example");
        read_list(list, true);
        free(list);
        expect("site0.example", YES);
        expect("a.site19998.example", YES);
        expect("site19999.example", NO);
        expect("a.b.site7.example", NO);
        expect("site20000.example", YES);
}
END_TEST

START_TEST(a_file_stands_for_the_patterns_in_it) {
        write_expanded("list", "file.example\n"
                               "# comment line\n"
                               "  continued.example\n"
                               "\n"
                               "x.example, y.example !z.example\n"
                               "late.example # more.example\n"
                               "#last.example\n"
                               "no-newline.example");
        read_list("@/list example", true);
        ck_assert_ptr_null(problem);
        expect("file.example", YES);
        expect("a.file.example", YES);
        expect("continued.example", YES);
        expect("x.example", YES);
        expect("y.example", YES);
        expect("z.example", NO);
        expect("a.z.example", NO);
        expect("no-newline.example", YES);
        read_list("@/list", true);
        expect("late.example", YES);
        expect("more.example", NO);
        expect("last.example", NO);
        expect("comment", NO);
        expect("line", NO);
}
END_TEST

/* Only a '#' where a pattern could begin starts a comment, wherever others are in the line. */
START_TEST(a_number_sign_inside_a_pattern_does_not_hide_the_comment) {
        spool_write("list", "[a#b # comment.example\nnext.example\n");
        read_list("@/list", true);
        expect("next.example", YES);
        expect("comment.example", NO);
}
END_TEST

START_TEST(a_file_can_be_excluded) {
        spool_write("list", "a.example !b.example\n");
        read_list("!@/list example", true);
        expect("a.example", NO);
        expect("b.example", YES);
        expect("c.example", YES);
}
END_TEST

START_TEST(files_can_name_files) {
        write_expanded("list", "a.example @/second\n");
        write_expanded("second", "b.example !@/third\n");
        spool_write("third", "c.example\n");
        read_list("@/list example", true);
        ck_assert_ptr_null(problem);
        expect("a.example", YES);
        expect("b.example", YES);
        expect("c.example", NO);
}
END_TEST

START_TEST(an_empty_file_has_no_patterns) {
        spool_write("list", "");
        read_list("@/list example.com", true);
        ck_assert_ptr_null(problem);
        expect("example.com", YES);
}
END_TEST

static const char *const wrong_items[] = {
        "/nonexistent/file", /* no such file */
        "@/incoming",        /* a directory */
        "@/circle",          /* names itself */
        "!",
        "!!",
};

START_TEST(the_search_ends_at_an_item_that_is_wrong) {
        _cleanup_free_ char *list = NULL;

        /* 8^10 readings, if it were followed to its end each time */
        write_expanded("circle", "@/circle @/circle @/circle @/circle\n"
                                 "@/circle @/circle @/circle @/circle\n");
        ck_assert_int_gt(asprintf(&list, "first.example %s example.com", wrong_items[_i]), 0);
        read_list(list, true);
        ck_assert_ptr_nonnull(problem);
        ck_assert_uint_gt(strlen(problem), 0);
        expect("first.example", YES);
        expect("example.com", ERROR);
        ck_assert_str_eq(why, problem);
        expect("other.example", ERROR);
}
END_TEST

START_TEST(the_problem_names_the_file) {
        read_list("/nonexistent/file", true);
        ck_assert_str_eq(problem, "/nonexistent/file: No such file or directory");
}
END_TEST

START_TEST(a_file_that_may_not_be_read_is_an_error) {
        spool_write("list", "example.com\n");
        ck_assert_int_eq(fchmodat(spool_fd, "list", 0, 0), 0);
        ck_assert(spool_unprivileged());
        read_list("@/list", true);
        ck_assert_ptr_nonnull(problem);
        expect("example.com", ERROR);
}
END_TEST

/* ------------------------------------------------------- tables, with a postmap of the test's */

/* Runs @script for each call; what it is given is in the file "keys" then. */
static void read_scripted_list(const char *list, bool subdomains, const char *script) {
        static const char *argv[] = {"/bin/sh", "-c", NULL, NULL};
        _cleanup_free_ char *text = NULL;

        ck_assert_int_gt(asprintf(&text, "cat >@/keys; %s", script), 0);
        free(command);
        command = expand(text);
        argv[2] = command;
        read_list_with(list, subdomains, argv);
        ck_assert_ptr_null(problem);
}

#define FOUND(key) "printf '" key "\\tok\\n'; "

/* In one call, for each spelling of the site, which the table may have in either. */
START_TEST(a_table_is_asked_for_a_labels_and_u_labels) {
        static const char *const keys[] = {"xn--bcher-kva.example", "bücher.example"};
        static const char *const sites[] = {"a.xn--bcher-kva.example", "A.BÜCHER.example"};

        for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
                for (size_t i = 0; i < ARRAY_SIZE(sites); i++) {
                        _cleanup_free_ char *script = NULL;
                        unsigned before = n_done;

                        ck_assert_int_gt(asprintf(&script, FOUND("%s") "exit 0", keys[k]), 0);
                        read_scripted_list("hash:x", true, script);
                        expect(sites[i], YES);
                        ck_assert_uint_eq(n_done, before + 1);
                        spool_expect("keys", "a.xn--bcher-kva.example\nxn--bcher-kva.example\n"
                                             "example\na.bücher.example\nbücher.example\n"
                                             "example\n");
                        expect("xn--bcher-kva.example", YES);
                        expect("b.example", NO);
                }
        read_scripted_list("!hash:x static:all", false, FOUND(".bücher.example") "exit 0");
        expect("bücher.example", YES);
        expect("a.xn--bcher-kva.example", NO);
        read_scripted_list("pcre:x", true, "exit 1");
        expect("a.bücher.example", NO);
        spool_expect("keys", "a.xn--bcher-kva.example\na.bücher.example\n");
}
END_TEST

/* What the command says, and what that means for a.example, which it names, and b.example. */
static const struct {
        const char *script;
        DomainsAnswer named, other;
        const char *why;
} outcomes[] = {
        {FOUND("a.example") "exit 0", YES, NO, NULL},
        {FOUND("a.example") "exit 1", YES, NO, NULL},
        {FOUND("a.example") FOUND("a.example") "exit 0", YES, NO, NULL},
        {"printf 'a.example\\tno\\n'; exit 0", YES, NO, NULL}, /* the value is ignored */
        {"printf 'a.example\\t\\n'; exit 0", YES, NO, NULL},
        {"echo 'postmap: warning: whatever' >&2; " FOUND("a.example") "exit 1", YES, NO, NULL},
        {FOUND("a.example") "echo 'postmap: fatal: query error' >&2; exit 1", YES, ERROR,
         "table hash:x: query error"},
        {FOUND("a.example") "echo 'postmap: error: it broke' >&2; exit 1", YES, ERROR, NULL},
        {"echo 'postmap: panic: it broke' >&2; exit 1", ERROR, ERROR, NULL},
        {FOUND("a.example") "exit 75", YES, ERROR, NULL},
        {"kill -KILL $$", ERROR, ERROR, NULL},
        {"printf '\npostmap: fatal: \n' >&2; exit 1", ERROR, ERROR,
         "table hash:x: /bin/sh ended with status 1"},
};

START_TEST(the_words_of_postmap_tell_a_failure_from_a_miss) {
        read_scripted_list("hash:x", true, outcomes[_i].script);
        expect("a.example", outcomes[_i].named);
        expect("b.example", outcomes[_i].other);
        if (outcomes[_i].other == ERROR) {
                ck_assert_ptr_nonnull(why);
                ck_assert_ptr_nonnull(strstr(why, "hash:x"));
        }
        if (outcomes[_i].why)
                ck_assert_str_eq(why, outcomes[_i].why);
}
END_TEST

START_TEST(a_postmap_that_is_missing_is_an_error) {
        static const char *const argv[] = {"/nonexistent/postmap", NULL};
        const char *const sites[] = {"a.example", "b.example"};
        int r;

        read_list_with("first.example hash:x", true, argv);
        for (size_t i = 0; i < ARRAY_SIZE(sites); i++)
                ck_assert_int_eq(domains_match(domains, sites[i], &why), DOMAINS_PENDING);
        r = domains_start(domains, event, on_done, &n_done);
        while (r == 0 && n_done == 0) /* found out by its exit status only, as in valgrind */
                ck_assert_int_gt(sd_event_run(event, 30 * USEC_PER_SEC), 0);
        ck_assert(r == 0 || r == -ENOENT);
        for (size_t i = 0; i < ARRAY_SIZE(sites); i++)
                ck_assert_int_eq(domains_match(domains, sites[i], &why), ERROR);
        ck_assert_ptr_nonnull(strstr(why, "/nonexistent/postmap"));
        expect("first.example", YES);
}
END_TEST

START_TEST(an_excluded_table_excludes) {
        read_scripted_list("!hash:x example", true, FOUND("a.example"));
        expect("a.example", NO);
        expect("x.a.example", NO);
        expect("b.example", YES);
}
END_TEST

START_TEST(a_table_behind_what_decides_is_not_asked) {
        read_scripted_list("!bad.example example hash:x", true, "exit 0");
        ck_assert_int_eq(domains_match(domains, "bad.example", &why), NO);
        ck_assert_int_eq(domains_match(domains, "a.example", &why), YES);
        ck_assert_int_eq(domains_match(domains, "a.test", &why), DOMAINS_PENDING);
}
END_TEST

/* 16 KiB of parents each. */
START_TEST(keys_are_asked_in_portions_of_bounded_size) {
        enum { N = 130, LENGTH = 252 };
        char sites[N][LENGTH + 1];
        struct stat st;
        unsigned n_calls;

        read_scripted_list("hash:x", true, "sed -n 's/$/\tok/p' <@/keys");
        for (unsigned i = 0; i < N; i++) {
                (void) snprintf(sites[i], sizeof sites[i], "%03u", i);
                for (size_t k = 3; k < LENGTH; k++)
                        sites[i][k] = k % 2 ? '.' : 'a';
                sites[i][LENGTH] = '\0';
                ck_assert_int_eq(domains_match(domains, sites[i], &why), DOMAINS_PENDING);
        }
        for (n_calls = 0; domains_match(domains, sites[N - 1], &why) == DOMAINS_PENDING;
             n_calls++) {
                ck_assert_int_eq(ask(1), 0);
                ck_assert_int_eq(fstatat(spool_fd, "keys", &st, 0), 0);
                ck_assert_int_le(st.st_size, (1024 + 16) * 1024);
        }
        ck_assert_uint_eq(n_calls, 2);
        for (unsigned i = 0; i < N; i++)
                ck_assert_int_eq(domains_match(domains, sites[i], &why), YES);
        ck_assert_int_eq(ask(0), 0);
}
END_TEST

START_TEST(many_sites_are_asked_in_one_call_and_the_answers_kept) {
        enum { N = 500 };
        char site[32];

        /* the even ones are there */
        read_scripted_list("hash:x", true,
                           "sed -n 's/^\\(site[0-9]*[02468]\\.example\\)$/\\1\\tok/p' <@/keys");
        for (unsigned i = 0; i < N; i++) {
                (void) snprintf(site, sizeof site, "site%u.example", i);
                ck_assert_int_eq(domains_match(domains, site, &why), DOMAINS_PENDING);
                ck_assert_int_eq(domains_match(domains, site, &why), DOMAINS_PENDING);
        }
        ck_assert_int_eq(ask(1), 0);
        ck_assert_uint_eq(n_done, 1);
        for (unsigned i = 0; i < N; i++) {
                (void) snprintf(site, sizeof site, "site%u.example", i);
                ck_assert_int_eq(domains_match(domains, site, &why), i % 2 ? NO : YES);
        }
        ck_assert_int_eq(ask(0), 0); /* there is nothing left to ask */
        ck_assert_uint_eq(n_done, 1);
}
END_TEST

START_TEST(a_site_that_comes_while_the_table_is_asked_waits_for_the_next_call) {
        read_scripted_list("hash:x", true, FOUND("a.example") FOUND("b.example"));
        ck_assert_int_eq(domains_match(domains, "a.example", &why), DOMAINS_PENDING);
        ck_assert_int_eq(domains_start(domains, event, on_done, &n_done), 0);
        ck_assert_int_eq(domains_match(domains, "b.example", &why), DOMAINS_PENDING);
        ck_assert_int_eq(ask(1), 0); /* does not start a second one */
        ck_assert_uint_eq(n_done, 1);
        spool_expect("keys", "a.example\nexample\n");
        ck_assert_int_eq(domains_match(domains, "a.example", &why), YES);
        ck_assert_int_eq(domains_match(domains, "b.example", &why), DOMAINS_PENDING);
        ck_assert_int_eq(ask(1), 0);
        spool_expect("keys", "b.example\nexample\n");
        ck_assert_int_eq(domains_match(domains, "b.example", &why), YES);
}
END_TEST

START_TEST(a_table_is_asked_only_for_what_those_before_it_do_not_have) {
        read_scripted_list("a.example !hash:x hash:y", true,
                           "case $0 in hash:y) printf 'b.example\\tok\\n';; esac");
        expect("b.example", YES);
        expect("c.example", NO);
        ck_assert_uint_eq(n_done, 4);
}
END_TEST

START_TEST(a_list_can_be_freed_while_a_table_is_asked) {
        read_scripted_list("hash:x", true, "while :; do :; done");
        ck_assert_int_eq(domains_match(domains, "a.example", &why), DOMAINS_PENDING);
        ck_assert_int_eq(domains_start(domains, event, on_done, &n_done), 0);
        domains = domains_free(domains);
        ck_assert_int_ge(sd_event_run(event, 0), 0);
        ck_assert_uint_eq(n_done, 0);
}
END_TEST

/* ------------------------------------------------------------------- with Postfix's postmap */

static void make_table(const char *type, const char *name, const char *text) {
        _cleanup_free_ char *table = NULL;
        const char *argv[] = {POSTMAP, "-c", spool_dir, NULL, NULL};
        ChildResult result;

        put_settled(name, text);
        ck_assert_int_gt(asprintf(&table, "%s:%s/%s", type, spool_dir, name), 0);
        argv[3] = table;
        ck_assert_int_eq(child_run(argv, 30 * USEC_PER_SEC, &result), 0);
        ck_assert_msg(result.status == 0, "%s", result.errors);
        free(result.output);
        free(result.errors);
}

#define KEYS                                                                                       \
        "hash.example x\n.dothash.example x\n[192.0.2.7] x\nMixed.Example x\nb\u00fccher.example " \
        "x\n"

static const char *const keyed[] = {"texthash:@/keys", "hash:@/keys"};

START_TEST(a_table_of_keys_matches_parents) {
        if (_i == 0)
                put_settled("keys", KEYS);
        else
                make_table("hash", "keys", KEYS);
        read_list(keyed[_i], true);
        expect("hash.example", YES);
        expect("a.b.hash.example", YES);
        expect("HASH.example", YES);
        expect("dothash.example", NO);
        expect("a.dothash.example", NO);
        expect("[192.0.2.7]", YES);
        expect("Mixed.Example", YES);
        expect("bücher.example", YES);
        expect("a.xn--bcher-kva.example", YES);
        expect("other.example", NO);
        read_list(keyed[_i], false);
        expect("hash.example", YES);
        expect("a.hash.example", NO);
        expect("dothash.example", NO);
        expect("a.b.dothash.example", YES);
}
END_TEST

START_TEST(a_table_may_be_named_in_a_file) {
        put_settled("keys", KEYS);
        write_expanded("list", "x.example\ntexthash:@/keys\n");
        read_list("@/list", true);
        expect("x.example", YES);
        expect("a.hash.example", YES);
        expect("y.example", NO);
}
END_TEST

START_TEST(an_inline_table_may_have_blanks) {
        read_list("zero.example, inline:{ { one.example = x }, two.example=y }, three.example",
                  true);
        expect("zero.example", YES);
        expect("one.example", YES);
        expect("two.example", YES);
        expect("three.example", YES);
        expect("sub.one.example", YES);
        expect("four.example", NO);
}
END_TEST

START_TEST(a_regular_expression_is_matched_with_the_whole_name) {
        put_settled("re", "/^re[0-9]+\\.example$/ ok\n/^neg/ no\n");
        read_list("regexp:@/re", true);
        expect("re1.example", YES);
        expect("RE2.example", YES);
        expect("a.re1.example", NO);
        expect("neg1", YES);
        expect("example", NO);
}
END_TEST

static const char *const failing[] = {
        "fail:oops",
        "hash:/nonexistent/map",
        "texthash:/nonexistent/map",
        "regexp:/nonexistent/map",
        "nosuchtype:/x",
};

START_TEST(a_table_that_fails_is_an_error_and_not_a_miss) {
        _cleanup_free_ char *list = NULL;

        ck_assert_int_gt(asprintf(&list, "first.example,%s,example.com", failing[_i]), 0);
        read_list(list, true);
        ck_assert_ptr_null(problem); /* not known before it is asked */
        expect("first.example", YES);
        ck_assert_int_eq(domains_match(domains, "example.com", &why), DOMAINS_PENDING);
        ck_assert_int_eq(domains_match(domains, "test", &why), DOMAINS_PENDING);
        ck_assert_int_eq(ask(1), 0); /* takes a second: so long postmap(1) pauses before it ends */
        ck_assert_int_eq(domains_match(domains, "example.com", &why), ERROR);
        ck_assert_ptr_nonnull(strstr(why, failing[_i]));
        ck_assert_int_eq(domains_match(domains, "test", &why), ERROR);
}
END_TEST

START_TEST(postmap_answers_many_sites_in_one_call) {
        char *text = malloc(2000 * 32), *p = text, site[32];

        for (unsigned i = 0; i < 2000; i += 2)
                p += sprintf(p, "site%u.example x\n", i);
        put_settled("keys", text);
        free(text);
        read_list("texthash:@/keys", true);
        for (unsigned i = 0; i < 2000; i++) {
                (void) snprintf(site, sizeof site, "a.site%u.example", i);
                ck_assert_int_eq(domains_match(domains, site, &why), DOMAINS_PENDING);
        }
        ck_assert_int_eq(ask(1), 0);
        ck_assert_uint_eq(n_done, 1);
        for (unsigned i = 0; i < 2000; i++) {
                (void) snprintf(site, sizeof site, "a.site%u.example", i);
                ck_assert_int_eq(domains_match(domains, site, &why), i % 2 ? NO : YES);
        }
}
END_TEST

static TCase *names(void) {
        TCase *tc = tcase_create("names");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_loop_test(tc, a_list_matches_as_in_postfix, 0, ARRAY_SIZE(lists));
        tcase_add_test(tc, a_long_list_is_matched_by_its_first_item);
        tcase_add_test(tc, a_file_stands_for_the_patterns_in_it);
        tcase_add_test(tc, a_number_sign_inside_a_pattern_does_not_hide_the_comment);
        tcase_add_test(tc, a_file_can_be_excluded);
        tcase_add_test(tc, files_can_name_files);
        tcase_add_test(tc, an_empty_file_has_no_patterns);
        tcase_add_loop_test(tc, the_search_ends_at_an_item_that_is_wrong, 0,
                            ARRAY_SIZE(wrong_items));
        tcase_add_test(tc, the_problem_names_the_file);
        tcase_add_test(tc, a_file_that_may_not_be_read_is_an_error);
        return tc;
}

static TCase *tables(void) {
        TCase *tc = tcase_create("tables");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_table_is_asked_for_a_labels_and_u_labels);
        tcase_add_loop_test(tc, the_words_of_postmap_tell_a_failure_from_a_miss, 0,
                            ARRAY_SIZE(outcomes));
        tcase_add_test(tc, a_postmap_that_is_missing_is_an_error);
        tcase_add_test(tc, an_excluded_table_excludes);
        tcase_add_test(tc, a_table_behind_what_decides_is_not_asked);
        tcase_add_test(tc, keys_are_asked_in_portions_of_bounded_size);
        tcase_add_test(tc, many_sites_are_asked_in_one_call_and_the_answers_kept);
        tcase_add_test(tc, a_site_that_comes_while_the_table_is_asked_waits_for_the_next_call);
        tcase_add_test(tc, a_table_is_asked_only_for_what_those_before_it_do_not_have);
        tcase_add_test(tc, a_list_can_be_freed_while_a_table_is_asked);
        return tc;
}

static TCase *postfix_tables(void) {
        TCase *tc = tcase_create("postmap");

        tcase_add_checked_fixture(tc, setup, teardown);
        if (access(POSTMAP, X_OK) < 0) {
                (void) printf("no " POSTMAP ": its tests are left out\n");
                return tc;
        }
        tcase_add_loop_test(tc, a_table_of_keys_matches_parents, 0, ARRAY_SIZE(keyed));
        tcase_add_test(tc, a_table_may_be_named_in_a_file);
        tcase_add_test(tc, an_inline_table_may_have_blanks);
        tcase_add_test(tc, a_regular_expression_is_matched_with_the_whole_name);
        tcase_add_loop_test(tc, a_table_that_fails_is_an_error_and_not_a_miss, 0,
                            ARRAY_SIZE(failing));
        tcase_add_test(tc, postmap_answers_many_sites_in_one_call);
        return tc;
}

int main(void) {
        TCase *tcs[] = {names(), tables(), postfix_tables()};

        return run_cases("domains", tcs, ARRAY_SIZE(tcs));
}
