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
        bool lost_flush, lost_scan; /* to be sent a second time */
} Trigger;

/**
 * trigger_init() - Return: 0, or a negative errno.
 * @service:     queue_service_name
 * @retry_usec:  when to send a trigger a second time that did not arrive (trigger_timeout)
 */
int trigger_init(Trigger *t, sd_event *event, int queue_fd, const char *service,
                 uint64_t retry_usec);

/**
 * trigger_configure() - use other values, also for a second try that is still to come
 * Return: 0, or -ENOMEM: all is as before.
 */
int trigger_configure(Trigger *t, int queue_fd, const char *service, uint64_t retry_usec);

/** trigger_done() - make any second try now */
void trigger_done(Trigger *t);

/**
 * trigger_send() - QMGR_FLUSH_DEAD or QMGR_SCAN_INCOMING; never waits
 *
 * A trigger that does not arrive is sent a second time after @retry_usec, and the journal has an
 * entry if that fails too. It is not an error for the caller: qmgr looks at its queues by itself
 * after a while.
 */
void trigger_send(Trigger *t, char request);

/** trigger_pending() - is a second try still to come? */
bool trigger_pending(const Trigger *t);
