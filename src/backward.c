/* The whole pass: what it supports, its memory, embedding, layers one after the other, logits. A layer's halves are in
 * backward_attention.c, backward_dense.c and backward_moe.c, what they are made of in backward_linear.c, backward_stages.c and
 * backward_ops.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backward_parts.h"

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

const float *backward_norm(const struct model *m, size_t id)
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
    if (!backward_norm(m, id))
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
    else if (m->positions || h->alibi != 0 || h->clamp_qkv != 0 || h->temperature != 0 || h->chunked)
        why = "its positions or attention are special";
    else if (m->arch->qk_norm == QK_HEAD_LAYER || m->arch->qk_norm == QK_L2 || (m->arch->flags & (ARCH_Q_GATE | ARCH_LLAMA4)))
        why = "its queries are special";
    for (size_t i = 0; i < h->layers && !why; i++) {
        const struct layer *l = &m->layer[i];
        if (l->mixer != MIX_ATTENTION)
            why = "a layer has no attention";
        else if (!l->experts && (!l->ff || !l->gate.data))
            why = "a layer's feed-forward part has no gate";
        else if (l->parallel || l->attn_sub_norm || l->ffn_sub_norm || l->attn_norm_2.weight)
            why = "its layers are special";
    }
    return !why || ERR(err, QUERN_EUNSUPPORTED, "gradients of '%s' are not supported: %s", m->arch->name, why);
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

void *layer_take(struct backward *b, size_t count, size_t size, struct quern_error *err)
{
    struct backward_layer *l = b->buffers;
    void *out = mem_take_aligned(count ? count : 1, size, "the backward pass", err);
    if (!out)
        return NULL;
    memset(out, 0, count * size);
    l->bytes += count * size;
    return l->all[l->count++] = out;
}

static bool take(struct backward *b, float **out, size_t rows, size_t cols, struct quern_error *err)
{
    size_t n;
    if (!checked_mul(&n, rows, dense_stride(cols)))
        return ERR(err, QUERN_EMEM, "buffers for %zu x %zu values", rows, cols);
    return (*out = layer_take(b, n, sizeof **out, err)) != NULL;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bool take_layer(struct backward *b, size_t length, struct quern_error *err)
{
    struct backward_layer *l = b->buffers;
    const struct hyper *h = &b->m->hyper;
    size_t q = 0, k = 0, v = 0, out = 0, ff = most(h->expert_ff, h->shared_ff), w = 0, wt = 0, more = 0, n = b->most;
    bool norms = false;
    for (size_t i = 0; i < h->layers; i++) {
        const struct layer *m = &b->m->layer[i];
        q = most(q, m->q.rows), k = most(k, m->k.rows), v = most(v, m->v.rows), out = most(out, m->out.cols), ff = most(ff, m->ff);
        norms = norms || m->q_norm;
    }
    for (size_t id = 0; id < b->all; id++) {
        const struct matrix *m = backward_matrix(b->m, id);
        if (!m->data)
            continue;
        size_t band = band_rows(b, m);
        w = most(w, band * dense_stride(m->cols)), wt = most(wt, m->cols * dense_stride(band));
        more = most(more, m->cols);
    }
    l->widest_norm = most(h->width, most(q, k));
    const struct { float **out; size_t rows, cols; } list[] = {
        { &l->h, n, h->width }, { &l->q, n, q }, { &l->k, n, k }, { &l->v, n, v },
        { &l->q_raw, norms ? n : 0, q }, { &l->k_raw, norms ? n : 0, k }, { &l->out, n, out }, { &l->proj, n, h->width },
        { &l->mid, n, h->width }, { &l->h2, n, h->width }, { &l->gate, n, ff }, { &l->up, n, ff },
        { &l->act, n, ff }, { &l->down, n, h->width }, { &l->dx, n, h->width }, { &l->dh, n, h->width },
        { &l->dh_more, n, h->width }, { &l->dq, n, q }, { &l->dk, n, k }, { &l->dv, n, v },
        { &l->dout, n, out }, { &l->dproj, n, h->width }, { &l->dgate, n, ff }, { &l->dup, n, ff },
        { &l->dact, n, ff }, { &l->w, 1, w }, { &l->wt, 1, wt }, { &l->more, n, more },
        { &l->probs, pool_threads(b->pool), 2 * (length + 1) }, { &l->partial, n / TOKEN_BLOCK + 1, l->widest_norm },
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].rows && !take(b, list[i].out, list[i].rows, list[i].cols, err))
            return false;
    return experts_take(b, err);
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
    for (size_t id = 0; id < b->all; id++)
        widest = most(widest, most(backward_matrix(m, id)->cols, backward_matrix(m, id)->rows));
    b->weights = mem_take(b->all, sizeof *b->weights, "the backward pass", err);
    b->norms = b->weights ? mem_take(b->norm_count, sizeof *b->norms, "the backward pass", err) : NULL;
    b->kept = b->norms ? mem_take(m->hyper.layers + 1, sizeof *b->kept, "the backward pass", err) : NULL;
    b->buffers = b->kept ? mem_take(1, sizeof *b->buffers, "the backward pass", err) : NULL;
    if (!b->buffers)
        return false;
    for (size_t id = 0; id < b->norm_count; id++)
        b->norms[id] = backward_norm(m, id);
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

/* ---- a layer ------------------------------------------------------------------------------------------------------- */

/* Everything of layer `index` from kept[index]; its result goes to `to` unless NULL. */
static void layer_forth(struct backward *b, size_t index, float *to, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    size_t width = b->m->hyper.width, norm = index * NORM_KINDS;
    norm_forth(b, norm + NORM_ATTN, x->h, b->kept[index], 1, width);
    attention_forth(b, index, hooks);
    norm_forth(b, norm + NORM_POST_ATTN, x->mid, x->proj, 1, width);
    add_rows_scaled(b, x->mid, b->kept[index], x->mid, b->m->hyper.residual_scale);
    norm_forth(b, norm + NORM_FFN, x->h2, x->mid, 1, width);
    bool wanted = to || b->norms[norm + NORM_POST_FFN];
    if (b->m->layer[index].experts)
        experts_forth(b, index, wanted, hooks);
    else
        dense_forth(b, index, wanted, hooks);
    if (!to)
        return;
    norm_forth(b, norm + NORM_POST_FFN, to, x->down, 1, width);
    add_rows_scaled(b, to, x->mid, to, b->m->hyper.residual_scale);
}

/* x->dx: gradient by the layer's result, becomes the gradient by kept[index]. */
static void layer_back(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    size_t width = b->m->hyper.width, norm = index * NORM_KINDS;
    layer_forth(b, index, NULL, NULL);
    add_rows_scaled(b, x->dproj, NULL, x->dx, b->m->hyper.residual_scale);
    norm_back(b, norm + NORM_POST_FFN, x->dproj, x->dproj, x->down, 1, width, hooks);
    if (b->m->layer[index].experts)
        experts_back(b, index, hooks);
    else
        dense_back(b, index, hooks);
    norm_back(b, norm + NORM_FFN, x->dh, x->dh, x->mid, 1, width, hooks);
    add_rows_scaled(b, x->dx, x->dx, x->dh, 1);

    add_rows_scaled(b, x->dproj, NULL, x->dx, b->m->hyper.residual_scale);
    norm_back(b, norm + NORM_POST_ATTN, x->dproj, x->dproj, x->proj, 1, width, hooks);
    attention_back(b, index, hooks);
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
