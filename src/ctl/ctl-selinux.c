/* SPDX-License-Identifier: MIT */

/* What root or an administrator does is hardly ever confined, so that all looks well while
 * Postfix's own daemons are denied the socket. The rules that are loaded tell, whoever has written
 * them. */

#include "ctl/ctl-selinux.h"

#include <limits.h>
#include <stdio.h>

#include "ctl/client.h"
#include "ctl/ctl-ask.h"
#include "ctl/selinux.h"
#include "util/util.h"

typedef struct Look {
        Ctl *ctl;
        char *directory;                     /* of the daemons */
        char master[SELINUX_CONTEXT_SIZE];   /* of master(8), which starts them */
        char listener[SELINUX_CONTEXT_SIZE]; /* of the socket */
        char file[SELINUX_CONTEXT_SIZE];     /* of its name in the file system */
} Look;

static int label_of_daemon(const Look *l, const char *name, char ret[static SELINUX_CONTEXT_SIZE]) {
        char path[PATH_MAX];

        (void) snprintf(path, sizeof path, "%s/%s", l->directory, name);
        return selinux_label_of(path, ret);
}

/* Not that of the master(8) that runs: who was started by hand may have another one than after the
 * next boot. */
static bool look(Look *l) {
        char init[SELINUX_CONTEXT_SIZE], program[SELINUX_CONTEXT_SIZE];
        const char *path = l->ctl->socket_path;

        l->directory = ctl_postconf(l->ctl, "daemon_directory");
        return l->directory && selinux_context_of_init(init) == 0 &&
               label_of_daemon(l, "master", program) == 0 &&
               selinux_context_after_exec(SELINUX_FS, init, program, l->master) == 0 &&
               client_find_label(path, ctl_patience(l->ctl), l->listener, sizeof l->listener) ==
                       0 &&
               selinux_label_of(path, l->file) == 0;
}

static void add(Look *l, const char *name, const char *daemon, bool of_file,
                TestFindings *findings) {
        const char *what = of_file ? "write to the file of the socket" : "connect to the service";
        char who[SELINUX_TYPE_SIZE], whom[SELINUX_TYPE_SIZE], unit[CTL_UNIT_SIZE];
        TestFinding *f;

        (void) selinux_type(daemon, who);
        (void) selinux_type(of_file ? l->file : l->listener, whom);
        ctl_unit_name(l->ctl, "fflush", "socket", unit);
        f = findings_add(findings, "selinux", FINDING_FAILED,
                         "SELinux does not let %s (%s) %s (%s): Postfix's requests do not arrive",
                         name, who, what, whom);
        if (of_file)
                finding_set_remedy(f, "restorecon -v %s", l->ctl->socket_path);
        else
                finding_set_remedy(f,
                                   "install fflushd-selinux, see SELinux in fflushd(8), then "
                                   "systemctl restart %s",
                                   unit);
}

/* Return: has it been denied? */
static bool judge(Look *l, const char *name, TestFindings *findings) {
        char program[SELINUX_CONTEXT_SIZE], daemon[SELINUX_CONTEXT_SIZE];
        bool of_file;

        if (label_of_daemon(l, name, program) < 0 ||
            selinux_context_after_exec(SELINUX_FS, l->master, program, daemon) < 0)
                return false;
        of_file = selinux_allows(SELINUX_FS, daemon, l->file, "sock_file", "write") == 0;
        if (!of_file &&
            selinux_allows(SELINUX_FS, daemon, l->listener, "unix_stream_socket", "connectto") != 0)
                return false;
        add(l, name, daemon, of_file, findings);
        return true;
}

void ctl_judge_selinux(Ctl *ctl, TestFindings *findings) {
        static const char *const daemons[] = {"smtp", "smtpd",   "lmtp", "local",
                                              "pipe", "virtual", "qmgr", "error"};
        Look l = {.ctl = ctl};

        if (ctl->socket || !ctl->settings.postfix_config_directory[0] ||
            !selinux_enforces(SELINUX_FS))
                return;
        if (look(&l))
                for (size_t i = 0; i < ARRAY_SIZE(daemons); i++)
                        if (judge(&l, daemons[i], findings))
                                break; /* one is enough to know */
        free(l.directory);
}
