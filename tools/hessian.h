/* hessian.h - second moments of the inputs of linear maps, gathered over calibration text.
 *
 * For a map with n inputs: H = sum over tokens of weight * x x^T, symmetric, kept as the lower triangle row after row
 * (n (n + 1) / 2 floats). Sums over a call are f32 in the kernel's order and calls are added one after the other, so the same calls
 * give the same bits for any number of threads. Cost: n^2 multiplications per token. */
#ifndef QUERN_HESSIAN_H
#define QUERN_HESSIAN_H

#include "dense.h"

static inline size_t hessian_size(size_t n)
{
    return n * (n + 1) / 2;
}

/* Buffers for maps of at most `most_cols` inputs and calls of at most `most_tokens`. */
struct hessian_work {
    struct dense *dense;
    float *across, *scaled;             /* [most_cols][stride(most_tokens)] inputs by column, and times the weights */
    float *tile;                        /* per thread [TILE][TILE] */
    size_t cols, toks;                  /* of the inputs at hand */
    const float *weight;
    float *triangle;
};
bool hessian_work_init(struct hessian_work *w, struct dense *dense, size_t most_cols, size_t most_tokens, struct quern_error *err);
void hessian_work_free(struct hessian_work *w);
/* What hessian_work_init takes. */
size_t hessian_work_bytes(size_t most_cols, size_t most_tokens, size_t threads);

/* The inputs of the sums to come. x: [toks][dense_stride(cols)]. */
void hessian_inputs(struct hessian_work *w, const float *x, size_t cols, size_t toks);
/* triangle += sum over t of weight[t] * x[t] x[t]^T. weight: [toks]. */
void hessian_add(struct hessian_work *w, float *triangle, const float *weight);

#endif
