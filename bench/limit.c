/* SPDX-License-Identifier: MIT */

/*
 * How fast it could be: the same work by bare system calls, without any check. In the queue
 * directory, with the spool as bench.py makes it:
 *
 *   limit serve SOCKET          answers adds: one epoll, all that came at once in one write a site
 *   limit send N                moves N messages: utimensat, renameat
 *   limit send_file N           the same with the group's x bit: openat, fstat, fchmod
 *   limit refresh SECONDS       looks at all logs, sends those not read for so long, empties them
 *
 * All but serve print the seconds it took, as JSON.
 */

#include "common.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define EVENTS_MAX 256
#define LOGS_MAX   65536u
#define GROUP_MAX  64

/* ------------------------------------------------------------------------------- adds */

typedef struct Log {
        char name[128];
        int fd;
        int n;
        struct iovec lines[GROUP_MAX];
} Log;

typedef struct Connection {
        int fd;
        size_t n;
        char buf[512];
} Connection;

static Log *logs[LOGS_MAX];

static Log *find_log(const char *name) {
        unsigned h = 2166136261u;
        Log *log;

        for (const char *p = name; *p; p++)
                h = (h ^ (unsigned char) *p) * 16777619u;
        for (h %= LOGS_MAX; logs[h]; h = (h + 1) % LOGS_MAX)
                if (strcmp(logs[h]->name, name) == 0)
                        return logs[h];
        log = calloc(1, sizeof *log);
        if (!log)
                die("calloc");
        (void) snprintf(log->name, sizeof log->name, "%s", name);
        log->fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log->fd < 0)
                die(name);
        logs[h] = log;
        return log;
}

static void write_log(Log *log) {
        if (flock(log->fd, LOCK_EX) < 0 || writev(log->fd, log->lines, log->n) < 0 ||
            flock(log->fd, LOCK_UN) < 0)
                die(log->name);
        log->n = 0;
}

/* The value of an attribute in a request that is whole, or NULL. */
static char *value_of(Connection *c, const char *name) {
        for (char *p = c->buf; p < c->buf + c->n - 1;) {
                char *value = p + strlen(p) + 1;

                if (value >= c->buf + c->n)
                        return NULL;
                if (strcmp(p, name) == 0)
                        return value;
                p = value + strlen(value) + 1;
        }
        return NULL;
}

/* Return: the log that got a first line, or NULL. */
static Log *take_add(Connection *c) {
        char *site = value_of(c, "site"), *id = value_of(c, "queue_id");
        char name[128];
        size_t n;
        Log *log;

        if (!site || !id)
                return NULL;
        (void) snprintf(name, sizeof name, "../flush/%.100s", site);
        for (char *p = name + strlen("../flush/"); *p; p++)
                if (*p == '.')
                        *p = '_';
        log = find_log(name);
        if (log->n == GROUP_MAX)
                write_log(log);
        n = strlen(id);
        id[n] = '\n';
        log->lines[log->n++] = (struct iovec){id, n + 1};
        return log->n == 1 ? log : NULL;
}

static void hang_up(Connection *c) {
        (void) close(c->fd);
        free(c);
}

static void accept_all(int epoll_fd, int listener) {
        for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
                struct epoll_event event = {.events = EPOLLIN};
                Connection *c = malloc(sizeof *c);

                if (!c)
                        die("malloc");
                c->fd = fd;
                c->n = 0;
                event.data.ptr = c;
                (void) send(fd, ANNOUNCED, sizeof ANNOUNCED, MSG_NOSIGNAL);
                if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
                        die("epoll_ctl");
        }
}

static __attribute__((noreturn)) void serve(char *path) {
        struct epoll_event events[EVENTS_MAX], event = {.events = EPOLLIN};
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC), listener = listen_at(path);

        if (fcntl(listener, F_SETFL, O_NONBLOCK) < 0 ||
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
                die("epoll_ctl");
        for (;;) {
                Connection *asked[EVENTS_MAX];
                Log *written[EVENTS_MAX], *log;
                int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1), n_asked = 0, n_written = 0;
                bool connecting = false;

                for (int i = 0; i < n; i++) {
                        Connection *c = events[i].data.ptr;
                        ssize_t r;

                        if (!c) {
                                connecting = true;
                                continue;
                        }
                        r = recv(c->fd, c->buf + c->n, sizeof c->buf - c->n, 0);
                        if (r <= 0) {
                                hang_up(c);
                                continue;
                        }
                        c->n += (size_t) r;
                        if (c->n < 3 || c->buf[c->n - 1] != '\0' || c->buf[c->n - 2] != '\0')
                                continue;
                        log = take_add(c);
                        if (log)
                                written[n_written++] = log;
                        asked[n_asked++] = c;
                }
                for (int i = 0; i < n_written; i++)
                        if (written[i]->n > 0)
                                write_log(written[i]);
                for (int i = 0; i < n_asked; i++) {
                        (void) send(asked[i]->fd, REPLY_OK, sizeof REPLY_OK, MSG_NOSIGNAL);
                        hang_up(asked[i]);
                }
                if (connecting)
                        accept_all(epoll_fd, listener);
        }
}

/* ------------------------------------------------------------------------------- messages */

static int incoming_fd, deferred_fds[16];
static struct timespec now_twice[2];

static int open_directory(const char *path) {
        int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0)
                die(path);
        return fd;
}

static void open_queue(void) {
        char path[16];

        incoming_fd = open_directory("incoming");
        for (unsigned i = 0; i < 16; i++) {
                (void) snprintf(path, sizeof path, "deferred/%X", i);
                deferred_fds[i] = open_directory(path);
        }
        now_twice[0].tv_sec = now_twice[1].tv_sec = time(NULL);
}

static int directory_of(const char *id) {
        return deferred_fds[(id[0] <= '9' ? id[0] - '0' : id[0] - 'A' + 10) & 15];
}

static void allow_group(int directory, const char *id) {
        int fd = openat(directory, id, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0 || fchmod(fd, (st.st_mode & 07777) | 0040) < 0)
                die(id);
        (void) close(fd);
}

static void move_message(const char *id, bool one_file) {
        int directory = directory_of(id);

        if (utimensat(directory, id, now_twice, AT_SYMLINK_NOFOLLOW) < 0)
                die(id);
        if (one_file)
                allow_group(directory, id);
        if (renameat(directory, id, incoming_fd, id) < 0)
                die(id);
}

static void send_log(int flush_fd, const char *name) {
        int fd = openat(flush_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        char buf[4096];
        ssize_t n;

        if (fd < 0 || flock(fd, LOCK_EX) < 0)
                die(name);
        n = read(fd, buf, sizeof buf - 1); /* these logs are short */
        if (n < 0)
                die(name);
        buf[n] = '\0';
        for (char *id = strtok(buf, "\n"); id; id = strtok(NULL, "\n"))
                move_message(id, false);
        if (ftruncate(fd, 0) < 0 || futimens(fd, NULL) < 0)
                die(name);
        (void) close(fd);
}

static void refresh(time_t age) {
        DIR *d = opendir("flush");
        time_t now = time(NULL);
        struct dirent *e;
        struct stat st;

        if (!d)
                die("flush");
        while ((e = readdir(d)))
                if (e->d_name[0] != '.' && fstatat(dirfd(d), e->d_name, &st, 0) == 0 &&
                    st.st_size > 0 && st.st_atime + age < now)
                        send_log(dirfd(d), e->d_name);
        (void) closedir(d);
}

static void send_all(uint64_t n, bool one_file) {
        char id[ID_SIZE];

        for (uint64_t i = 0; i < n; i++) {
                make_id(id, i);
                move_message(id, one_file);
        }
}

int main(int argc, char *argv[]) {
        uint64_t begin_nsec;

        (void) prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (argc != 3) {
                (void) fprintf(stderr, "usage: limit serve SOCKET | send N | send_file N | "
                                       "refresh SECONDS\n");
                return 2;
        }
        if (strcmp(argv[1], "serve") == 0)
                serve(argv[2]);
        begin_nsec = now_nsec();
        open_queue();
        if (strcmp(argv[1], "refresh") == 0)
                refresh((time_t) strtol(argv[2], NULL, 10));
        else
                send_all(strtoull(argv[2], NULL, 10), strcmp(argv[1], "send_file") == 0);
        (void) printf("{\"seconds\": %.6f}\n", (double) (now_nsec() - begin_nsec) / 1e9);
        return 0;
}
