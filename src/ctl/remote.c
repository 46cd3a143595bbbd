/* SPDX-License-Identifier: MIT */

#include "ctl/remote.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <sysexits.h>

#include "util/util.h"

#define STATUS_SIGNALLED 128

/* ----------------------------------------------------------------------------------- signals */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t caught;
static bool passed_on;
static sigset_t old_mask; /* for ppoll(2), and for children */

static void on_signal(int sig) {
        caught = sig;
}

/* They are blocked but in ppoll(2). What was ignored before, as in the background, stays so. */
static void catch_signals(void) {
        static bool done;
        sigset_t mask;

        if (done)
                return;
        done = true;
        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
                struct sigaction old, action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};

                if (sigaction(signals[i], NULL, &old) < 0 || old.sa_handler == SIG_IGN)
                        continue;
                (void) sigaction(signals[i], &action, NULL);
                (void) sigaddset(&mask, signals[i]);
        }
        (void) sigprocmask(SIG_BLOCK, &mask, &old_mask);
}

int remote_was_interrupted(void) {
        return caught;
}

/* The first one has put the default action back. */
void remote_end_as_interrupted(void) {
        if (!caught)
                return;
        (void) sigprocmask(SIG_SETMASK, &old_mask, NULL);
        (void) raise(caught);
}

/* --------------------------------------------------------------------------------- one child */

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

/* Standard input stays as it is if @input is negative. */
static int spawn(char *argv[], int input, const int outs[_REMOTE_OUTPUT_MAX], pid_t *ret) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attr;
        int r;

        if (posix_spawn_file_actions_init(&actions) != 0)
                return -ENOMEM;
        if (posix_spawnattr_init(&attr) != 0) {
                (void) posix_spawn_file_actions_destroy(&actions);
                return -ENOMEM;
        }
        (void) posix_spawnattr_setsigmask(&attr, &old_mask);
        (void) posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
        r = posix_spawn_file_actions_adddup2(&actions, outs[REMOTE_STDOUT], STDOUT_FILENO);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, outs[REMOTE_STDERR], STDERR_FILENO);
        if (r == 0 && input >= 0)
                r = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
        if (r == 0)
                r = posix_spawnp(ret, argv[0], &actions, &attr, argv, environ);
        (void) posix_spawnattr_destroy(&attr);
        (void) posix_spawn_file_actions_destroy(&actions);
        return -r;
}

/* With env(1), because the login shell may be one that knows no "NAME=VALUE command". */
static char **make_argv(const char *const ssh_options[], const char *host, const char *variable,
                        char *const words[], size_t n) {
        const char *const after[] = {"--", host, variable ? "env" : NULL, variable, "fflushctl"};
        size_t n_options = 0, k = 0;
        bool complete = true;
        char **argv;

        while (ssh_options[n_options])
                n_options++;
        argv = calloc(1 + n_options + ARRAY_SIZE(after) + n + 1, sizeof *argv);
        if (!argv)
                return NULL;
        complete &= (argv[k++] = strdup("ssh")) != NULL;
        for (size_t i = 0; complete && i < n_options; i++)
                complete = (argv[k++] = strdup(ssh_options[i]));
        for (size_t i = 0; complete && i < ARRAY_SIZE(after); i++)
                if (after[i])
                        complete = (argv[k++] = strdup(after[i]));
        for (size_t i = 0; complete && i < n; i++)
                complete = (argv[k++] = quote(words[i]));
        if (complete)
                return argv;
        while (k > 0)
                free(argv[--k]);
        free(argv);
        return NULL;
}

static void free_argv(char **argv) {
        for (size_t i = 0; argv && argv[i]; i++)
                free(argv[i]);
        free(argv);
}

int remote_start(Remote *remote, const char *const ssh_options[], const char *host,
                 const char *variable, char *const words[], size_t n, int input) {
        char **argv = make_argv(ssh_options, host, variable, words, n);
        int outs[_REMOTE_OUTPUT_MAX] = {-EBADF, -EBADF};
        int r = argv ? 0 : -ENOMEM;

        catch_signals();
        for (int i = 0; i < _REMOTE_OUTPUT_MAX; i++) {
                int fds[2] = {-EBADF, -EBADF};

                if (r == 0)
                        r = RET_NERRNO(pipe2(fds, O_CLOEXEC));
                remote->fds[i] = fds[0];
                outs[i] = fds[1];
        }
        if (r == 0)
                r = spawn(argv, input, outs, &remote->pid);
        closep(&outs[REMOTE_STDOUT]);
        closep(&outs[REMOTE_STDERR]);
        if (r < 0)
                remote_done(remote);
        free_argv(argv);
        return r;
}

int remote_wait(Remote *r) {
        int status;

        while (waitpid(r->pid, &status, 0) < 0)
                if (errno != EINTR)
                        return EX_OSERR;
        r->pid = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNALLED + WTERMSIG(status);
}

bool remote_has_ended(const Remote *r) {
        return r->fds[REMOTE_STDOUT] < 0 && r->fds[REMOTE_STDERR] < 0;
}

void remote_done(Remote *r) {
        for (int i = 0; i < _REMOTE_OUTPUT_MAX; i++) {
                closep(&r->fds[i]);
                r->fds[i] = -EBADF;
        }
        if (r->pid > 0) {
                (void) kill(r->pid, SIGTERM);
                (void) remote_wait(r);
        }
}

/* --------------------------------------------------------------------------- what they print */

static void read_output(Remote *r, RemoteOutput output) {
        char chunk[REMOTE_CHUNK];
        ssize_t n = read(r->fds[output], chunk, sizeof chunk);

        if (n > 0)
                r->read(output, chunk, (size_t) n, r->userdata);
        else if (n == 0 || errno != EINTR) {
                closep(&r->fds[output]);
                r->fds[output] = -EBADF;
        }
}

static void pass_signal_on(Remote *const remotes[], size_t n) {
        for (size_t i = 0; i < n; i++)
                if (remotes[i]->pid > 0)
                        (void) kill(remotes[i]->pid, SIGTERM);
        passed_on = true;
}

int remote_relay(Remote *const remotes[], size_t n) {
        _cleanup_free_ struct pollfd *fds = calloc(n * _REMOTE_OUTPUT_MAX, sizeof *fds);

        if (!fds)
                return -ENOMEM;
        for (size_t i = 0; i < n * _REMOTE_OUTPUT_MAX; i++)
                fds[i] = (struct pollfd){
                        .fd = remotes[i / _REMOTE_OUTPUT_MAX]->fds[i % _REMOTE_OUTPUT_MAX],
                        .events = POLLIN};
        if (ppoll(fds, n * _REMOTE_OUTPUT_MAX, NULL, &old_mask) < 0 && errno != EINTR)
                return -errno;
        if (caught && !passed_on)
                pass_signal_on(remotes, n);
        for (size_t i = 0; i < n * _REMOTE_OUTPUT_MAX; i++)
                if (fds[i].revents)
                        read_output(remotes[i / _REMOTE_OUTPUT_MAX],
                                    (RemoteOutput) (i % _REMOTE_OUTPUT_MAX));
        return 0;
}
