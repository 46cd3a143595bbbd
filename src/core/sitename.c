/* SPDX-License-Identifier: MIT */

#include "core/sitename.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <idn2.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

#include "util/util.h"

#define LABEL_MAX       63u
#define ONE_CHAR_SUFFIX 'Z'

/* What a site may have besides letters and digits, and what stands for it in a log name. */
static const struct {
        char site, log;
} other_chars[] = {{'.', '_'}, {'-', 'D'}, {'_', 'U'}, {'[', 'L'}, {']', 'R'}, {':', 'C'}};

/* Not ctype(3): these must not depend on the locale, nor misread bytes of 128 and above. */
static char ascii_lower(char c) {
        return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static bool is_lower_alnum(char c) {
        return is_digit(c) || (c >= 'a' && c <= 'z');
}

static bool is_ascii(const char *s) {
        for (; *s; s++)
                if ((unsigned char) *s >= 0x80)
                        return false;
        return true;
}

int sitename_fold(const char *text, char **ret) {
        size_t n = strlen(text), n_folded = 0;
        uint8_t *folded;
        char *out;

        if (!is_ascii(text) && !u8_check((const uint8_t *) text, n)) {
                /* The final NUL is folded along with the rest and so ends the result. */
                folded = u8_casefold((const uint8_t *) text, n + 1, NULL, NULL, NULL, &n_folded);
                if (!folded)
                        return -ENOMEM;
                *ret = (char *) folded;
                return 0;
        }
        out = strdup(text);
        if (!out)
                return -ENOMEM;
        for (char *p = out; *p; p++)
                *p = ascii_lower(*p);
        *ret = out;
        return 0;
}

/* "--" in the third and fourth place is kept for A-labels; nothing else may look like one. */
static bool label_valid(const char *label, size_t n) {
        if (n == 0 || n > LABEL_MAX || label[0] == '-' || label[n - 1] == '-')
                return false;
        if (n >= 4 && memcmp(label + 2, "--", 2) == 0 && memcmp(label, "xn", 2) != 0)
                return false;
        for (size_t i = 0; i < n; i++)
                if (!is_lower_alnum(label[i]) && label[i] != '-' && label[i] != '_')
                        return false;
        return true;
}

static bool hostname_valid(const char *name) {
        if (strlen(name) > SITE_MAX || name[strspn(name, "0123456789.")] == '\0')
                return false;
        for (;;) {
                size_t n = strcspn(name, ".");

                if (!label_valid(name, n))
                        return false;
                if (name[n] == '\0')
                        return true;
                name += n + 1;
        }
}

static bool has_alabel(const char *name) {
        return strncmp(name, "xn--", 4) == 0 || strstr(name, ".xn--");
}

/*
 * IDNA 2008 has no symbols, but UTS 46 does, and so do registries: xn--ls8h.la. libidn2 calls them
 * disallowed, along with all that is really no part of a name. So: letters, marks, numbers and
 * symbols, and nothing that UTS 46 would have mapped to something else.
 */
static bool has_symbols_only(const char *unicode) {
        const uint32_t categories =
                UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_N | UC_CATEGORY_MASK_S;
        const uint8_t *p = (const uint8_t *) unicode;
        size_t n = strlen(unicode), n_mapped = 0;
        uint8_t *mapped;
        bool same;
        ucs4_t c;

        mapped = u8_casefold(p, n, NULL, UNINORM_NFKC, NULL, &n_mapped);
        same = mapped && n_mapped == n && memcmp(mapped, p, n) == 0;
        free(mapped);
        while (same && (p = u8_next(&c, p)))
                same = c < 0x80 || uc_is_general_category_withtable(c, categories);
        return same;
}

/* libidn2 leaves ASCII labels alone. So an A-label that decodes to nothing, or to what would be
 * encoded otherwise, is found by going there and back. */
static bool alabels_valid(const char *name) {
        char *unicode = NULL, *back = NULL;
        bool valid = false;

        if (idn2_to_unicode_8z8z(name, &unicode, IDN2_NONTRANSITIONAL) == IDN2_OK) {
                int r = idn2_to_ascii_8z(unicode, &back, IDN2_NONTRANSITIONAL);

                valid = (r == IDN2_OK && streq(name, back)) ||
                        (r == IDN2_DISALLOWED && has_symbols_only(unicode));
        }
        idn2_free(unicode);
        idn2_free(back);
        return valid;
}

static int normalize_hostname(const char *text, char ret[static SITE_SIZE]) {
        size_t n;

        if (is_ascii(text)) {
                n = strlen(text);
                if (n > SITE_MAX)
                        return -EINVAL;
                for (size_t i = 0; i <= n; i++)
                        ret[i] = ascii_lower(text[i]);
        } else {
                char *ascii = NULL;
                int r;

                r = idn2_to_ascii_8z(text, &ascii, IDN2_NONTRANSITIONAL);
                if (r == IDN2_MALLOC)
                        return -ENOMEM;
                if (r != IDN2_OK || strlen(ascii) > SITE_MAX) {
                        idn2_free(ascii);
                        return -EINVAL;
                }
                (void) strcpy(ret, ascii);
                idn2_free(ascii);
        }
        if (!hostname_valid(ret) || (has_alabel(ret) && !alabels_valid(ret)))
                return -EINVAL;
        return 0;
}

/* "[192.0.2.1]" or "[ipv6:2001:db8::1]", as RFC 5321 writes them after an '@'. */
static int normalize_literal(const char *text, char ret[static SITE_SIZE]) {
        static const char ipv6_tag[] = "ipv6:";
        unsigned char addr[sizeof(struct in6_addr)];
        char inner[sizeof ipv6_tag + INET6_ADDRSTRLEN];
        size_t n = strlen(text);
        const char *v6;

        if (n < 3 || text[n - 1] != ']' || n - 2 >= sizeof inner)
                return -EINVAL;
        for (size_t i = 0; i < n - 2; i++)
                inner[i] = ascii_lower(text[1 + i]);
        inner[n - 2] = '\0';

        v6 = strncmp(inner, ipv6_tag, strlen(ipv6_tag)) == 0 ? inner + strlen(ipv6_tag) : NULL;
        if (inet_pton(v6 ? AF_INET6 : AF_INET, v6 ? v6 : inner, addr) != 1)
                return -EINVAL;
        ret[0] = '[';
        memcpy(ret + 1, inner, n - 2);
        memcpy(ret + n - 1, "]", 2);
        return 0;
}

int sitename_normalize(const char *text, char ret[static SITE_SIZE]) {
        if (strlen(text) > SITE_TEXT_MAX)
                return -EINVAL;
        if (text[0] == '[')
                return normalize_literal(text, ret);
        return normalize_hostname(text, ret);
}

int sitename_unicode(const char *site, char **ret) {
        char *unicode = NULL;

        *ret = NULL;
        if (!has_alabel(site))
                return 0;
        /* All normal forms can be converted: sitename_normalize() has done it. */
        if (idn2_to_unicode_8z8z(site, &unicode, IDN2_NONTRANSITIONAL) != IDN2_OK)
                return -ENOMEM;
        *ret = strdup(unicode);
        idn2_free(unicode);
        return *ret ? 0 : -ENOMEM;
}

static char to_log_char(char c) {
        if (is_lower_alnum(c))
                return c;
        for (size_t i = 0; i < ARRAY_SIZE(other_chars); i++)
                if (other_chars[i].site == c)
                        return other_chars[i].log;
        return '\0';
}

static char from_log_char(char c) {
        if (is_lower_alnum(c))
                return c;
        for (size_t i = 0; i < ARRAY_SIZE(other_chars); i++)
                if (other_chars[i].log == c)
                        return other_chars[i].site;
        return '\0';
}

void sitename_to_log(const char *site, char ret[static SITE_LOG_SIZE]) {
        size_t n;

        for (n = 0; site[n]; n++) {
                ret[n] = to_log_char(site[n]);
                assert(ret[n] != '\0');
        }
        if (n == 1)
                ret[n++] = ONE_CHAR_SUFFIX;
        ret[n] = '\0';
}

void sitename_to_original(const char *site, char ret[static SITE_LOG_SIZE]) {
        size_t n;

        for (n = 0; site[n]; n++)
                ret[n] = is_lower_alnum(site[n]) ? site[n] : '_';
        ret[n] = '\0';
}

int sitename_from_log(const char *log, char ret[static SITE_SIZE]) {
        size_t n = strlen(log);

        if (n == 2 && log[1] == ONE_CHAR_SUFFIX)
                n = 1;
        else if (n < 2)
                return -EINVAL;
        if (n > SITE_MAX)
                return -EINVAL;
        for (size_t i = 0; i < n; i++) {
                ret[i] = from_log_char(log[i]);
                if (ret[i] == '\0')
                        return -EINVAL;
        }
        ret[n] = '\0';
        return 0;
}
