/* SPDX-License-Identifier: MIT */
#pragma once

/* What the self-test found: a bounded list of one-line texts for people, with what helps. */

#include <stdbool.h>
#include <stddef.h>

typedef enum FindingResult {
        FINDING_OK,      /* something to know, as that only a part was looked at */
        FINDING_WARNING, /* mail is recorded and flushed all the same */
        FINDING_FAILED,  /* mail is not recorded, or not flushed */
        _FINDING_RESULT_MAX,
} FindingResult;

#define FINDINGS_MAX       24u
#define FINDING_CHECK_SIZE 16u
#define FINDING_TEXT_SIZE  512u /* a path, and what is said about it */

#define FINDING_OUTDATED   "outdated" /* a check: the rest is of a configuration that has changed */

typedef struct TestFinding {
        char check[FINDING_CHECK_SIZE]; /* "settings", "list", "table", ... */
        FindingResult result;
        char reason[FINDING_TEXT_SIZE];
        char remedy[FINDING_TEXT_SIZE]; /* "": none is known */
} TestFinding;

/* Zero-initialise. */
typedef struct TestFindings {
        TestFinding items[FINDINGS_MAX];
        size_t n;
        FindingResult worst; /* also of those for which there was no room */
        unsigned checks;     /* that were made, with and without a finding */
} TestFindings;

/**
 * findings_add() - add one
 * @check:   name of the check; cut off if it is longer than FINDING_CHECK_SIZE - 1
 * @format:  the reason; what is neither printable nor UTF-8
 *          becomes "?", and it is cut off if it is too long
 *
 * Return: it, for finding_set_remedy(), or NULL: there is no room, and only @f->worst knows it.
 */
TestFinding *findings_add(TestFindings *f, const char *check, FindingResult result,
                          const char *format, ...) __attribute__((format(printf, 4, 5)));

/** findings_have() - is one of this check among them? */
bool findings_have(const TestFindings *f, const char *check);

/** finding_set_reason() - another one than findings_add() was given */
void finding_set_reason(TestFinding *finding, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/** finding_set_remedy() - what helps; does nothing to NULL */
void finding_set_remedy(TestFinding *finding, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/** finding_result_name() - "ok", "warning", "failed", as on the wire */
const char *finding_result_name(FindingResult result);
