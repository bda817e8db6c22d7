/* Multi-head latent attention (DeepSeek-V2, 2024): keys and values of all heads are projections of one latent per token.
 *
 * Absorbed (files with attn_k_b and attn_v_b): each query is brought into the latent space instead, all heads share one key head
 * whose rows are the latent and the rotated part, and the values are the latent itself. Decompressed (older files with attn_kv_b):
 * every head's keys and values are computed and cached. */
#include "forward.h"

#include <string.h>

/* f->mix. Decompressed: ABSORBED holds keys and values, LATENT's tail the rotated key. */
enum { QUERY, LATENT, ABSORBED, MIXED, HEADS };

/* Values of a key head that are not rotated ("no positional encoding"). */
static size_t nope(const struct hyper *h)
{
    return h->mla_key - h->rope.dims;
}

void mla_need(const struct model *m, const struct layer *l, struct mixer_need *need)
{
    const struct hyper *h = &m->hyper;
    size_t cols = h->width;
    need->cols[QUERY] = l->heads * h->mla_key;
    need->cols[LATENT] = h->kv_lora + h->rope.dims;
    need->cols[ABSORBED] = l->heads * (h->mla_absorbed ? h->key_dim : nope(h) + h->mla_value);
    need->cols[MIXED] = l->heads * (h->mla_absorbed ? h->kv_lora : h->mla_key);
    need->cols[HEADS] = l->heads * h->mla_value > h->q_lora ? l->heads * h->mla_value : h->q_lora;
    if (h->q_lora > cols)
        cols = h->q_lora;
    if (h->kv_lora > cols)
        cols = h->kv_lora;
    need->vector_cols = l->heads * h->mla_value > cols ? l->heads * h->mla_value : cols;
    need->heads = h->mla_absorbed ? l->heads : 0;
    need->head_cols = nope(h) > h->kv_lora ? nope(h) : h->kv_lora;
}

/* The queries' own latent, normed and prepared: it is in HEADS, which is free until attention is done. */
static void norm_rows(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    const struct hyper *h = &f->m->hyper;
    float *x = f->mix[HEADS] + tok * h->q_lora;
    (void)thread;
    f->k->rms_norm.fn(x, x, l->q_a_norm, h->q_lora, h->eps);
    acts_prepare(f, &f->mid, tok, x, h->q_lora);
}

/* Queries, straight or through their own latent, and the token's latent. */
static void project(struct forward *f, const struct layer *l)
{
    const struct hyper *h = &f->m->hyper;
    struct product *p = f->products;
    p[0] = (struct product){ .w = &l->kv_a, .in = &f->in, .step = 1, .toks = f->n,
                             .out = f->mix[LATENT], .out_stride = l->kv_a.rows };
    p[1] = (struct product){ .w = &l->q, .in = &f->in, .step = 1, .toks = f->n,
                             .out = f->mix[QUERY], .out_stride = l->q.rows };
    if (l->q_a.data) {
        p[1].w = &l->q_a;
        p[1].out = f->mix[HEADS];
        p[1].out_stride = h->q_lora;
    }
    run_products(f, p, 2);
    if (!l->q_a.data)
        return;
    acts_shape(&f->mid, h->q_lora);
    run_tokens(f, norm_rows, l, f->n);
    p[0] = (struct product){ .w = &l->q_b, .in = &f->mid, .step = 1, .toks = f->n,
                             .out = f->mix[QUERY], .out_stride = l->q_b.rows };
    run_products(f, p, 1);
}

struct mla_stage {
    const struct layer *l;
    size_t index;
};

/* Norm of the latent; rotation of its tail and of every query's. */
static void position_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct mla_stage *s = arg;
    const struct hyper *h = &f->m->hyper;
    const struct rope_table *table = &f->rope[s->l->rope];
    const float *cs = f->angles[s->l->rope] + tok * table->pairs * 2;
    float *q = f->mix[QUERY] + tok * s->l->heads * h->mla_key, *latent = f->mix[LATENT] + tok * s->l->kv_a.rows;
    bool pairs = f->m->arch->rope == ROPE_PAIRS;
    (void)thread;
    f->k->rms_norm.fn(latent, latent, s->l->kv_a_norm, h->kv_lora, h->eps);
    f->k->rope.fn(latent + h->kv_lora, cs, table->pairs, pairs);
    for (size_t head = 0; head < s->l->heads; head++)
        f->k->rope.fn(q + head * h->mla_key + nope(h), cs, table->pairs, pairs);
    if (!h->mla_absorbed) {
        acts_prepare(f, &f->mid, tok, latent, h->kv_lora);
        return;
    }
    for (size_t head = 0; head < s->l->heads; head++)
        acts_prepare(f, &f->mid, tok * s->l->heads + head, q + head * h->mla_key, nope(h));
    store_keys(f, s->index, tok, latent, 0, NULL, 0);
}

/* A product per head: vector `head` of every token's group of vectors. */
static void run_heads(struct forward *f, const struct layer *l, const struct matrix *w, float *out, size_t stride, size_t step)
{
    for (size_t head = 0; head < l->heads; head++)
        f->products[head] = (struct product){ .w = w, .slice = head, .in = &f->mid, .first = head, .step = l->heads,
                                              .toks = f->n, .out = out + head * step, .out_stride = stride };
    run_products(f, f->products, l->heads);
}

/* The rotated tail of each query behind its absorbed head. */
static void join_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    const struct hyper *h = &f->m->hyper;
    (void)thread;
    for (size_t head = 0; head < l->heads; head++)
        memcpy(f->mix[ABSORBED] + (tok * l->heads + head) * h->key_dim + h->kv_lora,
               f->mix[QUERY] + (tok * l->heads + head) * h->mla_key + nope(h), h->rope.dims * sizeof(float));
}

/* What each head gathered, still in the latent space, ready for its product with that head's slice of v_b. */
static void prepare_mixed(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    size_t lora = f->m->hyper.kv_lora;
    (void)thread;
    for (size_t head = 0; head < l->heads; head++)
        acts_prepare(f, &f->mid, tok * l->heads + head, f->mix[MIXED] + (tok * l->heads + head) * lora, lora);
}

/* (W_k q)T c = qT (W_kT c): with W_k moved to the query, one cached latent of kv_lora + rope values serves all heads, 576
 * instead of 40,960 values a token for DeepSeek-V2. Attention sees one key head whose values are the beginning of its keys. */
static void absorbed(struct forward *f, const struct layer *l, size_t index)
{
    const struct hyper *h = &f->m->hyper;
    struct mla_stage s = { .l = l, .index = index };
    acts_shape(&f->mid, nope(h));
    run_tokens(f, position_token, &s, f->n);
    run_heads(f, l, &l->k_b, f->mix[ABSORBED], l->heads * h->key_dim, h->key_dim);
    run_tokens(f, join_token, l, f->n);
    struct attention a = { .layer = l, .index = index, .q = f->mix[ABSORBED], .q_stride = l->heads * h->key_dim,
                           .head_step = h->key_dim, .out = f->mix[MIXED], .out_stride = l->heads * h->kv_lora };
    enter_stage(f, STAGE_ATTENTION);
    attend(f, &a);
    acts_shape(&f->mid, h->kv_lora);
    run_tokens(f, prepare_mixed, l, f->n);
    enter_stage(f, STAGE_OUT);
    run_heads(f, l, &l->v_b, f->mix[HEADS], l->heads * h->mla_value, h->mla_value);
}

/* Each head's key: its own part, then the rotated part that all share. */
static void store_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct mla_stage *s = arg;
    const struct hyper *h = &f->m->hyper;
    size_t step = nope(h) + h->mla_value;
    const float *kv = f->mix[ABSORBED] + tok * s->l->heads * step;
    const float *tail = f->mix[LATENT] + tok * s->l->kv_a.rows + h->kv_lora;
    float *keys = f->mix[MIXED] + tok * s->l->heads * h->mla_key;
    (void)thread;
    for (size_t head = 0; head < s->l->heads; head++) {
        memcpy(keys + head * h->mla_key, kv + head * step, nope(h) * sizeof *keys);
        memcpy(keys + head * h->mla_key + nope(h), tail, h->rope.dims * sizeof *keys);
    }
    store_keys(f, s->index, tok, keys, h->mla_key, kv + nope(h), step);
}

/* As ordinary attention with a key head per query head: kv_b makes every head's keys and values out of the latent first. */
static void decompressed(struct forward *f, const struct layer *l, size_t index)
{
    const struct hyper *h = &f->m->hyper;
    struct mla_stage s = { .l = l, .index = index };
    acts_shape(&f->mid, h->kv_lora);
    run_tokens(f, position_token, &s, f->n);
    struct product p = { .w = &l->kv_b, .in = &f->mid, .step = 1, .toks = f->n,
                         .out = f->mix[ABSORBED], .out_stride = l->kv_b.rows };
    run_products(f, &p, 1);
    run_tokens(f, store_token, &s, f->n);
    struct attention a = { .layer = l, .index = index, .q = f->mix[QUERY], .q_stride = l->heads * h->mla_key,
                           .head_step = h->mla_key, .out = f->mix[HEADS], .out_stride = l->heads * h->mla_value };
    enter_stage(f, STAGE_ATTENTION);
    attend(f, &a);
}

void mla_mix(struct forward *f, const struct layer *l, size_t index)
{
    size_t width = l->heads * f->m->hyper.mla_value;
    project(f, l);
    if (f->m->hyper.mla_absorbed)
        absorbed(f, l, index);
    else
        decompressed(f, l, index);
    prepare_tokens(f, &f->mid, f->mix[HEADS], width, width, f->n);
    enter_stage(f, STAGE_OUT);
    add_product(f, &l->out, &l->post_attn_norm);
}
