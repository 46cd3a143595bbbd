/* SPDX-License-Identifier: MIT */

#include "send.h"

#include <assert.h>
#include <stddef.h>

#include "escape.h"
#include "qmgr.h"
#include "util.h"

#define CHUNK_SIZE    65536u
#define CLOCK_EVERY   16u                /* records between two looks at the clock */
#define TRIGGER_USEC  (1 * USEC_PER_SEC) /* between triggers while messages are being moved */
#define COMPACT_RATIO 2u                 /* lines per distinct ID that are worth a compaction */

struct Send {
        Job job;
        SendContext *context;
        Site *site;
        SendKind kind;
        enum { STATE_OPEN, STATE_WORK, STATE_CLOSE } state;
        uint64_t since_usec; /* of waiting for the lock */
        uint64_t triggered_usec;
        SiteLog log;
        unsigned changes;   /* of @site, when the send began */
        off_t size, offset; /* of the log then, and how much of it has been read */
        off_t done_size;    /* how much has been dealt with: up to the limit, else all */
        unsigned long limit;
        IdSet seen;
        char *keep; /* lines that stay */
        size_t n_keep, keep_size;
        char *chunk;
        size_t n_chunk, cursor;
        char line[QUEUEID_MAX + 2]; /* one that has begun; longer ones are invalid anyway */
        size_t n_line;
        unsigned long n_lines;
        SendResult result;
        int work_error; /* the first message or line that could not be dealt with: */
        char work_id[QUEUEID_MAX + 1];
        char invalid[ESCAPE_SIZE(LOG_TEXT_MAX)];
};

static int keep_line(Send *s, const char *id, bool terminated) {
        size_t n = strlen(id) + terminated;

        if (s->n_keep + n > s->keep_size) {
                size_t size = s->keep_size ? 2 * s->keep_size : CHUNK_SIZE;
                char *keep = realloc(s->keep, size);

                if (!keep)
                        return -ENOMEM;
                s->keep = keep;
                s->keep_size = size;
        }
        memcpy(s->keep + s->n_keep, id, n - terminated);
        if (terminated)
                s->keep[s->n_keep + n - 1] = '\n';
        s->n_keep += n;
        return 0;
}

static int move_message(Send *s, const char *id, bool terminated) {
        RequestCounts *counts = &s->result.counts;
        QueueResult result;
        int r;

        r = queue_move(s->context->sites->queue, id, &result);
        if (r < 0) {
                counts->failed++;
                if (s->work_error == 0) {
                        s->work_error = r;
                        (void) strcpy(s->work_id, id);
                }
                return keep_line(s, id, terminated);
        }
        switch (result) {
        case QUEUE_MOVED:
                counts->moved++;
                return 0;
        case QUEUE_GONE:
                counts->gone++;
                return 0;
        default:
                counts->busy++;
                return keep_line(s, id, terminated);
        }
}

static void note_invalid(Send *s, const char *line, size_t n) {
        if (s->result.counts.invalid++ == 0)
                (void) escape_bytes(line, n, LOG_TEXT_MAX, s->invalid);
}

static bool limit_reached(const Send *s) {
        return s->limit > 0 && s->result.counts.moved >= s->limit;
}

/* @n may be more than @line has: then it is too long to be a record. */
static int work_line(Send *s, char *line, size_t n, bool terminated) {
        size_t n_id = strnlen(line, n < sizeof s->line ? n : sizeof s->line);
        int r;

        s->n_lines++;
        if (n == 0)
                return 0; /* left where a torn line was ended: nothing was there */
        if (limit_reached(s)) {
                s->result.counts.left += queueid_valid(line, n_id);
                return 0;
        }
        if (!queueid_valid(line, n_id)) {
                note_invalid(s, line, n < sizeof s->line ? n : sizeof s->line);
                return 0;
        }
        line[n_id] = '\0';
        s->result.counts.found++;
        r = idset_add(&s->seen, line);
        if (r < 0)
                return r;
        if (r == 0) {
                s->result.counts.duplicate++;
                return 0;
        }
        if (s->kind == SEND_COMPACT)
                return keep_line(s, line, terminated);
        return move_message(s, line, terminated);
}

/* Takes the next line out of the chunk. A line that spans chunks is put together in s->line. */
static int take_line(Send *s) {
        char *start = s->chunk + s->cursor;
        size_t n_rest = s->n_chunk - s->cursor;
        char *newline = memchr(start, '\n', n_rest);
        size_t n = newline ? (size_t) (newline - start) : n_rest;
        int r = 0;

        s->cursor += n + (newline != NULL);
        if (newline && s->n_line == 0)
                return work_line(s, start, n, true);

        for (size_t i = 0; i < n; i++, s->n_line++)
                if (s->n_line < sizeof s->line - 1)
                        s->line[s->n_line] = start[i];
        if (newline) {
                r = work_line(s, s->line, s->n_line, true);
                s->n_line = 0;
        }
        return r;
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

static int last_line(Send *s) {
        size_t n = s->n_line;

        s->n_line = 0;
        return n > 0 ? work_line(s, s->line, n, false) : 0;
}

/* Return: 1 (more), 0 (done), or a negative errno. */
static int work(Send *s, uint64_t until_usec) {
        int r = 0;

        for (unsigned i = 1;; i++) {
                if (s->cursor == s->n_chunk) {
                        r = read_chunk(s);
                        if (r <= 0)
                                return r < 0 ? r : last_line(s);
                }
                r = take_line(s);
                if (r < 0)
                        return r;
                if (s->done_size == s->size && limit_reached(s))
                        s->done_size = s->offset - (off_t) (s->n_chunk - s->cursor);
                if (i % CLOCK_EVERY == 0 && now_usec() >= until_usec)
                        return 1;
        }
}

static void report(const Send *s) {
        const RequestCounts *counts = &s->result.counts;
        LogEvent event = {.message_id = LOG_ID_FILE, .site = s->site->name};

        if (counts->invalid > 0)
                log_event(LOG_WARNING, &event,
                          "log of %s: %lu lines that are no queue ID, the first is \"%s\"",
                          s->site->name, counts->invalid, s->invalid);
        if (counts->failed > 0) {
                event.queue_id = s->work_id;
                event.error = s->work_error;
                log_event(LOG_WARNING, &event,
                          "%s: %lu messages could not be moved and stay recorded, the first is "
                          "%s: %s",
                          s->site->name, counts->failed, s->work_id, strerror(-s->work_error));
        }
}

/* The lock is busy: wait, but not for ever. */
static JobResult wait_for_lock(Send *s) {
        uint64_t now = now_usec();

        if (s->since_usec == 0)
                s->since_usec = now;
        if (now - s->since_usec < s->context->sites->lock_usec)
                return JOB_PAUSE;
        s->result.error = -ETIMEDOUT;
        return JOB_DONE;
}

/* With all that is recorded of the site, wherever a change of hash_queue_names has left it. */
static int open_log(Send *s) {
        const Sites *sites = s->context->sites;
        LogEvent event = {.message_id = LOG_ID_FILE, .site = s->site->name};
        int r = sitelog_gather(sites->queue, s->site->log, sites->sync);

        if (r == -EAGAIN)
                return r;
        event.error = r;
        if (r < 0) /* it stays where it is, for the next time */
                log_event(LOG_WARNING, &event, "log of %s: a part of it is out of place: %s",
                          s->site->name, strerror(-r));
        return sitelog_open(sites->queue, s->site->log, false, &s->log);
}

static JobResult step_open(Send *s) {
        Site *site = s->site;
        int r;

        if (s->context->n_open + s->context->n_kept >= SENDS_MAX)
                return JOB_PAUSE;
        r = open_log(s);
        if (r == -EAGAIN)
                return wait_for_lock(s);
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
        s->state = STATE_WORK;
        return JOB_MORE;
}

/* Delivery starts while the rest is being moved. */
static void trigger_early(Send *s) {
        uint64_t now;

        if (s->kind != SEND_SITE || s->result.counts.moved == 0)
                return;
        now = now_usec();
        if (s->triggered_usec != 0 && now - s->triggered_usec < TRIGGER_USEC)
                return;
        s->triggered_usec = now;
        trigger_send(s->context->trigger, QMGR_SCAN_INCOMING);
}

static JobResult step_work(Send *s, uint64_t until_usec) {
        int r = work(s, until_usec);

        if (r > 0) {
                trigger_early(s);
                return JOB_MORE;
        }
        s->result.had_lines = s->n_lines > 0;
        if (r < 0) { /* what has been moved stays recorded: it will be found gone */
                s->result.error = r;
                return JOB_DONE;
        }
        report(s);
        if (s->kind == SEND_COMPACT && s->result.counts.invalid == 0 &&
            s->n_lines <= COMPACT_RATIO * idset_size(&s->seen))
                return JOB_DONE;
        /* Else a loss of power could take the moves back and not the removal of their records. */
        if (s->context->sites->sync && s->result.counts.moved > 0)
                s->result.error = queue_sync_moves(s->context->sites->queue);
        if (s->result.error < 0)
                return JOB_DONE;
        s->state = STATE_CLOSE;
        return JOB_MORE;
}

static void remove_prefix(Send *s) {
        LogEvent event = {.message_id = LOG_ID_FILE, .site = s->site->name};
        int r;

        if (s->site->changes != s->changes) {
                log_event(LOG_NOTICE, &event,
                          "log of %s: changed by another process meanwhile; its records stay",
                          s->site->name);
                return;
        }
        r = sitelog_replace_prefix(&s->log, (size_t) s->done_size, s->keep, s->n_keep,
                                   s->context->sites->sync);
        if (r < 0) {
                event.error = r;
                log_event(LOG_WARNING, &event,
                          "log of %s: cannot be shortened: %s; its records stay", s->site->name,
                          strerror(-r));
        }
        s->result.shortened = r == 0;
        if (s->kind != SEND_COMPACT)
                sitelog_touch(&s->log);
        sites_wrote(s->site, &s->log, r);
}

static JobResult step_close(Send *s) {
        int r = sitelog_relock(s->context->sites->queue, &s->log);

        if (r == -EAGAIN)
                return wait_for_lock(s);
        if (r == 0) {
                sites_observe(s->context->sites, s->site, &s->log);
                remove_prefix(s);
        } else if (r != -ESTALE) /* the file has gone, and its records with it */
                s->result.error = r;
        return JOB_DONE;
}

static JobResult step(Job *job, uint64_t until_usec) {
        Send *s = (Send *) (void *) job;

        switch (s->state) {
        case STATE_OPEN: {
                JobResult r = step_open(s);

                /* A short log is done in one go. */
                if (r != JOB_MORE)
                        return r;
        }
                /* fall through */
        case STATE_WORK: {
                JobResult r = step_work(s, until_usec);

                if (r != JOB_MORE || s->state != STATE_CLOSE)
                        return r;
        }
                /* fall through */
        default:
                return step_close(s);
        }
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
        s->site->send = NULL;
        s->context->done(s->site, &s->result, s->context->userdata);
        idset_clear(&s->seen);
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
