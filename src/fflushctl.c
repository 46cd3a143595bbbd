/* SPDX-License-Identifier: MIT */

/* fflushctl(8): options, the table of commands. */

#include <getopt.h>
#include <stdio.h>

#include "ctl.h"
#include "timespan.h"
#include "util.h"

#define MANY (-1)

static const Verb verbs[] = {
        {"flush", "SITE...", 1, MANY, 0, ctl_flush}, {"deliver", "ID...", 1, MANY, 0, ctl_deliver},
        {"add", "SITE ID", 2, 2, 0, ctl_add},        {"refresh", "", 0, 0, 0, ctl_refresh},
        {"purge", "", 0, 0, 0, ctl_purge},
};

/* Options without a letter of their own. */
enum { OPTION_VERSION = 256, OPTION_JSON };

static void print_help(void) {
        puts("Usage: fflushctl [OPTION...] COMMAND\n"
             "\n"
             "Ask the fast flush service of this mail host.\n"
             "\n"
             "Commands:\n"
             "  flush SITE...       deliver all deferred mail for these destinations now\n"
             "  deliver ID...       deliver these messages now\n"
             "  add SITE ID         record that message ID waits for SITE\n"
             "  refresh             flush what has waited for fast_flush_refresh_time\n"
             "  purge               flush everything that is recorded\n"
             "\n"
             "Options:\n"
             "  -c, --config FILE   configuration file (" SETTINGS_FILE ")\n"
             "  -i, --instance NAME further Postfix instance, with its configuration in /etc/NAME\n"
             "  -s, --socket PATH   socket (queue_directory/public/fflushd)\n"
             "  -t, --timeout TIME  give up waiting after this time (never)\n"
             "  -q, --quiet         print nothing but errors\n"
             "      --json          print objects for programs, one a line\n"
             "      --version       print the version, exit\n"
             "  -h, --help          print this, exit\n"
             "\n"
             "A SITE is a domain or an [address], as after the @ of the recipients.");
}

static int parse_time(const char *text, uint64_t *ret) {
        if (timespan_parse(text, 's', ret) >= 0)
                return -1;
        ctl_error("not a time: %s", text);
        return EX_USAGE;
}

/* Return: -1 (go on), or an exit status. */
static int parse_option(Ctl *ctl, int c, unsigned *given) {
        switch (c) {
        case 'c':
                ctl->config = optarg;
                return -1;
        case 'i':
                ctl->instance = optarg;
                return -1;
        case 's':
                ctl->socket = optarg;
                return -1;
        case 't':
                return parse_time(optarg, &ctl->timeout);
        case 'q':
                ctl->quiet = true;
                return -1;
        case 'n':
                ctl->dry_run = true;
                *given |= CTL_DRY_RUN;
                return -1;
        case OPTION_JSON:
                ctl->json = true;
                return -1;
        case OPTION_VERSION:
                puts(PACKAGE_STRING);
                return EX_OK;
        case 'h':
                print_help();
                return EX_OK;
        default:
                return EX_USAGE;
        }
}

static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"instance", required_argument, NULL, 'i'},
        {"socket", required_argument, NULL, 's'}, {"timeout", required_argument, NULL, 't'},
        {"quiet", no_argument, NULL, 'q'},        {"json", no_argument, NULL, OPTION_JSON},
        {"dry-run", no_argument, NULL, 'n'},      {"version", no_argument, NULL, OPTION_VERSION},
        {"help", no_argument, NULL, 'h'},         {0}};

static const Verb *find_verb(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
                if (streq(name, verbs[i].name))
                        return &verbs[i];
        return NULL;
}

static int usage(const char *why, const char *what) {
        ctl_error("%s%s\nTry \"fflushctl --help\".", why, what);
        return EX_USAGE;
}

static int run(Ctl *ctl, unsigned given, char *args[], int n_args) {
        const Verb *verb;

        if (n_args == 0)
                return usage("no command", "");
        verb = find_verb(args[0]);
        n_args--;
        if (!verb)
                return usage("unknown command: ", args[0]);
        if (n_args < verb->min || (verb->max >= 0 && n_args > verb->max)) {
                ctl_error("wrong number of arguments: fflushctl %s %s", verb->name,
                          verb->arguments);
                return EX_USAGE;
        }
        if (given & ~verb->options)
                return usage("an option that is not for this command: ", verb->name);
        return verb->run(ctl, args + 1);
}

static void ctl_free(Ctl *ctl) {
        if (ctl->has_settings)
                settings_free(&ctl->settings);
        closep(&ctl->queue.fd);
        free(ctl->socket_path);
}

int main(int argc, char *argv[]) {
        _cleanup_(ctl_free) Ctl ctl = {.queue.fd = -EBADF};
        unsigned given = 0;
        int c, r;

        while ((c = getopt_long(argc, argv, "c:i:s:t:qnh", options, NULL)) >= 0) {
                r = parse_option(&ctl, c, &given);
                if (r >= 0)
                        return r;
        }
        r = run(&ctl, given, argv + optind, argc - optind);
        if (fflush(stdout) != 0)
                return EX_IOERR;
        return r;
}
