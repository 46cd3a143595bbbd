/* SPDX-License-Identifier: MIT */

#include "daemon/send.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <utlist.h>

#include "core/qmgr.h"
#include "daemon/seen.h"
#include "util/escape.h"
#include "util/util.h"

#define CHUNK_SIZE    SITELOG_SLICE
#define TRIGGER_USEC  (1 * USEC_PER_SEC) /* between triggers while messages are being moved */
#define TRIGGER_LINES 16u                /* before the first of them */
#define COMPACT_RATIO 2u                 /* lines per distinct ID that are worth a compaction */
#define KEEP_SIZE_MAX (SITELOG_SLICE - (QUEUEID_MAX + 1) - 1)

/* The shortest lines, which tell how many IDs a log can have. */
#define LINE_SIZE_MIN  2u
#define LINE_SIZE_REAL 7u /* of Postfix: microseconds in 5 digits, and an inode's number */

typedef enum SendState {
        STATE_OPEN,
        STATE_WEIGH, /* is a compaction worth it? */
        STATE_WORK,
        STATE_SPILL,
        STATE_CLOSE,
} SendState;

struct Send {
        Job job;
        SendContext *context;
        Site *site;
        SendKind kind;
        SendState state;
        uint64_t since_usec; /* of waiting for the lock */
        uint64_t triggered_usec;
        SiteLog log;
        unsigned changes;   /* of @site, when the send began */
        off_t size, offset; /* of the log then, and how much of it has been read */
        off_t done_size;    /* how much of it can go: up to the limit, else all */
        unsigned long limit;
        unsigned cost; /* of the line at hand: JOB_COST_LINE or JOB_COST_FILE */
        Seen seen;
        unsigned n_ids; /* its share of SendContext.n_ids */
        bool abandoned; /* somebody else has changed the log: nothing is removed */
        bool keeps;     /* lines that stay are noted */
        char *keep;     /* them; when it is full they go to the end of the log */
        size_t n_keep;
        off_t kept_size; /* up to here all of them are there */
        bool removing;
        SiteLogRemoval removal;
        char *chunk;
        size_t n_chunk, cursor;
        char line[QUEUEID_MAX + 2]; /* one that has begun; longer ones are invalid anyway */
        size_t n_line;
        unsigned long n_lines, n_kept;
        SendResult result;
        int work_error; /* the first message or line that could not be dealt with: */
        char work_id[QUEUEID_MAX + 1];
        char invalid[ESCAPE_SIZE(JOURNAL_TEXT_MAX)];
};

/* How much of the log has been gone through, if a line has just ended. */
static off_t position(const Send *s) {
        return s->offset - (off_t) (s->n_chunk - s->cursor);
}

static void warn_of_log(const Send *s, int error) {
        journal_event(LOG_WARNING,
                      &(JournalEvent){
                              .message_id = JOURNAL_ID_FILE, .site = s->site->name, .error = error},
                      "log of %s: cannot be shortened: %s; its records stay", s->site->name,
                      strerror(-error));
}

/* The lines from here on cannot be removed, whatever becomes of their messages. */
static void stop_keeping(Send *s, int error) {
        warn_of_log(s, error);
        s->keeps = false;
        s->n_keep = 0;
        s->done_size = s->kept_size;
}

static void keep_line(Send *s, const char *id, bool terminated) {
        s->n_kept++;
        if (s->state == STATE_WEIGH || !s->keeps || s->abandoned)
                return;
        if (!s->keep)
                s->keep = malloc(SITELOG_SLICE);
        if (!s->keep) {
                stop_keeping(s, -ENOMEM);
                return;
        }
        s->n_keep = (size_t) (stpcpy(s->keep + s->n_keep, id) - s->keep);
        if (terminated)
                s->keep[s->n_keep++] = '\n';
        if (s->n_keep > KEEP_SIZE_MAX)
                s->state = STATE_SPILL;
}

/* Nobody knows whether an ID that is not remembered has been there before. If so, its message was
 * moved to incoming, and most likely still is there. */
static bool may_have_moved(const Send *s, const char *id) {
        const Queue *q = s->context->queue;
        char path[QUEUE_PATH_SIZE];

        queue_path(q, QUEUE_INCOMING, id, path);
        return faccessat(q->fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void move_message(Send *s, const char *id, bool terminated, bool remembered) {
        RequestCounts *counts = &s->result.counts;
        bool again = !remembered && may_have_moved(s, id);
        QueueResult result;
        int r;

        s->cost = JOB_COST_FILE;
        r = queue_move(s->context->queue, id, &result);
        if (r < 0) {
                counts->failed++;
                if (s->work_error == 0) {
                        s->work_error = r;
                        (void) strcpy(s->work_id, id);
                }
                keep_line(s, id, terminated);
                return;
        }
        switch (result) {
        case QUEUE_MOVED:
                ++*(again ? &counts->duplicate : &counts->moved);
                break;
        case QUEUE_GONE:
                counts->gone++;
                break;
        default:
                counts->busy++;
                keep_line(s, id, terminated);
        }
}

static void note_invalid(Send *s, const char *line, size_t n) {
        if (s->result.counts.invalid++ == 0)
                (void) escape_bytes(line, n, JOURNAL_TEXT_MAX, s->invalid);
}

static bool limit_reached(const Send *s) {
        return s->limit > 0 && s->result.counts.moved >= s->limit;
}

/* @n may be more than @line has: then it is too long to be a record. */
static void work_line(Send *s, char *line, size_t n, bool terminated) {
        size_t n_id = strnlen(line, n < sizeof s->line ? n : sizeof s->line);
        int r;

        s->n_lines++;
        if (n == 0)
                return; /* left where a torn line was ended: nothing was there */
        if (limit_reached(s)) {
                s->result.counts.left += queueid_valid(line, n_id);
                return;
        }
        if (!queueid_valid(line, n_id)) {
                note_invalid(s, line, n < sizeof s->line ? n : sizeof s->line);
                return;
        }
        line[n_id] = '\0';
        s->result.counts.found++;
        r = seen_add(&s->seen, line);
        if (r == 0)
                s->result.counts.duplicate++;
        else if (s->kind == SEND_COMPACT)
                keep_line(s, line, terminated);
        else
                move_message(s, line, terminated, r > 0);
}

/* Takes the next line out of the chunk. A line that spans chunks is put together in s->line. */
static void take_line(Send *s) {
        char *start = s->chunk + s->cursor;
        size_t n_rest = s->n_chunk - s->cursor;
        char *newline = memchr(start, '\n', n_rest);
        size_t n = newline ? (size_t) (newline - start) : n_rest;

        s->cursor += n + (newline != NULL);
        if (newline && s->n_line == 0) {
                work_line(s, start, n, true);
                return;
        }

        for (size_t i = 0; i < n; i++, s->n_line++)
                if (s->n_line < sizeof s->line - 1)
                        s->line[s->n_line] = start[i];
        if (newline) {
                work_line(s, s->line, s->n_line, true);
                s->n_line = 0;
        }
}

/* Return: 1, 0 (all of it has been read), or a negative errno. */
static int read_chunk(Send *s) {
        size_t n = s->size - s->offset < (off_t) CHUNK_SIZE ? (size_t) (s->size - s->offset)
                                                            : CHUNK_SIZE;
        ssize_t r = n > 0 ? sitelog_read(&s->log, s->chunk, n, s->offset) : 0;

        if (r <= 0)
                return (int) r;
        s->offset += r;
        s->n_chunk = (size_t) r;
        s->cursor = 0;
        return 1;
}

static void last_line(Send *s) {
        size_t n = s->n_line;

        s->n_line = 0;
        if (n > 0)
                work_line(s, s->line, n, false);
}

/* Return: 1 (more, or to be spilled first), 0 (done), or a negative errno. */
static int work(Send *s, JobSlice *slice) {
        int r = 0;

        for (;;) {
                if (s->cursor == s->n_chunk) {
                        r = read_chunk(s);
                        if (r < 0)
                                return r;
                        if (r == 0) {
                                last_line(s);
                                return 0;
                        }
                }
                s->cost = JOB_COST_LINE;
                take_line(s);
                if (s->done_size == s->size && limit_reached(s))
                        s->done_size = position(s);
                if (s->state == STATE_SPILL || job_slice_is_over(slice, s->cost))
                        return 1;
        }
}

static void report(const Send *s) {
        const RequestCounts *counts = &s->result.counts;
        JournalEvent event = {.message_id = JOURNAL_ID_FILE, .site = s->site->name};

        if (counts->invalid > 0)
                journal_event(LOG_WARNING, &event,
                              "log of %s: %lu lines that are no queue ID, the first is \"%s\"",
                              s->site->name, counts->invalid, s->invalid);
        if (counts->failed > 0) {
                event.queue_id = s->work_id;
                event.error = s->work_error;
                journal_event(LOG_WARNING, &event,
                              "%s: %lu messages could not be moved and stay recorded, the first is "
                              "%s: %s",
                              s->site->name, counts->failed, s->work_id, strerror(-s->work_error));
        }
}

/* The lock is busy: wait, but not for ever. */
static bool may_wait(Send *s) {
        uint64_t now = now_usec();

        if (s->since_usec == 0)
                s->since_usec = now;
        if (now - s->since_usec < s->context->lock_usec)
                return true;
        s->since_usec = 0;
        return false;
}

static unsigned min_size(off_t size, unsigned max) {
        return size < (off_t) max ? (unsigned) size : max;
}

/* As many IDs as the log can have, if the other sends leave so many. */
static void remember(Send *s) {
        SendContext *c = s->context;
        unsigned left = c->n_ids < SEND_IDS_MAX ? SEND_IDS_MAX - c->n_ids : 0;
        unsigned least = min_size(s->size / LINE_SIZE_MIN + 1, SEND_IDS_MIN);

        s->n_ids = min_size(s->size / LINE_SIZE_REAL + 1, left);
        if (s->n_ids < least)
                s->n_ids = least;
        c->n_ids += s->n_ids;
        seen_init(&s->seen, s->n_ids);
}

static void forget(Send *s) {
        seen_free(&s->seen);
        s->context->n_ids -= s->n_ids;
        s->n_ids = 0;
}

/* With all that is recorded of the site, wherever a change of hash_queue_names has left it. */
static int open_log(Send *s) {
        const SendContext *context = s->context;
        JournalEvent event = {.message_id = JOURNAL_ID_FILE, .site = s->site->name};
        int r = sitelog_gather(context->queue, s->site->log, context->sync);

        if (r == -EAGAIN)
                return r;
        event.error = r;
        if (r < 0) /* it stays where it is, for the next time */
                journal_event(LOG_WARNING, &event, "log of %s: a part of it is out of place: %s",
                              s->site->name, strerror(-r));
        return sitelog_open(context->queue, s->site->log, false, &s->log);
}

static JobResult step_open(Send *s) {
        Site *site = s->site;
        int r;

        if (s->context->n_open + s->context->n_kept >= SENDS_MAX)
                return JOB_PAUSE;
        r = open_log(s);
        if (r == -EAGAIN) {
                if (may_wait(s))
                        return JOB_PAUSE;
                r = -ETIMEDOUT;
        }
        if (r < 0) {
                s->result.error = r == -ENOENT ? 0 : r; /* nothing recorded: nothing to do */
                return JOB_DONE;
        }
        s->context->n_open++;
        sites_observe(s->context->sites, site, &s->log);
        s->changes = site->changes;
        s->size = s->done_size = s->log.st.st_size;
        s->since_usec = 0;
        if (s->kind != SEND_COMPACT)
                sites_forget_known(s->context->sites, site);
        if (s->kind == SEND_SITE)
                trigger_send(s->context->trigger, QMGR_FLUSH_DEAD);
        if (s->size == 0) {
                sitelog_touch(&s->log);
                sites_wrote(site, &s->log, 0);
                return JOB_DONE;
        }
        sitelog_unlock(&s->log);
        s->chunk = malloc(CHUNK_SIZE);
        if (!s->chunk) {
                s->result.error = -ENOMEM;
                return JOB_DONE;
        }
        remember(s);
        s->keeps = true;
        s->state = s->kind == SEND_COMPACT ? STATE_WEIGH : STATE_WORK;
        return JOB_MORE;
}

/* Delivery starts while the rest is being moved. */
static void trigger_early(Send *s) {
        uint64_t now;

        /* A short log is dealt with in less time than qmgr needs to look. */
        if (s->kind != SEND_SITE || s->result.counts.moved == 0 || s->n_lines < TRIGGER_LINES)
                return;
        now = now_usec();
        if (s->triggered_usec != 0 && now - s->triggered_usec < TRIGGER_USEC)
                return;
        s->triggered_usec = now;
        trigger_send(s->context->trigger, QMGR_SCAN_INCOMING);
}

/* A compaction goes through the log to see whether it is worth it, and then once more. */
static JobResult end_weighing(Send *s) {
        if (s->result.counts.invalid == 0 && s->n_lines <= COMPACT_RATIO * s->n_kept)
                return JOB_DONE;
        forget(s);
        remember(s);
        s->result.counts = (RequestCounts){0};
        s->n_lines = s->n_kept = 0;
        s->offset = 0;
        s->n_chunk = s->cursor = 0;
        s->state = STATE_WORK;
        return JOB_MORE;
}

static JobResult step_work(Send *s, JobSlice *slice) {
        int r = work(s, slice);

        if (r > 0) {
                trigger_early(s);
                return JOB_MORE;
        }
        s->result.had_lines = s->n_lines > 0;
        if (r < 0) { /* what has been moved stays recorded: it will be found gone */
                s->result.error = r;
                return JOB_DONE;
        }
        if (s->state == STATE_WEIGH)
                return end_weighing(s);
        report(s);
        if (s->abandoned)
                return JOB_DONE;
        /* Else a loss of power could take the moves back and not the removal of their records. */
        if (s->context->sync && s->result.counts.moved > 0)
                s->result.error = queue_sync_moves(s->context->queue);
        if (s->result.error < 0)
                return JOB_DONE;
        forget(s);
        s->state = STATE_CLOSE;
        return JOB_MORE;
}

/* Return: 1 (locked), 0 (abandoned), -EAGAIN (pause, and try again), or another negative errno. */
static int lock_again(Send *s) {
        JournalEvent event = {.message_id = JOURNAL_ID_FILE, .site = s->site->name};
        int r = sitelog_relock(s->context->queue, &s->log);

        if (r == -EAGAIN)
                return may_wait(s) ? -EAGAIN : -ETIMEDOUT;
        if (r < 0 && r != -ESTALE)
                return r;
        s->since_usec = 0;
        s->abandoned = true;
        if (r < 0) /* the file has gone, and its records with it */
                return 0;
        sites_observe(s->context->sites, s->site, &s->log);
        s->abandoned = s->site->changes != s->changes;
        if (s->abandoned)
                journal_event(LOG_NOTICE, &event,
                              "log of %s: changed by another process meanwhile; its records stay",
                              s->site->name);
        return !s->abandoned;
}

/* As if it had been added just now: what stays must not fill the memory. */
static int spill(Send *s) {
        int r = sitelog_append(s->context->queue, &s->log, s->keep, s->n_keep, s->context->sync);

        sites_wrote(s->site, &s->log, r);
        if (r == 0) {
                s->kept_size = position(s);
                s->n_keep = 0;
        }
        return r;
}

/* Whatever is in the way of it, the messages behind are moved. */
static JobResult step_spill(Send *s) {
        int r = lock_again(s);

        if (r == -EAGAIN)
                return JOB_PAUSE;
        if (r > 0)
                r = spill(s);
        sitelog_unlock(&s->log);
        if (r < 0)
                stop_keeping(s, r);
        s->state = STATE_WORK;
        return JOB_MORE;
}

/* Return: 1 (there is more), 0 (done), or a negative errno. */
static int remove_some(Send *s) {
        bool sync = s->context->sync;
        int r = 0;

        if (s->done_size == 0)
                return 0;
        if (!s->removing)
                r = sitelog_begin_removal(&s->log, (size_t) s->done_size,
                                          s->n_keep > 0 ? s->keep : s->chunk, s->n_keep, sync,
                                          &s->removal);
        s->removing = true;
        return r < 0 ? r : sitelog_go_on_removal(&s->log, &s->removal, s->chunk, sync);
}

static void end_removal(Send *s, int error) {
        if (error < 0)
                warn_of_log(s, error);
        s->result.shortened = error == 0 && s->done_size > 0;
        if (s->kind != SEND_COMPACT)
                sitelog_touch(&s->log);
        sites_wrote(s->site, &s->log, error);
}

/* The log of a site can be larger than what can be read and written in a moment: its adds come in
 * between. */
static JobResult step_close(Send *s) {
        int r = lock_again(s);

        if (r == -EAGAIN)
                return JOB_PAUSE;
        if (r > 0) {
                r = remove_some(s);
                if (r > 0) {
                        sites_wrote(s->site, &s->log, 0);
                        sitelog_unlock(&s->log);
                        return JOB_MORE;
                }
                end_removal(s, r);
        } else
                s->result.error = r;
        return JOB_DONE;
}

static JobResult step_state(Send *s, JobSlice *slice) {
        switch (s->state) {
        case STATE_OPEN:
                return step_open(s);
        case STATE_WEIGH:
        case STATE_WORK:
                return step_work(s, slice);
        case STATE_SPILL:
                return step_spill(s);
        default:
                return step_close(s);
        }
}

static JobResult step(Job *job, JobSlice *slice) {
        Send *s = (Send *) (void *) job;
        SendState state;
        JobResult r;

        do { /* a short log is done in one go */
                state = s->state;
                r = step_state(s, slice);
        } while (r == JOB_MORE && s->state != state);
        return r;
}

/* Of those who wait together, the one who asked for most gets it: one send cannot do more for
 * another of them than was to be done in any case. Return: 0 for all. */
static unsigned long largest_limit(const Call *calls) {
        unsigned long limit = 0;
        const Call *call;

        LL_FOREACH (calls, call) {
                if (call->request.limit == 0)
                        return 0;
                if (call->request.limit > limit)
                        limit = call->request.limit;
        }
        return limit;
}

/* The next one is for those who came while this one ran. */
static void end(Send *s) {
        SendContext *context = s->context;
        Site *site = s->site;
        Call *calls = TAKE_PTR(site->callers), *next = TAKE_PTR(site->next_callers);
        int r;

        site->send = NULL;
        s->result.is_awaited = next != NULL;
        context->done(site, &s->result, calls, context->userdata);
        if (!next)
                return;
        site->callers = next;
        r = s->result.error == -ECANCELED
                    ? -ECANCELED
                    : send_start(context, site, SEND_SITE, largest_limit(next));
        if (r == 0)
                return;
        site->callers = NULL;
        context->done(site, &(SendResult){.kind = SEND_SITE, .error = r}, next, context->userdata);
}

static void done(Job *job, bool cancelled) {
        Send *s = (Send *) (void *) job;

        if (cancelled)
                s->result.error = -ECANCELED;
        if (s->log.fd >= 0)
                s->context->n_open--;
        sitelog_close(&s->log);
        if (s->kind == SEND_SITE && (s->result.had_lines || s->result.counts.moved > 0))
                trigger_send(s->context->trigger, QMGR_SCAN_INCOMING);
        end(s);
        forget(s);
        free(s->keep);
        free(s->chunk);
        free(s);
}

int send_start(SendContext *context, Site *site, SendKind kind, unsigned long limit) {
        Send *s = calloc(1, sizeof *s);

        static_assert(offsetof(Send, job) == 0, "a Send is a Job");
        assert(!site->send);

        if (!s)
                return -ENOMEM;
        s->job = (Job){.step = step, .done = done};
        s->context = context;
        s->site = site;
        s->kind = s->result.kind = kind;
        s->limit = limit;
        s->log = (SiteLog) SITELOG_INIT;
        site->send = s;
        jobs_start(context->jobs, &s->job);
        return 0;
}

int send_request(SendContext *context, Site *site, Call *call) {
        int r = 0;

        if (site->send) {
                LL_PREPEND(site->next_callers, call);
                return 0;
        }
        site->callers = call;
        call->next = NULL;
        r = send_start(context, site, SEND_SITE, call->request.limit);
        if (r < 0)
                site->callers = NULL;
        return r;
}

bool send_is_running(const Site *site) {
        return site->send != NULL;
}
