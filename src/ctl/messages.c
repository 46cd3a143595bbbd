/* SPDX-License-Identifier: MIT */

#include "ctl/messages.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "util/util.h"

#define POSTQUEUE  POSTFIX_COMMAND_DIR "/postqueue"
#define ERRORS_MAX 4096 /* that are shown of what it says on standard error */

static int start(const char *config_directory, int output_fd, int errors_fd, pid_t *ret) {
        char *argv[] = {strdup(POSTQUEUE), strdup("-c"), strdup(config_directory), strdup("-j"),
                        NULL};
        posix_spawn_file_actions_t actions;
        int r = -ENOMEM;

        if (posix_spawn_file_actions_init(&actions) != 0)
                goto out;
        if (argv[0] && argv[1] && argv[2] && argv[3] &&
            posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO) == 0 &&
            posix_spawn_file_actions_adddup2(&actions, errors_fd, STDERR_FILENO) == 0 &&
            posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) == 0)
                r = -posix_spawn(ret, POSTQUEUE, &actions, NULL, argv, environ);
        (void) posix_spawn_file_actions_destroy(&actions);
out:
        for (size_t i = 0; i < ARRAY_SIZE(argv); i++)
                free(argv[i]);
        return r;
}

int messages_open(Messages *m, const char *config_directory) {
        int fds[2], r;

        *m = (Messages){.errors_fd = memfd_create("postqueue", MFD_CLOEXEC)};
        if (m->errors_fd < 0)
                return -errno;
        if (pipe2(fds, O_CLOEXEC) < 0) {
                r = -errno;
                closep(&m->errors_fd);
                return r;
        }
        r = start(config_directory, fds[1], m->errors_fd, &m->pid);
        closep(&fds[1]);
        if (r == 0) {
                m->f = fdopen(fds[0], "r");
                if (m->f)
                        return 0;
                r = -ENOMEM;
        }
        closep(&fds[0]);
        closep(&m->errors_fd);
        return r;
}

void messages_from(Messages *m, FILE *f) {
        *m = (Messages){.f = f, .errors_fd = -EBADF};
}

static bool is_message(const json_t *object) {
        return json_is_string(json_object_get(object, "queue_name")) &&
               json_is_string(json_object_get(object, "queue_id")) &&
               json_is_array(json_object_get(object, "recipients"));
}

json_t *messages_next(Messages *m) {
        ssize_t n;

        while ((n = getline(&m->line, &m->size, m->f)) > 0) {
                json_t *object = json_loadb(m->line, (size_t) n, 0, NULL);

                if (is_message(object))
                        return object;
                m->n_bad++;
                json_decref(object);
        }
        return NULL;
}

static char *read_errors(int fd) {
        char *text = malloc(ERRORS_MAX + 1);
        ssize_t n = text ? pread(fd, text, ERRORS_MAX, 0) : 0;

        if (n <= 0) {
                free(text);
                return NULL;
        }
        text[n] = '\0';
        return text;
}

int messages_close(Messages *m, char **ret_errors) {
        int r = ferror(m->f) ? -EIO : 0, status;
        pid_t pid = m->pid;

        *ret_errors = NULL;
        free(m->line);
        if (pid == 0)
                return r;
        while (fgetc(m->f) != EOF)
                ;
        (void) fclose(m->f);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR) {
                        status = -1;
                        break;
                }
        *ret_errors = read_errors(m->errors_fd);
        closep(&m->errors_fd);
        return status == 0 ? r : -EREMOTEIO;
}

const char *messages_site(const char *address) {
        const char *at = strrchr(address, '@');

        return at && at[1] ? at + 1 : NULL;
}
