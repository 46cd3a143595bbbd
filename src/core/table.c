/* SPDX-License-Identifier: MIT */

#include "core/table.h"

#include <stdio.h>

#include "util/child.h"
#include "util/escape.h"
#include "util/hash.h"
#include "util/util.h"

#define ANSWER_USEC      (60 * USEC_PER_SEC)
#define ERROR_USEC       (1 * USEC_PER_SEC)
#define ANSWERS_MAX      10000u
#define POSTMAP_USEC     (60 * USEC_PER_SEC) /* LDAP and SQL servers may be slow */
#define POSTMAP_ARGS_MAX 8
#define TABLE_ERROR_SIZE 256
#define KEYS_MAX         (1024 * 1024) /* bytes of keys for one postmap(1); the rest waits */

typedef struct Answer {
        UT_hash_handle hh;
        TableAnswer answer; /* TABLE_PENDING: wanted or being asked */
        bool asked;         /* is among the keys of the running postmap */
        uint64_t expires_usec;
        const char *another; /* within @site, after its NUL; NULL: there is none */
        char site[];
} Answer;

struct Table {
        char *name;
        bool subdomains, patterns;
        const char *const *postmap;
        Answer *answers;
        unsigned n_wanted; /* pending, not yet asked */
        Child *child;
        table_done_t done;
        void *userdata;
        char error[TABLE_ERROR_SIZE];
};

/* Tables that match patterns get the whole name only: parent domains are the pattern's business.
 * Tables made of others are what their first member is. */
static bool has_patterns(const char *name) {
        static const char *const wrappers[] = {"proxy:", "pipemap:", "unionmap:"};
        static const char *const types[] = {"regexp:", "pcre:", "cidr:", "tcp:", "fail:"};

        for (size_t i = 0; i < ARRAY_SIZE(wrappers); i++)
                if (strncmp(name, wrappers[i], strlen(wrappers[i])) == 0) {
                        name += strlen(wrappers[i]);
                        name += strspn(name, " \t{");
                        i = (size_t) -1; /* they may be nested */
                }
        for (size_t i = 0; i < ARRAY_SIZE(types); i++)
                if (strncmp(name, types[i], strlen(types[i])) == 0)
                        return true;
        return false;
}

int table_new(const char *name, bool subdomains, const char *const *postmap, Table **ret) {
        Table *t = calloc(1, sizeof *t);

        if (!t)
                return -ENOMEM;
        t->name = strdup(name);
        if (!t->name) {
                free(t);
                return -ENOMEM;
        }
        t->subdomains = subdomains;
        t->patterns = has_patterns(name);
        t->postmap = postmap;
        *ret = t;
        return 0;
}

/* Whoever waits for an answer that is forgotten looks it up again, and it is asked for anew. */
static void forget_answers(Table *t, bool also_pending) {
        Answer *a, *tmp;

        HASH_ITER (hh, t->answers, a, tmp) {
                if (a->answer == TABLE_PENDING && !also_pending)
                        continue;
                HASH_DEL(t->answers, a);
                free(a);
        }
}

Table *table_free(Table *t) {
        if (!t)
                return NULL;
        child_free(t->child);
        forget_answers(t, true);
        free(t->name);
        free(t);
        return NULL;
}

const char *table_name(const Table *t) {
        return t->name;
}

const char *table_error(const Table *t) {
        return t->error;
}

static TableAnswer want(Table *t, const char *site, const char *another) {
        size_t n = strlen(site) + 1, n_another = another ? strlen(another) + 1 : 0;
        bool oom = false;
        Answer *a;

        if (HASH_COUNT(t->answers) >= ANSWERS_MAX)
                forget_answers(t, false);
        a = malloc(sizeof *a + n + n_another);
        if (a) {
                a->answer = TABLE_PENDING;
                a->asked = false;
                a->expires_usec = USEC_INFINITY;
                memcpy(a->site, site, n);
                a->another = another ? memcpy(a->site + n, another, n_another) : NULL;
                HASH_ADD_STR(t->answers, site, a);
        }
        if (!a || oom) {
                free(a);
                (void) snprintf(t->error, sizeof t->error, "out of memory");
                return TABLE_ERROR;
        }
        t->n_wanted++;
        return TABLE_PENDING;
}

TableAnswer table_lookup(Table *t, const char *site, const char *another) {
        Answer *a;

        HASH_FIND_STR(t->answers, site, a);
        if (!a)
                return want(t, site, another);
        if (a->answer != TABLE_PENDING && now_usec() >= a->expires_usec) {
                a->answer = TABLE_PENDING;
                a->asked = false;
                t->n_wanted++;
        }
        return a->answer;
}

/* The keys of a site, longest first: NULL for the first, then the key before. */
static const char *next_key(const Table *t, const char *site, const char *key) {
        const char *dot;

        if (!key)
                return site;
        if (t->patterns)
                return NULL;
        dot = strchr(key + (!t->subdomains && key[0] == '.'), '.');
        if (!dot)
                return NULL;
        return t->subdomains ? dot + 1 : dot;
}

static void write_site(const Table *t, const char *site, FILE *f) {
        for (const char *k = site; k; k = next_key(t, site, k))
                (void) fprintf(f, "%s\n", k);
}

/* Those of as many sites as fit: a site of 126 dots has 16 KiB of them. */
static int write_keys(Table *t, char **ret, size_t *ret_n) {
        long n_written = 0;
        char *text = NULL;
        FILE *f = open_memstream(&text, ret_n);

        if (!f)
                return -ENOMEM;
        for (Answer *a = t->answers; a && n_written < KEYS_MAX; a = a->hh.next) {
                if (a->answer != TABLE_PENDING)
                        continue;
                write_site(t, a->site, f);
                if (a->another)
                        write_site(t, a->another, f);
                a->asked = true;
                n_written = ftell(f);
        }
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        *ret = text;
        return 0;
}

/* Which keys were found: postmap(1) prints "key TAB value" for each. */
typedef struct Found {
        UT_hash_handle hh;
        char key[];
} Found;

static bool read_found(char *output, Found **found) {
        bool oom = false;

        for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n")) {
                size_t n = strcspn(line, "\t");
                Found *f;

                line[n] = '\0';
                HASH_FIND_STR(*found, line, f);
                if (f)
                        continue;
                f = malloc(sizeof *f + n + 1);
                if (!f)
                        return false;
                memcpy(f->key, line, n + 1);
                HASH_ADD_STR(*found, key, f);
                if (oom) {
                        free(f);
                        return false;
                }
        }
        return true;
}

static bool is_found(const Table *t, const Found *found, const char *site) {
        const Found *f;

        for (const char *k = site; k; k = next_key(t, site, k)) {
                HASH_FIND_STR(found, k, f);
                if (f)
                        return true;
        }
        return false;
}

static void set_answer(Answer *a, TableAnswer answer, uint64_t now) {
        a->answer = answer;
        a->asked = false;
        a->expires_usec = now + (answer == TABLE_ERROR ? ERROR_USEC : ANSWER_USEC);
}

/* The exit status is 1 for "not found" as well as for "failed"; only the words differ. */
static bool has_failed(const ChildResult *result) {
        return result->status > 1 || !result->output || !result->errors ||
               strstr(result->errors, ": fatal: ") || strstr(result->errors, ": panic: ") ||
               strstr(result->errors, ": error: ");
}

static void set_error(Table *t, const ChildResult *result) {
        const char *text = result->errors ? strstr(result->errors, ": fatal: ") : NULL;
        char said[TABLE_ERROR_SIZE];
        size_t n;

        if (text)
                text += strlen(": fatal: ");
        else
                text = result->errors ? result->errors : "";
        n = strcspn(text, "\n");
        (void) snprintf(said, sizeof said, "%.*s", (int) n, text);
        if (result->error == -EFBIG)
                (void) snprintf(t->error, sizeof t->error, "%s printed more than %d MiB",
                                t->postmap[0], CHILD_OUTPUT_MAX_MIB);
        else if (n > 0) /* it may quote what a client sent */
                (void) escape_line(said, t->error, sizeof t->error);
        else
                (void) snprintf(t->error, sizeof t->error, "%s ended with status %d", t->postmap[0],
                                result->status);
}

static void on_answers(Child *child, const ChildResult *result, void *userdata) {
        Table *t = userdata;
        bool failed = has_failed(result);
        uint64_t now = now_usec();
        Found *found = NULL, *f, *tmp;

        if (result->output && !read_found(result->output, &found))
                failed = true;
        if (failed)
                set_error(t, result);
        for (Answer *a = t->answers; a; a = a->hh.next) {
                if (!a->asked)
                        continue;
                if (is_found(t, found, a->site) || (a->another && is_found(t, found, a->another)))
                        set_answer(a, TABLE_HIT, now);
                else
                        set_answer(a, failed ? TABLE_ERROR : TABLE_MISS, now);
        }
        HASH_ITER (hh, found, f, tmp) {
                HASH_DEL(found, f);
                free(f);
        }
        t->child = child_free(child);
        t->done(failed ? t : NULL, t->userdata);
}

static void fail_wanted(Table *t, int error) {
        uint64_t now = now_usec();

        (void) snprintf(t->error, sizeof t->error, "%s: %s", t->postmap[0], strerror(-error));
        for (Answer *a = t->answers; a; a = a->hh.next)
                if (a->answer == TABLE_PENDING)
                        set_answer(a, TABLE_ERROR, now);
        t->n_wanted = 0;
}

int table_start(Table *t, sd_event *event, table_done_t done, void *userdata) {
        const char *argv[POSTMAP_ARGS_MAX];
        _cleanup_free_ char *keys = NULL;
        size_t n_keys = 0, n_args = 0;
        int r;

        if (t->child || t->n_wanted == 0)
                return 0;
        t->done = done;
        t->userdata = userdata;
        while (t->postmap[n_args]) {
                argv[n_args] = t->postmap[n_args];
                n_args++;
        }
        argv[n_args++] = t->name;
        argv[n_args] = NULL;

        r = write_keys(t, &keys, &n_keys);
        if (r == 0)
                r = child_start(event, argv, keys, n_keys, POSTMAP_USEC, on_answers, t, &t->child);
        if (r < 0) {
                fail_wanted(t, r);
                return r;
        }
        t->n_wanted = 0;
        for (Answer *a = t->answers; a; a = a->hh.next)
                t->n_wanted += a->answer == TABLE_PENDING && !a->asked;
        return 0;
}
