/* SPDX-License-Identifier: MIT */

#include "ctl/pattern.h"

#include <fnmatch.h>

#include "util/util.h"

/* A dot at the end, as DNS tools print it, says nothing about mail. */
int pattern_site(const char *text, char ret[static SITE_SIZE]) {
        size_t n = strnlen(text, SITE_TEXT_MAX + 1);
        char name[SITE_TEXT_MAX + 1];

        if (n < 2 || n > SITE_TEXT_MAX || text[n - 1] != '.')
                return sitename_normalize(text, ret);
        memcpy(name, text, n - 1);
        name[n - 1] = '\0';
        return sitename_normalize(name, ret);
}

int pattern_parse(const char *text, Pattern *ret) {
        Pattern pattern = {0};
        int r;

        r = pattern_site(text, pattern.exact);
        if (r == -EINVAL && text[0] == '(') { /* names of logs have upper case */
                pattern.glob = strdup(text);
                r = pattern.glob ? 0 : -ENOMEM;
        } else if (r == -EINVAL && strpbrk(text, "*?["))
                r = sitename_fold(text, &pattern.glob);
        if (r < 0)
                return r;
        *ret = pattern;
        return 0;
}

/* However a site is written: "*.bücher.example" means those that are recorded with A-labels. */
static bool glob_matches(const char *glob, const char *site) {
        _cleanup_free_ char *unicode = NULL;

        if (fnmatch(glob, site, 0) == 0)
                return true;
        return sitename_unicode(site, &unicode) == 0 && unicode && fnmatch(glob, unicode, 0) == 0;
}

bool pattern_matches(const Pattern *p, bool subdomains, const char *site) {
        size_t n = strlen(p->exact), n_site = strlen(site);

        if (p->glob)
                return glob_matches(p->glob, site);
        if (streq(p->exact, site))
                return true;
        return subdomains && n_site > n && site[n_site - n - 1] == '.' &&
               streq(site + n_site - n, p->exact);
}

void pattern_done(Pattern *p) {
        free(p->glob);
        p->glob = NULL;
}
