/* SPDX-License-Identifier: MIT */

/*
 * spray SOCKET N CLIENTS SEED: N requests, nearly all of them malformed in one way or another, from
 * many connections at a time. Each must end: with a reply, or because the server hangs up. Prints
 * one line of JSON; exits 1 if a connection did not end.
 */

#include "bench/common.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#define BYTES_MAX   (80 * 1024)
#define CLIENTS_MAX 4096
#define STUCK_NSEC  (60 * NSEC)

typedef enum Ending {
        ENDING_HALF_CLOSE, /* nothing more to say, waits for what is answered */
        ENDING_CLOSE,      /* gone before the answer */
} Ending;

typedef struct Client {
        int fd;
        char *bytes;
        size_t n, sent, piece;
        Ending ending;
        bool said; /* all that there was to say */
        uint64_t since_nsec;
        char reply[96];
        size_t n_reply;
} Client;

static struct sockaddr_un address;
static uint64_t random_state, n_begun, n_wanted;
static unsigned long n_status[5], n_silent, n_left, n_stuck; /* OK, FAIL, BAD, DENY, other */

/* xorshift64*: the same requests for the same seed, on every machine. */
static uint64_t roll(uint64_t below) {
        random_state ^= random_state >> 12;
        random_state ^= random_state << 25;
        random_state ^= random_state >> 27;
        return (random_state * 0x2545f4914f6cdd1dull >> 11) % below;
}

static const char *pick(const char *const *from, size_t n) {
        return from[roll(n)];
}
#define PICK(array) pick((array), sizeof(array) / sizeof(array)[0])

static void put(Client *c, const char *bytes, size_t n) {
        if (n > BYTES_MAX - c->n)
                n = BYTES_MAX - c->n;
        memcpy(c->bytes + c->n, bytes, n);
        c->n += n;
}

static void put_string(Client *c, const char *text) {
        put(c, text, strlen(text) + 1);
}

static void put_repeated(Client *c, char byte, size_t n) {
        if (n > BYTES_MAX - c->n)
                n = BYTES_MAX - c->n;
        memset(c->bytes + c->n, byte, n);
        c->n += n;
}

static size_t some_length(void) {
        static const size_t lengths[] = {1,     2,     63,    64,    253,  254,  255,
                                         256,   511,   512,   513,   1023, 1024, 4096,
                                         65000, 65535, 65536, 65537, 70000};

        return lengths[roll(roll(8) == 0 ? 19 : 13)];
}

static void put_site(Client *c) {
        static const char *const sites[] = {"example.com",
                                            "Example.COM",
                                            "a-b.example",
                                            "[192.0.2.1]",
                                            "[ipv6:2001:db8::1]",
                                            "b\303\274cher.example",
                                            "xn--bcher-kva.example",
                                            "x",
                                            "",
                                            "..",
                                            "../../etc",
                                            "a..b",
                                            ".",
                                            "-",
                                            "[",
                                            "[]",
                                            "[192.0.2.1",
                                            "xn--",
                                            "xn--a",
                                            "12.34",
                                            "a b",
                                            "\n",
                                            "\xff\xfe",
                                            "a/b",
                                            "%s%n",
                                            "$(id)",
                                            "../flush/x",
                                            "/etc/passwd",
                                            "a\tb",
                                            "_",
                                            "A_b"};

        if (roll(6) == 0) {
                put_repeated(c, "a.-/\xc3"[roll(5)], some_length());
                put(c, "", 1);
        } else
                put_string(c, PICK(sites));
}

static void put_id(Client *c) {
        static const char *const ids[] = {"E34BF11814B",
                                          "4FxyzABCDz1234",
                                          "A1",
                                          "",
                                          ".",
                                          "..",
                                          "../x",
                                          "A/B",
                                          "A B",
                                          "A\n",
                                          "A\nB",
                                          "-",
                                          "\xff",
                                          "%n",
                                          "/etc/passwd",
                                          "A.",
                                          "zzzzzzzzzzzzzz"};

        if (roll(6) == 0) {
                put_repeated(c, "A0_z."[roll(5)], some_length());
                put(c, "", 1);
        } else
                put_string(c, PICK(ids));
}

/* A request that is right, or nearly so: attributes of any order, number and value. */
static void put_request(Client *c) {
        static const char *const kinds[] = {"add",       "add",       "add",  "send_site",
                                            "send_site", "send_file", "ADD",  "",
                                            "adds",      "rfrs",      "flush"};
        static const char *const names[] = {"site",   "queue_id", "detail",  "request",
                                            "status", "x",        "protocol"};

        if (roll(200) == 0) {
                put_string(c, "request");
                put_string(c, roll(2) ? "rfrsh" : "purge");
        } else {
                put_string(c, roll(20) ? "request" : "reques");
                put_string(c, PICK(kinds));
        }
        for (uint64_t i = roll(4); i > 0; i--) {
                const char *name = PICK(names);

                put_string(c, name);
                if (roll(2))
                        put_site(c);
                else
                        put_id(c);
        }
        if (roll(2)) {
                put_string(c, "site");
                put_site(c);
        }
        if (roll(2)) {
                put_string(c, "queue_id");
                put_id(c);
        }
        if (roll(8))
                put(c, "", 1);
}

static void mutate(Client *c) {
        for (uint64_t i = roll(4); i > 0 && c->n > 0; i--) {
                size_t at = roll(c->n), n = roll(c->n - at) + 1;

                switch (roll(5)) {
                case 0: /* another byte */
                        c->bytes[at] = (char) roll(256);
                        break;
                case 1: /* another bit */
                        c->bytes[at] ^= (char) (1u << roll(8));
                        break;
                case 2: /* something less */
                        memmove(c->bytes + at, c->bytes + at + n, c->n - at - n);
                        c->n -= n;
                        break;
                case 3: /* something twice */
                        put(c, c->bytes + at, n);
                        break;
                default: /* cut off */
                        c->n = at;
                }
        }
}

static void make_bytes(Client *c) {
        static const char *const foreign[] = {"GET / HTTP/1.0\r\n\r\n",
                                              "EHLO x\r\n",
                                              "request=add\n",
                                              "\n",
                                              "W",
                                              "WW",
                                              "F",
                                              "I",
                                              "FADI"};

        c->n = 0;
        switch (roll(8)) {
        case 0:
                for (uint64_t i = roll(roll(2) ? 16 : 2000); i > 0; i--)
                        put(c, &(char){(char) roll(256)}, 1);
                break;
        case 1:
                put_string(c, PICK(foreign));
                break;
        case 2: /* attributes without end */
                put_request(c);
                for (size_t n = some_length(); n > 0; n--)
                        put(c, "a\0b", 4);
                break;
        case 3: /* nothing at all */
                break;
        default:
                put_request(c);
                mutate(c);
        }
        c->ending = roll(10) ? ENDING_HALF_CLOSE : ENDING_CLOSE;
        c->piece = roll(3) ? BYTES_MAX : 1 + roll(roll(2) ? 8 : 3000);
        if (c->n / c->piece > 500)
                c->piece = c->n / 500;
}

static bool begin(Client *c) {
        c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0)
                die("socket");
        if (connect(c->fd, (const struct sockaddr *) &address, sizeof address) < 0) {
                if (errno != EAGAIN)
                        die("connect");
                (void) close(c->fd); /* the backlog is full */
                c->fd = -1;
                return false;
        }
        make_bytes(c);
        c->sent = c->n_reply = 0;
        c->said = false;
        c->since_nsec = now_nsec();
        n_begun++;
        return true;
}

static void end(Client *c) {
        (void) close(c->fd);
        c->fd = -1;
}

/* The status in all that came, behind the announcement. */
static void note_reply(const Client *c) {
        static const struct {
                const char *text;
                size_t n;
        } replies[] = {{"status\0"
                        "0\0",
                        9},
                       {"status\0"
                        "4294967295\0",
                        18},
                       {"status\0"
                        "3\0",
                        9},
                       {"status\0"
                        "4\0",
                        9}};
        const char *reply = c->reply;
        size_t n = c->n_reply;

        if (n >= sizeof ANNOUNCED && memcmp(reply, ANNOUNCED, sizeof ANNOUNCED) == 0) {
                reply += sizeof ANNOUNCED;
                n -= sizeof ANNOUNCED;
        }
        if (n == 0) {
                n_silent++;
                return;
        }
        for (unsigned i = 0; i < 4; i++)
                if (n >= replies[i].n && memcmp(reply, replies[i].text, replies[i].n) == 0) {
                        n_status[i]++;
                        return;
                }
        n_status[4]++;
}

static void say(Client *c) {
        size_t n = c->n - c->sent < c->piece ? c->n - c->sent : c->piece;
        ssize_t w = n > 0 ? send(c->fd, c->bytes + c->sent, n, MSG_NOSIGNAL) : 0;

        if (w < 0 && errno == EAGAIN)
                return;
        if (w < 0)
                c->said = true; /* it has hung up; perhaps it said why */
        else
                c->sent += (size_t) w;
        if (c->sent < c->n && !c->said)
                return;
        c->said = true;
        if (c->ending == ENDING_CLOSE) {
                n_left++;
                end(c);
        } else
                (void) shutdown(c->fd, SHUT_WR);
}

static void hear(Client *c) {
        char waste[256];
        bool full = c->n_reply == sizeof c->reply;
        ssize_t n = recv(c->fd, full ? waste : c->reply + c->n_reply,
                         full ? sizeof waste : sizeof c->reply - c->n_reply, 0);

        if (n > 0 && !full)
                c->n_reply += (size_t) n;
        else if (n == 0 || (n < 0 && errno != EAGAIN)) {
                note_reply(c);
                end(c);
        }
}

static void serve(Client *c, short events, uint64_t now) {
        if (events & (POLLIN | POLLHUP | POLLERR))
                hear(c);
        if (c->fd >= 0 && !c->said && (events & POLLOUT))
                say(c);
        if (c->fd >= 0 && now - c->since_nsec > STUCK_NSEC) {
                n_stuck++;
                end(c);
        }
}

static void run(Client *clients, unsigned n_clients) {
        static struct pollfd fds[CLIENTS_MAX];

        for (;;) {
                bool waits = false, any = false;
                uint64_t now;

                for (unsigned i = 0; i < n_clients; i++) {
                        Client *c = clients + i;

                        if (c->fd < 0 && n_begun < n_wanted && !waits)
                                waits = !begin(c);
                        any |= c->fd >= 0;
                        fds[i] = (struct pollfd){.fd = c->fd,
                                                 .events = (short) (c->fd >= 0 && !c->said
                                                                            ? POLLIN | POLLOUT
                                                                            : POLLIN)};
                }
                if (!any && n_begun == n_wanted)
                        return;
                if (poll(fds, n_clients, waits ? 1 : 1000) < 0 && errno != EINTR)
                        die("poll");
                now = now_nsec();
                for (unsigned i = 0; i < n_clients; i++)
                        if (clients[i].fd >= 0)
                                serve(clients + i, fds[i].revents, now);
        }
}

int main(int argc, char *argv[]) {
        static Client clients[CLIENTS_MAX];
        unsigned n_clients;
        uint64_t start;

        if (argc != 5) {
                (void) fputs("Usage: spray SOCKET REQUESTS CLIENTS SEED\n", stderr);
                return 2;
        }
        address = enter_directory(argv[1]);
        n_wanted = strtoull(argv[2], NULL, 10);
        n_clients = (unsigned) strtoul(argv[3], NULL, 10);
        random_state = strtoull(argv[4], NULL, 10) * 2 + 1;
        if (n_clients == 0 || n_clients > CLIENTS_MAX)
                return 2;
        for (unsigned i = 0; i < n_clients; i++) {
                clients[i].fd = -1;
                clients[i].bytes = malloc(BYTES_MAX);
                if (!clients[i].bytes)
                        die("malloc");
        }
        start = now_nsec();
        run(clients, n_clients);
        (void) printf("{\"requests\": %llu, \"seconds\": %.1f, \"ok\": %lu, \"fail\": %lu, "
                      "\"bad\": %lu, \"deny\": %lu, \"other\": %lu, \"silent\": %lu, "
                      "\"left\": %lu, \"stuck\": %lu}\n",
                      (unsigned long long) n_begun, (double) (now_nsec() - start) / 1e9,
                      n_status[0], n_status[1], n_status[2], n_status[3], n_status[4], n_silent,
                      n_left, n_stuck);
        return n_stuck > 0 || n_status[4] > 0;
}
