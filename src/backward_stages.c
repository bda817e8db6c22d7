/* Work that goes token by token: norms and sums. */
#include <string.h>

#include "backward_ops.h"
#include "backward_parts.h"

struct block_stage { struct backward *b; block_fn *fn; const void *arg; size_t n; };

static void run_block(void *arg, size_t index, size_t thread)
{
    struct block_stage *s = arg;
    size_t from = index * TOKEN_BLOCK, to = from + TOKEN_BLOCK < s->n ? from + TOKEN_BLOCK : s->n;
    (void)thread;
    s->fn(s->b, s->arg, from, to);
}

void run_rows(struct backward *b, block_fn *fn, const void *arg, size_t n)
{
    struct block_stage s = { b, fn, arg, n };
    pool_run(b->pool, run_block, &s, (n + TOKEN_BLOCK - 1) / TOKEN_BLOCK);
}

void run_blocks(struct backward *b, block_fn *fn, const void *arg)
{
    run_rows(b, fn, arg, b->n);
}

/* Norm of `heads` vectors of n values in each row. weight NULL: identity. */
struct norm_stage {
    float *out;                     /* forth: normed; back: gradient of x                */
    const float *dy, *x, *weight;
    float *partial;                 /* back: weight gradients per block, NULL: unwanted  */
    size_t stride, heads, n;
};

static void norm_forth_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct norm_stage *s = arg;
    for (size_t t = from; t < to; t++)
        for (size_t h = 0; h < s->heads; h++) {
            size_t at = t * s->stride + h * s->n;
            if (s->weight)
                rms_forth(s->out + at, s->x + at, s->weight, s->n, b->m->hyper.eps);
            else if (s->out != s->x)
                memcpy(s->out + at, s->x + at, s->n * sizeof(float));
        }
}

static void norm_back_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct norm_stage *s = arg;
    float *partial = s->partial ? s->partial + from / TOKEN_BLOCK * s->n : NULL;
    if (partial)
        memset(partial, 0, s->n * sizeof *partial);
    for (size_t t = from; t < to; t++)
        for (size_t h = 0; h < s->heads; h++) {
            size_t at = t * s->stride + h * s->n;
            if (s->weight)
                rms_back(s->out + at, partial, s->dy + at, s->x + at, s->weight, s->n, b->m->hyper.eps);
            else if (s->out != s->dy)
                memcpy(s->out + at, s->dy + at, s->n * sizeof(float));
        }
}

void norm_forth(struct backward *b, size_t id, float *out, const float *x, size_t heads, size_t n)
{
    struct norm_stage s = { .out = out, .x = x, .weight = b->norms[id], .stride = dense_stride(heads * n), .heads = heads, .n = n };
    run_blocks(b, norm_forth_block, &s);
}

void norm_back(struct backward *b, size_t id, float *out, const float *dy, const float *x, size_t heads, size_t n,
               const struct backward_hooks *hooks)
{
    bool wanted = hooks->norm && b->norms[id];
    struct norm_stage s = { .out = out, .dy = dy, .x = x, .weight = b->norms[id], .partial = wanted ? b->buffers->partial : NULL,
                            .stride = dense_stride(heads * n), .heads = heads, .n = n };
    run_blocks(b, norm_back_block, &s);
    if (!wanted)
        return;
    for (size_t block = 1; block < (b->n + TOKEN_BLOCK - 1) / TOKEN_BLOCK; block++)
        for (size_t i = 0; i < n; i++)
            s.partial[i] += s.partial[block * n + i];
    hooks->norm(hooks->arg, id, s.partial);
}

struct add_stage { float *out; const float *a, *y; float factor; };

static void add_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct add_stage *s = arg;
    size_t stride = dense_stride(b->m->hyper.width);
    for (size_t i = from * stride; i < to * stride; i++)
        s->out[i] = (s->a ? s->a[i] : 0) + s->factor * s->y[i];
}

void add_rows_scaled(struct backward *b, float *out, const float *a, const float *y, float factor)
{
    struct add_stage s = { out, a, y, factor };
    run_blocks(b, add_block, &s);
}
