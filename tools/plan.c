#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "variant.h"

/* Types that a plan may choose from, smallest first; those of 256 come before those of 32 that are as large. Below the first ones
 * nothing is gained on models that are to stay useful. */
static const uint32_t choices[] = {
    FORMAT_IQ2_XXS, FORMAT_IQ2_XS, FORMAT_IQ2_S, FORMAT_Q2_K, FORMAT_IQ3_XXS, FORMAT_IQ3_S, FORMAT_Q3_K, FORMAT_IQ4_XS,
        FORMAT_IQ4_NL,
    FORMAT_Q4_0, FORMAT_Q4_K, FORMAT_Q5_0, FORMAT_Q5_K, FORMAT_Q5_1, FORMAT_Q6_K, FORMAT_Q8_0,
};
/* Values of a tensor whose errors are looked at. */
static const size_t SAMPLE_VALUES = (size_t)1 << 18;

/* Worthless without importances, as llama.cpp too says. */
static bool wants_importance(uint32_t format)
{
    return format == FORMAT_IQ2_XXS || format == FORMAT_IQ2_XS || format == FORMAT_IQ2_S || format == FORMAT_IQ3_XXS;
}

static void add_types(struct plan_tensor *t, const struct quantize_job *job)
{
    const struct gguf_tensor *tensor = &job->input->tensors[t->tensor];
    bool importance = job->matrix && imatrix_find(job->matrix, tensor->name);
    for (size_t c = 0; c < sizeof choices / sizeof *choices; c++) {
        const struct format *f = format_find(choices[c]);
        bool narrow = f->block == 32 && f->id != FORMAT_Q8_0;
        /* The 32-block types are for rows that take no others. */
        if (tensor->shape[0] % f->block || (narrow && tensor->shape[0] % 256 == 0) || (wants_importance(f->id) && !importance))
            continue;
        t->type[t->count] = f->id;
        t->choice[t->count++].bytes = quantize_bytes_as(job, t->tensor, f->id);
    }
}

bool plan_init(struct plan *p, const struct quantize_job *job, const struct quern_model *source, struct quern_error *err)
{
    struct variant v;
    size_t n = job->input->tensor_count;
    *p = (struct plan){ .file = job->input };
    p->tensors = mem_take(n, sizeof *p->tensors, "the plan", err);
    p->items = p->tensors ? mem_take(n, sizeof *p->items, "the plan", err) : NULL;
    if (!p->items || !variant_init(&v, source, err)) {
        plan_free(p);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        bool free_choice = job->plan[i].reason == PLAN_PRESET || job->plan[i].reason == PLAN_FALLBACK;
        if (!free_choice || !variant_set(&v, i, job->input->tensors[i].type, job->input->tensors[i].data))
            continue;
        struct plan_tensor *t = &p->tensors[p->count];
        t->tensor = i;
        add_types(t, job);
        if (t->count == 0)
            continue;
        p->items[p->count++] = (struct allocate_item){ .choices = t->choice, .count = t->count };
    }
    variant_free(&v);
    return true;
}

void plan_free(struct plan *p)
{
    free(p->tensors);
    free(p->items);
    *p = (struct plan){ 0 };
}

size_t plan_bytes(const struct plan *p)
{
    return allocate_bytes(p->items, p->count);
}

void plan_apply(const struct plan *p, struct plan_item *items)
{
    for (size_t i = 0; i < p->count; i++) {
        struct plan_item *item = &items[p->tensors[i].tensor];
        item->format = item->wanted = p->tensors[i].type[p->items[i].chosen];
        item->reason = PLAN_MEASURED;
        item->needs_importance = wants_importance(item->format);
    }
}

/* ---- what errors cost ----------------------------------------------------------------------------------------------- */

struct measuring {
    const struct plan          *p;
    const struct quantize_job  *job;
    const struct plan_options  *options;
    struct measure              measure;
    struct variant              variant;
    void                       *blocks;
};

/* Measured KL with tensor i alone in its type c. */
static bool measure_one(struct measuring *m, size_t i, size_t c, double *kl, struct quern_error *err)
{
    const struct plan_tensor *t = &m->p->tensors[i];
    char name[64];
    snprintf(name, sizeof name, "kl %zu %u", t->tensor, t->type[c]);
    if (journal_find(m->options->journal, name, kl, sizeof *kl))
        return true;
    if (!quantize_tensor(m->job, t->tensor, t->type[c], m->blocks, err))
        return false;
    variant_set(&m->variant, t->tensor, t->type[c], m->blocks);
    bool ok = measure_kl(&m->measure, &m->variant.model, variant_layer(&m->variant, t->tensor), NULL, kl, err);
    variant_set(&m->variant, t->tensor, 0, NULL);
    return ok && journal_add(m->options->journal, name, kl, sizeof *kl, err);
}

/* Errors of the tensor's types on a sample of its rows. */
static bool sample_errors(struct measuring *m, struct plan_tensor *t, struct quern_error *err)
{
    char name[64];
    size_t bytes = t->count * sizeof *t->error;
    snprintf(name, sizeof name, "errors %zu", t->tensor);
    return journal_find(m->options->journal, name, t->error, bytes) ||
           (quantize_errors(m->job, t->tensor, t->type, t->count, SAMPLE_VALUES, t->error, err) &&
            journal_add(m->options->journal, name, t->error, bytes, err));
}

/* The type whose bytes per value are nearest to `bits`; never one that decodes to the same size class twice (`not`). */
static size_t nearest_type(const struct plan_tensor *t, double bits, size_t not)
{
    size_t best = t->count;
    double distance = HUGE_VAL;
    for (size_t c = 0; c < t->count; c++) {
        const struct format *f = format_find(t->type[c]);
        double away = fabs(8.0 * f->bytes / f->block - bits);
        if (c != not && away < distance)
            distance = away, best = c;
    }
    return best;
}

/* Predictions from two measured types: log cost per error is a straight line in log error between them and stays as it is
 * outside. */
static void predict(struct plan_tensor *t, size_t low, double kl_low, size_t high, double kl_high)
{
    double tiny = 1e-12, e_low = t->error[low] + tiny, e_high = t->error[high] + tiny;
    double c_low = log((kl_low + tiny) / e_low), c_high = log((kl_high + tiny) / e_high);
    for (size_t c = 0; c < t->count; c++) {
        double e = t->error[c] + tiny, at = 0.5;
        if (fabs(log(e_low / e_high)) > 0.1)
            at = log(e / e_high) / log(e_low / e_high);
        at = at < 0 ? 0 : at > 1 ? 1 : at;
        t->choice[c].loss = e * exp(c_high + at * (c_low - c_high));
    }
    t->choice[low].loss = kl_low;
    t->choice[high].loss = kl_high;
}

static size_t largest_tensor(const struct plan *p)
{
    size_t most = 0;
    for (size_t i = 0; i < p->count; i++)
        for (size_t c = 0; c < p->tensors[i].count; c++)
            most = p->tensors[i].choice[c].bytes > most ? p->tensors[i].choice[c].bytes : most;
    return most;
}

static double total_values(const struct plan *p)
{
    double values = 0;
    for (size_t i = 0; i < p->count; i++) {
        const size_t *s = p->file->tensors[p->tensors[i].tensor].shape;
        values += (double)s[0] * (double)s[1] * (double)s[2] * (double)s[3];
    }
    return values;
}

static bool measure_tensor(struct measuring *m, struct plan *p, size_t i, double bits, struct quern_error *err)
{
    struct plan_tensor *t = &p->tensors[i];
    double kl_low = 0, kl_high = 0;
    if (!sample_errors(m, t, err))
        return false;
    size_t high = nearest_type(t, bits, t->count), low = nearest_type(t, bits - 1.3, high);
    if (low == t->count)
        low = high;
    if (!measure_one(m, i, high, &kl_high, err))
        return false;
    kl_low = kl_high;
    if (low != high && !measure_one(m, i, low, &kl_low, err))
        return false;
    predict(t, low, kl_low, high, kl_high);
    return true;
}

/* Rounding a value to an anchor type takes about as long as so many multiplications of a pass: 125 ns at 1e11 per second. */
static const double ROUNDED_VALUE = 12500;

/* About the multiplications that measuring tensor i takes: rounding, and a pass from its layer on. */
static double anchor_work(const struct measuring *m, size_t i)
{
    const struct model *model = &m->measure.source->model;
    size_t tensor = m->p->tensors[i].tensor, first = variant_layer(&m->variant, tensor), layers = model->hyper.layers;
    const size_t *s = m->p->file->tensors[tensor].shape;
    double head = (double)model->output.rows * (double)model->output.cols, share = (double)(layers - first) / (double)layers;
    double pass = head * 0.75 + ((double)model->parameters - head) * share;
    return (double)(m->measure.chunk * m->measure.chunks) * pass + ROUNDED_VALUE * (double)s[0] * (double)s[1] * (double)s[2];
}

bool plan_measure(struct plan *p, const struct quantize_job *job, const struct quern_model *source, const struct calibration *text,
                  const struct plan_options *o, struct quern_error *err)
{
    struct measuring m = { .p = p, .job = job, .options = o };
    double bits = 8.0 * (double)o->budget / total_values(p);
    size_t chunks = text->count / text->chunk;
    chunks = o->chunks < chunks ? o->chunks : chunks;
    bool ok = variant_init(&m.variant, source, err) &&
              (m.blocks = mem_take_aligned(1, largest_tensor(p), "a tensor", err)) != NULL &&
              measure_init(&m.measure, source, text->tokens, text->chunk, chunks, job->pool, job->stop, err);
    double done = 0, all = 0;
    for (size_t i = 0; ok && i < p->count; i++)
        all += anchor_work(&m, i);
    for (size_t i = 0; ok && i < p->count; i++) {
        ok = measure_tensor(&m, p, i, bits, err);
        done += ok ? anchor_work(&m, i) : 0;
        if (o->show)
            o->show(o->show_arg, "measuring", done / all);
    }
    measure_free(&m.measure);
    variant_free(&m.variant);
    free(m.blocks);
    return ok;
}

bool plan_allocate(struct plan *p, size_t budget, struct quern_error *err)
{
    if (!allocate(p->items, p->count, budget, NULL, err))
        return false;
    p->predicted = allocate_loss(p->items, p->count);
    p->measured = p->measured_error = 0;
    return true;
}

/* ---- local search --------------------------------------------------------------------------------------------------- */

/* One tensor up, another down (or only up, where bytes are left). */
struct swap { size_t up, up_to, down, down_to; double gain; };

struct search {
    struct measuring  m;
    struct plan      *p;
    size_t            budget;
    void            **held;      /* [count] blocks of the chosen types; NULL: not rounded yet */
    size_t            measured;  /* passes so far, which name the journal's records */
    double           *now, *next;/* [points] KL of the choice, of a trial */
    bool             *refused;   /* [count * count] pairs that were tried in vain */
};

static int by_gain(const void *a, const void *b)
{
    const struct swap *l = a, *r = b;
    if (l->gain != r->gain)
        return l->gain < r->gain ? 1 : -1;
    return l->up != r->up ? (l->up > r->up) - (l->up < r->up) : (l->down > r->down) - (l->down < r->down);
}

/* The next larger (smaller) type by bytes that predicts a lower (higher) loss; count when there is none. */
static size_t neighbour(const struct plan *p, size_t i, bool up)
{
    const struct plan_tensor *t = &p->tensors[i];
    const struct allocate_choice *now = &t->choice[p->items[i].chosen];
    size_t best = t->count;
    for (size_t c = 0; c < t->count; c++) {
        const struct allocate_choice *other = &t->choice[c];
        bool fits = up ? other->bytes > now->bytes && other->loss < now->loss : other->bytes < now->bytes && other->loss >
            now->loss;
        bool nearer = best == t->count || (up ? other->bytes < t->choice[best].bytes : other->bytes > t->choice[best].bytes) ||
                      (other->bytes == t->choice[best].bytes && other->loss < t->choice[best].loss);
        if (fits && nearer)
            best = c;
    }
    return best;
}

/* Swaps within the budget, the most promising first. Gives their number, at most `most`. */
static size_t list_swaps(const struct search *s, struct swap *list, size_t most)
{
    const struct plan *p = s->p;
    size_t n = 0, total = plan_bytes(p);
    for (size_t u = 0; u < p->count; u++) {
        size_t up = neighbour(p, u, true);
        for (size_t d = 0; up < p->tensors[u].count && d < p->count; d++) {
            size_t down = neighbour(p, d, false);
            if (u == d || down == p->tensors[d].count || s->refused[u * p->count + d] || n == most)
                continue;
            const struct allocate_choice *a = &p->tensors[u].choice[p->items[u].chosen], *b = &p->tensors[u].choice[up];
            const struct allocate_choice *c = &p->tensors[d].choice[p->items[d].chosen], *e = &p->tensors[d].choice[down];
            if (total + b->bytes - a->bytes > s->budget + c->bytes - e->bytes)
                continue;
            list[n++] = (struct swap){ u, up, d, down, (a->loss - b->loss) - (e->loss - c->loss) };
        }
    }
    qsort(list, n, sizeof *list, by_gain);
    return n;
}

static bool hold(struct search *s, size_t i, size_t c, void **blocks, struct quern_error *err)
{
    const struct plan_tensor *t = &s->p->tensors[i];
    *blocks = mem_take_aligned(1, t->choice[c].bytes, "a rounded tensor", err);
    if (!*blocks || !quantize_tensor(s->m.job, t->tensor, t->type[c], *blocks, err)) {
        free(*blocks);
        *blocks = NULL;
        return false;
    }
    variant_set(&s->m.variant, t->tensor, t->type[c], *blocks);
    return true;
}

static void unhold(struct search *s, size_t i)
{
    const struct plan_tensor *t = &s->p->tensors[i];
    variant_set(&s->m.variant, t->tensor, s->held[i] ? t->type[s->p->items[i].chosen] : 0, s->held[i]);
}

/* Round what is chosen and not rounded yet: after passes that the journal knew there may be much of it. */
static bool hold_all(struct search *s, struct quern_error *err)
{
    for (size_t i = 0; i < s->p->count; i++)
        if (!s->held[i] && !hold(s, i, s->p->items[i].chosen, &s->held[i], err))
            return false;
    return true;
}

/* The first layer that a swap changes; without one the number of layers. */
static size_t swap_layer(const struct search *s, const struct swap *w)
{
    if (!w)
        return s->m.measure.source->model.hyper.layers;
    size_t up = variant_layer(&s->m.variant, s->p->tensors[w->up].tensor);
    size_t down = variant_layer(&s->m.variant, s->p->tensors[w->down].tensor);
    return up < down ? up : down;
}

/* KL of every position with the choice as it is and, where `w` is given, with that swap. *up, *down: its tensors where they had to
 * be rounded for it. */
static bool measure_choice(struct search *s, const struct swap *w, double *kl, void **up, void **down, struct quern_error *err)
{
    double mean;
    char name[64];
    size_t bytes = s->m.measure.points * sizeof *kl;
    snprintf(name, sizeof name, "search %zu", s->measured++);
    if (journal_find(s->m.options->journal, name, kl, bytes))
        return true;
    return hold_all(s, err) && (!w || (hold(s, w->up, w->up_to, up, err) && hold(s, w->down, w->down_to, down, err))) &&
           measure_kl(&s->m.measure, &s->m.variant.model, swap_layer(s, w), kl, &mean, err) &&
           journal_add(s->m.options->journal, name, kl, bytes, err);
}

/* Try one swap; keep it when it lowers the KL by more than twice its standard error. */
static bool try_swap(struct search *s, const struct swap *w, bool *kept, struct quern_error *err)
{
    void *up = NULL, *down = NULL;
    double mean = 0, error = 0;
    bool ok = measure_choice(s, w, s->next, &up, &down, err);
    *kept = false;
    if (ok) {
        measure_paired(s->now, s->next, s->m.measure.points, &mean, &error);
        *kept = mean < -2 * error;
    }
    if (!*kept) {
        unhold(s, w->up);
        unhold(s, w->down);
        free(up);
        free(down);
        return ok;
    }
    free(s->held[w->up]);
    free(s->held[w->down]);
    s->held[w->up] = up, s->held[w->down] = down;
    s->p->items[w->up].chosen = w->up_to, s->p->items[w->down].chosen = w->down_to;
    measure_follow(&s->m.measure, swap_layer(s, w));
    unhold(s, w->up);
    unhold(s, w->down);
    double *old = s->now;
    s->now = s->next, s->next = old;
    return true;
}

static bool search_begin(struct search *s, const struct quern_model *source, const struct calibration *text,
                         struct quern_error *err)
{
    struct plan *p = s->p;
    const struct plan_options *o = s->m.options;
    size_t chunks = text->count / text->chunk, first = o->chunks < chunks / 2 ? o->chunks : chunks / 2, n = chunks - first;
    n = o->search_chunks < n ? o->search_chunks : n;
    if (!variant_init(&s->m.variant, source, err) ||
        !measure_init(&s->m.measure, source, text->tokens + first * text->chunk, text->chunk, n, s->m.job->pool, s->m.job->stop,
                      err))
        return false;
    measure_follow(&s->m.measure, 0);      /* the choice, no longer the source */
    s->held = mem_take(p->count, sizeof *s->held, "rounded tensors", err);
    s->refused = s->held ? mem_take(p->count * p->count, sizeof *s->refused, "the search", err) : NULL;
    s->now = s->refused ? mem_take(s->m.measure.points, sizeof *s->now, "results", err) : NULL;
    s->next = s->now ? mem_take(s->m.measure.points, sizeof *s->next, "results", err) : NULL;
    if (!s->next)
        return false;
    return measure_choice(s, NULL, s->now, NULL, NULL, err);
}

static bool search_run(struct search *s, struct swap *list, size_t most, struct quern_error *err)
{
    const struct plan_options *o = s->m.options;
    struct plan *p = s->p;
    size_t n = list_swaps(s, list, most), at = 0;
    while (p->tried < o->trials && at < n) {
        const struct swap w = list[at++];
        bool kept;
        if (!try_swap(s, &w, &kept, err))
            return false;
        p->tried++;
        p->swaps += kept;
        s->refused[w.up * p->count + w.down] = !kept;
        /* What went up shall not come down again at once. */
        if (kept) {
            s->refused[w.down * p->count + w.up] = true;
            n = list_swaps(s, list, most), at = 0;
        }
        if (o->show)
            o->show(o->show_arg, "searching", (double)p->tried / (double)o->trials);
    }
    double zero = 0;
    for (size_t i = 0; i < s->m.measure.points; i++)
        s->next[i] = zero;
    measure_paired(s->next, s->now, s->m.measure.points, &p->measured, &p->measured_error);
    p->predicted = allocate_loss(p->items, p->count);
    return true;
}

bool plan_search(struct plan *p, const struct quantize_job *job, const struct quern_model *source, const struct calibration *text,
                 const struct plan_options *o, struct quern_error *err)
{
    struct search s = { .m = { .p = p, .job = job, .options = o }, .p = p, .budget = o->budget };
    size_t most = p->count * p->count;
    struct swap *list = mem_take(most, sizeof *list, "swaps", err);
    bool ok = list && search_begin(&s, source, text, err) && search_run(&s, list, most, err);
    for (size_t i = 0; s.held && i < p->count; i++)
        free(s.held[i]);
    free(s.held);
    free(s.refused);
    free(s.now);
    free(s.next);
    free(list);
    measure_free(&s.m.measure);
    variant_free(&s.m.variant);
    return ok;
}
