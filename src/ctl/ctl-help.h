/* SPDX-License-Identifier: MIT */
#pragma once

/* fflushctl(8): what --help and "help COMMAND" print, from the tables of commands and options. */

#include <stddef.h>

#include "ctl/commands.h"

typedef enum OptionKind {
        OPT_FLAG,
        OPT_TEXT,
        OPT_NUMBER,
        OPT_TIME,
        OPT_VERSION,
        OPT_HELP
} OptionKind;

/* Kind says what type Ctl has at the offset: bool, const char *, unsigned long, uint64_t. */
typedef struct Option {
        const char *name;
        int letter; /* 0: none */
        OptionKind kind;
        size_t offset;
        unsigned bit;      /* 0: for every command */
        const char *value; /* for people; NULL: none, or TIME, or N */
        const char *help;
} Option;

typedef struct HelpTables {
        const Verb *verbs;
        size_t n_verbs;
        const Option *options;
        size_t n_options;
} HelpTables;

/** help_print() - on standard output: all commands, one a line, and the options that all have */
void help_print(const HelpTables *t);

/** help_print_verb() - on standard output: one command, with its options */
void help_print_verb(const HelpTables *t, const Verb *verb);

/** help_guess() - the command that was meant; NULL: there is none like it */
const char *help_guess(const HelpTables *t, const char *word);
