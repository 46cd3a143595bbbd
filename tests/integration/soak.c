/* SPDX-License-Identifier: MIT */

/*
 * soak SOCKET QUEUE N CLIENTS SEED: N requests of all kinds, from CLIENTS threads, while each knows
 * what must come of them. A thread has sites and queue IDs of its own, makes and removes the
 * messages of these below QUEUE, and keeps the simplest model of what is recorded: a bit for each
 * ID. Each reply's counts must agree with it; in the end the logs must, which are then flushed for
 * who comes next. Prints one line of JSON; exits 1 at the first disagreement.
 */

#include "bench/common.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>

#define SITES       16u /* of a thread */
#define IDS         64u /* of a site */
#define CLIENTS_MAX 64u
#define REPLY_SIZE  512
#define PATIENCE    120 /* seconds; activations take their time on a loaded machine */

/* Where a message is. */
typedef enum Place { PLACE_NONE, PLACE_DEFERRED, PLACE_HOLD } Place;

typedef struct Model {
        bool recorded[SITES][IDS];
        Place place[SITES][IDS];
} Model;

typedef struct Client {
        pthread_t thread;
        unsigned number;
        uint64_t random_state;
        Model model;
        unsigned long n_kind[8];
} Client;

static struct sockaddr_un address;
static int queue_fd;
static uint64_t n_wanted, n_begun;

static uint64_t roll(Client *c, uint64_t below) {
        c->random_state ^= c->random_state >> 12;
        c->random_state ^= c->random_state << 25;
        c->random_state ^= c->random_state >> 27;
        return (c->random_state * 0x2545f4914f6cdd1dull >> 11) % below;
}

static __attribute__((noreturn, format(printf, 1, 2))) void disagree(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vfprintf(stderr, format, ap);
        va_end(ap);
        (void) fputc('\n', stderr);
        exit(1);
}

static void name_site(const Client *c, unsigned site, char ret[static 64]) {
        (void) snprintf(ret, 64, "s%u-%u.soak.example", c->number, site);
}

/* As src/core/sitename.h says: '.' is '_', '-' is 'D'. */
static void name_log(const Client *c, unsigned site, char ret[static 80]) {
        (void) snprintf(ret, 80, "flush/s%uD%u_soak_example", c->number, site);
}

static void name_id(const Client *c, unsigned site, unsigned id, char ret[static 32]) {
        (void) snprintf(ret, 32, "%X0%02X%02X%02X", id % 16, c->number, site, id);
}

static void path_of(const Client *c, unsigned site, unsigned id, const char *queue,
                    char ret[static 64]) {
        char name[32];

        name_id(c, site, id, name);
        if (strcmp(queue, "deferred") == 0)
                (void) snprintf(ret, 64, "deferred/%c/%s", name[0], name);
        else
                (void) snprintf(ret, 64, "%s/%s", queue, name);
}

static void put_message(const Client *c, unsigned site, unsigned id, const char *queue) {
        char path[64];
        int fd;

        path_of(c, site, id, queue, path);
        fd = openat(queue_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
        if (fd < 0)
                die(path);
        (void) close(fd);
}

static void take_message(const Client *c, unsigned site, unsigned id, const char *queue) {
        char path[64];

        path_of(c, site, id, queue, path);
        if (unlinkat(queue_fd, path, 0) < 0)
                disagree("%s should be there: %s", path, strerror(errno));
}

/* ---------------------------------------------------------------------------------- requests */

typedef struct Reply {
        long status;
        unsigned long found, moved, gone, busy, failed, duplicate;
} Reply;

static size_t put(char *buf, size_t n, const char *text) {
        return n + strlen(strcpy(buf + n, text)) + 1;
}

static bool ends(const char *buf, size_t n) {
        return n >= sizeof ANNOUNCED + 9 && buf[n - 1] == '\0' && buf[n - 2] == '\0';
}

static void read_count(const char *name, const char *value, Reply *ret) {
        const struct {
                const char *name;
                unsigned long *count;
        } counts[] = {{"found", &ret->found},   {"moved", &ret->moved},
                      {"gone", &ret->gone},     {"busy", &ret->busy},
                      {"failed", &ret->failed}, {"duplicate", &ret->duplicate}};

        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
                if (strcmp(name, counts[i].name) == 0)
                        *counts[i].count = strtoul(value, NULL, 10);
}

static Reply read_reply(int fd) {
        char buf[REPLY_SIZE];
        Reply reply = {.status = -2};
        size_t n = 0;

        while (!ends(buf, n)) {
                ssize_t r = recv(fd, buf + n, sizeof buf - n, 0);

                if (r < 0 && errno == EINTR) /* stopped and continued, with a time-out set */
                        continue;
                if (r <= 0)
                        disagree("no reply: %s", r < 0 ? strerror(errno) : "closed");
                n += (size_t) r;
        }
        for (const char *p = buf + sizeof ANNOUNCED; *p;) {
                const char *value = p + strlen(p) + 1;

                if (strcmp(p, "status") == 0)
                        reply.status = strtol(value, NULL, 10);
                read_count(p, value, &reply);
                p = value + strlen(value) + 1;
        }
        return reply;
}

static Reply ask_bytes(const char *bytes, size_t n) {
        struct timeval tv = {.tv_sec = PATIENCE};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        Reply reply;

        if (fd < 0)
                die("socket");
        (void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        (void) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
        while (connect(fd, (const struct sockaddr *) &address, sizeof address) < 0)
                if (errno != EINTR)
                        die("connect");
        if (send(fd, bytes, n, MSG_NOSIGNAL) != (ssize_t) n)
                die("send");
        reply = read_reply(fd);
        (void) close(fd);
        return reply;
}

static Reply ask(const char *kind, const char *site, const char *id) {
        char buf[256];
        size_t n = put(buf, put(buf, 0, "request"), kind);

        if (site)
                n = put(buf, put(buf, n, "site"), site);
        if (id)
                n = put(buf, put(buf, n, "queue_id"), id);
        if (strncmp(kind, "send", 4) == 0)
                n = put(buf, put(buf, n, "detail"), "1");
        buf[n++] = '\0';
        return ask_bytes(buf, n);
}

static void expect_status(const Reply *reply, long status, const char *what) {
        if (reply->status != status)
                disagree("%s: status %ld, expected %ld", what, reply->status, status);
}

/* A new ID, or one that is recorded already; with a message or without. */
static void do_add(Client *c) {
        unsigned site = (unsigned) roll(c, SITES), id = (unsigned) roll(c, IDS);
        char name[64], queue_id[32];
        Reply reply;

        if (c->model.place[site][id] == PLACE_NONE && roll(c, 3) == 0) {
                c->model.place[site][id] = roll(c, 20) == 0 ? PLACE_HOLD : PLACE_DEFERRED;
                put_message(c, site, id,
                            c->model.place[site][id] == PLACE_HOLD ? "hold" : "deferred");
        }
        name_site(c, site, name);
        name_id(c, site, id, queue_id);
        reply = ask("add", name, queue_id);
        expect_status(&reply, 0, "add");
        c->model.recorded[site][id] = true;
}

static void send_site(Client *c, unsigned site) {
        unsigned long moved = 0, gone = 0, busy = 0;
        char name[64];
        Reply r;

        name_site(c, site, name);
        r = ask("send_site", name, NULL);
        expect_status(&r, 0, "send_site");
        for (unsigned id = 0; id < IDS; id++) {
                if (!c->model.recorded[site][id])
                        continue;
                switch (c->model.place[site][id]) {
                case PLACE_DEFERRED:
                        moved++;
                        take_message(c, site, id, "incoming");
                        break;
                case PLACE_HOLD:
                        busy++;
                        continue;
                default:
                        gone++;
                }
                c->model.place[site][id] = PLACE_NONE;
                c->model.recorded[site][id] = false;
        }
        if (r.moved != moved || r.gone != gone || r.busy != busy || r.failed != 0 ||
            r.found - r.duplicate != moved + gone + busy)
                disagree("%s: %lu found, %lu moved, %lu gone, %lu busy, %lu failed, %lu duplicate; "
                         "expected %lu moved, %lu gone, %lu busy",
                         name, r.found, r.moved, r.gone, r.busy, r.failed, r.duplicate, moved, gone,
                         busy);
}

static void do_send_file(Client *c) {
        unsigned site = (unsigned) roll(c, SITES), id = (unsigned) roll(c, IDS);
        Place place = c->model.place[site][id];
        char queue_id[32];
        Reply r;

        name_id(c, site, id, queue_id);
        r = ask("send_file", NULL, queue_id);
        expect_status(&r, 0, "send_file");
        if (r.found != 1 || r.moved != (place == PLACE_DEFERRED) ||
            r.busy != (place == PLACE_HOLD) || r.gone != (place == PLACE_NONE))
                disagree("send_file %s: %lu found, %lu moved, %lu busy, %lu gone, but it was %d",
                         queue_id, r.found, r.moved, r.busy, r.gone, (int) place);
        if (place == PLACE_DEFERRED) {
                take_message(c, site, id, "incoming");
                c->model.place[site][id] = PLACE_NONE; /* and its record stays */
        }
}

/* Somebody takes it off hold. */
static void release_one(Client *c) {
        unsigned site = (unsigned) roll(c, SITES), id = (unsigned) roll(c, IDS);

        if (c->model.place[site][id] != PLACE_HOLD)
                return;
        take_message(c, site, id, "hold");
        c->model.place[site][id] = PLACE_NONE;
}

static void do_wrong(Client *c) {
        static const char garbage[] = "request\0add\0queue_id\0A1\0";
        Reply r;

        switch (roll(c, 3)) {
        case 0:
                r = ask("add", "denied.example", "A1");
                expect_status(&r, 4, "a site that is not in fast_flush_domains");
                break;
        case 1:
                r = ask("add", "soak.example", "A/1");
                expect_status(&r, 3, "a wrong queue ID");
                break;
        default:
                r = ask_bytes(garbage, sizeof garbage);
                expect_status(&r, 3, "a malformed request");
        }
}

/* Refreshes only compact here: no log is old enough for more. */
static void do_refresh(void) {
        Reply r = ask("rfrsh", NULL, NULL);

        expect_status(&r, 0, "refresh");
}

static void *client_main(void *userdata) {
        Client *c = userdata;

        while (__atomic_fetch_add(&n_begun, 1, __ATOMIC_RELAXED) < n_wanted) {
                uint64_t kind = roll(c, 10000);

                if (kind < 8200) {
                        c->n_kind[0]++;
                        do_add(c);
                } else if (kind < 9000) {
                        c->n_kind[1]++;
                        send_site(c, (unsigned) roll(c, SITES));
                } else if (kind < 9700) {
                        c->n_kind[2]++;
                        do_send_file(c);
                } else if (kind < 9995) {
                        c->n_kind[3]++;
                        do_wrong(c);
                        release_one(c);
                } else {
                        c->n_kind[4]++;
                        do_refresh();
                }
        }
        return NULL;
}

/* --------------------------------------------------------------------------------- the end */

/* Each line of the log is an ID that is recorded, and all of those are there. */
static unsigned long check_log(const Client *c, unsigned site) {
        bool seen[IDS] = {false};
        char path[80], line[300], id[32];
        unsigned long n = 0;
        FILE *f;
        int fd;

        name_log(c, site, path);
        fd = openat(queue_fd, path, O_RDONLY | O_CLOEXEC);
        f = fd >= 0 ? fdopen(fd, "r") : NULL;
        while (f && fgets(line, sizeof line, f)) {
                unsigned i;

                line[strcspn(line, "\n")] = '\0';
                for (i = 0; i < IDS; i++) {
                        name_id(c, site, i, id);
                        if (strcmp(line, id) == 0)
                                break;
                }
                if (i == IDS || !c->model.recorded[site][i])
                        disagree("%s has \"%s\", which should not be there", path, line);
                seen[i] = true;
        }
        if (f)
                (void) fclose(f);
        for (unsigned i = 0; i < IDS; i++) {
                if (c->model.recorded[site][i] && !seen[i])
                        disagree("%s has lost number %u", path, i);
                n += seen[i];
        }
        return n;
}

/* Messages are where they should be; then there are none left, and nothing is recorded. */
static void check_messages(Client *c, unsigned site) {
        for (unsigned id = 0; id < IDS; id++) {
                if (c->model.place[site][id] != PLACE_NONE)
                        take_message(c, site, id,
                                     c->model.place[site][id] == PLACE_HOLD ? "hold" : "deferred");
                c->model.place[site][id] = PLACE_NONE;
        }
        send_site(c, site);
}

int main(int argc, char *argv[]) {
        static Client clients[CLIENTS_MAX];
        static const char *const kinds[] = {"add", "send_site", "send_file", "wrong", "refresh"};
        unsigned long n_kind[5] = {0}, n_recorded = 0;
        unsigned n_clients;
        uint64_t start = now_nsec();

        if (argc != 6) {
                (void) fputs("Usage: soak SOCKET QUEUE REQUESTS CLIENTS SEED\n", stderr);
                return 2;
        }
        queue_fd = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (queue_fd < 0)
                die(argv[2]);
        n_wanted = strtoull(argv[3], NULL, 10);
        n_clients = (unsigned) strtoul(argv[4], NULL, 10);
        if (n_clients == 0 || n_clients > CLIENTS_MAX)
                return 2;
        for (unsigned i = 0; i < 16; i++) {
                char path[16];

                (void) snprintf(path, sizeof path, "deferred/%X", i);
                if (mkdirat(queue_fd, path, 0700) < 0 && errno != EEXIST)
                        die(path);
        }
        address = enter_directory(argv[1]);
        for (unsigned i = 0; i < n_clients; i++) {
                clients[i].number = i;
                clients[i].random_state =
                        strtoull(argv[5], NULL, 10) * 0x9e3779b97f4a7c15ull + i + 1;
                errno = pthread_create(&clients[i].thread, NULL, client_main, clients + i);
                if (errno != 0)
                        die("pthread_create");
        }
        for (unsigned i = 0; i < n_clients; i++) {
                (void) pthread_join(clients[i].thread, NULL);
                for (unsigned site = 0; site < SITES; site++) {
                        n_recorded += check_log(clients + i, site);
                        check_messages(clients + i, site);
                }
                for (unsigned k = 0; k < 5; k++)
                        n_kind[k] += clients[i].n_kind[k];
        }
        (void) printf("{\"requests\": %llu, \"seconds\": %.1f", (unsigned long long) n_wanted,
                      (double) (now_nsec() - start) / 1e9);
        for (unsigned k = 0; k < 5; k++)
                (void) printf(", \"%s\": %lu", kinds[k], n_kind[k]);
        (void) printf(", \"recorded\": %lu}\n", n_recorded);
        return 0;
}
