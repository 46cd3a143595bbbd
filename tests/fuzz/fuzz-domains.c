/* SPDX-License-Identifier: MIT */

/* The eligibility list against the simplest matcher there is. Input: a byte of flags, then the
 * list, the content of every /file it names, and a site, with NULs between. Tables cannot be
 * asked. */

#include "core/domains.h"
#include "core/sitename.h"
#include "fuzz.h"
#include "util/child.h"
#include "util/textfile.h"
#include "util/util.h"

#define SEPARATORS " \t\r\n,"

static const char *file_text;

/* In the place of those of the library, which the linker then leaves out: an input that named a
 * device or a fifo would otherwise have it opened. */
int textfile_read(const char *path, size_t max, char **ret) {
        require(path[0] == '/' && max > 0);
        if (path[1] == '\0')
                return -EINVAL;
        *ret = strdup(file_text);
        return *ret ? 0 : -ENOMEM;
}

const char *textfile_strerror(int error) {
        return strerror(-error);
}

int child_start(sd_event *event, const char *const argv[], const char *input, size_t n_input,
                uint64_t timeout_usec, child_done_t done, void *userdata, Child **ret) {
        require(argv[0] && (n_input == 0 || input[n_input - 1] == '\n'));
        return -ENOENT;
}

Child *child_free(Child *child) {
        require(!child);
        return NULL;
}

int child_run(const char *const argv[], uint64_t timeout_usec, ChildResult *ret) {
        return -ENOENT;
}

static bool ends_in(const char *text, const char *end) {
        return strlen(text) >= strlen(end) && streq(text + strlen(text) - strlen(end), end);
}

static bool matches_text(const char *pattern, const char *site, bool subdomains) {
        _cleanup_free_ char *parent = NULL;

        require(asprintf(&parent, ".%s", pattern) >= 0);
        return streq(pattern, site) ||
               (subdomains ? ends_in(site, parent) : pattern[0] == '.' && ends_in(site, pattern));
}

/* Each spelling of the one against each spelling of the other. */
static bool matches(const char *pattern, const char *site, bool subdomains) {
        _cleanup_free_ char *folded = NULL, *unicode = NULL, *folded_unicode = NULL;
        const char *name = pattern + (pattern[0] == '.');
        char normal[1 + SITE_SIZE] = ".";
        bool is_site = sitename_normalize(name, normal + 1) == 0;
        const char *patterns[] = {NULL, is_site ? normal + (name == pattern) : NULL};
        const char *sites[] = {site, NULL};

        require(sitename_fold(pattern, &folded) == 0);
        patterns[0] = folded;
        require(sitename_unicode(site, &unicode) == 0);
        if (unicode) {
                require(sitename_fold(unicode, &folded_unicode) == 0);
                sites[1] = folded_unicode;
        }
        for (size_t i = 0; i < 2; i++)
                for (size_t k = 0; k < 2; k++)
                        if (patterns[i] && sites[k] &&
                            matches_text(patterns[i], sites[k], subdomains))
                                return true;
        return false;
}

/* Names only. */
static DomainsAnswer expected(const char *list, const char *site, bool subdomains) {
        _cleanup_free_ char *copy = strdup(list);

        require(copy);
        for (char *p = strtok(copy, SEPARATORS); p; p = strtok(NULL, SEPARATORS)) {
                bool excluded = false;

                for (; *p == '!'; p++)
                        excluded = !excluded;
                if (*p == '\0')
                        return DOMAINS_ERROR;
                if (matches(p, site, subdomains))
                        return excluded ? DOMAINS_NO : DOMAINS_YES;
        }
        return DOMAINS_NO;
}

static void on_answers(const Table *failed, void *userdata) {
        require(false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static const char *const postmap[] = {"/postmap", "-q", "-", NULL};
        _cleanup_free_ char *list = NULL, *text = NULL, *site = NULL, *unicode = NULL,
                            *problem = NULL;
        char normal[SITE_SIZE], again[SITE_SIZE];
        const char *why = NULL;
        DomainsAnswer answer;
        bool subdomains;
        Domains *d;

        if (n == 0)
                return 0;
        subdomains = *data++ & 1;
        n--;
        list = fuzz_part(&data, &n);
        text = fuzz_part(&data, &n);
        site = fuzz_part(&data, &n);
        file_text = text;
        if (sitename_normalize(site, normal) < 0)
                return 0; /* it is refused without a look at the list */
        require(sitename_unicode(normal, &unicode) == 0);
        if (unicode && sitename_normalize(unicode, again) == 0) /* not of symbols */
                require(streq(again, normal));

        require(domains_new(list, subdomains, postmap, &d, &problem) == 0);
        answer = domains_match(d, normal, &why);
        if (answer == DOMAINS_PENDING) {
                require(domains_start(d, NULL, on_answers, NULL) == -ENOENT);
                answer = domains_match(d, normal, &why);
        }
        require(answer != DOMAINS_PENDING);
        require(answer != DOMAINS_ERROR || (why && *why));
        require(domains_match(d, normal, &why) == answer);
        if (!strpbrk(list, "/:{"))
                require(answer == expected(list, normal, subdomains));
        domains_free(d);
        return 0;
}
