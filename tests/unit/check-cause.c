/* SPDX-License-Identifier: MIT */

#include "ctl/cause.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static void is_cause(const char *reason, const char *wanted) {
        char cause[CAUSE_MAX + 1];

        ck_assert_str_eq(cause_of(reason, cause), wanted);
}

START_TEST(what_differs_from_message_to_message_is_left_out) {
        static const struct {
                const char *reason, *cause;
        } vectors[] = {
                {"host mx.cust.example[192.0.2.7] said: 452 4.2.2 <joe@cust.example>: Mailbox full "
                 "(quota exceeded) (in reply to RCPT TO command)",
                 "452 4.2.2 <...>: Mailbox full (quota exceeded)"},
                {"delivery temporarily suspended: connect to mx1.cust.example[192.0.2.7]:25: "
                 "Connection refused",
                 "connect to mx1.cust.example[...]:25: Connection refused"},
                {"connect to cust.example[2001:db8::1]:25: No route to host",
                 "connect to cust.example[...]:25: No route to host"},
                {"connect to 192.0.2.1[192.0.2.1]:25: Connection refused",
                 "connect to 192.0.2.1[...]:25: Connection refused"},
                {"host mx[192.0.2.7] said: 450 4.7.1 Greylisted for 287 seconds, see "
                 "http://grey.example/help (in reply to DATA command)",
                 "450 4.7.1 Greylisted for N seconds, see http://grey.example/help"},
                {"host mx[::1] said: 421 4.7.0 Try again later, closing connection. "
                 "a640c23a62f3a-ab6a4fb2d48si12345678a12.123 - gsmtp (in reply to end of DATA "
                 "command)",
                 "421 4.7.0 Try again later, closing connection. ... - gsmtp"},
                {"host mx[::1] said: 451-4.3.2 4QbcXj2Z1zz1 queue busy",
                 "451-4.3.2 ... queue busy"},
                {"Host or domain name not found. Name service error for name=cust.example type=MX: "
                 "Host not found, try again",
                 "Host or domain name not found. Name service error for name=cust.example type=MX: "
                 "Host not found, try again"},
                {"TLS is required, but was not offered by host mx2.cust.example[192.0.2.9]",
                 "TLS is required, but was not offered by host mx2.cust.example[...]"},
                {"user joe.doe@cust.example is over quota", "user ... is over quota"},
                {"lost connection with mx[192.0.2.1] while sending RCPT TO",
                 "lost connection with mx[...] while sending RCPT TO"},
                {"452", "452"},
                {"", ""},
                {"<", "<"},
                {"[unclosed", "[unclosed"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(vectors); i++)
                is_cause(vectors[i].reason, vectors[i].cause);
}
END_TEST

START_TEST(a_long_reason_is_cut) {
        char reason[5000], cause[CAUSE_MAX + 1];

        memset(reason, 'x', sizeof reason - 1);
        reason[sizeof reason - 1] = '\0';
        ck_assert_uint_eq(strlen(cause_of(reason, cause)), CAUSE_MAX);
        memset(reason, '<', sizeof reason - 1);
        ck_assert_uint_eq(strlen(cause_of(reason, cause)), CAUSE_MAX);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("cause");

        tcase_add_test(tc, what_differs_from_message_to_message_is_left_out);
        tcase_add_test(tc, a_long_reason_is_cut);
        return run_case("cause", tc);
}
