/* SPDX-License-Identifier: MIT */
#pragma once

/* The log of one site: queue IDs, one a line, in a file that flush(8) can use as well. Does not
 * log to the journal, knows no policy. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "core/queue.h"

/* A log that is open and, until sitelog_unlock(), locked. */
typedef struct SiteLog {
        int fd;
        struct stat st;
        bool ends_line;             /* known to be empty or to end with a newline */
        bool undo_atime;            /* O_NOATIME was refused: */
        struct timespec atime;      /* is put back after reading */
        char path[QUEUE_PATH_SIZE]; /* where it was found, which need not be where it belongs */
} SiteLog;

#define SITELOG_INIT                                                                               \
        { .fd = -EBADF }

/* Fingerprint of a log: did another process change it? It misses a change that leaves the size as
 * it was within one tick of the kernel's clock (4 ms at most; none since Linux 6.13): flush(8)
 * would have to empty the log and record as many bytes anew in that time. */
typedef struct SiteLogStamp {
        dev_t dev;
        ino_t ino;
        off_t size;
        struct timespec ctime;
        bool ends_line;
} SiteLogStamp;

#define SITELOG_RETRY_USEC 20000u /* pause before a lock that somebody else has is tried again */

/**
 * sitelog_open() - open a log and lock it, without waiting
 * @name:    of the log, from sitename_to_log() or a directory listing
 * @create:  make it, and missing hash directories, if it is nowhere
 * @log:     receives it; sitelog_close() it
 *
 * It is used where it is: where the settings have it, else where any other layout does. The lock is
 * flock(2)'s, as in flush(8). Symbolic links are not followed, and what is not a plain file owned
 * by us with one name is refused.
 *
 * Return: 0, -EAGAIN (somebody else has the lock: try again later), -ENOENT, -ELOOP (symbolic
 *         link), -EISDIR, -EPROTOTYPE (not a plain file), -EMLINK (other hard links), -EPERM
 *         (another owner), or another negative errno.
 * Source: spec 4.2, 9.5, 9.16.
 */
int sitelog_open(const Queue *q, const char *name, bool create, SiteLog *log);

/** sitelog_close() - unlock and close; does nothing if it is not open */
void sitelog_close(SiteLog *log);

/** sitelog_unlock() - give the lock back, and keep the log open to read from it */
void sitelog_unlock(SiteLog *log);

/**
 * sitelog_relock() - lock again, without waiting
 * Return: 0, -EAGAIN, -ESTALE (the name is another file's now, or nobody's).
 */
int sitelog_relock(const Queue *q, SiteLog *log);

/** sitelog_stamp() - of the log as it was last looked at: opened, locked, written */
SiteLogStamp sitelog_stamp(const SiteLog *log);

/**
 * sitelog_unchanged() - is the log just opened or locked as it was when the stamp was taken?
 *
 * What was known of its last line then is known again, and saves a look at it.
 */
bool sitelog_unchanged(SiteLog *log, const SiteLogStamp *stamp);

/**
 * sitelog_append() - write records at the end of a locked log
 * @lines:  whole lines
 * @sync:   have them on the disk before returning
 *
 * All or nothing: what a failed write has left is removed again. A last line without newline
 * (a crash of somebody else) gets one first.
 *
 * Return: 0, -ENOSPC, -EDQUOT, -EFBIG, -EIO, or another negative errno.
 * Source: spec 5.1, 9.4.
 */
int sitelog_append(const Queue *q, SiteLog *log, const char *lines, size_t n, bool sync);

/**
 * sitelog_read() - read from an open log, locked or not
 * Return: how many bytes were read, 0 at the end of the file, or a negative errno.
 */
ssize_t sitelog_read(const SiteLog *log, char *buf, size_t size, off_t offset);

#define SITELOG_SLICE 65536u /* bytes that are read or written at a time */

/* The removal of what is in front of a log. The bytes from @to to @from can be overwritten; what
 * follows them stays, and moves to @to. */
typedef struct SiteLogRemoval {
        off_t to, from;
        off_t again; /* what is before this is written once more at the end first */
} SiteLogRemoval;

/**
 * sitelog_begin_removal() - begin to remove the first @n_prefix bytes of a locked log
 * @buf:     has SITELOG_SLICE bytes, of which the first @n_keep are lines of the prefix that stay;
 *           written over
 * @n_keep:  less than SITELOG_SLICE, at most @n_prefix. The last of these lines may lack its
 *           newline if it is the last of the prefix and lacks it there.
 *
 * What stays is appended before anything is written over, and each step writes over nothing but
 * what is of no more use: at each moment each line that stays is there at least once, and the file
 * stays the same one for whoever waits for its lock. A crash may leave a line of the prefix torn,
 * or records twice; none is lost. With nothing that stays it is one ftruncate(2).
 *
 * @sync: wait for the disk between these steps, so that a loss of power cannot turn them round
 *
 * Return: 0 (go on with sitelog_go_on_removal()), or a negative errno: the log is as it was.
 * Source: fflushd's decision; spec 9.2, 9.6.
 */
int sitelog_begin_removal(SiteLog *log, off_t n_prefix, char *buf, size_t n_keep, bool sync,
                          SiteLogRemoval *ret);

/**
 * sitelog_go_on_removal() - a step of it, about SITELOG_SLICE bytes, of a locked log
 * @buf:  of SITELOG_SLICE bytes
 *
 * Between two steps the log may be unlocked and appended to, by this process, whole lines. If
 * anybody else has changed it there must be no further step; none is needed for what stays.
 *
 * Return: 1 (there is more to be done), 0 (done), or a negative errno: the log has all that stays,
 *         and maybe more.
 */
int sitelog_go_on_removal(SiteLog *log, SiteLogRemoval *removal, char *buf, bool sync);

/**
 * sitelog_replace_prefix() - remove the first @n_prefix bytes of a locked log, but for some lines
 * @keep:  those that stay, whole lines, no longer than @n_prefix
 *
 * All steps of a removal in one go, for a program that has nothing else to do.
 *
 * Return: 0, or a negative errno: the log has all that stays, and maybe more.
 */
int sitelog_replace_prefix(SiteLog *log, off_t n_prefix, const char *keep, size_t n_keep,
                           bool sync);

/** sitelog_touch() - set both times to now: "flushed now" (spec 4.2, 5.3) */
void sitelog_touch(SiteLog *log);

/**
 * sitelog_remove_if_empty() - remove a locked log, if it is empty and nobody else has it open
 *
 * flush(8) may have opened it and not locked it yet. A lease (fcntl(2)) tells; where the file
 * system has none, the log stays.
 *
 * Return: 0, 1 (removed, but somebody was just about to open it: sitelog_rescue()), -ENOTEMPTY,
 *         -EBUSY (it is open, or nobody can tell), or another negative errno.
 * Source: fflushd's decision; spec 9.5.
 */
int sitelog_remove_if_empty(const Queue *q, SiteLog *log);

/**
 * sitelog_rescue() - save what was still written into a log after its removal
 * @name:     of the log that it goes to
 * @removed:  open; unlocked by this
 *
 * Return: 0, -EAGAIN (somebody has it open, or the log is locked: try again later), or another
 *         negative errno. Source: fflushd's decision; spec 9.5.
 */
int sitelog_rescue(const Queue *q, const char *name, SiteLog *removed, bool sync);

/**
 * sitelog_gather() - bring a log into its place from wherever other layouts have it, or parts of it
 * @sync:  have what is copied on the disk before it goes from where it was
 *
 * Where there is nothing in its place it is renamed; else its lines go to the end of what is there.
 * A crash may repeat lines and loses none. The access time is that of the part that has waited
 * longest.
 *
 * Return: 0, -EAGAIN (somebody else has the lock: try again later), or another negative errno, as
 * of sitelog_open(); what could not be brought stays where it is. Source: fflushd's decision;
 * spec 3.3.
 */
int sitelog_gather(const Queue *q, const char *name, bool sync);

/** sitelog_gather_from() - the same for what was found at @path */
int sitelog_gather_from(const Queue *q, const char *name, const char *path, bool sync);
