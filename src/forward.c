/* The pass, from token ids to logits. One layer is a few stages:
 *
 *     norm + prepare | q k v | norms, rotation, cache | attention | out + residual |
 *     norm + prepare | gate up + activation | prepare | down + residual
 *
 * "Prepare" makes of a vector what the products multiply (int8 with scales for most formats), once for all products that read it.
 * Stages over tokens run on the calling thread when there is one token, but for long vectors to prepare: a decode step crosses the
 * pool five or six times a layer. */
#include "forward.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* ---- one layer -------------------------------------------------------------------------------------------------- */

void norm_vector(const struct forward *f, float *out, const float *x, const struct norm *norm)
{
    size_t width = f->m->hyper.width;
    if (!norm->weight) {
        if (out != x)
            memcpy(out, x, width * sizeof *out);
    } else if (f->m->arch->norm == NORM_RMS) {
        f->k->rms_norm.fn(out, x, norm->weight, width, f->m->hyper.eps);
    } else {
        f->k->layer_norm.fn(out, x, norm->weight, norm->bias, width, f->m->hyper.eps);
    }
}

/* What a layer's part reads: h = norm(x), prepared for products; and, for a parallel part with a norm of its own, h2. */
struct norm_stage {
    const struct norm *norm, *second;
};

static void norm_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct norm_stage *s = arg;
    size_t at = tok * f->m->hyper.width;
    (void)thread;
    if (s->second)
        norm_vector(f, f->h2 + at, f->x + at, s->second);
    norm_vector(f, f->h + at, f->x + at, s->norm);
    acts_prepare(f, &f->in, tok, f->h + at, f->m->hyper.width);
}

static void norm_input(struct forward *f, const struct norm *norm, const struct norm *second)
{
    struct norm_stage s = { .norm = norm, .second = second };
    enter_stage(f, STAGE_NORM);
    acts_shape(&f->in, f->m->hyper.width);
    run_tokens(f, norm_token, &s, f->n);
}

void add_to_residual(struct forward *f, const struct norm *post, size_t tok)
{
    size_t width = f->m->hyper.width;
    float *y = f->y + tok * width;
    norm_vector(f, y, y, post);
    f->k->axpy.fn(f->x + tok * width, y, f->m->hyper.residual_scale, width);
}

static void add_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    (void)thread;
    add_to_residual(f, arg, tok);
}

void add_rows(struct forward *f, const struct norm *post)
{
    run_tokens(f, add_token, post, f->n);
}

void add_product(struct forward *f, const struct matrix *w, const struct norm *post)
{
    struct product p = { .w = w, .in = &f->mid, .step = 1, .toks = f->n, .out_stride = f->m->hyper.width };
    if (post->weight) {
        p.out = f->y;
        run_products(f, &p, 1);
        add_rows(f, post);
    } else {
        p.out = f->x;
        p.finish = FINISH_ADD;
        p.factor = f->m->hyper.residual_scale;
        run_products(f, &p, 1);
    }
}

/* Deci's "linear attention": one matrix in the mixer's place. */
static void linear_mix(struct forward *f, const struct layer *l)
{
    prepare_tokens(f, &f->mid, f->h, f->m->hyper.width, f->m->hyper.width, f->n);
    add_product(f, &l->out, &l->post_attn_norm);
}

static void mix(struct forward *f, const struct layer *l, size_t index)
{
    bool recurrent = l->mixer == MIX_CONV || l->mixer == MIX_SSM || l->mixer == MIX_DELTA;
    enter_stage(f, recurrent ? STAGE_RECURRENT : l->mixer == MIX_LINEAR ? STAGE_OUT : STAGE_QKV);
    switch (l->mixer) {
    case MIX_NONE: break;
    case MIX_ATTENTION: attention_mix(f, l, index); break;
    case MIX_MLA: mla_mix(f, l, index); break;
    case MIX_LINEAR: linear_mix(f, l); break;
    case MIX_CONV: conv_mix(f, l, index); break;
    case MIX_SSM: ssm_mix(f, l, index); break;
    case MIX_DELTA: delta_mix(f, l, index); break;
    }
}

/* BitNet norms the gated vector once more. */
static void sub_norm_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct layer *l = arg;
    float *x = f->hidden + tok * l->ff;
    (void)thread;
    f->k->rms_norm.fn(x, x, l->ffn_sub_norm, l->ff, f->m->hyper.eps);
}

static void expect_layer(struct forward *f, size_t index)
{
    const struct layer *l = &f->m->layer[index];
    if (index == f->m->hyper.layers) {
        expect_product(f, &f->m->output, NULL);
        return;
    }
    expect_product(f, &l->q, NULL);
    expect_product(f, &l->k, NULL);
    expect_product(f, &l->v, NULL);
}

void expect_layer_after(struct forward *f, const struct layer *l)
{
    expect_layer(f, (size_t)(l - f->m->layer) + 1);
}

/* x += down(activation(gate h) * up h) */
static void dense_forward(struct forward *f, const struct layer *l)
{
    struct product p = { .w = &l->up, .gate = l->gate.data ? &l->gate : NULL, .in = &f->in, .step = 1, .toks = f->n,
                         .out = f->hidden, .out_stride = l->ff, .finish = FINISH_ACTIVATE };
    enter_stage(f, STAGE_UP);
    expect_product(f, &l->down, NULL);
    run_products(f, &p, 1);
    if (l->ffn_sub_norm)
        run_tokens(f, sub_norm_token, l, f->n);
    enter_stage(f, STAGE_NORM);
    prepare_tokens(f, &f->mid, f->hidden, l->ff, l->ff, f->n);
    enter_stage(f, STAGE_DOWN);
    expect_layer_after(f, l);
    add_product(f, &l->down, &l->post_ffn_norm);
}

static void feed_forward(struct forward *f, const struct layer *l)
{
    if (l->experts)
        moe_forward(f, l);
    else if (l->ff)
        dense_forward(f, l);
}

static const struct norm *mixer_norm(const struct layer *l)
{
    return l->attn_norm_2.weight ? &l->attn_norm_2 : &l->attn_norm;
}

/* What layer `index` reads, for those who asked. */
static void keep_input(const struct forward *f, size_t index)
{
    if (f->trail && f->trail->keep && f->trail->keep[index])
        memcpy(f->trail->keep[index], f->x, f->n * f->m->hyper.width * sizeof *f->x);
}

/* Only the tokens whose logits are wanted are carried past the last mixer. */
static void keep_wanted(struct forward *f)
{
    size_t width = f->m->hyper.width;
    for (size_t i = 0; i < f->wanted; i++)
        if (f->order[i] != i)
            memcpy(f->x + i * width, f->x + f->order[i] * width, width * sizeof *f->x);
    f->n = f->wanted;
}

/* One decoder layer. Families differ in which norms are there, not in this order. */
static void layer_forward(struct forward *f, const struct layer *l, size_t index)
{
    if (l->parallel) {
        /* Both parts read the residual as the layer found it: with two norms the second result waits in h2. */
        const struct norm *other = l->attn_norm_2.weight ? &l->attn_norm : l->ffn_norm.weight ? &l->ffn_norm : NULL;
        norm_input(f, mixer_norm(l), other);
        mix(f, l, index);
        if (other)
            prepare_tokens(f, &f->in, f->h2, f->m->hyper.width, f->m->hyper.width, f->n);
        feed_forward(f, l);
        return;
    }
    if (l->mixer != MIX_NONE) {
        norm_input(f, mixer_norm(l), NULL);
        mix(f, l, index);
    }
    if (index + 1 == f->m->hyper.layers)
        keep_wanted(f);
    if (l->experts || l->ff) {
        norm_input(f, &l->ffn_norm, NULL);
        feed_forward(f, l);
    }
}

/* ---- before and after the layers -------------------------------------------------------------------------------- */

/* The token's row of the embedding, and the angles of its position for every rotation that some layer uses. */
static void embed_token(struct forward *f, const void *arg, size_t tok, size_t thread)
{
    const struct hyper *h = &f->m->hyper;
    const struct matrix *w = &f->m->embed;
    const struct batch_part *part = &f->parts[f->part_of[tok]];
    size_t id = (size_t)part->tokens[tok - f->first[f->part_of[tok]]];
    float *x = f->x + tok * h->width;
    (void)arg;
    (void)thread;
    f->k->dequantize[w->type].fn(x, w->data + id * w->row_bytes, h->width);
    if (h->embed_scale != 1)
        for (size_t i = 0; i < h->width; i++)
            x[i] *= h->embed_scale;
    if (f->m->positions)
        f->k->axpy.fn(x, f->m->positions + f->pos[tok] * h->width, 1, h->width);
    for (int kind = ROPE_TABLE_MAIN; kind < ROPE_TABLES; kind++)
        if (f->angles[kind])
            rope_angles(f->angles[kind] + tok * f->rope[kind].pairs * 2, &f->rope[kind], f->pos[tok]);
}

/* Scale and soft cap of one row of logits. */
static void finish_logits(struct forward *f, const void *arg, size_t row, size_t thread)
{
    const struct hyper *h = &f->m->hyper;
    float *logits = (float *)(uintptr_t)arg + row * h->vocab;
    (void)thread;
    if (h->logit_scale != 1)
        for (size_t i = 0; i < h->vocab; i++)
            logits[i] *= h->logit_scale;
    if (h->logit_softcap != 0)
        for (size_t i = 0; i < h->vocab; i++)
            logits[i] = h->logit_softcap * tanhf(logits[i] / h->logit_softcap);
}

/* Last norm, for the wanted tokens; keep_wanted has put them first (parallel layers have not). */
static void head_input(struct forward *f)
{
    if (f->n != f->wanted)
        keep_wanted(f);
    keep_input(f, f->m->hyper.layers);
    norm_input(f, &f->m->output_norm, NULL);
}

/* Logits of wanted tokens [first, first + count). */
static void head_rows(struct forward *f, float *logits, size_t first, size_t count)
{
    struct product p = { .w = &f->m->output, .in = &f->in, .first = first, .step = 1, .toks = count, .out = logits,
                         .out_stride = f->m->hyper.vocab };
    enter_stage(f, STAGE_HEAD);
    expect_layer(f, 0);
    run_products(f, &p, 1);
    if (f->m->hyper.logit_scale != 1 || f->m->hyper.logit_softcap != 0)
        run_tokens(f, finish_logits, logits, count);
}

struct check_stage {
    const float *logits;
    size_t       n;
    atomic_bool  bad;
};

enum { CHECK_VALUES = 16384 };

static void check_part(void *arg, size_t index, size_t thread)
{
    struct check_stage *s = arg;
    size_t end = (index + 1) * CHECK_VALUES < s->n ? (index + 1) * CHECK_VALUES : s->n;
    (void)thread;
    /* A sum of x * 0 is 0 unless some x is not finite; it needs no branch per value. Sixteen sums, because one alone takes four
     * cycles per value. */
    float sums[16] = { 0 }, bad = 0;
    for (size_t i = index * CHECK_VALUES; i + 16 <= end; i += 16)
        for (size_t j = 0; j < 16; j++)
            sums[j] += s->logits[i + j] * 0.0f;
    for (size_t i = end - end % 16; i < end; i++)
        bad += s->logits[i] * 0.0f;
    for (size_t j = 0; j < 16; j++)
        bad += sums[j];
    if (bad != 0 || isnan(bad))
        atomic_store(&s->bad, true);
}

/* By all threads: a row of a large vocabulary is a tenth of a millisecond for one, of twelve that its step takes. */
static bool check_logits(struct forward *f, const float *logits, size_t first, size_t count, struct quern_error *err)
{
    size_t vocab = f->m->hyper.vocab;
    struct check_stage s = { .logits = logits, .n = count * vocab };
    pool_run(f->pool, check_part, &s, (s.n + CHECK_VALUES - 1) / CHECK_VALUES);
    for (size_t at = 0; atomic_load(&s.bad) && at < s.n; at++)
        if (!isfinite(logits[at]))
            return ERR(err, QUERN_EFAIL, "the logits after token %zu are not finite (%g for id %zu): the model's weights or the "
                       "input overflow", f->pos[f->order[first + at / vocab]], (double)logits[at], at % vocab);
    return true;
}

/* ---- a pass ----------------------------------------------------------------------------------------------------- */

/* All that may be refused is refused here, before anything is written. */
static bool check_batch(const struct forward *f, const struct batch_part *parts, size_t count, struct quern_error *err)
{
    size_t total = 0;
    if (count > f->max_parts)
        return ERR(err, QUERN_EUSAGE, "a batch of %zu sequences, planned were %zu", count, f->max_parts);
    for (size_t p = 0; p < count; p++) {
        const struct batch_part *part = &parts[p];
        if (part->wanted > part->count || part->count > f->max_tokens - total)
            return ERR(err, QUERN_EUSAGE, "a batch of more than the planned %zu tokens", f->max_tokens);
        total += part->count;
        if (part->count > part->kv->limit - part->kv->used)
            return ERR(err, QUERN_ELIMIT, "%zu tokens do not fit: the context is %zu, of which %zu are used", part->count,
                       part->kv->limit, part->kv->used);
        for (size_t i = 0; i < part->count; i++)
            if (part->tokens[i] < 0 || (size_t)part->tokens[i] >= f->m->hyper.vocab)
                return ERR(err, QUERN_EUSAGE, "token id %d, allowed is 0 to %zu", part->tokens[i], f->m->hyper.vocab - 1);
    }
    return true;
}

/* Positions follow what each cache holds; the last `wanted` tokens of each part get a row of logits. */
static void place_tokens(struct forward *f, const struct batch_part *parts, size_t count)
{
    f->parts = parts;
    f->part_count = count;
    f->n = f->wanted = 0;
    for (size_t p = 0; p < count; p++) {
        f->first[p] = f->n;
        for (size_t i = 0; i < parts[p].count; i++, f->n++) {
            f->pos[f->n] = parts[p].kv->used + i;
            f->part_of[f->n] = p;
            if (i >= parts[p].count - parts[p].wanted)
                f->order[f->wanted++] = f->n;
        }
    }
}

/* The residual to begin with, and the first layer; the angles of all positions are made along with the embedding. */
static size_t begin_layers(struct forward *f)
{
    const struct forward_trail *t = f->trail;
    run_tokens(f, embed_token, NULL, f->n);
    if (!t || !t->input)
        return 0;
    if (t->first == f->m->hyper.layers)
        f->n = f->wanted;
    memcpy(f->x, t->input, f->n * f->m->hyper.width * sizeof *f->x);
    return t->first;
}

static bool run_layers(struct forward *f, float *logits, struct quern_error *err)
{
    const struct forward_trail *t = f->trail;
    enter_stage(f, STAGE_OTHER);
    for (size_t i = begin_layers(f); i < f->m->hyper.layers; i++) {
        if (f->stop && *f->stop)
            return ERR(err, QUERN_EINTERRUPT, "stopped");
        keep_input(f, i);
        layer_forward(f, &f->m->layer[i], i);
    }
    if (f->wanted == 0)
        return true;
    head_input(f);
    for (size_t at = 0, n; at < f->wanted; at += n) {
        n = t && t->rows < f->wanted - at ? t->rows : f->wanted - at;
        head_rows(f, logits, at, n);
        enter_stage(f, STAGE_OTHER);
        if (!check_logits(f, logits, at, n, err))
            return false;
        if (t && t->see)
            t->see(t->arg, at, n);
    }
    return true;
}

bool forward_run(struct forward *f, const struct batch_part *parts, size_t part_count, float *logits, struct quern_error *err)
{
    if (!check_batch(f, parts, part_count, err))
        return false;
    place_tokens(f, parts, part_count);
    if (f->n == 0)
        return true;
    bool ok = run_layers(f, logits, err);
    for (size_t p = 0; p < part_count; p++) {
        if (ok)
            parts[p].kv->used += parts[p].count;
        else
            kv_abort(parts[p].kv, parts[p].count);
    }
    return ok;
}
