/* SPDX-License-Identifier: MIT */

#include "core/metrics.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "util/util.h"

#define MAGIC     UINT64_C(0x666c757368637472) /* "flushctr" */
#define MODE_FILE 0644                         /* it has numbers only, and monitoring reads it */

static Metrics *mapped; /* for the handler: a signal has no userdata */

/* The file was truncated, or its disk fails: the page cannot be read. */
static void on_bus_error(int sig, siginfo_t *si, void *context) {
        const char *at = si->si_addr, *start = (const char *) mapped;

        if (mapped && at >= start && at < start + sizeof *mapped &&
            mmap(mapped, sizeof *mapped, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
                return;
        /* Not in this page: the access is repeated, and ends the process. */
        (void) signal(sig, SIG_DFL);
}

static int path_of(const char *directory, char ret[static PATH_MAX]) {
        int n = snprintf(ret, PATH_MAX, "%s/" METRICS_FILE, directory);

        return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* What the version before ends with. */
#define SIZE_1 offsetof(Metrics, failures)

/* @n: bytes of @m that were read. Those of the version before get zeros for what it did not have.
 */
static bool is_ours(Metrics *m, size_t n) {
        if (n < SIZE_1 || m->magic != MAGIC)
                return false;
        if (m->version == METRICS_VERSION)
                return n == sizeof *m && m->size == sizeof *m;
        if (m->version != 1 || n != SIZE_1 || m->size != SIZE_1)
                return false;
        memset((char *) m + SIZE_1, 0, sizeof *m - SIZE_1);
        m->version = METRICS_VERSION;
        m->size = sizeof *m;
        return true;
}

/* A file of neither this format nor the one before starts again from 0. @old: receives the values
 * to go on from. */
static int prepare(int fd, Metrics *old) {
        struct stat st;
        ssize_t n = 0;
        bool keep;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EPROTOTYPE;
        if (st.st_size <= (off_t) sizeof *old)
                n = pread(fd, old, sizeof *old, 0);
        keep = n > 0 && is_ours(old, (size_t) n);
        if (!keep)
                *old = (Metrics){.magic = MAGIC, .version = METRICS_VERSION, .size = sizeof *old};
        /* The daemon's umask is for mail. */
        if (!keep && (ftruncate(fd, 0) < 0 || fchmod(fd, MODE_FILE) < 0))
                return -errno;
        return -posix_fallocate(fd, 0, sizeof *old);
}

static int map_file(const char *directory, Metrics **ret) {
        _cleanup_close_ int fd = -EBADF;
        char path[PATH_MAX];
        Metrics *m, old;
        int r;

        r = path_of(directory, path);
        if (r < 0)
                return r;
        fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                  MODE_FILE);
        if (fd < 0)
                return -errno;
        r = prepare(fd, &old);
        if (r < 0)
                return r;
        m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (m == MAP_FAILED)
                return -errno;
        mapped = *ret = m;
        *m = old;
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

/* ----------------------------------------------------------------------------------- failures */

static const struct {
        const char *name;
        bool tested;
} classes[_METRICS_CLASS_MAX] = {
        [METRICS_SETTINGS] = {"settings", true}, [METRICS_LIST] = {"list", true},
        [METRICS_LOG] = {"log", true},           [METRICS_QUEUE] = {"queue", true},
        [METRICS_LOCK] = {"lock", false},        [METRICS_RESOURCE] = {"resource", false},
        [METRICS_OTHER] = {"other", false},
};

/* What each check of the self-test speaks for. */
static const struct {
        const char *check;
        MetricsClass c;
} checks[] = {{"settings", METRICS_SETTINGS}, {"list", METRICS_LIST}, {"table", METRICS_LIST},
              {"logs", METRICS_LOG},          {"disk", METRICS_LOG},  {"queue", METRICS_LOG},
              {"queue", METRICS_QUEUE},       {"disk", METRICS_QUEUE}};

const char *metrics_class_name(MetricsClass c) {
        return classes[c].name;
}

bool metrics_class_is_tested(MetricsClass c) {
        return classes[c].tested;
}

MetricsClass metrics_class(int error) {
        switch (error) {
        case -ENOMEM:
        case -EMFILE:
        case -ENFILE:
                return METRICS_RESOURCE;
        case -ETIMEDOUT:
        case -EAGAIN:
                return METRICS_LOCK;
        default:
                return METRICS_LOG;
        }
}

void metrics_failed(Metrics *m, MetricsClass c, uint64_t now) {
        m->failures[c]++;
        m->last_failure_sec[c] = now;
}

/* A send says in its counts, not in its answer, whether messages could be moved. */
void metrics_succeeded(Metrics *m, RequestKind kind, uint64_t now) {
        bool all = kind == REQUEST_ADD || kind == REQUEST_SEND_SITE;

        for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++)
                if (c == METRICS_SETTINGS || c == METRICS_RESOURCE || (all && c != METRICS_QUEUE))
                        m->last_success_sec[c] = now;
}

static bool has_failed(const TestFindings *findings, MetricsClass c) {
        for (size_t i = 0; i < findings->n; i++)
                for (size_t k = 0; k < ARRAY_SIZE(checks); k++)
                        if (findings->items[i].result == FINDING_FAILED && checks[k].c == c &&
                            streq(findings->items[i].check, checks[k].check))
                                return true;
        return false;
}

void metrics_tested(Metrics *m, const TestFindings *findings, uint64_t now) {
        m->self_tests++;
        m->last_self_test_sec = now;
        m->self_test_failed = m->self_test_warnings = 0;
        for (size_t i = 0; i < findings->n; i++) {
                m->self_test_failed += findings->items[i].result == FINDING_FAILED;
                m->self_test_warnings += findings->items[i].result == FINDING_WARNING;
        }
        for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++)
                if (classes[c].tested && !has_failed(findings, c))
                        m->last_success_sec[c] = now;
}

bool metrics_healthy(const Metrics *m) {
        for (MetricsClass c = 0; c < _METRICS_CLASS_MAX; c++)
                if (m->last_failure_sec[c] > m->last_success_sec[c])
                        return false;
        return m->self_test_failed == 0;
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
        return is_ours(ret, (size_t) n) ? 0 : -EBADMSG;
}
