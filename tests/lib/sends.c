/* SPDX-License-Identifier: MIT */

#include "tests/lib/sends.h"

#include "tests/lib/spool.h"
#include "util/util.h"

sd_event *event;
Jobs jobs;
Trigger trigger;
Sites sites;
SendContext context;

void sends_setup(send_done_t done) {
        spool_setup();
        spool_listen();
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(jobs_init(&jobs, event), 0);
        ck_assert_int_eq(trigger_init(&trigger, event, spool_fd, "qmgr", USEC_PER_SEC), 0);
        sites_init(&sites, &spool_queue, false, 60 * USEC_PER_SEC);
        context = (SendContext){.queue = &spool_queue,
                                .lock_usec = 60 * USEC_PER_SEC,
                                .sites = &sites,
                                .jobs = &jobs,
                                .trigger = &trigger,
                                .done = done,
                                .userdata = &context};
}

void sends_teardown(void) {
        jobs_cancel(&jobs);
        sites_done(&sites);
        trigger_done(&trigger);
        jobs_done(&jobs);
        event = sd_event_unref(event);
        spool_teardown();
}

void turn(void) {
        ck_assert_int_ge(sd_event_run(event, USEC_PER_SEC), 0);
}
