#include "cost.h"

#include <math.h>

/* Operations count as those of the numbers that the weights are made for: bytes for formats whose vectors are quantized, bfloat16
 * for BF16 weights even where a kernel still multiplies floats, floats for the rest. */
static enum roof_kind kind_of(const struct kernels *k, const struct matrix *m)
{
    if (m->type == FORMAT_BF16)
        return ROOF_BF16;
    enum act_kind act = k->matmul[m->type].act;
    return act == ACT_Q8_32 || act == ACT_Q8_256 ? ROOF_INT8 : act == ACT_BF16 ? ROOF_BF16 : ROOF_F32;
}

/* A matrix (all its slices) for `tokens` vectors; `share` of it is read, `use` of it each vector meets. */
static void add_matrix(struct cost *cost, const struct cost_pass *pass, const struct matrix *m, double tokens, double share,
                       double use)
{
    if (!m->data || tokens == 0)
        return;
    double rows = (double)m->slices * (double)m->rows;
    cost->bytes += share * rows * (double)m->row_bytes;
    cost->ops[kind_of(pass->kernels, m)] += 2.0 * tokens * use * rows * (double)m->cols;
}

/* The mixer sees all tokens; behind the last layer's mixer only those that are wanted go on. */
static void add_layer(struct cost out[STAGES], const struct cost_pass *pass, const struct layer *l, double tokens, double carried)
{
    const struct { enum stage stage; const struct matrix *m; } mixer[] = {
        {STAGE_QKV, &l->q},        {STAGE_QKV, &l->k},          {STAGE_QKV, &l->v},       {STAGE_QKV, &l->q_a},
        {STAGE_QKV, &l->q_b},      {STAGE_QKV, &l->kv_a},       {STAGE_QKV, &l->kv_b},    {STAGE_QKV, &l->k_b},
        {STAGE_OUT, &l->v_b},      {STAGE_OUT, &l->out},        {STAGE_RECURRENT, &l->in_proj},
        {STAGE_RECURRENT, &l->out_proj},   {STAGE_RECURRENT, &l->ssm_x},   {STAGE_RECURRENT, &l->ssm_dt},
        {STAGE_RECURRENT, &l->gate_proj},  {STAGE_RECURRENT, &l->beta_alpha},
    }, inner[] = {
        {STAGE_UP, &l->gate},      {STAGE_UP, &l->up},          {STAGE_DOWN, &l->down},
        {STAGE_ROUTE, &l->router}, {STAGE_ROUTE, &l->shared_gate},
        {STAGE_UP, &l->gate_shared}, {STAGE_UP, &l->up_shared}, {STAGE_DOWN, &l->down_shared},
    }, experts[] = {{STAGE_UP, &l->gate_exps}, {STAGE_UP, &l->up_exps}, {STAGE_DOWN, &l->down_exps}};
    const struct hyper *h = &pass->model->hyper;
    for (size_t i = 0; i < sizeof mixer / sizeof *mixer; i++)
        add_matrix(&out[mixer[i].stage], pass, mixer[i].m, tokens, 1, 1);
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++)
        add_matrix(&out[inner[i].stage], pass, inner[i].m, carried, 1, 1);
    if (!l->experts || !h->experts)
        return;
    double use = (double)h->experts_used / (double)h->experts, share = 1 - pow(1 - use, carried);
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++)
        add_matrix(&out[experts[i].stage], pass, experts[i].m, carried, share, use);
}

/* Keys and values: those that some token sees are read once, products are made with those that each sees: of integers in a cache
 * of type I16, of floats whatever another's type. */
static void add_attention(struct cost *cost, const struct cost_pass *pass, size_t index)
{
    const struct kv_layer *kv = &pass->kv->layer[index];
    const struct layer *l = &pass->model->layer[index];
    double window = l->window ? (double)l->window : INFINITY, n = (double)pass->tokens, depth = (double)pass->depth;
    double row = (double)kv->key_row + (kv->values != kv->keys ? (double)kv->value_row : 0);
    double seen = 0, sequences = (double)pass->sequences;
    for (size_t i = 1; i <= pass->tokens; i++)
        seen += fmin(depth + (double)i, window);
    cost->bytes += sequences * (double)kv->heads * row * (fmin(depth, window) + n);
    cost->ops[pass->kv->type == KV_I16 ? ROOF_INT16 : ROOF_F32] +=
        sequences * 2.0 * (double)l->heads * (double)(kv->key_dim + kv->value_dim) * seen;
}

void cost_add_pass(struct cost out[STAGES], const struct cost_pass *pass)
{
    const struct model *m = pass->model;
    double tokens = (double)pass->sequences * (double)pass->tokens, wanted = (double)pass->sequences * (double)pass->wanted;
    for (size_t i = 0; i < m->hyper.layers; i++) {
        bool last = i + 1 == m->hyper.layers && !m->layer[i].parallel;
        add_layer(out, pass, &m->layer[i], tokens, last ? wanted : tokens);
        if (i < pass->kv->layers && pass->kv->layer[i].heads)
            add_attention(&out[STAGE_ATTENTION], pass, i);
    }
    add_matrix(&out[STAGE_HEAD], pass, &m->output, wanted, 1, 1);
}

struct cost cost_sum(const struct cost stages[STAGES])
{
    struct cost sum = {0};
    for (int s = 0; s < STAGES; s++) {
        sum.bytes += stages[s].bytes;
        for (int k = 0; k < ROOF_KINDS; k++)
            sum.ops[k] += stages[s].ops[k];
    }
    return sum;
}

double cost_ops(const struct cost *cost)
{
    double sum = 0;
    for (int k = 0; k < ROOF_KINDS; k++)
        sum += cost->ops[k];
    return sum;
}

static double arithmetic(const struct cost *cost, const struct rates *roof)
{
    double seconds = 0;
    for (int k = 0; k < ROOF_KINDS; k++)
        if (cost->ops[k] > 0)
            seconds += cost->ops[k] / roof->ops[k];
    return seconds;
}

double cost_peak(const struct cost *cost, const struct rates *roof)
{
    double seconds = arithmetic(cost, roof);
    return seconds > 0 ? cost_ops(cost) / seconds : 0;
}

double cost_ideal(const struct cost *cost, const struct rates *roof)
{
    return fmax(cost->bytes / roof->bytes, arithmetic(cost, roof));
}
