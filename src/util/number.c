/* SPDX-License-Identifier: MIT */

#include "util/number.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int parse_ulong(const char *text, unsigned long *ret) {
        unsigned long value;

        if (!*text || text[strspn(text, "0123456789")])
                return -EINVAL;
        errno = 0;
        value = strtoul(text, NULL, 10);
        if (errno != 0)
                return -ERANGE;
        *ret = value;
        return 0;
}
