/* SPDX-License-Identifier: MIT */

#include "daemon/job.h"

#include <stddef.h>
#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

/* A job that does what it is told, and notes what became of it. */
typedef struct Worker {
        Job job;
        char name;
        JobResult result;   /* of each step but the last */
        unsigned n_steps;   /* it takes, 0: without end */
        unsigned n_stepped; /* so far */
        uint64_t step_usec; /* how long a step takes */
        uint64_t until_usec, stepped_usec;
        struct Worker *starts; /* when it ends */
        unsigned n_done;
        bool cancelled;
} Worker;

static sd_event *event;
static Jobs jobs;
static char trace[256]; /* names, in the order of steps; upper case: done */
static size_t n_trace;

static void note(char c) {
        if (n_trace < sizeof trace - 1)
                trace[n_trace++] = c;
}

static JobResult on_step(Job *job, uint64_t until_usec) {
        Worker *w = (Worker *) (void *) job;

        w->stepped_usec = now_usec();
        w->until_usec = until_usec;
        note(w->name);
        while (now_usec() - w->stepped_usec < w->step_usec)
                ;
        return ++w->n_stepped == w->n_steps ? JOB_DONE : w->result;
}

static void on_done(Job *job, bool cancelled) {
        Worker *w = (Worker *) (void *) job;

        note((char) (w->name - 'a' + 'A'));
        w->n_done++;
        w->cancelled = cancelled;
        if (w->starts)
                jobs_start(&jobs, &w->starts->job);
}

static Worker worker(char name, JobResult result, unsigned n_steps) {
        return (Worker){.job = {.step = on_step, .done = on_done},
                        .name = name,
                        .result = result,
                        .n_steps = n_steps};
}

static void setup(void) {
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(jobs_init(&jobs, event), 0);
        memset(trace, 0, sizeof trace);
        n_trace = 0;
}

static void teardown(void) {
        jobs_done(&jobs);
        event = sd_event_unref(event);
}

/* Return: false if there was nothing to do. */
static bool turn(uint64_t timeout_usec) {
        int r = sd_event_run(event, timeout_usec);

        ck_assert_int_ge(r, 0);
        return r > 0;
}

static void run_until_done(const Worker *w) {
        for (unsigned i = 0; w->n_done == 0 && i < 100000; i++)
                turn(USEC_PER_SEC);
        ck_assert_uint_eq(w->n_done, 1);
}

START_TEST(a_job_runs_by_itself_to_its_end) {
        Worker a = worker('a', JOB_MORE, 3);

        ck_assert(!jobs_busy(&jobs));
        ck_assert(!turn(0));
        jobs_start(&jobs, &a.job);
        ck_assert(jobs_busy(&jobs));
        run_until_done(&a);
        ck_assert_str_eq(trace, "aaaA");
        ck_assert(!a.cancelled);
        ck_assert(!jobs_busy(&jobs));
        while (turn(0))
                ;
        ck_assert_str_eq(trace, "aaaA");
}
END_TEST

START_TEST(jobs_take_turns_a_step_each) {
        Worker a = worker('a', JOB_MORE, 3), b = worker('b', JOB_MORE, 2);

        a.step_usec = b.step_usec = JOB_SLICE_USEC;
        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        for (int i = 0; i < 5; i++)
                jobs_step(&jobs);
        ck_assert_str_eq(trace, "ababBaA");
}
END_TEST

/* However short the steps are: an event waits for a slice, and not for more. */
START_TEST(a_slice_ends_in_time) {
        Worker a = worker('a', JOB_MORE, 0), b = worker('b', JOB_MORE, 0);
        uint64_t before;

        a.step_usec = b.step_usec = JOB_SLICE_USEC / 4;
        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        before = now_usec();
        jobs_step(&jobs);
        ck_assert_uint_ge(a.n_stepped, 1);
        ck_assert_uint_le(a.n_stepped + b.n_stepped, 4);
        ck_assert_uint_ge(a.until_usec, before + JOB_SLICE_USEC);
        ck_assert_uint_le(a.until_usec, a.stepped_usec + JOB_SLICE_USEC);
        if (b.n_stepped > 0)
                ck_assert_uint_eq(b.until_usec, a.until_usec); /* all steps share one slice */
        ck_assert(jobs_busy(&jobs));
        jobs_cancel(&jobs);
}
END_TEST

static int on_event(sd_event_source *source, void *userdata) {
        note('.');
        return 0;
}

START_TEST(events_come_before_jobs) {
        sd_event_source *source = NULL;
        Worker a = worker('a', JOB_MORE, 0);

        jobs_start(&jobs, &a.job);
        turn(0);
        n_trace = 0;
        memset(trace, 0, sizeof trace);
        ck_assert_int_ge(sd_event_add_defer(event, &source, on_event, NULL), 0);
        turn(0);
        ck_assert_str_eq(trace, ".");
        turn(0); /* the source was for once */
        ck_assert_int_eq(trace[1], 'a');
        sd_event_source_unref(source);
        jobs_cancel(&jobs);
}
END_TEST

START_TEST(a_job_that_pauses_rests_while_others_run) {
        Worker a = worker('a', JOB_PAUSE, 2), b = worker('b', JOB_MORE, 50);
        uint64_t paused;

        b.step_usec = JOB_SLICE_USEC;
        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        jobs_step(&jobs);
        ck_assert_uint_eq(a.n_stepped, 1);
        paused = a.stepped_usec;
        run_until_done(&a);
        ck_assert_uint_ge(a.stepped_usec, paused + JOB_PAUSE_USEC);
        run_until_done(&b);
        ck_assert_int_eq(trace[0], 'a');
        ck_assert_int_eq(trace[1], 'b');
}
END_TEST

START_TEST(jobs_that_pause_do_not_keep_the_process_busy) {
        Worker a = worker('a', JOB_PAUSE, 0), b = worker('b', JOB_PAUSE, 0);
        unsigned n_turns = 0;
        uint64_t start;

        jobs_start(&jobs, &a.job);
        jobs_start(&jobs, &b.job);
        jobs_step(&jobs);
        ck_assert(!jobs_busy(&jobs));
        start = now_usec();
        while (a.n_stepped < 4) {
                turn(USEC_PER_SEC);
                n_turns++;
        }
        ck_assert_uint_ge(now_usec() - start, 3 * JOB_PAUSE_USEC - JOB_PAUSE_USEC / 2);
        ck_assert_uint_le(n_turns, 32);
        ck_assert(b.n_stepped == 3 || b.n_stepped == 4); /* they wake in their order */
        jobs_cancel(&jobs);
        ck_assert(a.cancelled && b.cancelled);
}
END_TEST

START_TEST(a_parked_job_waits_until_it_is_started) {
        Worker a = worker('a', JOB_PARKED, 2);

        jobs_start(&jobs, &a.job);
        while (turn(0))
                ;
        ck_assert_str_eq(trace, "a");
        ck_assert(!jobs_busy(&jobs));
        ck_assert(!turn(2 * JOB_PAUSE_USEC));
        jobs_start(&jobs, &a.job);
        run_until_done(&a);
        ck_assert_str_eq(trace, "aaA");
}
END_TEST

START_TEST(the_end_of_a_job_may_start_another) {
        Worker a = worker('a', JOB_MORE, 1), b = worker('b', JOB_MORE, 1);

        a.starts = &b;
        jobs_start(&jobs, &a.job);
        run_until_done(&b);
        ck_assert_str_eq(trace, "aAbB");
}
END_TEST

static void free_on_done(Job *job, bool cancelled) {
        note(cancelled ? 'X' : 'F');
        free(job);
}

/* 0: by itself; 1: when all are cancelled */
START_TEST(the_end_of_a_job_may_free_it) {
        Worker *a = malloc(sizeof *a);

        ck_assert_ptr_nonnull(a);
        *a = worker('a', JOB_MORE, 1);
        a->job.done = free_on_done;
        jobs_start(&jobs, &a->job);
        if (_i > 0)
                jobs_cancel(&jobs);
        while (turn(0))
                ;
        ck_assert_str_eq(trace, _i > 0 ? "X" : "aF");
}
END_TEST

START_TEST(all_jobs_can_be_cancelled_before_during_and_between_steps) {
        Worker fresh = worker('a', JOB_MORE, 0), begun = worker('b', JOB_MORE, 0),
               paused = worker('c', JOB_PAUSE, 0);

        paused.step_usec = JOB_SLICE_USEC;
        jobs_start(&jobs, &paused.job);
        jobs_step(&jobs);
        begun.step_usec = JOB_SLICE_USEC;
        jobs_start(&jobs, &begun.job);
        jobs_step(&jobs);
        jobs_start(&jobs, &fresh.job);
        jobs_cancel(&jobs);
        ck_assert_uint_eq(fresh.n_stepped, 0);
        ck_assert(fresh.n_done == 1 && fresh.cancelled);
        ck_assert(begun.n_done == 1 && begun.cancelled);
        ck_assert(paused.n_done == 1 && paused.cancelled);
        ck_assert(!jobs_busy(&jobs));
        for (int i = 0; i < 3; i++)
                turn(2 * JOB_PAUSE_USEC);
        ck_assert_str_eq(trace, "cbBAC");
}
END_TEST

/* As a refresh, which is parked while its send runs: the end of the send starts it. */
START_TEST(a_parked_job_is_cancelled_with_the_one_that_it_waits_for) {
        Worker waits = worker('a', JOB_PARKED, 0), runs = worker('b', JOB_MORE, 0);

        runs.starts = &waits;
        jobs_start(&jobs, &waits.job);
        jobs_start(&jobs, &runs.job);
        jobs_step(&jobs);
        ck_assert_uint_eq(waits.n_stepped, 1);
        jobs_cancel(&jobs);
        ck_assert(runs.n_done == 1 && runs.cancelled);
        ck_assert(waits.n_done == 1 && waits.cancelled);
        ck_assert_uint_eq(waits.n_stepped, 1);
        ck_assert(!jobs_busy(&jobs));
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("job");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_job_runs_by_itself_to_its_end);
        tcase_add_test(tc, jobs_take_turns_a_step_each);
        tcase_add_test(tc, a_slice_ends_in_time);
        tcase_add_test(tc, events_come_before_jobs);
        tcase_add_test(tc, a_job_that_pauses_rests_while_others_run);
        tcase_add_test(tc, jobs_that_pause_do_not_keep_the_process_busy);
        tcase_add_test(tc, a_parked_job_waits_until_it_is_started);
        tcase_add_test(tc, the_end_of_a_job_may_start_another);
        tcase_add_loop_test(tc, the_end_of_a_job_may_free_it, 0, 2);
        tcase_add_test(tc, all_jobs_can_be_cancelled_before_during_and_between_steps);
        tcase_add_test(tc, a_parked_job_is_cancelled_with_the_one_that_it_waits_for);
        return run_case("job", tc);
}
