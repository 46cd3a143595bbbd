/* SPDX-License-Identifier: MIT */
#pragma once

/* The connections of clients: read, decode, reply, and end what takes too long. What is done about
 * a request, and when connections are accepted, is up to the owner: see the callbacks.
 *
 *     (accepted) --> READING --request--> WORKING --finished--> (closed)
 *                       |                    |
 *                       |                    `--BAD--> LINGERING --> (closed)
 *                       `--deadline, memory, end--> (closed)
 */

#include <systemd/sd-event.h>

#include "core/settings.h"
#include "daemon/call.h"

typedef struct Connections Connections;

typedef struct ConnectionCallbacks {
        /* A whole request. connection_finish() ends it, from within or later. */
        void (*submit)(Call *call, void *userdata);
        /* What has arrived, @bytes, is not a request or cannot be served. To be ended in the same
         * way. */
        void (*refuse)(Call *call, RequestStatus status, const char *why, const char *bytes,
                       size_t n, void *userdata);
        /* Calls have been submitted or refused outside of a turn: they can be answered now. */
        void (*settle)(void *userdata);
        /* One has been closed. */
        void (*closed)(void *userdata);
} ConnectionCallbacks;

/**
 * connections_new() - none yet
 * @settings:  borrowed, until connections_configure(): the time-outs, whether to announce the
 *             protocol
 *
 * Return: 0, or a negative errno.
 */
int connections_new(sd_event *event, const Settings *settings, const ConnectionCallbacks *callbacks,
                    void *userdata, Connections **ret);
Connections *connections_free(Connections *pool);

/** connections_configure() - other settings. Clients that wait for an announcement, and would have
 * had one by now, get it. */
void connections_configure(Connections *pool, const Settings *settings);

/** connections_fd() - an epoll(7) set in which they are; the owner may add descriptors of its own,
 *                     with any pointer as data but NULL */
int connections_fd(const Connections *pool);

unsigned connections_count(const Connections *pool);

/** connections_have_spare() - is there memory for one more? It is allocated before accept(2), so
 * that an accepted connection is never dropped for want of it. */
bool connections_have_spare(Connections *pool);

/** connections_add() - an accepted socket, after connections_have_spare(); non-blocking; it belongs
 * to the pool from now on */
void connections_add(Connections *pool, int fd);

/** connections_on_event() - an event of epoll_wait(2) with this pointer as its data */
void connections_on_event(void *connection);

/**
 * connections_try_fresh() - try to read from those that were added in this turn
 *
 * Most requests come within microseconds of the announcement, and to try costs less than to have
 * the kernel watch for them.
 *
 * Return: true if there was anything.
 */
bool connections_try_fresh(Connections *pool);

/** connections_watch_fresh() - nothing has arrived from these yet: hand them to epoll */
void connections_watch_fresh(Connections *pool);

/** connections_make_room() - close the oldest unfinished requests if all of them take too much
 * memory. Not between two events of one epoll_wait(2): it frees connections that may have the next
 * one. */
void connections_make_room(Connections *pool);

/** connections_hurry() - the process is to end: from @from_usec (now_usec()) on, clients have three
 * seconds for a whole request */
void connections_hurry(Connections *pool, uint64_t from_usec);

void connections_close_all(Connections *pool);

/* ----------------------------------------------------------------- of a call: for the service */

/** connection_reply() - send status, and counts or findings; the connection stays */
void connection_reply(Call *call);

/** connection_finish() - nothing more will be done for this call: close it, or linger after BAD,
 * since closing while the client still sends would destroy the reply */
void connection_finish(Call *call);

/** connection_identify() - fill in call->caller, by SO_PEERCRED */
void connection_identify(Call *call);

/** connection_userdata() - what connections_new() was given */
void *connection_userdata(const Call *call);
