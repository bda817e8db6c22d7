/* The gated feed-forward half of a layer: down(f(gate h) * up h). */
#include "backward_ops.h"
#include "backward_parts.h"

struct gate_stage { size_t ff; enum activation_kind kind; };

static void gate_forth_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct gate_stage *s = arg;
    struct backward_layer *x = b->buffers;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(s->ff);
        gate_forth(x->act + at, x->gate + at, x->up + at, s->ff, s->kind);
    }
}

static void gate_back_block(struct backward *b, const void *arg, size_t from, size_t to)
{
    const struct gate_stage *s = arg;
    struct backward_layer *x = b->buffers;
    for (size_t t = from; t < to; t++) {
        size_t at = t * dense_stride(s->ff);
        gate_back(x->dgate + at, x->dup + at, x->dact + at, x->gate + at, x->up + at, s->ff, s->kind);
    }
}

void gates_forth(struct backward *b, size_t ff, size_t n)
{
    struct gate_stage s = { ff, b->m->arch->activation };
    run_rows(b, gate_forth_block, &s, n);
}

void gates_back(struct backward *b, size_t ff, size_t n)
{
    struct gate_stage s = { ff, b->m->arch->activation };
    run_rows(b, gate_back_block, &s, n);
}

void dense_forth(struct backward *b, size_t index, bool wanted, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    size_t w = index * LINEAR_KINDS;
    linear_forth(b, w + LINEAR_GATE, x->gate, x->h2, hooks);
    linear_forth(b, w + LINEAR_UP, x->up, x->h2, hooks);
    gates_forth(b, b->m->layer[index].ff, b->n);
    if (wanted)
        linear_forth(b, w + LINEAR_DOWN, x->down, x->act, hooks);
}

void dense_back(struct backward *b, size_t index, const struct backward_hooks *hooks)
{
    struct backward_layer *x = b->buffers;
    size_t w = index * LINEAR_KINDS;
    linear_back(b, w + LINEAR_DOWN, x->dact, x->act, x->dproj, hooks);
    gates_back(b, b->m->layer[index].ff, b->n);
    linear_back(b, w + LINEAR_GATE, x->dh, x->h2, x->dgate, hooks);
    linear_back(b, w + LINEAR_UP, x->dh_more, x->h2, x->dup, hooks);
    add_rows_scaled(b, x->dh, x->dh, x->dh_more, 1);
}
