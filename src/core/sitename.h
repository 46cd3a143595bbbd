/* SPDX-License-Identifier: MIT */
#pragma once

/* Sites (destination domains and address literals): the one normal form of each, and the name
 * of its log. */

#include <stddef.h>

#define SITE_TEXT_MAX 1023u          /* longest text that is looked at at all */
#define SITE_MAX      253u           /* longest normal form */
#define SITE_SIZE     (SITE_MAX + 1) /* with the final NUL */
#define SITE_LOG_SIZE (SITE_MAX + 1) /* of a log name; "x" becomes "xZ", both fit */

/**
 * sitename_fold() - fold case, as flush(8) does before it compares
 * @text:  ends in NUL
 * @ret:   receives a new string, to be freed; full Unicode folding if @text is UTF-8, else ASCII
 *
 * No IDNA here: a U-label and its A-label stay two different texts.
 *
 * Return: 0, or -ENOMEM.
 * Source: spec 6 (item 6).
 */
int sitename_fold(const char *text, char **ret);

/**
 * sitename_normalize() - the one name under which a site is recorded
 * @text:  as a client sent it, in any case; UTF-8 for internationalised names
 * @ret:   receives lower-case A-labels, or "[192.0.2.1]", "[ipv6:2001:db8::1]"
 *
 * Return: 0, -EINVAL (no valid host name or address literal), -ENOMEM.
 * Source: spec 4.1, UTS 46 non-transitional; address literals as Postfix before 3.0 (ours: later
 *         releases refuse them by accident).
 */
int sitename_normalize(const char *text, char ret[static SITE_SIZE]);

/**
 * sitename_unicode() - how people write a site: with U-labels in the place of A-labels
 * @site:  normal form
 * @ret:   receives a new string in UTF-8 and lower case, to be freed; NULL: it has no A-label
 *
 * Return: 0, or -ENOMEM.
 * Source: UTS 46 non-transitional.
 */
int sitename_unicode(const char *site, char **ret);

/**
 * sitename_to_log() - name of the log of a site
 * @site:  normal form, from sitename_normalize()
 * @ret:   receives the name, which is valid by queueid_valid() and has at least two characters
 *
 * Letters and digits stand for themselves and '.' is '_', as in flush(8). Every other character
 * has an upper-case letter of its own, which flush(8) never uses but accepts; so no two sites
 * share a log. One-character names get a 'Z': flush(8) and postsuper(1) take a one-character
 * name in the log directory for a hash directory, and Postfix then refuses to start.
 *
 * Source: ours; spec 4.1 and 9.1, 9.9 for what it mends.
 */
void sitename_to_log(const char *site, char ret[static SITE_LOG_SIZE]);

/**
 * sitename_to_original() - the name under which flush(8) has the log of a site
 * @ret:  receives it: what is not a letter or a digit is '_'. Several sites may have the same.
 *
 * Source: spec 4.1.
 */
void sitename_to_original(const char *site, char ret[static SITE_LOG_SIZE]);

/**
 * sitename_from_log() - the site whose log has this name
 * @log:  name of a log
 * @ret:  receives the site
 *
 * A log that flush(8) wrote for a site with other characters than letters, digits and dots
 * decodes to a different site: its names cannot be told apart, which is why ours differ.
 *
 * Return: 0, or -EINVAL (not a name that sitename_to_log() makes).
 * Source: ours.
 */
int sitename_from_log(const char *log, char ret[static SITE_SIZE]);
