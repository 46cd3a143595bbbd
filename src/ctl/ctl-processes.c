/* SPDX-License-Identifier: MIT */

/* Which of Postfix's processes go by a main.cf of before? A process reads it when it begins, so
 * that the setting alone says nothing: those that began before it was changed go on as they were
 * until a reload has told them to end, and with a delivery that they are in the middle of longer.
 */

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "ctl/ctl-switch.h"
#include "util/util.h"

#define AGENTS_USEC (30 * USEC_PER_SEC)
#define PAUSE_USEC  100000

/* The kernel rounds the time of a file down by up to a tick of 10 ms, and that of a process too. */
#define ROUNDED_USEC 20000

static uint64_t clock_usec(clockid_t id) {
        struct timespec ts;

        (void) clock_gettime(id, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

/* By the clock that processes are counted by. The time of change, which nobody can set: a restored
 * main.cf has a modification time of long ago. */
static uint64_t changed_usec(const char *directory) {
        uint64_t set_off = clock_usec(CLOCK_REALTIME) - clock_usec(CLOCK_BOOTTIME), newest = 0;
        char path[PATH_MAX];
        struct stat st[2]; /* of a link, and of what it leads to */

        (void) snprintf(path, sizeof path, "%s/main.cf", directory);
        if (lstat(path, &st[0]) < 0 || stat(path, &st[1]) < 0)
                return USEC_INFINITY;
        for (size_t i = 0; i < ARRAY_SIZE(st); i++) {
                uint64_t usec = (uint64_t) st[i].st_ctim.tv_sec * USEC_PER_SEC +
                                (uint64_t) st[i].st_ctim.tv_nsec / 1000;

                if (usec > newest)
                        newest = usec;
        }
        return newest > set_off ? newest - set_off : 0;
}

typedef struct Process {
        char name[32];
        pid_t parent;
        uint64_t begun_usec; /* CLOCK_BOOTTIME */
} Process;

/* Source: proc(5), /proc/PID/stat. */
static bool read_process(pid_t pid, Process *ret) {
        char path[64], line[1024], *name, *rest;
        unsigned long long ticks;
        size_t n;
        FILE *f;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        f = fopen(path, "re");
        if (!f)
                return false;
        n = fread(line, 1, sizeof line - 1, f);
        (void) fclose(f);
        line[n] = '\0';
        name = strchr(line, '(');
        rest = strrchr(line, ')'); /* a name may have some of its own */
        if (!name || !rest || rest < name)
                return false;
        *rest = '\0';
        (void) snprintf(ret->name, sizeof ret->name, "%s", name + 1);
        /* NOLINTNEXTLINE(cert-err34-c): what the kernel writes there does fit */
        if (sscanf(rest + 1,
                   " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                   "%llu",
                   &ret->parent, &ticks) != 2)
                return false;
        ret->begun_usec = ticks * USEC_PER_SEC / (uint64_t) sysconf(_SC_CLK_TCK);
        return true;
}

/* Return: master(8) of the instance, or 0: it does not run. */
static pid_t find_master(const char *queue_directory) {
        char path[PATH_MAX];
        Process process;
        int pid = 0;
        FILE *f;

        (void) snprintf(path, sizeof path, "%s/pid/master.pid", queue_directory);
        f = fopen(path, "re");
        if (!f)
                return 0;
        /* NOLINTNEXTLINE(cert-err34-c): master(8) writes its number there, and it is looked at */
        if (fscanf(f, "%d", &pid) != 1 || pid <= 0)
                pid = 0;
        (void) fclose(f);
        return pid > 0 && read_process(pid, &process) && streq(process.name, "master") ? pid : 0;
}

static bool is_among(const char *name, const char *const names[]) {
        for (size_t i = 0; names[i]; i++)
                if (streq(name, names[i]))
                        return true;
        return false;
}

static void count(const Process *process, pid_t pid, SwitchProcesses *found) {
        static const char *const agents[] = {"smtp",  "lmtp", "local", "virtual", "pipe",
                                             "error", "qmgr", "oqmgr", NULL};
        static const char *const others[] = {"smtpd", NULL}; /* ETRN */

        if (is_among(process->name, agents)) {
                found->agents++;
                found->agent = pid;
        } else if (!is_among(process->name, others))
                return;
        found->asking++;
}

SwitchProcesses switch_find_processes(const Switch *s) {
        pid_t master = find_master(s->ctl->settings.queue_directory);
        uint64_t since = s->told_usec ? s->told_usec
                                      : changed_usec(s->ctl->settings.postfix_config_directory);
        SwitchProcesses found = {0};
        DIR *d = master > 0 ? opendir("/proc") : NULL;
        struct dirent *e;
        Process process;

        while (d && (e = readdir(d))) {
                pid_t pid = (pid_t) strtol(e->d_name, NULL, 10);

                if (pid > 0 && read_process(pid, &process) && process.parent == master &&
                    process.begun_usec <= since)
                        count(&process, pid, &found);
        }
        if (d)
                (void) closedir(d);
        return found;
}

bool switch_is_told(Switch *s) {
        if (s->ctl->dry_run && s->set)
                return !s->running;
        return switch_find_processes(s).asking == 0;
}

/* Before the reload, so that all that it begins is younger than both times, however rounded. */
static uint64_t pass_the_rounding(void) {
        uint64_t now;

        (void) usleep(ROUNDED_USEC);
        now = clock_usec(CLOCK_BOOTTIME);
        (void) usleep(ROUNDED_USEC);
        return now;
}

int switch_tell(Switch *s) {
        uint64_t now = s->ctl->dry_run ? 0 : pass_the_rounding();
        int status = switch_run_words(s, SWITCH_CHANGE, SWITCH_POSTFIX, "reload");

        if (status == EX_OK)
                s->told_usec = now;
        return status;
}

bool switch_agents_are_gone(Switch *s) {
        return s->ctl->dry_run || switch_find_processes(s).agents == 0;
}

int switch_await_agents(Switch *s, bool interruptible) {
        uint64_t end = now_usec() + (s->ctl->timeout > 0 ? s->ctl->timeout : AGENTS_USEC);

        while (!switch_agents_are_gone(s)) {
                if (now_usec() >= end || (interruptible && switch_interrupted()))
                        return EX_TEMPFAIL;
                (void) usleep(PAUSE_USEC);
        }
        return EX_OK;
}
