/* SPDX-License-Identifier: MIT */
#pragma once

/* What fflushctl says to the fflushctl that runs it on one of several hosts: tables in fields,
 * which become rows of one table, and counts, which are added up. They are lines among the others
 * on standard output and begin with a control character, which no other line does, because all else
 * is escaped. A version that does not know of this prints what it prints to people. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define RELAY_VARIABLE "FFLUSHCTL_RELAY" /* in the environment: set if it is run so */
#define RELAY_HELLO    '\001'            /* the first line: it knows of this */
#define RELAY_TITLES   '\002' /* of a table, as in Columns; with RELAY_FIELD before each */
#define RELAY_ROW      '\003' /* of the table before, likewise */
#define RELAY_COUNT    '\004' /* a number, RELAY_FIELD, what it counts */
#define RELAY_FIELD    '\037'

/** relay_begin() - say RELAY_HELLO if this one is run so; before all other output */
void relay_begin(void);
bool relay_is_on(void);

/** relay_fields() - a line of that kind with @n fields, which are printable */
void relay_fields(FILE *f, char kind, const char *const fields[], size_t n);

/** relay_count() - a count of this host, if another one adds them up; @what is printable */
void relay_count(unsigned long count, const char *what);
