/* SPDX-License-Identifier: MIT */

#include "daemon/job.h"

#include <utlist.h>

#include "core/sitelog.h"
#include "util/timer.h"
#include "util/util.h"

static void pause_job(Jobs *jobs, Job *job) {
        job->not_before_usec = now_usec() + SITELOG_RETRY_USEC;
        if (!jobs->paused) /* all pauses are equally long: the first that began is the first due */
                timer_arm_at(jobs->wake, job->not_before_usec);
        DL_APPEND(jobs->paused, job);
}

bool job_slice_is_over(JobSlice *s, unsigned cost) {
        s->cost += cost;
        if (s->cost < JOB_COST_LOOK)
                return false;
        s->cost = 0;
        return now_usec() >= s->until_usec || (s->is_wanted && s->is_wanted(s->userdata));
}

static void step_first(Jobs *jobs, JobSlice *slice) {
        Job *job = jobs->ready;

        DL_DELETE(jobs->ready, job);
        switch (job->step(job, slice)) {
        case JOB_MORE:
                DL_APPEND(jobs->ready, job);
                break;
        case JOB_PAUSE:
                pause_job(jobs, job);
                break;
        case JOB_PARKED:
                break;
        case JOB_DONE:
                job->done(job, false);
        }
}

/* Several steps share a slice: most of those of a refresh, and of the sends that it starts, are
 * short. */
void jobs_step(Jobs *jobs) {
        JobSlice slice = {.until_usec = now_usec() + JOB_SLICE_USEC,
                          .is_wanted = jobs->is_wanted,
                          .userdata = jobs->userdata};

        while (jobs->ready) {
                step_first(jobs, &slice);
                if (job_slice_is_over(&slice, JOB_COST_LOOK))
                        return;
        }
}

static int on_run(sd_event_source *source, void *userdata) {
        Jobs *jobs = userdata;

        jobs_step(jobs);
        return jobs->ready ? 0 : sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int on_wake(sd_event_source *source, uint64_t usec, void *userdata) {
        Jobs *jobs = userdata;
        uint64_t now = now_usec();
        Job *job, *tmp;

        DL_FOREACH_SAFE (jobs->paused, job, tmp) {
                if (job->not_before_usec > now)
                        break;
                DL_DELETE(jobs->paused, job);
                jobs_start(jobs, job);
        }
        if (jobs->paused)
                timer_arm_at(source, jobs->paused->not_before_usec);
        return 0;
}

int jobs_init(Jobs *jobs, sd_event *event) {
        int r;

        *jobs = (Jobs){0};
        r = sd_event_add_defer(event, &jobs->run, on_run, jobs);
        if (r < 0)
                return r;
        /* sd-event takes first what has been pending longest. This source is always pending while
         * there is work, and would come before all others. */
        r = sd_event_source_set_priority(jobs->run, SD_EVENT_PRIORITY_IDLE);
        if (r < 0)
                return r;
        r = sd_event_source_set_enabled(jobs->run, SD_EVENT_OFF);
        if (r < 0)
                return r;
        return timer_new(event, USEC_PER_MSEC, on_wake, jobs, &jobs->wake);
}

void jobs_done(Jobs *jobs) {
        sd_event_source_disable_unref(jobs->run);
        sd_event_source_disable_unref(jobs->wake);
}

void jobs_give_way(Jobs *jobs, bool (*is_wanted)(void *userdata), void *userdata) {
        jobs->is_wanted = is_wanted;
        jobs->userdata = userdata;
}

void jobs_start(Jobs *jobs, Job *job) {
        DL_APPEND(jobs->ready, job);
        (void) sd_event_source_set_enabled(jobs->run, SD_EVENT_ON);
}

bool jobs_busy(const Jobs *jobs) {
        return jobs->ready;
}

void jobs_cancel(Jobs *jobs) {
        Job *job;

        DL_CONCAT(jobs->ready, jobs->paused);
        jobs->paused = NULL;
        while ((job = jobs->ready)) {
                DL_DELETE(jobs->ready, job);
                job->done(job, true);
        }
}
