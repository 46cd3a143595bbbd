/* SPDX-License-Identifier: MIT */
#pragma once

/* A fresh queue directory for each test, and the frame that every suite needs. */

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "core/queue.h"

extern int spool_fd;      /* the queue directory */
extern char *spool_dir;   /* its absolute path */
extern Queue spool_queue; /* deferred hashed with depth 1, as Postfix's defaults are */

/* Checked fixture. Ends with whatever the test changed of user, limits, descriptors undone. */
void spool_setup(void);
void spool_teardown(void);

/* Paths are below the queue directory, missing directories above are made. */

/** spool_put() - a file with few bytes, both times @offset seconds from now */
void spool_put(const char *path, mode_t mode, long offset);
void spool_write(const char *path, const char *text);
void spool_write_bytes(const char *path, const void *bytes, size_t n);
/** spool_append() - as another process would, without lock */
void spool_append(const char *path, const char *text);
/** spool_read() - the whole file, to be freed; ends in NUL */
char *spool_read(const char *path);
bool spool_exists(const char *path);
struct stat spool_stat(const char *path);
/** spool_mtime() - modification time, in seconds from now */
long spool_mtime(const char *path);
long spool_atime(const char *path);
void spool_set_times(const char *path, long atime_offset, long mtime_offset);
/** spool_lock() - a descriptor that has the lock of the file, as another process would; close it */
int spool_lock(const char *path);

/** spool_difference() - NULL if the file has this text, else what it has instead; static */
const char *spool_difference(const char *path, const char *text);

#define spool_expect(path, text)                                                                   \
        do {                                                                                       \
                const char *difference_ = spool_difference((path), (text));                        \
                ck_assert_msg(!difference_, "%s", difference_);                                    \
        } while (0)

/** spool_listen() - make public/qmgr, a FIFO, and read it */
void spool_listen(void);
/** spool_triggers() - what qmgr has been sent since the last call; static */
const char *spool_triggers(void);

/** spool_unprivileged() - have permissions count, for root too; false if that is impossible */
bool spool_unprivileged(void);

/** spool_refuse_noatime() - have open(2) with O_NOATIME fail, as in containers with mapped IDs */
void spool_refuse_noatime(void);

/** spool_limit() - no file may grow beyond @size bytes; writes fail as on a full disk */
void spool_limit(off_t size);
void spool_unlimit(void);

/** spool_block_sigchld() - as child_start() wants it, until spool_teardown() */
void spool_block_sigchld(void);

/** spool_tick() - wait (some milliseconds) until a change gets another time stamp */
void spool_tick(void);

/** run_case() - run a suite; the last line of its output is "N passed, M failed" */
int run_case(const char *name, TCase *tc);
int run_cases(const char *name, TCase *const *tcs, size_t n);
