/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-input.h"

#include <stdio.h>
#include <sysexits.h>

#include "ctl/ctl-print.h"
#include "util/grow.h"
#include "util/util.h"

/* @word: NULL, the end, is not counted. */
static int add(Input *input, const char *word) {
        if (!GROW(input->words, input->n, input->size))
                return ctl_no_memory();
        input->words[input->n] = word ? strdup(word) : NULL;
        if (!word)
                return EX_OK;
        return input->words[input->n] ? (input->n++, EX_OK) : ctl_no_memory();
}

static int read_words(Input *input) {
        _cleanup_free_ char *line = NULL;
        int status = EX_OK;
        size_t size = 0;

        while (status == EX_OK && getline(&line, &size, stdin) > 0) {
                char *rest = line, *word;

                while (status == EX_OK && (word = strsep(&rest, " \t\r\n")))
                        if (*word)
                                status = add(input, word);
        }
        if (ferror(stdin))
                return ctl_fail(EX_IOERR, "standard input: %s", strerror(errno));
        return status;
}

int ctl_input(char *args[], Input *ret) {
        int status = EX_OK;

        *ret = (Input){0};
        for (; *args && status == EX_OK; args++)
                status = streq(*args, "-") ? read_words(ret) : add(ret, *args);
        return status == EX_OK ? add(ret, NULL) : status;
}

void ctl_input_done(Input *input) {
        while (input->n > 0)
                free(input->words[--input->n]);
        free(input->words);
}
