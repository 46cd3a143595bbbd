/* SPDX-License-Identifier: MIT */
#pragma once

/* The mail queue as "postqueue -j" prints it: a JSON object a line. */

#include <jansson.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct Messages {
        FILE *f;
        pid_t pid; /* of postqueue(1), or 0 */
        char *line;
        size_t size;
        int errors_fd;       /* its standard error; negative: there is none */
        unsigned long n_bad; /* lines that are not such an object */
} Messages;

/**
 * messages_open() - run postqueue(1)
 * @config_directory:  of the Postfix instance
 *
 * Return: 0, -ENOENT (there is no postqueue), or another negative errno.
 */
int messages_open(Messages *m, const char *config_directory);

/** messages_from() - read from a stream instead; it stays the caller's */
void messages_from(Messages *m, FILE *f);

/**
 * messages_next() - the next message
 * Return: a new object, which has "queue_name" and "queue_id" as strings, and "recipients" as an
 *         array; or NULL at the end.
 */
json_t *messages_next(Messages *m);

/**
 * messages_close() - wait for the end of postqueue(1), whatever it still has to say
 * @ret_errors:  receives what it said on standard error, to be freed; NULL: nothing
 *
 * Return: 0, -EIO (the stream broke), -EREMOTEIO (postqueue(1) failed).
 */
int messages_close(Messages *m, char **ret_errors);

/** messages_site() - what follows the last '@' of an address; NULL: nothing */
const char *messages_site(const char *address);
