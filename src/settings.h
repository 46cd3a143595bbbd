/* SPDX-License-Identifier: MIT */
#pragma once

/* The configuration: fflushd.conf and conf.d first, then Postfix's main.cf, then the defaults. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Values as the daemon uses them. Strings belong to the Settings. */
typedef struct Settings {
        const char *queue_directory;
        const char *fast_flush_domains; /* NULL: unknown, see @domains_problem */
        const char *hash_queue_names;
        const char *queue_service_name;
        const char *postfix_config_directory; /* "": there is no Postfix to ask */
        bool subdomains; /* fast_flush_domains is in parent_domain_matches_subdomains */
        bool announce;   /* protocol_announcement, with "auto" resolved */
        bool sync;
        unsigned hash_queue_depth;
        unsigned max_use;                                        /* 0: no limit */
        uint64_t fast_flush_refresh_time, fast_flush_purge_time; /* microseconds, as all below */
        uint64_t trigger_timeout, ipc_timeout, request_timeout, max_idle;

        char *problems; /* NULL, or what is wrong, one line each; the settings can be used anyway */
        char **text;    /* as written, by table index; private */
        unsigned char *source;
} Settings;

#define SETTINGS_FILE SYSCONFDIR "/fflushd/fflushd.conf"

/**
 * settings_load() - read the configuration
 * @file:  NULL for SETTINGS_FILE, which may be missing
 * @ret:   receives the settings; settings_free() them
 *
 * A file that cannot be read or parsed, or has a wrong value, is as good as empty, and is named in
 * @ret->problems with the line: the service goes on with Postfix's values and the defaults. Values
 * that Postfix should have told but did not are the documented defaults; only fast_flush_domains
 * stays unknown then, since a guess would refuse mail's records without a word.
 *
 * Return: 0, or -ENOMEM.
 */
int settings_load(const char *file, Settings *ret);
void settings_free(Settings *s);

/** settings_print() - all values in use and where each comes from, as a configuration file */
void settings_print(const Settings *s, FILE *f);
