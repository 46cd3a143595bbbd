/* SPDX-License-Identifier: MIT */
#pragma once

/* Who reads the output. What goes on for long ends when he is gone: with "fflushctl --host" without
 * a terminal nothing else tells that the connection has ended, as no output may be due for hours,
 * and none at all with --quiet. The end of standard input tells nothing: it is /dev/null for
 * cron(8). */

#include <stdbool.h>
#include <stdint.h>

/** reader_wait() - wait so long, or until nobody can read standard output any more
 * Return: true, or false: he is gone. */
bool reader_wait(uint64_t usec);

/** reader_wait_for() - the same, but also until @fd can be read */
bool reader_wait_for(int fd, uint64_t usec);
