/* SPDX-License-Identifier: MIT */
#pragma once

/* Files that were read once: have they changed since? */

#include <stdbool.h>

typedef struct Watch Watch;

/**
 * watch_add() - remember a file or directory as it is now, also if it does not exist
 * @watch:  the list, NULL at first; watch_free() frees it
 *
 * Return: 0, or -ENOMEM.
 */
int watch_add(Watch **watch, const char *path);

/** watch_changed() - has any of them been written, replaced, removed or made, or got another mode
 * or owner? */
bool watch_changed(const Watch *watch);
Watch *watch_free(Watch *watch);
