/* SPDX-License-Identifier: MIT */

#include "daemon/job.h"

#include <utlist.h>

#include "util/timer.h"
#include "util/util.h"

#define WAKE_ACCURACY_USEC 1000

static void pause_job(Jobs *jobs, Job *job) {
        job->not_before_usec = now_usec() + JOB_PAUSE_USEC;
        if (!jobs->paused) /* all pauses are equally long: the first that began is the first due */
                timer_arm_at(jobs->wake, job->not_before_usec);
        DL_APPEND(jobs->paused, job);
}

static void step_first(Jobs *jobs, uint64_t until_usec) {
        Job *job = jobs->ready;

        DL_DELETE(jobs->ready, job);
        switch (job->step(job, until_usec)) {
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
        uint64_t until = now_usec() + JOB_SLICE_USEC;

        while (jobs->ready) {
                step_first(jobs, until);
                if (now_usec() >= until)
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
        return timer_new(event, WAKE_ACCURACY_USEC, on_wake, jobs, &jobs->wake);
}

void jobs_done(Jobs *jobs) {
        sd_event_source_disable_unref(jobs->run);
        sd_event_source_disable_unref(jobs->wake);
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
