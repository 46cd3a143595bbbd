/* SPDX-License-Identifier: MIT */

/* The reply decoder, in pieces: it is given anew all that has arrived, at each piece. The first
 * bytes of the input say where the rest is cut. */

#include "core/request.h"
#include "fuzz-feed.h"
#include "util/util.h"

typedef struct Reply {
        int r;
        RequestStatus status;
        RequestCounts counts;
        bool has_counts;
} Reply;

static int decode_reply(AttrReader *in, void *userdata) {
        Reply *reply = userdata;

        return request_decode_reply(in, &reply->status, &reply->counts, &reply->has_counts);
}

static Reply feed(const uint8_t *data, size_t n, const uint8_t *cuts) {
        Reply reply = {.r = 0};
        AttrReader in = {0};

        reply.r = fuzz_feed(&in, data, n, cuts, decode_reply, &reply);
        attr_reader_done(&in);
        return reply;
}

static void compare(const Reply *a, const Reply *b) {
        require(a->r == b->r && a->status == b->status && a->has_counts == b->has_counts);
        require(memcmp(&a->counts, &b->counts, sizeof a->counts) == 0);
}

/* What our server would have sent for it is read as the same, as far as it goes out as 32 bits. */
static void there_and_back(Reply reply) {
        unsigned long *count = (unsigned long *) (void *) &reply.counts;
        char bytes[REQUEST_REPLY_SIZE];
        Reply again;
        size_t n;

        for (size_t i = 0; i < sizeof reply.counts / sizeof *count; i++)
                count[i] &= UINT32_MAX;
        n = request_encode_reply(reply.status, reply.has_counts ? &reply.counts : NULL, bytes);
        again = feed((const uint8_t *) bytes, n, NULL);
        compare(&reply, &again);
}

/* ---------------------------------------------------------------------------- of a self-test */

typedef struct Findings {
        RequestStatus status;
        TestFindings list;
} Findings;

static Findings first, second;

static int decode_findings(AttrReader *in, void *userdata) {
        Findings *f = userdata;

        return request_decode_findings(in, &f->status, &f->list);
}

static int feed_findings(const uint8_t *data, size_t n, const uint8_t *cuts, Findings *ret) {
        AttrReader in = {0};
        int r;

        *ret = (Findings){.status = REQUEST_OK};
        r = fuzz_feed(&in, data, n, cuts, decode_findings, ret);
        attr_reader_done(&in);
        return r;
}

static void compare_findings(void) {
        const TestFindings *a = &first.list, *b = &second.list;

        require(first.status == second.status);
        require(a->n == b->n && a->n <= FINDINGS_MAX);
        require(a->checks == b->checks);
        for (size_t i = 0; i < a->n; i++) {
                require(a->items[i].result == b->items[i].result);
                require(streq(a->items[i].check, b->items[i].check));
                require(streq(a->items[i].reason, b->items[i].reason));
                require(streq(a->items[i].remedy, b->items[i].remedy));
        }
}

static void findings(const uint8_t *data, size_t n, const uint8_t *cuts) {
        static char bytes[REQUEST_FINDINGS_SIZE];
        int r = feed_findings(data, n, NULL, &first);

        require(r == 1 || r == 0 || r == -EBADMSG || r == -EMSGSIZE);
        require(feed_findings(data, n, cuts, &second) == r);
        if (r != 1)
                return;
        compare_findings();
        n = request_encode_findings(first.status, &first.list, bytes);
        require(feed_findings((const uint8_t *) bytes, n, NULL, &second) == 1);
        compare_findings();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        Reply whole, pieces;

        if (n <= N_CUTS)
                return 0;
        whole = feed(data + N_CUTS, n - N_CUTS, NULL);
        pieces = feed(data + N_CUTS, n - N_CUTS, data);
        require(whole.r == 1 || whole.r == 0 || whole.r == -EBADMSG || whole.r == -EMSGSIZE);
        compare(&whole, &pieces);
        findings(data + N_CUTS, n - N_CUTS, data);
        if (whole.r == 1)
                there_and_back(whole);
        return 0;
}
