/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): arguments, of which "-" stands for what standard input has. */

#include <stddef.h>

typedef struct Input {
        char **words; /* end in a NULL */
        size_t n, size;
} Input;

/**
 * ctl_input() - the arguments, with the words of standard input in the place of each "-"
 * @args:  end in a NULL
 * @ret:   receives copies, in any case; ctl_input_done() it
 *
 * Return: EX_OK, EX_IOERR or EX_OSERR, after a message.
 */
int ctl_input(char *args[], Input *ret);
void ctl_input_done(Input *input);
