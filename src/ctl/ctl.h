/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what its commands share. A command returns an exit status, by sysexits(3), and has
 * said on standard error what went wrong. */

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sysexits.h>

#include "core/finding.h"
#include "core/queue.h"
#include "core/request.h"
#include "core/settings.h"
#include "core/survey.h"
#include "ctl/follow.h"

/* Each option but the general ones is for certain commands only (Verb.options). */
typedef enum CtlOption {
        CTL_DRY_RUN = 1 << 0,
        CTL_SUBDOMAINS = 1 << 1,
        CTL_BY = 1 << 2,
        CTL_TOP = 1 << 3,
        CTL_LIMIT = 1 << 4,
        CTL_EVERY = 1 << 5,
        CTL_REASON = 1 << 6,
        CTL_WAIT = 1 << 7,
        CTL_REPAIR = 1 << 8,
        CTL_OUTPUT = 1 << 9,
        CTL_NO_START = 1 << 10,
        CTL_THRESHOLD = 1 << 11,
} CtlOption;

typedef struct Ctl {
        /* Options as given; NULL, 0 and false for those that were not. */
        const char *config, *instance, *socket, *host, *by, *reason, *output;
        uint64_t timeout, every; /* microseconds */
        unsigned long top, limit;
        bool quiet, json, dry_run, subdomains, wait, repair, no_start;
        uint64_t oldest_warning, oldest_critical, refresh_warning, refresh_critical;
        unsigned long deferred_warning, deferred_critical;

        /* Found out when first needed: ctl_settings(), ctl_queue(), ctl_socket(). */
        Settings settings;
        bool has_settings, may_guess; /* the latter: see ctl_settings() */
        Queue queue;                  /* its fd is negative before */
        char *socket_path;
} Ctl;

typedef struct Verb {
        const char *name, *arguments; /* for people */
        int min, max;                 /* number of arguments; max < 0: any */
        unsigned options;             /* CtlOption, or'ed */
        int (*run)(Ctl *ctl, char *args[]);
} Verb;

/* The commands. @args ends in NULL, and their number is as the table of verbs has it. */
int ctl_list(Ctl *ctl, char *args[]);
int ctl_show(Ctl *ctl, char *args[]);
int ctl_flush(Ctl *ctl, char *args[]);
int ctl_deliver(Ctl *ctl, char *args[]);
int ctl_add(Ctl *ctl, char *args[]);
int ctl_refresh(Ctl *ctl, char *args[]);
int ctl_purge(Ctl *ctl, char *args[]);
int ctl_import(Ctl *ctl, char *args[]);
int ctl_metrics(Ctl *ctl, char *args[]);
int ctl_verify(Ctl *ctl, char *args[]);
int ctl_status(Ctl *ctl, char *args[]);
int ctl_check(Ctl *ctl, char *args[]);

#define CTL_CHECK_UNKNOWN 3 /* the last exit status of check: those of Nagios' plugins */
int ctl_enable_postfix(Ctl *ctl, char *args[]);
int ctl_disable_postfix(Ctl *ctl, char *args[]);
int ctl_export(Ctl *ctl, char *args[]);

/** ctl_export_logs() - export as such, also of a service that is still asked; as the queue's owner
 */
int ctl_export_logs(Ctl *ctl);

/** ctl_import_deferred() - import as such; @ret_added receives how many records were made */
int ctl_import_deferred(Ctl *ctl, unsigned long *ret_added);

/* -------------------------------------------------------------------------------- output: ctl.c
 *
 * Nothing else writes to standard output and error: what comes from outside may have anything in
 * it, and these show it escaped, as escape_line() does. */

/** ctl_error() - one line on standard error, after "fflushctl: " */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** ctl_error_lines() - ctl_error() for each line of a text */
void ctl_error_lines(const char *text);

/** ctl_print() - a line on standard output, or a part of one; only the last character of @format
 *               can end it */
void ctl_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

typedef enum CtlStyle { CTL_PLAIN, CTL_BOLD, CTL_DIM, CTL_RED, CTL_GREEN, CTL_YELLOW } CtlStyle;

/** ctl_print_in(), ctl_vprint() - the same in a style, if standard output is a terminal */
void ctl_print_in(CtlStyle style, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ctl_vprint(CtlStyle style, const char *format, va_list ap)
        __attribute__((format(printf, 2, 0)));

/** ctl_style() - what switches a terminal to that; "" if it is none, or NO_COLOR is set */
const char *ctl_style(CtlStyle style);

/** ctl_progress() - in the place of the line before on standard error, which is a terminal */
void ctl_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ctl_progress_end(void);

/** ctl_pass_on() - a line of another fflushctl, which has escaped itself what it shows */
void ctl_pass_on(FILE *f, const char *line, bool ends);

/** ctl_write_json() - one object on one line; frees it; NULL: there was no memory for it
 * Return: EX_OK, or EX_OSERR. */
int ctl_write_json(json_t *object, FILE *f);

/** ctl_print_json() - the same on standard output */
void ctl_print_json(json_t *object);

/** ctl_json_text() - a string from outside, which may not be UTF-8, as JSON; NULL: null */
json_t *ctl_json_text(const char *text);

/* ------------------------------------------------------------------------------------------- */

/**
 * ctl_host() - run fflushctl on another host in our place, and show what it shows
 * @words:  its options and arguments, @n of them
 *
 * Return: its exit status, or that of ssh(1).
 */
int ctl_host(const char *host, char *const words[], size_t n);

/** ctl_usage() - options or arguments that make no sense; Return: EX_USAGE. */
int ctl_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** ctl_no_memory() - say so; Return: EX_OSERR. */
int ctl_no_memory(void);

/** ctl_worse() - which of two exit statuses to end with: no trouble, a missing message, trouble */
int ctl_worse(int a, int b);

/**
 * ctl_settings() - have @ctl->settings
 *
 * If postconf(1) has not told what decides where the queue is and how it is laid out, this fails:
 * by a guess records would be taken for those of messages that are gone, or another instance be
 * acted on. With @ctl->may_guess it does not, for the default instance; that is for who only says
 * so.
 *
 * Return: EX_OK, EX_NOINPUT (there is no such instance), EX_CONFIG, or trouble.
 */
int ctl_settings(Ctl *ctl);

/** ctl_queue() - have @ctl->queue, and the settings; never by a guess */
int ctl_queue(Ctl *ctl);

/**
 * ctl_become_owner() - go on as the owner of @ctl->queue, for good
 *
 * Root must not write where others may rename and link: what root changes there it changes as they.
 */
int ctl_become_owner(Ctl *ctl);

#define CTL_SERVICE "fflushd" /* our socket below public/, and so our flush_service_name */

/**
 * ctl_postconf() - a parameter of the instance, by postconf(1); needs the settings
 * Return: its value, to be freed, or NULL: Postfix does not say.
 */
char *ctl_postconf(Ctl *ctl, const char *name);

#define CTL_UNIT_SIZE 256u

/** ctl_command_name() - "fflushctl", or "fflushctl -i NAME": for hints */
void ctl_command_name(const Ctl *ctl, char ret[static CTL_UNIT_SIZE]);

/** ctl_unit_name() - "fflush.socket", or "fflush@NAME.socket" of an instance */
void ctl_unit_name(const Ctl *ctl, const char *name, const char *type,
                   char ret[static CTL_UNIT_SIZE]);

/** ctl_socket() - have @ctl->socket_path; with --socket no configuration is read; else ctl_queue()
 */
int ctl_socket(Ctl *ctl);

/** ctl_ask() - one request and its reply
 * @what:       for messages: the site, the ID, the command
 * @ret_status: receives the service's answer, if there is one
 * @ret_counts, @ret_has_counts:  as from client_ask()
 */
int ctl_ask(Ctl *ctl, const Request *request, const char *what, RequestStatus *ret_status,
            RequestCounts *ret_counts, bool *ret_has_counts);

#define CTL_SELF_TEST_USEC (20 * (uint64_t) 1000000) /* the service takes half of it at most */

/**
 * ctl_self_test() - have the service test itself; starts it, if it is not running
 * @ret:  receives what it found; without an answer one finding, which says why there is none
 *
 * Says nothing. It waits for @ctl->timeout, or CTL_SELF_TEST_USEC.
 *
 * Return: EX_OK (it answered, and nothing has failed; there may be warnings), EX_UNAVAILABLE (it
 *         answered, and something has failed), or the exit status for not having an answer.
 */
int ctl_self_test(Ctl *ctl, TestFindings *ret);

/** ctl_print_findings() - what is not in order, and what helps, line by line on @f */
void ctl_print_findings(FILE *f, const TestFindings *findings);

/** ctl_patience() - how long to wait for who should answer at once: --timeout, or some seconds */
uint64_t ctl_patience(const Ctl *ctl);

/** ctl_connect_error() - why client_connect() to @ctl->socket_path failed; Return: an exit status.
 */
int ctl_connect_error(const Ctl *ctl, int error);

/** ctl_no_site() - say that a text is neither a site nor a pattern; Return: EX_DATAERR. */
int ctl_no_site(const char *text);

/** ctl_check_id() - say so if that is no queue ID; Return: EX_OK, or EX_DATAERR. */
int ctl_check_id(const char *id);

/** ctl_json_counts() - a new object with @first = @value, and the counts; NULL: without them */
json_t *ctl_json_counts(const char *first, const char *value, RequestStatus status,
                        const RequestCounts *counts);

/* ---------------------------------------------------------------- logs: ctl-sites.c */

typedef struct CtlSite {
        char *site;     /* as survey_site() has it */
        char *path;     /* of its log, or a part of it, below the queue directory; NULL: none */
        bool named;     /* @site is its name; else that of a log of flush(8) in parentheses */
        struct stat st; /* of the log */
} CtlSite;

typedef struct CtlSites {
        CtlSite *items;
        size_t n;
} CtlSites;

/**
 * ctl_find_sites() - recorded sites that match one of the patterns; without any, all
 * @all:  a pattern that is a site is in the result also if nothing is recorded for it, without a
 *        word; else it is as any other pattern that matches nothing
 * @ret:  receives them, by name; ctl_free_sites() them in any case
 *
 * Return: EX_OK, EX_NOINPUT (a pattern matches nothing; the others count), or trouble.
 */
int ctl_find_sites(Ctl *ctl, char *patterns[], bool all, CtlSites *ret);
void ctl_free_sites(CtlSites *sites);

/** ctl_read_site() - survey_read_log() with a message for trouble; survey_free() in any case */
int ctl_read_site(Ctl *ctl, const CtlSite *site, SurveyLog *ret);

/** ctl_count_deferred() - how many messages of a log are in the deferred queue now */
unsigned long ctl_count_deferred(Ctl *ctl, const SurveyLog *log);

/* -------------------------------------------------------------------------- for people */

#define CTL_REASON_MAX 200u /* bytes of --reason */

#define CTL_AGE_SIZE   32u

/** ctl_age() - "12s", "5min", "3h", "2d": how long ago @then was. Return: @ret */
const char *ctl_age(time_t now, time_t then, char ret[static CTL_AGE_SIZE]);

/** ctl_write_text() - one line of text from outside on @f, made printable by escape_line() */
void ctl_write_text(FILE *f, const char *text);

/** ctl_print_text() - the same on standard output */
void ctl_print_text(const char *text);

/* --------------------------------------------------------------------- --wait: ctl-wait.c */

/** ctl_wait_begin() - before anything is moved; follow_free() in any case */
int ctl_wait_begin(Ctl *ctl, Follow *f);

/** ctl_wait_add() - follow this message, if the request is going to move it */
int ctl_wait_add(Follow *f, const char *id);

/**
 * ctl_wait_end() - wait, and say what became of the messages
 * @all_moved:  no message could not be moved
 *
 * Return: EX_OK (all have left), or EX_TEMPFAIL (some are deferred again, or the watching ended
 *         early, by --timeout or SIGINT).
 */
int ctl_wait_end(Ctl *ctl, Follow *f, bool all_moved);
