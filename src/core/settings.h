/* SPDX-License-Identifier: MIT */
#pragma once

/* The configuration: fflushd.conf and conf.d first, then Postfix's main.cf, then the defaults. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/postconf.h"
#include "util/filestamp.h"

/* Values as the daemon uses them. Strings belong to the Settings. */
typedef struct Settings {
        const char *queue_directory;
        const char *fast_flush_domains;
        const char *hash_queue_names;
        const char *queue_service_name;
        const char *syslog_name; /* without Postfix's word: "postfix", or the instance's name */
        const char *postfix_config_directory; /* "": there is no Postfix to ask */
        bool subdomains; /* fast_flush_domains is in parent_domain_matches_subdomains */
        bool announce;   /* protocol_announcement, with "auto" resolved */
        bool sync;
        unsigned hash_queue_depth;
        unsigned max_use;                                        /* 0: no limit */
        uint64_t fast_flush_refresh_time, fast_flush_purge_time; /* microseconds, as all below */
        uint64_t trigger_timeout, ipc_timeout, request_timeout, max_idle;

        /* Postfix should have told something that must not be guessed, and did not. */
        bool incomplete;
        bool broken;    /* one of the files could not be read or parsed, and counts as empty */
        bool unasked;   /* Postfix should have been asked, and has not answered */
        bool outdated;  /* what Postfix said is of an earlier main.cf */
        char *problems; /* NULL, or what is wrong, one line each; the settings can be used anyway */
        const char *file, *instance; /* of settings_begin(), borrowed */
        PostconfQuery query; /* argv NULL: there is no Postfix to ask; private like the rest */
        char *main_cf;
        Filestamp *files;
        char **text;  /* as written, by table index */
        char **paths; /* of the files that set them; else NULL */
        unsigned char *source;
} Settings;

#define SETTINGS_DIR  SYSCONFDIR "/fflushd"
#define SETTINGS_FILE SETTINGS_DIR "/fflushd.conf"

/**
 * settings_load() - read the configuration
 * @file:      NULL for SETTINGS_FILE, which may be missing, or the instance's own
 * @instance:  NULL, or the name of a further Postfix instance (postmulti(1)), as "postfix-b": then
 *             SETTINGS_DIR/postfix-b/fflushd.conf is read, and Postfix asked in /etc/postfix-b
 * @ret:       receives the settings; settings_done() them
 *
 * Each file for itself: one that cannot be read or parsed, or has a wrong value, is as good as
 * empty, and is named in @ret->problems with the line; the service goes on with the others, with
 * Postfix's values and the defaults. If postconf(1) fails, @ret->incomplete says so.
 *
 * Return: 0, or -ENOMEM.
 */
int settings_load(const char *file, const char *instance, Settings *ret);

/**
 * settings_start() - the same in a hurry: what Postfix said last time will do
 *
 * It will if it is whole and of this command, program and host, main.cf alone has changed since
 * (@ret->outdated says so), and the queue directory is still there. Else Postfix is asked, as by
 * settings_load().
 */
int settings_start(const char *file, const char *instance, Settings *ret);

/**
 * settings_begin() - the first half of settings_load(): the files, without asking Postfix
 * @file, @instance:  kept in @ret, so they have to stay
 * @ret:              for settings_finish(), by way of its query if that has an argv
 */
int settings_begin(const char *file, const char *instance, Settings *ret);

/**
 * settings_finish() - the second half
 * @output:   what postconf(1) has printed, which is changed; NULL: nothing
 * @problem:  why it has not, or NULL
 * Return: 0, or -ENOMEM.
 */
int settings_finish(Settings *s, char *output, const char *problem);
void settings_done(Settings *s);

/** settings_changed() - has a file that was read changed since, or main.cf, or Postfix itself? */
bool settings_changed(const Settings *s);

/** settings_improve() - is @s fit to take the place of @old: as whole as that, or more? */
bool settings_improve(const Settings *s, const Settings *old);

/** settings_print() - all values in use and where each comes from, as a configuration file */
void settings_print(const Settings *s, FILE *f);
