/* Stages: tokens, or rows of matrices, spread over the pool.
 *
 * A stage is one pool_run: all threads take chunks until none is left, then the next stage begins. What a chunk computes depends
 * only on its index, never on the thread or the order, so the output is the same for any number of threads. */
#include "forward.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* Rows are cut into pieces (cut_rows). Every thread has a run of neighbouring pieces of its own, of which it takes some from the
 * front, fewer and fewer as the run gets shorter; who has none left takes from the back of the longest run of another. So a core
 * reads in order, knows what it will read next and where it begins in the next stage, and the last pieces are small.
 *
 * FEW: up to so many tokens are bound by memory. A piece then has PIECE_BYTES at least, which take a core a microsecond or two, and
 * at most ROWS_FEW rows are multiplied in one call, since their results wait in scratch. With more tokens a call has ROWS_MANY
 * rows: 64 rows of 512 tokens (128 KiB) still lie in L2. SOON_BYTES of the next stage are asked into the cache of a
 * waiting thread. */
enum {
    TOKENS_DIRECT = 4, TOKENS_FEW = 16,
    PIECE_BYTES = 16 << 10, ROWS_FEW = 256, ROWS_MANY = 64, PIECES_PER_THREAD = 8, SOON_BYTES = 128 << 10
};

static size_t clamp(size_t x, size_t low, size_t high) { return x < low ? low : x > high ? high : x; }

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

/* Few tokens: each thread has its own in every stage, whose vectors then stay in its cache. */
static void token_own(void *arg, size_t index, size_t thread)
{
    const struct token_stage *s = arg;
    size_t tok;
    (void)index;
    while (next_unit(s->f, thread, &tok))
        s->fn(s->f, s->arg, tok, thread);
}

void run_tokens(struct forward *f, token_fn *fn, const void *arg, size_t n)
{
    size_t per = n / (f->threads * 4);
    struct token_stage s = { .f = f, .fn = fn, .arg = arg, .n = n, .per = per ? per : 1 };
    if (n > 1 && n <= TOKENS_FEW && f->threads > 1) {
        share_units(f, n);
        pool_run(f->pool, token_own, &s, f->threads < n ? f->threads : n);
        return;
    }
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
    struct forward *f;
    struct acts *acts;
    const float *x;
    size_t stride, cols, n, part;
};

static void prepare_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct prepare_stage *s = arg;
    (void)thread;
    acts_prepare(f, s->acts, tok, s->x + tok * s->stride, s->cols);
}

/* Columns [first, first + count) of a vector, made by themselves at `part`, to their places; first is a multiple of 256. The last
 * columns bring the gaps, which are zero (kernels.h). */
static void place_part(unsigned char *to, const unsigned char *part, enum act_kind kind, size_t cols, size_t first, size_t count)
{
    const struct act_layout whole = act_layout(kind, cols), own = act_layout(kind, count);
    const bool last = first + count == cols;
    if (kind == ACT_F32 || kind == ACT_BF16) {
        size_t each = kind == ACT_F32 ? sizeof(float) : sizeof(uint16_t);
        memcpy(to + first * each, part, own.padded * each);
        return;
    }
    size_t block = kind == ACT_Q8_32 ? 32 : 256, scales = whole.scales + first / block * sizeof(float);
    size_t sums = whole.sums + first / 16 * sizeof(int16_t), n_scales = own.padded / block * sizeof(float);
    size_t n_sums = own.padded / 16 * sizeof(int16_t);
    memcpy(to + first, part, own.padded);
    memcpy(to + scales, part + own.scales, n_scales);
    memcpy(to + sums, part + own.sums, n_sums);
    if (last) {
        memset(to + scales + n_scales, 0, whole.sums - scales - n_scales);
        memset(to + sums + n_sums, 0, whole.bytes - sums - n_sums);
    }
}

static void prepare_parts(void *arg, size_t index, size_t thread)
{
    const struct prepare_stage *s = arg;
    unsigned char *side = (unsigned char *)s->f->scratch[thread].rows;
    size_t unit;
    (void)index;
    while (next_unit(s->f, thread, &unit)) {
        size_t first = unit / s->n * s->part, tok = unit % s->n, count = s->cols - first < s->part ? s->cols - first : s->part;
        for (int kind = 0; kind < ACT_KINDS; kind++)
            if (s->acts->bytes[kind]) {
                s->f->k->act_prepare[kind].fn(side, s->x + tok * s->stride + first, count);
                place_part(s->acts->data[kind] + tok * s->acts->stride[kind], side, (enum act_kind)kind, s->cols, first, count);
            }
    }
}

/* Few long vectors are cut into columns, the first of all tokens, then the next ones: so each thread mostly finds what it made
 * itself when it multiplied the rows that these columns are. A part fits the scratch of rows in every form. */
enum { PART_LEAST = 1024, PART_MOST = 2048 };
_Static_assert(PART_MOST * sizeof(float) <= ROWS_FEW * TOKENS_FEW * sizeof(float), "floats are the longest form, see "
               "product_scratch_floats");

void prepare_tokens(struct forward *f, struct acts *acts, const float *x, size_t stride, size_t cols, size_t n)
{
    struct prepare_stage s = { .f = f, .acts = acts, .x = x, .stride = stride, .cols = cols, .n = n };
    acts_shape(acts, cols);
    s.part = clamp((cols / f->threads + 255) / 256 * 256, PART_LEAST, PART_MOST);
    if (f->threads == 1 || n > TOKENS_FEW || n == 0 || cols <= s.part) {
        run_tokens(f, prepare_token, &s, n);
        return;
    }
    size_t units = (cols + s.part - 1) / s.part * n;
    share_units(f, units);
    pool_run(f->pool, prepare_parts, &s, f->threads < units ? f->threads : units);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

struct product_stage {
    struct forward *f;
    struct product *list;
    size_t          n, pieces;
    const struct product *next;      /* the first products of the stage after this one, NULL: unknown */
    size_t          next_n, next_pieces;
};

size_t product_scratch_floats(const struct kernels *k, size_t max_tokens)
{
    size_t tile = ROWS_MANY;
    for (int i = 0; i < FORMAT_COUNT; i++)
        if (k->matmul[i].matmul && k->matmul[i].tile > tile)
            tile = k->matmul[i].tile;
    size_t few = ROWS_FEW > tile ? ROWS_FEW : tile;
    size_t many = max_tokens * tile;
    return 2 * (many > few * TOKENS_FEW ? many : few * TOKENS_FEW);        /* gate and up */
}

/* How many rows are a piece. Kernels work on 16 rows at a time (32 with many tokens), whose boundaries should not be cut. */
static void cut_rows(const struct forward *f, struct product *p)
{
    size_t rows = p->w->rows, per_thread = rows / (f->threads * PIECES_PER_THREAD);
    if (p->toks > TOKENS_FEW)
        p->piece_rows = f->threads == 1 || per_thread >= ROWS_MANY ? ROWS_MANY : ROWS_MANY / 2;
    else
        p->piece_rows = clamp((PIECE_BYTES / p->w->row_bytes + 15) / 16 * 16, p->toks > TOKENS_DIRECT ? 32 : 16, ROWS_FEW);
}

/* Cut all; gives the number of pieces. Products without tokens have none. */
static size_t cut_products(const struct forward *f, struct product *list, size_t n)
{
    size_t pieces = 0;
    for (size_t i = 0; i < n; i++) {
        cut_rows(f, &list[i]);
        list[i].first_piece = pieces;
        pieces += (list[i].w->rows + list[i].piece_rows - 1) / list[i].piece_rows;
    }
    return pieces;
}

/* The product that piece `index` belongs to: the last whose first piece is not behind it. */
static const struct product *product_of(const struct product *list, size_t n, size_t index)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (list[middle].first_piece <= index)
            low = middle;
        else
            high = middle;
    }
    return &list[low];
}

/* Rows of a product that a thread has taken. `soon`: so many after them are likely its own next ones; `asked`: those
 * before were. */
struct rows { size_t begin, count, soon; bool asked; };

/* A thread at work in a stage: its scratch, and what its last call multiplied, whose vectors the kernel may have arranged there. */
struct worker {
    size_t thread;
    const struct product *last;
    uint32_t type;
};

/* Whether the thread's next call finds the vectors that its last call left in scratch. */
static bool same_vectors(const struct worker *last, const struct product *p, const struct matrix *w)
{
    const struct product *q = last->last;
    return q && last->type == w->type && q->in == p->in && q->first == p->first && q->step == p->step && q->toks == p->toks &&
           q->w->cols == w->cols;
}

/* The rows of one matrix, to out[toks][stride]: products, factor and bias. The weights' pointer is moved to the first row, so that
 * `out` may be a thread's scratch as well as a place within a row of results. */
static void multiply(const struct forward *f, const struct product *p, const struct matrix *w, struct rows rows, float *out,
                     size_t stride, struct worker *worker)
{
    const struct matmul_kernels *kernel = &f->k->matmul[w->type];
    const uint8_t *slice = w->data + p->slice * w->rows * w->row_bytes;
    size_t act = p->in->stride[kernel->act];
    struct matmul_job job = { .out = out, .out_stride = stride, .weights = slice + rows.begin * w->row_bytes,
                              .row_bytes = w->row_bytes, .cols = w->cols, .acts = p->in->data[kernel->act] + p->first * act,
                              .act_stride = p->step * act, .toks = p->toks, .rows_soon = rows.soon,
                              .wide = f->k->cpu.wide, .asked = rows.asked, .kept = same_vectors(worker, p, w) };
    kernel->matmul(&job, 0, rows.count, f->scratch[worker->thread].kernel);
    worker->last = p;
    worker->type = w->type;
    const float *bias = w->bias ? w->bias + p->slice * w->rows + rows.begin : NULL;
    if (w->scale == 1 && !bias)
        return;
    for (size_t t = 0; t < p->toks; t++)
        for (size_t r = 0; r < rows.count; r++)
            out[t * stride + r] = out[t * stride + r] * w->scale + (bias ? bias[r] : 0);
}

static void relu_squared(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] > 0 ? x[i] * x[i] : 0;
}

/* gpt-oss: a SiLU with slope 1.702, clamped at 7, times up + 1. */
static void swiglu_clamped(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float g = fminf(gate[i], 7.0f), u = fmaxf(-7.0f, fminf(up[i], 7.0f));
        out[i] = g / (1 + expf(-1.702f * g)) * (u + 1);
    }
}

/* out: activation(in) * up; or, up NULL, activation(in). */
static void activate(const struct forward *f, float *out, const float *in, const float *up, size_t n)
{
    switch (f->m->arch->activation) {
    case FFN_SILU:
        if (up)
            f->k->silu_mul.fn(out, in, up, n);
        else
            f->k->silu.fn(out, in, n);
        break;
    case FFN_GELU:
        if (up)
            f->k->gelu_mul.fn(out, in, up, n);
        else
            f->k->gelu.fn(out, in, n);
        break;
    case FFN_RELU2:
        relu_squared(out, in, n);
        for (size_t i = 0; up && i < n; i++)
            out[i] *= up[i];
        break;
    case FFN_SWIGLU_CLAMPED:
        if (up)
            swiglu_clamped(out, in, up, n);
        break;
    }
}

static void multiply_rows(struct forward *f, const struct product *p, struct rows rows, struct worker *worker)
{
    size_t n = rows.count;
    float *out = p->out + rows.begin, *side = f->scratch[worker->thread].rows, *up = p->gate ? side + p->toks * n : NULL;
    switch (p->finish) {
    case FINISH_STORE:
        multiply(f, p, p->w, rows, out, p->out_stride, worker);
        break;
    case FINISH_ADD:               /* through scratch: the residual must not be overwritten */
        multiply(f, p, p->w, rows, side, n, worker);
        for (size_t t = 0; t < p->toks; t++)
            f->k->axpy.fn(out + t * p->out_stride, side + t * n, p->factor, n);
        break;
    case FINISH_ACTIVATE:          /* through scratch: in their places tokens are far apart, which is paid for once, not thrice */
        multiply(f, p, p->gate ? p->gate : p->w, rows, side, n, worker);
        if (up)
            multiply(f, p, p->w, rows, up, n, worker);
        for (size_t t = 0; t < p->toks; t++)
            activate(f, out + t * p->out_stride, side + t * n, up ? up + t * n : NULL, n);
        break;
    }
}

/* Pieces [begin, end), which may be of several products; the thread's own run is [start, last). */
static void multiply_pieces(const struct product_stage *s, size_t start, size_t begin, size_t end, size_t last,
                            struct worker *worker)
{
    while (begin < end) {
        const struct product *p = product_of(s->list, s->n, begin);
        size_t rows = p->w->rows, most = p->toks > TOKENS_FEW ? ROWS_MANY : ROWS_FEW - ROWS_FEW % p->piece_rows;
        size_t row = (begin - p->first_piece) * p->piece_rows, stop = clamp((end - p->first_piece) * p->piece_rows, 0, rows);
        size_t own = clamp((last - p->first_piece) * p->piece_rows, 0, rows), n;
        bool asked = begin > start && begin > p->first_piece;
        for (; row < stop; row += n, asked = true) {
            n = stop - row < most ? stop - row : most;
            size_t soon = own > row + n ? own - row - n : 0;
            multiply_rows(s->f, p, (struct rows){ .begin = row, .count = n, .soon = soon, .asked = asked }, worker);
        }
        begin = p->first_piece + (stop + p->piece_rows - 1) / p->piece_rows;
    }
}

/* ---- runs of pieces ---------------------------------------------------------------------------------------------- */

/* A run [begin, end) in one word, begin above. Both only approach each other while a stage lasts, so a word that is as it was read
 * means the same. */
static uint64_t run_word(size_t begin, size_t end) { return (uint64_t)begin << 32 | (uint32_t)end; }
static size_t run_begin(uint64_t run) { return (size_t)(run >> 32); }
static size_t run_end(uint64_t run) { return (size_t)(run & UINT32_MAX); }
static size_t run_length(uint64_t run) { return run_begin(run) < run_end(run) ? run_end(run) - run_begin(run) : 0; }

/* How many pieces to take of so many: a quarter of what is left, so that the last ones to end are small; alone all of them. */
static size_t share_of(const struct forward *f, size_t left) { return f->threads == 1 ? left : left < 8 ? 1 : left / 4; }

/* Take from the front of one's own run, or from the back of another's; `one`: a single piece. False: nothing is left there. */
static bool take_pieces(const struct forward *f, _Atomic uint64_t *run, bool own, bool one, size_t *begin, size_t *end)
{
    uint64_t now = atomic_load_explicit(run, memory_order_relaxed), then;
    do {
        size_t left = run_length(now), n = one ? 1 : share_of(f, left);
        if (left == 0)
            return false;
        *begin = own ? run_begin(now) : run_end(now) - n;
        *end = *begin + n;
        then = own ? run_word(*end, run_end(now)) : run_word(run_begin(now), *begin);
    } while (!atomic_compare_exchange_weak_explicit(run, &now, then, memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* The longest run of all, NULL when all are empty. */
static _Atomic uint64_t *longest_run(const struct forward *f)
{
    _Atomic uint64_t *longest = NULL;
    size_t most = 0;
    for (size_t i = 0; i < f->threads; i++) {
        size_t length = run_length(atomic_load_explicit(f->scratch[i].run, memory_order_relaxed));
        if (length > most) {
            most = length;
            longest = f->scratch[i].run;
        }
    }
    return longest;
}

/* Where thread `thread` begins in a stage of `pieces` pieces. */
static size_t run_start(const struct forward *f, size_t pieces, size_t thread) { return pieces * thread / f->threads; }

void share_units(struct forward *f, size_t units)
{
    for (size_t i = 0; i < f->threads; i++)
        atomic_store_explicit(f->scratch[i].run, run_word(run_start(f, units, i), run_start(f, units, i + 1)),
                              memory_order_relaxed);
}

bool next_unit(const struct forward *f, size_t thread, size_t *unit)
{
    _Atomic uint64_t *other;
    size_t end;
    if (take_pieces(f, f->scratch[thread].run, true, true, unit, &end))
        return true;
    while ((other = longest_run(f)) != NULL)
        if (take_pieces(f, other, false, true, unit, &end))
            return true;
    return false;
}

/* Tell the pool what this thread will read first in the next stage: the rows of its first calls, a pair's half and half. */
static void announce_next(const struct product_stage *s, size_t thread)
{
    size_t begin = run_start(s->f, s->next_pieces, thread), end = run_start(s->f, s->next_pieces, thread + 1);
    if (begin == end)
        return;
    const struct product *p = product_of(s->next, s->next_n, begin);
    size_t row = (begin - p->first_piece) * p->piece_rows, rows = clamp(share_of(s->f, end - begin) * p->piece_rows, 1, ROWS_FEW);
    size_t bytes = clamp(p->w->rows - row, 0, rows) * p->w->row_bytes;
    if (p->gate) {
        pool_soon(s->f->pool, thread, p->gate->data + row * p->gate->row_bytes, clamp(bytes, 0, SOON_BYTES / 2));
        pool_soon(s->f->pool, thread, p->w->data + row * p->w->row_bytes, clamp(bytes, 0, SOON_BYTES / 2));
    } else {
        pool_soon(s->f->pool, thread, p->w->data + row * p->w->row_bytes, clamp(bytes, 0, SOON_BYTES));
    }
}

/* One call per thread. A thread that never comes is no harm: the others take its run. */
static void product_chunk(void *arg, size_t index, size_t thread)
{
    const struct product_stage *s = arg;
    _Atomic uint64_t *own = s->f->scratch[thread].run, *other;
    size_t start = run_start(s->f, s->pieces, thread), begin, end;
    struct worker worker = { .thread = thread };
    (void)index;
    while (take_pieces(s->f, own, true, false, &begin, &end))
        multiply_pieces(s, start, begin, end, run_end(atomic_load_explicit(own, memory_order_relaxed)), &worker);
    while ((other = longest_run(s->f)) != NULL)
        if (take_pieces(s->f, other, false, false, &begin, &end))
            multiply_pieces(s, begin, begin, end, end, &worker);
    if (s->next_n)
        announce_next(s, thread);
}

void run_products(struct forward *f, struct product *list, size_t n)
{
    struct product_stage s = { .f = f, .list = list };
    for (size_t i = 0; i < n; i++)
        if (list[i].toks)
            list[s.n++] = list[i];
    s.pieces = cut_products(f, list, s.n);
    if (f->n <= TOKENS_FEW && f->threads > 1) {
        s.next = f->next;
        s.next_n = f->next_count;
        s.next_pieces = cut_products(f, f->next, f->next_count);
    }
    f->next_count = 0;
    share_units(f, s.pieces);
    if (s.pieces)
        pool_run(f->pool, product_chunk, &s, f->threads < s.pieces ? f->threads : s.pieces);
}

void expect_product(struct forward *f, const struct matrix *w, const struct matrix *gate)
{
    if (w->data && f->next_count < NEXT_PRODUCTS)
        f->next[f->next_count++] = (struct product){ .w = w, .gate = gate && gate->data ? gate : NULL, .toks = f->n };
}
