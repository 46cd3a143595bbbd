/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what the journal says of earlier flushes. */

#include "ctl/ctl.h"

typedef struct CtlLastFlush {
        uint64_t time;    /* microseconds since 1970 */
        uint64_t age;     /* microseconds */
        char who[160];    /* "tina (sudo, 192.0.2.7)" */
        char reason[256]; /* or "" */
} CtlLastFlush;

/**
 * ctl_last_flush() - the last flush of a site that moved something, if it was not long ago
 * @age:  at most so many microseconds
 *
 * Prints nothing. Return: true, or false: there was none, or the journal cannot be read.
 */
bool ctl_last_flush(Ctl *ctl, const char *site, uint64_t age, CtlLastFlush *ret);
