/* SPDX-License-Identifier: MIT */
#pragma once

/* Why the service cannot use a file, directory or table, and what helps: from what the kernel
 * answers to this process in its sandbox, never from what is likely. Does not log. */

#include <stdbool.h>

#include "core/finding.h"

/* Where the facts are; other files for tests. */
typedef struct RemedyFacts {
        const char *mountinfo; /* /proc/self/mountinfo */
        const char *net_dev;   /* /proc/self/net/dev */
        const char *cgroup;    /* /proc/self/cgroup: which unit this is */
        const char *passwd;    /* /etc/passwd: names without NSS, which may block */
} RemedyFacts;

extern const RemedyFacts remedy_facts;

/**
 * remedy_path() - what gives this process access to a file
 * @path:    absolute
 * @access:  R_OK, W_OK, X_OK, or'ed, as for access(2)
 * @ret:     receives the text, or "" if access is there, or nothing is known
 *
 * It knows modes and owners, and what ProtectHome=, PrivateTmp=, ProtectSystem= and
 * InaccessiblePaths= hide or make read-only.
 *
 * Return: 0, or the negative errno of access(2).
 */
int remedy_path(const RemedyFacts *facts, const char *path, int access,
                char ret[static FINDING_TEXT_SIZE]);

/** remedy_owned() - the same for a file or directory of the queue, which must be the service's own
 */
int remedy_owned(const RemedyFacts *facts, const char *path, int access,
                 char ret[static FINDING_TEXT_SIZE]);

/** remedy_read_only() - what makes a directory writable that is on a read-only mount */
void remedy_read_only(const RemedyFacts *facts, const char *path,
                      char ret[static FINDING_TEXT_SIZE]);

/**
 * remedy_postfix() - the same for main.cf
 * @directory:  of Postfix's configuration
 */
int remedy_postfix(const RemedyFacts *facts, const char *directory,
                   char ret[static FINDING_TEXT_SIZE]);

/**
 * remedy_table() - what helps if a table cannot be asked
 * @name:  type:name as in main.cf
 *
 * It looks at its files, at the sockets and databases that its own configuration names, and
 * whether there is a network. Return: true, or false: nothing is known, and @ret is "".
 */
bool remedy_table(const RemedyFacts *facts, const char *name, char ret[static FINDING_TEXT_SIZE]);

#define REMEDY_NAME_SIZE 64u

/** remedy_user() - name of the user this process runs as, or its number. Return: @ret */
const char *remedy_user(const RemedyFacts *facts, char ret[static REMEDY_NAME_SIZE]);

#define REMEDY_UNIT_SIZE 256u

/** remedy_unit() - the service unit of this process; fflushd.service if it is in none */
const char *remedy_unit(const RemedyFacts *facts, char ret[static REMEDY_UNIT_SIZE]);
