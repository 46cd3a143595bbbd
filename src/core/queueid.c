/* SPDX-License-Identifier: MIT */

#include "core/queueid.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Offset below which a 'z' cannot end the time stamp of a long queue ID: 6 digits for the
 * seconds and 4 for the microseconds come first. */
#define LONG_ID_STAMP_MIN 10
#define LONG_ID_STAMP_MAX 15 /* more digits of seconds than a time_t has */
#define LONG_ID_USEC_LEN  4

static bool is_id_char(unsigned char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               c == '_';
}

bool queueid_valid(const char *id, size_t n) {
        if (n == 0 || n > QUEUEID_MAX)
                return false;
        for (size_t i = 0; i < n; i++)
                if (!is_id_char((unsigned char) id[i]))
                        return false;
        return true;
}

/* Digits of base 52 (no vowels, so that no ID spells a word); 0 when one is none. */
static uint64_t decode(const char *digits, size_t n) {
        static const char alphabet[] = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
        uint64_t value = 0;

        for (size_t i = 0; i < n; i++) {
                const char *p = strchr(alphabet, digits[i]);

                if (!p)
                        return 0;
                value = value * (sizeof alphabet - 1) + (uint64_t) (p - alphabet);
        }
        return value;
}

/* Where the 'z' after the time stamp is; NULL: not a long ID. */
static const char *end_of_stamp(const char *id) {
        const char *z = strrchr(id, 'z');

        return z && z - id >= LONG_ID_STAMP_MIN ? z : NULL;
}

time_t queueid_arrival(const char *id) {
        const char *end = end_of_stamp(id);

        return end && end - id <= LONG_ID_STAMP_MAX
                       ? (time_t) decode(id, (size_t) (end - id) - LONG_ID_USEC_LEN)
                       : 0;
}

void queueid_forest(const char *id, unsigned depth, char ret[static QUEUEID_FOREST_SIZE]) {
        const char *stamp_end = end_of_stamp(id), *key = id;
        char hex[sizeof "FFFFFFFF"];
        size_t n = 0;

        assert(depth >= 1 && depth <= QUEUEID_FOREST_MAX);

        if (stamp_end) {
                (void) snprintf(hex, sizeof hex, "%05X",
                                (unsigned) decode(stamp_end - LONG_ID_USEC_LEN, LONG_ID_USEC_LEN));
                key = hex;
        }
        for (unsigned i = 0; i < depth; i++) {
                ret[n++] = *key ? *key++ : '_';
                ret[n++] = '/';
        }
        ret[n] = '\0';
}
