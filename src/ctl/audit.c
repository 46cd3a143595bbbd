/* SPDX-License-Identifier: MIT */

#include "ctl/audit.h"

#include <pwd.h>
#include <stdio.h>
#include <sys/uio.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <systemd/sd-login.h>

#include "util/escape.h"
#include "util/number.h"
#include "util/util.h"

#define FIELDS_MAX 24u
#define FIELD_SIZE 512u

/* ------------------------------------------------------------------------------------------ who */

static void copy(char *to, size_t size, const char *from) {
        (void) escape_line(from, to, size);
}

/* The uid with which the session began; sudo(8) and su(1) do not change it. */
static bool read_login_uid(uid_t *ret) {
        FILE *f = fopen("/proc/self/loginuid", "re");
        char text[sizeof "4294967295"] = "";
        unsigned long uid;

        if (!f)
                return false;
        (void) !fgets(text, sizeof text, f);
        (void) fclose(f);
        if (parse_ulong(text, &uid) < 0 || uid >= UINT32_MAX)
                return false; /* -1: of no login session */
        *ret = (uid_t) uid;
        return true;
}

static void find_login(AuditWho *who) {
        const char *sudo_user = getenv("SUDO_USER");
        const struct passwd *pw;
        uid_t uid;

        who->sudo = sudo_user && *sudo_user;
        pw = read_login_uid(&uid) ? getpwuid(uid) : NULL;
        if (!pw && !who->sudo && isatty(STDIN_FILENO))
                pw = getpwuid(getuid());
        if (pw)
                copy(who->login, sizeof who->login, pw->pw_name);
        else if (who->sudo)
                copy(who->login, sizeof who->login, sudo_user);
}

/* sudo(8) removes SSH_CONNECTION; the session still knows. */
static void find_remote(AuditWho *who) {
        _cleanup_free_ char *session = NULL, *host = NULL;
        const char *connection = getenv("SSH_CONNECTION");

        if (sd_pid_get_session(0, &session) >= 0 &&
            sd_session_get_remote_host(session, &host) >= 0 && host)
                copy(who->remote, sizeof who->remote, host);
        else if (connection) {
                host = strndup(connection, strcspn(connection, " "));
                if (host)
                        copy(who->remote, sizeof who->remote, host);
        }
}

void audit_who(AuditWho *ret) {
        *ret = (AuditWho){0};
        find_login(ret);
        find_remote(ret);
}

/* -------------------------------------------------------------------------------------- entries */

const char *audit_describe(const AuditOutcome *o, char ret[static AUDIT_TEXT_SIZE]) {
        const struct {
                unsigned long n;
                const char *text;
        } parts[] = {{o->delivered, "delivered"},
                     {o->returned, "returned to sender"},
                     {o->expired, "expired and returned to sender"},
                     {o->deleted, "deleted"},
                     {o->deferred, "deferred again"},
                     {o->held, "put on hold"},
                     {o->under_way, "still on their way"},
                     {o->unknown, "not known whether delivered or returned"}};
        size_t n = 0;

        (void) snprintf(ret, AUDIT_TEXT_SIZE, "nothing moved");
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
                if (parts[i].n > 0 && n < AUDIT_TEXT_SIZE)
                        n += (size_t) snprintf(ret + n, AUDIT_TEXT_SIZE - n, "%s%lu %s",
                                               n > 0 ? ", " : "", parts[i].n, parts[i].text);
        return ret;
}

typedef struct Fields {
        char text[FIELDS_MAX][FIELD_SIZE];
        struct iovec iov[FIELDS_MAX];
        int n;
} Fields;

static void add(Fields *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(Fields *f, const char *format, ...) {
        char *text = f->text[f->n];
        va_list ap;

        if ((unsigned) f->n == FIELDS_MAX)
                return;
        va_start(ap, format);
        (void) vsnprintf(text, FIELD_SIZE, format, ap);
        va_end(ap);
        f->iov[f->n++] = (struct iovec){text, strlen(text)};
}

static void add_text(Fields *f, const char *name, const char *value) {
        if (value && *value)
                add(f, "%s=%s", name, value);
}

static void add_outcome(Fields *f, const AuditOutcome *o) {
        add(f, "FFLUSHD_MOVED=%lu", o->moved);
        add(f, "FFLUSHD_DELIVERED=%lu", o->delivered);
        add(f, "FFLUSHD_RETURNED=%lu", o->returned);
        add(f, "FFLUSHD_EXPIRED=%lu", o->expired);
        add(f, "FFLUSHD_DELETED=%lu", o->deleted);
        add(f, "FFLUSHD_DEFERRED=%lu", o->deferred);
        add(f, "FFLUSHD_HELD=%lu", o->held);
        add(f, "FFLUSHD_UNDER_WAY=%lu", o->under_way);
        add(f, "FFLUSHD_UNKNOWN=%lu", o->unknown);
}

static void add_message(Fields *f, const AuditEvent *e, const AuditWho *who) {
        char outcome[AUDIT_TEXT_SIZE] = "", by[2 * sizeof who->login + 32] = "";
        const char *what = e->site ? e->site : e->queue_id;

        if (who->login[0])
                (void) snprintf(by, sizeof by, " by %s%s%s%s%s%s", who->login,
                                who->sudo || who->remote[0] ? " (" : "", who->sudo ? "sudo" : "",
                                who->sudo && who->remote[0] ? ", " : "", who->remote,
                                who->sudo || who->remote[0] ? ")" : "");
        if (e->outcome)
                (void) audit_describe(e->outcome, outcome);
        add(f, "MESSAGE=%s%s%s%s%s%s", e->request, what ? " " : "", what ? what : "", by,
            e->outcome ? ": " : "", outcome);
}

void audit_write(const AuditEvent *e) {
        Fields f = {.n = 0};
        AuditWho who;

        audit_who(&who);
        if (!who.login[0] && !e->outcome)
                return;
        add_message(&f, e, &who);
        add(&f, "MESSAGE_ID=" AUDIT_MESSAGE_ID);
        add(&f, "PRIORITY=%d", LOG_INFO);
        add(&f, "SYSLOG_FACILITY=%d", LOG_FAC(LOG_MAIL));
        add(&f, "SYSLOG_IDENTIFIER=fflushctl");
        add(&f, "FFLUSHD_INSTANCE=%s", e->instance);
        add(&f, "FFLUSHD_REQUEST=%s", e->request);
        add_text(&f, "FFLUSHD_SITE", e->site);
        add_text(&f, "FFLUSHD_QUEUE_ID", e->queue_id);
        add_text(&f, "FFLUSHD_REASON", e->reason);
        add_text(&f, "FFLUSHD_LOGIN", who.login);
        add_text(&f, "FFLUSHD_SUDO", who.sudo ? "1" : NULL);
        add_text(&f, "FFLUSHD_REMOTE", who.remote);
        if (e->outcome)
                add_outcome(&f, e->outcome);
        /* Without journald there is nobody to tell. */
        (void) sd_journal_sendv(f.iov, f.n);
}
