/* SPDX-License-Identifier: MIT */

/* fflushctl --host HOST: the same command on another host, over ssh(1). What that host prints is
 * from outside as everything else is: it passes through here, line by line. */

#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/remote.h"
#include "ctl/screen.h"
#include "util/util.h"

#define LINE_MAX_SHOWN 65536u /* a longer line comes in pieces */

typedef struct Stream {
        FILE *to;
        size_t n;
        char line[LINE_MAX_SHOWN + 1];
} Stream;

static void put(Stream *s, bool ends) {
        s->line[s->n] = '\0';
        ctl_pass_on(s->to, s->line, ends);
        s->n = 0;
}

static void put_lines(RemoteOutput output, const char *bytes, size_t n, void *userdata) {
        Stream *s = (Stream *) userdata + output;

        for (size_t i = 0; i < n; i++) {
                if (bytes[i] == '\n') {
                        put(s, true);
                        continue;
                }
                if (s->n == LINE_MAX_SHOWN)
                        put(s, false);
                s->line[s->n++] = bytes[i] ? bytes[i] : '?';
        }
        (void) fflush(s->to); /* with --every the next line may take long */
}

static void draw(RemoteOutput output, const char *bytes, size_t n, void *userdata) {
        screen_write((Screen *) userdata + output, bytes, n);
}

static int run(Remote *remote, const char *const ssh_options[], const char *host,
               char *const words[], size_t n) {
        int status, r = remote_start(remote, ssh_options, host, NULL, words, n, -1);

        while (r == 0 && !remote_has_ended(remote))
                r = remote_relay(&remote, 1);
        status = r == 0 ? remote_wait(remote) : EX_UNAVAILABLE;
        remote_done(remote);
        if (r < 0)
                ctl_error("ssh: %s", strerror(-r));
        return status;
}

/* The remote end has a terminal as well: it shows progress there, and Ctrl-C reaches it as a byte.
 * That terminal passes on no end of input, so it is for who types only. */
static int run_on_terminal(const char *host, char *const words[], size_t n) {
        static const char *const options[] = {"-xtt", "-oLogLevel=ERROR", NULL};
        static Screen screens[_REMOTE_OUTPUT_MAX];
        Remote remote = {.read = draw, .userdata = screens};
        int status;

        screens[REMOTE_STDOUT].to = stdout;
        screens[REMOTE_STDERR].to = stderr;
        status = run(&remote, options, host, words, n);
        screen_end(&screens[REMOTE_STDOUT]);
        screen_end(&screens[REMOTE_STDERR]);
        return status;
}

static int run_for_lines(const char *host, char *const words[], size_t n) {
        static const char *const options[] = {"-xT", NULL};
        static Stream streams[_REMOTE_OUTPUT_MAX];
        Remote remote = {.read = put_lines, .userdata = streams};
        int status;

        streams[REMOTE_STDOUT].to = stdout;
        streams[REMOTE_STDERR].to = stderr;
        status = run(&remote, options, host, words, n);
        for (int i = 0; i < _REMOTE_OUTPUT_MAX; i++)
                if (streams[i].n > 0)
                        put(&streams[i], false);
        return status;
}

int ctl_host(const char *host, bool lasts, char *const words[], size_t n) {
        if (lasts && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && isatty(STDERR_FILENO))
                return run_on_terminal(host, words, n);
        return run_for_lines(host, words, n);
}
