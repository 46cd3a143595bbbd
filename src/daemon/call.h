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
        bool has_counts;              /* they are known, for a reply with detail */
        const TestFindings *findings; /* of a self-test, until it has been answered; else NULL */
        Site *site;                   /* add and send_site, once they are known to be eligible */
        Call *next;                   /* in the one list it waits in */
        uint64_t since_usec; /* since when it waits: an add to be written, any for newer settings */
        bool is_new;         /* an add: its ID was not known when it was to be written, so it was */
};
