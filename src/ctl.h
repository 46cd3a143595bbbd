/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what its commands share. A command returns an exit status, by sysexits(3), and has
 * said on standard error what went wrong. */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sysexits.h>

#include "queue.h"
#include "request.h"
#include "settings.h"

/* Each option but the general ones is for certain commands only (Verb.options). */
typedef enum CtlOption {
        CTL_DRY_RUN = 1 << 0,
} CtlOption;

typedef struct Ctl {
        /* Options as given; NULL, 0 and false for those that were not. */
        const char *config, *instance, *socket;
        uint64_t timeout; /* microseconds */
        bool quiet, json, dry_run;

        /* Found out when first needed: ctl_settings(), ctl_queue(), ctl_socket(). */
        Settings settings;
        bool has_settings;
        Queue queue; /* its fd is negative before */
        char *socket_path;
} Ctl;

typedef struct Verb {
        const char *name, *arguments; /* for people */
        int min, max;                 /* number of arguments; max < 0: any */
        unsigned options;             /* CtlOption, or'ed */
        int (*run)(Ctl *ctl, char *args[]);
} Verb;

/* The commands. @args ends in NULL, and their number is as the table of verbs has it. */
int ctl_flush(Ctl *ctl, char *args[]);
int ctl_deliver(Ctl *ctl, char *args[]);
int ctl_add(Ctl *ctl, char *args[]);
int ctl_refresh(Ctl *ctl, char *args[]);
int ctl_purge(Ctl *ctl, char *args[]);

/** ctl_error() - one line on standard error, behind "fflushctl: " */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** ctl_worse() - which of two exit statuses to end with: no trouble, a missing message, trouble */
int ctl_worse(int a, int b);

/** ctl_settings() - have @ctl->settings */
int ctl_settings(Ctl *ctl);

/** ctl_queue() - have @ctl->queue, and the settings */
int ctl_queue(Ctl *ctl);

/** ctl_socket() - have @ctl->socket_path; with --socket no configuration is read */
int ctl_socket(Ctl *ctl);

/** ctl_ask() - one request and its reply
 * @what:       for messages: the site, the ID, the command
 * @ret_status: receives the service's answer, if there is one
 * @ret_counts, @ret_has_counts:  as from client_ask()
 */
int ctl_ask(Ctl *ctl, const Request *request, const char *what, RequestStatus *ret_status,
            RequestCounts *ret_counts, bool *ret_has_counts);

/** ctl_check_id() - say so if that is no queue ID; Return: EX_OK, or EX_DATAERR. */
int ctl_check_id(const char *id);

/** ctl_print_json() - one object on one line of standard output; frees it */
void ctl_print_json(json_t *object);

/** ctl_json_counts() - a new object with @first = @value, and the counts; NULL: without them */
json_t *ctl_json_counts(const char *first, const char *value, RequestStatus status,
                        const RequestCounts *counts);
