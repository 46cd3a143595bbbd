/* SPDX-License-Identifier: MIT */

/* Names from outside: queue IDs, sites and their logs, and what is shown of them. None of them may
 * leave its directory, no two sites may share a log, nothing unprintable may get into the
 * journal. */

#include "fuzz.h"
#include "log.h"
#include "queue.h"
#include "queueid.h"
#include "site.h"
#include "util.h"

static void check_id(const char *id) {
        for (unsigned depth = 1; depth <= QUEUEID_FOREST_MAX; depth++) {
                Queue queue = {.hash_depth = depth, .hashed[QUEUE_DEFERRED] = true};
                char forest[QUEUEID_FOREST_SIZE], path[QUEUE_PATH_SIZE];
                const char *rest;

                queueid_forest(id, depth, forest);
                require(strlen(forest) == 2 * depth);
                for (unsigned i = 0; i < depth; i++)
                        require(queueid_valid(forest + 2 * i, 1) && forest[2 * i + 1] == '/');
                queue_path(&queue, QUEUE_DEFERRED, id, path);
                rest = path + strlen("deferred/");
                require(strncmp(rest, forest, 2 * depth) == 0 && streq(rest + 2 * depth, id));
        }
}

/* A site has one normal form, that form one log, and that log one site. */
static void check_site(const char *text) {
        char site[SITE_SIZE], again[SITE_SIZE], log[SITE_LOG_SIZE];
        int r = site_normalize(text, site);

        require(r == 0 || r == -EINVAL);
        if (r < 0)
                return;
        require(site_normalize(site, again) == 0 && streq(site, again));
        site_to_log(site, log);
        require(strlen(log) >= 2 && queueid_valid(log, strlen(log)));
        require(site_from_log(log, again) == 0 && streq(site, again));
}

static void check_log_name(const char *log) {
        char site[SITE_SIZE], again[SITE_LOG_SIZE];

        if (site_from_log(log, site) < 0)
                return;
        require(queueid_valid(log, strlen(log)));
        site_to_log(site, again);
        require(streq(log, again));
}

static void check_folding(const char *text) {
        _cleanup_free_ char *once = NULL, *twice = NULL;

        require(site_fold(text, &once) == 0 && site_fold(once, &twice) == 0);
        require(streq(once, twice));
}

static void check_escape(const char *text, size_t n) {
        char shown[LOG_ESCAPE_SIZE];

        (void) log_escape(text, n, shown);
        require(strlen(shown) < sizeof shown);
        for (const char *p = shown; *p; p++)
                require(*p >= ' ' && *p < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *text = fuzz_text(data, n);

        require(!queueid_valid(text, n) || strlen(text) == n);
        check_escape(text, n);
        if (queueid_valid(text, strlen(text)))
                check_id(text);
        check_site(text);
        check_log_name(text);
        check_folding(text);
        return 0;
}
