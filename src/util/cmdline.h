/* SPDX-License-Identifier: MIT */
#pragma once

/* The command lines of both programs. */

/**
 * cmdline_problem() - what getopt_long(3) did not understand
 * @c:     what it returned, '?' or ':'. Its own messages, which have the word as it is, are
 *         switched off by opterr = 0 and a ':' in front of the letters.
 *
 * Return: a new string for people, to be freed, or NULL: out of memory. It has words of the command
 *         line as they are.
 */
char *cmdline_problem(int c, char *const argv[]);
