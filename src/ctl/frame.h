/* SPDX-License-Identifier: MIT */
#pragma once

/* A table on a screen that is drawn again and again, and that nobody may be sitting at: its first
 * line tells that it is alive, its last one what went wrong. */

#include <stdbool.h>
#include <stdio.h>

#include "ctl/pager.h"

/* Lines are printable already. */
typedef struct Frame {
        const char *title;
        char *table;       /* lines, of which drawing makes strings */
        bool legend;       /* the first one has the titles of its columns, the last one the total */
        const char *error; /* "" for none */
} Frame;

/** frame_draw() - in the place of the one before, as much as the screen has room for: rows first
 *                 give way to "+N more" */
void frame_draw(const Frame *frame, const Terminal *t, FILE *f);

#define FRAME_TITLE_SIZE 1024u

/** frame_title() - the time, this host, and the command line of this process. Return: @ret */
const char *frame_title(char ret[static FRAME_TITLE_SIZE]);
