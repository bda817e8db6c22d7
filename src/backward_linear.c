/* Linear maps and their mirrors. Weights are decoded a band of rows at a time, as a head of a large vocabulary would take gigabytes
 * in f32; the mirror needs each band transposed, since the f32 product sums along rows. */
#include <string.h>

#include "backward_parts.h"

/* Rows that one thread decodes at a time, and of which a band is a multiple. */
enum { DECODE_ROWS = 64 };

size_t band_rows(const struct backward *b, const struct matrix *w)
{
    size_t rows = b->band / dense_stride(w->cols);
    rows = rows < DECODE_ROWS ? DECODE_ROWS : rows - rows % DECODE_ROWS;
    return rows < w->rows ? rows : w->rows;
}

struct decode_stage { const struct backward *b; const struct matrix *w; size_t first, rows; float *out; };

static void decode_chunk(void *arg, size_t index, size_t thread)
{
    const struct decode_stage *s = arg;
    size_t stride = dense_stride(s->w->cols), first = index * DECODE_ROWS;
    size_t to = s->rows - first < DECODE_ROWS ? s->rows : first + DECODE_ROWS;
    (void)thread;
    for (size_t r = first; r < to; r++) {
        float *row = s->out + r * stride;
        s->b->dense.kernels->dequantize[s->w->type].fn(row, s->w->data + (s->first + r) * s->w->row_bytes, s->w->cols);
        if (s->w->scale != 1)
            for (size_t c = 0; c < s->w->cols; c++)
                row[c] *= s->w->scale;
        memset(row + s->w->cols, 0, (stride - s->w->cols) * sizeof *row);
    }
}

static void decode_rows(const struct backward *b, const struct matrix *w, size_t first, size_t rows, float *out)
{
    struct decode_stage s = { b, w, first, rows, out };
    pool_run(b->pool, decode_chunk, &s, (rows + DECODE_ROWS - 1) / DECODE_ROWS);
}

void backward_decode(const struct backward *b, const struct matrix *w, float *out)
{
    decode_rows(b, w, 0, w->rows * w->slices, out);
}

/* Rows [first, first + rows) of a slice of a map. */
static const float *weight_of(struct backward *b, size_t id, size_t slice, size_t first, size_t rows)
{
    const struct matrix *w = backward_matrix(b->m, id);
    first += slice * w->rows;
    if (b->weights[id])
        return b->weights[id] + first * dense_stride(w->cols);
    decode_rows(b, w, first, rows, b->buffers->w);
    return b->buffers->w;
}

struct bias_stage { float *y; const float *bias; size_t rows; };

static void bias_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct bias_stage *s = arg;
    (void)b;
    for (size_t t = from; t < to; t++)
        for (size_t r = 0; r < s->rows; r++)
            s->y[t * dense_stride(s->rows) + r] += s->bias[r];
}

void product_forth(struct backward *b, size_t id, size_t slice, float *y, const float *x, size_t n)
{
    const struct matrix *w = backward_matrix(b->m, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    for (size_t r = 0, band = band_rows(b, w), m; r < w->rows; r += m) {
        m = w->rows - r < band ? w->rows - r : band;
        dense_product(&b->dense, y + r, rows, weight_of(b, id, slice, r, m), cols, m, x, cols, w->cols, n);
    }
    if (w->bias) {
        struct bias_stage s = { y, w->bias + slice * w->rows, w->rows };
        run_rows(b, bias_block, &s, n);
    }
}

void linear_forth(struct backward *b, size_t id, float *y, const float *x, const struct backward_hooks *hooks)
{
    if (hooks && hooks->input)
        hooks->input(hooks->arg, id, x, b->n);
    product_forth(b, id, 0, y, x, b->n);
}

struct sum_stage { float *out; const float *x; size_t stride; };

static void sum_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct sum_stage *s = arg;
    (void)b;
    for (size_t i = from * s->stride; i < to * s->stride; i++)
        s->out[i] += s->x[i];
}

void product_back(struct backward *b, size_t id, size_t slice, float *dx, const float *dy, size_t n)
{
    const struct matrix *w = backward_matrix(b->m, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    for (size_t r = 0, band = band_rows(b, w), m; r < w->rows; r += m) {
        m = w->rows - r < band ? w->rows - r : band;
        size_t across = dense_stride(m);
        float *out = r ? b->buffers->more : dx;
        dense_transpose(&b->dense, b->buffers->wt, across, weight_of(b, id, slice, r, m), cols, m, w->cols);
        dense_product(&b->dense, out, cols, b->buffers->wt, across, w->cols, dy + r, rows, m, n);
        if (r) {
            struct sum_stage s = { dx, out, cols };
            run_rows(b, sum_block, &s, n);
        }
    }
}

void linear_back(struct backward *b, size_t id, float *dx, const float *x, const float *dy, const struct backward_hooks *hooks)
{
    if (hooks->linear)
        hooks->linear(hooks->arg, id, x, dy, b->n);
    product_back(b, id, 0, dx, dy, b->n);
}
