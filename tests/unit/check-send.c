/* SPDX-License-Identifier: MIT */

#include "daemon/send.h"

#include <fcntl.h>
#include <stdio.h>
#include <utlist.h>

#include "tests/lib/sends.h"
#include "tests/lib/spool.h"
#include "util/util.h"

#define NAME  "example_com"
#define PATH  "flush/" NAME
#define CHUNK 65536 /* what is read at a time */

#define HOUR  3600
#define DAY   (24 * HOUR)

static Site *site;
static SendResult first_result, result;
static unsigned n_done;
static unsigned long limit;

static Call *answered[8]; /* in their order */
static SendResult answers[8];
static unsigned n_answered;

static void on_done(Site *s, const SendResult *r, Call *calls, void *userdata) {
        Call *call, *tmp;

        ck_assert_ptr_eq(userdata, &context);
        ck_assert_ptr_eq(s, site);
        ck_assert(!send_is_running(s));
        if (n_done++ == 0)
                first_result = *r;
        result = *r;
        LL_FOREACH_SAFE (calls, call, tmp) {
                ck_assert_uint_lt(n_answered, ARRAY_SIZE(answered));
                answered[n_answered] = call;
                answers[n_answered++] = *r;
        }
}

static void setup(void) {
        sends_setup(on_done);
        site = sites_get(&sites, NAME);
        result = (SendResult){.error = 1};
        n_done = n_answered = 0;
        limit = 0;
}

static void start(SendKind kind) {
        ck_assert_int_eq(send_start(&context, site, kind, limit), 0);
        ck_assert(send_is_running(site));
}

static void finish(void) {
        for (unsigned i = 0; send_is_running(site) && i < 1000000; i++)
                turn();
        ck_assert(!send_is_running(site));
        ck_assert_uint_eq(n_done, 1);
        n_done = 0;
}

static void run(SendKind kind) {
        start(kind);
        finish();
        ck_assert_int_eq(result.kind, kind);
}

static void expect_counts(RequestCounts expected) {
        const RequestCounts *c = &result.counts;

        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(c->moved, expected.moved);
        ck_assert_uint_eq(c->gone, expected.gone);
        ck_assert_uint_eq(c->busy, expected.busy);
        ck_assert_uint_eq(c->failed, expected.failed);
        ck_assert_uint_eq(c->duplicate, expected.duplicate);
        ck_assert_uint_eq(c->invalid, expected.invalid);
        ck_assert_uint_eq(c->left, expected.left);
        ck_assert_uint_eq(c->found, c->moved + c->gone + c->busy + c->failed + c->duplicate);
}

/* A message in deferred that is not due. */
static void put_message(const char *id) {
        char path[QUEUE_PATH_SIZE];

        queue_path(&spool_queue, QUEUE_DEFERRED, id, path);
        spool_put(path, 0700, HOUR);
}

static void on_added(Call *call, int error, void *userdata) {
        *(int *) userdata = error;
}

static void add(const char *id) {
        Call call = {.request = {.kind = REQUEST_ADD, .queue_id = id}, .site = site};
        int error = 1;

        sites_put_add(&sites, site, &call);
        ck_assert(!sites_write(&sites, on_added, &error));
        ck_assert_int_eq(error, 0);
}

/* @n lines of 12 bytes, each with another ID, first .. first + n - 1. */
static char *many_ids(unsigned first, unsigned n) {
        char *text = malloc(12 * (size_t) n + 1);

        ck_assert_ptr_nonnull(text);
        text[0] = '\0';
        for (unsigned i = 0; i < n; i++)
                (void) snprintf(text + 12 * (size_t) i, 13, "%011X\n", first + i);
        return text;
}

/* A log that takes a send many turns, and a send that has got beyond the lines before which qmgr is
 * not woken. */
#define N_LONG 10000u
static void start_long_send(SendKind kind) {
        _cleanup_free_ char *text = many_ids(0, N_LONG);

        spool_write(PATH, text);
        start(kind);
        for (unsigned i = 0; i < 20; i++)
                turn();
        ck_assert_msg(send_is_running(site), "the log is too short for this test");
}

/* ------------------------------------------------------------------------- what is moved */

START_TEST(without_a_log_nothing_happens) { /* 64 */
        run(SEND_SITE);
        expect_counts((RequestCounts){0});
        ck_assert(!result.had_lines);
        ck_assert_str_eq(spool_triggers(), "");
        ck_assert(!spool_exists(PATH));
}
END_TEST

START_TEST(an_empty_log_is_touched_and_qmgr_told) { /* 65 */
        spool_write(PATH, "");
        spool_set_times(PATH, -DAY, -DAY);
        run(SEND_SITE);
        expect_counts((RequestCounts){0});
        ck_assert(!result.had_lines);
        ck_assert_str_eq(spool_triggers(), "F");
        ck_assert_int_ge(spool_atime(PATH), -60);
        ck_assert_int_ge(spool_mtime(PATH), -60);
}
END_TEST

START_TEST(a_recorded_message_is_moved_and_the_log_emptied) { /* 66 */
        put_message("ABC123");
        spool_write(PATH, "ABC123\n");
        spool_set_times(PATH, -DAY, -DAY);
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1});
        ck_assert(result.had_lines);
        ck_assert(spool_exists("incoming/ABC123"));
        ck_assert_int_le(spool_mtime("incoming/ABC123"), 0);
        spool_expect(PATH, "");
        ck_assert_int_ge(spool_atime(PATH), -60);
        ck_assert_int_ge(spool_mtime(PATH), -60);
        ck_assert_str_eq(spool_triggers(), "FI");
}
END_TEST

START_TEST(a_message_that_is_gone_loses_its_record) { /* 68 */
        spool_write(PATH, "ABC123\n");
        run(SEND_SITE);
        expect_counts((RequestCounts){.gone = 1});
        spool_expect(PATH, "");
        ck_assert_str_eq(spool_triggers(), "FI");
}
END_TEST

START_TEST(repeated_records_move_a_message_once) { /* 69 */
        put_message("ABC123");
        spool_write(PATH, "ABC123\nABC123\nABC123\n");
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1, .duplicate = 2});
        spool_expect(PATH, "");
}
END_TEST

/* Logs with the messages ABC123 and DEF456 there. */
static const struct {
        const char *text;
        size_t n;
        RequestCounts counts;
} odd_logs[] = {
        {"../x\n\nAB-C\nABC123\nDEF456", 25, {.moved = 2, .invalid = 2}}, /* 73 */
        {"!!\n", 3, {.invalid = 1}},                                      /* 74 */
        {"\n", 1, {0}},
        {"\n\n\nABC123\n\n\n", 12, {.moved = 1}},
        {"ABC123\0junk\nDEF456\n", 19, {.moved = 2}}, /* 75 */
        {"ABC123\0\0\0\nDEF456\0", 17, {.moved = 2}},
        {"\0ABC123\nDEF456\n", 15, {.moved = 1, .invalid = 1}},
        {"ABC123\r\n", 8, {.invalid = 1}}, /* 76 */
        {"ABC123", 6, {.moved = 1}},
        {"ABC123DEF456\n", 13, {.gone = 1}},
        {" ABC123\nDEF456 \n", 16, {.invalid = 2}},
        {"ABC123\nDEF456\nABC123\nABC123", 27, {.moved = 2, .duplicate = 2}},
        {"\xff\xfe\n\x80", 4, {.invalid = 2}},
};

START_TEST(what_is_no_record_is_dropped_and_the_rest_is_moved) {
        put_message("ABC123");
        put_message("DEF456");
        spool_write_bytes(PATH, odd_logs[_i].text, odd_logs[_i].n);
        run(SEND_SITE);
        expect_counts(odd_logs[_i].counts);
        ck_assert(result.had_lines);
        spool_expect(PATH, "");
        ck_assert_str_eq(spool_triggers(), "FI");
}
END_TEST

START_TEST(a_long_queue_id_is_found_by_its_hash) { /* 77 */
        put_message("3pt2mN2VXxznjll");
        spool_write(PATH, "3pt2mN2VXxznjll\n");
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1});
        ck_assert(spool_exists("incoming/3pt2mN2VXxznjll"));
}
END_TEST

START_TEST(a_refresh_leaves_the_triggers_to_its_caller) {
        put_message("ABC123");
        spool_write(PATH, "ABC123\n");
        run(SEND_REFRESH);
        expect_counts((RequestCounts){.moved = 1});
        ck_assert(result.had_lines);
        ck_assert_str_eq(spool_triggers(), "");
        spool_expect(PATH, "");
}
END_TEST

START_TEST(delivery_starts_while_the_rest_is_being_moved) {
        for (unsigned i = 0; i < 300; i++) {
                char id[12];

                (void) snprintf(id, sizeof id, "%011X", i);
                put_message(id);
        }
        start_long_send(SEND_SITE);
        ck_assert_str_eq(spool_triggers(), "FI");
        ck_assert(spool_exists("incoming/00000000000"));
        finish();
        expect_counts((RequestCounts){.moved = 300, .gone = N_LONG - 300});
        ck_assert_ptr_nonnull(strchr(spool_triggers(), 'I'));
}
END_TEST

/* ----------------------------------------------------------------------------- portions */

START_TEST(a_portion_leaves_the_rest_recorded) {
        put_message("ABC123");
        put_message("DEF456");
        put_message("GHI789");
        spool_write(PATH, "ABC123\nGONE11\nDEF456\nABC123\nGHI789\n");
        limit = 2;
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 2, .gone = 1, .left = 2});
        spool_expect(PATH, "ABC123\nGHI789\n");
        ck_assert(spool_exists("incoming/DEF456"));
        ck_assert(!spool_exists("incoming/GHI789"));
        ck_assert_str_eq(spool_triggers(), "FI");
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 2});
        spool_expect(PATH, "");
}
END_TEST

/* What was not moved does not count, what stays comes before what was not looked at. */
START_TEST(a_portion_is_of_moved_messages) {
        put_message("ABC123");
        spool_put("hold/DEF456", 0700, HOUR);
        put_message("GHI789");
        spool_write(PATH, "DEF456\n!!\nDEF456\nABC123\nGHI789\n!!\n\nGHI789");
        limit = 1;
        run(SEND_SITE);
        expect_counts(
                (RequestCounts){.moved = 1, .busy = 1, .duplicate = 1, .invalid = 1, .left = 2});
        spool_expect(PATH, "DEF456\nGHI789\n!!\n\nGHI789\n");
}
END_TEST

START_TEST(a_limit_that_is_just_reached_or_not_is_as_none) {
        put_message("ABC123");
        put_message("DEF456");
        spool_write(PATH, "ABC123\nDEF456");
        limit = 2 + (unsigned long) _i;
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 2});
        spool_expect(PATH, "");
}
END_TEST

/* Lines across chunks and turns, and the limit at any of them. */
START_TEST(portions_of_any_size_move_each_message_once) {
        static const unsigned long limits[] = {1, 15, 16, 17, 5460, 5461, 5462, 5463, 9999};
        _cleanup_free_ char *text = many_ids(0, N_LONG);
        _cleanup_free_ char *rest = many_ids((unsigned) limits[_i], N_LONG - (unsigned) limits[_i]);

        for (unsigned i = 0; i < N_LONG; i++) {
                char id[12];

                (void) snprintf(id, sizeof id, "%011X", i);
                put_message(id);
        }
        spool_write(PATH, text);
        limit = limits[_i];
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = limit, .left = N_LONG - limit});
        spool_expect(PATH, rest);
        limit = N_LONG;
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = N_LONG - limits[_i]});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(records_added_during_a_portion_are_kept_behind_the_rest) {
        _cleanup_free_ char *rest = many_ids(N_LONG - 2, 2), *expected = NULL, *id = NULL;

        id = many_ids(N_LONG - 3, 1);
        id[11] = '\0';
        put_message(id);
        limit = 1;
        start_long_send(SEND_SITE);
        add("ADDED1");
        finish();
        expect_counts((RequestCounts){.moved = 1, .gone = N_LONG - 3, .left = 2});
        ck_assert_int_gt(asprintf(&expected, "%sADDED1\n", rest), 0);
        spool_expect(PATH, expected);
}
END_TEST

/* ------------------------------------------------------------------------ what is kept */

START_TEST(records_of_active_and_held_messages_are_kept) {
        put_message("ABC123");
        spool_put("active/DEF456", 0700, HOUR);
        spool_put("hold/GHI789", 0700, HOUR);
        spool_write(PATH, "DEF456\nABC123\nGHI789\nDEF456\n");
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1, .busy = 2, .duplicate = 1});
        spool_expect(PATH, "DEF456\nGHI789\n");
        ck_assert_int_ge(spool_atime(PATH), -60);
}
END_TEST

START_TEST(records_of_messages_that_could_not_be_moved_are_kept) { /* 78, 79 */
        put_message("ABC123");
        put_message("DEF456");
        put_message("GHI789");
        ck_assert_int_eq(mkdirat(spool_fd, "incoming/DEF456", 0700), 0);
        spool_write(PATH, "ABC123\nDEF456\nGHI789\n");
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 2, .failed = 1});
        spool_expect(PATH, "DEF456\n");
        ck_assert(spool_exists("incoming/GHI789"));
        ck_assert_int_eq(unlinkat(spool_fd, "incoming/DEF456", AT_REMOVEDIR), 0);
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(all_records_are_kept_where_nothing_can_be_moved) { /* 79 */
        put_message("ABC123");
        put_message("DEF456");
        spool_write(PATH, "ABC123\nDEF456\n");
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(fchmodat(spool_fd, "incoming", 0500, 0), 0);
        run(SEND_SITE);
        expect_counts((RequestCounts){.failed = 2});
        spool_expect(PATH, "ABC123\nDEF456\n");
}
END_TEST

START_TEST(a_kept_record_without_newline_does_not_grow_into_the_next) {
        spool_put("active/DEF456", 0700, HOUR);
        spool_write(PATH, "ABC123\nDEF456");
        run(SEND_SITE);
        expect_counts((RequestCounts){.gone = 1, .busy = 1});
        add("GHI789");
        spool_expect(PATH, "DEF456\nGHI789\n");
}
END_TEST

START_TEST(many_kept_records_are_kept_in_their_order) {
        _cleanup_free_ char *text = many_ids(0, N_LONG);

        for (unsigned i = 0; i < N_LONG; i++) {
                char path[32];

                (void) snprintf(path, sizeof path, "active/%011X", i);
                ck_assert_int_eq(symlinkat("x", spool_fd, path), 0); /* as good, and faster */
        }
        spool_write(PATH, text);
        run(SEND_REFRESH);
        expect_counts((RequestCounts){.busy = N_LONG});
        spool_expect(PATH, text);
}
END_TEST

START_TEST(records_added_while_it_runs_are_kept) {
        start_long_send(SEND_SITE);
        add("NEW1");
        turn();
        add("NEW2");
        ck_assert(send_is_running(site));
        finish();
        expect_counts((RequestCounts){.gone = N_LONG});
        spool_expect(PATH, "NEW1\nNEW2\n");
        add("NEW1"); /* and they are known */
        spool_expect(PATH, "NEW1\nNEW2\n");
}
END_TEST

START_TEST(a_record_added_again_while_it_runs_is_new) {
        add("00000000000");
        start_long_send(SEND_SITE); /* has been through this ID by now */
        add("00000000000");
        finish();
        spool_expect(PATH, "00000000000\n");
}
END_TEST

START_TEST(kept_records_come_before_those_added_while_it_runs) {
        spool_put("active/00000000005", 0700, HOUR);
        start_long_send(SEND_SITE);
        add("NEW1");
        finish();
        expect_counts((RequestCounts){.gone = N_LONG - 1, .busy = 1});
        spool_expect(PATH, "00000000005\nNEW1\n");
}
END_TEST

START_TEST(a_record_is_new_after_its_message_was_sent) {
        put_message("ABC123");
        add("ABC123");
        run(SEND_SITE);
        spool_expect(PATH, "");
        add("ABC123");
        spool_expect(PATH, "ABC123\n");
}
END_TEST

/* ------------------------------------------------------------- other processes, other files */

START_TEST(somebody_else_s_records_while_it_runs_make_all_stay) {
        _cleanup_free_ char *text = many_ids(0, N_LONG);
        char *got;

        start_long_send(SEND_SITE);
        spool_append(PATH, "FOREIGN\n");
        finish();
        expect_counts((RequestCounts){.gone = N_LONG});
        got = spool_read(PATH);
        ck_assert_uint_eq(strlen(got), strlen(text) + 8);
        ck_assert_int_eq(strncmp(got, text, strlen(text)), 0);
        ck_assert_str_eq(got + strlen(text), "FOREIGN\n");
        free(got);
}
END_TEST

/* The add sees the change first; the send must not take the log for unchanged since. */
START_TEST(somebody_else_s_change_is_not_hidden_by_our_own) {
        start_long_send(SEND_SITE);
        spool_write(PATH, "FOREIGN\n"); /* flush(8) has emptied it, and recorded one */
        add("NEW1");
        finish();
        spool_expect(PATH, "FOREIGN\nNEW1\n");
}
END_TEST

START_TEST(a_log_that_shrinks_while_it_runs_is_left_alone) {
        start_long_send(SEND_SITE);
        spool_write(PATH, "FOREIGN\n");
        finish();
        ck_assert_int_eq(result.error, 0);
        spool_expect(PATH, "FOREIGN\n");
}
END_TEST

START_TEST(a_log_that_is_replaced_while_it_runs_is_left_alone) {
        start_long_send(SEND_SITE);
        ck_assert_int_eq(unlinkat(spool_fd, PATH, 0), 0);
        spool_write(PATH, "FOREIGN\n");
        finish();
        expect_counts((RequestCounts){.gone = N_LONG});
        spool_expect(PATH, "FOREIGN\n");
}
END_TEST

START_TEST(a_log_that_is_removed_while_it_runs_stays_removed) {
        start_long_send(SEND_SITE);
        ck_assert_int_eq(unlinkat(spool_fd, PATH, 0), 0);
        finish();
        expect_counts((RequestCounts){.gone = N_LONG});
        ck_assert(!spool_exists(PATH));
}
END_TEST

START_TEST(it_waits_for_somebody_else_s_lock_at_the_start) {
        int fd;

        put_message("ABC123");
        spool_write(PATH, "ABC123\n");
        fd = spool_lock(PATH);
        start(SEND_SITE);
        for (int i = 0; i < 3; i++)
                turn();
        ck_assert(send_is_running(site));
        ck_assert(spool_exists("deferred/A/ABC123"));
        ck_assert_str_eq(spool_triggers(), "");
        closep(&fd);
        finish();
        expect_counts((RequestCounts){.moved = 1});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(it_waits_for_somebody_else_s_lock_at_the_end) {
        int fd;

        start_long_send(SEND_SITE);
        fd = spool_lock(PATH);
        while (jobs_busy(&jobs))
                turn();
        ck_assert(send_is_running(site)); /* waits */
        closep(&fd);
        finish();
        expect_counts((RequestCounts){.gone = N_LONG});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(it_does_not_wait_for_ever) {
        int fd;

        put_message("ABC123");
        spool_write(PATH, "ABC123\n");
        fd = spool_lock(PATH);
        context.lock_usec = 1;
        run(SEND_SITE);
        ck_assert_int_eq(result.error, -ETIMEDOUT);
        ck_assert(spool_exists("deferred/A/ABC123"));
        spool_expect(PATH, "ABC123\n");
        ck_assert_str_eq(spool_triggers(), "");
        closep(&fd);
}
END_TEST

START_TEST(it_does_not_wait_for_ever_at_the_end_either) {
        _cleanup_free_ char *text = many_ids(0, N_LONG);
        int fd;

        context.lock_usec = 1;
        start_long_send(SEND_SITE);
        fd = spool_lock(PATH);
        finish();
        ck_assert_int_eq(result.error, -ETIMEDOUT);
        spool_expect(PATH, text);
        ck_assert_str_eq(spool_triggers(), "FI");
        closep(&fd);
}
END_TEST

START_TEST(a_log_that_is_refused_is_an_error) {
        ck_assert_int_eq(symlinkat("../target", spool_fd, PATH), 0);
        spool_write("target", "ABC123\n");
        put_message("ABC123");
        run(SEND_SITE);
        ck_assert_int_eq(result.error, -ELOOP);
        ck_assert(spool_exists("deferred/A/ABC123"));
        spool_expect("target", "ABC123\n");
        ck_assert_str_eq(spool_triggers(), "");
}
END_TEST

START_TEST(a_log_that_cannot_be_shortened_keeps_its_records) {
        put_message("ABC123");
        spool_put("active/DEF456", 0700, HOUR);
        spool_write(PATH, "ABC123\nDEF456\nDEF456\n");
        spool_limit(21);
        run(SEND_SITE);
        spool_unlimit();
        expect_counts((RequestCounts){.moved = 1, .busy = 1, .duplicate = 1});
        spool_expect(PATH, "ABC123\nDEF456\nDEF456\n");
        run(SEND_SITE);
        spool_expect(PATH, "DEF456\n");
}
END_TEST

START_TEST(a_cancelled_send_leaves_the_log_as_it_is) {
        _cleanup_free_ char *text = many_ids(0, N_LONG);

        put_message("00000000000");
        start_long_send(SEND_SITE);
        jobs_cancel(&jobs);
        ck_assert(!send_is_running(site));
        ck_assert_uint_eq(n_done, 1);
        ck_assert_int_eq(result.error, -ECANCELED);
        spool_expect(PATH, text);
        ck_assert(spool_exists("incoming/00000000000"));
        ck_assert_str_eq(spool_triggers(), "FII"); /* what has been moved is delivered */
        n_done = 0;
        run(SEND_SITE); /* and nothing is lost by doing it again */
        expect_counts((RequestCounts){.moved = 1, .gone = N_LONG - 1});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(a_send_that_waits_for_a_lock_can_be_cancelled) {
        int fd;

        spool_write(PATH, "ABC123\n");
        fd = spool_lock(PATH);
        start(SEND_SITE);
        turn();
        jobs_cancel(&jobs);
        ck_assert_uint_eq(n_done, 1);
        ck_assert_int_eq(result.error, -ECANCELED);
        ck_assert_str_eq(spool_triggers(), "");
        closep(&fd);
}
END_TEST

/* -------------------------------------------------------------------- lines and chunks */

/* Blanks in front push each byte of a record over the boundary between two chunks in turn. */
START_TEST(a_record_across_two_chunks_is_one_record) {
        const unsigned n = CHUNK / 12 + 100;
        _cleanup_free_ char *text = many_ids(0, n);
        _cleanup_free_ char *log = NULL;

        put_message("00000001555"); /* 5461: the one at the boundary, */
        put_message("00000001554"); /* or this one */
        ck_assert_int_gt(asprintf(&log, "%*s\n%s", _i, "", text), 0);
        spool_write(PATH, log);
        run(SEND_REFRESH);
        expect_counts((RequestCounts){.moved = 2, .gone = n - 2, .invalid = _i > 0});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(a_record_that_ends_with_a_chunk_is_one_record) {
        for (int extra = -1; extra <= 1; extra++) {
                char *log = malloc(CHUNK + 32), *end = log + CHUNK - 7 + extra;

                put_message("ABC123");
                put_message("DEF456");
                memset(log, '-', CHUNK);
                end[-1] = '\n';
                (void) strcpy(end, "ABC123\nDEF456\n");
                spool_write(PATH, log);
                free(log);
                run(SEND_REFRESH);
                expect_counts((RequestCounts){.moved = 2, .invalid = 1});
        }
}
END_TEST

/* The longest ID and one that is too long, wherever the boundary falls in them. */
START_TEST(the_longest_id_is_read_across_two_chunks) {
        static const int before[] = {256, 255, 254, 200, 128, 2, 1, 0};
        char id[QUEUEID_MAX + 2];

        memset(id, 'A', QUEUEID_MAX + 1);
        id[QUEUEID_MAX + 1] = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(before); i++)
                for (int longer = 0; longer < 2; longer++) {
                        char *log = malloc(CHUNK + 1024), *at = log + CHUNK - before[i];

                        id[QUEUEID_MAX] = longer ? 'A' : '\0';
                        memset(log, '-', CHUNK);
                        at[-1] = '\n';
                        (void) sprintf(at, "%s\nABC123\n", id);
                        spool_write(PATH, log);
                        free(log);
                        run(SEND_REFRESH);
                        expect_counts((RequestCounts){.gone = 2 - longer, .invalid = 1 + longer});
                }
}
END_TEST

#define HUGE_LINE (10 * 1024 * 1024)

START_TEST(a_line_of_ten_megabytes_is_one_bad_line) {
        char *log = malloc(HUGE_LINE + 32);

        ck_assert_ptr_nonnull(log);
        put_message("ABC123");
        put_message("DEF456");
        memset(log, 'A', HUGE_LINE); /* each byte of it a valid one */
        memcpy(log, "ABC123\n", 7);
        (void) strcpy(log + HUGE_LINE, "\nDEF456\n");
        spool_write(PATH, log);
        free(log);
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 2, .invalid = 1});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(ten_megabytes_without_any_newline_are_one_bad_line) {
        char *log = malloc(HUGE_LINE + 1);

        ck_assert_ptr_nonnull(log);
        memset(log, 'A', HUGE_LINE);
        log[HUGE_LINE] = '\0';
        spool_write(PATH, log);
        free(log);
        run(SEND_SITE);
        expect_counts((RequestCounts){.invalid = 1});
        spool_expect(PATH, "");
}
END_TEST

START_TEST(a_megabyte_of_nuls_is_one_bad_line) {
        char *log = calloc(1, 1024 * 1024 + 8);

        ck_assert_ptr_nonnull(log);
        put_message("ABC123");
        memcpy(log + 1024 * 1024, "\nABC123\n", 8);
        spool_write_bytes(PATH, log, 1024 * 1024 + 8);
        free(log);
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1, .invalid = 1});
        spool_expect(PATH, "");
}
END_TEST

/* --------------------------------------------------------------------------- compaction */

START_TEST(compaction_leaves_each_id_once_and_moves_nothing) {
        put_message("ABC123");
        spool_write(PATH, "ABC123\nDEF456\nABC123\nABC123\nDEF456\n");
        spool_set_times(PATH, -DAY, -DAY);
        run(SEND_COMPACT);
        ck_assert_int_eq(result.error, 0);
        ck_assert_uint_eq(result.counts.found, 5);
        ck_assert_uint_eq(result.counts.duplicate, 3);
        ck_assert_uint_eq(result.counts.moved, 0);
        spool_expect(PATH, "ABC123\nDEF456\n");
        ck_assert(spool_exists("deferred/A/ABC123"));
        ck_assert_str_eq(spool_triggers(), "");
        ck_assert_int_le(spool_atime(PATH), -DAY + 60); /* it was not flushed */
}
END_TEST

START_TEST(compaction_of_few_duplicates_is_not_worth_it) {
        spool_write(PATH, "ABC123\nDEF456\nABC123\nDEF456\n");
        spool_set_times(PATH, -DAY, -DAY);
        run(SEND_COMPACT);
        ck_assert_int_eq(result.error, 0);
        spool_expect(PATH, "ABC123\nDEF456\nABC123\nDEF456\n");
        ck_assert_int_le(spool_mtime(PATH), -DAY + 60);
}
END_TEST

START_TEST(compaction_drops_what_is_no_record) {
        spool_write(PATH, "ABC123\n!!\n\n!!\n");
        run(SEND_COMPACT);
        spool_expect(PATH, "ABC123\n");
        spool_write(PATH, "!!\n");
        run(SEND_COMPACT);
        spool_expect(PATH, "");
}
END_TEST

START_TEST(compaction_keeps_a_last_record_without_newline) {
        spool_write(PATH, "ABC123\nABC123\nABC123\nABC123\nDEF456");
        run(SEND_COMPACT);
        ck_assert_uint_eq(result.counts.duplicate, 3);
        spool_expect(PATH, "ABC123\nDEF456\n");
        add("GHI789");
        spool_expect(PATH, "ABC123\nDEF456\nGHI789\n");
}
END_TEST

START_TEST(compaction_of_a_large_log_keeps_the_order) {
        _cleanup_free_ char *text = many_ids(0, N_LONG), *log = NULL;

        ck_assert_int_gt(asprintf(&log, "%s%s%s", text, text, text), 0);
        spool_write(PATH, log);
        run(SEND_COMPACT);
        ck_assert_uint_eq(result.counts.duplicate, 2 * N_LONG);
        spool_expect(PATH, text);
}
END_TEST

START_TEST(compaction_keeps_what_is_added_meanwhile_and_what_is_known) {
        _cleanup_free_ char *text = many_ids(0, N_LONG), *log = NULL, *expected = NULL;

        ck_assert_int_gt(asprintf(&log, "%s%s%s", text, text, text), 0);
        ck_assert_int_gt(asprintf(&expected, "NEW1\n%s", text), 0);
        spool_write(PATH, log);
        start(SEND_COMPACT);
        turn();
        ck_assert_msg(send_is_running(site), "the log is too short for this test");
        add("NEW1");
        finish();
        spool_expect(PATH, expected);
        add("NEW1");
        spool_expect(PATH, expected);
}
END_TEST

START_TEST(compaction_leaves_a_log_that_somebody_else_writes_to) {
        _cleanup_free_ char *text = many_ids(0, N_LONG), *log = NULL, *expected = NULL;

        ck_assert_int_gt(asprintf(&log, "%s%s%s", text, text, text), 0);
        ck_assert_int_gt(asprintf(&expected, "%sFOREIGN\n", log), 0);
        spool_write(PATH, log);
        start(SEND_COMPACT);
        turn();
        ck_assert_msg(send_is_running(site), "the log is too short for this test");
        spool_append(PATH, "FOREIGN\n");
        finish();
        spool_expect(PATH, expected);
}
END_TEST

/* --------------------------------------------------------------------------- large logs */

#define LINE   100u /* bytes, so that few records are much */
#define ID     "%099X"
#define N_STAY 1500u /* whose lines are more than is kept in memory, twice */
#define N_MOVE 5000u /* whose lines are moved in several steps */

static char *large_log(unsigned first, unsigned n) {
        char *text = malloc(LINE * (size_t) n + 1);

        ck_assert_ptr_nonnull(text);
        for (unsigned i = 0; i < n; i++)
                (void) sprintf(text + LINE * (size_t) i, ID "\n", first + i);
        return text;
}

/* Its message is active; a link is as good as a file, and faster. */
static void put_busy(unsigned first, unsigned n, unsigned step) {
        for (unsigned i = first; i < first + n; i += step) {
                char path[LINE + 8];

                (void) snprintf(path, sizeof path, "active/" ID, i);
                ck_assert_int_eq(symlinkat("x", spool_fd, path), 0);
        }
}

/* How often each of the IDs 0 .. @n - 1 has a line of its own, at most 255. */
static unsigned char *count_ids(unsigned n) {
        _cleanup_free_ char *text = spool_read(PATH);
        unsigned char *counts = calloc(n, 1);

        for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
                unsigned long i = end - line == LINE - 1 ? strtoul(line, NULL, 16) : n;

                if (i < n && counts[i] < 255)
                        counts[i]++;
        }
        return counts;
}

static unsigned count_lines(void) {
        _cleanup_free_ char *text = spool_read(PATH);
        unsigned n = 0;

        for (const char *p = text; (p = strchr(p, '\n')); p++)
                n++;
        return n;
}

/* Is this the second record now? Then the front of the log has been written over. */
static bool front_has(unsigned i) {
        _cleanup_close_ int fd = openat(spool_fd, PATH, O_RDONLY | O_CLOEXEC);
        char id[LINE], buf[LINE];

        (void) snprintf(id, sizeof id, ID, i);
        return pread(fd, buf, LINE, LINE) == LINE && memcmp(buf, id, LINE - 1) == 0;
}

/* After any of its steps, the last included. */
static void expect_busy_recorded(unsigned n, unsigned step, bool once) {
        _cleanup_free_ unsigned char *counts = count_ids(n);

        for (unsigned i = 0; i < n; i++)
                if (i % step == 0)
                        ck_assert_msg(counts[i] == 1 || (counts[i] > 1 && !once), "%u: %u times", i,
                                      counts[i]);
                else
                        ck_assert_msg(counts[i] == 0 || !once, "%u is still there", i);
}

START_TEST(more_than_memory_is_for_stays_recorded_at_each_step) {
        _cleanup_free_ char *text = large_log(0, 2 * N_STAY);
        unsigned n_turns = 0;

        put_busy(0, 2 * N_STAY, 2);
        spool_write(PATH, text);
        start(SEND_SITE);
        while (send_is_running(site)) {
                turn();
                if (++n_turns % 64 == 0 || front_has(2))
                        expect_busy_recorded(2 * N_STAY, 2, false);
        }
        expect_counts((RequestCounts){.busy = N_STAY, .gone = N_STAY});
        expect_busy_recorded(2 * N_STAY, 2, true);
        ck_assert_uint_eq(count_lines(), N_STAY);
        ck_assert_uint_gt(n_turns, 10);
}
END_TEST

START_TEST(records_added_at_each_step_stay_too) {
        _cleanup_free_ char *text = large_log(0, N_STAY), *log = NULL;
        unsigned n_added = 0;

        put_busy(0, N_STAY, 1);
        ck_assert_int_gt(asprintf(&log, "%s%.*s", text, (int) (LINE * N_STAY) - 1, text), 0);
        spool_write(PATH, log); /* the last line has no end */
        start(SEND_SITE);
        while (send_is_running(site)) {
                char id[LINE];

                turn();
                (void) snprintf(id, sizeof id, ID, N_STAY + n_added);
                if (send_is_running(site) && ++n_added)
                        add(id);
        }
        expect_counts((RequestCounts){.busy = N_STAY, .duplicate = N_STAY});
        expect_busy_recorded(N_STAY + n_added, 1, true);
}
END_TEST

START_TEST(what_moves_to_the_front_may_be_longer_than_what_goes) {
        _cleanup_free_ char *text = large_log(1, N_MOVE), *log = NULL;

        put_message("ABC123");
        limit = 1;
        ck_assert_int_gt(asprintf(&log, "ABC123\n%s", text), 0);
        spool_write(PATH, log);
        run(SEND_SITE);
        expect_counts((RequestCounts){.moved = 1, .left = N_MOVE});
        spool_expect(PATH, text);
}
END_TEST

/* Cancelled after any number of steps, all that is to stay is there, and another send ends well. */
START_TEST(a_large_send_can_be_cancelled_at_any_step) {
        _cleanup_free_ char *text = large_log(0, N_STAY);
        unsigned n_turns = 1, n;

        put_busy(0, N_STAY, 3);
        do {
                spool_write(PATH, text);
                start(SEND_SITE);
                for (n = 0; n < n_turns && send_is_running(site); n++)
                        turn();
                if (send_is_running(site))
                        jobs_cancel(&jobs);
                expect_busy_recorded(N_STAY, 3, false);
                n_done = 0;
                n_turns += n_turns / 3 + 1;
        } while (result.error == -ECANCELED);
        run(SEND_SITE);
        expect_busy_recorded(N_STAY, 3, true);
}
END_TEST

static void turn_until_size(off_t least) {
        while (spool_stat(PATH).st_size < least) {
                turn();
                ck_assert(send_is_running(site));
        }
}

START_TEST(somebody_else_s_change_between_two_steps_makes_all_stay) {
        _cleanup_free_ char *text = large_log(0, N_STAY), *got = NULL;

        put_busy(0, N_STAY, 1);
        spool_write(PATH, text);
        start(SEND_SITE);
        turn_until_size(LINE * N_STAY + 1); /* some of it stands at the end as well now */
        spool_append(PATH, "FOREIGN\n");
        finish();
        expect_counts((RequestCounts){.busy = N_STAY});
        expect_busy_recorded(N_STAY, 1, false);
        got = spool_read(PATH);
        ck_assert_ptr_nonnull(strstr(got, "\nFOREIGN\n"));
}
END_TEST

START_TEST(a_log_emptied_between_two_steps_is_left_alone) {
        _cleanup_free_ char *text = large_log(0, N_MOVE);

        put_busy(0, N_MOVE, 2);
        spool_write(PATH, text);
        start(SEND_SITE);
        if (_i == 0)
                turn_until_size(LINE * N_MOVE + 1);
        else /* what stays is being moved to the front */
                while (!front_has(2)) {
                        turn();
                        ck_assert(send_is_running(site));
                }
        spool_write(PATH, "FOREIGN\n");
        add("NEW1");
        finish();
        spool_expect(PATH, "FOREIGN\nNEW1\n");
}
END_TEST

START_TEST(a_lock_between_two_steps_is_waited_for) {
        _cleanup_free_ char *text = large_log(0, N_STAY);
        int fd;

        put_busy(0, N_STAY, 1);
        spool_write(PATH, text);
        if (_i > 0)
                context.lock_usec = 1; /* and then the lines behind stay where they are */
        start(SEND_SITE);
        turn_until_size(LINE * N_STAY + 1);
        fd = spool_lock(PATH);
        while (_i > 0 ? send_is_running(site) : jobs_busy(&jobs))
                turn();
        closep(&fd);
        if (_i == 0) {
                finish();
                expect_counts((RequestCounts){.busy = N_STAY});
        } else /* as at the end of any send */
                ck_assert_int_eq(result.error, -ETIMEDOUT);
        ck_assert_uint_eq(result.counts.busy, N_STAY);
        expect_busy_recorded(N_STAY, 1, _i == 0);
}
END_TEST

/* There is room for some of what stays: what has been gone through until then is removed. */
START_TEST(a_full_disk_does_not_fill_up_with_copies) {
        _cleanup_free_ char *text = large_log(0, 2 * N_STAY);
        off_t size = 2 * LINE * (off_t) N_STAY;

        put_busy(0, 2 * N_STAY, 2);
        put_message("ABC123");
        spool_write(PATH, text);
        spool_append(PATH, "ABC123\n");
        spool_limit(size + (_i > 0 ? 70000 : 7));
        run(SEND_SITE);
        spool_unlimit();
        expect_counts((RequestCounts){.moved = 1, .busy = N_STAY, .gone = N_STAY});
        expect_busy_recorded(2 * N_STAY, 2, false);
        ck_assert_int_le(spool_stat(PATH).st_size, size + 7 - (_i > 0 ? 60000 : 0));
        run(SEND_SITE);
        expect_busy_recorded(2 * N_STAY, 2, true);
}
END_TEST

/* Only SEND_IDS_MIN IDs are remembered if others have taken all memory that there is for it. */
START_TEST(ids_that_are_not_remembered_are_looked_at_again) {
        const unsigned n = SEND_IDS_MIN + 1000;
        _cleanup_free_ char *text = many_ids(0, n), *log = NULL;

        context.n_ids = SEND_IDS_MAX;
        for (unsigned i = SEND_IDS_MIN - 1; i < SEND_IDS_MIN + 11; i++) {
                char id[12];

                (void) snprintf(id, sizeof id, "%011X", i);
                put_message(id);
        }
        for (unsigned i = n - 10; i < n; i++) {
                char path[32];

                (void) snprintf(path, sizeof path, "hold/%011X", i);
                spool_put(path, 0700, HOUR);
        }
        ck_assert_int_gt(asprintf(&log, "%s%s", text, text), 0);
        spool_write(PATH, log);
        run(SEND_SITE);
        /* Moved ones are found again in incoming, and count once. */
        expect_counts((RequestCounts){.moved = 12,
                                      .busy = 20,
                                      .gone = n - 22 + (1000 - 21),
                                      .duplicate = SEND_IDS_MIN + 11});
        ck_assert_uint_eq(count_lines(), 20);
        ck_assert_uint_eq(context.n_ids, SEND_IDS_MAX);
        context.n_ids = 0;
        run(SEND_SITE);
        expect_counts((RequestCounts){.busy = 10, .duplicate = 10});
        ck_assert_uint_eq(context.n_ids, 0);
}
END_TEST

START_TEST(compaction_of_more_than_is_remembered_drops_some) {
        const unsigned n = SEND_IDS_MIN + 1000;
        _cleanup_free_ char *text = many_ids(0, n), *log = NULL, *got = NULL;

        context.n_ids = SEND_IDS_MAX;
        ck_assert_int_gt(asprintf(&log, "%s%s%s%s", text, text, text, text), 0);
        spool_write(PATH, log);
        run(SEND_COMPACT);
        ck_assert_int_eq(result.error, 0);
        ck_assert(result.shortened);
        got = spool_read(PATH);
        ck_assert_int_eq(strncmp(got, text, strlen(text)), 0);
        ck_assert_uint_eq(count_lines(), SEND_IDS_MIN + 4 * 1000);
}
END_TEST

static TCase *moving(void) {
        TCase *tc = tcase_create("moving");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, without_a_log_nothing_happens);
        tcase_add_test(tc, an_empty_log_is_touched_and_qmgr_told);
        tcase_add_test(tc, a_recorded_message_is_moved_and_the_log_emptied);
        tcase_add_test(tc, a_message_that_is_gone_loses_its_record);
        tcase_add_test(tc, repeated_records_move_a_message_once);
        tcase_add_loop_test(tc, what_is_no_record_is_dropped_and_the_rest_is_moved, 0,
                            ARRAY_SIZE(odd_logs));
        tcase_add_test(tc, a_long_queue_id_is_found_by_its_hash);
        tcase_add_test(tc, a_refresh_leaves_the_triggers_to_its_caller);
        tcase_add_test(tc, delivery_starts_while_the_rest_is_being_moved);
        tcase_add_test(tc, a_portion_leaves_the_rest_recorded);
        tcase_add_test(tc, a_portion_is_of_moved_messages);
        tcase_add_loop_test(tc, a_limit_that_is_just_reached_or_not_is_as_none, 0, 2);
        tcase_add_loop_test(tc, portions_of_any_size_move_each_message_once, 0, 9);
        tcase_add_test(tc, records_added_during_a_portion_are_kept_behind_the_rest);
        return tc;
}

static TCase *keeping(void) {
        TCase *tc = tcase_create("keeping");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, records_of_active_and_held_messages_are_kept);
        tcase_add_test(tc, records_of_messages_that_could_not_be_moved_are_kept);
        tcase_add_test(tc, all_records_are_kept_where_nothing_can_be_moved);
        tcase_add_test(tc, a_kept_record_without_newline_does_not_grow_into_the_next);
        tcase_add_test(tc, many_kept_records_are_kept_in_their_order);
        tcase_add_test(tc, records_added_while_it_runs_are_kept);
        tcase_add_test(tc, a_record_added_again_while_it_runs_is_new);
        tcase_add_test(tc, kept_records_come_before_those_added_while_it_runs);
        tcase_add_test(tc, a_record_is_new_after_its_message_was_sent);
        return tc;
}

static TCase *others(void) {
        TCase *tc = tcase_create("others");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, somebody_else_s_records_while_it_runs_make_all_stay);
        tcase_add_test(tc, somebody_else_s_change_is_not_hidden_by_our_own);
        tcase_add_test(tc, a_log_that_shrinks_while_it_runs_is_left_alone);
        tcase_add_test(tc, a_log_that_is_replaced_while_it_runs_is_left_alone);
        tcase_add_test(tc, a_log_that_is_removed_while_it_runs_stays_removed);
        tcase_add_test(tc, it_waits_for_somebody_else_s_lock_at_the_start);
        tcase_add_test(tc, it_waits_for_somebody_else_s_lock_at_the_end);
        tcase_add_test(tc, it_does_not_wait_for_ever);
        tcase_add_test(tc, it_does_not_wait_for_ever_at_the_end_either);
        tcase_add_test(tc, a_log_that_is_refused_is_an_error);
        tcase_add_test(tc, a_log_that_cannot_be_shortened_keeps_its_records);
        tcase_add_test(tc, a_cancelled_send_leaves_the_log_as_it_is);
        tcase_add_test(tc, a_send_that_waits_for_a_lock_can_be_cancelled);
        return tc;
}

static TCase *lines(void) {
        TCase *tc = tcase_create("lines");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_loop_test(tc, a_record_across_two_chunks_is_one_record, 0, 13);
        tcase_add_test(tc, a_record_that_ends_with_a_chunk_is_one_record);
        tcase_add_test(tc, the_longest_id_is_read_across_two_chunks);
        tcase_add_test(tc, a_line_of_ten_megabytes_is_one_bad_line);
        tcase_add_test(tc, ten_megabytes_without_any_newline_are_one_bad_line);
        tcase_add_test(tc, a_megabyte_of_nuls_is_one_bad_line);
        return tc;
}

/* ------------------------------------------------------------------- after a change of layout */

START_TEST(messages_are_moved_from_any_layout) {
        spool_put("deferred/A1", 0700, HOUR);
        spool_put("deferred/A/A2", 0700, HOUR);
        spool_put("deferred/A/3/A3", 0700, HOUR);
        spool_put("active/A/A4", 0700, 0);
        spool_write(PATH, "A1\nA2\nA3\nA4\nA5\n");
        run(SEND_SITE);
        expect_counts((RequestCounts){.found = 5, .moved = 3, .busy = 1, .gone = 1});
        spool_expect(PATH, "A4\n");
        ck_assert(spool_exists("incoming/A1") && spool_exists("incoming/A2") &&
                  spool_exists("incoming/A3"));
}
END_TEST

START_TEST(nothing_is_gone_while_a_queue_is_not_there) {
        spool_write(PATH, "A1\nA2\n");
        ck_assert_int_eq(unlinkat(spool_fd, "hold", AT_REMOVEDIR), 0);
        run(SEND_SITE);
        expect_counts((RequestCounts){.found = 2, .failed = 2});
        spool_expect(PATH, "A1\nA2\n");
}
END_TEST

START_TEST(a_send_sees_the_records_of_all_places) {
        put_message("A1");
        put_message("B1");
        put_message("C1");
        if (_i > 0)
                spool_write(PATH, "A1\n");
        spool_write("flush/e/" NAME, "B1\n");
        if (_i > 1)
                spool_write("flush/e/x/" NAME, "C1\nB1\n");
        run(SEND_SITE);
        ck_assert_uint_eq(result.counts.moved, (unsigned) _i + 1);
        spool_expect(PATH, "");
        ck_assert(!spool_exists("flush/e/" NAME) && !spool_exists("flush/e/x/" NAME));
}
END_TEST

START_TEST(a_send_waits_for_the_lock_of_each_place) {
        int fd;

        put_message("B1");
        spool_write(PATH, "A1\n");
        spool_write("flush/e/" NAME, "B1\n");
        fd = spool_lock("flush/e/" NAME);
        start(SEND_SITE);
        for (int i = 0; i < 3; i++)
                turn();
        ck_assert(send_is_running(site));
        closep(&fd);
        finish();
        ck_assert_uint_eq(result.counts.moved, 1);
        spool_expect(PATH, "");
}
END_TEST

START_TEST(what_is_no_log_elsewhere_does_not_stop_a_send) {
        put_message("A1");
        spool_write(PATH, "A1\n");
        spool_write("other", "B1\n");
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/" NAME), 0);
        ck_assert_int_eq(symlinkat("../../other", spool_fd, "flush/e/" NAME), 0);
        run(SEND_SITE);
        expect_counts((RequestCounts){.found = 1, .moved = 1});
        spool_expect(PATH, "");
        spool_expect("other", "B1\n");
}
END_TEST

START_TEST(adds_go_to_where_the_log_is) {
        spool_write("flush/e/x/" NAME, "A1\n");
        add("A2");
        ck_assert(!spool_exists(PATH));
        spool_expect("flush/e/x/" NAME, "A1\nA2\n");
}
END_TEST

/* As postsuper(1) may do while messages are moved. */
START_TEST(a_log_that_is_moved_during_a_send_keeps_its_records) {
        start_long_send(SEND_SITE);
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/" NAME), 0);
        ck_assert_int_eq(renameat(spool_fd, PATH, spool_fd, "flush/e/" NAME), 0);
        add("A1");
        finish();
        ck_assert(spool_stat("flush/e/" NAME).st_size > 0);
        run(SEND_SITE);
        spool_expect(PATH, "");
        ck_assert(!spool_exists("flush/e/" NAME));
}
END_TEST

/* ----------------------------------------------------------------------------- callers */

static Call *request_send(Call *call, unsigned long limit_of_call) {
        *call = (Call){.request = {.kind = REQUEST_SEND_SITE, .limit = limit_of_call},
                       .site = site};
        ck_assert_int_eq(send_request(&context, site, call), 0);
        return call;
}

static void finish_all(void) {
        for (unsigned i = 0; send_is_running(site) && i < 1000000; i++)
                turn();
        ck_assert(!send_is_running(site));
}

/* A send for a call, on a log that takes more than one turn; it has had its first. */
static void request_long_send(Call *call) {
        _cleanup_free_ char *text = many_ids(0, N_LONG);

        spool_write(PATH, text);
        request_send(call, 0);
        turn();
        ck_assert_msg(send_is_running(site), "the log is too short for this test");
}

START_TEST(a_call_is_answered_with_what_its_send_did) {
        Call call;

        put_message("ABC123");
        spool_write(PATH, "ABC123\n");
        request_send(&call, 0);
        ck_assert_uint_eq(n_answered, 0); /* never from within */
        finish_all();
        ck_assert_uint_eq(n_done, 1);
        ck_assert(!result.is_awaited);
        ck_assert_uint_eq(n_answered, 1);
        ck_assert_ptr_eq(answered[0], &call);
        ck_assert_int_eq(answers[0].error, 0);
        ck_assert_uint_eq(answers[0].counts.moved, 1);
}
END_TEST

/* 0: for the largest of their limits; 1: one of them has none */
START_TEST(calls_that_come_while_a_send_runs_share_the_next) {
        static const char *const ids[] = {"AAA", "BBB", "CCC", "DDD", "EEE", "FFF"};
        unsigned long n_moved = _i == 0 ? 5 : 6;
        Call first, calls[3];

        request_long_send(&first);
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
                put_message(ids[i]);
                add(ids[i]);
        }
        request_send(&calls[0], 2);
        request_send(&calls[1], 5);
        request_send(&calls[2], _i == 0 ? 3 : 0);
        ck_assert_uint_eq(n_answered, 0);
        finish_all();
        ck_assert_uint_eq(n_done, 2);
        ck_assert_uint_eq(n_answered, 4);
        ck_assert_ptr_eq(answered[0], &first);
        ck_assert_uint_eq(answers[0].counts.moved, 0);
        ck_assert_uint_eq(answers[0].counts.gone, N_LONG);
        for (unsigned i = 1; i < 4; i++) {
                ck_assert_uint_eq(answers[i].counts.moved, n_moved);
                ck_assert_uint_eq(answers[i].counts.left, 6 - n_moved);
        }
        ck_assert(answered[1] != answered[2] && answered[2] != answered[3] &&
                  answered[1] != answered[3]);
}
END_TEST

START_TEST(a_call_that_comes_during_a_refresh_has_its_own_send) {
        Call call;

        start_long_send(SEND_REFRESH);
        request_send(&call, 0);
        ck_assert_str_eq(spool_triggers(), "");
        finish_all(); /* both, perhaps within one slice */
        ck_assert_uint_eq(n_done, 2);
        ck_assert_int_eq(first_result.kind, SEND_REFRESH);
        /* The messages that were moved must not wait for the rest. */
        ck_assert(first_result.is_awaited);
        ck_assert_uint_eq(n_answered, 1);
        ck_assert_int_eq(answers[0].kind, SEND_SITE);
        ck_assert_str_eq(spool_triggers(), "F");
}
END_TEST

START_TEST(a_refresh_that_nobody_waits_for_is_not_awaited) {
        spool_write(PATH, "ABC123\n");
        run(SEND_REFRESH);
        ck_assert(!result.is_awaited);
}
END_TEST

START_TEST(a_cancelled_send_fails_all_its_callers_and_starts_no_other) {
        Call first, second;

        request_long_send(&first);
        request_send(&second, 0);
        jobs_cancel(&jobs);
        ck_assert(!send_is_running(site));
        ck_assert(!jobs_busy(&jobs));
        ck_assert_uint_eq(n_done, 2); /* the second of one that never began */
        ck_assert_uint_eq(n_answered, 2);
        ck_assert_ptr_eq(answered[0], &first);
        ck_assert_int_eq(answers[0].error, -ECANCELED);
        ck_assert_ptr_eq(answered[1], &second);
        ck_assert_int_eq(answers[1].error, -ECANCELED);
        ck_assert_int_eq(spool_stat(PATH).st_size, 12 * N_LONG);
}
END_TEST

static TCase *callers(void) {
        TCase *tc = tcase_create("callers");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, a_call_is_answered_with_what_its_send_did);
        tcase_add_loop_test(tc, calls_that_come_while_a_send_runs_share_the_next, 0, 2);
        tcase_add_test(tc, a_call_that_comes_during_a_refresh_has_its_own_send);
        tcase_add_test(tc, a_refresh_that_nobody_waits_for_is_not_awaited);
        tcase_add_test(tc, a_cancelled_send_fails_all_its_callers_and_starts_no_other);
        return tc;
}

static TCase *layouts(void) {
        TCase *tc = tcase_create("layouts");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, messages_are_moved_from_any_layout);
        tcase_add_test(tc, nothing_is_gone_while_a_queue_is_not_there);
        tcase_add_loop_test(tc, a_send_sees_the_records_of_all_places, 0, 3);
        tcase_add_test(tc, a_send_waits_for_the_lock_of_each_place);
        tcase_add_test(tc, what_is_no_log_elsewhere_does_not_stop_a_send);
        tcase_add_test(tc, adds_go_to_where_the_log_is);
        tcase_add_test(tc, a_log_that_is_moved_during_a_send_keeps_its_records);
        return tc;
}

static TCase *compaction(void) {
        TCase *tc = tcase_create("compaction");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_add_test(tc, compaction_leaves_each_id_once_and_moves_nothing);
        tcase_add_test(tc, compaction_of_few_duplicates_is_not_worth_it);
        tcase_add_test(tc, compaction_drops_what_is_no_record);
        tcase_add_test(tc, compaction_keeps_a_last_record_without_newline);
        tcase_add_test(tc, compaction_of_a_large_log_keeps_the_order);
        tcase_add_test(tc, compaction_keeps_what_is_added_meanwhile_and_what_is_known);
        tcase_add_test(tc, compaction_leaves_a_log_that_somebody_else_writes_to);
        return tc;
}

static TCase *large_logs(void) {
        TCase *tc = tcase_create("large logs");

        tcase_add_checked_fixture(tc, setup, sends_teardown);
        tcase_set_timeout(tc, 60);
        tcase_add_test(tc, more_than_memory_is_for_stays_recorded_at_each_step);
        tcase_add_test(tc, records_added_at_each_step_stay_too);
        tcase_add_test(tc, what_moves_to_the_front_may_be_longer_than_what_goes);
        tcase_add_test(tc, a_large_send_can_be_cancelled_at_any_step);
        tcase_add_test(tc, somebody_else_s_change_between_two_steps_makes_all_stay);
        tcase_add_loop_test(tc, a_log_emptied_between_two_steps_is_left_alone, 0, 2);
        tcase_add_loop_test(tc, a_lock_between_two_steps_is_waited_for, 0, 2);
        tcase_add_loop_test(tc, a_full_disk_does_not_fill_up_with_copies, 0, 2);
        tcase_add_test(tc, ids_that_are_not_remembered_are_looked_at_again);
        tcase_add_test(tc, compaction_of_more_than_is_remembered_drops_some);
        return tc;
}

int main(void) {
        TCase *tcs[] = {moving(),     keeping(), others(),     lines(),
                        compaction(), layouts(), large_logs(), callers()};

        return run_cases("send", tcs, ARRAY_SIZE(tcs));
}
