/* SPDX-License-Identifier: MIT */

/* fflushctl --host HOST,HOST,@GROUP: the same command on each of them at once, over ssh(1). Tables
 * become one, counts are added up, other lines have the name of their host in front of them. */

#include <fcntl.h>
#include <stdio.h>

#include "ctl/columns.h"
#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/relay.h"
#include "ctl/remote.h"
#include "util/grow.h"
#include "util/number.h"
#include "util/util.h"

#define HOSTS_AT_ONCE   16u
#define CONNECT_SECONDS 10u                 /* without --timeout */
#define EX_NOT_FOUND    127                 /* of the shell there: no such command */
#define LINE_MAX_READ   (64u * 1024 * 1024) /* JSON may have all sites on a line */
#define LINES_MAX       4000000u            /* of the tables of one host */
#define TITLES_MAX      (COLUMNS_MAX - 1)   /* beside HOST */
#define OLDER_VERSION                                                                              \
        "its fflushctl is of another version: what it prints stands as it is, in no table and "    \
        "no sum"

typedef struct Line {
        char *text;
        size_t n, size;
        bool cut; /* the rest of a line that is too long is left out */
} Line;

/* Of a table: its titles, or a row. */
typedef struct TableLine {
        bool is_titles;
        size_t n;   /* fields, at most TITLES_MAX */
        char *text; /* each of them ends in NUL */
} TableLine;

typedef struct Many Many;

typedef struct Host {
        Many *many;
        const char *name;
        Remote remote;
        Line lines[_REMOTE_OUTPUT_MAX];
        TableLine *table;
        size_t n_table, table_size;
        size_t n_fields;           /* of the last titles */
        bool knows_relay, refused; /* the latter: something of it was not understood */
        int status;
} Host;

typedef struct Sum {
        char *what;
        unsigned long count;
} Sum;

struct Many {
        const CtlHosts *how;
        Host *hosts;
        size_t n, n_started, n_ended;
        Sum *sums;
        size_t n_sums, sums_size;
        bool no_memory;
};

/* ------------------------------------------------------------------------------ what they say */

static void not_understood(Host *h) {
        if (!h->refused)
                ctl_host_error(h->name, "what it prints is not understood, is its fflushctl of "
                                        "another version?");
        h->refused = true;
}

/* Cut a line into its fields. Return: how many there are. */
static size_t split(char *text) {
        size_t n = 0;

        for (; *text; text++)
                if (*text == RELAY_FIELD) {
                        *text = '\0';
                        n++;
                }
        return n;
}

/* Columns shows titles as they are. */
static bool is_plain(const char *text) {
        for (; *text; text++)
                if ((*text < ' ' || *text > '~') && *text != RELAY_FIELD)
                        return false;
        return true;
}

static void keep_table_line(Host *h, const char *line) {
        bool is_titles = line[0] == RELAY_TITLES;
        TableLine *new;

        if (h->n_table == LINES_MAX || line[1] != RELAY_FIELD ||
            (is_titles && !is_plain(line + 1))) {
                not_understood(h);
                return;
        }
        if (!GROW(h->table, h->n_table, h->table_size)) {
                h->many->no_memory = true;
                return;
        }
        new = &h->table[h->n_table];
        *new = (TableLine){.is_titles = is_titles, .text = strdup(line + 2)};
        if (!new->text) {
                h->many->no_memory = true;
                return;
        }
        new->n = 1 + split(new->text);
        h->n_table++;
        if (is_titles && new->n <= TITLES_MAX)
                h->n_fields = new->n;
        else if (new->n != h->n_fields) { /* a row needs its titles before it */
                free(h->table[--h->n_table].text);
                not_understood(h);
        }
}

static void add_up(Many *m, unsigned long count, const char *what) {
        for (size_t i = 0; i < m->n_sums; i++)
                if (streq(m->sums[i].what, what)) {
                        m->sums[i].count += count;
                        return;
                }
        if (m->n_sums >= TITLES_MAX)
                return;
        if (!GROW(m->sums, m->n_sums, m->sums_size) || !(m->sums[m->n_sums].what = strdup(what))) {
                m->no_memory = true;
                return;
        }
        m->sums[m->n_sums++].count = count;
}

static void count_line(Host *h, char *line) {
        char *what = strchr(line, RELAY_FIELD);
        unsigned long count;

        if (!what) {
                not_understood(h);
                return;
        }
        *what++ = '\0';
        if (parse_ulong(line + 1, &count) < 0)
                not_understood(h);
        else
                add_up(h->many, count, what);
}

/* Its own "host", if it has one, is not the one that was asked. */
static void object_line(Host *h, const char *line) {
        json_t *object = json_loads(line, 0, NULL), *whole;

        if (!json_is_object(object)) {
                not_understood(h);
                json_decref(object);
                return;
        }
        whole = json_pack("{so}", "host", ctl_json_text(h->name));
        if (whole && json_object_update_missing(whole, object) < 0) {
                json_decref(whole);
                whole = NULL;
        }
        json_decref(object);
        ctl_print_json(whole);
}

static void output_line(Host *h, char *line) {
        if (line[0] == RELAY_HELLO) {
                h->knows_relay = true;
                return;
        }
        if (h->many->how->json) {
                object_line(h, line);
                return;
        }
        switch (line[0]) {
        case RELAY_TITLES:
        case RELAY_ROW:
                keep_table_line(h, line);
                return;
        case RELAY_COUNT:
                count_line(h, line);
                return;
        default:
                ctl_print("%s: %s\n", h->name, line);
        }
}

static void end_line(Host *h, RemoteOutput output) {
        Line *l = &h->lines[output];

        if (l->cut)
                not_understood(h);
        if (l->text) {
                l->text[l->n] = '\0';
                if (output == REMOTE_STDOUT)
                        output_line(h, l->text);
                else
                        ctl_print_remote_error(h->name, l->text);
        }
        l->n = 0;
        l->cut = false;
}

static void read_lines(RemoteOutput output, const char *bytes, size_t n, void *userdata) {
        Host *h = userdata;
        Line *l = &h->lines[output];

        for (size_t i = 0; i < n; i++) {
                if (l->n == LINE_MAX_READ)
                        l->cut = true;
                else if (!GROW(l->text, l->n + 1, l->size))
                        l->cut = h->many->no_memory = true;
                if (bytes[i] == '\n')
                        end_line(h, output);
                else if (!l->cut)
                        l->text[l->n++] = bytes[i] ? bytes[i] : '?';
        }
        (void) fflush(stdout); /* with --every the next line may take long */
}

/* ---------------------------------------------------------------------------------- the table */

typedef struct Table {
        const char *titles[COLUMNS_MAX + 1]; /* as Columns wants them: HOST, those of all, NULL */
        size_t n_titles;
        Columns columns;
        unsigned long sums[COLUMNS_MAX];
        bool has_sum[COLUMNS_MAX]; /* numbers, and nothing else */
        size_t places[TITLES_MAX]; /* of the fields of the rows that follow */
} Table;

/* Hosts of different versions may have different titles: all of them, the first host's first. */
static size_t find_title(Table *t, const char *title) {
        size_t i = 0;

        while (i < t->n_titles && !streq(t->titles[i], title))
                i++;
        if (i == t->n_titles && t->n_titles < COLUMNS_MAX) {
                t->titles[i] = title;
                t->has_sum[i] = title[0] == '>';
                t->n_titles++;
        }
        return i;
}

static void take_titles(Table *t, const TableLine *line) {
        const char *field = line->text;

        for (size_t i = 0; i < line->n; i++, field += strlen(field) + 1)
                t->places[i] = find_title(t, field);
}

static int add_row(Table *t, const Host *h, const TableLine *line) {
        const char *cells[COLUMNS_MAX + 1] = {h->name}, *field = line->text;
        int r = 0;

        for (size_t i = 0; i < line->n; i++, field += strlen(field) + 1) {
                size_t place = t->places[i];
                unsigned long value = 0;

                cells[place] = field;
                if (parse_ulong(field, &value) < 0)
                        t->has_sum[place] &= field[0] == '\0';
                t->sums[place] += value;
        }
        for (size_t i = 0; i < t->n_titles; i++)
                r |= columns_add(&t->columns, "%s", cells[i] ? cells[i] : "");
        return r;
}

static int add_sums(Table *t) {
        bool any = false;
        int r = 0;

        for (size_t i = 0; i < t->n_titles; i++)
                any |= t->has_sum[i];
        r |= any ? columns_add(&t->columns, "all hosts") : 0;
        for (size_t i = 1; any && i < t->n_titles; i++)
                r |= t->has_sum[i] ? columns_add(&t->columns, "%lu", t->sums[i])
                                   : columns_add(&t->columns, "%s", "");
        return r;
}

static int make_table(Table *t, const Many *m) {
        int r = 0;

        (void) find_title(t, "HOST");
        for (size_t i = 0; i < m->n; i++)
                for (size_t k = 0; k < m->hosts[i].n_table; k++)
                        if (m->hosts[i].table[k].is_titles)
                                take_titles(t, &m->hosts[i].table[k]);
        if (t->n_titles == 1)
                return 0;
        t->columns.titles = t->titles;
        for (size_t i = 0; i < m->n; i++)
                for (size_t k = 0; r == 0 && k < m->hosts[i].n_table; k++) {
                        const TableLine *line = &m->hosts[i].table[k];

                        if (line->is_titles)
                                take_titles(t, line);
                        else
                                r = add_row(t, &m->hosts[i], line);
                }
        return r == 0 ? add_sums(t) : r;
}

static int print_table(const Many *m) {
        _cleanup_free_ Table *t = calloc(1, sizeof *t);
        int r = t ? make_table(t, m) : -ENOMEM;

        if (r == 0 && t->columns.n > 0)
                columns_print(&t->columns, stdout, ctl_style(CTL_BOLD), ctl_style(CTL_PLAIN));
        if (t)
                columns_done(&t->columns);
        return r;
}

static void print_sums(const Many *m) {
        for (size_t i = 0; i < m->n_sums; i++)
                ctl_print("%s%lu %s", i == 0 ? "all hosts: " : ", ", m->sums[i].count,
                          m->sums[i].what);
        if (m->n_sums > 0)
                ctl_print("\n");
}

/* ------------------------------------------------------------------------------------ running */

/* Nobody can answer the questions of several ssh(1) at once. One whose host has died meanwhile ends
 * as soon as one that could not connect. */
static int start_host(Host *h) {
        const CtlHosts *how = h->many->how;
        uint64_t seconds = (how->timeout + USEC_PER_SEC - 1) / USEC_PER_SEC;
        char connect[64], alive[64];
        const char *const options[] = {"-xT", "-oBatchMode=yes",         connect,
                                       alive, "-oServerAliveCountMax=2", NULL};
        int input, r;

        if (seconds == 0)
                seconds = CONNECT_SECONDS;
        (void) snprintf(connect, sizeof connect, "-oConnectTimeout=%llu",
                        (unsigned long long) seconds);
        (void) snprintf(alive, sizeof alive, "-oServerAliveInterval=%llu",
                        (unsigned long long) (seconds + 1) / 2);
        input = open(how->input, O_RDONLY | O_CLOEXEC);
        if (input < 0)
                return -errno;
        r = remote_start(&h->remote, options, h->name, RELAY_VARIABLE "=1", how->words,
                         how->n_words, input);
        closep(&input);
        return r;
}

static void end_host(Host *h) {
        for (int i = 0; i < _REMOTE_OUTPUT_MAX; i++)
                if (h->lines[i].n > 0 || h->lines[i].cut)
                        end_line(h, (RemoteOutput) i);
        h->status = remote_wait(&h->remote);
        if (h->status == REMOTE_SSH_FAILED || remote_was_interrupted())
                ctl_host_error(h->name, "%s",
                               remote_was_interrupted() ? "interrupted" : "not reached");
        else if (!h->knows_relay && !h->many->how->json && h->status != EX_NOT_FOUND)
                ctl_host_error(h->name, OLDER_VERSION);
        if (h->status == REMOTE_SSH_FAILED)
                h->status = EX_UNAVAILABLE;
        if (h->refused && h->status == EX_OK)
                h->status = EX_PROTOCOL;
        h->many->n_ended++;
}

static int relay_hosts(Many *m) {
        Remote *remotes[HOSTS_AT_ONCE];
        size_t n = 0;
        int r;

        for (size_t i = 0; i < m->n_started; i++)
                if (m->hosts[i].remote.pid > 0)
                        remotes[n++] = &m->hosts[i].remote;
        r = n > 0 ? remote_relay(remotes, n) : 0;
        for (size_t i = 0; i < m->n_started; i++)
                if (m->hosts[i].remote.pid > 0 && remote_has_ended(&m->hosts[i].remote))
                        end_host(&m->hosts[i]);
        return r;
}

static int run_hosts(Many *m) {
        int r = 0;

        do {
                while (r == 0 && m->n_started < m->n && !remote_was_interrupted() &&
                       m->n_started - m->n_ended < HOSTS_AT_ONCE)
                        r = start_host(&m->hosts[m->n_started++]);
                if (r == 0)
                        r = relay_hosts(m);
        } while (r == 0 &&
                 (m->n_ended < m->n_started || (m->n_started < m->n && !remote_was_interrupted())));
        if (r < 0)
                ctl_error("ssh: %s", strerror(-r));
        return r;
}

/* For plugins: CRITICAL, WARNING, UNKNOWN, OK. */
static int worse_state(int a, int b) {
        static const int rank[] = {[0] = 0, [1] = 2, [2] = 3, [CTL_CHECK_UNKNOWN] = 1};

        a = a > CTL_CHECK_UNKNOWN ? CTL_CHECK_UNKNOWN : a;
        b = b > CTL_CHECK_UNKNOWN ? CTL_CHECK_UNKNOWN : b;
        return rank[a] >= rank[b] ? a : b;
}

static int worst_status(const Many *m) {
        int status = EX_OK;

        for (size_t i = 0; i < m->n; i++)
                status = m->how->is_check ? worse_state(status, m->hosts[i].status)
                                          : ctl_worse(status, m->hosts[i].status);
        return status;
}

static void many_done(Many *m) {
        for (size_t i = 0; m->hosts && i < m->n; i++) {
                Host *h = &m->hosts[i];

                remote_done(&h->remote);
                for (int k = 0; k < _REMOTE_OUTPUT_MAX; k++)
                        free(h->lines[k].text);
                while (h->n_table > 0)
                        free(h->table[--h->n_table].text);
                free(h->table);
        }
        free(m->hosts);
        while (m->n_sums > 0)
                free(m->sums[--m->n_sums].what);
        free(m->sums);
}

int ctl_hosts(const CtlHosts *how) {
        _cleanup_(many_done) Many m = {.how = how, .n = how->n_hosts};
        int r;

        m.hosts = calloc(m.n, sizeof *m.hosts);
        if (!m.hosts)
                return ctl_no_memory();
        for (size_t i = 0; i < m.n; i++)
                m.hosts[i] = (Host){.many = &m,
                                    .name = how->hosts[i],
                                    .status = EX_TEMPFAIL, /* if it is not begun */
                                    .remote = {.fds = {-EBADF, -EBADF},
                                               .read = read_lines,
                                               .userdata = &m.hosts[i]}};
        r = run_hosts(&m);
        if (print_table(&m) < 0 || m.no_memory)
                return ctl_no_memory();
        print_sums(&m);
        return r < 0 ? EX_UNAVAILABLE : worst_status(&m);
}
