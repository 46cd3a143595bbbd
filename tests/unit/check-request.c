/* SPDX-License-Identifier: MIT */

#include "core/request.h"

#include <stdio.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define BYTES(text)   text, sizeof text - 1

#define ADD(site, id) "request\0add\0site\0" site "\0queue_id\0" id "\0\0"
#define SEND(site)    "request\0send_site\0site\0" site "\0\0"
#define FILE_(id)     "request\0send_file\0queue_id\0" id "\0\0"

#define A50           "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define A255          A50 A50 A50 A50 A50 "AAAAA"

/* What arrives, and what it means. Numbers are those of the specification's vectors, "ours" where
 * this project differs from flush(8) on purpose. */
static const struct {
        const char *bytes;
        size_t n;
        bool eof;
        int r;
        Request request;
} vectors[] = {
        /* 1-4 */
        {BYTES(ADD("example.com", "ABC123")),
         false,
         1,
         {REQUEST_ADD, "example.com", "ABC123", false, 0}},
        {BYTES(ADD("EXAMPLE.COM", "ABC123")),
         false,
         1,
         {REQUEST_ADD, "EXAMPLE.COM", "ABC123", false, 0}},
        {BYTES(ADD("b\xc3\xbc"
                   "cher.example",
                   "ABC")),
         true,
         1,
         {REQUEST_ADD,
          "b\xc3\xbc"
          "cher.example",
          "ABC", false, 0}},
        /* 5, 6: order, missing */
        {BYTES("request\0add\0queue_id\0ABC123\0site\0example.com\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0add\0site\0example.com\0\0"), false, -EBADMSG, {0}},
        /* 7: an attribute more */
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123\0foo\0bar\0\0"),
         false,
         1,
         {REQUEST_ADD, "example.com", "ABC123", false, 1}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123\0foo\0bar\0foo\0\0\0"),
         false,
         1,
         {REQUEST_ADD, "example.com", "ABC123", false, 2}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123\0foo\0bar\0"), false, 0, {0}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123\0foo\0"), true, -EBADMSG, {0}},
        /* 8-10 */
        {BYTES("request\0add\0site\0example.com\0foo\0bar\0queue_id\0ABC123\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("foo\0bar\0request\0add\0site\0example.com\0queue_id\0ABC123\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("request\0add\0site\0example.com\0site\0example.net\0queue_id\0ABC123\0\0"),
         false,
         -EBADMSG,
         {0}},
        /* 11-17: ends early, or may go on */
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123\0"), true, -EBADMSG, {0}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123\0"), false, 0, {0}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC123"), true, -EBADMSG, {0}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0"), true, -EBADMSG, {0}},
        {BYTES("request\0add\0"), true, -EBADMSG, {0}},
        {BYTES("request\0add\0"), false, 0, {0}},
        {BYTES("request\0add\0\0"), false, -EBADMSG, {0}},
        {BYTES("request"), true, -EBADMSG, {0}},
        {BYTES("request\0"), true, -EBADMSG, {0}},
        {BYTES("request\0add"), true, -EBADMSG, {0}},
        /* 18, 19: unknown requests; ours is BAD instead of silence */
        {BYTES("request\0\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0bogus\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0refresh\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0Add\0site\0example.com\0queue_id\0ABC123\0\0"), false, -EBADMSG, {0}},
        /* the wake-up by name */
        {BYTES("request\0W\0\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("request\0W\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("request\0W\0foo\0bar\0\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("request\0W"), false, 0, {0}},
        {BYTES("request\0w\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0WW\0\0"), false, -EBADMSG, {0}},
        /* 20-24 */
        {BYTES("Request\0add\0site\0example.com\0queue_id\0ABC123\0\0"), false, -EBADMSG, {0}},
        {BYTES("protocol\0queue_flush_protocol\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0add\0request\0add\0\0"), false, -EBADMSG, {0}},
        {BYTES("\0\0\0"), false, -EBADMSG, {0}},
        {BYTES("\0"), false, -EBADMSG, {0}},
        {BYTES("\0\0"), false, -EBADMSG, {0}},
        /* 25-28: wake-ups */
        {BYTES("W\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("W\0"), true, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("W"), true, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("W"), false, 0, {0}},
        {BYTES("X\0"), false, -EBADMSG, {0}},
        {BYTES("X"), true, -EBADMSG, {0}},
        {BYTES("w\0"), false, -EBADMSG, {0}},
        {BYTES("XY"), true, -EBADMSG, {0}},
        {BYTES("WW"), true, -EBADMSG, {0}},
        {BYTES("WW\0"), false, -EBADMSG, {0}},
        {BYTES("W\0\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},  /* ours */
        {BYTES("W\0junk"), true, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}}, /* ours */
        {BYTES("W\n\0"), false, -EBADMSG, {0}},
        /* 29, 30 */
        {BYTES(""), true, -ENODATA, {0}},
        {BYTES(""), false, 0, {0}},
        /* 31-34: in flush(8) these depend on the pieces; the cuts are made below */
        {BYTES("add\0site\0example.com\0queue_id\0ABC\0\0"), false, -EBADMSG, {0}},
        {BYTES("rfrsh\0"), false, -EBADMSG, {0}},
        {BYTES("re"), false, 0, {0}},
        {BYTES("re"), true, -EBADMSG, {0}},
        /* 36-41, 45: whether a site is valid or eligible is not decided here */
        {BYTES(ADD("", "ABC123")), false, 1, {REQUEST_ADD, "", "ABC123", false, 0}},
        {BYTES(SEND("")), false, 1, {REQUEST_SEND_SITE, "", NULL, false, 0}},
        {BYTES(ADD("example.com", "")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", "AB\nCD")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", "..")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", "A/B")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", "A-B")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", "A\xc3\xa9")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", A255 "A")), false, -EBADMSG, {0}},
        {BYTES(ADD("example.com", "A")), false, 1, {REQUEST_ADD, "example.com", "A", false, 0}},
        {BYTES(ADD("example.com", "A_B")), false, 1, {REQUEST_ADD, "example.com", "A_B", false, 0}},
        {BYTES(ADD("example.com", A255)), false, 1, {REQUEST_ADD, "example.com", A255, false, 0}},
        {BYTES(ADD("example.com", "3pt2mN2VXxznjll")),
         false,
         1,
         {REQUEST_ADD, "example.com", "3pt2mN2VXxznjll", false, 0}},
        {BYTES(ADD("ex\nample.com", "ABCD")),
         false,
         1,
         {REQUEST_ADD, "ex\nample.com", "ABCD", false, 0}},
        {BYTES(ADD("[192.0.2.1]", "ABC")), false, 1, {REQUEST_ADD, "[192.0.2.1]", "ABC", false, 0}},
        /* 53: other encodings */
        {BYTES("request=add\nsite=example.com\nqueue_id=ABC123\n\n"), true, -EBADMSG, {0}},
        {BYTES("cmVxdWVzdA==:YWRk\n\n"), true, -EBADMSG, {0}},
        {BYTES("request=add\nsite=example.com\nqueue_id=ABC123\n\n"), false, 0, {0}},
        /* 54, 56: what follows a request is not looked at */
        {BYTES(ADD("example.com", "AAA111") ADD("example.com", "BBB222")),
         false,
         1,
         {REQUEST_ADD, "example.com", "AAA111", false, 0}},
        {BYTES(ADD("example.com", "ABC123") "junk"),
         true,
         1,
         {REQUEST_ADD, "example.com", "ABC123", false, 0}},
        /* 66, 82, 83 */
        {BYTES(SEND("eXample.COM")), false, 1, {REQUEST_SEND_SITE, "eXample.COM", NULL, false, 0}},
        {BYTES("request\0send_site\0site\0example.com\0foo\0bar\0\0"),
         false,
         1,
         {REQUEST_SEND_SITE, "example.com", NULL, false, 1}},
        {BYTES("request\0send_site\0site\0example.com\0"), true, -EBADMSG, {0}},
        {BYTES("request\0send_site\0nexthop\0example.com\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0send_site\0\0"), false, -EBADMSG, {0}},
        /* 86, 93, 94 */
        {BYTES(FILE_("ABC123")), false, 1, {REQUEST_SEND_FILE, NULL, "ABC123", false, 0}},
        {BYTES(FILE_("AB-C")), false, -EBADMSG, {0}},
        {BYTES(FILE_("")), false, -EBADMSG, {0}},
        {BYTES("request\0send_file\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0send_file\0queue_id\0ABC123\0foo\0bar\0\0"),
         false,
         1,
         {REQUEST_SEND_FILE, NULL, "ABC123", false, 1}},
        {BYTES("request\0send_file\0site\0example.com\0queue_id\0ABC123\0\0"),
         false,
         -EBADMSG,
         {0}},
        /* 95, 98-100: complete with the name of the request */
        {BYTES("request\0rfrsh\0\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("request\0rfrsh\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("request\0rfrsh\0foo\0bar\0\0"), false, 1, {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("request\0rfrsh"), false, 0, {0}},
        {BYTES("request\0rfrsh"), true, -EBADMSG, {0}},
        {BYTES("request\0purge\0"), false, 1, {REQUEST_PURGE, NULL, NULL, false, 0}},
        {BYTES("request\0purge\0\0"), true, 1, {REQUEST_PURGE, NULL, NULL, false, 0}},
        /* ours */
        {BYTES("request\0self_test\0\0"), false, 1, {REQUEST_SELF_TEST, NULL, NULL, false, 0}},
        {BYTES("request\0self_test\0"), false, 1, {REQUEST_SELF_TEST, NULL, NULL, false, 0}},
        {BYTES("limit\0"
               "1\0request\0self_test\0\0"),
         false,
         -EBADMSG,
         {0}},
        /* ours: the wish for counts, wherever an unknown attribute may be */
        {BYTES("request\0send_site\0site\0example.com\0detail\0"
               "1\0\0"),
         false,
         1,
         {REQUEST_SEND_SITE, "example.com", NULL, true, 0}},
        {BYTES("request\0send_site\0site\0example.com\0detail\0"
               "0\0\0"),
         false,
         1,
         {REQUEST_SEND_SITE, "example.com", NULL, false, 0}},
        {BYTES("request\0send_site\0site\0example.com\0foo\0"
               "1\0detail\0"
               "1\0bar\0"
               "0\0\0"),
         false,
         1,
         {REQUEST_SEND_SITE, "example.com", NULL, true, 2}},
        {BYTES("request\0send_file\0queue_id\0ABC\0detail\0"
               "1\0\0"),
         false,
         1,
         {REQUEST_SEND_FILE, NULL, "ABC", true, 0}},
        {BYTES("request\0add\0detail\0"
               "1\0site\0example.com\0queue_id\0ABC\0\0"),
         false,
         -EBADMSG,
         {0}},
        /* ours: a portion, and why */
        {BYTES("request\0send_site\0site\0example.com\0limit\0"
               "200\0reason\0ticket 7\0\0"),
         false,
         1,
         {REQUEST_SEND_SITE, "example.com", NULL, false, 0, 200, "ticket 7"}},
        {BYTES("request\0send_site\0site\0example.com\0limit\0"
               "0\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("request\0send_site\0site\0example.com\0limit\0-1\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0send_site\0site\0example.com\0limit\0 1\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0send_site\0site\0example.com\0limit\0"
               "1k\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("request\0send_site\0site\0example.com\0limit\0\0\0"), false, -EBADMSG, {0}},
        {BYTES("request\0send_site\0site\0example.com\0limit\0"
               "99999999999999999999999\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("request\0send_file\0queue_id\0ABC\0limit\0"
               "1\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("request\0add\0site\0example.com\0queue_id\0ABC\0reason\0why\0\0"),
         false,
         1,
         {REQUEST_ADD, "example.com", "ABC", false, 0, 0, "why"}},
        /* ours: the same before all others */
        {BYTES("detail\0"
               "1\0request\0rfrsh\0"),
         false,
         1,
         {REQUEST_REFRESH, NULL, NULL, true, 0}},
        {BYTES("reason\0night\0detail\0"
               "1\0request\0purge\0\0"),
         true,
         1,
         {REQUEST_PURGE, NULL, NULL, true, 0, 0, "night"}},
        {BYTES("detail\0"
               "1\0detail\0"
               "0\0request\0rfrsh\0"),
         false,
         1,
         {REQUEST_REFRESH, NULL, NULL, false, 0}},
        {BYTES("limit\0"
               "5\0request\0send_site\0site\0example.com\0detail\0"
               "1\0\0"),
         false,
         1,
         {REQUEST_SEND_SITE, "example.com", NULL, true, 0, 5}},
        {BYTES("reason\0request\0request\0add\0site\0example.com\0queue_id\0ABC\0\0"),
         false,
         1,
         {REQUEST_ADD, "example.com", "ABC", false, 0, 0, "request"}},
        {BYTES("reason\0\0request\0rfrsh\0"),
         false,
         1,
         {REQUEST_REFRESH, NULL, NULL, false, 0, 0, ""}},
        {BYTES("limit\0"
               "5\0request\0rfrsh\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("limit\0x\0request\0"), false, -EBADMSG, {0}},
        {BYTES("detail\0"
               "1\0foo\0bar\0request\0rfrsh\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("detail\0"
               "1\0W\0"),
         false,
         -EBADMSG,
         {0}}, /* a wake-up stands alone */
        {BYTES("detail\0"
               "1\0\0"),
         false,
         -EBADMSG,
         {0}},
        {BYTES("detail\0"
               "1\0"),
         false,
         0,
         {0}},
        {BYTES("detail\0"
               "1\0"),
         true,
         -EBADMSG,
         {0}},
        {BYTES("detail"), true, -EBADMSG, {0}},
        {BYTES("Detail\0"
               "1\0request\0rfrsh\0"),
         false,
         -EBADMSG,
         {0}},
};

static RequestDecoder decoder;

static void setup(void) {
        decoder = (RequestDecoder){0};
}

static void teardown(void) {
        request_decoder_done(&decoder);
}

/* Return: as request_decode(), or what attr_reader_space() says when there is no room. */
static int feed(const char *bytes, size_t n, Request *ret) {
        int r = 0;

        while (n > 0 && r == 0) {
                size_t room;
                char *space;

                r = attr_reader_space(&decoder.in, &space, &room);
                if (r < 0)
                        return r;
                if (room > n)
                        room = n;
                memcpy(space, bytes, room);
                attr_reader_commit(&decoder.in, room);
                bytes += room;
                n -= room;
                r = request_decode(&decoder, false, ret);
        }
        return r;
}

static void expect(int i, int r, const Request *got) {
        const Request *expected = &vectors[i].request;

        if (r == 0 && vectors[i].eof)
                ck_abort_msg("still wants more");
        ck_assert_int_eq(r, vectors[i].r);
        if (r == -EBADMSG)
                ck_assert_ptr_nonnull(decoder.error);
        if (r != 1)
                return;
        ck_assert_int_eq(got->kind, expected->kind);
        ck_assert_pstr_eq(got->site, expected->site);
        ck_assert_pstr_eq(got->queue_id, expected->queue_id);
        ck_assert_int_eq(got->detail, expected->detail);
        ck_assert_uint_eq(got->n_unknown, expected->n_unknown);
        ck_assert_uint_eq(got->limit, expected->limit);
        ck_assert_pstr_eq(got->reason, expected->reason);
}

/* The vector in pieces: up to @cut, and then @step bytes at a time. */
static void decode_pieces(int i, size_t cut, size_t step) {
        const char *bytes = vectors[i].bytes;
        size_t n = vectors[i].n, at = cut;
        Request request = {0};
        int r;

        r = feed(bytes, cut, &request);
        for (; r == 0 && at < n; at += step)
                r = feed(bytes + at, at + step < n ? step : n - at, &request);
        if (r == 0 && vectors[i].eof)
                r = request_decode(&decoder, true, &request);
        expect(i, r, &request);
        request_decoder_done(&decoder);
        decoder = (RequestDecoder){0};
}

START_TEST(a_request_in_one_piece_means_what_it_says) {
        decode_pieces(_i, vectors[_i].n, 1);
}
END_TEST

START_TEST(a_request_that_comes_byte_by_byte_means_the_same) {
        decode_pieces(_i, 0, 1);
}
END_TEST

START_TEST(a_request_cut_in_two_anywhere_means_the_same) {
        for (size_t cut = 0; cut <= vectors[_i].n; cut++)
                decode_pieces(_i, cut, vectors[_i].n);
}
END_TEST

/* Not only the whole: to know of the end at once or later is the same as well. */
START_TEST(the_end_may_be_seen_together_with_the_last_bytes) {
        for (int i = 0; i < (int) ARRAY_SIZE(vectors); i++) {
                Request request = {0};
                size_t room;
                char *space;

                if (!vectors[i].eof)
                        continue;
                ck_assert_int_eq(attr_reader_space(&decoder.in, &space, &room), 0);
                ck_assert_uint_ge(room, vectors[i].n);
                memcpy(space, vectors[i].bytes, vectors[i].n);
                attr_reader_commit(&decoder.in, vectors[i].n);
                expect(i, request_decode(&decoder, true, &request), &request);
                request_decoder_done(&decoder);
                decoder = (RequestDecoder){0};
        }
}
END_TEST

/* An add whose list has @size bytes, by a long site. */
static char *long_add(size_t size) {
        static const char head[] = "request\0add\0site\0";
        static const char tail[] = "\0queue_id\0ABC123\0\0";
        char *bytes = malloc(size);

        ck_assert_ptr_nonnull(bytes);
        memcpy(bytes, head, sizeof head - 1);
        memset(bytes + sizeof head - 1, 'a', size - (sizeof head - 1) - (sizeof tail - 1));
        memcpy(bytes + size - (sizeof tail - 1), tail, sizeof tail - 1);
        return bytes;
}

START_TEST(a_request_of_the_longest_length_is_read) {
        _cleanup_free_ char *bytes = long_add(ATTR_LIST_MAX);
        Request request = {0};

        ck_assert_int_eq(feed(bytes, ATTR_LIST_MAX, &request), 1);
        ck_assert_uint_eq(strlen(request.site), ATTR_LIST_MAX - 17 - 18);
        ck_assert_str_eq(request.queue_id, "ABC123");
}
END_TEST

START_TEST(a_longer_request_is_refused_however_it_comes) {
        _cleanup_free_ char *bytes = long_add(ATTR_LIST_MAX + 1);
        Request request = {0};
        int r = 0;

        ck_assert_int_eq(feed(bytes, ATTR_LIST_MAX + 1, &request), -EMSGSIZE);
        request_decoder_done(&decoder);
        decoder = (RequestDecoder){0};
        for (size_t i = 0; i < ATTR_LIST_MAX; i++)
                r |= feed(bytes + i, 1, &request);
        ck_assert_int_eq(r, 0);
        ck_assert_int_eq(feed(bytes + ATTR_LIST_MAX, 1, &request), -EMSGSIZE);
}
END_TEST

START_TEST(a_megabyte_of_anything_is_refused) {
        _cleanup_free_ char *bytes = calloc(1, 1000003);
        Request request = {0};

        memset(bytes, 'a', 1000000);
        ck_assert_int_eq(feed(bytes, 1000003, &request), -EMSGSIZE);
}
END_TEST

START_TEST(the_announcement_is_postfix_s) {
        static const char captured[] = {0x70, 0x72, 0x6f, 0x74, 0x6f, 0x63, 0x6f, 0x6c,
                                        0x00, 0x71, 0x75, 0x65, 0x75, 0x65, 0x5f, 0x66,
                                        0x6c, 0x75, 0x73, 0x68, 0x5f, 0x70, 0x72, 0x6f,
                                        0x74, 0x6f, 0x63, 0x6f, 0x6c, 0x00, 0x00};

        ck_assert_uint_eq(REQUEST_ANNOUNCEMENT_SIZE, sizeof captured);
        ck_assert_mem_eq(REQUEST_ANNOUNCEMENT, captured, sizeof captured);
}
END_TEST

static const struct {
        RequestStatus status;
        const char *bytes;
        size_t n;
} replies[] = {
        {REQUEST_OK, BYTES("status\0"
                           "0\0\0")},
        {REQUEST_BAD, BYTES("status\0"
                            "3\0\0")},
        {REQUEST_DENY, BYTES("status\0"
                             "4\0\0")},
        {REQUEST_FAIL, BYTES("status\0"
                             "4294967295\0\0")},
};

static bool has_counts;

static int decode_reply(AttrReader *in, const char *bytes, size_t n, RequestStatus *ret,
                        RequestCounts *ret_counts) {
        size_t room;
        char *space;

        ck_assert_int_eq(attr_reader_space(in, &space, &room), 0);
        ck_assert_uint_ge(room, n);
        memcpy(space, bytes, n);
        attr_reader_commit(in, n);
        return request_decode_reply(in, ret, ret_counts, &has_counts);
}

START_TEST(a_reply_has_postfix_s_bytes) {
        char bytes[REQUEST_REPLY_SIZE];

        ck_assert_uint_eq(request_encode_reply(replies[_i].status, NULL, bytes), replies[_i].n);
        ck_assert_mem_eq(bytes, replies[_i].bytes, replies[_i].n);
}
END_TEST

/* With announcement (3.6 and later) and without, cut in two at every place. */
START_TEST(a_reply_of_either_dialect_is_read) {
        for (int announced = 0; announced < 2; announced++) {
                char bytes[REQUEST_ANNOUNCEMENT_SIZE + REQUEST_REPLY_SIZE];
                size_t n = 0;

                if (announced)
                        n = REQUEST_ANNOUNCEMENT_SIZE;
                memcpy(bytes, REQUEST_ANNOUNCEMENT, n);
                memcpy(bytes + n, replies[_i].bytes, replies[_i].n);
                n += replies[_i].n;
                for (size_t cut = 0; cut < n; cut++) {
                        RequestCounts counts = {.found = 7};
                        RequestStatus status = 99;
                        AttrReader in = {0};

                        ck_assert_int_eq(decode_reply(&in, bytes, cut, &status, &counts), 0);
                        ck_assert_int_eq(status, 99);
                        ck_assert_int_eq(decode_reply(&in, bytes + cut, n - cut, &status, &counts),
                                         1);
                        ck_assert_int_eq(status, replies[_i].status);
                        ck_assert_uint_eq(counts.found, 0);
                        ck_assert(!has_counts);
                        attr_reader_done(&in);
                }
        }
}
END_TEST

START_TEST(counts_survive_the_way_to_the_client) {
        static const char begin[] = "status\0"
                                    "0\0found\0"
                                    "4000000000\0moved\0"
                                    "1\0";
        RequestCounts counts = {4000000000, 1, 20, 300, 4000, 50000, 600000, 7000000, 80000000},
                      got;
        char bytes[REQUEST_REPLY_SIZE];
        RequestStatus status = 99;
        AttrReader in = {0};
        size_t n;

        n = request_encode_reply(REQUEST_OK, &counts, bytes);
        ck_assert_uint_le(n, sizeof bytes);
        ck_assert_mem_eq(bytes, begin, sizeof begin - 1);
        ck_assert_int_eq(decode_reply(&in, bytes, n, &status, &got), 1);
        ck_assert_int_eq(status, REQUEST_OK);
        ck_assert(has_counts);
        ck_assert_mem_eq(&got, &counts, sizeof got);
        attr_reader_done(&in);
}
END_TEST

START_TEST(counts_add_up_one_by_one) {
        RequestCounts sum = {1, 2, 3, 4, 5, 6, 7, 8, 9};
        const RequestCounts more = {10, 20, 30, 40, 50, 60, 70, 80, 90};
        const RequestCounts expected = {11, 22, 33, 44, 55, 66, 77, 88, 99};

        request_counts_add(&sum, &more);
        ck_assert_mem_eq(&sum, &expected, sizeof sum);
}
END_TEST

START_TEST(counts_have_names_and_two_are_shown_only_if_there_are_any) {
        RequestCount list[REQUEST_COUNTS_MAX];

        ck_assert_uint_eq(request_counts_list(&(RequestCounts){.invalid = 3}, list), 7);
        ck_assert_str_eq(list[0].name, "found");
        ck_assert_str_eq(list[6].name, "invalid");
        ck_assert_uint_eq(list[6].value, 3);
        ck_assert_uint_eq(request_counts_list(&(RequestCounts){.sites = 2}, list), 8);
        ck_assert_str_eq(list[7].name, "sites");
        ck_assert_uint_eq(list[7].value, 2);
        ck_assert_uint_eq(request_counts_list(&(RequestCounts){.left = 1, .sites = 2}, list), 9);
        ck_assert_str_eq(list[7].name, "left");
}
END_TEST

START_TEST(the_largest_counts_fit_into_a_reply) {
        unsigned long most = UINT32_MAX;
        RequestCounts counts = {most, most, most, most, most, most, most, most, most};
        char bytes[REQUEST_REPLY_SIZE];

        ck_assert_uint_le(request_encode_reply(REQUEST_FAIL, &counts, bytes), sizeof bytes);
}
END_TEST

/* Of a refresh: that it has begun, and what came of it. Cut at every place. */
START_TEST(a_second_reply_is_read_behind_the_first) {
        static const char bytes[] = "protocol\0queue_flush_protocol\0\0"
                                    "status\0"
                                    "0\0\0"
                                    "status\0"
                                    "4294967295\0moved\0"
                                    "5\0sites\0"
                                    "3\0";

        for (size_t cut = 0; cut < sizeof bytes; cut++) {
                RequestStatus first = 99, second = 99;
                RequestCounts counts = {0};
                AttrReader in = {0};
                int r = decode_reply(&in, bytes, cut, &first, &counts);

                if (r == 0)
                        r = decode_reply(&in, bytes + cut, sizeof bytes - cut, &first, &counts);
                else
                        ck_assert_int_eq(decode_reply(&in, bytes + cut, sizeof bytes - cut, &second,
                                                      &counts),
                                         1);
                ck_assert_int_eq(r, 1);
                ck_assert_int_eq(first, REQUEST_OK);
                if (second == (RequestStatus) 99)
                        ck_assert_int_eq(request_decode_reply(&in, &second, &counts, &has_counts),
                                         1);
                ck_assert_int_eq(second, REQUEST_FAIL);
                ck_assert_uint_eq(counts.moved, 5);
                ck_assert_uint_eq(counts.sites, 3);
                ck_assert(has_counts);
                attr_reader_done(&in);
        }
}
END_TEST

static const struct {
        const char *bytes;
        size_t n;
        int r;
} odd_replies[] = {
        {BYTES("status\0"
               "0\0foo\0bar\0\0"),
         1}, /* tolerated by Postfix's clients, too */
        {BYTES("status\0"
               "0\0foo\0bar\0"),
         0},
        {BYTES("status\0"
               "0\0"),
         0},
        {BYTES("status\0"), 0},
        {BYTES("foo\0bar\0status\0"
               "0\0\0"),
         -EBADMSG},
        {BYTES("\0"), 0},
        {BYTES("\0\0"), -EBADMSG},
        {BYTES("status\0\0\0"), -EBADMSG},
        {BYTES("status\0zero\0\0"), -EBADMSG},
        {BYTES("status\0"
               "0x\0\0"),
         -EBADMSG},
        {BYTES("status\0"
               "99999999999999999999999999\0\0"),
         -EBADMSG},
        {BYTES("status\0"
               "0\0moved\0many\0\0"),
         -EBADMSG},
        {BYTES("protocol\0queue_flush_protocol\0status\0"
               "0\0\0"),
         -EBADMSG},
        {BYTES("220 example.com ESMTP\r\n"), 0},
};

START_TEST(what_is_no_reply_is_not_taken_for_one) {
        RequestStatus status = 99;
        RequestCounts counts;
        AttrReader in = {0};

        ck_assert_int_eq(
                decode_reply(&in, odd_replies[_i].bytes, odd_replies[_i].n, &status, &counts),
                odd_replies[_i].r);
        ck_assert_int_eq(status, odd_replies[_i].r == 1 ? 0 : 99);
        attr_reader_done(&in);
}
END_TEST

static const struct {
        Request request;
        const char *bytes;
        size_t n;
} requests[] = {
        {{REQUEST_ADD, "Example.COM", "E34BF11814B", false, 0},
         BYTES(ADD("Example.COM", "E34BF11814B"))},
        {{REQUEST_SEND_SITE, "Example.com", NULL, false, 0}, BYTES(SEND("Example.com"))},
        {{REQUEST_SEND_FILE, NULL, "E34BF11814B", false, 0}, BYTES(FILE_("E34BF11814B"))},
        {{REQUEST_SEND_SITE, "[192.0.2.1]", NULL, true, 0},
         BYTES("request\0send_site\0site\0[192.0.2.1]\0detail\0"
               "1\0\0")},
        {{REQUEST_REFRESH, NULL, NULL, false, 0}, BYTES("request\0rfrsh\0\0")},
        {{REQUEST_PURGE, NULL, NULL, false, 0}, BYTES("request\0purge\0\0")},
        {{REQUEST_SEND_SITE, "example.com", NULL, true, 0, 200, "ticket 7"},
         BYTES("detail\0"
               "1\0limit\0"
               "200\0reason\0ticket 7\0request\0send_site\0site\0example.com\0\0")},
        {{REQUEST_SEND_SITE, "example.com", NULL, false, 0, 3000000000},
         BYTES("limit\0"
               "3000000000\0request\0send_site\0site\0example.com\0\0")},
        {{REQUEST_SEND_SITE, "example.com", NULL, true, 0, 0, "ticket 7"},
         BYTES("request\0send_site\0site\0example.com\0detail\0"
               "1\0reason\0ticket 7\0\0")},
        {{REQUEST_REFRESH, NULL, NULL, true, 0, 0, "night"},
         BYTES("detail\0"
               "1\0reason\0night\0request\0rfrsh\0\0")},
        {{REQUEST_SELF_TEST, NULL, NULL, false, 0}, BYTES("request\0self_test\0\0")},
};

START_TEST(a_request_is_written_as_postfix_writes_it_and_read_back) {
        Request got = {0};
        char bytes[256];
        size_t n;

        n = request_encode(&requests[_i].request, bytes, sizeof bytes);
        ck_assert_uint_eq(n, requests[_i].n);
        ck_assert_mem_eq(bytes, requests[_i].bytes, n);
        ck_assert_int_eq(feed(bytes, n, &got), 1);
        ck_assert_int_eq(got.kind, requests[_i].request.kind);
        ck_assert_pstr_eq(got.site, requests[_i].request.site);
        ck_assert_pstr_eq(got.queue_id, requests[_i].request.queue_id);
        ck_assert_int_eq(got.detail, requests[_i].request.detail);
        ck_assert_uint_eq(got.limit, requests[_i].request.limit);
        ck_assert_pstr_eq(got.reason, requests[_i].request.reason);
}
END_TEST

START_TEST(findings_survive_the_way_to_the_client_the_largest_too) {
        static char bytes[REQUEST_FINDINGS_SIZE], text[FINDING_TEXT_SIZE];
        static TestFindings sent, got;
        RequestStatus status;
        AttrReader in = {0};
        size_t n, size;
        char *space;

        memset(text, 'x', sizeof text - 1);
        for (unsigned i = 0; i < FINDINGS_MAX; i++)
                finding_set_remedy(findings_add(&sent, "abcdefghijklmno",
                                                (FindingResult) (i % _FINDING_RESULT_MAX), "%s",
                                                text),
                                   "%s", text);
        sent.checks = 31;
        n = request_encode_findings(REQUEST_FAIL, &sent, bytes);
        for (size_t done = 0; done < n; done += size) {
                ck_assert_int_eq(request_decode_findings(&in, &status, &got), 0);
                ck_assert_int_eq(attr_reader_space(&in, &space, &size), 0);
                size = size < n - done ? size : n - done;
                memcpy(space, bytes + done, size);
                attr_reader_commit(&in, size);
        }
        ck_assert_int_eq(request_decode_findings(&in, &status, &got), 1);
        attr_reader_done(&in);
        ck_assert_int_eq(status, REQUEST_FAIL);
        ck_assert_uint_eq(got.n, FINDINGS_MAX);
        ck_assert_uint_eq(got.checks, 31);
        ck_assert_int_eq(got.worst, FINDING_FAILED);
        for (size_t i = 0; i < got.n; i++) {
                ck_assert_int_eq(got.items[i].result, sent.items[i].result);
                ck_assert_str_eq(got.items[i].check, sent.items[i].check);
                ck_assert_str_eq(got.items[i].reason, text);
                ck_assert_str_eq(got.items[i].remedy, text);
        }
}
END_TEST

START_TEST(each_request_has_a_name_for_people) {
        ck_assert_str_eq(request_name(REQUEST_ADD), "add");
        ck_assert_str_eq(request_name(REQUEST_SEND_SITE), "send_site");
        ck_assert_str_eq(request_name(REQUEST_SEND_FILE), "send_file");
        ck_assert_str_eq(request_name(REQUEST_REFRESH), "refresh");
        ck_assert_str_eq(request_name(REQUEST_PURGE), "purge");
        ck_assert_str_eq(request_name(REQUEST_SELF_TEST), "self_test");
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("request");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_loop_test(tc, a_request_in_one_piece_means_what_it_says, 0, ARRAY_SIZE(vectors));
        tcase_add_loop_test(tc, a_request_that_comes_byte_by_byte_means_the_same, 0,
                            ARRAY_SIZE(vectors));
        tcase_add_loop_test(tc, a_request_cut_in_two_anywhere_means_the_same, 0,
                            ARRAY_SIZE(vectors));
        tcase_add_test(tc, the_end_may_be_seen_together_with_the_last_bytes);
        tcase_add_test(tc, a_request_of_the_longest_length_is_read);
        tcase_add_test(tc, a_longer_request_is_refused_however_it_comes);
        tcase_add_test(tc, a_megabyte_of_anything_is_refused);
        tcase_add_test(tc, the_announcement_is_postfix_s);
        tcase_add_loop_test(tc, a_reply_has_postfix_s_bytes, 0, ARRAY_SIZE(replies));
        tcase_add_loop_test(tc, a_reply_of_either_dialect_is_read, 0, ARRAY_SIZE(replies));
        tcase_add_test(tc, counts_survive_the_way_to_the_client);
        tcase_add_test(tc, counts_add_up_one_by_one);
        tcase_add_test(tc, counts_have_names_and_two_are_shown_only_if_there_are_any);
        tcase_add_test(tc, the_largest_counts_fit_into_a_reply);
        tcase_add_test(tc, a_second_reply_is_read_behind_the_first);
        tcase_add_loop_test(tc, what_is_no_reply_is_not_taken_for_one, 0, ARRAY_SIZE(odd_replies));
        tcase_add_loop_test(tc, a_request_is_written_as_postfix_writes_it_and_read_back, 0,
                            ARRAY_SIZE(requests));
        tcase_add_test(tc, findings_survive_the_way_to_the_client_the_largest_too);
        tcase_add_test(tc, each_request_has_a_name_for_people);
        return run_case("request", tc);
}
