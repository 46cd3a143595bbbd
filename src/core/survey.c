/* SPDX-License-Identifier: MIT */

#include "core/survey.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "core/sitename.h"
#include "util/grow.h"
#include "util/util.h"

#define READ_TRIES 3

typedef struct Walk {
        const Queue *queue;
        QueueName name;
        survey_visit_t visit;
        void *userdata;
        SurveyEntry entry;
        unsigned depth;
} Walk;

static int walk(Walk *w);

static void find_place(const Walk *w, SurveyEntry *e) {
        size_t n_queue = strlen(queue_name(w->name)) + 1;
        size_t n_hash = strlen(e->path) - n_queue - strlen(e->name);
        char path[QUEUE_PATH_SIZE], forest[QUEUEID_FOREST_SIZE];

        e->in_place = e->found = false;
        if (e->name[0] == '\0' || e->name[1] == '\0' || !queueid_valid(e->name, strlen(e->name)))
                return;
        queue_path(w->queue, w->name, e->name, path);
        queueid_forest(e->name, QUEUEID_FOREST_MAX, forest);
        e->in_place = streq(path, e->path);
        e->found = n_hash < sizeof forest && memcmp(e->path + n_queue, forest, n_hash) == 0;
}

static int walk_entry(Walk *w, const char *name) {
        SurveyEntry *e = &w->entry;
        size_t n = strlen(e->path);
        int r = 0;

        if ((size_t) snprintf(e->path + n, sizeof e->path - n, "/%s", name) >= sizeof e->path - n)
                r = -ENAMETOOLONG;
        else if (fstatat(w->queue->fd, e->path, &e->st, AT_SYMLINK_NOFOLLOW) < 0)
                r = errno == ENOENT ? 0 : -errno;
        else if (S_ISDIR(e->st.st_mode) && name[1] == '\0' && w->depth < QUEUEID_FOREST_MAX) {
                w->depth++;
                r = walk(w);
                w->depth--;
        } else {
                e->name = e->path + n + 1;
                find_place(w, e);
                r = w->visit(e, w->userdata);
        }
        e->path[n] = '\0';
        return r;
}

static int walk(Walk *w) {
        const struct dirent *d;
        DIR *dir;
        int r = queue_open_dir(w->queue->fd, w->entry.path, &dir);

        if (r < 0)
                return r == -ENOENT ? 0 : r;
        while (r == 0 && (errno = 0, d = readdir(dir)))
                if (!streq(d->d_name, ".") && !streq(d->d_name, ".."))
                        r = walk_entry(w, d->d_name);
        if (r == 0 && errno != 0)
                r = -errno;
        (void) closedir(dir);
        return r;
}

int survey_walk(const Queue *q, QueueName queue, survey_visit_t visit, void *userdata) {
        Walk w = {.queue = q, .name = queue, .visit = visit, .userdata = userdata};

        (void) strcpy(w.entry.path, queue_name(queue));
        return walk(&w);
}

/* @ret_undo_atime:  reading it changes its access time */
static int open_log(const Queue *q, const char *path, struct stat *ret, bool *ret_undo_atime) {
        int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
        int fd = openat(q->fd, path, flags | O_NOATIME);

        /* Another one's file, which no refresh will work on either; or a container with mapped IDs
         * refuses it to the owner, too. */
        *ret_undo_atime = fd < 0 && errno == EPERM;
        if (*ret_undo_atime)
                fd = openat(q->fd, path, flags);
        if (fd < 0) /* there is a lease: it is being removed, so it is empty */
                return errno == EWOULDBLOCK ? -ENOENT : -errno;
        if (fstat(fd, ret) < 0 || !S_ISREG(ret->st_mode)) {
                closep(&fd);
                return -EPROTOTYPE;
        }
        return fd;
}

static int keep_text(SurveyLog *log, const char *id, size_t n) {
        if (!GROW(log->text, log->n_text + n, log->text_size))
                return -ENOMEM;
        memcpy(log->text + log->n_text, id, n);
        log->n_text += n;
        return 0;
}

static int read_line(SurveyLog *log, char *line, size_t n) {
        int r;

        log->lost_tail = line[n - 1] == '\n' ? 0 : n;
        if (log->lost_tail == 0)
                n--;
        if (n == 0)
                return 0;
        n = strnlen(line, n); /* as flush(8), which reads strings */
        if (!queueid_valid(line, n)) {
                log->invalid++;
                return 0;
        }
        log->records++;
        line[n] = '\0';
        r = strset_add(&log->ids, line);
        return r < 0 ? r : keep_text(log, line, n + 1);
}

static int read_lines(int fd, SurveyLog *log) {
        _cleanup_free_ char *line = NULL;
        size_t size = 0;
        ssize_t n;
        FILE *f;
        int r = 0;

        f = fdopen(fd, "r");
        if (!f) {
                closep(&fd);
                return -ENOMEM;
        }
        while (r == 0 && (n = getline(&line, &size, f)) > 0)
                r = read_line(log, line, (size_t) n);
        if (r == 0 && !feof(f))
                r = errno != 0 ? -errno : -EIO;
        (void) fclose(f);
        return r;
}

static bool has_changed(const Queue *q, const char *path, const struct stat *st) {
        struct stat now;

        return fstatat(q->fd, path, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
               (now.st_ino != st->st_ino || now.st_size != st->st_size ||
                now.st_ctim.tv_sec != st->st_ctim.tv_sec ||
                now.st_ctim.tv_nsec != st->st_ctim.tv_nsec);
}

/* Only its owner can. */
static void restore_atime(int fd, const struct stat *st) {
        const struct timespec times[2] = {st->st_atim, {.tv_nsec = UTIME_OMIT}};

        if (fd >= 0)
                (void) futimens(fd, times);
}

/* Return: 0, -ESTALE (has changed meanwhile), or another negative errno. */
static int read_once(const Queue *q, const char *path, SurveyLog *ret) {
        _cleanup_close_ int spare_fd = -EBADF;
        bool undo_atime;
        int fd, r;

        fd = open_log(q, path, &ret->st, &undo_atime);
        if (fd < 0)
                return fd;
        if (undo_atime)
                spare_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        r = read_lines(fd, ret);
        if (r == 0 && has_changed(q, path, &ret->st))
                r = -ESTALE;
        restore_atime(spare_fd, &ret->st);
        return r;
}

int survey_read(const Queue *q, const char *path, SurveyLog *ret) {
        int r = -ESTALE;

        *ret = (SurveyLog){0};
        for (int i = 0; i < READ_TRIES && r == -ESTALE; i++) {
                survey_done(ret);
                r = read_once(q, path, ret);
        }
        return r == -ESTALE ? 0 : r;
}

static int merge(SurveyLog *into, const SurveyLog *part) {
        const StrSetEntry *e = NULL;
        int r;

        while ((e = strset_next(&part->ids, e))) {
                r = strset_add(&into->ids, strset_entry_id(e));
                if (r < 0)
                        return r;
        }
        r = part->n_text > 0 ? keep_text(into, part->text, part->n_text) : 0;
        into->records += part->records;
        into->invalid += part->invalid;
        into->lost_tail += part->lost_tail;
        if (part->st.st_atim.tv_sec < into->st.st_atim.tv_sec)
                into->st.st_atim = part->st.st_atim;
        if (part->st.st_mtim.tv_sec > into->st.st_mtim.tv_sec)
                into->st.st_mtim = part->st.st_mtim;
        return r;
}

/* @found: something has been read before. */
static int read_part(const Queue *q, const char *path, SurveyLog *ret, bool *found) {
        SurveyLog part;
        int r;

        if (!*found) {
                r = survey_read(q, path, ret);
                *found = r == 0;
                return r == -ENOENT ? 0 : r;
        }
        r = survey_read(q, path, &part);
        if (r == 0)
                r = merge(ret, &part);
        survey_done(&part);
        return r == -ENOENT ? 0 : r;
}

static int read_parts(const Queue *q, const char *name, SurveyLog *ret, bool *found) {
        char path[QUEUE_PATH_SIZE];
        QueuePlaces places;
        int r;

        queue_path(q, QUEUE_FLUSH, name, path);
        r = read_part(q, path, ret, found);
        if (r < 0)
                return r;
        queue_places(q, QUEUE_FLUSH, name, &places);
        while ((r = queue_next_place(&places, path)) > 0) {
                r = read_part(q, path, ret, found);
                if (r < 0)
                        return r;
        }
        return r;
}

/* Twice: it may be moved while this looks. */
int survey_read_log(const Queue *q, const char *name, SurveyLog *ret) {
        bool found = false;
        int r = 0;

        *ret = (SurveyLog){0};
        for (int pass = 0; pass < QUEUE_PASSES && r == 0 && !found; pass++)
                r = read_parts(q, name, ret, &found);
        return r == 0 && !found ? -ENOENT : r;
}

void survey_done(SurveyLog *log) {
        strset_clear(&log->ids);
        free(log->text);
        *log = (SurveyLog){0};
}

bool survey_site(const char *name, char ret[static QUEUEID_MAX + 3]) {
        char site[SITE_SIZE], normal[SITE_SIZE];

        if (sitename_from_log(name, site) == 0 && sitename_normalize(site, normal) == 0 &&
            streq(site, normal)) {
                (void) strcpy(ret, site);
                return true;
        }
        (void) snprintf(ret, QUEUEID_MAX + 3, "(%s)", name);
        return false;
}
