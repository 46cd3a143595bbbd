/* SPDX-License-Identifier: MIT */

#include "survey.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "site.h"
#include "util.h"

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

static bool is_in_place(const Walk *w) {
        const SurveyEntry *e = &w->entry;
        char path[QUEUE_PATH_SIZE];

        if (e->name[0] == '\0' || e->name[1] == '\0' || !queueid_valid(e->name, strlen(e->name)))
                return false;
        queue_path(w->queue, w->name, e->name, path);
        return streq(path, e->path);
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
                e->in_place = is_in_place(w);
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

static int open_log(const Queue *q, const char *path, struct stat *ret) {
        int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
        int fd = openat(q->fd, path, flags | O_NOATIME);

        /* Another one's file, which no refresh will work on either. */
        if (fd < 0 && errno == EPERM)
                fd = openat(q->fd, path, flags);
        if (fd < 0)
                return -errno;
        if (fstat(fd, ret) < 0 || !S_ISREG(ret->st_mode)) {
                closep(&fd);
                return -EPROTOTYPE;
        }
        return fd;
}

static int keep_text(SurveyLog *log, const char *id, size_t n) {
        if (log->n_text + n > log->text_size) {
                size_t size = 2 * (log->text_size + n);
                char *text = realloc(log->text, size);

                if (!text)
                        return -ENOMEM;
                log->text = text;
                log->text_size = size;
        }
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
        r = idset_add(&log->ids, line);
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

int survey_read(const Queue *q, const char *path, SurveyLog *ret) {
        int fd, r = 0;

        *ret = (SurveyLog){0};
        for (int i = 0; i < READ_TRIES; i++) {
                survey_free(ret);
                fd = open_log(q, path, &ret->st);
                if (fd < 0)
                        return fd;
                r = read_lines(fd, ret);
                if (r < 0 || !has_changed(q, path, &ret->st))
                        break;
        }
        return r;
}

void survey_free(SurveyLog *log) {
        idset_clear(&log->ids);
        free(log->text);
        *log = (SurveyLog){0};
}

bool survey_site(const char *name, char ret[static QUEUEID_MAX + 3]) {
        char site[SITE_SIZE], normal[SITE_SIZE];

        if (site_from_log(name, site) == 0 && site_normalize(site, normal) == 0 &&
            streq(site, normal)) {
                (void) strcpy(ret, site);
                return true;
        }
        (void) snprintf(ret, QUEUEID_MAX + 3, "(%s)", name);
        return false;
}
