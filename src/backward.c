#include "backward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backward_ops.h"

/* What one layer computes, and the gradients of it. All [n][dense_stride(its width)]. */
struct backward_layer {
    float *h, *q, *k, *v, *out, *proj;         /* attention: normed input; q, k as multiplied; values mixed; projected   */
    float *q_raw, *k_raw;                      /* before their norms (NULL without)                                      */
    float *mid, *h2, *gate, *up, *act, *down;  /* feed-forward: residual before it, normed; ...                          */
    float *dx, *dh, *dh_more, *dq, *dk, *dv, *dout, *dproj, *dgate, *dup, *dact;
    float *w, *wt, *more;                      /* a band of a matrix, its transpose, its share of a gradient             */
    float *probs;                              /* per thread 2 * length                                                  */
    float *partial;                            /* a norm's weight gradients, per block of tokens                         */
    size_t widest_norm, bytes;
    float *all[32];
    size_t count;
};

enum { TOKEN_BLOCK = 32 };
/* Matrices are decoded in bands of rows of at most so many values (64 MiB): the head of a large vocabulary would take gigabytes. */
static const size_t BAND_VALUES = (size_t)1 << 24;

/* ---- shapes ------------------------------------------------------------------------------------------------------- */

const struct matrix *backward_matrix(const struct model *m, size_t id)
{
    size_t head = m->hyper.layers * LINEAR_KINDS;
    if (id == head)
        return &m->output;
    if (id > head) {
        const struct layer *e = &m->layer[(id - head - 1) / EXPERT_KINDS];
        const struct matrix *list[EXPERT_KINDS] = { &e->router, &e->shared_gate, &e->gate_shared, &e->up_shared, &e->down_shared,
                                                    &e->gate_exps, &e->up_exps, &e->down_exps };
        return list[(id - head - 1) % EXPERT_KINDS];
    }
    const struct layer *l = &m->layer[id / LINEAR_KINDS];
    const struct matrix *of[LINEAR_KINDS] = { &l->q, &l->k, &l->v, &l->out, &l->gate, &l->up, &l->down };
    return of[id % LINEAR_KINDS];
}

static const float *file_norm(const struct model *m, size_t id)
{
    if (id == m->hyper.layers * NORM_KINDS)
        return m->output_norm.weight;
    const struct layer *l = &m->layer[id / NORM_KINDS];
    const float *of[NORM_KINDS] = { l->attn_norm.weight, l->q_norm, l->k_norm, l->post_attn_norm.weight, l->ffn_norm.weight,
                                    l->post_ffn_norm.weight };
    return of[id % NORM_KINDS];
}

size_t backward_norm_width(const struct model *m, size_t id)
{
    if (!file_norm(m, id))
        return 0;
    if (id == m->hyper.layers * NORM_KINDS)
        return m->hyper.width;
    const struct layer *l = &m->layer[id / NORM_KINDS];
    bool whole = m->arch->qk_norm == QK_WHOLE;
    switch ((enum norm_place)(id % NORM_KINDS)) {
    case NORM_Q: return (whole ? l->heads : 1) * m->hyper.key_dim;
    case NORM_K: return (whole ? l->kv_heads : 1) * m->hyper.key_dim;
    default:     return m->hyper.width;
    }
}

static bool check_supported(const struct model *m, struct quern_error *err)
{
    const char *why = NULL;
    const struct hyper *h = &m->hyper;
    if (m->arch->mixer != MIXERS_ATTENTION)
        why = "its mixer is no plain attention";
    else if (m->arch->norm != NORM_RMS)
        why = "it has LayerNorms";
    else if (m->arch->activation != FFN_SILU && m->arch->activation != FFN_GELU)
        why = "its activation is neither SiLU nor GELU";
    else if (m->positions || h->alibi != 0 || h->clamp_qkv != 0 || h->temperature != 0 || h->chunked)
        why = "its positions or attention are special";
    else if (m->arch->qk_norm == QK_HEAD_LAYER || m->arch->qk_norm == QK_L2 || (m->arch->flags & (ARCH_Q_GATE | ARCH_LLAMA4)))
        why = "its queries are special";
    for (size_t i = 0; i < h->layers && !why; i++) {
        const struct layer *l = &m->layer[i];
        if (l->mixer != MIX_ATTENTION)
            why = "a layer has no attention";
        else if (l->experts || !l->ff || !l->gate.data)
            why = "a layer's feed-forward part is no dense gated one";
        else if (l->parallel || l->sinks || l->attn_sub_norm || l->ffn_sub_norm || l->attn_norm_2.weight)
            why = "its layers are special";
    }
    return !why || ERR(err, QUERN_EUNSUPPORTED, "gradients of '%s' are not supported: %s", m->arch->name, why);
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static bool take(struct backward_layer *l, float **out, size_t rows, size_t cols, struct quern_error *err)
{
    size_t n;
    if (!checked_mul(&n, rows, dense_stride(cols)))
        return ERR(err, QUERN_EMEM, "buffers for %zu x %zu values", rows, cols);
    *out = mem_take_aligned(n ? n : 1, sizeof **out, "the backward pass", err);
    if (!*out)
        return false;
    memset(*out, 0, n * sizeof **out);
    l->bytes += n * sizeof **out;
    l->all[l->count++] = *out;
    return true;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Rows of a matrix that are worked on together. */
static size_t band_rows(const struct backward *b, const struct matrix *w)
{
    size_t rows = b->band / dense_stride(w->cols);
    rows = rows < 64 ? 64 : rows - rows % 64;
    return rows < w->rows ? rows : w->rows;
}

static bool take_layer(struct backward *b, size_t length, struct quern_error *err)
{
    struct backward_layer *l = b->buffers;
    const struct hyper *h = &b->m->hyper;
    size_t q = 0, k = 0, v = 0, out = 0, ff = 0, w = 0, wt = 0, more = 0, n = b->most;
    bool norms = false;
    for (size_t i = 0; i < h->layers; i++) {
        const struct layer *m = &b->m->layer[i];
        q = most(q, m->q.rows), k = most(k, m->k.rows), v = most(v, m->v.rows), out = most(out, m->out.cols), ff = most(ff, m->ff);
        norms = norms || m->q_norm;
    }
    for (size_t id = 0; id < b->linears; id++) {
        const struct matrix *m = backward_matrix(b->m, id);
        size_t band = band_rows(b, m);
        w = most(w, band * dense_stride(m->cols)), wt = most(wt, m->cols * dense_stride(band));
        more = most(more, m->cols);
    }
    l->widest_norm = most(h->width, most(q, k));
    return take(l, &l->h, n, h->width, err) && take(l, &l->q, n, q, err) && take(l, &l->k, n, k, err) && take(l, &l->v, n, v,
                                                                                                              err) &&
           take(l, &l->out, n, out, err) && take(l, &l->proj, n, h->width, err) &&
           (!norms || (take(l, &l->q_raw, n, q, err) && take(l, &l->k_raw, n, k, err))) && take(l, &l->mid, n, h->width, err) &&
           take(l, &l->h2, n, h->width, err) && take(l, &l->gate, n, ff, err) && take(l, &l->up, n, ff, err) &&
           take(l, &l->act, n, ff, err) && take(l, &l->down, n, h->width, err) && take(l, &l->dx, n, h->width, err) &&
           take(l, &l->dh, n, h->width, err) && take(l, &l->dh_more, n, h->width, err) && take(l, &l->dq, n, q, err) &&
           take(l, &l->dk, n, k, err) && take(l, &l->dv, n, v, err) && take(l, &l->dout, n, out, err) &&
           take(l, &l->dproj, n, h->width, err) && take(l, &l->dgate, n, ff, err) && take(l, &l->dup, n, ff, err) &&
           take(l, &l->dact, n, ff, err) && take(l, &l->w, 1, w, err) && take(l, &l->wt, 1, wt, err) &&
           take(l, &l->more, n, more, err) &&
           take(l, &l->probs, pool_threads(b->pool), 2 * length, err) &&
           take(l, &l->partial, n / TOKEN_BLOCK + 1, l->widest_norm, err);
}

static bool take_rope(struct backward *b, size_t length, struct quern_error *err)
{
    const struct rope_hyper *rope = &b->m->hyper.rope;
    for (int kind = ROPE_TABLE_MAIN; kind < ROPE_TABLES; kind++) {
        bool used = false;
        for (size_t i = 0; i < b->m->hyper.layers; i++)
            used = used || (int)b->m->layer[i].rope == kind;
        if (!used)
            continue;
        b->rope[kind].frequency = mem_take(rope->dims / 2 + 1, sizeof(double), "rotations", err);
        if (!b->rope[kind].frequency)
            return false;
        rope_init(&b->rope[kind], rope, (enum rope_table_kind)kind, b->m->arch->rope_local, length);
        size_t row = b->rope[kind].pairs * 2;
        b->angles[kind] = mem_take(length * row, sizeof(float), "rotations", err);
        b->inverse[kind] = b->angles[kind] ? mem_take(length * row, sizeof(float), "rotations", err) : NULL;
        if (!b->inverse[kind])
            return false;
        for (size_t t = 0; t < length; t++) {
            rope_angles(b->angles[kind] + t * row, &b->rope[kind], t);
            for (size_t i = 0; i < row; i++)
                b->inverse[kind][t * row + i] = i % 2 ? -b->angles[kind][t * row + i] : b->angles[kind][t * row + i];
        }
    }
    return true;
}

static bool take_all(struct backward *b, const struct kernels *kernels, size_t length, struct quern_error *err)
{
    const struct model *m = b->m;
    b->band = BAND_VALUES;
    size_t widest = most(m->hyper.vocab, b->most);
    for (size_t id = 0; id < b->linears; id++)
        widest = most(widest, most(backward_matrix(m, id)->cols, backward_matrix(m, id)->rows));
    b->weights = mem_take(b->linears, sizeof *b->weights, "the backward pass", err);
    b->norms = b->weights ? mem_take(b->norm_count, sizeof *b->norms, "the backward pass", err) : NULL;
    b->kept = b->norms ? mem_take(m->hyper.layers + 1, sizeof *b->kept, "the backward pass", err) : NULL;
    b->buffers = b->kept ? mem_take(1, sizeof *b->buffers, "the backward pass", err) : NULL;
    if (!b->buffers)
        return false;
    for (size_t id = 0; id < b->norm_count; id++)
        b->norms[id] = file_norm(m, id);
    for (size_t i = 0; i <= m->hyper.layers; i++) {
        b->kept[i] = mem_take_aligned(b->most, dense_stride(m->hyper.width) * sizeof(float), "residuals", err);
        if (!b->kept[i])
            return false;
        memset(b->kept[i], 0, b->most * dense_stride(m->hyper.width) * sizeof(float));
    }
    return dense_init(&b->dense, kernels, b->pool, widest, err) && take_rope(b, length, err) && take_layer(b, length, err);
}

bool backward_init(struct backward *b, const struct model *m, const struct kernels *kernels, struct pool *pool, size_t most_tokens,
                   size_t most_length, struct quern_error *err)
{
    *b = (struct backward){ .m = m, .pool = pool, .most = most_tokens };
    if (!check_supported(m, err))
        return false;
    b->linears = m->hyper.layers * LINEAR_KINDS + 1;
    b->all = b->linears + (m->hyper.experts ? m->hyper.layers * EXPERT_KINDS : 0);
    b->norm_count = m->hyper.layers * NORM_KINDS + 1;
    if (take_all(b, kernels, most_length, err)) {
        b->bytes = b->buffers->bytes + (m->hyper.layers + 1) * b->most * dense_stride(m->hyper.width) * sizeof(float);
        return true;
    }
    backward_free(b);
    return false;
}

void backward_free(struct backward *b)
{
    for (size_t i = 0; b->buffers && i < b->buffers->count; i++)
        free(b->buffers->all[i]);
    free(b->buffers);
    for (size_t i = 0; b->kept && i <= b->m->hyper.layers; i++)
        free(b->kept[i]);
    free(b->kept);
    for (int kind = 0; kind < ROPE_TABLES; kind++) {
        free(b->rope[kind].frequency);
        free(b->angles[kind]);
        free(b->inverse[kind]);
    }
    free(b->weights);
    free(b->norms);
    dense_free(&b->dense);
    memset(b, 0, sizeof *b);
}

/* ---- stages over tokens -------------------------------------------------------------------------------------------- */

typedef void block_fn(struct backward *b, const void *arg, size_t from, size_t to);
struct block_stage { struct backward *b; block_fn *fn; const void *arg; };

static void run_block(void *arg, size_t index, size_t thread)
{
    struct block_stage *s = arg;
    size_t from = index * TOKEN_BLOCK, to = from + TOKEN_BLOCK < s->b->n ? from + TOKEN_BLOCK : s->b->n;
    (void)thread;
    s->fn(s->b, s->arg, from, to);
}

static void run_blocks(struct backward *b, block_fn *fn, const void *arg)
{
    struct block_stage s = { b, fn, arg };
    pool_run(b->pool, run_block, &s, (b->n + TOKEN_BLOCK - 1) / TOKEN_BLOCK);
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

static void norm_forth(struct backward *b, size_t id, float *out, const float *x, size_t heads, size_t n)
{
    struct norm_stage s = { .out = out, .x = x, .weight = b->norms[id], .stride = dense_stride(heads * n), .heads = heads, .n = n };
    run_blocks(b, norm_forth_block, &s);
}

/* out: gradient by x; may be dy. Tells the hook of the gradient by the weight. */
static void norm_back(struct backward *b, size_t id, float *out, const float *dy, const float *x, size_t heads, size_t n,
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

/* out = a + factor * y over rows of the model's width; out may be a. */
struct add_stage { float *out; const float *a, *y; float factor; };

static void add_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct add_stage *s = arg;
    size_t stride = dense_stride(b->m->hyper.width);
    for (size_t i = from * stride; i < to * stride; i++)
        s->out[i] = (s->a ? s->a[i] : 0) + s->factor * s->y[i];
}

static void add_rows_scaled(struct backward *b, float *out, const float *a, const float *y, float factor)
{
    struct add_stage s = { out, a, y, factor };
    run_blocks(b, add_block, &s);
}

struct rotate_stage { float *x; const float *angles; const struct rope_table *table; size_t heads; };

static void rotate_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct rotate_stage *s = arg;
    size_t dim = b->m->hyper.key_dim, stride = dense_stride(s->heads * dim);
    for (size_t t = from; t < to; t++)
        for (size_t h = 0; h < s->heads; h++)
            b->dense.kernels->rope.fn(s->x + t * stride + h * dim, s->angles + t % b->length * s->table->pairs * 2, s->table->pairs,
                                      b->m->arch->rope == ROPE_PAIRS);
}

static void rotate(struct backward *b, const struct layer *l, float *x, size_t heads, bool back)
{
    if (l->rope == ROPE_TABLE_NONE)
        return;
    struct rotate_stage s = { x, back ? b->inverse[l->rope] : b->angles[l->rope], &b->rope[l->rope], heads };
    run_blocks(b, rotate_block, &s);
}

/* ---- linear maps --------------------------------------------------------------------------------------------------- */

struct decode_stage { const struct backward *b; const struct matrix *w; size_t first, rows; float *out; };

static void decode_chunk(void *arg, size_t index, size_t thread)
{
    const struct decode_stage *s = arg;
    size_t stride = dense_stride(s->w->cols), to = (index + 1) * 64 < s->rows ? (index + 1) * 64 : s->rows;
    (void)thread;
    for (size_t r = index * 64; r < to; r++) {
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
    pool_run(b->pool, decode_chunk, &s, (rows + 63) / 64);
}

void backward_decode(const struct backward *b, const struct matrix *w, float *out)
{
    decode_rows(b, w, 0, w->rows, out);
}

/* Rows [first, first + rows) of a map. */
static const float *weight_of(struct backward *b, size_t id, size_t first, size_t rows)
{
    const struct matrix *w = backward_matrix(b->m, id);
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

static void linear_forth(struct backward *b, size_t id, float *y, const float *x, const struct backward_hooks *hooks)
{
    const struct matrix *w = backward_matrix(b->m, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    if (hooks && hooks->input)
        hooks->input(hooks->arg, id, x, b->n);
    for (size_t r = 0, band = band_rows(b, w), n; r < w->rows; r += n) {
        n = w->rows - r < band ? w->rows - r : band;
        dense_product(&b->dense, y + r, rows, weight_of(b, id, r, n), cols, n, x, cols, w->cols, b->n);
    }
    if (w->bias) {
        struct bias_stage s = { y, w->bias, w->rows };
        run_blocks(b, bias_block, &s);
    }
}

struct sum_stage { float *out; const float *x; size_t stride; };

static void sum_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct sum_stage *s = arg;
    (void)b;
    for (size_t i = from * s->stride; i < to * s->stride; i++)
        s->out[i] += s->x[i];
}

/* dx: [n][stride(cols)] gradient by the input. */
static void linear_back(struct backward *b, size_t id, float *dx, const float *x, const float *dy,
                        const struct backward_hooks *hooks)
{
    const struct matrix *w = backward_matrix(b->m, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    if (hooks->linear)
        hooks->linear(hooks->arg, id, x, dy, b->n);
    for (size_t r = 0, band = band_rows(b, w), n; r < w->rows; r += n) {
        n = w->rows - r < band ? w->rows - r : band;
        size_t across = dense_stride(n);
        float *out = r ? b->buffers->more : dx;
        dense_transpose(&b->dense, b->buffers->wt, across, weight_of(b, id, r, n), cols, n, w->cols);
        dense_product(&b->dense, out, cols, b->buffers->wt, across, w->cols, dy + r, rows, n, b->n);
        if (r) {
            struct sum_stage s = { dx, out, cols };
            run_blocks(b, sum_block, &s);
        }
    }
}

/* ---- attention ----------------------------------------------------------------------------------------------------- */

struct attend_stage { struct backward *b; const struct layer *l; struct attend_shape shape; bool back; };

static void attend_chunk(void *arg, size_t index, size_t thread)
{
    const struct attend_stage *s = arg;
    struct backward *b = s->b;
    struct backward_layer *x = b->buffers;
    const struct attend_shape *a = &s->shape;
    size_t seq = index / s->l->kv_heads * b->length, head = index % s->l->kv_heads;
    size_t q = seq * a->q_stride + head * a->group * a->key_dim, k = seq * a->k_stride + head * a->key_dim;
    size_t v = seq * a->v_stride + head * a->value_dim, out = seq * a->out_stride + head * a->group * a->value_dim;
    float *probs = x->probs + thread * dense_stride(2 * a->length);
    if (s->back)
        attend_back(x->dq + q, x->dk + k, x->dv + v, x->dout + out, x->q + q, x->k + k, x->v + v, a, probs);
    else
        attend_forth(x->out + out, x->q + q, x->k + k, x->v + v, a, probs);
}

static void run_attention(struct backward *b, const struct layer *l, bool back)
{
    const struct hyper *h = &b->m->hyper;
    struct attend_stage s = { b, l, {
        .length = b->length, .group = l->heads / l->kv_heads, .key_dim = h->key_dim, .value_dim = h->value_dim,
        .q_stride = dense_stride(l->q.rows), .k_stride = dense_stride(l->k.rows), .v_stride = dense_stride(l->v.rows),
        .out_stride = dense_stride(l->out.cols), .window = l->window, .scale = h->attn_scale, .softcap = h->attn_softcap,
        .kernels = b->dense.kernels }, back };
    pool_run(b->pool, attend_chunk, &s, b->n / b->length * l->kv_heads);
}

/* q or k: as multiplied, normed, rotated. */
static void heads_forth(struct backward *b, const struct layer *l, size_t id, float *x, float *raw, size_t heads)
{
    size_t dim = b->m->hyper.key_dim;
    bool whole = b->m->arch->qk_norm == QK_WHOLE;
    if (b->norms[id]) {
        memcpy(raw, x, b->n * dense_stride(heads * dim) * sizeof *x);
        norm_forth(b, id, x, raw, whole ? 1 : heads, whole ? heads * dim : dim);
    }
    rotate(b, l, x, heads, false);
}

static void heads_back(struct backward *b, const struct layer *l, size_t id, float *dx, const float *raw, size_t heads,
                       const struct backward_hooks *hooks)
{
    size_t dim = b->m->hyper.key_dim;
    bool whole = b->m->arch->qk_norm == QK_WHOLE;
    rotate(b, l, dx, heads, true);
    if (b->norms[id])
        norm_back(b, id, dx, dx, raw, whole ? 1 : heads, whole ? heads * dim : dim, hooks);
}

/* ---- a layer ------------------------------------------------------------------------------------------------------- */

struct gate_stage { size_t ff; bool gelu; };

static void gate_forth_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct gate_stage *s = arg;
    struct backward_layer *x = b->buffers;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(s->ff);
        gate_forth(x->act + at, x->gate + at, x->up + at, s->ff, s->gelu);
    }
}

static void gate_back_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct gate_stage *s = arg;
    struct backward_layer *x = b->buffers;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(s->ff);
        gate_back(x->dgate + at, x->dup + at, x->dact + at, x->gate + at, x->up + at, s->ff, s->gelu);
    }
}

/* Everything of layer `index` from kept[index]; its result goes to `to` unless NULL. */
static void layer_forth(struct backward *b, size_t index, float *to, const struct backward_hooks *hooks)
{
    const struct layer *l = &b->m->layer[index];
    struct backward_layer *x = b->buffers;
    size_t width = b->m->hyper.width, w = index * LINEAR_KINDS, norm = index * NORM_KINDS;
    struct gate_stage gate = { l->ff, b->m->arch->activation == FFN_GELU };
    norm_forth(b, norm + NORM_ATTN, x->h, b->kept[index], 1, width);
    linear_forth(b, w + LINEAR_Q, x->q, x->h, hooks);
    linear_forth(b, w + LINEAR_K, x->k, x->h, hooks);
    linear_forth(b, w + LINEAR_V, x->v, x->h, hooks);
    heads_forth(b, l, norm + NORM_Q, x->q, x->q_raw, l->heads);
    heads_forth(b, l, norm + NORM_K, x->k, x->k_raw, l->kv_heads);
    run_attention(b, l, false);
    linear_forth(b, w + LINEAR_OUT, x->proj, x->out, hooks);
    norm_forth(b, norm + NORM_POST_ATTN, x->mid, x->proj, 1, width);
    add_rows_scaled(b, x->mid, b->kept[index], x->mid, b->m->hyper.residual_scale);
    norm_forth(b, norm + NORM_FFN, x->h2, x->mid, 1, width);
    linear_forth(b, w + LINEAR_GATE, x->gate, x->h2, hooks);
    linear_forth(b, w + LINEAR_UP, x->up, x->h2, hooks);
    run_blocks(b, gate_forth_block, &gate);
    if (!to && !b->norms[norm + NORM_POST_FFN])
        return;
    linear_forth(b, w + LINEAR_DOWN, x->down, x->act, hooks);
    if (!to)
        return;
    norm_forth(b, norm + NORM_POST_FFN, to, x->down, 1, width);
    add_rows_scaled(b, to, x->mid, to, b->m->hyper.residual_scale);
}

/* x->dx: gradient by the layer's result, becomes the gradient by kept[index]. */
static void layer_back(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    const struct layer *l = &b->m->layer[index];
    struct backward_layer *x = b->buffers;
    size_t width = b->m->hyper.width, w = index * LINEAR_KINDS, norm = index * NORM_KINDS;
    struct gate_stage gate = { l->ff, b->m->arch->activation == FFN_GELU };
    layer_forth(b, index, NULL, NULL);
    add_rows_scaled(b, x->dproj, NULL, x->dx, b->m->hyper.residual_scale);
    norm_back(b, norm + NORM_POST_FFN, x->dproj, x->dproj, x->down, 1, width, hooks);
    linear_back(b, w + LINEAR_DOWN, x->dact, x->act, x->dproj, hooks);
    run_blocks(b, gate_back_block, &gate);
    linear_back(b, w + LINEAR_GATE, x->dh, x->h2, x->dgate, hooks);
    linear_back(b, w + LINEAR_UP, x->dh_more, x->h2, x->dup, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
    norm_back(b, norm + NORM_FFN, x->dh, x->dh, x->mid, 1, width, hooks);
    add_rows_scaled(b, x->dx, x->dx, x->dh, 1);

    add_rows_scaled(b, x->dproj, NULL, x->dx, b->m->hyper.residual_scale);
    norm_back(b, norm + NORM_POST_ATTN, x->dproj, x->dproj, x->proj, 1, width, hooks);
    linear_back(b, w + LINEAR_OUT, x->dout, x->out, x->dproj, hooks);
    memset(x->dk, 0, b->n * dense_stride(l->k.rows) * sizeof *x->dk);
    memset(x->dv, 0, b->n * dense_stride(l->v.rows) * sizeof *x->dv);
    run_attention(b, l, true);
    heads_back(b, l, norm + NORM_Q, x->dq, x->q_raw, l->heads, hooks);
    heads_back(b, l, norm + NORM_K, x->dk, x->k_raw, l->kv_heads, hooks);
    linear_back(b, w + LINEAR_Q, x->dh, x->h, x->dq, hooks);
    linear_back(b, w + LINEAR_K, x->dh_more, x->h, x->dk, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
    linear_back(b, w + LINEAR_V, x->dh_more, x->h, x->dv, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
    norm_back(b, norm + NORM_ATTN, x->dh, x->dh, b->kept[index], 1, width, hooks);
    add_rows_scaled(b, x->dx, x->dx, x->dh, 1);
}

/* ---- before and after the layers ------------------------------------------------------------------------------------ */

static void embed_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct matrix *e = &b->m->embed;
    size_t width = b->m->hyper.width, stride = dense_stride(width);
    float *const *out = arg;
    for (size_t t = from; t < to; t++) {
        float *x = *out + t * stride;
        size_t id = (size_t)b->tokens[t];
        if (b->embedding)
            memcpy(x, b->embedding + id * stride, width * sizeof *x);
        else
            b->dense.kernels->dequantize[e->type].fn(x, e->data + id * e->row_bytes, width);
        for (size_t i = 0; i < width; i++)
            x[i] *= b->m->hyper.embed_scale;
    }
}

struct logit_stage { float *logits; const float *capped; };

static void logits_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct logit_stage *s = arg;
    const struct hyper *h = &b->m->hyper;
    for (size_t t = from; t < to; t++) {
        float *x = s->logits + t * dense_stride(h->vocab);
        for (size_t i = 0; i < h->vocab; i++) {
            x[i] *= h->logit_scale;
            if (h->logit_softcap != 0)
                x[i] = h->logit_softcap * tanhf(x[i] / h->logit_softcap);
        }
    }
}

static void logits_back_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct logit_stage *s = arg;
    const struct hyper *h = &b->m->hyper;
    for (size_t t = from; t < to; t++)
        for (size_t i = 0; i < h->vocab; i++) {
            size_t at = t * dense_stride(h->vocab) + i;
            float c = h->logit_softcap != 0 ? s->capped[at] / h->logit_softcap : 0;
            s->logits[at] *= h->logit_scale * (1 - c * c);
        }
}

void backward_embed(struct backward *b, const int32_t *tokens, size_t sequences, size_t length, float *x)
{
    b->n = sequences * length, b->length = length, b->tokens = tokens;
    run_blocks(b, embed_block, &x);
}

void backward_layer(struct backward *b, size_t index, float *x, size_t sequences, size_t length, const struct backward_hooks *hooks)
{
    float *kept = b->kept[index];
    b->n = sequences * length, b->length = length;
    b->kept[index] = x;
    layer_forth(b, index, x, hooks);
    b->kept[index] = kept;
}

void backward_last(struct backward *b, const float *x, size_t sequences, size_t length, const struct backward_hooks *hooks)
{
    size_t layers = b->m->hyper.layers;
    b->n = sequences * length, b->length = length;
    norm_forth(b, layers * NORM_KINDS, b->buffers->h, x, 1, b->m->hyper.width);
    hooks->input(hooks->arg, layers * LINEAR_KINDS, b->buffers->h, b->n);
}

void backward_forward(struct backward *b, const int32_t *tokens, size_t sequences, size_t length, float *logits,
                      const struct backward_hooks *hooks)
{
    const struct hyper *h = &b->m->hyper;
    b->n = sequences * length, b->length = length, b->tokens = tokens;
    run_blocks(b, embed_block, &b->kept[0]);
    for (size_t i = 0; i < h->layers; i++)
        layer_forth(b, i, b->kept[i + 1], hooks);
    norm_forth(b, h->layers * NORM_KINDS, b->buffers->h, b->kept[h->layers], 1, h->width);
    if (!logits) {
        if (hooks && hooks->input)
            hooks->input(hooks->arg, h->layers * LINEAR_KINDS, b->buffers->h, b->n);
        return;
    }
    linear_forth(b, h->layers * LINEAR_KINDS, logits, b->buffers->h, hooks);
    struct logit_stage s = { logits, NULL };
    if (h->logit_scale != 1 || h->logit_softcap != 0)
        run_blocks(b, logits_block, &s);
}

void backward_run(struct backward *b, const float *logits, float *dlogits, const struct backward_hooks *hooks)
{
    const struct hyper *h = &b->m->hyper;
    struct backward_layer *x = b->buffers;
    /* The cap's slope follows from the capped logits; without a cap they are not looked at. */
    struct logit_stage s = { dlogits, logits };
    if (h->logit_scale != 1 || h->logit_softcap != 0)
        run_blocks(b, logits_back_block, &s);
    norm_forth(b, h->layers * NORM_KINDS, x->h, b->kept[h->layers], 1, h->width);
    linear_back(b, h->layers * LINEAR_KINDS, x->dx, x->h, dlogits, hooks);
    norm_back(b, h->layers * NORM_KINDS, x->dx, x->dx, b->kept[h->layers], 1, h->width, hooks);
    for (size_t i = h->layers; i-- > 0;)
        layer_back(b, i, hooks);
    if (hooks->embedding) {
        if (h->embed_scale != 1)
            add_rows_scaled(b, x->dx, NULL, x->dx, h->embed_scale);
        hooks->embedding(hooks->arg, b->tokens, x->dx, b->n);
    }
}
