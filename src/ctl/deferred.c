/* SPDX-License-Identifier: MIT */

#include "ctl/deferred.h"

#include <sys/stat.h>

#include "core/queueid.h"
#include "core/survey.h"
#include "util/util.h"

typedef struct Walk {
        const Queue *queue;
        Deferred *deferred;
} Walk;

static int visit(const SurveyEntry *e, void *userdata) {
        const Walk *walk = userdata;
        Deferred *d = walk->deferred;
        size_t n = strlen(e->name);
        DeferredMessage *new;
        bool oom = false;

        /* It may have moved from one directory to another, and be seen twice. */
        if (!S_ISREG(e->st.st_mode) || !queueid_valid(e->name, n) || deferred_find(d, e->name))
                return 0;
        new = calloc(1, sizeof *new + n + 1);
        if (!new)
                return -ENOMEM;
        memcpy(new->id, e->name, n);
        new->arrival = queue_arrival(walk->queue, e->path, e->name);
        HASH_ADD_KEYPTR(hh, d->messages, new->id, n, new);
        if (oom)
                free(new);
        return oom ? -ENOMEM : 0;
}

int deferred_read(const Queue *q, Deferred *ret) {
        Walk walk = {.queue = q, .deferred = ret};

        *ret = (Deferred){0};
        return survey_walk(q, QUEUE_DEFERRED, visit, &walk);
}

typedef struct Count {
        bool (*is_recorded)(const char *id, void *userdata);
        void *userdata;
        unsigned long *n;
} Count;

static int count(const SurveyEntry *e, void *userdata) {
        const Count *c = userdata;

        if (S_ISREG(e->st.st_mode) && queueid_valid(e->name, strlen(e->name)))
                *c->n += !c->is_recorded(e->name, c->userdata);
        return 0;
}

int deferred_count_unrecorded(const Queue *q, bool (*is_recorded)(const char *id, void *userdata),
                              void *userdata, unsigned long *ret) {
        Count c = {.is_recorded = is_recorded, .userdata = userdata, .n = ret};

        *ret = 0;
        return survey_walk(q, QUEUE_DEFERRED, count, &c);
}

DeferredMessage *deferred_find(const Deferred *d, const char *id) {
        DeferredMessage *found;

        HASH_FIND_STR(d->messages, id, found);
        return found;
}

void deferred_done(Deferred *d) {
        DeferredMessage *message = d->messages, *next;

        HASH_CLEAR(hh, d->messages);
        for (; message; message = next) {
                next = message->hh.next;
                free(message);
        }
}
