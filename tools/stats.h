/* stats.h - what imprint.h gathered, read back tensor by tensor: second moments, token counts, squared gradients.
 *
 * The one-shot command asks for one weight matrix at a time, in any order; nothing but the directory is held in memory, so a file
 * larger than memory is fine. Matrices are named as in the model's file; a stack of experts has one set per expert (else expert
 * is 0). The file's form is in models/FORMAT.md ("Statistics"). */
#ifndef QUERN_STATS_H
#define QUERN_STATS_H

#include "dense.h"
#include "gguf.h"

/* Two of each: of the calibration's larger part, and of the part that is held out to judge by. */
enum stats_part { STATS_FIT, STATS_HELD, STATS_PARTS };

enum { STATS_VERSION = 2 };

struct stats {
    struct gguf  file;
    bool         guided;     /* gradients were gathered too */
    size_t       calls;      /* of the model, each with its own sums of squared gradients */
    const struct gguf_value *maps, *inputs, *rows, *experts;   /* lists of the file, one entry per matrix */
    struct dense dense;
};

/* SHA-256 over the tensors' types and their own hashes of name and data: what tells one model from another. False: EMEM. */
bool stats_model_hash(const struct gguf *g, struct pool *pool, char out[65], struct quern_error *err);

/* `model`: the file that the statistics must be of; NULL: not looked at. QUERN_EFORMAT: no statistics, of another model, or their
 * tensors do not fit together. The kernels and the pool must outlive it; calls use the pool, one at a time. */
bool stats_open(struct stats *s, const char *path, const struct gguf *model, const struct kernels *kernels, struct pool *pool,
                struct quern_error *err);
void stats_close(struct stats *s);
/* Sets of moments that the matrix called `name` has: 1, or the number of its experts; 0: nothing is known about it. */
size_t stats_experts(const struct stats *s, struct gguf_string name);
/* Tokens that it saw; 0 where there is nothing about it. */
double stats_tokens(const struct stats *s, struct gguf_string name, size_t expert, enum stats_part part);
/* h: f32 [n][n], whole. `guided`: each token weighted by the squared gradient at the matrix' outputs (any scale). False when absent
 * (no tokens, not gathered with gradients) or of another shape. */
bool stats_hessian(struct stats *s, struct gguf_string name, size_t expert, enum stats_part part, bool guided, float *h, size_t n);
/* The diagonal of that, of the fitted part, alone: f32 [n]. */
bool stats_diagonal(const struct stats *s, struct gguf_string name, size_t expert, bool guided, float *d, size_t n);
/* Mean squared gradient of each output, of one expert's: f32 [rows]. False when absent or of another shape. */
bool stats_gradient(const struct stats *s, struct gguf_string name, size_t expert, float *g, size_t rows);

#endif
