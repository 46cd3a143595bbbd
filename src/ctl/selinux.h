/* SPDX-License-Identifier: MIT */
#pragma once

/* Questions to the SELinux policy that is loaded. By selinuxfs alone, without a library. */

#include <stdbool.h>

#define SELINUX_FS           "/sys/fs/selinux"
#define SELINUX_CONTEXT_SIZE 512u
#define SELINUX_TYPE_SIZE    96u

/* For all: @fs is SELINUX_FS, but for tests. A context is "user:role:type:level". */

/** selinux_enforces() - does SELinux run, and refuse what its policy does not allow? */
bool selinux_enforces(const char *fs);

/** selinux_label_of() - the context of a file, or of what a link leads to; Return: 0, or a negative
 * errno. */
int selinux_label_of(const char *path, char ret[static SELINUX_CONTEXT_SIZE]);

/** selinux_context_of_init() - that of process 1; Return: 0, or a negative errno. */
int selinux_context_of_init(char ret[static SELINUX_CONTEXT_SIZE]);

/**
 * selinux_context_after_exec() - in which context does a program run?
 * @source:   context of the process that starts it
 * @program:  label of its file
 *
 * Return: 0, or a negative errno.
 */
int selinux_context_after_exec(const char *fs, const char *source, const char *program,
                               char ret[static SELINUX_CONTEXT_SIZE]);

/**
 * selinux_allows() - is this allowed, or only logged, as from a permissive domain?
 * @target:  its level counts as that of @source: a connected socket does not tell the one of its
 *           listener
 *
 * Return: 1, 0 (it is denied), or a negative errno: the policy could not be asked.
 */
int selinux_allows(const char *fs, const char *source, const char *target, const char *class,
                   const char *permission);

/** selinux_type() - the part of a context that the rules are about; Return: @ret. */
const char *selinux_type(const char *context, char ret[static SELINUX_TYPE_SIZE]);
