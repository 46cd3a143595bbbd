/* SPDX-License-Identifier: MIT */
#pragma once

/* Postfix's way to write a time: "12h", "7d", "100s". */

#include <stdint.h>

/**
 * timespan_parse() - read a time value
 * @text:      a decimal number and at most one letter: s, m, h, d or w
 * @unit:      letter to assume when there is none; Postfix takes that of the default value
 * @ret_usec:  receives microseconds
 *
 * What follows the letter is ignored, as Postfix does ("12hours" is 12 h).
 *
 * Return: 0, -EINVAL (not a time), -ERANGE (less than a second, or 2^31 s and more).
 * Source: spec 7, postconf(5).
 */
int timespan_parse(const char *text, char unit, uint64_t *ret_usec);
