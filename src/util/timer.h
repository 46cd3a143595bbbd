/* SPDX-License-Identifier: MIT */
#pragma once

/* Timers of an event loop, on CLOCK_MONOTONIC (now_usec()), that go off once each time they are
 * armed. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

/**
 * timer_new() - a timer that is off
 * @accuracy_usec:  how late it may go off, so that one wake-up serves several; 0: 250 ms, the
 *                  default of sd-event
 * @ret:            sd_event_source_disable_unref() it
 *
 * Return: 0, or a negative errno.
 */
int timer_new(sd_event *event, uint64_t accuracy_usec, sd_event_time_handler_t handler,
              void *userdata, sd_event_source **ret);

/** timer_arm() - from now on, in microseconds; instead of the time it was armed for */
void timer_arm(sd_event_source *timer, uint64_t usec);

/** timer_arm_at() - at a time as now_usec() has it */
void timer_arm_at(sd_event_source *timer, uint64_t usec);

/** timer_is_armed() - will it go off? Not any more from within its handler. */
bool timer_is_armed(const sd_event_source *timer);
