/* SPDX-License-Identifier: MIT */
#pragma once

/* The requests on the wire and their replies: bytes in, request or error out; request or
 * result in, bytes out. No descriptor, no policy. */

#include <stdbool.h>
#include <stddef.h>

#include "core/attr.h"
#include "core/finding.h"

typedef enum RequestKind {
        REQUEST_ADD,
        REQUEST_SEND_SITE,
        REQUEST_SEND_FILE,
        REQUEST_REFRESH,
        REQUEST_PURGE,
        REQUEST_SELF_TEST, /* changes nothing; not one of flush(8) */
        _REQUEST_KIND_MAX,
} RequestKind;

/* Those of flush(8), which are counted. */
#define REQUEST_COUNTED_MAX REQUEST_SELF_TEST

/* The numbers of the wire (spec 2.3). */
typedef enum RequestStatus {
        REQUEST_OK = 0,
        REQUEST_FAIL = -1, /* could not be done or decided; may work later */
        REQUEST_BAD = 3,   /* malformed */
        REQUEST_DENY = 4,  /* destination not eligible */
} RequestStatus;

/* No message ever has this ID: Postfix's have hexadecimal digits only, or no vowels. fflushctl has
 * postqueue(1) ask for it, to see that there is an answer; it is not counted. */
#define REQUEST_PROBE_ID "PROBE"

#define REQUEST_REASON_MAX                                                                         \
        200u /* longest reason; of a longer one the decoder keeps one byte more, so that it can be \
                seen */

typedef struct Request {
        RequestKind kind;
        const char *site;     /* add, send_site; as sent */
        const char *queue_id; /* add, send_file; checked with queueid_valid() */
        bool detail;          /* the client asked for counts (fflushd's extension) */
        unsigned n_unknown;   /* attributes after the last expected one, which are ignored */
        unsigned long limit;  /* send_site: move at most this many messages, 0: all (extension) */
        const char *reason;   /* for the journal, or NULL; as sent (extension) */
} Request;

/* What became of the records that were looked at. found = moved + gone + busy + failed +
 * duplicate. */
typedef struct RequestCounts {
        unsigned long found;     /* records with a valid queue ID */
        unsigned long moved;     /* now in incoming and due */
        unsigned long gone;      /* no such message any more: delivered, bounced, deleted */
        unsigned long busy;      /* in active or on hold; the record is kept */
        unsigned long failed;    /* could not be moved; the record is kept */
        unsigned long duplicate; /* same ID as an earlier record */
        unsigned long invalid;   /* lines that are not a queue ID; dropped, not part of @found */
        unsigned long left;      /* records that were not looked at, as the limit was reached */
        unsigned long sites;     /* refresh and purge: logs that were flushed */
} RequestCounts;

#define REQUEST_COUNTS_MAX 9u

/* One of them, by the name that it has in a reply: "found", "moved", ... */
typedef struct RequestCount {
        const char *name;
        unsigned long value;
} RequestCount;

/**
 * request_counts_list() - the counts that are to be shown: @left and @sites only if they are not 0
 * Return: how many elements of @ret are used.
 */
size_t request_counts_list(const RequestCounts *counts,
                           RequestCount ret[static REQUEST_COUNTS_MAX]);

/** request_counts_add() - add each of @more to that of @sum */
void request_counts_add(RequestCounts *sum, const RequestCounts *more);

/* Zero-initialise; request_decoder_done() when done. Bytes go into @in (attr_reader_space(),
 * attr_reader_commit()). */
typedef struct RequestDecoder {
        AttrReader in;
        unsigned state;
        RequestKind kind;
        size_t site, queue_id, reason; /* places in @in; 0: none */
        bool detail;
        unsigned long limit;
        unsigned own; /* extension attribute whose value is read next */
        unsigned n_unknown;
        const char *error; /* after -EBADMSG: why, for people; static */
} RequestDecoder;

/**
 * request_decode() - go on with what has arrived
 * @d:    its result depends on the bytes so far only, never on the pieces they came in
 * @eof:  nothing will follow
 * @ret:  receives the request; its strings live in @d until request_decoder_done()
 *
 * Return: 1 (a request), 0 (more is needed), -EBADMSG (malformed; @d->error says why),
 *         -ENODATA (closed without a word).
 * fflushd's extension attributes may follow the request's own attributes or precede them all.
 * refresh and purge can only have them in front: these requests are complete without the end of
 * their list.
 *
 * Source: spec 2.5 and 2.6, but the first string alone decides about the form: of at most one
 *         character it is a wake-up, which ends there (fflushd's decision; flush(8) goes by how
 *         many bytes have arrived).
 */
int request_decode(RequestDecoder *d, bool eof, Request *ret);
void request_decoder_done(RequestDecoder *d);

/** request_decoder_seen() - bytes that have come for this request */
size_t request_decoder_seen(const RequestDecoder *d);

/** request_decoder_held() - bytes allocated for it; 0: it is short, and all in @d */
size_t request_decoder_held(const RequestDecoder *d);

#define REQUEST_ANNOUNCEMENT      "protocol\0queue_flush_protocol\0"
#define REQUEST_ANNOUNCEMENT_SIZE sizeof REQUEST_ANNOUNCEMENT /* both NULs belong to it */

#define REQUEST_REPLY_SIZE        320u

/**
 * request_encode_reply() - bytes of a reply
 * @counts:  NULL without detail; @left and @sites are sent only if they are not 0
 *
 * Return: how many bytes of @ret are used.
 * Source: spec 2.3; the counts are fflushd's extension.
 */
size_t request_encode_reply(RequestStatus status, const RequestCounts *counts,
                            char ret[static REQUEST_REPLY_SIZE]);

#define REQUEST_FINDINGS_SIZE                                                                      \
        (64u + FINDINGS_MAX * (FINDING_CHECK_SIZE + 2 * FINDING_TEXT_SIZE + 48u))

/**
 * request_encode_findings() - bytes of the reply to a self-test
 *
 * After the status and the number of checks each finding is four attributes, @check, @result,
 * @reason, @remedy, in this order.
 *
 * Return: how many bytes of @ret are used.
 */
size_t request_encode_findings(RequestStatus status, const TestFindings *findings,
                               char ret[static REQUEST_FINDINGS_SIZE]);

#define REQUEST_OVERHEAD                                                                           \
        160u /* bytes of a request without its site, queue ID and reason, at most */

/**
 * request_encode() - bytes of a request
 * @ret, @size:  receives them; room for REQUEST_OVERHEAD and the strings of @request is enough
 */
size_t request_encode(const Request *request, char *ret, size_t size);

/**
 * request_decode_reply() - the other end of request_encode_reply()
 * @in:          what has arrived, with or without announcement; if it is not all, it is parsed
 *               again at the next call; else the next call continues after it: with detail, refresh
 * and purge have a second reply at their end
 * @ret_counts:  receives what the reply has of them, 0 for the rest
 * @ret_has_counts:  false: it has none, so the zeros mean nothing
 *
 * Return: 1, 0 (more is needed), -EBADMSG.
 * Source: spec 1.4.
 */
int request_decode_reply(AttrReader *in, RequestStatus *ret, RequestCounts *ret_counts,
                         bool *ret_has_counts);

/**
 * request_decode_findings() - the other end of request_encode_findings()
 * @in:   as for request_decode_reply()
 * @ret:  receives what the reply has; @ret->checks is 0 if it is not that of a self-test. More
 *        than FINDINGS_MAX are passed over, and texts that are too long are cut off.
 *
 * Return: 1, 0 (more is needed), -EBADMSG.
 */
int request_decode_findings(AttrReader *in, RequestStatus *ret_status, TestFindings *ret);

/** request_name() - "add", "send_site", ...; as on the wire, but "refresh" for "rfrsh" */
const char *request_name(RequestKind kind);
