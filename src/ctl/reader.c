/* SPDX-License-Identifier: MIT */

#include "ctl/reader.h"

#include <poll.h>

#include "util/util.h"

/* With no events asked for, the end of a pipe, a socket or a terminal is told nevertheless. A
 * file or a closed descriptor has no reader to lose. */
bool reader_wait_for(int fd, uint64_t usec) {
        struct pollfd fds[] = {{.fd = STDOUT_FILENO}, {.fd = fd, .events = POLLIN}};
        const struct timespec ts = {.tv_sec = (time_t) (usec / USEC_PER_SEC),
                                    .tv_nsec = (long) (usec % USEC_PER_SEC * 1000)};

        if (ppoll(fds, ARRAY_SIZE(fds), &ts, NULL) <= 0)
                return true;
        return !(fds[0].revents & (POLLERR | POLLHUP));
}

bool reader_wait(uint64_t usec) {
        return reader_wait_for(-1, usec);
}
