/* SPDX-License-Identifier: MIT */
#pragma once

/* Postfix attribute lists: name NUL value NUL ... NUL. Strings out of bytes as they come in, and
 * bytes out of strings; no descriptor. */

#include <stddef.h>
#include <stdint.h>

#define ATTR_LIST_MAX    65536 /* longest list that is read; flush(8) has no limit */
#define ATTR_INLINE_SIZE 512u  /* an ordinary request needs no allocation */

/* Zero-initialise; attr_reader_done() when done. Not to be copied while in use. */
typedef struct AttrReader {
        char *heap;  /* NULL as long as all fits into @fixed */
        size_t size; /* of @heap */
        size_t n, cursor, searched;
        char fixed[ATTR_INLINE_SIZE];
} AttrReader;

/**
 * attr_reader_space() - where the next bytes may be put
 * @ret, @ret_n:  receive the place and its size, at least 1
 *
 * Return: 0, -EMSGSIZE (ATTR_LIST_MAX bytes are there), -ENOMEM.
 */
int attr_reader_space(AttrReader *in, char **ret, size_t *ret_n);

/** attr_reader_commit() - @n bytes were put there */
void attr_reader_commit(AttrReader *in, size_t n);

/**
 * attr_reader_next() - take the next string that is complete
 * @ret_offset:  receives its place, for attr_reader_string()
 *
 * Return: 1, or 0 (more bytes are needed).
 */
int attr_reader_next(AttrReader *in, size_t *ret_offset);

/** attr_reader_string() - a string that was taken; valid until the next attr_reader_space() */
const char *attr_reader_string(const AttrReader *in, size_t offset);

/**
 * attr_reader_keep() - forget all but a few strings that were taken; nothing can be read any more
 * @offsets:  of @n strings; receive their new places
 * @max:      how many bytes of each are kept; what is longer is cut
 *
 * For a long list that has to wait: frees the memory that the other strings need. If there is no
 * memory for the copy, nothing changes.
 */
void attr_reader_keep(AttrReader *in, size_t offsets[], const size_t max[], size_t n);

/** attr_reader_rest() - the bytes after the last string that was taken */
const char *attr_reader_rest(const AttrReader *in, size_t *ret_n);

void attr_reader_done(AttrReader *in);

/* A list under construction in a buffer that the caller knows to be large enough (asserted). */
typedef struct AttrWriter {
        char *data;
        size_t n, size;
} AttrWriter;

void attr_put(AttrWriter *w, const char *name, const char *value);
/** attr_put_int() - negative numbers go out as unsigned 32-bit, as Postfix writes them (spec 2.2)
 */
void attr_put_int(AttrWriter *w, const char *name, int64_t value);
void attr_end(AttrWriter *w);
