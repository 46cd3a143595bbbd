/* SPDX-License-Identifier: MIT */
#pragma once

/* Counters that outlive the process: in a file that is mapped, so that counting costs nothing and
 * neither an exit nor a kill loses any. Does not log. */

#include <stdbool.h>
#include <stdint.h>

#include "core/request.h"

#define METRICS_FILE    "counters" /* in $STATE_DIRECTORY */
#define METRICS_VERSION 2u         /* of the struct; one of the version before is carried over */

typedef enum MetricsStatus {
        METRICS_OK,
        METRICS_FAILED,
        METRICS_DENIED,
        _METRICS_STATUS_MAX,
} MetricsStatus;

/* Of what kind a failure was: what has to be looked at. */
typedef enum MetricsClass {
        METRICS_SETTINGS, /* postconf(1) has not told what must be known */
        METRICS_LIST,     /* fast_flush_domains, or a table of it */
        METRICS_LOG,      /* the log of a site */
        METRICS_QUEUE,    /* a message could not be moved */
        METRICS_LOCK,     /* somebody else kept a log locked */
        METRICS_RESOURCE, /* memory, descriptors */
        METRICS_OTHER,
        _METRICS_CLASS_MAX,
} MetricsClass;

/* The file is this struct in the host's byte order. All count from when it was made. */
typedef struct Metrics {
        uint64_t magic;
        uint32_t version, size;
        uint64_t starts; /* of the daemon */
        uint64_t requests[REQUEST_COUNTED_MAX][_METRICS_STATUS_MAX];
        uint64_t bad_requests;                /* malformed, too long, or not sent in time */
        uint64_t appended;                    /* records written */
        uint64_t coalesced;                   /* adds that needed none: recorded already */
        uint64_t moved, gone, busy, failed;   /* messages, by whatever request */
        uint64_t duplicate, invalid;          /* records and lines dropped */
        uint64_t refreshes, refreshes_failed; /* of both kinds; those that ended early */
        uint64_t flushed, compacted, removed; /* logs, by refresh and purge */
        uint64_t last_refresh_sec,
                last_purge_sec; /* end of the last, in seconds of 1970; 0: never */
        /* Since version 2. Times as above. */
        uint64_t failures[_METRICS_CLASS_MAX];
        uint64_t last_failure_sec[_METRICS_CLASS_MAX];
        uint64_t last_success_sec[_METRICS_CLASS_MAX]; /* of what could have failed so */
        uint64_t self_tests, last_self_test_sec;
        uint64_t self_test_failed, self_test_warnings; /* findings of the last */
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

/** metrics_failed() - a request has failed, and not because of what the client sent; @now in
 * seconds of 1970 */
void metrics_failed(Metrics *metrics, MetricsClass c, uint64_t now);

/** metrics_succeeded() - a request was answered OK: what it went through works */
void metrics_succeeded(Metrics *metrics, RequestKind kind, uint64_t now);

/** metrics_tested() - a self-test has ended: what it has tried and found in order works */
void metrics_tested(Metrics *metrics, const TestFindings *findings, uint64_t now);

/** metrics_class() - of what kind a failure with that negative errno is, for add or send_site */
MetricsClass metrics_class(int error);

/** metrics_class_name() - "settings", "list", ..., for labels */
const char *metrics_class_name(MetricsClass c);

/** metrics_class_is_tested() - does a self-test try what fails so? */
bool metrics_class_is_tested(MetricsClass c);

/**
 * metrics_healthy() - would mail be recorded and flushed, by what is known?
 *
 * Not if the last self-test found something broken, or a request has failed later, not because of
 * what its client sent than anything of its kind went well.
 */
bool metrics_healthy(const Metrics *metrics);

/**
 * metrics_read() - read the counters of a daemon, running or not
 * Return: 0, -ENOENT, -EBADMSG (not such a file, or of a version that is not known), or another
 * negative errno.
 */
int metrics_read(const char *directory, Metrics *ret);
