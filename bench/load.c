/* SPDX-License-Identifier: MIT */

/*
 * Load for a flush service: many clients, one connection a request, as Postfix's own clients do.
 * Prints one line of JSON; exits 1 unless every request was answered with status 0.
 */

#include "common.h"

#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>

#define STACK_SIZE  (64 * 1024)
#define STATUS_SIZE 16

typedef enum { FAILED_NOT, FAILED_CONNECT, FAILED_TIMEOUT, FAILED_EOF, FAILED_OTHER } Failed;

typedef struct Sample {
        uint64_t start, end;
} Sample;

typedef struct Client {
        pthread_t thread;
        Sample *samples;
        size_t n, size;
        unsigned long statuses[5]; /* 0, 3 (bad), 4 (denied), -1 (failed), others */
        unsigned long errors[FAILED_OTHER + 1];
} Client;

static const char *arg_op, *arg_send, *arg_site = "d";
static unsigned arg_clients = 1, arg_sites = 1, arg_timeout = 300;
static uint64_t arg_requests, arg_base;
static double arg_seconds, arg_rate;
static bool arg_eof;

static struct sockaddr_un address;
static uint64_t begin_nsec, end_nsec, next_request, moved_nsec;
static Sample send_times;
static bool send_failed, stop;

static void help(FILE *f) {
        (void) fputs(
                "Usage: load [OPTION...] SOCKET add|send_site|send_file|refresh|purge\n"
                "\n"
                "  -n N          requests (1, or no limit with -t)\n"
                "  -t SECONDS    stop then\n"
                "  -c N          clients at a time (1)\n"
                "  -d N          different sites (1): dK.example.com with K = request % N\n"
                "  -s NAME       NAMEK.example.com instead\n"
                "  -b N          number of the first queue ID (0)\n"
                "  -r RATE       open loop: so many requests a second, and latency counts\n"
                "                from when a request was due\n"
                "  -e            latency counts until the server hangs up\n"
                "  -S SITE       while the load runs, one send_site of SITE, at half a second;\n"
                "                what is reported is the latency while it runs, and the load\n"
                "                ends with it\n"
                "  -w DIRECTORY  tell when the first file is moved into it\n",
                f);
}

static size_t put(char *buf, size_t n, const char *name, const char *value) {
        n += strlen(strcpy(buf + n, name)) + 1;
        return n + strlen(strcpy(buf + n, value)) + 1;
}

static size_t make_request(char *buf, const char *op, const char *site, const char *id) {
        size_t n = put(buf, 0, "request", strcmp(op, "refresh") == 0 ? "rfrsh" : op);

        if (site)
                n = put(buf, n, "site", site);
        if (id)
                n = put(buf, n, "queue_id", id);
        buf[n++] = '\0';
        return n;
}

static size_t numbered_request(char *buf, uint64_t i) {
        bool add = strcmp(arg_op, "add") == 0;
        bool with_site = add || strcmp(arg_op, "send_site") == 0;
        bool with_id = add || strcmp(arg_op, "send_file") == 0;
        char site[256], id[ID_SIZE];

        (void) snprintf(site, sizeof site, "%.200s%u.example.com", arg_site,
                        (unsigned) (i % arg_sites));
        make_id(id, arg_base + i);
        return make_request(buf, arg_op, with_site ? site : NULL, with_id ? id : NULL);
}

/* As Postfix's clients do, poll(2) comes before each read(2) and write(2). It makes a difference: a
 * client that sleeps in read(2) itself is woken as well when the server takes its request off the
 * socket, for nothing. */
static Failed wait_ready(int fd, short events) {
        struct pollfd pfd = {.fd = fd, .events = events};
        int n;

        do
                n = poll(&pfd, 1, (int) arg_timeout * 1000);
        while (n < 0 && errno == EINTR);
        return n == 1 ? FAILED_NOT : n == 0 ? FAILED_TIMEOUT : FAILED_OTHER;
}

/* Reads until @done says so of what is there. */
static Failed receive(int fd, char *buf, size_t size, bool (*done)(const char *buf, size_t n)) {
        size_t n = 0;

        while (!done(buf, n)) {
                Failed f = wait_ready(fd, POLLIN);
                ssize_t r;

                if (f != FAILED_NOT)
                        return f;
                r = n < size ? read(fd, buf + n, size - n) : 0;
                if (r == 0)
                        return n < size ? FAILED_EOF : FAILED_OTHER;
                if (r < 0 && errno != EINTR)
                        return FAILED_OTHER;
                if (r > 0)
                        n += (size_t) r;
        }
        return FAILED_NOT;
}

static bool is_announced(const char *buf, size_t n) {
        (void) buf;
        return n >= sizeof ANNOUNCED;
}

static bool is_reply(const char *buf, size_t n) {
        return n >= 9 && buf[n - 1] == '\0' && buf[n - 2] == '\0';
}

static bool never(const char *buf, size_t n) {
        (void) buf;
        (void) n;
        return false;
}

static Failed talk(int fd, const char *request, size_t n, long *status) {
        char buf[64] = "", *end;
        Failed f;

        if (connect(fd, (const struct sockaddr *) &address, sizeof address) < 0)
                return FAILED_CONNECT;
        f = receive(fd, buf, sizeof ANNOUNCED, is_announced);
        if (f != FAILED_NOT)
                return f;
        if (memcmp(buf, ANNOUNCED, sizeof ANNOUNCED) != 0)
                return FAILED_OTHER;
        f = wait_ready(fd, POLLOUT);
        if (f != FAILED_NOT)
                return f;
        if (write(fd, request, n) != (ssize_t) n)
                return FAILED_EOF;
        f = receive(fd, buf, STATUS_SIZE + 8, is_reply);
        if (f != FAILED_NOT)
                return f;
        *status = strtol(buf + 7, &end, 10);
        if (memcmp(buf, "status", 7) != 0 || end == buf + 7 || *end != '\0')
                return FAILED_OTHER;
        if (arg_eof) {
                f = receive(fd, buf, sizeof buf, never);
                return f == FAILED_EOF ? FAILED_NOT : f;
        }
        return FAILED_NOT;
}

static Failed ask(const char *request, size_t n, long *status, uint64_t *end) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        Failed f = FAILED_CONNECT;

        if (fd >= 0)
                f = talk(fd, request, n, status);
        *end = now_nsec();
        if (fd >= 0)
                (void) close(fd);
        return f;
}

static void note(Client *c, Failed f, long status, Sample sample) {
        c->errors[f]++;
        if (f == FAILED_NOT)
                c->statuses[status == 0                            ? 0
                            : status == 3                          ? 1
                            : status == 4                          ? 2
                            : status == -1 || status == 4294967295 ? 3
                                                                   : 4]++;
        if (c->n == c->size) {
                c->size = c->size ? 2 * c->size : 1024;
                c->samples = realloc(c->samples, c->size * sizeof *c->samples);
                if (!c->samples)
                        die("realloc");
        }
        c->samples[c->n++] = sample;
}

static bool is_stopped(void) {
        return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

static void sleep_until(uint64_t nsec) {
        struct timespec ts = {.tv_sec = (time_t) (nsec / NSEC), .tv_nsec = (long) (nsec % NSEC)};

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
                ;
}

/* Whoever takes a number serves it, unless it is beyond the end: so those served have no gaps. */
static void *client_main(void *userdata) {
        Client *c = userdata;
        char request[512];

        for (;;) {
                uint64_t i;
                Sample sample = {.start = now_nsec()};
                Failed f;
                long status = 0;

                if (arg_rate == 0 && (is_stopped() || (end_nsec && sample.start >= end_nsec)))
                        return NULL;
                i = __atomic_fetch_add(&next_request, 1, __ATOMIC_RELAXED);
                if (arg_requests > 0 && i >= arg_requests)
                        return NULL;
                if (arg_rate > 0) {
                        sample.start = begin_nsec + (uint64_t) ((double) i * 1e9 / arg_rate);
                        if (end_nsec && sample.start >= end_nsec)
                                return NULL;
                        sleep_until(sample.start);
                        if (is_stopped() && sample.start >= send_times.end)
                                return NULL;
                }
                f = ask(request, numbered_request(request, i), &status, &sample.end);
                note(c, f, status, sample);
        }
}

static void *send_main(void *userdata) {
        char request[512];
        long status = 0;
        Failed f;

        (void) userdata;
        sleep_until(begin_nsec + NSEC / 2);
        send_times.start = now_nsec();
        f = ask(request, make_request(request, "send_site", arg_send, NULL), &status,
                &send_times.end);
        send_failed = f != FAILED_NOT || status != 0;
        __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
        return NULL;
}

/* Leaves with the first event: all others would cost the server time. */
static void *watch_main(void *userdata) {
        struct pollfd pfd = {.fd = *(int *) userdata, .events = POLLIN};

        if (poll(&pfd, 1, (int) arg_timeout * 1000) == 1)
                moved_nsec = now_nsec();
        (void) close(pfd.fd);
        return NULL;
}

static int compare(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return x < y ? -1 : x > y;
}

static int report(const Client *clients, uint64_t finished_nsec) {
        unsigned long statuses[5] = {0}, errors[FAILED_OTHER + 1] = {0};
        size_t n_all = 0, n = 0;
        uint64_t *latency;
        double seconds = (double) (finished_nsec - begin_nsec) / 1e9;
        bool ok;

        for (unsigned i = 0; i < arg_clients; i++)
                n_all += clients[i].n;
        latency = calloc(n_all + 1, sizeof *latency);
        if (!latency)
                die("calloc");
        for (unsigned i = 0; i < arg_clients; i++) {
                const Client *c = clients + i;

                for (size_t k = 0; k < c->n; k++) {
                        const Sample *s = c->samples + k;

                        if (!arg_send || (s->start < send_times.end && s->end > send_times.start))
                                latency[n++] = s->end - s->start;
                }
                for (unsigned k = 0; k < 5; k++)
                        statuses[k] += c->statuses[k];
                for (unsigned k = 0; k <= FAILED_OTHER; k++)
                        errors[k] += c->errors[k];
        }
        qsort(latency, n, sizeof *latency, compare);
        ok = n_all > 0 && statuses[0] == n_all && !send_failed;
#define QUANTILE(q) (n > 0 ? (double) latency[(size_t) ((double) (n - 1) * (q))] / 1e3 : 0)
        (void) printf("{\"op\": \"%s\", \"clients\": %u, \"sites\": %u, \"requests\": %zu, "
                      "\"samples\": %zu, \"seconds\": %.6f, \"rate\": %.1f, \"p50_us\": %.1f, "
                      "\"p99_us\": %.1f, \"max_us\": %.1f, \"begin_nsec\": %llu, ",
                      arg_op, arg_clients, arg_sites, n_all, n, seconds, (double) n_all / seconds,
                      QUANTILE(0.5), QUANTILE(0.99), QUANTILE(1.0),
                      (unsigned long long) begin_nsec);
        if (arg_send)
                (void) printf("\"send_ms\": %.3f, ",
                              (double) (send_times.end - send_times.start) / 1e6);
        if (moved_nsec > 0)
                (void) printf("\"moved_ms\": %.3f, ", (double) (moved_nsec - begin_nsec) / 1e6);
        (void) printf("\"statuses\": {\"0\": %lu, \"3\": %lu, \"4\": %lu, \"-1\": %lu, \"other\": "
                      "%lu}, \"errors\": {\"connect\": %lu, \"timeout\": %lu, \"eof\": %lu, "
                      "\"other\": %lu}, \"ok\": %s}\n",
                      statuses[0], statuses[1], statuses[2], statuses[3], statuses[4],
                      errors[FAILED_CONNECT], errors[FAILED_TIMEOUT], errors[FAILED_EOF],
                      errors[FAILED_OTHER], ok ? "true" : "false");
        free(latency);
        return ok ? 0 : 1;
}

static void start(pthread_t *thread, void *(*function)(void *), void *userdata) {
        pthread_attr_t attr;

        (void) pthread_attr_init(&attr);
        (void) pthread_attr_setstacksize(&attr, STACK_SIZE);
        errno = pthread_create(thread, &attr, function, userdata);
        if (errno != 0)
                die("pthread_create");
        (void) pthread_attr_destroy(&attr);
}

static bool is_op(const char *op) {
        static const char *const ops[] = {"add", "send_site", "send_file", "refresh", "purge"};

        for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
                if (strcmp(op, ops[i]) == 0)
                        return true;
        return false;
}

int main(int argc, char *argv[]) {
        pthread_t sender, watcher;
        Client *clients;
        int c, watch_fd = -1;
        uint64_t finished_nsec;

        while ((c = getopt(argc, argv, "n:t:c:d:s:b:r:eS:w:h")) >= 0)
                switch (c) {
                case 'n':
                        arg_requests = strtoull(optarg, NULL, 10);
                        break;
                case 't':
                        arg_seconds = strtod(optarg, NULL);
                        break;
                case 'c':
                        arg_clients = (unsigned) strtoul(optarg, NULL, 10);
                        break;
                case 'd':
                        arg_sites = (unsigned) strtoul(optarg, NULL, 10);
                        break;
                case 's':
                        arg_site = optarg;
                        break;
                case 'b':
                        arg_base = strtoull(optarg, NULL, 10);
                        break;
                case 'r':
                        arg_rate = strtod(optarg, NULL);
                        break;
                case 'e':
                        arg_eof = true;
                        break;
                case 'S':
                        arg_send = optarg;
                        break;
                case 'w':
                        watch_fd = inotify_init1(IN_CLOEXEC);
                        if (inotify_add_watch(watch_fd, optarg, IN_MOVED_TO) < 0)
                                die(optarg);
                        break;
                case 'h':
                        help(stdout);
                        return 0;
                default:
                        return 2;
                }
        if (argc - optind != 2 || !is_op(argv[optind + 1]) || arg_clients == 0 || arg_sites == 0) {
                help(stderr);
                return 2;
        }
        arg_op = argv[optind + 1];
        address = enter_directory(argv[optind]);
        if (arg_requests == 0 && arg_seconds == 0 && !arg_send)
                arg_requests = 1;
        clients = calloc(arg_clients, sizeof *clients);
        if (!clients)
                die("calloc");

        if (watch_fd >= 0)
                start(&watcher, watch_main, &watch_fd);
        (void) signal(SIGPIPE, SIG_IGN);
        begin_nsec = now_nsec();
        if (arg_seconds > 0)
                end_nsec = begin_nsec + (uint64_t) (arg_seconds * 1e9);
        if (arg_send)
                start(&sender, send_main, NULL);
        for (unsigned i = 0; i < arg_clients; i++)
                start(&clients[i].thread, client_main, clients + i);
        for (unsigned i = 0; i < arg_clients; i++)
                (void) pthread_join(clients[i].thread, NULL);
        finished_nsec = now_nsec();
        if (arg_send)
                (void) pthread_join(sender, NULL);
        if (watch_fd >= 0)
                (void) pthread_join(watcher, NULL);
        return report(clients, finished_nsec);
}
