/* SPDX-License-Identifier: MIT */

/* fflushctl(8): ask the flush service, say what it answered. */

#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>

#include "client.h"
#include "log.h"
#include "queueid.h"
#include "settings.h"
#include "timespan.h"
#include "util.h"

#define DEFAULT_SERVICE "fflushd" /* socket below public/ */

static const char *arg_config, *arg_instance, *arg_socket;
static uint64_t arg_timeout;
static bool arg_quiet;

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
             "  -s, --socket PATH   socket (queue_directory/public/" DEFAULT_SERVICE ")\n"
             "  -t, --timeout TIME  give up waiting after this time (never)\n"
             "  -q, --quiet         print nothing but errors\n"
             "      --version       print the version, exit\n"
             "  -h, --help          print this, exit\n"
             "\n"
             "A SITE is a domain or an [address], as after the @ of the recipients.");
}

static int parse_options(int argc, char *argv[]) {
        static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                                {"instance", required_argument, NULL, 'i'},
                                                {"socket", required_argument, NULL, 's'},
                                                {"timeout", required_argument, NULL, 't'},
                                                {"quiet", no_argument, NULL, 'q'},
                                                {"version", no_argument, NULL, 'v'},
                                                {"help", no_argument, NULL, 'h'},
                                                {0}};
        int c;

        while ((c = getopt_long(argc, argv, "c:i:s:t:qh", options, NULL)) >= 0)
                switch (c) {
                case 'c':
                        arg_config = optarg;
                        break;
                case 'i':
                        arg_instance = optarg;
                        break;
                case 's':
                        arg_socket = optarg;
                        break;
                case 't':
                        if (timespan_parse(optarg, 's', &arg_timeout) < 0) {
                                (void) fprintf(stderr, "fflushctl: not a time: %s\n", optarg);
                                return EX_USAGE;
                        }
                        break;
                case 'q':
                        arg_quiet = true;
                        break;
                case 'v':
                        puts(PACKAGE_STRING);
                        return EX_OK;
                case 'h':
                        print_help();
                        return EX_OK;
                default:
                        return EX_USAGE;
                }
        return -1;
}

static int find_socket(char **ret) {
        Settings settings;
        int r;

        if (arg_socket) {
                *ret = strdup(arg_socket);
                return *ret ? 0 : -ENOMEM;
        }
        r = settings_load(arg_config, arg_instance, &settings);
        if (r < 0)
                return r;
        if (settings.problems)
                (void) fprintf(stderr, "fflushctl: %s\n", settings.problems);
        r = asprintf(ret, "%s/public/%s", settings.queue_directory, DEFAULT_SERVICE) < 0 ? -ENOMEM
                                                                                         : 0;
        settings_free(&settings);
        return r;
}

static int say_connect_error(const char *path, int error) {
        (void) fprintf(stderr, "fflushctl: cannot connect to %s: %s%s\n", path, strerror(-error),
                       error == -ENOENT || error == -ECONNREFUSED ? " (is fflush.socket started?)"
                                                                  : "");
        return error == -EACCES || error == -EPERM ? EX_NOPERM : EX_UNAVAILABLE;
}

static int say_no_reply(const char *what, int error) {
        (void) fprintf(stderr, "fflushctl: %s: %s\n", what,
                       error == -ECONNRESET || error == -EPIPE
                               ? "the service closed the connection without a reply"
                       : error == -EBADMSG   ? "the reply makes no sense"
                       : error == -ETIMEDOUT ? "no reply in time"
                                             : strerror(-error));
        return error == -EBADMSG ? EX_PROTOCOL : EX_TEMPFAIL;
}

/* Return: an exit status. */
static int say_status(const char *what, RequestStatus status) {
        switch (status) {
        case REQUEST_OK:
                return EX_OK;
        case REQUEST_FAIL:
                (void) fprintf(stderr, "fflushctl: %s: failed, the journal says why\n", what);
                return EX_TEMPFAIL;
        case REQUEST_BAD:
                (void) fprintf(stderr, "fflushctl: %s: the service calls this request malformed\n",
                               what);
                return EX_DATAERR;
        case REQUEST_DENY:
                (void) fprintf(stderr,
                               "fflushctl: %s: not eligible (fast_flush_domains), or no valid "
                               "destination\n",
                               what);
                return EX_NOPERM;
        default:
                (void) fprintf(stderr, "fflushctl: %s: unknown status %d\n", what, (int) status);
                return EX_PROTOCOL;
        }
}

static void say_flushed(const char *site, const RequestCounts *c) {
        printf("%s: %lu found, %lu moved", site, c->found, c->moved);
        if (c->gone)
                printf(", %lu gone", c->gone);
        if (c->busy)
                printf(", %lu active or on hold", c->busy);
        if (c->failed)
                printf(", %lu failed", c->failed);
        if (c->duplicate)
                printf(", %lu recorded twice", c->duplicate);
        putchar('\n');
}

static void say_delivered(const char *id, const RequestCounts *c) {
        printf("%s: %s\n", id,
               c->moved  ? "moved"
               : c->gone ? "no such message in the queue"
               : c->busy ? "active, on hold, or still being written"
                         : "could not be moved, the journal says why");
}

/* Return: an exit status. A message that is not there is worth one; that a site has none is not. */
static int say_result(const Request *request, const RequestCounts *counts) {
        const char *what = request->kind == REQUEST_SEND_SITE ? request->site : request->queue_id;

        if (!arg_quiet && request->kind == REQUEST_SEND_SITE)
                say_flushed(what, counts);
        else if (!arg_quiet && request->kind == REQUEST_SEND_FILE)
                say_delivered(what, counts);
        if (counts->failed)
                return EX_TEMPFAIL;
        return request->kind == REQUEST_SEND_FILE && counts->gone ? EX_NOINPUT : EX_OK;
}

/* Return: an exit status. */
static int ask(const char *path, const Request *request) {
        const char *what = request->site       ? request->site
                           : request->queue_id ? request->queue_id
                                               : request_name(request->kind);
        _cleanup_close_ int fd = -EBADF;
        RequestCounts counts = {0};
        RequestStatus status;
        bool has_counts = false;
        int r;

        fd = client_connect(path);
        if (fd < 0)
                return say_connect_error(path, fd);
        r = client_ask(fd, request, arg_timeout, &status, &counts, &has_counts);
        if (r < 0)
                return say_no_reply(what, r);
        if (status != REQUEST_OK)
                return say_status(what, status);
        if (request->kind == REQUEST_REFRESH || request->kind == REQUEST_PURGE) {
                r = client_wait(fd, arg_timeout);
                if (r < 0)
                        return say_no_reply(what, r);
        }
        if (!has_counts) /* flush(8) does not tell */
                return EX_OK;
        return say_result(request, &counts);
}

static int check_id(const char *id) {
        char text[LOG_ESCAPE_SIZE];

        if (queueid_valid(id, strlen(id)))
                return 0;
        (void) fprintf(stderr, "fflushctl: not a queue ID: \"%s\"\n",
                       log_escape(id, strlen(id), text));
        return -EINVAL;
}

/* One request for each argument; the worst that happens is the exit status. */
static int ask_each(const char *path, RequestKind kind, char *args[]) {
        int status = EX_OK;

        for (; *args; args++) {
                Request request = {.kind = kind, .detail = true};
                int k;

                if (kind == REQUEST_SEND_SITE)
                        request.site = *args;
                else
                        request.queue_id = *args;
                k = request.queue_id && check_id(*args) < 0 ? EX_DATAERR : ask(path, &request);
                if (status == EX_OK || k > EX_NOINPUT)
                        status = k == EX_OK ? status : k;
        }
        return status;
}

static int run(const char *path, const char *command, char *args[], int n_args) {
        if (streq(command, "flush") && n_args > 0)
                return ask_each(path, REQUEST_SEND_SITE, args);
        if (streq(command, "deliver") && n_args > 0)
                return ask_each(path, REQUEST_SEND_FILE, args);
        if (streq(command, "add") && n_args == 2) {
                if (check_id(args[1]) < 0)
                        return EX_DATAERR;
                return ask(path,
                           &(Request){.kind = REQUEST_ADD, .site = args[0], .queue_id = args[1]});
        }
        if (streq(command, "refresh") && n_args == 0)
                return ask(path, &(Request){.kind = REQUEST_REFRESH});
        if (streq(command, "purge") && n_args == 0)
                return ask(path, &(Request){.kind = REQUEST_PURGE});
        (void) fprintf(stderr,
                       "fflushctl: unknown command or wrong number of arguments: %s\n"
                       "Try \"fflushctl --help\".\n",
                       command);
        return EX_USAGE;
}

int main(int argc, char *argv[]) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = parse_options(argc, argv);
        if (r >= 0)
                return r;
        if (optind == argc) {
                (void) fprintf(stderr, "fflushctl: no command\nTry \"fflushctl --help\".\n");
                return EX_USAGE;
        }
        r = find_socket(&path);
        if (r < 0) {
                (void) fprintf(stderr, "fflushctl: %s\n", strerror(-r));
                return EX_OSERR;
        }
        r = run(path, argv[optind], argv + optind + 1, argc - optind - 1);
        if (fflush(stdout) != 0)
                return EX_IOERR;
        return r;
}
