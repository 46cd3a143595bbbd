/* SPDX-License-Identifier: MIT */
#pragma once

/* A terminal as a place to read long tables: its size, and a pager, as systemctl(1) has one. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct Terminal {
        size_t width, height; /* 0: standard output is not a terminal, or has no right edge */
        pid_t pager;          /* 0: none */
} Terminal;

/**
 * terminal_open() - look at standard output, and have a pager between it and us
 * @pager:  false: without one
 *
 * $SYSTEMD_PAGER, else $PAGER, else less(1); "cat" or nothing is none. Someone with more rights
 * than he logged in with, such as by sudo(8), gets less(1) in its secure mode only: from others he
 * could start any program.
 */
Terminal terminal_open(bool pager);

/** terminal_close() - write out what is left, and wait for the pager's end */
void terminal_close(Terminal *t);
