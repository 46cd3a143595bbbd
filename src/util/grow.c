/* SPDX-License-Identifier: MIT */

#include "util/grow.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_FIRST 16u

bool grow(void *items, size_t n, size_t *size, size_t item_size) {
        size_t new_size = *size ? 2 * *size : SIZE_FIRST;
        char *new_items;
        void *old_items;

        if (n < *size)
                return true;
        if (new_size <= n)
                new_size = n + 1;
        memcpy(&old_items, items, sizeof old_items);
        new_items = reallocarray(old_items, new_size, item_size);
        if (!new_items)
                return false;
        memset(new_items + *size * item_size, 0, (new_size - *size) * item_size);
        memcpy(items, &new_items, sizeof new_items);
        *size = new_size;
        /* cppcheck-suppress memleak ; it is in @items now */
        return true;
}
