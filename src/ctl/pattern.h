/* SPDX-License-Identifier: MIT */
#pragma once

/* Which of the recorded sites somebody means: one, one with its subdomains, or a glob. */

#include <stdbool.h>

#include "core/sitename.h"

typedef struct Pattern {
        char *glob;            /* NULL: one site */
        char exact[SITE_SIZE]; /* normal form */
} Pattern;

/**
 * pattern_site() - read a site that somebody typed: as sitename_normalize(), or with a dot at the
 * end Return: 0, -EINVAL, -ENOMEM.
 */
int pattern_site(const char *text, char ret[static SITE_SIZE]);

/**
 * pattern_parse() - read what somebody typed
 * @text:  a site in any case or script, or a glob(7) with "*", "?" or "[...]" in it; a text that is
 *         a valid site is one: "[192.0.2.1]" is not a glob. One that begins with "(" is compared as
 * a glob too, so that what survey_site() makes of strange logs can be named.
 * @ret:   receives it, only if this succeeds; pattern_done() it
 *
 * Return: 0, -EINVAL (neither), -ENOMEM.
 */
int pattern_parse(const char *text, Pattern *ret);

/** pattern_matches() - @site is a normal form; a glob's "*" matches dots as well, and a glob may be
 *                     of A-labels or of U-labels */
bool pattern_matches(const Pattern *p, bool subdomains, const char *site);
void pattern_done(Pattern *p);
