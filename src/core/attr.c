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

static char *reader_data(const AttrReader *in) {
        return in->heap ? in->heap : (char *) (uintptr_t) in->fixed;
}

int attr_reader_space(AttrReader *in, char **ret, size_t *ret_n) {
        size_t size = in->heap ? in->size : ATTR_INLINE_SIZE;

        if (in->n == ATTR_LIST_MAX)
                return -EMSGSIZE;
        if (in->n == size) {
                char *heap = realloc(in->heap, 2 * size);

                if (!heap)
                        return -ENOMEM;
                if (!in->heap)
                        memcpy(heap, in->fixed, in->n);
                in->heap = heap;
                in->size = size = 2 * size;
        }
        *ret = reader_data(in) + in->n;
        *ret_n = size - in->n;
        return 0;
}

void attr_reader_commit(AttrReader *in, size_t n) {
        in->n += n;
        assert(in->n <= (in->heap ? in->size : ATTR_INLINE_SIZE));
}

int attr_reader_next(AttrReader *in, size_t *ret_offset) {
        /* Bytes are searched once, however many pieces they come in. */
        size_t from = in->searched > in->cursor ? in->searched : in->cursor;
        const char *end = memchr(reader_data(in) + from, '\0', in->n - from);

        if (!end) {
                in->searched = in->n;
                return 0;
        }
        *ret_offset = in->cursor;
        in->cursor = (size_t) (end - reader_data(in)) + 1;
        return 1;
}

const char *attr_reader_string(const AttrReader *in, size_t offset) {
        return reader_data(in) + offset;
}

const char *attr_reader_rest(const AttrReader *in, size_t *ret_n) {
        *ret_n = in->n - in->cursor;
        return reader_data(in) + in->cursor;
}

void attr_reader_keep(AttrReader *in, size_t offsets[], const size_t max[], size_t n) {
        size_t total = 0;
        char *kept;

        if (!in->heap)
                return;
        for (size_t i = 0; i < n; i++)
                total += strnlen(attr_reader_string(in, offsets[i]), max[i]) + 1;
        kept = total <= ATTR_INLINE_SIZE ? in->fixed : malloc(total);
        if (!kept)
                return;
        in->n = 0;
        for (size_t i = 0; i < n; i++) {
                const char *text = attr_reader_string(in, offsets[i]);
                size_t length = strnlen(text, max[i]);

                memcpy(kept + in->n, text, length);
                kept[in->n + length] = '\0';
                offsets[i] = in->n;
                in->n += length + 1;
        }
        in->cursor = in->searched = in->n;
        free(in->heap);
        in->heap = kept == in->fixed ? NULL : kept;
        in->size = in->heap ? total : 0;
}

void attr_reader_done(AttrReader *in) {
        free(in->heap);
        in->heap = NULL;
        in->size = 0;
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

void attr_put_int(AttrWriter *w, const char *name, int64_t value) {
        char text[sizeof "4294967295"];

        (void) snprintf(text, sizeof text, "%" PRIu32, (uint32_t) value);
        attr_put(w, name, text);
}

void attr_end(AttrWriter *w) {
        put_string(w, "");
}
