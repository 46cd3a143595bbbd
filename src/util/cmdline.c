/* SPDX-License-Identifier: MIT */

#include "util/cmdline.h"

#include <getopt.h>
#include <stdio.h>

#include "util/util.h"

char *cmdline_problem(int c, char *const argv[]) {
        const char *word = argv[optind - 1];
        char *text = NULL;
        int r;

        /* @optopt is 0 for a long option that is unknown or cut too short to be one, the letter of
         * an unknown short one, and of one that is known what the table has for it. */
        if (c == ':')
                r = asprintf(&text, "option needs a value: %s", word);
        else if (optopt == 0)
                r = asprintf(&text, "unknown option: %s", word);
        else if (strncmp(word, "--", 2) == 0 && strchr(word, '='))
                r = asprintf(&text, "option has no value: %.*s", (int) strcspn(word, "="), word);
        else
                r = asprintf(&text, "unknown option: -%c", optopt);
        return r < 0 ? NULL : text;
}
