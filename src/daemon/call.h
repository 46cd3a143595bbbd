/* SPDX-License-Identifier: MIT */
#pragma once

/* One request on its way through the service, from the last byte read to the reply. */

#include "core/request.h"
#include "daemon/journal.h"

typedef struct Site Site;

typedef struct Call Call;
struct Call {
        Request request; /* its strings live as long as the call */
        JournalCaller caller;
        RequestStatus status;
        RequestCounts counts;
        bool has_counts;              /* for a reply with detail */
        const TestFindings *findings; /* of a self-test, while it is answered; else NULL */
        Site *site;                   /* of add and send_site, once it is known to be eligible */
        Call *next;                   /* in the list in which it waits; in one at a time */
        uint64_t since_usec; /* since when it waits, for the lock of a log or for newer settings */
        bool is_new;         /* of an add: it was written, since it was not known to be recorded */
};
