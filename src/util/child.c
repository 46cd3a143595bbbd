/* SPDX-License-Identifier: MIT */

#include "util/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "util/timer.h"
#include "util/util.h"

#define STATUS_SIGNALLED    128
#define STATUS_NOT_EXECUTED 127
#define LATE_USEC           (1 * USEC_PER_SEC)

/* Standard input, output and error are files in memory: no pipe can fill up, so nothing has to
 * be fed or drained while the command runs, and its end is the only event. */
struct Child {
        int fds[3];
        pid_t pid;
        uint64_t timeout_usec;
        sd_event_source *ended, *timeout;
        child_done_t done;
        void *userdata;
};

static int read_all(int fd, char **ret) {
        _cleanup_free_ char *text = NULL;
        struct stat st;
        ssize_t n;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size >= CHILD_OUTPUT_MAX) /* where RLIMIT_FSIZE has cut it off */
                return -EFBIG;
        text = malloc((size_t) st.st_size + 1);
        if (!text)
                return -ENOMEM;
        n = pread(fd, text, (size_t) st.st_size, 0);
        if (n < 0)
                return -errno;
        text[n] = '\0';
        *ret = TAKE_PTR(text);
        return 0;
}

static void read_output(const Child *child, ChildResult *result) {
        result->error = read_all(child->fds[1], &result->output);
        if (result->error == 0)
                result->error = read_all(child->fds[2], &result->errors);
        if (result->error < 0)
                result->status = STATUS_NOT_EXECUTED;
}

static int on_ended(sd_event_source *source, const siginfo_t *si, void *userdata) {
        Child *child = userdata;
        ChildResult result = {.status = si->si_code == CLD_EXITED
                                                ? si->si_status
                                                : STATUS_SIGNALLED + si->si_status};

        child->pid = 0;     /* sd-event reaps it after this call */
        if (!child->done) { /* forgotten; with its source it is freed */
                (void) sd_event_source_set_floating(source, false);
                return 0;
        }
        read_output(child, &result);
        child->done(child, &result, child->userdata);
        free(result.output);
        free(result.errors);
        return 0;
}

/* A timer that comes late means that this process was frozen, and the command with it: the command
 * gets its whole time again. */
static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        Child *child = userdata;

        if (now_usec() > usec + LATE_USEC) {
                timer_arm(source, child->timeout_usec);
                return 0;
        }
        (void) kill(child->pid, SIGKILL); /* not reaped yet, so it cannot be somebody else */
        return 0;
}

/* The command inherits the limit, which so counts from its first byte on; here it is for a moment
 * in which nothing is written. */
static int spawn_limited(Child *child, const char *const argv[],
                         const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr) {
        static char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL};
        struct rlimit old, limited;
        int r;

        if (getrlimit(RLIMIT_FSIZE, &old) < 0)
                return -errno;
        limited = old;
        if (limited.rlim_cur > CHILD_OUTPUT_MAX)
                limited.rlim_cur = CHILD_OUTPUT_MAX;
        if (setrlimit(RLIMIT_FSIZE, &limited) < 0)
                return -errno;
        r = posix_spawn(&child->pid, argv[0], actions, attr, (char *const *) (uintptr_t) argv,
                        environment);
        (void) setrlimit(RLIMIT_FSIZE, &old); /* was allowed a moment ago */
        return -r;
}

static int spawn(Child *child, const char *const argv[]) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attr;
        sigset_t none, ignored;
        int r;

        (void) sigemptyset(&none);
        (void) sigemptyset(&ignored); /* those that fflushd ignores */
        (void) sigaddset(&ignored, SIGPIPE);
        (void) sigaddset(&ignored, SIGXFSZ);
        if (posix_spawnattr_init(&attr) != 0)
                return -ENOMEM;
        if (posix_spawn_file_actions_init(&actions) != 0) {
                (void) posix_spawnattr_destroy(&attr);
                return -ENOMEM;
        }
        r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETPGROUP);
        if (r == 0)
                r = posix_spawnattr_setsigmask(&attr, &none);
        if (r == 0)
                r = posix_spawnattr_setsigdefault(&attr, &ignored);
        for (int i = 0; r == 0 && i < 3; i++)
                r = posix_spawn_file_actions_adddup2(&actions, child->fds[i], i);
        r = r == 0 ? spawn_limited(child, argv, &actions, &attr) : -r;
        (void) posix_spawn_file_actions_destroy(&actions);
        (void) posix_spawnattr_destroy(&attr);
        return r;
}

int child_start(sd_event *event, const char *const argv[], const char *input, size_t n_input,
                uint64_t timeout_usec, child_done_t done, void *userdata, Child **ret) {
        Child *child;
        int r = 0;

        child = calloc(1, sizeof *child);
        if (!child)
                return -ENOMEM;
        child->timeout_usec = timeout_usec;
        child->done = done;
        child->userdata = userdata;
        for (int i = 0; i < 3; i++)
                child->fds[i] = -EBADF;
        for (int i = 0; i < 3 && r == 0; i++) {
                child->fds[i] = memfd_create("fflushd-child", MFD_CLOEXEC);
                if (child->fds[i] < 0)
                        r = -errno;
        }
        if (r == 0 && n_input > 0) {
                ssize_t n = pwrite(child->fds[0], input, n_input, 0);

                if (n != (ssize_t) n_input)
                        r = n < 0 ? -errno : -ENOSPC;
        }
        if (r == 0)
                r = spawn(child, argv);
        if (r == 0)
                r = sd_event_add_child(event, &child->ended, child->pid, WEXITED, on_ended, child);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &child->timeout, CLOCK_MONOTONIC,
                                               timeout_usec, 0, on_timeout, child);
        if (r < 0) {
                child_free(child);
                return r;
        }
        *ret = child;
        return 0;
}

/* Nobody waits for one that hangs in the kernel: the event loop reaps it when it ends. Until then
 * the source owns what is left of the child. */
static bool leave_to_event(Child *child) {
        child->done = NULL;
        if (!child->ended || sd_event_source_set_destroy_callback(child->ended, free) < 0)
                return false;
        if (sd_event_source_set_floating(child->ended, true) < 0) {
                (void) sd_event_source_set_destroy_callback(child->ended, NULL);
                return false;
        }
        child->ended = sd_event_source_unref(child->ended);
        return true;
}

Child *child_free(Child *child) {
        bool left = false;

        if (!child)
                return NULL;
        sd_event_source_disable_unref(child->timeout);
        for (int i = 0; i < 3; i++)
                closep(&child->fds[i]);
        if (child->pid > 0) {
                (void) kill(child->pid, SIGKILL);
                left = leave_to_event(child);
        }
        if (left)
                return NULL;
        sd_event_source_disable_unref(child->ended);
        free(child);
        return NULL;
}

static void on_run_done(Child *child, const ChildResult *result, void *userdata) {
        ChildResult *copy = userdata;

        *copy = *result;
        copy->output = result->output ? strdup(result->output) : NULL;
        copy->errors = result->errors ? strdup(result->errors) : NULL;
}

int child_run(const char *const argv[], uint64_t timeout_usec, ChildResult *ret) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        ChildResult result = {.status = -1};
        Child *child = NULL;
        sigset_t mask, old;
        int r;

        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGCHLD);
        if (sigprocmask(SIG_BLOCK, &mask, &old) < 0)
                return -errno;
        r = sd_event_new(&event);
        if (r >= 0)
                r = child_start(event, argv, NULL, 0, timeout_usec, on_run_done, &result, &child);
        while (r >= 0 && result.status < 0)
                r = sd_event_run(event, UINT64_MAX);
        child_free(child);
        (void) sigprocmask(SIG_SETMASK, &old, NULL);
        if (r < 0)
                return r;
        if (!result.output || !result.errors) {
                free(result.output);
                free(result.errors);
                return result.error < 0 ? result.error : -ENOMEM;
        }
        *ret = result;
        return 0;
}
