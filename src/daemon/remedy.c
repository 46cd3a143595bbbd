/* SPDX-License-Identifier: MIT */

#include "daemon/remedy.h"

#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "util/textfile.h"
#include "util/util.h"

#define TABLE_CONFIG_MAX 65536u /* bytes of mysql_table(5) and the like */
#define WORDS            " \t\r\n,"

const RemedyFacts remedy_facts = {.mountinfo = "/proc/self/mountinfo",
                                  .net_dev = "/proc/self/net/dev",
                                  .cgroup = "/proc/self/cgroup",
                                  .passwd = "/etc/passwd"};

static bool __attribute__((format(printf, 2, 3)))
say(char ret[static FINDING_TEXT_SIZE], const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(ret, FINDING_TEXT_SIZE, format, ap);
        va_end(ap);
        return true;
}

/* ------------------------------------------------------------------------------- who we are */

const char *remedy_user(const RemedyFacts *facts, char ret[static REMEDY_NAME_SIZE]) {
        FILE *f = fopen(facts->passwd, "re");
        const struct passwd *entry;

        (void) snprintf(ret, REMEDY_NAME_SIZE, "%u", (unsigned) geteuid());
        if (!f)
                return ret;
        while ((entry = fgetpwent(f)))
                if (entry->pw_uid == geteuid()) {
                        (void) snprintf(ret, REMEDY_NAME_SIZE, "%s", entry->pw_name);
                        break;
                }
        (void) fclose(f);
        return ret;
}

const char *remedy_unit(const RemedyFacts *facts, char ret[static REMEDY_UNIT_SIZE]) {
        static const char suffix[] = ".service";
        _cleanup_free_ char *line = NULL;
        FILE *f = fopen(facts->cgroup, "re");
        size_t size = 0;

        (void) snprintf(ret, REMEDY_UNIT_SIZE, "fflushd%s", suffix);
        while (f && getline(&line, &size, f) > 0) {
                char *name = strrchr(line, '/'), *end = name ? strstr(name, suffix) : NULL;

                if (end && streq(end + strlen(suffix), "\n"))
                        (void) snprintf(ret, REMEDY_UNIT_SIZE, "%.*s",
                                        (int) (end - name - 1 + (long) strlen(suffix)), name + 1);
        }
        if (f)
                (void) fclose(f);
        return ret;
}

static bool drop_in(const RemedyFacts *facts, const char *why, const char *directives,
                    char ret[static FINDING_TEXT_SIZE]) {
        char unit[REMEDY_UNIT_SIZE];

        (void) remedy_unit(facts, unit);
        return say(ret, "%s; drop-in for %s with [Service] %s, then systemctl restart %s", why,
                   unit, directives, unit);
}

/* ----------------------------------------------------------------------------------- mounts */

typedef struct Mount {
        char root[PATH_MAX], point[PATH_MAX];
        bool read_only;       /* this mount */
        bool super_read_only; /* its file system */
} Mount;

/* In mountinfo, blanks and the like are \ooo. */
static void unescape(char *text) {
        char *to = text;

        for (const char *p = text; *p; to++) {
                char digits[4] = "", *end = digits, c = 0;

                if (p[0] == '\\')
                        (void) strncpy(digits, p + 1, sizeof digits - 1);
                if (digits[0] >= '0' && digits[0] <= '7')
                        c = (char) strtoul(digits, &end, 8);
                if (end == digits)
                        c = *p++;
                else
                        p += 1 + (end - digits);
                *to = c;
        }
        *to = '\0';
}

static bool parse_mount(const char *line, Mount *ret) {
        char options[64], super_options[64] = "";
        const char *rest = strstr(line, " - ");

        if (!rest ||
            sscanf(line, "%*s %*s %*s %4095s %4095s %63s", ret->root, ret->point, options) != 3)
                return false;
        (void) sscanf(rest, " - %*s %*s %63s", super_options);
        unescape(ret->root);
        unescape(ret->point);
        ret->read_only = strncmp(options, "ro", 2) == 0;
        ret->super_read_only = strncmp(super_options, "ro", 2) == 0;
        return true;
}

/* The mount that @path is on; of two on the same point the later one is on top. */
static bool find_mount(const RemedyFacts *facts, const char *path, Mount *ret) {
        _cleanup_free_ char *line = NULL;
        FILE *f = fopen(facts->mountinfo, "re");
        bool found = false;
        size_t size = 0;
        Mount mount;

        while (f && getline(&line, &size, f) > 0)
                if (parse_mount(line, &mount) && is_below(path, mount.point) &&
                    (!found || strlen(mount.point) >= strlen(ret->point))) {
                        *ret = mount;
                        found = true;
                }
        if (f)
                (void) fclose(f);
        return found;
}

/* Does a directive of the unit hide the path by a mount of its own? */
static bool is_hidden(const RemedyFacts *facts, const char *path,
                      char ret[static FINDING_TEXT_SIZE]) {
        char why[FINDING_TEXT_SIZE];
        Mount m;

        if (!find_mount(facts, path, &m))
                return false;
        if (strstr(m.root, "/systemd-private-")) {
                (void) say(why, "PrivateTmp= hides %s", path);
                return drop_in(facts, why, "PrivateTmp=no", ret);
        }
        if (!strstr(m.root, "/inaccessible/"))
                return false;
        if (streq(m.point, "/home") || streq(m.point, "/root") || streq(m.point, "/run/user")) {
                (void) say(why, "ProtectHome= hides %s", path);
                return drop_in(facts, why, "ProtectHome=read-only", ret);
        }
        return say(ret, "InaccessiblePaths= or a directive like it hides %s from the service",
                   m.point);
}

static bool is_read_only(const RemedyFacts *facts, const char *path,
                         char ret[static FINDING_TEXT_SIZE]) {
        char why[FINDING_TEXT_SIZE], directive[FINDING_TEXT_SIZE];
        Mount m;

        if (!find_mount(facts, path, &m))
                return false;
        if (m.super_read_only)
                return say(ret, "mount -o remount,rw %s", m.point);
        if (!m.read_only)
                return false;
        (void) say(why, "ProtectSystem= makes %s read-only", path);
        (void) say(directive, "ReadWritePaths=%s", path);
        return drop_in(facts, why, directive, ret);
}

/* ------------------------------------------------------------------------------------ modes */

static bool is_our_group(gid_t gid) {
        gid_t groups[NGROUPS_MAX];
        int n = getgroups(NGROUPS_MAX, groups);

        for (int i = 0; i < n; i++)
                if (groups[i] == gid)
                        return true;
        return gid == getegid();
}

static const char *letters(int access) {
        static const char *const words[] = {"", "x", "w", "wx", "r", "rx", "rw", "rwx"};

        return words[access & (R_OK | W_OK | X_OK)];
}

/* Give access without taking any from somebody else: a group other than root's may be in use, so it
 * stays as it is. */
static void grant(const RemedyFacts *facts, const char *path, int access,
                  char ret[static FINDING_TEXT_SIZE]) {
        char user[REMEDY_NAME_SIZE];
        struct stat st;

        (void) remedy_user(facts, user);
        if (stat(path, &st) < 0)
                return;
        if (st.st_uid == geteuid())
                (void) say(ret, "chmod u+%s '%s'", letters(access), path);
        else if (is_our_group(st.st_gid))
                (void) say(ret, "chmod g+%s '%s'", letters(access), path);
        else if (st.st_gid == 0)
                (void) say(ret, "chgrp %s '%s' && chmod g+%s '%s'", user, path, letters(access),
                           path);
        else
                (void) say(ret, "setfacl -m u:%s:%s '%s'", user, letters(access), path);
}

/* The owner and modes that Postfix itself sets: everybody may read main.cf, and postfix owns the
 * queues. */
static void restore(const RemedyFacts *facts, const char *path, bool owned,
                    char ret[static FINDING_TEXT_SIZE]) {
        char user[REMEDY_NAME_SIZE];
        struct stat st;
        int mode;

        (void) remedy_user(facts, user);
        if (lstat(path, &st) < 0)
                return;
        mode = owned ? (S_ISDIR(st.st_mode) ? 0700 : 0600) : (S_ISDIR(st.st_mode) ? 0755 : 0644);
        if (owned && st.st_uid != geteuid())
                (void) say(ret, "chown %s '%s' && chmod %o '%s'", user, path, (unsigned) mode,
                           path);
        else
                (void) say(ret, "chmod %o '%s'", (unsigned) mode, path);
}

/* The first directory of the path that this process may not search. */
static bool find_barrier(const char *path, char ret[static PATH_MAX]) {
        for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                (void) snprintf(ret, PATH_MAX, "%.*s", (int) (slash - path), path);
                if (euidaccess(ret, X_OK) < 0)
                        return errno == EACCES;
        }
        return false;
}

typedef enum Kind { FILE_OF_OTHERS, FILE_OWNED } Kind;

static int find_remedy(const RemedyFacts *facts, const char *path, int mode, Kind kind,
                       char ret[static FINDING_TEXT_SIZE]) {
        char barrier[PATH_MAX];
        int error;

        ret[0] = '\0';
        if (euidaccess(path, mode) == 0)
                return 0;
        error = -errno;
        if (is_hidden(facts, path, ret))
                return error;
        if (error == -EROFS)
                (void) is_read_only(facts, path, ret);
        else if (error != -EACCES)
                return error;
        else if (find_barrier(path, barrier))
                grant(facts, barrier, X_OK, ret);
        else if (kind == FILE_OWNED)
                restore(facts, path, true, ret);
        else
                grant(facts, path, mode, ret);
        return error;
}

int remedy_path(const RemedyFacts *facts, const char *path, int mode,
                char ret[static FINDING_TEXT_SIZE]) {
        return find_remedy(facts, path, mode, FILE_OF_OTHERS, ret);
}

int remedy_owned(const RemedyFacts *facts, const char *path, int mode,
                 char ret[static FINDING_TEXT_SIZE]) {
        return find_remedy(facts, path, mode, FILE_OWNED, ret);
}

void remedy_read_only(const RemedyFacts *facts, const char *path,
                      char ret[static FINDING_TEXT_SIZE]) {
        ret[0] = '\0';
        (void) is_read_only(facts, path, ret);
}

int remedy_postfix(const RemedyFacts *facts, const char *directory,
                   char ret[static FINDING_TEXT_SIZE]) {
        char path[PATH_MAX];
        int r;

        (void) snprintf(path, sizeof path, "%s/main.cf", directory);
        r = remedy_path(facts, path, R_OK, ret);
        if (r != -EACCES || strstr(ret, "drop-in"))
                return r;
        if (euidaccess(directory, X_OK) < 0)
                restore(facts, directory, false, ret);
        else
                restore(facts, path, false, ret);
        return r;
}

/* ----------------------------------------------------------------------------------- tables */

/* A network namespace of the unit's own (PrivateNetwork=) has the loopback interface only. */
static bool has_network(const RemedyFacts *facts) {
        _cleanup_free_ char *line = NULL;
        FILE *f = fopen(facts->net_dev, "re");
        unsigned n = 0;
        size_t size = 0;

        if (!f)
                return true; /* nothing is known */
        while (getline(&line, &size, f) > 0) {
                const char *name = line + strspn(line, " ");

                n += strchr(name, ':') && !strchr(name, '|') && strncmp(name, "lo:", 3) != 0;
        }
        (void) fclose(f);
        return n > 0;
}

static bool needs_network(const RemedyFacts *facts, const char *name,
                          char ret[static FINDING_TEXT_SIZE]) {
        char unit[REMEDY_UNIT_SIZE];

        if (has_network(facts))
                return false;
        return say(ret,
                   "PrivateNetwork= cuts the service off from the network; name it proxy:%s, with "
                   "$fast_flush_domains in proxy_read_maps, or drop-in for %s with [Service] "
                   "PrivateNetwork=no, RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK, "
                   "IPAddressAllow=any, then systemctl restart %s",
                   name, remedy_unit(facts, unit), unit);
}

static bool see_file(const RemedyFacts *facts, const char *path, int mode,
                     char ret[static FINDING_TEXT_SIZE]) {
        int r = remedy_path(facts, path, mode, ret);

        if (r == -ENOENT && ret[0] == '\0')
                (void) say(ret, "%s does not exist", path);
        return ret[0] != '\0';
}

/* "key = value" of a table's own configuration; @key is at the start of a line. */
static bool find_value(const char *text, const char *key, char *ret, size_t size) {
        size_t n = strlen(key);

        for (const char *line = text; line; line = strchr(line, '\n')) {
                const char *p;

                line += *line == '\n';
                if (strncmp(line, key, n) != 0)
                        continue;
                p = line + n + strspn(line + n, " \t");
                if (*p != '=')
                        continue;
                p++;
                p += strspn(p, " \t");
                (void) snprintf(ret, size, "%.*s", (int) strcspn(p, "\n"), p);
                return true;
        }
        return false;
}

/* In WAL mode even a reader writes, to files beside the database: sqlite.org/wal.html. Bytes 18 and
 * 19 of the header are the versions for writing and reading, 2 for WAL. */
static bool is_wal(const char *path) {
        unsigned char header[20];
        FILE *f = fopen(path, "re");
        bool wal;

        if (!f)
                return false;
        wal = fread(header, 1, sizeof header, f) == sizeof header && header[18] == 2 &&
              header[19] == 2;
        (void) fclose(f);
        return wal;
}

static bool see_sqlite(const RemedyFacts *facts, const char *path,
                       char ret[static FINDING_TEXT_SIZE]) {
        char directory[PATH_MAX], *slash;

        if (see_file(facts, path, R_OK, ret))
                return true;
        (void) snprintf(directory, sizeof directory, "%s", path);
        slash = strrchr(directory, '/');
        if (!slash || !is_wal(path))
                return false;
        *slash = '\0';
        if (euidaccess(directory, W_OK) == 0)
                return false;
        if (errno == EROFS && is_read_only(facts, directory, ret))
                return true;
        return say(ret,
                   "it is in WAL mode, which needs write access to %s; sqlite3 '%s' 'PRAGMA "
                   "journal_mode=DELETE'",
                   directory, path);
}

/* Finds the first host that cannot be reached: "unix:/path", "inet:host:port", "ldap://host",
 * "host". */
static bool see_hosts(const RemedyFacts *facts, const char *name, char *hosts,
                      char ret[static FINDING_TEXT_SIZE]) {
        char *rest = NULL;

        for (char *host = strtok_r(hosts, WORDS, &rest); host;
             host = strtok_r(NULL, WORDS, &rest)) {
                bool local = strncmp(host, "unix:", 5) == 0;

                if (local ? see_file(facts, host + 5, W_OK, ret)
                          : strncmp(host, "ldapi:", 6) != 0 && needs_network(facts, name, ret))
                        return true;
        }
        return false;
}

static bool see_config(const RemedyFacts *facts, const char *name, const char *path,
                       char ret[static FINDING_TEXT_SIZE]) {
        static const char *const keys[] = {"hosts", "server_host", "memcache"};
        _cleanup_free_ char *text = NULL;
        char value[PATH_MAX];

        if (see_file(facts, path, R_OK, ret))
                return true;
        if (textfile_read(path, TABLE_CONFIG_MAX, &text) < 0)
                return false;
        if (find_value(text, "dbpath", value, sizeof value))
                return see_sqlite(facts, value, ret);
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (find_value(text, keys[i], value, sizeof value) &&
                    see_hosts(facts, name, value, ret))
                        return true;
        return false;
}

/* unix:PATH:NAME, inet:HOST:PORT:NAME; socketmap_table(5) */
static bool see_socketmap(const RemedyFacts *facts, const char *name, const char *where,
                          char ret[static FINDING_TEXT_SIZE]) {
        char path[PATH_MAX];

        if (strncmp(where, "unix:", 5) != 0)
                return needs_network(facts, name, ret);
        where += 5;
        (void) snprintf(path, sizeof path, "%.*s", (int) strcspn(where, ":"), where);
        return path[0] == '/' && see_file(facts, path, W_OK, ret);
}

static bool see_indexed(const RemedyFacts *facts, const char *name, const char *path,
                        const char *suffix, char ret[static FINDING_TEXT_SIZE]) {
        char indexed[PATH_MAX];

        (void) snprintf(indexed, sizeof indexed, "%s%s", path, suffix);
        if (remedy_path(facts, indexed, R_OK, ret) == -ENOENT && ret[0] == '\0' &&
            euidaccess(path, F_OK) == 0)
                return say(ret, "postmap '%s'", name);
        return ret[0] != '\0' || see_file(facts, indexed, R_OK, ret);
}

/* A table, or a member of a table of several (unionmap:, pipemap:). */
static bool see_table(const RemedyFacts *facts, const char *name,
                      char ret[static FINDING_TEXT_SIZE]) {
        static const struct {
                const char *type, *suffix; /* NULL: its configuration names hosts or files */
        } types[] = {{"texthash", ""}, {"regexp", ""},   {"pcre", ""},      {"cidr", ""},
                     {"hash", ".db"},  {"btree", ".db"}, {"lmdb", ".lmdb"}, {"cdb", ".cdb"},
                     {"dbm", ".pag"},  {"sdbm", ".pag"}, {"ldap", NULL},    {"mysql", NULL},
                     {"pgsql", NULL},  {"sqlite", NULL}, {"mongodb", NULL}, {"memcache", NULL}};
        const char *rest = strchr(name, ':');
        size_t n = rest ? (size_t) (rest - name) : 0;

        if (!rest)
                return false;
        rest++;
        if (strncmp(name, "socketmap:", strlen("socketmap:")) == 0)
                return see_socketmap(facts, name, rest, ret);
        if (strncmp(name, "tcp:", strlen("tcp:")) == 0)
                return needs_network(facts, name, ret);
        for (size_t i = 0; *rest == '/' && i < ARRAY_SIZE(types); i++) {
                if (strlen(types[i].type) != n || strncmp(name, types[i].type, n) != 0)
                        continue;
                if (!types[i].suffix)
                        return see_config(facts, name, rest, ret);
                return types[i].suffix[0] ? see_indexed(facts, name, rest, types[i].suffix, ret)
                                          : see_file(facts, rest, R_OK, ret);
        }
        return false;
}

bool remedy_table(const RemedyFacts *facts, const char *name, char ret[static FINDING_TEXT_SIZE]) {
        static const char *const wrappers[] = {"pipemap:", "unionmap:", "randmap:"};
        _cleanup_free_ char *copy = NULL;
        char *rest = NULL;

        ret[0] = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(wrappers); i++)
                if (strncmp(name, wrappers[i], strlen(wrappers[i])) == 0)
                        copy = strdup(name + strlen(wrappers[i]));
        if (!copy)
                return see_table(facts, name, ret);
        for (char *member = strtok_r(copy, WORDS "{}", &rest); member;
             member = strtok_r(NULL, WORDS "{}", &rest))
                if (see_table(facts, member, ret))
                        return true;
        return false;
}
