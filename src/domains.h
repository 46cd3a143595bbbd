/* SPDX-License-Identifier: MIT */
#pragma once

/* The eligibility list (fast_flush_domains): names, .domains, "!", /files, static:, tables. */

#include <stdbool.h>
#include <stdint.h>

#include "table.h"

typedef struct Domains Domains;

typedef enum DomainsAnswer {
        DOMAINS_NO,
        DOMAINS_YES,
        DOMAINS_ERROR,   /* cannot be decided; domains_match() says why */
        DOMAINS_PENDING, /* a table has to be asked: domains_start() */
} DomainsAnswer;

/**
 * domains_new() - read a list
 * @text:        as in main.cf
 * @subdomains:  a name stands for its subdomains too (parent_domain_matches_subdomains)
 * @postmap:     for tables, see table_new()
 * @ret:         receives the list, also when some item of it is wrong
 * @ret_problem: receives NULL, or what is wrong, to be freed; the search ends at that item with
 *               DOMAINS_ERROR, as in Postfix
 *
 * Return: 0, or -ENOMEM.
 * Source: spec 6.
 */
int domains_new(const char *text, bool subdomains, const char *const *postmap, Domains **ret,
                char **ret_problem);
Domains *domains_free(Domains *d);

/**
 * domains_match() - is the site eligible?
 * @site:     folded (site_fold())
 * @ret_why:  receives the reason of DOMAINS_ERROR, valid until the next call
 *
 * The first item that matches decides. The empty site never matches, nor one of more than
 * SITE_TEXT_MAX bytes; a site with blanks or control characters, or that
 * is not UTF-8, is in no table.
 */
DomainsAnswer domains_match(Domains *d, const char *site, const char **ret_why);

/** domains_changed() - has a /file of the list changed since it was read? */
bool domains_changed(const Domains *d);

/**
 * domains_start() - ask the tables that domains_match() needs
 * @done:  called for each table, when its answers are there; match again then
 *
 * Return: 0, or a negative errno: a table could not be asked, and its sites can be matched again
 *         at once (DOMAINS_ERROR).
 */
int domains_start(Domains *d, sd_event *event, table_done_t done, void *userdata);
