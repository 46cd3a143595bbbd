/* SPDX-License-Identifier: MIT */

#include "core/sitelog.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>

#include "util/util.h"

#define MODE_LOG 0600

/* How often a name may turn out to be another file's just after the lock was got. Each time
 * somebody else must have removed or replaced the log in between. */
#define OPEN_TRIES 10

#define COPY_SIZE  16384u
/* Cut off a log at once: a millisecond of freeing blocks. Longer than any line. */
#define CUT_SIZE (4 * 1024 * 1024)

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

/* Opens what is at log->path. */
static int open_file(const Queue *q, int more_flags, SiteLog *log) {
        /* O_NONBLOCK: a FIFO in place of the log must not stop us. O_NOATIME: a reader who is
         * not a flush must not put off the refresh, which goes by atime. */
        int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | more_flags;

        log->fd = openat(q->fd, log->path, flags | O_NOATIME, MODE_LOG);
        log->undo_atime = log->fd < 0 && errno == EPERM;
        if (log->undo_atime) /* as in containers with mapped IDs; check_file() asks for the owner */
                log->fd = openat(q->fd, log->path, flags, MODE_LOG);
        if (log->fd < 0)
                return -errno;
        if (fstat(log->fd, &log->st) < 0)
                return -errno;
        log->atime = log->st.st_atim;
        return 0;
}

static int create_file(const Queue *q, SiteLog *log) {
        int r = open_file(q, O_CREAT | O_EXCL, log);

        if (r == -ENOENT) {
                r = queue_make_dirs(q, log->path);
                if (r == 0)
                        r = open_file(q, O_CREAT | O_EXCL, log);
        }
        return r == -EEXIST ? -ESTALE : r; /* somebody else was faster */
}

/* Where the settings have it, else where any other layout has it. */
static int open_existing(const Queue *q, const char *name, SiteLog *log) {
        QueuePlaces places;
        int r;

        queue_path(q, QUEUE_FLUSH, name, log->path);
        r = open_file(q, 0, log);
        if (r != -ENOENT)
                return r;
        queue_places(q, QUEUE_FLUSH, name, &places);
        while ((r = queue_next_place(&places, log->path)) > 0) {
                r = open_file(q, 0, log);
                if (r != -ENOENT)
                        return r;
        }
        return r < 0 ? r : -ENOENT;
}

/* None is made while there is one in another layout: postsuper(1) would later put that one over it,
 * and what had been recorded in it would be lost. */
static int find_or_create(const Queue *q, const char *name, bool create, SiteLog *log) {
        int r = -ENOENT;

        for (int pass = 0; pass < QUEUE_PASSES && r == -ENOENT; pass++)
                r = open_existing(q, name, log);
        if (r != -ENOENT || !create)
                return r;
        queue_path(q, QUEUE_FLUSH, name, log->path);
        return create_file(q, log);
}

/* Has the path been removed or replaced while we had it open and unlocked? The link count of the
 * open file alone does not tell: a file with another name has one left when the path, a hard link
 * to it, has gone. So all that is known of the file from here on is of one look at what has the
 * name. (While rename(2) replaces such a link, the count is one and the name still there for some
 * microseconds. Only the owner of both can have that happen, and the owner is postfix.) */
static int check_name(const Queue *q, SiteLog *log) {
        struct stat named;

        if (fstatat(q->fd, log->path, &named, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? -ESTALE : -errno;
        if (named.st_dev != log->st.st_dev || named.st_ino != log->st.st_ino)
                return -ESTALE;
        log->st = named;
        return check_file(&named);
}

static int lock_file(const Queue *q, SiteLog *log) {
        if (flock(log->fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        log->ends_line = false;
        return check_name(q, log);
}

int sitelog_open(const Queue *q, const char *name, bool create, SiteLog *log) {
        int r = -ESTALE;

        for (int i = 0; i < OPEN_TRIES && r == -ESTALE; i++) {
                r = find_or_create(q, name, create, log);
                if (r == 0)
                        r = lock_file(q, log);
                if (r < 0)
                        sitelog_close(log);
        }
        return r == -ESTALE ? -EAGAIN : r;
}

/* What was read without O_NOATIME was not a flush: the refresh must not be put off by it. */
static void restore_atime(const SiteLog *log) {
        const struct timespec times[2] = {log->atime, {.tv_nsec = UTIME_OMIT}};
        struct stat st;

        if (log->fd >= 0 && log->undo_atime && fstat(log->fd, &st) == 0 &&
            (st.st_atim.tv_sec != log->atime.tv_sec || st.st_atim.tv_nsec != log->atime.tv_nsec))
                (void) futimens(log->fd, times); /* then the refresh comes late; no harm */
}

void sitelog_close(SiteLog *log) {
        restore_atime(log);
        closep(&log->fd);
        log->fd = -EBADF;
}

void sitelog_unlock(SiteLog *log) {
        (void) flock(log->fd, LOCK_UN); /* cannot fail on an open file */
}

int sitelog_relock(const Queue *q, SiteLog *log) {
        return lock_file(q, log);
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
        restore_atime(log);
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
        if (r <
            0) /* if this fails as well, a torn line stays: it is not a record, and does no harm */
                (void) !ftruncate(log->fd, log->st.st_size);
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
static int sync_name(const Queue *q, const SiteLog *log) {
        _cleanup_close_ int dir_fd = -EBADF;
        char path[QUEUE_PATH_SIZE];

        (void) strcpy(path, log->path);
        for (char *slash; (slash = strrchr(path, '/'));) {
                *slash = '\0';
                closep(&dir_fd);
                dir_fd = openat(q->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (dir_fd < 0 || fsync(dir_fd) < 0)
                        return -errno;
        }
        return 0;
}

int sitelog_append(const Queue *q, SiteLog *log, const char *lines, size_t n, bool sync) {
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
                        r = sync_name(q, log);
                if (r < 0) /* on the disk or not, who knows; it will be answered FAIL */
                        (void) !ftruncate(log->fd, old_size);
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

/* Appended and, if asked for, on the disk; or not there. */
static int append_safely(SiteLog *log, const char *data, size_t n, bool sync) {
        off_t size = log->st.st_size;
        int r = append(log, data, n);

        if (r == 0 && sync) {
                r = RET_NERRNO(fdatasync(log->fd));
                if (r < 0) {
                        (void) !ftruncate(log->fd, size);
                        restat(log);
                }
        }
        return r;
}

/* How much of it is whole lines; all of it, if no line ends there. */
static size_t count_whole_lines(const char *text, size_t n) {
        const char *newline = memrchr(text, '\n', n);

        return newline ? (size_t) (newline - text) + 1 : n;
}

/* The next of what stays, up to @end, as whole lines. Return: how many bytes, or a negative errno.
 */
static ssize_t read_lines(const SiteLog *log, const SiteLogRemoval *removal, off_t end, char *buf,
                          size_t size) {
        size_t n = end - removal->from < (off_t) size ? (size_t) (end - removal->from) : size;
        int r = read_fully(log, buf, n, removal->from);

        return r < 0 ? r : (ssize_t) count_whole_lines(buf, n);
}

int sitelog_begin_removal(SiteLog *log, off_t n_prefix, char *buf, size_t n_keep, bool sync,
                          SiteLogRemoval *ret) {
        off_t end = log->st.st_size;
        ssize_t n = 0;
        int r;

        assert(n_prefix > 0 && n_prefix <= end);
        assert((off_t) n_keep <= n_prefix && n_keep < SITELOG_SLICE);

        *ret = (SiteLogRemoval){.from = n_prefix};
        if (n_keep == 0 && ret->from == end)
                return 0;
        r = end_last_line(log);
        if (r < 0)
                return r;
        end = log->st.st_size;
        /* It is written over only by what is there twice: too short, it takes in what is next. */
        if (n_prefix < (off_t) SITELOG_SLICE ||
            (off_t) n_keep + (end - ret->from) <= (off_t) SITELOG_SLICE) {
                n = read_lines(log, ret, end, buf + n_keep, SITELOG_SLICE - n_keep);
                ret->again = ret->from + n < end ? end : 0;
        } else if (n_keep > 0 && buf[n_keep - 1] != '\n')
                n = sitelog_read(log, buf + n_keep, 1, ret->from); /* the end of its line */
        if (n < 0)
                return (int) n;
        r = append_safely(log, buf, n_keep + (size_t) n, sync);
        ret->from += n;
        restat(log);
        return r;
}

/* Keeps the order of what stays. Without room for that, the order is given up. */
static ssize_t append_again(SiteLog *log, SiteLogRemoval *removal, char *buf, bool sync) {
        ssize_t n = read_lines(log, removal, removal->again, buf, SITELOG_SLICE);
        int r;

        if (n < 0)
                return n;
        r = append_safely(log, buf, (size_t) n, sync);
        if (r == 0)
                removal->from += n;
        if (r < 0 || removal->from == removal->again)
                removal->again = 0;
        return n;
}

static ssize_t move_to_front(SiteLog *log, SiteLogRemoval *removal, char *buf, bool sync) {
        off_t gap = removal->from - removal->to;
        size_t size = gap < (off_t) SITELOG_SLICE ? (size_t) gap : SITELOG_SLICE;
        ssize_t n = read_lines(log, removal, log->st.st_size, buf, size);
        int r;

        if (n < 0)
                return n;
        r = write_fully(log, buf, (size_t) n, removal->to);
        if (r == 0 && sync)
                r = RET_NERRNO(fdatasync(log->fd));
        if (r < 0)
                return r;
        removal->to += n;
        removal->from += n;
        return n;
}

/* From the end, and not all of much at once: to free the blocks takes time. Return: how many bytes
 * are gone if there are more, 0 if not, or a negative errno. */
static ssize_t cut(SiteLog *log, SiteLogRemoval *removal) {
        bool all = removal->from - removal->to <= 2 * CUT_SIZE;

        removal->from = all ? removal->to : removal->from - CUT_SIZE;
        log->st.st_size = removal->from;
        log->ends_line = all;
        if (ftruncate(log->fd, removal->from) < 0)
                return -errno;
        return all ? 0 : CUT_SIZE;
}

static ssize_t advance(SiteLog *log, SiteLogRemoval *removal, char *buf, bool sync) {
        if (removal->from < removal->again)
                return append_again(log, removal, buf, sync);
        if (removal->from < log->st.st_size)
                return move_to_front(log, removal, buf, sync);
        return cut(log, removal);
}

int sitelog_go_on_removal(SiteLog *log, SiteLogRemoval *removal, char *buf, bool sync) {
        size_t n_done = 0;
        ssize_t n;

        do {
                n = advance(log, removal, buf, sync);
                n_done += n > 0 ? (size_t) n : 0;
        } while (n > 0 && n_done < SITELOG_SLICE);
        restat(log);
        return n > 0 ? 1 : (int) n;
}

/* What stays, but for its end, appended; then there is less. */
static int append_most(SiteLog *log, const char **keep, size_t *n_keep, bool sync) {
        int r = end_last_line(log);

        while (r == 0 && *n_keep >= SITELOG_SLICE) {
                size_t n = count_whole_lines(*keep, SITELOG_SLICE - 1);

                r = append_safely(log, *keep, n, sync);
                *keep += n;
                *n_keep -= n;
        }
        return r;
}

int sitelog_replace_prefix(SiteLog *log, off_t n_prefix, const char *keep, size_t n_keep,
                           bool sync) {
        off_t size = log->st.st_size;
        char buf[SITELOG_SLICE];
        SiteLogRemoval removal;
        int r = 0;

        if (n_prefix == 0)
                return 0;
        if (n_keep >= SITELOG_SLICE)
                r = append_most(log, &keep, &n_keep, sync);
        if (r == 0) {
                if (n_keep > 0)
                        memcpy(buf, keep, n_keep);
                r = sitelog_begin_removal(log, n_prefix, buf, n_keep, sync, &removal);
        }
        if (r != 0) {
                (void) !ftruncate(log->fd, size);
                restat(log);
                return r;
        }
        do
                r = sitelog_go_on_removal(log, &removal, buf, sync);
        while (r > 0);
        return r;
}

void sitelog_touch(SiteLog *log) {
        log->undo_atime = false;
        (void) futimens(log->fd, NULL); /* the refresh comes early or late; no harm */
        restat(log);
}

static bool has_name_of(const Queue *q, const SiteLog *log, const char *path) {
        struct stat st;

        return fstatat(q->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == log->st.st_dev &&
               st.st_ino == log->st.st_ino;
}

/* Not while somebody else has it open: flush(8) opens a log and then waits for its lock, or has not
 * asked for it yet, and what it writes in the end would be lost with the file. A lease is given
 * only to who has the only descriptor. While it lasts, whoever opens the file is made to wait, so
 * it ends at once; and its signal must be one that does nothing. Return: 0, 1 (it is removed, and
 * somebody is made to wait), or a negative errno. */
static int unlink_unused(const Queue *q, SiteLog *log, bool *ret_no_leases) {
        int r;

        *ret_no_leases = false;
        if (!has_name_of(q, log, log->path)) /* postsuper(1) heeds no lock */
                return -ENOENT;
        if (fcntl(log->fd, F_SETSIG, SIGURG) < 0 || fcntl(log->fd, F_SETLEASE, F_WRLCK) < 0) {
                *ret_no_leases = errno != EAGAIN;
                return -EBUSY;
        }
        r = RET_NERRNO(unlinkat(q->fd, log->path, 0));
        if (r == 0 && fcntl(log->fd, F_GETLEASE) != F_WRLCK)
                r = 1;
        (void) fcntl(log->fd, F_SETLEASE, F_UNLCK); /* cannot fail for the holder */
        return r;
}

int sitelog_remove_if_empty(const Queue *q, SiteLog *log) {
        bool no_leases;

        if (log->st.st_size > 0)
                return -ENOTEMPTY;
        return unlink_unused(q, log, &no_leases);
}

/* ------------------------------------------------------------------------------ gathering */

/* What @path has, and nothing else: not what another layout has. */
static int open_at(const Queue *q, const char *path, bool create, SiteLog *log) {
        int r;

        (void) strcpy(log->path, path);
        r = open_file(q, 0, log);
        if (r == -ENOENT && create)
                r = create_file(q, log);
        if (r == 0)
                r = lock_file(q, log);
        if (r < 0)
                sitelog_close(log);
        return r;
}

/* In portions: a log may be of any size. */
static int copy_text(const SiteLog *from, SiteLog *to) {
        char buf[COPY_SIZE];
        ssize_t n;

        for (off_t offset = 0; (n = sitelog_read(from, buf, sizeof buf, offset)) > 0; offset += n) {
                int r = write_fully(to, buf, (size_t) n, to->st.st_size);

                if (r < 0)
                        return r;
                to->st.st_size += n;
                to->ends_line = buf[n - 1] == '\n';
        }
        return n < 0 ? (int) n : end_last_line(to);
}

/* All or nothing, as sitelog_append(). */
static int copy_lines(const Queue *q, const SiteLog *from, SiteLog *to, bool sync) {
        off_t old_size = to->st.st_size;
        int r;

        r = end_last_line(to);
        if (r == 0)
                r = copy_text(from, to);
        if (r == 0 && sync)
                r = RET_NERRNO(fdatasync(to->fd));
        if (r == 0 && sync && old_size == 0)
                r = sync_name(q, to);
        if (r < 0)
                (void) !ftruncate(to->fd, old_size);
        restat(to);
        return r;
}

/* The log as a whole was last flushed when the part of it was that waits longest. */
static void keep_older_atime(const SiteLog *from, bool is_new, SiteLog *to) {
        const struct timespec times[2] = {from->st.st_atim, {.tv_nsec = UTIME_OMIT}};

        if (!is_new && from->st.st_atim.tv_sec >= to->st.st_atim.tv_sec)
                return;
        (void) futimens(to->fd, times); /* then the refresh comes late; no harm */
        to->atime = from->st.st_atim;
}

/*
 * The lines are in both logs before one goes, and that one keeps them to its end: emptied first, it
 * might be put over the other by postsuper(1), which renames whatever is out of place. If just that
 * happens to it in full, the other one's lines follow into it. One that somebody has open stays,
 * and is copied once more next time.
 */
static int merge(const Queue *q, const char *place, SiteLog *from, bool sync) {
        _cleanup_(sitelog_close) SiteLog to = SITELOG_INIT;
        bool is_new, no_leases;
        int r;

        r = open_at(q, place, true, &to);
        if (r < 0)
                return r == -ESTALE ? -EAGAIN : r;
        is_new = to.st.st_size == 0;
        r = copy_lines(q, from, &to, sync);
        if (r < 0)
                return r;
        keep_older_atime(from, is_new, &to);
        r = unlink_unused(q, from, &no_leases);
        if (r == -EBUSY && no_leases) /* else it would be copied for ever */
                r = RET_NERRNO(unlinkat(q->fd, from->path, 0));
        if (r < 0 && has_name_of(q, from, place))
                return copy_lines(q, &to, from, sync);
        return r == -EBUSY || r > 0 ? 0 : r;
}

/* A file system may not know RENAME_NOREPLACE; what merge() does then is as good. */
static int move_into_place(const Queue *q, const char *place, SiteLog *from, bool sync) {
        int r = RET_NERRNO(renameat2(q->fd, from->path, q->fd, place, RENAME_NOREPLACE));

        if (r == -ENOENT) {
                r = queue_make_dirs(q, place);
                if (r == 0)
                        r = RET_NERRNO(
                                renameat2(q->fd, from->path, q->fd, place, RENAME_NOREPLACE));
        }
        return r == -EEXIST || r == -EINVAL ? merge(q, place, from, sync) : r;
}

static bool is_unused(const SiteLog *log) {
        bool unused = fcntl(log->fd, F_SETLEASE, F_WRLCK) == 0;

        (void) fcntl(log->fd, F_SETLEASE, F_UNLCK);
        return unused;
}

int sitelog_rescue(const Queue *q, const char *name, SiteLog *removed, bool sync) {
        _cleanup_(sitelog_close) SiteLog to = SITELOG_INIT;
        int r;

        sitelog_unlock(removed);
        if (!is_unused(removed))
                return -EAGAIN;
        restat(removed);
        if (removed->st.st_size == 0)
                return 0;
        r = sitelog_open(q, name, true, &to);
        return r < 0 ? r : copy_lines(q, removed, &to, sync);
}

int sitelog_gather_from(const Queue *q, const char *name, const char *path, bool sync) {
        _cleanup_(sitelog_close) SiteLog from = SITELOG_INIT;
        char place[QUEUE_PATH_SIZE];
        int r;

        r = open_at(q, path, false, &from);
        if (r == 0) {
                queue_path(q, QUEUE_FLUSH, name, place);
                r = move_into_place(q, place, &from, sync);
        }
        /* Moved or removed meanwhile: it is no longer there. */
        return r == -ESTALE || r == -ENOENT ? 0 : r;
}

int sitelog_gather(const Queue *q, const char *name, bool sync) {
        char path[QUEUE_PATH_SIZE];
        QueuePlaces places;
        int r;

        queue_places(q, QUEUE_FLUSH, name, &places);
        while ((r = queue_next_place(&places, path)) > 0) {
                r = sitelog_gather_from(q, name, path, sync);
                if (r < 0)
                        return r;
        }
        return r;
}
