/* SPDX-License-Identifier: MIT */

#include "util/timer.h"

#include "util/util.h"

int timer_new(sd_event *event, uint64_t accuracy_usec, sd_event_time_handler_t handler,
              void *userdata, sd_event_source **ret) {
        sd_event_source *timer;
        int r = sd_event_add_time(event, &timer, CLOCK_MONOTONIC, 0, accuracy_usec, handler,
                                  userdata);

        if (r < 0)
                return r;
        r = sd_event_source_set_enabled(timer, SD_EVENT_OFF);
        if (r < 0) {
                sd_event_source_unref(timer);
                return r;
        }
        *ret = timer;
        return 0;
}

/* These fail for a source of another kind, or of another process, only. */

void timer_arm(sd_event_source *timer, uint64_t usec) {
        (void) sd_event_source_set_time_relative(timer, usec);
        (void) sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

void timer_arm_at(sd_event_source *timer, uint64_t usec) {
        (void) sd_event_source_set_time(timer, usec);
        (void) sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

bool timer_is_armed(const sd_event_source *timer) {
        return sd_event_source_get_enabled((sd_event_source *) (uintptr_t) timer, NULL) > 0;
}
