/* SPDX-License-Identifier: MIT */

/* What postmap(1) prints. Input: a byte of flags, the exit status, then the name of the table, a
 * site, standard output and standard error, with NULs between. */

#include "core/table.h"
#include "daemon/journal.h"
#include "fuzz.h"
#include "util/child.h"
#include "util/util.h"

struct Child {
        child_done_t done;
        void *userdata;
};

static Child running;
static char *asked;

/* In the place of those of the library, which the linker then leaves out: starting a process for
 * each input would be slow, and what one can print is what the input says. */
int child_start(sd_event *event, const char *const argv[], const char *input, size_t n_input,
                uint64_t timeout_usec, child_done_t done, void *userdata, Child **ret) {
        require(argv[0] && !asked);
        asked = fuzz_text((const uint8_t *) input, n_input);
        require(strlen(asked) == n_input);
        running = (Child){.done = done, .userdata = userdata};
        *ret = &running;
        return 0;
}

Child *child_free(Child *child) {
        require(!child || child == &running);
        return NULL;
}

int child_run(const char *const argv[], uint64_t timeout_usec, ChildResult *ret) {
        return -ENOENT;
}

static void on_answers(const Table *failed, void *userdata) {
        (*(unsigned *) userdata)++;
}

/* Is a whole line of @lines, up to a tab, one of the keys that were asked for? */
static bool was_found(const char *lines) {
        while (*lines) {
                size_t n = strcspn(lines, "\n"), n_key = strcspn(lines, "\t\n");

                for (const char *key = asked; *key; key += strcspn(key, "\n") + 1)
                        if (n > 0 && strcspn(key, "\n") == n_key && memcmp(key, lines, n_key) == 0)
                                return true;
                lines += n + (lines[n] == '\n');
        }
        return false;
}

/* A site has neither blanks nor empty labels. */
static bool may_be_asked_for(const char *site) {
        size_t n = strlen(site);

        for (const char *p = site; *p; p++)
                if ((unsigned char) *p <= ' ' || *p == 0x7f)
                        return false;
        return site[0] != '.' && !strstr(site, "..") && (n == 0 || site[n - 1] != '.');
}

static TableAnswer look_up(Table *t, const char *site, const char *another) {
        return table_lookup(t, site, *another ? another : NULL);
}

static void silence(void) {
        (void) setenv("SYSTEMD_LOG_LEVEL", "emerg", 1);
        journal_open();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static const char *const postmap[] = {"/postmap", "-q", "-", NULL};
        _cleanup_free_ char *name = NULL, *site = NULL, *output = NULL, *errors = NULL,
                            *another = NULL, *printed = NULL;
        ChildResult result = {0};
        TableAnswer answer;
        unsigned n_done = 0;
        bool subdomains;
        Table *t;

        if (n < 2)
                return 0;
        silence();
        subdomains = data[0] & 1;
        result.status = data[1];
        data += 2;
        n -= 2;
        name = fuzz_part(&data, &n);
        site = fuzz_part(&data, &n);
        output = fuzz_part(&data, &n);
        errors = fuzz_part(&data, &n);
        another = fuzz_part(&data, &n);
        if (*site == '\0' || !may_be_asked_for(site) || !may_be_asked_for(another))
                return 0;

        require(table_new(name, subdomains, postmap, &t) == 0);
        require(look_up(t, site, another) == TABLE_PENDING);
        require(table_start(t, NULL, on_answers, &n_done) == 0);
        if (asked) {
                printed = strdup(output);
                result.output = output;
                result.errors = errors;
                running.done(&running, &result, running.userdata);
                require(n_done == 1);
                answer = look_up(t, site, another);
                require(answer != TABLE_PENDING);
                require((answer == TABLE_HIT) == was_found(printed));
                for (const char *p = table_error(t); *p; p++)
                        require((unsigned char) *p >= ' ' && *p != 0x7f);
                require(answer != TABLE_ERROR || *table_error(t));
        }
        table_free(t);
        free(asked);
        asked = NULL;
        return 0;
}
