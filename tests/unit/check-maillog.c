/* SPDX-License-Identifier: MIT */

#include "ctl/maillog.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define ID      "4Fq1Xz2b3Tz1nq"
#define RELAY   ", relay=none, delay=1, delays=0/1/0/0, dsn=2.0.0, status="
#define STAMP   "Nov 28 06:02:58 guest "
#define PATH    "mail.log"
#define TO_LINE STAMP "postfix/smtp[12]: " ID ": to=<a@b.test>" RELAY "sent (250 ok)\n"

START_TEST(entries_are_understood) {
        static const struct {
                const char *program, *text;
                MaillogEvent event;
                const char *recipient, *reason;
        } vectors[] = {
                {"smtp", ID ": to=<a@b.test>" RELAY "sent (250 2.0.0 Ok: queued)", MAILLOG_SENT,
                 "a@b.test", "250 2.0.0 Ok: queued"},
                {"smtp", "AB12: to=<a@b.test>, orig_to=<c@d.test>" RELAY "bounced (said: 550)",
                 MAILLOG_BOUNCED, "a@b.test", "said: 550"},
                {"error", "AB12: to=<>" RELAY "deferred (why)", MAILLOG_DEFERRED, "", "why"},
                {"lmtp", "AB12: to=<\"x>, status=sent (\"@b.test>" RELAY "bounced (no (such) user)",
                 MAILLOG_BOUNCED, "\"x>, status=sent (\"@b.test", "no (such) user"},
                {"local", "AB12: to=<a@b>" RELAY "sent", MAILLOG_SENT, "a@b", ""},
                {"smtp", "AB12: to=<a@b>" RELAY "deferred (said: 450, status=sent (250))",
                 MAILLOG_DEFERRED, "a@b", "said: 450, status=sent (250)"},
                {"qmgr", "AB12: removed", MAILLOG_REMOVED, NULL, NULL},
                {"postsuper", "AB12: removed", MAILLOG_DELETED, NULL, NULL},
                {"qmgr", "AB12: from=<a@b>, status=expired, returned to sender", MAILLOG_EXPIRED,
                 NULL, NULL},
                {"qmgr", "AB12: from=<>, status=force-expired, returned to sender", MAILLOG_EXPIRED,
                 NULL, NULL},
        };

        for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
                _cleanup_free_ char *text = strdup(vectors[i].text);
                MaillogEntry e;

                ck_assert_msg(maillog_parse(vectors[i].program, text, &e), "%s", vectors[i].text);
                ck_assert_int_eq(e.event, vectors[i].event);
                ck_assert_pstr_eq(e.recipient, vectors[i].recipient);
                ck_assert_pstr_eq(e.reason, vectors[i].reason);
                ck_assert(strncmp(vectors[i].text, e.id, strlen(e.id)) == 0);
        }
}
END_TEST

START_TEST(what_is_about_something_else_is_none) {
        static const char *const texts[] = {
                "",
                ":",
                "AB12",
                "AB12:",
                "AB12: ",
                "A-B: removed",
                "connect from x[1.2.3.4]",
                "AB12: client=x[1.2.3.4]",
                "AB12: from=<a@b>, size=1, nrcpt=1 (queue active)",
                "AB12: to=<a@b",
                "AB12: to=<a@b>",
                "AB12: to=<a@b>, status=",
                "AB12: to=<\"a@b>",
                "AB12: to=<a@b>" RELAY "undeliverable (x)",
                "AB12: to=<a>, orig_to=<b",
                "AB12: from=<a, status=expired, returned to sender>, size=1",
                "warning: AB12: removed"};

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                _cleanup_free_ char *text = strdup(texts[i]);
                MaillogEntry e;

                ck_assert_msg(!maillog_parse("qmgr", text, &e), "%s", texts[i]);
        }
}
END_TEST

static unsigned n_taken;

static void count(const MaillogEntry *e, void *userdata) {
        ck_assert_str_eq(e->id, ID);
        ck_assert_ptr_null(userdata);
        n_taken++;
}

static Maillog *open_log(void) {
        _cleanup_free_ char *path = NULL;
        static char *files[3];
        Maillog *log;

        ck_assert_int_ge(asprintf(&path, "%s/" PATH, spool_dir), 0);
        free(files[0]);
        files[0] = TAKE_PTR(path);
        files[1] = (char *) (uintptr_t) "/nonexistent/mail.log";
        ck_assert_int_eq(maillog_new("postfix", (const char *const *) files, spool_dir, &log), 0);
        n_taken = 0;
        return log;
}

static unsigned read_log(Maillog *log) {
        n_taken = 0;
        maillog_read(log, count, NULL);
        return n_taken;
}

START_TEST(only_what_is_new_is_read_and_only_whole_lines) {
        Maillog *log;

        spool_write(PATH, TO_LINE);
        log = open_log();
        ck_assert(maillog_is_readable(log));
        ck_assert_uint_eq(read_log(log), 0);
        spool_append(PATH, TO_LINE STAMP "postfix/qmgr[1]: " ID ": rem");
        ck_assert_uint_eq(read_log(log), 1);
        spool_append(PATH, "oved\n" STAMP "postfix-b/qmgr[1]: " ID ": removed\n"
                           "2026-11-28T06:02:58.1+00:00 guest postfix/qmgr[1]: " ID ": removed\n"
                           "postfix/qmgr: removed\n\npostfix/\n");
        ck_assert_uint_eq(read_log(log), 2);
        ck_assert_uint_eq(read_log(log), 0);
        maillog_free(log);
}
END_TEST

START_TEST(a_rotation_loses_nothing) {
        Maillog *log;

        spool_write(PATH, TO_LINE);
        log = open_log();
        spool_append(PATH, TO_LINE);
        ck_assert_int_eq(renameat(spool_fd, PATH, spool_fd, PATH ".1"), 0);
        ck_assert_uint_eq(read_log(log), 1); /* syslogd still writes to the old one */
        spool_append(PATH ".1", TO_LINE);
        spool_write(PATH, TO_LINE TO_LINE);
        ck_assert_uint_eq(read_log(log), 3);
        spool_write(PATH, TO_LINE); /* copytruncate */
        ck_assert_uint_eq(read_log(log), 1);
        maillog_free(log);
}
END_TEST

START_TEST(a_log_that_appears_later_is_read) {
        Maillog *log = open_log();

        ck_assert(!maillog_is_readable(log));
        spool_write(PATH, TO_LINE);
        ck_assert_uint_eq(read_log(log), 1);
        ck_assert(maillog_is_readable(log));
        maillog_free(log);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("maillog");

        tcase_add_checked_fixture(tc, spool_setup, spool_teardown);
        tcase_add_test(tc, entries_are_understood);
        tcase_add_test(tc, what_is_about_something_else_is_none);
        tcase_add_test(tc, only_what_is_new_is_read_and_only_whole_lines);
        tcase_add_test(tc, a_rotation_loses_nothing);
        tcase_add_test(tc, a_log_that_appears_later_is_read);
        return run_case("maillog", tc);
}
