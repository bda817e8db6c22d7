/* The attention half of a layer: projections, norms of the heads, rotation, attention proper, and the projection back. */
#include <string.h>

#include "backward_ops.h"
#include "backward_parts.h"

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

struct attend_stage { struct backward *b; const struct layer *l; struct attend_shape shape; bool back; };

static void attend_chunk(void *arg, size_t index, size_t thread)
{
    const struct attend_stage *s = arg;
    struct backward *b = s->b;
    struct backward_layer *x = b->buffers;
    struct attend_shape shape = s->shape, *a = &shape;
    size_t seq = index / s->l->kv_heads * b->length, head = index % s->l->kv_heads;
    size_t q = seq * a->q_stride + head * a->group * a->key_dim, k = seq * a->k_stride + head * a->key_dim;
    size_t v = seq * a->v_stride + head * a->value_dim, out = seq * a->out_stride + head * a->group * a->value_dim;
    a->sinks = s->l->sinks ? s->l->sinks + head * a->group : NULL;
    float *probs = x->probs + thread * dense_stride(2 * (a->length + 1));
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

void attention_forth(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    const struct layer *l = &b->m->layer[index];
    struct backward_layer *x = b->buffers;
    size_t w = index * LINEAR_KINDS, norm = index * NORM_KINDS;
    linear_forth(b, w + LINEAR_Q, x->q, x->h, hooks);
    linear_forth(b, w + LINEAR_K, x->k, x->h, hooks);
    linear_forth(b, w + LINEAR_V, x->v, x->h, hooks);
    heads_forth(b, l, norm + NORM_Q, x->q, x->q_raw, l->heads);
    heads_forth(b, l, norm + NORM_K, x->k, x->k_raw, l->kv_heads);
    run_attention(b, l, false);
    linear_forth(b, w + LINEAR_OUT, x->proj, x->out, hooks);
}

void attention_back(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    const struct layer *l = &b->m->layer[index];
    struct backward_layer *x = b->buffers;
    size_t w = index * LINEAR_KINDS, norm = index * NORM_KINDS;
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
}
