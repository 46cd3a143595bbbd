/* SPDX-License-Identifier: MIT */

#include "daemon/journal.h"

#include <ctype.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "daemon/journal-socket.h"
#include "util/escape.h"
#include "util/util.h"

#define MESSAGE_SIZE 1536 /* a site and a reason at their longest, and counts */
#define ENTRY_SIZE   4096
#define NAME_LENGTH  64 /* of syslog_name and instance; more is cut off */

#define PROGRAM      "/fflushd" /* as Postfix names its own: log tools look for "postfix/" */
#define POSTFIX      "postfix"

static int max_level = LOG_INFO;
static bool to_journal, to_terminal;
static char identifier[NAME_LENGTH + sizeof PROGRAM] = POSTFIX PROGRAM;
static char instance[NAME_LENGTH + 1] = POSTFIX;
static unsigned long n_lost; /* since the last report of it */

static void report_lost(void);

static int parse_level(const char *name) {
        static const char *const names[] = {"emerg",   "alert",  "crit", "err",
                                            "warning", "notice", "info", "debug"};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (streq(name, names[i]) || (name[0] == (char) ('0' + i) && name[1] == '\0'))
                        return (int) i;
        return LOG_INFO;
}

/* systemd puts device and inode of the stream to the journal into $JOURNAL_STREAM. */
static bool stderr_is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;

        /* NOLINTNEXTLINE(cert-err34-c): systemd writes numbers that fit */
        return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
               fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void journal_open(void) {
        const char *level = getenv("SYSTEMD_LOG_LEVEL");

        if (level)
                max_level = parse_level(level);
        to_journal = stderr_is_journal();
        to_terminal = isatty(STDERR_FILENO);
        if (to_journal)
                journal_socket_open(report_lost);
}

void journal_attach(sd_event *event) {
        if (to_journal)
                journal_socket_attach(event);
}

void journal_close(void) {
        if (to_journal)
                journal_socket_close();
        to_journal = false;
}

/* @name comes from main.cf or the name of a unit, and may contain anything. */
static void copy_name(char *to, const char *name) {
        (void) snprintf(to, NAME_LENGTH + 1, "%s", name);
        for (; *to; to++)
                if ((unsigned char) *to <= ' ' || *to == 0x7f)
                        *to = '_';
}

void journal_set_names(const char *syslog_name, const char *instance_name) {
        copy_name(identifier, syslog_name[0] ? syslog_name : POSTFIX);
        (void) strcat(identifier, PROGRAM);
        copy_name(instance, instance_name ? instance_name : POSTFIX);
}

bool journal_wanted(int level) {
        return level <= max_level;
}

/* In the journal's native protocol: NAME=value and a newline for each field. */
typedef struct Entry {
        char text[ENTRY_SIZE];
        size_t n;
} Entry;

/* A newline would begin another field, or another line. */
static void make_one_line(char *text) {
        for (; *text; text++)
                if (*text == '\n')
                        *text = ' ';
}

static void add_field(Entry *entry, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_field(Entry *entry, const char *format, ...) {
        char *at = entry->text + entry->n;
        size_t room = sizeof entry->text - entry->n;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(at, room, format, ap);
        va_end(ap);
        if (n < 0 || (size_t) n >= room)
                return; /* an entry without this field is better than no entry */
        make_one_line(at);
        at[n] = '\n';
        entry->n += (size_t) n + 1;
}

/* FFLUSHD_FOUND, FFLUSHD_MOVED, ...: by their names in a reply. */
static void add_counts(Entry *entry, const RequestCounts *counts) {
        RequestCount list[REQUEST_COUNTS_MAX];
        size_t n = request_counts_list(counts, list);

        for (size_t i = 0; i < n; i++) {
                char name[NAME_LENGTH + 1];
                size_t length = 0;

                for (const char *c = list[i].name; *c && length < NAME_LENGTH; c++)
                        name[length++] = (char) toupper((unsigned char) *c);
                name[length] = '\0';
                add_field(entry, "FFLUSHD_%s=%lu", name, list[i].value);
        }
}

static void add_event(Entry *entry, const JournalEvent *e) {
        if (e->message_id)
                add_field(entry, "MESSAGE_ID=%s", e->message_id);
        if (e->request)
                add_field(entry, "FFLUSHD_REQUEST=%s", e->request);
        if (e->site)
                add_field(entry, "FFLUSHD_SITE=%s", e->site);
        if (e->queue_id)
                add_field(entry, "FFLUSHD_QUEUE_ID=%s", e->queue_id);
        if (e->file)
                add_field(entry, "FFLUSHD_FILE=%s", e->file);
        if (e->status)
                add_field(entry, "FFLUSHD_STATUS=%d", (int) *e->status);
        if (e->counts)
                add_counts(entry, e->counts);
        if (e->caller && e->caller->pid > 0) {
                add_field(entry, "FFLUSHD_CALLER_UID=%u", (unsigned) e->caller->uid);
                add_field(entry, "FFLUSHD_CALLER_PID=%u", (unsigned) e->caller->pid);
        }
        if (e->reason)
                add_field(entry, "FFLUSHD_REASON=%s", e->reason);
        if (e->error)
                add_field(entry, "ERRNO=%d", -e->error);
}

static void begin_entry(Entry *entry, int level, const char *message) {
        entry->n = 0;
        add_field(entry, "MESSAGE=%s", message);
        add_field(entry, "PRIORITY=%d", level);
        add_field(entry, "SYSLOG_FACILITY=%d", LOG_FAC(LOG_MAIL));
        add_field(entry, "SYSLOG_IDENTIFIER=%s", identifier);
        add_field(entry, "FFLUSHD_INSTANCE=%s", instance);
}

static bool write_journal(int level, const JournalEvent *event, const char *message) {
        Entry entry;

        begin_entry(&entry, level, message);
        if (event)
                add_event(&entry, event);
        return journal_socket_put(entry.text, entry.n);
}

/* A terminal that is stopped, or a pipe that nobody reads, would block: nothing is written to it
 * then. What has any room has room for a line. */
static bool write_line(int level, const char *message) {
        struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
        char line[MESSAGE_SIZE + 32];
        int n;

        if (poll(&p, 1, 0) == 0)
                return false;
        n = to_terminal ? snprintf(line, sizeof line, "fflushd: %s\n", message)
                        : snprintf(line, sizeof line, "<%d>%s\n", level, message);
        return write(STDERR_FILENO, line, (size_t) n) == n;
}

static bool write_message(int level, const JournalEvent *event, const char *message) {
        return to_journal ? write_journal(level, event, message) : write_line(level, message);
}

static void report_lost(void) {
        const JournalEvent event = {.message_id = JOURNAL_ID_LOST};
        char message[MESSAGE_SIZE];

        if (n_lost == 0)
                return;
        (void) snprintf(message, sizeof message, "%lu entries were lost while %s did not take them",
                        n_lost, to_journal ? "the journal" : "standard error");
        if (write_message(LOG_WARNING, &event, message))
                n_lost = 0;
}

void journal_event(int level, const JournalEvent *event, const char *format, ...) {
        char text[MESSAGE_SIZE], message[MESSAGE_SIZE];
        va_list ap;

        if (!journal_wanted(level))
                return;
        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        (void) escape_line(text, message, sizeof message); /* one entry is one line */
        if (journal_socket_is_calm()) /* else there would be a report after every few losses */
                report_lost();
        n_lost += !write_message(level, event, message);
}

void journal_table_error(const Table *table) {
        journal_event(LOG_WARNING, &(JournalEvent){.message_id = JOURNAL_ID_TABLE},
                      "table %s cannot be asked: %s", table_name(table), table_error(table));
}
