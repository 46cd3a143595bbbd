/* SPDX-License-Identifier: MIT */
#pragma once

/* The journal: one structured entry for each decision an operator may ask about. Writing one never
 * blocks: entries that nobody takes are lost and counted, and their number is reported later. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <syslog.h>
#include <systemd/sd-event.h>

#include "core/request.h"
#include "core/table.h"

/* Message IDs, for journalctl MESSAGE_ID=... and the catalog; described in fflushd(8). */
#define JOURNAL_ID_SENT    "a16c399870c142f9ae1ad0f5f4030f8a" /* a site was flushed */
#define JOURNAL_ID_DELIVER "68ff69bf85cf474aa086cdf806fc1d4d" /* one message was expedited */
#define JOURNAL_ID_REFRESH "5c5abc135c074f42940ec08d1a21e450" /* a refresh or purge has ended */
#define JOURNAL_ID_REFUSED "43971ed0ab454917ba3d72bbea977d8d" /* malformed or not eligible */
#define JOURNAL_ID_FAILED  "1a5ba857d9324f299a74de5b17e7eddf" /* could not be done, FAIL */
#define JOURNAL_ID_FILE    "4ca3ee00178c4d46917945cf35da46cd" /* one bad file or record */
#define JOURNAL_ID_TABLE   "2751156ae50b4770a7086d6ccf689c35" /* an eligibility table failed */
#define JOURNAL_ID_TRIGGER "69ef0bdb94e24005b7d8754ba25febbe" /* qmgr was not woken */
#define JOURNAL_ID_CONFIG  "08f737cf37cd45e1bee4a1c68aaf7a27" /* configuration trouble */
#define JOURNAL_ID_ADDED   "5087cdea05314de0bd6ca476bd35f780" /* a record (debug level) */
#define JOURNAL_ID_LOST    "59acb62c2e074899b1e850026142309d" /* entries were lost */
#define JOURNAL_ID_HEALTH  "b6f1c1f0c2a14b8a9d5f0c9d7c3e4a61" /* self-test: broken, or mended */

/* Who sent a request, by SO_PEERCRED. */
typedef struct JournalCaller {
        pid_t pid; /* 0: unknown */
        uid_t uid;
} JournalCaller;

/* What an entry is about; unset members leave their field out. */
typedef struct JournalEvent {
        const char *message_id;
        const char *request; /* FFLUSHD_REQUEST */
        const char *site;    /* FFLUSHD_SITE; valid, or from escape_bytes() */
        const char *queue_id;
        const char *file; /* FFLUSHD_FILE, below the queue directory */
        const RequestStatus *status;
        const RequestCounts *counts;
        const JournalCaller *caller;
        const char *reason; /* FFLUSHD_REASON; from escape_bytes() */
        int error;          /* ERRNO; negative errno, as functions return it */
} JournalEvent;

/**
 * journal_open() - find out where messages go: to the journal if standard error does, else there
 *
 * With $SYSTEMD_LOG_LEVEL (a name or number as in systemd(1)) other levels than "info" and more
 * severe ones are shown.
 */
void journal_open(void);

/**
 * journal_attach() - have what the journal does not take at once sent from this loop
 * @event:  borrowed until the next call, with another one or NULL
 */
void journal_attach(sd_event *event);

/** journal_close() - give journald JOURNAL_SOCKET_CLOSE_MSEC to take what waits */
void journal_close(void);

/**
 * journal_set_names() - tell instances apart
 * @syslog_name:    Postfix's parameter: SYSLOG_IDENTIFIER becomes "postfix-b/fflushd"
 * @instance_name:  FFLUSHD_INSTANCE, or NULL for "postfix"
 *
 * Until this is called, both are those of the first instance.
 */
void journal_set_names(const char *syslog_name, const char *instance_name);

/** journal_wanted() - are messages of this level shown? Ask before costly preparations. */
bool journal_wanted(int level);

/**
 * journal_event() - write one entry
 * @level:  LOG_ERR ... LOG_DEBUG
 * @event:  NULL for a plain message
 *
 * The message may quote anything: it goes through escape_line(). For text that a client can choose,
 * use escape_bytes(), whose result is unambiguous and bounded.
 */
void journal_event(int level, const JournalEvent *event, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/** journal_table_error() - write that a table could not be asked, and table_error() */
void journal_table_error(const Table *table);

#define journal_message(level, ...) journal_event((level), NULL, __VA_ARGS__)

/* How much is shown of what comes from outside, with escape_bytes(). */
#define JOURNAL_TEXT_MAX   30u /* bytes of a client's or file's text (spec 5.3) */
#define JOURNAL_REASON_MAX REQUEST_REASON_MAX
