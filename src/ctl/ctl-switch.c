/* SPDX-License-Identifier: MIT */

/* What changes something is a command that is shown, and nothing changes before all has been looked
 * at. */

#include "ctl/ctl-switch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "core/request.h"
#include "ctl/client.h"
#include "ctl/ctl-ask.h"
#include "ctl/ctl-print.h"
#include "util/child.h"
#include "util/util.h"

#define COMMAND_USEC    (120 * USEC_PER_SEC)
#define WORDS_MAX       16
#define CLOSE_USEC      (2 * USEC_PER_SEC)
#define CLOSE_LOOK_USEC (20 * USEC_PER_MSEC)

void switch_say(const Switch *s, const char *format, ...) {
        va_list ap;

        if (s->ctl->quiet || s->ctl->json)
                return;
        va_start(ap, format);
        ctl_vprint(CTL_PLAIN, format, ap);
        va_end(ap);
        ctl_print("\n");
        (void) fflush(stdout); /* systemctl and postfix write as well */
}

int switch_refuse(const char *format, ...) {
        char text[2 * PATH_MAX];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        ctl_error("%s", text);
        return EX_CONFIG;
}

/* ------------------------------------------------------------------------------ commands */

static void show(const Switch *s, const char *const words[]) {
        const char *slash = strrchr(words[0], '/');
        char line[2 * PATH_MAX];
        size_t n = 0;

        for (size_t i = 0; words[i] && n < sizeof line; i++)
                n += (size_t) snprintf(line + n, sizeof line - n, " %s",
                                       i == 0 && slash ? slash + 1 : words[i]);
        switch_say(s, " %s", line);
}

static int report_failure(const char *const words[], int status, const char *errors) {
        errors += strspn(errors, "\n");
        ctl_error("%s failed with status %d: %.*s", words[0], status, (int) strcspn(errors, "\n"),
                  errors);
        return EX_UNAVAILABLE;
}

static int run_words(Switch *s, SwitchRun kind, const char *const words[]) {
        ChildResult result;
        int r;

        if (kind == SWITCH_CHANGE) {
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
            : kind != SWITCH_ASK ? report_failure(words, result.status, result.errors)
                                 : EX_UNAVAILABLE;
        free(result.errors);
        return r;
}

int switch_run(Switch *s, SwitchRun kind, const char *const command[]) {
        bool of_postfix =
                strncmp(command[0], POSTFIX_COMMAND_DIR, strlen(POSTFIX_COMMAND_DIR)) == 0;
        /* Without it, this one would go through all instances. */
        bool of_all = streq(command[0], SWITCH_POSTFIX);
        const char *words[WORDS_MAX] = {command[0]};
        size_t n = 1;

        if (of_postfix && (s->dir || of_all)) {
                words[n++] = "-c";
                words[n++] = s->ctl->settings.postfix_config_directory;
        }
        for (size_t i = 1; command[i] && n < WORDS_MAX - 1; i++)
                words[n++] = command[i];
        return run_words(s, kind, words);
}

int switch_parameter(Switch *s, const char *name) {
        free(s->output);
        s->output = ctl_postconf(s->ctl, name);
        if (s->output)
                return EX_OK;
        ctl_error("cannot read %s with postconf(1): is Postfix installed?", name);
        return EX_UNAVAILABLE;
}

bool switch_asked(const Switch *s, const char *service) {
        return s->asks && streq(s->asks, service);
}

/* ------------------------------------------------------------------------------------ units */

char *switch_read_unit(Switch *s, const char *unit) {
        char *state;

        if (switch_run_words(s, SWITCH_ASK, SWITCH_SYSTEMCTL, "show", unit) != EX_OK) {
                ctl_error("cannot read the state of %s with systemctl(1)", unit);
                return NULL;
        }
        state = TAKE_PTR(s->output);
        return state;
}

/* The line of a property may be there more than once: a socket with two paths. */
static const char *find_property(const char *state, const char *name) {
        size_t n = strlen(name);

        for (const char *p = state; p && *p; p += *p == '\n') {
                if (strncmp(p, name, n) == 0 && p[n] == '=')
                        return p + n + 1;
                p += strcspn(p, "\n");
        }
        return NULL;
}

const char *switch_property(const char *state, const char *name,
                            char ret[static SWITCH_VALUE_SIZE]) {
        const char *value = find_property(state, name);

        (void) snprintf(ret, SWITCH_VALUE_SIZE, "%.*s", value ? (int) strcspn(value, "\n") : 0,
                        value ? value : "");
        return ret;
}

bool switch_has_property(const char *state, const char *name, const char *value) {
        char is[SWITCH_VALUE_SIZE];

        return streq(switch_property(state, name, is), value);
}

bool switch_is_up(const char *state) {
        return switch_has_property(state, "ActiveState", "active") &&
               switch_has_property(state, "UnitFileState", "enabled");
}

bool switch_is_clear(const char *state) {
        return !switch_has_property(state, "ActiveState", "active") &&
               !switch_has_property(state, "ActiveState", "failed") &&
               !switch_has_property(state, "UnitFileState", "enabled");
}

/* The same file, however its directory is written. */
static bool is_same_place(const char *a, const char *b) {
        const char *last_a = strrchr(a, '/'), *last_b = strrchr(b, '/');
        char dir_a[PATH_MAX], dir_b[PATH_MAX], real_a[PATH_MAX], real_b[PATH_MAX];

        if (!last_a || !last_b || !streq(last_a, last_b))
                return false;
        (void) snprintf(dir_a, sizeof dir_a, "%.*s", (int) (last_a - a), a);
        (void) snprintf(dir_b, sizeof dir_b, "%.*s", (int) (last_b - b), b);
        return realpath(dir_a, real_a) && realpath(dir_b, real_b) && streq(real_a, real_b);
}

bool switch_listens_for(const Switch *s, const char *service) {
        char path[PATH_MAX], unit[PATH_MAX];
        const char *p = s->states[SWITCH_SOCKET];

        (void) snprintf(path, sizeof path, "%s/public/%s", s->ctl->settings.queue_directory,
                        service);
        while ((p = find_property(p, "Listen"))) { /* "/path (Stream)" */
                (void) snprintf(unit, sizeof unit, "%.*s", (int) strcspn(p, " \n"), p);
                if (is_same_place(unit, path))
                        return true;
        }
        return false;
}

int switch_check_takeover(const Switch *s) {
        if (switch_asked(s, CTL_SERVICE) || !switch_listens_for(s, s->asks))
                return EX_OK;
        return switch_refuse("%s listens on public/%s, in the place of Postfix's own service: that "
                             "is done and undone by hand",
                             s->units[SWITCH_SOCKET], s->asks);
}

int switch_find_listener(const Switch *s) {
        int pid = client_find_listener(s->ctl->socket_path, ctl_patience(s->ctl));

        return pid == -ENOENT || pid == -ECONNREFUSED ? 0 : pid;
}

/* systemd 257 closes a socket in a thread of its own, a moment after its unit is inactive. */
static void await_close(const Switch *s) {
        uint64_t until = now_usec() + CLOSE_USEC;

        while (client_is_bound(s->ctl->socket_path) > 0 && now_usec() < until)
                (void) usleep(CLOSE_LOOK_USEC);
}

void switch_remove_socket(Switch *s) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        if (ctl_queue(s->ctl) != EX_OK || ctl_become_owner(s->ctl) != EX_OK)
                return;
        await_close(s);
        fd = openat(s->ctl->queue.fd, "public", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && fstatat(fd, CTL_SERVICE, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISSOCK(st.st_mode) && switch_find_listener(s) == 0)
                (void) unlinkat(fd, CTL_SERVICE, 0);
}

/* ------------------------------------------------------------------- main.cf and who reads it */

/* One at a time: two that undo each other's steps would leave anything. */
static int lock(Switch *s) {
        const char *directory = s->ctl->settings.postfix_config_directory;

        if (s->ctl->dry_run)
                return EX_OK;
        s->lock_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s->lock_fd >= 0 && flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0)
                return EX_OK;
        ctl_error("%s: %s", directory,
                  errno == EWOULDBLOCK ? "it is being switched already" : strerror(errno));
        return errno == EWOULDBLOCK ? EX_TEMPFAIL : EX_UNAVAILABLE;
}

int switch_set(Switch *s) {
        int status = switch_run_words(s, SWITCH_CHANGE, SWITCH_POSTCONF, "-e",
                                      "flush_service_name=" CTL_SERVICE);

        s->set |= status == EX_OK;
        s->told_usec = 0;
        return status;
}

int switch_unset(Switch *s) {
        int status =
                switch_run_words(s, SWITCH_CHANGE, SWITCH_POSTCONF, "-X", "flush_service_name");

        s->set |= status == EX_OK;
        s->told_usec = 0;
        return status;
}

int switch_probe(Switch *s, const char *service) {
        int status, pid;

        status = switch_parameter(s, "flush_service_name");
        if (status != EX_OK)
                return status;
        if (!streq(s->output, service)) {
                ctl_error("Postfix still uses \"%s\"", s->output);
                return EX_UNAVAILABLE;
        }
        status = switch_run_words(s, SWITCH_NEED, SWITCH_POSTQUEUE, "-i", REQUEST_PROBE_ID);
        if (status != EX_OK) {
                ctl_error("postqueue got no answer from public/%s", service);
                return status;
        }
        if (!streq(service, CTL_SERVICE)) /* where a look alone would make flush(8) warn */
                return EX_OK;
        pid = switch_find_listener(s);
        if (pid == 1)
                return EX_OK;
        ctl_error("process %d answers, and it is not systemd", pid);
        return EX_UNAVAILABLE;
}

/* -------------------------------------------------------------------------------- the command */

/* Those that were not ignored by who started us, as nohup(1) does. */
static void stop_signals(sigset_t *ret) {
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        struct sigaction action;

        (void) sigemptyset(ret);
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
                        (void) sigaddset(ret, signals[i]);
}

bool switch_interrupted(void) {
        sigset_t stop, pending;

        stop_signals(&stop);
        (void) sigpending(&pending);
        for (int i = 1; i < SIGRTMIN; i++)
                if (sigismember(&stop, i) == 1 && sigismember(&pending, i) == 1)
                        return true;
        return false;
}

void switch_interruptible(void) {
        sigset_t stop;

        stop_signals(&stop);
        (void) sigprocmask(SIG_UNBLOCK, &stop, NULL);
}

static void name_instance(Switch *s) {
        const Ctl *ctl = s->ctl;

        if (!streq(ctl->settings.postfix_config_directory, "/etc/postfix"))
                s->dir = ctl->settings.postfix_config_directory;
        ctl_command_name(ctl, s->command);
        (void) snprintf(s->postconf, sizeof s->postconf, "postconf%s%s", s->dir ? " -c " : "",
                        s->dir ? s->dir : "");
        ctl_unit_name(ctl, "fflush", "socket", s->units[SWITCH_SOCKET]);
        ctl_unit_name(ctl, "fflush-refresh", "timer", s->units[SWITCH_TIMER]);
        ctl_unit_name(ctl, "fflushd", "service", s->units[SWITCH_SERVICE]);
}

static int look(Switch *s) {
        int status = switch_parameter(s, "flush_service_name");

        if (status != EX_OK)
                return status;
        s->asks = TAKE_PTR(s->output);
        s->running = switch_run_words(s, SWITCH_ASK, SWITCH_POSTFIX, "status") == EX_OK;
        for (size_t i = 0; i < _SWITCH_UNIT_MAX && sd_booted() > 0; i++) {
                s->states[i] = switch_read_unit(s, s->units[i]);
                if (!s->states[i])
                        return EX_UNAVAILABLE;
        }
        return EX_OK;
}

int switch_begin(Switch *s) {
        Ctl *ctl = s->ctl;
        int status;

        if (ctl->socket)
                return ctl_usage("enable-postfix and disable-postfix have no option --socket");
        if (geteuid() != 0 && !ctl->dry_run) {
                ctl_error("must be root to change Postfix's configuration");
                return EX_NOPERM;
        }
        status = ctl_settings(ctl);
        if (status != EX_OK)
                return status;
        if (!ctl->settings.postfix_config_directory[0]) {
                ctl_error("postfix_config_directory is empty: there is no Postfix to switch");
                return EX_UNAVAILABLE;
        }
        name_instance(s);
        status = ctl_socket(ctl);
        if (status != EX_OK)
                return status;
        status = lock(s);
        return status == EX_OK ? look(s) : status;
}

int switch_steps(Switch *s, const Step steps[], size_t n) {
        sigset_t stop;
        int status = EX_OK;

        stop_signals(&stop);
        (void) sigprocmask(SIG_BLOCK, &stop, NULL);
        for (size_t i = 0; i < n && status == EX_OK; i++) {
                if (s->ctl->dry_run && steps[i].only_looks)
                        continue;
                if (steps[i].is_done && steps[i].is_done(s))
                        continue;
                if (switch_interrupted())
                        return EX_TEMPFAIL;
                status = steps[i].act(s);
        }
        return status;
}

int switch_end(Switch *s, int status, const char *serves) {
        if (status == EX_OK && s->ctl->json)
                ctl_print_json(json_pack("{so sb sb}", "flush_service_name", ctl_json_text(serves),
                                         "changed", s->changed, "dry_run", s->ctl->dry_run));
        for (size_t i = 0; i < _SWITCH_UNIT_MAX; i++)
                free(s->states[i]);
        free(s->asks);
        free(s->output);
        closep(&s->lock_fd);
        return status;
}
