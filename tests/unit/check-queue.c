/* SPDX-License-Identifier: MIT */

#include "core/queue.h"

#include <fcntl.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define SHORT_ID "ABC123"
#define LONG_ID  "3pt2mN2VXxznjll"
#define DEFERRED "deferred/A/" SHORT_ID
#define INCOMING "incoming/" SHORT_ID

#define HOUR     3600

/* In the place of the C library's. */
static unsigned n_syncfs;
int syncfs(int fd) {
        n_syncfs++;
        return 0;
}

typedef int (*expedite_t)(const Queue *q, const char *id, QueueResult *ret);

/* What both have in common is tested with both. */
static const expedite_t both[] = {queue_move, queue_unthrottle};
static const mode_t added_bits[] = {0, 0040};

static void expect_due(const char *path) {
        ck_assert_int_ge(spool_mtime(path), -60);
        ck_assert_int_le(spool_mtime(path), 0);
}

static mode_t mode_of(const char *path) {
        return spool_stat(path).st_mode & 07777;
}

static void expect_result(expedite_t f, const char *id, int r, QueueResult expected) {
        QueueResult result = (QueueResult) -1;

        ck_assert_int_eq(f(&spool_queue, id, &result), r);
        if (r == 0)
                ck_assert_int_eq(result, expected);
}

START_TEST(a_deferred_message_moves_and_is_due) { /* 66, 86 */
        spool_put(DEFERRED, 0700, HOUR);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
        ck_assert(!spool_exists(DEFERRED));
        spool_expect(INCOMING, "mail");
        expect_due(INCOMING);
        ck_assert_int_eq(mode_of(INCOMING), 0700 | added_bits[_i]);
}
END_TEST

START_TEST(a_message_is_due_by_the_clock_that_qmgr_reads) {
        struct timespec first, now;

        spool_put(DEFERRED, 0700, HOUR);
        (void) clock_gettime(CLOCK_REALTIME, &first);
        do /* a second begins that time(2) does not know of yet */
                (void) clock_gettime(CLOCK_REALTIME, &now);
        while (now.tv_sec == first.tv_sec);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
        expect_due(INCOMING);
}
END_TEST

START_TEST(an_incoming_message_becomes_due_in_its_place) { /* 70, 87 */
        static const long offsets[] = {HOUR, -50 * HOUR};

        for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
                spool_put(INCOMING, 0700, offsets[i]);
                expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
                expect_due(INCOMING);
                ck_assert_int_eq(mode_of(INCOMING), 0700 | added_bits[_i]);
        }
}
END_TEST

START_TEST(a_message_in_both_queues_replaces_the_incoming_one) { /* 71 */
        spool_put(DEFERRED, 0700, HOUR);
        spool_write(INCOMING, "older");
        expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
        ck_assert(!spool_exists(DEFERRED));
        spool_expect(INCOMING, "mail");
}
END_TEST

START_TEST(a_message_that_is_nowhere_is_gone) { /* 68, 88 */
        expect_result(both[_i], SHORT_ID, 0, QUEUE_GONE);
        ck_assert(!spool_exists(INCOMING));
        ck_assert(!spool_exists("deferred/A"));
}
END_TEST

START_TEST(an_active_or_held_message_is_busy_and_left_alone) { /* 88 */
        static const char *const paths[] = {"active/" SHORT_ID, "hold/" SHORT_ID};

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                spool_put(paths[i], 0700, HOUR);
                expect_result(both[_i], SHORT_ID, 0, QUEUE_BUSY);
                ck_assert_int_ge(spool_mtime(paths[i]), HOUR - 60);
                ck_assert_int_eq(mode_of(paths[i]), 0700);
                ck_assert_int_eq(unlinkat(spool_fd, paths[i], 0), 0);
        }
}
END_TEST

START_TEST(a_dangling_link_in_active_is_busy_too) {
        ck_assert_int_eq(symlinkat("nowhere", spool_fd, "active/" SHORT_ID), 0);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_BUSY);
}
END_TEST

START_TEST(deferred_comes_before_active) {
        spool_put(DEFERRED, 0700, HOUR);
        spool_put("active/" SHORT_ID, 0700, HOUR);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
        ck_assert(spool_exists(INCOMING));
        ck_assert_int_ge(spool_mtime("active/" SHORT_ID), HOUR - 60);
}
END_TEST

/* depth, ID, deferred, incoming; all queues hashed */
static const struct {
        unsigned depth;
        const char *id, *deferred, *incoming, *active;
} forests[] = {
        {1, SHORT_ID, "deferred/A/ABC123", "incoming/A/ABC123", "active/A/ABC123"},
        {2, SHORT_ID, "deferred/A/B/ABC123", "incoming/A/B/ABC123", "active/A/B/ABC123"},
        {3, SHORT_ID, "deferred/A/B/C/ABC123", "incoming/A/B/C/ABC123", "active/A/B/C/ABC123"},
        {3, "AB", "deferred/A/B/_/AB", "incoming/A/B/_/AB", "active/A/B/_/AB"},
        {1, LONG_ID, "deferred/5/" LONG_ID, "incoming/5/" LONG_ID, "active/5/" LONG_ID},
        {3, LONG_ID, "deferred/5/6/3/" LONG_ID, "incoming/5/6/3/" LONG_ID, "active/5/6/3/" LONG_ID},
};

START_TEST(a_message_moves_into_hash_directories_that_are_made) { /* 105 */
        static const char *const dirs[] = {"incoming/A", "incoming/A/B", "incoming/5"};

        spool_queue.hash_depth = forests[_i].depth;
        spool_queue.hashed[QUEUE_INCOMING] = true;
        for (size_t k = 0; k < ARRAY_SIZE(both); k++) {
                spool_put(forests[_i].deferred, 0700, HOUR);
                expect_result(both[k], forests[_i].id, 0, QUEUE_MOVED);
                ck_assert(!spool_exists(forests[_i].deferred));
                expect_due(forests[_i].incoming);
        }
        for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
                if (spool_exists(dirs[i])) {
                        ck_assert_int_eq(mode_of(dirs[i]), 0700);
                        ck_assert_uint_eq(spool_stat(dirs[i]).st_gid, getegid());
                }
}
END_TEST

START_TEST(a_message_in_a_hashed_active_queue_is_busy) {
        spool_queue.hash_depth = forests[_i].depth;
        spool_queue.hashed[QUEUE_ACTIVE] = true;
        spool_put(forests[_i].active, 0700, HOUR);
        expect_result(queue_move, forests[_i].id, 0, QUEUE_BUSY);
}
END_TEST

START_TEST(a_message_in_another_ones_hash_directory_is_not_seen) { /* no layout has it there */
        spool_put("deferred/B/" SHORT_ID, 0700, HOUR);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_GONE);
        ck_assert(spool_exists("deferred/B/" SHORT_ID));
}
END_TEST

/* Where other values of hash_queue_names and hash_queue_depth have a message. */
static const char *const elsewhere[] = {
        "/" SHORT_ID,       "/A/" SHORT_ID,       "/A/B/" SHORT_ID,
        "/A/B/C/" SHORT_ID, "/A/B/C/1/" SHORT_ID, "/A/B/C/1/2/3/_/_/_/_/_/_/_/_/_/_/" SHORT_ID,
};

static const char *at_elsewhere(const char *queue, int i) {
        static char path[QUEUE_PATH_SIZE];

        (void) snprintf(path, sizeof path, "%s%s", queue, elsewhere[i]);
        return path;
}

START_TEST(a_deferred_message_is_found_in_any_layout) {
        for (unsigned depth = 0; depth < 4; depth++)
                for (size_t k = 0; k < ARRAY_SIZE(both); k++) {
                        const char *path = at_elsewhere("deferred", _i);

                        spool_queue.hashed[QUEUE_DEFERRED] = depth > 0;
                        spool_queue.hash_depth = depth > 0 ? depth : 1;
                        spool_put(path, 0700, HOUR);
                        expect_result(both[k], SHORT_ID, 0, QUEUE_MOVED);
                        ck_assert(!spool_exists(path));
                        spool_expect(INCOMING, "mail");
                        expect_due(INCOMING);
                        ck_assert_int_eq(unlinkat(spool_fd, INCOMING, 0), 0);
                }
}
END_TEST

START_TEST(an_incoming_message_in_any_layout_becomes_due_in_its_place) {
        spool_put(at_elsewhere("incoming", _i), 0700, HOUR);
        expect_result(queue_move, SHORT_ID, 0, QUEUE_MOVED);
        expect_due(at_elsewhere("incoming", _i));
}
END_TEST

START_TEST(a_message_is_busy_in_any_layout) {
        static const char *const queues[] = {"active", "hold"};

        for (size_t k = 0; k < ARRAY_SIZE(queues); k++) {
                const char *path = at_elsewhere(queues[k], _i);

                spool_put(path, 0700, HOUR);
                expect_result(queue_move, SHORT_ID, 0, QUEUE_BUSY);
                ck_assert_int_ge(spool_mtime(path), HOUR - 60);
                ck_assert_int_eq(unlinkat(spool_fd, path, 0), 0);
        }
}
END_TEST

START_TEST(what_only_looks_finds_a_message_in_any_layout) {
        QueueResult result;
        QueueName name;
        struct stat st;

        spool_put(at_elsewhere("deferred", _i), 0700, HOUR);
        ck_assert_int_eq(queue_find(&spool_queue, SHORT_ID, &name, &st), 0);
        ck_assert_int_eq(name, QUEUE_DEFERRED);
        ck_assert_uint_eq(st.st_ino, spool_stat(at_elsewhere("deferred", _i)).st_ino);
        ck_assert_int_eq(queue_preview(&spool_queue, SHORT_ID, false, &result), 0);
        ck_assert_int_eq(result, QUEUE_MOVED);
}
END_TEST

START_TEST(a_long_id_is_found_in_any_layout) {
        static const char *const paths[] = {"deferred/" LONG_ID, "deferred/5/6/" LONG_ID,
                                            "deferred/5/6/3/0/1/_/" LONG_ID};

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                spool_put(paths[i], 0700, HOUR);
                expect_result(queue_move, LONG_ID, 0, QUEUE_MOVED);
                ck_assert(spool_exists("incoming/" LONG_ID));
        }
}
END_TEST

START_TEST(the_places_of_a_file_end_at_the_first_directory_that_is_missing) {
        char path[QUEUE_PATH_SIZE];
        QueuePlaces places;

        spool_put("deferred/A/B/C/1/" SHORT_ID, 0700, 0);
        spool_write("hold/A", "a file, as flush(8) has them for sites of one letter");
        queue_places(&spool_queue, QUEUE_DEFERRED, SHORT_ID, &places);
        for (int i = 0; i < 5; i++) {
                if (i == 1) /* where the settings have it */
                        continue;
                ck_assert_int_eq(queue_next_place(&places, path), 1);
                ck_assert_str_eq(path, at_elsewhere("deferred", i));
        }
        ck_assert_int_eq(queue_next_place(&places, path), 0);
        queue_places(&spool_queue, QUEUE_HOLD, SHORT_ID, &places);
        ck_assert_int_eq(queue_next_place(&places, path), 0);
}
END_TEST

START_TEST(a_hash_directory_is_no_message) {
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "deferred/A/B/"), 0);
        expect_result(both[_i], "A", 0, QUEUE_GONE);
        ck_assert(spool_exists("deferred/A/B"));
}
END_TEST

START_TEST(a_message_is_not_gone_where_a_queue_is_not_there) {
        static const char *const queues[] = {"deferred", "incoming", "active", "hold"};
        QueueName name;
        struct stat st;

        for (size_t i = 0; i < ARRAY_SIZE(queues); i++) {
                expect_result(both[_i], SHORT_ID, 0, QUEUE_GONE);
                ck_assert_int_eq(renameat(spool_fd, queues[i], spool_fd, "aside"), 0);
                expect_result(both[_i], SHORT_ID, -ENOTDIR, 0);
                ck_assert_int_eq(queue_find(&spool_queue, SHORT_ID, &name, &st), -ENOTDIR);
                ck_assert_int_eq(renameat(spool_fd, "aside", spool_fd, queues[i]), 0);
        }
}
END_TEST

START_TEST(a_message_is_not_gone_where_a_hash_directory_of_any_layout_cannot_be_searched) {
        static const char *const paths[] = {"deferred/A/B/C/", "incoming/A/B/", "active/A/B/",
                                            "hold/A/B/"};

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
                ck_assert_int_eq(queue_make_dirs(&spool_queue, paths[i]), 0);
        ck_assert(spool_unprivileged());
        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                char above[32];

                (void) snprintf(above, sizeof above, "%.*s", (int) strlen(paths[i]) - 3, paths[i]);
                ck_assert_int_eq(fchmodat(spool_fd, above, 0, 0), 0);
                expect_result(both[_i], SHORT_ID, -EACCES, 0);
                ck_assert_int_eq(fchmodat(spool_fd, above, 0700, 0), 0);
        }
        expect_result(both[_i], SHORT_ID, 0, QUEUE_GONE);
}
END_TEST

START_TEST(a_message_is_not_gone_where_a_hash_directory_is_a_link_to_nowhere) {
        ck_assert_int_eq(symlinkat("/nonexistent/disk", spool_fd, "deferred/A"), 0);
        spool_queue.hashed[QUEUE_DEFERRED] = false;
        expect_result(both[_i], SHORT_ID, -ELOOP, 0);
        ck_assert_int_eq(unlinkat(spool_fd, "deferred/A", 0), 0);
        ck_assert_int_eq(symlinkat("../other", spool_fd, "deferred/A"), 0);
        spool_put("other/" SHORT_ID, 0700, HOUR);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
}
END_TEST

START_TEST(a_move_keeps_every_mode) { /* 72 */
        static const mode_t modes[] = {0600, 0400, 0740, 0710, 0777, 0700};

        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
                spool_put(DEFERRED, modes[i], HOUR);
                expect_result(queue_move, SHORT_ID, 0, QUEUE_MOVED);
                ck_assert_int_eq(mode_of(INCOMING), modes[i]);
                ck_assert_int_eq(unlinkat(spool_fd, INCOMING, 0), 0);
        }
}
END_TEST

START_TEST(an_unthrottled_message_keeps_its_other_bits) { /* 90 */
        static const struct {
                mode_t before, after;
        } modes[] = {{0700, 0740}, {0740, 0740}, {0710, 0750}, {0777, 0777}};

        for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
                spool_put(DEFERRED, modes[i].before, HOUR);
                expect_result(queue_unthrottle, SHORT_ID, 0, QUEUE_MOVED);
                ck_assert_int_eq(mode_of(INCOMING), modes[i].after);
                ck_assert_int_eq(unlinkat(spool_fd, INCOMING, 0), 0);
        }
}
END_TEST

START_TEST(a_message_being_written_is_not_unthrottled) { /* 89; ours leaves the time, too */
        static const mode_t modes[] = {0600, 0640, 0500};
        static const char *const paths[] = {DEFERRED, INCOMING};

        for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
                for (size_t k = 0; k < ARRAY_SIZE(paths); k++) {
                        spool_put(paths[k], modes[i], HOUR);
                        expect_result(queue_unthrottle, SHORT_ID, 0, QUEUE_NOT_READY);
                        ck_assert_int_eq(mode_of(paths[k]), modes[i]);
                        ck_assert_int_ge(spool_mtime(paths[k]), HOUR - 60);
                        ck_assert_int_eq(unlinkat(spool_fd, paths[k], 0), 0);
                }
}
END_TEST

START_TEST(a_symbolic_link_s_target_is_never_touched) { /* 80, 91 */
        spool_put("target", 0700, HOUR);
        ck_assert_int_eq(queue_make_dirs(&spool_queue, DEFERRED), 0);
        ck_assert_int_eq(symlinkat("../../target", spool_fd, DEFERRED), 0);
        expect_result(queue_unthrottle, SHORT_ID, -ELOOP, 0);
        ck_assert(S_ISLNK(spool_stat(DEFERRED).st_mode));
        expect_result(queue_move, SHORT_ID, 0, QUEUE_MOVED);
        ck_assert(S_ISLNK(spool_stat(INCOMING).st_mode));
        ck_assert_int_ge(spool_mtime("target"), HOUR - 60);
        ck_assert_int_eq(mode_of("target"), 0700);
}
END_TEST

START_TEST(a_message_with_two_names_is_not_unthrottled) { /* 91; ours leaves the time, too */
        spool_put(DEFERRED, 0700, HOUR);
        ck_assert_int_eq(linkat(spool_fd, DEFERRED, spool_fd, "other", 0), 0);
        expect_result(queue_unthrottle, SHORT_ID, -EMLINK, 0);
        ck_assert_int_ge(spool_mtime(DEFERRED), HOUR - 60);
        ck_assert_int_eq(mode_of("other"), 0700);
        ck_assert(!spool_exists(INCOMING));
}
END_TEST

START_TEST(what_is_no_plain_file_is_not_unthrottled) { /* 91 */
        ck_assert_int_eq(queue_make_dirs(&spool_queue, DEFERRED "/"), 0);
        expect_result(queue_unthrottle, SHORT_ID, -EISDIR, 0);
        ck_assert_int_eq(unlinkat(spool_fd, DEFERRED, AT_REMOVEDIR), 0);
        ck_assert_int_eq(mkfifoat(spool_fd, DEFERRED, 0700), 0);
        expect_result(queue_unthrottle, SHORT_ID, -EPROTOTYPE, 0);
        ck_assert_int_eq(mode_of(DEFERRED), 0700);
        ck_assert(!spool_exists(INCOMING));
}
END_TEST

START_TEST(another_one_s_message_is_not_unthrottled) { /* 91 */
        spool_put(DEFERRED, 0700, HOUR);
        ck_assert_int_eq(fchownat(spool_fd, DEFERRED, 1, (gid_t) -1, 0), 0);
        expect_result(queue_unthrottle, SHORT_ID, -EPERM, 0);
        ck_assert_int_eq(mode_of(DEFERRED), 0700);
        ck_assert_int_ge(spool_mtime(DEFERRED), HOUR - 60);
}
END_TEST

START_TEST(another_one_s_message_is_an_error_to_whoever_may_not_touch_it) { /* 78 */
        spool_put(DEFERRED, 0777, HOUR);
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(seteuid(0), 0);
        ck_assert_int_eq(fchownat(spool_fd, DEFERRED, 1, 1, 0), 0);
        ck_assert_int_eq(fchmodat(spool_fd, DEFERRED, 0700, 0), 0);
        ck_assert_int_eq(seteuid(65534), 0); /* undone by spool_teardown() */
        expect_result(queue_move, SHORT_ID, -EPERM, 0);
        ck_assert(spool_exists(DEFERRED));
        ck_assert(!spool_exists(INCOMING));
}
END_TEST

START_TEST(a_message_stays_where_incoming_cannot_be_written) { /* 79, 92 */
        spool_put(DEFERRED, 0700, HOUR);
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(fchmodat(spool_fd, "incoming", 0500, 0), 0);
        expect_result(both[_i], SHORT_ID, -EACCES, 0);
        ck_assert(spool_exists(DEFERRED));
        ck_assert_int_eq(fchmodat(spool_fd, "incoming", 0700, 0), 0);
        expect_result(both[_i], SHORT_ID, 0, QUEUE_MOVED);
}
END_TEST

START_TEST(a_message_stays_where_its_hash_directory_cannot_be_made) {
        spool_queue.hashed[QUEUE_INCOMING] = true;
        spool_put(DEFERRED, 0700, HOUR);
        spool_write("incoming/A", "in the way");
        expect_result(both[_i], SHORT_ID, -ENOTDIR, 0);
        ck_assert(spool_exists(DEFERRED));
}
END_TEST

START_TEST(a_message_stays_where_its_name_is_taken_by_a_directory) {
        spool_put(DEFERRED, 0700, HOUR);
        ck_assert_int_eq(mkdirat(spool_fd, INCOMING, 0700), 0);
        expect_result(both[_i], SHORT_ID, -EISDIR, 0);
        ck_assert(spool_exists(DEFERRED));
}
END_TEST

/* Some were moved to where the layout of before has them. */
START_TEST(moves_are_synced_also_when_the_layout_changes_meanwhile) {
        n_syncfs = 0;
        queue_set_layout(&spool_queue, "deferred", 1);
        ck_assert_int_eq(queue_sync_moves(&spool_queue), 0);
        ck_assert_uint_eq(n_syncfs, 0);
        queue_set_layout(&spool_queue, "deferred incoming", 1);
        ck_assert_int_eq(queue_sync_moves(&spool_queue), 0);
        ck_assert_uint_eq(n_syncfs, 1);
        queue_set_layout(&spool_queue, "deferred", 1);
        ck_assert_int_eq(queue_sync_moves(&spool_queue), 0);
        ck_assert_uint_eq(n_syncfs, 2);
}
END_TEST

/* "Gone" would have its record removed while it waits in deferred. */
START_TEST(a_directory_in_incoming_does_not_hide_a_message) {
        static const char *const elsewhere_or_held[] = {"deferred/" SHORT_ID, "hold/" SHORT_ID};
        QueueName name;
        struct stat st;

        ck_assert_int_eq(mkdirat(spool_queue.fd, INCOMING, 0700), 0);
        for (size_t i = 0; i < ARRAY_SIZE(elsewhere_or_held); i++) {
                spool_put(elsewhere_or_held[i], 0700, HOUR);
                expect_result(both[_i], SHORT_ID, i == 0 ? -EISDIR : 0, QUEUE_BUSY);
                spool_expect(elsewhere_or_held[i], "mail");
                ck_assert_int_eq(queue_find(&spool_queue, SHORT_ID, &name, &st), 0);
                ck_assert_int_eq(name, i == 0 ? QUEUE_DEFERRED : QUEUE_HOLD);
                ck_assert_int_eq(unlinkat(spool_queue.fd, elsewhere_or_held[i], 0), 0);
        }
        expect_result(both[_i], SHORT_ID, 0, QUEUE_GONE);
}
END_TEST

START_TEST(a_message_is_not_gone_because_incoming_is) {
        QueueResult result = QUEUE_GONE;
        int r;

        spool_put(DEFERRED, 0700, HOUR);
        ck_assert_int_eq(unlinkat(spool_fd, "incoming", AT_REMOVEDIR), 0);
        r = both[_i](&spool_queue, SHORT_ID, &result);
        ck_assert_msg(r < 0 || result == QUEUE_MOVED, "returned %d, result %d", r, (int) result);
}
END_TEST

START_TEST(a_queue_that_cannot_be_searched_is_an_error) {
        spool_put(DEFERRED, 0700, HOUR);
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(fchmodat(spool_fd, "deferred/A", 0, 0), 0);
        expect_result(both[_i], SHORT_ID, -EACCES, 0);
        ck_assert_int_eq(fchmodat(spool_fd, "deferred/A", 0700, 0), 0);
}
END_TEST

START_TEST(directories_are_made_for_the_owner_only_and_not_twice) {
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/x/example_com"), 0);
        ck_assert_int_eq(mode_of("flush/e"), 0700);
        ck_assert_int_eq(mode_of("flush/e/x"), 0700);
        ck_assert(!spool_exists("flush/e/x/example_com"));
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/x/example_com"), 0);
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/y/eyample_com"), 0);
        ck_assert(spool_exists("flush/e/y"));
}
END_TEST

START_TEST(a_new_directory_has_our_group_whatever_its_parent_has) {
        ck_assert_int_eq(fchownat(spool_fd, "flush", (uid_t) -1, getegid() + 1, 0), 0);
        ck_assert_int_eq(fchmodat(spool_fd, "flush", 02700, 0), 0);
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/example_com"), 0);
        ck_assert_uint_eq(spool_stat("flush/e").st_gid, getegid());
}
END_TEST

START_TEST(queues_have_postfix_s_names) {
        ck_assert_str_eq(queue_name(QUEUE_INCOMING), "incoming");
        ck_assert_str_eq(queue_name(QUEUE_ACTIVE), "active");
        ck_assert_str_eq(queue_name(QUEUE_DEFERRED), "deferred");
        ck_assert_str_eq(queue_name(QUEUE_HOLD), "hold");
        ck_assert_str_eq(queue_name(QUEUE_FLUSH), "flush");
}
END_TEST

START_TEST(an_arrival_is_told_by_a_long_id_or_by_the_file) {
        time_t before = time(NULL), arrival;
        struct timespec birth;

        spool_put("deferred/A/ABC123", 0700, -3600);
        ck_assert_int_eq(queue_arrival(&spool_queue, "deferred/A/ABC123", "3Pt2mN2VXxznjll"),
                         1300631508);
        arrival = queue_arrival(&spool_queue, "deferred/A/ABC123", "ABC123");
        if (queue_birth(&spool_queue, "deferred/A/ABC123", &birth) == 0)
                ck_assert_int_ge(arrival, before - 1); /* not its time of modification */
        else
                ck_assert_int_eq(arrival, 0);
        ck_assert_int_eq(queue_birth(&spool_queue, "deferred/A/NOSUCH", &birth), -ENOENT);
        ck_assert_int_eq(queue_arrival(&spool_queue, "deferred/A/NOSUCH", "NOSUCH"), 0);
        ck_assert(queue_arrived_before(1, 0));
        ck_assert(queue_arrived_before(1, 2));
        ck_assert(!queue_arrived_before(2, 1));
        ck_assert(!queue_arrived_before(0, 1));
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("queue");

        tcase_add_checked_fixture(tc, spool_setup, spool_teardown);
        tcase_add_loop_test(tc, a_deferred_message_moves_and_is_due, 0, 2);
        tcase_add_loop_test(tc, a_message_is_due_by_the_clock_that_qmgr_reads, 0, 2);
        tcase_add_loop_test(tc, an_incoming_message_becomes_due_in_its_place, 0, 2);
        tcase_add_loop_test(tc, a_message_in_both_queues_replaces_the_incoming_one, 0, 2);
        tcase_add_loop_test(tc, a_message_that_is_nowhere_is_gone, 0, 2);
        tcase_add_loop_test(tc, an_active_or_held_message_is_busy_and_left_alone, 0, 2);
        tcase_add_loop_test(tc, a_dangling_link_in_active_is_busy_too, 0, 2);
        tcase_add_loop_test(tc, deferred_comes_before_active, 0, 2);
        tcase_add_loop_test(tc, a_message_moves_into_hash_directories_that_are_made, 0,
                            ARRAY_SIZE(forests));
        tcase_add_loop_test(tc, a_message_in_a_hashed_active_queue_is_busy, 0, ARRAY_SIZE(forests));
        tcase_add_loop_test(tc, a_message_in_another_ones_hash_directory_is_not_seen, 0, 2);
        tcase_add_loop_test(tc, a_deferred_message_is_found_in_any_layout, 0,
                            ARRAY_SIZE(elsewhere));
        tcase_add_loop_test(tc, an_incoming_message_in_any_layout_becomes_due_in_its_place, 0,
                            ARRAY_SIZE(elsewhere));
        tcase_add_loop_test(tc, a_message_is_busy_in_any_layout, 0, ARRAY_SIZE(elsewhere));
        tcase_add_loop_test(tc, what_only_looks_finds_a_message_in_any_layout, 0,
                            ARRAY_SIZE(elsewhere));
        tcase_add_test(tc, a_long_id_is_found_in_any_layout);
        tcase_add_test(tc, the_places_of_a_file_end_at_the_first_directory_that_is_missing);
        tcase_add_loop_test(tc, a_hash_directory_is_no_message, 0, 2);
        tcase_add_loop_test(tc, a_message_is_not_gone_where_a_queue_is_not_there, 0, 2);
        tcase_add_loop_test(
                tc, a_message_is_not_gone_where_a_hash_directory_of_any_layout_cannot_be_searched,
                0, 2);
        tcase_add_loop_test(tc, a_message_is_not_gone_where_a_hash_directory_is_a_link_to_nowhere,
                            0, 2);
        tcase_add_test(tc, a_move_keeps_every_mode);
        tcase_add_test(tc, an_unthrottled_message_keeps_its_other_bits);
        tcase_add_test(tc, a_message_being_written_is_not_unthrottled);
        tcase_add_test(tc, a_symbolic_link_s_target_is_never_touched);
        tcase_add_test(tc, a_message_with_two_names_is_not_unthrottled);
        tcase_add_test(tc, what_is_no_plain_file_is_not_unthrottled);
        if (geteuid() == 0) { /* nobody else can give a file away */
                tcase_add_test(tc, another_one_s_message_is_not_unthrottled);
                tcase_add_test(tc, another_one_s_message_is_an_error_to_whoever_may_not_touch_it);
                tcase_add_test(tc, a_new_directory_has_our_group_whatever_its_parent_has);
        }
        tcase_add_loop_test(tc, a_message_stays_where_incoming_cannot_be_written, 0, 2);
        tcase_add_loop_test(tc, a_message_stays_where_its_hash_directory_cannot_be_made, 0, 2);
        tcase_add_loop_test(tc, a_message_stays_where_its_name_is_taken_by_a_directory, 0, 2);
        tcase_add_test(tc, moves_are_synced_also_when_the_layout_changes_meanwhile);
        tcase_add_loop_test(tc, a_directory_in_incoming_does_not_hide_a_message, 0, 2);
        tcase_add_loop_test(tc, a_message_is_not_gone_because_incoming_is, 0, 2);
        tcase_add_loop_test(tc, a_queue_that_cannot_be_searched_is_an_error, 0, 2);
        tcase_add_test(tc, directories_are_made_for_the_owner_only_and_not_twice);
        tcase_add_test(tc, an_arrival_is_told_by_a_long_id_or_by_the_file);
        tcase_add_test(tc, queues_have_postfix_s_names);
        return run_case("queue", tc);
}
