/* SPDX-License-Identifier: MIT */
#pragma once

/* A file that takes the place of another one as a whole. */

#include <stdio.h>
#include <sys/types.h>

/**
 * atomicfile_begin() - a new file, beside the one that it will replace
 * @mode:           of it
 * @ret_temporary:  receives its name; for atomicfile_end(), which has to follow
 *
 * Return: 0, -EINVAL (@path is there, and no plain file), or another negative errno.
 */
int atomicfile_begin(const char *path, mode_t mode, FILE **ret, char **ret_temporary);

/**
 * atomicfile_sync() - have it on the disk, for a file that is believed after a loss of power
 *
 * May take long. Without it the new name can come to have nothing, or a part.
 *
 * Return: 0, or a negative errno; atomicfile_end() has to follow in any case.
 */
int atomicfile_sync(FILE *f);

/**
 * atomicfile_end() - put the new file in the place of @path, if all of it could be written
 * @f, @temporary:  of atomicfile_begin(); closed and freed
 * @path:           NULL: it is not wanted after all
 *
 * Whoever looks sees the old or the new one, and several may do this at once.
 *
 * Return: 0, or a negative errno: @path is as it was.
 */
int atomicfile_end(FILE *f, char *temporary, const char *path);
