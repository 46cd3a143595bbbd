/* SPDX-License-Identifier: MIT */

#include "daemon/selftest.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static sd_event *event;
static Jobs jobs;
static Settings settings;
static Metrics metrics;
static SelfTestContext context;
static SelfTest *test;
static TestFindings found;
static bool ended;

/* Answers what the first line of its input says; see argv of postmap(1). */
#define MISS    "exit 1"
#define BROKEN  "echo 'postmap: fatal: it broke' >&2; exit 1"
#define FOREVER "exec sleep 1000"
static const char *postmap[] = {"/bin/sh", "-c", MISS, NULL};

static void on_done(const TestFindings *findings, void *userdata) {
        ck_assert_ptr_eq(userdata, &found);
        ck_assert(!ended);
        found = *findings;
        ended = true;
}

static void start(void) {
        ended = false;
        test = selftest_free(test);
        ck_assert_int_eq(selftest_start(&context, on_done, &found, &test), 0);
        ck_assert(!ended);
}

static void finish(void) {
        while (!ended)
                ck_assert_int_gt(sd_event_run(event, 30 * USEC_PER_SEC), 0);
        test = selftest_free(test);
}

static void run(void) {
        start();
        finish();
}

static const TestFinding *find(const char *check) {
        for (size_t i = 0; i < found.n; i++)
                if (streq(found.items[i].check, check))
                        return &found.items[i];
        return NULL;
}

static void expect(const char *check, FindingResult result, const char *reason,
                   const char *remedy) {
        const TestFinding *f;

        run();
        f = find(check);
        ck_assert_msg(f, "nothing of %s, but %zu others", check, found.n);
        ck_assert_int_eq(f->result, result);
        ck_assert_int_ge((int) found.worst, (int) result);
        ck_assert_msg(strstr(f->reason, reason), "\"%s\" has no \"%s\"", f->reason, reason);
        ck_assert_msg(strstr(f->remedy, remedy), "\"%s\" has no \"%s\"", f->remedy, remedy);
}

static void set_list(const char *list) {
        settings.fast_flush_domains = list;
}

static void setup(void) {
        spool_setup();
        spool_listen();
        spool_put("active/A1", 0700, 0);
        spool_put("hold/A2", 0700, 0);
        spool_block_sigchld();
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(jobs_init(&jobs, event), 0);
        settings = (Settings){.queue_directory = spool_dir, .postfix_config_directory = ""};
        metrics = (Metrics){.starts = 1};
        postmap[2] = MISS;
        context = (SelfTestContext){.event = event,
                                    .settings = &settings,
                                    .queue = &spool_queue,
                                    .endpoint = "public/qmgr",
                                    .postmap = postmap,
                                    .metrics = &metrics,
                                    .jobs = &jobs,
                                    .facts = &remedy_facts};
        set_list("example.com hash:x");
        found = (TestFindings){0};
}

static void teardown(void) {
        test = selftest_free(test);
        jobs_done(&jobs);
        event = sd_event_unref(event);
        spool_teardown();
}

START_TEST(where_all_is_well_there_is_nothing_to_say) {
        spool_write("flush/example_com", "A1\n");
        run();
        ck_assert_uint_eq(found.n, 0);
        ck_assert_int_eq(found.worst, FINDING_OK);
        ck_assert_uint_ge(found.checks, 12);
        spool_expect("flush/example_com", "A1\n");
        ck_assert_str_eq(spool_triggers(), ""); /* nobody was woken */
}
END_TEST

START_TEST(a_missing_directory_that_cannot_be_made_is_found) {
        ck_assert_int_eq(unlinkat(spool_fd, "flush", AT_REMOVEDIR), 0);
        if (!spool_unprivileged())
                return;
        ck_assert_int_eq(fchmod(spool_fd, 0555), 0);
        expect("queue", FINDING_FAILED, "/flush: No such file", "postfix check makes it");
        ck_assert_int_eq(fchmod(spool_fd, 0755), 0); /* who is not root has to clear it away */
}
END_TEST

START_TEST(nothing_is_made) {
        ck_assert_int_eq(unlinkat(spool_fd, "flush", AT_REMOVEDIR), 0);
        run();
        ck_assert_uint_eq(found.n, 0);
        ck_assert(!spool_exists("flush"));
}
END_TEST

static const struct {
        const char *list, *script, *check, *reason;
} lists[] = {
        {"", MISS, "list", "fast_flush_domains is empty: nothing is recorded"},
        {" , ", MISS, "list", "is empty"},
        {"!a.test", MISS, "list", "is empty"},
        {"/nonexistent/list", MISS, "list",
         "fast_flush_domains cannot be used: /nonexistent/list: No such file"},
        {"a.test hash:x", BROKEN, "table", "table hash:x cannot be asked: it broke"},
        {"static:all hash:x", BROKEN, "table", "hash:x"}, /* whatever is before it */
        {"a.test hash:x", "exit 75", "table", "/bin/sh ended with status 75"},
};

START_TEST(a_list_that_lets_nothing_be_recorded_is_found) {
        postmap[2] = lists[_i].script;
        set_list(lists[_i].list);
        expect(lists[_i].check, FINDING_FAILED, lists[_i].reason, "");
        ck_assert_int_eq(found.worst, FINDING_FAILED);
        ck_assert_uint_eq(found.n, 1);
}
END_TEST

START_TEST(remedies_name_the_instance_and_go_to_the_end) {
        set_list("");
        expect("list", FINDING_FAILED, "is empty", "postfix reload; fflushctl import");
        settings.instance = "postfix-b";
        expect("list", FINDING_FAILED, "is empty", "postfix reload; fflushctl -i postfix-b import");
        context.trouble = "/etc/fflushd/postfix-b/fflushd.conf:1: oh";
        expect("settings", FINDING_FAILED, "oh", "fflushd -i postfix-b --check-config");
}
END_TEST

START_TEST(each_table_is_asked_and_none_twice) {
        set_list("hash:a hash:b !hash:c");
        postmap[2] = BROKEN;
        run();
        ck_assert_uint_eq(found.n, 3);
        postmap[2] = MISS;
        run(); /* what was asked before counts for nothing */
        ck_assert_uint_eq(found.n, 0);
}
END_TEST

/* Between a table's answer and the look at it the process may be frozen, or have other work to do,
 * for longer than the answer is good. */
START_TEST(an_answer_that_is_looked_at_too_late_is_asked_for_again) {
        set_list("hash:/a");
        postmap[2] = BROKEN;
        start();
        while (jobs_busy(&jobs)) /* it has looked, and waits for the table */
                ck_assert_int_gt(sd_event_run(event, 30 * USEC_PER_SEC), 0);
        while (!ended && !jobs_busy(&jobs))
                ck_assert_int_gt(sd_event_run(event, 30 * USEC_PER_SEC), 0);
        (void) usleep(1100 * USEC_PER_MSEC); /* errors are good for a second */
        finish();
        ck_assert_ptr_nonnull(find("table"));
}
END_TEST

START_TEST(what_is_not_served_by_any_more_is_not_green) {
        context.outdated = true;
        expect(FINDING_OUTDATED, FINDING_WARNING, "not yet read its configuration anew",
               "ask again");
        ck_assert(findings_have(&found, FINDING_OUTDATED));
        context.outdated = false;
        run();
        ck_assert_uint_eq(found.n, 0);
        ck_assert(!findings_have(&found, FINDING_OUTDATED));
}
END_TEST

/* Nobody waits for what does not come. */
START_TEST(a_new_configuration_that_cannot_be_used_is_named_with_its_reason) {
        postmap[2] = BROKEN; /* of the same reason */
        context.outdated = true;
        context.trouble = "/usr/sbin/postconf -c /etc/postfix: fatal: line 55: oh\nmore";
        expect("settings", FINDING_FAILED,
               "the configuration has changed and cannot be read: /usr/sbin/postconf -c "
               "/etc/postfix: "
               "fatal: line 55: oh",
               "postconf -c ");
        ck_assert_uint_eq(found.n, 1);
        postmap[2] = MISS;
        context.trouble = "/etc/fflushd/fflushd.conf:1: oh";
        expect("settings", FINDING_FAILED, "fflushd.conf:1: oh", "fflushd --check-config");
        context.trouble = NULL;
        context.outdated = false;
}
END_TEST

START_TEST(a_stopped_service_does_not_wait_for_tables) {
        postmap[2] = FOREVER;
        start();
        for (unsigned i = 0; i < 10; i++)
                ck_assert_int_ge(sd_event_run(event, 0), 0);
        ck_assert(!ended);
        selftest_hurry(test);
        jobs_cancel(&jobs);
        ck_assert(ended);
        ck_assert_ptr_nonnull(find("service"));
        ck_assert_int_eq(found.worst, FINDING_FAILED);
}
END_TEST

START_TEST(settings_that_are_not_known_are_a_failure_others_a_warning) {
        char config[512];

        settings.problems = strdup("main.cf: oh\nmore");
        expect("settings", FINDING_WARNING, "the configuration has errors: main.cf: oh",
               "--check-config");
        ck_assert_ptr_null(strstr(find("settings")->reason, "more"));
        settings.incomplete = true;
        expect("settings", FINDING_FAILED, "postconf(1) has not told what must be known", "");
        free(settings.problems);
        settings.problems = NULL;
        (void) snprintf(config, sizeof config, "%s/etc", spool_dir);
        settings.postfix_config_directory = config;
        expect("settings", FINDING_FAILED, "/etc/main.cf cannot be read by the service", "");
        settings.incomplete = false;
        spool_write("etc/main.cf", "");
        run();
        ck_assert_uint_eq(found.n, 0);
        settings.problems = strdup("fast_flush_domains: /x: gone"); /* the list is read anew */
        run();
        ck_assert_uint_eq(found.n, 0);
        free(settings.problems);
}
END_TEST

START_TEST(directories_that_are_closed_or_missing_are_found) {
        static const char *const names[] = {"deferred", "incoming", "active", "hold", "flush"};
        char remedy[64];

        if (!spool_unprivileged())
                return;
        ck_assert_int_eq(fchmodat(spool_fd, names[_i], 0, 0), 0);
        (void) snprintf(remedy, sizeof remedy, "/%s'", names[_i]);
        expect("queue", FINDING_FAILED, "the service has no access to ", remedy);
        ck_assert_uint_eq(found.n, 1);
        ck_assert_int_eq(fchmodat(spool_fd, names[_i], 0700, 0), 0);
        run();
        ck_assert_uint_eq(found.n, 0);
        ck_assert_int_eq(renameat(spool_fd, names[_i], spool_fd, "away"), 0);
        run();
        ck_assert_uint_eq(found.n, streq(names[_i], "flush") ? 0 : 1);
}
END_TEST

START_TEST(a_queue_manager_that_does_not_listen_is_found) {
        context.endpoint = "public/nosuch";
        expect("qmgr", FINDING_FAILED,
               "Postfix is not running: the queue manager does not listen on public/nosuch",
               "systemctl restart postfix, or postfix start");
        context.endpoint = "public"; /* neither a socket nor a FIFO */
        expect("qmgr", FINDING_FAILED, "the queue manager cannot be reached on public", "");
}
END_TEST

START_TEST(logs_that_cannot_be_opened_are_counted) {
        int lock;

        spool_write("flush/a_test", "A1\n");
        spool_write("flush/b_test", "A1\n");
        ck_assert_int_eq(symlinkat("a_test", spool_fd, "flush/link"), 0);
        ck_assert_int_eq(mkdirat(spool_fd, "flush/x", 0700), 0); /* a hash directory */
        lock = spool_lock("flush/b_test");
        expect("logs", FINDING_FAILED, "logs that cannot be opened: 1, the first is ", "verify");
        (void) close(lock);
        ck_assert_int_eq(unlinkat(spool_fd, "flush/link", 0), 0);
        run();
        ck_assert_uint_eq(found.n, 0);
        if (!spool_unprivileged())
                return;
        ck_assert_int_eq(fchmodat(spool_fd, "flush/a_test", 0400, 0), 0);
        ck_assert_int_eq(fchmodat(spool_fd, "flush/b_test", 0, 0), 0);
        expect("logs", FINDING_FAILED, "logs that cannot be opened: 2", "chown ");
}
END_TEST

START_TEST(of_many_logs_a_part_is_opened_and_that_is_said) {
        char name[64];

        for (unsigned i = 0; i <= SELFTEST_LOGS_MAX; i++) {
                (void) snprintf(name, sizeof name, "flush/site%u_test", i);
                spool_write(name, "A1\n");
        }
        expect("logs", FINDING_OK, "only the first 1024 logs were opened", "");
        ck_assert_int_eq(found.worst, FINDING_OK);
}
END_TEST

START_TEST(what_has_failed_of_late_and_cannot_be_tried_is_told) {
        uint64_t now = (uint64_t) time(NULL);

        metrics_failed(&metrics, METRICS_LIST, now); /* is tried */
        run();
        ck_assert_uint_eq(found.n, 0);
        metrics_failed(&metrics, METRICS_LOCK, now - 2 * SELFTEST_RECENT_SEC);
        run();
        ck_assert_uint_eq(found.n, 0);
        metrics_failed(&metrics, METRICS_LOCK, now - 5);
        expect("requests", FINDING_WARNING, "requests have failed within the last hour: lock",
               "journalctl MESSAGE_ID=");
        metrics_succeeded(&metrics, REQUEST_ADD, now);
        run();
        ck_assert_uint_eq(found.n, 0);
}
END_TEST

START_TEST(there_is_no_end_of_findings_but_of_what_is_kept) {
        TestFindings many = {0};
        TestFinding *f;

        for (unsigned i = 0; i < FINDINGS_MAX; i++)
                ck_assert_ptr_nonnull(findings_add(&many, "table", FINDING_WARNING, "%u", i));
        ck_assert_int_eq(many.worst, FINDING_WARNING);
        f = findings_add(&many, "table", FINDING_FAILED, "more");
        ck_assert_ptr_null(f);
        finding_set_remedy(f, "none");
        ck_assert_int_eq(many.worst, FINDING_FAILED);
        many.n = 0;
        f = findings_add(&many, "t\n", FINDING_OK, "a\nb\x7f\xff\xc3\xa9");
        ck_assert_str_eq(f->check, "t?");
        ck_assert_str_eq(f->reason, "a?b??\xc3\xa9");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("selftest");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, where_all_is_well_there_is_nothing_to_say);
        tcase_add_test(tc, nothing_is_made);
        tcase_add_test(tc, a_missing_directory_that_cannot_be_made_is_found);
        tcase_add_loop_test(tc, a_list_that_lets_nothing_be_recorded_is_found, 0,
                            ARRAY_SIZE(lists));
        tcase_add_test(tc, remedies_name_the_instance_and_go_to_the_end);
        tcase_add_test(tc, each_table_is_asked_and_none_twice);
        tcase_add_test(tc, an_answer_that_is_looked_at_too_late_is_asked_for_again);
        tcase_add_test(tc, what_is_not_served_by_any_more_is_not_green);
        tcase_add_test(tc, a_new_configuration_that_cannot_be_used_is_named_with_its_reason);
        tcase_add_test(tc, a_stopped_service_does_not_wait_for_tables);
        tcase_add_test(tc, settings_that_are_not_known_are_a_failure_others_a_warning);
        tcase_add_loop_test(tc, directories_that_are_closed_or_missing_are_found, 0, 5);
        tcase_add_test(tc, a_queue_manager_that_does_not_listen_is_found);
        tcase_add_test(tc, logs_that_cannot_be_opened_are_counted);
        tcase_add_test(tc, of_many_logs_a_part_is_opened_and_that_is_said);
        tcase_add_test(tc, what_has_failed_of_late_and_cannot_be_tried_is_told);
        tcase_add_test(tc, there_is_no_end_of_findings_but_of_what_is_kept);
        return run_case("selftest", tc);
}
