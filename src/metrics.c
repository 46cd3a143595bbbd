/* SPDX-License-Identifier: MIT */

#include "metrics.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "util.h"

#define MAGIC     UINT64_C(0x666c757368637472) /* "flushctr" */
#define MODE_FILE 0644                         /* it has numbers only, and monitoring reads it */

static Metrics *mapped; /* for the handler: a signal has no userdata */

/* The page cannot be had from the file any more. */
static void on_bus_error(int sig, siginfo_t *si, void *context) {
        const char *at = si->si_addr, *start = (const char *) mapped;

        (void) context;
        if (mapped && at >= start && at < start + sizeof *mapped &&
            mmap(mapped, sizeof *mapped, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
                return;
        (void) signal(sig, SIG_DFL); /* not ours: the access is repeated, and ends the process */
}

static int path_of(const char *directory, char ret[static PATH_MAX]) {
        int n = snprintf(ret, PATH_MAX, "%s/" METRICS_FILE, directory);

        return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static bool is_ours(const Metrics *m) {
        return m->magic == MAGIC && m->version == METRICS_VERSION && m->size == sizeof *m;
}

/* What is not as we left it starts anew. @keep: what it has is to be kept. */
static int prepare(int fd, bool *keep) {
        Metrics old;
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EPROTOTYPE;
        *keep = st.st_size == (off_t) sizeof old &&
                pread(fd, &old, sizeof old, 0) == (ssize_t) sizeof old && is_ours(&old);
        /* The daemon's umask is for mail. */
        if (!*keep && (ftruncate(fd, 0) < 0 || fchmod(fd, MODE_FILE) < 0))
                return -errno;
        return -posix_fallocate(fd, 0, sizeof old);
}

static int map_file(const char *directory, Metrics **ret) {
        _cleanup_close_ int fd = -EBADF;
        char path[PATH_MAX];
        bool keep = false;
        Metrics *m;
        int r;

        r = path_of(directory, path);
        if (r < 0)
                return r;
        fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                  MODE_FILE);
        if (fd < 0)
                return -errno;
        r = prepare(fd, &keep);
        if (r < 0)
                return r;
        m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (m == MAP_FAILED)
                return -errno;
        mapped = *ret = m;
        if (!keep)
                *m = (Metrics){.magic = MAGIC, .version = METRICS_VERSION, .size = sizeof *m};
        return 0;
}

int metrics_open(const char *directory, Metrics **ret) {
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
        Metrics *m;
        int r = -ENOENT;

        *ret = NULL;
        if (directory) {
                (void) sigaction(SIGBUS, &action, NULL);
                r = map_file(directory, ret);
        }
        if (r == 0)
                return 0;
        m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m == MAP_FAILED)
                return -ENOMEM;
        *ret = m;
        return r;
}

void metrics_close(Metrics *metrics) {
        if (!metrics)
                return;
        if (mapped == metrics)
                mapped = NULL;
        (void) munmap(metrics, sizeof *metrics);
}

void metrics_count(Metrics *metrics, const RequestCounts *counts) {
        metrics->moved += counts->moved;
        metrics->gone += counts->gone;
        metrics->busy += counts->busy;
        metrics->failed += counts->failed;
        metrics->duplicate += counts->duplicate;
        metrics->invalid += counts->invalid;
}

int metrics_read(const char *directory, Metrics *ret) {
        _cleanup_close_ int fd = -EBADF;
        char path[PATH_MAX];
        ssize_t n;
        int r;

        r = path_of(directory, path);
        if (r < 0)
                return r;
        fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = pread(fd, ret, sizeof *ret, 0);
        if (n < 0)
                return -errno;
        return n == (ssize_t) sizeof *ret && is_ours(ret) ? 0 : -EBADMSG;
}
