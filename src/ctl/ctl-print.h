/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): all output, but for the help. Text from outside may contain anything, including
 * control sequences for the terminal: these functions show it as escape_line() does. */

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

/** ctl_error() - one line on standard error, after "fflushctl: " */
void ctl_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** ctl_fail() - the same for what ends the command, or a part of it, with this exit status
 * Return: @status */
int ctl_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** ctl_divert_errors() - have them written there, for a screen that is drawn; NULL: not any more */
void ctl_divert_errors(FILE *f);

/** ctl_error_lines() - ctl_error() for each line of a text */
void ctl_error_lines(const char *text);

/** ctl_host_error() - ctl_error() about another host, whose name comes first */
void ctl_host_error(const char *host, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/** ctl_print_remote_error() - a line of the standard error of another host, after its name */
void ctl_print_remote_error(const char *host, const char *line);

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

/**
 * ctl_print_begin() - what a command prints is for programs, or not
 * @verb:  the type of objects that have none of their own; borrowed; NULL: not known yet. What
 * check prints is one object, also if something goes wrong.
 */
void ctl_print_begin(bool json, const char *verb);

/** ctl_print_end() - an object for each ctl_error() since, with the exit status of the command */
void ctl_print_end(int status);

/** ctl_write_json() - one object on one line; frees it; NULL: there was no memory for it
 * Return: EX_OK, or EX_OSERR. */
int ctl_write_json(json_t *object, FILE *f);

/** ctl_print_json() - the same on standard output; ctl_print_status() tells if this failed */
void ctl_print_json(json_t *object);

/** ctl_print_status() - EX_OK, or EX_OSERR: something was not printed, for want of memory */
int ctl_print_status(void);

/** ctl_end_output() - write out what is left; Return: has all been written? If not, it says so. */
bool ctl_end_output(void);

/** ctl_json_text() - a string from outside, which may not be UTF-8, as JSON; NULL: null */
json_t *ctl_json_text(const char *text);

/** ctl_usage() - options or arguments that make no sense; Return: EX_USAGE. */
int ctl_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** ctl_worse() - which of two exit statuses to end with: EX_OK only if both are; a status above
 * EX_NOINPUT rather than one that is not */
int ctl_worse(int a, int b);

/** ctl_no_memory() - say so; Return: EX_OSERR. */
int ctl_no_memory(void);

/** ctl_strerror() - strerror(3) of a negative errno, with what helps if it is a lack of rights */
const char *ctl_strerror(int error);

#define CTL_AGE_SIZE 32u

/** ctl_age() - "12s", "5min", "3h", "2d": how long ago @then was. Return: @ret */
const char *ctl_age(time_t now, time_t then, char ret[static CTL_AGE_SIZE]);

/** ctl_write_text() - one line of text from outside on @f, made printable by escape_line() */
void ctl_write_text(FILE *f, const char *text);

/** ctl_print_text() - the same on standard output */
void ctl_print_text(const char *text);
