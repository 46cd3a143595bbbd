/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-print.h"

#include <sysexits.h>

#include "core/finding.h"
#include "util/escape.h"
#include "util/util.h"

/* The only ways to the terminal, but for the help. Whatever is in a line, it stays one line, and
 * shows all that it has. */
static void write_line(FILE *f, const char *before, const char *text, const char *after) {
        size_t size = 4 * strlen(text) + 1;
        char *shown = malloc(size);

        (void) fprintf(f, "%s%s%s", before,
                       shown ? escape_line(text, shown, size) : strerror(ENOMEM), after);
        free(shown);
}

static bool ends_in_newline(const char *text) {
        size_t n = strlen(text);

        return n > 0 && text[n - 1] == '\n';
}

/* What is put into the format may end in a newline as well; only its own is one. */
static void __attribute__((format(printf, 4, 0)))
write_formatted(FILE *f, const char *before, const char *after, const char *format, va_list ap) {
        bool ends = ends_in_newline(format);
        _cleanup_free_ char *text = NULL;

        if (vasprintf(&text, format, ap) < 0)
                text = NULL;
        if (text && ends)
                text[strlen(text) - 1] = '\0';
        write_line(f, before, text ? text : strerror(ENOMEM), after);
        if (ends)
                (void) fputc('\n', f);
}

static FILE *diverted;

void ctl_divert_errors(FILE *f) {
        diverted = f;
}

static FILE *error_file(void) {
        return diverted ? diverted : stderr;
}

/* ------------------------------------------------------------------------- errors for programs */

#define ERRORS_MAX 1000u

typedef struct Error {
        char *message, *host; /* NULL: this one */
} Error;

static struct {
        bool json;
        const char *verb;
        Error errors[ERRORS_MAX]; /* whose exit status is not known yet */
        size_t n_errors;
} out;

void ctl_print_begin(bool json, const char *verb) {
        out.json = json;
        out.verb = verb;
}

/* By the names of sysexits(3). */
static const char *code_name(int status) {
        static const struct {
                int status;
                const char *name;
        } codes[] = {
                {EX_OK, "warning"},           {EX_USAGE, "usage"},
                {EX_DATAERR, "invalid"},      {EX_NOINPUT, "not-found"},
                {EX_NOUSER, "returned"},      {EX_UNAVAILABLE, "unavailable"},
                {EX_OSERR, "system"},         {EX_CANTCREAT, "not-created"},
                {EX_IOERR, "input-output"},   {EX_TEMPFAIL, "temporary"},
                {EX_PROTOCOL, "protocol"},    {EX_NOPERM, "permission-denied"},
                {EX_CONFIG, "configuration"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
                if (codes[i].status == status)
                        return codes[i].name;
        return "other";
}

static bool has_error_objects(void) {
        return out.json && !(out.verb && streq(out.verb, "check"));
}

/* @host: NULL: this one. */
static void print_error(int status, const char *host, const char *message) {
        json_t *object = host ? json_pack("{so}", "host", ctl_json_text(host)) : json_object();
        json_t *error = json_pack("{ss ss so si}", "type", "error", "code", code_name(status),
                                  "message", ctl_json_text(message), "exit", status);

        if (object && (!error || json_object_update(object, error) < 0)) {
                json_decref(object);
                object = NULL;
        }
        json_decref(error);
        ctl_print_json(object);
}

void ctl_print_end(int status) {
        for (size_t i = 0; i < out.n_errors; i++) {
                if (has_error_objects())
                        print_error(status, out.errors[i].host, out.errors[i].message);
                free(out.errors[i].host);
                free(out.errors[i].message);
        }
        out.n_errors = 0;
}

static void __attribute__((format(printf, 2, 0)))
keep_error(const char *host, const char *format, va_list ap) {
        Error *error = &out.errors[out.n_errors];

        if (!out.json || out.n_errors == ERRORS_MAX || vasprintf(&error->message, format, ap) < 0)
                return;
        error->host = host ? strdup(host) : NULL;
        out.n_errors++;
}

static void __attribute__((format(printf, 3, 0)))
say_error(int status, const char *after, const char *format, va_list ap) {
        _cleanup_free_ char *message = NULL;
        va_list copy;

        va_copy(copy, ap);
        write_formatted(error_file(), "fflushctl: ", after, format, ap);
        if (has_error_objects() && vasprintf(&message, format, copy) >= 0)
                print_error(status, NULL, message);
        va_end(copy);
}

void ctl_error(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        write_formatted(error_file(), "fflushctl: ", "\n", format, ap);
        va_end(ap);
        va_start(ap, format);
        keep_error(NULL, format, ap);
        va_end(ap);
}

void ctl_host_error(const char *host, const char *format, ...) {
        va_list ap;

        write_line(error_file(), "fflushctl: ", host, ": ");
        va_start(ap, format);
        write_formatted(error_file(), "", "\n", format, ap);
        va_end(ap);
        va_start(ap, format);
        keep_error(host, format, ap);
        va_end(ap);
}

int ctl_fail(int status, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        say_error(status, "\n", format, ap);
        va_end(ap);
        return status;
}

void ctl_error_lines(const char *text) {
        while (*text) {
                size_t n = strcspn(text, "\n");

                if (n > 0)
                        ctl_error("%.*s", (int) n, text);
                text += n + (text[n] == '\n');
        }
}

void ctl_print_remote_error(const char *host, const char *line) {
        write_line(stderr, "", host, ": ");
        write_line(stderr, "", line, "\n");
}

int ctl_usage(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        say_error(EX_USAGE, "\nTry \"fflushctl --help\".\n", format, ap);
        va_end(ap);
        return EX_USAGE;
}

void ctl_print(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        ctl_vprint(CTL_PLAIN, format, ap);
        va_end(ap);
}

void ctl_print_in(CtlStyle style, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        ctl_vprint(style, format, ap);
        va_end(ap);
}

void ctl_vprint(CtlStyle style, const char *format, va_list ap) {
        bool plain = style == CTL_PLAIN;

        write_formatted(stdout, plain ? "" : ctl_style(style), plain ? "" : ctl_style(CTL_PLAIN),
                        format, ap);
}

void ctl_pass_on(FILE *f, const char *line, bool ends) {
        write_line(f, "", line, ends ? "\n" : "");
}

/* Over the line before, for which there is a terminal. */
static bool has_progress;

void ctl_progress(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        write_formatted(stderr, "\r\033[K", "", format, ap);
        va_end(ap);
        has_progress = true;
}

void ctl_progress_end(void) {
        if (has_progress)
                (void) fputs("\r\033[K", stderr);
        has_progress = false;
}

int ctl_worse(int a, int b) {
        if (a == EX_OK || b == EX_OK)
                return a == EX_OK ? b : a;
        return b > EX_NOINPUT ? b : a;
}

/* Without an object, for which there may be no memory either. */
int ctl_no_memory(void) {
        ctl_error("%s", strerror(ENOMEM));
        return EX_OSERR;
}

bool ctl_end_output(void) {
        bool failed = ferror(stdout); /* why is not known any more */

        errno = 0;
        if (fflush(stdout) == 0 && !failed)
                return true;
        ctl_error("standard output: %s", errno != 0 ? strerror(errno) : "write error");
        return false;
}

const char *ctl_strerror(int error) {
        return error == -EACCES || error == -EPERM ? "permission denied (run as root or postfix)"
                                                   : strerror(-error);
}

/* Return: @object, now with a type as its first key, or NULL. */
static json_t *with_type(json_t *object) {
        json_t *typed;

        if (!object || !out.verb || json_object_get(object, "type"))
                return object;
        typed = json_pack("{ss}", "type", out.verb);
        if (typed && json_object_update(typed, object) < 0) {
                json_decref(typed);
                typed = NULL;
        }
        json_decref(object);
        return typed;
}

int ctl_write_json(json_t *untyped, FILE *f) {
        json_t *object = with_type(untyped);
        _cleanup_free_ char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
        _cleanup_free_ char *shown = text ? escape_json(text) : NULL;

        json_decref(object);
        if (!shown)
                return ctl_no_memory();
        (void) fprintf(f, "%s\n", shown);
        return EX_OK;
}

static int print_status = EX_OK;

void ctl_print_json(json_t *object) {
        print_status = ctl_worse(print_status, ctl_write_json(object, stdout));
}

int ctl_print_status(void) {
        return print_status;
}

json_t *ctl_json_text(const char *text) {
        _cleanup_free_ char *utf8 = text ? escape_utf8(text) : NULL;

        if (!text)
                return json_null();
        return utf8 ? json_string(utf8) : NULL;
}

const char *ctl_style(CtlStyle style) {
        static const char *const codes[] = {
                [CTL_PLAIN] = "\033[0m", [CTL_BOLD] = "\033[1m",   [CTL_DIM] = "\033[2m",
                [CTL_RED] = "\033[31m",  [CTL_GREEN] = "\033[32m", [CTL_YELLOW] = "\033[33m",
        };
        static int colored = -1;

        if (colored < 0) {
                const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

                colored = isatty(STDOUT_FILENO) && !(no_color && *no_color) && term &&
                          !streq(term, "dumb");
        }
        return colored ? codes[style] : "";
}

const char *ctl_age(time_t now, time_t then, char ret[static CTL_AGE_SIZE]) {
        static const struct {
                long seconds;
                const char *unit;
        } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
        long age = now > then ? (long) (now - then) : 0;
        size_t i = 0;

        /* Two of a unit before it is used: "1d" may be nearly two. */
        while (i + 1 < ARRAY_SIZE(units) && age < 2 * units[i].seconds)
                i++;
        (void) snprintf(ret, CTL_AGE_SIZE, "%ld%s", age / units[i].seconds, units[i].unit);
        return ret;
}

void ctl_write_text(FILE *f, const char *text) {
        char line[4 * FINDING_TEXT_SIZE + 1];

        (void) fputs(escape_line(text, line, sizeof line), f);
}

void ctl_print_text(const char *text) {
        ctl_write_text(stdout, text);
}
