/* Mixture of experts: every token's router chooses, tokens are sorted by expert so that each expert is one product over its
 * tokens, and each token adds up its experts' results in the order of its choice. What a token gets does not depend on who else
 * is in the batch. */
#include "moe.h"

#include <math.h>
#include <string.h>

/* With many tokens the router is cut into parts of at most so many: its rows, one per expert, are too few to give every thread
 * some. */
enum { ROUTER_TOKENS = 64 };

/* A slot is one token at one of its experts: there are tokens x experts_used of them, sorted by expert, which makes the tokens of
 * an expert neighbours and its weights read once per batch. Slots are many: their vectors are kept in the forms that the experts
 * multiply only, though the layer's input has others too (the router's, mostly floats, four times as long). */
bool moe_plan(struct forward *f, unsigned char *base, size_t *offset)
{
    const struct hyper *h = &f->m->hyper;
    unsigned in_kinds = 0, mid_kinds = 0, shared_kinds = 0;
    struct moe dummy, *m;
    size_t t = f->max_tokens, slots, in[ACT_KINDS], mid[ACT_KINDS], shared[ACT_KINDS];
    if (h->experts == 0)
        return true;
    for (size_t i = 0; i < h->layers; i++) {
        const struct layer *l = &f->m->layer[i];
        in_kinds |= kinds_of(f->k, &l->gate_exps) | kinds_of(f->k, &l->up_exps);
        mid_kinds |= kinds_of(f->k, &l->down_exps);
        shared_kinds |= kinds_of(f->k, &l->down_shared);
    }
    act_bytes(in, h->width);
    act_bytes(mid, h->expert_ff);
    act_bytes(shared, h->shared_ff);
    if (!checked_mul(&slots, t, h->experts_used) || !carve(base, offset, &f->moe, 1, sizeof *m))
        return false;
    m = base ? f->moe : &dummy;
    return carve(base, offset, &m->scores, t, h->experts * sizeof(float)) &&
           carve(base, offset, &m->weights, slots, sizeof(float)) && carve(base, offset, &m->chosen, slots, sizeof *m->chosen) &&
           carve(base, offset, &m->slot, slots, sizeof *m->slot) &&
           carve(base, offset, &m->start, h->experts + 1, sizeof *m->start) &&
           carve(base, offset, &m->out, slots, h->width * sizeof(float)) && carve(base, offset, &m->shared, t, sizeof(float)) &&
           carve(base, offset, &m->shared_out, h->shared_ff ? t : 0, h->width * sizeof(float)) &&
           carve_acts(&m->gathered, base, offset, in_kinds, slots, in) &&
           carve_acts(&m->slots_mid, base, offset, mid_kinds, slots, mid) &&
           carve_acts(&m->shared_mid, base, offset, shared_kinds, h->shared_ff ? t : 0, shared);
}

/* Experts before others: the larger score, at a tie the smaller number. */
static bool better(const float *score, size_t a, size_t b)
{
    return score[a] > score[b] || (score[a] == score[b] && a < b);
}

/* The `used` best of n by score, best first; -INFINITY and NaN are never better than anything, but fill up what is missing. By
 * insertion, since `used` is 1 to 8 in real models. */
static void choose_best(uint32_t *chosen, size_t used, const float *score, size_t n)
{
    size_t count = 0;
    for (size_t e = 0; e < n; e++) {
        size_t at = count < used ? count++ : used;
        while (at > 0 && better(score, e, chosen[at - 1])) {
            if (at < used)
                chosen[at] = chosen[at - 1];
            at--;
        }
        if (at < used)
            chosen[at] = (uint32_t)e;
    }
}

/* DeepSeek V3: only the groups whose two best experts add up to the most take part. */
static void mask_groups(const struct hyper *h, float *score, float *group)
{
    size_t size = h->experts / h->expert_groups;
    for (size_t g = 0; g < h->expert_groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (size_t e = g * size; e < (g + 1) * size; e++) {
            if (score[e] > first) {
                second = first;
                first = score[e];
            } else if (score[e] > second) {
                second = score[e];
            }
        }
        group[g] = size > 1 ? first + second : first;
    }
    for (size_t g = 0; g < h->expert_groups; g++) {
        size_t ahead = 0;
        for (size_t other = 0; other < h->expert_groups; other++)
            ahead += better(group, other, g);
        for (size_t e = g * size; e < (g + 1) * size && ahead >= h->groups_used; e++)
            score[e] = -INFINITY;
    }
}

void moe_choose(const struct model *m, const struct kernels *k, const struct layer *l, float *score, float *select,
                uint32_t *chosen, float *weight)
{
    const struct hyper *h = &m->hyper;
    if (h->gating == GATING_SOFTMAX)
        k->softmax.fn(score, h->experts);
    /* Llama 4 selects by the logits; the order is that of their sigmoids, which may round to ties. */
    memcpy(select, score, h->experts * sizeof *select);
    if (h->gating == GATING_SIGMOID)
        for (size_t e = 0; e < h->experts; e++) {
            score[e] = 1 / (1 + expf(-score[e]));
            if (!(m->arch->flags & ARCH_LLAMA4))
                select[e] = score[e];
        }
    if (l->router_bias)
        for (size_t e = 0; e < h->experts; e++)
            select[e] += l->router_bias[e];
    if (h->expert_groups > 1)
        mask_groups(h, select, select + h->experts);
    choose_best(chosen, h->experts_used, select, h->experts);
    float sum = 0;
    for (size_t i = 0; i < h->experts_used; i++)
        weight[i] = score[chosen[i]];
    if (h->gating == GATING_SOFTMAX_CHOSEN)
        k->softmax.fn(weight, h->experts_used);
    for (size_t i = 0; i < h->experts_used; i++)
        sum += weight[i];
    float factor = h->normalise_experts ? h->expert_scale / fmaxf(sum, MOE_LEAST_SUM) : h->expert_scale;
    for (size_t i = 0; i < h->experts_used; i++)
        weight[i] *= factor;
}

static void route_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    const struct hyper *h = &f->m->hyper;
    struct moe *m = f->moe;
    moe_choose(f->m, f->k, l, m->scores + tok * h->experts, f->scratch[thread].vector, m->chosen + tok * h->experts_used,
               m->weights + tok * h->experts_used);
    if (l->shared_gate.data)
        m->shared[tok] = 1 / (1 + expf(-m->shared[tok]));
}

/* The router, in parts of the batch. Each token's sums are what they are in one. */
static size_t router_products(struct forward *f, struct product *list, const struct layer *l)
{
    const struct hyper *h = &f->m->hyper;
    size_t parts = (f->n + ROUTER_TOKENS - 1) / ROUTER_TOKENS;
    parts = parts < h->experts ? parts : h->experts;         /* the list has room for so many */
    for (size_t i = 0; i < parts; i++) {
        size_t first = f->n * i / parts, toks = f->n * (i + 1) / parts - first;
        list[i] = (struct product){ .w = &l->router, .in = &f->in, .first = first, .step = 1, .toks = toks,
                                    .out = f->moe->scores + first * h->experts, .out_stride = h->experts };
    }
    return parts;
}

/* Give every choice a slot; experts one after the other, tokens in order within each. */
static void sort_by_expert(struct forward *f)
{
    const struct hyper *h = &f->m->hyper;
    struct moe *m = f->moe;
    size_t n = f->n * h->experts_used;
    /* A counting sort: how many for each expert, where each begins, then every choice to the next place of its expert. */
    memset(m->start, 0, (h->experts + 1) * sizeof *m->start);
    for (size_t i = 0; i < n; i++)
        m->start[m->chosen[i] + 1]++;
    for (size_t e = 0; e < h->experts; e++)
        m->start[e + 1] += m->start[e];
    for (size_t i = 0; i < n; i++)
        m->slot[i] = m->start[m->chosen[i]]++;
    /* Each start has moved to the next expert's. */
    memmove(m->start + 1, m->start, h->experts * sizeof *m->start);
    m->start[0] = 0;
}

/* The token's prepared vector to each of its slots. Llama 4 weighs the experts' input instead of their result. */
static void gather_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct hyper *h = &f->m->hyper;
    struct moe *m = f->moe;
    (void)arg;
    for (size_t i = 0; i < h->experts_used; i++) {
        size_t slot = m->slot[tok * h->experts_used + i];
        if (f->m->arch->flags & ARCH_LLAMA4) {
            float *x = f->scratch[thread].vector;
            for (size_t j = 0; j < h->width; j++)
                x[j] = f->h[tok * h->width + j] * m->weights[tok * h->experts_used + i];
            acts_prepare(f, &m->gathered, slot, x, h->width);
            continue;
        }
        for (int kind = 0; kind < ACT_KINDS; kind++)
            if (m->gathered.bytes[kind])
                memcpy(m->gathered.data[kind] + slot * f->in.stride[kind], f->in.data[kind] + tok * f->in.stride[kind],
                       f->in.stride[kind]);
    }
}

/* The experts' products of one kind, a list entry per expert that has tokens. */
static size_t expert_products(struct forward *f, struct product *list, const struct product *like)
{
    const struct moe *m = f->moe;
    size_t count = 0;
    for (size_t e = 0; e < f->m->hyper.experts; e++) {
        size_t slot = m->start[e], toks = m->start[e + 1] - slot;
        if (toks == 0)
            continue;
        list[count] = *like;
        list[count].slice = e;
        list[count].first = slot;
        list[count].toks = toks;
        list[count++].out += slot * like->out_stride;
    }
    return count;
}

/* Sum of the experts' results, in the order of the choice, and the shared expert's; then on to the residual. */
static void combine_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct hyper *h = &f->m->hyper;
    const struct layer *l = arg;
    const struct moe *m = f->moe;
    float *y = f->y + tok * h->width;
    (void)thread;
    memset(y, 0, h->width * sizeof *y);
    for (size_t i = 0; i < h->experts_used; i++) {
        size_t at = tok * h->experts_used + i;
        float weight = f->m->arch->flags & ARCH_LLAMA4 ? 1 : m->weights[at];
        f->k->axpy.fn(y, m->out + m->slot[at] * h->width, weight, h->width);
    }
    if (l->up_shared.data)
        f->k->axpy.fn(y, m->shared_out + tok * h->width, l->shared_gate.data ? m->shared[tok] : 1, h->width);
    add_to_residual(f, &l->post_ffn_norm, tok);
}

void moe_forward(struct forward *f, const struct layer *l)
{
    const struct hyper *h = &f->m->hyper;
    struct moe *m = f->moe;
    size_t slots = f->n * h->experts_used, n;
    float *shared_hidden = f->hidden + slots * h->expert_ff;
    struct product *p = f->products;
    n = router_products(f, p, l);
    if (l->shared_gate.data)
        p[n++] = (struct product){ .w = &l->shared_gate, .in = &f->in, .step = 1, .toks = f->n, .out = m->shared, .out_stride = 1 };
    enter_stage(f, STAGE_ROUTE);
    run_products(f, p, n);

    /* Who computes what: sequential, but a few hundred steps per token at most. */
    run_tokens(f, route_token, l, f->n);
    sort_by_expert(f);
    acts_shape(&m->gathered, h->width);
    run_tokens(f, gather_token, l, f->n);

    /* The experts' hidden vectors, slot after slot, and behind them the shared expert's, token after token: one stage. */
    struct product up = { .w = &l->up_exps, .gate = &l->gate_exps, .in = &m->gathered, .step = 1, .out = f->hidden,
                          .out_stride = h->expert_ff, .finish = FINISH_ACTIVATE };
    enter_stage(f, STAGE_UP);
    n = expert_products(f, p, &up);
    if (l->up_shared.data)
        p[n++] = (struct product){ .w = &l->up_shared, .gate = &l->gate_shared, .in = &f->in, .step = 1, .toks = f->n,
                                   .out = shared_hidden, .out_stride = h->shared_ff, .finish = FINISH_ACTIVATE };
    run_products(f, p, n);
    enter_stage(f, STAGE_NORM);
    prepare_tokens(f, &m->slots_mid, f->hidden, h->expert_ff, h->expert_ff, slots);
    if (l->up_shared.data)
        prepare_tokens(f, &m->shared_mid, shared_hidden, h->shared_ff, h->shared_ff, f->n);

    struct product down = { .w = &l->down_exps, .in = &m->slots_mid, .step = 1, .out = m->out, .out_stride = h->width };
    enter_stage(f, STAGE_DOWN);
    n = expert_products(f, p, &down);
    if (l->up_shared.data)
        p[n++] = (struct product){ .w = &l->down_shared, .in = &m->shared_mid, .step = 1, .toks = f->n, .out = m->shared_out,
                                   .out_stride = h->width };
    expect_layer_after(f, l);
    run_products(f, p, n);
    run_tokens(f, combine_token, l, f->n);
}
