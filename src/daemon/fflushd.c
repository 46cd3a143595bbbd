/* SPDX-License-Identifier: MIT */

/* fflushd(8): options, configuration, the sockets that systemd passed; no logic. */

#include <confuse.h>
#include <fcntl.h>
#include <getopt.h>
#include <idn2.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "daemon/journal.h"
#include "daemon/server.h"
#include "util/cmdline.h"
#include "util/escape.h"
#include "util/util.h"

#define LISTEN_FDS_MAX 16
#define PROBLEM_SIZE   512

/* Blocks of this size and larger go back to the system when they are freed. Left alone, malloc(3)
 * raises this threshold after the first large block, and a flush of many records needs some. */
#define LARGE_BLOCK (128 * 1024)

static const char *arg_config, *arg_instance;
static bool arg_check_config;

static void print_help(void) {
        puts("Usage: fflushd [--config FILE] [--instance NAME] [--check-config]\n"
             "\n"
             "Fast flush service for Postfix. Serves the sockets that systemd passes.\n"
             "\n"
             "  -c, --config FILE   configuration file (" SETTINGS_FILE ")\n"
             "  -i, --instance NAME further Postfix instance, with its configuration in /etc/NAME\n"
             "      --check-config  check the configuration, print what would be used, exit\n"
             "      --version       print the version, exit\n"
             "  -h, --help          print this, exit\n"
             "\n"
             "See fflushd(8), fflushd.conf(5).");
}

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* What a bug report should contain. The versions of libraries are those in use, but that of
 * libsystemd, which has no function for it, is the one of the build. */
static void print_version(void) {
        puts(PACKAGE_STRING);
        printf("libsystemd %s (when built), libconfuse %s, libidn2 %s\n"
               "configuration in %s, Postfix's commands in %s\n"
               "%s%s\n",
               SYSTEMD_VERSION, confuse_version, idn2_check_version(NULL), SETTINGS_DIR,
               POSTFIX_COMMAND_DIR, COMPILER, BUILD_OPTIONS);
}

/* @problem is freed; it may quote the command line. NULL: out of memory. */
static int wrong_usage(char *problem) {
        char shown[PROBLEM_SIZE];

        (void) fprintf(stderr, "fflushd: %s\n",
                       escape_line(problem ? problem : strerror(ENOMEM), shown, sizeof shown));
        free(problem);
        return EX_USAGE;
}

/* Return: -1 (go on), or an exit status. */
static int parse_options(int argc, char *argv[]) {
        static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                                {"instance", required_argument, NULL, 'i'},
                                                {"check-config", no_argument, NULL, 'k'},
                                                {"version", no_argument, NULL, 'v'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
        char *problem = NULL;
        int c;

        opterr = 0;
        while ((c = getopt_long(argc, argv, ":c:i:h", options, NULL)) >= 0)
                switch (c) {
                case 'c':
                        arg_config = optarg;
                        break;
                case 'i':
                        arg_instance = optarg;
                        break;
                case 'k':
                        arg_check_config = true;
                        break;
                case 'v':
                        print_version();
                        return EX_OK;
                case 'h':
                        print_help();
                        return EX_OK;
                default:
                        return wrong_usage(cmdline_problem(c, argv));
                }
        if (optind == argc)
                return -1;
        if (asprintf(&problem, "no arguments are expected: %s", argv[optind]) < 0)
                problem = NULL;
        return wrong_usage(problem);
}

static int check_config(const Settings *settings) {
        settings_print(settings, stdout);
        if (!settings->problems)
                return EX_OK;
        (void) fprintf(stderr, "%s\n", settings->problems);
        return EX_CONFIG;
}

/* Return: how many, or a negative errno. */
static int take_listen_fds(int fds[static LISTEN_FDS_MAX]) {
        int n = sd_listen_fds(true); /* unset the variables: children must not see them */

        if (n > LISTEN_FDS_MAX)
                return -E2BIG;
        for (int i = 0; i < n; i++) {
                int flags;

                fds[i] = SD_LISTEN_FDS_START + i;
                if (sd_is_socket(fds[i], AF_UNIX, SOCK_STREAM, 1) <= 0)
                        return -EPROTOTYPE;
                /* systemd does this with NonBlocking=yes only, systemd-socket-activate(1) never. */
                flags = fcntl(fds[i], F_GETFL);
                if (flags < 0 || fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0)
                        return -errno;
        }
        return n;
}

/* sd-event reads these signals from a descriptor, so they must be blocked. */
static int block_signals(void) {
        sigset_t mask;

        (void) sigemptyset(&mask);
        (void) sigaddset(&mask, SIGTERM);
        (void) sigaddset(&mask, SIGINT);
        (void) sigaddset(&mask, SIGHUP);
        (void) sigaddset(&mask, SIGCHLD);
        return RET_NERRNO(sigprocmask(SIG_BLOCK, &mask, NULL));
}

static int serve_from(sd_event *event, const Settings *settings, const int *fds, unsigned n_fds) {
        Server *server;
        int r;

        r = server_new(event, settings, fds, n_fds, &server);
        if (r < 0)
                return r;
        r = server_run(server);
        server_free(server);
        return r;
}

static int serve(const Settings *settings, const int *fds, unsigned n_fds) {
        _cleanup_(sd_event_unrefp) sd_event *event = NULL;
        int r;

        r = block_signals();
        if (r < 0)
                return r;
        r = sd_event_default(&event);
        if (r < 0)
                return r;
        journal_attach(event);
        r = serve_from(event, settings, fds, n_fds);
        journal_attach(NULL);
        return r;
}

int main(int argc, char *argv[]) {
        int fds[LISTEN_FDS_MAX], n_fds, r;
        Settings settings;

        r = parse_options(argc, argv);
        if (r >= 0)
                return r;
        journal_open();
        (void) atexit(journal_close);
        (void) mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
        (void) umask(077);
        (void) signal(SIGPIPE, SIG_IGN);
        (void) signal(SIGXFSZ, SIG_IGN); /* a file too large is an error like others */

        r = arg_check_config ? settings_load(arg_config, arg_instance, &settings)
                             : settings_start(arg_config, arg_instance, &settings);
        if (r < 0) {
                journal_message(LOG_ERR, "cannot load the configuration: %s", strerror(-r));
                return EX_OSERR;
        }
        if (arg_check_config) {
                r = check_config(&settings);
                settings_done(&settings);
                return r;
        }
        journal_set_names(settings.syslog_name, settings.instance);
        n_fds = take_listen_fds(fds);
        if (n_fds <= 0) {
                journal_message(LOG_ERR,
                                "no listening stream sockets were passed%s%s; start "
                                "fflush.socket, or use systemd-socket-activate(1)",
                                n_fds < 0 ? ": " : "", n_fds < 0 ? strerror(-n_fds) : "");
                settings_done(&settings);
                return EX_USAGE;
        }
        r = serve(&settings, fds, (unsigned) n_fds);
        if (r < 0)
                journal_event(LOG_ERR, &(JournalEvent){.message_id = JOURNAL_ID_FAILED, .error = r},
                              "cannot serve %s: %s", settings.queue_directory, strerror(-r));
        settings_done(&settings);
        return r < 0 ? EX_OSERR : EX_OK;
}
