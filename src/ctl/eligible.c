/* SPDX-License-Identifier: MIT */

#include "ctl/eligible.h"

#include <signal.h>
#include <systemd/sd-event.h>

#include "core/domains.h"
#include "ctl/ctl-print.h"
#include "util/util.h"

typedef struct Asking {
        Domains *domains;
        sd_event *event;
        bool answered;               /* a table, just now */
        bool failed;                 /* it has been said why */
        StrSet *refused, *undecided; /* the caller's; the second may be NULL */
} Asking;

static void on_answers(const Table *failed, void *userdata) {
        Asking *a = userdata;

        a->answered = true;
}

/* Return: 1 (a table has to be asked), 0, or -ENOMEM. */
static int match(Asking *a, const char *site) {
        const char *why;
        int r = 0;

        switch (domains_match(a->domains, site, &why)) {
        case DOMAINS_PENDING:
                return 1;
        case DOMAINS_NO:
                r = strset_add(a->refused, site);
                return r < 0 ? r : 0;
        case DOMAINS_ERROR:
                if (!a->failed)
                        ctl_error("fast_flush_domains: %s", why);
                a->failed = true;
                r = a->undecided ? strset_add(a->undecided, site) : 0;
                return r < 0 ? r : 0;
        default:
                return 0;
        }
}

static int ask_tables(Asking *a) {
        int r = domains_start(a->domains, a->event, on_answers, a);

        if (r < 0) /* the next match has the reason */
                return 0;
        for (a->answered = false; !a->answered && r >= 0;)
                r = sd_event_run(a->event, UINT64_MAX);
        return r < 0 ? r : 0;
}

static int match_all(Asking *a, const StrSet *sites) {
        StrSet decided = {0};
        bool pending = true;
        int r = 0;

        while (pending && r >= 0) {
                const StrSetEntry *e = NULL;

                pending = false;
                while (r >= 0 && (e = strset_next(sites, e))) {
                        if (strset_contains(&decided, strset_entry_id(e)))
                                continue;
                        r = match(a, strset_entry_id(e));
                        pending |= r > 0;
                        if (r == 0)
                                r = strset_add(&decided, strset_entry_id(e));
                }
                if (pending && r >= 0)
                        r = ask_tables(a);
        }
        strset_clear(&decided);
        return r < 0 ? r : 0;
}

static int ask(Ctl *ctl, const StrSet *sites, StrSet *ret, StrSet *ret_undecided) {
        const char *directory = ctl->settings.postfix_config_directory;
        /* NOLINTNEXTLINE(bugprone-suspicious-missing-comma): one path, in two pieces */
        const char *postmap[7] = {POSTFIX_COMMAND_DIR "/postmap", "-f", "-q", "-", NULL};
        _cleanup_free_ char *problem = NULL;
        Asking a = {.refused = ret, .undecided = ret_undecided};
        int r;

        if (directory[0])
                memcpy(postmap + 1, (const char *[]){"-c", directory, "-f", "-q", "-", NULL},
                       6 * sizeof *postmap);
        r = sd_event_new(&a.event);
        if (r >= 0)
                r = domains_new(ctl->settings.fast_flush_domains, ctl->settings.subdomains, postmap,
                                &a.domains, &problem);
        if (r >= 0)
                r = match_all(&a, sites);
        domains_free(a.domains);
        sd_event_unref(a.event);
        return r < 0 ? ctl_no_memory() : a.failed ? EX_CONFIG : EX_OK;
}

int eligible_refused(Ctl *ctl, const StrSet *sites, StrSet *ret, StrSet *ret_undecided) {
        sigset_t mask, old;
        int status;

        *ret = (StrSet){0};
        if (ret_undecided)
                *ret_undecided = (StrSet){0};
        status = ctl_settings(ctl);
        if (status != EX_OK || strset_size(sites) == 0)
                return status;
        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGCHLD); /* as child_start() has it */
        if (sigprocmask(SIG_BLOCK, &mask, &old) < 0)
                return EX_OSERR;
        status = ask(ctl, sites, ret, ret_undecided);
        (void) sigprocmask(SIG_SETMASK, &old, NULL);
        return status;
}
