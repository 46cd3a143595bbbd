/* SPDX-License-Identifier: MIT */
#pragma once

/* Records that flush(8) has left: it keeps those of a-b.example in the log of a.b.example. Once
 * such a message is recorded under its own site, the older record makes it count twice, for a site
 * that it is not for. */

#include "ctl/ctl.h"
#include "util/strset.h"

/* The deferred messages that Postfix has listed for a site. */
typedef struct GhostSite {
        const char *site; /* normal form */
        const StrSet *listed;
} GhostSite;

/**
 * ghosts_clear() - remove records that are in the log of another site as well, where they belong
 * @sites:        all sites that Postfix has listed mail for; sorted anew
 * @ret_removed:  receives the number of records that were removed, also if not all could be
 *
 * A record goes if its message is listed for a site whose records flush(8) has in this log, is not
 * listed for the site that fflushd has in it, and is in the log of its own, which is on the disk.
 * All of it under the locks of both logs; so at each moment each message is recorded. Those of
 * messages that have left the queue go as well. Only if Postfix does not ask flush(8) any more.
 *
 * Done by the owner of the queue, in a process of its own if this one is root.
 *
 * Return: EX_OK, EX_TEMPFAIL (a log was locked for too long, by flush(8)), or trouble.
 */
int ghosts_clear(Ctl *ctl, GhostSite sites[], size_t n, unsigned long *ret_removed);
