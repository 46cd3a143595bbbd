/* SPDX-License-Identifier: MIT */

#include "util/timespan.h"

#include <errno.h>
#include <stdlib.h>

#include "util/util.h"

#define TIMESPAN_SEC_MAX INT32_MAX

static uint64_t unit_seconds(char unit) {
        switch (unit) {
        case 's':
                return 1;
        case 'm':
                return 60;
        case 'h':
                return 60 * 60;
        case 'd':
                return 24 * 60 * 60;
        case 'w':
                return 7 * 24 * 60 * 60;
        default:
                return 0;
        }
}

int timespan_parse(const char *text, char unit, uint64_t *ret_usec) {
        uint64_t value, seconds;
        char *end;

        if (*text < '0' || *text > '9') /* strtoull() would take blanks and signs */
                return -EINVAL;
        errno = 0;
        value = strtoull(text, &end, 10);
        if (errno != 0)
                return -ERANGE;
        seconds = unit_seconds(*end ? *end : unit);
        if (seconds == 0)
                return -EINVAL;
        if (value < 1 || value > TIMESPAN_SEC_MAX / seconds)
                return -ERANGE;
        *ret_usec = value * seconds * USEC_PER_SEC;
        return 0;
}
