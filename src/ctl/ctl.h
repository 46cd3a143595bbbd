/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what all its commands need: the options, Postfix's settings, and the queue. */

#include <stdbool.h>
#include <stdint.h>
#include <sysexits.h>

#include "core/queue.h"
#include "core/settings.h"

typedef struct Ctl {
        /* Options as given; NULL, 0 and false for those that were not. */
        const char *config, *instance, *socket, *host, *by, *reason, *output, *since, *match;
        uint64_t timeout, every; /* microseconds */
        unsigned long top, limit, stop_if_deferred;
        bool quiet, json, dry_run, subdomains, wait, repair, no_start, help;
        uint64_t oldest_warning, oldest_critical, refresh_warning, refresh_critical;
        uint64_t older_than, watch;
        bool reverse, no_legend, no_pager, long_list, all, ids;
        unsigned long deferred_warning, deferred_critical, unrecorded_warning, unrecorded_critical;

        /* Found out when first needed: ctl_settings(), ctl_queue(), ctl_socket(). */
        Settings settings;
        bool has_settings, may_guess; /* the latter: see ctl_settings() */
        Queue queue;                  /* its fd is negative before */
        char *socket_path;
} Ctl;

/**
 * ctl_settings() - have @ctl->settings
 *
 * This fails if postconf(1) failed, so that the place and the layout of the queue are not known:
 * with a guess, records could seem to be of messages that are gone, or commands could act on
 * another instance. With @ctl->may_guess it does not fail for the default instance: for commands
 * that only report the problem.
 *
 * Return: EX_OK, EX_NOINPUT (there is no such instance), EX_CONFIG, or trouble.
 */
int ctl_settings(Ctl *ctl);

/** ctl_queue() - have @ctl->queue, and the settings; never by a guess */
int ctl_queue(Ctl *ctl);

/** ctl_may_look() - may this user look into the queue? For what is said in addition: the settings
 * are not read for it */
bool ctl_may_look(const Ctl *ctl);

/**
 * ctl_become_owner() - go on as the owner of @ctl->queue, for good
 *
 * Root must not write in a directory in which another user may rename and link files: it would
 * write wherever that user wants.
 */
int ctl_become_owner(Ctl *ctl);

#define CTL_SERVICE "fflushd" /* our socket below public/, and so our flush_service_name */

/**
 * ctl_postconf() - a parameter of the instance, by postconf(1); needs the settings
 * Return: its value, to be freed, or NULL: postconf(1) failed.
 */
char *ctl_postconf(Ctl *ctl, const char *name);

/** ctl_postfix_is_stopped() - does nobody read what wakes the queue manager? Looks only if
 * settings or queue are there already; false if that cannot be told. */
bool ctl_postfix_is_stopped(const Ctl *ctl);

#define CTL_UNIT_SIZE 256u

/** ctl_command_name() - "fflushctl", or "fflushctl -i NAME": for hints */
void ctl_command_name(const Ctl *ctl, char ret[static CTL_UNIT_SIZE]);

/** ctl_unit_name() - "fflush.socket", or "fflush@NAME.socket" of an instance */
void ctl_unit_name(const Ctl *ctl, const char *name, const char *type,
                   char ret[static CTL_UNIT_SIZE]);

/** ctl_no_site() - say that a text is neither a site nor a pattern; Return: EX_DATAERR. */
int ctl_no_site(const char *text);

/** ctl_check_id() - a message if that is not a queue ID; Return: EX_OK, or EX_DATAERR. */
int ctl_check_id(const char *id);
