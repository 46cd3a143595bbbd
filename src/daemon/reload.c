/* SPDX-License-Identifier: MIT */

#include "daemon/reload.h"

#include "util/timer.h"
#include "util/util.h"

struct Reload {
        sd_event *event;
        const ReloadCallbacks *callbacks;
        void *userdata;
        sd_event_source *start; /* now, or for another try */
        const Settings *current;
        Settings *taken;    /* those in use, unless they are still the first */
        Settings *next;     /* not finished */
        Settings *rejected; /* of the last time, if it was in vain */
        Postconf *postconf;
        bool due, again;
        bool ended; /* none are wanted any more */
};

static Settings *free_settings(Settings *s) {
        if (s)
                settings_done(s);
        free(s);
        return NULL;
}

/* @settings: freed, or kept to see whether its files change */
static void fail(Reload *r, Settings *settings, int error, bool in_vain) {
        r->rejected = free_settings(r->rejected);
        r->callbacks->fail(settings, error, in_vain, r->userdata);
        if (in_vain)
                r->rejected = settings;
        else
                free_settings(settings);
        timer_arm(r->start, RELOAD_RETRY_USEC);
}

static void take(Reload *r, Settings *settings) {
        int k = r->callbacks->take(settings, r->userdata);

        if (k == 0) {
                r->rejected = free_settings(r->rejected);
                free_settings(r->taken);
                r->current = r->taken = settings;
                return;
        }
        r->ended = k == -ECANCELED;
        if (r->ended)
                free_settings(settings);
        else
                fail(r, settings, k, k != -ENOMEM);
}

/* @error: of asking postconf(1) */
static void finish(Reload *r, char *output, const char *problem, int error) {
        Settings *settings = TAKE_PTR(r->next);
        int k = error == -ENOMEM ? error : settings_finish(settings, output, problem);

        if (k < 0) {
                free_settings(settings);
                fail(r, NULL, k, false);
        } else if (settings->incomplete || !settings_improve(settings, r->current))
                fail(r, settings, 0, error != -ETIMEDOUT);
        else
                take(r, settings);
        if (r->again && !r->ended)
                reload_start(r);
        r->again = false;
}

static void on_answer(int error, char *output, const char *problem, void *userdata) {
        Reload *r = userdata;

        finish(r, output, problem, error);
        r->postconf = postconf_free(r->postconf);
}

/* What it said last time is as good as what it would say now, if that is current. */
static void ask(Reload *r) {
        const PostconfQuery *q = &r->next->query;
        _cleanup_free_ char *output = NULL, *problem = NULL;
        bool current;
        int k;

        if (!q->argv) {
                finish(r, NULL, NULL, 0);
                return;
        }
        if (postconf_kept(q, &output, &current) == 0 && current) {
                finish(r, output, NULL, 0);
                return;
        }
        k = postconf_start(r->event, q, on_answer, r, &r->postconf);
        if (k == 0)
                return;
        if (asprintf(&problem, "%s: %s", q->argv[0], strerror(-k)) < 0)
                problem = NULL;
        finish(r, NULL, problem, problem ? k : -ENOMEM);
}

static int on_start(sd_event_source *source, uint64_t usec, void *userdata) {
        Reload *r = userdata;
        int k;

        r->due = false;
        r->next = calloc(1, sizeof *r->next);
        k = r->next ? settings_begin(r->current->file, r->current->instance, r->next) : -ENOMEM;
        if (k == 0)
                ask(r);
        else {
                free(r->next);
                r->next = NULL;
                fail(r, NULL, k, false);
        }
        return 0;
}

int reload_new(sd_event *event, const Settings *settings, const ReloadCallbacks *callbacks,
               void *userdata, Reload **ret) {
        Reload *r = calloc(1, sizeof *r);
        int k;

        if (!r)
                return -ENOMEM;
        r->event = event;
        r->callbacks = callbacks;
        r->userdata = userdata;
        r->current = settings;
        k = timer_new(event, USEC_PER_MSEC, on_start, r, &r->start);
        if (k < 0) {
                reload_free(r);
                return k;
        }
        *ret = r;
        return 0;
}

Reload *reload_free(Reload *r) {
        if (!r)
                return NULL;
        sd_event_source_disable_unref(r->start);
        postconf_free(r->postconf);
        free_settings(r->next);
        free_settings(r->rejected);
        free_settings(r->taken);
        free(r);
        return NULL;
}

void reload_start(Reload *r) {
        if (r->ended)
                return;
        if (r->next) {
                r->again = true;
                return;
        }
        r->due = true;
        timer_arm(r->start, 0);
}

bool reload_running(const Reload *r) {
        return r->due || r->next;
}

bool reload_in_vain(const Reload *r) {
        return r->rejected && !settings_changed(r->rejected);
}
