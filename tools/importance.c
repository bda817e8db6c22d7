#include "importance.h"

#include <stdlib.h>
#include <string.h>

#include "backward.h"
#include "labels.h"
#include "random.h"

/* Sequences that go through the model together, fewer where their logits would take more than so many bytes. */
enum { TOGETHER = 4 };
static const size_t LOGIT_BYTES = (size_t)256 << 20;

/* Of one tensor of the file; a stack has them per expert. */
struct sums {
    double *squares;          /* [experts][cols], NULL: no map was seen */
    double *weight;           /* [experts] sum of the tokens' weights   */
    double *tokens;           /* [experts]                              */
};

struct gathering {
    const struct quern_model *model;
    struct sums *sums;        /* [tensors] of the file */
    double  *weights;         /* [most * used] of the rows at hand, for the map at hand */
    struct pool *pool;
    size_t   length;          /* of a sequence */
    size_t   most;            /* tokens that go through the model together */
    size_t   used;            /* experts per token */
    bool     fisher, failed;
};

static bool take_sums(struct sums *s, const struct matrix *w)
{
    s->squares = calloc(w->slices * (w->cols + 2), sizeof *s->squares);
    s->weight = s->squares + w->slices * w->cols;
    s->tokens = s->weight + w->slices;
    return s->squares != NULL;
}

/* One linear map's inputs and gradients, shared out among threads: tokens' weights first, then columns, each summed over the tokens
 * in their order. Row i belongs to slot slots[i] (token * used + choice) or, NULL, to token i. dy NULL: every token counts 1. */
struct adding {
    struct gathering *g;
    const struct matrix *w;
    const uint32_t *slots;
    const float *x, *dy;
    double *squares;
    size_t n;
};
enum { COLUMNS = 256 };

static bool counts(const struct adding *a, size_t row)
{
    return (a->slots ? a->slots[row] / a->g->used : row) % a->g->length != 0;
}

static void weigh_row(void *arg, size_t t, size_t thread)
{
    const struct adding *a = arg;
    const float *row = a->dy ? a->dy + t * dense_stride(a->w->rows) : NULL;
    double weight = row ? 0 : 1;
    (void)thread;
    for (size_t i = 0; row && i < a->w->rows; i++)
        weight += (double)row[i] * row[i];
    a->g->weights[t] = weight;
}

static void add_columns(void *arg, size_t index, size_t thread)
{
    const struct adding *a = arg;
    size_t from = index * COLUMNS, to = from + COLUMNS < a->w->cols ? from + COLUMNS : a->w->cols;
    size_t stride = dense_stride(a->w->cols);
    (void)thread;
    for (size_t t = 0; t < a->n; t++) {
        const float *row = a->x + t * stride;
        double weight = a->g->weights[t];
        for (size_t i = from; counts(a, t) && i < to; i++)
            a->squares[i] += weight * row[i] * row[i];
    }
}

static void add_tokens(struct gathering *g, size_t id, size_t expert, const uint32_t *slots, const float *x,
                       const float *dy, size_t n)
{
    const struct matrix *w = backward_matrix(&g->model->model, id);
    struct sums *s = &g->sums[w->tensor];
    if (!s->squares && !take_sums(s, w)) {
        g->failed = true;
        return;
    }
    struct adding a = { g, w, slots, x, dy, s->squares + expert * w->cols, n };
    pool_run(g->pool, weigh_row, &a, n);
    pool_run(g->pool, add_columns, &a, (w->cols + COLUMNS - 1) / COLUMNS);
    for (size_t t = 0; t < n; t++)
        if (counts(&a, t)) {
            s->weight[expert] += g->weights[t];
            s->tokens[expert]++;
        }
}

static void see_input(void *arg, size_t id, const float *x, size_t n)
{
    add_tokens(arg, id, 0, NULL, x, NULL, n);
}

static void see_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    add_tokens(arg, id, 0, NULL, x, dy, n);
}

/* Experts are shown on both ways: with gradients the way back is looked at, else the way forth. */
static void see_expert(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    const struct gathering *g = arg;
    if ((dy != NULL) == g->fisher)
        add_tokens(arg, id, expert, slots, x, dy, n);
}

struct drawing { const float *logits; float *dlogits; const double *at; size_t vocab; };

/* A row of logits, and the gap behind it, to a row of gradients. */
static void draw_gradient(void *arg, size_t token, size_t thread)
{
    const struct drawing *d = arg;
    size_t stride = dense_stride(d->vocab);
    float *out = d->dlogits + token * stride;
    (void)thread;
    memset(out + d->vocab, 0, (stride - d->vocab) * sizeof *out);
    label_gradient(out, d->logits + token * stride, d->vocab, d->at[token]);
}

struct passes {
    struct backward b;
    float *logits, *dlogits;
    double *drawn;           /* [most] one number per token */
};

static bool run_passes(struct gathering *g, struct passes *p, const struct calibration *text, size_t count,
                       const struct importance_options *o, struct quern_error *err)
{
    size_t vocab = g->model->model.hyper.vocab, step = g->most;
    struct backward_hooks hooks = { .arg = g, .input = g->fisher ? NULL : see_input, .linear = g->fisher ? see_linear : NULL,
                                    .expert = see_expert };
    uint64_t state = 1;
    for (size_t at = 0; at < count; at += step) {
        size_t n = count - at < step ? count - at : step;
        if (o->stop && *o->stop)
            return ERR(err, QUERN_EINTERRUPT, "interrupted");
        /* The head's input is wanted too, so logits are made even where only inputs are gathered. */
        backward_forward(&p->b, text->tokens + at, n / text->chunk, text->chunk, p->logits, &hooks);
        if (g->fisher) {
            struct drawing d = { p->logits, p->dlogits, p->drawn, vocab };
            for (size_t t = 0; t < n; t++)
                p->drawn[t] = random_unit(&state);
            pool_run(o->pool, draw_gradient, &d, n);
            backward_run(&p->b, p->logits, p->dlogits, &hooks);
        }
        if (g->failed)
            return ERR(err, QUERN_EMEM, "no memory for sums");
        if (o->show)
            o->show(o->show_arg, (double)(at + n) / (double)count);
    }
    return true;
}

/* Of input j over expert x's tokens. An expert that saw none gets what all of them saw: of one size with its neighbours, so that
 * sums of errors over the stack stay meaningful. */
static float mean_square(const struct sums *s, const struct imatrix_entry *e, size_t x, size_t j)
{
    double sum = 0, weight = 0;
    if (s->weight[x] > 0)
        return (float)(s->squares[x * e->inputs + j] / s->weight[x]);
    for (size_t other = 0; other < e->experts; other++)
        sum += s->squares[other * e->inputs + j], weight += s->weight[other];
    return (float)(sum / weight);
}

/* The entry of tensor i of the file; *none: nothing was seen of it. */
static bool add_entry(struct imatrix *out, const struct gathering *g, size_t i, bool *none, struct quern_error *err)
{
    const struct gguf_tensor *t = &g->model->gguf.tensors[i];
    const struct sums *s = &g->sums[i];
    struct imatrix_entry *e = &out->entries[out->count];
    *e = (struct imatrix_entry){ .inputs = t->shape[0], .experts = t->shape[2] };
    *none = true;
    for (size_t x = 0; s->squares && x < e->experts; x++)
        *none = *none && !(s->weight[x] > 0);
    if (*none)
        return true;
    e->name = arena_text(&out->arena, t->name.text, t->name.n, err);
    e->mean = e->name ? arena_take(&out->arena, e->inputs * e->experts, sizeof *e->mean, "importances", err) : NULL;
    e->tokens = e->mean ? arena_take(&out->arena, e->experts, sizeof *e->tokens, "importances", err) : NULL;
    if (!e->tokens)
        return false;
    for (size_t x = 0; x < e->experts; x++) {
        e->tokens[x] = s->weight[x] > 0 ? (float)s->tokens[x] : 0;
        for (size_t j = 0; j < e->inputs; j++)
            e->mean[x * e->inputs + j] = mean_square(s, e, x, j);
    }
    out->count++;
    return true;
}

static bool finish(struct imatrix *out, const struct gathering *g, const struct calibration *text, size_t count,
                   struct quern_error *err)
{
    size_t tensors = g->model->gguf.tensor_count;
    bool none;
    arena_init(&out->arena, 0);
    out->entries = arena_take(&out->arena, tensors, sizeof *out->entries, "importances", err);
    for (size_t i = 0; out->entries && i < tensors; i++)
        if (!add_entry(out, g, i, &none, err))
            return false;
    if (!out->entries)
        return false;
    imatrix_sort(out);
    out->chunks = (uint32_t)(count / text->chunk);
    out->chunk_size = (uint32_t)text->chunk;
    out->dataset = arena_text(&out->arena, text->name, strlen(text->name), err);
    return out->dataset != NULL;
}

bool importance_possible(const struct quern_model *model, struct pool *pool)
{
    struct backward b;
    struct quern_error err;
    if (!backward_init(&b, &model->model, &model->kernels, pool, 2, 2, &err))
        return false;
    backward_free(&b);
    return true;
}

/* Of all tensors, those that no map reads too: too much rather than too little. */
static size_t sums_bytes(const struct gguf *file)
{
    size_t bytes = file->tensor_count * sizeof(struct sums);
    for (size_t i = 0; i < file->tensor_count; i++)
        if (file->tensors[i].dims > 1)
            bytes += file->tensors[i].shape[2] * (file->tensors[i].shape[0] + 2) * sizeof(double);
    return bytes;
}

/* Tokens that go through the model together, when there is no limit. */
static size_t most_tokens(const struct quern_model *model, size_t chunk)
{
    size_t most = TOGETHER * chunk, row = dense_stride(model->model.hyper.vocab) * sizeof(float);
    while (most > chunk && most * row > LOGIT_BYTES)
        most = most / chunk / 2 * chunk;
    return most;
}

/* Rows that a map may have at once: a stack of experts sees a token several times. */
static size_t most_rows(const struct quern_model *model, size_t most)
{
    return most * (model->model.hyper.experts_used + 1);
}

/* The pass itself, its logits and gradients, and the sums. */
static size_t needed_bytes(const struct backward *b, const struct quern_model *model, size_t most, bool fisher)
{
    size_t logits = most * dense_stride(model->model.hyper.vocab) * sizeof(float);
    return b->bytes + logits * (fisher ? 2 : 1) + (most_rows(model, most) + most) * sizeof(double) + sums_bytes(&model->gguf);
}

bool importance_bytes(size_t *out, const struct quern_model *model, size_t chunk, bool fisher, struct pool *pool,
                      struct quern_error *err)
{
    struct backward b;
    size_t most = most_tokens(model, chunk);
    if (!backward_init(&b, &model->model, &model->kernels, pool, most, chunk, err))
        return false;
    *out = needed_bytes(&b, model, most, fisher);
    backward_free(&b);
    return true;
}

bool importance_gather(struct imatrix *out, const struct quern_model *model, const struct calibration *text,
                       const struct importance_options *o, struct quern_error *err)
{
    size_t tensors = model->gguf.tensor_count, most = most_tokens(model, text->chunk);
    size_t stride = dense_stride(model->model.hyper.vocab);
    size_t count = o->tokens && o->tokens < text->count ? o->tokens - o->tokens % text->chunk : text->count;
    struct gathering g = { .model = model, .pool = o->pool, .length = text->chunk, .used = model->model.hyper.experts_used,
                           .fisher = o->fisher };
    struct passes p = { 0 };
    *out = (struct imatrix){ 0 };
    /* Fewer sequences together where that is too much. */
    for (;; most = most / text->chunk / 2 * text->chunk) {
        if (!backward_init(&p.b, &model->model, &model->kernels, o->pool, most, text->chunk, err))
            return false;
        size_t needed = needed_bytes(&p.b, model, most, o->fisher);
        if (!o->mem_limit || needed <= o->mem_limit)
            break;
        backward_free(&p.b);
        if (most == text->chunk)
            return ERR(err, QUERN_EMEM, "gathering importances takes at least %zu bytes, the limit is %zu", needed, o->mem_limit);
    }
    g.most = most;
    count = count ? count : text->chunk;
    bool ok = (g.sums = mem_take(tensors, sizeof *g.sums, "sums", err)) != NULL &&
              (g.weights = mem_take(most_rows(model, most), sizeof *g.weights, "sums", err)) != NULL &&
              (p.drawn = mem_take(most, sizeof *p.drawn, "labels", err)) != NULL &&
              (p.logits = mem_take_aligned(most, stride * sizeof(float), "logits", err)) != NULL &&
              (!o->fisher || (p.dlogits = mem_take_aligned(most, stride * sizeof(float), "gradients", err)) != NULL) &&
              run_passes(&g, &p, text, count, o, err) && finish(out, &g, text, count, err);
    if (!ok)
        imatrix_close(out);
    for (size_t i = 0; g.sums && i < tensors; i++)
        free(g.sums[i].squares);
    free(g.sums);
    free(g.weights);
    free(p.drawn);
    free(p.logits);
    free(p.dlogits);
    backward_free(&p.b);
    return ok;
}
