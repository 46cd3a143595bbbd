/* SPDX-License-Identifier: MIT */

#include "core/queue.h"

#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

#include "util/util.h"

#define MODE_READY      0700
#define MODE_UNTHROTTLE 0040
#define MODE_DIRECTORY  0700

static const char *const names[_QUEUE_NAME_MAX] = {
        [QUEUE_INCOMING] = "incoming", [QUEUE_ACTIVE] = "active", [QUEUE_DEFERRED] = "deferred",
        [QUEUE_HOLD] = "hold",         [QUEUE_FLUSH] = "flush",
};

const char *queue_name(QueueName name) {
        return names[name];
}

static bool lists_queue(const char *list, const char *name) {
        static const char separators[] = " \t\r\n,";

        for (;;) {
                size_t n;

                list += strspn(list, separators);
                n = strcspn(list, separators);
                if (n == 0)
                        return false;
                if (n == strlen(name) && strncasecmp(list, name, n) == 0)
                        return true;
                list += n;
        }
}

void queue_set_layout(Queue *q, const char *hash_queue_names, unsigned hash_depth) {
        q->was_spread |= q->hashed[QUEUE_INCOMING];
        q->hash_depth = hash_depth;
        for (int i = 0; i < _QUEUE_NAME_MAX; i++)
                q->hashed[i] = lists_queue(hash_queue_names, queue_name((QueueName) i));
}

int queue_open(const char *directory, const char *hash_queue_names, unsigned hash_depth,
               Queue *ret) {
        *ret = (Queue){0};
        queue_set_layout(ret, hash_queue_names, hash_depth);
        ret->fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return ret->fd < 0 ? -errno : 0;
}

int queue_is_at(const Queue *q, const char *directory) {
        struct stat ours, theirs;

        if (stat(directory, &theirs) < 0)
                return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
        if (fstat(q->fd, &ours) < 0)
                return -errno;
        return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

void queue_path(const Queue *q, QueueName name, const char *id, char ret[static QUEUE_PATH_SIZE]) {
        char forest[QUEUEID_FOREST_SIZE] = "";
        char *p = ret;

        if (q->hashed[name])
                queueid_forest(id, q->hash_depth, forest);
        p = stpcpy(p, names[name]);
        *p++ = '/';
        p = stpcpy(p, forest);
        (void) strcpy(p, id);
}

int queue_open_dir(int fd, const char *path, DIR **ret) {
        int dir_fd = openat(fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        DIR *dir;

        if (dir_fd < 0)
                return -errno;
        dir = fdopendir(dir_fd);
        if (!dir) {
                closep(&dir_fd);
                return -ENOMEM;
        }
        *ret = dir;
        return 0;
}

int queue_make_dirs(const Queue *q, const char *path) {
        char dir[QUEUE_PATH_SIZE];
        struct stat st;

        (void) strcpy(dir, path);
        for (char *slash = strchr(dir, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                if (mkdirat(q->fd, dir, MODE_DIRECTORY) == 0) {
                        /* A parent with BSD group semantics gives its own group away. */
                        if (fstatat(q->fd, dir, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                            st.st_gid != getegid())
                                (void) !fchownat(q->fd, dir, (uid_t) -1, getegid(),
                                                 AT_SYMLINK_NOFOLLOW);
                } else if (errno != EEXIST)
                        return -errno;
                *slash = '/';
        }
        return 0;
}

/* Due now by the clock that qmgr reads, time(2): it is a tick behind CLOCK_REALTIME, and behind the
 * stamps of a Linux from 6.13 on, so that those may be of the next second. */
static void due_now(struct timespec times[2]) {
        (void) clock_gettime(CLOCK_REALTIME_COARSE, &times[0]); /* cannot fail for this clock */
        times[1] = times[0];
}

/* With the time spelled out, which only the owner may do: write permission is not enough for us
 * to move another one's file. */
static int touch(const Queue *q, const char *path) {
        struct timespec times[2];

        due_now(times);
        return RET_NERRNO(utimensat(q->fd, path, times, AT_SYMLINK_NOFOLLOW));
}

/* A directory of that name is no message, and must not hide the one that lies further on: its
 * record would go. */
static int stat_message(const Queue *q, const char *path, struct stat *ret) {
        int r = RET_NERRNO(fstatat(q->fd, path, ret, AT_SYMLINK_NOFOLLOW));

        return r == 0 && S_ISDIR(ret->st_mode) ? -ENOENT : r;
}

/* What NFS reports for a rename may be wrong: the reply to the first try can get lost. */
static bool has_moved(const Queue *q, const char *from, const char *to) {
        struct stat st;

        return fstatat(q->fd, from, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT &&
               stat_message(q, to, &st) == 0;
}

static int move_to_incoming(const Queue *q, const char *from, const char *id) {
        char to[QUEUE_PATH_SIZE];
        struct stat st;
        int r;

        queue_path(q, QUEUE_INCOMING, id, to);
        r = RET_NERRNO(renameat(q->fd, from, q->fd, to));
        if (r < 0 && q->hashed[QUEUE_INCOMING]) {
                int made = queue_make_dirs(q, to);

                if (made < 0)
                        return made;
                r = RET_NERRNO(renameat(q->fd, from, q->fd, to));
        }
        if (r < 0 && has_moved(q, from, to))
                return 0;
        /* "No such file" may be the directory's; a message that is still there is not gone. */
        if (r == -ENOENT && fstatat(q->fd, from, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return -ENOTDIR;
        return r;
}

/* ---------------------------------------------------------------------------- any layout */

static void path_at(QueueName name, const char *forest, unsigned depth, const char *id,
                    char ret[static QUEUE_PATH_SIZE]) {
        (void) snprintf(ret, QUEUE_PATH_SIZE, "%s/%.*s%s", names[name], (int) (2 * depth), forest,
                        id);
}

void queue_places(const Queue *q, QueueName name, const char *id, QueuePlaces *ret) {
        *ret = (QueuePlaces){.queue = q, .name = name, .id = id};
        if (id[1] == '\0') /* elsewhere a name of one character is a hash directory's */
                ret->depth = QUEUEID_FOREST_MAX + 1;
        queueid_forest(id, QUEUEID_FOREST_MAX, ret->forest);
}

/* Return: 1, 0 (there is no such hash directory), or a negative errno: it cannot be seen. */
static int has_directory(const QueuePlaces *p) {
        char path[QUEUE_PATH_SIZE];
        struct stat st;

        path_at(p->name, p->forest, p->depth, "", path);
        path[strlen(path) - 1] = '\0';
        if (fstatat(p->queue->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : -errno;
        /* A link to a directory of another disk, say: one that leads nowhere is not the same as no
         * directory. */
        if (S_ISLNK(st.st_mode) && fstatat(p->queue->fd, path, &st, 0) < 0)
                return errno == ENOENT ? -ELOOP : -errno;
        return S_ISDIR(st.st_mode);
}

int queue_next_place(QueuePlaces *p, char ret[static QUEUE_PATH_SIZE]) {
        unsigned own = p->queue->hashed[p->name] ? p->queue->hash_depth : 0;

        for (; p->depth <= QUEUEID_FOREST_MAX; p->depth++) {
                int r = p->depth == 0 ? 1 : has_directory(p);

                if (r <= 0)
                        return r;
                if (p->depth == own)
                        continue;
                path_at(p->name, p->forest, p->depth++, p->id, ret);
                return 1;
        }
        return 0;
}

/* What is done at each place until it returns anything but -ENOENT, which is: not here. */
typedef int (*look_t)(const Queue *q, QueueName name, const char *path, void *userdata);

/* In the order in which messages travel, so that one that moves on is met in its next queue. */
static const QueueName order[] = {QUEUE_DEFERRED, QUEUE_INCOMING, QUEUE_ACTIVE, QUEUE_HOLD};

static int look_in_place(const Queue *q, const char *id, look_t look, void *userdata) {
        char path[QUEUE_PATH_SIZE];
        int r = -ENOENT;

        for (size_t i = 0; i < ARRAY_SIZE(order) && r == -ENOENT; i++) {
                queue_path(q, order[i], id, path);
                r = look(q, order[i], path, userdata);
        }
        return r;
}

static int look_elsewhere(const Queue *q, const char *id, look_t look, void *userdata) {
        char path[QUEUE_PATH_SIZE];

        for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
                QueuePlaces places;
                int r;

                queue_places(q, order[i], id, &places);
                while ((r = queue_next_place(&places, path)) > 0) {
                        r = look(q, order[i], path, userdata);
                        if (r != -ENOENT)
                                return r;
                }
                if (r < 0)
                        return r;
        }
        return -ENOENT;
}

/* "No such file" means nothing where the directory is not there: not mounted, being restored. */
static int check_queues(const Queue *q) {
        for (size_t i = 0; i < ARRAY_SIZE(order); i++)
                if (faccessat(q->fd, names[order[i]], F_OK, 0) < 0)
                        return errno == ENOENT ? -ENOTDIR : -errno;
        return 0;
}

/* All of it twice: what is moved back while this looks, from active to deferred by qmgr or from
 * one layout to another by postsuper(1), may have been missed where it came from and where it went
 * to. Return: -ENOENT only if it is in no queue, in whatever layout. */
static int look_everywhere(const Queue *q, const char *id, look_t look, void *userdata) {
        int r = -ENOENT;

        for (int pass = 0; pass < QUEUE_PASSES && r == -ENOENT; pass++) {
                r = look_in_place(q, id, look, userdata);
                if (r == -ENOENT)
                        r = look_elsewhere(q, id, look, userdata);
        }
        if (r == -ENOENT) {
                int there = check_queues(q);

                return there < 0 ? there : r;
        }
        return r;
}

/* ------------------------------------------------------------------------------- messages */

typedef struct Found {
        QueueName name;
        struct stat st;
} Found;

static int look_for_file(const Queue *q, QueueName name, const char *path, void *userdata) {
        Found *found = userdata;

        found->name = name;
        return stat_message(q, path, &found->st);
}

int queue_birth(const Queue *q, const char *path, struct timespec *ret) {
        struct statx st;

        if (statx(q->fd, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &st) < 0)
                return -errno;
        if (!(st.stx_mask & STATX_BTIME))
                return -ENODATA;
        *ret = (struct timespec){.tv_sec = (time_t) st.stx_btime.tv_sec,
                                 .tv_nsec = (long) st.stx_btime.tv_nsec};
        return 0;
}

time_t queue_arrival(const Queue *q, const char *path, const char *id) {
        time_t told = queueid_arrival(id);
        struct timespec birth = {0};

        if (told == 0)
                (void) queue_birth(q, path, &birth); /* 0 if that cannot be told */
        return told != 0 ? told : birth.tv_sec;
}

int queue_find(const Queue *q, const char *id, QueueName *ret, struct stat *ret_st) {
        Found found = {0};
        int r = look_everywhere(q, id, look_for_file, &found);

        if (r < 0)
                return r;
        *ret = found.name;
        *ret_st = found.st;
        return r;
}

typedef int (*make_due_t)(const Queue *q, const char *path, QueueResult *ret);

typedef struct Expedite {
        const char *id;
        make_due_t make_due;
        QueueResult result;
} Expedite;

static int expedite_at(const Queue *q, QueueName name, const char *path, void *userdata) {
        Expedite *e = userdata;
        struct stat st;
        int r = 0;

        if (name == QUEUE_ACTIVE || name == QUEUE_HOLD) {
                e->result = QUEUE_BUSY;
                return RET_NERRNO(faccessat(q->fd, path, F_OK, AT_SYMLINK_NOFOLLOW));
        }
        e->result = QUEUE_MOVED;
        if (name == QUEUE_INCOMING)
                r = stat_message(q, path, &st);
        if (r == 0)
                r = e->make_due(q, path, &e->result);
        if (r == 0 && e->result == QUEUE_MOVED && name == QUEUE_DEFERRED)
                r = move_to_incoming(q, path, e->id);
        return r;
}

static int expedite(const Queue *q, const char *id, make_due_t due, QueueResult *ret) {
        Expedite e = {.id = id, .make_due = due};
        int r = look_everywhere(q, id, expedite_at, &e);

        *ret = r == -ENOENT ? QUEUE_GONE : e.result;
        return r == -ENOENT ? 0 : r;
}

static int make_due(const Queue *q, const char *path, QueueResult *ret) {
        return touch(q, path);
}

static int check_unthrottle(const struct stat *st, uid_t owner, QueueResult *ret) {
        if (S_ISLNK(st->st_mode))
                return -ELOOP;
        if (S_ISDIR(st->st_mode))
                return -EISDIR;
        if (!S_ISREG(st->st_mode))
                return -EPROTOTYPE;
        if (st->st_nlink != 1)
                return -EMLINK;
        if (st->st_uid != owner)
                return -EPERM;
        if ((st->st_mode & MODE_READY) != MODE_READY)
                *ret = QUEUE_NOT_READY;
        return 0;
}

/*
 * Only through a descriptor, and only if it is a plain queue file of ours: with chmod(2) and
 * utimes(2) on a path, whoever can swap the file between two calls has us change another one's
 * permissions.
 */
static int make_due_unthrottled(const Queue *q, const char *path, QueueResult *ret) {
        _cleanup_close_ int fd = -EBADF;
        struct timespec times[2];
        struct stat st;
        int r;

        fd = openat(q->fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        r = check_unthrottle(&st, geteuid(), ret);
        if (r < 0 || *ret == QUEUE_NOT_READY)
                return r;
        due_now(times);
        if (fchmod(fd, (st.st_mode & 07777) | MODE_UNTHROTTLE) < 0 || futimens(fd, times) < 0)
                return -errno;
        return 0;
}

int queue_move(const Queue *q, const char *id, QueueResult *ret) {
        return expedite(q, id, make_due, ret);
}

int queue_sync_moves(const Queue *q) {
        _cleanup_close_ int fd = -EBADF;

        /* In which of the directories, nobody has noted. */
        if (q->hashed[QUEUE_INCOMING] || q->was_spread)
                return RET_NERRNO(syncfs(q->fd));
        fd = openat(q->fd, names[QUEUE_INCOMING], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int queue_unthrottle(const Queue *q, const char *id, QueueResult *ret) {
        return expedite(q, id, make_due_unthrottled, ret);
}

int queue_preview(const Queue *q, const char *id, bool unthrottle, QueueResult *ret) {
        struct stat st, incoming;
        QueueName name;
        int r;

        *ret = QUEUE_MOVED;
        r = queue_find(q, id, &name, &st);
        if (r < 0) {
                *ret = QUEUE_GONE;
                return r == -ENOENT ? 0 : r;
        }
        if (name != QUEUE_DEFERRED && name != QUEUE_INCOMING) {
                *ret = QUEUE_BUSY;
                return 0;
        }
        if (fstatat(q->fd, names[QUEUE_INCOMING], &incoming, 0) < 0)
                return errno == ENOENT ? -ENOTDIR : -errno;
        if (unthrottle)
                return check_unthrottle(&st, incoming.st_uid, ret);
        return st.st_uid == incoming.st_uid ? 0 : -EPERM;
}
