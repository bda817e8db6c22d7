/* dense.h - products of f32 matrices for the backward pass and the statistics of calibration, on the kernels' f32 product.
 *
 * Activations are row-major with a stride that dense_stride gives (rows begin at multiples of 64 bytes). Every element is one sum
 * in the kernel's order: results do not depend on the number of threads. */
#ifndef QUERN_DENSE_H
#define QUERN_DENSE_H

#include "error.h"
#include "kernels.h"
#include "pool.h"

struct dense {
    const struct kernels *kernels;
    struct pool          *pool;
    void                **scratch;     /* per thread */
    size_t                most_cols;   /* longest sum that the scratch is made for */
};

bool dense_init(struct dense *d, const struct kernels *kernels, struct pool *pool, size_t most_cols, struct quern_error *err);
void dense_free(struct dense *d);

/* Floats from row to row for rows of `cols`: a multiple of 16. */
static inline size_t dense_stride(size_t cols)
{
    return (cols + 15) / 16 * 16;
}

/* out[t][r] = sum over c of w[r][c] * x[t][c], r in [0, rows), t in [0, toks). w: [rows][w_stride]; x: [toks][x_stride], 64-byte
 * aligned, x_stride = dense_stride(...) >= cols; out: [toks][out_stride]. */
void dense_product(struct dense *d, float *out, size_t out_stride, const float *w, size_t w_stride, size_t rows, const float *x,
                   size_t x_stride, size_t cols, size_t toks);
/* The same by the calling thread alone, for use within a stage of the pool: `thread` is its number there. */
void dense_tile(struct dense *d, float *out, size_t out_stride, const float *w, size_t w_stride, size_t rows, const float *x,
                size_t x_stride, size_t cols, size_t toks, size_t thread);
/* out[c][r] = in[r][c]; out: [cols][out_stride]. */
void dense_transpose(struct dense *d, float *out, size_t out_stride, const float *in, size_t in_stride, size_t rows, size_t cols);

#endif
