/* SPDX-License-Identifier: MIT */
#pragma once

/* Long work in slices between the events of connections, so that no add waits behind a flush. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#define JOB_SLICE_USEC 100u   /* work between two turns; an add may have to wait for it */
#define JOB_PAUSE_USEC 20000u /* how long a job rests, as for a lock of somebody else */

typedef enum JobResult {
        JOB_DONE,
        JOB_MORE,
        JOB_PAUSE,  /* again after JOB_PAUSE_USEC */
        JOB_PARKED, /* again when somebody calls jobs_start() */
} JobResult;

typedef struct Job Job;
struct Job {
        /* Works until @until_usec (CLOCK_MONOTONIC), or less. JOB_PAUSE and JOB_PARKED return
         * early. */
        JobResult (*step)(Job *job, uint64_t until_usec);
        /* The last call, which may free the job; @cancelled: the daemon is stopping. */
        void (*done)(Job *job, bool cancelled);
        uint64_t not_before_usec;
        Job *prev, *next;
};

typedef struct Jobs {
        sd_event_source *run, *wake;
        Job *ready, *paused;
} Jobs;

/** jobs_init() - Return: 0, or a negative errno. */
int jobs_init(Jobs *jobs, sd_event *event);
void jobs_done(Jobs *jobs);

/**
 * jobs_step() - work for one slice, if any job is ready
 *
 * The event loop does this by itself when no event is pending. Whoever keeps it busy for longer
 * calls this in between.
 */
void jobs_step(Jobs *jobs);

/** jobs_start() - a new job, or one that was parked; they take turns, a step each */
void jobs_start(Jobs *jobs, Job *job);

/** jobs_busy() - is any job ready to run? */
bool jobs_busy(const Jobs *jobs);

/** jobs_cancel() - end all that are ready or rest; a parked one has to be started by the end of
 * another */
void jobs_cancel(Jobs *jobs);
