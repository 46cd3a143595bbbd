/* SPDX-License-Identifier: MIT */

#include "daemon/remedy.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/spool.h"
#include "util/util.h"

static char text[FINDING_TEXT_SIZE];
static char mountinfo[512], net_dev[512], cgroup[512];
static RemedyFacts facts;

static char *at(const char *name, char ret[static 512]) {
        (void) snprintf(ret, 512, "%s/%s", spool_dir, name);
        return ret;
}

#define AT(name)     at((name), (char[512]){""})

#define INACCESSIBLE "21 20 0:24 /systemd/inaccessible/dir %s ro,nosuid - tmpfs tmpfs rw\n"
#define IN_NSPAWN    "21 20 0:24 /host/inaccessible/dir %s ro,nosuid shared:3 - tmpfs tmpfs rw\n"
#define PRIVATE                                                                                    \
        "21 20 8:1 /var/tmp/systemd-private-0123-fflushd.service-4567/tmp %s rw - ext4 /dev/sda "  \
        "rw\n"
#define READ_ONLY "21 20 8:1 / %s ro,nosuid shared:1 master:2 - ext4 /dev/sda rw,relatime\n"
#define REMOUNTED "21 20 8:1 / %s ro,nosuid - ext4 /dev/sda ro,relatime\n"
#define ROOT      "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw\n"

static void set_mounts(const char *format, const char *point) {
        char line[2048];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) snprintf(line, sizeof line, format, point);
#pragma GCC diagnostic pop
        spool_write("mountinfo", ROOT);
        spool_append("mountinfo", line);
}

static void setup(void) {
        spool_setup();
        facts = (RemedyFacts){.mountinfo = at("mountinfo", mountinfo),
                              .net_dev = at("dev", net_dev),
                              .cgroup = at("cgroup", cgroup),
                              .passwd = "/etc/passwd"};
        spool_write("mountinfo", ROOT);
        spool_write("dev", "Inter-|   Receive\n face |bytes\n    lo: 0 0\n  eth0: 0 0\n");
        spool_write("cgroup", "1:name=systemd:/\n0::/system.slice/fflushd.service\n");
        if (geteuid() == 0)
                ck_assert_int_eq(chmod(spool_dir, 0755), 0);
}

#define expect(part) ck_assert_msg(strstr(text, (part)), "\"%s\" has no \"%s\"", text, (part))

START_TEST(what_can_be_read_needs_nothing) {
        spool_write("file", "x");
        ck_assert_int_eq(remedy_path(&facts, AT("file"), R_OK, text), 0);
        ck_assert_str_eq(text, "");
        ck_assert_int_eq(remedy_path(&facts, AT("nosuch"), R_OK, text), -ENOENT);
        ck_assert_str_eq(text, "");
        ck_assert(!remedy_table(&facts, "nosuch:x", text));
        ck_assert(!remedy_table(&facts, "static:all", text));
        ck_assert(!remedy_table(&facts, "inline:{a=b}", text));
        ck_assert(!remedy_table(&facts, "proxy:hash:/nonexistent/x", text));
}
END_TEST

START_TEST(modes_and_owners_say_which_command_helps) {
        char owner[REMEDY_NAME_SIZE];

        spool_put("d/file", 0600, 0);
        spool_put("closed/file", 0644, 0);
        if (geteuid() != 0 || !spool_unprivileged())
                return;
        (void) remedy_user(&facts, owner);
        ck_assert_str_eq(owner, getpwuid(geteuid())->pw_name);
        ck_assert_int_eq(fchmodat(spool_fd, "d/file", 0, 0), 0);
        ck_assert_int_eq(remedy_path(&facts, AT("d/file"), R_OK, text), -EACCES);
        expect("chmod u+r '");
        ck_assert_int_eq(seteuid(0), 0);
        ck_assert_int_eq(fchmodat(spool_fd, "d/file", 0640, 0), 0);
        ck_assert_int_eq(fchownat(spool_fd, "d/file", 0, 0, 0), 0);
        ck_assert_int_eq(fchmodat(spool_fd, "closed", 0750, 0), 0);
        ck_assert_int_eq(fchownat(spool_fd, "closed", 0, 1, 0), 0);
        ck_assert_int_eq(setgroups(0, NULL), 0);
        ck_assert_int_eq(setegid(getpwnam(owner)->pw_gid), 0);
        ck_assert_int_eq(seteuid(getpwnam(owner)->pw_uid), 0);
        ck_assert_int_eq(remedy_path(&facts, AT("d/file"), R_OK, text), -EACCES);
        expect("chgrp ");
        expect("&& chmod g+r '");
        ck_assert_int_eq(remedy_path(&facts, AT("closed/file"), R_OK, text), -EACCES);
        expect("setfacl -m u:");
        expect(":x '");
        expect("/closed'");
        ck_assert_int_eq(remedy_owned(&facts, AT("d/file"), R_OK | W_OK, text), -EACCES);
        expect("chown ");
        expect("chmod 600 '");
        ck_assert_int_eq(seteuid(0), 0);
        ck_assert_int_eq(setegid(0), 0);
}
END_TEST

/* What is not there, as the mount in its place is empty. */
static const struct {
        const char *mounts, *point, *path, *remedy;
} hidden[] = {
        {INACCESSIBLE, "/home", "/home/x/map", "with [Service] ProtectHome=read-only, then"},
        {IN_NSPAWN, "/root", "/root/map-nosuch", "with [Service] ProtectHome=read-only, then"},
        {IN_NSPAWN, "/run/user", "/run/user/1/nosuch", "ProtectHome="},
        {INACCESSIBLE, "/nosuch", "/nosuch/map", "InaccessiblePaths="},
        {PRIVATE, "/var/tmp", "/var/tmp/nosuch-socket", "with [Service] PrivateTmp=no, then"},
        {PRIVATE, "/tm\\040p", "/tm p/nosuch", "PrivateTmp="},
};

START_TEST(what_a_directive_hides_is_told_from_what_is_not_there) {
        char name[128];

        set_mounts(hidden[_i].mounts, hidden[_i].point);
        if (geteuid() != 0 && strncmp(hidden[_i].path, "/root/", strlen("/root/")) == 0)
                return; /* who is not root cannot see that it is not there */
        ck_assert_int_eq(remedy_path(&facts, hidden[_i].path, R_OK, text), -ENOENT);
        expect(hidden[_i].remedy);
        if (strstr(text, "drop-in"))
                expect("; drop-in for fflushd.service with [Service] ");
        (void) snprintf(name, sizeof name, "socketmap:unix:%s:x", hidden[_i].path);
        ck_assert(remedy_table(&facts, name, text));
        expect(hidden[_i].remedy);
        spool_write("mountinfo", ROOT);
        ck_assert_int_eq(remedy_path(&facts, hidden[_i].path, R_OK, text), -ENOENT);
        ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(a_read_only_mount_is_told_from_a_read_only_file_system) {
        set_mounts(READ_ONLY, "/srv");
        spool_write("cgroup", "0::/system.slice/system-fflushd.slice/fflushd@postfix-b.service\n");
        remedy_read_only(&facts, "/srv/db", text);
        expect("drop-in for fflushd@postfix-b.service with [Service] ReadWritePaths=/srv/db, then "
               "systemctl restart fflushd@postfix-b.service");
        set_mounts(REMOUNTED, "/srv");
        remedy_read_only(&facts, "/srv/db", text);
        ck_assert_str_eq(text, "mount -o remount,rw /srv");
        remedy_read_only(&facts, "/srvdb", text); /* is not below it */
        ck_assert_str_eq(text, "");
}
END_TEST

static const struct {
        const char *name, *file, *text, *remedy;
} tables[] = {
        {"hash:%s/map", "map", "", "postmap 'hash:%s/map'"},
        {"lmdb:%s/map", "map.lmdb", "", NULL},
        {"hash:%s/map", NULL, "", "%s/map.db does not exist"},
        {"texthash:%s/map", NULL, "", "%s/map does not exist"},
        {"pipemap:{static:x,texthash:%s/map}", NULL, "", "%s/map does not exist"},
        {"unionmap:{ texthash:%s/map }", NULL, "", "%s/map does not exist"},
        {"mysql:%s/map", "map", "user = x\nhosts = unix:%s/mysqld.sock\n",
         "%s/mysqld.sock does not"},
        {"mysql:%s/map", "map", "hosts=unix:%s/map, db.example\n", "proxy:mysql:%s/map"},
        {"pgsql:%s/map", "map", "# hosts = unix:/x\nhosts = db.example\n", "PrivateNetwork=no"},
        {"ldap:%s/map", "map", "server_host = ldap://x.example\n", "IPAddressAllow=any"},
        {"ldap:%s/map", "map", "server_host = ldapi://%%2fx\n", NULL},
        {"memcache:%s/map", "map", "memcache = inet:h:1\n", "proxy:memcache:%s/map"},
        {"sqlite:%s/map", "map", "dbpath = %s/nosuch\n", "%s/nosuch does not exist"},
        {"tcp:h:1", NULL, "", "name it proxy:tcp:h:1, with $fast_flush_domains in proxy_read_maps"},
        {"socketmap:inet:h:1:n", NULL, "", "PrivateNetwork="},
        {"socketmap:unix:%s/nosuch:n", NULL, "", "%s/nosuch does not exist"},
};

static const char *fill(const char *format, char ret[static 1024]) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) snprintf(ret, 1024, format, spool_dir);
#pragma GCC diagnostic pop
        return ret;
}

START_TEST(a_table_is_looked_at_with_all_that_it_names) {
        char name[1024], content[1024], remedy[1024];

        spool_write("dev", "Inter-|\n face |bytes\n    lo: 0 0\n");
        if (tables[_i].file)
                spool_write(tables[_i].file, fill(tables[_i].text, content));
        (void) fill(tables[_i].name, name);
        ck_assert_int_eq(remedy_table(&facts, name, text), tables[_i].remedy != NULL);
        if (tables[_i].remedy)
                expect(fill(tables[_i].remedy, remedy));
}
END_TEST

START_TEST(where_there_is_a_network_it_is_not_what_is_missing) {
        ck_assert(!remedy_table(&facts, "tcp:h:1", text));
        ck_assert_str_eq(text, "");
        facts.net_dev = "/nonexistent";
        ck_assert(!remedy_table(&facts, "tcp:h:1", text));
}
END_TEST

START_TEST(an_sqlite_database_in_wal_mode_needs_a_directory_to_write_to) {
        static unsigned char header[100] = "SQLite format 3";
        char name[1024], config[1024];

        header[18] = header[19] = (unsigned char) _i;
        spool_write("map", fill("dbpath = %s/db/data\n", config));
        spool_put("db/data", 0644, 0);
        spool_write_bytes("db/data", header, sizeof header);
        if (geteuid() != 0 || !spool_unprivileged())
                return;
        ck_assert(!remedy_table(&facts, fill("sqlite:%s/map", name), text));
        ck_assert_int_eq(fchmodat(spool_fd, "db", 0555, 0), 0);
        ck_assert_int_eq(remedy_table(&facts, name, text), _i == 2);
        if (_i == 2)
                expect("WAL mode");
        if (_i == 2)
                expect("/db/data' 'PRAGMA journal_mode=DELETE'");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("remedy");

        tcase_add_checked_fixture(tc, setup, spool_teardown);
        tcase_add_test(tc, what_can_be_read_needs_nothing);
        tcase_add_test(tc, modes_and_owners_say_which_command_helps);
        tcase_add_loop_test(tc, what_a_directive_hides_is_told_from_what_is_not_there, 0,
                            ARRAY_SIZE(hidden));
        tcase_add_test(tc, a_read_only_mount_is_told_from_a_read_only_file_system);
        tcase_add_loop_test(tc, a_table_is_looked_at_with_all_that_it_names, 0, ARRAY_SIZE(tables));
        tcase_add_test(tc, where_there_is_a_network_it_is_not_what_is_missing);
        tcase_add_loop_test(tc, an_sqlite_database_in_wal_mode_needs_a_directory_to_write_to, 1, 3);
        return run_case("remedy", tc);
}
