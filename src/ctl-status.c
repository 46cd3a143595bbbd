/* SPDX-License-Identifier: MIT */

/* fflushctl status: who serves, who asks, with which configuration, and how much is recorded. */

#include <limits.h>
#include <stdio.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "client.h"
#include "ctl.h"
#include "escape.h"
#include "util.h"

#define SYSTEMD    "org.freedesktop.systemd1"
#define STATE_SIZE 64

typedef struct Unit {
        char name[CTL_UNIT_SIZE];
        char state[STATE_SIZE]; /* "active (listening)", "not installed"; "" if nobody says */
        bool failed;
        uint64_t triggered; /* a timer: when last, microseconds of the wall clock */
} Unit;

typedef enum UnitIndex { UNIT_SOCKET, UNIT_SERVICE, UNIT_TIMER, _UNIT_MAX } UnitIndex;

typedef struct Status {
        Ctl *ctl;
        Unit units[_UNIT_MAX];
        pid_t listener; /* 0: unknown */
        int socket_error;
        char *postfix_asks; /* flush_service_name, or NULL: Postfix does not say */
        unsigned long sites, records, messages, deferred;
        int survey_error; /* an exit status */
        char config[PATH_MAX];
} Status;

/* ------------------------------------------------------------------------------------ units */

static int get_string(sd_bus *bus, const char *path, const char *property, char **ret) {
        return sd_bus_get_property_string(bus, SYSTEMD, path, SYSTEMD ".Unit", property, NULL, ret);
}

static void look_at_unit(sd_bus *bus, const char *type, Unit *u) {
        _cleanup_free_ char *path = NULL, *load = NULL, *active = NULL, *sub = NULL;

        if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", u->name, &path) < 0 ||
            get_string(bus, path, "LoadState", &load) < 0 ||
            get_string(bus, path, "ActiveState", &active) < 0 ||
            get_string(bus, path, "SubState", &sub) < 0)
                return;
        u->failed = streq(active, "failed");
        if (streq(load, "loaded"))
                (void) snprintf(u->state, sizeof u->state, "%s (%s)", active, sub);
        else
                (void) snprintf(u->state, sizeof u->state, "%s",
                                streq(load, "not-found") ? "not installed" : load);
        if (streq(type, "timer"))
                (void) sd_bus_get_property_trivial(bus, SYSTEMD, path, SYSTEMD ".Timer",
                                                   "LastTriggerUSec", NULL, 't', &u->triggered);
}

static void look_at_units(Status *s) {
        static const char *const units[_UNIT_MAX][2] = {
                [UNIT_SOCKET] = {"fflush", "socket"},
                [UNIT_SERVICE] = {"fflushd", "service"},
                [UNIT_TIMER] = {"fflush-refresh", "timer"},
        };
        sd_bus *bus = NULL;
        int r;

        r = sd_bus_open_system(&bus);
        for (size_t i = 0; i < _UNIT_MAX; i++) {
                ctl_unit_name(s->ctl, units[i][0], units[i][1], s->units[i].name);
                if (r >= 0)
                        look_at_unit(bus, units[i][1], &s->units[i]);
        }
        sd_bus_flush_close_unref(bus);
}

/* ----------------------------------------------------------------------------------- others */

static void look_at_socket(Status *s) {
        int pid = client_find_listener(s->ctl->socket_path);

        s->socket_error = pid < 0 ? pid : 0;
        s->listener = pid < 0 ? 0 : pid;
}

static void find_config(Status *s) {
        const Ctl *ctl = s->ctl;

        if (ctl->config || !ctl->instance)
                (void) snprintf(s->config, sizeof s->config, "%s",
                                ctl->config ? ctl->config : SETTINGS_FILE);
        else
                (void) snprintf(s->config, sizeof s->config, "%s/%s/fflushd.conf", SETTINGS_DIR,
                                ctl->instance);
        if (access(s->config, F_OK) < 0 && errno == ENOENT)
                s->config[0] = '\0';
}

static void count_records(Status *s) {
        _cleanup_(ctl_free_sites) CtlSites sites = {0};

        s->survey_error = ctl_find_sites(s->ctl, (char *[]){NULL}, false, &sites);
        for (size_t i = 0; i < sites.n; i++) {
                SurveyLog log;

                if (ctl_read_site(s->ctl, &sites.items[i], &log) == EX_OK) {
                        s->sites += log.records > 0;
                        s->records += log.records;
                        s->messages += idset_size(&log.ids);
                        s->deferred += ctl_count_deferred(s->ctl, &log);
                }
                survey_free(&log);
        }
}

/* ------------------------------------------------------------------------------- the report */

static const char *process_name(pid_t pid, char *buf, size_t size) {
        char path[64];
        FILE *f;

        if (pid == 0)
                return "a process out of sight";
        (void) snprintf(path, sizeof path, "/proc/%d/comm", (int) pid);
        f = fopen(path, "re");
        if (!f || !fgets(buf, (int) size, f))
                (void) snprintf(buf, size, "process %d", (int) pid);
        if (f)
                (void) fclose(f);
        buf[strcspn(buf, "\n")] = '\0';
        return buf;
}

static bool is_served(const Status *s) {
        return s->socket_error == 0 && !s->units[UNIT_SOCKET].failed &&
               (s->listener == 1 || s->units[UNIT_SOCKET].state[0] == '\0');
}

static const char *service_name(const Status *s) {
        const char *slash = strrchr(s->ctl->socket_path, '/');

        return slash ? slash + 1 : s->ctl->socket_path;
}

static void say(const char *what, CtlStyle style, const char *text) {
        ctl_print_in(CTL_BOLD, "%-10s", what);
        ctl_print_in(style, "%s", text);
}

static void say_units(const Status *s) {
        static const char *const titles[_UNIT_MAX] = {"Socket", "Service", "Refresh"};
        char age[CTL_AGE_SIZE];

        for (size_t i = 0; i < _UNIT_MAX; i++) {
                const Unit *u = &s->units[i];

                say(titles[i], u->failed ? CTL_RED : CTL_PLAIN,
                    u->state[0] ? u->state : "systemd does not say");
                ctl_print(", %s", u->name);
                if (i == UNIT_TIMER && u->triggered > 0)
                        ctl_print(", last %s ago",
                                  ctl_age(time(NULL), (time_t) (u->triggered / USEC_PER_SEC), age));
                ctl_print("\n");
        }
}

static void say_all(const Status *s) {
        const Settings *settings = &s->ctl->settings;
        char name[64];

        if (s->socket_error < 0)
                say("Listens", CTL_RED, "nobody");
        else
                say("Listens", is_served(s) ? CTL_GREEN : CTL_RED,
                    process_name(s->listener, name, sizeof name));
        ctl_print(", on %s\n", s->ctl->socket_path);
        say_units(s);
        if (s->postfix_asks) {
                bool us = streq(s->postfix_asks, service_name(s));

                say("Postfix", us ? CTL_GREEN : CTL_YELLOW,
                    us ? "asks fflushd" : "does not ask it");
                ctl_print(", flush_service_name = %s\n", s->postfix_asks);
        } else {
                say("Postfix", CTL_YELLOW, "does not say which flush service it asks");
                ctl_print("\n");
        }
        say("Settings", settings->problems ? CTL_RED : CTL_PLAIN,
            settings->problems ? "with problems, see above" : "in order");
        ctl_print(", %s%s%s\n", s->config, s->config[0] ? ", " : "",
                  settings->postfix_config_directory[0] ? settings->postfix_config_directory
                                                        : "no Postfix");
        if (!settings->fast_flush_domains[0]) {
                say("Eligible", CTL_YELLOW, "none: fast_flush_domains is empty");
                ctl_print("\n");
        }
        if (s->survey_error == EX_OK) {
                say("Recorded", CTL_PLAIN, "");
                ctl_print("%lu messages for %lu destinations, %lu of them deferred\n", s->messages,
                          s->sites, s->deferred);
        }
}

static json_t *json_units(const Status *s) {
        json_t *units = json_object();

        for (size_t i = 0; i < _UNIT_MAX; i++) {
                const Unit *u = &s->units[i];
                _cleanup_free_ char *name = escape_utf8(u->name);

                if (name)
                        (void) json_object_set_new(units, name,
                                                   ctl_json_text(u->state[0] ? u->state : NULL));
        }
        return units;
}

static void add_counts(json_t *o, const Status *s) {
        const struct {
                const char *name;
                unsigned long value;
        } counts[] = {{"sites", s->sites},
                      {"records", s->records},
                      {"messages", s->messages},
                      {"deferred", s->deferred}};

        for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
                (void) json_object_set_new(o, counts[i].name,
                                           json_integer((json_int_t) counts[i].value));
}

static void say_json(const Status *s) {
        const Settings *settings = &s->ctl->settings;
        uint64_t refreshed = s->units[UNIT_TIMER].triggered / USEC_PER_SEC;
        json_t *o = json_pack(
                "{so sb sI so so sb so so sb}", "socket", ctl_json_text(s->ctl->socket_path),
                "listening", s->socket_error == 0, "listener_pid", (json_int_t) s->listener,
                "units", json_units(s), "flush_service_name", ctl_json_text(s->postfix_asks),
                "served", is_served(s), "config", ctl_json_text(s->config[0] ? s->config : NULL),
                "postfix_config_directory", ctl_json_text(settings->postfix_config_directory),
                "config_problems", settings->problems != NULL);

        if (o && refreshed > 0)
                (void) json_object_set_new(o, "last_refresh", json_integer((json_int_t) refreshed));
        if (o && s->survey_error == EX_OK)
                add_counts(o, s);
        ctl_print_json(o);
}

int ctl_status(Ctl *ctl, char *args[]) {
        Status s = {.ctl = ctl};
        int r;

        (void) args;
        r = ctl_settings(ctl);
        if (r == EX_OK)
                r = ctl_socket(ctl);
        if (r != EX_OK)
                return r;
        look_at_units(&s);
        look_at_socket(&s);
        s.postfix_asks = ctl_postconf(ctl, "flush_service_name");
        find_config(&s);
        count_records(&s);
        if (!ctl->quiet)
                (ctl->json ? say_json : say_all)(&s);
        free(s.postfix_asks);
        if (!is_served(&s))
                return EX_UNAVAILABLE;
        return ctl->settings.problems ? EX_CONFIG : s.survey_error;
}
