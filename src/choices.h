/* choices.h - questions with given answers, read from the files in which the common benchmarks come.
 *
 * A model answers by likelihood: of an item's choices the one whose text it finds most probable after the context. What is read
 * here is text only; choices_score.h asks the model. The contexts are those of lm-evaluation-harness (0.4):
 *
 *     HellaSwag    the first line                                           " ENDING"
 *     ARC          "Question: STEM\nAnswer:"                                " TEXT"
 *     PIQA         "Question: GOAL\nAnswer:"                                " SOLUTION"
 *     WinoGrande   the sentence up to the blank, filled by each option      " REST", the same for both
 *     MMLU         "The following are multiple choice questions (with answers) about SUBJECT.\n\n", then shots, then
 *                  "QUESTION\nA. ...\nB. ...\nC. ...\nD. ...\nAnswer:"      " A" to " D"
 *     LAMBADA      the passage up to its last blank                         " WORD": one choice, right when each of its tokens
 *                                                                           is the most likely one
 *
 * A shot is a question of the dev file in the same form with its letter, and two line ends; the first N of the file, in order. */
#ifndef QUERN_CHOICES_H
#define QUERN_CHOICES_H

#include "arena.h"
#include "map.h"

enum choice_format { CHOICES_AUTO, CHOICES_HELLASWAG, CHOICES_MMLU, CHOICES_ARC, CHOICES_WINOGRANDE, CHOICES_PIQA,
                     CHOICES_LAMBADA };
/* The words of enum choice_format that a user may choose from. */
#define CHOICES_WORDS "auto|hellaswag|mmlu|arc|winogrande|piqa"
extern const char *const choice_format_names[];

enum { CHOICES_MOST = 26 };

struct choice {
    const char *context;     /* comes after the item's `lead` */
    size_t      context_n;
    const char *text;        /* what is scored, without the blank before it */
    size_t      text_n;
};

struct choice_item {
    const char    *lead;     /* what several items have in common (MMLU: subject and shots); may be "" */
    size_t         lead_n;
    struct choice *choices;  /* [count], 2..CHOICES_MOST; 1 for LAMBADA */
    size_t         count, gold;
    size_t         group, line;
};

/* A file; for MMLU a subject. */
struct choice_group { const char *name, *path; };

struct choice_set {
    enum choice_format   format;
    struct arena         arena;      /* texts, choices, names */
    struct choice_item  *items;
    size_t               count, capacity;
    struct choice_group *groups;
    size_t               group_count;
    size_t               total;      /* items in the files, before choices_limit */
};

struct choice_options {
    enum choice_format format;       /* CHOICES_AUTO: told from the content                  */
    size_t             shots;        /* MMLU                                                 */
    const char        *dev;          /* folder with SUBJECT_dev.csv, for the shots; or NULL  */
};

/* Read a file, or a folder of MMLU's csv files in the order of their names. PIQA's labels are in NAME-labels.lst beside NAME.jsonl.
 * QUERN_EFORMAT names file and line; QUERN_EIO, QUERN_EMEM, QUERN_EUSAGE (shots of another format, fewer than asked for, a folder
 * without csv files). Free with choices_close, also after a failure. */
bool choices_open(struct choice_set *set, const char *path, const struct choice_options *options, struct quern_error *err);
void choices_close(struct choice_set *set);

/* Keep n items, evenly spread: item floor(i * total / n) for i in [0, n). All when there are no more than n, or n is 0. */
void choices_limit(struct choice_set *set, size_t n);

/* "FILE: line N", for messages. Gives `out`. */
const char *choices_place(char *out, size_t size, const struct choice_set *set, const struct choice_item *item);

#endif
