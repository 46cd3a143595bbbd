/* SPDX-License-Identifier: MIT */

#include "util/atomicfile.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "util/util.h"

/* rename(2) would put a plain file in the place of a device, and cut a link off what it leads to.
 */
static int check_place(const char *path) {
        struct stat st;

        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

int atomicfile_begin(const char *path, mode_t mode, FILE **ret, char **ret_temporary) {
        _cleanup_free_ char *temporary = NULL;
        _cleanup_close_ int fd = -EBADF;
        FILE *f = NULL;
        int r;

        r = check_place(path);
        if (r < 0)
                return r;
        if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
                return -ENOMEM;
        fd = mkostemp(temporary, O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fchmod(fd, mode) == 0)
                f = fdopen(fd, "w");
        if (!f) {
                r = -errno;
                (void) unlink(temporary);
                return r;
        }
        (void) TAKE_FD(fd);
        *ret = f;
        *ret_temporary = TAKE_PTR(temporary);
        return 0;
}

int atomicfile_sync(FILE *f) {
        return fflush(f) == 0 && fsync(fileno(f)) == 0 ? 0 : -errno;
}

int atomicfile_end(FILE *f, char *temporary, const char *path) {
        bool failed = ferror(f);
        int r = 0;

        if (fclose(f) != 0)
                r = -errno;
        else if (failed)
                r = -EIO;
        if (r == 0 && path)
                r = RET_NERRNO(rename(temporary, path));
        if (r < 0 || !path)
                (void) unlink(temporary);
        free(temporary);
        return r;
}
