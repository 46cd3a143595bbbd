/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): the logs in the queue directory, by the patterns on the command line. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/survey.h"
#include "ctl/ctl.h"
#include "ctl/pattern.h"

/* What sites the arguments mean. */
typedef struct CtlPatterns {
        char **texts; /* as they were given; borrowed */
        Pattern *items;
        bool *used; /* which of them have matched something */
        size_t n;
        bool subdomains;
} CtlPatterns;

/**
 * ctl_patterns_parse() - read the arguments of a command
 * @ret:  ctl_patterns_done() it in any case
 *
 * Return: EX_OK, EX_DATAERR (one of them is neither a site nor a glob), or EX_OSERR.
 */
int ctl_patterns_parse(const Ctl *ctl, char *args[], CtlPatterns *ret);
void ctl_patterns_done(CtlPatterns *p);

/** ctl_patterns_match() - is the site, in its normal form, meant? Without patterns each is. */
bool ctl_patterns_match(CtlPatterns *p, const char *site);

/** ctl_patterns_match_address() - the same for what is after the last '@' of an address */
bool ctl_patterns_match_address(CtlPatterns *p, const char *address);

/** ctl_patterns_unused() - name those that have matched nothing; Return: EX_OK, or EX_NOINPUT. */
int ctl_patterns_unused(const CtlPatterns *p);

typedef struct CtlSite {
        char *site;     /* as survey_site() has it */
        char *path;     /* of its log, or a part of it, below the queue directory; NULL: none */
        bool named;     /* @site is its name; else that of a log of flush(8) in parentheses */
        struct stat st; /* of the log */
} CtlSite;

typedef struct CtlSites {
        CtlSite *items;
        size_t n;
} CtlSites;

/**
 * ctl_find_sites() - recorded sites that match one of the patterns; without any, all
 * @all:  a pattern that is a site is in the result also if nothing is recorded for it, without a
 *        word; else it is as any other pattern that matches nothing
 * @ret:  receives them, by name; ctl_sites_done() them in any case
 *
 * Return: EX_OK, EX_NOINPUT (a pattern matches nothing; the others count), or trouble.
 */
int ctl_find_sites(Ctl *ctl, char *patterns[], bool all, CtlSites *ret);
void ctl_sites_done(CtlSites *sites);

/** ctl_survey_sites() - the same for patterns that are read already; it names none that matches
 *                       nothing. Return: EX_OK, or trouble. */
int ctl_survey_sites(Ctl *ctl, CtlPatterns *patterns, CtlSites *ret);

/**
 * ctl_await_lock() - after an -EAGAIN of sitelog_open() and the like: SITELOG_RETRY_USEC pass
 * @until_usec:  by now_usec()
 *
 * Return: true: try again; or false: @until_usec is over.
 */
bool ctl_await_lock(uint64_t until_usec);

/** ctl_read_site() - survey_read_log() with a message for trouble; survey_done() in any case */
int ctl_read_site(Ctl *ctl, const CtlSite *site, SurveyLog *ret);

/** ctl_count_deferred() - how many messages of a log are in the deferred queue now */
unsigned long ctl_count_deferred(Ctl *ctl, const SurveyLog *log);
