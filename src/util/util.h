/* SPDX-License-Identifier: MIT */
#pragma once

/* Ownership helpers and the few one-liners that every file needs. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A number that is a macro, for a message. */
#define TEXT_OF(macro)  TEXT_OF_(macro)
#define TEXT_OF_(value) #value

#define USEC_PER_MSEC   ((uint64_t) 1000)
#define USEC_PER_SEC    ((uint64_t) 1000000)
#define USEC_INFINITY   UINT64_MAX

static inline void freep(void *p) {
        free(*(void **) p);
}

static inline void closep(const int *fd) {
        int saved = errno;

        if (*fd >= 0)
                (void) close(*fd);
        errno = saved;
}

#define _cleanup_(f)    __attribute__((cleanup(f)))
#define _cleanup_free_  _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)

static inline int take_fd(int *fd) {
        int r = *fd;

        *fd = -EBADF;
        return r;
}

static inline void *take_ptr(void *p) {
        void *r = *(void **) p;

        *(void **) p = NULL;
        return r;
}

#define TAKE_FD(fd) take_fd(&(fd))
#define TAKE_PTR(p) ((__typeof__(p)) take_ptr(&(p)))

/* 0 or a descriptor stays, -1 becomes the negative errno. */
#define RET_NERRNO(expr) ret_nerrno(expr)
static inline int ret_nerrno(int r) {
        return r < 0 ? -errno : r;
}

static inline bool streq(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}

/* Is an absolute path a directory, or in it? Both as realpath(3) writes them. */
static inline bool is_below(const char *path, const char *directory) {
        size_t n = strlen(directory);

        return streq(directory, "/") ||
               (strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == '\0'));
}

/* CLOCK_MONOTONIC in microseconds: the clock of the event loop and of all deadlines. */
static inline uint64_t now_usec(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

/* CLOCK_REALTIME in microseconds: since 1970, as journald(8) has it. */
static inline uint64_t realtime_usec(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts); /* cannot fail for this clock */
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}
