/* SPDX-License-Identifier: MIT */

/* The recorded sites that match what was asked for. */

#include "ctl/ctl-sites.h"

#include <stdio.h>

#include "core/sitelog.h"
#include "ctl/ctl-print.h"
#include "ctl/messages.h"
#include "util/grow.h"
#include "util/util.h"

typedef struct Search {
        CtlPatterns *patterns;
        CtlSites *found;
        size_t size;
} Search;

static int add_site(CtlSites *found, size_t *size, const SurveyEntry *e, const char *site,
                    bool named) {
        CtlSite *new;

        if (!GROW(found->items, found->n, *size))
                return -ENOMEM;
        new = &found->items[found->n];
        *new = (CtlSite){.site = strdup(site), .named = named};
        found->n++;
        if (e) {
                new->path = strdup(e->path);
                new->st = e->st;
        }
        return new->site && (!e || new->path) ? 0 : -ENOMEM;
}

static int visit(const SurveyEntry *e, void *userdata) {
        char site[QUEUEID_MAX + 3];
        Search *s = userdata;
        bool named;

        if (!e->found)
                return 0;
        named = survey_site(e->name, site);
        return ctl_patterns_match(s->patterns, site) ? add_site(s->found, &s->size, e, site, named)
                                                     : 0;
}

int ctl_patterns_parse(const Ctl *ctl, char *args[], CtlPatterns *ret) {
        size_t n = 0;

        *ret = (CtlPatterns){.texts = args, .subdomains = ctl->subdomains};
        while (args[n])
                n++;
        ret->items = calloc(n + 1, sizeof *ret->items);
        ret->used = calloc(n + 1, sizeof *ret->used);
        if (!ret->items || !ret->used)
                return ctl_no_memory();
        for (; ret->n < n; ret->n++) {
                int r = pattern_parse(args[ret->n], &ret->items[ret->n]);

                if (r == -ENOMEM)
                        return ctl_no_memory();
                if (r < 0)
                        return ctl_no_site(args[ret->n]);
        }
        return EX_OK;
}

void ctl_patterns_done(CtlPatterns *p) {
        for (size_t i = 0; i < p->n; i++)
                pattern_done(&p->items[i]);
        free(p->items);
        free(p->used);
        *p = (CtlPatterns){0};
}

bool ctl_patterns_match(CtlPatterns *p, const char *site) {
        bool any = p->n == 0;

        for (size_t i = 0; i < p->n; i++)
                if (pattern_matches(&p->items[i], p->subdomains, site))
                        any = p->used[i] = true;
        return any;
}

bool ctl_patterns_match_address(CtlPatterns *p, const char *address) {
        const char *domain = messages_site(address);
        char site[SITE_SIZE];

        if (p->n == 0)
                return true;
        return domain && pattern_site(domain, site) == 0 && ctl_patterns_match(p, site);
}

int ctl_patterns_unused(const CtlPatterns *p) {
        int status = EX_OK;

        for (size_t i = 0; i < p->n; i++)
                if (!p->used[i])
                        status = ctl_fail(EX_NOINPUT, "nothing is recorded for %s", p->texts[i]);
        return status;
}

static int compare_sites(const void *a, const void *b) {
        return strcmp(((const CtlSite *) a)->site, ((const CtlSite *) b)->site);
}

static void free_site(CtlSite *site) {
        free(site->site);
        free(site->path);
}

/* A log that lies in two places, since hash_queue_names changed, is one log. */
static void join_places(CtlSites *found) {
        size_t n = 0;

        for (size_t i = 0; i < found->n; i++) {
                CtlSite *site = &found->items[i], *last = n > 0 ? &found->items[n - 1] : NULL;

                if (!last || !streq(last->site, site->site)) {
                        found->items[n++] = *site;
                        continue;
                }
                if (site->st.st_atim.tv_sec < last->st.st_atim.tv_sec)
                        last->st.st_atim = site->st.st_atim;
                if (site->st.st_mtim.tv_sec > last->st.st_mtim.tv_sec)
                        last->st.st_mtim = site->st.st_mtim;
                free_site(site);
        }
        found->n = n;
}

int ctl_survey_sites(Ctl *ctl, CtlPatterns *patterns, CtlSites *ret) {
        Search s = {.patterns = patterns, .found = ret};
        int r, status;

        *ret = (CtlSites){0};
        status = ctl_queue(ctl);
        if (status != EX_OK)
                return status;
        r = survey_walk(&ctl->queue, QUEUE_FLUSH, visit, &s);
        if (r < 0) {
                ctl_error("%s/%s: %s", ctl->settings.queue_directory, queue_name(QUEUE_FLUSH),
                          ctl_strerror(r));
                return r == -EACCES ? EX_NOPERM : EX_IOERR;
        }
        if (ret->n > 1)
                qsort(ret->items, ret->n, sizeof *ret->items, compare_sites);
        join_places(ret);
        return EX_OK;
}

/* Sites of which nothing is recorded, each with its own name. */
static int add_others(CtlPatterns *p, CtlSites *found) {
        size_t size = 0;

        for (size_t i = 0; i < p->n; i++) {
                if (p->used[i] || p->items[i].glob)
                        continue;
                p->used[i] = true;
                size = found->n;
                if (add_site(found, &size, NULL, p->items[i].exact, true) < 0)
                        return ctl_no_memory();
        }
        if (size > 0)
                qsort(found->items, found->n, sizeof *found->items, compare_sites);
        return EX_OK;
}

int ctl_find_sites(Ctl *ctl, char *args[], bool all, CtlSites *ret) {
        _cleanup_(ctl_patterns_done) CtlPatterns patterns = {0};
        int status;

        *ret = (CtlSites){0};
        status = ctl_patterns_parse(ctl, args, &patterns);
        if (status == EX_OK)
                status = ctl_survey_sites(ctl, &patterns, ret);
        if (status == EX_OK && all)
                status = add_others(&patterns, ret);
        return status == EX_OK ? ctl_patterns_unused(&patterns) : status;
}

void ctl_sites_done(CtlSites *sites) {
        for (size_t i = 0; i < sites->n; i++)
                free_site(&sites->items[i]);
        free(sites->items);
        *sites = (CtlSites){0};
}

bool ctl_await_lock(uint64_t until_usec) {
        if (now_usec() >= until_usec)
                return false;
        (void) usleep(SITELOG_RETRY_USEC);
        return true;
}

int ctl_read_site(Ctl *ctl, const CtlSite *site, SurveyLog *ret) {
        int r;

        *ret = (SurveyLog){0};
        r = site->path ? survey_read_log(&ctl->queue, strrchr(site->path, '/') + 1, ret) : 0;
        if (r == 0 || r == -ENOENT) /* just now removed: as empty */
                return EX_OK;
        ctl_error("%s: %s", site->path, ctl_strerror(r));
        return r == -EACCES ? EX_NOPERM : EX_IOERR;
}

unsigned long ctl_count_deferred(Ctl *ctl, const SurveyLog *log) {
        const StrSetEntry *e = NULL;
        unsigned long n = 0;
        QueueName queue;
        struct stat st;

        while ((e = strset_next(&log->ids, e)))
                n += queue_find(&ctl->queue, strset_entry_id(e), &queue, &st) == 0 &&
                     queue == QUEUE_DEFERRED;
        return n;
}
