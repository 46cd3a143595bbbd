/* SPDX-License-Identifier: MIT */

#include "ctl/ctl.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#include "ctl/client.h"
#include "util/child.h"
#include "util/escape.h"
#include "util/util.h"

#define SHOWN_MAX     60 /* bytes of what is no site or queue ID */
#define POSTCONF_USEC (20 * USEC_PER_SEC)
#define LOOK_USEC     (10 * USEC_PER_SEC)

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

void ctl_error(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        write_formatted(stderr, "fflushctl: ", "\n", format, ap);
        va_end(ap);
}

void ctl_error_lines(const char *text) {
        while (*text) {
                size_t n = strcspn(text, "\n");

                if (n > 0)
                        ctl_error("%.*s", (int) n, text);
                text += n + (text[n] == '\n');
        }
}

int ctl_usage(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        write_formatted(stderr, "fflushctl: ", "\nTry \"fflushctl --help\".\n", format, ap);
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

int ctl_no_memory(void) {
        ctl_error("%s", strerror(ENOMEM));
        return EX_OSERR;
}

int ctl_worse(int a, int b) {
        if (a == EX_OK || b == EX_OK)
                return a == EX_OK ? b : a;
        return b > EX_NOINPUT ? b : a;
}

/* What main.cf does not tell is not guessed: it would be the queue of another instance. */
static int check_instance(const Ctl *ctl) {
        const char *directory = ctl->settings.postfix_config_directory;
        char path[PATH_MAX];

        (void) snprintf(path, sizeof path, "%s/main.cf", directory);
        if (!ctl->instance || !ctl->settings.incomplete || access(path, F_OK) == 0)
                return EX_OK;
        ctl_error("no such instance: %s: %s", path, strerror(errno));
        return EX_NOINPUT;
}

static int load_settings(Ctl *ctl) {
        int r;

        if (ctl->has_settings)
                return check_instance(ctl);
        r = settings_load(ctl->config, ctl->instance, &ctl->settings);
        if (r < 0) {
                ctl_error("%s", strerror(-r));
                return EX_OSERR;
        }
        ctl->has_settings = true;
        r = check_instance(ctl);
        if (r == EX_OK && ctl->settings.problems)
                ctl_error_lines(ctl->settings.problems);
        return r;
}

/* What postconf(1) said has just been printed. */
static int refuse_to_guess(void) {
        ctl_error("where the queue is and how it is laid out is not known, and not guessed");
        return EX_CONFIG;
}

/* Of any but the default instance a guess would be the queue of another one. */
static bool may_guess(const Ctl *ctl) {
        return ctl->may_guess && !ctl->instance &&
               streq(ctl->settings.postfix_config_directory, "/etc/postfix");
}

int ctl_settings(Ctl *ctl) {
        int r = load_settings(ctl);

        return r == EX_OK && ctl->settings.incomplete && !may_guess(ctl) ? refuse_to_guess() : r;
}

int ctl_queue(Ctl *ctl) {
        int r;

        if (ctl->queue.fd >= 0)
                return EX_OK;
        r = load_settings(ctl);
        if (r == EX_OK && ctl->settings.incomplete)
                r = refuse_to_guess();
        if (r != EX_OK)
                return r;
        r = queue_open(ctl->settings.queue_directory, ctl->settings.hash_queue_names,
                       ctl->settings.hash_queue_depth, &ctl->queue);
        if (r == 0)
                return EX_OK;
        ctl_error("%s: %s", ctl->settings.queue_directory, strerror(-r));
        return r == -EACCES ? EX_NOPERM : EX_UNAVAILABLE;
}

/* The owner is whoever owns the mail: public/ and flush/ go by that. */
int ctl_become_owner(Ctl *ctl) {
        struct stat st;

        if (fstatat(ctl->queue.fd, queue_name(QUEUE_INCOMING), &st, AT_SYMLINK_NOFOLLOW) < 0) {
                ctl_error("%s: %s", ctl->settings.queue_directory, strerror(errno));
                return EX_NOINPUT;
        }
        if (geteuid() == st.st_uid)
                return EX_OK;
        if (geteuid() != 0 || st.st_uid == 0) {
                ctl_error("this needs root, or the owner of the queue, who is not root");
                return EX_NOPERM;
        }
        if (setgroups(0, NULL) < 0 || setegid(st.st_gid) < 0 || seteuid(st.st_uid) < 0) {
                ctl_error("cannot become the owner of the queue: %s", strerror(errno));
                return EX_OSERR;
        }
        return EX_OK;
}

int ctl_socket(Ctl *ctl) {
        int r;

        if (ctl->socket_path)
                return EX_OK;
        if (ctl->socket)
                ctl->socket_path = strdup(ctl->socket);
        else {
                r = ctl_settings(ctl);
                if (r != EX_OK)
                        return r;
                if (asprintf(&ctl->socket_path, "%s/public/%s", ctl->settings.queue_directory,
                             CTL_SERVICE) < 0)
                        ctl->socket_path = NULL;
        }
        if (ctl->socket_path)
                return EX_OK;
        return ctl_no_memory();
}

char *ctl_postconf(Ctl *ctl, const char *name) {
        const char *directory = ctl->settings.postfix_config_directory;
        static const char postconf[] = POSTFIX_COMMAND_DIR "/postconf";
        const char *argv[] = {postconf, "-c", directory, "-xh", name, NULL};
        ChildResult result;
        char *value = NULL;

        if (!directory[0] || child_run(argv, POSTCONF_USEC, &result) < 0)
                return NULL;
        if (result.status == 0)
                value = strndup(result.output, strcspn(result.output, "\n"));
        free(result.output);
        free(result.errors);
        return value;
}

void ctl_command_name(const Ctl *ctl, char ret[static CTL_UNIT_SIZE]) {
        (void) snprintf(ret, CTL_UNIT_SIZE, "fflushctl%s%s", ctl->instance ? " -i " : "",
                        ctl->instance ? ctl->instance : "");
}

void ctl_unit_name(const Ctl *ctl, const char *name, const char *type,
                   char ret[static CTL_UNIT_SIZE]) {
        const char *instance = ctl->instance;

        (void) snprintf(ret, CTL_UNIT_SIZE, "%s%s%s.%s", name, instance ? "@" : "",
                        instance ? instance : "", type);
}

uint64_t ctl_patience(const Ctl *ctl) {
        return ctl->timeout > 0 ? ctl->timeout : LOOK_USEC;
}

int ctl_connect_error(const Ctl *ctl, int error) {
        char unit[CTL_UNIT_SIZE];

        ctl_unit_name(ctl, "fflush", "socket", unit);
        if (error == -ENOENT || error == -ECONNREFUSED)
                ctl_error("cannot connect to %s: %s (is %s started?)", ctl->socket_path,
                          strerror(-error), unit);
        else
                ctl_error("cannot connect to %s: %s", ctl->socket_path,
                          error == -ETIMEDOUT ? "whoever listens there takes no connections"
                                              : strerror(-error));
        return error == -EACCES || error == -EPERM ? EX_NOPERM
               : error == -ETIMEDOUT               ? EX_TEMPFAIL
                                                   : EX_UNAVAILABLE;
}

static int say_no_reply(const char *what, int error) {
        ctl_error("%s: %s", what,
                  error == -ECONNRESET || error == -EPIPE
                          ? "the service closed the connection without a reply"
                  : error == -EBADMSG   ? "the reply makes no sense"
                  : error == -ETIMEDOUT ? "no reply in time"
                                        : strerror(-error));
        return error == -EBADMSG ? EX_PROTOCOL : EX_TEMPFAIL;
}

static int say_status(const char *what, RequestStatus status) {
        switch (status) {
        case REQUEST_OK:
                return EX_OK;
        case REQUEST_FAIL:
                ctl_error("%s: failed, the journal says why", what);
                return EX_TEMPFAIL;
        case REQUEST_BAD:
                ctl_error("%s: the service calls this request malformed", what);
                return EX_DATAERR;
        case REQUEST_DENY:
                ctl_error("%s: not in fast_flush_domains", what);
                return EX_NOPERM;
        default:
                ctl_error("%s: unknown status %d", what, (int) status);
                return EX_PROTOCOL;
        }
}

/* A line on the terminal for what takes longer than a second. */
static const char *waiting_for;

static void show_waiting(uint64_t usec) {
        ctl_progress("%s: %lu s", waiting_for, (unsigned long) (usec / USEC_PER_SEC));
}

static void begin_waiting(const Ctl *ctl, const char *what) {
        if (ctl->quiet || !isatty(STDERR_FILENO))
                return;
        waiting_for = what;
        client_patience = show_waiting;
}

static void end_waiting(void) {
        ctl_progress_end();
        client_patience = NULL;
}

int ctl_ask(Ctl *ctl, const Request *request, const char *what, RequestStatus *ret_status,
            RequestCounts *ret_counts, bool *ret_has_counts) {
        uint64_t begun = now_usec(), rest = ctl->timeout, past;
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = ctl_socket(ctl);
        if (r != EX_OK)
                return r;
        fd = client_connect(ctl->socket_path, rest);
        if (fd < 0)
                return ctl_connect_error(ctl, fd);
        past = now_usec() - begun;
        if (rest > 0) /* and not 0, which is for ever */
                rest = rest > past ? rest - past : 1;
        begin_waiting(ctl, what);
        if (request->kind == REQUEST_REFRESH || request->kind == REQUEST_PURGE)
                r = client_work(fd, ctl->socket_path, request, rest, ret_status, ret_counts,
                                ret_has_counts);
        else
                r = client_ask(fd, request, rest, ret_status, ret_counts, ret_has_counts);
        end_waiting();
        if (r < 0)
                return say_no_reply(what, r);
        return say_status(what, *ret_status);
}

int ctl_no_site(const char *text) {
        ctl_error("not a domain name%s: \"%.*s\"%s",
                  strchr(text, '@') ? " (an address? give what is after the @)" : "", SHOWN_MAX,
                  text, strlen(text) > SHOWN_MAX ? " (cut)" : "");
        return EX_DATAERR;
}

int ctl_check_id(const char *id) {
        if (queueid_valid(id, strlen(id)))
                return EX_OK;
        ctl_error("not a queue ID: \"%.*s\"%s", SHOWN_MAX, id,
                  strlen(id) > SHOWN_MAX ? " (cut)" : "");
        return EX_DATAERR;
}

int ctl_write_json(json_t *object, FILE *f) {
        _cleanup_free_ char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
        _cleanup_free_ char *shown = text ? escape_json(text) : NULL;

        json_decref(object);
        if (!shown)
                return ctl_no_memory();
        (void) fprintf(f, "%s\n", shown);
        return EX_OK;
}

void ctl_print_json(json_t *object) {
        (void) ctl_write_json(object, stdout);
}

json_t *ctl_json_text(const char *text) {
        _cleanup_free_ char *utf8 = text ? escape_utf8(text) : NULL;

        if (!text)
                return json_null();
        return utf8 ? json_string(utf8) : NULL;
}

static const char *status_name(RequestStatus status) {
        return status == REQUEST_OK     ? "ok"
               : status == REQUEST_FAIL ? "failed"
               : status == REQUEST_BAD  ? "malformed"
               : status == REQUEST_DENY ? "denied"
                                        : "unknown";
}

json_t *ctl_json_counts(const char *first, const char *value, RequestStatus status,
                        const RequestCounts *c) {
        json_t *object = json_pack("{so ss}", first, ctl_json_text(value), "status",
                                   status_name(status)),
               *counts;

        if (!object || !c)
                return object;
        counts = json_pack("{sI sI sI sI sI sI sI sI}", "found", (json_int_t) c->found, "moved",
                           (json_int_t) c->moved, "gone", (json_int_t) c->gone, "busy",
                           (json_int_t) c->busy, "failed", (json_int_t) c->failed, "duplicate",
                           (json_int_t) c->duplicate, "invalid", (json_int_t) c->invalid, "left",
                           (json_int_t) c->left);
        if (!counts || json_object_update(object, counts) < 0) {
                json_decref(object);
                object = NULL;
        }
        json_decref(counts);
        return object;
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
