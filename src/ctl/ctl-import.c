/* SPDX-License-Identifier: MIT */

/* fflushctl import: record deferred mail that was there before fflushd was. */

#include <fcntl.h>
#include <stdio.h>

#include "core/sitename.h"
#include "core/survey.h"
#include "ctl/client.h"
#include "ctl/commands.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-report.h"
#include "ctl/eligible.h"
#include "ctl/ghosts.h"
#include "ctl/messages.h"
#include "util/hash.h"
#include "util/util.h"

/* What is in the log of a site, or will be. */
typedef struct Recorded {
        UT_hash_handle hh;
        StrSet ids;
        StrSet listed;        /* what Postfix lists for it */
        unsigned long wanted; /* records that would be added, of a dry run */
        char site[];
} Recorded;

typedef struct Import {
        Ctl *ctl;
        Messages in;
        Recorded *recorded;
        json_t *message; /* whose recipients are gone through */
        size_t recipient;
        int error; /* a negative errno ends it */
        unsigned long messages, wanted, added, known, no_site, refused, failed, removed;
} Import;

/* One record on its way. */
typedef struct Pair {
        char *site, *id;
} Pair;

static void free_pair(Pair *pair) {
        if (!pair)
                return;
        free(pair->site);
        free(pair->id);
        free(pair);
}

static Pair *new_pair(const char *site, const char *id) {
        Pair *pair = calloc(1, sizeof *pair);

        if (pair) {
                pair->site = strdup(site);
                pair->id = strdup(id);
        }
        if (pair && pair->site && pair->id)
                return pair;
        free_pair(pair);
        return NULL;
}

/* A log that cannot be read has, for us, nothing in it: the service knows better. */
static void read_recorded(Import *im, Recorded *recorded) {
        _cleanup_(survey_done) SurveyLog log = {0};
        char name[SITE_LOG_SIZE];

        sitename_to_log(recorded->site, name);
        if (survey_read_log(&im->ctl->queue, name, &log) < 0)
                return;
        recorded->ids = log.ids;
        log.ids = (StrSet){0};
}

static Recorded *get_recorded(Import *im, const char *site) {
        size_t n = strlen(site);
        bool oom = false;
        Recorded *recorded;

        HASH_FIND(hh, im->recorded, site, n, recorded);
        if (recorded)
                return recorded;
        recorded = calloc(1, sizeof *recorded + n + 1);
        if (!recorded)
                return NULL;
        memcpy(recorded->site, site, n);
        HASH_ADD_KEYPTR(hh, im->recorded, recorded->site, n, recorded);
        if (oom) {
                free(recorded);
                return NULL;
        }
        read_recorded(im, recorded);
        return recorded;
}

/* Return: 1 (has to be recorded), 0 (not), or -ENOMEM. */
static int wants(Import *im, const char *text, const char *id) {
        char site[SITE_SIZE];
        Recorded *recorded;
        int r;

        r = text ? sitename_normalize(text, site) : -EINVAL;
        if (r == -EINVAL) { /* a local name, or one that no flush could be asked for */
                im->no_site++;
                return 0;
        }
        if (r < 0)
                return r;
        recorded = get_recorded(im, site);
        if (!recorded)
                return -ENOMEM;
        if (strset_add(&recorded->listed, id) < 0)
                return -ENOMEM;
        r = strset_add(&recorded->ids, id);
        im->known += r == 0;
        return r;
}

/* The next message that is deferred; those in other queues are on their way. */
static bool next_message(Import *im) {
        json_decref(im->message);
        im->recipient = 0;
        while ((im->message = messages_next(&im->in))) {
                const char *id = json_string_value(json_object_get(im->message, "queue_id"));

                if (streq(json_string_value(json_object_get(im->message, "queue_name")),
                          queue_name(QUEUE_DEFERRED))) {
                        if (queueid_valid(id, strlen(id))) {
                                im->messages++;
                                return true;
                        }
                        im->in.n_bad++;
                }
                json_decref(im->message);
        }
        return false;
}

/* Return: the address of the next recipient, with its message in @im; or NULL at the end. */
static const char *next_recipient(Import *im) {
        for (;;) {
                const json_t *all, *one;

                if (!im->message && !next_message(im))
                        return NULL;
                all = json_object_get(im->message, "recipients");
                one = json_array_get(all, im->recipient++);
                if (!one) {
                        if (!next_message(im))
                                return NULL;
                } else if (json_is_string(json_object_get(one, "address")))
                        return json_string_value(json_object_get(one, "address"));
        }
}

static bool next(Request *ret, void **ret_item, void *userdata) {
        Import *im = userdata;
        const char *address, *site, *id;
        Pair *pair;
        int r = 0;

        do {
                address = im->error == 0 ? next_recipient(im) : NULL;
                if (!address)
                        return false;
                site = messages_site(address);
                id = json_string_value(json_object_get(im->message, "queue_id"));
                r = wants(im, site, id);
        } while (r == 0);
        pair = r > 0 ? new_pair(site, id) : NULL;
        if (!pair) {
                im->error = -ENOMEM;
                return false;
        }
        im->wanted++;
        *ret = (Request){.kind = REQUEST_ADD, .site = pair->site, .queue_id = pair->id};
        *ret_item = pair;
        return true;
}

static void done(void *item, const ClientAnswer *answer, void *userdata) {
        Import *im = userdata;

        if (answer->error < 0 || answer->status == REQUEST_FAIL)
                im->failed++;
        else if (answer->status == REQUEST_OK)
                im->added++;
        else
                im->refused++;
        free_pair(item);
}

static int take_preview(Import *im, const char *site) {
        Recorded *recorded = get_recorded(im, site);

        if (!recorded)
                return -ENOMEM;
        recorded->wanted++;
        return 0;
}

/* What the service would refuse. */
static int count_preview(Import *im) {
        StrSet sites = {0}, refused = {0};
        int r = 0, status;

        for (Recorded *x = im->recorded; x && r >= 0; x = x->hh.next)
                r = x->wanted > 0 ? strset_add(&sites, x->site) : 0;
        status = r < 0 ? EX_OSERR : eligible_refused(im->ctl, &sites, &refused, NULL);
        for (Recorded *x = im->recorded; x; x = x->hh.next)
                *(strset_contains(&refused, x->site) ? &im->refused : &im->added) += x->wanted;
        strset_clear(&sites);
        strset_clear(&refused);
        return status;
}

static int preview(Import *im) {
        void *item = NULL;
        Request request;

        while (im->error == 0 && next(&request, &item, im)) {
                im->error = take_preview(im, request.site);
                free_pair(item);
        }
        return im->error < 0 ? EX_OK : count_preview(im);
}

static void report(const Import *im) {
        if (im->ctl->json)
                ctl_print_json(json_pack(
                        "{ss sI sI sI sI sI sI sI sI sb}", "type", "import", "messages",
                        (json_int_t) im->messages, "added", (json_int_t) im->added, "known",
                        (json_int_t) im->known, "not_eligible", (json_int_t) im->refused, "no_site",
                        (json_int_t) im->no_site, "failed", (json_int_t) im->failed, "malformed",
                        (json_int_t) im->in.n_bad, "removed", (json_int_t) im->removed, "dry_run",
                        im->ctl->dry_run));
        else {
                ctl_print("%lu deferred message%s: %lu record%s %s, %lu already there",
                          im->messages, im->messages == 1 ? "" : "s", im->added,
                          im->added == 1 ? "" : "s", im->ctl->dry_run ? "would be added" : "added",
                          im->known);
                if (im->refused)
                        ctl_print(", %lu not eligible", im->refused);
                if (im->no_site)
                        ctl_print(", %lu without a domain", im->no_site);
                if (im->failed)
                        ctl_print(", %lu failed", im->failed);
                if (im->removed)
                        ctl_print(", %lu of flush(8) removed", im->removed);
                ctl_print("\n");
        }
}

static int open_input(Import *im, const char *source) {
        const char *directory = im->ctl->settings.postfix_config_directory;
        int r;

        if (source && !streq(source, "-")) {
                ctl_error("import reads postqueue -j by itself, or \"-\"; not %s", source);
                return EX_USAGE;
        }
        if (source) {
                messages_from(&im->in, stdin);
                return EX_OK;
        }
        if (!directory[0]) {
                ctl_error("postfix_config_directory is empty: there is no Postfix to ask");
                return EX_CONFIG;
        }
        r = messages_open(&im->in, directory);
        if (r == 0)
                return EX_OK;
        ctl_error("postqueue: %s", strerror(-r));
        return EX_UNAVAILABLE;
}

static int close_input(Import *im) {
        unsigned long n_bad = im->in.n_bad;
        _cleanup_free_ char *errors = NULL;
        int r = messages_close(&im->in, &errors), status = EX_OK;

        if (errors)
                ctl_error_lines(errors);

        if (n_bad > 0) {
                ctl_error("%lu lines are not what postqueue -j prints", n_bad);
                status = EX_DATAERR;
        }
        if (r < 0) {
                ctl_error(r == -EREMOTEIO ? "postqueue failed" : "the input broke off");
                status = r == -EREMOTEIO ? EX_UNAVAILABLE : EX_IOERR;
        }
        return status;
}

static int run(Import *im) {
        const ClientBatch batch = {.next = next, .done = done, .userdata = im};
        int r = 0, status = EX_OK;

        if (im->ctl->dry_run)
                status = preview(im);
        else
                r = client_ask_all(im->ctl->socket_path, im->ctl->timeout, &batch);
        json_decref(im->message);
        im->message = NULL;
        if (r < 0)
                return ctl_connect_error(im->ctl, r);
        if (im->error < 0)
                return ctl_no_memory();
        return ctl_worse(status, im->failed > 0 ? EX_TEMPFAIL : EX_OK);
}

/* Only after all that Postfix lists has been recorded. */
static int clear_ghosts(Import *im) {
        GhostSite *sites = calloc(HASH_COUNT(im->recorded) + 1, sizeof *sites);
        size_t n = 0;
        int status;

        if (!sites)
                return ctl_no_memory();
        for (const Recorded *x = im->recorded; x; x = x->hh.next)
                sites[n++] = (GhostSite){.site = x->site, .listed = &x->listed};
        status = ghosts_clear(im->ctl, sites, n, &im->removed);
        free(sites);
        return status;
}

static void free_recorded(Import *im) {
        Recorded *recorded, *tmp;

        HASH_ITER (hh, im->recorded, recorded, tmp) {
                HASH_DEL(im->recorded, recorded);
                strset_clear(&recorded->ids);
                strset_clear(&recorded->listed);
                free(recorded);
        }
}

static int import_from(Ctl *ctl, const char *source, unsigned long *ret_added) {
        Import im = {.ctl = ctl};
        int status;

        status = ctl_socket(ctl);
        if (status != EX_OK)
                return status;
        status = ctl_settings(ctl);
        if (status != EX_OK)
                return status;
        status = ctl_queue(ctl);
        if (status != EX_OK)
                return status;
        if (faccessat(ctl->queue.fd, queue_name(QUEUE_FLUSH), R_OK | X_OK, AT_EACCESS) < 0 &&
            errno == EACCES) { /* what is recorded already would be counted as new */
                ctl_error("%s/%s: %s", ctl->settings.queue_directory, queue_name(QUEUE_FLUSH),
                          ctl_strerror(-EACCES));
                return EX_NOPERM;
        }
        status = open_input(&im, source);
        if (status != EX_OK)
                return status;
        status = run(&im);
        status = ctl_worse(status, close_input(&im));
        if (status == EX_OK && !source && !ctl->dry_run)
                status = clear_ghosts(&im);
        free_recorded(&im);
        if (!ctl->quiet)
                report(&im);
        *ret_added = im.added;
        return status;
}

int ctl_import(Ctl *ctl, char *args[]) {
        unsigned long added;
        int status = import_from(ctl, args[0], &added);

        if (status == EX_OK && !ctl->dry_run)
                ctl_audit(ctl, "import", NULL, NULL, NULL);
        return status;
}

int ctl_import_deferred(Ctl *ctl, unsigned long *ret_added) {
        *ret_added = 0;
        return import_from(ctl, NULL, ret_added);
}
