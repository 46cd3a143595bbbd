/* SPDX-License-Identifier: MIT */

/* Replays the corpus of a fuzz target: what once was a fault stays a test, for every compiler. */

#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "util/util.h"

#define INPUT_MAX (1024 * 1024)

static void replay(const char *path) {
        static uint8_t buf[INPUT_MAX];
        FILE *f = fopen(path, "r");
        uint8_t *data;
        size_t n;

        require(f);
        n = fread(buf, 1, sizeof buf, f);
        require(n < sizeof buf && !ferror(f));
        (void) fclose(f);
        data = malloc(n); /* of just that size, for the sanitizers */
        require(data || n == 0);
        memcpy(data, buf, n);
        (void) fprintf(stderr, "%s\n", path); /* the last one is the one that failed */
        (void) LLVMFuzzerTestOneInput(data, n);
        free(data);
}

static int is_input(const struct dirent *e) {
        return e->d_name[0] != '.';
}

/* tests/fuzz/fuzz-NAME has its corpus in tests/fuzz/corpus/NAME. */
static int replay_corpus(const char *program) {
        const char *srcdir = getenv("srcdir"), *name = strstr(program, "fuzz-");
        _cleanup_free_ char *dir = NULL;
        struct dirent **entries = NULL;
        int n;

        require(name);
        require(asprintf(&dir, "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".",
                         name + strlen("fuzz-")) >= 0);
        n = scandir(dir, &entries, is_input, alphasort);
        if (n < 0)
                perror(dir);
        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *path = NULL;

                require(asprintf(&path, "%s/%s", dir, entries[i]->d_name) >= 0);
                replay(path);
                free(entries[i]);
        }
        free(entries);
        return n;
}

int main(int argc, char *argv[]) {
        int n = argc - 1;

        for (int i = 1; i < argc; i++)
                replay(argv[i]);
        if (argc == 1)
                n = replay_corpus(argv[0]);
        /* On a line of its own: libconfuse prints a backslash that ends a file. */
        (void) printf("\n%d passed, %d failed\n", n > 0 ? n : 0, n > 0 ? 0 : 1);
        return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
