/* The attention layer: q, k, v; norms and rotation; attend; out.
 *
 * Four stages cross the pool: the three projections as one list of products, everything per token that depends on its position,
 * attention proper (attention.c), and the projection back into the residual. The differences between the families are all in the
 * second stage, in the order in which the published models apply them. */
#include "forward.h"

#include <math.h>

enum { Q, K, V, OUT };   /* f->mix */

static size_t q_width(const struct model *m, const struct layer *l)
{
    return l->heads * m->hyper.key_dim * (m->arch->flags & ARCH_Q_GATE ? 2 : 1);
}

/* Values from head to head in q: with an output gate each head's gate follows its query. */
static size_t q_step(const struct model *m)
{
    return m->hyper.key_dim * (m->arch->flags & ARCH_Q_GATE ? 2 : 1);
}

void attention_need(const struct model *m, const struct layer *l, struct mixer_need *need)
{
    need->cols[Q] = q_width(m, l);
    need->cols[K] = l->kv_heads * m->hyper.key_dim;
    need->cols[V] = l->kv_heads * m->hyper.value_dim;
    need->cols[OUT] = l->heads * m->hyper.value_dim;
    need->vector_cols = need->cols[OUT];
}

static void clamp(float *x, size_t n, float limit)
{
    for (size_t i = 0; i < n; i++)
        x[i] = fmaxf(-limit, fminf(x[i], limit));
}

/* Norm of the heads of one vector of queries or keys. */
static void norm_heads(const struct forward *f, float *x, size_t heads, size_t step, const float *weight)
{
    size_t dim = f->m->hyper.key_dim;
    /* OLMo 2's norm runs over all heads as one vector, the others' over each head with the same weights for every head. */
    float eps = f->m->hyper.eps;
    if (f->m->arch->qk_norm == QK_WHOLE) {
        f->k->rms_norm.fn(x, x, weight, heads * dim, eps);
        return;
    }
    for (size_t h = 0; h < heads; h++) {
        if (f->m->arch->qk_norm == QK_HEAD_LAYER)
            f->k->layer_norm.fn(x + h * step, x + h * step, weight + h * dim, NULL, dim, eps);
        else
            f->k->rms_norm.fn(x + h * step, x + h * step, weight, dim, eps);
    }
}

/* Rotate each head's first `pairs` pairs; what lies behind them (partial rotation, a gate) stays. */
static void rotate_heads(const struct forward *f, const struct layer *l, float *x, size_t heads, size_t step, size_t tok)
{
    const struct rope_table *table = &f->rope[l->rope];
    const float *cs = f->angles[l->rope] + tok * table->pairs * 2;
    for (size_t h = 0; h < heads; h++)
        f->k->rope.fn(x + h * step, cs, table->pairs, f->m->arch->rope == ROPE_PAIRS);
}

/* Growth of the scores with the position (Llama 4, Mistral 3): a step of the logarithm every `temperature_floor` tokens. */
static float temperature(const struct hyper *h, size_t pos)
{
    float steps = floorf(((float)pos + h->temperature_offset) / (float)h->temperature_floor);
    return logf(steps + 1) * h->temperature + 1;
}

struct position_stage {
    const struct layer *l;
    size_t index;
    bool   store;              /* false: attend will */
};

/* Between the products and attention: everything that depends on the token's position, and its row of the cache. */
static void position_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct position_stage *s = arg;
    const struct layer *l = s->l;
    const struct hyper *h = &f->m->hyper;
    size_t step = q_step(f->m), kd = h->key_dim, vd = h->value_dim;
    float *q = f->mix[Q] + tok * q_width(f->m, l), *k = f->mix[K] + tok * l->kv_heads * kd;
    float *v = f->mix[V] + tok * l->kv_heads * vd;
    (void)thread;
    /* The order is the models': clamp (MPT, OLMo), norm, rotate, and only Llama 4 norms after the rotation. */
    if (h->clamp_qkv != 0) {
        clamp(q, l->heads * kd, h->clamp_qkv);
        clamp(k, l->kv_heads * kd, h->clamp_qkv);
        clamp(v, l->kv_heads * vd, h->clamp_qkv);
    }
    if (l->q_norm) {
        norm_heads(f, q, l->heads, step, l->q_norm);
        norm_heads(f, k, l->kv_heads, kd, l->k_norm);
    }
    if (l->rope != ROPE_TABLE_NONE) {
        rotate_heads(f, l, q, l->heads, step, tok);
        rotate_heads(f, l, k, l->kv_heads, kd, tok);
        if (f->m->arch->qk_norm == QK_L2) {
            norm_heads(f, q, l->heads, step, NULL);
            norm_heads(f, k, l->kv_heads, kd, NULL);
        }
    }
    /* Llama 4 tempers only the layers without rotation; Mistral 3 all of them. */
    if (h->temperature != 0 && (l->rope == ROPE_TABLE_NONE || !(f->m->arch->flags & ARCH_LLAMA4))) {
        float factor = temperature(h, f->pos[tok]);
        for (size_t i = 0; i < l->heads * kd; i++)
            q[i] *= factor;
    }
    /* Into the cache before any token attends: in a batch, token t reads the rows of tokens 0 to t. */
    if (s->store)
        store_keys(f, s->index, tok, k, kd, v, vd);
}

/* After attention: the output gate (Qwen3-Next: a sigmoid per value, produced by the query's matrix), BitNet's norm, and ready for
 * the last product. */
static void finish_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    size_t vd = f->m->hyper.value_dim, width = l->heads * vd, step = q_step(f->m);
    float *out = f->mix[OUT] + tok * width;
    (void)thread;
    if (f->m->arch->flags & ARCH_Q_GATE) {
        const float *gate = f->mix[Q] + tok * q_width(f->m, l) + f->m->hyper.key_dim;
        for (size_t h = 0; h < l->heads; h++)
            for (size_t i = 0; i < vd; i++)
                out[h * vd + i] /= 1 + expf(-gate[h * step + i]);
    }
    if (l->attn_sub_norm)
        f->k->rms_norm.fn(out, out, l->attn_sub_norm, width, f->m->hyper.eps);
    acts_prepare(f, &f->mid, tok, out, width);
}

void attention_mix(struct forward *f, const struct layer *l, size_t index)
{
    const struct hyper *h = &f->m->hyper;
    struct product *p = f->products;
    const struct matrix *w[] = { &l->q, &l->k, &l->v };
    for (size_t i = 0; i < 3; i++)
        p[i] = (struct product){ .w = w[i], .in = &f->in, .step = 1, .toks = f->n,
                                 .out = f->mix[i], .out_stride = w[i]->rows };
    expect_product(f, &l->out, NULL);
    run_products(f, p, 3);
    struct position_stage s = { .l = l, .index = index, .store = !attend_stores(f, l) };
    enter_stage(f, STAGE_POSITION);
    run_tokens(f, position_token, &s, f->n);
    struct attention a = { .layer = l, .index = index, .q = f->mix[Q], .q_stride = q_width(f->m, l), .head_step = q_step(f->m),
                           .out = f->mix[OUT], .out_stride = l->heads * h->value_dim,
                           .k = s.store ? NULL : f->mix[K], .v = f->mix[V] };
    enter_stage(f, STAGE_ATTENTION);
    attend(f, &a);
    enter_stage(f, STAGE_NORM);
    acts_shape(&f->mid, l->heads * h->value_dim);
    run_tokens(f, finish_token, l, f->n);
    enter_stage(f, STAGE_OUT);
    expect_product(f, &l->up, &l->gate);
    expect_product(f, &l->router, NULL);
    add_product(f, &l->out, &l->post_attn_norm);
}
