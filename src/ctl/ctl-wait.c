/* SPDX-License-Identifier: MIT */

/* fflushctl --wait: until the messages that were moved have left the queue or are deferred again.
 */

#include "ctl/ctl-wait.h"

#include <signal.h>
#include <stdio.h>

#include "ctl/ctl-print.h"
#include "ctl/messages.h"
#include "ctl/reader.h"
#include "ctl/relay.h"
#include "util/hash.h"
#include "util/util.h"

#define LOOK_USEC     (2 * USEC_PER_SEC)
#define PROGRESS_USEC (200 * USEC_PER_MSEC)
#define REASONS_MAX   10 /* that are shown to people */

/* Why messages were deferred again, by what postqueue(1) says. */
typedef struct Reason {
        UT_hash_handle hh;
        unsigned long count;
        char text[];
} Reason;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
        interrupted = 1;
}

int ctl_wait_begin(Ctl *ctl, Follow *f) {
        int r, status;

        status = ctl_queue(ctl);
        if (status != EX_OK)
                return status;
        r = follow_init(&ctl->queue, f);
        if (r == 0)
                return EX_OK;
        ctl_error("cannot watch the queue: %s%s", strerror(-r),
                  r == -ENOSPC ? " (fs.inotify.max_user_watches)" : "");
        return r == -EACCES ? EX_NOPERM : EX_OSERR;
}

int ctl_wait_add(Follow *f, const char *id) {
        int r = follow_add(f, id);

        if (r == 0)
                return EX_OK;
        ctl_error("%s: %s", id, strerror(-r));
        return EX_OSERR;
}

static unsigned long count_moved(const Follow *f) {
        return f->count[FOLLOW_MOVING] + f->count[FOLLOW_LEFT] + f->count[FOLLOW_DEFERRED] +
               f->count[FOLLOW_HELD];
}

static void show_progress(const Follow *f) {
        ctl_progress("%lu of %lu: %lu left the queue, %lu deferred again",
                     count_moved(f) - f->count[FOLLOW_MOVING], count_moved(f),
                     f->count[FOLLOW_LEFT], f->count[FOLLOW_DEFERRED]);
}

/* Return: 0, -ETIMEDOUT, -EINTR, -EPIPE (nobody would read the result), or another negative errno.
 */
static int watch_queues(const Ctl *ctl, Follow *f) {
        uint64_t start = now_usec(), looked = start, shown = start, now;
        bool progress = isatty(STDERR_FILENO) && !ctl->quiet && !ctl->json;
        int r = 0;

        while (r == 0 && !interrupted && f->count[FOLLOW_MOVING] > 0) {
                r = reader_wait_for(f->fd, PROGRESS_USEC) ? follow_events(f) : -EPIPE;
                now = now_usec();
                if (f->blind || now - looked >= LOOK_USEC) {
                        follow_look(f);
                        looked = now;
                }
                if (progress && now - start >= USEC_PER_SEC && now - shown >= PROGRESS_USEC) {
                        show_progress(f);
                        shown = now;
                }
                if (ctl->timeout > 0 && now - start >= ctl->timeout)
                        break;
        }
        ctl_progress_end();
        if (r < 0 || f->count[FOLLOW_MOVING] == 0)
                return r;
        return interrupted ? -EINTR : -ETIMEDOUT;
}

static bool add_reason(Reason **reasons, const char *text) {
        bool oom = false;
        Reason *reason;

        HASH_FIND_STR(*reasons, text, reason);
        if (!reason) {
                size_t n = strlen(text);

                reason = calloc(1, sizeof *reason + n + 1);
                if (!reason)
                        return false;
                memcpy(reason->text, text, n);
                HASH_ADD_KEYPTR(hh, *reasons, reason->text, n, reason);
                if (oom) {
                        free(reason);
                        return false;
                }
        }
        reason->count++;
        return true;
}

/* A message counts once for each reason it has, however many recipients share it. */
static void add_message(Reason **reasons, const json_t *message) {
        const json_t *recipients = json_object_get(message, "recipients"), *one;
        json_t *seen = json_object();
        size_t i;

        json_array_foreach(recipients, i, one) {
                const char *reason = json_string_value(json_object_get(one, "delay_reason"));

                if (!reason || json_object_get(seen, reason) ||
                    json_object_set_new(seen, reason, json_true()) < 0 ||
                    !add_reason(reasons, reason))
                        continue;
        }
        json_decref(seen);
}

static int by_count(const Reason *a, const Reason *b) {
        return (a->count < b->count) - (a->count > b->count);
}

static Reason *find_reasons(const Ctl *ctl, const Follow *f) {
        _cleanup_free_ char *errors = NULL;
        Reason *reasons = NULL;
        Messages in;
        json_t *message;

        if (f->count[FOLLOW_DEFERRED] == 0 || !ctl->settings.postfix_config_directory[0])
                return NULL;
        if (messages_open(&in, ctl->settings.postfix_config_directory) < 0) {
                ctl_error("postqueue cannot be run, so the reasons are unknown");
                return NULL;
        }
        while ((message = messages_next(&in))) {
                if (follow_state(f, json_string_value(json_object_get(message, "queue_id"))) ==
                    FOLLOW_DEFERRED)
                        add_message(&reasons, message);
                json_decref(message);
        }
        if (messages_close(&in, &errors) < 0)
                ctl_error("postqueue failed, so reasons may be missing");
        if (errors)
                ctl_error_lines(errors);
        HASH_SORT(reasons, by_count);
        return reasons;
}

static void free_reasons(Reason *reasons) {
        Reason *reason = reasons, *next;

        HASH_CLEAR(hh, reasons);
        for (; reason; reason = next) {
                next = reason->hh.next;
                free(reason);
        }
}

static void print_reasons(const Reason *reason) {
        unsigned long others = 0;

        for (int i = 0; reason; reason = reason->hh.next, i++)
                if (i < REASONS_MAX)
                        ctl_print("%6lu  %s\n", reason->count, reason->text);
                else
                        others += reason->count;
        if (others > 0)
                ctl_print("%6lu  for other reasons\n", others);
}

static void print_json(const Follow *f, const Reason *reason) {
        json_t *reasons = json_array();

        for (; reason; reason = reason->hh.next)
                (void) json_array_append_new(reasons, json_pack("{sI ss}", "count",
                                                                (json_int_t) reason->count,
                                                                "reason", reason->text));
        ctl_print_json(json_pack(
                "{ss sI sI sI sI sI so}", "type", "outcome", "moved", (json_int_t) count_moved(f),
                "left_queue", (json_int_t) f->count[FOLLOW_LEFT], "deferred",
                (json_int_t) f->count[FOLLOW_DEFERRED], "held", (json_int_t) f->count[FOLLOW_HELD],
                "under_way", (json_int_t) f->count[FOLLOW_MOVING], "reasons", reasons));
}

static void report(const Ctl *ctl, const Follow *f) {
        Reason *reasons = find_reasons(ctl, f);

        if (ctl->json)
                print_json(f, reasons);
        else {
                ctl_print("%lu moved: %lu left the queue, %lu deferred again", count_moved(f),
                          f->count[FOLLOW_LEFT], f->count[FOLLOW_DEFERRED]);
                if (f->count[FOLLOW_HELD])
                        ctl_print(", %lu put on hold", f->count[FOLLOW_HELD]);
                if (f->count[FOLLOW_MOVING])
                        ctl_print(", %lu still on their way", f->count[FOLLOW_MOVING]);
                ctl_print("\n");
                relay_count(f->count[FOLLOW_LEFT], "left the queue");
                relay_count(f->count[FOLLOW_DEFERRED], "deferred again");
                print_reasons(reasons);
        }
        free_reasons(reasons);
}

int ctl_wait_end(Ctl *ctl, Follow *f, bool all_moved) {
        struct sigaction old, action = {.sa_handler = on_interrupt};
        int r;

        (void) fflush(stdout);
        (void) sigaction(SIGINT, &action, &old);
        r = follow_events(f);
        if (r == 0) {
                follow_settle(f, all_moved);
                r = watch_queues(ctl, f);
        }
        (void) sigaction(SIGINT, &old, NULL);
        if (!ctl->quiet)
                report(ctl, f);
        if (r < 0 && r != -EINTR && r != -ETIMEDOUT)
                ctl_error("cannot watch the queue: %s", strerror(-r));
        return r < 0 || f->count[FOLLOW_DEFERRED] > 0 ? EX_TEMPFAIL : EX_OK;
}
