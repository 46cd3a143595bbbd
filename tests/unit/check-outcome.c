/* SPDX-License-Identifier: MIT */

#include "ctl/outcome.h"

#include "tests/lib/spool.h"
#include "util/util.h"

static Outcomes *outcomes;

static void setup(void) {
        outcomes = outcomes_new();
        ck_assert_ptr_nonnull(outcomes);
        ck_assert_int_eq(outcomes_add(outcomes, "A1"), 0);
        ck_assert_int_eq(outcomes_add(outcomes, "A1"), 0);
}

static void teardown(void) {
        outcomes_free(outcomes);
}

static void take_from(unsigned source, MaillogEvent event, const char *recipient) {
        MaillogEntry e = {.id = "A1",
                          .event = event,
                          .recipient = recipient,
                          .reason = recipient ? "why" : NULL,
                          .source = source};

        outcomes_take(outcomes, &e);
}

static void take(MaillogEvent event, const char *recipient) {
        take_from(0, event, recipient);
}

static void is(Outcome wanted) {
        ck_assert_int_eq(outcomes_of(outcomes, "A1", NULL), wanted);
}

START_TEST(nothing_is_known_before_the_end) {
        is(OUTCOME_UNKNOWN);
        take(MAILLOG_SENT, "a@b");
        is(OUTCOME_UNKNOWN);
        take(MAILLOG_REMOVED, NULL);
        is(OUTCOME_DELIVERED);
}
END_TEST

START_TEST(one_recipient_that_bounces_makes_it_returned) {
        OutcomeRecipients n;
        const void *state = NULL;
        const char *reason;

        take(MAILLOG_SENT, "a@b");
        take(MAILLOG_BOUNCED, "c@b");
        take(MAILLOG_SENT, "d@b");
        take(MAILLOG_REMOVED, NULL);
        ck_assert_int_eq(outcomes_of(outcomes, "A1", &n), OUTCOME_RETURNED);
        ck_assert_uint_eq(n.sent, 2);
        ck_assert_uint_eq(n.bounced, 1);
        ck_assert_str_eq(outcomes_next_reason(outcomes, "A1", MAILLOG_BOUNCED, &state, &reason),
                         "c@b");
        ck_assert_str_eq(reason, "why");
        ck_assert_ptr_null(outcomes_next_reason(outcomes, "A1", MAILLOG_BOUNCED, &state, &reason));
}
END_TEST

START_TEST(the_last_attempt_counts) {
        take(MAILLOG_DEFERRED, "a@b");
        take(MAILLOG_SENT, "a@b");
        take(MAILLOG_REMOVED, NULL);
        is(OUTCOME_DELIVERED);
}
END_TEST

START_TEST(expired_and_deleted_are_told_apart) {
        take(MAILLOG_EXPIRED, NULL);
        is(OUTCOME_EXPIRED);
        teardown();
        setup();
        take(MAILLOG_DEFERRED, "a@b");
        take(MAILLOG_DELETED, NULL);
        is(OUTCOME_DELETED);
}
END_TEST

START_TEST(what_another_message_of_that_id_does_is_not_taken) {
        take(MAILLOG_SENT, "a@b");
        take(MAILLOG_REMOVED, NULL);
        take(MAILLOG_BOUNCED, "x@y");
        take(MAILLOG_EXPIRED, NULL);
        take(MAILLOG_DELETED, NULL);
        is(OUTCOME_DELIVERED);
        outcomes_take(outcomes, &(MaillogEntry){.id = "B2", .event = MAILLOG_REMOVED});
        ck_assert_int_eq(outcomes_of(outcomes, "B2", NULL), OUTCOME_UNKNOWN);
}
END_TEST

START_TEST(sources_complete_and_do_not_contradict_each_other) {
        take_from(0, MAILLOG_REMOVED, NULL); /* qmgr reaches the journal, smtp in its chroot not */
        is(OUTCOME_UNKNOWN);
        take_from(1, MAILLOG_BOUNCED, "a@b");
        is(OUTCOME_RETURNED);
        teardown();
        setup();
        take_from(0, MAILLOG_SENT, "a@b");
        take_from(0, MAILLOG_REMOVED, NULL);
        take_from(1, MAILLOG_BOUNCED, "c@b");
        is(OUTCOME_RETURNED);
        teardown();
        setup();
        take_from(0, MAILLOG_SENT, "a@b");
        take_from(1, MAILLOG_DEFERRED, "a@b"); /* of the attempt before */
        take_from(0, MAILLOG_REMOVED, NULL);
        is(OUTCOME_DELIVERED);
}
END_TEST

START_TEST(an_end_without_a_word_of_delivery_is_unknown) {
        take(MAILLOG_REMOVED, NULL);
        is(OUTCOME_UNKNOWN);
        teardown();
        setup();
        take(MAILLOG_DEFERRED, "a@b"); /* what came then is missing */
        take(MAILLOG_REMOVED, NULL);
        is(OUTCOME_UNKNOWN);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("outcome");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, nothing_is_known_before_the_end);
        tcase_add_test(tc, one_recipient_that_bounces_makes_it_returned);
        tcase_add_test(tc, the_last_attempt_counts);
        tcase_add_test(tc, expired_and_deleted_are_told_apart);
        tcase_add_test(tc, what_another_message_of_that_id_does_is_not_taken);
        tcase_add_test(tc, sources_complete_and_do_not_contradict_each_other);
        tcase_add_test(tc, an_end_without_a_word_of_delivery_is_unknown);
        return run_case("outcome", tc);
}
