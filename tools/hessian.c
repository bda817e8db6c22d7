#include "hessian.h"

#include <stdlib.h>
#include <string.h>

/* Edge of the squares that the lower triangle is made of: 64 KiB of sums per thread, and half of the products are left out. */
enum { TILE = 128, ROWS = 64 };

bool hessian_work_init(struct hessian_work *w, struct dense *dense, size_t most_cols, size_t most_tokens, struct quern_error *err)
{
    size_t row = dense_stride(most_tokens) * sizeof(float);
    *w = (struct hessian_work){ .dense = dense };
    w->across = mem_take_aligned(most_cols, row, "second moments", err);
    w->scaled = w->across ? mem_take_aligned(most_cols, row, "second moments", err) : NULL;
    w->tile = w->scaled ? mem_take_aligned(pool_threads(dense->pool), TILE * TILE * sizeof(float), "second moments", err) : NULL;
    if (w->tile)
        return true;
    hessian_work_free(w);
    return false;
}

void hessian_work_free(struct hessian_work *w)
{
    free(w->across);
    free(w->scaled);
    free(w->tile);
    memset(w, 0, sizeof *w);
}

size_t hessian_work_bytes(size_t most_cols, size_t most_tokens, size_t threads)
{
    return (2 * most_cols * dense_stride(most_tokens) + threads * TILE * TILE) * sizeof(float);
}

void hessian_inputs(struct hessian_work *w, const float *x, size_t cols, size_t toks)
{
    size_t stride = dense_stride(toks);
    w->cols = cols, w->toks = toks;
    for (size_t i = 0; i < cols; i++)
        memset(w->across + i * stride + toks, 0, (stride - toks) * sizeof(float));
    dense_transpose(w->dense, w->across, stride, x, dense_stride(cols), toks, cols);
}

static void scale_rows(void *arg, size_t index, size_t thread)
{
    struct hessian_work *w = arg;
    size_t stride = dense_stride(w->toks), to = (index + 1) * ROWS < w->cols ? (index + 1) * ROWS : w->cols;
    (void)thread;
    for (size_t i = index * ROWS; i < to; i++) {
        const float *x = w->across + i * stride;
        float *out = w->scaled + i * stride;
        for (size_t t = 0; t < w->toks; t++)
            out[t] = w->weight[t] * x[t];
        memset(out + w->toks, 0, (stride - w->toks) * sizeof *out);
    }
}

/* Square `index` of the lower triangle, counted row after row: 0; 1, 2; 3, 4, 5; ... */
static void add_tile(void *arg, size_t index, size_t thread)
{
    struct hessian_work *w = arg;
    size_t stride = dense_stride(w->toks), row = 0;
    while ((row + 1) * (row + 2) / 2 <= index)
        row++;
    size_t i0 = row * TILE, j0 = (index - row * (row + 1) / 2) * TILE;
    size_t rows = w->cols - i0 < TILE ? w->cols - i0 : TILE, cols = w->cols - j0 < TILE ? w->cols - j0 : TILE;
    float *tile = w->tile + thread * TILE * TILE;
    dense_tile(w->dense, tile, TILE, w->scaled + j0 * stride, stride, cols, w->across + i0 * stride, stride, w->toks, rows, thread);
    for (size_t i = 0; i < rows; i++) {
        size_t n = i0 + i + 1 - j0 < cols ? i0 + i + 1 - j0 : cols;
        float *out = w->triangle + hessian_size(i0 + i) + j0;
        for (size_t j = 0; j < n; j++)
            out[j] += tile[i * TILE + j];
    }
}

void hessian_add(struct hessian_work *w, float *triangle, const float *weight)
{
    size_t edge = (w->cols + TILE - 1) / TILE;
    w->weight = weight, w->triangle = triangle;
    pool_run(w->dense->pool, scale_rows, w, (w->cols + ROWS - 1) / ROWS);
    pool_run(w->dense->pool, add_tile, w, edge * (edge + 1) / 2);
}
