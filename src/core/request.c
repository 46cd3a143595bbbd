/* SPDX-License-Identifier: MIT */

#include "core/request.h"

#include <assert.h>
#include <stdint.h>

#include "core/queueid.h"
#include "util/number.h"
#include "util/util.h"

#define WAKE_UP        "W"
#define WAKE_UP_LENGTH 1

#define ATTR_REQUEST   "request"
#define ATTR_SITE      "site"
#define ATTR_ID        "queue_id"
#define ATTR_STATUS    "status"
#define ATTR_CHECKS    "checks"
#define ATTR_CHECK     "check"
#define ATTR_RESULT    "result"
#define ATTR_REASON    "reason"
#define ATTR_REMEDY    "remedy"

/* Ours. */
enum { OWN_NONE, OWN_DETAIL, OWN_LIMIT, OWN_REASON, _OWN_MAX };
static const char *const own_attrs[_OWN_MAX] = {
        [OWN_DETAIL] = "detail", [OWN_LIMIT] = "limit", [OWN_REASON] = "reason"};

static const struct {
        const char *wire, *name;
        bool has_site, has_id;
} kinds[_REQUEST_KIND_MAX] = {
        [REQUEST_ADD] = {"add", "add", true, true},
        [REQUEST_SEND_SITE] = {"send_site", "send_site", true, false},
        [REQUEST_SEND_FILE] = {"send_file", "send_file", false, true},
        [REQUEST_REFRESH] = {"rfrsh", "refresh", false, false},
        [REQUEST_PURGE] = {"purge", "purge", false, false},
        [REQUEST_SELF_TEST] = {"self_test", "self_test", false, false},
};

static const struct {
        const char *name;
        size_t offset;
        bool always; /* also if 0 */
} count_attrs[REQUEST_COUNTS_MAX] = {
        {"found", offsetof(RequestCounts, found), true},
        {"moved", offsetof(RequestCounts, moved), true},
        {"gone", offsetof(RequestCounts, gone), true},
        {"busy", offsetof(RequestCounts, busy), true},
        {"failed", offsetof(RequestCounts, failed), true},
        {"duplicate", offsetof(RequestCounts, duplicate), true},
        {"invalid", offsetof(RequestCounts, invalid), true},
        {"left", offsetof(RequestCounts, left), false},
        {"sites", offsetof(RequestCounts, sites), false},
};

/* What the next string is. */
enum {
        WANT_FIRST,
        WANT_EARLY_VALUE,
        WANT_EARLY_NAME,
        WANT_REQUEST,
        WANT_SITE_NAME,
        WANT_SITE,
        WANT_ID_NAME,
        WANT_ID,
        WANT_MORE_NAME,
        WANT_MORE_VALUE,
        DECODED,
};

const char *request_name(RequestKind kind) {
        return kinds[kind].name;
}

static int malformed(RequestDecoder *d, const char *why) {
        d->error = why;
        return -EBADMSG;
}

static unsigned state_after_site(const RequestDecoder *d) {
        return kinds[d->kind].has_id ? WANT_ID_NAME : WANT_MORE_NAME;
}

static unsigned find_own(const char *name) {
        unsigned own = _OWN_MAX - 1;

        while (own > OWN_NONE && !streq(name, own_attrs[own]))
                own--;
        return own;
}

static int decode_own(RequestDecoder *d, const char *value, size_t offset) {
        switch (d->own) {
        case OWN_DETAIL:
                d->detail = streq(value, "1");
                return 0;
        case OWN_LIMIT:
                /* To take it for none would move what somebody wanted to keep back. */
                if (parse_ulong(value, &d->limit) < 0 || d->limit == 0)
                        return malformed(d, "limit is not a number above 0");
                return 0;
        case OWN_REASON:
                d->reason = offset;
                return 0;
        default:
                d->n_unknown++;
                return 0;
        }
}

static int decode_early_name(RequestDecoder *d, const char *s) {
        d->own = find_own(s);
        if (d->own != OWN_NONE)
                d->state = WANT_EARLY_VALUE;
        else if (streq(s, ATTR_REQUEST))
                d->state = WANT_REQUEST;
        else
                return malformed(d, "no attribute \"request\" at the start");
        return 0;
}

static int decode_first(RequestDecoder *d, const char *s) {
        if (strlen(s) <= WAKE_UP_LENGTH) {
                if (!streq(s, WAKE_UP))
                        return malformed(d, "unknown wake-up request");
                d->kind = REQUEST_REFRESH;
                d->state = DECODED;
                return 1;
        }
        return decode_early_name(d, s);
}

/* The byte of the wake-up is also a name, as in flush(8). */
static RequestKind find_kind(const char *s) {
        RequestKind kind;

        if (streq(s, WAKE_UP))
                return REQUEST_REFRESH;
        for (kind = 0; kind < _REQUEST_KIND_MAX; kind++)
                if (streq(s, kinds[kind].wire))
                        break;
        return kind;
}

static int decode_kind(RequestDecoder *d, const char *s) {
        RequestKind kind = find_kind(s);

        if (kind == _REQUEST_KIND_MAX)
                return malformed(d, "unknown request");
        d->kind = kind;
        if (kinds[kind].has_site)
                d->state = WANT_SITE_NAME;
        else if (kinds[kind].has_id)
                d->state = WANT_ID_NAME;
        else {
                /* As in flush(8), these are complete without the end of their list. */
                d->state = DECODED;
                return 1;
        }
        return 0;
}

static int decode_more(RequestDecoder *d, const char *name) {
        if (name[0] == '\0') {
                d->state = DECODED;
                return 1;
        }
        d->own = find_own(name);
        d->state = WANT_MORE_VALUE;
        return 0;
}

static int decode_string(RequestDecoder *d, size_t offset) {
        const char *s = attr_reader_string(&d->in, offset);

        switch (d->state) {
        case WANT_FIRST:
                return decode_first(d, s);
        case WANT_EARLY_NAME:
                return decode_early_name(d, s);
        case WANT_EARLY_VALUE:
                d->state = WANT_EARLY_NAME;
                return decode_own(d, s, offset);
        case WANT_REQUEST:
                return decode_kind(d, s);
        case WANT_SITE_NAME:
                if (!streq(s, ATTR_SITE))
                        return malformed(d, "no attribute \"site\" where it belongs");
                d->state = WANT_SITE;
                return 0;
        case WANT_SITE:
                d->site = offset;
                d->state = state_after_site(d);
                return 0;
        case WANT_ID_NAME:
                if (!streq(s, ATTR_ID))
                        return malformed(d, "no attribute \"queue_id\" where it belongs");
                d->state = WANT_ID;
                return 0;
        case WANT_ID:
                d->queue_id = offset;
                d->state = WANT_MORE_NAME;
                return 0;
        case WANT_MORE_NAME:
                return decode_more(d, s);
        case WANT_MORE_VALUE:
                d->state = WANT_MORE_NAME;
                return decode_own(d, s, offset);
        default:
                assert(false);
                return -EBADMSG;
        }
}

/* A wake-up may come without its NUL: postkick(1) sends one byte and closes. */
static int decode_eof(RequestDecoder *d) {
        const char *rest;
        size_t n;

        rest = attr_reader_rest(&d->in, &n);
        if (d->state == WANT_FIRST && n == 0)
                return -ENODATA;
        if (d->state == WANT_FIRST && n == WAKE_UP_LENGTH && rest[0] == WAKE_UP[0]) {
                d->kind = REQUEST_REFRESH;
                return 1;
        }
        return malformed(d, "closed in the middle of a request");
}

/* A request may wait for long, and of a long one little is needed. */
static void keep_needed(RequestDecoder *d, bool has_reason) {
        size_t offsets[3], max[3], n = 0;
        size_t *from[3];

        if (kinds[d->kind].has_site)
                from[n++] = &d->site;
        if (kinds[d->kind].has_id)
                from[n++] = &d->queue_id;
        for (size_t i = 0; i < n; i++)
                max[i] = ATTR_LIST_MAX;
        if (has_reason) {
                max[n] = REQUEST_REASON_MAX + 1; /* so that it shows that there was more */
                from[n++] = &d->reason;
        }
        for (size_t i = 0; i < n; i++)
                offsets[i] = *from[i];
        attr_reader_keep(&d->in, offsets, max, n);
        for (size_t i = 0; i < n; i++)
                *from[i] = offsets[i];
}

int request_decode(RequestDecoder *d, bool eof, Request *ret) {
        bool has_reason;
        size_t offset;
        int r = 0;

        while (r == 0 && attr_reader_next(&d->in, &offset))
                r = decode_string(d, offset);
        if (r == 0 && eof)
                r = decode_eof(d);
        if (r <= 0)
                return r;

        if (d->limit > 0 && d->kind != REQUEST_SEND_SITE)
                return malformed(d, "limit is for send_site only");
        has_reason = d->reason > 0;
        keep_needed(d, has_reason);
        *ret = (Request){.kind = d->kind,
                         .detail = d->detail,
                         .limit = d->limit,
                         .reason = has_reason ? attr_reader_string(&d->in, d->reason) : NULL,
                         .n_unknown = d->n_unknown};
        if (kinds[d->kind].has_site)
                ret->site = attr_reader_string(&d->in, d->site);
        if (kinds[d->kind].has_id) {
                ret->queue_id = attr_reader_string(&d->in, d->queue_id);
                if (!queueid_valid(ret->queue_id, strlen(ret->queue_id)))
                        return malformed(d, "invalid queue ID");
        }
        return 1;
}

void request_decoder_done(RequestDecoder *d) {
        attr_reader_done(&d->in);
}

size_t request_decoder_seen(const RequestDecoder *d) {
        return d->in.n;
}

size_t request_decoder_held(const RequestDecoder *d) {
        return d->in.size;
}

static unsigned long *count_at(RequestCounts *counts, size_t i) {
        return (unsigned long *) (void *) ((char *) counts + count_attrs[i].offset);
}

size_t request_counts_list(const RequestCounts *counts,
                           RequestCount ret[static REQUEST_COUNTS_MAX]) {
        RequestCounts values = *counts;
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(count_attrs); i++)
                if (count_attrs[i].always || *count_at(&values, i) > 0)
                        ret[n++] = (RequestCount){.name = count_attrs[i].name,
                                                  .value = *count_at(&values, i)};
        return n;
}

void request_counts_add(RequestCounts *sum, const RequestCounts *more) {
        RequestCounts values = *more;

        for (size_t i = 0; i < ARRAY_SIZE(count_attrs); i++)
                *count_at(sum, i) += *count_at(&values, i);
}

size_t request_encode_reply(RequestStatus status, const RequestCounts *counts,
                            char ret[static REQUEST_REPLY_SIZE]) {
        AttrWriter w = {.data = ret, .size = REQUEST_REPLY_SIZE};
        RequestCount list[REQUEST_COUNTS_MAX];
        size_t n = counts ? request_counts_list(counts, list) : 0;

        attr_put_int(&w, ATTR_STATUS, status);
        for (size_t i = 0; i < n; i++)
                attr_put_int(&w, list[i].name, (int64_t) list[i].value);
        attr_end(&w);
        return w.n;
}

size_t request_encode_findings(RequestStatus status, const TestFindings *findings,
                               char ret[static REQUEST_FINDINGS_SIZE]) {
        AttrWriter w = {.data = ret, .size = REQUEST_FINDINGS_SIZE};

        attr_put_int(&w, ATTR_STATUS, status);
        attr_put_int(&w, ATTR_CHECKS, findings->checks);
        for (size_t i = 0; i < findings->n; i++) {
                const TestFinding *f = &findings->items[i];

                attr_put(&w, ATTR_CHECK, f->check);
                attr_put(&w, ATTR_RESULT, finding_result_name(f->result));
                attr_put(&w, ATTR_REASON, f->reason);
                attr_put(&w, ATTR_REMEDY, f->remedy);
        }
        attr_end(&w);
        return w.n;
}

static void put_own(AttrWriter *w, const Request *request) {
        if (request->detail)
                attr_put(w, own_attrs[OWN_DETAIL], "1");
        if (request->limit > 0)
                attr_put_int(w, own_attrs[OWN_LIMIT],
                             request->limit < UINT32_MAX ? (int64_t) request->limit : UINT32_MAX);
        if (request->reason)
                attr_put(w, own_attrs[OWN_REASON], request->reason);
}

size_t request_encode(const Request *request, char *ret, size_t size) {
        AttrWriter w = {.data = ret, .size = size};
        /* Behind, flush(8) ignores them; before, it refuses the request. It must refuse a limit. */
        bool before = request->limit > 0 ||
                      (!kinds[request->kind].has_site && !kinds[request->kind].has_id);

        if (before)
                put_own(&w, request);
        attr_put(&w, ATTR_REQUEST, kinds[request->kind].wire);
        if (kinds[request->kind].has_site)
                attr_put(&w, ATTR_SITE, request->site);
        if (kinds[request->kind].has_id)
                attr_put(&w, ATTR_ID, request->queue_id);
        if (!before)
                put_own(&w, request);
        attr_end(&w);
        return w.n;
}

/* The announcement of newer servers is a list of its own before the reply. */
static int skip_announcement(AttrReader *in, size_t *name) {
        size_t offset;

        if (!attr_reader_next(in, name))
                return 0;
        if (!streq(attr_reader_string(in, *name), "protocol"))
                return 1;
        for (int i = 0; i < 2; i++) /* its value, the end of the list */
                if (!attr_reader_next(in, &offset))
                        return 0;
        if (attr_reader_string(in, offset)[0] != '\0')
                return -EBADMSG;
        return attr_reader_next(in, name);
}

/* The status comes first. */
static int decode_status(AttrReader *in, RequestStatus *ret) {
        unsigned long status;
        size_t name, value;
        int r;

        r = skip_announcement(in, &name);
        if (r <= 0)
                return r;
        if (!attr_reader_next(in, &value))
                return 0;
        if (!streq(attr_reader_string(in, name), ATTR_STATUS) ||
            parse_ulong(attr_reader_string(in, value), &status) < 0)
                return -EBADMSG;
        *ret = (RequestStatus) (int32_t) status;
        return 1;
}

/* Return: 1 (an attribute), 0 (more is needed), or -ENODATA (the end of the list). */
static int next_attr(AttrReader *in, size_t *name, size_t *value) {
        if (!attr_reader_next(in, name))
                return 0;
        if (attr_reader_string(in, *name)[0] == '\0')
                return -ENODATA;
        return attr_reader_next(in, value);
}

static int decode_reply(AttrReader *in, RequestStatus *ret, RequestCounts *ret_counts,
                        bool *ret_has_counts) {
        bool has_counts = false;
        RequestCounts counts = {0};
        RequestStatus status;
        unsigned long number;
        size_t name, value;
        int r;

        r = decode_status(in, &status);
        if (r <= 0)
                return r;
        while ((r = next_attr(in, &name, &value)) > 0)
                for (size_t i = 0; i < ARRAY_SIZE(count_attrs); i++)
                        if (streq(attr_reader_string(in, name), count_attrs[i].name)) {
                                if (parse_ulong(attr_reader_string(in, value), &number) < 0)
                                        return -EBADMSG;
                                *count_at(&counts, i) = number;
                                has_counts = true;
                        }
        if (r == 0)
                return 0;
        *ret = status;
        *ret_counts = counts;
        *ret_has_counts = has_counts;
        return 1;
}

int request_decode_reply(AttrReader *in, RequestStatus *ret, RequestCounts *ret_counts,
                         bool *ret_has_counts) {
        size_t start = in->cursor;
        int r = decode_reply(in, ret, ret_counts, ret_has_counts);

        if (r == 0)
                in->cursor = in->searched = start;
        return r;
}

/* An unknown result counts as a failure. */
static FindingResult parse_result(const char *text) {
        for (FindingResult result = 0; result < _FINDING_RESULT_MAX; result++)
                if (streq(text, finding_result_name(result)))
                        return result;
        return FINDING_FAILED;
}

/* @f: NULL before the first, and for those for which there is no room. */
static void decode_finding(TestFinding *f, const char *name, const char *value) {
        if (!f)
                return;
        if (streq(name, ATTR_RESULT))
                f->result = parse_result(value);
        else if (streq(name, ATTR_REASON))
                finding_set_reason(f, "%s", value);
        else if (streq(name, ATTR_REMEDY))
                finding_set_remedy(f, "%s", value);
}

static int decode_findings(AttrReader *in, RequestStatus *ret_status, TestFindings *ret) {
        size_t name_at, value_at;
        unsigned long number = 0;
        TestFinding *f = NULL;
        int r;

        *ret = (TestFindings){0};
        r = decode_status(in, ret_status);
        if (r <= 0)
                return r;
        while ((r = next_attr(in, &name_at, &value_at)) > 0) {
                const char *name = attr_reader_string(in, name_at);
                const char *value = attr_reader_string(in, value_at);

                if (streq(name, ATTR_CHECK))
                        f = findings_add(ret, value, FINDING_OK, "%s", "");
                else if (!streq(name, ATTR_CHECKS))
                        decode_finding(f, name, value);
                else if (parse_ulong(value, &number) < 0)
                        return -EBADMSG;
        }
        ret->checks = (unsigned) number;
        for (size_t i = 0; i < ret->n; i++)
                if (ret->items[i].result > ret->worst)
                        ret->worst = ret->items[i].result;
        return r == 0 ? 0 : 1;
}

int request_decode_findings(AttrReader *in, RequestStatus *ret_status, TestFindings *ret) {
        size_t start = in->cursor;
        int r = decode_findings(in, ret_status, ret);

        if (r == 0)
                in->cursor = in->searched = start;
        return r;
}
