/* SPDX-License-Identifier: MIT */
#pragma once

/* Waking qmgr(8), with a second try: a trigger that is lost delays mail by up to five minutes. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

typedef struct Trigger {
        int queue_fd; /* borrowed */
        char *endpoint;
        uint64_t retry_usec;
        sd_event_source *retry;
        bool lost_flush, lost_scan; /* to be sent once more */
} Trigger;

/**
 * trigger_init() - Return: 0, or a negative errno.
 * @service:     queue_service_name
 * @retry_usec:  when to try again what qmgr did not take (trigger_timeout)
 */
int trigger_init(Trigger *t, sd_event *event, int queue_fd, const char *service,
                 uint64_t retry_usec);

/**
 * trigger_configure() - other values from now on, also for what is still to be sent again
 * Return: 0, or -ENOMEM: all is as before.
 */
int trigger_configure(Trigger *t, int queue_fd, const char *service, uint64_t retry_usec);

/** trigger_done() - what is still to be sent again is sent now */
void trigger_done(Trigger *t);

/**
 * trigger_send() - QMGR_FLUSH_DEAD or QMGR_SCAN_INCOMING; never waits
 *
 * What is lost is sent once more later, and logged if it is lost again. Not an error for whoever
 * asked: qmgr looks at its queues by itself after a while.
 */
void trigger_send(Trigger *t, char request);

/** trigger_pending() - is a lost one still to be sent again? */
bool trigger_pending(const Trigger *t);
