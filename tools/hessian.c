#include "hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of H per product: its lower triangle is made in bands of so many rows, which leaves half of the work out. */
enum { BAND = 256 };

bool hessian_work_init(struct hessian_work *w, struct dense *dense, size_t most_cols, size_t most_tokens, struct quern_error *err)
{
    *w = (struct hessian_work){ .dense = dense, .most_cols = most_cols, .most_tokens = most_tokens };
    w->scaled = mem_take_aligned(most_tokens, dense_stride(most_cols) * sizeof(float), "second moments", err);
    w->across = w->scaled ? mem_take_aligned(most_cols, dense_stride(most_tokens) * sizeof(float), "second moments", err) : NULL;
    w->block = w->across ? mem_take_aligned(BAND, dense_stride(most_cols) * sizeof(float), "second moments", err) : NULL;
    if (w->block)
        return true;
    hessian_work_free(w);
    return false;
}

void hessian_work_free(struct hessian_work *w)
{
    free(w->scaled);
    free(w->across);
    free(w->block);
    memset(w, 0, sizeof *w);
}

void hessian_add(struct hessian_work *w, float *triangle, const float *x, const float *weight, size_t cols, size_t toks)
{
    size_t stride = dense_stride(cols), across = dense_stride(toks);
    for (size_t t = 0; t < toks; t++) {
        float root = sqrtf(weight[t]);
        for (size_t i = 0; i < cols; i++)
            w->scaled[t * stride + i] = root > 0 ? root * x[t * stride + i] : 0;
    }
    memset(w->across, 0, cols * across * sizeof *w->across);
    dense_transpose(w->dense, w->across, across, w->scaled, stride, toks, cols);
    for (size_t from = 0; from < cols; from += BAND) {
        size_t to = from + BAND < cols ? from + BAND : cols;
        dense_product(w->dense, w->block, stride, w->across, across, to, w->across + from * across, across, toks, to - from);
        for (size_t i = from; i < to; i++) {
            float *out = triangle + hessian_size(i);
            for (size_t j = 0; j <= i; j++)
                out[j] += w->block[(i - from) * stride + j];
        }
    }
}
