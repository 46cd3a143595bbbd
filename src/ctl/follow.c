/* SPDX-License-Identifier: MIT */

#include "ctl/follow.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>

#include "util/grow.h"
#include "util/hash.h"
#include "util/util.h"

#define EVENTS_SIZE 65536
#define MASK        (IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_DONT_FOLLOW)

struct FollowMessage {
        UT_hash_handle hh;
        FollowState state;
        unsigned group;
        /* Its last move away from a queue, by which the other half of the move is known. */
        QueueName left;
        uint32_t cookie;
        FollowState before;
        char id[];
};

static int watch(Follow *f, QueueName queue, const char *path);

/* One-character directories, and below: hashed now, or before hash_queue_names changed. */
static int watch_below(Follow *f, QueueName queue, const char *path) {
        const struct dirent *d;
        char below[QUEUE_PATH_SIZE];
        DIR *dir;
        int r = queue_open_dir(f->queue->fd, path, &dir);

        if (r < 0)
                return r == -ENOENT ? 0 : r;
        while (r == 0 && (d = readdir(dir)))
                if (d->d_name[0] != '.' && d->d_name[1] == '\0' &&
                    snprintf(below, sizeof below, "%s/%s", path, d->d_name) < (int) sizeof below)
                        r = watch(f, queue, below);
        (void) closedir(dir);
        return r;
}

static int watch(Follow *f, QueueName queue, const char *path) {
        char proc[sizeof "/proc/self/fd/" + 3 * sizeof(int) + QUEUE_PATH_SIZE];
        int wd;

        (void) snprintf(proc, sizeof proc, "/proc/self/fd/%d/%s", f->queue->fd, path);
        wd = inotify_add_watch(f->fd, proc, MASK);
        if (wd < 0) /* not there; or a message with a name of one character */
                return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
        if (!GROW(f->watches, (size_t) wd, f->n_watches))
                return -ENOMEM;
        f->watches[wd].queue = queue;
        (void) strcpy(f->watches[wd].path, path);
        return watch_below(f, queue, path);
}

int follow_init(const Queue *queue, Follow *f) {
        static const QueueName queues[] = {QUEUE_DEFERRED, QUEUE_INCOMING, QUEUE_ACTIVE,
                                           QUEUE_HOLD};
        int r = 0;

        *f = (Follow){.queue = queue};
        /* No stamp from here on is earlier: files are stamped by this clock, or a little ahead. */
        (void) clock_gettime(CLOCK_REALTIME_COARSE, &f->since);
        f->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (f->fd < 0)
                return -errno;
        for (size_t i = 0; i < ARRAY_SIZE(queues) && r == 0; i++)
                r = watch(f, queues[i], queue_name(queues[i]));
        return r;
}

void follow_done(Follow *f) {
        FollowMessage *m = f->messages, *next;

        HASH_CLEAR(hh, f->messages);
        for (; m; m = next) {
                next = m->hh.next;
                free(m);
        }
        free(f->watches);
        closep(&f->fd);
        *f = (Follow){.fd = -EBADF};
}

static FollowMessage *find(const Follow *f, const char *id) {
        FollowMessage *m;

        HASH_FIND_STR(f->messages, id, m);
        return m;
}

FollowState follow_state(const Follow *f, const char *id) {
        const FollowMessage *m = find(f, id);

        return m ? m->state : FOLLOW_NOT_MOVED;
}

static void set_state(Follow *f, FollowMessage *m, FollowState state) {
        f->count[m->state]--;
        m->state = state;
        f->count[state]++;
}

static int add(Follow *f, const char *id, unsigned group, FollowState state) {
        size_t n = strlen(id);
        FollowMessage *m = calloc(1, sizeof *m + n + 1);
        bool oom = false;

        if (!m)
                return -ENOMEM;
        memcpy(m->id, id, n + 1);
        m->group = group;
        m->state = state;
        HASH_ADD_KEYPTR(hh, f->messages, m->id, n, m);
        if (oom) {
                free(m);
                return -ENOMEM;
        }
        f->count[state]++;
        return 0;
}

int follow_add(Follow *f, const char *id, unsigned group) {
        QueueName queue;
        struct stat st;
        int r;

        if (find(f, id))
                return 0;
        r = queue_find(f->queue, id, &queue, &st);
        if (r == -ENOENT || (r == 0 && queue != QUEUE_DEFERRED && queue != QUEUE_INCOMING))
                return 0;
        if (r < 0)
                return r;
        return add(f, id, group, queue == QUEUE_DEFERRED ? FOLLOW_NOT_MOVED : FOLLOW_MOVING);
}

int follow_join(Follow *f, const char *id, unsigned group) {
        QueueName queue;
        struct stat st;
        int r;

        if (find(f, id))
                return 1;
        r = queue_find(f->queue, id, &queue, &st);
        if (r == -ENOENT || (r == 0 && queue != QUEUE_ACTIVE && queue != QUEUE_INCOMING))
                return 0;
        if (r == 0)
                r = add(f, id, group, FOLLOW_MOVING);
        return r < 0 ? r : 1;
}

bool follow_find(const Follow *f, const char *id, FollowItem *ret) {
        const FollowMessage *m = find(f, id);

        *ret = m ? (FollowItem){m->id, m->state, m->group} : (FollowItem){.id = id};
        return m != NULL;
}

bool follow_next(const Follow *f, const void **cursor, FollowItem *ret) {
        const FollowMessage *last = *cursor, *m = last ? last->hh.next : f->messages;

        if (!m)
                return false;
        *ret = (FollowItem){m->id, m->state, m->group};
        *cursor = m;
        return true;
}

static bool has_ended(const FollowMessage *m) {
        return m->state != FOLLOW_NOT_MOVED && m->state != FOLLOW_MOVING;
}

static void note_departure(Follow *f, FollowMessage *m, QueueName queue, uint32_t cookie) {
        m->left = queue;
        m->cookie = cookie;
        m->before = m->state;
        set_state(f, m, FOLLOW_MOVING);
}

static void move(Follow *f, const struct inotify_event *e, QueueName queue) {
        FollowMessage *m = find(f, e->name);

        if (!m || has_ended(m))
                return;
        if (e->mask & IN_DELETE)
                set_state(f, m, FOLLOW_LEFT);
        else if (e->mask & IN_MOVED_FROM)
                note_departure(f, m, queue, e->cookie);
        else if (!(e->mask & IN_MOVED_TO))
                return;
        else if (e->cookie == m->cookie && queue == m->left) /* postsuper(1), between layouts */
                set_state(f, m, m->before);
        else if (queue == QUEUE_HOLD)
                set_state(f, m, FOLLOW_HELD);
        else if (queue == QUEUE_DEFERRED && m->state == FOLLOW_MOVING)
                set_state(f, m, FOLLOW_DEFERRED);
}

static int handle(Follow *f, const struct inotify_event *e) {
        char path[QUEUE_PATH_SIZE];
        const FollowWatch *w;

        if (e->mask & (IN_Q_OVERFLOW | IN_IGNORED))
                f->blind = true;
        if (e->wd < 0 || (size_t) e->wd >= f->n_watches || e->len == 0)
                return 0;
        w = &f->watches[e->wd];
        if (!(e->mask & IN_ISDIR)) {
                move(f, e, w->queue);
                return 0;
        }
        if (!(e->mask & (IN_CREATE | IN_MOVED_TO)) || e->name[1] != '\0' ||
            snprintf(path, sizeof path, "%s/%s", w->path, e->name) >= (int) sizeof path)
                return 0;
        f->blind = true; /* there may be messages in it already */
        return watch(f, w->queue, path);
}

int follow_events(Follow *f) {
        _cleanup_free_ char *buf = malloc(EVENTS_SIZE);
        int r = 0;

        if (!buf)
                return -ENOMEM;
        for (;;) {
                ssize_t n = read(f->fd, buf, EVENTS_SIZE);

                if (n < 0)
                        return errno == EAGAIN ? r : -errno;
                for (ssize_t i = 0; i < n && r == 0;) {
                        const struct inotify_event *e = (const void *) (buf + i);

                        r = handle(f, e);
                        i += (ssize_t) (sizeof *e + e->len);
                }
                if (r < 0)
                        return r;
        }
}

/* One that is in the deferred queue has been in no other if its file was not touched since. */
static bool touched(const Follow *f, const struct stat *st) {
        return st->st_ctim.tv_sec > f->since.tv_sec ||
               (st->st_ctim.tv_sec == f->since.tv_sec && st->st_ctim.tv_nsec >= f->since.tv_nsec);
}

static void look_for(Follow *f, FollowMessage *m, bool all_moved) {
        QueueName queue;
        struct stat st;
        int r = queue_find(f->queue, m->id, &queue, &st);

        if (r == -ENOENT)
                set_state(f, m, FOLLOW_LEFT);
        else if (r == 0 && queue == QUEUE_HOLD)
                set_state(f, m, FOLLOW_HELD);
        else if (r == 0 && queue != QUEUE_DEFERRED)
                set_state(f, m, FOLLOW_MOVING);
        else if (r == 0 && (m->state == FOLLOW_MOVING || (all_moved && touched(f, &st))))
                set_state(f, m, FOLLOW_DEFERRED);
}

void follow_look(Follow *f) {
        f->blind = false;
        for (FollowMessage *m = f->messages; m; m = m->hh.next)
                if (m->state == FOLLOW_MOVING)
                        look_for(f, m, false);
}

void follow_settle(Follow *f, bool all_moved) {
        if (!f->blind)
                return;
        for (FollowMessage *m = f->messages; m; m = m->hh.next)
                if (!has_ended(m))
                        look_for(f, m, all_moved);
        f->blind = false;
}
