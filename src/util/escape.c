/* SPDX-License-Identifier: MIT */

#include "util/escape.h"

#include <stdio.h>
#include <unictype.h>
#include <unistr.h>

#include "util/util.h"

#define BYTE_SIZE (sizeof "\\xff" - 1)
#define JSON_SIZE (sizeof "\\ud83d\\ude00" - 1)

static bool is_printable(ucs4_t c) {
        if (c < 0x80)
                return c >= ' ' && c < 0x7f;
        return !uc_is_general_category_withtable(c, UC_CATEGORY_MASK_C | UC_CATEGORY_MASK_Zl |
                                                            UC_CATEGORY_MASK_Zp);
}

/* Return: the bytes of the first character, or 0: this is not UTF-8. */
static size_t first_char(const char *text, size_t n, ucs4_t *ret) {
        int k = u8_mbtoucr(ret, (const uint8_t *) text, n);

        return k > 0 ? (size_t) k : 0;
}

const char *escape_bytes(const char *text, size_t n, size_t max, char *ret) {
        size_t shown = n < max ? n : max, used = 0;

        for (size_t i = 0; i < shown; i++) {
                unsigned char c = (unsigned char) text[i];

                if (c < 0x80 && is_printable(c) && c != '\\')
                        ret[used++] = (char) c;
                else
                        used += (size_t) sprintf(ret + used, "\\x%02x", c);
        }
        (void) strcpy(ret + used, shown < n ? "..." : "");
        return ret;
}

const char *escape_line(const char *text, char *ret, size_t size) {
        size_t n = strlen(text), used = 0;

        while (n > 0) {
                ucs4_t c;
                size_t k = first_char(text, n, &c), n_char = k > 0 ? k : 1;
                bool shown = k > 0 && is_printable(c);

                if (used + n_char * (shown ? 1 : BYTE_SIZE) >= size)
                        break;
                if (shown)
                        memcpy(ret + used, text, n_char);
                for (size_t i = 0; !shown && i < n_char; i++)
                        (void) sprintf(ret + used + BYTE_SIZE * i, "\\x%02x",
                                       (unsigned char) text[i]);
                used += n_char * (shown ? 1 : BYTE_SIZE);
                text += n_char;
                n -= n_char;
        }
        ret[used] = '\0';
        return ret;
}

static int put_json(ucs4_t c, char *ret) {
        if (c < 0x10000)
                return sprintf(ret, "\\u%04X", (unsigned) c);
        c -= 0x10000;
        return sprintf(ret, "\\u%04X\\u%04X", 0xd800u + (unsigned) (c >> 10),
                       0xdc00u + (unsigned) (c & 0x3ff));
}

char *escape_json(const char *text) {
        size_t n = strlen(text);
        char *out = malloc(JSON_SIZE * n + 1), *p = out;

        if (!out)
                return NULL;
        while (n > 0) {
                ucs4_t c = (unsigned char) *text;
                size_t k = first_char(text, n, &c), n_char = k > 0 ? k : 1;

                if (is_printable(c))
                        p = mempcpy(p, text, n_char);
                else
                        p += put_json(c, p);
                text += n_char;
                n -= n_char;
        }
        *p = '\0';
        return out;
}

char *escape_utf8(const char *text) {
        size_t n = strlen(text);
        char *out = malloc(BYTE_SIZE * n + 1), *p = out;

        if (!out)
                return NULL;
        while (n > 0) {
                ucs4_t c;
                size_t k = first_char(text, n, &c), n_char = k > 0 ? k : 1;

                if (k > 0)
                        p = mempcpy(p, text, n_char);
                else
                        p += sprintf(p, "\\x%02x", (unsigned char) *text);
                text += n_char;
                n -= n_char;
        }
        *p = '\0';
        return out;
}
