/* SPDX-License-Identifier: MIT */

#include "daemon/sites.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define NAME      "example_com"
#define PATH      "flush/" NAME

#define CALLS_MAX 16

static Sites sites;
static Call calls[CALLS_MAX];
static size_t n_calls;
static unsigned n_done;
static int last_error;

static void setup(void) {
        spool_setup();
        sites_init(&sites, &spool_queue, false, 60 * USEC_PER_SEC);
        n_calls = 0;
        n_done = 0;
        last_error = 1;
}

static void teardown(void) {
        sites_done(&sites);
        spool_teardown();
}

static void put(const char *log, const char *id) {
        Site *site = sites_get(&sites, log);

        ck_assert_ptr_nonnull(site);
        ck_assert_uint_lt(n_calls, CALLS_MAX);
        calls[n_calls] = (Call){.request = {.kind = REQUEST_ADD, .queue_id = id}, .site = site};
        sites_put_add(&sites, site, &calls[n_calls++]);
}

static void on_done(Call *call, int error, void *userdata) {
        ck_assert_ptr_eq(userdata, &sites);
        ck_assert_ptr_nonnull(call->request.queue_id);
        last_error = error;
        n_done++;
}

static bool write_all(void) {
        return sites_write(&sites, on_done, &sites);
}

/* One add for itself. Return: its error. */
static int add(const char *log, const char *id) {
        Site *site = sites_get(&sites, log);
        Call call = {.request = {.kind = REQUEST_ADD, .queue_id = id}, .site = site};
        unsigned before = n_done;

        sites_put_add(&sites, site, &call);
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, before + 1);
        return last_error;
}

START_TEST(the_adds_of_a_turn_are_written_in_their_order) {
        put(NAME, "AAA");
        put(NAME, "BBB");
        put("example_net", "CCC");
        put(NAME, "DDD");
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, 4);
        ck_assert_int_eq(last_error, 0);
        spool_expect(PATH, "AAA\nBBB\nDDD\n");
        spool_expect("flush/example_net", "CCC\n");
        ck_assert(!write_all()); /* and only once */
        ck_assert_uint_eq(n_done, 4);
        spool_expect(PATH, "AAA\nBBB\nDDD\n");
}
END_TEST

START_TEST(with_sync_the_same_is_written) {
        sites.sync = true;
        put(NAME, "AAA");
        put(NAME, "BBB");
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, 2);
        spool_expect(PATH, "AAA\nBBB\n");
}
END_TEST

START_TEST(duplicates_in_one_turn_are_one_record) {
        put(NAME, "AAA");
        put(NAME, "AAA");
        put(NAME, "BBB");
        put(NAME, "AAA");
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, 4); /* but each is answered */
        ck_assert_int_eq(last_error, 0);
        spool_expect(PATH, "AAA\nBBB\n");
}
END_TEST

START_TEST(a_record_that_is_there_is_not_written_again) {
        struct stat before, after;

        ck_assert_int_eq(add(NAME, "AAA"), 0);
        before = spool_stat(PATH);
        spool_tick();
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        after = spool_stat(PATH);
        spool_expect(PATH, "AAA\n");
        ck_assert_int_eq(after.st_ctim.tv_sec, before.st_ctim.tv_sec);
        ck_assert_int_eq(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
        ck_assert_int_eq(add(NAME, "BBB"), 0);
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\nBBB\n");
}
END_TEST

START_TEST(the_same_id_is_a_record_for_each_site) {
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        ck_assert_int_eq(add("example_net", "AAA"), 0);
        spool_expect(PATH, "AAA\n");
        spool_expect("flush/example_net", "AAA\n");
}
END_TEST

START_TEST(what_an_earlier_process_left_is_not_known) {
        spool_write(PATH, "AAA\n");
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\nAAA\n");
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\nAAA\n");
}
END_TEST

START_TEST(somebody_else_s_change_makes_all_unknown) {
        Site *site = sites_get(&sites, NAME);
        unsigned changes;

        ck_assert_int_eq(add(NAME, "AAA"), 0);
        changes = site->changes;
        ck_assert_int_eq(add(NAME, "BBB"), 0);
        ck_assert_uint_eq(site->changes, changes); /* our own do not count */
        spool_write(PATH, "");                     /* as flush(8) does in the end */
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        ck_assert_uint_eq(site->changes, changes + 1);
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\n");
        ck_assert_int_eq(add(NAME, "BBB"), 0);
        spool_expect(PATH, "AAA\nBBB\n");
}
END_TEST

START_TEST(other_records_of_the_same_length_are_noticed) {
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_tick();
        spool_write(PATH, "BBB\n");
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "BBB\nAAA\n");
}
END_TEST

START_TEST(a_removed_log_is_made_anew) {
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        ck_assert_int_eq(unlinkat(spool_fd, PATH, 0), 0);
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\n");
}
END_TEST

START_TEST(a_forgotten_record_is_new) {
        Site *site = sites_get(&sites, NAME);

        ck_assert_int_eq(add(NAME, "AAA"), 0);
        ck_assert_int_eq(add("example_net", "AAA"), 0);
        sites_forget_known(&sites, site);
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\nAAA\n");
        ck_assert_int_eq(add("example_net", "AAA"), 0); /* another site's is not forgotten */
        spool_expect("flush/example_net", "AAA\n");
}
END_TEST

START_TEST(adds_wait_for_somebody_else_s_lock_and_hold_up_nobody) { /* 60, 109 */
        int fd;

        spool_write(PATH, "");
        fd = spool_lock(PATH);
        put(NAME, "AAA");
        put("example_net", "BBB");
        put(NAME, "CCC");
        ck_assert(write_all());
        ck_assert_uint_eq(n_done, 1);
        spool_expect("flush/example_net", "BBB\n");
        spool_expect(PATH, "");
        put(NAME, "DDD"); /* joins those that wait */
        ck_assert(write_all());
        ck_assert_uint_eq(n_done, 1);
        closep(&fd);
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, 4);
        ck_assert_int_eq(last_error, 0);
        spool_expect(PATH, "AAA\nCCC\nDDD\n");
}
END_TEST

START_TEST(adds_do_not_wait_for_ever) {
        int fd;

        spool_write(PATH, "");
        fd = spool_lock(PATH);
        put(NAME, "AAA");
        put(NAME, "BBB");
        ck_assert(write_all());
        sites_get(&sites, NAME)->adds->since_usec -= 61 * USEC_PER_SEC;
        ck_assert(write_all());
        ck_assert_uint_eq(n_done, 1);
        ck_assert_int_eq(last_error, -ETIMEDOUT);
        /* Each has its own time to wait. */
        put(NAME, "CCC");
        ck_assert(write_all());
        ck_assert_uint_eq(n_done, 1);
        closep(&fd);
        ck_assert(!write_all());
        ck_assert_int_eq(last_error, 0);
        spool_expect(PATH, "BBB\nCCC\n");
}
END_TEST

START_TEST(adds_that_wait_can_be_given_up) {
        int fd;

        spool_write(PATH, "");
        fd = spool_lock(PATH);
        put(NAME, "AAA");
        put(NAME, "BBB");
        ck_assert(write_all());
        sites_cancel(&sites, on_done, &sites);
        ck_assert_uint_eq(n_done, 2);
        ck_assert_int_eq(last_error, -ECANCELED);
        closep(&fd);
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, 2);
        spool_expect(PATH, "");
}
END_TEST

START_TEST(a_log_that_is_refused_fails_its_own_adds_only) { /* 62, 63 */
        ck_assert_int_eq(symlinkat("../target", spool_fd, PATH), 0);
        ck_assert_int_eq(add(NAME, "AAA"), -ELOOP);
        ck_assert_int_eq(add("example_net", "AAA"), 0);
        ck_assert(!spool_exists("target"));
        ck_assert_int_eq(unlinkat(spool_fd, PATH, 0), 0);
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_expect(PATH, "AAA\n");
}
END_TEST

START_TEST(a_torn_line_that_a_send_has_seen_is_ended_all_the_same) {
        SiteLog log = SITELOG_INIT;

        spool_write(PATH, "AAA");
        ck_assert_int_eq(sitelog_open(&spool_queue, NAME, false, &log), 0);
        sites_observe(&sites, sites_get(&sites, NAME), &log);
        sitelog_close(&log);
        ck_assert_int_eq(add(NAME, "BBB"), 0);
        spool_expect(PATH, "AAA\nBBB\n");
}
END_TEST

START_TEST(a_record_that_could_not_be_written_is_not_known) {
        ck_assert_int_eq(add(NAME, "AAA"), 0);
        spool_limit(6);
        put(NAME, "BBB");
        put(NAME, "CCC");
        ck_assert(!write_all());
        spool_unlimit();
        ck_assert_uint_eq(n_done, 3);
        ck_assert_int_eq(last_error, -EFBIG);
        spool_expect(PATH, "AAA\n");
        ck_assert_int_eq(add(NAME, "BBB"), 0);
        ck_assert_int_eq(add(NAME, "AAA"), 0); /* but what was there still is */
        spool_expect(PATH, "AAA\nBBB\n");
}
END_TEST

START_TEST(a_site_has_the_name_its_log_stands_for) {
        ck_assert_str_eq(sites_get(&sites, NAME)->name, "example.com");
        ck_assert_str_eq(sites_get(&sites, "aDb_example")->name, "a-b.example");
        ck_assert_str_eq(sites_get(&sites, "xZ")->name, "x");
        ck_assert_str_eq(sites_get(&sites, "Foreign_Name")->name, "Foreign_Name");
        ck_assert_ptr_eq(sites_get(&sites, NAME), sites_get(&sites, NAME));
        ck_assert_ptr_ne(sites_get(&sites, NAME), sites_get(&sites, "example_net"));
}
END_TEST

static void get_many(unsigned n) {
        for (unsigned i = 0; i < n; i++) {
                char log[16];

                (void) snprintf(log, sizeof log, "site%u", i);
                ck_assert_ptr_nonnull(sites_get(&sites, log));
        }
}

START_TEST(idle_sites_are_forgotten_when_there_are_too_many) {
        Site *waiting, *sending;
        int fd;

        spool_write(PATH, "");
        fd = spool_lock(PATH);
        put(NAME, "AAA");
        waiting = sites_get(&sites, NAME);
        sending = sites_get(&sites, "example_net");
        sending->send = (Send *) (void *) &sending; /* any but NULL */
        get_many(SITES_MAX - 2);
        ck_assert(write_all());
        ck_assert_uint_eq(HASH_COUNT(sites.table), SITES_MAX);
        ck_assert_ptr_nonnull(sites_get(&sites, "one_more"));
        ck_assert_uint_eq(HASH_COUNT(sites.table), 3); /* those in use, and the new one */
        ck_assert_ptr_eq(sites_get(&sites, NAME), waiting);
        ck_assert_ptr_eq(sites_get(&sites, "example_net"), sending);
        closep(&fd);
        ck_assert(!write_all());
        spool_expect(PATH, "AAA\n");
}
END_TEST

/* @n adds of different IDs, in one turn. */
static void add_many(const char *log, unsigned n, unsigned first) {
        Call *many = calloc(n, sizeof *many);
        char(*ids)[12] = calloc(n, sizeof *ids);
        Site *site = sites_get(&sites, log);
        unsigned before = n_done;

        ck_assert(many && ids);
        for (unsigned i = 0; i < n; i++) {
                (void) snprintf(ids[i], sizeof ids[i], "%011u", first + i);
                many[i].request.queue_id = ids[i];
                sites_put_add(&sites, site, &many[i]);
        }
        ck_assert(!write_all());
        ck_assert_uint_eq(n_done, before + n);
        ck_assert_int_eq(last_error, 0);
        free(many);
        free(ids);
}

START_TEST(the_newest_ids_of_all_sites_are_remembered) {
        add_many(NAME, SITES_KNOWN_MAX - 1, 0);
        add_many("example_net", 1, 0);
        ck_assert_uint_eq(strset_size(&sites.known), SITES_KNOWN_MAX);
        add_many(NAME, 1, 0); /* all are known still */
        ck_assert_int_eq(spool_stat(PATH).st_size, 12 * (SITES_KNOWN_MAX - 1));
        add_many("example_org", 1, 0); /* one too many: the oldest is forgotten */
        ck_assert_uint_eq(strset_size(&sites.known), SITES_KNOWN_MAX);
        add_many(NAME, 1, 1);
        ck_assert_int_eq(spool_stat(PATH).st_size, 12 * (SITES_KNOWN_MAX - 1));
        add_many(NAME, 1, 0);
        ck_assert_int_eq(spool_stat(PATH).st_size, 12 * SITES_KNOWN_MAX);
        add_many("example_net", 1, 0);
        ck_assert_int_eq(spool_stat("flush/example_net").st_size, 12);
        add_many("example_org", 2 * SITES_KNOWN_MAX, 1); /* a turn may have more */
        ck_assert_uint_eq(strset_size(&sites.known), SITES_KNOWN_MAX);
        ck_assert_int_eq(spool_stat("flush/example_org").st_size, 12 * (2 * SITES_KNOWN_MAX + 1));
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("sites");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, the_adds_of_a_turn_are_written_in_their_order);
        tcase_add_test(tc, with_sync_the_same_is_written);
        tcase_add_test(tc, duplicates_in_one_turn_are_one_record);
        tcase_add_test(tc, a_record_that_is_there_is_not_written_again);
        tcase_add_test(tc, the_same_id_is_a_record_for_each_site);
        tcase_add_test(tc, what_an_earlier_process_left_is_not_known);
        tcase_add_test(tc, somebody_else_s_change_makes_all_unknown);
        tcase_add_test(tc, other_records_of_the_same_length_are_noticed);
        tcase_add_test(tc, a_removed_log_is_made_anew);
        tcase_add_test(tc, a_forgotten_record_is_new);
        tcase_add_test(tc, adds_wait_for_somebody_else_s_lock_and_hold_up_nobody);
        tcase_add_test(tc, adds_do_not_wait_for_ever);
        tcase_add_test(tc, adds_that_wait_can_be_given_up);
        tcase_add_test(tc, a_log_that_is_refused_fails_its_own_adds_only);
        tcase_add_test(tc, a_torn_line_that_a_send_has_seen_is_ended_all_the_same);
        tcase_add_test(tc, a_record_that_could_not_be_written_is_not_known);
        tcase_add_test(tc, a_site_has_the_name_its_log_stands_for);
        tcase_add_test(tc, idle_sites_are_forgotten_when_there_are_too_many);
        tcase_add_test(tc, the_newest_ids_of_all_sites_are_remembered);
        return run_case("sites", tc);
}
