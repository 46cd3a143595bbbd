/* SPDX-License-Identifier: MIT */
#pragma once

/* Postfix's log, from now on: what became of messages. Read wherever this host keeps it, in the
 * journal and in files, as each may have a part only: agents in a chroot(2) may reach another
 * syslogd than those outside, and journald drops what comes too fast. */

#include <stdbool.h>

#include "core/queueid.h"

typedef enum MaillogEvent {
        MAILLOG_SENT,     /* to a recipient */
        MAILLOG_BOUNCED,  /* returned to the sender, for a recipient */
        MAILLOG_DEFERRED, /* for a recipient */
        MAILLOG_EXPIRED,  /* returned to the sender for all recipients that are left: too old */
        MAILLOG_REMOVED,  /* by qmgr(8), after all recipients have been logged */
        MAILLOG_DELETED,  /* by postsuper(1) */
} MaillogEvent;

typedef struct MaillogEntry {
        char id[QUEUEID_MAX + 1];
        MaillogEvent event;
        const char *recipient; /* of the first three, else NULL */
        const char *reason;    /* of the first three: what is in parentheses; "": nothing */
        unsigned source;       /* 0 to 31; the same entry may come from several */
} MaillogEntry;

typedef void (*maillog_entry_t)(const MaillogEntry *entry, void *userdata);

typedef struct Maillog Maillog;

/**
 * maillog_new() - begin where the log ends now
 * @syslog_name:  of the Postfix instance
 * @files:        where syslogd or postlogd(8) may write it, up to a NULL; those that are not there,
 *                or may not be read, are left out
 * @journal:      a directory of journal files; NULL: the system's journal
 *
 * Return: 0, or -ENOMEM.
 */
int maillog_new(const char *syslog_name, const char *const *files, const char *journal,
                Maillog **ret);
Maillog *maillog_free(Maillog *log);

/** maillog_is_readable() - is there anything that may be read? */
bool maillog_is_readable(const Maillog *log);

/** maillog_read() - what has come since the last call, in the order of each source; never waits.
 * A file that is rotated meanwhile is read to its end, then the one that has its name. */
void maillog_read(Maillog *log, maillog_entry_t each, void *userdata);

/**
 * maillog_parse() - an entry of Postfix's
 * @program:  "smtp", "qmgr": after the last '/' of the tag
 * @text:     after the tag; changed
 *
 * Return: false if it is about something else. @ret points into @text.
 * Source: the log of Postfix 3.5 to 3.10.
 */
bool maillog_parse(const char *program, char *text, MaillogEntry *ret);
