/* SPDX-License-Identifier: MIT */
#pragma once

/* Looking at the logs without changing or locking them. Not even their access times change: by
 * those the refresh knows when a log was last flushed. */

#include <stdbool.h>
#include <sys/stat.h>

#include "core/queue.h"
#include "util/strset.h"

/* Something below a queue, whether it belongs there or not. */
typedef struct SurveyEntry {
        char path[QUEUE_PATH_SIZE]; /* below the queue directory */
        const char *name;           /* last part of @path */
        struct stat st;
        bool in_place; /* a valid name of at least two characters, where the settings have it */
        bool found;    /* the same, where the settings or any other layout has it */
} SurveyEntry;

/** survey_visit_t - Return: 0 (go on), or anything else to end the walk with it. */
typedef int (*survey_visit_t)(const SurveyEntry *entry, void *userdata);

/**
 * survey_walk() - visit all that is in a queue, but for hash directories, which are walked through
 * @queue:  QUEUE_FLUSH for the logs
 *
 * What vanishes meanwhile is passed over. A queue that is not there is empty.
 *
 * Return: 0, a negative errno (a directory cannot be read), or what @visit returned.
 */
int survey_walk(const Queue *q, QueueName queue, survey_visit_t visit, void *userdata);

typedef struct SurveyLog {
        struct stat st;
        StrSet ids;            /* distinct ones, oldest first */
        unsigned long records; /* lines with a valid ID */
        char *text;            /* those IDs, each with a NUL, @n_text bytes in all */
        size_t n_text, text_size;
        unsigned long invalid;   /* lines without; empty ones are not counted */
        unsigned long lost_tail; /* bytes of a last line that does not end; it counts above */
} SurveyLog;

/**
 * survey_read() - read a log as a flush would
 * @path:  below the queue directory
 * @ret:   receives it; survey_done() it in any case
 *
 * If the log changes at that moment it is read anew, a few times.
 *
 * Return: 0, -ENOENT, -ELOOP (a symbolic link), -EPROTOTYPE (not a plain file), or another
 *         negative errno.
 */
int survey_read(const Queue *q, const char *path, SurveyLog *ret);
void survey_done(SurveyLog *log);

/**
 * survey_read_log() - survey_read() all of a log, wherever any layout has it or parts of it
 * @name:  a valid name
 *
 * Return: as survey_read(); @ret->st is of what is in its place, else of another part, with the
 *         oldest access and the newest modification time of all.
 */
int survey_read_log(const Queue *q, const char *name, SurveyLog *ret);

/**
 * survey_site() - for whom a log is
 * @ret:  receives the site
 *
 * Return: true, or false: flush(8) wrote it for a site with other characters than letters, digits
 *         and dots, and nobody knows which; @ret receives the name of the log in parentheses.
 */
bool survey_site(const char *name, char ret[static QUEUEID_MAX + 3]);
