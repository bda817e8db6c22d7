/* Local search: swaps of types between tensors at equal bytes, tried on tokens that the plan was not made from. */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "variant.h"

/* One tensor up, another down (or only up, where bytes are left). */
struct swap { size_t up, up_to, down, down_to; double gain; };

struct search {
    struct plan      *p;
    const struct plan_options *options;
    struct quantize_job job;     /* without feedback where that would take too long */
    struct measure    measure;
    struct variant    variant;
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
        bool fits = up ? other->bytes > now->bytes && other->loss < now->loss
                       : other->bytes < now->bytes && other->loss > now->loss;
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
    if (!*blocks || !quantize_tensor(&s->job, t->tensor, t->type[c], *blocks, err)) {
        free(*blocks);
        *blocks = NULL;
        return false;
    }
    variant_set(&s->variant, t->tensor, t->type[c], *blocks);
    return true;
}

static void unhold(struct search *s, size_t i)
{
    const struct plan_tensor *t = &s->p->tensors[i];
    variant_set(&s->variant, t->tensor, s->held[i] ? t->type[s->p->items[i].chosen] : 0, s->held[i]);
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
        return s->measure.source->model.hyper.layers;
    size_t up = variant_layer(&s->variant, s->p->tensors[w->up].tensor);
    size_t down = variant_layer(&s->variant, s->p->tensors[w->down].tensor);
    return up < down ? up : down;
}

/* KL of every position with the choice as it is and, where `w` is given, with that swap. *up, *down: its tensors where they had to
 * be rounded for it. */
static bool measure_choice(struct search *s, const struct swap *w, double *kl, void **up, void **down, struct quern_error *err)
{
    double mean;
    char name[64];
    size_t bytes = s->measure.points * sizeof *kl;
    snprintf(name, sizeof name, "search %zu", s->measured++);
    if (journal_find(s->options->journal, name, kl, bytes))
        return true;
    return hold_all(s, err) && (!w || (hold(s, w->up, w->up_to, up, err) && hold(s, w->down, w->down_to, down, err))) &&
           measure_kl(&s->measure, &s->variant.model, swap_layer(s, w), kl, &mean, err) &&
           journal_add(s->options->journal, name, kl, bytes, err);
}

/* Try one swap; keep it when it lowers the KL by more than twice its standard error. */
static bool try_swap(struct search *s, const struct swap *w, bool *kept, struct quern_error *err)
{
    void *up = NULL, *down = NULL;
    double mean = 0, error = 0;
    bool ok = measure_choice(s, w, s->next, &up, &down, err);
    *kept = false;
    if (ok) {
        measure_paired(s->now, s->next, s->measure.points, &mean, &error);
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
    measure_follow(&s->measure, swap_layer(s, w));
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
    const struct plan_options *o = s->options;
    size_t chunks = text->count / text->chunk, first = o->chunks < chunks / 2 ? o->chunks : chunks / 2, n = chunks - first;
    n = o->search_chunks < n ? o->search_chunks : n;
    if (!variant_init(&s->variant, source, err) ||
        !measure_init(&s->measure, source, text->tokens + first * text->chunk, text->chunk, n, s->job.pool, s->job.stop,
                      err))
        return false;
    measure_follow(&s->measure, 0);      /* the choice, no longer the source */
    s->held = mem_take(p->count, sizeof *s->held, "rounded tensors", err);
    s->refused = s->held ? mem_take(p->count * p->count, sizeof *s->refused, "the search", err) : NULL;
    s->now = s->refused ? mem_take(s->measure.points, sizeof *s->now, "results", err) : NULL;
    s->next = s->now ? mem_take(s->measure.points, sizeof *s->next, "results", err) : NULL;
    if (!s->next)
        return false;
    return measure_choice(s, NULL, s->now, NULL, NULL, err);
}

static void conclude(struct search *s)
{
    struct plan *p = s->p;
    double gain = s->job.refine ? 1 : plan_feedback_gain(p);
    memset(s->next, 0, s->measure.points * sizeof *s->next);
    measure_paired(s->next, s->now, s->measure.points, &p->measured, &p->measured_error);
    p->measured *= gain, p->measured_error *= gain;
    p->predicted = allocate_loss(p->items, p->count);
}

static bool search_run(struct search *s, struct swap *list, size_t most, struct quern_error *err)
{
    const struct plan_options *o = s->options;
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
    conclude(s);
    return true;
}

bool plan_search(struct plan *p, const struct quantize_job *job, const struct quern_model *source, const struct calibration *text,
                 const struct plan_options *o, struct quern_error *err)
{
    struct search s = { .options = o, .job = *job, .p = p, .budget = o->budget };
    size_t most = p->count * p->count;
    struct swap *list = mem_take(most, sizeof *list, "swaps", err);
    s.job.notes = NULL;
    if (o->fed && plan_feedback_gain(p) != 1)
        s.job.refine = NULL;
    bool ok = list && search_begin(&s, source, text, err) && search_run(&s, list, most, err);
    for (size_t i = 0; s.held && i < p->count; i++)
        free(s.held[i]);
    free(s.held);
    free(s.refused);
    free(s.now);
    free(s.next);
    free(list);
    measure_free(&s.measure);
    variant_free(&s.variant);
    return ok;
}
