/* What errors cost: KL of each tensor alone in two types, measured, and from that the KL of every type that it may have. */
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "variant.h"

/* Values of a tensor whose errors are looked at. */
static const size_t SAMPLE_VALUES = (size_t)1 << 18;

struct measuring {
    const struct plan          *p;
    const struct quantize_job  *job;
    const struct plan_options  *options;
    struct measure              measure;
    struct variant              variant;
    void                       *blocks;
};

/* Measured KL with tensor i alone in its type c, rounded with error feedback where `feed` says so. */
static bool measure_one(struct measuring *m, size_t i, size_t c, bool feed, double *kl, struct quern_error *err)
{
    const struct plan_tensor *t = &m->p->tensors[i];
    struct quantize_job job = *m->job;
    char name[64];
    job.notes = NULL;
    job.refine = feed ? job.refine : NULL;
    snprintf(name, sizeof name, "%s %zu %u", feed ? "fed" : "kl", t->tensor, t->type[c]);
    if (journal_find(m->options->journal, name, kl, sizeof *kl))
        return true;
    if (!quantize_tensor(&job, t->tensor, t->type[c], m->blocks, err))
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
static double predict(const struct plan_tensor *t, const double kl[PLAN_ANCHORS], size_t c)
{
    double tiny = 1e-12, e = t->error[c] + tiny, at = 0.5, cost[PLAN_ANCHORS], error[PLAN_ANCHORS];
    for (size_t a = 0; a < PLAN_ANCHORS; a++) {
        if (t->anchor[a] == c)
            return kl[a];
        error[a] = t->error[t->anchor[a]] + tiny;
        cost[a] = log((kl[a] + tiny) / error[a]);
    }
    if (fabs(log(error[0] / error[1])) > 0.1)
        at = log(e / error[1]) / log(error[0] / error[1]);
    at = at < 0 ? 0 : at > 1 ? 1 : at;
    return e * exp(cost[1] + at * (cost[0] - cost[1]));
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

/* Are these matrices of the same kind in different layers: names that differ in digits only? */
static bool same_kind(struct gguf_string a, struct gguf_string b)
{
    size_t i = 0, k = 0;
    for (;; i++, k++) {
        while (i < a.n && a.text[i] >= '0' && a.text[i] <= '9')
            i++;
        while (k < b.n && b.text[k] >= '0' && b.text[k] <= '9')
            k++;
        if (i >= a.n || k >= b.n || a.text[i] != b.text[k])
            return i >= a.n && k >= b.n;
    }
}

static struct gguf_string name_of(const struct plan *p, size_t i)
{
    return p->file->tensors[p->tensors[i].tensor].name;
}

/* Is tensor i, the k-th of n of its kind, one of `fed` that are spread from the first to the last? */
static bool is_fed(const struct plan *p, size_t i, size_t fed)
{
    size_t n = 0, k = 0;
    if (fed == 0)
        return true;
    for (size_t j = 0; j < p->count; j++) {
        bool same = same_kind(name_of(p, i), name_of(p, j));
        n += same, k += same && j < i;
    }
    for (size_t f = 0; f < fed; f++)
        if (n <= fed || k == (f * (n - 1) + (fed - 1) / 2) / (fed > 1 ? fed - 1 : 1))
            return true;
    return false;
}

/* How a tensor's anchors are rounded: each value by itself, with feedback, or both ways. */
struct ways { bool plain, fed; };

static struct ways ways_of(const struct measuring *m, size_t i)
{
    bool refine = m->job->refine != NULL;
    return (struct ways){ .plain = !refine || m->options->fed > 0, .fed = refine && is_fed(m->p, i, m->options->fed) };
}

static bool measure_tensor(struct measuring *m, struct plan *p, size_t i, double bits, struct quern_error *err)
{
    struct plan_tensor *t = &p->tensors[i];
    struct ways w = ways_of(m, i);
    if (!sample_errors(m, t, err))
        return false;
    t->anchor[1] = nearest_type(t, bits, t->count);
    t->anchor[0] = nearest_type(t, bits - 1.3, t->anchor[1]);
    if (t->anchor[0] == t->count)
        t->anchor[0] = t->anchor[1];
    for (size_t a = PLAN_ANCHORS; a-- > 0;) {
        t->plain[a] = t->fed[a] = -1;
        if (a == 0 && t->anchor[0] == t->anchor[1])
            t->plain[0] = t->plain[1], t->fed[0] = t->fed[1];
        else if ((w.plain && !measure_one(m, i, t->anchor[a], false, &t->plain[a], err)) ||
                 (w.fed && !measure_one(m, i, t->anchor[a], true, &t->fed[a], err)))
            return false;
    }
    return true;
}

/* KL with feedback of a tensor that was measured without: its own times the ratio of the two, on a straight line in logarithms
 * between the nearest of its kind before and after it. */
static double fed_like_others(const struct plan *p, size_t i, size_t a)
{
    double tiny = 1e-12, ratio[2] = { 0, 0 };
    size_t away[2] = { 0, 0 };
    for (int side = 0; side < 2; side++)
        for (size_t j = i, steps = 0; !away[side] && (side ? ++j < p->count : j-- > 0);) {
            const struct plan_tensor *t = &p->tensors[j];
            steps += same_kind(name_of(p, i), name_of(p, j));
            if (t->fed[a] >= 0 && same_kind(name_of(p, i), name_of(p, j)))
                away[side] = steps, ratio[side] = log((t->fed[a] + tiny) / (t->plain[a] + tiny));
        }
    double all = (double)(away[0] + away[1]), plain = p->tensors[i].plain[a];
    return all > 0 ? plain * exp((ratio[0] * (double)away[1] + ratio[1] * (double)away[0]) / all) : plain;
}

/* Losses of all types from those of the anchors. */
static void predict_all(struct plan *p, bool feedback)
{
    for (size_t i = 0; i < p->count; i++) {
        struct plan_tensor *t = &p->tensors[i];
        double kl[PLAN_ANCHORS];
        for (size_t a = 0; a < PLAN_ANCHORS; a++)
            kl[a] = !feedback ? t->plain[a] : t->fed[a] >= 0 ? t->fed[a] : fed_like_others(p, i, a);
        for (size_t c = 0; c < t->count; c++)
            /* As a recipe holds it, so that a plan and its recipe predict the same, to the last bit of the receipt. */
            t->choice[c].loss = (float)predict(t, kl, c);
    }
}

/* Rounding a value to an anchor type takes about as long as so many multiplications of a pass: 125 ns at 1e11 per second. */
static const double ROUNDED_VALUE = 12500;

/* About the multiplications that measuring tensor i takes: for each way of rounding that, and a pass from its layer on; feedback
 * multiplies every value's error with a row of moments. */
static double anchor_work(const struct measuring *m, size_t i)
{
    const struct model *model = &m->measure.source->model;
    size_t tensor = m->p->tensors[i].tensor, first = variant_layer(&m->variant, tensor), layers = model->hyper.layers;
    const size_t *s = m->p->file->tensors[tensor].shape;
    double head = (double)model->output.rows * (double)model->output.cols, share = (double)(layers - first) / (double)layers;
    double pass = head * 0.75 + ((double)model->parameters - head) * share, values = (double)s[0] * (double)s[1] * (double)s[2];
    double once = (double)(m->measure.chunk * m->measure.chunks) * pass + ROUNDED_VALUE * values;
    struct ways w = ways_of(m, i);
    return w.plain * once + w.fed * (once + (double)s[0] * values);
}

bool plan_measure(struct plan *p, const struct quantize_job *job, const struct quern_model *source, const struct calibration *text,
                  const struct plan_options *o, struct quern_error *err)
{
    struct measuring m = { .p = p, .job = job, .options = o };
    double bits = 8.0 * (double)o->budget / total_values(p);
    size_t chunks = text->count / text->chunk;
    chunks = o->chunks < chunks ? o->chunks : chunks;
    bool ok = variant_init(&m.variant, source, err) &&
              (m.blocks = mem_take_aligned(1, plan_largest(p), "a tensor", err)) != NULL &&
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
    if (ok)
        predict_all(p, p->feedback = job->refine != NULL);
    measure_free(&m.measure);
    variant_free(&m.variant);
    free(m.blocks);
    return ok;
}

double plan_feedback_gain(const struct plan *p)
{
    double fed = 0, plain = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        if (t->plain[0] < 0 || t->plain[1] < 0)
            return 1;
        fed += t->choice[p->items[i].chosen].loss;
        plain += predict(t, t->plain, p->items[i].chosen);
    }
    return plain > 0 ? fed / plain : 1;
}
