/* SPDX-License-Identifier: MIT */
#pragma once

/* Configuration files as one string. */

#include <stddef.h>

/**
 * textfile_read() - all of a regular file
 * @max:  bytes, above which it is refused
 * @ret:  receives the text, ends in NUL, to be freed
 *
 * Does not block on a FIFO.
 *
 * Return: 0, -EINVAL (not a regular file), -EFBIG, -ENOMEM, or another negative errno.
 */
int textfile_read(const char *path, size_t max, char **ret);

/** textfile_strerror() - such an error in words */
const char *textfile_strerror(int error);
