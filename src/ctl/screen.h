/* SPDX-License-Identifier: MIT */
#pragma once

/* What another fflushctl draws on a terminal, passed on to the terminal here: its lines of progress
 * and its colours. That host may be anybody's by now: whatever else a terminal would obey is
 * escaped. */

#include <stddef.h>
#include <stdio.h>

#define SCREEN_SIZE 8192u

typedef struct Screen {
        FILE *to;
        char bytes[SCREEN_SIZE + 1]; /* that may be the beginning of something */
        size_t n;
} Screen;

/** screen_write() - @n bytes, at most half of SCREEN_SIZE, in pieces as they come */
void screen_write(Screen *s, const char *bytes, size_t n);

/** screen_end() - there will be no more of them */
void screen_end(Screen *s);
