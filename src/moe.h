/* moe.h - the state of a mixture of experts within a pass: who was chosen, and the tokens sorted by expert. */
#ifndef QUERN_MOE_H
#define QUERN_MOE_H

#include "forward.h"

struct moe {
    float    *scores;       /* [max_tokens][experts] router's logits, then probabilities */
    float    *weights;      /* [max_tokens][used] */
    uint32_t *chosen;       /* [max_tokens][used] experts, best first */
    size_t   *slot;         /* [max_tokens][used] place of this choice among all, sorted by expert */
    size_t   *start;        /* [experts + 1] first slot of each expert */
    float    *out;          /* [max_tokens * used][width] experts' results, slot after slot */
    float    *shared;       /* [max_tokens] factor of the shared expert */
    float    *shared_out;   /* [max_tokens][width] */
    struct acts gathered;   /* a token's vector per slot */
    struct acts slots_mid;  /* hidden vectors of the experts, per slot */
    struct acts shared_mid; /* of the shared expert, per token */
};

/* The smallest F16 keeps a sum of vanishing weights from being divided by 0, as in the published models. */
#define MOE_LEAST_SUM 6.103515625e-5f

/* One token's experts. score: the router's logits, f32 [experts], become probabilities (softmax among the chosen: stay logits).
 * select: scratch [experts + groups]. chosen, weight: [used], best first; the weights are normalised and scaled as the
 * model says. */
void moe_choose(const struct model *m, const struct kernels *k, const struct layer *l, float *score, float *select,
                uint32_t *chosen, float *weight);

/* Part of forward's plan; nothing for models without experts. */
bool moe_plan(struct forward *f, unsigned char *base, size_t *offset);

#endif
