/* SPDX-License-Identifier: MIT */
#pragma once

/* Numbers in text from outside. */

/**
 * parse_ulong() - read a decimal number
 * @text:  digits and nothing else: no blanks and no sign, which strtoul(3) would take
 * @ret:   receives it, only if this succeeds
 *
 * Return: 0, -EINVAL (not a number), or -ERANGE (too large).
 */
int parse_ulong(const char *text, unsigned long *ret);
