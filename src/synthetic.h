/* synthetic.h - models of a given shape with random weights, made in memory: speed needs no download.
 *
 * The result is a whole GGUF file (architecture, tokenizer with made-up words, tensors of valid random blocks with scales such
 * that activations stay finite). The same shape and types give the same bytes everywhere. It says nothing about quality. */
#ifndef QUERN_SYNTHETIC_H
#define QUERN_SYNTHETIC_H

#include "error.h"

struct synthetic {
    uint8_t *data;       /* the file's bytes */
    size_t   size;
    size_t   mapped;     /* what synthetic_free unmaps */
    char     name[80];   /* "llama 1b q4_k_m (random weights)" */
};

/* `spec`: SHAPE:TYPE, for example "1b:q4_k_m". Shapes: synthetic_shapes. Types: any format that matrices may have ("q4_0",
 * "iq2_xs", "bf16"), or q4_k_m, q5_k_m, which mix as llama.cpp's recipes of that name do. QUERN_EUSAGE with the lists. */
bool synthetic_make(struct synthetic *s, const char *spec, struct quern_error *err);
void synthetic_free(struct synthetic *s);
/* Write it as a file; an existing one is replaced with `force` only, else QUERN_EUSAGE. */
bool synthetic_save(const struct synthetic *s, const char *path, bool force, struct quern_error *err);

/* "0.1b, 1b, 3b, ...": for messages and help. */
#define SYNTHETIC_SHAPES "0.1b, 0.3b, 0.5b, 1b, 3b, 8b, qwen3-0.6b, qwen3-4b, olmoe-1b-7b, qwen3-a3b-8l"

#endif
