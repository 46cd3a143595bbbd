/* SPDX-License-Identifier: MIT */

#include "ctl/selinux.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

/* A selinuxfs of plain files. One that is asked is overwritten by the question, and what is read
 * then is what stands after it: so a file begins with as many bytes as the question will have. */

#define SMTP   "system_u:system_r:postfix_smtp_t:s0"
#define ADMINS "system_u:object_r:fflushd_t:s0-s0:c0.c1023"
#define SAME   "system_u:object_r:fflushd_t:s0"

static void answer(const char *file, const char *question, const char *reply) {
        char text[1024];

        (void) snprintf(text, sizeof text, "%*s%s", (int) strlen(question), "", reply);
        spool_write(file, text);
}

static void asked(const char *file, const char *question, const char *reply) {
        char text[1024];

        (void) snprintf(text, sizeof text, "%s%s", question, reply);
        spool_expect(file, text);
}

static void setup(void) {
        spool_setup();
        spool_write("enforce", "1");
        spool_write("class/process/index", "2");
        spool_write("class/unix_stream_socket/index", "33");
        spool_write("class/unix_stream_socket/perms/connectto", "22\n");
}

static int allows(const char *reply) {
        static const char question[] = SMTP " " SAME " 33";
        int r;

        answer("access", question, reply);
        r = selinux_allows(spool_dir, SMTP, ADMINS, "unix_stream_socket", "connectto");
        asked("access", question, reply);
        return r;
}

START_TEST(it_enforces_or_does_not) {
        ck_assert(selinux_enforces(spool_dir));
        spool_write("enforce", "0");
        ck_assert(!selinux_enforces(spool_dir));
        spool_write("enforce", "");
        ck_assert(!selinux_enforces(spool_dir));
        ck_assert(!selinux_enforces("/nonexistent"));
}
END_TEST

/* With the level of the source, as that of the target is the caller's. */
START_TEST(the_bit_of_the_permission_decides) {
        ck_assert_int_eq(allows("200000 ffffffff 0 ffffffff 7 0"), 1);
        ck_assert_int_eq(allows("ffffffff ffffffff 0 ffffffff 7 0"), 1);
        ck_assert_int_eq(allows("0 ffffffff 0 ffffffff 7 0"), 0);
        ck_assert_int_eq(allows("ffdfffff ffffffff 0 ffffffff 7 0"), 0);
}
END_TEST

START_TEST(a_permissive_domain_is_denied_nothing) {
        ck_assert_int_eq(allows("0 ffffffff 0 ffffffff 7 1"), 1);
        ck_assert_int_eq(allows("0 ffffffff 0 ffffffff 7"), 0);
}
END_TEST

START_TEST(a_policy_without_levels_is_asked_without) {
        static const char question[] = "u:r:a_t u:r:b_t 33";

        answer("access", question, "200000 ffffffff 0 ffffffff 7 0");
        ck_assert_int_eq(
                selinux_allows(spool_dir, "u:r:a_t", "u:r:b_t", "unix_stream_socket", "connectto"),
                1);
        asked("access", question, "200000 ffffffff 0 ffffffff 7 0");
}
END_TEST

START_TEST(what_is_not_known_is_neither) {
        ck_assert_int_eq(selinux_allows(spool_dir, SMTP, ADMINS, "sock_file", "write"), -ENOENT);
        ck_assert_int_eq(selinux_allows(spool_dir, SMTP, ADMINS, "unix_stream_socket", "fly"),
                         -ENOENT);
        ck_assert_int_eq(allows(""), -EBADMSG);
        ck_assert_int_eq(allows("what?"), -EBADMSG);
        spool_write("class/unix_stream_socket/perms/connectto", "33");
        ck_assert_int_eq(selinux_allows(spool_dir, SMTP, ADMINS, "unix_stream_socket", "connectto"),
                         -EBADMSG);
}
END_TEST

START_TEST(a_program_has_a_context_of_its_own) {
        static const char question[] = "i:i:init_t:s0 o:o:master_exec_t:s0 2";
        char context[SELINUX_CONTEXT_SIZE];

        answer("create", question, "i:i:master_t:s0");
        ck_assert_int_eq(selinux_context_after_exec(spool_dir, "i:i:init_t:s0",
                                                    "o:o:master_exec_t:s0", context),
                         0);
        ck_assert_str_eq(context, "i:i:master_t:s0");
        asked("create", question, "i:i:master_t:s0");
}
END_TEST

START_TEST(the_type_is_the_third_part) {
        char type[SELINUX_TYPE_SIZE];

        ck_assert_str_eq(selinux_type(SMTP, type), "postfix_smtp_t");
        ck_assert_str_eq(selinux_type(ADMINS, type), "fflushd_t");
        ck_assert_str_eq(selinux_type("u:r:t", type), "t");
        ck_assert_str_eq(selinux_type("kernel", type), "");
        ck_assert_str_eq(selinux_type("", type), "");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("selinux");

        tcase_add_checked_fixture(tc, setup, spool_teardown);
        tcase_add_test(tc, it_enforces_or_does_not);
        tcase_add_test(tc, the_bit_of_the_permission_decides);
        tcase_add_test(tc, a_permissive_domain_is_denied_nothing);
        tcase_add_test(tc, a_policy_without_levels_is_asked_without);
        tcase_add_test(tc, what_is_not_known_is_neither);
        tcase_add_test(tc, a_program_has_a_context_of_its_own);
        tcase_add_test(tc, the_type_is_the_third_part);
        return run_case("selinux", tc);
}
