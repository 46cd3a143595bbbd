/* SPDX-License-Identifier: MIT */
#pragma once

/* The hosts that --host means: as it names them, or those of a group in a file. */

#include <stdbool.h>
#include <stddef.h>

#include "core/settings.h"

#define HOSTS_FILE     SETTINGS_DIR "/hosts.conf"
#define HOSTS_VARIABLE "FFLUSHCTL_HOSTS" /* in the environment: another file */

typedef struct Hosts {
        char **items; /* each once, in the order in which they are named first */
        size_t n, size;
        bool group; /* some were named by "@GROUP" */
} Hosts;

/**
 * hosts_add() - add what one --host names: "HOST,HOST,@GROUP"
 * @hosts:  zero-initialised before its first use; hosts_done() it
 *
 * The file has lines "GROUP: HOST HOST ...", with blanks or commas between hosts; what follows a
 * '#' is a comment, and several lines may add to one group.
 *
 * Return: EX_OK, or an exit status after a message: EX_USAGE (not a host), EX_CONFIG (no such
 *         group, or a line of the file that is none), EX_NOINPUT (the file cannot be read).
 */
int hosts_add(Hosts *hosts, const char *text);
void hosts_done(Hosts *hosts);
