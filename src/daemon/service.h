/* SPDX-License-Identifier: MIT */
#pragma once

/* The requests: who may, what is done, what is answered, what the journal says. */

#include <systemd/sd-event.h>

#include "core/queue.h"
#include "core/settings.h"
#include "daemon/call.h"

typedef struct Service Service;

/* What the service asks of whoever holds the connections. */
typedef struct ServiceCallbacks {
        void (*reply)(Call *call);    /* send status (and counts); the call stays */
        void (*finish)(Call *call);   /* nothing more will be done: close, free the call */
        void (*identify)(Call *call); /* fill in call->caller */
        /* Have the settings read again: service_reconfigure() or service_not_reconfigured()
         * follows. Return: false if that was tried in vain, and nothing has changed since. */
        bool (*renew)(Call *call);
} ServiceCallbacks;

/**
 * service_new() - open the queue directory, read the eligibility list
 * @settings:  borrowed, until service_reconfigure(); if they are incomplete, nothing is opened
 * Return: 0, or a negative errno.
 */
int service_new(sd_event *event, const Settings *settings, const ServiceCallbacks *callbacks,
                Service **ret);
Service *service_free(Service *service);

/**
 * service_reconfigure() - go on with other settings
 * @settings:  borrowed, in the place of those so far; their queue_directory must be that of those,
 *             unless they were incomplete
 *
 * Work that has begun goes on. Calls that wait for a decision are decided again.
 *
 * Return: 0, or a negative errno: all is as before.
 */
int service_reconfigure(Service *service, const Settings *settings);

/**
 * service_not_reconfigured() - the settings could not be read anew
 * @why:    lines for people, copied; or NULL
 * @lasts:  it is of no use to try again until somebody has changed something: calls that wait for
 *          newer settings get FAIL, and a self-test reports @why
 */
void service_not_reconfigured(Service *service, const char *why, bool lasts);

/** service_trouble() - the @why of the last service_not_reconfigured(); NULL after success */
const char *service_trouble(const Service *service);

/** service_trouble_lasts() - its @lasts; false after success */
bool service_trouble_lasts(const Service *service);

/**
 * service_submit() - a request has been read
 *
 * It is answered at once, at service_end_turn(), or later, by the callbacks. Whether its client
 * is still there makes no difference (spec 2.7).
 */
void service_submit(Service *service, Call *call);

/** service_end_turn() - all that was ready has been submitted: write the adds, wake qmgr */
void service_end_turn(Service *service);

/** service_give_way() - to whom the long work gives way: jobs_give_way() */
void service_give_way(Service *service, bool (*is_wanted)(void *userdata), void *userdata);

/** service_step() - one slice of the long work: an endless stream of clients must not stop it */
void service_step(Service *service);

/**
 * service_refuse() - what has arrived is not a request: one entry in the journal, and the call is
 * finished
 * @status:  REQUEST_BAD, or REQUEST_FAIL if the service is at fault
 */
void service_refuse(Service *service, Call *call, RequestStatus status, const char *why,
                    const char *bytes, size_t n_bytes);

/** service_fds() - how many descriptors its work needs at a time, without those of sends:
 *                  service_limit_sends() */
unsigned service_fds(const Service *service);

/**
 * service_limit_sends() - run at most @n at a time; further ones wait
 * Return: how many run, which is at least one: a descriptor each.
 */
unsigned service_limit_sends(Service *service, unsigned n);

/** service_outdated() - has a file of the configuration changed since it was read? */
bool service_outdated(const Service *service);

/**
 * service_is_at() - does it work on the queue directory at this path?
 * Return: 1 (also if it has none yet), 0, or a negative errno: cannot be told.
 */
int service_is_at(const Service *service, const char *queue_directory);

/** service_findings() - how many things the last self-test found broken; 0 if there was none */
uint64_t service_findings(const Service *service);

/** service_turn_usec() - how long a turn may last, at most @longest: with long work to do, as long
 * as a slice of it, so that both get on */
uint64_t service_turn_usec(const Service *service, uint64_t longest);

/** service_may_exit() - is there nothing left to do or to wait for? */
bool service_may_exit(const Service *service);

/** service_cancel() - end all work and fail all calls: what has not been moved stays recorded */
void service_cancel(Service *service);
