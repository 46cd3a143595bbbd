/* SPDX-License-Identifier: MIT */

#include "daemon/seen.h"

#include <assert.h>
#include <errno.h>

#include "util/hash.h"
#include "util/util.h"

/* How many slots are looked at for one ID. At least half of all are empty, so no real ID is this
 * far from its first slot; and IDs that an attacker chose to collide cost no more than this. */
#define PROBES_MAX 256u

struct SeenSlot {
        uint32_t hash;
        uint32_t id; /* its place in the text, counted from 1; 0: the slot is empty */
};

static int allocate(Seen *set, size_t ids_max) {
        size_t n_slots = 2;

        while (n_slots < 2 * ids_max)
                n_slots *= 2;
        /* In one block: the pages of a large one take no memory before they are used. */
        set->slots = calloc(1, n_slots * sizeof *set->slots + ids_max * SEEN_ID_SIZE);
        if (!set->slots)
                return -ENOMEM;
        set->n_slots = n_slots;
        set->ids_max = ids_max;
        set->text = (char *) (set->slots + n_slots);
        return 0;
}

void seen_init(Seen *set, size_t ids_max) {
        assert(ids_max > 0 && ids_max <= SEEN_IDS_MAX);

        *set = (Seen){0};
        while (ids_max > 0 && allocate(set, ids_max) < 0)
                ids_max /= 2;
}

void seen_done(Seen *set) {
        free(set->slots);
        *set = (Seen){0};
}

/* Return: the slot of the ID, or the empty one for it, or NULL. */
static SeenSlot *find_slot(const Seen *set, const char *id, uint32_t hash) {
        for (size_t i = 0; i < PROBES_MAX && i < set->n_slots; i++) {
                SeenSlot *slot = &set->slots[(hash + i) & (set->n_slots - 1)];

                if (slot->id == 0 || (slot->hash == hash && streq(set->text + slot->id - 1, id)))
                        return slot;
        }
        return NULL;
}

int seen_add(Seen *set, const char *id) {
        size_t n = strlen(id) + 1;
        SeenSlot *slot;
        uint32_t hash;

        HASH_VALUE(id, n, hash);
        slot = find_slot(set, id, hash);
        if (slot && slot->id > 0)
                return 0;
        if (!slot || set->n_ids == set->ids_max || n > set->ids_max * SEEN_ID_SIZE - set->n_text)
                return -ENOBUFS;
        *slot = (SeenSlot){.hash = hash, .id = (uint32_t) set->n_text + 1};
        memcpy(set->text + set->n_text, id, n);
        set->n_text += n;
        set->n_ids++;
        return 1;
}
