/* SPDX-License-Identifier: MIT */
#pragma once

/* Long work in slices between the events of connections, so that no add waits for a flush. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#define JOB_SLICE_USEC 100u /* one step, some moves; it ends earlier if a client comes */

/* What a piece of work costs, roughly: to read a line; to look at a file, or move it. */
#define JOB_COST_LINE 1u
#define JOB_COST_FILE 8u
#define JOB_COST_LOOK 16u /* between two looks at the clock and the clients: two moves */

typedef enum JobResult {
        JOB_DONE,
        JOB_MORE,
        JOB_PAUSE,  /* again after SITELOG_RETRY_USEC: somebody else has a lock */
        JOB_PARKED, /* again when somebody calls jobs_start() */
} JobResult;

/* The time that a step has: until @until_usec, or until @is_wanted says that a client waits. */
typedef struct JobSlice {
        uint64_t until_usec;
        unsigned cost; /* of what was done since the last look */
        bool (*is_wanted)(void *userdata);
        void *userdata;
} JobSlice;

/** job_slice_is_over() - after each piece of work, of this cost: is it time to return JOB_MORE? */
bool job_slice_is_over(JobSlice *slice, unsigned cost);

typedef struct Job Job;
struct Job {
        /* Works until the slice is over, or less. */
        JobResult (*step)(Job *job, JobSlice *slice);
        /* The last call, which may free the job; @cancelled: the daemon is stopping. */
        void (*done)(Job *job, bool cancelled);
        uint64_t not_before_usec;
        Job *prev, *next;
};

typedef struct Jobs {
        sd_event_source *run, *wake;
        Job *ready, *paused;
        bool (*is_wanted)(void *userdata);
        void *userdata;
} Jobs;

/** jobs_init() - Return: 0, or a negative errno. */
int jobs_init(Jobs *jobs, sd_event *event);
void jobs_done(Jobs *jobs);

/**
 * jobs_give_way() - ask during each slice whether to end it, since somebody else wants the time
 * @is_wanted:  has to be cheap, as it is asked after every second message; NULL: do not ask
 */
void jobs_give_way(Jobs *jobs, bool (*is_wanted)(void *userdata), void *userdata);

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
