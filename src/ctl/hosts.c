/* SPDX-License-Identifier: MIT */

#include "ctl/hosts.h"

#include <stdio.h>
#include <sysexits.h>

#include "ctl/ctl-print.h"
#include "util/grow.h"
#include "util/textfile.h"
#include "util/util.h"

#define FILE_MAX   (1024 * 1024) /* bytes */
#define SEPARATORS " \t\r,"

static int add_host(Hosts *hosts, const char *host) {
        for (size_t i = 0; i < hosts->n; i++)
                if (streq(hosts->items[i], host))
                        return EX_OK;
        if (!GROW(hosts->items, hosts->n, hosts->size))
                return ctl_no_memory();
        hosts->items[hosts->n] = strdup(host);
        if (!hosts->items[hosts->n])
                return ctl_no_memory();
        hosts->n++;
        return EX_OK;
}

/* ssh(1) would take a word with a '-' in front for an option. */
static bool is_host(const char *word) {
        return word[0] != '\0' && word[0] != '-' && word[0] != '@';
}

/* Return: EX_OK, with *@ret_found true if the line belongs to the group; or an exit status. */
static int read_line(Hosts *hosts, const char *path, char *line, const char *group,
                     bool *ret_found) {
        char *rest = line, *name, *host;
        int status = EX_OK;

        line[strcspn(line, "#")] = '\0';
        line += strspn(line, SEPARATORS);
        if (!*line)
                return EX_OK;
        rest = line;
        name = strsep(&rest, ":");
        name[strcspn(name, SEPARATORS)] = '\0';
        if (!rest || !*name) {
                ctl_error("%s: not a line \"GROUP: HOST HOST...\": %s", path, line);
                return EX_CONFIG;
        }
        if (!streq(name, group))
                return EX_OK;
        *ret_found = true;
        while (status == EX_OK && (host = strsep(&rest, SEPARATORS))) {
                if (!*host)
                        continue;
                if (!is_host(host)) {
                        ctl_error("%s: not a host: %s", path, host);
                        return EX_CONFIG;
                }
                status = add_host(hosts, host);
        }
        return status;
}

static int add_group(Hosts *hosts, const char *group) {
        const char *path = getenv(HOSTS_VARIABLE);
        _cleanup_free_ char *text = NULL;
        bool found = false;
        char *rest, *line;
        int r, status = EX_OK;

        if (!path || !*path)
                path = HOSTS_FILE;
        r = textfile_read(path, FILE_MAX, &text);
        if (r < 0) {
                ctl_error("%s: %s", path, textfile_strerror(r));
                return EX_NOINPUT;
        }
        rest = text;
        while (status == EX_OK && (line = strsep(&rest, "\n")))
                status = read_line(hosts, path, line, group, &found);
        if (status != EX_OK || found)
                return status;
        ctl_error("%s: no such group: %s", path, group);
        return EX_CONFIG;
}

int hosts_add(Hosts *hosts, const char *text) {
        _cleanup_free_ char *copy = strdup(text);
        char *rest = copy, *word;
        int status = EX_OK;

        if (!copy)
                return ctl_no_memory();
        while (status == EX_OK && (word = strsep(&rest, ","))) {
                if (word[0] == '@') {
                        hosts->group = true;
                        status = add_group(hosts, word + 1);
                } else
                        status = is_host(word) ? add_host(hosts, word)
                                               : ctl_usage("--host: not a host");
        }
        return status;
}

void hosts_done(Hosts *hosts) {
        while (hosts->n > 0)
                free(hosts->items[--hosts->n]);
        free(hosts->items);
        *hosts = (Hosts){0};
}
