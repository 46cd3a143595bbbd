/* SPDX-License-Identifier: MIT */

#include "attr.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "util.h"

static char *reader_data(const AttrReader *r) {
        return r->heap ? r->heap : (char *) (uintptr_t) r->fixed;
}

int attr_reader_space(AttrReader *r, char **ret, size_t *ret_n) {
        size_t size = r->heap ? ATTR_LIST_MAX : ATTR_INLINE_SIZE;

        if (r->n == ATTR_LIST_MAX)
                return -EMSGSIZE;
        if (r->n == size) {
                char *heap = malloc(ATTR_LIST_MAX);

                if (!heap)
                        return -ENOMEM;
                memcpy(heap, r->fixed, r->n);
                r->heap = heap;
                size = ATTR_LIST_MAX;
        }
        *ret = reader_data(r) + r->n;
        *ret_n = size - r->n;
        return 0;
}

void attr_reader_commit(AttrReader *r, size_t n) {
        r->n += n;
        assert(r->n <= (r->heap ? ATTR_LIST_MAX : ATTR_INLINE_SIZE));
}

int attr_reader_next(AttrReader *r, size_t *ret_offset) {
        /* Bytes are searched once, however many pieces they come in. */
        size_t from = r->searched > r->cursor ? r->searched : r->cursor;
        const char *end = memchr(reader_data(r) + from, '\0', r->n - from);

        if (!end) {
                r->searched = r->n;
                return 0;
        }
        *ret_offset = r->cursor;
        r->cursor = (size_t) (end - reader_data(r)) + 1;
        return 1;
}

const char *attr_reader_string(const AttrReader *r, size_t offset) {
        return reader_data(r) + offset;
}

const char *attr_reader_rest(const AttrReader *r, size_t *ret_n) {
        *ret_n = r->n - r->cursor;
        return reader_data(r) + r->cursor;
}

void attr_reader_free(AttrReader *r) {
        free(r->heap);
        r->heap = NULL;
}

static void put_string(AttrWriter *w, const char *s) {
        size_t n = strlen(s) + 1;

        assert(n <= w->size - w->n);
        memcpy(w->data + w->n, s, n);
        w->n += n;
}

void attr_put(AttrWriter *w, const char *name, const char *value) {
        put_string(w, name);
        put_string(w, value);
}

void attr_put_int(AttrWriter *w, const char *name, long value) {
        char text[sizeof "4294967295"];

        (void) snprintf(text, sizeof text, "%" PRIu32, (uint32_t) value);
        attr_put(w, name, text);
}

void attr_end(AttrWriter *w) {
        put_string(w, "");
}
