/* SPDX-License-Identifier: MIT */
#pragma once

/* What the programs of the benchmark share. bench.py makes the same queue IDs. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ID_SIZE   32
#define NSEC      1000000000ull
#define BACKLOG   4096                               /* of systemd, after the kernel's limit */
#define ANNOUNCED "protocol\0queue_flush_protocol\0" /* and the NUL of the literal */
#define REPLY_OK                                                                                   \
        "status\0"                                                                                 \
        "0\0"

static inline uint64_t now_nsec(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * NSEC + (uint64_t) ts.tv_nsec;
}

static inline __attribute__((noreturn)) void die(const char *what) {
        (void) fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
}

/* A short queue ID: microseconds, whose first digit is the hash directory, and an inode number. */
static inline void make_id(char id[ID_SIZE], uint64_t i) {
        (void) snprintf(id, ID_SIZE, "%05llX%llX", (unsigned long long) (i * 7919 % 1000000),
                        (unsigned long long) (0x100000 + i));
}

/* sun_path is short, temporary directories may be long: so we go there. */
static inline struct sockaddr_un enter_directory(char *path) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        char *slash = strrchr(path, '/');

        if (slash) {
                *slash = '\0';
                if (chdir(path) < 0)
                        die(path);
                path = slash + 1;
        }
        (void) snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
        return sa;
}

static inline int listen_at(char *path) {
        struct sockaddr_un sa = enter_directory(path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void) unlink(sa.sun_path);
        if (fd < 0 || bind(fd, (const struct sockaddr *) &sa, sizeof sa) < 0 ||
            listen(fd, BACKLOG) < 0)
                die(sa.sun_path);
        return fd;
}
