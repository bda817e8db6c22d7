/* cost.h - the bytes that a pass must read and the operations that it must do at least: what measured times are divided by.
 *
 * Counted are the matrices (each once per pass, of the experts those that are likely to be chosen) and attention with the keys and
 * values in the caches. Vectors between stages lie in caches and count nothing. */
#ifndef QUERN_COST_H
#define QUERN_COST_H

#include "kv.h"
#include "roof.h"
#include "stages.h"

struct cost {
    double bytes;
    double ops[ROOF_KINDS];      /* by what is multiplied; a multiplication and an addition count as two */
};

/* One pass: `tokens` of each of `sequences` sequences, each of which has `depth` in its cache; the logits after the last `wanted`
 * of each. */
struct cost_pass {
    const struct model   *model;
    const struct kernels *kernels;
    const struct kv      *kv;    /* one of the caches, for its shape */
    size_t sequences, depth, tokens, wanted;
};

/* Add the pass to out, stage by stage. */
void cost_add_pass(struct cost out[STAGES], const struct cost_pass *pass);
struct cost cost_sum(const struct cost stages[STAGES]);
double cost_ops(const struct cost *cost);

/* What a machine can give: bytes and operations per second. */
struct rates { double bytes, ops[ROOF_KINDS]; };
/* Operations per second when this mix of operations runs at its peak; 0 when there are none. */
double cost_peak(const struct cost *cost, const struct rates *roof);
/* Seconds that memory or arithmetic alone would take, whichever is longer. */
double cost_ideal(const struct cost *cost, const struct rates *roof);

#endif
