/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-ask.h"

#include <stdio.h>

#include "ctl/client.h"
#include "ctl/ctl-print.h"
#include "util/util.h"

#define LOOK_USEC (10 * USEC_PER_SEC)

int ctl_socket(Ctl *ctl) {
        int status;

        if (ctl->socket_path)
                return EX_OK;
        if (ctl->socket)
                ctl->socket_path = strdup(ctl->socket);
        else {
                status = ctl_settings(ctl);
                if (status != EX_OK)
                        return status;
                if (asprintf(&ctl->socket_path, "%s/public/%s", ctl->settings.queue_directory,
                             CTL_SERVICE) < 0)
                        ctl->socket_path = NULL;
        }
        if (ctl->socket_path)
                return EX_OK;
        return ctl_no_memory();
}

uint64_t ctl_patience(const Ctl *ctl) {
        return ctl->timeout > 0 ? ctl->timeout : LOOK_USEC;
}

int ctl_connect_error(const Ctl *ctl, int error) {
        char unit[CTL_UNIT_SIZE];

        ctl_unit_name(ctl, "fflush", "socket", unit);
        if (error == -EACCES || error == -EPERM)
                return ctl_fail(EX_NOPERM,
                                "cannot connect to %s: permission denied (run as root or postfix)",
                                ctl->socket_path);
        if (error == -ENOENT || error == -ECONNREFUSED)
                return ctl_fail(EX_UNAVAILABLE, "cannot connect to %s: %s (is %s started?)",
                                ctl->socket_path, strerror(-error), unit);
        if (error == -ETIMEDOUT)
                return ctl_fail(EX_TEMPFAIL,
                                "cannot connect to %s: whoever listens there takes no connections",
                                ctl->socket_path);
        return ctl_fail(EX_UNAVAILABLE, "cannot connect to %s: %s", ctl->socket_path,
                        strerror(-error));
}

static int say_no_reply(const char *what, int error) {
        return ctl_fail(error == -EBADMSG ? EX_PROTOCOL : EX_TEMPFAIL, "%s: %s", what,
                        error == -ECONNRESET || error == -EPIPE
                                ? "the service closed the connection without a reply"
                        : error == -EBADMSG   ? "the reply makes no sense"
                        : error == -ETIMEDOUT ? "no reply in time"
                                              : strerror(-error));
}

int ctl_say_status(const Ctl *ctl, const char *what, RequestStatus status) {
        switch (status) {
        case REQUEST_OK:
                return EX_OK;
        case REQUEST_FAIL:
                return ctl_fail(EX_TEMPFAIL, "%s: failed; see journalctl -t %s/fflushd -n 5", what,
                                ctl->instance ? ctl->instance : "postfix");
        case REQUEST_BAD:
                return ctl_fail(EX_DATAERR, "%s: the service calls this request malformed", what);
        case REQUEST_DENY:
                return ctl_fail(EX_NOPERM, "%s: not in fast_flush_domains", what);
        default:
                return ctl_fail(EX_PROTOCOL, "%s: unknown status %d", what, (int) status);
        }
}

/* A line on the terminal for what takes longer than a second. */
static void show_waiting(uint64_t usec, void *userdata) {
        const char *const *what = userdata;

        ctl_progress("%s: %lu s", *what, (unsigned long) (usec / USEC_PER_SEC));
}

int ctl_ask(Ctl *ctl, const Request *request, const char *what, RequestStatus *ret_status,
            RequestCounts *ret_counts, bool *ret_has_counts) {
        uint64_t begun = now_usec(), past;
        ClientWait wait = {.timeout_usec = ctl->timeout, .userdata = &what};
        _cleanup_close_ int fd = -EBADF;
        int r, status;

        status = ctl_socket(ctl);
        if (status != EX_OK)
                return status;
        fd = client_connect(ctl->socket_path, wait.timeout_usec);
        if (fd < 0)
                return ctl_connect_error(ctl, fd);
        past = now_usec() - begun;
        if (wait.timeout_usec > 0) /* and not 0, which is for ever */
                wait.timeout_usec = wait.timeout_usec > past ? wait.timeout_usec - past : 1;
        if (!ctl->quiet && isatty(STDERR_FILENO))
                wait.progress = show_waiting;
        if (request->kind == REQUEST_REFRESH || request->kind == REQUEST_PURGE)
                r = client_work(fd, ctl->socket_path, request, &wait, ret_status, ret_counts,
                                ret_has_counts);
        else
                r = client_ask(fd, request, &wait, ret_status, ret_counts, ret_has_counts);
        ctl_progress_end();
        if (r < 0)
                return say_no_reply(what, r);
        return ctl_say_status(ctl, what, *ret_status);
}

/* Requests that are on their way together, and answers that wait for their turn. */
typedef struct Round {
        const Ctl *ctl;
        const Request *requests;
        ClientAnswer *answers;
        bool *is_there;
        size_t n, asked, answered;
        ctl_answered_t callback;
        void *userdata;
} Round;

static bool next_request(Request *ret, void **ret_item, void *userdata) {
        Round *round = userdata;

        if (round->asked == round->n)
                return false;
        *ret_item = &round->answers[round->asked];
        *ret = round->requests[round->asked++];
        return true;
}

static void pass_on(const Round *round, size_t i) {
        const ClientAnswer *got = &round->answers[i];
        CtlAnswer answer = {.answer = REQUEST_FAIL};

        if (got->error < 0)
                answer.status = say_no_reply(round->requests[i].site, got->error);
        else {
                answer = (CtlAnswer){
                        .status = ctl_say_status(round->ctl, round->requests[i].site, got->status),
                        .answer = got->status,
                        .has_counts = got->has_counts};
                if (got->has_counts)
                        answer.counts = got->counts;
        }
        round->callback(i, &answer, round->userdata);
}

/* Connecting is the same for all: it is told once, at the end. */
static bool is_connected(const ClientAnswer *answer) {
        return answer->error != -ENOENT && answer->error != -ECONNREFUSED &&
               answer->error != -EACCES;
}

static void take_answer(void *item, const ClientAnswer *answer, void *userdata) {
        Round *round = userdata;
        size_t i = (size_t) ((ClientAnswer *) item - round->answers);

        round->answers[i] = *answer;
        round->is_there[i] = is_connected(answer);
        for (; round->answered < round->n && round->is_there[round->answered]; round->answered++)
                pass_on(round, round->answered);
}

static void ask_one(Ctl *ctl, const Request *request, ctl_answered_t answered, void *userdata) {
        CtlAnswer a = {.answer = REQUEST_FAIL};

        a.status = ctl_ask(ctl, request, request->site, &a.answer, &a.counts, &a.has_counts);
        answered(0, &a, userdata);
}

int ctl_ask_all(Ctl *ctl, const Request requests[], size_t n, ctl_answered_t answered,
                void *userdata) {
        _cleanup_free_ ClientAnswer *answers = calloc(n + 1, sizeof *answers);
        _cleanup_free_ bool *is_there = calloc(n + 1, sizeof *is_there);
        Round round = {.ctl = ctl,
                       .requests = requests,
                       .answers = answers,
                       .is_there = is_there,
                       .n = n,
                       .callback = answered,
                       .userdata = userdata};
        const ClientBatch batch = {.next = next_request, .done = take_answer, .userdata = &round};
        int r, status = ctl_socket(ctl);

        if (status != EX_OK)
                return status;
        if (!answers || !is_there)
                return ctl_no_memory();
        if (n == 1) { /* with a line of progress */
                ask_one(ctl, requests, answered, userdata);
                return EX_OK;
        }
        r = client_ask_all(ctl->socket_path, ctl->timeout, &batch);
        for (size_t i = round.answered; i < n; i++) /* after one that could not connect */
                if (is_there[i])
                        pass_on(&round, i);
        return r < 0 ? ctl_connect_error(ctl, r) : EX_OK;
}

const char *ctl_status_name(RequestStatus status) {
        return status == REQUEST_OK     ? "ok"
               : status == REQUEST_FAIL ? "failed"
               : status == REQUEST_BAD  ? "malformed"
               : status == REQUEST_DENY ? "denied"
                                        : "unknown";
}

json_t *ctl_json_counts(const char *first, const char *value, RequestStatus status,
                        const RequestCounts *c) {
        json_t *o = json_pack("{so ss}", first, ctl_json_text(value), "status",
                              ctl_status_name(status));
        const struct {
                const char *key;
                unsigned long value;
        } counts[] = {{"found", c ? c->found : 0},     {"moved", c ? c->moved : 0},
                      {"gone", c ? c->gone : 0},       {"busy", c ? c->busy : 0},
                      {"failed", c ? c->failed : 0},   {"duplicate", c ? c->duplicate : 0},
                      {"invalid", c ? c->invalid : 0}, {"left", c ? c->left : 0}};

        for (size_t i = 0; o && i < ARRAY_SIZE(counts); i++)
                (void) json_object_set_new(o, counts[i].key,
                                           c ? json_integer((json_int_t) counts[i].value)
                                             : json_null());
        return o;
}
