/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): requests to the service, with a message for each way in which one can fail. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/finding.h"
#include "core/request.h"
#include "ctl/ctl.h"

/** ctl_socket() - have @ctl->socket_path; with --socket no configuration is read; else ctl_queue()
 */
int ctl_socket(Ctl *ctl);

/** ctl_say_status() - a message about an answer other than REQUEST_OK; Return: the exit status
 * @what:  for the message, as of ctl_ask() */
int ctl_say_status(const Ctl *ctl, const char *what, RequestStatus status);

/** ctl_ask() - one request and its reply
 * @what:       for messages: the site, the ID, the command
 * @ret_status: receives the service's answer, if there is one
 * @ret_counts, @ret_has_counts:  as from client_ask()
 */
int ctl_ask(Ctl *ctl, const Request *request, const char *what, RequestStatus *ret_status,
            RequestCounts *ret_counts, bool *ret_has_counts);

/* What came of a request: @status is the exit status, and a message has been printed. */
typedef struct CtlAnswer {
        int status;
        RequestStatus answer;
        RequestCounts counts; /* all 0 without @has_counts */
        bool has_counts;
} CtlAnswer;

typedef void (*ctl_answered_t)(size_t i, const CtlAnswer *answer, void *userdata);

/**
 * ctl_ask_all() - ctl_ask() for many sites, CLIENT_CONNECTIONS at a time
 * @requests:  each with a site, its name in messages
 * @answered:  called for each in this order; for those after a failure to connect not at all
 *
 * The service looks sites up in a table together that are asked for together.
 *
 * Return: EX_OK, or why nothing could be asked.
 */
int ctl_ask_all(Ctl *ctl, const Request requests[], size_t n, ctl_answered_t answered,
                void *userdata);

#define CTL_SELF_TEST_USEC (20 * (uint64_t) 1000000) /* the service takes half of it at most */

/**
 * ctl_self_test() - have the service test itself; starts it, if it is not running
 * @ret:  receives what it found; without an answer one finding, which says why there is none
 *
 * Prints nothing. Waits for @ctl->timeout, or CTL_SELF_TEST_USEC.
 *
 * Return: EX_OK (it answered, and nothing has failed; there may be warnings), EX_UNAVAILABLE (it
 *         answered, and something has failed), or the exit status for not having an answer.
 */
int ctl_self_test(Ctl *ctl, TestFindings *ret);

/** ctl_print_findings() - what is not in order, and what helps, line by line on @f */
void ctl_print_findings(FILE *f, const TestFindings *findings);

/** ctl_patience() - how long to wait for an answer that needs no work: --timeout, or ten seconds */
uint64_t ctl_patience(const Ctl *ctl);

/** ctl_connect_error() - why client_connect() to @ctl->socket_path failed; Return: an exit status.
 */
int ctl_connect_error(const Ctl *ctl, int error);

/** ctl_status_name() - "ok", "failed", "malformed", "denied" */
const char *ctl_status_name(RequestStatus status);

/** ctl_json_counts() - a new object with @first = @value, and the counts, which are null without
 *                      @counts */
json_t *ctl_json_counts(const char *first, const char *value, RequestStatus status,
                        const RequestCounts *counts);
