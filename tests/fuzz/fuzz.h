/* SPDX-License-Identifier: MIT */
#pragma once

/* What fuzz targets share. A target is a function that takes any bytes and aborts when something is
 * wrong. configure --enable-fuzzing CC=clang links it with libFuzzer; otherwise fuzz-main.c runs it
 * over its corpus, tests/fuzz/corpus/TARGET. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/** require() - what must hold for every input; not assert(), which is for the code under test */
#define require(condition)                                                                         \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        (void) fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__,          \
                                       #condition);                                                \
                        abort();                                                                   \
                }                                                                                  \
        } while (0)

/** fuzz_text() - a string of these bytes, to be freed: a block of just that size, so that the
 * address sanitizer sees each byte that is read beyond it */
static inline char *fuzz_text(const uint8_t *data, size_t n) {
        char *text = malloc(n + 1);

        require(text);
        if (n > 0)
                memcpy(text, data, n);
        text[n] = '\0';
        return text;
}

/** fuzz_part() - the next string of an input that has several, with a NUL between; to be freed */
static inline char *fuzz_part(const uint8_t **data, size_t *n) {
        const uint8_t *end = *n > 0 ? memchr(*data, '\0', *n) : NULL;
        size_t n_part = end ? (size_t) (end - *data) : *n;
        char *part = fuzz_text(*data, n_part);

        *data += n_part + (end != NULL);
        *n -= n_part + (end != NULL);
        return part;
}
