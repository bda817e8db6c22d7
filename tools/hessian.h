/* hessian.h - second moments of the inputs of linear maps, gathered over calibration text.
 *
 * For a map with n inputs: H = mean over tokens of weight * x x^T, symmetric, as the lower triangle row after row (n (n + 1) / 2 floats).
 * Sums over a call are f32 in the kernel's order and calls are added one after the other, so the same calls give the same bits for
 * any number of threads. */
#ifndef QUERN_HESSIAN_H
#define QUERN_HESSIAN_H

#include "dense.h"

static inline size_t hessian_size(size_t n)
{
    return n * (n + 1) / 2;
}

/* Buffers of hessian_add for maps of at most `most_cols` inputs and calls of at most `most_tokens`. */
struct hessian_work {
    struct dense *dense;
    float *scaled, *across, *block;     /* [tokens][stride(cols)], [cols][stride(tokens)], [256][stride(cols)] */
    size_t most_cols, most_tokens;
};
bool hessian_work_init(struct hessian_work *w, struct dense *dense, size_t most_cols, size_t most_tokens, struct quern_error *err);
void hessian_work_free(struct hessian_work *w);

/* triangle += sum over t of weight[t] * x[t] x[t]^T. x: [toks][dense_stride(cols)]; weight: [toks], >= 0. */
void hessian_add(struct hessian_work *w, float *triangle, const float *x, const float *weight, size_t cols, size_t toks);

#endif
