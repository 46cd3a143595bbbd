/* SPDX-License-Identifier: MIT */

/* The configuration: fflushd.conf and, behind a NUL, what postconf(1) prints. Whatever they say,
 * there are settings to serve with, and --check-config prints them in a way that is read back as
 * the same. */

#include <sys/stat.h>

#include "core/queueid.h"
#include "core/settings.h"
#include "fuzz.h"
#include "util/child.h"
#include "util/textfile.h"
#include "util/util.h"

#define FILE_NAME       "/nonexistent/fflushd.conf"
#define N_SETTINGS      18
#define READ_ONLY_FIRST 11 /* mail_version and syslog_name cannot be set */
#define READ_ONLY_LAST  12

static const char *file_text, *postconf_text;
static int postconf_status;

/* In the place of those of the library, which the linker then leaves out: no input can have files
 * or devices opened, or commands run. */
int textfile_read(const char *path, size_t max, char **ret) {
        require(max > 0);
        if (!streq(path, FILE_NAME))
                return -ENOENT;
        *ret = strdup(file_text);
        return *ret ? 0 : -ENOMEM;
}

const char *textfile_strerror(int error) {
        return strerror(-error);
}

int child_run(const char *const argv[], uint64_t timeout_usec, ChildResult *ret) {
        require(argv[0] && argv[1] && timeout_usec > 0);
        *ret = (ChildResult){.status = postconf_status,
                             .output = strdup(postconf_text),
                             .errors = strdup(postconf_text)};
        require(ret->output && ret->errors);
        return 0;
}

int child_start(sd_event *event, const char *const argv[], const char *input, size_t n_input,
                uint64_t timeout_usec, child_done_t done, void *userdata, Child **ret) {
        require(false); /* the settings ask no table */
        return -ENOENT;
}

Child *child_free(Child *child) {
        require(!child);
        return NULL;
}

static void check_usable(const Settings *s) {
        const uint64_t times[] = {s->fast_flush_refresh_time, s->fast_flush_purge_time,
                                  s->trigger_timeout,         s->ipc_timeout,
                                  s->request_timeout,         s->max_idle};

        for (size_t i = 0; i < N_SETTINGS; i++)
                require(s->text[i]);
        for (size_t i = 0; i < ARRAY_SIZE(times); i++)
                require(times[i] >= USEC_PER_SEC && times[i] <= INT32_MAX * USEC_PER_SEC);
        require(s->queue_directory[0] == '/');
        require(s->queue_service_name[0] && !strchr(s->queue_service_name, '/'));
        require(s->hash_queue_depth >= 1 && s->hash_queue_depth <= QUEUEID_FOREST_MAX);
        for (const char *p = s->problems; p && *p; p++)
                require((unsigned char) *p >= ' ' || *p == '\n');
}

static bool is_read_only(size_t i) {
        return i >= READ_ONLY_FIRST && i <= READ_ONLY_LAST;
}

/* "$" in a value would be refused: in main.cf it has a meaning. */
static bool can_be_written(const Settings *s) {
        for (size_t i = 0; i < N_SETTINGS; i++)
                if (!is_read_only(i) && strchr(s->text[i], '$'))
                        return false;
        return true;
}

static void there_and_back(const Settings *s) {
        _cleanup_free_ char *printed = NULL;
        Settings again;
        size_t n;
        FILE *f = open_memstream(&printed, &n);

        require(f);
        settings_print(s, f);
        require(fclose(f) == 0);
        file_text = printed;
        require(settings_load(FILE_NAME, NULL, &again) == 0);
        for (size_t i = 0; i < N_SETTINGS; i++)
                require(is_read_only(i) || streq(s->text[i], again.text[i]));
        settings_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *config = NULL, *output = NULL;
        Settings s;

        if (n == 0)
                return 0;
        (void) unsetenv("CACHE_DIRECTORY"); /* nothing is kept from one input for the next */
        postconf_status = data[0] & 1;
        data++;
        n--;
        config = fuzz_part(&data, &n);
        output = fuzz_part(&data, &n);
        file_text = config;
        postconf_text = output;
        require(settings_load(FILE_NAME, NULL, &s) == 0);
        check_usable(&s);
        if (can_be_written(&s))
                there_and_back(&s);
        settings_done(&s);
        return 0;
}
