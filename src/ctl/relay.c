/* SPDX-License-Identifier: MIT */

#include "ctl/relay.h"

#include <stdlib.h>

bool relay_is_on(void) {
        return getenv(RELAY_VARIABLE) != NULL;
}

void relay_begin(void) {
        if (relay_is_on())
                (void) printf("%c\n", RELAY_HELLO);
}

void relay_fields(FILE *f, char kind, const char *const fields[], size_t n) {
        (void) fputc(kind, f);
        for (size_t i = 0; i < n; i++)
                (void) fprintf(f, "%c%s", RELAY_FIELD, fields[i]);
        (void) fputc('\n', f);
}

void relay_count(unsigned long count, const char *what) {
        if (relay_is_on() && count > 0)
                (void) printf("%c%lu%c%s\n", RELAY_COUNT, count, RELAY_FIELD, what);
}
