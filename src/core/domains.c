/* SPDX-License-Identifier: MIT */

#include "core/domains.h"

#include <stdio.h>

#include "core/sitename.h"
#include "util/filestamp.h"
#include "util/grow.h"
#include "util/hash.h"
#include "util/textfile.h"
#include "util/util.h"

#define FILE_DEPTH_MAX 10
#define FILE_SIZE_MAX  (64 * 1024 * 1024)
#define SEPARATORS     " \t\r\n,"

/* Names are found by hash, however many there are; @index is their place in the list. */
typedef struct Literal {
        UT_hash_handle hh;
        unsigned index;
        bool excluded;
        char name[];
} Literal;

/* All else is gone through one by one, in the order of the list. */
typedef struct Item {
        enum {
                ITEM_ANY, /* static: */
                ITEM_TABLE,
                ITEM_ERROR,
        } kind;
        unsigned index;
        bool excluded;
        Table *table;
        char *error;
} Item;

struct Domains {
        bool subdomains;
        const char *const *postmap;
        Filestamp *files;
        Literal *literals;
        Item *items;
        size_t n_items, n_allocated;
        unsigned n; /* items of both kinds so far */
        bool ended; /* by an error: no search gets beyond it */
        char why[512];
};

static int parse(Domains *d, char *text, bool excluded, unsigned depth);

static int add_item(Domains *d, Item item) {
        if (!GROW(d->items, d->n_items, d->n_allocated))
                return -ENOMEM;
        item.index = d->n++;
        d->items[d->n_items++] = item;
        return 0;
}

static int add_error(Domains *d, const char *format, const char *what, const char *why) {
        Item item = {.kind = ITEM_ERROR};
        int r;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        if (asprintf(&item.error, format, what, why) < 0)
                return -ENOMEM;
#pragma GCC diagnostic pop
        r = add_item(d, item);
        if (r < 0)
                free(item.error);
        d->ended = true;
        return r;
}

static int add_name(Domains *d, const char *name, unsigned index, bool excluded) {
        size_t n = strlen(name);
        bool oom = false;
        Literal *l;

        HASH_FIND_STR(d->literals, name, l);
        if (l) /* the first one decides */
                return 0;
        l = malloc(sizeof *l + n + 1);
        if (!l)
                return -ENOMEM;
        l->index = index;
        l->excluded = excluded;
        memcpy(l->name, name, n + 1);
        HASH_ADD_STR(d->literals, name, l);
        if (oom) {
                free(l);
                return -ENOMEM;
        }
        return 0;
}

/* Under its normal form, so that it does not matter how it is written; and folded, as flush(8) has
 * it: also what is no valid site, and names that differ in nothing else (sharp s and "ss"). */
static int add_literal(Domains *d, const char *text, bool excluded) {
        _cleanup_free_ char *folded = NULL;
        char name[1 + SITE_SIZE] = ".";
        bool of_parent = text[0] == '.';
        unsigned index = d->n++;
        int r;

        r = sitename_fold(text, &folded);
        if (r == 0)
                r = add_name(d, folded, index, excluded);
        if (r < 0)
                return r;
        r = sitename_normalize(text + of_parent, name + 1);
        if (r == 0)
                r = add_name(d, name + !of_parent, index, excluded);
        return r == -EINVAL ? 0 : r;
}

static int add_table(Domains *d, const char *name, bool excluded) {
        Item item = {.kind = ITEM_TABLE, .excluded = excluded};
        int r;

        if (strncmp(name, "static:", strlen("static:")) == 0) {
                item.kind = ITEM_ANY;
                return add_item(d, item);
        }
        r = table_new(name, d->subdomains, d->postmap, &item.table);
        if (r < 0)
                return r;
        r = add_item(d, item);
        if (r < 0)
                table_free(item.table);
        return r;
}

/* A comment goes to the end of its line; turning it into blanks leaves the patterns. */
static void blank_comments(char *text) {
        char *p = text;

        while ((p = strchr(p, '#'))) {
                if (p == text || strchr(SEPARATORS, p[-1]))
                        memset(p, ' ', strcspn(p, "\n"));
                p++;
        }
}

static int add_file(Domains *d, const char *path, bool excluded, unsigned depth) {
        _cleanup_free_ char *text = NULL;
        int r;

        if (depth >= FILE_DEPTH_MAX)
                return add_error(d, "%s: %s", path, "files name each other in a circle");
        r = filestamp_add(&d->files, path);
        if (r < 0)
                return r;
        r = textfile_read(path, FILE_SIZE_MAX, &text);
        if (r < 0)
                return r == -ENOMEM ? r : add_error(d, "%s: %s", path, textfile_strerror(r));
        blank_comments(text);
        return parse(d, text, excluded, depth + 1);
}

static int add_pattern(Domains *d, const char *pattern, bool excluded, unsigned depth) {
        for (; *pattern == '!'; pattern++)
                excluded = !excluded;
        if (*pattern == '\0')
                return add_error(d, "%s%s", "no pattern after '!'", "");
        if (*pattern == '/')
                return add_file(d, pattern, excluded, depth);
        if (*pattern != '[' && strchr(pattern, ':'))
                return add_table(d, pattern, excluded);
        return add_literal(d, pattern, excluded);
}

/* Takes one pattern off @text: up to a separator that stands outside of braces. */
static char *next_pattern(char **text) {
        char *p = *text + strspn(*text, SEPARATORS), *start = p;
        unsigned braces = 0;

        for (; *p && (braces > 0 || !strchr(SEPARATORS, *p)); p++) {
                if (*p == '{')
                        braces++;
                else if (*p == '}' && braces > 0)
                        braces--;
        }
        if (p == start)
                return NULL;
        if (*p)
                *p++ = '\0';
        *text = p;
        return start;
}

/* Stops at the first error: a file that names itself twice would be read 2^FILE_DEPTH_MAX times. */
static int parse(Domains *d, char *text, bool excluded, unsigned depth) {
        char *pattern;
        int r = 0;

        while (r == 0 && !d->ended && (pattern = next_pattern(&text)))
                r = add_pattern(d, pattern, excluded, depth);
        return r;
}

static const Item *first_error(const Domains *d) {
        for (size_t i = 0; i < d->n_items; i++)
                if (d->items[i].kind == ITEM_ERROR)
                        return &d->items[i];
        return NULL;
}

int domains_new(const char *text, bool subdomains, const char *const *postmap, Domains **ret,
                char **ret_problem) {
        _cleanup_free_ char *copy = strdup(text), *problem = NULL;
        Domains *d = calloc(1, sizeof *d);
        int r = copy && d ? 0 : -ENOMEM;

        if (r == 0) {
                const Item *error;

                d->subdomains = subdomains;
                d->postmap = postmap;
                r = parse(d, copy, false, 0);
                error = first_error(d);
                if (r == 0 && error && !(problem = strdup(error->error)))
                        r = -ENOMEM;
        }
        if (r < 0) {
                domains_free(d);
                return r;
        }
        *ret = d;
        *ret_problem = TAKE_PTR(problem);
        return 0;
}

Domains *domains_free(Domains *d) {
        Literal *l, *tmp;

        if (!d)
                return NULL;
        HASH_ITER (hh, d->literals, l, tmp) {
                HASH_DEL(d->literals, l);
                free(l);
        }
        for (size_t i = 0; i < d->n_items; i++) {
                table_free(d->items[i].table);
                free(d->items[i].error);
        }
        free(d->items);
        filestamp_free(d->files);
        free(d);
        return NULL;
}

/* In parent mode a.b.c is matched by "a.b.c", "b.c" and "c"; else by "a.b.c", ".b.c" and ".c".
 * Return: the earliest item of those and @best. */
static const Literal *match_literal(const Domains *d, const char *site, const Literal *best) {
        const Literal *l;

        for (const char *key = site;;) {
                const char *dot;

                HASH_FIND_STR(d->literals, key, l);
                if (l && (!best || l->index < best->index))
                        best = l;
                dot = strchr(key + (!d->subdomains && key[0] == '.'), '.');
                if (!dot)
                        return best;
                key = d->subdomains ? dot + 1 : dot;
        }
}

bool domains_can_match(const Domains *d) {
        const Literal *l;

        for (size_t i = 0; i < d->n_items; i++)
                if (d->items[i].kind != ITEM_ERROR && !d->items[i].excluded)
                        return true;
        for (l = d->literals; l; l = l->hh.next)
                if (!l->excluded)
                        return true;
        return false;
}

unsigned domains_n_tables(const Domains *d) {
        unsigned n = 0;

        for (size_t i = 0; i < d->n_items; i++)
                n += d->items[i].kind == ITEM_TABLE;
        return n;
}

TableAnswer domains_ask_table(Domains *d, size_t i, const char *site, const char **ret_name,
                              const char **ret_why) {
        const Item *item = d->items;
        TableAnswer answer;

        while (item->kind != ITEM_TABLE || i-- > 0)
                item++;
        answer = table_lookup(item->table, site, NULL);
        *ret_name = table_name(item->table);
        *ret_why = table_error(item->table);
        return answer;
}

bool domains_changed(const Domains *d) {
        return filestamp_changed(d->files);
}

static DomainsAnswer decided(bool excluded) {
        return excluded ? DOMAINS_NO : DOMAINS_YES;
}

static DomainsAnswer match_item(Domains *d, const Item *item, const char *site,
                                const char *unicode) {
        switch (item->kind) {
        case ITEM_ANY:
                return DOMAINS_YES;
        case ITEM_TABLE:
                switch (table_lookup(item->table, site, unicode)) {
                case TABLE_HIT:
                        return DOMAINS_YES;
                case TABLE_PENDING:
                        return DOMAINS_PENDING;
                case TABLE_MISS:
                        return DOMAINS_NO;
                default:
                        (void) snprintf(d->why, sizeof d->why, "table %s: %s",
                                        table_name(item->table), table_error(item->table));
                        return DOMAINS_ERROR;
                }
        default:
                (void) snprintf(d->why, sizeof d->why, "%s", item->error);
                return DOMAINS_ERROR;
        }
}

/* With U-labels, and folded as the list is. @ret receives NULL if there are none. */
static int fold_unicode(const char *site, char **ret) {
        _cleanup_free_ char *unicode = NULL;
        int r = sitename_unicode(site, &unicode);

        *ret = NULL;
        return r < 0 || !unicode ? r : sitename_fold(unicode, ret);
}

DomainsAnswer domains_match(Domains *d, const char *site, const char **ret_why) {
        _cleanup_free_ char *unicode = NULL;
        const Literal *literal;

        if (fold_unicode(site, &unicode) < 0) {
                *ret_why = strerror(ENOMEM);
                return DOMAINS_ERROR;
        }
        literal = match_literal(d, site, NULL);
        if (unicode)
                literal = match_literal(d, unicode, literal);
        for (size_t i = 0; i < d->n_items; i++) {
                const Item *item = &d->items[i];
                DomainsAnswer answer;

                if (literal && literal->index < item->index)
                        break;
                answer = match_item(d, item, site, unicode);
                if (answer == DOMAINS_YES)
                        return decided(item->excluded);
                if (answer == DOMAINS_ERROR)
                        *ret_why = d->why;
                if (answer != DOMAINS_NO)
                        return answer;
        }
        return literal ? decided(literal->excluded) : DOMAINS_NO;
}

int domains_start(Domains *d, sd_event *event, table_done_t done, void *userdata) {
        int r = 0;

        for (size_t i = 0; i < d->n_items; i++)
                if (d->items[i].kind == ITEM_TABLE) {
                        int k = table_start(d->items[i].table, event, done, userdata);

                        if (k < 0)
                                r = k;
                }
        return r;
}
