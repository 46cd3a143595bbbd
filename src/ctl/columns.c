/* SPDX-License-Identifier: MIT */

#include "ctl/columns.h"

#include <assert.h>
#include <stdarg.h>

#include "ctl/relay.h"
#include "util/escape.h"
#include "util/grow.h"
#include "util/util.h"

#define GAP 2

static size_t count(const Columns *c) {
        size_t n = 0;

        while (c->titles[n])
                n++;
        return n;
}

static bool is_right(const char *title) {
        return title[0] == '>';
}

static const char *title_of(const char *title) {
        return title + is_right(title);
}

int columns_add(Columns *c, const char *format, ...) {
        _cleanup_free_ char *text = NULL;
        va_list ap;
        char *cell;

        if (!GROW(c->cells, c->n, c->size))
                return -ENOMEM;
        va_start(ap, format);
        if (vasprintf(&text, format, ap) < 0)
                text = NULL;
        va_end(ap);
        cell = text ? malloc(4 * strlen(text) + 1) : NULL;
        if (!cell)
                return -ENOMEM;
        (void) escape_line(text, cell, 4 * strlen(text) + 1);
        c->cells[c->n++] = cell;
        return 0;
}

/* The last column is not padded: no line ends in blanks. */
static void print_cell(FILE *f, const char *text, int width, bool right, bool last) {
        if (right)
                (void) fprintf(f, "%*s", width, text);
        else
                (void) fprintf(f, "%-*s", last ? 0 : width, text);
        if (!last)
                (void) fprintf(f, "%*s", GAP, "");
}

static void print_fields(const Columns *c, FILE *f, size_t n) {
        relay_fields(f, RELAY_TITLES, c->titles, n);
        for (size_t i = 0; i + n <= c->n; i += n)
                relay_fields(f, RELAY_ROW, (const char *const *) c->cells + i, n);
}

void columns_print(const Columns *c, FILE *f, const char *on, const char *off) {
        size_t width[COLUMNS_MAX], n = count(c);

        assert(n > 0 && n <= COLUMNS_MAX);
        if (relay_is_on()) {
                print_fields(c, f, n);
                return;
        }
        for (size_t i = 0; i < n; i++)
                width[i] = strlen(title_of(c->titles[i]));
        for (size_t i = 0; i < c->n; i++)
                if (strlen(c->cells[i]) > width[i % n])
                        width[i % n] = strlen(c->cells[i]);

        (void) fputs(on, f);
        for (size_t i = 0; i < n; i++)
                print_cell(f, title_of(c->titles[i]), (int) width[i], is_right(c->titles[i]),
                           i == n - 1);
        (void) fprintf(f, "%s\n", off);
        for (size_t i = 0; i < c->n - c->n % n; i++) {
                print_cell(f, c->cells[i], (int) width[i % n], is_right(c->titles[i % n]),
                           i % n == n - 1);
                if (i % n == n - 1)
                        (void) fputc('\n', f);
        }
}

void columns_done(Columns *c) {
        while (c->n > 0)
                free(c->cells[--c->n]);
        free(c->cells);
        c->cells = NULL;
        c->size = 0;
}
