/* SPDX-License-Identifier: MIT */

#include "postconf.h"

#include <assert.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "child.h"
#include "newfile.h"
#include "textfile.h"
#include "util.h"

#define TIMEOUT_USEC (10 * USEC_PER_SEC)
#define KEPT_MAX     (1024 * 1024)
#define MODE_KEPT    0600

/* A file that has just been changed may change again without a new time stamp. */
#define SETTLED_SEC 2

/* Between the key and the output; has no place in either. */
#define END_OF_KEY "\f\n"

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

/* All that the output depends on: a value may contain $myhostname, which is the host's. */
static int make_key(const char *const argv[], const char *main_cf, char **ret, bool *ret_settled) {
        struct utsname host = {0};
        time_t newest = 0;
        size_t size;
        FILE *f = open_memstream(ret, &size);

        assert(argv[0]);

        if (!f)
                return -ENOMEM;
        (void) uname(&host);
        (void) fprintf(f, "%s: %s\n", PACKAGE_STRING, host.nodename);
        for (size_t i = 0; argv[i]; i++)
                (void) fprintf(f, "%s\n", argv[i]);
        print_file(f, argv[0], &newest);
        print_file(f, main_cf, &newest);
        (void) fputs(END_OF_KEY, f);
        *ret_settled = newest + SETTLED_SEC < time(NULL);
        return fclose(f) == 0 ? 0 : -ENOMEM;
}

/* Return: 0, or a negative errno: there is none, or it is of another key. */
static int read_kept(const char *path, const char *key, char **ret) {
        _cleanup_free_ char *kept = NULL;
        int r;

        r = textfile_read(path, KEPT_MAX, &kept);
        if (r < 0)
                return r;
        if (strncmp(kept, key, strlen(key)) != 0)
                return -ESTALE;
        *ret = strdup(kept + strlen(key));
        return *ret ? 0 : -ENOMEM;
}

static void keep(const char *path, const char *key, const char *output) {
        char *temporary;
        FILE *f;

        if (newfile_begin(path, MODE_KEPT, &f, &temporary) < 0)
                return;
        (void) fprintf(f, "%s%s", key, output);
        (void) newfile_end(f, temporary, path);
}

static int run(const char *const argv[], char **ret_output, char **ret_problem) {
        _cleanup_free_ char *errors = NULL;
        ChildResult result;
        int r;

        r = child_run(argv, TIMEOUT_USEC, &result);
        if (r < 0)
                return asprintf(ret_problem, "%s: %s", argv[0], strerror(-r)) < 0 ? -ENOMEM
                                                                                  : -ENODATA;
        errors = result.errors;
        if (result.status == 0) {
                *ret_output = result.output;
                return 0;
        }
        free(result.output);
        return asprintf(ret_problem, "%s %s %s: %.*s", argv[0], argv[1], argv[2],
                        (int) strcspn(errors, "\n"), errors) < 0
                       ? -ENOMEM
                       : -ENODATA;
}

int postconf_ask(const char *const argv[], const char *main_cf, const char *directory,
                 char **ret_output, char **ret_problem) {
        _cleanup_free_ char *key = NULL, *path = NULL;
        bool settled;
        int r;

        r = make_key(argv, main_cf, &key, &settled);
        if (r < 0)
                return r;
        if (directory && asprintf(&path, "%s/postconf", directory) < 0)
                return -ENOMEM;
        if (path && read_kept(path, key, ret_output) == 0)
                return 0;
        r = run(argv, ret_output, ret_problem);
        if (r == 0 && path && settled)
                keep(path, key, *ret_output);
        return r;
}
