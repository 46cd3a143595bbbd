/* SPDX-License-Identifier: MIT */

#include "ctl/follow.h"

#include <fcntl.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static Follow follow;

static void setup(void) {
        spool_setup();
        follow = (Follow){.fd = -EBADF};
}

static void teardown(void) {
        follow_done(&follow);
        spool_teardown();
}

static void begin(void) {
        ck_assert_int_eq(follow_init(&spool_queue, &follow), 0);
}

static void move(const char *from, const char *to) {
        ck_assert_int_eq(renameat(spool_fd, from, spool_fd, to), 0);
}

#define expect(state, n)                                                                           \
        do {                                                                                       \
                ck_assert_int_eq(follow_events(&follow), 0);                                       \
                ck_assert_uint_eq(follow.count[state], n);                                         \
        } while (0)

START_TEST(a_message_is_followed_until_it_has_left) {
        spool_put("deferred/A/A1", 0700, 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        expect(FOLLOW_NOT_MOVED, 1);
        move("deferred/A/A1", "incoming/A1");
        expect(FOLLOW_MOVING, 1);
        move("incoming/A1", "active/A1");
        expect(FOLLOW_MOVING, 1);
        ck_assert_int_eq(unlinkat(spool_fd, "active/A1", 0), 0);
        expect(FOLLOW_LEFT, 1);
        ck_assert_uint_eq(follow.count[FOLLOW_MOVING], 0);
        ck_assert_int_eq(follow_state(&follow, "A1"), FOLLOW_LEFT);
        ck_assert_int_eq(follow_state(&follow, "A2"), FOLLOW_NOT_MOVED);
}
END_TEST

START_TEST(a_message_is_followed_until_it_is_deferred_again) {
        spool_put("deferred/A/A1", 0700, 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        move("deferred/A/A1", "active/A1");
        move("active/A1", "deferred/A/A1");
        expect(FOLLOW_DEFERRED, 1);
        move("deferred/A/A1", "incoming/A1"); /* its next attempt is another story */
        expect(FOLLOW_DEFERRED, 1);
}
END_TEST

START_TEST(a_message_may_be_put_on_hold) {
        spool_put("incoming/A1", 0700, 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        expect(FOLLOW_MOVING, 1);
        move("incoming/A1", "hold/A1");
        expect(FOLLOW_HELD, 1);
}
END_TEST

START_TEST(others_are_not_followed) {
        spool_put("active/A1", 0700, 0);
        spool_put("hold/A2", 0700, 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        ck_assert_int_eq(follow_add(&follow, "A2", 0), 0);
        ck_assert_int_eq(follow_add(&follow, "A3", 0), 0);
        move("active/A1", "deferred/A1");
        ck_assert_int_eq(follow_events(&follow), 0);
        for (int i = 0; i < _FOLLOW_STATE_MAX; i++)
                ck_assert_uint_eq(follow.count[i], 0);
}
END_TEST

START_TEST(what_was_not_moved_is_no_part_of_it) {
        spool_put("deferred/A/A1", 0700, 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        ck_assert_int_eq(follow_events(&follow), 0);
        follow_settle(&follow, false);
        expect(FOLLOW_NOT_MOVED, 1);
}
END_TEST

START_TEST(what_is_on_its_way_can_be_joined) {
        const void *cursor = NULL;
        FollowItem item;

        spool_put("incoming/A1", 0700, 0);
        spool_put("active/A2", 0700, 0);
        spool_put("deferred/A/A3", 0700, 0);
        begin();
        ck_assert_int_eq(follow_join(&follow, "A1", 7), 1);
        ck_assert_int_eq(follow_join(&follow, "A1", 8), 1);
        ck_assert_int_eq(follow_join(&follow, "A2", 8), 1);
        ck_assert_int_eq(follow_join(&follow, "A3", 8), 0);
        ck_assert_int_eq(follow_join(&follow, "A4", 8), 0);
        ck_assert_uint_eq(follow.count[FOLLOW_MOVING], 2);
        ck_assert(follow_next(&follow, &cursor, &item));
        ck_assert_str_eq(item.id, "A1");
        ck_assert_uint_eq(item.group, 7);
        ck_assert_int_eq(item.state, FOLLOW_MOVING);
        ck_assert(follow_next(&follow, &cursor, &item));
        ck_assert_str_eq(item.id, "A2");
        ck_assert(!follow_next(&follow, &cursor, &item));
}
END_TEST

START_TEST(a_new_hash_directory_is_watched) {
        spool_put("deferred/A/A1", 0700, 0);
        spool_put("deferred/A/B1", 0700, 0); /* not where it belongs, and so not found */
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        move("deferred/A/A1", "active/A1");
        expect(FOLLOW_MOVING, 1);
        ck_assert_int_eq(unlinkat(spool_fd, "deferred/A/B1", 0), 0);
        ck_assert_int_eq(unlinkat(spool_fd, "deferred/A", AT_REMOVEDIR), 0);
        ck_assert_int_eq(follow_events(&follow), 0);
        follow_look(&follow);
        ck_assert_int_eq(mkdirat(spool_fd, "deferred/A", 0700), 0);
        ck_assert_int_eq(follow_events(&follow), 0);
        ck_assert(follow.blind); /* something may have been in it before it was watched */
        follow_look(&follow);
        move("active/A1", "deferred/A/A1");
        expect(FOLLOW_DEFERRED, 1);
}
END_TEST

/* postsuper(1), after a change of hash_queue_names or hash_queue_depth. */
START_TEST(a_move_between_layouts_is_no_attempt) {
        spool_put("deferred/A/A1", 0700, 0);
        spool_put("deferred/A2", 0700, 0);
        spool_put("active/A/A3", 0700, 0);
        spool_put("incoming/A/A4", 0700, 0);
        ck_assert_int_eq(mkdirat(spool_fd, "deferred/A/1", 0700), 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        ck_assert_int_eq(follow_add(&follow, "A2", 0), 0);
        ck_assert_int_eq(follow_add(&follow, "A4", 0), 0);
        expect(FOLLOW_MOVING, 1);
        move("deferred/A/A1", "deferred/A/1/A1");
        move("deferred/A2", "deferred/A/A2");
        expect(FOLLOW_NOT_MOVED, 2);
        move("deferred/A/1/A1", "incoming/A1");
        expect(FOLLOW_MOVING, 2);
        move("incoming/A/A4", "incoming/A4");
        expect(FOLLOW_MOVING, 2);
        move("incoming/A1", "deferred/A/A1");
        expect(FOLLOW_DEFERRED, 1);
}
END_TEST

START_TEST(a_look_finds_what_no_event_tells) {
        spool_put("incoming/A1", 0700, 0);
        spool_put("incoming/A2", 0700, 0);
        begin();
        ck_assert_int_eq(follow_add(&follow, "A1", 0), 0);
        ck_assert_int_eq(follow_add(&follow, "A2", 0), 0);
        move("incoming/A1", "flush/A1"); /* nobody watches there */
        expect(FOLLOW_MOVING, 2);
        follow_look(&follow);
        ck_assert_int_eq(follow_state(&follow, "A1"), FOLLOW_LEFT);
        ck_assert_int_eq(follow_state(&follow, "A2"), FOLLOW_MOVING);
}
END_TEST

/* More than the kernel keeps for a reader who sleeps. */
START_TEST(lost_events_are_made_up_for) {
        unsigned long n = 0;
        FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
        char deferred[64], incoming[64];

        ck_assert(f && fscanf(f, "%lu", &n) == 1 && n > 0 && n < 1000000);
        (void) fclose(f);
        spool_put("deferred/A/A1", 0700, 0);
        spool_put("deferred/A/A2", 0700, 0);
        spool_put("deferred/A/A3", 0700, 0);
        spool_put("deferred/A/A4", 0700, 0);
        spool_put("deferred/A/A5", 0700, 0);
        spool_tick();
        begin();
        for (int i = 1; i <= 4; i++) {
                (void) snprintf(deferred, sizeof deferred, "A%d", i);
                ck_assert_int_eq(follow_add(&follow, deferred, 0), 0);
        }
        for (unsigned long i = 0; i <= n; i++) {
                (void) snprintf(deferred, sizeof deferred, "deferred/A/A%s", i % 2 ? "6" : "5");
                (void) snprintf(incoming, sizeof incoming, "deferred/A/A%s", i % 2 ? "5" : "6");
                move(deferred, incoming);
        }
        move("deferred/A/A1", "incoming/A1"); /* on its way */
        move("deferred/A/A2", "incoming/A2"); /* back again */
        spool_tick();
        move("incoming/A2", "deferred/A/A2");
        move("deferred/A/A3", "incoming/A3"); /* delivered */
        ck_assert_int_eq(unlinkat(spool_fd, "incoming/A3", 0), 0);
        ck_assert_int_eq(follow_events(&follow), 0);
        ck_assert(follow.blind);
        follow_settle(&follow, true);
        ck_assert_int_eq(follow_state(&follow, "A1"), FOLLOW_MOVING);
        ck_assert_int_eq(follow_state(&follow, "A2"), FOLLOW_DEFERRED);
        ck_assert_int_eq(follow_state(&follow, "A3"), FOLLOW_LEFT);
        ck_assert_int_eq(follow_state(&follow, "A4"), FOLLOW_NOT_MOVED);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("follow");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_set_timeout(tc, 60);
        tcase_add_test(tc, a_message_is_followed_until_it_has_left);
        tcase_add_test(tc, a_message_is_followed_until_it_is_deferred_again);
        tcase_add_test(tc, a_message_may_be_put_on_hold);
        tcase_add_test(tc, others_are_not_followed);
        tcase_add_test(tc, what_was_not_moved_is_no_part_of_it);
        tcase_add_test(tc, what_is_on_its_way_can_be_joined);
        tcase_add_test(tc, a_new_hash_directory_is_watched);
        tcase_add_test(tc, a_move_between_layouts_is_no_attempt);
        tcase_add_test(tc, a_look_finds_what_no_event_tells);
        tcase_add_test(tc, lost_events_are_made_up_for);
        return run_case("follow", tc);
}
