/* SPDX-License-Identifier: MIT */

/*
 * What stands around the servers.
 *
 *   hold serve SOCKET COMMAND...   starts COMMAND when somebody connects, as systemd does for
 *                                  fflush.socket, and again after it has left
 *   hold qmgr SOCKET STATE         in the place of qmgr: takes triggers; STATE is a file of four
 *                                  64-bit numbers: when the first F came since it was 0 (nsec,
 *                                  CLOCK_MONOTONIC), how many; the same for I
 */

#include "common.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

static volatile sig_atomic_t child;

static void on_term(int sig) {
        (void) sig;
        if (child > 0)
                (void) kill((pid_t) child, SIGTERM);
        _exit(0);
}

static __attribute__((noreturn)) void become(int fd, char *command[]) {
        char pid[32];

        (void) snprintf(pid, sizeof pid, "%ld", (long) getpid());
        (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (setenv("LISTEN_PID", pid, 1) < 0 || setenv("LISTEN_FDS", "1", 1) < 0)
                die("setenv");
        if (fd == 3 ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, 3) < 0)
                die("dup2");
        (void) execv(command[0], command);
        die(command[0]);
}

static int serve(char *path, char *command[]) {
        struct pollfd pfd = {.events = POLLIN};
        int status;

        if (signal(SIGTERM, on_term) == SIG_ERR)
                die("signal");
        (void) umask(0);
        pfd.fd = listen_at(path);
        (void) umask(022);
        for (;;) {
                if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
                        die("poll");
                child = fork();
                if (child < 0)
                        die("fork");
                if (child == 0)
                        become(pfd.fd, command);
                if (waitpid((pid_t) child, &status, 0) < 0)
                        die("waitpid");
                child = 0;
                if (status != 0) {
                        (void) fprintf(stderr, "%s has ended with status %#x\n", command[0],
                                       (unsigned) status);
                        return 1;
                }
        }
}

static int qmgr(char *path, const char *state) {
        int fd = open(state, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        volatile uint64_t *seen;
        int listener;

        if (fd < 0 || ftruncate(fd, 4 * sizeof *seen) < 0)
                die(state);
        seen = mmap(NULL, 4 * sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (seen == MAP_FAILED)
                die(state);
        (void) umask(0);
        listener = listen_at(path);
        for (;;) {
                int c = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                struct pollfd pfd = {.fd = c, .events = POLLIN};
                char buf[64];
                bool ended = c < 0;

                while (!ended && poll(&pfd, 1, 1000) == 1) {
                        ssize_t n = read(c, buf, sizeof buf);

                        ended = n <= 0;
                        for (ssize_t i = 0; i < n; i++) {
                                volatile uint64_t *s = buf[i] == 'F' ? seen : seen + 2;

                                ended = ended || buf[i] == '\0'; /* or EOF */
                                if (buf[i] != 'F' && buf[i] != 'I')
                                        continue;
                                if (s[0] == 0)
                                        s[0] = now_nsec();
                                s[1]++;
                        }
                }
                if (c >= 0)
                        (void) close(c);
        }
}

int main(int argc, char *argv[]) {
        (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (argc > 3 && strcmp(argv[1], "serve") == 0)
                return serve(argv[2], argv + 3);
        if (argc == 4 && strcmp(argv[1], "qmgr") == 0)
                return qmgr(argv[2], argv[3]);
        (void) fprintf(stderr, "usage: hold serve SOCKET COMMAND... | hold qmgr SOCKET STATE\n");
        return 2;
}
