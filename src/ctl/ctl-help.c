/* SPDX-License-Identifier: MIT */

#include "ctl/ctl-help.h"

#include <stdio.h>

#include "ctl/ctl-print.h"
#include "util/util.h"

#define LEFT      27 /* width of the first column */
#define WORD_MAX  24u
#define TYPOS_MAX 2u

static const char *value_of(const Option *o) {
        return o->value                ? o->value
               : o->kind == OPT_TIME   ? "TIME"
               : o->kind == OPT_NUMBER ? "N"
               : o->kind == OPT_TEXT   ? "TEXT"
                                       : NULL;
}

static void print_line(const char *left, const char *right) {
        ctl_print("  %-*s%s%s\n", LEFT - 1, left, strlen(left) < LEFT - 1 ? " " : "  ", right);
}

static void print_option(const Option *o) {
        const char *value = value_of(o);
        char left[64];

        if (o->letter)
                (void) snprintf(left, sizeof left, "-%c, --%s%s%s", o->letter, o->name,
                                value ? " " : "", value ? value : "");
        else
                (void) snprintf(left, sizeof left, "    --%s%s%s", o->name, value ? " " : "",
                                value ? value : "");
        print_line(left, o->help ? o->help : "");
}

static void print_group(const HelpTables *t, VerbGroup group, const char *title) {
        ctl_print("\n");
        ctl_print("%s:\n", title);
        for (size_t i = 0; i < t->n_verbs; i++) {
                const Verb *v = &t->verbs[i];
                char left[64];

                if (v->group != group)
                        continue;
                (void) snprintf(left, sizeof left, "%s%s%s", v->name, v->arguments[0] ? " " : "",
                                v->arguments);
                print_line(left, v->help);
        }
}

void help_print(const HelpTables *t) {
        ctl_print("Usage: fflushctl [OPTION...] COMMAND [ARGUMENT...]\n");
        print_group(t, VERB_LOOK, "Look");
        print_group(t, VERB_ACT, "Act");
        print_group(t, VERB_SET_UP, "Set up");
        ctl_print("\n");
        ctl_print("Options of all commands:\n");
        for (size_t i = 0; i < t->n_options; i++)
                if (t->options[i].bit == 0)
                        print_option(&t->options[i]);
        ctl_print("\n");
        ctl_print("A SITE is a domain or an [address], as after the @ of the recipients. A "
                  "PATTERN\n");
        ctl_print("is a SITE, or has * ? [...] in it and means the recorded ones that match.\n");
        ctl_print("\"fflushctl help COMMAND\" shows the options of a command. See fflushctl(8).\n");
}

void help_print_verb(const HelpTables *t, const Verb *verb) {
        bool any = false;

        ctl_print("Usage: fflushctl [OPTION...] %s%s%s\n", verb->name,
                  verb->arguments[0] ? " " : "", verb->arguments);
        ctl_print("\n");
        ctl_print("%c%s.\n", verb->help[0] - 'a' + 'A', verb->help + 1);
        for (size_t i = 0; i < t->n_options; i++) {
                if (!(t->options[i].bit & verb->options))
                        continue;
                if (!any) {
                        ctl_print("\n");
                        ctl_print("Options:\n");
                }
                any = true;
                print_option(&t->options[i]);
        }
        ctl_print("\n");
        ctl_print("\"fflushctl --help\" shows the options of all commands.\n");
}

/* How many letters have to be put in, left out, or replaced. */
static unsigned distance(const char *a, const char *b) {
        size_t n = strlen(b);
        unsigned row[WORD_MAX + 1];

        for (size_t k = 0; k <= n; k++)
                row[k] = (unsigned) k;
        for (; *a; a++) {
                unsigned diagonal = row[0]++;

                for (size_t k = 1; k <= n; k++) {
                        unsigned replaced = diagonal + (*a != b[k - 1]);
                        unsigned other = (row[k] < row[k - 1] ? row[k] : row[k - 1]) + 1;

                        diagonal = row[k];
                        row[k] = replaced < other ? replaced : other;
                }
        }
        return row[n];
}

const char *help_guess(const HelpTables *t, const char *word) {
        const char *best = NULL;
        unsigned best_distance = TYPOS_MAX + 1;

        for (size_t i = 0; i < t->n_verbs; i++) {
                const char *name = t->verbs[i].name;
                unsigned d;

                if (strlen(name) > WORD_MAX || strlen(word) > WORD_MAX)
                        continue;
                d = distance(word, name);
                if (d < best_distance && d < strlen(word)) {
                        best_distance = d;
                        best = name;
                }
        }
        return best;
}
