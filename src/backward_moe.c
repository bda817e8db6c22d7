/* Mixtures of experts: the router's choice, then one expert after the other over the tokens that it got, and their mirror.
 *
 * Tokens are few for each expert, so its inputs are gathered, everything of it is computed in the buffers of the dense part, and
 * the result is added to its tokens; on the way back it is computed again. Nothing is held for all slots (token * experts_used +
 * choice) but their weights. A weight's gradient is <gradient, expert's result>: with y = W a + b that is <W^T gradient, a> +
 * <gradient, b>, so the result itself is not needed. Who is chosen is taken as fixed. */
#include <math.h>
#include <string.h>

#include "backward_ops.h"
#include "backward_parts.h"
#include "moe.h"

bool experts_take(struct backward *b, struct quern_error *err)
{
    struct backward_experts *e = &b->buffers->experts;
    const struct hyper *h = &b->m->hyper;
    size_t n = b->most, slots, wide;
    if (h->experts == 0)
        return true;
    if (!checked_mul(&slots, n, h->experts_used) || !checked_mul(&wide, n, dense_stride(h->width)))
        return ERR(err, QUERN_EMEM, "buffers of experts for %zu tokens", n);
    size_t scores = n * dense_stride(h->experts), each = h->experts + h->expert_groups;
    return (e->score = layer_take(b, scores, sizeof *e->score, err)) &&
           (e->dscore = layer_take(b, scores, sizeof *e->dscore, err)) &&
           (e->select = layer_take(b, pool_threads(b->pool) * each, sizeof *e->select, err)) &&
           (e->weight = layer_take(b, slots, sizeof *e->weight, err)) &&
           (e->dweight = layer_take(b, slots, sizeof *e->dweight, err)) &&
           (e->chosen = layer_take(b, slots, sizeof *e->chosen, err)) && (e->slots = layer_take(b, slots, sizeof *e->slots, err)) &&
           (e->start = layer_take(b, h->experts + 1, sizeof *e->start, err)) &&
           (e->factor = layer_take(b, n * dense_stride(1), sizeof *e->factor, err)) &&
           (e->dfactor = layer_take(b, n * dense_stride(1), sizeof *e->dfactor, err)) &&
           (e->x = layer_take(b, wide, sizeof *e->x, err)) && (e->y = layer_take(b, wide, sizeof *e->y, err));
}

/* ---- who gets what ---------------------------------------------------------------------------------------------------- */

struct choose_stage { struct backward *b; const struct layer *l; };

static void choose_chunk(void *arg, size_t index, size_t thread)
{
    const struct choose_stage *s = arg;
    struct backward *b = s->b;
    const struct layer *l = s->l;
    const struct hyper *h = &b->m->hyper;
    struct backward_experts *e = &b->buffers->experts;
    size_t to = (index + 1) * TOKEN_BLOCK < b->n ? (index + 1) * TOKEN_BLOCK : b->n;
    for (size_t t = index * TOKEN_BLOCK; t < to; t++) {
        float *factor = e->factor + t * dense_stride(1);
        moe_choose(b->m, b->dense.kernels, l, e->score + t * dense_stride(h->experts),
                   e->select + thread * (h->experts + h->expert_groups), e->chosen + t * h->experts_used,
                   e->weight + t * h->experts_used);
        *factor = l->shared_gate.data ? 1 / (1 + expf(-*factor)) : 1;
    }
}

/* A counting sort: each expert's slots are neighbours, in the order of the tokens. */
static void sort_slots(struct backward *b)
{
    const struct hyper *h = &b->m->hyper;
    struct backward_experts *e = &b->buffers->experts;
    size_t n = b->n * h->experts_used;
    memset(e->start, 0, (h->experts + 1) * sizeof *e->start);
    for (size_t i = 0; i < n; i++)
        e->start[e->chosen[i] + 1]++;
    for (size_t k = 0; k < h->experts; k++)
        e->start[k + 1] += e->start[k];
    for (size_t i = 0; i < n; i++)
        e->slots[e->start[e->chosen[i]]++] = (uint32_t)i;
    memmove(e->start + 1, e->start, h->experts * sizeof *e->start);
    e->start[0] = 0;
}

static void route(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    const struct layer *l = &b->m->layer[index];
    struct backward_experts *e = &b->buffers->experts;
    struct choose_stage s = { b, l };
    size_t w = b->linears + index * EXPERT_KINDS;
    linear_forth(b, w + EXPERT_ROUTER, e->score, b->buffers->h2, hooks);
    if (l->shared_gate.data)
        linear_forth(b, w + EXPERT_FACTOR, e->factor, b->buffers->h2, hooks);
    pool_run(b->pool, choose_chunk, &s, (b->n + TOKEN_BLOCK - 1) / TOKEN_BLOCK);
    sort_slots(b);
}

/* ---- one expert -------------------------------------------------------------------------------------------------------- */

/* An expert with its tokens, or the shared one with all of them: row i of its buffers belongs to slots[i]. */
struct group {
    size_t id;                  /* of its gate; up and down follow                     */
    size_t expert;              /* slice of the stacks                                 */
    const uint32_t *slots;      /* NULL: the shared expert, row i belongs to token i   */
    size_t n, ff, width, used;
    bool   weighs_input;        /* Llama 4 weighs what goes in, the others what comes out */
};

static size_t token_of(const struct group *g, size_t row)
{
    return g->slots ? g->slots[row] / g->used : row;
}

/* Where row's weight, or its gradient, stands. */
static float *weight_of(const struct group *g, float *weights, float *factors, size_t row)
{
    return g->slots ? &weights[g->slots[row]] : &factors[row * dense_stride(1)];
}

static void pick_input(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct group *g = arg;
    struct backward_experts *e = &b->buffers->experts;
    size_t stride = dense_stride(g->width);
    for (size_t i = from; i < to; i++) {
        float weight = g->weighs_input ? *weight_of(g, e->weight, e->factor, i) : 1;
        const float *x = b->buffers->h2 + token_of(g, i) * stride;
        for (size_t c = 0; c < g->width; c++)
            e->x[i * stride + c] = weight * x[c];
    }
}

static void add_result(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct group *g = arg;
    struct backward_experts *e = &b->buffers->experts;
    size_t stride = dense_stride(g->width);
    for (size_t i = from; i < to; i++) {
        float weight = g->weighs_input ? 1 : *weight_of(g, e->weight, e->factor, i);
        b->dense.kernels->axpy.fn(b->buffers->down + token_of(g, i) * stride, e->y + i * stride, weight, g->width);
    }
}

static void pick_gradient(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct group *g = arg;
    size_t stride = dense_stride(g->width);
    for (size_t i = from; i < to; i++)
        memcpy(b->buffers->experts.y + i * stride, b->buffers->dproj + token_of(g, i) * stride, g->width * sizeof(float));
}

/* The weight's gradient, and the weight into the gradients of the expert's result and of what down is multiplied with. */
static void weigh_gradient(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct group *g = arg;
    struct backward_experts *e = &b->buffers->experts;
    const struct matrix *down = backward_matrix(b->m, g->id + 2);
    const float *bias = down->bias ? down->bias + g->expert * down->rows : NULL;
    for (size_t i = from; i < to && !g->weighs_input; i++) {
        float *dact = b->buffers->dact + i * dense_stride(g->ff), *dy = e->y + i * dense_stride(g->width);
        float weight = *weight_of(g, e->weight, e->factor, i), *gradient = weight_of(g, e->dweight, e->dfactor, i);
        *gradient = b->dense.kernels->dot.fn(dact, b->buffers->act + i * dense_stride(g->ff), g->ff);
        if (bias)
            *gradient += b->dense.kernels->dot.fn(dy, bias, g->width);
        for (size_t c = 0; c < g->ff; c++)
            dact[c] *= weight;
        for (size_t c = 0; c < g->width; c++)
            dy[c] *= weight;
    }
}

/* dh += the gradients that came through gate (dh_more) and up (y). */
static void add_gradient(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct group *g = arg;
    const struct kernels *k = b->dense.kernels;
    struct backward_experts *e = &b->buffers->experts;
    for (size_t i = from; i < to; i++) {
        size_t at = i * dense_stride(g->width), token = token_of(g, i) * dense_stride(g->width);
        float weight = g->weighs_input ? *weight_of(g, e->weight, e->factor, i) : 1;
        if (g->weighs_input)
            *weight_of(g, e->dweight, e->dfactor, i) = k->dot.fn(b->buffers->dh_more + at, b->buffers->h2 + token, g->width) +
                                                       k->dot.fn(e->y + at, b->buffers->h2 + token, g->width);
        k->axpy.fn(b->buffers->dh + token, b->buffers->dh_more + at, weight, g->width);
        k->axpy.fn(b->buffers->dh + token, e->y + at, weight, g->width);
    }
}

/* The shared expert's maps are linear maps like others; the stacks' have a hook of their own. dy NULL: on the way forth. */
static void tell(const struct group *g, size_t part, const float *x, const float *dy, const struct backward_hooks *hooks)
{
    if (!hooks)
        return;
    if (g->slots && hooks->expert)
        hooks->expert(hooks->arg, g->id + part, g->expert, g->slots, x, dy, g->n);
    else if (!g->slots && dy && hooks->linear)
        hooks->linear(hooks->arg, g->id + part, x, dy, g->n);
    else if (!g->slots && !dy && hooks->input)
        hooks->input(hooks->arg, g->id + part, x, g->n);
}

/* Its inputs, and act from them. */
static void inner_forth(struct backward *b, const struct group *g, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    run_rows(b, pick_input, g, g->n);
    tell(g, 0, x->experts.x, NULL, hooks);
    tell(g, 1, x->experts.x, NULL, hooks);
    product_forth(b, g->id, g->expert, x->gate, x->experts.x, g->n);
    product_forth(b, g->id + 1, g->expert, x->up, x->experts.x, g->n);
    gates_forth(b, g->ff, g->n);
    tell(g, 2, x->act, NULL, hooks);
}

static void group_forth(struct backward *b, const struct group *g, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    inner_forth(b, g, hooks);
    product_forth(b, g->id + 2, g->expert, x->experts.y, x->act, g->n);
    run_rows(b, add_result, g, g->n);
}

static void group_back(struct backward *b, const struct group *g, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    struct backward_experts *e = &x->experts;
    inner_forth(b, g, NULL);
    run_rows(b, pick_gradient, g, g->n);
    product_back(b, g->id + 2, g->expert, x->dact, e->y, g->n);
    run_rows(b, weigh_gradient, g, g->n);
    tell(g, 2, x->act, e->y, hooks);
    gates_back(b, g->ff, g->n);
    tell(g, 0, e->x, x->dgate, hooks);
    tell(g, 1, e->x, x->dup, hooks);
    product_back(b, g->id, g->expert, x->dh_more, x->dgate, g->n);
    product_back(b, g->id + 1, g->expert, e->y, x->dup, g->n);
    run_rows(b, add_gradient, g, g->n);
}

/* ---- all of them --------------------------------------------------------------------------------------------------------- */

typedef void group_fn(struct backward *b, const struct group *g, const struct backward_hooks *hooks);

static void each_group(struct backward *b, size_t index, group_fn *fn, const struct backward_hooks *hooks)
{
    const struct layer *l = &b->m->layer[index];
    const struct hyper *h = &b->m->hyper;
    const struct backward_experts *e = &b->buffers->experts;
    size_t w = b->linears + index * EXPERT_KINDS;
    struct group g = { .id = w + EXPERT_GATE, .ff = h->expert_ff, .width = h->width, .used = h->experts_used,
                       .weighs_input = (b->m->arch->flags & ARCH_LLAMA4) != 0 };
    for (g.expert = 0; g.expert < h->experts; g.expert++) {
        g.slots = e->slots + e->start[g.expert];
        g.n = e->start[g.expert + 1] - e->start[g.expert];
        if (g.n)
            fn(b, &g, hooks);
    }
    if (!l->up_shared.data)
        return;
    g.id = w + EXPERT_SHARED_GATE, g.expert = 0, g.slots = NULL, g.n = b->n, g.ff = h->shared_ff;
    fn(b, &g, hooks);
}

void experts_forth(struct backward *b, size_t index, bool wanted, const struct backward_hooks *hooks)
{
    route(b, index, hooks);
    if (!wanted)
        return;
    memset(b->buffers->down, 0, b->n * dense_stride(b->m->hyper.width) * sizeof(float));
    each_group(b, index, group_forth, hooks);
}

/* From the weights' gradients to those of the logits behind them. */
static void route_back_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct hyper *h = &b->m->hyper;
    struct backward_experts *e = &b->buffers->experts;
    struct route_shape s = { .experts = h->experts, .used = h->experts_used, .gating = h->gating,
                             .normalise = h->normalise_experts, .scale = h->expert_scale, .least = MOE_LEAST_SUM };
    (void)arg;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(h->experts), slot = t * h->experts_used, factor = t * dense_stride(1);
        route_back(e->dscore + at, e->dweight + slot, e->score + at, e->weight + slot, e->chosen + slot, &s);
        e->dfactor[factor] *= e->factor[factor] * (1 - e->factor[factor]);
    }
}

void experts_back(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    struct backward_experts *e = &x->experts;
    size_t w = b->linears + index * EXPERT_KINDS;
    memset(x->dh, 0, b->n * dense_stride(b->m->hyper.width) * sizeof *x->dh);
    each_group(b, index, group_back, hooks);
    run_blocks(b, route_back_block, NULL);
    linear_back(b, w + EXPERT_ROUTER, x->dh_more, x->h2, e->dscore, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
    if (!b->m->layer[index].shared_gate.data)
        return;
    linear_back(b, w + EXPERT_FACTOR, x->dh_more, x->h2, e->dfactor, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
}
