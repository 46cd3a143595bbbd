/* SPDX-License-Identifier: MIT */
#pragma once

/* Files that were read once: have they changed since? */

#include <stdbool.h>

typedef struct Filestamp Filestamp;

/**
 * filestamp_add() - remember a file or directory as it is now, also if it does not exist
 * @watch:  the list, NULL at first; filestamp_free() frees it
 *
 * Return: 0, or -ENOMEM.
 */
int filestamp_add(Filestamp **watch, const char *path);

/** filestamp_changed() - has any of them been written, replaced, removed or made, or got another
 * mode or owner? */
bool filestamp_changed(const Filestamp *watch);
Filestamp *filestamp_free(Filestamp *watch);
