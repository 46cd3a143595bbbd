/* SPDX-License-Identifier: MIT */
#pragma once

/* A Postfix lookup table (type:name) as an eligibility pattern, asked through postmap(1). */

#include <stdbool.h>
#include <systemd/sd-event.h>

typedef enum TableAnswer {
        TABLE_MISS,
        TABLE_HIT,
        TABLE_ERROR,   /* table_error() says why */
        TABLE_PENDING, /* will be asked by the next table_start() */
} TableAnswer;

typedef struct Table Table;

/**
 * table_new() - a table that has not been asked anything yet
 * @name:        type:name as in main.cf
 * @subdomains:  parent_domain_matches_subdomains holds: "a.b.c" is looked up as a.b.c, b.c and c;
 *               else as a.b.c, .b.c and .c. Tables of patterns are asked for a.b.c only.
 * @postmap:     argv of postmap(1) but for the table, ends in NULL; borrowed
 *
 * Return: 0, or -ENOMEM.
 * Source: spec 6; manual page of each table type.
 */
int table_new(const char *name, bool subdomains, const char *const *postmap, Table **ret);
Table *table_free(Table *table);

/**
 * table_lookup() - is the site in the table?
 * @site:     not empty, no control characters or blanks: postmap(1) takes one key a line
 * @another:  the same site in another spelling, of which that holds as well; NULL: there is none.
 *            A hit for either is one. It follows from @site.
 *
 * Answers are kept for a minute (an error: a second), and bounded in number: a change to the
 * table is seen in time, and a storm of adds for one site asks once.
 */
TableAnswer table_lookup(Table *table, const char *site, const char *another);

/* @failed: the table, if it could not be asked; table_error() says why */
typedef void (*table_done_t)(const Table *failed, void *userdata);

/**
 * table_start() - ask for all sites that have been looked up in vain, with one postmap(1)
 * @done:  called when answers are there; look up again then
 *
 * Nothing happens while an earlier postmap(1) for this table runs, or if there is nothing to ask.
 *
 * Return: 0, or a negative errno; the sites then have the answer TABLE_ERROR.
 */
int table_start(Table *table, sd_event *event, table_done_t done, void *userdata);

const char *table_name(const Table *table);

/** table_error() - why the last TABLE_ERROR, one line for people */
const char *table_error(const Table *table);
