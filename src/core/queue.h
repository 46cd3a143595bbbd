/* SPDX-License-Identifier: MIT */
#pragma once

/* The queue directory: where a message is, and how to make it due now. Does not log. */

#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

#include "core/queueid.h"

typedef enum QueueName {
        QUEUE_INCOMING,
        QUEUE_ACTIVE,
        QUEUE_DEFERRED,
        QUEUE_HOLD,
        QUEUE_FLUSH, /* the logs */
        _QUEUE_NAME_MAX,
} QueueName;

typedef struct Queue {
        int fd;              /* queue_directory; owned by whoever opened it */
        unsigned hash_depth; /* hash_queue_depth, 1 to QUEUEID_FOREST_MAX */
        bool hashed[_QUEUE_NAME_MAX];
        bool was_spread; /* incoming was hashed in a layout before */
} Queue;

/* The longest name of a queue, the hash directories, the ID. */
#define QUEUE_PATH_SIZE (sizeof "incoming/" + QUEUEID_FOREST_SIZE + QUEUEID_MAX)

const char *queue_name(QueueName name);

/**
 * queue_open() - open the queue directory
 * @directory:         queue_directory
 * @hash_queue_names:  as in main.cf
 * @ret:               receives it; the caller closes its fd
 *
 * Return: 0, or a negative errno.
 */
int queue_open(const char *directory, const char *hash_queue_names, unsigned hash_depth,
               Queue *ret);

/** queue_set_layout() - hash_queue_names and hash_queue_depth as they are now; @q stays open */
void queue_set_layout(Queue *q, const char *hash_queue_names, unsigned hash_depth);

/**
 * queue_is_at() - is the open queue directory the one at this path?
 * Return: 1, 0 (another one is, or none), or a negative errno: cannot be told.
 */
int queue_is_at(const Queue *q, const char *directory);

/**
 * queue_path() - path of a file, below the queue directory
 * @id:  a valid name (queueid_valid())
 */
void queue_path(const Queue *q, QueueName name, const char *id, char ret[static QUEUE_PATH_SIZE]);

/* How often a file is looked for in all its places before it counts as gone. */
#define QUEUE_PASSES 2

/* Where a file may be that is not where the settings have it: hash_queue_names or hash_queue_depth
 * changed, and postsuper(1) has not moved it yet; or the settings are older than the queue. */
typedef struct QueuePlaces {
        const Queue *queue;
        QueueName name;
        const char *id;
        unsigned depth; /* of the next place */
        char forest[QUEUEID_FOREST_SIZE];
} QueuePlaces;

/**
 * queue_places() - begin with the places of a file in layouts other than that of the settings
 * @id:   a valid name; it and @q are borrowed; one of one character has no other places
 * @ret:  for queue_next_place()
 */
void queue_places(const Queue *q, QueueName name, const char *id, QueuePlaces *ret);

/**
 * queue_next_place() - the next place whose hash directories exist
 * @ret:  receives its path
 *
 * It ends at the first hash directory that is not there, so that this costs one look in a queue
 * that is not hashed.
 *
 * Return: 1, 0 (no more), or a negative errno: a directory could not be looked at, so that nobody
 *         knows what is in it.
 * Source: fflushd's decision; spec 3.3.
 */
int queue_next_place(QueuePlaces *places, char ret[static QUEUE_PATH_SIZE]);

/**
 * queue_open_dir() - open a directory of a queue, to be read
 * @fd:  of the queue directory, or of one in it that @path is below
 * @ret: closedir() it
 *
 * A symbolic link is not followed. Return: 0, or a negative errno.
 */
int queue_open_dir(int fd, const char *path, DIR **ret);

/**
 * queue_make_dirs() - make the directories above @path that are missing, mode 0700
 * Return: 0, or a negative errno.
 * Source: spec 3.4.
 */
int queue_make_dirs(const Queue *q, const char *path);

/** queue_birth() - when a file below the queue directory was made; renaming it keeps that time
 * Return: 0, -ENODATA (the file system does not tell), or another negative errno. */
int queue_birth(const Queue *q, const char *path, struct timespec *ret);

/**
 * queue_arrival() - when a message arrived: a long queue ID tells; for a short one, when its file
 * was made, which is later if the queue was copied to where it is
 *
 * Return: seconds since 1970; 0: unknown.
 * Source: postconf(5), enable_long_queue_ids; else fflushd's own.
 */
time_t queue_arrival(const Queue *q, const char *path, const char *id);

/** queue_arrived_before() - of two arrivals: is @t known, and @than unknown or later? */
static inline bool queue_arrived_before(time_t t, time_t than) {
        return t > 0 && (than == 0 || t < than);
}

/**
 * queue_find() - in which queue is a message?
 * @ret, @ret_st:  receive it, and its file's status
 *
 * Where the settings have it is looked at first, then where any other layout would. Changes
 * nothing. One that travels meanwhile is found, if it goes back but once.
 *
 * Return: 0, -ENOENT (in none of incoming, active, deferred, hold, in whatever layout), -ENOTDIR
 *         (a queue is not there, so nobody knows), or another negative errno.
 */
int queue_find(const Queue *q, const char *id, QueueName *ret, struct stat *ret_st);

typedef enum QueueResult {
        QUEUE_MOVED,     /* it is in incoming, and due */
        QUEUE_GONE,      /* as -ENOENT of queue_find(): delivered, bounced or deleted */
        QUEUE_BUSY,      /* in active or on hold: left alone */
        QUEUE_NOT_READY, /* still being written (mode below 0700): left alone */
} QueueResult;

/**
 * queue_move() - move a message from deferred to incoming and make it due
 * @ret:  receives what became of it
 *
 * It is moved from wherever queue_find() finds it, to where the settings have it. A message that
 * is in incoming already is made due. Symbolic links are not followed. Its mode
 * stays: this is for destinations that qmgr was told about by QMGR_FLUSH_DEAD.
 *
 * Return: 0, -ENOTDIR (a queue is not there), or another negative errno: it is there but could not
 *         be moved, or could not be looked for everywhere.
 * Source: spec 5.4, 9.2, 9.3.
 */
int queue_move(const Queue *q, const char *id, QueueResult *ret);

/**
 * queue_sync_moves() - have on the disk what queue_move() has moved
 * Return: 0, or a negative errno.
 * Source: fflushd's decision.
 */
int queue_sync_moves(const Queue *q);

/**
 * queue_unthrottle() - queue_move() for one message, with the mark that makes qmgr forget its
 * destinations' troubles (mode bit 0040)
 *
 * Return: 0, -ELOOP (a symbolic link), -EISDIR, -EMLINK (has other hard links), -EPERM (not
 *         ours), or another negative errno. A message that is refused is not touched.
 * Source: spec 5.4; flush(8) changes the time stamp of what it then refuses (spec 9.18).
 */
int queue_unthrottle(const Queue *q, const char *id, QueueResult *ret);

/**
 * queue_preview() - what queue_move() or queue_unthrottle() would do now; changes nothing
 * @unthrottle:  which of the two
 *
 * As if done by the owner of the queue. Return: as theirs.
 */
int queue_preview(const Queue *q, const char *id, bool unthrottle, QueueResult *ret);
