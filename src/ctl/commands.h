/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): the table of commands and what each of them does. A command returns an exit status,
 * by sysexits(3), after it has said on standard error what went wrong. */

#include "ctl/ctl.h"

/* Each option but the general ones is for certain commands only (Verb.options). */
typedef enum CtlOption {
        CTL_DRY_RUN = 1 << 0,
        CTL_SUBDOMAINS = 1 << 1,
        CTL_BY = 1 << 2,
        CTL_TOP = 1 << 3,
        CTL_LIMIT = 1 << 4,
        CTL_EVERY = 1 << 5,
        CTL_REASON = 1 << 6,
        CTL_WAIT = 1 << 7,
        CTL_REPAIR = 1 << 8,
        CTL_OUTPUT = 1 << 9,
        CTL_NO_START = 1 << 10,
        CTL_THRESHOLD = 1 << 11,
        CTL_SINCE = 1 << 12,
        CTL_TABLE = 1 << 13, /* how a table is shown */
        CTL_LIST = 1 << 14,  /* list only */
        CTL_ALL = 1 << 15,
        CTL_IDS = 1 << 16,
} CtlOption;

typedef enum VerbGroup { VERB_LOOK, VERB_ACT, VERB_SET_UP } VerbGroup;

typedef struct Verb {
        const char *name, *arguments; /* for people */
        int min, max;                 /* number of arguments; max < 0: any */
        unsigned options;             /* CtlOption, or'ed */
        int (*run)(Ctl *ctl, char *args[]);
        VerbGroup group;
        const char *help; /* what it does, in the imperative and in lower case */
} Verb;

/* The commands. @args ends in NULL; its length is between Verb.min and Verb.max. */
int ctl_list(Ctl *ctl, char *args[]);
int ctl_show(Ctl *ctl, char *args[]);
int ctl_flush(Ctl *ctl, char *args[]);
int ctl_watch(Ctl *ctl, char *args[]);
int ctl_deliver(Ctl *ctl, char *args[]);
int ctl_add(Ctl *ctl, char *args[]);
int ctl_refresh(Ctl *ctl, char *args[]);
int ctl_purge(Ctl *ctl, char *args[]);
int ctl_import(Ctl *ctl, char *args[]);
int ctl_metrics(Ctl *ctl, char *args[]);
int ctl_history(Ctl *ctl, char *args[]);
int ctl_verify(Ctl *ctl, char *args[]);
int ctl_status(Ctl *ctl, char *args[]);
int ctl_check(Ctl *ctl, char *args[]);

#define CTL_CHECK_UNKNOWN 3 /* the last exit status of check: those of Nagios' plugins */
int ctl_enable_postfix(Ctl *ctl, char *args[]);
int ctl_disable_postfix(Ctl *ctl, char *args[]);
int ctl_export(Ctl *ctl, char *args[]);

/** ctl_export_logs() - as "fflushctl export", but also while Postfix uses fflushd; goes on as the
 * owner of the queue */
int ctl_export_logs(Ctl *ctl);

/** ctl_import_deferred() - as "fflushctl import"; @ret_added receives the number of new records */
int ctl_import_deferred(Ctl *ctl, unsigned long *ret_added);

/**
 * ctl_host() - run fflushctl on another host instead, over ssh(1), and show its output
 * @lasts:  it shows progress, and Ctrl-C has it tell what became of it: on a terminal, give it one
 * @words:  its options and arguments, @n of them
 *
 * Return: its exit status, or that of ssh(1).
 */
int ctl_host(const char *host, bool lasts, char *const words[], size_t n);

typedef struct CtlHosts {
        char *const *hosts, *const *words; /* words: as of ctl_host() */
        size_t n_hosts, n_words;
        const char *input; /* path of the standard input of each */
        uint64_t timeout;  /* microseconds to wait for one that does not answer; 0: the default */
        bool json, is_check;
} CtlHosts;

/** ctl_hosts() - the same on several hosts at once; Return: the worst of the exit statuses. */
int ctl_hosts(const CtlHosts *how);
