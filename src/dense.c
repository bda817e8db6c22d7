#include "dense.h"

#include <stdlib.h>

bool dense_init(struct dense *d, const struct kernels *kernels, struct pool *pool, size_t most_cols, struct quern_error *err)
{
    size_t threads = pool_threads(pool);
    *d = (struct dense){ .kernels = kernels, .pool = pool, .most_cols = most_cols };
    d->scratch = mem_take(threads, sizeof *d->scratch, "scratch", err);
    for (size_t i = 0; d->scratch && i < threads; i++)
        if (!(d->scratch[i] = mem_take_aligned(1, kernels_scratch(kernels, most_cols), "scratch", err))) {
            dense_free(d);
            return false;
        }
    return d->scratch != NULL;
}

void dense_free(struct dense *d)
{
    for (size_t i = 0; d->scratch && i < pool_threads(d->pool); i++)
        free(d->scratch[i]);
    free(d->scratch);
    d->scratch = NULL;
}

/* A chunk is a block of rows times a block of tokens: both stay in the second-level cache. */
enum { ROWS = 64, TOKENS = 256 };

struct product_stage {
    struct dense *d;
    float        *out;
    const float  *w, *x;
    size_t        out_stride, w_stride, x_stride, rows, cols, toks, row_chunks;
};

static void product_chunk(void *arg, size_t index, size_t thread)
{
    const struct product_stage *s = arg;
    size_t r = index % s->row_chunks * ROWS, t = index / s->row_chunks * TOKENS;
    size_t rows = s->rows - r < ROWS ? s->rows - r : ROWS;
    struct matmul_job job = {
        .out = s->out + t * s->out_stride + r, .out_stride = s->out_stride, .weights = s->w + r * s->w_stride,
        .row_bytes = s->w_stride * sizeof(float), .cols = s->cols, .acts = s->x + t * s->x_stride,
        .act_stride = s->x_stride * sizeof(float), .toks = s->toks - t < TOKENS ? s->toks - t : TOKENS,
    };
    s->d->kernels->matmul[FORMAT_F32].matmul(&job, 0, rows, s->d->scratch[thread]);
}

void dense_product(struct dense *d, float *out, size_t out_stride, const float *w, size_t w_stride, size_t rows, const float *x,
                   size_t x_stride, size_t cols, size_t toks)
{
    struct product_stage s = { d, out, w, x, out_stride, w_stride, x_stride, rows, cols, toks, (rows + ROWS - 1) / ROWS };
    pool_run(d->pool, product_chunk, &s, s.row_chunks * ((toks + TOKENS - 1) / TOKENS));
}

void dense_tile(struct dense *d, float *out, size_t out_stride, const float *w, size_t w_stride, size_t rows, const float *x,
                size_t x_stride, size_t cols, size_t toks, size_t thread)
{
    struct matmul_job job = {
        .out = out, .out_stride = out_stride, .weights = w, .row_bytes = w_stride * sizeof(float), .cols = cols,
        .acts = x, .act_stride = x_stride * sizeof(float), .toks = toks,
    };
    d->kernels->matmul[FORMAT_F32].matmul(&job, 0, rows, d->scratch[thread]);
}

enum { TILE = 16, BAND = 64 };

struct transpose_stage { float *out; const float *in; size_t out_stride, in_stride, rows, cols; };

static void transpose_chunk(void *arg, size_t index, size_t thread)
{
    const struct transpose_stage *s = arg;
    size_t to = (index + 1) * BAND < s->cols ? (index + 1) * BAND : s->cols;
    (void)thread;
    for (size_t c0 = index * BAND; c0 < to; c0 += TILE)
        for (size_t r0 = 0; r0 < s->rows; r0 += TILE)
            for (size_t c = c0; c < c0 + TILE && c < to; c++)
                for (size_t r = r0; r < r0 + TILE && r < s->rows; r++)
                    s->out[c * s->out_stride + r] = s->in[r * s->in_stride + c];
}

void dense_transpose(struct dense *d, float *out, size_t out_stride, const float *in, size_t in_stride, size_t rows, size_t cols)
{
    struct transpose_stage s = { out, in, out_stride, in_stride, rows, cols };
    pool_run(d->pool, transpose_chunk, &s, (cols + BAND - 1) / BAND);
}
