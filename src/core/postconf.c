/* SPDX-License-Identifier: MIT */

#include "core/postconf.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "util/atomicfile.h"
#include "util/child.h"
#include "util/hash.h"
#include "util/textfile.h"
#include "util/util.h"

#define TIMEOUT_USEC  (10 * USEC_PER_SEC)
#define STATUS_KILLED (128 + SIGKILL) /* by us, as it took too long */
#define KEPT_MAX      (1024 * 1024)
#define MODE_KEPT     0600

/* A file that has just been changed may change again without a new time stamp. */
#define SETTLED_SEC 2

/* Between identity, stamp, output and checksum; has no place in any of them. */
#define END_OF_PART "\f\n"
#define SEAL_SIZE   sizeof END_OF_PART "end 01234567\n"

/* What the output depends on: the command, the program and the host must be the same for it to be
 * of any use, as a value may contain $myhostname; the file decides whether it is current. */
typedef struct Key {
        char *identity, *stamp;
        bool settled;
} Key;

struct Postconf {
        PostconfQuery query;
        Key key;
        Child *child;
        postconf_done_t done;
        void *userdata;
};

static void print_file(FILE *f, const char *path, time_t *newest) {
        struct stat st;

        if (stat(path, &st) < 0) {
                (void) fprintf(f, "%s: none\n", path);
                return;
        }
        (void) fprintf(f, "%s: %ju %ju %jd %jd.%09ld %jd.%09ld\n", path, (uintmax_t) st.st_dev,
                       (uintmax_t) st.st_ino, (intmax_t) st.st_size, (intmax_t) st.st_mtim.tv_sec,
                       st.st_mtim.tv_nsec, (intmax_t) st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
        if (st.st_mtim.tv_sec > *newest)
                *newest = st.st_mtim.tv_sec;
}

static int make_identity(const PostconfQuery *q, char **ret, time_t *newest) {
        struct utsname host = {0};
        size_t size;
        FILE *f = open_memstream(ret, &size);

        if (!f)
                return -ENOMEM;
        (void) uname(&host);
        (void) fprintf(f, "%s: %s\n", PACKAGE_STRING, host.nodename);
        for (size_t i = 0; q->argv[i]; i++)
                (void) fprintf(f, "%s\n", q->argv[i]);
        print_file(f, q->argv[0], newest);
        (void) fputs(END_OF_PART, f);
        return fclose(f) == 0 ? 0 : -ENOMEM;
}

static int make_stamp(const PostconfQuery *q, char **ret, time_t *newest) {
        size_t size;
        FILE *f = open_memstream(ret, &size);

        if (!f)
                return -ENOMEM;
        print_file(f, q->main_cf, newest);
        (void) fputs(END_OF_PART, f);
        return fclose(f) == 0 ? 0 : -ENOMEM;
}

static void free_key(Key *key) {
        free(key->identity);
        free(key->stamp);
        *key = (Key){0};
}

/* @ret: free_key() it, also after an error. */
static int make_key(const PostconfQuery *q, Key *ret) {
        time_t newest = 0;
        int r;

        assert(q->argv[0]);

        *ret = (Key){0};
        r = make_identity(q, &ret->identity, &newest);
        if (r == 0)
                r = make_stamp(q, &ret->stamp, &newest);
        ret->settled = newest + SETTLED_SEC < time(NULL);
        return r;
}

static void make_seal(const char *text, size_t n, char ret[static SEAL_SIZE]) {
        unsigned hash;

        HASH_JEN(text, n, hash);
        (void) snprintf(ret, SEAL_SIZE, END_OF_PART "end %08x\n", hash);
}

/* Takes the seal off. */
static bool is_whole(char *text) {
        char seal[SEAL_SIZE];
        size_t n = strlen(text);

        if (n < SEAL_SIZE - 1)
                return false;
        n -= SEAL_SIZE - 1;
        make_seal(text, n, seal);
        if (!streq(text + n, seal))
                return false;
        text[n] = '\0';
        return true;
}

static bool skip(const char **text, const char *prefix) {
        size_t n = strlen(prefix);

        if (strncmp(*text, prefix, n) != 0)
                return false;
        *text += n;
        return true;
}

static bool skip_part(const char **text) {
        const char *end = strstr(*text, END_OF_PART);

        if (end)
                *text = end + strlen(END_OF_PART);
        return end;
}

static int read_kept(const char *path, const Key *key, char **ret, bool *ret_current) {
        _cleanup_free_ char *kept = NULL;
        const char *rest;
        int r;

        r = textfile_read(path, KEPT_MAX, &kept);
        if (r < 0)
                return r;
        rest = kept;
        if (!is_whole(kept))
                return -EBADMSG;
        if (!skip(&rest, key->identity))
                return -ESTALE;
        *ret_current = skip(&rest, key->stamp);
        if (!*ret_current && !skip_part(&rest))
                return -EBADMSG;
        *ret = strdup(rest);
        return *ret ? 0 : -ENOMEM;
}

static char *path_of(const PostconfQuery *q) {
        char *path = NULL;

        if (!q->directory || asprintf(&path, "%s/postconf", q->directory) < 0)
                return NULL;
        return path;
}

int postconf_kept(const PostconfQuery *q, char **ret_output, bool *ret_current) {
        _cleanup_free_ char *path = path_of(q);
        _cleanup_(free_key) Key key = {0};
        int r;

        if (!path)
                return -ENOENT;
        r = make_key(q, &key);
        return r < 0 ? r : read_kept(path, &key, ret_output, ret_current);
}

static void write_kept(const char *path, const Key *key, const char *output) {
        _cleanup_free_ char *text = NULL;
        char *temporary = NULL, seal[SEAL_SIZE];
        FILE *f = NULL;

        if (asprintf(&text, "%s%s%s", key->identity, key->stamp, output) < 0 ||
            atomicfile_begin(path, MODE_KEPT, &f, &temporary) < 0)
                return;
        make_seal(text, strlen(text), seal);
        (void) fprintf(f, "%s%s", text, seal);
        /* Not synced, which would hold up the clients: the seal tells what is not whole. */
        (void) atomicfile_end(f, temporary, path);
}

/* @before: when it was started. What has changed since may have been read half. */
static void keep(const PostconfQuery *q, const Key *before, const char *output) {
        _cleanup_free_ char *path = path_of(q);
        _cleanup_(free_key) Key now = {0};

        if (path && make_key(q, &now) == 0 && now.settled &&
            streq(now.identity, before->identity) && streq(now.stamp, before->stamp))
                write_kept(path, before, output);
}

/* Return: as postconf_ask(). */
static int judge(const PostconfQuery *q, int status, const char *errors, char **ret_problem) {
        int n;

        if (status == 0)
                return 0;
        if (status == STATUS_KILLED)
                n = asprintf(ret_problem,
                             "%s %s %s: no answer in time; it waits while main.cf is being edited",
                             q->argv[0], q->argv[1], q->argv[2]);
        else
                n = asprintf(ret_problem, "%s %s %s: %.*s", q->argv[0], q->argv[1], q->argv[2],
                             (int) strcspn(errors, "\n"), errors);
        if (n < 0)
                return -ENOMEM;
        return status == STATUS_KILLED ? -ETIMEDOUT : -ENODATA;
}

static int run(const PostconfQuery *q, char **ret_output, char **ret_problem) {
        _cleanup_free_ char *errors = NULL, *output = NULL;
        ChildResult result = {0};
        int r;

        r = child_run((const char *const *) q->argv, TIMEOUT_USEC, &result);
        if (r < 0)
                return asprintf(ret_problem, "%s: %s", q->argv[0], strerror(-r)) < 0 ? -ENOMEM
                                                                                     : -ENODATA;
        errors = result.errors;
        output = result.output;
        r = judge(q, result.status, errors, ret_problem);
        if (r == 0)
                *ret_output = TAKE_PTR(output);
        return r;
}

int postconf_ask(const PostconfQuery *q, char **ret_output, char **ret_problem) {
        _cleanup_free_ char *path = path_of(q), *kept = NULL;
        _cleanup_(free_key) Key key = {0};
        bool current;
        int r;

        r = make_key(q, &key);
        if (r < 0)
                return r;
        if (path && read_kept(path, &key, &kept, &current) == 0 && current) {
                *ret_output = TAKE_PTR(kept);
                return 0;
        }
        r = run(q, ret_output, ret_problem);
        if (r == 0)
                keep(q, &key, *ret_output);
        return r;
}

static void on_ended(Child *child, const ChildResult *result, void *userdata) {
        _cleanup_free_ char *problem = NULL;
        Postconf *p = userdata;
        int r;

        r = result->output && result->errors
                    ? judge(&p->query, result->status, result->errors, &problem)
                    : -ENOMEM;
        if (r == 0)
                keep(&p->query, &p->key, result->output);
        p->done(r, r == 0 ? result->output : NULL, problem, p->userdata);
}

int postconf_start(sd_event *event, const PostconfQuery *q, postconf_done_t done, void *userdata,
                   Postconf **ret) {
        Postconf *p = calloc(1, sizeof *p);
        int r;

        if (!p)
                return -ENOMEM;
        p->query = *q;
        p->done = done;
        p->userdata = userdata;
        r = make_key(q, &p->key);
        if (r == 0)
                r = child_start(event, (const char *const *) q->argv, NULL, 0, TIMEOUT_USEC,
                                on_ended, p, &p->child);
        if (r < 0) {
                postconf_free(p);
                return r;
        }
        *ret = p;
        return 0;
}

Postconf *postconf_free(Postconf *p) {
        if (!p)
                return NULL;
        child_free(p->child);
        free_key(&p->key);
        free(p);
        return NULL;
}
