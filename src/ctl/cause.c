/* SPDX-License-Identifier: MIT */

#include "ctl/cause.h"

#include <ctype.h>
#include <stdbool.h>

#include "util/util.h"

#define TOKEN_MIN 6u /* shorter words with a digit are names: "mx1", "ipv4" */

static bool is_blank(char c) {
        return c == ' ' || c == '\t';
}

static const char *skip(const char *text, const char *prefix) {
        size_t n = strlen(prefix);

        return strncmp(text, prefix, n) == 0 ? text + n : text;
}

const char *cause_skip_host(const char *reason) {
        const char *said = strstr(reason, " said: ");

        return strncmp(reason, "host ", 5) == 0 && said ? said + strlen(" said: ") : reason;
}

static size_t length_of(const char *text) {
        const char *reply = strstr(text, " (in reply to ");
        size_t n = reply ? (size_t) (reply - text) : strlen(text);

        while (n > 0 && is_blank(text[n - 1]))
                n--;
        return n;
}

/* "452", "452-", "4.2.2": only in front. */
static size_t length_of_codes(const char *p, const char *end) {
        const char *start = p;

        for (;;) {
                const char *word = p;

                while (p < end && (isdigit((unsigned char) *p) || *p == '.' || *p == '-'))
                        p++;
                if (p == word || (p < end && !is_blank(*p) && *p != ':'))
                        return (size_t) (word - start);
                while (p < end && is_blank(*p))
                        p++;
                if (p == end)
                        return (size_t) (p - start);
        }
}

typedef struct Output {
        char *text;
        size_t n;
} Output;

static void put(Output *o, const char *text, size_t n) {
        for (size_t i = 0; i < n && o->n < CAUSE_MAX; i++)
                o->text[o->n++] = text[i];
}

/* What is between brackets: an address of a host or of a person. */
static const char *put_brackets(Output *o, const char *p, const char *end) {
        char closing = *p == '<' ? '>' : ']';
        const char *close = memchr(p, closing, (size_t) (end - p));

        put(o, p, 1);
        if (!close)
                return p + 1;
        put(o, "...", 3);
        put(o, close, 1);
        return close + 1;
}

static bool is_in_word(char c) {
        return isalnum((unsigned char) c) || (c && strchr("@._+=/-", c)) || (c & 0x80);
}

typedef struct Word {
        size_t n, digits, letters;
        bool has_at, has_sign; /* a sign that session tokens have and names do not: "+", "=", "/" */
} Word;

static Word read_word(const char *p, const char *end) {
        Word w = {0};

        for (; p < end && is_in_word(*p); p++, w.n++) {
                w.digits += isdigit((unsigned char) *p) != 0;
                w.letters += isalpha((unsigned char) *p) != 0;
                w.has_at |= *p == '@';
                w.has_sign |= *p == '+' || *p == '=';
        }
        /* The full stop that ends a sentence. */
        while (w.n > 0 && p[-1] == '.') {
                p--;
                w.n--;
        }
        return w;
}

/* Queue IDs and session tokens have digits among letters; host names have a dot, and few digits. */
static bool is_token(const char *p, const Word *w) {
        bool has_dot = memchr(p, '.', w->n) != NULL;

        if (w->digits == 0 || w->n < TOKEN_MIN)
                return false;
        return w->has_sign || (!has_dot && w->digits >= 2) || 2 * w->digits > w->n;
}

static const char *put_word(Output *o, const char *p, const char *end, bool is_port) {
        Word w = read_word(p, end);
        bool is_host = !w.has_at && p + w.n < end && p[w.n] == '['; /* perhaps an address */
        bool is_number = w.letters == 0 && w.digits > 0 && !is_port && !w.has_at;

        if (w.n == 0) {
                put(o, p, 1);
                return p + 1;
        }
        if (is_number && !is_host)
                put(o, "N", 1);
        else if (!is_host && (w.has_at || (!is_port && is_token(p, &w))))
                put(o, "...", 3);
        else
                put(o, p, w.n);
        return p + w.n;
}

char *cause_of(const char *reason, char ret[static CAUSE_MAX + 1]) {
        const char *p = cause_skip_host(skip(reason, "delivery temporarily suspended: ")), *end;
        Output o = {.text = ret};
        size_t n;

        end = p + length_of(p);
        n = length_of_codes(p, end);
        put(&o, p, n);
        for (p += n; p < end && o.n < CAUSE_MAX;) {
                if (*p == '<' || *p == '[')
                        p = put_brackets(&o, p, end);
                else
                        p = put_word(&o, p, end, p > reason && p[-1] == ':');
        }
        ret[o.n] = '\0';
        return ret;
}
