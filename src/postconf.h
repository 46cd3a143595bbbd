/* SPDX-License-Identifier: MIT */
#pragma once

/* What postconf(1) prints. To start it costs more than all else when fflushd starts, so its output
 * is kept for the next start. */

/**
 * postconf_ask() - run postconf(1), unless it would print what it printed last time
 * @argv:         absolute path and arguments, ends in NULL
 * @main_cf:      the file it reads
 * @directory:    where to keep its output, in a file "postconf"; NULL: nowhere
 * @ret_output:   receives what it has printed, to be freed
 * @ret_problem:  receives in words why there is no output, to be freed
 *
 * What was kept is of use for the same command, host name, program and @main_cf (inode, size,
 * times), and is not looked at otherwise. That it cannot be kept is no error.
 *
 * Return: 0, -ENODATA (@ret_problem), or -ENOMEM.
 * Source: ours.
 */
int postconf_ask(const char *const argv[], const char *main_cf, const char *directory,
                 char **ret_output, char **ret_problem);
