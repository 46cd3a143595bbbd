/* SPDX-License-Identifier: MIT */

#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define SD_JOURNAL_SUPPRESS_LOCATION /* line numbers of log.c would help nobody */
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#include "escape.h"
#include "util.h"

#define MESSAGE_SIZE 1536 /* a site and a reason at their longest, and counts */
#define FIELDS_MAX   24
#define FIELDS_SIZE  4096

#define IDENTIFIER   "postfix/fflushd" /* as Postfix names its own: log tools look for "postfix/" */

static int max_level = LOG_INFO;
static bool to_journal, to_terminal;

static int parse_level(const char *name) {
        static const char *const names[] = {"emerg",   "alert",  "crit", "err",
                                            "warning", "notice", "info", "debug"};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (streq(name, names[i]) || (name[0] == (char) ('0' + i) && name[1] == '\0'))
                        return (int) i;
        return LOG_INFO;
}

/* systemd tells in $JOURNAL_STREAM which device and inode is the journal. */
static bool stderr_is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;

        /* NOLINTNEXTLINE(cert-err34-c): what systemd writes there does fit */
        return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
               fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_open(void) {
        const char *level = getenv("SYSTEMD_LOG_LEVEL");

        if (level)
                max_level = parse_level(level);
        to_journal = stderr_is_journal();
        to_terminal = isatty(STDERR_FILENO);
}

bool log_wanted(int level) {
        return level <= max_level;
}

typedef struct Fields {
        struct iovec iov[FIELDS_MAX];
        int n;
        char text[FIELDS_SIZE];
        size_t used;
} Fields;

static void add_field(Fields *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_field(Fields *f, const char *format, ...) {
        char *at = f->text + f->used;
        size_t room = sizeof f->text - f->used;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(at, room, format, ap);
        va_end(ap);
        if (n < 0 || (size_t) n >= room || f->n == FIELDS_MAX)
                return; /* an entry without this field is better than none */
        f->iov[f->n++] = (struct iovec){.iov_base = at, .iov_len = (size_t) n};
        f->used += (size_t) n + 1;
}

static void add_counts(Fields *f, const RequestCounts *c) {
        add_field(f, "FFLUSHD_FOUND=%lu", c->found);
        add_field(f, "FFLUSHD_MOVED=%lu", c->moved);
        add_field(f, "FFLUSHD_GONE=%lu", c->gone);
        add_field(f, "FFLUSHD_BUSY=%lu", c->busy);
        add_field(f, "FFLUSHD_FAILED=%lu", c->failed);
        add_field(f, "FFLUSHD_DUPLICATE=%lu", c->duplicate);
        add_field(f, "FFLUSHD_INVALID=%lu", c->invalid);
        if (c->left > 0)
                add_field(f, "FFLUSHD_LEFT=%lu", c->left);
        if (c->sites > 0)
                add_field(f, "FFLUSHD_SITES=%lu", c->sites);
}

static void add_event(Fields *f, const LogEvent *e) {
        if (e->message_id)
                add_field(f, "MESSAGE_ID=%s", e->message_id);
        if (e->request)
                add_field(f, "FFLUSHD_REQUEST=%s", e->request);
        if (e->site)
                add_field(f, "FFLUSHD_SITE=%s", e->site);
        if (e->queue_id)
                add_field(f, "FFLUSHD_QUEUE_ID=%s", e->queue_id);
        if (e->file)
                add_field(f, "FFLUSHD_FILE=%s", e->file);
        if (e->status)
                add_field(f, "FFLUSHD_STATUS=%d", (int) *e->status);
        if (e->counts)
                add_counts(f, e->counts);
        if (e->caller && e->caller->pid > 0) {
                add_field(f, "FFLUSHD_CALLER_UID=%u", (unsigned) e->caller->uid);
                add_field(f, "FFLUSHD_CALLER_PID=%u", (unsigned) e->caller->pid);
        }
        if (e->reason)
                add_field(f, "FFLUSHD_REASON=%s", e->reason);
        if (e->error)
                add_field(f, "ERRNO=%d", -e->error);
}

static void write_journal(int level, const LogEvent *event, const char *message) {
        Fields f = {.n = 0};

        add_field(&f, "MESSAGE=%s", message);
        add_field(&f, "PRIORITY=%d", level);
        add_field(&f, "SYSLOG_FACILITY=%d", LOG_FAC(LOG_MAIL));
        add_field(&f, "SYSLOG_IDENTIFIER=%s", IDENTIFIER);
        if (event)
                add_event(&f, event);
        (void) sd_journal_sendv(f.iov, f.n); /* there is nowhere else to complain */
}

void log_event(int level, const LogEvent *event, const char *format, ...) {
        char text[MESSAGE_SIZE], message[MESSAGE_SIZE];
        va_list ap;

        if (!log_wanted(level))
                return;
        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        (void) escape_line(text, message, sizeof message); /* one entry is one line */

        if (to_journal)
                write_journal(level, event, message);
        else if (to_terminal)
                (void) fprintf(stderr, "fflushd: %s\n", message);
        else
                (void) fprintf(stderr, "<%d>%s\n", level, message);
}
