/* SPDX-License-Identifier: MIT */
#pragma once

/* A set of queue IDs, or of other strings. */

#include <stdbool.h>
#include <stddef.h>

typedef struct IdSetEntry IdSetEntry;
typedef struct IdSet {
        IdSetEntry *entries;
} IdSet;

/**
 * idset_add() - put an ID into the set
 * @set:  zero-initialised before its first use; idset_clear() frees it
 * @id:   ends in NUL; copied
 *
 * Return: 1 (new), 0 (was there), -ENOMEM (the set is as before).
 */
int idset_add(IdSet *set, const char *id);

/** idset_remove() - take an ID out again, if it is there */
void idset_remove(IdSet *set, const char *id);

bool idset_contains(const IdSet *set, const char *id);
size_t idset_size(const IdSet *set);
void idset_clear(IdSet *set);

/**
 * idset_next() - walk through the set in the order of insertion
 * @entry:  NULL for the first
 *
 * Return: the entry after @entry, or NULL at the end. Its ID: idset_entry_id().
 */
const IdSetEntry *idset_next(const IdSet *set, const IdSetEntry *entry);
const char *idset_entry_id(const IdSetEntry *entry);
