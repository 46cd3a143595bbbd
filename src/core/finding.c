/* SPDX-License-Identifier: MIT */

#include "core/finding.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistr.h>

/* The texts quote names of files and what other programs printed; JSON takes UTF-8 only. */
static void set_text(char *ret, size_t size, const char *format, va_list ap) {
        const uint8_t *bad;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) vsnprintf(ret, size, format, ap);
#pragma GCC diagnostic pop
        for (char *p = ret; *p; p++)
                if ((unsigned char) *p < ' ' || *p == 0x7f)
                        *p = '?';
        while ((bad = u8_check((const uint8_t *) ret, strlen(ret))))
                ret[bad - (const uint8_t *) ret] = '?';
}

TestFinding *findings_add(TestFindings *f, const char *check, FindingResult result,
                          const char *format, ...) {
        TestFinding *finding;
        va_list ap;

        if (result > f->worst)
                f->worst = result;
        if (f->n == FINDINGS_MAX)
                return NULL;
        finding = &f->items[f->n++];
        finding->result = result;
        finding->remedy[0] = '\0';
        (void) snprintf(finding->check, sizeof finding->check, "%s", check);
        for (char *p = finding->check; *p; p++)
                if (*p < 'a' || *p > 'z') /* a name of a check has letters only */
                        *p = '?';
        va_start(ap, format);
        set_text(finding->reason, sizeof finding->reason, format, ap);
        va_end(ap);
        return finding;
}

bool findings_have(const TestFindings *f, const char *check) {
        for (size_t i = 0; i < f->n; i++)
                if (strcmp(f->items[i].check, check) == 0)
                        return true;
        return false;
}

void finding_set_reason(TestFinding *finding, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        set_text(finding->reason, sizeof finding->reason, format, ap);
        va_end(ap);
}

void finding_set_remedy(TestFinding *finding, const char *format, ...) {
        va_list ap;

        if (!finding)
                return;
        va_start(ap, format);
        set_text(finding->remedy, sizeof finding->remedy, format, ap);
        va_end(ap);
}

const char *finding_result_name(FindingResult result) {
        static const char *const names[_FINDING_RESULT_MAX] = {"ok", "warning", "failed"};

        return names[result];
}
