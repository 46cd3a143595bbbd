/* SPDX-License-Identifier: MIT */

#include "sitelog.h"

#include <assert.h>
#include <fcntl.h>
#include <sys/file.h>

#include "util.h"

#define MODE_LOG 0600

/* How often a name may turn out to be another file's just after the lock was got. Each time
 * somebody else must have removed or replaced the log in between. */
#define OPEN_TRIES 10

static int check_file(const struct stat *st) {
        if (S_ISDIR(st->st_mode))
                return -EISDIR;
        if (!S_ISREG(st->st_mode))
                return -EPROTOTYPE;
        if (st->st_uid != geteuid())
                return -EPERM;
        if (st->st_nlink > 1)
                return -EMLINK;
        return 0;
}

static int open_file(const Queue *q, const char *path, bool create, SiteLog *log) {
        /* O_NONBLOCK: a FIFO in place of the log must not stop us. O_NOATIME: a reader who is
         * not a flush must not put off the refresh, which goes by atime. */
        int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_CLOEXEC;
        int fd = openat(q->fd, path, flags);

        if (fd < 0 && errno == ENOENT && create) {
                int r;

                fd = openat(q->fd, path, flags | O_CREAT | O_EXCL, MODE_LOG);
                if (fd < 0 && errno == ENOENT) {
                        r = queue_make_dirs(q, path);
                        if (r < 0)
                                return r;
                        fd = openat(q->fd, path, flags | O_CREAT | O_EXCL, MODE_LOG);
                }
                if (fd < 0 && errno == EEXIST) /* somebody else was faster */
                        return -ESTALE;
        }
        if (fd < 0)
                return -errno;
        log->fd = fd;
        return RET_NERRNO(fstat(fd, &log->st));
}

/* Has @path been removed or replaced while we had it open and unlocked? The link count of the open
 * file alone does not tell: a file with another name has one left when @path, a hard link to it,
 * has gone. So all that is known of the file from here on is of one look at what has the name.
 * (While rename(2) replaces such a link, the count is one and the name still there for some
 * microseconds. Only the owner of both can have that happen, and the owner is postfix.) */
static int check_name(const Queue *q, const char *path, SiteLog *log) {
        struct stat named;

        if (fstatat(q->fd, path, &named, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? -ESTALE : -errno;
        if (named.st_dev != log->st.st_dev || named.st_ino != log->st.st_ino)
                return -ESTALE;
        log->st = named;
        return check_file(&named);
}

static int lock_file(const Queue *q, const char *path, SiteLog *log) {
        if (flock(log->fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        log->ends_line = false;
        return check_name(q, path, log);
}

int sitelog_open(const Queue *q, const char *name, bool create, SiteLog *log) {
        char path[QUEUE_PATH_SIZE];
        int r = -ESTALE;

        queue_path(q, QUEUE_FLUSH, name, path);
        for (int i = 0; i < OPEN_TRIES && r == -ESTALE; i++) {
                r = open_file(q, path, create, log);
                if (r == 0)
                        r = lock_file(q, path, log);
                if (r < 0)
                        sitelog_close(log);
        }
        return r == -ESTALE ? -EAGAIN : r;
}

void sitelog_close(SiteLog *log) {
        closep(&log->fd);
        log->fd = -EBADF;
}

void sitelog_unlock(SiteLog *log) {
        (void) flock(log->fd, LOCK_UN); /* cannot fail on an open file */
}

int sitelog_relock(const Queue *q, const char *name, SiteLog *log) {
        char path[QUEUE_PATH_SIZE];

        queue_path(q, QUEUE_FLUSH, name, path);
        return lock_file(q, path, log);
}

SiteLogStamp sitelog_stamp(const SiteLog *log) {
        return (SiteLogStamp){.dev = log->st.st_dev,
                              .ino = log->st.st_ino,
                              .size = log->st.st_size,
                              .ctime = log->st.st_ctim,
                              .ends_line = log->ends_line};
}

bool sitelog_unchanged(SiteLog *log, const SiteLogStamp *stamp) {
        const struct stat *st = &log->st;

        if (st->st_dev != stamp->dev || st->st_ino != stamp->ino || st->st_size != stamp->size ||
            st->st_ctim.tv_sec != stamp->ctime.tv_sec ||
            st->st_ctim.tv_nsec != stamp->ctime.tv_nsec)
                return false;
        log->ends_line = stamp->ends_line;
        return true;
}

/* Nothing useful can be done when this fails; the next sitelog_open() looks anyway. */
static void restat(SiteLog *log) {
        (void) fstat(log->fd, &log->st);
}

/* At a place of our own choosing rather than with O_APPEND: under the lock the end of the file
 * stays where it was seen. */
static int write_fully(const SiteLog *log, const char *data, size_t n, off_t offset) {
        size_t done = 0;

        while (done < n) {
                ssize_t w = pwrite(log->fd, data + done, n - done, offset + (off_t) done);

                if (w > 0)
                        done += (size_t) w;
                else if (w == 0)
                        return -EIO;
                else if (errno != EINTR)
                        return -errno;
        }
        return 0;
}

/* All of it or nothing. */
static int append(SiteLog *log, const char *data, size_t n) {
        int r = write_fully(log, data, n, log->st.st_size);

        log->ends_line = r == 0;
        if (r < 0) /* if this fails as well, a torn line stays: that is no record, but no harm */
                (void) ftruncate(log->fd, log->st.st_size);
        else
                log->st.st_size += (off_t) n;
        return r;
}

/* Somebody else's crash may have left a last line without its newline: what is appended must
 * not become one with it. */
static int end_last_line(SiteLog *log) {
        char last;
        ssize_t n;

        if (log->ends_line || log->st.st_size == 0)
                return 0;
        n = sitelog_read(log, &last, 1, log->st.st_size - 1);
        if (n < 0)
                return (int) n;
        return n == 0 || last == '\n' ? 0 : append(log, "\n", 1);
}

/* A new file is on the disk only when its name is; and an empty one may be new. */
static int sync_name(const Queue *q, const char *name) {
        _cleanup_close_ int dir_fd = -EBADF;
        char path[QUEUE_PATH_SIZE];

        queue_path(q, QUEUE_FLUSH, name, path);
        for (char *slash; (slash = strrchr(path, '/'));) {
                *slash = '\0';
                closep(&dir_fd);
                dir_fd = openat(q->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (dir_fd < 0 || fsync(dir_fd) < 0)
                        return -errno;
        }
        return 0;
}

int sitelog_append(const Queue *q, const char *name, SiteLog *log, const char *lines, size_t n,
                   bool sync) {
        off_t old_size;
        int r;

        r = end_last_line(log);
        if (r < 0)
                return r;
        old_size = log->st.st_size;
        r = append(log, lines, n);
        if (r == 0 && sync) {
                r = RET_NERRNO(fdatasync(log->fd));
                if (r == 0 && old_size == 0)
                        r = sync_name(q, name);
                if (r < 0) /* on the disk or not, who knows; it will be answered FAIL */
                        (void) ftruncate(log->fd, old_size);
        }
        restat(log);
        return r;
}

ssize_t sitelog_read(const SiteLog *log, char *buf, size_t size, off_t offset) {
        ssize_t n;

        do
                n = pread(log->fd, buf, size, offset);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

static int read_fully(const SiteLog *log, char *buf, size_t n, off_t offset) {
        size_t done = 0;

        while (done < n) {
                ssize_t r = sitelog_read(log, buf + done, n - done, offset + (off_t) done);

                if (r < 0)
                        return (int) r;
                if (r == 0)
                        return -ESTALE;
                done += (size_t) r;
        }
        return 0;
}

static int move_to_front(SiteLog *log, size_t n_prefix, const char *keep, size_t n_keep,
                         bool sync) {
        _cleanup_free_ char *stay = NULL;
        size_t n_tail, n;
        int r;

        r = end_last_line(log);
        if (r < 0)
                return r;
        n_tail = (size_t) log->st.st_size - n_prefix;
        n = n_keep + n_tail;
        stay = malloc(n);
        if (!stay)
                return -ENOMEM;
        if (n_keep > 0)
                memcpy(stay, keep, n_keep);
        r = read_fully(log, stay + n_keep, n_tail, (off_t) n_prefix);
        if (r == 0)
                r = append(log, stay, n);
        if (r == 0 && sync)
                r = RET_NERRNO(fdatasync(log->fd));
        if (r == 0)
                r = write_fully(log, stay, n, 0);
        if (r == 0 && sync)
                r = RET_NERRNO(fdatasync(log->fd));
        if (r == 0)
                r = RET_NERRNO(ftruncate(log->fd, (off_t) n));
        return r;
}

int sitelog_replace_prefix(SiteLog *log, size_t n_prefix, const char *keep, size_t n_keep,
                           bool sync) {
        int r;

        assert(n_prefix <= (size_t) log->st.st_size && n_keep <= n_prefix);

        if (n_keep == 0 && n_prefix == (size_t) log->st.st_size)
                r = RET_NERRNO(ftruncate(log->fd, 0));
        else
                r = move_to_front(log, n_prefix, keep, n_keep, sync);
        restat(log);
        return r;
}

void sitelog_touch(SiteLog *log) {
        (void) futimens(log->fd, NULL); /* the refresh comes early or late; no harm */
        restat(log);
}

int sitelog_remove_if_empty(const Queue *q, const char *name, SiteLog *log) {
        char path[QUEUE_PATH_SIZE];

        if (log->st.st_size > 0)
                return -ENOTEMPTY;
        queue_path(q, QUEUE_FLUSH, name, path);
        return RET_NERRNO(unlinkat(q->fd, path, 0));
}
