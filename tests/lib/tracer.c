/* SPDX-License-Identifier: MIT */

/*
 * Runs a program under ptrace(2) and stops it at system calls, to end it there or to have them
 * fail.
 *
 *     tracer LISTEN_FD PROGRAM [ARGUMENT...]
 *
 * The program gets the socket LISTEN_FD as systemd would pass it. Commands are lines on standard
 * input; those that say so are answered with a line on standard output:
 *
 *     start         run the program, held before its first instruction: "started PID"
 *     attach PID    hold a process that runs already: "started PID"
 *     hold          stop it where it is: "held -"; without an answer if it is held
 *     step N        go on until it enters its Nth system call from here: "held CALL [PATH|BYTES]"
 *     until CALL N  go on until it enters this one for the Nth time: "held CALL [PATH|BYTES]"
 *     error N       the call it is about to make is not made, it fails with this errno
 *     short N       the call it is about to make is asked for N bytes only
 *     free          go on, without further stops
 *     record FILE   while it runs by "step" and "until", write down its system calls
 *     kill          SIGKILL: "exited 137"
 *
 * Whenever it ends there is "exited STATUS" instead of another answer, or without being asked.
 * A killed process leaves the files as the calls it completed made them, and no memory of it is
 * shared with anybody: to stop it before each call is to stop it everywhere.
 *
 * Registers are the machine's own: on one that is not named here, it only says so and exits 77.
 */

#include <stdio.h>

#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

/* Younger than the headers of Debian 11; the numbers are the same on all machines. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#define ARRAY_SIZE(a)    (sizeof(a) / sizeof((a)[0]))
#define LISTEN_FDS_START 3
#define DATA_MAX         (1u << 20)

typedef enum DataKind {
        DATA_NONE,
        DATA_PATH,   /* the second argument is a path */
        DATA_PATHS,  /* the second and fourth are */
        DATA_BUFFER, /* the second points to as many bytes as the call returns */
} DataKind;

static const struct {
        long nr;
        const char *name;
        DataKind data;
} calls[] = {
#define CALL(name, data)                                                                           \
        { SYS_##name, #name, DATA_##data }
        CALL(openat, PATH),
        CALL(newfstatat, PATH),
        CALL(statx, PATH),
        CALL(faccessat, PATH),
        CALL(faccessat2, PATH),
        CALL(unlinkat, PATH),
        CALL(mkdirat, PATH),
        CALL(fchownat, PATH),
        CALL(utimensat, PATH),
        CALL(renameat, PATHS),
        CALL(renameat2, PATHS),
        CALL(read, BUFFER),
        CALL(pread64, BUFFER),
        CALL(recvfrom, BUFFER),
        CALL(write, BUFFER),
        CALL(pwrite64, BUFFER),
        CALL(sendto, BUFFER),
        CALL(writev, NONE),
        CALL(pwritev, NONE),
        CALL(pwritev2, NONE),
        CALL(sendmsg, NONE),
        CALL(close, NONE),
        CALL(fsync, NONE),
        CALL(fdatasync, NONE),
        CALL(syncfs, NONE),
        CALL(ftruncate, NONE),
        CALL(fchmod, NONE),
        CALL(fchown, NONE),
        CALL(fstat, NONE),
        CALL(flock, NONE),
        CALL(fcntl, NONE),
        CALL(getdents64, NONE),
        CALL(lseek, NONE),
        CALL(accept4, NONE),
        CALL(socket, NONE),
        CALL(connect, NONE),
        CALL(shutdown, NONE),
        CALL(getsockopt, NONE),
        CALL(setsockopt, NONE),
        CALL(epoll_create1, NONE),
        CALL(epoll_ctl, NONE),
        CALL(epoll_pwait, NONE),
        CALL(epoll_pwait2, NONE),
        CALL(ppoll, NONE),
        CALL(timerfd_create, NONE),
        CALL(signalfd4, NONE),
        CALL(timerfd_settime, NONE),
        CALL(mmap, NONE),
        CALL(munmap, NONE),
        CALL(mremap, NONE),
        CALL(brk, NONE),
        CALL(mprotect, NONE),
        CALL(rt_sigprocmask, NONE),
        CALL(exit_group, NONE),
        CALL(umask, NONE),
#ifdef SYS_epoll_wait /* architectures of old */
        CALL(open, NONE),
        CALL(stat, NONE),
        CALL(lstat, NONE),
        CALL(access, NONE),
        CALL(epoll_wait, NONE),
        CALL(poll, NONE),
        CALL(rename, NONE),
        CALL(unlink, NONE),
#endif
};

typedef struct Tracee {
        pid_t pid; /* 0: none */
        enum { HELD, STEPPING, FREE } mode;
        bool hold_asked, at_entry;
        long until_nr; /* count only these, or -1 */
        unsigned long left;
        struct __ptrace_syscall_info entered;
        FILE *record;
} Tracee;

static void die(const char *what) {
        (void) fprintf(stderr, "tracer: %s: %s\n", what, strerror(errno));
        exit(1);
}

static size_t find_call(long nr) {
        size_t i = 0;

        while (i < ARRAY_SIZE(calls) && calls[i].nr != nr)
                i++;
        return i;
}

/* Those without a name here are told by number. */
static long call_number(const char *name) {
        if (name[0] >= '0' && name[0] <= '9')
                return strtol(name, NULL, 10);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                if (strcmp(calls[i].name, name) == 0)
                        return calls[i].nr;
        (void) fprintf(stderr, "tracer: no such call: %s\n", name);
        exit(1);
}

static size_t read_memory(pid_t pid, unsigned long long address, void *ret, size_t n) {
        struct iovec here = {.iov_base = ret, .iov_len = n};
        struct iovec there = {.iov_len = n};
        ssize_t r;

        memcpy(&there.iov_base, &address, sizeof there.iov_base);
        r = process_vm_readv(pid, &here, 1, &there, 1, 0);
        return r < 0 ? 0 : (size_t) r;
}

static const char *read_path(pid_t pid, unsigned long long address, char ret[static PATH_MAX]) {
        size_t n = read_memory(pid, address, ret, PATH_MAX - 1);

        /* What follows may belong to nobody. */
        for (size_t size = PATH_MAX / 2; n == 0 && size > 0; size /= 2)
                n = read_memory(pid, address, ret, size);
        ret[n] = '\0';
        return ret;
}

static void print_call(FILE *f, const Tracee *t, const struct __ptrace_syscall_info *e) {
        size_t i = find_call((long) e->entry.nr);
        char path[PATH_MAX];

        if (i == ARRAY_SIZE(calls))
                (void) fprintf(f, "%llu", (unsigned long long) e->entry.nr);
        else
                (void) fputs(calls[i].name, f);
        if (i < ARRAY_SIZE(calls) && (calls[i].data == DATA_PATH || calls[i].data == DATA_PATHS) &&
            e->entry.args[1] != 0)
                (void) fprintf(f, " %s", read_path(t->pid, e->entry.args[1], path));
        if (i < ARRAY_SIZE(calls) && calls[i].data == DATA_PATHS)
                (void) fprintf(f, " %s", read_path(t->pid, e->entry.args[3], path));
        if (i < ARRAY_SIZE(calls) && calls[i].data == DATA_BUFFER)
                (void) fprintf(f, " %llu", (unsigned long long) e->entry.args[2]);
}

/* "RESULT|ARGUMENT ARGUMENT ...|CALL [PATH [PATH]]|BYTES in hexadecimal" */
static void record(const Tracee *t, long long result) {
        static unsigned char data[DATA_MAX];
        size_t i = find_call((long) t->entered.entry.nr), n = 0;

        (void) fprintf(t->record, "%lld|", result);
        for (size_t a = 0; a < 6; a++)
                (void) fprintf(t->record, "%lld ", (long long) t->entered.entry.args[a]);
        (void) fputc('|', t->record);
        print_call(t->record, t, &t->entered);
        (void) fputc('|', t->record);
        if (i < ARRAY_SIZE(calls) && calls[i].data == DATA_BUFFER && result > 0)
                n = read_memory(t->pid, t->entered.entry.args[1], data,
                                (size_t) result < DATA_MAX ? (size_t) result : DATA_MAX);
        for (size_t k = 0; k < n; k++)
                (void) fprintf(t->record, "%02x", data[k]);
        (void) fputc('\n', t->record);
}

/* -------------------------------------------------------------------------------- registers */

#if defined(__x86_64__)
typedef struct user_regs_struct Registers;
#define REG_RESULT(r) ((r).rax)
#define REG_COUNT(r)  ((r).rdx)
#else
typedef struct user_regs_struct Registers;
#define REG_RESULT(r) ((r).regs[0])
#define REG_COUNT(r)  ((r).regs[2])
#endif

static void get_registers(pid_t pid, Registers *ret) {
        struct iovec iov = {.iov_base = ret, .iov_len = sizeof *ret};

        if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &iov) < 0)
                die("PTRACE_GETREGSET");
}

static void set_registers(pid_t pid, Registers *regs) {
        struct iovec iov = {.iov_base = regs, .iov_len = sizeof *regs};

        if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &iov) < 0)
                die("PTRACE_SETREGSET");
}

static void skip_call(pid_t pid) {
#if defined(__x86_64__)
        Registers regs;

        get_registers(pid, &regs);
        regs.orig_rax = (unsigned long long) -1;
        set_registers(pid, &regs);
#else
        int nr = -1;
        struct iovec iov = {.iov_base = &nr, .iov_len = sizeof nr};

        if (ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &iov) < 0)
                die("PTRACE_SETREGSET");
#endif
}

/* ---------------------------------------------------------------------------------- running */

static void go_on(Tracee *t, int sig) {
        if (ptrace(t->mode == FREE ? PTRACE_CONT : PTRACE_SYSCALL, t->pid, 0, sig) < 0 &&
            errno != ESRCH)
                die("PTRACE_CONT");
}

static void get_info(const Tracee *t, struct __ptrace_syscall_info *ret) {
        if (ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, sizeof *ret, ret) < 0)
                die("PTRACE_GET_SYSCALL_INFO");
}

static void say_held(Tracee *t, const struct __ptrace_syscall_info *e) {
        t->mode = HELD;
        t->hold_asked = false;
        if (t->record) /* complete when the answer is read */
                (void) fflush(t->record);
        (void) fputs("held ", stdout);
        if (e)
                print_call(stdout, t, e);
        else
                (void) fputc('-', stdout);
        (void) fputc('\n', stdout);
}

static void interrupt(const Tracee *t) {
        if (ptrace(PTRACE_INTERRUPT, t->pid, 0, 0) < 0 && errno != ESRCH)
                die("PTRACE_INTERRUPT");
}

static void on_syscall(Tracee *t) {
        struct __ptrace_syscall_info info;

        get_info(t, &info);
        t->at_entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
        if (t->at_entry)
                t->entered = info;
        else if (t->record)
                record(t, info.exit.rval);
        if (t->at_entry && t->mode == STEPPING &&
            (t->until_nr < 0 || t->until_nr == (long) info.entry.nr) && --t->left == 0)
                say_held(t, &info);
        else if (t->hold_asked) /* any stop takes the place of the one that was asked for */
                say_held(t, NULL);
        else
                go_on(t, 0);
}

static void on_stop(Tracee *t, int status) {
        int event = status >> 16, sig = WSTOPSIG(status);

        if (sig == (SIGTRAP | 0x80))
                on_syscall(t);
        else if (event == PTRACE_EVENT_STOP && t->hold_asked) {
                t->at_entry = false;
                say_held(t, NULL);
        } else {
                go_on(t, event ? 0 : sig);
                if (t->hold_asked)
                        interrupt(t);
        }
}

static void on_exit_of(Tracee *t, int status) {
        if (t->record)
                (void) fflush(t->record);
        (void) printf("exited %d\n",
                      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        t->pid = 0;
        t->hold_asked = false;
}

static void on_child(Tracee *t) {
        int status;

        while (t->pid > 0 && waitpid(t->pid, &status, WNOHANG | __WALL) > 0) {
                if (WIFSTOPPED(status))
                        on_stop(t, status);
                else
                        on_exit_of(t, status);
        }
}

/* --------------------------------------------------------------------------------- commands */

static void wait_for_stop(Tracee *t, int event) {
        int status;

        if (waitpid(t->pid, &status, __WALL) < 0 || !WIFSTOPPED(status) || status >> 16 != event)
                die("it does not stop");
}

static void become(int listen_fd, char *argv[], int ready_fd) {
        sigset_t none;
        char pid[16], c;
        int null = open("/dev/null", O_RDWR);

        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) snprintf(pid, sizeof pid, "%d", getpid());
        (void) setenv("LISTEN_PID", pid, 1);
        (void) setenv("LISTEN_FDS", "1", 1);
        /* Until the other end is closed: it is being traced then. */
        if (read(ready_fd, &c, 1) < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
            dup2(listen_fd, LISTEN_FDS_START) < 0)
                _exit(126);
        (void) fcntl(LISTEN_FDS_START, F_SETFD, 0);
        (void) syscall(SYS_close_range, LISTEN_FDS_START + 1, ~0u, 0);
        (void) execv(argv[0], argv);
        _exit(127);
}

static void start(Tracee *t, int listen_fd, char *argv[]) {
        int ready[2];

        if (pipe2(ready, O_CLOEXEC) < 0)
                die("pipe");
        t->pid = fork();
        if (t->pid < 0)
                die("fork");
        if (t->pid == 0) {
                (void) close(ready[1]);
                become(listen_fd, argv, ready[0]);
        }
        (void) close(ready[0]);
        if (ptrace(PTRACE_SEIZE, t->pid, 0,
                   PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC) < 0)
                die("PTRACE_SEIZE");
        (void) close(ready[1]);
        wait_for_stop(t, PTRACE_EVENT_EXEC);
        t->mode = HELD;
        t->at_entry = false;
        (void) printf("started %d\n", t->pid);
}

static void attach(Tracee *t, pid_t pid) {
        if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESYSGOOD) < 0 ||
            ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0)
                die("PTRACE_SEIZE");
        t->pid = pid;
        wait_for_stop(t, PTRACE_EVENT_STOP);
        t->mode = HELD;
        t->at_entry = false;
        (void) printf("started %d\n", pid);
}

static void hold(Tracee *t) {
        if (t->mode == HELD)
                return;
        t->hold_asked = true;
        interrupt(t);
}

static void step(Tracee *t, long nr, unsigned long n) {
        t->mode = STEPPING;
        t->until_nr = nr;
        t->left = n;
        go_on(t, 0);
}

static void fail_call(Tracee *t, int error) {
        Registers regs;

        if (!t->at_entry)
                die("not before a call");
        skip_call(t->pid);
        t->mode = STEPPING;
        go_on(t, 0);
        wait_for_stop(t, 0);
        get_registers(t->pid, &regs);
        REG_RESULT(regs) = (unsigned long long) -error;
        set_registers(t->pid, &regs);
        t->mode = HELD;
        t->at_entry = false;
        if (t->record)
                record(t, -error);
}

static void shorten_call(const Tracee *t, unsigned long n) {
        Registers regs;

        if (!t->at_entry)
                die("not before a call");
        get_registers(t->pid, &regs);
        if (REG_COUNT(regs) > n)
                REG_COUNT(regs) = n;
        set_registers(t->pid, &regs);
}

static void on_command(Tracee *t, char *line, int listen_fd, char *argv[]) {
        static const char *const words = " \n";
        char *command = strtok(line, words), *arg = strtok(NULL, words),
             *arg2 = strtok(NULL, words);
        unsigned long n = arg ? strtoul(arg, NULL, 10) : 0;

        if (!command)
                return;
        if (strcmp(command, "start") == 0)
                start(t, listen_fd, argv);
        else if (strcmp(command, "attach") == 0)
                attach(t, (pid_t) n);
        else if (strcmp(command, "record") == 0 && arg)
                t->record = fopen(arg, "we");
        else if (t->pid == 0)
                return; /* it has ended, and that has been said */
        else if (strcmp(command, "hold") == 0)
                hold(t);
        else if (strcmp(command, "step") == 0)
                step(t, -1, n);
        else if (strcmp(command, "until") == 0 && arg2)
                step(t, call_number(arg), strtoul(arg2, NULL, 10));
        else if (strcmp(command, "error") == 0)
                fail_call(t, (int) n);
        else if (strcmp(command, "short") == 0)
                shorten_call(t, n);
        else if (strcmp(command, "free") == 0) {
                t->mode = FREE;
                go_on(t, 0);
        } else if (strcmp(command, "kill") == 0)
                (void) kill(t->pid, SIGKILL);
        else
                die(command);
}

int main(int argc, char *argv[]) {
        Tracee t = {0};
        char line[PATH_MAX + 16];
        sigset_t mask;
        int children;

        if (argc < 3)
                return 64;
        /* Commands are lines, one at a time: none is to lie unseen in a buffer of ours. */
        (void) setvbuf(stdin, NULL, _IONBF, 0);
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGCHLD);
        (void) sigprocmask(SIG_BLOCK, &mask, NULL);
        children = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        for (;;) {
                struct pollfd p[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                     {.fd = children, .events = POLLIN}};
                struct signalfd_siginfo si;

                if (poll(p, ARRAY_SIZE(p), -1) < 0)
                        die("poll");
                if (p[1].revents) {
                        (void) !read(children, &si, sizeof si);
                        on_child(&t);
                }
                if (p[0].revents) {
                        if (!fgets(line, sizeof line, stdin))
                                return 0; /* PTRACE_O_EXITKILL ends what it runs */
                        on_command(&t, line, atoi(argv[1]), argv + 2);
                }
        }
}

#else

int main(void) {
        (void) fputs("tracer: the registers of this machine are not known to it\n", stderr);
        return 77;
}

#endif
