/* SPDX-License-Identifier: MIT */

/* Time values, against a reading of the same rules that takes its time. Input: the unit, the
 * text. */

#include <errno.h>

#include "fuzz.h"
#include "util/timespan.h"
#include "util/util.h"

static int expected(const char *text, char unit, uint64_t *ret) {
        static const char units[] = "smhdw";
        static const unsigned seconds[] = {1, 60, 3600, 86400, 604800};
        const char *p = text;
        bool overflow = false;
        uint64_t value = 0;

        if (*p < '0' || *p > '9')
                return -EINVAL;
        for (; *p >= '0' && *p <= '9'; p++)
                overflow |= __builtin_mul_overflow(value, 10u, &value) ||
                            __builtin_add_overflow(value, (unsigned) (*p - '0'), &value);
        if (overflow)
                return -ERANGE;
        if (*p)
                unit = *p;
        if (unit == '\0' || !strchr(units, unit))
                return -EINVAL;
        if (value == 0 || value > INT32_MAX / seconds[strchr(units, unit) - units])
                return -ERANGE;
        *ret = value * seconds[strchr(units, unit) - units] * USEC_PER_SEC;
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *text = NULL;
        uint64_t usec = 0, wanted = 0;
        int r;

        if (n == 0)
                return 0;
        text = fuzz_text(data + 1, n - 1);
        r = timespan_parse(text, (char) data[0], &usec);
        require(r == expected(text, (char) data[0], &wanted) && usec == wanted);
        return 0;
}
