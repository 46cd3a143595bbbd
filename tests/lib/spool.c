/* SPDX-License-Identifier: MIT */

#include "tests/lib/spool.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "util/util.h"

#define UID_NOBODY  65534
#define TIMEOUT_SEC 60 /* sanitizers are slow, valgrind is slower */

int spool_fd = -EBADF;
char *spool_dir;
Queue spool_queue;

static sigset_t old_mask;
static bool has_old_mask;
static int old_cwd_fd = -EBADF, qmgr_fd = -EBADF;
static bool was_root;
static struct rlimit old_limit;
static bool limited, refuses_noatime;

/* Takes the place of the C library's for all that is in the test program. */
int openat(int dir_fd, const char *path, int flags, ...) {
        mode_t mode = 0;
        va_list ap;

        if (flags & (O_CREAT | __O_TMPFILE)) {
                va_start(ap, flags);
                mode = va_arg(ap, mode_t);
                va_end(ap);
        }
        if (refuses_noatime && flags & O_NOATIME) {
                errno = EPERM;
                return -1;
        }
        return (int) syscall(SYS_openat, dir_fd, path, flags, mode);
}

void spool_refuse_noatime(void) {
        refuses_noatime = true;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

static int own_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return lchown(path, UID_NOBODY, (gid_t) -1);
}

void spool_setup(void) {
        static const char *const dirs[] = {"incoming", "active", "deferred",
                                           "hold",     "flush",  "public"};
        const char *tmp = getenv("TMPDIR");

        ck_assert_int_ge(asprintf(&spool_dir, "%s/fflushd-XXXXXX", tmp && *tmp ? tmp : "/tmp"), 0);
        ck_assert_ptr_nonnull(mkdtemp(spool_dir));
        old_cwd_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert_int_ge(old_cwd_fd, 0);
        spool_fd = open(spool_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert_int_ge(spool_fd, 0);
        for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
                ck_assert_int_eq(mkdirat(spool_fd, dirs[i], 0700), 0);
        spool_queue = (Queue){.fd = spool_fd, .hash_depth = 1, .hashed[QUEUE_DEFERRED] = true};
        (void) signal(SIGPIPE, SIG_IGN);
}

void spool_block_sigchld(void) {
        sigset_t mask;

        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGCHLD);
        ck_assert_int_eq(sigprocmask(SIG_BLOCK, &mask, &old_mask), 0);
        has_old_mask = true;
}

void spool_teardown(void) {
        if (has_old_mask)
                ck_assert_int_eq(sigprocmask(SIG_SETMASK, &old_mask, NULL), 0);
        has_old_mask = false;
        spool_unlimit();
        refuses_noatime = false;
        if (was_root)
                ck_assert_int_eq(seteuid(0), 0);
        was_root = false;
        ck_assert_int_eq(fchdir(old_cwd_fd), 0);
        closep(&old_cwd_fd);
        closep(&qmgr_fd);
        closep(&spool_fd);
        old_cwd_fd = qmgr_fd = spool_fd = -EBADF;
        ck_assert_int_eq(nftw(spool_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
        free(spool_dir);
        spool_dir = NULL;
}

static int create(const char *path, int flags) {
        int fd;

        ck_assert_int_eq(queue_make_dirs(&spool_queue, path), 0);
        fd = openat(spool_fd, path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
        ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
        return fd;
}

void spool_write_bytes(const char *path, const void *bytes, size_t n) {
        _cleanup_close_ int fd = create(path, O_TRUNC);

        ck_assert_int_eq(write(fd, bytes, n), (ssize_t) n);
}

void spool_write(const char *path, const char *text) {
        spool_write_bytes(path, text, strlen(text));
}

void spool_append(const char *path, const char *text) {
        _cleanup_close_ int fd = create(path, O_APPEND);

        ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t) strlen(text));
}

void spool_put(const char *path, mode_t mode, long offset) {
        spool_write(path, "mail");
        ck_assert_int_eq(fchmodat(spool_fd, path, mode, 0), 0);
        spool_set_times(path, offset, offset);
}

char *spool_read(const char *path) {
        _cleanup_close_ int fd =
                (int) syscall(SYS_openat, spool_fd, path, O_RDONLY | O_NOATIME | O_CLOEXEC);
        struct stat st;
        char *text;

        ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
        ck_assert_int_eq(fstat(fd, &st), 0);
        text = malloc((size_t) st.st_size + 1);
        ck_assert_ptr_nonnull(text);
        ck_assert_int_eq(read(fd, text, (size_t) st.st_size), st.st_size);
        text[st.st_size] = '\0';
        return text;
}

/* Not ck_assert_str_eq(): check cannot report strings of any length. */
const char *spool_difference(const char *path, const char *text) {
        static char difference[512];
        _cleanup_free_ char *got = spool_read(path);
        size_t at = 0;

        if (streq(got, text))
                return NULL;
        while (got[at] == text[at])
                at++;
        (void) snprintf(difference, sizeof difference,
                        "%s: %zu bytes, expected %zu, differs from byte %zu: \"%.100s\" instead of "
                        "\"%.100s\"",
                        path, strlen(got), strlen(text), at, got + at, text + at);
        return difference;
}

bool spool_exists(const char *path) {
        struct stat st;

        return fstatat(spool_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

struct stat spool_stat(const char *path) {
        struct stat st;

        ck_assert_msg(fstatat(spool_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0, "%s: %s", path,
                      strerror(errno));
        return st;
}

long spool_mtime(const char *path) {
        return spool_stat(path).st_mtime - time(NULL);
}

long spool_atime(const char *path) {
        return spool_stat(path).st_atime - time(NULL);
}

void spool_set_times(const char *path, long atime_offset, long mtime_offset) {
        time_t now = time(NULL);
        const struct timespec times[2] = {{.tv_sec = now + atime_offset},
                                          {.tv_sec = now + mtime_offset}};

        ck_assert_int_eq(utimensat(spool_fd, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

int spool_lock(const char *path) {
        int fd = openat(spool_fd, path, O_RDWR | O_CLOEXEC);

        ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
        ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
        return fd;
}

void spool_listen(void) {
        ck_assert_int_eq(mkfifoat(spool_fd, "public/qmgr", 0600), 0);
        qmgr_fd = openat(spool_fd, "public/qmgr", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        ck_assert_int_ge(qmgr_fd, 0);
}

const char *spool_triggers(void) {
        static char bytes[256];
        ssize_t n = read(qmgr_fd, bytes, sizeof bytes - 1);

        bytes[n > 0 ? n : 0] = '\0';
        return bytes;
}

bool spool_unprivileged(void) {
        if (geteuid() != 0)
                return true;
        if (nftw(spool_dir, own_entry, 16, FTW_PHYS) != 0 || seteuid(UID_NOBODY) < 0)
                return false;
        was_root = true;
        (void) prctl(PR_SET_DUMPABLE, 1); /* for the leak sanitizer, at the end */
        return true;
}

void spool_limit(off_t size) {
        struct rlimit limit;

        ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
        limit = old_limit;
        limit.rlim_cur = (rlim_t) size;
        (void) signal(SIGXFSZ, SIG_IGN);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        limited = true;
}

void spool_unlimit(void) {
        if (limited)
                ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
        limited = false;
}

/* Files are stamped with the coarse clock or, since Linux 6.13, at times with the fine one, which
 * is ahead of it. */
void spool_tick(void) {
        struct timespec first, now;

        (void) clock_gettime(CLOCK_REALTIME, &first);
        do
                (void) clock_gettime(CLOCK_REALTIME_COARSE, &now);
        while (now.tv_sec < first.tv_sec ||
               (now.tv_sec == first.tv_sec && now.tv_nsec <= first.tv_nsec));
}

int run_cases(const char *name, TCase *const *tcs, size_t n) {
        Suite *suite = suite_create(name);
        int n_run, n_failed;
        SRunner *runner;

        for (size_t i = 0; i < n; i++) {
                tcase_set_timeout(tcs[i], TIMEOUT_SEC);
                suite_add_tcase(suite, tcs[i]);
        }
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_run = srunner_ntests_run(runner);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        (void) printf("%d passed, %d failed\n", n_run - n_failed, n_failed);
        return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int run_case(const char *name, TCase *tc) {
        return run_cases(name, &tc, 1);
}
