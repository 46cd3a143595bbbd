/* SPDX-License-Identifier: MIT */
#pragma once

/* Following messages through the queues, by what inotify(7) says of their files, until each has
 * left or is deferred again. A queue ID is a file's name, so no file is opened. */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/queue.h"

typedef enum FollowState {
        FOLLOW_NOT_MOVED, /* in the deferred queue, from the beginning */
        FOLLOW_MOVING,    /* on its way: incoming or active */
        FOLLOW_LEFT,      /* in no queue: delivered, returned, deleted */
        FOLLOW_DEFERRED,  /* tried, and deferred again */
        FOLLOW_HELD,      /* put on hold meanwhile */
        _FOLLOW_STATE_MAX,
} FollowState;

typedef struct FollowMessage FollowMessage;

typedef struct FollowWatch {
        QueueName queue;
        char path[QUEUE_PATH_SIZE];
} FollowWatch;

typedef struct Follow {
        const Queue *queue;
        int fd; /* readable: call follow_events() */
        FollowMessage *messages;
        unsigned long count[_FOLLOW_STATE_MAX];
        FollowWatch *watches; /* by watch descriptor */
        size_t n_watches;
        bool blind; /* events were lost, or a directory is new: follow_look() */
        struct timespec since;
} Follow;

/**
 * follow_init() - begin to watch the queues
 * @f:  follow_done() it in any case
 *
 * Return: 0, -EACCES, -ENOSPC (fs.inotify.max_user_watches), or another negative errno.
 */
int follow_init(const Queue *queue, Follow *f);
void follow_done(Follow *f);

/**
 * follow_add() - follow a message, if it is deferred or incoming now
 * @group:  by which the caller knows it again, in follow_next(); the first one counts
 *
 * Return: 0 (also if it is neither), or a negative errno.
 */
int follow_add(Follow *f, const char *id, unsigned group);

/**
 * follow_join() - follow a message that is on its way already: incoming or active now
 * Return: 1, 0 (it is neither), or a negative errno.
 */
int follow_join(Follow *f, const char *id, unsigned group);

typedef struct FollowItem {
        const char *id; /* lives as long as @f */
        FollowState state;
        unsigned group;
} FollowItem;

/** follow_find() - Return: is this message followed? If so with @ret. */
bool follow_find(const Follow *f, const char *id, FollowItem *ret);

/**
 * follow_next() - go through all messages, in the order in which they were added
 * @cursor:  NULL at first; receives where it is
 *
 * Return: true, or false: there is none left.
 */
bool follow_next(const Follow *f, const void **cursor, FollowItem *ret);

/** follow_events() - take in what has happened; never waits. Return: 0, or a negative errno. */
int follow_events(Follow *f);

/**
 * follow_look() - look where the messages are that are on their way
 *
 * For those whose end no event tells of: moved to a directory nobody knew of, or to another file
 * system, or the events were lost.
 */
void follow_look(Follow *f);

/**
 * follow_settle() - the request is done: what has not been moved by now will not be by it
 * @all_moved:  the service says that it could move all; what is deferred has then come back
 */
void follow_settle(Follow *f, bool all_moved);

/** follow_state() - Return: of a message; FOLLOW_NOT_MOVED if it is not followed. */
FollowState follow_state(const Follow *f, const char *id);
