/* SPDX-License-Identifier: MIT */

/* Going through a log with any content. Of the IDs in it some have a message in deferred, some on
 * hold; in the end each of those must be where it belongs, and still or no longer recorded. Input:
 * a byte that says what is done, then the log. */

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "daemon/journal.h"
#include "daemon/send.h"
#include "fuzz.h"
#include "util/util.h"

#define NAME         "example_com"
#define PATH         "flush/" NAME
#define ADDED        "ADDEDMEANWHILE"
#define MESSAGES_MAX 4u

/* Of the first byte. */
#define FLAG_KIND 3u    /* which SendKind */
#define FLAG_ADD  4u    /* record one more in the middle of it */
#define FLAG_MOVE 8u    /* some messages are deferred */
#define FLAG_HOLD 16u   /* some are on hold */
#define FLAG_LONG 0xe0u /* all of these: repeat the input until it takes two reads; seldom */

/* Of the same bits, this value: send a portion of one message first, then the rest. */
#define FLAG_PORTION 0x20u

#define LONG         70000u /* bytes */

static char dir[] = "/tmp/fflushd-fuzz.XXXXXX", shm[] = "/dev/shm/fflushd-fuzz.XXXXXX";
static const char *spool;
static Queue queue = {.fd = -EBADF, .hash_depth = 1, .hashed[QUEUE_DEFERRED] = true};
static sd_event *event;
static Jobs jobs;
static Trigger trigger;
static SendResult result;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

static void clean_up(void) {
        trigger_done(&trigger);
        jobs_done(&jobs);
        event = sd_event_unref(event);
        closep(&queue.fd);
        (void) nftw(spool, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void set_up(void) {
        static const char *const dirs[] = {"incoming", "active", "deferred", "hold", "flush"};

        (void) setenv("SYSTEMD_LOG_LEVEL", "emerg", 1);
        journal_open();
        spool = mkdtemp(shm); /* in memory, if there is such a place */
        if (!spool)
                spool = mkdtemp(dir);
        require(spool);
        queue.fd = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        require(queue.fd >= 0);
        for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
                require(mkdirat(queue.fd, dirs[i], 0700) == 0);
        require(sd_event_new(&event) >= 0);
        require(jobs_init(&jobs, event) == 0);
        require(trigger_init(&trigger, event, queue.fd, "qmgr", USEC_PER_SEC) == 0);
        (void) atexit(clean_up);
}

static void put(const char *path, const char *data, size_t n) {
        _cleanup_close_ int fd = -EBADF;

        require(queue_make_dirs(&queue, path) == 0);
        fd = openat(queue.fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
        require(fd >= 0 && write(fd, data, n) == (ssize_t) n);
}

/* What the log should mean, by the plainest of readings. */
typedef struct Model {
        StrSet ids, moved, held;
        unsigned long n_lines, n_found, n_invalid;
} Model;

static void put_messages(Model *m, const char *id, unsigned flags) {
        unsigned hash = 0;
        char path[QUEUE_PATH_SIZE];

        for (const char *p = id; *p; p++)
                hash = hash * 31 + (unsigned char) *p;
        if (hash % 4 == 0 && (flags & FLAG_MOVE) && strset_size(&m->moved) < MESSAGES_MAX) {
                queue_path(&queue, QUEUE_DEFERRED, id, path);
                put(path, "mail", 4);
                require(strset_add(&m->moved, id) == 1);
        } else if (hash % 4 == 1 && (flags & FLAG_HOLD) && strset_size(&m->held) < MESSAGES_MAX) {
                queue_path(&queue, QUEUE_HOLD, id, path);
                put(path, "mail", 4);
                require(strset_add(&m->held, id) == 1);
        }
}

static void read_line(Model *m, const char *line, size_t n, unsigned flags) {
        _cleanup_free_ char *id = fuzz_text((const uint8_t *) line, n);
        size_t n_id = strlen(id); /* up to a NUL, if it has one */

        m->n_lines++;
        if (n == 0)
                return;
        if (!queueid_valid(id, n_id)) {
                m->n_invalid++;
                return;
        }
        m->n_found++;
        if (strset_add(&m->ids, id) == 1)
                put_messages(m, id, flags);
}

static Model read_log(const char *text, size_t n, unsigned flags) {
        Model m = {.n_lines = 0};

        while (n > 0) {
                const char *newline = memchr(text, '\n', n);
                size_t n_line = newline ? (size_t) (newline - text) : n;

                read_line(&m, text, n_line, flags);
                text += n_line + (newline != NULL);
                n -= n_line + (newline != NULL);
        }
        return m;
}

static void on_done(Site *site, const SendResult *r, Call *calls, void *userdata) {
        result = *r;
}

static void on_added(Call *call, int error, void *userdata) {
        require(error == 0);
}

static void add(Sites *sites, Site *site) {
        Call call = {.request = {.kind = REQUEST_ADD, .queue_id = ADDED}, .site = site};

        sites_put_add(sites, site, &call);
        require(!sites_write(sites, on_added, NULL));
}

static char *read_back(size_t *n) {
        _cleanup_close_ int fd = openat(queue.fd, PATH, O_RDONLY | O_CLOEXEC);
        struct stat st;
        char *text;

        require(fd >= 0 && fstat(fd, &st) == 0);
        text = malloc((size_t) st.st_size + 1);
        require(text && read(fd, text, (size_t) st.st_size) == st.st_size);
        *n = (size_t) st.st_size;
        text[*n] = '\0';
        return text;
}

static void check_counts(const Model *m) {
        const RequestCounts *c = &result.counts;

        require(result.error == 0 && c->found == m->n_found && c->invalid == m->n_invalid);
        require(c->duplicate == m->n_found - strset_size(&m->ids) && c->failed == 0);
        if (result.kind == SEND_COMPACT)
                return;
        require(c->moved == strset_size(&m->moved) && c->busy == strset_size(&m->held));
        require(c->found == c->moved + c->gone + c->busy + c->duplicate);
}

static void check_log(const Model *before, const char *text, size_t n, bool added) {
        size_t n_after;
        _cleanup_free_ char *after = read_back(&n_after);
        Model m = read_log(after, n_after, 0);
        bool is_compact = result.kind == SEND_COMPACT;
        StrSet expected = is_compact ? before->ids : before->held;

        if (is_compact && !result.shortened) {
                require(n_after >= n && memcmp(after, text, n) == 0);
                require(before->n_invalid == 0 && before->n_lines <= 2 * strset_size(&expected));
        } else
                require(m.n_invalid == 0 && m.n_found == strset_size(&expected) + added);
        require(!added || strset_contains(&m.ids, ADDED));
        require(strset_size(&m.ids) == strset_size(&expected) + added);
        for (const StrSetEntry *e = strset_next(&expected, NULL); e; e = strset_next(&expected, e))
                require(strset_contains(&m.ids, strset_entry_id(e)));
        strset_clear(&m.ids);
}

/* Each message must be in its queue, and is then removed. */
static void take_messages(const StrSet *ids, QueueName name) {
        for (const StrSetEntry *e = strset_next(ids, NULL); e; e = strset_next(ids, e)) {
                char path[QUEUE_PATH_SIZE];

                queue_path(&queue, name, strset_entry_id(e), path);
                require(unlinkat(queue.fd, path, 0) == 0);
        }
}

static bool run(SendContext *context, Site *site, unsigned flags, unsigned long limit) {
        bool added = false;

        require(send_start(context, site, (SendKind) ((flags & FLAG_KIND) % 3), limit) == 0);
        while (send_is_running(site)) {
                jobs_step(&jobs);
                if ((flags & FLAG_ADD) && send_is_running(site) && !added) {
                        add(context->sites, site);
                        added = true;
                }
        }
        return added;
}

static void send_portion(SendContext *context, Site *site, const Model *m) {
        const RequestCounts *c = &result.counts;

        (void) run(context, site, SEND_SITE, 1);
        require(result.error == 0 && c->moved <= 1 && (c->moved == 1 || c->left == 0));
        require(c->found + c->left == m->n_found && c->invalid <= m->n_invalid);
}

static char *make_log(const uint8_t *data, size_t n, unsigned flags, size_t *ret_n) {
        size_t times = (flags & FLAG_LONG) == FLAG_LONG && n > 0 ? LONG / n + 1 : 1;
        char *text = malloc(times * n + 1);

        require(text);
        for (size_t i = 0; i < times && n > 0; i++)
                memcpy(text + i * n, data, n);
        *ret_n = times * n;
        return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *text = NULL;
        SendContext context = {.queue = &queue,
                               .lock_usec = USEC_PER_SEC,
                               .jobs = &jobs,
                               .trigger = &trigger,
                               .done = on_done};
        Sites sites;
        Site *site;
        Model m;
        bool added, in_portions;
        unsigned flags;

        if (n == 0)
                return 0;
        if (!spool)
                set_up();
        flags = data[0];
        in_portions = (flags & FLAG_LONG) == FLAG_PORTION;
        if (in_portions)
                flags &= ~FLAG_KIND;
        text = make_log(data + 1, n - 1, flags, &n);
        (void) unlinkat(queue.fd, PATH, 0);
        put(PATH, text, n);
        m = read_log(text, n, flags);

        sites_init(&sites, &queue, false, USEC_PER_SEC);
        context.sites = &sites;
        site = sites_get(&sites, NAME);
        require(site);
        if (in_portions)
                send_portion(&context, site, &m);
        added = run(&context, site, flags, 0) && !strset_contains(&m.ids, ADDED);
        if (!in_portions)
                check_counts(&m);
        check_log(&m, text, n, added);
        take_messages(&m.moved, result.kind == SEND_COMPACT ? QUEUE_DEFERRED : QUEUE_INCOMING);
        take_messages(&m.held, QUEUE_HOLD);
        sites_done(&sites);
        strset_clear(&m.ids);
        strset_clear(&m.moved);
        strset_clear(&m.held);
        return 0;
}
