/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what became of the messages that were followed (ctl-wait), and why. */

#include "ctl/audit.h"
#include "ctl/ctl-sites.h"
#include "ctl/ctl-wait.h"

typedef struct CtlReason CtlReason;

typedef struct CtlReport {
        AuditOutcome total;
        AuditOutcome recipients;        /* of messages of which the log tells */
        bool several;                   /* these differ in number from their messages */
        AuditOutcome *groups;           /* of the messages, by group */
        CtlReason *returned, *deferred; /* the commonest first; a message has one */
} CtlReport;

/**
 * ctl_report_make() - after ctl_wait_end()
 * @recipients:  whose reasons are shown
 * @n_groups:  above all groups that were given to ctl_wait_add()
 * @ret:       ctl_report_done() it in any case
 *
 * Return: an exit status.
 */
int ctl_report_make(Ctl *ctl, const CtlWait *w, CtlPatterns *recipients, size_t n_groups,
                    CtlReport *ret);
void ctl_report_done(CtlReport *report);

/**
 * ctl_report_print() - for people or as JSON; nothing if @ctl->quiet
 * @what:  "moved"; NULL: without the line that has the sum
 */
void ctl_report_print(const Ctl *ctl, const CtlReport *report, const char *what);

/**
 * ctl_report_status() - Return: EX_OK (all are known to be delivered; what an operator has deleted
 *                       or put on hold does not count), EX_NOUSER (some were returned to the
 *                       sender), or EX_TEMPFAIL (some are deferred, under way, or not known).
 */
int ctl_report_status(const AuditOutcome *o);

/** ctl_audit() - audit_write() for a request, @site and @queue_id and @outcome as there */
void ctl_audit(const Ctl *ctl, const char *request, const char *site, const char *queue_id,
               const AuditOutcome *outcome);
