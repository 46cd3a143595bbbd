/* SPDX-License-Identifier: MIT */

/* The recorded sites that match what was asked for. */

#include "ctl/ctl-sites.h"

#include <stdio.h>

#include "core/sitelog.h"
#include "ctl/ctl-print.h"
#include "ctl/pattern.h"
#include "util/grow.h"
#include "util/util.h"

typedef struct Search {
        Ctl *ctl;
        Pattern *patterns;
        bool *used; /* which of them matched something */
        size_t n_patterns;
        bool all;
        CtlSites *found;
        size_t size;
} Search;

static int add_site(Search *s, const SurveyEntry *e, const char *site, bool named) {
        CtlSites *found = s->found;
        CtlSite *new;

        if (!GROW(found->items, found->n, s->size))
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
        bool named, wanted = s->n_patterns == 0;

        if (!e->found)
                return 0;
        named = survey_site(e->name, site);
        for (size_t i = 0; i < s->n_patterns; i++)
                if (pattern_matches(&s->patterns[i], s->ctl->subdomains, site))
                        wanted = s->used[i] = true;
        return wanted ? add_site(s, e, site, named) : 0;
}

static int parse(Search *s, char *args[]) {
        while (args[s->n_patterns])
                s->n_patterns++;
        s->patterns = calloc(s->n_patterns + 1, sizeof *s->patterns);
        s->used = calloc(s->n_patterns + 1, sizeof *s->used);
        if (!s->patterns || !s->used)
                return ctl_no_memory();
        for (size_t i = 0; i < s->n_patterns; i++) {
                int r = pattern_parse(args[i], &s->patterns[i]);

                if (r == -ENOMEM)
                        return ctl_no_memory();
                if (r < 0)
                        return ctl_no_site(args[i]);
        }
        return EX_OK;
}

/* A pattern that nothing matches. */
static int unused(Search *s, const char *text, const Pattern *pattern) {
        if (s->all && !pattern->glob)
                return add_site(s, NULL, pattern->exact, true) < 0 ? ctl_no_memory() : EX_OK;
        ctl_error("nothing is recorded for %s", text);
        return EX_NOINPUT;
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

static int search(Search *s, char *args[]) {
        int r, status = EX_OK;

        r = survey_walk(&s->ctl->queue, QUEUE_FLUSH, visit, s);
        if (r < 0) {
                ctl_error("%s/%s: %s", s->ctl->settings.queue_directory, queue_name(QUEUE_FLUSH),
                          strerror(-r));
                return r == -EACCES ? EX_NOPERM : EX_IOERR;
        }
        for (size_t i = 0; i < s->n_patterns; i++)
                if (!s->used[i])
                        status = ctl_worse(status, unused(s, args[i], &s->patterns[i]));
        if (s->found->n > 1)
                qsort(s->found->items, s->found->n, sizeof *s->found->items, compare_sites);
        join_places(s->found);
        return status;
}

static void search_done(Search *s) {
        for (size_t i = 0; s->patterns && i < s->n_patterns; i++)
                pattern_done(&s->patterns[i]);
        free(s->patterns);
        free(s->used);
}

int ctl_find_sites(Ctl *ctl, char *args[], bool all, CtlSites *ret) {
        _cleanup_(search_done) Search s = {.ctl = ctl, .all = all, .found = ret};
        int status;

        *ret = (CtlSites){0};
        status = parse(&s, args);
        if (status != EX_OK)
                return status;
        status = ctl_queue(ctl);
        return status == EX_OK ? search(&s, args) : status;
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
        ctl_error("%s: %s", site->path, strerror(-r));
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
