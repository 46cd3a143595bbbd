/* SPDX-License-Identifier: MIT */
#pragma once

/* What enable-postfix and disable-postfix share. A switch is a list of steps, each known by its
 * effect: whoever is killed at any point and runs it again ends where one whole run ends. */

#include <limits.h>

#include "ctl/ctl.h"

#define SWITCH_BUILT_IN "flush" /* Postfix's own service */

typedef enum SwitchUnit {
        SWITCH_SOCKET,
        SWITCH_TIMER,
        SWITCH_SERVICE,
        _SWITCH_UNIT_MAX
} SwitchUnit;

typedef struct Switch {
        Ctl *ctl;
        const char *dir; /* configuration directory of Postfix; NULL: what its commands take */
        char command[CTL_UNIT_SIZE], postconf[PATH_MAX]; /* for hints: with the instance */
        char units[_SWITCH_UNIT_MAX][CTL_UNIT_SIZE];
        char *states[_SWITCH_UNIT_MAX]; /* their properties before anything was changed, or NULL */
        char *asks;                     /* flush_service_name, before anything was changed */
        uint64_t told_usec; /* CLOCK_BOOTTIME: when this run had Postfix reload; 0: it has not */
        bool running;       /* Postfix */
        bool set;           /* this run has set, or unset, the parameter */
        bool proven;        /* enable-postfix: Postfix's own client reaches fflushd */
        bool changed;
        int lock_fd;
        char *output; /* of the last command */
} Switch;

#define SWITCH_INIT(c)                                                                             \
        { .ctl = (c), .lock_fd = -EBADF }

typedef struct Step {
        bool (*is_done)(Switch *s); /* has it been done? NULL: this cannot be seen, or doing it
                                       again is cheap */
        int (*act)(Switch *s);
        bool only_looks; /* left out of a dry run */
} Step;

/** switch_begin() - look at Postfix, systemd and the instance; and keep other switches out */
int switch_begin(Switch *s);

/**
 * switch_steps() - those that are not done, in order
 *
 * SIGINT, SIGTERM and SIGHUP end it after a step, not in the middle of one.
 * Return: EX_OK, the exit status of a step, or EX_TEMPFAIL: switch_interrupted().
 */
int switch_steps(Switch *s, const Step steps[], size_t n);

/** switch_interrupted() - has a signal come that is to end the command? */
bool switch_interrupted(void);

/** switch_interruptible() - what follows may be broken off anywhere */
void switch_interruptible(void);

/** switch_end() - frees all; prints the object of --json if @r is EX_OK; Return: @r. */
int switch_end(Switch *s, int r, const char *serves);

void switch_say(const Switch *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** switch_refuse() - a message; Return: EX_CONFIG. */
int switch_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --------------------------------------------------------------------------------- commands */

typedef enum SwitchRun {
        SWITCH_ASK,   /* looks only; its failure is the caller's to report */
        SWITCH_NEED,  /* looks only; its failure is reported */
        SWITCH_CHANGE /* is shown; not run in a dry run; its failure is reported */
} SwitchRun;

#define SWITCH_POSTCONF  POSTFIX_COMMAND_DIR "/postconf"
#define SWITCH_POSTFIX   POSTFIX_COMMAND_DIR "/postfix"
#define SWITCH_POSTQUEUE POSTFIX_COMMAND_DIR "/postqueue"
#define SWITCH_SYSTEMCTL "/bin/systemctl" /* also where /bin is not /usr/bin */

/**
 * switch_run() - a command of Postfix, for the instance, or of systemd
 * Return: EX_OK, or an exit status; @s->output has what the command printed.
 */
int switch_run(Switch *s, SwitchRun kind, const char *const command[]);
#define switch_run_words(s, kind, ...) switch_run(s, kind, (const char *const[]){__VA_ARGS__, NULL})

/** switch_parameter() - @s->output is a parameter of main.cf; or an exit status */
int switch_parameter(Switch *s, const char *name);

/** switch_asked() - was @service the flush_service_name, before anything was changed? */
bool switch_asked(const Switch *s, const char *service);

/* ------------------------------------------------------------------------------------ units */

#define SWITCH_VALUE_SIZE 4096u

/** switch_read_unit() - what systemctl shows of a unit, to be freed; or NULL, with a message */
char *switch_read_unit(Switch *s, const char *unit);

/** switch_property() - a value of switch_read_unit(), cut to the size; Return: @ret */
const char *switch_property(const char *state, const char *name,
                            char ret[static SWITCH_VALUE_SIZE]);
bool switch_has_property(const char *state, const char *name, const char *value);

/** switch_is_up() - is a unit active, and enabled? */
bool switch_is_up(const char *state);

/** switch_is_clear() - is it neither active, nor failed, nor enabled? */
bool switch_is_clear(const char *state);

/** switch_listens_for() - is the socket unit on the path of this service? */
bool switch_listens_for(const Switch *s, const char *service);

/** switch_check_takeover() - refuse a socket unit in the place of another service */
int switch_check_takeover(const Switch *s);

/** switch_find_listener() - a process ID, 0 (nobody listens), or a negative errno */
int switch_find_listener(const Switch *s);

/** switch_remove_socket() - what systemd leaves in the file system; as the owner of the queue */
void switch_remove_socket(Switch *s);

/** switch_check_fit() - do the units fit this queue? If not, say what to write into which files */
int switch_check_fit(Switch *s);

/* ------------------------------------------------------------------- main.cf and who reads it */

/** switch_set(), switch_unset() - the parameter */
int switch_set(Switch *s);
int switch_unset(Switch *s);

/**
 * switch_is_told() - have all processes that ask a flush service begun after main.cf was changed?
 * switch_tell() - have Postfix reload
 */
bool switch_is_told(Switch *s);
int switch_tell(Switch *s);

/** switch_probe() - does @service answer Postfix's own program? */
int switch_probe(Switch *s, const char *service);

/**
 * switch_agents_are_gone() - have those ended that record mail, and began before main.cf was
 * changed? switch_await_agents() - wait until they have
 *
 * Return: EX_OK, or EX_TEMPFAIL (some are still busy, or interrupted): the caller says what that
 * means.
 */
bool switch_agents_are_gone(Switch *s);
int switch_await_agents(Switch *s, bool interruptible);

typedef struct SwitchProcesses {
        unsigned long asking; /* those that began before main.cf was changed and ask a service */
        unsigned long agents; /* those among them that record what they defer */
        pid_t agent;          /* one of these */
} SwitchProcesses;

/** switch_find_processes() - those of the instance that began before main.cf was changed */
SwitchProcesses switch_find_processes(const Switch *s);
