/* SPDX-License-Identifier: MIT */

#include "ctl/pager.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "ctl/ctl-print.h"
#include "util/util.h"

#define DEFAULT_PAGER "less"

/* Return: the command, or NULL: none is wanted. */
static const char *find_pager(void) {
        const char *pager = getenv("SYSTEMD_PAGER");

        if (!pager)
                pager = getenv("PAGER");
        if (pager && (streq(pager, "") || streq(pager, "cat")))
                return NULL;
        return pager && !getenv("SUDO_UID") && getuid() == geteuid() ? pager : DEFAULT_PAGER;
}

static int start(const char *command, int input_fd, pid_t *ret) {
        char shell[] = "sh", option[] = "-c", *text = strdup(command);
        char *argv[] = {shell, option, text, NULL};
        posix_spawn_file_actions_t actions;
        int r = -ENOMEM;

        if (!text || posix_spawn_file_actions_init(&actions) != 0)
                goto out;
        if (posix_spawn_file_actions_adddup2(&actions, input_fd, STDIN_FILENO) == 0)
                r = -posix_spawn(ret, "/bin/sh", &actions, NULL, argv, environ);
        (void) posix_spawn_file_actions_destroy(&actions);
out:
        free(text);
        return r;
}

static bool has_program(const char *command) {
        const char *places = getenv("PATH");
        _cleanup_free_ char *path = strdup(places ? places : "");
        char file[4096], *rest = path, *directory;

        if (!streq(command, DEFAULT_PAGER))
                return true;
        while (path && (directory = strsep(&rest, ":"))) {
                (void) snprintf(file, sizeof file, "%s/%s", directory, command);
                if (access(file, X_OK) == 0)
                        return true;
        }
        return false;
}

static void open_pager(Terminal *t) {
        const char *command = find_pager();
        int fds[2];

        if (!command || !has_program(command) || pipe2(fds, O_CLOEXEC) < 0)
                return;
        (void) setenv("LESS", "FRSXMK", 1);
        (void) setenv("LESSSECURE", "1", 1);
        (void) ctl_style(CTL_PLAIN); /* decides while this is a terminal */
        if (start(command, fds[0], &t->pager) < 0 || dup2(fds[1], STDOUT_FILENO) < 0)
                t->pager = 0;
        else
                (void) signal(SIGPIPE, SIG_IGN); /* who has seen enough has left the pager */
        closep(&fds[0]);
        closep(&fds[1]);
}

Terminal terminal_open(bool pager) {
        struct winsize size;
        Terminal t = {0};

        if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
                return t;
        t.width = size.ws_col;
        t.height = size.ws_row;
        if (pager)
                open_pager(&t);
        if (t.pager > 0) /* it can scroll to the right */
                t.width = 0;
        return t;
}

void terminal_close(Terminal *t) {
        if (t->pager == 0)
                return;
        (void) fflush(stdout);
        (void) close(STDOUT_FILENO);
        (void) open("/dev/null", O_WRONLY | O_CLOEXEC); /* who comes after finds an open file */
        clearerr(stdout);
        while (waitpid(t->pager, NULL, 0) < 0 && errno == EINTR)
                ;
        t->pager = 0;
}
