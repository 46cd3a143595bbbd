/* SPDX-License-Identifier: MIT */

#include "qmgr.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "util.h"

/*
 * Linux has no connectat(2), and a path that is looked at twice may be two files. So the endpoint
 * is held by an O_PATH descriptor and then reached by the name that /proc has for that one.
 */
static int open_endpoint(int pin_fd, mode_t type) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = -EBADF;

        (void) snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d", pin_fd);
        if (type == S_IFIFO)
                return RET_NERRNO(open(sa.sun_path, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) &sa, sizeof sa) < 0)
                return -errno;
        return TAKE_FD(fd);
}

int qmgr_trigger(int queue_fd, const char *endpoint, char request) {
        _cleanup_close_ int pin_fd = -EBADF, fd = -EBADF;
        /* On a socket a NUL ends the request; a FIFO is read byte by byte. */
        char bytes[2] = {request, '\0'};
        struct stat st;
        size_t n;

        pin_fd = openat(queue_fd, endpoint, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (pin_fd < 0 || fstat(pin_fd, &st) < 0)
                return -errno;
        if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
                return -EPROTOTYPE;
        fd = open_endpoint(pin_fd, st.st_mode & S_IFMT);
        if (fd < 0)
                return fd;
        n = S_ISSOCK(st.st_mode) ? 2 : 1;
        return write(fd, bytes, n) < 0 ? -errno : 0; /* so few bytes are never split */
}
