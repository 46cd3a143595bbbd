/* SPDX-License-Identifier: MIT */

/* fflushctl(8): options, the table of commands. */

#include <assert.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>

#include "core/request.h"
#include "ctl/commands.h"
#include "ctl/ctl-help.h"
#include "ctl/ctl-print.h"
#include "ctl/hosts.h"
#include "ctl/relay.h"
#include "ctl/remote.h"
#include "util/cmdline.h"
#include "util/grow.h"
#include "util/number.h"
#include "util/timespan.h"
#include "util/util.h"

#define MANY (-1)

static const Verb verbs[] = {
        {"list", "[PATTERN...]", 0, MANY,
         CTL_SUBDOMAINS | CTL_BY | CTL_TOP | CTL_TABLE | CTL_LIST | CTL_ALL, ctl_list, VERB_LOOK,
         "list the destinations that mail waits for"},
        {"show", "PATTERN...|ID...", 1, MANY,
         CTL_SUBDOMAINS | CTL_BY | CTL_TOP | CTL_TABLE | CTL_IDS, ctl_show, VERB_LOOK,
         "list the messages of a destination, or these"},
        {"flush", "PATTERN...|-|--all", 0, MANY,
         CTL_ALL | CTL_SUBDOMAINS | CTL_DRY_RUN | CTL_WAIT | CTL_LIMIT | CTL_EVERY | CTL_REASON,
         ctl_flush, VERB_ACT, "deliver all mail for these destinations now"},
        {"watch", "PATTERN|ID...", 1, MANY, CTL_SUBDOMAINS, ctl_watch, VERB_LOOK,
         "follow mail that is already on its way"},
        {"deliver", "ID...|-", 1, MANY, CTL_DRY_RUN | CTL_WAIT | CTL_REASON, ctl_deliver, VERB_ACT,
         "deliver these messages now"},
        {"add", "SITE ID", 2, 2, 0, ctl_add, VERB_ACT,
         "record that a message waits for a destination"},
        {"refresh", "", 0, 0, CTL_REASON, ctl_refresh, VERB_ACT,
         "flush what has not been flushed for long"},
        {"purge", "", 0, 0, CTL_REASON, ctl_purge, VERB_ACT,
         "the same as flush --all; deletes nothing"},
        {"import", "[-]", 0, 1, CTL_DRY_RUN, ctl_import, VERB_ACT,
         "record mail that is already deferred"},
        {"history", "[PATTERN...]", 0, MANY, CTL_SUBDOMAINS | CTL_TOP | CTL_SINCE, ctl_history,
         VERB_LOOK, "tell who flushed what, and what became of it"},
        {"verify", "", 0, 0, CTL_REPAIR, ctl_verify, VERB_LOOK, "check the logs"},
        {"status", "", 0, 0, CTL_NO_START, ctl_status, VERB_LOOK,
         "tell whether mail is recorded and flushed"},
        {"check", "", 0, 0, CTL_THRESHOLD, ctl_check, VERB_LOOK,
         "tell status in one line, for Nagios and Icinga"},
        {"metrics", "[PATTERN...]", 0, MANY, CTL_SUBDOMAINS | CTL_TOP | CTL_OUTPUT, ctl_metrics,
         VERB_LOOK, "print metrics for Prometheus"},
        {"enable-postfix", "", 0, 0, CTL_DRY_RUN, ctl_enable_postfix, VERB_SET_UP,
         "make Postfix use fflushd"},
        {"disable-postfix", "", 0, 0, CTL_DRY_RUN, ctl_disable_postfix, VERB_SET_UP,
         "make Postfix use flush(8) again"},
        {"export", "", 0, 0, CTL_DRY_RUN, ctl_export, VERB_SET_UP,
         "rename logs for flush(8), as disable-postfix does"},
};

static const Option options[] = {
        {"config", 'c', OPT_TEXT, offsetof(Ctl, config), 0, "FILE", "configuration of fflushd"},
        {"instance", 'i', OPT_TEXT, offsetof(Ctl, instance), 0, "NAME",
         "of a further Postfix instance"},
        {"socket", 's', OPT_TEXT, offsetof(Ctl, socket), 0, "PATH", "the socket (public/fflushd)"},
        {"host", 'H', OPT_TEXT, offsetof(Ctl, host), 0, "HOST,@GROUP",
         "run the command on other hosts, over ssh"},
        {"timeout", 't', OPT_TIME, offsetof(Ctl, timeout), 0, NULL, "stop waiting after this time"},
        {"quiet", 'q', OPT_FLAG, offsetof(Ctl, quiet), 0, NULL, "print errors only"},
        {"json", 'j', OPT_FLAG, offsetof(Ctl, json), 0, NULL, "print objects for programs"},
        {"dry-run", 'n', OPT_FLAG, offsetof(Ctl, dry_run), CTL_DRY_RUN, NULL,
         "change nothing, tell what would be done"},
        {"subdomains", 'S', OPT_FLAG, offsetof(Ctl, subdomains), CTL_SUBDOMAINS, NULL,
         "include subdomains"},
        {"by", 'b', OPT_TEXT, offsetof(Ctl, by), CTL_BY, "COLUMN", "sort by this column"},
        {"top", 0, OPT_NUMBER, offsetof(Ctl, top), CTL_TOP, NULL,
         "only the first N; of history, the last N"},
        {"all", 'a', OPT_FLAG, offsetof(Ctl, all), CTL_ALL, NULL, "all destinations"},
        {"long", 0, OPT_FLAG, offsetof(Ctl, long_list), CTL_LIST, NULL,
         "with records and messages"},
        {"match", 0, OPT_TEXT, offsetof(Ctl, match), CTL_LIST, NULL,
         "only with this text in the reason"},
        {"older-than", 0, OPT_TIME, offsetof(Ctl, older_than), CTL_LIST, NULL,
         "only with messages older than that"},
        {"watch", 0, OPT_TIME, offsetof(Ctl, watch), CTL_LIST, NULL,
         "show it again at this interval"},
        {"ids", 0, OPT_FLAG, offsetof(Ctl, ids), CTL_IDS, NULL, "queue IDs only"},
        {"reverse", 0, OPT_FLAG, offsetof(Ctl, reverse), CTL_TABLE, NULL,
         "sort the other way round"},
        {"no-legend", 0, OPT_FLAG, offsetof(Ctl, no_legend), CTL_TABLE, NULL,
         "without titles and sums"},
        {"no-pager", 0, OPT_FLAG, offsetof(Ctl, no_pager), CTL_TABLE, NULL,
         "print at once, not page by page"},
        {"since", 0, OPT_TEXT, offsetof(Ctl, since), CTL_SINCE, "TIME",
         "from then on: today, yesterday, 2h, YYYY-MM-DD [HH:MM]"},
        {"limit", 'l', OPT_NUMBER, offsetof(Ctl, limit), CTL_LIMIT, NULL,
         "at most N messages of each destination"},
        {"every", 'e', OPT_TIME, offsetof(Ctl, every), CTL_EVERY, NULL, "repeat at this interval"},
        {"stop-if-deferred", 0, OPT_NUMBER, offsetof(Ctl, stop_if_deferred), CTL_EVERY, "PERCENT",
         "stop when this much of it is deferred again"},
        {"reason", 'r', OPT_TEXT, offsetof(Ctl, reason), CTL_REASON, NULL,
         "a reason for the journal"},
        {"wait", 'w', OPT_FLAG, offsetof(Ctl, wait), CTL_WAIT, NULL,
         "follow the mail, report what became of it"},
        {"repair", 0, OPT_FLAG, offsetof(Ctl, repair), CTL_REPAIR, NULL,
         "repair what can be repaired safely; deletes no mail"},
        {"output", 'o', OPT_TEXT, offsetof(Ctl, output), CTL_OUTPUT, "FILE", "write to this file"},
        {"no-start", 0, OPT_FLAG, offsetof(Ctl, no_start), CTL_NO_START, NULL,
         "only look, do not test the service"},
        {"oldest-warning", 0, OPT_TIME, offsetof(Ctl, oldest_warning), CTL_THRESHOLD, NULL,
         "alert if the oldest message is older"},
        {"oldest-critical", 0, OPT_TIME, offsetof(Ctl, oldest_critical), CTL_THRESHOLD, NULL,
         "alert if the oldest message is older"},
        {"deferred-warning", 0, OPT_NUMBER, offsetof(Ctl, deferred_warning), CTL_THRESHOLD, NULL,
         "alert if more messages are deferred"},
        {"deferred-critical", 0, OPT_NUMBER, offsetof(Ctl, deferred_critical), CTL_THRESHOLD, NULL,
         "alert if more messages are deferred"},
        {"unrecorded-warning", 0, OPT_NUMBER, offsetof(Ctl, unrecorded_warning), CTL_THRESHOLD,
         NULL, "alert if more deferred messages are not recorded"},
        {"unrecorded-critical", 0, OPT_NUMBER, offsetof(Ctl, unrecorded_critical), CTL_THRESHOLD,
         NULL, "alert if more deferred messages are not recorded"},
        {"refresh-warning", 0, OPT_TIME, offsetof(Ctl, refresh_warning), CTL_THRESHOLD, NULL,
         "alert if the last refresh is longer ago"},
        {"refresh-critical", 0, OPT_TIME, offsetof(Ctl, refresh_critical), CTL_THRESHOLD, NULL,
         "alert if the last refresh is longer ago"},
        {"version", 0, OPT_VERSION, 0, 0, NULL, "print the version"},
        {"help", 'h', OPT_HELP, 0, 0, NULL, "print this, or the help of a command"},
};

static const HelpTables tables = {verbs, ARRAY_SIZE(verbs), options, ARRAY_SIZE(options)};

static int parse_number(const char *text, unsigned long *ret) {
        return parse_ulong(text, ret) == 0 && *ret > 0 ? 0 : -EINVAL;
}

static int wrong_value(size_t i, const char *what) {
        return ctl_fail(EX_USAGE, "--%s must be %s, not \"%s\"", options[i].name, what, optarg);
}

/* Options that were given are bits by their place in the table. */
static_assert(ARRAY_SIZE(options) <= sizeof(uint64_t) * CHAR_BIT, "a bit for each");

/* Return: -1 (go on), or an exit status. */
static int parse_option(Ctl *ctl, size_t i, uint64_t *given) {
        void *value = (char *) ctl + options[i].offset;

        *given |= UINT64_C(1) << i;
        switch (options[i].kind) {
        case OPT_FLAG:
                *(bool *) value = true;
                return -1;
        case OPT_TEXT:
                *(const char **) value = optarg;
                return -1;
        case OPT_NUMBER:
                return parse_number(optarg, value) < 0 ? wrong_value(i, "a positive number") : -1;
        case OPT_TIME:
                return timespan_parse(optarg, 's', value) < 0
                               ? wrong_value(i, "a time such as 30s, 5m or 2h")
                               : -1;
        case OPT_VERSION:
                puts(PACKAGE_STRING);
                return EX_OK;
        default:
                ctl->help = true; /* of which command, is known later */
                return -1;
        }
}

#define FIRST_INDEX                                                                                \
        256 /* what getopt_long() returns: letters, or this and the place in the table */

/* The command line in a form of our own, for other hosts: all options but --host, spelled out. */
typedef struct Words {
        char **items;
        size_t n, size;
        Hosts hosts;
} Words;

/* Takes @word, which may be NULL: no memory. */
static int add_word(Words *words, char *word) {
        if (!word || !GROW(words->items, words->n, words->size)) {
                free(word);
                return ctl_no_memory();
        }
        words->items[words->n++] = word;
        return EX_OK;
}

static int keep_option(Words *words, size_t i) {
        char *word = NULL;

        if (streq(options[i].name, "host"))
                return hosts_add(&words->hosts, optarg);
        if (asprintf(&word, "--%s%s%s", options[i].name, optarg ? "=" : "", optarg ? optarg : "") <
            0)
                word = NULL;
        return add_word(words, word);
}

static void words_done(Words *words) {
        while (words->n > 0)
                free(words->items[--words->n]);
        free(words->items);
        hosts_done(&words->hosts);
}

static void make_table(struct option *table, char *letters) {
        for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
                bool has_value = options[i].kind >= OPT_TEXT && options[i].kind <= OPT_TIME;

                table[i] = (struct option){options[i].name, has_value, NULL, FIRST_INDEX + (int) i};
                if (options[i].letter) {
                        *letters++ = (char) options[i].letter;
                        if (has_value)
                                *letters++ = ':';
                }
        }
        *letters = '\0';
}

static size_t find_option(int c) {
        size_t i = 0;

        if (c >= FIRST_INDEX)
                return (size_t) (c - FIRST_INDEX);
        while (options[i].letter != c)
                i++;
        return i;
}

/* Return: -1 (go on), or an exit status. */
static int parse_options(Ctl *ctl, int argc, char *argv[], uint64_t *given, Words *words) {
        struct option table[ARRAY_SIZE(options) + 1] = {0};
        char letters[1 + 2 * ARRAY_SIZE(options) + 1] = ":";
        int c, status = -1;

        opterr = 0;
        make_table(table, letters + 1);
        while (status < 0 && (c = getopt_long(argc, argv, letters, table, NULL)) >= 0) {
                if (c == '?' || c == ':') {
                        _cleanup_free_ char *problem = cmdline_problem(c, argv);

                        return problem ? ctl_usage("%s", problem) : ctl_no_memory();
                }
                status = parse_option(ctl, find_option(c), given);
                if (status < 0) {
                        int kept = keep_option(words, find_option(c));

                        status = kept == EX_OK ? -1 : kept;
                }
        }
        return status;
}

static const Verb *find_verb(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
                if (streq(name, verbs[i].name))
                        return &verbs[i];
        return NULL;
}

static bool has_word(char *args[], int n_args, const char *word) {
        for (int i = 0; i < n_args; i++)
                if (streq(args[i], word))
                        return true;
        return false;
}

/* All of standard input, which each of several hosts reads from its beginning.
 * Return: a descriptor, or a negative errno. */
static int copy_input(void) {
        FILE *f = tmpfile();
        char chunk[4096];
        int fd = -EIO;
        size_t n;

        if (!f)
                return -errno;
        while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0 && fwrite(chunk, 1, n, f) == n)
                continue;
        if (n == 0 && !ferror(stdin) && fflush(f) == 0)
                fd = RET_NERRNO(fcntl(fileno(f), F_DUPFD_CLOEXEC, 3));
        (void) fclose(f);
        return fd;
}

static int run_on_hosts(const Ctl *ctl, const Words *words, char *args[], int n_args) {
        CtlHosts how = {.hosts = words->hosts.items,
                        .n_hosts = words->hosts.n,
                        .words = words->items,
                        .n_words = words->n,
                        .input = "/dev/null",
                        .timeout = ctl->timeout,
                        .json = ctl->json,
                        .is_check = has_word(args, n_args, "check")};
        char input[sizeof "/proc/self/fd/" + 3 * sizeof(int)];
        _cleanup_close_ int fd = -EBADF;

        if (has_word(args, n_args, "metrics") && !ctl->json && !ctl->output)
                return ctl_usage("metrics of several hosts: only with --json or --output");
        if (has_word(args, n_args, "-")) {
                fd = copy_input();
                if (fd < 0) {
                        ctl_error("standard input cannot be copied: %s", strerror(-fd));
                        return EX_IOERR;
                }
                (void) snprintf(input, sizeof input, "/proc/self/fd/%d", fd);
                how.input = input;
        }
        return ctl_hosts(&how);
}

static int run_remotely(const Ctl *ctl, Words *words, char *args[], int n_args) {
        const Verb *verb = n_args > 0 ? find_verb(args[0]) : NULL;

        if (words->hosts.n == 0)
                return ctl_usage("--host: no host in that group");
        if (add_word(words, strdup("--")) != EX_OK)
                return EX_OSERR;
        for (int i = 0; i < n_args; i++)
                if (add_word(words, strdup(args[i])) != EX_OK)
                        return EX_OSERR;
        if (words->hosts.n > 1 || words->hosts.group)
                return run_on_hosts(ctl, words, args, n_args);
        return ctl_host(words->hosts.items[0], verb && (verb->options & (CTL_WAIT | CTL_REASON)),
                        words->items, words->n);
}

/* An option that was given, but is for other commands; or NULL. */
static const char *find_stranger(const Verb *verb, uint64_t given) {
        for (size_t i = 0; i < ARRAY_SIZE(options); i++)
                if ((given & UINT64_C(1) << i) && (options[i].bit & ~verb->options))
                        return options[i].name;
        return NULL;
}

static int no_such_verb(const char *word) {
        const char *guess = help_guess(&tables, word);

        return ctl_usage("unknown command: %s%s%s%s", word, guess ? " (" : "", guess ? guess : "",
                         guess ? "?)" : "");
}

/* "help", "help COMMAND", "COMMAND --help" */
static int run_help(char *args[], int n_args) {
        const Verb *verb;

        if (n_args > 0 && streq(args[0], "help")) {
                args++;
                n_args--;
        }
        if (n_args == 0) {
                help_print(&tables);
                return EX_OK;
        }
        verb = find_verb(args[0]);
        if (!verb)
                return no_such_verb(args[0]);
        help_print_verb(&tables, verb);
        return EX_OK;
}

static int run(Ctl *ctl, uint64_t given, char *args[], int n_args) {
        const char *stranger;
        const Verb *verb;

        if (n_args == 0)
                return ctl_usage("no command");
        verb = find_verb(args[0]);
        n_args--;
        if (!verb)
                return no_such_verb(args[0]);
        if (n_args < verb->min || (verb->max >= 0 && n_args > verb->max)) {
                return ctl_fail(EX_USAGE, "usage: fflushctl %s%s%s", verb->name,
                                verb->arguments[0] ? " " : "", verb->arguments);
        }
        ctl_print_begin(ctl->json, verb->name);
        stranger = find_stranger(verb, given);
        if (stranger)
                return ctl_usage("%s has no option --%s", verb->name, stranger);
        if (ctl->instance && (!ctl->instance[0] || strchr(ctl->instance, '/')))
                return ctl_usage("--instance: not a name");
        if (ctl->reason && strlen(ctl->reason) > REQUEST_REASON_MAX)
                return ctl_usage("--reason: at most %u bytes", REQUEST_REASON_MAX);
        return verb->run(ctl, args + 1);
}

static void ctl_done(Ctl *ctl) {
        if (ctl->has_settings)
                settings_done(&ctl->settings);
        closep(&ctl->queue.fd);
        free(ctl->socket_path);
}

/* What runs plugins knows four statuses, and wants a line, whatever is wrong with the options. */
static int as_plugin(const Ctl *ctl, int status, char *args[], int n_args) {
        if (status <= CTL_CHECK_UNKNOWN || !has_word(args, n_args, "check"))
                return status;
        if (ctl->json)
                ctl_print_json(json_pack("{ss ss ss si s[] sn sn sn sn sn sn}", "type", "check",
                                         "state", "UNKNOWN", "text",
                                         "it could not be run, see its standard error", "exit",
                                         CTL_CHECK_UNKNOWN, "findings", "deferred", "oldest_age",
                                         "last_refresh_age", "sites", "failures", "unrecorded"));
        else
                ctl_print("FFLUSHD UNKNOWN - it could not be run, see its standard error\n");
        return CTL_CHECK_UNKNOWN;
}

/* Else the next file that is opened would be one of them, and messages would be written into it. */
static void have_standard_files(void) {
        for (int fd = 0; fd <= STDERR_FILENO; fd++)
                if (fcntl(fd, F_GETFD) < 0)
                        (void) open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* of no use */
}

int main(int argc, char *argv[]) {
        _cleanup_(ctl_done) Ctl ctl = {.queue.fd = -EBADF};
        _cleanup_(words_done) Words words = {0};
        uint64_t given = 0;
        int status;

        relay_begin();
        have_standard_files();
        /* --json may stand after an option that is wrong, and the command may be anywhere. */
        ctl.json = has_word(argv + 1, argc - 1, "-j") || has_word(argv + 1, argc - 1, "--json");
        ctl_print_begin(ctl.json, has_word(argv + 1, argc - 1, "check") ? "check" : NULL);
        status = parse_options(&ctl, argc, argv, &given, &words);
        if (status >= 0)
                status = as_plugin(&ctl, status, argv + 1, argc - 1);
        else
                status = ctl.help || (optind < argc && streq(argv[optind], "help"))
                                 ? run_help(argv + optind, argc - optind)
                         : ctl.host ? run_remotely(&ctl, &words, argv + optind, argc - optind)
                                    : run(&ctl, given, argv + optind, argc - optind);
        status = ctl_worse(status, ctl_print_status());
        ctl_print_end(status);
        status = as_plugin(&ctl, status, argv + optind, argc > optind);
        if (!ctl_end_output())
                return EX_IOERR;
        remote_end_as_interrupted();
        return status;
}
