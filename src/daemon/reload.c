/* SPDX-License-Identifier: MIT */

#include "daemon/reload.h"

#include "util/timer.h"
#include "util/util.h"

#define START_ACCURACY_USEC 1000

struct Reload {
        sd_event *event;
        const ReloadCallbacks *callbacks;
        void *userdata;
        sd_event_source *start; /* goes off to begin, also after a failure */
        const Settings *current;
        Settings *taken;    /* those in use, unless they are still the first */
        Settings *next;     /* being read */
        Settings *rejected; /* of the last attempt if it was in vain, to see whether its files
                               change; else NULL */
        Postconf *postconf;
        bool due, again;
        bool ended; /* take() wants no others */
};

static Settings *free_settings(Settings *s) {
        if (s)
                settings_done(s);
        free(s);
        return NULL;
}

/* @settings: freed, or kept as rejected */
static void reload_fail(Reload *reload, Settings *settings, int error, bool in_vain) {
        reload->rejected = free_settings(reload->rejected);
        reload->callbacks->fail(settings, error, in_vain, reload->userdata);
        if (in_vain)
                reload->rejected = settings;
        else
                free_settings(settings);
        timer_arm(reload->start, RELOAD_RETRY_USEC);
}

static void reload_take(Reload *reload, Settings *settings) {
        int r = reload->callbacks->take(settings, reload->userdata);

        if (r == 0) {
                reload->rejected = free_settings(reload->rejected);
                free_settings(reload->taken);
                reload->current = reload->taken = settings;
                return;
        }
        reload->ended = r == -ECANCELED;
        if (reload->ended)
                free_settings(settings);
        else
                reload_fail(reload, settings, r, r != -ENOMEM);
}

/* @error: of asking postconf(1) */
static void reload_finish(Reload *reload, char *output, const char *problem, int error) {
        Settings *settings = TAKE_PTR(reload->next);
        int r = error == -ENOMEM ? error : settings_finish(settings, output, problem);

        if (r < 0) {
                free_settings(settings);
                reload_fail(reload, NULL, r, false);
        } else if (settings->incomplete || !settings_improve(settings, reload->current))
                reload_fail(reload, settings, 0, error != -ETIMEDOUT);
        else
                reload_take(reload, settings);
        if (reload->again && !reload->ended)
                reload_start(reload);
        reload->again = false;
}

static void on_answer(int error, char *output, const char *problem, void *userdata) {
        Reload *reload = userdata;

        reload_finish(reload, output, problem, error);
        reload->postconf = postconf_free(reload->postconf);
}

/* If the kept output of postconf(1) is current, it is what postconf would print now. */
static void reload_ask(Reload *reload) {
        const PostconfQuery *q = &reload->next->query;
        _cleanup_free_ char *output = NULL, *problem = NULL;
        bool current;
        int r;

        if (!q->argv) {
                reload_finish(reload, NULL, NULL, 0);
                return;
        }
        if (postconf_kept(q, &output, &current) == 0 && current) {
                reload_finish(reload, output, NULL, 0);
                return;
        }
        r = postconf_start(reload->event, q, on_answer, reload, &reload->postconf);
        if (r == 0)
                return;
        if (asprintf(&problem, "%s: %s", q->argv[0], strerror(-r)) < 0)
                problem = NULL;
        reload_finish(reload, NULL, problem, problem ? r : -ENOMEM);
}

static int on_start(sd_event_source *source, uint64_t usec, void *userdata) {
        Reload *reload = userdata;
        int r;

        reload->due = false;
        reload->next = calloc(1, sizeof *reload->next);
        r = reload->next
                    ? settings_begin(reload->current->file, reload->current->instance, reload->next)
                    : -ENOMEM;
        if (r == 0)
                reload_ask(reload);
        else {
                free(reload->next);
                reload->next = NULL;
                reload_fail(reload, NULL, r, false);
        }
        return 0;
}

static void reload_freep(Reload **reload) {
        reload_free(*reload);
}

int reload_new(sd_event *event, const Settings *settings, const ReloadCallbacks *callbacks,
               void *userdata, Reload **ret) {
        _cleanup_(reload_freep) Reload *reload = calloc(1, sizeof *reload);
        int r;

        if (!reload)
                return -ENOMEM;
        reload->event = event;
        reload->callbacks = callbacks;
        reload->userdata = userdata;
        reload->current = settings;
        r = timer_new(event, START_ACCURACY_USEC, on_start, reload, &reload->start);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(reload);
        return 0;
}

Reload *reload_free(Reload *reload) {
        if (!reload)
                return NULL;
        sd_event_source_disable_unref(reload->start);
        postconf_free(reload->postconf);
        free_settings(reload->next);
        free_settings(reload->rejected);
        free_settings(reload->taken);
        free(reload);
        return NULL;
}

void reload_start(Reload *reload) {
        if (reload->ended)
                return;
        if (reload->next) {
                reload->again = true;
                return;
        }
        reload->due = true;
        timer_arm(reload->start, 0);
}

bool reload_running(const Reload *reload) {
        return reload->due || reload->next;
}

bool reload_in_vain(const Reload *reload) {
        return reload->rejected && !settings_changed(reload->rejected);
}
