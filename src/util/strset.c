/* SPDX-License-Identifier: MIT */

#include "util/strset.h"
#include "util/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct StrSetEntry {
        UT_hash_handle hh;
        char id[];
};

int strset_add(StrSet *set, const char *id) {
        size_t n = strlen(id);
        bool oom = false;
        StrSetEntry *e;
        unsigned hash;

        HASH_VALUE(id, n, hash);
        HASH_FIND_BYHASHVALUE(hh, set->entries, id, n, hash, e);
        if (e)
                return 0;
        e = malloc(sizeof *e + n + 1);
        if (!e)
                return -ENOMEM;
        memcpy(e->id, id, n + 1);
        HASH_ADD_KEYPTR_BYHASHVALUE(hh, set->entries, e->id, n, hash, e);
        if (oom) {
                free(e);
                return -ENOMEM;
        }
        return 1;
}

void strset_remove(StrSet *set, const char *id) {
        StrSetEntry *e;

        HASH_FIND_STR(set->entries, id, e);
        if (e) {
                HASH_DEL(set->entries, e);
                free(e);
        }
}

const char *strset_find(const StrSet *set, const char *id) {
        const StrSetEntry *e;

        HASH_FIND_STR(set->entries, id, e);
        return e ? e->id : NULL;
}

bool strset_contains(const StrSet *set, const char *id) {
        return strset_find(set, id) != NULL;
}

size_t strset_size(const StrSet *set) {
        return HASH_COUNT(set->entries);
}

void strset_clear(StrSet *set) {
        StrSetEntry *e = set->entries, *next;

        /* All of the table goes, so there is no need to unhook each entry from it. */
        HASH_CLEAR(hh, set->entries);
        for (; e; e = next) {
                next = e->hh.next;
                free(e);
        }
}

const StrSetEntry *strset_next(const StrSet *set, const StrSetEntry *entry) {
        return entry ? entry->hh.next : set->entries;
}

const char *strset_entry_id(const StrSetEntry *entry) {
        return entry->id;
}
