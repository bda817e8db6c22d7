/* Mamba's selective state space (Gu and Dao 2023): (x, z) = W h; x = silu(conv(x)); (dt, B, C) = W x; per channel c and state n
 *     s[c][n] = s[c][n] * exp(dt[c] * A[c][n]) + dt[c] * x[c] * B[n]
 *     y[c]    = sum over n of s[c][n] * C[n] + D[c] * x[c]
 * out = W (y * silu(z)). */
#include "forward.h"

#include <math.h>

enum { XZ, X, DBC, DT };             /* f->mix; y takes x's place in XZ */
enum { CHANNELS_PER_CHUNK = 32 };

void ssm_need(const struct model *m, const struct layer *l, struct mixer_need *need)
{
    const struct hyper *h = &m->hyper;
    (void)l;
    need->cols[XZ] = 2 * h->ssm_inner;
    need->cols[X] = h->ssm_inner;
    need->cols[DBC] = h->ssm_rank + 2 * h->ssm_state;
    need->cols[DT] = h->ssm_inner;
    need->vector_cols = h->ssm_inner > h->ssm_rank ? h->ssm_inner : h->ssm_rank;
}

/* log(1 + e^x) > 0, so that a time step is positive; above 20 the difference from x is below half an ulp of f32. */
static float softplus(float x)
{
    return x > 20 ? x : log1pf(expf(x));
}

struct scan_stage {
    struct forward     *f;
    const struct layer *l;
    size_t index, chunks;       /* chunks of channels per sequence */
};

/* Some channels of one sequence, token after token. */
static void scan_chunk(void *arg, size_t index, size_t thread)
{
    const struct scan_stage *s = arg;
    struct forward *f = s->f;
    const struct hyper *h = &f->m->hyper;
    /* Channels do not see each other, so chunks of them are independent; time is walked within a chunk, whose states stay in L1. */
    size_t part = index / s->chunks, begin = index % s->chunks * CHANNELS_PER_CHUNK;
    size_t end = begin + CHANNELS_PER_CHUNK < h->ssm_inner ? begin + CHANNELS_PER_CHUNK : h->ssm_inner;
    const struct kv *kv = f->parts[part].kv;
    float *states = kv->state + kv->layer[s->index].state + (h->conv_taps - 1) * h->ssm_inner;
    (void)thread;
    for (size_t tok = f->first[part]; tok < f->first[part] + f->parts[part].count; tok++) {
        const float *x = f->mix[X] + tok * h->ssm_inner, *dts = f->mix[DT] + tok * h->ssm_inner;
        const float *b = f->mix[DBC] + tok * (h->ssm_rank + 2 * h->ssm_state) + h->ssm_rank, *c = b + h->ssm_state;
        float *y = f->mix[XZ] + tok * 2 * h->ssm_inner;
        for (size_t i = begin; i < end; i++) {
            float dt = softplus(dts[i]), in = dt * x[i], sum = 0;
            float *state = states + i * h->ssm_state;
            const float *a = s->l->ssm_a + i * h->ssm_state;
            for (size_t n = 0; n < h->ssm_state; n++) {
                state[n] = state[n] * expf(dt * a[n]) + b[n] * in;
                sum += state[n] * c[n];
            }
            y[i] = sum + s->l->ssm_d[i] * x[i];
        }
    }
}

/* y * silu(z), ready for the last product. */
static void gate_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    size_t inner = f->m->hyper.ssm_inner;
    float *y = f->mix[XZ] + tok * 2 * inner;
    (void)arg;
    (void)thread;
    f->k->silu_mul.fn(y, y + inner, y, inner);
    acts_prepare(f, &f->mid, tok, y, inner);
}

void ssm_mix(struct forward *f, const struct layer *l, size_t index)
{
    const struct hyper *h = &f->m->hyper;
    size_t inner = h->ssm_inner, dbc = h->ssm_rank + 2 * h->ssm_state;
    struct product in = { .w = &l->in_proj, .in = &f->in, .step = 1, .toks = f->n, .out = f->mix[XZ], .out_stride = 2 * inner };
    run_products(f, &in, 1);
    struct conv c = { .x = f->mix[XZ], .x_stride = 2 * inner, .out = f->mix[X], .out_stride = inner, .weight = l->conv,
                      .bias = l->conv_bias, .taps = h->conv_taps, .channels = inner, .layer = index, .silu = true };
    convolve(f, &c);
    prepare_tokens(f, &f->mid, f->mix[X], inner, inner, f->n);
    struct product x = { .w = &l->ssm_x, .in = &f->mid, .step = 1, .toks = f->n, .out = f->mix[DBC], .out_stride = dbc };
    run_products(f, &x, 1);
    prepare_tokens(f, &f->mid, f->mix[DBC], dbc, h->ssm_rank, f->n);
    /* The time step of every channel comes from a projection of low rank; B and C lie behind it in DBC. */
    struct product dt = { .w = &l->ssm_dt, .in = &f->mid, .step = 1, .toks = f->n, .out = f->mix[DT], .out_stride = inner };
    run_products(f, &dt, 1);
    struct scan_stage s = { .f = f, .l = l, .index = index, .chunks = (inner + CHANNELS_PER_CHUNK - 1) / CHANNELS_PER_CHUNK };
    pool_run(f->pool, scan_chunk, &s, s.chunks * f->part_count);
    acts_shape(&f->mid, inner);
    run_tokens(f, gate_token, NULL, f->n);
    add_product(f, &l->out_proj, &l->post_attn_norm);
}
