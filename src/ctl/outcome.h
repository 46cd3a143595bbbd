/* SPDX-License-Identifier: MIT */
#pragma once

/* What became of messages that are in no queue any more, by Postfix's log (maillog). Never a guess:
 * what the log does not tell is OUTCOME_UNKNOWN. */

#include <stdbool.h>

#include "ctl/maillog.h"

typedef enum Outcome {
        OUTCOME_UNKNOWN,   /* the log does not tell, or not yet */
        OUTCOME_DELIVERED, /* to all recipients that it was tried for */
        OUTCOME_RETURNED,  /* to the sender, for one recipient at least */
        OUTCOME_EXPIRED,   /* the same, as it was too old */
        OUTCOME_DELETED,   /* by postsuper(1) */
        _OUTCOME_MAX,
} Outcome;

/* Recipients that a message was tried for, by the last that is known of each. */
typedef struct OutcomeRecipients {
        unsigned long sent, bounced, deferred;
} OutcomeRecipients;

typedef struct Outcomes Outcomes;

/* Return: NULL: no memory. */
Outcomes *outcomes_new(void);
Outcomes *outcomes_free(Outcomes *o);

/** outcomes_add() - take entries of this message in. Return: 0, or -ENOMEM. */
int outcomes_add(Outcomes *o, const char *id);

/**
 * outcomes_take() - take an entry in
 *
 * A message that was not added is ignored, and so is all that comes after a message was removed:
 * the queue ID may be that of another one by then. If memory is short the message stays unknown.
 */
void outcomes_take(Outcomes *o, const MaillogEntry *entry);

/** outcomes_of() - @ret_recipients: may be NULL */
Outcome outcomes_of(const Outcomes *o, const char *id, OutcomeRecipients *ret_recipients);

/**
 * outcomes_next_reason() - why a message was returned, or deferred: go through its recipients
 * @state:  NULL at first; receives where it is
 * @event:  MAILLOG_BOUNCED or MAILLOG_DEFERRED
 *
 * Return: the next recipient's address, with @ret_reason; NULL: there is none left.
 */
const char *outcomes_next_reason(const Outcomes *o, const char *id, MaillogEvent event,
                                 const void **state, const char **ret_reason);
