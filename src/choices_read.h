/* choices_read.h - what the readers of the single formats share; for choices*.c only. */
#ifndef QUERN_CHOICES_READ_H
#define QUERN_CHOICES_READ_H

#include "choices.h"

/* One file while it is read. */
struct choice_source {
    struct choice_set *set;
    const char        *path;
    const char        *data;     /* [n], without a byte order mark */
    size_t             n, group;
};

/* The next line without its end (LF or CR LF); false after the last one. Begin with at = line = 0; line counts from 1. */
struct choice_line { const char *text; size_t n, at, line; };
bool choices_line(const struct choice_source *source, struct choice_line *line);
bool choices_blank(const char *text, size_t n);

/* QUERN_EFORMAT: "FILE: line N: ...". */
bool choices_bad(const struct choice_source *source, size_t line, struct quern_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A new item of `count` choices, in the arena and zeroed but for `line`, `group` and an empty lead; NULL: QUERN_EMEM. */
struct choice_item *choices_add(const struct choice_source *source, size_t line, size_t count, struct quern_error *err);
bool choices_text(struct choice_set *set, const char **out, size_t *out_n, const char *text, size_t n, struct quern_error *err);

/* The formats. */
bool choices_read_hellaswag(struct choice_source *source, struct quern_error *err);
bool choices_read_mmlu(struct choice_source *source, const struct choice_options *options, struct quern_error *err);
bool choices_read_arc(struct choice_source *source, struct quern_error *err);
bool choices_read_winogrande(struct choice_source *source, struct quern_error *err);
bool choices_read_piqa(struct choice_source *source, struct quern_error *err);
bool choices_read_lambada(struct choice_source *source, struct quern_error *err);
/* Which of the formats of JSON lines the first line shows; CHOICES_AUTO when it is none. */
bool choices_jsonl_format(const struct choice_source *source, enum choice_format *format, struct quern_error *err);
/* "high_school_physics" of "DIR/high_school_physics_test.csv"; malloc'ed. */
char *choices_subject(const char *path, struct quern_error *err);

#endif
