/* SPDX-License-Identifier: MIT */

#include "core/qmgr.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "util/util.h"

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

/* Return: a descriptor, or a negative errno. */
static int reach(int queue_fd, const char *endpoint, bool *ret_is_socket) {
        _cleanup_close_ int pin_fd = -EBADF;
        struct stat st;

        pin_fd = openat(queue_fd, endpoint, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (pin_fd < 0 || fstat(pin_fd, &st) < 0)
                return -errno;
        if (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
                return -EPROTOTYPE;
        *ret_is_socket = S_ISSOCK(st.st_mode);
        return open_endpoint(pin_fd, st.st_mode & S_IFMT);
}

int qmgr_trigger(int queue_fd, const char *endpoint, char request) {
        /* On a socket a NUL ends the request; a FIFO is read byte by byte. */
        char bytes[2] = {request, '\0'};
        bool is_socket = false;
        _cleanup_close_ int fd = reach(queue_fd, endpoint, &is_socket);

        if (fd < 0)
                return fd;
        /* So few bytes are never split. */
        return write(fd, bytes, is_socket ? 2 : 1) < 0 ? -errno : 0;
}

int qmgr_probe(int queue_fd, const char *endpoint) {
        bool is_socket = false;
        _cleanup_close_ int fd = reach(queue_fd, endpoint, &is_socket);

        return fd < 0 ? fd : 0;
}
