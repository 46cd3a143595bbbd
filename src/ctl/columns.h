/* SPDX-License-Identifier: MIT */
#pragma once

/* A table for people: columns as wide as what is in them. */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define COLUMNS_MAX 16u

typedef struct Columns {
        const char *const *titles; /* end in NULL; one that begins with '>' is aligned right */
        char **cells;
        size_t n, size;
        size_t width; /* of the terminal: where lines are longer, long cells on the left are cut,
                       * then the lines, and end in "..."; 0: none is */
        bool no_titles;
} Columns;

/**
 * columns_add() - the next cell, row by row; it is shown as escape_line() makes it
 * Return: 0, or -ENOMEM.
 */
int columns_add(Columns *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * columns_print() - the titles, and all rows that are complete; in fields if relay_is_on()
 * @on, @off:  what to print before and after the titles, for colour; "" for none
 */
void columns_print(const Columns *c, FILE *f, const char *on, const char *off);

/** columns_cut() - a printable line without its end, cut as a row is; 0: not */
void columns_cut(FILE *f, const char *line, size_t width);

void columns_done(Columns *c);
