/* SPDX-License-Identifier: MIT */

#include "ctl/columns.h"

#include <assert.h>
#include <stdarg.h>

#include "ctl/relay.h"
#include "util/escape.h"
#include "util/grow.h"
#include "util/util.h"

#define GAP        2
#define ELLIPSIS   "..."
#define NARROW_MIN 20u /* characters of a column that stay in any case */
#define LAST_MIN   40u /* of the last column, for which the others are narrowed */

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

/* A line in the making, cut where the terminal ends. */
typedef struct Line {
        FILE *f;
        size_t n, width; /* characters; 0: no limit */
} Line;

static bool is_start(char c) { /* of a character in UTF-8 */
        return (c & 0xC0) != 0x80;
}

static size_t length_of(const char *text) {
        size_t n = 0;

        for (; *text; text++)
                n += is_start(*text);
        return n;
}

static void put_byte(Line *line, char c) {
        line->n += is_start(c);
        if (line->width == 0 || line->n <= line->width)
                (void) fputc(c, line->f);
}

static void put_text(Line *line, const char *text) {
        for (; *text; text++)
                put_byte(line, *text);
}

static void put_blanks(Line *line, size_t n) {
        while (n-- > 0)
                put_text(line, " ");
}

static void put_cut(Line *line, const char *text, size_t width) {
        size_t end = line->n + width - (sizeof ELLIPSIS - 1);

        for (; line->n < end || !is_start(*text); text++)
                put_byte(line, *text);
        put_text(line, ELLIPSIS);
}

/* The last column is not padded: no line ends in blanks. */
static void put_cell(Line *line, const char *text, size_t width, bool right, bool last) {
        size_t length = length_of(text), n = length < width ? width - length : 0;

        if (right)
                put_blanks(line, n);
        if (length > width && !last)
                put_cut(line, text, width);
        else
                put_text(line, text);
        if (!right && !last)
                put_blanks(line, n);
        if (!last)
                put_blanks(line, GAP);
}

/* @cells: NULL for the titles */
static void put_row(const Columns *c, FILE *f, char *const cells[], const size_t width[]) {
        size_t n = count(c), total = 0;
        Line line = {.f = f};
        bool cut;

        for (size_t i = 0; i < n; i++)
                total += i < n - 1 ? width[i] + GAP
                                   : length_of(cells ? cells[i] : title_of(c->titles[i]));
        cut = c->width > sizeof ELLIPSIS && total > c->width;
        line.width = cut ? c->width - (sizeof ELLIPSIS - 1) : 0;
        for (size_t i = 0; i < n; i++)
                put_cell(&line, cells ? cells[i] : title_of(c->titles[i]), width[i],
                         is_right(c->titles[i]), i == n - 1);
        if (cut)
                (void) fputs(ELLIPSIS, f);
}

static void print_fields(const Columns *c, FILE *f, size_t n) {
        relay_fields(f, RELAY_TITLES, c->titles, n);
        for (size_t i = 0; i + n <= c->n; i += n)
                relay_fields(f, RELAY_ROW, (const char *const *) c->cells + i, n);
}

static void measure(const Columns *c, size_t n, size_t width[]) {
        for (size_t i = 0; i < n; i++)
                width[i] = length_of(title_of(c->titles[i]));
        for (size_t i = 0; i < c->n; i++)
                if (length_of(c->cells[i]) > width[i % n])
                        width[i % n] = length_of(c->cells[i]);
}

/* Long names leave room for what is right of them, which is numbers and a reason: the longest ones
 * are cut first. */
static void make_room(const Columns *c, size_t n, size_t width[]) {
        size_t total = 0, widest;

        for (size_t i = 0; i < n - 1; i++)
                total += width[i] + GAP;
        total += width[n - 1] < LAST_MIN ? width[n - 1] : LAST_MIN;
        for (; c->width > 0 && total > c->width; total--) {
                widest = n;
                for (size_t i = 0; i < n - 1; i++)
                        if (!is_right(c->titles[i]) && width[i] > NARROW_MIN &&
                            (widest == n || width[i] > width[widest]))
                                widest = i;
                if (widest == n)
                        return;
                width[widest]--;
        }
}

void columns_print(const Columns *c, FILE *f, const char *on, const char *off) {
        size_t width[COLUMNS_MAX] = {0}, n = count(c);

        assert(n > 0 && n <= COLUMNS_MAX);
        if (relay_is_on()) {
                print_fields(c, f, n);
                return;
        }
        measure(c, n, width);
        make_room(c, n, width);
        if (!c->no_titles) {
                (void) fputs(on, f);
                put_row(c, f, NULL, width);
                (void) fprintf(f, "%s\n", off);
        }
        for (size_t i = 0; i + n <= c->n; i += n) {
                put_row(c, f, c->cells + i, width);
                (void) fputc('\n', f);
        }
}

void columns_cut(FILE *f, const char *line, size_t width) {
        bool cut = width > sizeof ELLIPSIS && length_of(line) > width;
        Line out = {.f = f, .width = cut ? width - (sizeof ELLIPSIS - 1) : width};

        put_text(&out, line);
        if (cut)
                (void) fputs(ELLIPSIS, f);
}

void columns_done(Columns *c) {
        while (c->n > 0)
                free(c->cells[--c->n]);
        free(c->cells);
        c->cells = NULL;
        c->size = 0;
}
