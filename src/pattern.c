/* SPDX-License-Identifier: MIT */

#include "pattern.h"

#include <fnmatch.h>

#include "util.h"

int pattern_parse(const char *text, Pattern *ret) {
        int r;

        *ret = (Pattern){0};
        r = site_normalize(text, ret->exact);
        if (r != -EINVAL)
                return r;
        if (text[0] != '(' && !strpbrk(text, "*?["))
                return -EINVAL;
        if (text[0] != '(') /* names of logs have upper case */
                return site_fold(text, &ret->glob);
        ret->glob = strdup(text);
        return ret->glob ? 0 : -ENOMEM;
}

bool pattern_matches(const Pattern *p, bool subdomains, const char *site) {
        size_t n = strlen(p->exact), n_site = strlen(site);

        if (p->glob)
                return fnmatch(p->glob, site, 0) == 0;
        if (streq(p->exact, site))
                return true;
        return subdomains && n_site > n && site[n_site - n - 1] == '.' &&
               streq(site + n_site - n, p->exact);
}

void pattern_free(Pattern *p) {
        free(p->glob);
        p->glob = NULL;
}
