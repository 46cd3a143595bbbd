/* SPDX-License-Identifier: MIT */
#pragma once

/* All that status and check look at, and what is wrong with it. */

#include <jansson.h>
#include <limits.h>

#include "core/finding.h"
#include "core/metrics.h"
#include "ctl/ctl.h"

#define HEALTH_STATE_SIZE 64u

typedef enum HealthUnitIndex {
        HEALTH_SOCKET,
        HEALTH_SERVICE,
        HEALTH_TIMER,
        HEALTH_REFRESH,
        _HEALTH_UNIT_MAX,
} HealthUnitIndex;

typedef struct HealthUnit {
        char name[CTL_UNIT_SIZE];
        char state[HEALTH_STATE_SIZE];   /* "active (listening)", "not installed"; "": unknown */
        char enabled[HEALTH_STATE_SIZE]; /* UnitFileState, "enabled", "disabled", ...; "": unknown
                                          */
        char result[HEALTH_STATE_SIZE];  /* of a service: Result of its last run */
        bool active, failed;
        uint64_t triggered; /* a timer: when last, microseconds of the wall clock; 0: never */
} HealthUnit;

typedef struct Health {
        Ctl *ctl;
        HealthUnit units[_HEALTH_UNIT_MAX];
        pid_t listener;     /* 0: unknown */
        int listen_error;   /* negative errno of connecting; only if @tested */
        char *postfix_asks; /* flush_service_name, or NULL: Postfix does not say */
        unsigned long sites, records, messages, deferred; /* distinct messages */
        unsigned long unrecorded;                         /* deferred messages that no log has */
        bool knows_unrecorded;
        time_t oldest;     /* queue_arrival() of the oldest deferred one; 0: unknown */
        int survey_status; /* an exit status: EX_OK, or why these were not counted */
        Metrics counters;
        bool has_counters;
        char config[PATH_MAX]; /* "": there is none */
        bool tested;           /* the self-test was asked for */
        int test_status;       /* of ctl_self_test() */
        TestFindings findings; /* of the self-test, and of what is seen from here */
} Health;

/**
 * health_gather() - look at everything
 * @test:  ask for the self-test as well, which starts the service; else nothing is started
 *
 * Return: EX_OK, or an exit status after a message: the configuration could not be read.
 */
int health_gather(Ctl *ctl, bool test, Health *ret);
void health_done(Health *h);

/** health_has_answer() - false: the self-test was requested, but gave no result, for lack of
 * permission or time; see @test_status */
bool health_has_answer(const Health *h);

/** health_service_name() - what flush_service_name has to be for Postfix to ask this one */
const char *health_service_name(const Health *h);

/** health_last_refresh() - when a refresh was last made, for whomever; 0: unknown, or never */
time_t health_last_refresh(const Health *h);

/** health_json_findings() - a new array */
json_t *health_json_findings(const Health *h);

/**
 * ctl_read_counters() - what the service has counted
 * @ret_path:  receives the name of the file, to be freed; NULL: not wanted
 *
 * Return: 0, or a negative errno, as from metrics_read().
 */
int ctl_read_counters(const Ctl *ctl, Metrics *ret, char **ret_path);

/** health_socket_is_up() - is the socket unit active, or does systemd not say? Starts nothing. */
bool health_socket_is_up(Ctl *ctl);

/** health_is_served() - does systemd listen for the service, as far as can be seen? */
bool health_is_served(const Health *h);
