/* SPDX-License-Identifier: MIT */

#include "daemon/job.h"

#include "core/sitelog.h"
#include "tests/lib/spool.h"
#include "util/util.h"

static sd_event *event;
static Jobs jobs;
static bool wanted;
static unsigned n_asked, n_events;

typedef struct Work {
        Job job;
        unsigned steps, pieces, left;
        JobResult result;
        bool ended, cancelled;
        struct Work *starts; /* at its end */
} Work;

static JobResult step(Job *job, JobSlice *slice) {
        Work *w = (Work *) (void *) job;

        w->steps++;
        while (w->left > 0) {
                w->left--;
                w->pieces++;
                if (job_slice_is_over(slice, JOB_COST_FILE))
                        break;
        }
        return w->left > 0 ? JOB_MORE : w->result;
}

static void done(Job *job, bool cancelled) {
        Work *w = (Work *) (void *) job;

        w->ended = true;
        w->cancelled = cancelled;
        if (w->starts)
                jobs_start(&jobs, &w->starts->job);
}

static Work work(unsigned pieces, JobResult result) {
        return (Work){.job = {.step = step, .done = done}, .left = pieces, .result = result};
}

static bool is_wanted(void *userdata) {
        ck_assert_ptr_eq(userdata, &wanted);
        n_asked++;
        return wanted;
}

static int on_event(sd_event_source *source, void *userdata) {
        n_events++;
        return 0;
}

static void setup(void) {
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(jobs_init(&jobs, event), 0);
        wanted = false;
        n_asked = n_events = 0;
}

static void teardown(void) {
        jobs_done(&jobs);
        sd_event_unref(event);
}

START_TEST(the_event_loop_does_the_work) {
        Work w = work(100000, JOB_DONE);

        ck_assert(!jobs_busy(&jobs));
        jobs_start(&jobs, &w.job);
        ck_assert(jobs_busy(&jobs));
        while (!w.ended)
                ck_assert_int_gt(sd_event_run(event, 10 * USEC_PER_SEC), 0);
        ck_assert(!w.cancelled);
        ck_assert_uint_eq(w.pieces, 100000);
        ck_assert(!jobs_busy(&jobs));
}
END_TEST

START_TEST(a_slice_ends_in_time) {
        Work w = work(1u << 30, JOB_DONE);
        uint64_t start = now_usec();

        jobs_start(&jobs, &w.job);
        jobs_step(&jobs);
        ck_assert_uint_ge(now_usec() - start, JOB_SLICE_USEC);
        ck_assert(!w.ended);
        jobs_cancel(&jobs);
}
END_TEST

START_TEST(who_waits_is_given_way_to_after_two_files) {
        Work w = work(1000, JOB_DONE);

        jobs_give_way(&jobs, is_wanted, &wanted);
        jobs_start(&jobs, &w.job);
        wanted = true;
        jobs_step(&jobs);
        ck_assert_uint_eq(w.pieces, JOB_COST_LOOK / JOB_COST_FILE);
        ck_assert(jobs_busy(&jobs));
        wanted = false;
        while (!w.ended)
                jobs_step(&jobs);
        ck_assert_uint_eq(w.pieces, 1000);
        ck_assert_uint_ge(n_asked, 3);
}
END_TEST

START_TEST(jobs_take_turns) {
        Work a = work(6, JOB_DONE), b = work(6, JOB_DONE);

        jobs_give_way(&jobs, is_wanted, &wanted);
        wanted = true; /* a step each time */
        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        for (unsigned i = 0; i < 4; i++)
                jobs_step(&jobs);
        ck_assert_uint_eq(a.steps, 2);
        ck_assert_uint_eq(b.steps, 2);
        jobs_cancel(&jobs);
}
END_TEST

START_TEST(a_pause_is_for_others) {
        Work a = work(1, JOB_PAUSE), b = work(1, JOB_DONE);
        uint64_t start = now_usec();

        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        while (!b.ended)
                jobs_step(&jobs);
        ck_assert_uint_eq(a.steps, 1);
        ck_assert(!jobs_busy(&jobs));
        a.result = JOB_DONE;
        while (!a.ended)
                ck_assert_int_gt(sd_event_run(event, 10 * USEC_PER_SEC), 0);
        ck_assert_uint_ge(now_usec() - start, SITELOG_RETRY_USEC);
}
END_TEST

START_TEST(a_parked_job_waits_for_its_owner) {
        Work w = work(1, JOB_PARKED);

        jobs_start(&jobs, &w.job);
        jobs_step(&jobs);
        ck_assert(!jobs_busy(&jobs));
        ck_assert_uint_eq(w.steps, 1);
        w.result = JOB_DONE;
        jobs_start(&jobs, &w.job);
        jobs_step(&jobs);
        ck_assert(w.ended);
}
END_TEST

/* An endless job must not starve the connections, nor anything else in the loop. */
START_TEST(events_come_before_jobs) {
        Work w = work(1u << 30, JOB_DONE);
        sd_event_source *source = NULL;
        unsigned steps;

        jobs_start(&jobs, &w.job);
        ck_assert_int_gt(sd_event_run(event, 0), 0);
        steps = w.steps;
        ck_assert_uint_gt(steps, 0);
        ck_assert_int_ge(sd_event_add_defer(event, &source, on_event, NULL), 0);
        ck_assert_int_gt(sd_event_run(event, 0), 0);
        ck_assert_uint_eq(n_events, 1);
        ck_assert_uint_eq(w.steps, steps);
        ck_assert_int_gt(sd_event_run(event, 0), 0); /* the source was for once */
        ck_assert_uint_gt(w.steps, steps);
        sd_event_source_unref(source);
        jobs_cancel(&jobs);
}
END_TEST

START_TEST(jobs_that_pause_do_not_keep_the_process_busy) {
        Work a = work(0, JOB_PAUSE), b = work(0, JOB_PAUSE);
        uint64_t start = now_usec();
        unsigned n_turns = 0;

        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        for (; a.steps < 4; n_turns++)
                ck_assert_int_ge(sd_event_run(event, USEC_PER_SEC), 0);
        ck_assert_uint_ge(now_usec() - start, 3 * (uint64_t) SITELOG_RETRY_USEC);
        ck_assert_uint_le(n_turns, 32);
        ck_assert(b.steps == 3 || b.steps == 4); /* they wake in their order */
        jobs_cancel(&jobs);
}
END_TEST

/* As a refresh, which is parked while its send runs: the end of the send starts it. */
START_TEST(a_parked_job_is_cancelled_with_the_one_that_it_waits_for) {
        Work waits = work(0, JOB_PARKED), runs = work(1u << 30, JOB_DONE);

        runs.starts = &waits;
        jobs_start(&jobs, &waits.job);
        jobs_start(&jobs, &runs.job);
        jobs_step(&jobs);
        ck_assert_uint_eq(waits.steps, 1);
        jobs_cancel(&jobs);
        ck_assert(runs.ended && runs.cancelled);
        ck_assert(waits.ended && waits.cancelled);
        ck_assert_uint_eq(waits.steps, 1);
        ck_assert(!jobs_busy(&jobs));
}
END_TEST

static void free_on_done(Job *job, bool cancelled) {
        free(job);
        n_events++;
}

/* 0: by itself; 1: when all are cancelled */
START_TEST(the_end_of_a_job_may_free_it) {
        Work *w = malloc(sizeof *w);

        ck_assert_ptr_nonnull(w);
        *w = work(1, JOB_DONE);
        w->job.done = free_on_done;
        jobs_start(&jobs, &w->job);
        if (_i > 0)
                jobs_cancel(&jobs);
        while (sd_event_run(event, 0) > 0)
                ;
        ck_assert_uint_eq(n_events, 1);
}
END_TEST

START_TEST(all_are_told_when_all_is_cancelled) {
        Work ready = work(1, JOB_DONE), paused = work(1, JOB_PAUSE);

        jobs_start(&jobs, &paused.job);
        jobs_step(&jobs);
        jobs_start(&jobs, &ready.job);
        jobs_cancel(&jobs);
        ck_assert(ready.ended && ready.cancelled && paused.ended && paused.cancelled);
        ck_assert_uint_eq(ready.steps, 0);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("job");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, the_event_loop_does_the_work);
        tcase_add_test(tc, a_slice_ends_in_time);
        tcase_add_test(tc, who_waits_is_given_way_to_after_two_files);
        tcase_add_test(tc, jobs_take_turns);
        tcase_add_test(tc, a_pause_is_for_others);
        tcase_add_test(tc, a_parked_job_waits_for_its_owner);
        tcase_add_test(tc, events_come_before_jobs);
        tcase_add_test(tc, jobs_that_pause_do_not_keep_the_process_busy);
        tcase_add_test(tc, a_parked_job_is_cancelled_with_the_one_that_it_waits_for);
        tcase_add_loop_test(tc, the_end_of_a_job_may_free_it, 0, 2);
        tcase_add_test(tc, all_are_told_when_all_is_cancelled);
        return run_case("job", tc);
}
