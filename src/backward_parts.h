/* backward_parts.h - what the files of the backward pass share: the buffers of one layer, stages over tokens, linear maps, and the
 * two halves of a layer. Only backward*.c include it.
 *
 * Each part goes forth (its results stay in the buffers) and back (from the gradient of its result to that of its input). A row of
 * every buffer begins dense_stride(its width) floats after the one before. */
#ifndef QUERN_BACKWARD_PARTS_H
#define QUERN_BACKWARD_PARTS_H

#include "backward.h"

/* Of a layer with experts; rows begin at multiples of dense_stride too, where no other shape is given. */
struct backward_experts {
    float    *score, *dscore;      /* [n][experts] the router's logits, then what moe_choose makes of them; their gradient */
    float    *weight, *dweight;    /* [n * used] by slot: token * used + choice */
    float    *factor, *dfactor;    /* [n][1] of the shared expert */
    uint32_t *chosen, *slots;      /* [n * used] expert of each slot; slots, sorted by expert */
    size_t   *start;               /* [experts + 1] first of each expert's */
    float    *select;              /* per thread [experts + groups] */
    float    *x, *y;               /* [n][width] of one expert: its input; its result or the gradient of it */
};

/* What one layer computes, and the gradients of it. All [n][dense_stride(its width)]. */
struct backward_layer {
    float *h, *q, *k, *v, *out, *proj;         /* attention: normed input; q, k as multiplied; values mixed; projected   */
    float *q_raw, *k_raw;                      /* before their norms (NULL without)                                      */
    float *mid, *h2, *gate, *up, *act, *down;  /* feed-forward: residual before it, normed; ...                          */
    float *dx, *dh, *dh_more, *dq, *dk, *dv, *dout, *dproj, *dgate, *dup, *dact;
    float *w, *wt, *more;                      /* a band of a matrix, its transpose, its share of a gradient             */
    float *probs;                              /* per thread 2 * (length + 1)                                            */
    float *partial;                            /* a norm's weight gradients, per block of tokens                         */
    struct backward_experts experts;
    size_t widest_norm, bytes;
    void  *all[64];
    size_t count;
};

/* Zeroed memory that backward_free frees. */
void *layer_take(struct backward *b, size_t count, size_t size, struct quern_error *err);

enum { TOKEN_BLOCK = 32 };

/* ---- backward_stages.c ------------------------------------------------------------------------------------------------ */

/* Work on tokens [from, to): at most TOKEN_BLOCK of them, beginning at a multiple of it. */
typedef void block_fn(struct backward *b, const void *arg, size_t from, size_t to);
void run_blocks(struct backward *b, block_fn *fn, const void *arg);
/* The same over rows [0, n). */
void run_rows(struct backward *b, block_fn *fn, const void *arg, size_t n);

/* Norm `id` of `heads` vectors of n values in each row; without weights: a copy. */
void norm_forth(struct backward *b, size_t id, float *out, const float *x, size_t heads, size_t n);
/* out: gradient by x; may be dy. Tells the hook of the gradient by the weight. */
void norm_back(struct backward *b, size_t id, float *out, const float *dy, const float *x, size_t heads, size_t n,
               const struct backward_hooks *hooks);
/* out = a + factor * y over rows of the model's width; a NULL: 0. out may be a or y. */
void add_rows_scaled(struct backward *b, float *out, const float *a, const float *y, float factor);

/* ---- backward_linear.c ------------------------------------------------------------------------------------------------ */

/* Rows of a matrix that are worked on together. */
size_t band_rows(const struct backward *b, const struct matrix *w);
/* y = W x + bias of one slice (an expert; else 0), n rows. */
void product_forth(struct backward *b, size_t id, size_t slice, float *y, const float *x, size_t n);
/* dx = W^T dy. */
void product_back(struct backward *b, size_t id, size_t slice, float *dx, const float *dy, size_t n);
/* The same for all tokens, for the hook's eyes too (hooks may be NULL). */
void linear_forth(struct backward *b, size_t id, float *y, const float *x, const struct backward_hooks *hooks);
/* dx: [n][stride(cols)] gradient by the input. */
void linear_back(struct backward *b, size_t id, float *dx, const float *x, const float *dy, const struct backward_hooks *hooks);

/* ---- backward_attention.c, backward_dense.c, backward_moe.c ----------------------------------------------------------- */

/* From h (normed input) to proj. */
void attention_forth(struct backward *b, size_t index, const struct backward_hooks *hooks);
/* From dproj to dh. */
void attention_back(struct backward *b, size_t index, const struct backward_hooks *hooks);
/* From h2 to act and, where it is `wanted`, down. */
void dense_forth(struct backward *b, size_t index, bool wanted, const struct backward_hooks *hooks);
/* From dproj, the gradient of down, to dh. */
void dense_back(struct backward *b, size_t index, const struct backward_hooks *hooks);
/* act = activation(gate) * up, n rows of ff values; and from dact to dgate, dup. */
void gates_forth(struct backward *b, size_t ff, size_t n);
void gates_back(struct backward *b, size_t ff, size_t n);
/* As dense_forth and dense_back, of a layer with experts. */
bool experts_take(struct backward *b, struct quern_error *err);
void experts_forth(struct backward *b, size_t index, bool wanted, const struct backward_hooks *hooks);
void experts_back(struct backward *b, size_t index, const struct backward_hooks *hooks);

#endif
