/* SPDX-License-Identifier: MIT */
#pragma once

/* uthash(3), whose macros end the process when memory is short unless told otherwise. Functions
 * that add to a table declare "bool oom = false;" before, and look at it after. The only file to
 * include uthash.h. */

#define HASH_NONFATAL_OOM          1
#define uthash_nonfatal_oom(entry) (oom = true)
#include <stdbool.h>
#include <uthash.h>
