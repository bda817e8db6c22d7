/* Gated delta net (Yang et al. 2024), as Qwen3-Next has it: q, k, v from a short convolution; per value head a state S that maps
 * keys to values, decayed and then corrected towards the new pair:
 *     S = exp(g) S;   S = S + beta (v - S k) kT;   o = S q / sqrt(size)
 * out = W (norm(o) * silu(z)). */
#include "forward.h"

#include <math.h>

enum { QKV, CONV, Z, BA, OUT };      /* f->mix */

static size_t conv_width(const struct hyper *h)
{
    return h->ssm_inner + 2 * h->ssm_groups * h->ssm_state;
}

void delta_need(const struct model *m, const struct layer *l, struct mixer_need *need)
{
    const struct hyper *h = &m->hyper;
    (void)l;
    need->cols[QKV] = need->cols[CONV] = conv_width(h);
    need->cols[Z] = need->cols[OUT] = h->ssm_inner;
    need->cols[BA] = 2 * h->ssm_rank;
    need->vector_cols = h->ssm_inner;
}

/* Queries and keys to length 1. */
static void unit_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct hyper *h = &f->m->hyper;
    float *x = f->mix[CONV] + tok * conv_width(h);
    (void)arg;
    (void)thread;
    for (size_t head = 0; head < 2 * h->ssm_groups; head++, x += h->ssm_state) {
        float length = sqrtf(f->k->dot.fn(x, x, h->ssm_state)), factor = 1 / fmaxf(length, h->eps);
        for (size_t i = 0; i < h->ssm_state; i++)
            x[i] *= factor;
    }
}

struct delta_stage {
    struct forward     *f;
    const struct layer *l;
    size_t index;
};

/* One value head of one sequence, token after token. state: f32 [value][key]. */
static void delta_chunk(void *arg, size_t index, size_t thread)
{
    const struct delta_stage *s = arg;
    struct forward *f = s->f;
    const struct hyper *h = &f->m->hyper;
    /* Several value heads share one query and key head, as in grouped attention the other way round. */
    size_t part = index / h->ssm_rank, head = index % h->ssm_rank, size = h->ssm_state;
    size_t shared = h->ssm_rank / h->ssm_groups, key_head = head / shared, at = head % shared;
    const struct kv *kv = f->parts[part].kv;
    float *state = kv->state + kv->layer[s->index].state + (h->conv_taps - 1) * conv_width(h) + head * size * size;
    float scale = 1 / sqrtf((float)size);
    (void)thread;
    for (size_t tok = f->first[part]; tok < f->first[part] + f->parts[part].count; tok++) {
        const float *qkv = f->mix[CONV] + tok * conv_width(h);
        const float *q = qkv + key_head * size, *k = q + h->ssm_groups * size, *v = qkv + 2 * h->ssm_groups * size + head * size;
        /* beta and alpha stand together for each key head: its value heads' betas, then their alphas. */
        const float *ba = f->mix[BA] + tok * 2 * h->ssm_rank + key_head * 2 * shared;
        float beta = 1 / (1 + expf(-ba[at])), alpha = ba[shared + at] + s->l->ssm_dt_bias[head];
        float decay = expf((alpha > 20 ? alpha : log1pf(expf(alpha))) * s->l->ssm_a[head]);
        float *out = f->mix[OUT] + tok * h->ssm_inner + head * size;
        for (size_t i = 0; i < size; i++) {
            float *row = state + i * size;
            for (size_t j = 0; j < size; j++)
                row[j] *= decay;
            f->k->axpy.fn(row, k, (v[i] - f->k->dot.fn(row, k, size)) * beta, size);
            out[i] = f->k->dot.fn(row, q, size) * scale;
        }
    }
}

static void gate_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    const struct hyper *h = &f->m->hyper;
    float *out = f->mix[OUT] + tok * h->ssm_inner;
    (void)thread;
    for (size_t head = 0; head < h->ssm_rank; head++)
        f->k->rms_norm.fn(out + head * h->ssm_state, out + head * h->ssm_state, l->ssm_norm, h->ssm_state, h->eps);
    f->k->silu_mul.fn(out, f->mix[Z] + tok * h->ssm_inner, out, h->ssm_inner);
    acts_prepare(f, &f->mid, tok, out, h->ssm_inner);
}

void delta_mix(struct forward *f, const struct layer *l, size_t index)
{
    const struct hyper *h = &f->m->hyper;
    struct product *p = f->products;
    const struct matrix *w[] = { &l->in_proj, &l->gate_proj, &l->beta_alpha };
    float *out[] = { f->mix[QKV], f->mix[Z], f->mix[BA] };
    for (size_t i = 0; i < 3; i++)
        p[i] = (struct product){ .w = w[i], .in = &f->in, .step = 1, .toks = f->n, .out = out[i], .out_stride = w[i]->rows };
    run_products(f, p, 3);
    struct conv c = { .x = f->mix[QKV], .x_stride = conv_width(h), .out = f->mix[CONV], .out_stride = conv_width(h),
                      .weight = l->conv, .taps = h->conv_taps, .channels = conv_width(h), .layer = index, .silu = true };
    convolve(f, &c);
    run_tokens(f, unit_token, NULL, f->n);
    struct delta_stage s = { .f = f, .l = l, .index = index };
    pool_run(f->pool, delta_chunk, &s, h->ssm_rank * f->part_count);
    acts_shape(&f->mid, h->ssm_inner);
    run_tokens(f, gate_token, l, f->n);
    add_product(f, &l->out_proj, &l->post_attn_norm);
}
