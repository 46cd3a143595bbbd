/* SPDX-License-Identifier: MIT */
#pragma once

/* Which sites the service would refuse: by the same list, read and asked anew. */

#include "ctl/ctl.h"
#include "util/strset.h"

/**
 * eligible_refused() - find the sites that are not in fast_flush_domains
 * @sites:  in their normal form
 * @ret:    receives those that are not; strset_clear() it in any case
 * @ret_undecided:  receives those of which it cannot be told, likewise; may be NULL
 *
 * The service is not asked, and thus not started. Its tables are asked with postmap(1), a few
 * hundred sites at a time.
 *
 * Return: EX_OK, EX_CONFIG (it cannot be told of some site: these are not in @ret, and a message
 *         says why), or EX_OSERR.
 */
int eligible_refused(Ctl *ctl, const StrSet *sites, StrSet *ret, StrSet *ret_undecided);
