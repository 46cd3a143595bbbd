/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what a flush at once and one in portions have in common. */

#include "core/request.h"
#include "ctl/ctl-report.h"
#include "ctl/ctl-sites.h"
#include "ctl/ctl-wait.h"

/**
 * ctl_flush_site() - flush one site, or preview that, and say what was done
 * @limit:  move at most this many messages; 0: all
 * @ret:    receives all 0 if the service does not tell
 */
int ctl_flush_site(Ctl *ctl, const CtlSite *site, unsigned long limit, RequestCounts *ret);

/** ctl_say_flushed() - the line or object for a site; @counts: NULL if the service does not tell */
void ctl_say_flushed(const Ctl *ctl, const char *site, RequestStatus status,
                     const RequestCounts *counts);

/** ctl_follow_sites() - ctl_wait_begin(), and follow all that is recorded; a site's place is the
 * group of its messages */
int ctl_follow_sites(Ctl *ctl, const CtlSites *sites, CtlWait *w);

/** ctl_audit_sites() - an entry for each site that was flushed; @report: may be NULL */
void ctl_audit_sites(const Ctl *ctl, const CtlSites *sites, const bool *flushed,
                     const CtlReport *report);

/** ctl_flush_paced() - flush --limit --every: a portion at a time, each message once */
int ctl_flush_paced(Ctl *ctl, const CtlSites *sites, CtlPatterns *recipients);
