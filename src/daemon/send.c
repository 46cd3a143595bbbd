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

/* Length of the shortest lines: they bound how many IDs a log of some size has. */
#define LINE_SIZE_MIN  2u
#define LINE_SIZE_REAL 7u /* of Postfix's IDs: 5 digits of microseconds, an inode, a newline */

typedef enum SendState {
        STATE_OPEN,
        STATE_WEIGH, /* is a compaction worth it? */
        STATE_WORK,
        STATE_SPILL,
        STATE_SHORTEN,
} SendState;

struct Send {
        Job job;
        SendContext *context;
        Site *site;
        Call *callers;      /* wait for the end of this send */
        Call *next_callers; /* came later: wait for the end of the next one */
        SendKind kind;
        SendState state;
        uint64_t since_usec; /* since when it waits for the lock, or 0 */
        uint64_t triggered_usec;
        SiteLog log;
        unsigned changes;   /* of @site, when the send began */
        off_t size, offset; /* of the log then, and how much of it has been read */
        off_t done_size;    /* how much of it goes at the end: all, or up to the limit */
        unsigned long limit;
        unsigned cost; /* of the line at hand: JOB_COST_LINE or JOB_COST_FILE */
        Seen seen;
        unsigned n_ids; /* its share of SendContext.n_ids */
        bool abandoned; /* somebody else has changed the log: nothing is removed */
        bool keeps;     /* lines that stay are collected in @keep */
        char *keep;     /* is appended to the log when it is full */
        size_t n_keep;
        off_t kept_size; /* all lines that stay before this place have been appended */
        bool removing;
        SiteLogRemoval removal;
        char *chunk;
        size_t n_chunk, cursor;
        char line[QUEUEID_MAX + 2]; /* begun in an earlier chunk; longer ones are invalid anyway */
        size_t n_line;
        unsigned long n_lines, n_kept;
        SendResult result;
        int work_error; /* the first message that failed, the first line that is not a record: */
        char work_id[QUEUEID_MAX + 1];
        char invalid[ESCAPE_SIZE(JOURNAL_TEXT_MAX)];
};

/* How much of the log has been gone through, if a line has just ended. */
static off_t send_position(const Send *s) {
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
                return; /* an empty line, from ending a torn one, is not a record */
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
static int send_work(Send *s, JobSlice *slice) {
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
                        s->done_size = send_position(s);
                if (s->state == STATE_SPILL || job_slice_is_over(slice, s->cost))
                        return 1;
        }
}

static void send_report(const Send *s) {
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

/* As many IDs as the log can have, unless the other sends have taken too much of SEND_IDS_MAX. */
static void send_remember(Send *s) {
        SendContext *c = s->context;
        unsigned left = c->n_ids < SEND_IDS_MAX ? SEND_IDS_MAX - c->n_ids : 0;
        unsigned least = min_size(s->size / LINE_SIZE_MIN + 1, SEND_IDS_MIN);

        s->n_ids = min_size(s->size / LINE_SIZE_REAL + 1, left);
        if (s->n_ids < least)
                s->n_ids = least;
        c->n_ids += s->n_ids;
        seen_init(&s->seen, s->n_ids);
}

static void send_forget(Send *s) {
        seen_done(&s->seen);
        s->context->n_ids -= s->n_ids;
        s->n_ids = 0;
}

/* Opens the log, once the parts of it that a change of hash_queue_names has left elsewhere are in
 * it. */
static int send_open_log(Send *s) {
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
        r = send_open_log(s);
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
        send_remember(s);
        s->keeps = true;
        s->state = s->kind == SEND_COMPACT ? STATE_WEIGH : STATE_WORK;
        return JOB_MORE;
}

/* Wakes qmgr early, so that delivery begins while the rest is being moved. */
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

/* A compaction reads the log twice: first only to see whether it is worth it. */
static JobResult end_weighing(Send *s) {
        if (s->result.counts.invalid == 0 && s->n_lines <= COMPACT_RATIO * s->n_kept)
                return JOB_DONE;
        send_forget(s);
        send_remember(s);
        s->result.counts = (RequestCounts){0};
        s->n_lines = s->n_kept = 0;
        s->offset = 0;
        s->n_chunk = s->cursor = 0;
        s->state = STATE_WORK;
        return JOB_MORE;
}

static JobResult step_work(Send *s, JobSlice *slice) {
        int r = send_work(s, slice);

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
        send_report(s);
        if (s->abandoned)
                return JOB_DONE;
        /* Else a loss of power could undo the moves but not the removal of their records. */
        if (s->context->sync && s->result.counts.moved > 0)
                s->result.error = queue_sync_moves(s->context->queue);
        if (s->result.error < 0)
                return JOB_DONE;
        send_forget(s);
        s->state = STATE_SHORTEN;
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

/* Appends the lines that stay, as an add would, so that they do not fill the memory. */
static int send_spill(Send *s) {
        int r = sitelog_append(s->context->queue, &s->log, s->keep, s->n_keep, s->context->sync);

        sites_wrote(s->site, &s->log, r);
        if (r == 0) {
                s->kept_size = send_position(s);
                s->n_keep = 0;
        }
        return r;
}

/* If appending fails, the messages of all following lines are moved all the same. */
static JobResult step_spill(Send *s) {
        int r = lock_again(s);

        if (r == -EAGAIN)
                return JOB_PAUSE;
        if (r > 0)
                r = send_spill(s);
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
                r = sitelog_begin_removal(&s->log, s->done_size, s->n_keep > 0 ? s->keep : s->chunk,
                                          s->n_keep, sync, &s->removal);
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

/* A large log takes many steps. It is unlocked between them, so that its adds do not wait. */
static JobResult step_shorten(Send *s) {
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
                return step_shorten(s);
        }
}

static Send *send_of(Job *job) {
        static_assert(offsetof(Send, job) == 0, "a Job of this module is a Send");
        return (Send *) (void *) job;
}

static JobResult send_step(Job *job, JobSlice *slice) {
        Send *s = send_of(job);
        SendState state;
        JobResult result;

        do { /* a short log is done in one go */
                state = s->state;
                result = step_state(s, slice);
        } while (result == JOB_MORE && s->state != state);
        return result;
}

/* All callers that wait for the same send share its result, so it runs with the largest of their
 * limits. No limit, 0, is larger than any. */
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

/* The next send of a site, for the calls that came during the one that has ended. */
static void start_next(SendContext *context, Site *site, Call *calls, bool cancelled) {
        SendResult result = {.kind = SEND_SITE};

        result.error =
                cancelled ? -ECANCELED : send_start(context, site, SEND_SITE, largest_limit(calls));
        if (result.error < 0)
                context->done(site, &result, calls, context->userdata);
        else
                site->send->callers = calls;
}

static void send_done(Job *job, bool cancelled) {
        Send *s = send_of(job);
        SendContext *context = s->context;

        if (cancelled)
                s->result.error = -ECANCELED;
        if (s->log.fd >= 0)
                context->n_open--;
        sitelog_close(&s->log);
        if (s->kind == SEND_SITE && (s->result.had_lines || s->result.counts.moved > 0))
                trigger_send(context->trigger, QMGR_SCAN_INCOMING);
        s->result.is_awaited = s->next_callers;
        s->site->send = NULL;
        context->done(s->site, &s->result, s->callers, context->userdata);
        if (s->next_callers)
                start_next(context, s->site, s->next_callers, cancelled);
        send_forget(s);
        free(s->keep);
        free(s->chunk);
        free(s);
}

int send_start(SendContext *context, Site *site, SendKind kind, unsigned long limit) {
        Send *s = calloc(1, sizeof *s);

        assert(!site->send);

        if (!s)
                return -ENOMEM;
        s->job = (Job){.step = send_step, .done = send_done};
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
        int r;

        if (site->send) {
                LL_PREPEND(site->send->next_callers, call);
                return 0;
        }
        r = send_start(context, site, SEND_SITE, call->request.limit);
        if (r < 0)
                return r;
        LL_PREPEND(site->send->callers, call);
        return 0;
}

bool send_is_running(const Site *site) {
        return site->send;
}
