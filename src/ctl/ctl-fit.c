/* SPDX-License-Identifier: MIT */

/* Do the units fit this host? They name the queue directory and the owner of the mail, and their
 * sandbox hides some places: what would fail later is refused now, with what to write where. */

#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "ctl/ctl-print.h"
#include "ctl/ctl-switch.h"
#include "util/number.h"
#include "util/util.h"

#define LINES_SIZE 4096u

/* The lines of its one section. */
typedef struct DropIn {
        char lines[LINES_SIZE];
} DropIn;

typedef struct Fit {
        Switch *s;
        char queue[PATH_MAX], real[PATH_MAX]; /* as main.cf has it but for slashes; resolved */
        char owner[256];                      /* of the mail */
        uid_t uid;
        char *problems, *files; /* for people: what does not fit, and what to write */
} Fit;

static void append(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(char **text, const char *format, ...) {
        char *more = NULL, *joined = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&more, format, ap) < 0)
                more = NULL;
        va_end(ap);
        if (more && asprintf(&joined, "%s%s", *text ? *text : "", more) >= 0) {
                free(*text);
                *text = joined;
        }
        free(more);
}

static void add(DropIn *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(DropIn *d, const char *format, ...) {
        size_t n = strlen(d->lines);
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(d->lines + n, sizeof d->lines - n, format, ap);
        va_end(ap);
}

/* After the override.conf that "systemctl edit" makes, in the order of names. */
static void print_drop_in(Fit *fit, const char *unit, const char *section, const DropIn *d) {
        if (d->lines[0])
                append(&fit->files, "# /etc/systemd/system/%s.d/queue.conf\n[%s]\n%s", unit,
                       section, d->lines);
}

/* ------------------------------------------------------------------------------------ places */

/* Is the queue in one of the places of a list, "-/a /b:/c:rbind"? */
static bool is_in(const Fit *fit, const char *state, const char *property) {
        char value[SWITCH_VALUE_SIZE], place[PATH_MAX];
        char *save, *word;

        (void) switch_property(state, property, value);
        for (word = strtok_r(value, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
                word += strspn(word, "-+");
                word[strcspn(word, ":")] = '\0';
                if (realpath(word, place) && is_below(fit->real, place))
                        return true;
        }
        return false;
}

typedef struct Cover {
        const char *property, *directive, *place;
} Cover;

/* Return: what hides the queue from a unit, or NULL. */
static const Cover *find_cover(const Fit *fit, const char *state) {
        static const Cover covers[] = {{"ProtectHome", "ProtectHome=", "/home"},
                                       {"ProtectHome", "ProtectHome=", "/root"},
                                       {"ProtectHome", "ProtectHome=", "/run/user"},
                                       {"PrivateTmp", "PrivateTmp=", "/tmp"},
                                       {"PrivateTmp", "PrivateTmp=", "/var/tmp"}},
                           lists[] = {{"InaccessiblePaths", "InaccessiblePaths=", NULL},
                                      {"TemporaryFileSystem", "TemporaryFileSystem=", NULL}};

        if (is_in(fit, state, "BindPaths"))
                return NULL;
        for (size_t i = 0; i < ARRAY_SIZE(covers); i++)
                if (!switch_has_property(state, covers[i].property, "no") &&
                    !switch_has_property(state, covers[i].property, "read-only") &&
                    is_below(fit->real, covers[i].place))
                        return &covers[i];
        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                if (is_in(fit, state, lists[i].property))
                        return &lists[i];
        return NULL;
}

/* Shows the queue alone of what is hidden. Directories on the way to it that systemd makes itself
 * get mode 0700 from UMask= (systemd 247), and only root could pass. */
static void bind_queue(const Fit *fit, const Cover *cover, DropIn *d) {
        const char *p;

        if (streq(cover->property, "ProtectHome"))
                add(d, "ProtectHome=tmpfs\n");
        if (cover->place)
                for (p = fit->real + strlen(cover->place) + 1; (p = strchr(p, '/')); p++)
                        add(d, "TemporaryFileSystem=%.*s:mode=0755\n", (int) (p - fit->real),
                            fit->real);
        add(d, "BindPaths=%s\n", fit->real);
}

/* A path that is not there, as where the queue used to be, keeps the service from starting. */
static void fit_writable(Fit *fit, const char *unit, const char *state, DropIn *d) {
        char value[SWITCH_VALUE_SIZE], kept[SWITCH_VALUE_SIZE] = "",
                                       missing[SWITCH_VALUE_SIZE] = "";
        char *save, *word;

        (void) switch_property(state, "ReadWritePaths", value);
        for (word = strtok_r(value, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
                char *list =
                        *word == '-' || access(word + (*word == '+'), F_OK) == 0 ? kept : missing;
                size_t n = strlen(list);

                (void) snprintf(list + n, SWITCH_VALUE_SIZE - n, " %s", word);
        }
        if (missing[0])
                append(&fit->problems, "  %s names what is not there:%s (ReadWritePaths=)\n", unit,
                       missing);
        if (!is_in(fit, state, "ReadWritePaths"))
                append(&fit->problems, "  %s may not write %s (ReadWritePaths=)\n", unit,
                       fit->queue);
        else if (!missing[0])
                return;
        add(d, "ReadWritePaths=\nReadWritePaths=%s%s\n", fit->queue, kept);
}

static void fit_sandbox(Fit *fit, const char *unit, const char *state, bool writes, DropIn *d) {
        const Cover *cover = find_cover(fit, state);

        if (cover) {
                append(&fit->problems, "  %s hides %s from %s\n", cover->directive, fit->real,
                       unit);
                bind_queue(fit, cover, d);
        }
        if (writes && switch_has_property(state, "ProtectSystem", "strict"))
                fit_writable(fit, unit, state, d);
}

/* ------------------------------------------------------------------------------------- users */

static bool is_owner(const Fit *fit, const char *user) {
        const struct passwd *pw = getpwnam(user);
        unsigned long uid = 0;

        return pw ? pw->pw_uid == fit->uid : parse_ulong(user, &uid) == 0 && uid == fit->uid;
}

static bool is_group(const char *group) {
        unsigned long gid;

        return !*group || parse_ulong(group, &gid) == 0 || getgrnam(group);
}

static void fit_user(Fit *fit, const char *unit, const char *state, DropIn *d) {
        char user[SWITCH_VALUE_SIZE], group[SWITCH_VALUE_SIZE];

        (void) switch_property(state, "User", user);
        (void) switch_property(state, "Group", group);
        if (is_owner(fit, user) && is_group(group))
                return;
        append(&fit->problems, "  %s runs as %s (User=), but the mail is %s's\n", unit, user,
               fit->owner);
        /* Without a group, that of the user. */
        add(d, "User=%s\n%s", fit->owner, *group ? "Group=\n" : "");
}

/* ------------------------------------------------------------------------------------- units */

static void fit_socket(Fit *fit) {
        const char *unit = fit->s->units[SWITCH_SOCKET], *state = fit->s->states[SWITCH_SOCKET];
        char user[SWITCH_VALUE_SIZE], group[SWITCH_VALUE_SIZE];
        DropIn d = {0};

        (void) switch_property(state, "SocketUser", user);
        (void) switch_property(state, "SocketGroup", group);
        if (!switch_listens_for(fit->s, CTL_SERVICE)) {
                append(&fit->problems, "  %s does not listen on %s (ListenStream=)\n", unit,
                       fit->s->ctl->socket_path);
                add(&d, "ExecStartPre=\nExecStartPre=/usr/bin/test -d %s/public\n", fit->queue);
                add(&d, "ListenStream=\nListenStream=%s/public/" CTL_SERVICE "\n", fit->queue);
        }
        if (!is_owner(fit, user)) {
                append(&fit->problems,
                       "  %s makes its socket for %s (SocketUser=), but the mail is "
                       "%s's\n",
                       unit, *user ? user : "root", fit->owner);
                add(&d, "SocketUser=%s\n", fit->owner);
        }
        if (!is_group(group)) {
                append(&fit->problems, "  %s wants a group that is not there: %s (SocketGroup=)\n",
                       unit, group);
                add(&d, "SocketGroup=\n");
        }
        print_drop_in(fit, unit, "Socket", &d);
}

/* @unit, @name: to ask for, and to write for; they differ for a template. */
static int fit_service(Fit *fit, const char *unit, const char *name, bool as_owner, bool writes) {
        DropIn d = {0};
        char *state = switch_read_unit(fit->s, unit);

        if (!state)
                return EX_UNAVAILABLE;
        if (switch_has_property(state, "LoadState", "loaded")) {
                if (as_owner)
                        fit_user(fit, name, state, &d);
                fit_sandbox(fit, name, state, writes, &d);
                print_drop_in(fit, name, "Service", &d);
        }
        free(state);
        return EX_OK;
}

static int find_owner(Fit *fit) {
        const char *queue = fit->s->ctl->settings.queue_directory;
        const struct passwd *pw;
        char path[PATH_MAX];
        struct stat st;
        size_t n = 0;

        for (const char *p = queue; *p && n < sizeof fit->queue - 1; p++) /* as systemd writes it */
                if (*p != '/' || (p[1] != '/' && p[1] != '\0'))
                        fit->queue[n++] = *p;
        (void) snprintf(path, sizeof path, "%s/%s", queue, queue_name(QUEUE_INCOMING));
        if (!realpath(queue, fit->real) || lstat(path, &st) < 0)
                return switch_refuse("%s: %s", path, strerror(errno));
        pw = getpwuid(st.st_uid);
        if (!pw || st.st_uid == 0)
                return switch_refuse("%s is of user %u, who cannot be the owner of the mail", path,
                                     (unsigned) st.st_uid);
        fit->uid = st.st_uid;
        (void) snprintf(fit->owner, sizeof fit->owner, "%s", pw->pw_name);
        return EX_OK;
}

static int fit_all(Fit *fit) {
        static const struct {
                const char *name;
                bool as_owner, writes;
        } services[] = {{"fflushd", true, true},
                        {"fflush-refresh", true, false},
                        {"fflush-purge", true, false},
                        {"fflush-metrics", false, false}};
        int status = find_owner(fit);

        if (status != EX_OK)
                return status;
        fit_socket(fit);
        for (size_t i = 0; i < ARRAY_SIZE(services) && status == EX_OK; i++) {
                char unit[CTL_UNIT_SIZE];

                ctl_unit_name(fit->s->ctl, services[i].name, "service", unit);
                status = fit_service(fit, unit, unit, services[i].as_owner, services[i].writes);
        }
        if (status == EX_OK && !fit->s->ctl->instance) /* it knows only Postfix's own */
                status = fit_service(fit, "fflush-flush@any.service", "fflush-flush@.service", true,
                                     false);
        return status;
}

/* To be copied as they are, but for programs, which want objects only. */
static void print_files(const Ctl *ctl, const char *files) {
        if (ctl->json) {
                ctl_error_lines(files);
                return;
        }
        while (*files) {
                int n = (int) strcspn(files, "\n");

                ctl_print("%.*s\n", n, files);
                files += n + (files[n] == '\n');
        }
        (void) fflush(stdout);
}

int switch_check_fit(Switch *s) {
        Fit fit = {.s = s};
        int status = fit_all(&fit);

        if (status == EX_OK && fit.problems) {
                ctl_error("the units do not fit this host:");
                ctl_error_lines(fit.problems);
                ctl_error("write these files, run \"systemctl daemon-reload\", then the same "
                          "command again:");
                print_files(s->ctl, fit.files ? fit.files : "");
                status = EX_CONFIG;
        }
        free(fit.problems);
        free(fit.files);
        return status;
}
