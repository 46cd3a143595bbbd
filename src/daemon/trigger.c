/* SPDX-License-Identifier: MIT */

#include "daemon/trigger.h"

#include <stdio.h>

#include "core/qmgr.h"
#include "daemon/journal.h"
#include "util/timer.h"
#include "util/util.h"

static void send_again(const Trigger *t, char request) {
        int r = qmgr_trigger(t->queue_fd, t->endpoint, request);

        if (r < 0)
                journal_event(
                        LOG_NOTICE, &(JournalEvent){.message_id = JOURNAL_ID_TRIGGER, .error = r},
                        "%s: the queue manager could not be woken (%c): %s; it will look at its "
                        "queues by itself",
                        t->endpoint, request, strerror(-r));
}

static void send_lost(Trigger *t) {
        if (t->lost_flush)
                send_again(t, QMGR_FLUSH_DEAD);
        if (t->lost_scan)
                send_again(t, QMGR_SCAN_INCOMING);
        t->lost_flush = t->lost_scan = false;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        send_lost(userdata);
        return 0;
}

int trigger_configure(Trigger *t, int queue_fd, const char *service, uint64_t retry_usec) {
        char *endpoint;

        if (asprintf(&endpoint, "public/%s", service) < 0)
                return -ENOMEM;
        free(t->endpoint);
        t->endpoint = endpoint;
        t->queue_fd = queue_fd;
        t->retry_usec = retry_usec;
        return 0;
}

int trigger_init(Trigger *t, sd_event *event, int queue_fd, const char *service,
                 uint64_t retry_usec) {
        int r;

        *t = (Trigger){0};
        r = trigger_configure(t, queue_fd, service, retry_usec);
        if (r < 0)
                return r;
        return timer_new(event, 0, on_retry, t, &t->retry);
}

void trigger_free(Trigger *t) {
        send_lost(t);
        sd_event_source_disable_unref(t->retry);
        free(t->endpoint);
}

bool trigger_pending(const Trigger *t) {
        return t->lost_flush || t->lost_scan;
}

void trigger_send(Trigger *t, char request) {
        int r = qmgr_trigger(t->queue_fd, t->endpoint, request);

        if (r == 0)
                return;
        journal_message(LOG_DEBUG, "%s: %s, will try again", t->endpoint, strerror(-r));
        if (!trigger_pending(t))
                timer_arm(t->retry, t->retry_usec);
        if (request == QMGR_FLUSH_DEAD)
                t->lost_flush = true;
        else
                t->lost_scan = true;
}
