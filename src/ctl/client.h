/* SPDX-License-Identifier: MIT */
#pragma once

/* The client's end of a connection, for fflushctl(8): one request, one reply, blocking. */

#include <stdint.h>

#include "core/request.h"

/* How to wait for an answer. */
typedef struct ClientWait {
        uint64_t timeout_usec; /* for the whole of the work; 0: for ever */
        /* NULL, or called about once a second while nothing comes, for a line of progress; @usec is
         * how long this wait has lasted. */
        void (*progress)(uint64_t usec, void *userdata);
        void *userdata;
} ClientWait;

/**
 * client_connect() - connect to the socket of a flush service
 * @path:          of the socket, of any length
 * @timeout_usec:  how long to wait while the backlog of a server that hangs is full, and later for
 *                 each write; 0 for ever
 *
 * Return: a descriptor, -ENOENT (no such socket), -ECONNREFUSED (nobody listens), -EACCES (the
 *         directory is not for you), -ETIMEDOUT, or another negative errno.
 */
int client_connect(const char *path, uint64_t timeout_usec);

/**
 * client_find_listener() - which process listens on a socket: who has called listen(2)
 * @timeout_usec:  as of client_connect()
 *
 * Return: its process ID, 1 if systemd listens, 0 if the process is in another PID namespace, or
 *         as client_connect().
 */
int client_find_listener(const char *path, uint64_t timeout_usec);

/**
 * client_find_label() - the label of a socket, by which the kernel decides who may connect
 * @ret:  the SELinux context of who has made the socket, but for its level, which is the caller's
 *
 * Return: 0, -ENOPROTOOPT (there are no labels), or as client_connect().
 */
int client_find_label(const char *path, uint64_t timeout_usec, char *ret, size_t size);

/**
 * client_is_bound() - has a process this socket open that others connect to?
 *
 * Connects nobody, so that systemd starts nothing.
 *
 * Return: 1, 0 (there is none, or it is an old one that nobody has open), or another negative
 * errno: -EACCES (not for you to know), ...
 */
int client_is_bound(const char *path);

/**
 * client_ask() - send a request and read the reply, of either dialect
 * @fd:            connected
 * @ret_counts:    all 0 if the reply has no counts, as that of flush(8)
 * @ret_has_counts:  false: it has none
 *
 * Return: 0, -EBADMSG (not a reply), -ECONNRESET or -EPIPE (closed without one), -ETIMEDOUT, or
 *         another negative errno.
 * Source: spec 1.4, 2.
 */
int client_ask(int fd, const Request *request, const ClientWait *wait, RequestStatus *ret,
               RequestCounts *ret_counts, bool *ret_has_counts);

/**
 * client_work() - refresh or purge: these are answered before the work, so wait for its end as well
 * @path:     for a second connection: flush(8) refuses attributes before the request, so it is
 * asked again without them
 * @ret:      with detail the status at the end: REQUEST_FAIL if the work ended early or a log could
 *            not be flushed
 * @ret_counts, @ret_has_counts:  with detail, the counts; flush(8) sends none
 *
 * Return: as from client_connect() and client_ask().
 */
int client_work(int fd, const char *path, const Request *request, const ClientWait *wait,
                RequestStatus *ret, RequestCounts *ret_counts, bool *ret_has_counts);

/**
 * client_self_test() - have the service test itself
 * @ret:           REQUEST_OK, or REQUEST_FAIL if something is broken
 * @ret_findings:  with no checks if the server is one that knows no self-test: an older one
 *                 answers REQUEST_BAD, flush(8) closes without a reply
 *
 * Return: as from client_ask().
 */
int client_self_test(int fd, uint64_t timeout_usec, RequestStatus *ret, TestFindings *ret_findings);

/* What came of one of many requests. */
typedef struct ClientAnswer {
        int error; /* as client_connect() and client_ask() return it; then the rest means nothing */
        RequestStatus status;
        RequestCounts counts;
        bool has_counts;
} ClientAnswer;

typedef struct ClientBatch {
        /* Fills in the next request, and an item by which @done knows it; false: there is none.
         * The strings of the request live until it is answered. */
        bool (*next)(Request *ret, void **ret_item, void *userdata);
        /* Called once for each, in the order of the answers. */
        void (*done)(void *item, const ClientAnswer *answer, void *userdata);
        void *userdata;
} ClientBatch;

#define CLIENT_CONNECTIONS 128u

/**
 * client_ask_all() - many requests, over up to CLIENT_CONNECTIONS connections at once
 * @timeout_usec:  for each of them, 0 for none
 *
 * If one cannot connect, no more are begun.
 *
 * Return: 0, or the negative errno with which the first one could not connect, or poll(2) failed.
 */
int client_ask_all(const char *path, uint64_t timeout_usec, const ClientBatch *batch);
