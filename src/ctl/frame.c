/* SPDX-License-Identifier: MIT */

#include "ctl/frame.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/columns.h"
#include "util/escape.h"

#define OWN_LINES 2u /* the first and the last one of the screen */

/* How many lines of each. */
typedef struct Layout {
        size_t titles, rows, more, total;
} Layout;

static size_t smaller(size_t a, size_t b) {
        return a < b ? a : b;
}

static Layout lay_out(const Frame *frame) {
        size_t n = 0;

        for (const char *p = frame->table; *p; p++)
                n += *p == '\n';
        if (!frame->legend || n < 2)
                return (Layout){.rows = n};
        return (Layout){.titles = 1, .rows = n - 2, .total = 1};
}

/* On a tiny screen, the total says more than a row. */
static Layout fit(const Layout *all, size_t room) {
        Layout l = {0};

        if (all->titles + all->rows + all->total <= room)
                return *all;
        l.total = smaller(all->total, room);
        l.more = smaller(1, room - l.total);
        l.titles = smaller(all->titles, room - l.total - l.more);
        l.rows = smaller(all->rows, room - l.total - l.more - l.titles);
        return l;
}

/* Over what was there, so that nothing flickers. */
static void put(FILE *f, const char *line, size_t width) {
        columns_cut(f, line, width);
        (void) fputs("\033[K\n", f);
}

/* Those of a table are cut already, and have colours. */
static void put_lines(FILE *f, char **rest, size_t n, size_t shown, size_t width) {
        for (size_t i = 0; i < n; i++) {
                const char *line = strsep(rest, "\n");

                if (i < shown)
                        put(f, line, width);
        }
}

void frame_draw(const Frame *frame, const Terminal *t, FILE *f) {
        Layout all = lay_out(frame),
               l = fit(&all, t->height > OWN_LINES ? t->height - OWN_LINES : 0);
        char *rest = frame->table;

        (void) fputs("\033[H", f);
        if (t->height > 1)
                put(f, frame->title, t->width);
        put_lines(f, &rest, all.titles, l.titles, 0);
        put_lines(f, &rest, all.rows, l.rows, 0);
        if (l.more > 0)
                (void) fprintf(f, "+%zu more\033[K\n", all.rows - l.rows);
        put_lines(f, &rest, all.total, l.total, t->width);
        (void) fprintf(f, "\033[J\033[%zuH", t->height);
        columns_cut(f, frame->error, t->width);
        /* Where the prompt of the shell will be, once this is interrupted. */
        (void) fprintf(f, "\033[%zuH",
                       smaller(1 + l.titles + l.rows + l.more + l.total + 1, t->height));
}

/* As it was typed: getopt_long(3) has sorted argv since. */
static void read_command(char *text, size_t size) {
        FILE *f = fopen("/proc/self/cmdline", "re");
        size_t n = f ? fread(text, 1, size - 1, f) : 0;

        text[n] = '\0';
        for (size_t i = 0; i + 1 < n; i++)
                if (text[i] == '\0')
                        text[i] = ' ';
        if (f)
                (void) fclose(f);
}

const char *frame_title(char ret[static FRAME_TITLE_SIZE]) {
        char when[32], host[256] = "", command[512], text[FRAME_TITLE_SIZE];
        time_t now = time(NULL);
        const char *words;
        struct tm tm;

        (void) localtime_r(&now, &tm);
        (void) strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
        (void) gethostname(host, sizeof host - 1);
        read_command(command, sizeof command);
        words = strchr(command, ' ');
        (void) snprintf(text, sizeof text, "%s  %s  fflushctl%s", when, host, words ? words : "");
        return escape_line(text, ret, FRAME_TITLE_SIZE);
}
