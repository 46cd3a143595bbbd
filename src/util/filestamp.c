/* SPDX-License-Identifier: MIT */

#include "util/filestamp.h"

#include <sys/stat.h>
#include <utlist.h>

#include "util/util.h"

struct Filestamp {
        Filestamp *next;
        bool exists;
        struct stat st;
        char path[];
};

static bool look(const char *path, struct stat *ret) {
        return stat(path, ret) == 0;
}

int filestamp_add(Filestamp **watch, const char *path) {
        size_t n = strlen(path) + 1;
        Filestamp *w = calloc(1, sizeof *w + n);

        if (!w)
                return -ENOMEM;
        memcpy(w->path, path, n);
        w->exists = look(path, &w->st);
        LL_PREPEND(*watch, w);
        return 0;
}

static bool has_changed(const Filestamp *w) {
        struct stat now;

        if (look(w->path, &now) != w->exists)
                return true;
        return w->exists &&
               (now.st_dev != w->st.st_dev || now.st_ino != w->st.st_ino ||
                now.st_size != w->st.st_size || now.st_mtim.tv_sec != w->st.st_mtim.tv_sec ||
                now.st_mtim.tv_nsec != w->st.st_mtim.tv_nsec ||
                /* Whether it can be read may have changed. */
                now.st_mode != w->st.st_mode || now.st_uid != w->st.st_uid ||
                now.st_gid != w->st.st_gid);
}

bool filestamp_changed(const Filestamp *watch) {
        const Filestamp *w;

        LL_FOREACH (watch, w)
                if (has_changed(w))
                        return true;
        return false;
}

Filestamp *filestamp_free(Filestamp *watch) {
        Filestamp *w, *tmp;

        LL_FOREACH_SAFE (watch, w, tmp)
                free(w);
        return NULL;
}
