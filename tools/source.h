/* source.h - the model that a tool reads: a GGUF, or a checkpoint's folder, which is converted beside the output first. */
#ifndef QUERN_SOURCE_H
#define QUERN_SOURCE_H

#include "model.h"

struct source {
    const char *path;          /* of a GGUF: the user's, or `converted` */
    char       *converted;     /* temporary file, removed by source_close; NULL: none */
};

/* `path`: what the user named. A folder becomes a GGUF of its own types named ".OUT.quern-source" beside `output` (NULL: in TMPDIR
 * or /tmp), which takes as many bytes as the checkpoint. QUERN_EUSAGE when `output` is a file of that folder; other errors:
 * convert.h. `path` must outlive it. */
bool source_open(struct source *s, const char *path, const char *output, const volatile int *stop, struct quern_error *err);
void source_close(struct source *s);

/* Open a model that texts are run through, its weights left in the pages of the file: passes over many tokens gain nothing from
 * copies in huge pages, and the copies would stand in memory beside the pages that rounding reads. */
struct quern_model *source_model(const char *path, size_t threads, struct quern_error *err);

#endif
