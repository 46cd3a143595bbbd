/* SPDX-License-Identifier: MIT */

#include "core/settings.h"

#include <confuse.h>
#include <dirent.h>
#include <limits.h>
#include <stdarg.h>

#include "core/domains.h"
#include "core/queueid.h"
#include "util/escape.h"
#include "util/number.h"
#include "util/textfile.h"
#include "util/timespan.h"
#include "util/util.h"

#define CONFIG_SIZE_MAX  (1024 * 1024)
#define PROBLEM_SIZE     512
#define ANNOUNCING_MAJOR 3 /* Postfix 3.6 is the first whose servers speak first */
#define ANNOUNCING_MINOR 6

typedef enum SettingKind {
        KIND_TEXT,
        KIND_TIME,
        KIND_NUMBER,
        KIND_BOOL,
        KIND_ANNOUNCE, /* auto, on, off */
} SettingKind;

typedef enum SettingSource {
        SOURCE_DEFAULT,
        SOURCE_POSTFIX,
        SOURCE_FILE,
} SettingSource;

typedef enum SettingIndex {
        POSTFIX_CONFIG_DIRECTORY,
        QUEUE_DIRECTORY,
        FAST_FLUSH_DOMAINS,
        PARENT_DOMAIN_MATCHES_SUBDOMAINS,
        FAST_FLUSH_REFRESH_TIME,
        FAST_FLUSH_PURGE_TIME,
        HASH_QUEUE_NAMES,
        HASH_QUEUE_DEPTH,
        QUEUE_SERVICE_NAME,
        TRIGGER_TIMEOUT,
        IPC_TIMEOUT,
        MAIL_VERSION,
        SYSLOG_NAME,
        PROTOCOL_ANNOUNCEMENT,
        REQUEST_TIMEOUT,
        MAX_IDLE,
        MAX_USE,
        SYNC,
        _SETTING_INDEX_MAX,
} SettingIndex;

static const struct {
        const char *name, *value; /* default; Postfix's own where it has the parameter */
        SettingKind kind;
        char unit;      /* of a time without a letter: that of the default (spec 7) */
        bool postfix;   /* taken from postconf(1) if the file is silent */
        bool read_only; /* not allowed in the file */
        long min, max;  /* of a number */
} settings_table[_SETTING_INDEX_MAX] = {
        [POSTFIX_CONFIG_DIRECTORY] = {"postfix_config_directory", "/etc/postfix"},
        [QUEUE_DIRECTORY] = {"queue_directory", "/var/spool/postfix", .postfix = true},
        [FAST_FLUSH_DOMAINS] = {"fast_flush_domains", "", .postfix = true},
        [PARENT_DOMAIN_MATCHES_SUBDOMAINS] = {"parent_domain_matches_subdomains",
                                              "debug_peer_list, fast_flush_domains, mynetworks, "
                                              "permit_mx_backup_networks, "
                                              "qmqpd_authorized_clients, relay_domains, "
                                              "smtpd_access_maps",
                                              .postfix = true},
        [FAST_FLUSH_REFRESH_TIME] = {"fast_flush_refresh_time", "12h", KIND_TIME, 'h', true},
        [FAST_FLUSH_PURGE_TIME] = {"fast_flush_purge_time", "7d", KIND_TIME, 'd', true},
        [HASH_QUEUE_NAMES] = {"hash_queue_names", "deferred, defer", .postfix = true},
        [HASH_QUEUE_DEPTH] = {"hash_queue_depth", "1", KIND_NUMBER, .postfix = true, .min = 1,
                              .max = QUEUEID_FOREST_MAX},
        [QUEUE_SERVICE_NAME] = {"queue_service_name", "qmgr", .postfix = true},
        [TRIGGER_TIMEOUT] = {"trigger_timeout", "10s", KIND_TIME, 's', true},
        [IPC_TIMEOUT] = {"ipc_timeout", "3600s", KIND_TIME, 's', true},
        [MAIL_VERSION] = {"mail_version", "", .postfix = true, .read_only = true},
        [SYSLOG_NAME] = {"syslog_name", "postfix", .postfix = true, .read_only = true},
        [PROTOCOL_ANNOUNCEMENT] = {"protocol_announcement", "auto", KIND_ANNOUNCE},
        [REQUEST_TIMEOUT] = {"request_timeout", "100s", KIND_TIME, 's'},
        [MAX_IDLE] = {"max_idle", "100s", KIND_TIME, 's'},
        [MAX_USE] = {"max_use", "0", KIND_NUMBER, .min = 0, .max = INT_MAX},
        [SYNC] = {"sync", "no", KIND_BOOL},
};

static int find_setting(const char *name) {
        for (int i = 0; i < _SETTING_INDEX_MAX; i++)
                if (streq(name, settings_table[i].name))
                        return i;
        return -1;
}

/* libconfuse has no room for a caller's pointer in its error function. */
static Settings *current;

static void add_problem(Settings *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_problem(Settings *s, const char *format, ...) {
        char text[PROBLEM_SIZE], shown[PROBLEM_SIZE];
        char *joined = NULL;
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        (void) escape_line(text, shown, sizeof shown); /* what is quoted may be anything */
        if (asprintf(&joined, "%s%s%s", s->problems ? s->problems : "", s->problems ? "\n" : "",
                     shown) < 0)
                return; /* out of memory: the problems before this one stay */
        free(s->problems);
        s->problems = joined;
}

static void on_confuse_error(cfg_t *cfg, const char *format, va_list ap) {
        char text[PROBLEM_SIZE];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) vsnprintf(text, sizeof text, format, ap);
#pragma GCC diagnostic pop
        add_problem(current, "%s:%d: %s", cfg && cfg->filename ? cfg->filename : "?",
                    cfg ? cfg->line : 0, text);
}

static bool is_bool(const char *text, bool *ret) {
        *ret = streq(text, "yes");
        return *ret || streq(text, "no");
}

static int parse_number(const char *text, long min, long max, long *ret) {
        unsigned long value;
        int r;

        r = parse_ulong(text, &value);
        if (r < 0)
                return r;
        if (value > LONG_MAX || (long) value < min || (long) value > max)
                return -ERANGE;
        *ret = (long) value;
        return 0;
}

/* Return: NULL, or what is wrong with the value. */
static const char *check_value(SettingIndex i, const char *text) {
        uint64_t usec;
        long number;
        bool yes;

        switch (settings_table[i].kind) {
        case KIND_TIME:
                switch (timespan_parse(text, settings_table[i].unit, &usec)) {
                case 0:
                        return NULL;
                case -ERANGE:
                        return "out of range (at least 1s)";
                default:
                        return "not a time (a number and s, m, h, d or w)";
                }
        case KIND_NUMBER:
                switch (parse_number(text, settings_table[i].min, settings_table[i].max, &number)) {
                case 0:
                        return NULL;
                case -ERANGE:
                        return "out of range";
                default:
                        return "not a number";
                }
        case KIND_BOOL:
                return is_bool(text, &yes) ? NULL : "neither \"yes\" nor \"no\"";
        case KIND_ANNOUNCE:
                return streq(text, "auto") || streq(text, "on") || streq(text, "off")
                               ? NULL
                               : "none of \"auto\", \"on\", \"off\"";
        default:
                if (i == QUEUE_DIRECTORY && text[0] != '/')
                        return "not an absolute path";
                if (i == QUEUE_SERVICE_NAME && (text[0] == '\0' || strchr(text, '/')))
                        return "not a service name";
                return NULL;
        }
}

/* "$relay_domains" would be taken for a domain; a "$" at the end of a pattern is allowed. */
static bool has_parameter(const char *text) {
        for (; (text = strchr(text, '$')); text++)
                if (text[1] == '{' || text[1] == '(' || (text[1] >= 'a' && text[1] <= 'z'))
                        return true;
        return false;
}

static int on_confuse_value(cfg_t *cfg, cfg_opt_t *opt) {
        const char *value = cfg_opt_getnstr(opt, 0), *why;
        int i = find_setting(cfg_opt_name(opt));

        why = has_parameter(value) ? "main.cf's $name means nothing here"
                                   : check_value((SettingIndex) i, value);
        if (!why)
                return 0;
        cfg_error(cfg, "%s = \"%s\": %s", settings_table[i].name, value, why);
        return -1;
}

static int set_value(Settings *s, SettingIndex i, const char *value, SettingSource source) {
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(s->text[i]);
        s->text[i] = copy;
        s->source[i] = (unsigned char) source;
        return 0;
}

/* @path: the file that sets it; NULL: out of memory. */
static int set_from_file(Settings *s, SettingIndex i, const char *value, const char *path) {
        char *copy = path ? strdup(path) : NULL;

        if (!copy)
                return -ENOMEM;
        free(s->paths[i]);
        s->paths[i] = copy;
        return set_value(s, i, value, SOURCE_FILE);
}

static int take_values(Settings *s, cfg_t *cfg) {
        for (int i = 0; i < _SETTING_INDEX_MAX; i++) {
                cfg_opt_t *opt;
                int r;

                if (settings_table[i].read_only)
                        continue;
                opt = cfg_getopt(cfg, settings_table[i].name);
                if (cfg_opt_size(opt) == 0)
                        continue;
                r = set_from_file(s, (SettingIndex) i, cfg_opt_getnstr(opt, 0), cfg->filename);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* libconfuse 3.3 counts the lines of comments twice, so comments become blanks. Not those in
 * quotes, nor a "//" or "/" "*" inside of an unquoted path. */
static bool blank_comments(char *text) {
        char quote = '\0';

        for (char *p = text; *p; p++) {
                bool at_start = p == text || strchr(" \t\n={}(),+", p[-1]);

                if (quote != '\0') {
                        if (*p == '\\' && p[1])
                                p++;
                        else if (*p == quote)
                                quote = '\0';
                } else if (*p == '"' || *p == '\'')
                        quote = *p;
                else if (*p == '#' || (at_start && p[0] == '/' && p[1] == '/')) {
                        size_t n = strcspn(p, "\n");

                        memset(p, ' ', n);
                        p += n - 1;
                } else if (at_start && p[0] == '/' && p[1] == '*') {
                        char *end = strstr(p + 2, "*/");

                        if (!end)
                                return false; /* without an end, and libconfuse would not mind */
                        for (; p < end + 1; p++)
                                if (*p != '\n')
                                        *p = ' ';
                        *p = ' ';
                }
        }
        return true;
}

static int parse_text(Settings *s, const char *path, char *text) {
        cfg_opt_t opts[_SETTING_INDEX_MAX + 1];
        size_t n = 0;
        cfg_t *cfg;
        FILE *f;
        int r = 0;

        for (int i = 0; i < _SETTING_INDEX_MAX; i++)
                if (!settings_table[i].read_only)
                        opts[n++] =
                                (cfg_opt_t) CFG_STR(settings_table[i].name, NULL, CFGF_NODEFAULT);
        opts[n] = (cfg_opt_t) CFG_END();
        f = fmemopen(text, strlen(text), "r");
        cfg = f ? cfg_init(opts, CFGF_NONE) : NULL;
        if (!cfg) {
                if (f)
                        (void) fclose(f);
                return -ENOMEM;
        }
        (void) cfg_set_error_function(cfg, on_confuse_error);
        for (size_t i = 0; i < n; i++)
                (void) cfg_set_validate_func(cfg, opts[i].name, on_confuse_value);
        cfg->filename = strdup(path);
        current = s;
        errno = 0;
        if (cfg_parse_fp(cfg, f) == CFG_SUCCESS) /* on_confuse_error() has noted the rest */
                r = take_values(s, cfg);
        else if (errno == ENOMEM) /* no fault of the file, so no reason to serve without it */
                r = -ENOMEM;
        else
                s->broken = true;
        (void) cfg_free(cfg);
        (void) fclose(f);
        return r;
}

static int parse_file(Settings *s, const char *path) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = filestamp_add(&s->files, path);
        if (r < 0)
                return r;
        r = textfile_read(path, CONFIG_SIZE_MAX, &text);
        if (r < 0) {
                add_problem(s, "%s: %s", path, textfile_strerror(r));
                s->broken = true;
                return r == -ENOMEM ? r : 0;
        }
        if (!blank_comments(text)) {
                add_problem(s, "%s: a comment without an end", path);
                s->broken = true;
                return 0;
        }
        return text[0] ? parse_text(s, path, text) : 0;
}

static int is_conf(const struct dirent *e) {
        size_t n = strlen(e->d_name);

        return e->d_name[0] != '.' && n > strlen(".conf") &&
               streq(e->d_name + n - strlen(".conf"), ".conf");
}

static int parse_drop_ins(Settings *s, const char *file) {
        const char *slash = strrchr(file, '/');
        _cleanup_free_ char *dir = NULL;
        struct dirent **entries = NULL;
        int n, r = 0;

        if (asprintf(&dir, "%.*sconf.d", slash ? (int) (slash - file) + 1 : 0, file) < 0)
                return -ENOMEM;
        r = filestamp_add(&s->files, dir);
        if (r < 0)
                return r;
        n = scandir(dir, &entries, is_conf, alphasort);
        if (n < 0 && errno == ENOMEM)
                return -ENOMEM;
        if (n < 0 && errno != ENOENT) {
                add_problem(s, "%s: %s", dir, strerror(errno));
                s->broken = true;
        }
        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *path = NULL;

                if (r == 0 && asprintf(&path, "%s/%s", dir, entries[i]->d_name) < 0)
                        r = -ENOMEM;
                if (r == 0)
                        r = parse_file(s, path);
                free(entries[i]);
        }
        free(entries);
        return r;
}

/* Each file by itself: one that is broken takes nothing from the others. */
static int load_files(Settings *s, const char *file, bool may_be_missing) {
        int r = 0;

        if (may_be_missing && access(file, F_OK) < 0)
                r = filestamp_add(&s->files, file);
        else
                r = parse_file(s, file);
        return r < 0 ? r : parse_drop_ins(s, file);
}

/* "name = value", one a line; a parameter that this Postfix does not know is left out. */
static int take_postconf(Settings *s, char *output) {
        for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n")) {
                char *value = strstr(line, " =");
                const char *why;
                int i;

                if (!value)
                        continue;
                *value = '\0';
                value += strlen(" =");
                value += strspn(value, " ");
                i = find_setting(line);
                if (i < 0 || !settings_table[i].postfix || s->source[i] == SOURCE_FILE)
                        continue;
                why = check_value((SettingIndex) i, value);
                if (why) {
                        add_problem(s, "main.cf: %s = %s: %s", line, value, why);
                        continue;
                }
                if (set_value(s, (SettingIndex) i, value, SOURCE_POSTFIX) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* All that is not in the files. The program is watched as well: another release of Postfix has
 * other defaults, and perhaps the other dialect. */
static int make_query(Settings *s) {
        const char *dir = s->text[POSTFIX_CONFIG_DIRECTORY], **argv;
        size_t n = 0;
        int r;

        if (dir[0] == '\0')
                return 0;
        if (asprintf(&s->main_cf, "%s/main.cf", dir) < 0) {
                s->main_cf = NULL;
                return -ENOMEM;
        }
        r = filestamp_add(&s->files, s->main_cf);
        if (r == 0)
                r = filestamp_add(&s->files, POSTFIX_COMMAND_DIR "/postconf");
        if (r < 0)
                return r;
        argv = calloc(_SETTING_INDEX_MAX + 5, sizeof *argv);
        if (!argv)
                return -ENOMEM;
        argv[n++] = POSTFIX_COMMAND_DIR "/postconf";
        argv[n++] = "-c";
        argv[n++] = dir;
        argv[n++] = "-x";
        for (int i = 0; i < _SETTING_INDEX_MAX; i++)
                if (settings_table[i].postfix && s->source[i] != SOURCE_FILE)
                        argv[n++] = settings_table[i].name;
        s->query = (PostconfQuery){.argv = argv,
                                   .main_cf = s->main_cf,
                                   /* systemd sets it, by CacheDirectory=. */
                                   .directory = getenv("CACHE_DIRECTORY")};
        return 0;
}

static uint64_t time_of(const Settings *s, SettingIndex i) {
        uint64_t usec = 0;

        (void) timespan_parse(s->text[i], settings_table[i].unit, &usec); /* checked before */
        return usec;
}

static unsigned number_of(const Settings *s, SettingIndex i) {
        long number = 0;

        (void) parse_number(s->text[i], settings_table[i].min, settings_table[i].max,
                            &number); /* checked before */
        return (unsigned) number;
}

static bool announces(const Settings *s) {
        const char *version = s->text[MAIL_VERSION], *minor_text;
        long major, minor;
        char *end;

        if (!streq(s->text[PROTOCOL_ANNOUNCEMENT], "auto"))
                return streq(s->text[PROTOCOL_ANNOUNCEMENT], "on");
        major = strtol(version, &end, 10);
        if (end == version || *end != '.')
                return true;
        minor_text = end + 1;
        minor = strtol(minor_text, &end, 10);
        if (end == minor_text)
                return true;
        return major > ANNOUNCING_MAJOR || (major == ANNOUNCING_MAJOR && minor >= ANNOUNCING_MINOR);
}

/* Tables are not asked here. */
static const char *const no_postmap[] = {"postmap", NULL};

/* The list is matched like any other, but for names of parameters, so exactly. */
static int find_subdomains(Settings *s) {
        _cleanup_free_ char *problem = NULL;
        const char *why = "a table cannot be used here";
        DomainsAnswer answer;
        Domains *d;
        int r;

        r = domains_new(s->text[PARENT_DOMAIN_MATCHES_SUBDOMAINS], false, no_postmap, &d, &problem);
        if (r < 0)
                return r;
        answer = domains_match(d, settings_table[FAST_FLUSH_DOMAINS].name, &why);
        if (answer == DOMAINS_ERROR || answer == DOMAINS_PENDING)
                add_problem(s, "%s: %s", settings_table[PARENT_DOMAIN_MATCHES_SUBDOMAINS].name,
                            why);
        s->subdomains = answer != DOMAINS_NO;
        domains_free(d);
        return 0;
}

static int check_domains(Settings *s) {
        _cleanup_free_ char *problem = NULL;
        Domains *d;
        int r;

        r = domains_new(s->text[FAST_FLUSH_DOMAINS], s->subdomains, no_postmap, &d, &problem);
        if (r < 0)
                return r;
        if (problem)
                add_problem(s, "%s: %s", settings_table[FAST_FLUSH_DOMAINS].name, problem);
        domains_free(d);
        return 0;
}

/* What decides where a message or a log is, and who may. A wrong guess would make messages count
 * as gone, and their records with them. */
static bool is_incomplete(const Settings *s) {
        static const SettingIndex vital[] = {QUEUE_DIRECTORY, FAST_FLUSH_DOMAINS, HASH_QUEUE_NAMES,
                                             HASH_QUEUE_DEPTH, PARENT_DOMAIN_MATCHES_SUBDOMAINS};

        for (size_t i = 0; i < ARRAY_SIZE(vital); i++)
                if (s->source[vital[i]] == SOURCE_DEFAULT)
                        return s->text[POSTFIX_CONFIG_DIRECTORY][0] != '\0';
        return false;
}

static void fill_in(Settings *s) {
        s->queue_directory = s->text[QUEUE_DIRECTORY];
        s->fast_flush_domains = s->text[FAST_FLUSH_DOMAINS];
        s->incomplete = is_incomplete(s);
        s->hash_queue_names = s->text[HASH_QUEUE_NAMES];
        s->queue_service_name = s->text[QUEUE_SERVICE_NAME];
        s->syslog_name = s->text[SYSLOG_NAME];
        s->postfix_config_directory = s->text[POSTFIX_CONFIG_DIRECTORY];
        s->announce = announces(s);
        (void) is_bool(s->text[SYNC], &s->sync); /* checked before */
        s->hash_queue_depth = number_of(s, HASH_QUEUE_DEPTH);
        s->max_use = number_of(s, MAX_USE);
        s->fast_flush_refresh_time = time_of(s, FAST_FLUSH_REFRESH_TIME);
        s->fast_flush_purge_time = time_of(s, FAST_FLUSH_PURGE_TIME);
        s->trigger_timeout = time_of(s, TRIGGER_TIMEOUT);
        s->ipc_timeout = time_of(s, IPC_TIMEOUT);
        s->request_timeout = time_of(s, REQUEST_TIMEOUT);
        s->max_idle = time_of(s, MAX_IDLE);
}

/* Further instances of Postfix have their configuration in /etc/NAME, as this one has it. */
static int set_defaults(Settings *s, const char *instance) {
        _cleanup_free_ char *directory = NULL;
        int r = 0;

        for (int i = 0; i < _SETTING_INDEX_MAX && r == 0; i++)
                r = set_value(s, (SettingIndex) i, settings_table[i].value, SOURCE_DEFAULT);
        if (r < 0 || !instance)
                return r;
        if (asprintf(&directory, "/etc/%s", instance) < 0)
                return -ENOMEM;
        r = set_value(s, SYSLOG_NAME, instance, SOURCE_DEFAULT);
        return r < 0 ? r : set_value(s, POSTFIX_CONFIG_DIRECTORY, directory, SOURCE_DEFAULT);
}

static int begin(Settings *s) {
        _cleanup_free_ char *own = NULL;
        int r;

        r = set_defaults(s, s->instance);
        if (r < 0)
                return r;
        if (s->instance && asprintf(&own, SETTINGS_DIR "/%s/fflushd.conf", s->instance) < 0)
                return -ENOMEM;
        r = load_files(s, s->file ? s->file : own ? own : SETTINGS_FILE, !s->file);
        return r < 0 ? r : make_query(s);
}

int settings_begin(const char *file, const char *instance, Settings *ret) {
        Settings s = {.file = file,
                      .instance = instance,
                      .text = calloc(_SETTING_INDEX_MAX, sizeof *s.text),
                      .paths = calloc(_SETTING_INDEX_MAX, sizeof *s.paths),
                      .source = calloc(_SETTING_INDEX_MAX, sizeof *s.source)};
        int r = s.text && s.paths && s.source ? begin(&s) : -ENOMEM;

        if (r < 0) {
                settings_done(&s);
                return r;
        }
        *ret = s;
        return 0;
}

int settings_finish(Settings *s, char *output, const char *problem) {
        int r = 0;

        if (problem)
                add_problem(s, "%s", problem);
        if (output)
                r = take_postconf(s, output);
        if (r < 0)
                return r;
        s->unasked = s->query.argv && !output;
        fill_in(s);
        r = find_subdomains(s);
        return r < 0 ? r : check_domains(s);
}

static int ask(Settings *s, bool hurry) {
        _cleanup_free_ char *output = NULL, *problem = NULL;
        bool up_to_date = true;
        int r;

        if (!s->query.argv)
                return settings_finish(s, NULL, NULL);
        if (!hurry || postconf_kept(&s->query, &output, &up_to_date) < 0) {
                r = postconf_ask(&s->query, &output, &problem);
                if (r == -ENOMEM)
                        return r;
        }
        s->outdated = !up_to_date;
        return settings_finish(s, output, problem);
}

static int load(const char *file, const char *instance, bool hurry, Settings *ret) {
        Settings s;
        int r = settings_begin(file, instance, &s);

        if (r < 0)
                return r;
        r = ask(&s, hurry);
        if (r < 0) {
                settings_done(&s);
                return r;
        }
        *ret = s;
        return 0;
}

int settings_load(const char *file, const char *instance, Settings *ret) {
        return load(file, instance, false, ret);
}

int settings_start(const char *file, const char *instance, Settings *ret) {
        int r = load(file, instance, true, ret);

        /* The queue has moved: nobody can serve at the old place until there are new settings. */
        if (r < 0 || !ret->outdated || access(ret->queue_directory, F_OK) == 0)
                return r;
        settings_done(ret);
        return load(file, instance, false, ret);
}

static void free_each(char **texts) {
        for (int i = 0; i < _SETTING_INDEX_MAX && texts; i++)
                free(texts[i]);
        free(texts);
}

void settings_done(Settings *s) {
        free_each(s->text);
        free_each(s->paths);
        free(s->source);
        free(s->problems);
        free(s->query.argv);
        free(s->main_cf);
        filestamp_free(s->files);
        *s = (Settings){0};
}

bool settings_changed(const Settings *s) {
        return s->outdated || filestamp_changed(s->files);
}

bool settings_improve(const Settings *s, const Settings *old) {
        return s->incomplete <= old->incomplete && s->broken <= old->broken &&
               s->unasked <= old->unasked;
}

/* Only in double quotes has libconfuse escapes, and variables. */
static void print_escaped(const char *text, FILE *f) {
        (void) fputc('"', f);
        for (; *text; text++)
                if (*text >= ' ' && *text < 0x7f && !strchr("\"\\$", *text))
                        (void) fputc(*text, f);
                else
                        (void) fprintf(f, "\\x%02x", (unsigned char) *text);
        (void) fputc('"', f);
}

static bool is_printable(const char *text) {
        size_t size = 4 * strlen(text) + 1;
        char *shown = malloc(size);
        bool same = shown && streq(escape_line(text, shown, size), text);

        free(shown);
        return same;
}

/* As libconfuse reads it back. */
static void print_quoted(const char *text, FILE *f) {
        if (!is_printable(text)) {
                print_escaped(text, f);
                return;
        }
        (void) fputc('\'', f);
        for (; *text; text++) {
                if (*text == '\'' || *text == '\\')
                        (void) fputc('\\', f);
                (void) fputc(*text, f);
        }
        (void) fputc('\'', f);
}

void settings_print(const Settings *s, FILE *f) {
        static const char *const sources[] = {"default", "Postfix"};
        char shown[PATH_MAX];

        for (int i = 0; i < _SETTING_INDEX_MAX; i++) {
                (void) fprintf(f, "%s%s = ", settings_table[i].read_only ? "# " : "",
                               settings_table[i].name);
                print_quoted(s->text[i], f);
                (void) fprintf(f, " # %s\n",
                               s->source[i] == SOURCE_FILE
                                       ? escape_line(s->paths[i], shown, sizeof shown)
                                       : sources[s->source[i]]);
        }
}
