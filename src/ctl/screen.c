/* SPDX-License-Identifier: MIT */

#include "ctl/screen.h"

#include <assert.h>
#include <string.h>

#include "ctl/ctl-print.h"
#include "util/util.h"

/* All that fflushctl sends to a terminal but text. ssh(1) has put this one into raw mode, in which
 * a line ends in both. */
static const struct {
        const char *in, *out;
} known[] = {
        {"\r\033[K", "\r\033[K"}, {"\r\n", "\r\n"},         {"\n", "\r\n"},
        {"\033[0m", "\033[0m"},   {"\033[1m", "\033[1m"},   {"\033[2m", "\033[2m"},
        {"\033[31m", "\033[31m"}, {"\033[32m", "\033[32m"}, {"\033[33m", "\033[33m"},
};

static void put_text(Screen *s, size_t n) {
        char text[SCREEN_SIZE + 1];

        memcpy(text, s->bytes, n);
        text[n] = '\0';
        ctl_pass_on(s->to, text, false);
}

static void drop(Screen *s, size_t n) {
        s->n -= n;
        memmove(s->bytes, s->bytes + n, s->n);
}

/* Return: how many bytes of the front it has dealt with; 0: there may be more of it to come. */
static size_t put_control(Screen *s, bool last) {
        for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
                size_t n = strlen(known[i].in);

                if (s->n >= n && memcmp(s->bytes, known[i].in, n) == 0) {
                        (void) fputs(known[i].out, s->to);
                        return n;
                }
                if (s->n < n && memcmp(s->bytes, known[i].in, s->n) == 0 && !last)
                        return 0;
        }
        put_text(s, 1);
        return 1;
}

/* How many bytes of text there are before the next control, without a character that may not be
 * complete. */
static size_t count_text(const Screen *s, bool last) {
        size_t n = 0, lead;

        while (n < s->n && !strchr("\r\n\033", s->bytes[n]))
                n++;
        if (n < s->n || last)
                return n;
        for (lead = 1; lead <= 3 && lead <= n; lead++) {
                unsigned char c = (unsigned char) s->bytes[n - lead];

                if (c >= 0xc0)
                        return c >= (lead == 1 ? 0xc0 : lead == 2 ? 0xe0 : 0xf0) ? n - lead : n;
                if (c < 0x80)
                        break;
        }
        return n;
}

static void put_all(Screen *s, bool last) {
        while (s->n > 0) {
                size_t n = count_text(s, last);

                if (n > 0)
                        put_text(s, n);
                else if (strchr("\r\n\033", s->bytes[0]))
                        n = put_control(s, last);
                if (n == 0)
                        return;
                drop(s, n);
        }
}

void screen_write(Screen *s, const char *bytes, size_t n) {
        assert(n <= SCREEN_SIZE / 2);
        for (size_t i = 0; i < n; i++) /* a byte 0 would end the text */
                s->bytes[s->n++] = bytes[i] ? bytes[i] : '?';
        put_all(s, false);
        (void) fflush(s->to);
}

void screen_end(Screen *s) {
        put_all(s, true);
        (void) fflush(s->to);
}
