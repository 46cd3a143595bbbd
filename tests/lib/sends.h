/* SPDX-License-Identifier: MIT */
#pragma once

/* What sends work with, on the queue directory of spool.h and an event loop of its own. */

#include "daemon/send.h"

extern sd_event *event;
extern Jobs jobs;
extern Trigger trigger;
extern Sites sites;
extern SendContext context; /* its userdata is itself */

/* Checked fixture, which has that of spool.h in it. */
void sends_setup(send_done_t done);
void sends_teardown(void);

/** turn() - one turn of the event loop */
void turn(void);
