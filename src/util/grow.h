/* SPDX-License-Identifier: MIT */
#pragma once

/* Arrays that grow at their end. */

#include <stdbool.h>
#include <stddef.h>

/**
 * GROW() - make room for an item with the index @n
 * @items:  pointer to the array, NULL at first; a variable, and so is
 * @size:   the number of items there is room for, a size_t, 0 at first
 *
 * The size at least doubles. What is new is zeroed.
 *
 * Return: true, or false: no memory, and all is as before.
 */
#define GROW(items, n, size) grow(&(items), (n), &(size), sizeof *(items))
bool grow(void *items, size_t n, size_t *size, size_t item_size);
