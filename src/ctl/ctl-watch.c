/* SPDX-License-Identifier: MIT */

/* fflushctl watch: follow mail that is on its way already, whoever has asked for it. */

#include <stdio.h>

#include "ctl/commands.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-report.h"
#include "ctl/ctl-wait.h"
#include "ctl/messages.h"
#include "util/util.h"

/* A queue ID or a site? Sites have a dot, or are in lower case; one without either is a queue ID if
 * there is a message of that name. */
static bool is_id(const Ctl *ctl, const char *text) {
        QueueName queue;
        struct stat st;

        if (!queueid_valid(text, strlen(text)))
                return false;
        return queue_find(&ctl->queue, text, &queue, &st) == 0 ||
               text[strcspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] != '\0';
}

static int join_id(Ctl *ctl, CtlWait *w, const char *id) {
        bool joined;
        QueueName queue;
        struct stat st;
        int status = ctl_wait_join(w, id, 0, &joined);

        if (status != EX_OK || joined)
                return status;
        if (queue_find(&ctl->queue, id, &queue, &st) == 0)
                ctl_error("%s: not on its way: it is in the queue %s", id, queue_name(queue));
        else
                ctl_error("%s: no such message in the queue", id);
        return EX_NOINPUT;
}

static bool is_under_way(const json_t *message, CtlPatterns *wanted) {
        const char *queue = json_string_value(json_object_get(message, "queue_name"));
        const json_t *one;
        size_t i;

        if (!streq(queue, queue_name(QUEUE_ACTIVE)) && !streq(queue, queue_name(QUEUE_INCOMING)))
                return false;
        json_array_foreach(json_object_get(message, "recipients"), i, one) {
                const char *address = json_string_value(json_object_get(one, "address"));

                if (address && ctl_patterns_match_address(wanted, address))
                        return true;
        }
        return false;
}

static int join_messages(Ctl *ctl, CtlWait *w, CtlPatterns *wanted) {
        _cleanup_free_ char *errors = NULL;
        int r, status = EX_OK;
        json_t *message;
        Messages in;

        r = messages_open(&in, ctl->settings.postfix_config_directory);
        if (r < 0) {
                ctl_error("postqueue: %s", strerror(-r));
                return EX_UNAVAILABLE;
        }
        while ((message = messages_next(&in))) {
                const char *id = json_string_value(json_object_get(message, "queue_id"));
                bool joined;

                if (status == EX_OK && queueid_valid(id, strlen(id)) &&
                    is_under_way(message, wanted))
                        status = ctl_wait_join(w, id, 0, &joined);
                json_decref(message);
        }
        r = messages_close(&in, &errors);
        if (errors)
                ctl_error_lines(errors);
        if (r < 0) {
                ctl_error("postqueue failed");
                status = ctl_worse(status, EX_UNAVAILABLE);
        }
        return status;
}

/* Return: the sites among @args, in an array that ends in NULL; or NULL. */
static char **join_ids(Ctl *ctl, CtlWait *w, char *args[], int *status) {
        char **sites;
        size_t n = 0;

        while (args[n])
                n++;
        sites = calloc(n + 1, sizeof *sites);
        n = 0;
        for (; sites && *args; args++)
                if (is_id(ctl, *args))
                        *status = ctl_worse(*status, join_id(ctl, w, *args));
                else
                        sites[n++] = *args;
        return sites;
}

static int join(Ctl *ctl, CtlWait *w, char *args[], CtlPatterns *wanted) {
        int status = EX_OK, found = EX_OK;
        _cleanup_free_ char **sites = join_ids(ctl, w, args, &found);

        if (!sites)
                return ctl_no_memory();
        status = ctl_patterns_parse(ctl, sites, wanted);
        if (status == EX_OK && wanted->n > 0 && !ctl->settings.postfix_config_directory[0]) {
                ctl_error("postfix_config_directory is empty: there is no Postfix to ask");
                status = EX_CONFIG;
        }
        if (status == EX_OK && wanted->n > 0)
                status = join_messages(ctl, w, wanted);
        return ctl_worse(found, status);
}

int ctl_watch(Ctl *ctl, char *args[]) {
        _cleanup_(ctl_wait_done) CtlWait w = CTL_WAIT_INIT;
        _cleanup_(ctl_report_done) CtlReport report = {0};
        _cleanup_(ctl_patterns_done) CtlPatterns wanted = {0};
        int status, joined;

        status = ctl_wait_begin(ctl, &w);
        if (status != EX_OK)
                return status;
        joined = join(ctl, &w, args, &wanted);
        if (joined != EX_OK && joined != EX_NOINPUT)
                return joined;
        if (!ctl->quiet && !ctl->json)
                ctl_print("%lu under way\n", ctl_wait_moved(&w));
        status = ctl_worse(joined, ctl_wait_end(ctl, &w, false));
        status = ctl_worse(status, ctl_report_make(ctl, &w, &wanted, 1, &report));
        ctl_report_print(ctl, &report, "followed");
        return ctl_worse(status, ctl_report_status(&report.total));
}
