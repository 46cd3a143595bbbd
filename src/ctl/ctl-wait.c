/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-wait.h"

#include <signal.h>
#include <stdio.h>

#include "ctl/ctl-print.h"
#include "ctl/reader.h"
#include "util/util.h"

#define LOOK_USEC     (2 * USEC_PER_SEC)
#define STOPPED_LOOKS 5 /* in a row without a queue manager: longer than a restart of Postfix */
#define PROGRESS_USEC (200 * USEC_PER_MSEC)
#define LOG_USEC      (3 * USEC_PER_SEC) /* how far the log may lag behind the queue */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
        interrupted = 1;
}

void ctl_wait_catch(void) {
        struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int) SA_RESETHAND};

        (void) sigaction(SIGINT, &action, NULL);
}

bool ctl_wait_interrupted(void) {
        return interrupted;
}

/* ------------------------------------------------------------------------------------- begin */

/* Where Postfix or syslogd writes the log, besides the journal. */
static int open_log(Ctl *ctl, CtlWait *w) {
        static const char *const usual[] = {"/var/log/mail.log", "/var/log/maillog",
                                            "/var/log/mail", NULL};
        const char *own[] = {NULL, NULL};

        w->maillog_file = ctl_postconf(ctl, "maillog_file");
        own[0] = w->maillog_file;
        w->outcomes = outcomes_new();
        if (!w->outcomes || maillog_new(ctl->settings.syslog_name, own[0] && *own[0] ? own : usual,
                                        NULL, &w->log) < 0)
                return ctl_no_memory();
        return EX_OK;
}

int ctl_wait_begin(Ctl *ctl, CtlWait *w) {
        int r, status;

        status = ctl_queue(ctl);
        if (status == EX_OK)
                status = open_log(ctl, w);
        if (status != EX_OK)
                return status;
        r = follow_init(&ctl->queue, &w->follow);
        if (r == 0)
                return EX_OK;
        ctl_error("cannot watch the queue: %s%s", strerror(-r),
                  r == -ENOSPC ? " (fs.inotify.max_user_watches)" : "");
        return r == -EACCES ? EX_NOPERM : EX_OSERR;
}

void ctl_wait_done(CtlWait *w) {
        follow_done(&w->follow);
        outcomes_free(w->outcomes);
        maillog_free(w->log);
        free(w->maillog_file);
}

static int say_trouble(const char *id, int error) {
        if (error == -ENOMEM)
                return ctl_no_memory();
        ctl_error("%s: %s", id, strerror(-error));
        return EX_OSERR;
}

int ctl_wait_add(CtlWait *w, const char *id, unsigned group) {
        int r = follow_add(&w->follow, id, group);

        if (r == 0)
                r = outcomes_add(w->outcomes, id);
        return r == 0 ? EX_OK : say_trouble(id, r);
}

int ctl_wait_join(CtlWait *w, const char *id, unsigned group, bool *ret_joined) {
        int r = follow_join(&w->follow, id, group);

        *ret_joined = r > 0;
        if (r > 0)
                r = outcomes_add(w->outcomes, id);
        return r == 0 ? EX_OK : say_trouble(id, r);
}

/* -------------------------------------------------------------------------------------- wait */

unsigned long ctl_wait_moved(const CtlWait *w) {
        const Follow *f = &w->follow;

        return f->count[FOLLOW_MOVING] + f->count[FOLLOW_LEFT] + f->count[FOLLOW_DEFERRED] +
               f->count[FOLLOW_HELD];
}

static void show_progress(const CtlWait *w) {
        const Follow *f = &w->follow;

        ctl_progress("%lu of %lu: %lu left the queue, %lu deferred again",
                     ctl_wait_moved(w) - f->count[FOLLOW_MOVING], ctl_wait_moved(w),
                     f->count[FOLLOW_LEFT], f->count[FOLLOW_DEFERRED]);
}

bool ctl_warn_stopped(const Ctl *ctl) {
        bool stopped = ctl_postfix_is_stopped(ctl);

        if (stopped)
                ctl_error("Postfix is not running: nothing is delivered before it is started");
        return stopped;
}

static void take_entry(const MaillogEntry *entry, void *userdata) {
        outcomes_take(userdata, entry);
}

/* Return: 0, or a negative errno. */
static int take_events(CtlWait *w) {
        int r = follow_events(&w->follow);

        maillog_read(w->log, take_entry, w->outcomes);
        return r;
}

typedef struct Watching {
        uint64_t start, looked, shown;
        bool progress;
        unsigned n_stopped;
} Watching;

static Watching begin_watching(const Ctl *ctl) {
        uint64_t now = now_usec();

        return (Watching){.start = now,
                          .looked = now,
                          .shown = now,
                          .progress = isatty(STDERR_FILENO) && !ctl->quiet && !ctl->json};
}

/* Return: 0, -ESHUTDOWN (Postfix was stopped), -EPIPE (nobody would read the result), or another
 * negative errno. */
static int watch_once(const Ctl *ctl, CtlWait *w, Watching *t) {
        uint64_t now;
        int r;

        if (!reader_wait_for(w->follow.fd, PROGRESS_USEC))
                return -EPIPE;
        r = take_events(w);
        now = now_usec();
        if (w->follow.blind)
                follow_look(&w->follow);
        if (now - t->looked >= LOOK_USEC) {
                follow_look(&w->follow);
                t->looked = now;
                t->n_stopped = ctl_postfix_is_stopped(ctl) ? t->n_stopped + 1 : 0;
        }
        if (t->progress && now - t->start >= USEC_PER_SEC && now - t->shown >= PROGRESS_USEC) {
                show_progress(w);
                t->shown = now;
        }
        return r == 0 && t->n_stopped == STOPPED_LOOKS ? -ESHUTDOWN : r;
}

int ctl_wait_pause(Ctl *ctl, CtlWait *w, uint64_t usec) {
        Watching t = begin_watching(ctl);
        int r = take_events(w);

        if (fflush(stdout) != 0)
                return EX_IOERR; /* who would know how far it got? */
        while (r == 0 && !interrupted && now_usec() - t.start < usec)
                r = watch_once(ctl, w, &t);
        ctl_progress_end();
        if (r == 0)
                return EX_OK;
        if (r != -ESHUTDOWN)
                ctl_error("cannot watch the queue: %s", strerror(-r));
        return EX_TEMPFAIL;
}

/* Return: 0, -ETIMEDOUT, -EINTR, or as watch_once(). */
static int watch_queues(const Ctl *ctl, CtlWait *w) {
        const Follow *f = &w->follow;
        Watching t = begin_watching(ctl);
        int r = 0;

        while (r == 0 && !interrupted && f->count[FOLLOW_MOVING] > 0) {
                r = watch_once(ctl, w, &t);
                if (ctl->timeout > 0 && now_usec() - t.start >= ctl->timeout)
                        break;
        }
        ctl_progress_end();
        if (r < 0 || f->count[FOLLOW_MOVING] == 0)
                return r;
        return interrupted ? -EINTR : -ETIMEDOUT;
}

/* Has the log told of all that has ended? */
static bool is_told(const CtlWait *w) {
        const void *cursor = NULL;
        FollowItem m;

        while (follow_next(&w->follow, &cursor, &m)) {
                OutcomeRecipients n;

                if (m.state != FOLLOW_LEFT && m.state != FOLLOW_DEFERRED)
                        continue;
                if (outcomes_of(w->outcomes, m.id, &n) == OUTCOME_UNKNOWN &&
                    (m.state == FOLLOW_LEFT || n.sent + n.bounced + n.deferred == 0))
                        return false;
        }
        return true;
}

/* journald and postlogd(8) write a little later than qmgr(8) moves files. */
static void watch_log(CtlWait *w) {
        uint64_t until = now_usec() + LOG_USEC;

        while (maillog_is_readable(w->log) && !is_told(w) && !interrupted && now_usec() < until) {
                if (!reader_wait(PROGRESS_USEC))
                        return;
                maillog_read(w->log, take_entry, w->outcomes);
        }
}

int ctl_wait_end(Ctl *ctl, CtlWait *w, bool all_moved) {
        struct sigaction old, action = {.sa_handler = on_interrupt};
        int r;

        (void) fflush(stdout);
        (void) sigaction(SIGINT, &action, &old);
        r = take_events(w);
        if (r == 0) {
                follow_settle(&w->follow, all_moved);
                if (w->follow.count[FOLLOW_MOVING] > 0 && ctl_postfix_is_stopped(ctl))
                        r = -ESHUTDOWN;
                else
                        r = watch_queues(ctl, w);
        }
        if (r != -ESHUTDOWN)
                watch_log(w);
        (void) sigaction(SIGINT, &old, NULL);
        if (r == -ESHUTDOWN)
                (void) ctl_warn_stopped(ctl);
        else if (r < 0 && r != -EINTR && r != -ETIMEDOUT)
                ctl_error("cannot watch the queue: %s", strerror(-r));
        return r < 0 ? EX_TEMPFAIL : EX_OK;
}
