/* SPDX-License-Identifier: MIT */

#include "ctl/outcome.h"

#include "util/hash.h"
#include "util/util.h"

typedef struct Recipient {
        UT_hash_handle hh;
        MaillogEvent event;
        unsigned source;
        char *reason; /* "": none, as of what was delivered */
        char address[];
} Recipient;

typedef struct Message {
        UT_hash_handle hh;
        Recipient *recipients;
        unsigned ended; /* the sources that have told of its end, a bit each */
        bool expired, removed, deleted;
        bool incomplete; /* an entry was lost for want of memory */
        char id[];
} Message;

struct Outcomes {
        Message *messages;
};

Outcomes *outcomes_new(void) {
        return calloc(1, sizeof(Outcomes));
}

static void free_recipients(Message *m) {
        Recipient *r, *tmp;

        HASH_ITER (hh, m->recipients, r, tmp) {
                HASH_DEL(m->recipients, r);
                free(r->reason);
                free(r);
        }
}

Outcomes *outcomes_free(Outcomes *o) {
        Message *m, *tmp;

        if (!o)
                return NULL;
        HASH_ITER (hh, o->messages, m, tmp) {
                HASH_DEL(o->messages, m);
                free_recipients(m);
                free(m);
        }
        free(o);
        return NULL;
}

static Message *find(const Outcomes *o, const char *id) {
        Message *m;

        HASH_FIND_STR(o->messages, id, m);
        return m;
}

int outcomes_add(Outcomes *o, const char *id) {
        size_t n = strlen(id);
        bool oom = false;
        Message *m;

        if (find(o, id))
                return 0;
        m = calloc(1, sizeof *m + n + 1);
        if (!m)
                return -ENOMEM;
        memcpy(m->id, id, n);
        HASH_ADD_KEYPTR(hh, o->messages, m->id, n, m);
        if (!oom)
                return 0;
        free(m);
        return -ENOMEM;
}

static Recipient *get_recipient(Message *m, const char *address) {
        size_t n = strlen(address);
        bool oom = false;
        Recipient *r;

        HASH_FIND_STR(m->recipients, address, r);
        if (r)
                return r;
        r = calloc(1, sizeof *r + n + 1);
        if (!r)
                return NULL;
        memcpy(r->address, address, n);
        HASH_ADD_KEYPTR(hh, m->recipients, r->address, n, r);
        if (!oom)
                return r;
        free(r);
        return NULL;
}

/* Of several sources the one that spoke first is believed: another may lag behind it, and what it
 * says of an earlier attempt must not replace what is known of a later one. */
static void take_recipient(Message *m, const MaillogEntry *entry) {
        const char *text = entry->event == MAILLOG_SENT ? "" : entry->reason;
        Recipient *r = get_recipient(m, entry->recipient);
        char *reason;

        if (r && r->reason && r->source != entry->source)
                return;
        reason = strdup(text);
        if (!r || !reason) {
                free(reason);
                m->incomplete = true;
                return;
        }
        free(r->reason);
        r->reason = reason;
        r->event = entry->event;
        r->source = entry->source;
}

/* After its end in one source, what that source says of the ID is about another message. A source
 * that lags behind, or has the entries of other agents, still has to tell what led to the end. */
void outcomes_take(Outcomes *o, const MaillogEntry *entry) {
        Message *m = find(o, entry->id);
        unsigned source = 1u << entry->source;

        if (!m || (m->ended & source))
                return;
        switch (entry->event) {
        case MAILLOG_SENT:
        case MAILLOG_BOUNCED:
        case MAILLOG_DEFERRED:
                take_recipient(m, entry);
                break;
        case MAILLOG_EXPIRED:
                m->expired = true;
                break;
        case MAILLOG_REMOVED:
                m->removed = true;
                m->ended |= source;
                break;
        case MAILLOG_DELETED:
                m->deleted = true;
                m->ended |= source;
                break;
        }
}

static void count(const Message *m, OutcomeRecipients *ret) {
        *ret = (OutcomeRecipients){0};
        for (const Recipient *r = m->recipients; r; r = r->hh.next) {
                ret->sent += r->event == MAILLOG_SENT;
                ret->bounced += r->event == MAILLOG_BOUNCED;
                ret->deferred += r->event == MAILLOG_DEFERRED;
        }
}

Outcome outcomes_of(const Outcomes *o, const char *id, OutcomeRecipients *ret_recipients) {
        const Message *m = find(o, id);
        OutcomeRecipients n = {0};

        if (m)
                count(m, &n);
        if (ret_recipients)
                *ret_recipients = n;
        if (!m || m->incomplete)
                return OUTCOME_UNKNOWN;
        if (m->deleted)
                return OUTCOME_DELETED;
        if (m->expired)
                return OUTCOME_EXPIRED;
        if (!m->removed)
                return OUTCOME_UNKNOWN;
        if (n.bounced > 0)
                return OUTCOME_RETURNED;
        return n.sent > 0 && n.deferred == 0 ? OUTCOME_DELIVERED : OUTCOME_UNKNOWN;
}

const char *outcomes_next_reason(const Outcomes *o, const char *id, MaillogEvent event,
                                 const void **state, const char **ret_reason) {
        const Message *m = *state ? NULL : find(o, id);
        const Recipient *r = *state ? ((const Recipient *) *state)->hh.next
                             : m    ? m->recipients
                                    : NULL;

        while (r && r->event != event)
                r = r->hh.next;
        if (!r)
                return NULL;
        *state = r;
        *ret_reason = r->reason;
        return r->address;
}
