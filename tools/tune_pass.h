/* tune_pass.h - original and rounded model side by side over a few sequences: the divergence, and its gradients by the parts. */
#ifndef QUERN_TUNE_PASS_H
#define QUERN_TUNE_PASS_H

#include "tune_parts.h"

struct tune_pass {
    const struct model   *student;
    const struct kernels *kernels;
    struct pool       *pool;
    struct tune_parts *parts;
    struct backward    forth, back;  /* of the original, of the rounded model */
    size_t   most, length;           /* sequences of a pass, tokens of each */
    bool     gradients;              /* wanted in the pass at hand */
    int32_t *tokens;                 /* [most * length], the caller's to fill */
    float   *wanted, *got;           /* logits [most * length][stride(vocabulary)]; `wanted` becomes the gradient */
    double  *loss;                   /* [most * length] */
    float   *rows;                   /* per thread two rows of probabilities */
    float   *across, *down, *panel;  /* inputs and gradients transposed, some rows of a matrix' gradient */
    float   *unit;                   /* per thread a row of values */
    uint8_t *blocks;                 /* per thread a row of blocks */
};

/* Sequences of a pass: at most `sequences`, fewer where their logits would take too much. */
size_t tune_pass_sequences(size_t vocab, size_t sequences, size_t length);
/* At most `sequences` of `length` tokens per pass, fewer where their logits would take too much. mem_limit: bytes that the pass's
 * own buffers may take, 0: any. Models, parts, kernels and pool must outlive it. */
bool tune_pass_open(struct tune_pass *p, const struct model *teacher, const struct model *student, struct tune_parts *parts,
                    const struct kernels *kernels, struct pool *pool, size_t sequences, size_t length, size_t mem_limit,
                    struct quern_error *err);
void tune_pass_close(struct tune_pass *p);      /* also after a failed open */

/* Both models over the first `count` <= most sequences of `tokens`: the sum over all positions but the sequences' first of
 * KL(original || rounded), nats. With `gradients` those of that sum are added to the parts'. */
double tune_pass_run(struct tune_pass *p, size_t count, bool gradients);

#endif
