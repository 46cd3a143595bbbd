/* SPDX-License-Identifier: MIT */
#pragma once

/* The eligibility list (fast_flush_domains): names, .domains, "!", /files, static:, tables. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/table.h"

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
 * @site:     normal form (sitename_normalize())
 * @ret_why:  receives the reason of DOMAINS_ERROR, valid until the next call
 *
 * The first item that matches decides. A name matches whether the site and the item are written
 * with A-labels or U-labels; a table is asked for both.
 *
 * Source: spec 6; both spellings are ours: flush(8) compares the text as it was sent.
 */
DomainsAnswer domains_match(Domains *d, const char *site, const char **ret_why);

/** domains_can_match() - is there a site that the list has? Not if it is empty, or only excludes */
bool domains_can_match(const Domains *d);

/**
 * domains_n_tables() - how many tables the list has, those after its first error not counted
 *
 * So many may be asked at a time.
 */
unsigned domains_n_tables(const Domains *d);

/**
 * domains_ask_table() - look a site up in one of them, whatever the list has before it
 * @i:         below domains_n_tables()
 * @ret_name:  receives type:name
 * @ret_why:   receives the reason of TABLE_ERROR
 *
 * After TABLE_PENDING: domains_start(). An error is forgotten after a while, as table_lookup() has
 * it, so an answer is to be taken once.
 */
TableAnswer domains_ask_table(Domains *d, size_t i, const char *site, const char **ret_name,
                              const char **ret_why);

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
