/* Stages: tokens, or rows of matrices, spread over the pool.
 *
 * A stage is one pool_run: all threads take chunks until none is left, then the next stage begins. What a chunk computes depends
 * only on its index, never on the thread or the order, so the output is the same for any number of threads. */
#include "forward.h"

#include <math.h>
#include <string.h>

/* Rows per chunk. With few tokens a chunk is bound by memory, and larger is better until one slow core would end the stage alone;
 * with many tokens the chunk's results are held in scratch, and 64 rows of 512 tokens (128 KiB) still lie in L2. */
enum { ROWS_FEW = 256, ROWS_LAST = 64, LAST_PER_THREAD = 4, ROWS_MANY = 64, TOKENS_FEW = 16, CHUNKS_PER_THREAD = 8 };

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

struct token_stage {
    struct forward *f;
    token_fn       *fn;
    const void     *arg;
    size_t          n, per;
};

static void token_chunk(void *arg, size_t index, size_t thread)
{
    const struct token_stage *s = arg;
    size_t end = (index + 1) * s->per < s->n ? (index + 1) * s->per : s->n;
    for (size_t tok = index * s->per; tok < end; tok++)
        s->fn(s->f, s->arg, tok, thread);
}

void run_tokens(struct forward *f, token_fn *fn, const void *arg, size_t n)
{
    size_t per = n / (f->threads * 4);
    struct token_stage s = { .f = f, .fn = fn, .arg = arg, .n = n, .per = per ? per : 1 };
    if (n)
        pool_run(f->pool, token_chunk, &s, (n + s.per - 1) / s.per);
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

void acts_shape(struct acts *acts, size_t cols)
{
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (acts->bytes[kind])
            acts->stride[kind] = act_layout((enum act_kind)kind, cols).bytes;
}

void acts_prepare(const struct forward *f, struct acts *acts, size_t i, const float *x, size_t cols)
{
    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (acts->bytes[kind])
            f->k->act_prepare[kind].fn(acts->data[kind] + i * acts->stride[kind], x, cols);
}

struct prepare_stage {
    struct acts *acts;
    const float *x;
    size_t stride, cols;
};

static void prepare_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct prepare_stage *s = arg;
    (void)thread;
    acts_prepare(f, s->acts, tok, s->x + tok * s->stride, s->cols);
}

void prepare_tokens(struct forward *f, struct acts *acts, const float *x, size_t stride, size_t cols, size_t n)
{
    struct prepare_stage s = { .acts = acts, .x = x, .stride = stride, .cols = cols };
    acts_shape(acts, cols);
    run_tokens(f, prepare_token, &s, n);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

struct product_stage {
    struct forward *f;
    struct product *list;
    size_t          n;
};

size_t product_scratch_floats(const struct kernels *k, size_t max_tokens)
{
    size_t tile = ROWS_MANY;
    for (int i = 0; i < FORMAT_COUNT; i++)
        if (k->matmul[i].matmul && k->matmul[i].tile > tile)
            tile = k->matmul[i].tile;
    size_t few = ROWS_FEW > tile ? ROWS_FEW : tile;
    size_t many = max_tokens * tile;
    return many > few * TOKENS_FEW ? many : few * TOKENS_FEW;
}

static size_t clamp(size_t x, size_t low, size_t high) { return x < low ? low : x > high ? high : x; }

/* How the rows are cut. With many tokens evenly: a share small enough that several fall to each thread. With few, large pieces first
 * and small ones at the end: each piece begins with what no core has asked for yet (on the Zen 4 at hand four threads read Q4_K at 69 %
 * of the memory's rate in pieces of 32 rows, 90 % of 64, 94 % of 256), and the last piece is what the others wait for. All are
 * multiples of the kernel's tile. */
static void cut_rows(const struct forward *f, struct product *p)
{
    size_t tile = f->k->matmul[p->w->type].tile, rows = p->w->rows, threads = f->threads;
    tile = tile ? tile : 1;
    p->large_rows = p->large_count = 0;
    if (p->toks > TOKENS_FEW) {
        p->chunk_rows = threads == 1 ? ROWS_MANY : clamp(rows / (threads * CHUNKS_PER_THREAD), 16, ROWS_MANY);
    } else if (threads == 1) {
        p->chunk_rows = ROWS_FEW;
    } else {
        p->chunk_rows = clamp(rows / (threads * 2), 16, ROWS_LAST);
        size_t end = threads * LAST_PER_THREAD * p->chunk_rows;
        p->large_rows = end < rows ? clamp((rows - end) / threads, 0, ROWS_FEW) : 0;
        p->large_rows -= p->large_rows % tile;
        if (p->large_rows > p->chunk_rows)
            p->large_count = (rows - end) / p->large_rows;
    }
    p->chunk_rows -= p->chunk_rows % tile;
    p->chunk_rows = p->chunk_rows ? p->chunk_rows : tile;
}

/* Rows [begin, end) of one matrix, to out[toks][stride]: products, factor and bias. The weights' pointer is moved to the first row,
 * so that `out` may be a thread's scratch as well as a place within a row of results. */
static void multiply(const struct forward *f, const struct product *p, const struct matrix *w, size_t begin, size_t end, float *out,
                     size_t stride, size_t thread)
{
    const struct matmul_kernels *kernel = &f->k->matmul[w->type];
    const uint8_t *slice = w->data + p->slice * w->rows * w->row_bytes;
    size_t act = p->in->stride[kernel->act];
    struct matmul_job job = { .out = out, .out_stride = stride, .weights = slice + begin * w->row_bytes, .row_bytes = w->row_bytes,
                              .cols = w->cols, .acts = p->in->data[kernel->act] + p->first * act, .act_stride = p->step * act,
                              .toks = p->toks };
    kernel->matmul(&job, 0, end - begin, f->scratch[thread].kernel);
    const float *bias = w->bias ? w->bias + p->slice * w->rows + begin : NULL;
    if (w->scale == 1 && !bias)
        return;
    for (size_t t = 0; t < p->toks; t++)
        for (size_t r = 0; r < end - begin; r++)
            out[t * stride + r] = out[t * stride + r] * w->scale + (bias ? bias[r] : 0);
}

static void relu_squared(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] > 0 ? x[i] * x[i] : 0;
}

/* gpt-oss: a SiLU with slope 1.702, clamped at 7, times up + 1. */
static void swiglu_clamped(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float g = fminf(gate[i], 7.0f), u = fmaxf(-7.0f, fminf(up[i], 7.0f));
        out[i] = g / (1 + expf(-1.702f * g)) * (u + 1);
    }
}

/* out: activation(gate) * up, gate in out; or, up NULL, activation(out). */
static void activate(const struct forward *f, float *out, const float *up, size_t n)
{
    switch (f->m->arch->activation) {
    case FFN_SILU:
        if (up)
            f->k->silu_mul.fn(out, out, up, n);
        else
            f->k->silu.fn(out, out, n);
        break;
    case FFN_GELU:
        if (up)
            f->k->gelu_mul.fn(out, out, up, n);
        else
            f->k->gelu.fn(out, out, n);
        break;
    case FFN_RELU2:
        relu_squared(out, n);
        for (size_t i = 0; up && i < n; i++)
            out[i] *= up[i];
        break;
    case FFN_SWIGLU_CLAMPED:
        if (up)
            swiglu_clamped(out, out, up, n);
        break;
    }
}

static void product_chunk(void *arg, size_t index, size_t thread)
{
    const struct product_stage *s = arg;
    struct forward *f = s->f;
    size_t low = 0, high = s->n;
    while (high - low > 1) {                  /* the last product whose first chunk is <= index */
        size_t middle = low + (high - low) / 2;
        if (s->list[middle].first_chunk <= index)
            low = middle;
        else
            high = middle;
    }
    const struct product *p = &s->list[low];
    size_t nth = index - p->first_chunk, large = p->large_count, begin, rows;
    begin = nth < large ? nth * p->large_rows : large * p->large_rows + (nth - large) * p->chunk_rows;
    rows = nth < large ? p->large_rows : p->chunk_rows;
    rows = p->w->rows - begin < rows ? p->w->rows - begin : rows;
    float *out = p->out + begin, *side = f->scratch[thread].rows;
    switch (p->finish) {
    case FINISH_STORE:
        multiply(f, p, p->w, begin, begin + rows, out, p->out_stride, thread);
        break;
    case FINISH_ADD:               /* through scratch: the residual must not be overwritten */
        multiply(f, p, p->w, begin, begin + rows, side, rows, thread);
        for (size_t t = 0; t < p->toks; t++)
            f->k->axpy.fn(out + t * p->out_stride, side + t * rows, p->factor, rows);
        break;
    case FINISH_ACTIVATE:          /* gate to its place, up to scratch, and the product of both over the gate */
        if (p->gate) {
            multiply(f, p, p->gate, begin, begin + rows, out, p->out_stride, thread);
            multiply(f, p, p->w, begin, begin + rows, side, rows, thread);
        } else {
            multiply(f, p, p->w, begin, begin + rows, out, p->out_stride, thread);
        }
        for (size_t t = 0; t < p->toks; t++)
            activate(f, out + t * p->out_stride, p->gate ? side + t * rows : NULL, rows);
        break;
    }
}

void run_products(struct forward *f, struct product *list, size_t n)
{
    struct product_stage s = { .f = f, .list = list };
    size_t chunks = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i].toks == 0)
            continue;
        struct product *p = &list[s.n++];
        *p = list[i];
        cut_rows(f, p);
        p->first_chunk = chunks;
        chunks += p->large_count + (p->w->rows - p->large_count * p->large_rows + p->chunk_rows - 1) / p->chunk_rows;
    }
    if (chunks)
        pool_run(f->pool, product_chunk, &s, chunks);
}
