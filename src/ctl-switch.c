/* SPDX-License-Identifier: MIT */

/* fflushctl enable-postfix, disable-postfix: which of the two services Postfix asks. What changes
 * something is a command that is shown, and nothing changes before all has been looked at. */

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "child.h"
#include "client.h"
#include "ctl.h"
#include "util.h"

#define BUILT_IN     "flush" /* Postfix's own */
#define COMMAND_USEC (120 * USEC_PER_SEC)
#define PROBE_USEC   (60 * USEC_PER_SEC)
#define AGENTS_USEC  (30 * USEC_PER_SEC)
#define PAUSE_USEC   100000
#define WORDS_MAX    16
#define AGENTS_MAX   4096

/* No message ever has this ID: Postfix's have hexadecimal digits only, or no vowels. */
#define PROBE_ID "PROBE"

typedef struct Switch {
        Ctl *ctl;
        const char *dir; /* configuration directory of Postfix; NULL: what its commands take */
        char socket[CTL_UNIT_SIZE], timer[CTL_UNIT_SIZE], service[CTL_UNIT_SIZE];
        char *asks; /* flush_service_name */
        bool running;
        bool changed;
        char *output; /* of the last command */
} Switch;

/* ------------------------------------------------------------------------------ commands */

typedef enum RunKind {
        RUN_ASK,   /* looks only; its failure is the caller's to report */
        RUN_CHANGE /* is shown; not run in a dry run; its failure is reported */
} RunKind;

static void show(const Switch *s, const char *const words[]) {
        const char *slash = strrchr(words[0], '/');

        if (s->ctl->quiet || s->ctl->json)
                return;
        ctl_print("  %s", slash ? slash + 1 : words[0]);
        for (size_t i = 1; words[i]; i++)
                ctl_print(" %s", words[i]);
        ctl_print("\n");
        (void) fflush(stdout); /* systemctl and postfix write as well */
}

static int report_failure(const char *const words[], const ChildResult *result) {
        ctl_error("%s failed with status %d: %.*s", words[0], result->status,
                  (int) strcspn(result->errors, "\n"), result->errors);
        return EX_UNAVAILABLE;
}

/* Return: EX_OK, or an exit status; @s->output has what the command printed. */
static int run_words(Switch *s, RunKind kind, const char *const words[]) {
        ChildResult result;
        int r;

        if (kind == RUN_CHANGE) {
                show(s, words);
                s->changed = true;
                if (s->ctl->dry_run)
                        return EX_OK;
        }
        r = child_run(words, COMMAND_USEC, &result);
        if (r < 0) {
                ctl_error("%s: %s", words[0], strerror(-r));
                return EX_UNAVAILABLE;
        }
        free(s->output);
        s->output = result.output;
        r = result.status == 0   ? EX_OK
            : kind == RUN_CHANGE ? report_failure(words, &result)
                                 : EX_UNAVAILABLE;
        free(result.errors);
        return r;
}

/* A command of Postfix, for the instance, or of systemd. */
static int run_command(Switch *s, RunKind kind, const char *const command[]) {
        bool of_postfix =
                strncmp(command[0], POSTFIX_COMMAND_DIR, strlen(POSTFIX_COMMAND_DIR)) == 0;
        const char *words[WORDS_MAX] = {command[0]};
        size_t n = 1;

        if (s->dir && of_postfix) {
                words[n++] = "-c";
                words[n++] = s->dir;
        }
        for (size_t i = 1; command[i] && n < WORDS_MAX - 1; i++)
                words[n++] = command[i];
        return run_words(s, kind, words);
}

#define run(s, kind, ...) run_command(s, kind, (const char *const[]){__VA_ARGS__, NULL})

#define POSTCONF          POSTFIX_COMMAND_DIR "/postconf"
#define POSTFIX           POSTFIX_COMMAND_DIR "/postfix"
#define POSTQUEUE         POSTFIX_COMMAND_DIR "/postqueue"
#define SYSTEMCTL         "/bin/systemctl" /* also where /bin is not /usr/bin */

static void chomp(char *text) {
        text[strcspn(text, "\n")] = '\0';
}

static int parameter(Switch *s, const char *name) {
        free(s->output);
        s->output = ctl_postconf(s->ctl, name);
        if (s->output)
                return EX_OK;
        ctl_error("postconf does not tell %s: is there a Postfix?", name);
        return EX_UNAVAILABLE;
}

static const char *property(Switch *s, const char *unit, const char *name) {
        char option[64];

        (void) snprintf(option, sizeof option, "--property=%s", name);
        if (run(s, RUN_ASK, SYSTEMCTL, "show", option, "--value", unit) != EX_OK)
                return "";
        return s->output;
}

static bool has_property(Switch *s, const char *unit, const char *name, const char *value) {
        const char *is = property(s, unit, name);

        return strncmp(is, value, strlen(value)) == 0 && is[strlen(value)] == '\n';
}

/* Is @word one of the words of @text? */
static bool has_word(const char *text, const char *word) {
        size_t n = strlen(word);

        for (const char *p = text; (p = strstr(p, word)); p += n)
                if ((p == text || strchr(" \n", p[-1])) && (p[n] == '\0' || strchr(" \n", p[n])))
                        return true;
        return false;
}

static bool is_set_up(Switch *s, const char *unit) {
        return has_property(s, unit, "ActiveState", "active") &&
               has_property(s, unit, "UnitFileState", "enabled");
}

static bool is_cleared_away(Switch *s, const char *unit) {
        return !has_property(s, unit, "ActiveState", "active") &&
               !has_property(s, unit, "ActiveState", "failed") &&
               !has_property(s, unit, "UnitFileState", "enabled");
}

/* ------------------------------------------------------------------------- what is there */

static bool asks(const Switch *s, const char *service) {
        return s->asks && streq(s->asks, service);
}

static int refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int refuse(const char *format, ...) {
        char text[2 * PATH_MAX];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        ctl_error("%s", text);
        return EX_CONFIG;
}

static int begin(Switch *s) {
        Ctl *ctl = s->ctl;
        int r;

        if (ctl->socket)
                return ctl_usage("--socket is not for this command");
        if (geteuid() != 0 && !ctl->dry_run) {
                ctl_error("only root can change whom Postfix asks");
                return EX_NOPERM;
        }
        r = ctl_settings(ctl);
        if (r != EX_OK)
                return r;
        if (!ctl->settings.postfix_config_directory[0]) {
                ctl_error("postfix_config_directory is empty: there is no Postfix to switch");
                return EX_UNAVAILABLE;
        }
        if (!streq(ctl->settings.postfix_config_directory, "/etc/postfix"))
                s->dir = ctl->settings.postfix_config_directory;
        ctl_unit_name(ctl, "fflush", "socket", s->socket);
        ctl_unit_name(ctl, "fflush-refresh", "timer", s->timer);
        ctl_unit_name(ctl, "fflushd", "service", s->service);
        r = ctl_socket(ctl);
        if (r == EX_OK)
                r = parameter(s, "flush_service_name");
        if (r != EX_OK)
                return r;
        s->asks = TAKE_PTR(s->output);
        s->running = run(s, RUN_ASK, POSTFIX, "status") == EX_OK;
        return EX_OK;
}

/* Postfix's clients go by its main.cf, whatever fflushd.conf has. */
static int check_queue(Switch *s) {
        const char *ours = s->ctl->settings.queue_directory;
        struct stat a, b;
        int r = parameter(s, "queue_directory");

        if (r != EX_OK)
                return r;
        if (stat(ours, &a) < 0 || stat(s->output, &b) < 0)
                return refuse("%s: %s", ours, strerror(errno));
        if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
                return refuse("the queue directory is %s in fflushd.conf, but %s in main.cf", ours,
                              s->output);
        return EX_OK;
}

/* Is the socket unit on the path of this service? */
static bool listens_for(Switch *s, const char *service) {
        char path[PATH_MAX];

        (void) snprintf(path, sizeof path, "%s/public/%s", s->ctl->settings.queue_directory,
                        service);
        return has_word(property(s, s->socket, "Listen"), path);
}

static int check_takeover(Switch *s) {
        if (asks(s, CTL_SERVICE) || !listens_for(s, s->asks))
                return EX_OK;
        return refuse(
                "%s listens on public/%s, in the place of Postfix's own service: that is done "
                "and undone by hand",
                s->socket, s->asks);
}

static int check_units(Switch *s) {
        const char *queue = s->ctl->settings.queue_directory;
        int r;

        if (!has_property(s, s->socket, "LoadState", "loaded"))
                return refuse("%s is not there, or masked; newly installed: systemctl "
                              "daemon-reload",
                              s->socket);
        r = check_takeover(s);
        if (r != EX_OK)
                return r;
        if (!listens_for(s, CTL_SERVICE))
                return refuse("%s does not listen on %s; see \"Build and install\" in README for "
                              "another queue directory",
                              s->socket, s->ctl->socket_path);
        if (!has_word(property(s, s->service, "ReadWritePaths"), queue))
                return refuse("%s may not write %s: set ReadWritePaths= with \"systemctl edit %s\"",
                              s->service, queue, s->service);
        return EX_OK;
}

static int check_master_cf(Switch *s) {
        if (run(s, RUN_ASK, POSTCONF, "-M", CTL_SERVICE "/unix") == EX_OK && s->output[0])
                return refuse("master.cf has a service named " CTL_SERVICE
                              ": master(8) would take the socket's path");
        if (run(s, RUN_ASK, POSTCONF, "-P", "*/*/flush_service_name") == EX_OK && s->output[0]) {
                chomp(s->output);
                return refuse("master.cf has a flush_service_name of its own for a service: %s",
                              s->output);
        }
        return EX_OK;
}

/* Return: its process, 0 (nobody listens), or a negative errno. */
static int find_listener(const Ctl *ctl) {
        int pid = client_find_listener(ctl->socket_path, ctl_patience(ctl));

        return pid == -ENOENT || pid == -ECONNREFUSED ? 0 : pid;
}

static int check_listener(Switch *s) {
        const char *path = s->ctl->socket_path;
        int pid = find_listener(s->ctl);

        if (pid < 0)
                return ctl_connect_error(s->ctl, pid);
        if (pid > 1)
                return refuse("process %d listens on %s, and it is not systemd", pid, path);
        if (pid == 0 && has_property(s, s->socket, "ActiveState", "active"))
                return refuse("%s is active, but nobody listens on %s: systemctl restart %s",
                              s->socket, path, s->socket);
        return EX_OK;
}

/* ----------------------------------------------------------------------------------- probes */

/* A request that finds no message and leaves a line in the journal. */
static int probe_service(Switch *s) {
        const Request request = {.kind = REQUEST_SEND_FILE,
                                 .queue_id = PROBE_ID,
                                 .reason = "probe of enable-postfix"};
        RequestStatus status;
        RequestCounts counts;
        bool has_counts;

        if (s->ctl->timeout == 0)
                s->ctl->timeout = PROBE_USEC;
        return ctl_ask(s->ctl, &request, "probe", &status, &counts, &has_counts);
}

/* As Postfix's own programs ask. @service must be whom they reach. */
static int probe_client(Switch *s, const char *service) {
        int r, pid;

        r = parameter(s, "flush_service_name");
        if (r != EX_OK)
                return r;
        if (!streq(s->output, service)) {
                ctl_error("Postfix goes on asking \"%s\"", s->output);
                return EX_UNAVAILABLE;
        }
        r = run(s, RUN_ASK, POSTQUEUE, "-i", PROBE_ID);
        if (r != EX_OK) {
                ctl_error("postqueue got no answer from public/%s", service);
                return r;
        }
        if (!streq(service, CTL_SERVICE)) /* where a look alone would make flush(8) warn */
                return EX_OK;
        pid = find_listener(s->ctl);
        if (pid == 1)
                return EX_OK;
        ctl_error("process %d answers, and it is not systemd", pid);
        return EX_UNAVAILABLE;
}

static void __attribute__((format(printf, 2, 3))) say(const Switch *s, const char *format, ...) {
        va_list ap;

        if (s->ctl->quiet || s->ctl->json)
                return;
        va_start(ap, format);
        ctl_vprint(CTL_PLAIN, format, ap);
        va_end(ap);
        ctl_print("\n");
}

static int finish(Switch *s, int r, const char *serves) {
        if (r == EX_OK && s->ctl->json)
                ctl_print_json(json_pack("{so sb sb}", "flush_service_name", ctl_json_text(serves),
                                         "changed", s->changed, "dry_run", s->ctl->dry_run));
        free(s->asks);
        free(s->output);
        return r;
}

/* ----------------------------------------------------------------------------------- enable */

static int check_enable(Switch *s) {
        int r;

        if (!asks(s, BUILT_IN) && !asks(s, CTL_SERVICE))
                return refuse("flush_service_name is \"%s\" in main.cf, neither Postfix's own nor "
                              "ours: who set it should take it back (postconf -X "
                              "flush_service_name)",
                              s->asks);
        if (sd_booted() <= 0) {
                ctl_error("systemd does not run here");
                return EX_UNAVAILABLE;
        }
        r = check_queue(s);
        if (r == EX_OK)
                r = check_units(s);
        if (r == EX_OK)
                r = check_master_cf(s);
        return r == EX_OK ? check_listener(s) : r;
}

static int set_parameter(Switch *s) {
        int r;

        if (asks(s, CTL_SERVICE))
                return EX_OK;
        r = run(s, RUN_CHANGE, POSTCONF, "-e", "flush_service_name=" CTL_SERVICE);
        if (r == EX_OK && s->running)
                r = run(s, RUN_CHANGE, POSTFIX, "reload");
        return r;
}

static int unset_parameter(Switch *s) {
        int r = run(s, RUN_CHANGE, POSTCONF, "-X", "flush_service_name");

        if (r == EX_OK && s->running)
                r = run(s, RUN_CHANGE, POSTFIX, "reload");
        return r;
}

static int start_units(Switch *s) {
        int r;

        if (is_set_up(s, s->socket) && is_set_up(s, s->timer))
                return EX_OK;
        r = run(s, RUN_CHANGE, SYSTEMCTL, "enable", "--now", s->socket, s->timer);
        /* A false condition of a unit is no failure to systemctl. */
        if (r == EX_OK && !s->ctl->dry_run && !has_property(s, s->socket, "ActiveState", "active"))
                r = refuse("%s did not start: systemctl status %s", s->socket, s->socket);
        return r;
}

static int switch_over(Switch *s) {
        int r = start_units(s);

        if (s->ctl->dry_run)
                return set_parameter(s);
        if (r == EX_OK) /* before anybody relies on it */
                r = probe_service(s);
        if (r == EX_OK)
                r = set_parameter(s);
        if (r != EX_OK)
                return r;
        r = probe_client(s, CTL_SERVICE);
        if (r == EX_OK || asks(s, CTL_SERVICE))
                return r;
        ctl_error("so it is taken back:");
        (void) unset_parameter(s);
        return r;
}

/* What flush(8) recorded for sites with other characters than letters, digits and dots is under
 * names that do not tell whose it is. */
static int take_records(Switch *s) {
        bool quiet = s->ctl->quiet;
        int r;

        if (!s->running || s->ctl->dry_run || asks(s, CTL_SERVICE))
                return EX_OK;
        s->ctl->quiet |= s->ctl->json; /* there is one object, ours */
        r = ctl_import(s->ctl, (char *[]){NULL});
        s->ctl->quiet = quiet;
        return r;
}

int ctl_enable_postfix(Ctl *ctl, char *args[]) {
        Switch s = {.ctl = ctl};
        int r;

        (void) args;
        r = begin(&s);
        if (r == EX_OK)
                r = check_enable(&s);
        if (r == EX_OK)
                r = switch_over(&s);
        if (r != EX_OK)
                return finish(&s, r, NULL);
        if (ctl->dry_run)
                say(&s, "Nothing was changed.");
        else
                say(&s, "Postfix asks fflushd%s. Back: fflushctl disable-postfix",
                    s.changed ? " now" : ", as before");
        if (!s.running)
                say(&s, "Postfix does not run.");
        if (!ctl->settings.fast_flush_domains[0])
                say(&s, "fast_flush_domains is empty: nothing will be recorded. For all "
                        "destinations: postconf -e fast_flush_domains=static:all");
        if (take_records(&s) != EX_OK)
                ctl_error("not all deferred mail could be recorded: fflushctl import tries again");
        return finish(&s, r, CTL_SERVICE);
}

/* ---------------------------------------------------------------------------------- disable */

/* Programs that record a message when they defer it. */
static bool is_agent(pid_t pid) {
        static const char *const names[] = {"smtp", "lmtp",  "local", "virtual",
                                            "pipe", "error", "qmgr",  "oqmgr"};
        char path[64], name[32] = "";
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/comm", (int) pid);
        f = fopen(path, "re");
        if (!f)
                return false;
        if (fgets(name, sizeof name, f))
                chomp(name);
        (void) fclose(f);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (streq(name, names[i]))
                        return true;
        return false;
}

/* The next number in a file, or 0. */
static pid_t read_pid(FILE *f) {
        _cleanup_free_ char *word = NULL;
        size_t size = 0;
        long n;

        do
                if (getdelim(&word, &size, ' ', f) < 0)
                        return 0;
        while (streq(word, " ")); /* master(8) puts some before its own */
        n = strtol(word, NULL, 10);
        return n > 0 && n <= INT_MAX ? (pid_t) n : 0;
}

/* Those of this instance: children of its master(8). Return: how many. */
static size_t find_agents(const Switch *s, pid_t agents[static AGENTS_MAX]) {
        char path[PATH_MAX];
        pid_t master, pid;
        size_t n = 0;
        FILE *f;

        (void) snprintf(path, sizeof path, "%s/pid/master.pid", s->ctl->settings.queue_directory);
        f = fopen(path, "re");
        if (!f)
                return 0;
        master = read_pid(f);
        (void) fclose(f);
        (void) snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int) master, (int) master);
        f = master > 0 ? fopen(path, "re") : NULL;
        if (!f)
                return 0;
        while (n < AGENTS_MAX && (pid = read_pid(f)) > 0)
                if (is_agent(pid))
                        agents[n++] = pid;
        (void) fclose(f);
        return n;
}

/* After a reload each ends with what it is doing; what it defers until then it records where it
 * always has. */
static int wait_for_agents(const Switch *s, pid_t agents[], size_t n) {
        uint64_t end = now_usec() + (s->ctl->timeout > 0 ? s->ctl->timeout : AGENTS_USEC);

        for (;;) {
                size_t left = 0;

                for (size_t i = 0; i < n; i++)
                        if (is_agent(agents[i]))
                                agents[left++] = agents[i];
                n = left;
                if (n == 0 || now_usec() >= end)
                        break;
                (void) usleep(PAUSE_USEC);
        }
        if (n == 0)
                return EX_OK;
        ctl_error("Postfix asks flush(8) again, but %zu delivery agents are still busy and know "
                  "only %s (process %d); it listens until you say the same again",
                  n, s->socket, (int) agents[0]);
        return EX_TEMPFAIL;
}

static int check_disable(Switch *s) {
        if (run(s, RUN_ASK, POSTCONF, "-M", BUILT_IN "/unix") == EX_OK && !s->output[0])
                return refuse("master.cf has no service \"flush\": Postfix would be left without "
                              "one. \"postfix upgrade-configuration\" adds it");
        return EX_OK;
}

static int switch_back(Switch *s) {
        static pid_t agents[AGENTS_MAX];
        size_t n;
        int r;

        r = check_disable(s);
        if (r != EX_OK)
                return r;
        n = s->running ? find_agents(s, agents) : 0;
        r = unset_parameter(s);
        if (r != EX_OK || s->ctl->dry_run || !s->running)
                return r;
        r = probe_client(s, BUILT_IN);
        return r == EX_OK ? wait_for_agents(s, agents, n) : r;
}

static int stop_units(Switch *s) {
        if (sd_booted() <= 0)
                return run(s, RUN_CHANGE, SYSTEMCTL, "disable", s->timer, s->socket);
        if (!has_property(s, s->socket, "LoadState", "loaded") ||
            (is_cleared_away(s, s->socket) && is_cleared_away(s, s->timer)))
                return EX_OK;
        return run(s, RUN_CHANGE, SYSTEMCTL, "disable", "--now", s->timer, s->socket);
}

/* What systemd leaves in the file system; done as the owner of the queue. */
static void remove_socket(const Switch *s) {
        _cleanup_close_ int fd =
                openat(s->ctl->queue.fd, "public", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;

        if (fd >= 0 && fstatat(fd, CTL_SERVICE, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISSOCK(st.st_mode) && find_listener(s->ctl) == 0)
                (void) unlinkat(fd, CTL_SERVICE, 0);
}

static int give_records(Switch *s) {
        int r = ctl_export_logs(s->ctl);

        if (r == EX_OK && !s->ctl->dry_run)
                remove_socket(s);
        return r;
}

int ctl_disable_postfix(Ctl *ctl, char *args[]) {
        Switch s = {.ctl = ctl};
        int r;

        (void) args;
        r = begin(&s);
        if (r == EX_OK)
                r = asks(&s, CTL_SERVICE) ? switch_back(&s) : check_takeover(&s);
        if (r == EX_OK)
                r = stop_units(&s);
        if (r == EX_OK)
                r = give_records(&s);
        if (r != EX_OK)
                return finish(&s, r, NULL);
        if (ctl->dry_run)
                say(&s, "Nothing was changed.");
        else
                say(&s, "Postfix asks flush(8)%s.",
                    asks(&s, CTL_SERVICE) ? " again" : ", as before");
        return finish(&s, r, asks(&s, CTL_SERVICE) ? BUILT_IN : s.asks);
}
