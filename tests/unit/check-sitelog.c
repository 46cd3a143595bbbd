/* SPDX-License-Identifier: MIT */

#include "core/sitelog.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "tests/lib/spool.h"
#include "util/util.h"

#define NAME "example_com"
#define PATH "flush/" NAME

#define DAY  (24 * 3600)

static SiteLog site_log;

/* What happens just before something is synced; takes the place of the C library's. */
static void (*before_sync)(void);

int fdatasync(int fd) {
        if (before_sync)
                before_sync();
        return fsync(fd);
}

static void setup(void) {
        spool_setup();
        before_sync = NULL;
        site_log = (SiteLog) SITELOG_INIT;
}

static void teardown(void) {
        sitelog_close(&site_log);
        spool_teardown();
}

static int open_log(bool create) {
        return sitelog_open(&spool_queue, NAME, create, &site_log);
}

static int append(const char *lines) {
        return sitelog_append(&spool_queue, &site_log, lines, strlen(lines), false);
}

static bool is_locked(const char *path) {
        _cleanup_close_ int fd = openat(spool_fd, path, O_RDWR | O_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        return flock(fd, LOCK_EX | LOCK_NB) < 0;
}

START_TEST(a_log_is_made_for_the_owner_only) { /* 1 */
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("ABC123\n"), 0);
        sitelog_close(&site_log);
        spool_expect(PATH, "ABC123\n");
        ck_assert_int_eq(spool_stat(PATH).st_mode, S_IFREG | 0600);
        ck_assert_int_eq(open_log(true), 0);
}
END_TEST

START_TEST(a_log_is_not_made_unasked) {
        ck_assert_int_eq(open_log(false), -ENOENT);
        ck_assert(!spool_exists(PATH));
        ck_assert_int_lt(site_log.fd, 0);
}
END_TEST

START_TEST(hash_directories_are_made) { /* 104 */
        spool_queue.hashed[QUEUE_FLUSH] = true;
        spool_queue.hash_depth = 2;
        ck_assert_int_eq(open_log(false), -ENOENT);
        ck_assert(!spool_exists("flush/e"));
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("ABC123\n"), 0);
        spool_expect("flush/e/x/" NAME, "ABC123\n");
        ck_assert_int_eq(spool_stat("flush/e").st_mode, S_IFDIR | 0700);
        ck_assert_int_eq(spool_stat("flush/e/x").st_mode, S_IFDIR | 0700);
}
END_TEST

START_TEST(the_directory_of_all_logs_is_made) {
        ck_assert_int_eq(unlinkat(spool_fd, "flush", AT_REMOVEDIR), 0);
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("ABC123\n"), 0);
        spool_expect(PATH, "ABC123\n");
}
END_TEST

START_TEST(records_go_to_the_end) { /* 58 */
        spool_write(PATH, "ABC123\n");
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("ABC123\nDEF456\n"), 0);
        ck_assert_int_eq(append("GHI789\n"), 0);
        ck_assert_int_eq(site_log.st.st_size, 28);
        spool_expect(PATH, "ABC123\nABC123\nDEF456\nGHI789\n");
}
END_TEST

START_TEST(a_last_line_without_newline_gets_one_first) { /* 59 */
        spool_write(PATH, "ABC123");
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("DEF456\n"), 0);
        spool_expect(PATH, "ABC123\nDEF456\n");
}
END_TEST

START_TEST(a_record_can_be_on_the_disk_before_the_answer) {
        spool_queue.hashed[QUEUE_FLUSH] = true;
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(sitelog_append(&spool_queue, &site_log, "A1\n", 3, true), 0);
        ck_assert_int_eq(sitelog_append(&spool_queue, &site_log, "B1\n", 3, true), 0);
        spool_expect("flush/e/" NAME, "A1\nB1\n");
}
END_TEST

START_TEST(a_symbolic_link_is_refused) { /* 62 */
        spool_write("target", "ABC123\n");
        ck_assert_int_eq(symlinkat("../target", spool_fd, PATH), 0);
        ck_assert_int_eq(open_log(true), -ELOOP);
        ck_assert_int_eq(open_log(false), -ELOOP);
        ck_assert(!is_locked("target"));
}
END_TEST

START_TEST(a_dangling_symbolic_link_is_refused) {
        ck_assert_int_eq(symlinkat("../target", spool_fd, PATH), 0);
        ck_assert_int_eq(open_log(true), -ELOOP);
        ck_assert(!spool_exists("target"));
}
END_TEST

START_TEST(a_directory_is_refused) { /* 63 */
        ck_assert_int_eq(mkdirat(spool_fd, PATH, 0700), 0);
        ck_assert_int_eq(open_log(true), -EISDIR);
        ck_assert_int_lt(site_log.fd, 0);
}
END_TEST

START_TEST(a_fifo_is_refused_and_does_not_block) {
        ck_assert_int_eq(mkfifoat(spool_fd, PATH, 0600), 0);
        ck_assert_int_eq(open_log(true), -EPROTOTYPE);
        ck_assert_int_lt(site_log.fd, 0);
}
END_TEST

START_TEST(a_file_with_two_names_is_refused) {
        spool_write(PATH, "ABC123\n");
        ck_assert_int_eq(linkat(spool_fd, PATH, spool_fd, "other", 0), 0);
        ck_assert_int_eq(open_log(true), -EMLINK);
        ck_assert(!is_locked(PATH));
}
END_TEST

START_TEST(another_one_s_file_is_refused) { /* 63 */
        spool_write(PATH, "ABC123\n");
        ck_assert_int_eq(fchownat(spool_fd, PATH, 1, (gid_t) -1, 0), 0);
        ck_assert_int_eq(open_log(true), -EPERM);
}
END_TEST

START_TEST(a_file_without_permission_is_refused) { /* 63 */
        spool_write(PATH, "ABC123\n");
        ck_assert_int_eq(fchmodat(spool_fd, PATH, 0400, 0), 0);
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(open_log(true), -EACCES);
        ck_assert_int_lt(site_log.fd, 0);
}
END_TEST

START_TEST(an_open_log_is_locked_until_it_is_unlocked_or_closed) {
        ck_assert_int_eq(open_log(true), 0);
        ck_assert(is_locked(PATH));
        sitelog_unlock(&site_log);
        ck_assert(!is_locked(PATH));
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), 0);
        ck_assert(is_locked(PATH));
        sitelog_close(&site_log);
        ck_assert(!is_locked(PATH));
        sitelog_close(&site_log); /* twice does no harm */
}
END_TEST

START_TEST(somebody_else_s_lock_is_not_waited_for) { /* 60 */
        int fd;

        spool_write(PATH, "");
        fd = spool_lock(PATH);
        ck_assert_int_eq(open_log(true), -EAGAIN);
        ck_assert_int_lt(site_log.fd, 0);
        closep(&fd);
        ck_assert_int_eq(open_log(true), 0);
        sitelog_unlock(&site_log);
        fd = spool_lock(PATH);
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), -EAGAIN);
        closep(&fd);
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), 0);
}
END_TEST

START_TEST(a_log_that_was_removed_while_unlocked_is_stale) { /* 61 */
        ck_assert_int_eq(open_log(true), 0);
        sitelog_unlock(&site_log);
        ck_assert_int_eq(unlinkat(spool_fd, PATH, 0), 0);
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), -ESTALE);
}
END_TEST

START_TEST(a_log_that_was_replaced_while_unlocked_is_stale) {
        ck_assert_int_eq(open_log(true), 0);
        sitelog_unlock(&site_log);
        spool_write("other", "ABC123\n");
        ck_assert_int_eq(renameat(spool_fd, PATH, spool_fd, "old"), 0);
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), -ESTALE);
        ck_assert_int_eq(renameat(spool_fd, "other", spool_fd, PATH), 0);
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), -ESTALE);
        /* Opened anew it is the one that bears the name. */
        sitelog_close(&site_log);
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(site_log.st.st_size, 7);
}
END_TEST

START_TEST(a_log_that_got_another_name_while_unlocked_is_refused) {
        ck_assert_int_eq(open_log(true), 0);
        sitelog_unlock(&site_log);
        ck_assert_int_eq(linkat(spool_fd, PATH, spool_fd, "other", 0), 0);
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), -EMLINK);
}
END_TEST

START_TEST(a_relock_sees_what_was_written_meanwhile) {
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("ABC123\n"), 0);
        sitelog_unlock(&site_log);
        spool_append(PATH, "DEF456\n");
        ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), 0);
        ck_assert_int_eq(site_log.st.st_size, 14);
        ck_assert_int_eq(append("GHI789\n"), 0);
        spool_expect(PATH, "ABC123\nDEF456\nGHI789\n");
}
END_TEST

START_TEST(reading_does_not_put_off_the_refresh) {
        char buf[64];

        spool_write(PATH, "ABC123\nDEF456\n");
        spool_set_times(PATH, -DAY - 100, -DAY);
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(sitelog_read(&site_log, buf, sizeof buf, 0), 14);
        ck_assert_mem_eq(buf, "ABC123\nDEF456\n", 14);
        ck_assert_int_eq(sitelog_read(&site_log, buf, 3, 7), 3);
        ck_assert_mem_eq(buf, "DEF", 3);
        ck_assert_int_eq(sitelog_read(&site_log, buf, sizeof buf, 14), 0);
        ck_assert_int_lt(spool_atime(PATH), -DAY);
}
END_TEST

START_TEST(an_add_keeps_the_time_of_the_last_flush) {
        spool_write(PATH, "ABC123");
        spool_set_times(PATH, -DAY - 100, -DAY);
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("DEF456\n"), 0);
        ck_assert_int_lt(spool_atime(PATH), -DAY);
        ck_assert_int_ge(spool_mtime(PATH), -60);
}
END_TEST

START_TEST(a_touched_log_was_flushed_now) {
        spool_write(PATH, "");
        spool_set_times(PATH, -DAY, -DAY);
        ck_assert_int_eq(open_log(false), 0);
        sitelog_touch(&site_log);
        ck_assert_int_ge(spool_atime(PATH), -60);
        ck_assert_int_ge(spool_mtime(PATH), -60);
        ck_assert_int_eq(site_log.st.st_mtime, spool_stat(PATH).st_mtime);
}
END_TEST

/* What was there, the prefix, what replaces it, what is left. */
static const struct {
        const char *before;
        size_t n_prefix;
        const char *keep, *after;
} replacements[] = {
        {"A\nB\n", 4, "", ""},
        {"A\nB\n", 2, "", "B\n"},
        {"A\nB\n", 0, "", "A\nB\n"},
        {"A\nB\nC\n", 4, "B\n", "B\nC\n"},
        {"A\nB\nC\n", 4, "A\nB\n", "A\nB\nC\n"},
        {"A\nB\nC\n", 6, "B\n", "B\n"},
        {"A\nB\nC\n", 6, "A\nC\n", "A\nC\n"},
        {"A\nB", 3, "", ""},
        {"A\nB", 3, "A\n", "A\n\n"}, /* the newline that B had not is no record */
        {"A\nB", 3, "B", "B\n"},
        {"A\nB", 2, "", "B\n"},
        {"AAAA\nB\n", 5, "", "B\n"},            /* tail shorter than the prefix */
        {"A\nBBBBBBBB\n", 2, "", "BBBBBBBB\n"}, /* and longer */
        {"A\nBB\nCCCCCCCC\n", 5, "BB\n", "BB\nCCCCCCCC\n"},
};

START_TEST(a_prefix_is_replaced_and_the_rest_stays) {
        const char *keep = replacements[_i].keep, *after = replacements[_i].after;

        for (int sync = 0; sync < 2; sync++) {
                spool_write(PATH, replacements[_i].before);
                ck_assert_int_eq(open_log(false), 0);
                ck_assert_int_eq(sitelog_replace_prefix(&site_log, replacements[_i].n_prefix, keep,
                                                        strlen(keep), sync),
                                 0);
                spool_expect(PATH, after);
                ck_assert_int_eq(site_log.st.st_size, strlen(after));
                ck_assert_uint_eq(spool_stat(PATH).st_ino, site_log.st.st_ino); /* the same file */
                sitelog_close(&site_log);
        }
}
END_TEST

START_TEST(after_a_replacement_records_go_to_the_end_again) {
        spool_write(PATH, "A\nB\nC\n");
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 4, "B\n", 2, false), 0);
        ck_assert_int_eq(append("D\n"), 0);
        spool_expect(PATH, "B\nC\nD\n");
}
END_TEST

START_TEST(a_prefix_of_many_pages_is_replaced) {
        _cleanup_free_ char *text = malloc(600001);
        char *got;

        for (unsigned i = 0; i < 50000; i++)
                (void) snprintf(text + 12 * i, 13, "%011u\n", i);
        spool_write(PATH, text);
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 300000, text + 120000, 120000, false),
                         0);
        got = spool_read(PATH);
        ck_assert_uint_eq(strlen(got), 420000);
        ck_assert_mem_eq(got, text + 300000, 300000); /* so large, the order does not count */
        ck_assert_mem_eq(got + 300000, text + 120000, 120000);
        free(got);
}
END_TEST

/* Lines of 12 bytes, each with another ID, in the log: a prefix of which some stay, and a tail. */
typedef struct Large {
        unsigned n_prefix, n_keep, n_tail, n_added;
} Large;
#define LINE 12

static const Large large[] = {
        {1, 0, 20000, 0},     {1, 1, 20000, 0},     {10, 3, 5450, 0},        {10, 10, 20000, 0},
        {5461, 0, 20000, 0},  {5461, 5400, 100, 0}, {5461, 5400, 20000, 0},  {5462, 0, 20000, 0},
        {5462, 5400, 100, 0}, {20000, 0, 0, 0},     {20000, 5000, 20000, 0}, {20000, 5000, 0, 0},
        {20000, 0, 50000, 0}, {800000, 0, 1, 0},    {800000, 5000, 0, 0},
};

static void print_lines(char *text, unsigned first, unsigned n) {
        text[0] = '\0';
        for (unsigned i = 0; i < n; i++)
                (void) snprintf(text + (size_t) LINE * i, LINE + 1, "%011u\n", first + i);
}

/* How often each of @n numbers has a line of its own in the log, at most 255. */
static unsigned char *count_lines(unsigned n) {
        _cleanup_free_ char *text = spool_read(PATH);
        unsigned char *counts = calloc(n + 1, 1);

        for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
                unsigned long i = end - line == LINE - 1 ? strtoul(line, NULL, 10) : n;

                if (i < n && counts[i] < 255)
                        counts[i]++;
        }
        return counts;
}

/* An assertion that holds costs a message as well, and libcheck trips over hundreds of thousands.
 */
static void expect_all(const Large *l, bool once) {
        unsigned n = l->n_prefix + l->n_tail + l->n_added;
        _cleanup_free_ unsigned char *counts = count_lines(n);

        for (unsigned i = 0; i < n; i++) {
                bool stays = i < l->n_keep || i >= l->n_prefix;

                if (stays && counts[i] != 1 && (counts[i] == 0 || once))
                        ck_abort_msg("%u is %u times", i, counts[i]);
                if (!stays && once && counts[i] > 0)
                        ck_abort_msg("%u is still there", i);
        }
}

/* Return: the buffer for it, whose size the sanitizers watch. */
static char *begin_large(const Large *l, bool sync, SiteLogRemoval *removal) {
        _cleanup_free_ char *text = malloc((size_t) LINE * (l->n_prefix + l->n_tail) + 1);
        char *buf = malloc(SITELOG_SLICE);

        print_lines(text, 0, l->n_prefix + l->n_tail);
        spool_write(PATH, text);
        ck_assert_int_eq(open_log(false), 0);
        memcpy(buf, text, (size_t) LINE * l->n_keep);
        ck_assert_int_eq(sitelog_begin_removal(&site_log, (size_t) LINE * l->n_prefix, buf,
                                               (size_t) LINE * l->n_keep, sync, removal),
                         0);
        return buf;
}

START_TEST(a_large_removal_has_all_that_stays_at_each_step) {
        SiteLogRemoval removal;
        const Large *l = &large[_i];
        _cleanup_free_ char *buf = begin_large(l, false, &removal);
        unsigned n_steps = 1, n_bytes = LINE * (l->n_prefix + l->n_tail);

        while (sitelog_go_on_removal(&site_log, &removal, buf, false) > 0) {
                n_steps++;
                if (l->n_prefix + l->n_tail < 100000 || n_steps % 8 == 0)
                        expect_all(l, false);
        }
        expect_all(l, true);
        ck_assert_int_eq(site_log.st.st_size, LINE * (l->n_keep + l->n_tail));
        ck_assert_uint_ge(n_steps, LINE * (l->n_keep + l->n_tail) / (2 * SITELOG_SLICE));
        ck_assert_uint_le(n_steps, 3 + 2 * n_bytes / (SITELOG_SLICE - LINE));
}
END_TEST

START_TEST(records_added_between_the_steps_of_a_removal_stay) {
        SiteLogRemoval removal;
        Large l = large[_i];
        _cleanup_free_ char *buf = begin_large(&l, false, &removal);
        int r;

        do {
                r = sitelog_go_on_removal(&site_log, &removal, buf, false);
                if (r > 0 && l.n_added < 40) {
                        char lines[LINE * 300 + 1];
                        unsigned n = l.n_added % 2 ? 1 : 300;

                        print_lines(lines, l.n_prefix + l.n_tail + l.n_added, n);
                        ck_assert_int_eq(append(lines), 0);
                        l.n_added += n;
                }
                expect_all(&l, r == 0);
        } while (r > 0);
}
END_TEST

START_TEST(a_removal_keeps_the_order_if_it_can) {
        SiteLogRemoval removal;
        _cleanup_free_ char *buf = begin_large(&large[_i], false, &removal);
        _cleanup_free_ char *got = NULL, *text = malloc(600001), *expected = NULL;
        const Large *l = &large[_i];

        while (sitelog_go_on_removal(&site_log, &removal, buf, false) > 0)
                ;
        print_lines(text, 0, l->n_prefix + l->n_tail);
        ck_assert_int_gt(asprintf(&expected, "%.*s%s", (int) (LINE * l->n_keep), text,
                                  text + (size_t) LINE * l->n_prefix),
                         0);
        got = spool_read(PATH);
        ck_assert(streq(got, expected));
}
END_TEST

/* The copy that would keep the order has no place. */
START_TEST(a_removal_needs_little_room) {
        const Large *l = &large[0];
        SiteLogRemoval removal;
        _cleanup_free_ char *buf = NULL;
        off_t size = (off_t) LINE * (l->n_prefix + l->n_tail);

        spool_limit(size + (off_t) SITELOG_SLICE);
        buf = begin_large(l, false, &removal);
        while (sitelog_go_on_removal(&site_log, &removal, buf, false) > 0)
                expect_all(l, false);
        spool_unlimit();
        expect_all(l, true);
}
END_TEST

START_TEST(a_removal_without_room_leaves_the_log_as_it_was) {
        _cleanup_free_ char *text = malloc(LINE * 20001 + 1), *buf = malloc(SITELOG_SLICE);
        SiteLogRemoval removal;

        print_lines(text, 0, 20001);
        spool_write(PATH, text);
        ck_assert_int_eq(open_log(false), 0);
        spool_limit(LINE * 20001 + 100);
        ck_assert_int_eq(sitelog_begin_removal(&site_log, LINE, buf, 0, false, &removal), -EFBIG);
        spool_unlimit();
        spool_expect(PATH, text);
        ck_assert_int_eq(site_log.st.st_size, LINE * 20001);
}
END_TEST

/* The last line of the prefix, which has no newline, stays; the tail begins with one then. */
START_TEST(a_large_removal_ends_the_last_line_that_stays) {
        char *text = malloc(LINE * 20000 + 1), *buf = malloc(SITELOG_SLICE), *keep;
        SiteLogRemoval removal;
        size_t n_keep = (size_t) LINE * 5000 - 1;

        print_lines(text, 0, 20000);
        text[LINE * 20000 - 1] = '\0';
        spool_write(PATH, text);
        keep = text + LINE * 15000;
        ck_assert_int_eq(open_log(false), 0);
        if (_i > 0) /* more than is copied along with what stays */
                for (int i = 0; i < 1000; i++)
                        ck_assert_int_eq(append("ADDED123456\n"), 0);
        memcpy(buf, keep, n_keep);
        ck_assert_int_eq(sitelog_begin_removal(&site_log, (size_t) LINE * 20000 - 1, buf, n_keep,
                                               false, &removal),
                         0);
        while (sitelog_go_on_removal(&site_log, &removal, buf, false) > 0)
                ;
        free(buf);
        buf = spool_read(PATH);
        ck_assert_ptr_nonnull(strstr(buf, "00000019999\n"));
        ck_assert_ptr_nonnull(strstr(buf, "00000015000\n"));
        ck_assert_int_eq(strncmp(buf, _i > 0 ? "ADDED123456\n" : "00000015000\n", LINE), 0);
        free(buf);
        free(text);
}
END_TEST

START_TEST(a_failed_append_leaves_nothing_behind) {
        spool_write(PATH, "ABC123\n");
        ck_assert_int_eq(open_log(true), 0);
        spool_limit(10); /* so the first 3 bytes are written */
        ck_assert_int_eq(append("DEF456\n"), -EFBIG);
        spool_unlimit();
        spool_expect(PATH, "ABC123\n");
        ck_assert_int_eq(site_log.st.st_size, 7);
        ck_assert_int_eq(append("GHI789\n"), 0);
        spool_expect(PATH, "ABC123\nGHI789\n");
}
END_TEST

START_TEST(a_failed_append_of_many_records_leaves_none_of_them) {
        ck_assert_int_eq(open_log(true), 0);
        spool_limit(4);
        ck_assert_int_eq(append("A\nB\nC\nD\nE\n"), -EFBIG);
        spool_unlimit();
        spool_expect(PATH, "");
}
END_TEST

START_TEST(a_failed_replacement_leaves_all_records) {
        spool_write(PATH, "A\nB\nC\nD\n");
        ck_assert_int_eq(open_log(true), 0);
        spool_limit(10);
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 4, "B\n", 2, false), -EFBIG);
        spool_unlimit();
        spool_expect(PATH, "A\nB\nC\nD\n");
        ck_assert_int_eq(site_log.st.st_size, 8);
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 4, "B\n", 2, false), 0);
        spool_expect(PATH, "B\nC\nD\n");
}
END_TEST

START_TEST(a_log_can_be_emptied_on_a_full_disk) {
        spool_write(PATH, "A\nB\n");
        ck_assert_int_eq(open_log(true), 0);
        spool_limit(0);
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 4, NULL, 0, false), 0);
        spool_unlimit();
        spool_expect(PATH, "");
}
END_TEST

START_TEST(only_an_empty_log_is_removed) {
        spool_write(PATH, "A\n");
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(sitelog_remove_if_empty(&spool_queue, &site_log), -ENOTEMPTY);
        spool_expect(PATH, "A\n");
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 2, NULL, 0, false), 0);
        ck_assert_int_eq(sitelog_remove_if_empty(&spool_queue, &site_log), 0);
        ck_assert(!spool_exists(PATH));
}
END_TEST

START_TEST(a_log_removed_by_us_is_made_anew_by_the_next_add) {
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(sitelog_remove_if_empty(&spool_queue, &site_log), 0);
        sitelog_close(&site_log);
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("A\n"), 0);
        spool_expect(PATH, "A\n");
}
END_TEST

START_TEST(what_is_written_into_a_removed_log_is_rescued) {
        static const char *const found[] = {"A1\nB1\n", "N1\nA1\nB1\n"};
        int other;

        ck_assert_int_eq(open_log(true), 0);
        other = openat(spool_fd, PATH, O_WRONLY | O_APPEND | O_CLOEXEC);
        ck_assert_int_ge(other, 0);
        ck_assert_int_eq(unlinkat(spool_fd, PATH, 0), 0);
        if (_i == 1) /* made meanwhile */
                spool_write(PATH, "N1\n");
        ck_assert_int_eq(sitelog_rescue(&spool_queue, NAME, &site_log, false), -EAGAIN);
        ck_assert_int_eq(flock(other, LOCK_EX | LOCK_NB), 0);
        ck_assert_int_eq(write(other, "A1\nB1\n", 6), 6);
        ck_assert_int_eq(sitelog_rescue(&spool_queue, NAME, &site_log, false), -EAGAIN);
        ck_assert_int_eq(close(other), 0);
        ck_assert_int_eq(sitelog_rescue(&spool_queue, NAME, &site_log, false), 0);
        spool_expect(PATH, found[_i]);
}
END_TEST

START_TEST(a_removed_log_that_nobody_has_written_to_is_not_made_anew) {
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(sitelog_remove_if_empty(&spool_queue, &site_log), 0);
        ck_assert_int_eq(sitelog_rescue(&spool_queue, NAME, &site_log, false), 0);
        ck_assert(!spool_exists(PATH));
}
END_TEST

/* The stamp as it is if the log is opened now. */
static SiteLogStamp stamp_now(void) {
        SiteLogStamp stamp;

        ck_assert_int_eq(open_log(true), 0);
        stamp = sitelog_stamp(&site_log);
        sitelog_close(&site_log);
        return stamp;
}

static bool unchanged_since(const SiteLogStamp *stamp) {
        bool unchanged;

        ck_assert_int_eq(open_log(true), 0);
        unchanged = sitelog_unchanged(&site_log, stamp);
        sitelog_close(&site_log);
        return unchanged;
}

START_TEST(the_stamp_after_a_change_is_the_one_the_next_open_sees) {
        static const char line[] = "ABC123\n";
        SiteLogStamp before;

        for (int i = 0; i < 4; i++) {
                ck_assert_int_eq(open_log(true), 0);
                if (i == 0)
                        ck_assert_int_eq(append(line), 0);
                else if (i == 1)
                        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 0, line, 0, false), 0);
                else if (i == 2)
                        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 7, NULL, 0, false), 0);
                else
                        sitelog_touch(&site_log);
                before = sitelog_stamp(&site_log);
                sitelog_close(&site_log);
                spool_tick();
                ck_assert(unchanged_since(&before));
        }
}
END_TEST

START_TEST(the_stamp_tells_of_somebody_else_s_record) {
        SiteLogStamp before = stamp_now();

        spool_append(PATH, "ABC123\n");
        ck_assert(!unchanged_since(&before));
}
END_TEST

START_TEST(the_stamp_tells_of_other_records_of_the_same_length) {
        SiteLogStamp before;

        spool_write(PATH, "ABC123\n");
        before = stamp_now();
        spool_tick();
        spool_write(PATH, "DEF456\n");
        ck_assert(!unchanged_since(&before));
}
END_TEST

START_TEST(the_stamp_tells_of_another_file) {
        SiteLogStamp before;

        spool_write(PATH, "ABC123\n");
        before = stamp_now();
        spool_write("other", "ABC123\n");
        ck_assert_int_eq(renameat(spool_fd, "other", spool_fd, PATH), 0);
        ck_assert(!unchanged_since(&before));
}
END_TEST

/* ------------------------------------------------------------------------- any layout */

/* Where other values of hash_queue_names and hash_queue_depth have it. */
static const char *const elsewhere[] = {
        "flush/" NAME,
        "flush/e/" NAME,
        "flush/e/x/" NAME,
        "flush/e/x/a/m/p/l/e/_/c/o/m/_/_/_/_/_/" NAME,
};

static void set_depth(unsigned depth) {
        spool_queue.hashed[QUEUE_FLUSH] = depth > 0;
        spool_queue.hash_depth = depth > 0 ? depth : 1;
}

START_TEST(a_log_is_used_where_another_layout_has_it) {
        for (unsigned depth = 0; depth < 4; depth++) {
                set_depth(depth);
                spool_write(elsewhere[_i], "A1\n");
                ck_assert_int_eq(open_log(depth % 2), 0);
                ck_assert(is_locked(elsewhere[_i]));
                ck_assert_int_eq(append("B1\n"), 0);
                sitelog_unlock(&site_log);
                ck_assert_int_eq(sitelog_relock(&spool_queue, &site_log), 0);
                spool_expect(elsewhere[_i], "A1\nB1\n");
                ck_assert_int_eq(sitelog_replace_prefix(&site_log, 6, NULL, 0, false), 0);
                ck_assert_int_eq(sitelog_remove_if_empty(&spool_queue, &site_log), 0);
                ck_assert(!spool_exists(elsewhere[_i]));
                sitelog_close(&site_log);
                ck_assert_int_eq(open_log(false), -ENOENT);
        }
}
END_TEST

START_TEST(no_log_is_made_where_nobody_knows_whether_there_is_one) {
        spool_write("flush/e/x/" NAME, "A1\n");
        ck_assert(spool_unprivileged());
        ck_assert_int_eq(fchmodat(spool_fd, "flush/e", 0, 0), 0);
        ck_assert_int_eq(open_log(true), -EACCES);
        ck_assert_int_eq(fchmodat(spool_fd, "flush/e", 0700, 0), 0);
        ck_assert(!spool_exists(PATH));
}
END_TEST

START_TEST(a_log_of_a_one_letter_site_of_flush8_is_no_hash_directory) {
        spool_write("flush/e", "A1\n");
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(sitelog_gather(&spool_queue, NAME, false), 0);
        spool_expect("flush/e", "A1\n");
}
END_TEST

/* ------------------------------------------------------------------------- gathering */

static int gather(bool sync) {
        return sitelog_gather(&spool_queue, NAME, sync);
}

START_TEST(a_log_is_brought_into_an_empty_place) {
        struct stat before;

        for (unsigned depth = 0; depth < 3; depth++) {
                char path[QUEUE_PATH_SIZE];

                set_depth(depth);
                queue_path(&spool_queue, QUEUE_FLUSH, NAME, path);
                spool_write(elsewhere[_i], "A1\nB1");
                spool_set_times(elsewhere[_i], -DAY, -DAY);
                before = spool_stat(elsewhere[_i]);
                ck_assert_int_eq(gather(depth == 1), 0);
                spool_expect(path, "A1\nB1");
                ck_assert_uint_eq(spool_stat(path).st_ino, before.st_ino);
                ck_assert_int_le(spool_atime(path), -DAY + 60);
                ck_assert(streq(path, elsewhere[_i]) || !spool_exists(elsewhere[_i]));
                ck_assert_int_eq(unlinkat(spool_fd, path, 0), 0);
        }
}
END_TEST

START_TEST(what_is_elsewhere_goes_behind_what_is_in_place) {
        static const long atimes[][2] = {{-DAY, -60}, {-60, -DAY}};

        set_depth(1);
        spool_write("flush/e/" NAME, "A1\nA2");
        spool_write("flush/" NAME, "B1\nB2");
        spool_write("flush/e/x/" NAME, "C1\n");
        spool_set_times("flush/e/" NAME, atimes[_i][0], -60);
        spool_set_times("flush/" NAME, atimes[_i][1], -60);
        ck_assert_int_eq(gather(_i), 0);
        spool_expect("flush/e/" NAME, "A1\nA2\nB1\nB2\nC1\n");
        ck_assert_int_le(spool_atime("flush/e/" NAME), -DAY + 60);
        ck_assert(!spool_exists("flush/" NAME));
        ck_assert(!spool_exists("flush/e/x/" NAME));
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(append("D1\n"), 0);
        spool_expect("flush/e/" NAME, "A1\nA2\nB1\nB2\nC1\nD1\n");
}
END_TEST

START_TEST(a_log_of_any_size_is_brought) {
        _cleanup_free_ char *text = calloc(70001, 6), *both = NULL;
        char *p = text;

        ck_assert_ptr_nonnull(text);
        for (int i = 0; i < 70000; i++)
                p += sprintf(p, "%05X\n", (unsigned) i);
        spool_write("flush/e/" NAME, text);
        spool_write(PATH, "A1\n");
        ck_assert_int_eq(gather(false), 0);
        ck_assert_int_ge(asprintf(&both, "A1\n%s", text), 0);
        spool_expect(PATH, both);
        ck_assert(!spool_exists("flush/e/" NAME));
}
END_TEST

START_TEST(a_locked_log_is_brought_later) {
        static const char *const paths[] = {"flush/e/" NAME, PATH};
        int fd;

        spool_write("flush/e/" NAME, "A1\n");
        spool_write(PATH, "B1\n");
        fd = spool_lock(paths[_i]);
        ck_assert_int_eq(gather(false), -EAGAIN);
        spool_expect("flush/e/" NAME, "A1\n");
        spool_expect(PATH, "B1\n");
        closep(&fd);
        ck_assert_int_eq(gather(false), 0);
        spool_expect(PATH, "B1\nA1\n");
}
END_TEST

START_TEST(a_log_that_somebody_has_open_stays_and_is_brought_again) {
        int fd;

        spool_write("flush/e/" NAME, "A1\n");
        spool_write(PATH, "B1\n");
        fd = openat(spool_fd, "flush/e/" NAME, O_WRONLY | O_APPEND | O_CLOEXEC);
        ck_assert_int_eq(gather(false), 0);
        spool_expect(PATH, "B1\nA1\n");
        ck_assert_int_eq(write(fd, "A2\n", 3), 3);
        closep(&fd);
        ck_assert_int_eq(gather(false), 0);
        spool_expect(PATH, "B1\nA1\nA1\nA2\n");
        ck_assert(!spool_exists("flush/e/" NAME));
}
END_TEST

START_TEST(what_cannot_be_copied_stays_where_it_was) {
        spool_write("flush/e/" NAME, "A1\nA2\n");
        spool_write(PATH, "B1\n");
        spool_limit(5);
        ck_assert_int_eq(gather(false), -EFBIG);
        spool_unlimit();
        spool_expect("flush/e/" NAME, "A1\nA2\n");
        spool_expect(PATH, "B1\n");
}
END_TEST

START_TEST(what_is_no_log_is_not_brought) {
        spool_write("other", "A1\n");
        ck_assert_int_eq(queue_make_dirs(&spool_queue, "flush/e/" NAME), 0);
        ck_assert_int_eq(symlinkat("../../other", spool_fd, "flush/e/" NAME), 0);
        ck_assert_int_eq(gather(false), -ELOOP);
        ck_assert_int_eq(unlinkat(spool_fd, "flush/e/" NAME, 0), 0);
        ck_assert_int_eq(linkat(spool_fd, "other", spool_fd, "flush/e/" NAME, 0), 0);
        ck_assert_int_eq(gather(false), -EMLINK);
        spool_expect("other", "A1\n");
        ck_assert(!spool_exists(PATH));
}
END_TEST

/* postsuper(1) moves what is out of place without a lock, over what is in place. */
static void as_postsuper(void) {
        (void) renameat(spool_fd, "flush/e/" NAME, spool_fd, PATH);
}

START_TEST(postsuper_in_between_costs_no_record) {
        spool_write("flush/e/" NAME, "A1\n");
        spool_write(PATH, "B1\n");
        before_sync = as_postsuper;
        ck_assert_int_eq(gather(true), 0);
        spool_expect(PATH, "A1\nB1\nA1\n");
        ck_assert(!spool_exists("flush/e/" NAME));
}
END_TEST

/* Somebody makes a new log where postsuper(1) has just moved one away. */
static void as_postsuper_and_flush8(void) {
        as_postsuper();
        before_sync = NULL;
        spool_write("flush/e/" NAME, "C1\n");
}

START_TEST(a_new_log_in_the_old_place_is_not_removed) {
        spool_write("flush/e/" NAME, "A1\n");
        spool_write(PATH, "B1\n");
        before_sync = as_postsuper_and_flush8;
        ck_assert_int_eq(gather(true), 0);
        spool_expect(PATH, "A1\nB1\nA1\n");
        spool_expect("flush/e/" NAME, "C1\n");
}
END_TEST

/* ------------------------------------------------------------------------- O_NOATIME refused */

START_TEST(without_noatime_the_access_time_is_put_back) {
        char buf[8];

        spool_write(PATH, "A1\nB1");
        spool_set_times(PATH, -2 * DAY, -DAY); /* relatime would set this one */
        spool_refuse_noatime();
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(sitelog_read(&site_log, buf, sizeof buf, 0), 5);
        if (spool_atime(PATH) < -60)
                return; /* the file system is mounted with noatime */
        sitelog_close(&site_log);
        ck_assert_int_le(spool_atime(PATH), -2 * DAY + 60);
}
END_TEST

START_TEST(without_noatime_an_add_keeps_the_time_of_the_last_flush) {
        SiteLogStamp before;

        spool_write(PATH, "A1\nB1");
        spool_set_times(PATH, -2 * DAY, -DAY);
        spool_refuse_noatime();
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("C1\n"), 0);
        before = sitelog_stamp(&site_log);
        sitelog_close(&site_log);
        spool_expect(PATH, "A1\nB1\nC1\n");
        ck_assert_int_le(spool_atime(PATH), -2 * DAY + 60);
        spool_tick();
        ck_assert(unchanged_since(&before)); /* what is known of it stays known */
}
END_TEST

START_TEST(without_noatime_a_flush_is_a_flush_and_a_new_log_is_made) {
        char buf[8];

        spool_refuse_noatime();
        ck_assert_int_eq(open_log(true), 0);
        ck_assert_int_eq(append("A1\n"), 0);
        sitelog_close(&site_log);
        spool_set_times(PATH, -2 * DAY, -DAY);
        ck_assert_int_eq(open_log(false), 0);
        ck_assert_int_eq(sitelog_read(&site_log, buf, sizeof buf, 0), 3);
        ck_assert_int_eq(sitelog_replace_prefix(&site_log, 3, NULL, 0, false), 0);
        sitelog_touch(&site_log);
        sitelog_close(&site_log);
        ck_assert_int_ge(spool_atime(PATH), -60);
}
END_TEST

int main(void) {
        TCase *tc = tcase_create("sitelog");

        tcase_add_checked_fixture(tc, setup, teardown);
        tcase_add_test(tc, a_log_is_made_for_the_owner_only);
        tcase_add_test(tc, a_log_is_not_made_unasked);
        tcase_add_test(tc, hash_directories_are_made);
        tcase_add_test(tc, the_directory_of_all_logs_is_made);
        tcase_add_test(tc, records_go_to_the_end);
        tcase_add_test(tc, a_last_line_without_newline_gets_one_first);
        tcase_add_test(tc, a_record_can_be_on_the_disk_before_the_answer);
        tcase_add_test(tc, a_symbolic_link_is_refused);
        tcase_add_test(tc, a_dangling_symbolic_link_is_refused);
        tcase_add_test(tc, a_directory_is_refused);
        tcase_add_test(tc, a_fifo_is_refused_and_does_not_block);
        tcase_add_test(tc, a_file_with_two_names_is_refused);
        if (geteuid() == 0) /* nobody else can give a file away */
                tcase_add_test(tc, another_one_s_file_is_refused);
        tcase_add_test(tc, a_file_without_permission_is_refused);
        tcase_add_test(tc, an_open_log_is_locked_until_it_is_unlocked_or_closed);
        tcase_add_test(tc, somebody_else_s_lock_is_not_waited_for);
        tcase_add_test(tc, a_log_that_was_removed_while_unlocked_is_stale);
        tcase_add_test(tc, a_log_that_was_replaced_while_unlocked_is_stale);
        tcase_add_test(tc, a_log_that_got_another_name_while_unlocked_is_refused);
        tcase_add_test(tc, a_relock_sees_what_was_written_meanwhile);
        tcase_add_test(tc, reading_does_not_put_off_the_refresh);
        tcase_add_test(tc, an_add_keeps_the_time_of_the_last_flush);
        tcase_add_test(tc, a_touched_log_was_flushed_now);
        tcase_add_loop_test(tc, a_prefix_is_replaced_and_the_rest_stays, 0,
                            ARRAY_SIZE(replacements));
        tcase_add_test(tc, after_a_replacement_records_go_to_the_end_again);
        tcase_add_test(tc, a_prefix_of_many_pages_is_replaced);
        tcase_add_loop_test(tc, a_large_removal_has_all_that_stays_at_each_step, 0,
                            ARRAY_SIZE(large));
        tcase_add_loop_test(tc, records_added_between_the_steps_of_a_removal_stay, 0,
                            ARRAY_SIZE(large));
        tcase_add_loop_test(tc, a_removal_keeps_the_order_if_it_can, 0, 5);
        tcase_add_test(tc, a_removal_needs_little_room);
        tcase_add_test(tc, a_removal_without_room_leaves_the_log_as_it_was);
        tcase_add_loop_test(tc, a_large_removal_ends_the_last_line_that_stays, 0, 2);
        tcase_add_test(tc, a_failed_append_leaves_nothing_behind);
        tcase_add_test(tc, a_failed_append_of_many_records_leaves_none_of_them);
        tcase_add_test(tc, a_failed_replacement_leaves_all_records);
        tcase_add_test(tc, a_log_can_be_emptied_on_a_full_disk);
        tcase_add_test(tc, only_an_empty_log_is_removed);
        tcase_add_loop_test(tc, what_is_written_into_a_removed_log_is_rescued, 0, 2);
        tcase_add_test(tc, a_removed_log_that_nobody_has_written_to_is_not_made_anew);
        tcase_add_test(tc, a_log_removed_by_us_is_made_anew_by_the_next_add);
        tcase_add_test(tc, the_stamp_after_a_change_is_the_one_the_next_open_sees);
        tcase_add_test(tc, the_stamp_tells_of_somebody_else_s_record);
        tcase_add_test(tc, the_stamp_tells_of_other_records_of_the_same_length);
        tcase_add_test(tc, the_stamp_tells_of_another_file);
        tcase_add_loop_test(tc, a_log_is_used_where_another_layout_has_it, 0,
                            ARRAY_SIZE(elsewhere));
        tcase_add_test(tc, no_log_is_made_where_nobody_knows_whether_there_is_one);
        tcase_add_test(tc, a_log_of_a_one_letter_site_of_flush8_is_no_hash_directory);
        tcase_add_loop_test(tc, a_log_is_brought_into_an_empty_place, 0, ARRAY_SIZE(elsewhere));
        tcase_add_loop_test(tc, what_is_elsewhere_goes_behind_what_is_in_place, 0, 2);
        tcase_add_test(tc, a_log_of_any_size_is_brought);
        tcase_add_loop_test(tc, a_locked_log_is_brought_later, 0, 2);
        tcase_add_test(tc, a_log_that_somebody_has_open_stays_and_is_brought_again);
        tcase_add_test(tc, what_cannot_be_copied_stays_where_it_was);
        tcase_add_test(tc, what_is_no_log_is_not_brought);
        tcase_add_test(tc, postsuper_in_between_costs_no_record);
        tcase_add_test(tc, a_new_log_in_the_old_place_is_not_removed);
        tcase_add_test(tc, without_noatime_the_access_time_is_put_back);
        tcase_add_test(tc, without_noatime_an_add_keeps_the_time_of_the_last_flush);
        tcase_add_test(tc, without_noatime_a_flush_is_a_flush_and_a_new_log_is_made);
        return run_case("sitelog", tc);
}
