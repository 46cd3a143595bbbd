/* SPDX-License-Identifier: MIT */

#include "ctl/maillog.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-journal.h>

#include "util/util.h"

#define JOURNAL_SOURCE 0u          /* the files have the numbers from 1 */
#define LINE_MAX_BYTES (64 * 1024) /* a longer line is not Postfix's */

typedef struct LogFile {
        const char *path;
        FILE *f; /* NULL: it is not there */
        ino_t inode;
        off_t offset; /* up to where lines have been read */
} LogFile;

struct Maillog {
        char *syslog_name;
        sd_journal *journal; /* NULL: none can be read */
        LogFile *files;
        size_t n_files;
};

/* -------------------------------------------------------------------------------- an entry */

/* Up to the '>' that ends an address; in a quoted local part it ends nothing. */
static char *end_of_address(char *p) {
        bool quoted = false;

        for (; *p; p++)
                if (*p == '\\' && p[1])
                        p++;
                else if (*p == '"')
                        quoted = !quoted;
                else if (*p == '>' && !quoted)
                        return p;
        return NULL;
}

static bool parse_status(char *text, MaillogEntry *ret) {
        static const struct {
                const char *word;
                MaillogEvent event;
        } words[] = {{"sent", MAILLOG_SENT},
                     {"bounced", MAILLOG_BOUNCED},
                     {"deferred", MAILLOG_DEFERRED}};
        size_t n = strcspn(text, " ");
        char *reason = text + n, *end;

        reason += strspn(reason, " (");
        end = reason + strlen(reason);
        if (end > reason && end[-1] == ')')
                end[-1] = '\0';
        ret->reason = reason;
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (strlen(words[i].word) == n && memcmp(text, words[i].word, n) == 0) {
                        ret->event = words[i].event;
                        return true;
                }
        return false;
}

/* "to=<a@b>, relay=none, delay=1, delays=..., dsn=4.4.1, status=deferred (why)" */
static bool parse_recipient(char *text, MaillogEntry *ret) {
        char *end, *status;

        ret->recipient = text + strlen("to=<");
        end = end_of_address(text + strlen("to=<"));
        if (!end)
                return false;
        *end++ = '\0';
        /* A second address, as it was before it was rewritten. */
        if (strncmp(end, ", orig_to=<", strlen(", orig_to=<")) == 0)
                end = end_of_address(end + strlen(", orig_to=<"));
        status = end ? strstr(end, ", status=") : NULL;
        return status && parse_status(status + strlen(", status="), ret);
}

static bool ends_in(const char *text, const char *end) {
        size_t n = strlen(text), k = strlen(end);

        return n >= k && streq(text + n - k, end);
}

bool maillog_parse(const char *program, char *text, MaillogEntry *ret) {
        size_t n = strcspn(text, ":");

        *ret = (MaillogEntry){0};
        if (n > QUEUEID_MAX || !queueid_valid(text, n) || text[n] != ':' || text[n + 1] != ' ')
                return false;
        memcpy(ret->id, text, n);
        text += n + 2;
        if (strncmp(text, "to=<", strlen("to=<")) == 0)
                return parse_recipient(text, ret);
        if (streq(text, "removed")) {
                ret->event = streq(program, "postsuper") ? MAILLOG_DELETED : MAILLOG_REMOVED;
                return true;
        }
        ret->event = MAILLOG_EXPIRED;
        return streq(program, "qmgr") &&
               (ends_in(text, ", status=expired, returned to sender") ||
                ends_in(text, ", status=force-expired, returned to sender"));
}

/* The program in a tag "postfix/smtp" or "postfix/submission/smtpd" of this instance; else NULL. */
static const char *program_of(const Maillog *log, const char *tag) {
        size_t n = strlen(log->syslog_name);

        if (strncmp(tag, log->syslog_name, n) != 0 || tag[n] != '/')
                return NULL;
        return strrchr(tag, '/') + 1;
}

static void take(const Maillog *log, unsigned source, const char *tag, char *text,
                 maillog_entry_t each, void *userdata) {
        const char *program = program_of(log, tag);
        MaillogEntry entry;

        if (!program || !maillog_parse(program, text, &entry))
                return;
        entry.source = source;
        each(&entry, userdata);
}

/* ------------------------------------------------------------------------------------ files */

/* @at_end: what is in it by now is of no interest. */
static void open_file(LogFile *file, bool at_end) {
        int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;

        /* "maillog_file = /dev/stdout" is not for reading. */
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !(file->f = fdopen(fd, "r"))) {
                if (fd >= 0)
                        (void) close(fd);
                return;
        }
        file->inode = st.st_ino;
        file->offset = at_end ? st.st_size : 0;
}

static void close_file(LogFile *file) {
        if (file->f)
                (void) fclose(file->f);
        file->f = NULL;
}

/* "Nov 28 06:02:58 host postfix/smtp[5980]: text", or with another time stamp. */
static void take_line(const Maillog *log, unsigned source, char *line, maillog_entry_t each,
                      void *userdata) {
        size_t n = strlen(log->syslog_name);
        char *tag = line, *end;

        do {
                tag = strstr(tag, log->syslog_name);
                if (!tag)
                        return;
                tag += n;
        } while (*tag != '/' || tag - n == line || tag[-1 - (ssize_t) n] != ' ');
        tag -= n;
        end = tag + strcspn(tag, "[ ");
        if (*end != '[')
                return;
        *end = '\0';
        end = strstr(end + 1, "]: ");
        if (end)
                take(log, source, tag, end + strlen("]: "), each, userdata);
}

/* A line that does not end yet is left for the next time. */
static void read_lines(const Maillog *log, LogFile *file, maillog_entry_t each, void *userdata) {
        _cleanup_free_ char *line = NULL;
        size_t size = 0;
        ssize_t n;

        clearerr(file->f);
        if (fseeko(file->f, file->offset, SEEK_SET) < 0)
                return;
        while ((n = getline(&line, &size, file->f)) > 0 && line[n - 1] == '\n') {
                file->offset += n;
                line[n - 1] = '\0';
                if (n < LINE_MAX_BYTES)
                        take_line(log, (unsigned) (file - log->files) + 1, line, each, userdata);
        }
}

static void read_file(const Maillog *log, LogFile *file, maillog_entry_t each, void *userdata) {
        struct stat st;

        if (file->f) {
                /* logrotate's copytruncate */
                if (fstat(fileno(file->f), &st) == 0 && st.st_size < file->offset)
                        file->offset = 0;
                read_lines(log, file, each, userdata);
        }
        if (stat(file->path, &st) < 0 || (file->f && st.st_ino == file->inode))
                return;
        close_file(file);
        open_file(file, false);
        if (file->f)
                read_lines(log, file, each, userdata);
}

/* ---------------------------------------------------------------------------------- journal */

static void open_journal(Maillog *log, const char *directory) {
        int r = directory
                        ? sd_journal_open_directory(&log->journal, directory, 0)
                        : sd_journal_open(&log->journal, SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_SYSTEM);

        if (r < 0) {
                log->journal = NULL;
                return;
        }
        (void) sd_journal_get_fd(log->journal); /* from now on new files are noticed */
        if (sd_journal_add_match(log->journal, "SYSLOG_FACILITY=2", 0) < 0 || /* mail */
            sd_journal_seek_realtime_usec(log->journal, realtime_usec()) < 0) {
                sd_journal_close(log->journal);
                log->journal = NULL;
        }
}

/* Return: a new string, or NULL. */
static char *read_field(sd_journal *journal, const char *name) {
        size_t n, n_name = strlen(name) + 1;
        const void *data;

        if (sd_journal_get_data(journal, name, &data, &n) < 0 || n < n_name)
                return NULL;
        return strndup((const char *) data + n_name, n - n_name);
}

static void read_journal(const Maillog *log, maillog_entry_t each, void *userdata) {
        (void) sd_journal_process(log->journal);
        while (sd_journal_next(log->journal) > 0) {
                _cleanup_free_ char *tag = read_field(log->journal, "SYSLOG_IDENTIFIER");
                _cleanup_free_ char *text = NULL;

                if (!tag || !program_of(log, tag))
                        continue;
                text = read_field(log->journal, "MESSAGE");
                if (text)
                        take(log, JOURNAL_SOURCE, tag, text, each, userdata);
        }
}

/* -------------------------------------------------------------------------------------- all */

int maillog_new(const char *syslog_name, const char *const *files, const char *journal,
                Maillog **ret) {
        Maillog *log = calloc(1, sizeof *log);
        size_t n = 0;

        while (files[n])
                n++;
        if (!log || !(log->syslog_name = strdup(syslog_name)) ||
            !(log->files = calloc(n + 1, sizeof *log->files))) {
                maillog_free(log);
                return -ENOMEM;
        }
        for (; log->n_files < n; log->n_files++) {
                log->files[log->n_files].path = files[log->n_files];
                open_file(&log->files[log->n_files], true);
        }
        open_journal(log, journal);
        *ret = log;
        return 0;
}

Maillog *maillog_free(Maillog *log) {
        if (!log)
                return NULL;
        for (size_t i = 0; i < log->n_files; i++)
                close_file(&log->files[i]);
        free(log->files);
        if (log->journal)
                sd_journal_close(log->journal);
        free(log->syslog_name);
        free(log);
        return NULL;
}

/* Without permission to read any of its files a journal can be opened, and is empty. */
bool maillog_is_readable(const Maillog *log) {
        for (size_t i = 0; i < log->n_files; i++)
                if (log->files[i].f)
                        return true;
        return log->journal && (sd_journal_has_runtime_files(log->journal) > 0 ||
                                sd_journal_has_persistent_files(log->journal) > 0);
}

void maillog_read(Maillog *log, maillog_entry_t each, void *userdata) {
        for (size_t i = 0; i < log->n_files; i++)
                read_file(log, &log->files[i], each, userdata);
        if (log->journal)
                read_journal(log, each, userdata);
}
