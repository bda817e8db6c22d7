/* LFM2's gated short convolution: (b, c, x) = W h; y = c * conv(b * x); out = W y. And the causal convolution that the recurrent
 * mixers share. */
#include "forward.h"

#include <string.h>

/* The sequence's last taps - 1 inputs, oldest first: f32 [taps - 1][channels]. */
static float *conv_state(const struct forward *f, size_t part, size_t layer)
{
    const struct kv *kv = f->parts[part].kv;
    return kv->state + kv->layer[layer].state;
}

static void convolve_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct conv *c = arg;
    size_t part = f->part_of[tok], at = tok - f->first[part], before = c->taps - 1;
    const float *state = conv_state(f, part, c->layer);
    float *out = c->out + tok * c->out_stride;
    (void)thread;
    for (size_t i = 0; i < c->channels; i++)
        out[i] = c->bias ? c->bias[i] : 0;
    for (size_t j = 0; j < c->taps; j++) {
        /* Tap j looks back `before - j` tokens: into the batch, or past its beginning into the state. */
        size_t back = before - j;
        const float *x = at >= back ? c->x + (tok - back) * c->x_stride : state + (at + j) * c->channels;
        for (size_t i = 0; i < c->channels; i++)
            out[i] += c->weight[i * c->taps + j] * x[i];
    }
    if (c->silu)
        f->k->silu.fn(out, out, c->channels);
}

void convolve(struct forward *f, const struct conv *c)
{
    run_tokens(f, convolve_token, c, f->n);
    for (size_t p = 0; p < f->part_count; p++) {
        float *state = conv_state(f, p, c->layer);
        size_t count = f->parts[p].count, before = c->taps - 1;
        for (size_t r = 0; r < before; r++) {
            const float *x = r + count >= before ? c->x + (f->first[p] + r + count - before) * c->x_stride
                                                 : state + (r + count) * c->channels;
            memmove(state + r * c->channels, x, c->channels * sizeof *state);
        }
    }
}

enum { BCX, CONVOLVED };   /* f->mix */

void conv_need(const struct model *m, const struct layer *l, struct mixer_need *need)
{
    (void)l;
    need->cols[BCX] = 3 * m->hyper.width;
    need->cols[CONVOLVED] = m->hyper.width;
    need->vector_cols = m->hyper.width;
}

/* b * x in x's place. */
static void gate_input(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    size_t width = f->m->hyper.width;
    float *b = f->mix[BCX] + tok * 3 * width, *x = b + 2 * width;
    (void)arg;
    (void)thread;
    for (size_t i = 0; i < width; i++)
        x[i] *= b[i];
}

static void gate_output(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    size_t width = f->m->hyper.width;
    float *y = f->mix[CONVOLVED] + tok * width;
    const float *c = f->mix[BCX] + tok * 3 * width + width;
    (void)arg;
    (void)thread;
    for (size_t i = 0; i < width; i++)
        y[i] *= c[i];
    acts_prepare(f, &f->mid, tok, y, width);
}

void conv_mix(struct forward *f, const struct layer *l, size_t index)
{
    size_t width = f->m->hyper.width;
    struct product p = { .w = &l->in_proj, .in = &f->in, .step = 1, .toks = f->n, .out = f->mix[BCX], .out_stride = 3 * width };
    run_products(f, &p, 1);
    run_tokens(f, gate_input, NULL, f->n);
    struct conv c = { .x = f->mix[BCX] + 2 * width, .x_stride = 3 * width, .out = f->mix[CONVOLVED], .out_stride = width,
                      .weight = l->conv, .taps = f->m->hyper.conv_taps, .channels = width, .layer = index };
    convolve(f, &c);
    acts_shape(&f->mid, width);
    run_tokens(f, gate_output, NULL, f->n);
    add_product(f, &l->out_proj, &l->post_attn_norm);
}
