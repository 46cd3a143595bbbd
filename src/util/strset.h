/* SPDX-License-Identifier: MIT */
#pragma once

/* A set of queue IDs, or of other strings. */

#include <stdbool.h>
#include <stddef.h>

typedef struct StrSetEntry StrSetEntry;
typedef struct StrSet {
        StrSetEntry *entries;
} StrSet;

/**
 * strset_add() - put an ID into the set
 * @set:  zero-initialised before its first use; strset_clear() frees it
 * @id:   ends in NUL; copied
 *
 * Return: 1 (new), 0 (was there), -ENOMEM (the set is as before).
 */
int strset_add(StrSet *set, const char *id);

/** strset_remove() - take an ID out again, if it is there */
void strset_remove(StrSet *set, const char *id);

/** strset_find() - Return: the set's own copy of an ID, or NULL: it is not in there. */
const char *strset_find(const StrSet *set, const char *id);

bool strset_contains(const StrSet *set, const char *id);
size_t strset_size(const StrSet *set);
void strset_clear(StrSet *set);

/**
 * strset_next() - walk through the set in the order of insertion
 * @entry:  NULL for the first
 *
 * Return: the entry after @entry, or NULL at the end. Its ID: strset_entry_id().
 */
const StrSetEntry *strset_next(const StrSet *set, const StrSetEntry *entry);
const char *strset_entry_id(const StrSetEntry *entry);
