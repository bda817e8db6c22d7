/* The memory of a forward pass: counted first, then taken in one piece and carved. One function does both, so that the plan that
 * is shown and checked against a limit is the memory that is taken. Sizes are those of the most demanding layer; every sum and
 * product is checked, since the shapes come from a file. */
#include "forward.h"
#include "moe.h"

#include <stdlib.h>
#include <string.h>

/* `out` is a pointer to a pointer of any type; memcpy writes it without casting one pointer type to another. */
bool carve(unsigned char *base, size_t *offset, void *out, size_t count, size_t size)
{
    size_t bytes, end;
    if (!checked_mul(&bytes, count, size) || !checked_align(&bytes, bytes, 64) || !checked_add(&end, *offset, bytes))
        return false;
    void *p = base && count ? base + *offset : NULL;
    memcpy(out, &p, sizeof p);
    *offset = end;
    return true;
}

unsigned kinds_of(const struct kernels *k, const struct matrix *w)
{
    return w->data ? 1u << k->matmul[w->type].act : 0;
}

/* Which prepared forms the model's formats ask for. */
static unsigned model_kinds(const struct model *m, const struct kernels *k)
{
    unsigned kinds = kinds_of(k, &m->output);
    for (size_t i = 0; i < m->hyper.layers; i++) {
        const struct layer *l = &m->layer[i];
        const struct matrix *all[] = { &l->q, &l->k, &l->v, &l->out, &l->q_a, &l->q_b, &l->kv_a, &l->k_b, &l->v_b, &l->kv_b,
                                       &l->in_proj, &l->out_proj, &l->ssm_x, &l->ssm_dt, &l->gate_proj, &l->beta_alpha, &l->gate,
                                       &l->up, &l->down, &l->router, &l->gate_exps, &l->up_exps, &l->down_exps, &l->gate_shared,
                                       &l->up_shared, &l->down_shared, &l->shared_gate };
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            kinds |= kinds_of(k, all[j]);
    }
    return kinds;
}

/* What the layer's mixer says it needs. */
static void mixer_need(const struct model *m, const struct layer *l, struct mixer_need *need)
{
    *need = (struct mixer_need){ 0 };
    switch (l->mixer) {
    case MIX_NONE: break;
    case MIX_ATTENTION: attention_need(m, l, need); break;
    case MIX_MLA: mla_need(m, l, need); break;
    case MIX_LINEAR: need->vector_cols = m->hyper.width; break;
    case MIX_CONV: conv_need(m, l, need); break;
    case MIX_SSM: ssm_need(m, l, need); break;
    case MIX_DELTA: delta_need(m, l, need); break;
    }
}

/* The most of anything that a layer needs, per token. */
struct needs {
    size_t mix[MIX_BUFFERS], hidden, widest, products;
    size_t mid[ACT_KINDS];      /* bytes per token */
    bool   second_norm, post_norm;
};

/* Room for `vectors` prepared vectors of `cols` columns per token. */
static bool grow_mid(struct needs *n, size_t vectors, size_t cols)
{
    size_t one[ACT_KINDS];
    act_bytes(one, cols);
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        size_t bytes;
        if (!checked_mul(&bytes, one[kind], vectors))
            return false;
        if (bytes > n->mid[kind])
            n->mid[kind] = bytes;
    }
    if (cols > n->widest)
        n->widest = cols;
    return true;
}

static bool layer_needs(struct needs *n, const struct model *m, const struct layer *l)
{
    const struct hyper *h = &m->hyper;
    struct mixer_need need;
    mixer_need(m, l, &need);
    for (int i = 0; i < MIX_BUFFERS; i++)
        if (need.cols[i] > n->mix[i])
            n->mix[i] = need.cols[i];
    bool ok = grow_mid(n, 1, need.vector_cols) && grow_mid(n, need.heads, need.head_cols);
    if (l->experts) {
        size_t hidden = h->experts_used * h->expert_ff + h->shared_ff;
        if (hidden > n->hidden)
            n->hidden = hidden;
    } else {
        ok = ok && grow_mid(n, 1, l->ff);
        if (l->ff > n->hidden)
            n->hidden = l->ff;
    }
    /* A stage hands out its products in one list: one per head in MLA, one per expert in a mixture; 4 for q, k, v and the like. */
    size_t products = l->heads > h->experts ? l->heads + 4 : h->experts + 4;
    if (products > n->products)
        n->products = products;
    if (h->experts + h->expert_groups > n->widest)      /* the router works in a thread's vector */
        n->widest = h->experts + h->expert_groups;
    n->second_norm = n->second_norm || (l->parallel && (l->ffn_norm.weight || l->attn_norm_2.weight));
    n->post_norm = n->post_norm || l->post_attn_norm.weight || l->post_ffn_norm.weight || l->experts;
    return ok;
}

void act_bytes(size_t out[ACT_KINDS], size_t cols)
{
    for (int kind = 0; kind < ACT_KINDS; kind++)
        out[kind] = act_layout((enum act_kind)kind, cols).bytes;
}

bool carve_acts(struct acts *acts, unsigned char *base, size_t *offset, unsigned kinds, size_t vectors,
                const size_t per_vector[ACT_KINDS])
{
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        size_t bytes;
        acts->bytes[kind] = 0;
        if (!(kinds & 1u << kind))
            continue;
        if (!checked_mul(&bytes, per_vector[kind], vectors))
            return false;
        acts->bytes[kind] = bytes ? bytes : 64;      /* a pointer that is not NULL, also where a layer kind has no such vector */
        if (!carve(base, offset, &acts->data[kind], acts->bytes[kind], 1))
            return false;
    }
    return true;
}

/* Frequencies of each rotation in use, and the angles of a batch. */
static bool plan_rope(struct forward *f, unsigned char *base, size_t *offset)
{
    bool used[ROPE_TABLES] = { false };
    size_t pairs = f->m->hyper.rope.dims / 2;
    bool ok = true;
    for (size_t i = 0; i < f->m->hyper.layers; i++)
        used[f->m->layer[i].rope] = true;
    for (int kind = ROPE_TABLE_MAIN; kind < ROPE_TABLES && ok; kind++) {
        size_t n = used[kind] ? pairs : 0;
        ok = carve(base, offset, &f->rope[kind].frequency, n, sizeof(double)) &&
             carve(base, offset, &f->angles[kind], n, 2 * sizeof(float) * f->max_tokens);
        if (ok && base && n)
            rope_init(&f->rope[kind], &f->m->hyper.rope, (enum rope_table_kind)kind, f->m->arch->rope_local, f->context);
    }
    return ok;
}

/* Each thread's own. Cache lines are not shared: every piece begins at a multiple of 64. */
static bool plan_scratch(struct forward *f, unsigned char *base, size_t *offset, size_t widest)
{
    struct thread_scratch dummy, *list = NULL;
    bool ok = carve(base, offset, &f->scratch, f->threads, sizeof *f->scratch);
    list = base ? f->scratch : NULL;
    for (size_t i = 0; i < f->threads && ok; i++) {
        struct thread_scratch *s = list ? &list[i] : &dummy;
        ok = carve(base, offset, &s->kernel, kernels_scratch(f->k, widest), 1) &&
             carve(base, offset, &s->rows, product_scratch_floats(f->k, f->max_tokens), sizeof(float)) &&
             carve(base, offset, &s->vector, widest, sizeof(float)) && carve(base, offset, &s->run, 1, sizeof *s->run) &&
             carve(base, offset, &s->attention, attend_scratch_floats(f->m), sizeof(float));
    }
    return ok;
}

/* One function measures and fills: first with base NULL, where only *bytes counts, then with memory of that size. What is planned
 * and printed can therefore not differ from what is taken. Everything that a step will ever write is here; it allocates nothing. */
static bool plan(struct forward *f, unsigned char *base, size_t *bytes)
{
    const struct hyper *h = &f->m->hyper;
    size_t t = f->max_tokens, row, in[ACT_KINDS], *offset = bytes;
    unsigned kinds = model_kinds(f->m, f->k);
    struct needs n = { .widest = h->width, .products = 4 };
    *bytes = 0;
    act_bytes(in, h->width);
    for (size_t i = 0; i < h->layers; i++)
        if (!layer_needs(&n, f->m, &f->m->layer[i]))
            return false;
    bool ok = checked_mul(&row, h->width, sizeof(float)) && carve(base, offset, &f->x, t, row) &&
              carve(base, offset, &f->h, t, row) && carve(base, offset, &f->h2, n.second_norm ? t : 0, row) &&
              carve(base, offset, &f->y, n.post_norm ? t : 0, row);
    for (int i = 0; i < MIX_BUFFERS; i++)
        ok = ok && carve(base, offset, &f->mix[i], t, n.mix[i] * sizeof(float));
    return ok && carve(base, offset, &f->hidden, t, n.hidden * sizeof(float)) &&
           carve_acts(&f->in, base, offset, kinds, t, in) && carve_acts(&f->mid, base, offset, kinds, t, n.mid) &&
           carve(base, offset, &f->products, n.products, sizeof *f->products) &&
           carve(base, offset, &f->next, NEXT_PRODUCTS, sizeof *f->next) && moe_plan(f, base, offset) &&
           plan_rope(f, base, offset) && plan_scratch(f, base, offset, n.widest) &&
           carve(base, offset, &f->partial, attend_partial_floats(f->m, f->context), sizeof(float)) &&
           carve(base, offset, &f->spans_left, attend_blocks(f->m), sizeof *f->spans_left) &&
           carve(base, offset, &f->pos, t, sizeof *f->pos) && carve(base, offset, &f->part_of, t, sizeof *f->part_of) &&
           carve(base, offset, &f->order, t, sizeof *f->order) && carve(base, offset, &f->first, f->max_parts, sizeof *f->first);
}

static bool too_large(size_t max_tokens, struct quern_error *err)
{
    return ERR(err, QUERN_EMEM, "the scratch for batches of %zu tokens is larger than the address space", max_tokens);
}

bool forward_bytes(size_t *out, const struct model *m, const struct kernels *k, size_t threads, size_t max_tokens, size_t max_parts,
                   size_t context, struct quern_error *err)
{
    struct forward f = { .m = m, .k = k, .threads = threads, .context = context, .max_tokens = max_tokens, .max_parts = max_parts };
    return plan(&f, NULL, out) || too_large(max_tokens, err);
}

bool forward_init(struct forward *f, const struct model *m, const struct kernels *k, struct pool *pool, size_t max_tokens,
                  size_t max_parts, size_t context, struct quern_error *err)
{
    size_t bytes = 0;
    *f = (struct forward){ .m = m, .k = k, .pool = pool, .threads = pool_threads(pool), .context = context,
                           .max_tokens = max_tokens, .max_parts = max_parts };
    if (!plan(f, NULL, &bytes))
        return too_large(max_tokens, err);
    f->memory = mem_take_aligned(bytes, 1, "the scratch of the forward pass", err);
    if (!f->memory)
        return false;
    if (!plan(f, f->memory, &bytes)) {
        forward_free(f);
        return too_large(max_tokens, err);
    }
    return true;
}

void forward_free(struct forward *f)
{
    free(f->memory);
    *f = (struct forward){ 0 };
}
