/* SPDX-License-Identifier: MIT */

/* The request decoder: whatever comes, in whatever pieces. The first bytes of the input say where
 * the rest is cut and whether the client hangs up at the end. */

#include "core/queueid.h"
#include "core/request.h"
#include "fuzz-feed.h"
#include "util/util.h"

typedef struct Decoding {
        RequestDecoder *decoder;
        Request *request;
} Decoding;

static int decode(AttrReader *in, void *userdata) {
        Decoding *d = userdata;

        return request_decode(d->decoder, false, d->request);
}

static int feed(RequestDecoder *d, const uint8_t *data, size_t n, const uint8_t *cuts, bool eof,
                Request *ret) {
        int r = fuzz_feed(&d->in, data, n, cuts, decode, &(Decoding){d, ret});

        return r == 0 && eof ? request_decode(d, true, ret) : r;
}

static void compare_text(const char *a, const char *b) {
        require(!a == !b);
        require(!a || streq(a, b));
}

static void compare(const Request *a, const Request *b) {
        require(a->kind == b->kind && a->detail == b->detail && a->n_unknown == b->n_unknown);
        require(a->limit == b->limit);
        compare_text(a->reason, b->reason);
        compare_text(a->site, b->site);
        compare_text(a->queue_id, b->queue_id);
}

/* What was understood can be said again, and is understood as the same. */
static void there_and_back(const Request *request) {
        size_t size = 160 + (request->site ? strlen(request->site) : 0) +
                      (request->queue_id ? strlen(request->queue_id) : 0) +
                      (request->reason ? strlen(request->reason) : 0);
        _cleanup_free_ char *bytes = malloc(size);
        RequestDecoder d = {0};
        Request expected = *request, again;
        size_t n;

        require(bytes);
        n = request_encode(request, bytes, size);
        expected.n_unknown = 0;
        if (expected.limit > UINT32_MAX)
                expected.limit = UINT32_MAX; /* all that goes out */
        if (n <= ATTR_LIST_MAX) {
                require(feed(&d, (const uint8_t *) bytes, n, NULL, false, &again) == 1);
                compare(&expected, &again);
        }
        request_decoder_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        RequestDecoder whole = {0}, pieces = {0};
        Request a = {0}, b = {0};
        bool eof;
        int r;

        if (n <= N_CUTS)
                return 0;
        eof = data[0] & 1;
        r = feed(&whole, data + N_CUTS, n - N_CUTS, NULL, eof, &a);
        require(feed(&pieces, data + N_CUTS, n - N_CUTS, data, eof, &b) == r);
        require(r == 1 || r == 0 || r == -EBADMSG || r == -ENODATA || r == -EMSGSIZE);
        require(!eof || r != 0);
        if (r == -EBADMSG)
                require(whole.error && streq(whole.error, pieces.error));
        if (r == 1) {
                compare(&a, &b);
                require(!a.queue_id || queueid_valid(a.queue_id, strlen(a.queue_id)));
                there_and_back(&a);
        }
        request_decoder_done(&whole);
        request_decoder_done(&pieces);
        return 0;
}
