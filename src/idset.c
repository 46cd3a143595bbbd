/* SPDX-License-Identifier: MIT */

#include "idset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Without this uthash ends the process when memory is short. */
#define HASH_NONFATAL_OOM          1
#define uthash_nonfatal_oom(entry) (oom = true)
#include <uthash.h>

struct IdSetEntry {
        UT_hash_handle hh;
        char id[];
};

int idset_add(IdSet *set, const char *id) {
        size_t n = strlen(id);
        bool oom = false;
        IdSetEntry *e;
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

void idset_remove(IdSet *set, const char *id) {
        IdSetEntry *e;

        HASH_FIND_STR(set->entries, id, e);
        if (e) {
                HASH_DEL(set->entries, e);
                free(e);
        }
}

bool idset_contains(const IdSet *set, const char *id) {
        const IdSetEntry *e;

        HASH_FIND_STR(set->entries, id, e);
        return e;
}

size_t idset_size(const IdSet *set) {
        return HASH_COUNT(set->entries);
}

void idset_clear(IdSet *set) {
        IdSetEntry *e = set->entries, *next;

        /* All of the table goes, so there is no need to unhook each entry from it. */
        HASH_CLEAR(hh, set->entries);
        for (; e; e = next) {
                next = e->hh.next;
                free(e);
        }
}

const IdSetEntry *idset_next(const IdSet *set, const IdSetEntry *entry) {
        return entry ? entry->hh.next : set->entries;
}

const char *idset_entry_id(const IdSetEntry *entry) {
        return entry->id;
}
