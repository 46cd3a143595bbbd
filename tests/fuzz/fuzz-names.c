/* SPDX-License-Identifier: MIT */

/* Text from outside: queue IDs, sites and their logs, and what is shown of them. None of them may
 * leave its directory, no two sites may share a log, nothing unprintable may get into the
 * journal. */

#include "core/queue.h"
#include "core/queueid.h"
#include "core/sitename.h"
#include "fuzz.h"
#include "util/escape.h"
#include "util/util.h"

#include <jansson.h>
#include <unistr.h>

#define SHOWN_MAX 30

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
        int r = sitename_normalize(text, site);

        require(r == 0 || r == -EINVAL);
        if (r < 0)
                return;
        require(sitename_normalize(site, again) == 0 && streq(site, again));
        sitename_to_log(site, log);
        require(strlen(log) >= 2 && queueid_valid(log, strlen(log)));
        require(sitename_from_log(log, again) == 0 && streq(site, again));
}

static void check_log_name(const char *log) {
        char site[SITE_SIZE], again[SITE_LOG_SIZE];

        if (sitename_from_log(log, site) < 0)
                return;
        require(queueid_valid(log, strlen(log)));
        sitename_to_log(site, again);
        require(streq(log, again));
}

static void check_folding(const char *text) {
        _cleanup_free_ char *once = NULL, *twice = NULL;

        require(sitename_fold(text, &once) == 0 && sitename_fold(once, &twice) == 0);
        require(streq(once, twice));
}

static void check_escape(const char *text, size_t n) {
        char shown[ESCAPE_SIZE(SHOWN_MAX)];

        (void) escape_bytes(text, n, SHOWN_MAX, shown);
        require(strlen(shown) < sizeof shown);
        for (const char *p = shown; *p; p++)
                require(*p >= ' ' && *p < 0x7f);
}

/* A second, plainer idea of what a terminal may not get: C0, DEL, C1, and what is not UTF-8. */
static void check_line(const char *text) {
        size_t n = 4 * strlen(text) + 1;
        _cleanup_free_ char *shown = malloc(n), *again = malloc(n), *cut = malloc(n);

        require(shown && again && cut);
        (void) escape_line(text, shown, n);
        require(!u8_check((const uint8_t *) shown, strlen(shown)));
        for (const char *p = shown; *p; p++)
                require((unsigned char) *p >= ' ' && *p != 0x7f &&
                        ((unsigned char) p[0] != 0xc2 || (unsigned char) p[1] >= 0xa0));
        require(streq(escape_line(shown, again, n), shown));
        (void) escape_line(text, cut, n / 2 + 1);
        require(strlen(cut) <= n / 2 && strncmp(shown, cut, strlen(cut)) == 0);
}

/* As a string of JSON, and back. */
static void check_json(const char *text) {
        _cleanup_free_ char *utf8 = escape_utf8(text), *line = NULL, *shown = NULL;
        json_t *array, *again;

        require(utf8);
        array = json_pack("[s]", utf8);
        require(array);
        line = json_dumps(array, JSON_COMPACT);
        require(line);
        shown = escape_json(line);
        require(shown);
        check_line(shown);
        again = json_loads(shown, 0, NULL);
        require(json_equal(array, again));
        json_decref(array);
        json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *text = fuzz_text(data, n);

        require(!queueid_valid(text, n) || strlen(text) == n);
        check_escape(text, n);
        check_line(text);
        check_json(text);
        if (queueid_valid(text, strlen(text)))
                check_id(text);
        check_site(text);
        check_log_name(text);
        check_folding(text);
        return 0;
}
