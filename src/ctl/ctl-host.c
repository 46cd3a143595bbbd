/* SPDX-License-Identifier: MIT */

/* fflushctl --host: the same command on another host, over ssh(1). What that host prints is from
 * outside as everything else is: it passes through here, line by line. */

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "util/util.h"

#define LINE_MAX_SHOWN   65536u /* a longer line comes in pieces */
#define STATUS_SIGNALLED 128

typedef struct Stream {
        int fd; /* negative: it has ended */
        FILE *to;
        size_t n;
        char line[LINE_MAX_SHOWN + 1];
} Stream;

/* For the shell that sshd(8) gives the command to: between single quotes all but the quote itself
 * is as it is. */
static char *quote(const char *text) {
        size_t n = 3;
        char *out, *p;

        for (const char *c = text; *c; c++)
                n += *c == '\'' ? strlen("'\\''") : 1;
        out = p = calloc(1, n);
        if (!out)
                return NULL;
        *p++ = '\'';
        for (; *text; text++)
                if (*text == '\'')
                        p = stpcpy(p, "'\\''");
                else
                        *p++ = *text;
        (void) strcpy(p, "'");
        return out;
}

static void put(Stream *s, bool ends) {
        s->line[s->n] = '\0';
        ctl_pass_on(s->to, s->line, ends);
        s->n = 0;
}

static void relay(Stream *s) {
        char chunk[4096];
        ssize_t n = read(s->fd, chunk, sizeof chunk);

        if (n < 0 && errno == EINTR)
                return;
        for (ssize_t i = 0; i < n; i++) {
                if (chunk[i] == '\n')
                        put(s, true);
                else {
                        if (s->n == LINE_MAX_SHOWN)
                                put(s, false);
                        s->line[s->n++] = chunk[i] ? chunk[i] : '?';
                }
        }
        if (n <= 0) {
                if (s->n > 0)
                        put(s, false);
                closep(&s->fd);
                s->fd = -EBADF;
        }
        (void) fflush(s->to); /* with --every the next line may take long */
}

static int wait_for(pid_t pid) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return EX_OSERR;
        return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNALLED + WTERMSIG(status);
}

static int relay_all(Stream streams[2]) {
        for (;;) {
                struct pollfd fds[2];

                for (int i = 0; i < 2; i++)
                        fds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
                if (fds[0].fd < 0 && fds[1].fd < 0)
                        return 0;
                if (poll(fds, 2, -1) < 0 && errno != EINTR)
                        return -errno;
                for (int i = 0; i < 2; i++)
                        if (fds[i].revents)
                                relay(&streams[i]);
        }
}

/* Standard input stays as it is. */
static int spawn(char *argv[], const int fds[2], pid_t *ret) {
        posix_spawn_file_actions_t actions;
        int r;

        if (posix_spawn_file_actions_init(&actions) != 0)
                return -ENOMEM;
        r = posix_spawn_file_actions_adddup2(&actions, fds[0], STDOUT_FILENO);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
        if (r == 0)
                r = posix_spawnp(ret, argv[0], &actions, NULL, argv, environ);
        (void) posix_spawn_file_actions_destroy(&actions);
        return -r;
}

static int run(char *argv[]) {
        static Stream streams[2];
        int outs[2] = {-EBADF, -EBADF}, r = 0, status = EX_OSERR;
        pid_t pid = 0;

        for (int i = 0; i < 2; i++) {
                int fds[2] = {-EBADF, -EBADF};

                if (r == 0 && pipe2(fds, O_CLOEXEC) < 0)
                        r = -errno;
                streams[i] = (Stream){.fd = fds[0], .to = i == 0 ? stdout : stderr};
                outs[i] = fds[1];
        }
        if (r == 0)
                r = spawn(argv, outs, &pid);
        closep(&outs[0]);
        closep(&outs[1]);
        if (r == 0) {
                r = relay_all(streams);
                status = wait_for(pid);
        }
        closep(&streams[0].fd);
        closep(&streams[1].fd);
        if (r == 0)
                return status;
        ctl_error("ssh: %s", strerror(-r));
        return EX_UNAVAILABLE;
}

int ctl_host(const char *host, char *const words[], size_t n) {
        const char *const first[] = {"ssh", "-xT", "--", host, "fflushctl"};
        char **argv = calloc(ARRAY_SIZE(first) + n + 1, sizeof *argv);
        bool complete = argv;
        size_t k = 0;
        int status;

        for (size_t i = 0; complete && i < ARRAY_SIZE(first); i++)
                complete = (argv[k++] = strdup(first[i]));
        for (size_t i = 0; complete && i < n; i++)
                complete = (argv[k++] = quote(words[i]));
        status = complete ? run(argv) : ctl_no_memory();
        while (k > 0)
                free(argv[--k]);
        free(argv);
        return status;
}
