/* SPDX-License-Identifier: MIT */
#pragma once

/* Why mail is deferred or returned, without what differs from message to message: two texts with
 * the same cause are counted as one. */

#include <stddef.h>

#define CAUSE_MAX 200u /* bytes of a cause that are kept, without the final NUL */

/**
 * cause_of() - the cause in a reason as Postfix logs it
 * @reason:  what is in parentheses after status=, or delay_reason of "postqueue -j"
 * @ret:     receives it: "delivery temporarily suspended: ", "host NAME[ADDRESS] said: " and "(in
 * reply to ... command)" are left out; addresses, queue IDs, session tokens and numbers are "..."
 *           or "N". The reply code, the enhanced status code and a port stay.
 *
 * Return: @ret. Source: fflushd's own.
 */
char *cause_of(const char *reason, char ret[static CAUSE_MAX + 1]);

/** cause_skip_host() - what follows "host NAME[ADDRESS] said: " in a reason: which of several hosts
 * said it makes no other cause. Return: a part of @reason, or all of it. */
const char *cause_skip_host(const char *reason);
