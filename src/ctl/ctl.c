/* SPDX-License-Identifier: MIT */

#include "ctl/ctl.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>

#include "core/qmgr.h"
#include "core/queueid.h"
#include "ctl/ctl-print.h"
#include "util/child.h"
#include "util/util.h"

#define SHOWN_MAX     60 /* bytes shown of what is not a site or a queue ID */
#define POSTCONF_USEC (20 * USEC_PER_SEC)

/* What main.cf does not tell is not guessed: it would be the queue of another instance. */
static int check_instance(const Ctl *ctl) {
        const char *directory = ctl->settings.postfix_config_directory;
        char path[PATH_MAX];

        (void) snprintf(path, sizeof path, "%s/main.cf", directory);
        if (!ctl->instance || !ctl->settings.incomplete || access(path, F_OK) == 0)
                return EX_OK;
        ctl_error("no such instance: %s: %s", path, strerror(errno));
        return EX_NOINPUT;
}

static int load_settings(Ctl *ctl) {
        int r, status;

        if (ctl->has_settings)
                return check_instance(ctl);
        r = settings_load(ctl->config, ctl->instance, &ctl->settings);
        if (r < 0) {
                ctl_error("%s", strerror(-r));
                return EX_OSERR;
        }
        ctl->has_settings = true;
        status = check_instance(ctl);
        if (status == EX_OK && ctl->settings.problems)
                ctl_error_lines(ctl->settings.problems);
        return status;
}

/* What postconf(1) said has just been printed. */
static int refuse_to_guess(void) {
        ctl_error("where the queue is and how it is laid out is not known, and not guessed");
        return EX_CONFIG;
}

/* Of any but the default instance a guess would be the queue of another one. */
static bool may_guess(const Ctl *ctl) {
        return ctl->may_guess && !ctl->instance &&
               streq(ctl->settings.postfix_config_directory, "/etc/postfix");
}

int ctl_settings(Ctl *ctl) {
        int status = load_settings(ctl);

        if (status != EX_OK)
                return status;
        return ctl->settings.incomplete && !may_guess(ctl) ? refuse_to_guess() : EX_OK;
}

int ctl_queue(Ctl *ctl) {
        int r, status;

        if (ctl->queue.fd >= 0)
                return EX_OK;
        status = load_settings(ctl);
        if (status != EX_OK)
                return status;
        if (ctl->settings.incomplete)
                return refuse_to_guess();
        r = queue_open(ctl->settings.queue_directory, ctl->settings.hash_queue_names,
                       ctl->settings.hash_queue_depth, &ctl->queue);
        if (r == 0)
                return EX_OK;
        ctl_error("%s: %s", ctl->settings.queue_directory, ctl_strerror(r));
        return r == -EACCES ? EX_NOPERM : EX_UNAVAILABLE;
}

bool ctl_may_look(const Ctl *ctl) {
        _cleanup_free_ char *deferred = NULL;

        return ctl->has_settings && !ctl->settings.incomplete &&
               asprintf(&deferred, "%s/deferred", ctl->settings.queue_directory) >= 0 &&
               euidaccess(deferred, R_OK | X_OK) == 0;
}

/* The owner is whoever owns the mail: public/ and flush/ go by that. */
int ctl_become_owner(Ctl *ctl) {
        struct stat st;

        if (fstatat(ctl->queue.fd, queue_name(QUEUE_INCOMING), &st, AT_SYMLINK_NOFOLLOW) < 0) {
                ctl_error("%s: %s", ctl->settings.queue_directory, strerror(errno));
                return EX_NOINPUT;
        }
        if (geteuid() == st.st_uid)
                return EX_OK;
        if (geteuid() != 0 || st.st_uid == 0) {
                ctl_error("permission denied (run as root or as the owner of the queue, postfix)");
                return EX_NOPERM;
        }
        if (setgroups(0, NULL) < 0 || setegid(st.st_gid) < 0 || seteuid(st.st_uid) < 0) {
                ctl_error("cannot become the owner of the queue: %s", strerror(errno));
                return EX_OSERR;
        }
        return EX_OK;
}

char *ctl_postconf(Ctl *ctl, const char *name) {
        const char *directory = ctl->settings.postfix_config_directory;
        static const char postconf[] = POSTFIX_COMMAND_DIR "/postconf";
        const char *argv[] = {postconf, "-c", directory, "-xh", name, NULL};
        ChildResult result;
        char *value = NULL;

        if (!directory[0] || child_run(argv, POSTCONF_USEC, &result) < 0)
                return NULL;
        if (result.status == 0)
                value = strndup(result.output, strcspn(result.output, "\n"));
        free(result.output);
        free(result.errors);
        return value;
}

bool ctl_postfix_is_stopped(const Ctl *ctl) {
        _cleanup_close_ int own_fd = -EBADF;
        _cleanup_free_ char *endpoint = NULL;
        int r, fd = ctl->queue.fd;

        if (!ctl->has_settings || ctl->settings.incomplete)
                return false;
        if (fd < 0) {
                own_fd = open(ctl->settings.queue_directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
                fd = own_fd;
        }
        if (fd < 0 || asprintf(&endpoint, "public/%s", ctl->settings.queue_service_name) < 0)
                return false;
        r = qmgr_probe(fd, endpoint);
        return r == -ENOENT || r == -ENXIO || r == -ECONNREFUSED;
}

void ctl_command_name(const Ctl *ctl, char ret[static CTL_UNIT_SIZE]) {
        (void) snprintf(ret, CTL_UNIT_SIZE, "fflushctl%s%s", ctl->instance ? " -i " : "",
                        ctl->instance ? ctl->instance : "");
}

void ctl_unit_name(const Ctl *ctl, const char *name, const char *type,
                   char ret[static CTL_UNIT_SIZE]) {
        const char *instance = ctl->instance;

        (void) snprintf(ret, CTL_UNIT_SIZE, "%s%s%s.%s", name, instance ? "@" : "",
                        instance ? instance : "", type);
}

int ctl_no_site(const char *text) {
        return ctl_fail(EX_DATAERR, "not a domain name%s: \"%.*s\"%s",
                        strchr(text, '@') ? " (an address? give what is after the @)" : "",
                        SHOWN_MAX, text, strlen(text) > SHOWN_MAX ? " (cut)" : "");
}

int ctl_check_id(const char *id) {
        if (queueid_valid(id, strlen(id)))
                return EX_OK;
        return ctl_fail(EX_DATAERR, "not a queue ID: \"%.*s\"%s", SHOWN_MAX, id,
                        strlen(id) > SHOWN_MAX ? " (cut)" : "");
}
