/* SPDX-License-Identifier: MIT */

#include "util/textfile.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "util/util.h"

int textfile_read(const char *path, size_t max, char **ret) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        _cleanup_free_ char *text = NULL;
        struct stat st;
        ssize_t n;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        if ((uintmax_t) st.st_size > max) /* a size_t may be shorter */
                return -EFBIG;
        text = malloc((size_t) st.st_size + 1);
        if (!text)
                return -ENOMEM;
        n = read(fd, text, (size_t) st.st_size);
        if (n < 0)
                return -errno;
        text[n] = '\0';
        *ret = TAKE_PTR(text);
        return 0;
}

const char *textfile_strerror(int error) {
        switch (error) {
        case -EINVAL:
                return "not a regular file";
        case -EFBIG:
                return "too large";
        default:
                return strerror(-error);
        }
}
