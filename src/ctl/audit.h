/* SPDX-License-Identifier: MIT */
#pragma once

/* Who had something done with fflushctl, and what became of the mail, as an entry of the journal.
 * The service knows a uid only: root's, for all who use sudo(8). journald adds on its own which
 * process it was (_PID, _UID, _AUDIT_LOGINUID); history joins the entries of both programs by the
 * process. */

#include <stdbool.h>

/* In fflushd(8) and the catalog. */
#define AUDIT_MESSAGE_ID "389eef67b59741f889320f7251c53c05"

/* Who is behind this process, in so far as that can be known. */
typedef struct AuditWho {
        char login[64];  /* name, or "" */
        char remote[64]; /* address or host from which that session came, or "" */
        bool sudo;
} AuditWho;

/* Of the messages that were moved, how many ... */
typedef struct AuditOutcome {
        unsigned long moved, delivered, returned, expired, deleted, deferred, held, under_way,
                unknown;
} AuditOutcome;

typedef struct AuditEvent {
        const char *instance;        /* "postfix", or the name of the instance */
        const char *request;         /* as FFLUSHD_REQUEST of the service */
        const char *site, *queue_id; /* NULL: none, or several */
        const char *reason;          /* NULL: none was given */
        const AuditOutcome *outcome; /* NULL: not waited for */
} AuditEvent;

/**
 * audit_who() - by the login session (sd_pid_get_session(3)), the audit login uid, SUDO_USER and
 *               SSH_CONNECTION. The last two are what the environment says, which the caller can
 * set.
 */
void audit_who(AuditWho *ret);

/**
 * audit_write() - an entry, if somebody is behind it, or there is an outcome
 *
 * A timer's run has neither, and needs no second line beside the service's.
 */
void audit_write(const AuditEvent *event);

#define AUDIT_TEXT_SIZE 256u

/** audit_describe() - "287 delivered, 3 returned to sender, 22 deferred again"; "nothing moved".
 * Return: @ret */
const char *audit_describe(const AuditOutcome *outcome, char ret[static AUDIT_TEXT_SIZE]);
