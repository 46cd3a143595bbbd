/* SPDX-License-Identifier: MIT */

/* The reply decoder, in pieces: it is given anew all that has arrived, at each piece. The first
 * bytes of the input say where the rest is cut. */

#include "core/request.h"
#include "fuzz.h"
#include "util/util.h"

#define N_CUTS 4

typedef struct Reply {
        int r;
        RequestStatus status;
        RequestCounts counts;
        bool has_counts;
} Reply;

static Reply feed(const uint8_t *data, size_t n, const uint8_t *cuts) {
        Reply reply = {.r = 0};
        AttrReader in = {0};

        for (unsigned i = 0; reply.r == 0 && n > 0; i++) {
                size_t size;
                char *space;

                reply.r = attr_reader_space(&in, &space, &size);
                if (reply.r < 0)
                        break;
                if (size > n)
                        size = n;
                if (cuts && size > cuts[i % N_CUTS] + 1u)
                        size = cuts[i % N_CUTS] + 1u;
                memcpy(space, data, size);
                attr_reader_commit(&in, size);
                data += size;
                n -= size;
                reply.r =
                        request_decode_reply(&in, &reply.status, &reply.counts, &reply.has_counts);
        }
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

static TestFindings first, second;

static int feed_findings(const uint8_t *data, size_t n, const uint8_t *cuts, RequestStatus *status,
                         TestFindings *ret) {
        AttrReader in = {0};
        int r = 0;

        *ret = (TestFindings){0};
        for (unsigned i = 0; r == 0 && n > 0; i++) {
                size_t size;
                char *space;

                r = attr_reader_space(&in, &space, &size);
                if (r < 0)
                        break;
                if (size > n)
                        size = n;
                if (cuts && size > cuts[i % N_CUTS] + 1u)
                        size = cuts[i % N_CUTS] + 1u;
                memcpy(space, data, size);
                attr_reader_commit(&in, size);
                data += size;
                n -= size;
                r = request_decode_findings(&in, status, ret);
        }
        attr_reader_done(&in);
        return r;
}

static void compare_findings(void) {
        require(first.n == second.n && first.n <= FINDINGS_MAX);
        require(first.checks == second.checks);
        for (size_t i = 0; i < first.n; i++) {
                require(first.items[i].result == second.items[i].result);
                require(streq(first.items[i].check, second.items[i].check));
                require(streq(first.items[i].reason, second.items[i].reason));
                require(streq(first.items[i].remedy, second.items[i].remedy));
        }
}

static void findings(const uint8_t *data, size_t n, const uint8_t *cuts) {
        static char bytes[REQUEST_FINDINGS_SIZE];
        RequestStatus a = REQUEST_OK, b = REQUEST_OK;
        int r = feed_findings(data, n, NULL, &a, &first);

        require(r == 1 || r == 0 || r == -EBADMSG || r == -EMSGSIZE);
        require(feed_findings(data, n, cuts, &b, &second) == r);
        if (r != 1)
                return;
        require(a == b);
        compare_findings();
        n = request_encode_findings(a, &first, bytes);
        require(feed_findings((const uint8_t *) bytes, n, NULL, &b, &second) == 1);
        require(a == b);
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
