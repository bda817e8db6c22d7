/* options.h - one table per verb, from which its command line is read and its help, manual and shell completions are written.
 *
 * A verb has a struct for its settings, whose first member is a `struct args`, and a table of options that say at which offset of
 * that struct their value goes. Defaults stand in the table as text and go through the same reader as the user's words, so what
 * --help shows is what happens. These functions are in the library because the tools share them; the engine does not use them. */
#ifndef QUERN_OPTIONS_H
#define QUERN_OPTIONS_H

#include <stdio.h>

#include "error.h"

enum option_kind {
    OPTION_SWITCH,       /* bool: given or not, no argument                                       */
    OPTION_TEXT,         /* const char *: one of argv's strings; NULL when there is no default    */
    OPTION_FILE,         /* the same, completed as a path                                         */
    OPTION_OPERAND,      /* the same, for what the verb's first operand may say instead (--model)  */
    OPTION_TEXTS,        /* struct option_texts: may be given many times                          */
    OPTION_COUNT,        /* size_t, decimal                                                       */
    OPTION_COUNTS,       /* struct option_counts: "1,2,8"                                         */
    OPTION_BYTES,        /* size_t, K, M, G, T for powers of 1024                                 */
    OPTION_INT,          /* int32_t                                                               */
    OPTION_SEED,         /* uint64_t, or the word "random"                                        */
    OPTION_REAL,         /* float, finite                                                         */
    OPTION_CHOICE,       /* int: index of the word in `choices`                                   */
    OPTION_GROUP         /* the rows of `group`, whose offsets count from this row's; `help` is their heading */
};

struct option {
    const char          *name;       /* "threads" for --threads; NULL closes the table (a group has a name too) */
    char                 letter;     /* 't' for -t; 0: none                                        */
    enum option_kind     kind;
    size_t               offset;     /* of the value in the verb's struct                          */
    const char          *arg;        /* "N": what the help calls the argument; NULL for a switch   */
    const char          *fallback;   /* default, as the user would type it; NULL: the field stays 0 */
    const char          *help;       /* one sentence, small first letter, no full stop             */
    const char          *choices;    /* "f32|f16": for OPTION_CHOICE; as a hint for completion elsewhere */
    const char          *alias;      /* another long name, accepted but not shown; NULL: none      */
    const struct option *group;
};

struct option_texts  { const char **items; size_t count; };
struct option_counts { size_t *items; size_t count; };

/* A command line that works as it stands, where the files it names are: tests/test_examples.sh runs every one. */
struct example {
    const char *command;             /* NULL closes the list                                       */
    const char *what;                /* it does, as a sentence without its full stop               */
};

/* First member of every verb's settings. */
struct args {
    const char **operands;           /* [operand_count] words that are no options                  */
    size_t       operand_count;
    bool         help;               /* --help or -h was there: nothing else was checked           */
    uint64_t     given[2];           /* bit i: the table's option i (groups unfolded) was given    */
};

struct verb {
    const char          *name;       /* "run"; for a program without verbs the program's own name  */
    const char          *summary;    /* one line                                                   */
    const char          *operands;   /* "MODEL [FILE]", as usage shows them                        */
    size_t               operands_min, operands_max;
    const char          *surplus;    /* said where there are more: "a type is given as --type TYPE"; may be NULL */
    const char          *details;    /* paragraphs for --help and the manual, with \n; may be NULL */
    const struct example *examples;  /* for both, too; may be NULL                                 */
    const struct option *options;
    size_t               size;       /* of the settings                                            */
    int                (*main)(int argc, char **argv);
};

struct program {
    const char               *name;      /* "quern", "quern-convert"                               */
    const char               *summary;
    const struct verb *const *verbs;
    size_t                    count;
    bool                      single;    /* verbs[0] is the program itself, only others are named  */
};

/* Read argv[1..argc) into `settings` (verb->size bytes, cleared first, then the defaults). QUERN_EUSAGE names the option, the
 * word found and what is allowed. Free with options_free, also after a failure. */
bool options_parse(const struct verb *verb, int argc, char **argv, void *settings, struct quern_error *err);
void options_free(const struct verb *verb, void *settings);

/* Was the option called `name` on the command line? */
bool options_given(const struct verb *verb, const void *settings, const char *name);

/* Walk a table with its groups unfolded: start with *state zeroed. NULL at the end; *offset is the value's place in the settings,
 * *heading is set where a group begins, NULL elsewhere. */
struct option_walk { const struct option *row, *outer; size_t base, index; };
const struct option *options_next(const struct verb *verb, struct option_walk *state, size_t *offset, const char **heading);

/* The word of `words` (count of them) that `word` may have meant, NULL when none is near. */
const char *options_nearest(const char *word, const char *const *words, size_t count);

/* What the user reads; all from the tables. `shell` is "bash", "zsh" or "fish", false for another. */
void options_help(FILE *out, const struct program *program, const struct verb *verb);
void options_overview(FILE *out, const struct program *program);
void options_manual(FILE *out, const struct program *program);
bool options_completion(FILE *out, const struct program *program, const char *shell);
/* "name = value (default | flag | operand | model)" for every option; `from_model`: names whose value the model decided. */
void options_settings(FILE *out, const struct verb *verb, const void *settings, const char *const *from_model, size_t count);

#endif
