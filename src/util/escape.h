/* SPDX-License-Identifier: MIT */
#pragma once

/* Text from outside (arguments, files, what other programs and hosts say), made fit to be shown.
 * What a terminal obeys (C0 and C1, in UTF-8 or as a byte), what rearranges a line, as marks of
 * direction do, and what ends one is shown as a number; so is what is not UTF-8. */

#include <stddef.h>

#define ESCAPE_SIZE(max) (4 * (max) + sizeof "...") /* for escape_bytes() */

/**
 * escape_bytes() - quote some bytes within a message
 * @max:  of these at most are shown, and "..." if there are more
 * @ret:  receives them, in ESCAPE_SIZE(@max) bytes: \xNN for all but printable ASCII, and for a
 *        backslash, so that nothing that is shown can be forged
 *
 * Return: @ret
 */
const char *escape_bytes(const char *text, size_t n, size_t max, char *ret);

/**
 * escape_line() - make a whole line printable
 * @text:  UTF-8 that can be printed stays, and so does a backslash: parts of it may have been
 *         through escape_bytes()
 * @ret:   receives it, cut to what fits into @size bytes; 4 * strlen(@text) + 1 do in any case
 *
 * Return: @ret
 */
const char *escape_line(const char *text, char *ret, size_t size);

/**
 * escape_json() - the same for JSON text, where such a character becomes \uNNNN
 * @text:  valid JSON, so that none is outside of a string
 *
 * Return: a new string, to be freed, or NULL: out of memory.
 */
char *escape_json(const char *text);

/**
 * escape_utf8() - what JSON can have: UTF-8 as it is, other bytes as \xNN
 *
 * Return: a new string, to be freed, or NULL: out of memory.
 */
char *escape_utf8(const char *text);
