/* SPDX-License-Identifier: MIT */

#include "core/attr.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "util/util.h"

/* A heap that is doubled ends at the limit. */
static_assert((ATTR_LIST_MAX & (ATTR_LIST_MAX - 1)) == 0 &&
                      (ATTR_INLINE_SIZE & (ATTR_INLINE_SIZE - 1)) == 0,
              "powers of two");

static char *reader_data(const AttrReader *r) {
        return r->heap ? r->heap : (char *) (uintptr_t) r->fixed;
}

int attr_reader_space(AttrReader *r, char **ret, size_t *ret_n) {
        size_t size = r->heap ? r->size : ATTR_INLINE_SIZE;

        if (r->n == ATTR_LIST_MAX)
                return -EMSGSIZE;
        if (r->n == size) {
                char *heap = realloc(r->heap, 2 * size);

                if (!heap)
                        return -ENOMEM;
                if (!r->heap)
                        memcpy(heap, r->fixed, r->n);
                r->heap = heap;
                r->size = size = 2 * size;
        }
        *ret = reader_data(r) + r->n;
        *ret_n = size - r->n;
        return 0;
}

void attr_reader_commit(AttrReader *r, size_t n) {
        r->n += n;
        assert(r->n <= (r->heap ? r->size : ATTR_INLINE_SIZE));
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

void attr_reader_keep(AttrReader *r, size_t offsets[], const size_t max[], size_t n) {
        size_t total = 0;
        char *kept;

        if (!r->heap)
                return;
        for (size_t i = 0; i < n; i++)
                total += strnlen(attr_reader_string(r, offsets[i]), max[i]) + 1;
        kept = total <= ATTR_INLINE_SIZE ? r->fixed : malloc(total);
        if (!kept)
                return;
        r->n = 0;
        for (size_t i = 0; i < n; i++) {
                const char *text = attr_reader_string(r, offsets[i]);
                size_t length = strnlen(text, max[i]);

                memcpy(kept + r->n, text, length);
                kept[r->n + length] = '\0';
                offsets[i] = r->n;
                r->n += length + 1;
        }
        r->cursor = r->searched = r->n;
        free(r->heap);
        r->heap = kept == r->fixed ? NULL : kept;
        r->size = r->heap ? total : 0;
}

void attr_reader_done(AttrReader *r) {
        free(r->heap);
        r->heap = NULL;
        r->size = 0;
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
