/* The gated feed-forward half of a layer: down(f(gate h) * up h). */
#include "backward_ops.h"
#include "backward_parts.h"

struct gate_stage { size_t ff; bool gelu; };

static void gate_forth_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct gate_stage *s = arg;
    struct backward_layer *x = b->buffers;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(s->ff);
        gate_forth(x->act + at, x->gate + at, x->up + at, s->ff, s->gelu);
    }
}

static void gate_back_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct gate_stage *s = arg;
    struct backward_layer *x = b->buffers;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(s->ff);
        gate_back(x->dgate + at, x->dup + at, x->dact + at, x->gate + at, x->up + at, s->ff, s->gelu);
    }
}

void dense_forth(struct backward *b, size_t index, bool wanted, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    size_t w = index * LINEAR_KINDS;
    struct gate_stage gate = { b->m->layer[index].ff, b->m->arch->activation == FFN_GELU };
    linear_forth(b, w + LINEAR_GATE, x->gate, x->h2, hooks);
    linear_forth(b, w + LINEAR_UP, x->up, x->h2, hooks);
    run_blocks(b, gate_forth_block, &gate);
    if (wanted)
        linear_forth(b, w + LINEAR_DOWN, x->down, x->act, hooks);
}

void dense_back(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    size_t w = index * LINEAR_KINDS;
    struct gate_stage gate = { b->m->layer[index].ff, b->m->arch->activation == FFN_GELU };
    linear_back(b, w + LINEAR_DOWN, x->dact, x->act, x->dproj, hooks);
    run_blocks(b, gate_back_block, &gate);
    linear_back(b, w + LINEAR_GATE, x->dh, x->h2, x->dgate, hooks);
    linear_back(b, w + LINEAR_UP, x->dh_more, x->h2, x->dup, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
}
