/* SPDX-License-Identifier: MIT */

#include "daemon/trigger.h"

#include "core/qmgr.h"
#include "tests/lib/spool.h"
#include "util/util.h"

static sd_event *event;
static Trigger trigger;

static void setup(void) {
        spool_setup();
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(trigger_init(&trigger, event, spool_fd, "qmgr", USEC_PER_MSEC), 0);
}

static void teardown(void) {
        trigger_done(&trigger);
        event = sd_event_unref(event);
        spool_teardown();
}

static void run_until_sent_again(void) {
        uint64_t until = now_usec() + 30 * USEC_PER_SEC;

        while (trigger_pending(&trigger) && now_usec() < until)
                ck_assert_int_ge(sd_event_run(event, USEC_PER_SEC), 0);
        ck_assert(!trigger_pending(&trigger));
}

static void turn(uint64_t usec) {
        ck_assert_int_ge(sd_event_run(event, usec), 0);
}

START_TEST(a_trigger_that_arrives_is_not_repeated) {
        spool_listen();
        trigger_send(&trigger, QMGR_FLUSH_DEAD);
        ck_assert(!trigger_pending(&trigger));
        ck_assert_str_eq(spool_triggers(), "F");
        for (int i = 0; i < 3; i++)
                ck_assert_int_ge(sd_event_run(event, 2 * USEC_PER_MSEC), 0);
        ck_assert_str_eq(spool_triggers(), "");
}
END_TEST

START_TEST(a_lost_trigger_is_sent_once_more) {
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        ck_assert(trigger_pending(&trigger));
        spool_listen();
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "I");
}
END_TEST

START_TEST(lost_triggers_are_repeated_once_each_and_in_their_order) {
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        trigger_send(&trigger, QMGR_FLUSH_DEAD);
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        spool_listen();
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "FI");
}
END_TEST

START_TEST(a_trigger_that_is_lost_again_is_given_up) {
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        run_until_sent_again();
        spool_listen();
        for (int i = 0; i < 3; i++)
                ck_assert_int_ge(sd_event_run(event, 2 * USEC_PER_MSEC), 0);
        ck_assert_str_eq(spool_triggers(), "");
        trigger_send(&trigger, QMGR_FLUSH_DEAD); /* and the next is as good as the first */
        ck_assert_str_eq(spool_triggers(), "F");
}
END_TEST

START_TEST(what_is_lost_goes_to_the_queue_manager_of_now) {
        ck_assert_int_eq(trigger_configure(&trigger, spool_fd, "other", USEC_PER_MSEC), 0);
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        ck_assert(trigger_pending(&trigger));
        ck_assert_int_eq(trigger_configure(&trigger, spool_fd, "qmgr", USEC_PER_MSEC), 0);
        spool_listen();
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "I");
}
END_TEST

START_TEST(what_is_lost_is_sent_once_more_at_the_end) {
        trigger_send(&trigger, QMGR_FLUSH_DEAD);
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        spool_listen();
        trigger_done(&trigger);
        ck_assert_str_eq(spool_triggers(), "FI");
        ck_assert_int_eq(trigger_init(&trigger, event, spool_fd, "qmgr", USEC_PER_MSEC), 0);
}
END_TEST

/* Who asks is not kept waiting, and qmgr is given its time to come back. */
START_TEST(the_next_try_comes_not_before_its_time) {
        uint64_t before;

        ck_assert_int_eq(trigger_configure(&trigger, spool_fd, "qmgr", 100 * USEC_PER_MSEC), 0);
        before = now_usec();
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        spool_listen();
        turn(USEC_PER_MSEC);
        ck_assert(trigger_pending(&trigger));
        ck_assert_str_eq(spool_triggers(), "");
        run_until_sent_again();
        ck_assert_uint_ge(now_usec() - before, 100 * USEC_PER_MSEC);
        ck_assert_str_eq(spool_triggers(), "I");
}
END_TEST

/* A request for each of a thousand sites must not put the next try off for ever. */
START_TEST(further_lost_triggers_do_not_put_the_next_try_off) {
        uint64_t start, until;

        ck_assert_int_eq(trigger_configure(&trigger, spool_fd, "qmgr", 200 * USEC_PER_MSEC), 0);
        start = now_usec();
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        until = start + 30 * USEC_PER_SEC;
        while (trigger_pending(&trigger) && now_usec() < until) {
                turn(50 * USEC_PER_MSEC);
                if (!trigger_pending(&trigger))
                        break;
                if (now_usec() - start < 10 * USEC_PER_SEC)
                        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        }
        ck_assert_uint_lt(now_usec() - start, 10 * USEC_PER_SEC);
}
END_TEST

START_TEST(what_arrives_meanwhile_does_not_take_back_what_was_lost) {
        trigger_send(&trigger, QMGR_FLUSH_DEAD);
        spool_listen();
        trigger_send(&trigger, QMGR_SCAN_INCOMING);
        ck_assert(trigger_pending(&trigger));
        ck_assert_str_eq(spool_triggers(), "I");
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "F");
}
END_TEST

START_TEST(a_full_queue_manager_is_tried_again) {
        spool_listen();
        for (int i = 0; i < 1000000 && !trigger_pending(&trigger); i++)
                trigger_send(&trigger, QMGR_SCAN_INCOMING);
        ck_assert(trigger_pending(&trigger));
        while (strlen(spool_triggers()) > 0)
                ;
        run_until_sent_again();
        ck_assert_str_eq(spool_triggers(), "I");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("trigger");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_trigger_that_arrives_is_not_repeated);
        tcase_add_test(tc, a_lost_trigger_is_sent_once_more);
        tcase_add_test(tc, lost_triggers_are_repeated_once_each_and_in_their_order);
        tcase_add_test(tc, a_trigger_that_is_lost_again_is_given_up);
        tcase_add_test(tc, what_is_lost_goes_to_the_queue_manager_of_now);
        tcase_add_test(tc, what_is_lost_is_sent_once_more_at_the_end);
        tcase_add_test(tc, the_next_try_comes_not_before_its_time);
        tcase_add_test(tc, further_lost_triggers_do_not_put_the_next_try_off);
        tcase_add_test(tc, what_arrives_meanwhile_does_not_take_back_what_was_lost);
        tcase_add_test(tc, a_full_queue_manager_is_tried_again);
        return run_case("trigger", tc);
}
