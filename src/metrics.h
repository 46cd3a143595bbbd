/* SPDX-License-Identifier: MIT */
#pragma once

/* Counters that outlive the process: in a file that is mapped, so that counting costs nothing and
 * neither an exit nor a kill loses any. Does not log. */

#include <stdint.h>

#include "request.h"

#define METRICS_FILE    "counters" /* in $STATE_DIRECTORY */
#define METRICS_VERSION 1u         /* of the struct; a file of another one starts anew */

typedef enum MetricsStatus {
        METRICS_OK,
        METRICS_FAILED,
        METRICS_DENIED,
        _METRICS_STATUS_MAX,
} MetricsStatus;

/* The file is this struct in the host's byte order. All count from when it was made. */
typedef struct Metrics {
        uint64_t magic;
        uint32_t version, size;
        uint64_t starts; /* of the daemon */
        uint64_t requests[_REQUEST_KIND_MAX][_METRICS_STATUS_MAX];
        uint64_t bad_requests;                /* malformed, too long, or not sent in time */
        uint64_t appended;                    /* records written */
        uint64_t coalesced;                   /* adds that needed none: recorded already */
        uint64_t moved, gone, busy, failed;   /* messages, by whatever request */
        uint64_t duplicate, invalid;          /* records and lines dropped */
        uint64_t refreshes, refreshes_failed; /* of both kinds; those that ended early */
        uint64_t flushed, compacted, removed; /* logs, by refresh and purge */
        uint64_t last_refresh_sec,
                last_purge_sec; /* end of the last, in seconds of 1970; 0: never */
} Metrics;

/**
 * metrics_open() - go on counting where the last process stopped
 * @directory:  with the file, which is made if need be; NULL: there is none
 * @ret:        receives the counters, metrics_close() them; if the file cannot be used they are in
 *              memory only
 *
 * The file has its blocks before it is mapped, so a full disk cannot hurt. If somebody cuts it
 * off nevertheless, or the file system breaks its word, memory takes its place (SIGBUS).
 *
 * Return: 0, or why the file is not used: -ENOENT (no directory), -EPROTOTYPE (not a plain file),
 *         -ENOSPC, or another negative errno. After -ENOMEM alone @ret may be NULL.
 */
int metrics_open(const char *directory, Metrics **ret);
void metrics_close(Metrics *metrics);

/** metrics_count() - add what became of records */
void metrics_count(Metrics *metrics, const RequestCounts *counts);

/**
 * metrics_read() - read the counters of a daemon, running or not
 * Return: 0, -ENOENT, -EBADMSG (not such a file, or of another version), or another negative errno.
 */
int metrics_read(const char *directory, Metrics *ret);
