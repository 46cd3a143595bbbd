/* SPDX-License-Identifier: MIT */

/*
 * Preloaded: the allocation fails at which a counter comes to zero. The counter is the first eight
 * bytes of the file $FFLUSHD_MALLOC_FAIL, shared with the test that sets it.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* glibc's own names for what is replaced here. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static volatile int64_t *counter;

__attribute__((constructor)) static void find_counter(void) {
        const char *path = getenv("FFLUSHD_MALLOC_FAIL");
        int fd =
                path ? open(path, O_RDWR | O_CLOEXEC) : -1; /* stays open: it is one more, always */
        void *p = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (p != MAP_FAILED)
                counter = p;
}

static int fails(void) {
        if (!counter || *counter <= 0 || --*counter > 0)
                return 0;
        errno = ENOMEM;
        return 1;
}

void *malloc(size_t n) {
        return fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
        return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
        return fails() ? NULL : __libc_realloc(p, n);
}
