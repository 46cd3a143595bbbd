/* SPDX-License-Identifier: MIT */

/* fflushctl --host: the same command on another host, over ssh(1). */

#include <stdio.h>

#include "ctl.h"
#include "util.h"

/* For the shell that sshd(8) gives the command to: between single quotes all but the quote itself
 * is as it is. */
static char *quote(const char *text) {
        size_t n = 3;
        char *out, *p;

        for (const char *c = text; *c; c++)
                n += *c == '\'' ? strlen("'\\''") : 1;
        out = p = calloc(1, n);
        if (!out)
                return NULL;
        *p++ = '\'';
        for (; *text; text++)
                if (*text == '\'')
                        p = stpcpy(p, "'\\''");
                else
                        *p++ = *text;
        (void) strcpy(p, "'");
        return out;
}

int ctl_host(const char *host, char *const words[], size_t n) {
        const char *const first[] = {"ssh", "-xT", "--", host, "fflushctl"};
        char **argv = calloc(ARRAY_SIZE(first) + n + 1, sizeof *argv);
        bool complete = argv;
        size_t k = 0;
        int error;

        for (size_t i = 0; complete && i < ARRAY_SIZE(first); i++)
                complete = (argv[k++] = strdup(first[i]));
        for (size_t i = 0; complete && i < n; i++)
                complete = (argv[k++] = quote(words[i]));
        if (complete)
                (void) execvp(argv[0], argv);
        error = errno;
        while (k > 0)
                free(argv[--k]);
        free(argv);
        if (!complete)
                return ctl_no_memory();
        ctl_error("ssh: %s", strerror(error));
        return EX_UNAVAILABLE;
}
