/* SPDX-License-Identifier: MIT */

/* What status and check look at: the self-test of the service, and what only systemd, Postfix and
 * the logs tell. */

#include "ctl/ctl-health.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <time.h>

#include "core/qmgr.h"
#include "ctl/client.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-print.h"
#include "ctl/ctl-selinux.h"
#include "ctl/ctl-sites.h"
#include "ctl/deferred.h"
#include "util/child.h"
#include "util/util.h"

#define SYSTEMD          "org.freedesktop.systemd1"
#define POSTCONF_USEC    (20 * USEC_PER_SEC)
#define OUTDATED_USEC    200000u /* between two questions */

#define STATE_DIRECTORY  "/var/lib/fflushd" /* of the units, with a directory for each instance */
#define DEFAULT_INSTANCE "postfix"

/* -------------------------------------------------------------------------------- the self-test */

static int no_answer(TestFindings *ret, int status, const char *reason, const char *what,
                     const char *remedy) {
        TestFinding *f = findings_add(ret, "service", FINDING_FAILED, "%s%s", reason, what);

        finding_set_remedy(f, "%s", remedy);
        return status;
}

/* What the service logs is under syslog_name, which is that of an instance. */
static const char *see_journal(const Ctl *ctl, const char *before,
                               char ret[static FINDING_TEXT_SIZE]) {
        (void) snprintf(ret, FINDING_TEXT_SIZE, "%sjournalctl -t %s/fflushd", before,
                        ctl->settings.syslog_name ? ctl->settings.syslog_name : "postfix");
        return ret;
}

static int cannot_connect(const Ctl *ctl, int error, TestFindings *ret) {
        char unit[CTL_UNIT_SIZE], remedy[FINDING_TEXT_SIZE];
        TestFinding *f;

        ctl_unit_name(ctl, "fflush", "socket", unit);
        if (error == -EACCES || error == -EPERM)
                return no_answer(ret, EX_NOPERM, "permission denied: ", ctl->socket_path,
                                 "run it as root or as the owner of the queue, postfix");
        if (error == -ETIMEDOUT)
                return no_answer(ret, EX_TEMPFAIL,
                                 "whoever listens takes no connections: ", ctl->socket_path,
                                 see_journal(ctl, "", remedy));
        f = findings_add(ret, "service", FINDING_FAILED, "nobody listens on %s: %s",
                         ctl->socket_path, strerror(-error));
        finding_set_remedy(f, "systemctl restart %s", unit);
        return EX_UNAVAILABLE;
}

static int no_reply(const Ctl *ctl, int error, TestFindings *ret) {
        char remedy[FINDING_TEXT_SIZE];

        if (error == -ETIMEDOUT)
                return no_answer(ret, EX_TEMPFAIL, "the self-test did not end in time", "",
                                 see_journal(ctl, "a longer --timeout, and ", remedy));
        if (error == -EBADMSG)
                return no_answer(ret, EX_PROTOCOL, "the reply makes no sense", "", "");
        if (error == -ECONNRESET || error == -EPIPE)
                return no_answer(ret, EX_UNAVAILABLE,
                                 "the service closed the connection without a reply", "",
                                 see_journal(ctl, "", remedy));
        return no_answer(ret, EX_TEMPFAIL, "no reply: ", strerror(-error), "");
}

static int is_old(const Ctl *ctl, TestFindings *ret) {
        char unit[CTL_UNIT_SIZE], remedy[FINDING_TEXT_SIZE];

        ctl_unit_name(ctl, "fflushd", "service", unit);
        (void) snprintf(remedy, sizeof remedy, "systemctl restart %s, for the version installed",
                        unit);
        return no_answer(ret, EX_PROTOCOL, "the service that runs knows no self-test", "", remedy);
}

static int ask_once(Ctl *ctl, uint64_t timeout, TestFindings *ret) {
        _cleanup_close_ int fd = -EBADF;
        RequestStatus answer;
        int r, status;

        *ret = (TestFindings){0};
        status = ctl_socket(ctl);
        if (status != EX_OK)
                return no_answer(ret, status, "the configuration cannot be read", "", "");
        fd = client_connect(ctl->socket_path, timeout);
        if (fd < 0)
                return cannot_connect(ctl, fd, ret);
        r = client_self_test(fd, timeout, &answer, ret);
        if (r < 0)
                return no_reply(ctl, r, ret);
        if (answer == REQUEST_BAD && ret->checks == 0)
                return is_old(ctl, ret);
        if (answer == REQUEST_OK && ret->checks > 0 && ret->worst != FINDING_FAILED)
                return EX_OK;
        if (ret->worst != FINDING_FAILED)
                return no_answer(ret, EX_PROTOCOL, "the reply makes no sense", "", "");
        return EX_UNAVAILABLE;
}

/* A service that is about to read a new configuration is asked once more when it has, as long as an
 * answer can be had in time: one that is cut short would tell less than the last one. */
int ctl_self_test(Ctl *ctl, TestFindings *ret) {
        uint64_t end = now_usec() + (ctl->timeout > 0 ? ctl->timeout : CTL_SELF_TEST_USEC);

        for (;;) {
                uint64_t start = now_usec(), now;
                int status = ask_once(ctl, start < end ? end - start : 1, ret);

                now = now_usec();
                if (!findings_have(ret, FINDING_OUTDATED) ||
                    now + OUTDATED_USEC + (now - start) >= end)
                        return status;
                (void) usleep(OUTDATED_USEC);
        }
}

void ctl_print_findings(FILE *f, const TestFindings *findings) {
        for (size_t i = 0; i < findings->n; i++) {
                const TestFinding *finding = &findings->items[i];

                (void) fprintf(f, "%s: ", finding_result_name(finding->result));
                ctl_write_text(f, finding->check);
                (void) fputs(": ", f);
                ctl_write_text(f, finding->reason);
                if (finding->remedy[0]) {
                        (void) fputs("\n  remedy: ", f);
                        ctl_write_text(f, finding->remedy);
                }
                (void) fputc('\n', f);
        }
}

/* ------------------------------------------------------------------------------------ units */

static void get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                       char ret[static HEALTH_STATE_SIZE]) {
        _cleanup_free_ char *value = NULL;

        if (sd_bus_get_property_string(bus, SYSTEMD, path, interface, property, NULL, &value) >= 0)
                (void) snprintf(ret, HEALTH_STATE_SIZE, "%s", value);
}

static void look_at_unit(sd_bus *bus, const char *type, HealthUnit *u) {
        char load[HEALTH_STATE_SIZE] = "", active[HEALTH_STATE_SIZE] = "",
             sub[HEALTH_STATE_SIZE] = "";
        _cleanup_free_ char *path = NULL;

        if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", u->name, &path) < 0)
                return;
        get_string(bus, path, SYSTEMD ".Unit", "LoadState", load);
        get_string(bus, path, SYSTEMD ".Unit", "ActiveState", active);
        get_string(bus, path, SYSTEMD ".Unit", "SubState", sub);
        get_string(bus, path, SYSTEMD ".Unit", "UnitFileState", u->enabled);
        if (!load[0] || !active[0] || !sub[0])
                return;
        u->failed = streq(active, "failed");
        u->active = streq(active, "active");
        if (streq(load, "loaded"))
                (void) snprintf(u->state, sizeof u->state, "%.*s (%.*s)", 30, active, 30, sub);
        else
                (void) snprintf(u->state, sizeof u->state, "%s",
                                streq(load, "not-found") ? "not installed" : load);
        if (streq(type, "timer"))
                (void) sd_bus_get_property_trivial(bus, SYSTEMD, path, SYSTEMD ".Timer",
                                                   "LastTriggerUSec", NULL, 't', &u->triggered);
        if (streq(type, "service"))
                get_string(bus, path, SYSTEMD ".Service", "Result", u->result);
}

/* Does fflush.socket listen on this path? */
static bool unit_listens_on(sd_bus *bus, const char *unit, const char *socket_path) {
        _cleanup_free_ char *path = NULL;
        const char *type, *address;
        sd_bus_message *m = NULL;
        bool found = false;

        if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit, &path) < 0 ||
            sd_bus_get_property(bus, SYSTEMD, path, SYSTEMD ".Socket", "Listen", NULL, &m,
                                "a(ss)") < 0)
                return false;
        if (sd_bus_message_enter_container(m, 'a', "(ss)") >= 0)
                while (sd_bus_message_read(m, "(ss)", &type, &address) > 0)
                        found |= streq(address, socket_path);
        sd_bus_message_unref(m);
        return found;
}

/* A service that somebody runs by hand, on a socket or a queue of its own, has no units: the state
 * of those that are there tells nothing about it. */
static bool has_units(const Ctl *ctl, sd_bus *bus, const char *socket_unit) {
        return (!ctl->socket && ctl->settings.postfix_config_directory[0]) ||
               unit_listens_on(bus, socket_unit, ctl->socket_path);
}

static void look_at_units(Health *h) {
        static const char *const units[_HEALTH_UNIT_MAX][2] = {
                [HEALTH_SOCKET] = {"fflush", "socket"},
                [HEALTH_SERVICE] = {"fflushd", "service"},
                [HEALTH_TIMER] = {"fflush-refresh", "timer"},
                [HEALTH_REFRESH] = {"fflush-refresh", "service"},
        };
        sd_bus *bus = NULL;

        for (size_t i = 0; i < _HEALTH_UNIT_MAX; i++)
                ctl_unit_name(h->ctl, units[i][0], units[i][1], h->units[i].name);
        if (sd_bus_open_system(&bus) < 0)
                return;
        if (has_units(h->ctl, bus, h->units[HEALTH_SOCKET].name))
                for (size_t i = 0; i < _HEALTH_UNIT_MAX; i++)
                        look_at_unit(bus, units[i][1], &h->units[i]);
        sd_bus_flush_close_unref(bus);
}

bool health_socket_is_up(Ctl *ctl) {
        HealthUnit u = {.active = false};
        sd_bus *bus = NULL;

        ctl_unit_name(ctl, "fflush", "socket", u.name);
        if (sd_bus_open_system(&bus) >= 0 && ctl_socket(ctl) == EX_OK &&
            has_units(ctl, bus, u.name))
                look_at_unit(bus, "socket", &u);
        sd_bus_flush_close_unref(bus);
        return u.active || u.state[0] == '\0';
}

static bool is_enabled(const HealthUnit *u) {
        static const char *const good[] = {"",      "enabled",  "static",
                                           "alias", "indirect", "generated"};

        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                if (streq(u->enabled, good[i]))
                        return true;
        return false;
}

#define failed(h, check, ...)  findings_add(&(h)->findings, check, FINDING_FAILED, __VA_ARGS__)
#define warning(h, check, ...) findings_add(&(h)->findings, check, FINDING_WARNING, __VA_ARGS__)

static void judge_socket(Health *h) {
        const HealthUnit *u = &h->units[HEALTH_SOCKET];

        if (u->failed)
                finding_set_remedy(failed(h, "socket", "%s is not started: %s", u->name, u->state),
                                   "systemctl reset-failed %s %s; systemctl start %s", u->name,
                                   h->units[HEALTH_SERVICE].name, u->name);
        else if (u->state[0] && !u->active)
                finding_set_remedy(failed(h, "socket", "%s is not started: %s", u->name, u->state),
                                   "systemctl start %s", u->name);
        if (!is_enabled(u))
                finding_set_remedy(
                        failed(h, "socket",
                               "%s is not enabled: after the next boot nothing is recorded (%s)",
                               u->name, u->enabled),
                        "systemctl enable %s", u->name);
        if (h->listener > 1 && u->state[0])
                failed(h, "socket", "process %d listens on %s, and it is not systemd",
                       (int) h->listener, h->ctl->socket_path);
}

static void judge_timer(Health *h) {
        const HealthUnit *timer = &h->units[HEALTH_TIMER], *refresh = &h->units[HEALTH_REFRESH];

        if (timer->state[0] && !timer->active)
                finding_set_remedy(
                        failed(h, "refresh",
                               "%s is stopped: old records are not flushed by themselves (%s)",
                               timer->name, timer->state),
                        "systemctl enable --now %s", timer->name);
        else if (!is_enabled(timer))
                finding_set_remedy(failed(h, "refresh",
                                          "%s is not enabled: after the next boot old records are "
                                          "not flushed by themselves (%s)",
                                          timer->name, timer->enabled),
                                   "systemctl enable %s", timer->name);
        if (refresh->failed)
                finding_set_remedy(failed(h, "refresh", "the last refresh failed: %s, %s",
                                          refresh->name, refresh->result),
                                   "journalctl -u %s; systemctl start %s", refresh->name,
                                   refresh->name);
}

/* --------------------------------------------------------------------------------- Postfix */

const char *health_service_name(const Health *h) {
        const char *slash = strrchr(h->ctl->socket_path, '/');

        return slash ? slash + 1 : h->ctl->socket_path;
}

/* "smtp/unix/flush_service_name = flush": services of master.cf that ask somebody else. */
static void judge_overrides(Health *h) {
        const char *directory = h->ctl->settings.postfix_config_directory;
        static const char postconf[] = POSTFIX_COMMAND_DIR "/postconf";
        const char *argv[] = {postconf, "-c", directory, "-P", "*/*/flush_service_name", NULL};
        ChildResult result;
        char *rest = NULL;

        if (child_run(argv, POSTCONF_USEC, &result) < 0)
                return;
        for (char *line = strtok_r(result.output, "\n", &rest); line;
             line = strtok_r(NULL, "\n", &rest)) {
                const char *value = strstr(line, " = ");

                if (!value || streq(value + 3, health_service_name(h)))
                        continue;
                finding_set_remedy(
                        failed(h, "postfix",
                               "a service of master.cf asks another flush service: %s", line),
                        "postconf -c '%s' -PX '%.*s'", directory, (int) (value - line), line);
        }
        free(result.output);
        free(result.errors);
}

/* Nothing is broken about a service that was not switched over to. */
static bool is_in_use(const Health *h) {
        const HealthUnit *u = &h->units[HEALTH_SOCKET];

        return !u->state[0] || u->active || u->failed || is_enabled(u) || !h->postfix_asks ||
               streq(h->postfix_asks, health_service_name(h));
}

static void judge_postfix(Health *h) {
        const char *directory = h->ctl->settings.postfix_config_directory;

        if (!directory[0])
                return;
        if (!h->postfix_asks) {
                finding_set_remedy(
                        warning(h, "postfix", "cannot read flush_service_name with postconf(1)"),
                        "postconf -c '%s' flush_service_name", directory);
                return;
        }
        if (!streq(h->postfix_asks, health_service_name(h)))
                finding_set_remedy(
                        failed(h, "postfix",
                               "Postfix uses another flush service (flush_service_name = %s)",
                               h->postfix_asks),
                        "fflushctl%s%s enable-postfix", h->ctl->instance ? " -i " : "",
                        h->ctl->instance ? h->ctl->instance : "");
        judge_overrides(h);
}

static void judge_empty_list(Health *h) {
        const char *directory = h->ctl->settings.postfix_config_directory;
        char command[CTL_UNIT_SIZE];

        ctl_command_name(h->ctl, command);
        finding_set_remedy(failed(h, "list", "fast_flush_domains is empty: nothing is recorded"),
                           "postconf -c '%s' -e fast_flush_domains=static:all, or the domains that "
                           "are to be recorded; then postfix -c '%s' reload; %s import",
                           directory, directory, command);
}

/* What the self-test would have found, as far as it is seen without it. */
static void judge_without_test(Health *h) {
        const Settings *settings = &h->ctl->settings;
        char endpoint[PATH_MAX];
        int r;

        if (settings->problems)
                warning(h, "settings", "the configuration has errors: %.*s",
                        (int) strcspn(settings->problems, "\n"), settings->problems);
        if (!settings->fast_flush_domains[0])
                judge_empty_list(h);
        (void) snprintf(endpoint, sizeof endpoint, "public/%s", settings->queue_service_name);
        r = ctl_queue(h->ctl) == EX_OK ? qmgr_probe(h->ctl->queue.fd, endpoint) : 0;
        if (r == -ENOENT || r == -ENXIO || r == -ECONNREFUSED)
                failed(h, "qmgr",
                       "Postfix is not running: the queue manager does not listen on %s: %s",
                       endpoint, strerror(-r));
        if (h->has_counters && h->counters.self_test_failed > 0)
                failed(h, "service", "the last self-test of the service failed");
}

/* ------------------------------------------------------------------------------------ records */

static void note_age(Health *h, const char *id) {
        char path[QUEUE_PATH_SIZE];
        time_t arrival;

        queue_path(&h->ctl->queue, QUEUE_DEFERRED, id, path);
        arrival = queue_arrival(&h->ctl->queue, path, id);
        if (queue_arrived_before(arrival, h->oldest))
                h->oldest = arrival;
}

/* A message may be recorded for several sites. */
static int count_messages(Health *h, const SurveyLog *log, StrSet *seen) {
        const StrSetEntry *e = NULL;
        QueueName queue;
        struct stat st;
        int r;

        while ((e = strset_next(&log->ids, e))) {
                const char *id = strset_entry_id(e);

                r = strset_add(seen, id);
                if (r < 0)
                        return r;
                if (r == 0)
                        continue;
                h->messages++;
                if (queue_find(&h->ctl->queue, id, &queue, &st) < 0 || queue != QUEUE_DEFERRED)
                        continue;
                h->deferred++;
                note_age(h, id);
        }
        return 0;
}

static bool is_among(const char *id, void *userdata) {
        return strset_contains(userdata, id);
}

static void count_records(Health *h) {
        _cleanup_(ctl_sites_done) CtlSites sites = {0};
        StrSet seen = {0};

        h->survey_status = ctl_find_sites(h->ctl, (char *[]){NULL}, false, &sites);
        for (size_t i = 0; i < sites.n && h->survey_status == EX_OK; i++) {
                SurveyLog log;

                h->survey_status = ctl_read_site(h->ctl, &sites.items[i], &log);
                h->sites += log.records > 0;
                h->records += log.records;
                if (count_messages(h, &log, &seen) < 0)
                        h->survey_status = ctl_no_memory();
                survey_done(&log);
        }
        h->knows_unrecorded =
                h->survey_status == EX_OK &&
                deferred_count_unrecorded(&h->ctl->queue, is_among, &seen, &h->unrecorded) == 0;
        strset_clear(&seen);
}

int ctl_read_counters(const Ctl *ctl, Metrics *ret, char **ret_path) {
        const char *directory = getenv("STATE_DIRECTORY");
        char *path = NULL;
        int r;

        if (asprintf(&path, "%s%s%s", directory ? directory : STATE_DIRECTORY, directory ? "" : "/",
                     directory       ? ""
                     : ctl->instance ? ctl->instance
                                     : DEFAULT_INSTANCE) < 0)
                return -ENOMEM;
        r = metrics_read(path, ret);
        if (ret_path)
                *ret_path = path;
        else
                free(path);
        return r;
}

/* -------------------------------------------------------------------------------------- all */

static void find_config(Health *h) {
        const Ctl *ctl = h->ctl;

        if (ctl->config || !ctl->instance)
                (void) snprintf(h->config, sizeof h->config, "%s",
                                ctl->config ? ctl->config : SETTINGS_FILE);
        else
                (void) snprintf(h->config, sizeof h->config, "%s/%s/fflushd.conf", SETTINGS_DIR,
                                ctl->instance);
        if (access(h->config, F_OK) < 0 && errno == ENOENT)
                h->config[0] = '\0';
}

/* Connecting starts the service, so this is only for when that is wanted. */
static void find_listener(Health *h) {
        int pid = client_find_listener(h->ctl->socket_path, ctl_patience(h->ctl));

        h->listen_error = pid < 0 ? pid : 0;
        h->listener = pid < 0 ? 0 : pid;
}

/* What is said of the unit is all that there is to say. */
static bool is_known_to_be_down(const Health *h) {
        const HealthUnit *u = &h->units[HEALTH_SOCKET];

        return u->state[0] && !u->active &&
               (h->listen_error == -ENOENT || h->listen_error == -ECONNREFUSED);
}

int health_gather(Ctl *ctl, bool test, Health *ret) {
        int status;

        *ret = (Health){.ctl = ctl, .tested = test};
        ctl->may_guess = true; /* what is wrong is what this is for */
        status = ctl_settings(ctl);
        if (status != EX_OK)
                return status;
        status = ctl_socket(ctl);
        if (status != EX_OK)
                return status;
        look_at_units(ret);
        find_config(ret);
        if (test) {
                find_listener(ret);
                ret->test_status = is_known_to_be_down(ret) ? EX_UNAVAILABLE
                                                            : ctl_self_test(ctl, &ret->findings);
        }
        /* Else it has not answered a moment ago: it waits while main.cf is being edited. */
        if (!ctl->settings.unasked)
                ret->postfix_asks = ctl_postconf(ctl, "flush_service_name");
        ret->has_counters = ctl_read_counters(ctl, &ret->counters, NULL) == 0;
        count_records(ret);
        if (is_in_use(ret)) {
                judge_socket(ret);
                judge_timer(ret);
        }
        judge_postfix(ret);
        if (!test)
                judge_without_test(ret);
        else if (ret->listen_error == 0)
                ctl_judge_selinux(ctl, &ret->findings);
        return EX_OK;
}

void health_done(Health *h) {
        free(h->postfix_asks);
}

/* The timer forgets when it is stopped, and knows nothing of those that others ask for. */
time_t health_last_refresh(const Health *h) {
        uint64_t by_timer = h->units[HEALTH_TIMER].triggered / USEC_PER_SEC;
        uint64_t counted = h->has_counters ? h->counters.last_refresh_sec : 0;

        return (time_t) (counted > by_timer ? counted : by_timer);
}

bool health_has_answer(const Health *h) {
        return h->test_status == EX_OK || h->test_status == EX_UNAVAILABLE;
}

bool health_is_served(const Health *h) {
        const HealthUnit *u = &h->units[HEALTH_SOCKET];

        if (!h->tested)
                return u->active;
        return h->listen_error == 0 && !u->failed && (h->listener == 1 || u->state[0] == '\0');
}
