#include "adaptive.h"

#include "imprint.h"

enum { CHUNK = 256 };

static size_t clamp(double x, size_t low, size_t high)
{
    return x < (double)low ? low : x > (double)high ? high : (size_t)x;
}

/* A 1B model of 113 tensors gets 8k tokens of importances, 1k per anchor and 4k per trial: half an hour on four cores. Small
 * models get as much as the text has. */
struct adaptive_work adaptive_work(const struct quern_model *source, size_t tensors)
{
    double parameters = (double)source->model.parameters + 1;
    size_t row = source->model.hyper.vocab * sizeof(float) * (CHUNK - CHUNK / 4);
    struct adaptive_work w = { .chunk = CHUNK };
    w.gather_tokens = clamp(0x1p43 / parameters, 8192, 32768);
    w.anchor_chunks = clamp(0x1p47 / parameters / (double)(tensors + 1) / CHUNK, 4, 8);
    w.search_chunks = clamp(0x1p42 / parameters / CHUNK, 8, 32);
    w.trials = clamp(0x1p38 / parameters, 24, 80);
    /* The teacher's probabilities: at most 512 MiB. */
    size_t most = ((size_t)512 << 20) / row;
    w.anchor_chunks = w.anchor_chunks > most ? (most ? most : 1) : w.anchor_chunks;
    w.search_chunks = w.search_chunks > most ? (most ? most : 1) : w.search_chunks;
    return w;
}

struct shower { const struct adaptive_options *o; const char *what; };

static void show_share(void *arg, double share)
{
    const struct shower *s = arg;
    if (s->o->show)
        s->o->show(s->o->show_arg, s->what, share);
}

bool adaptive_gather(struct imatrix *out, const struct quern_model *source, struct pool *pool, const volatile int *stop,
                     const struct adaptive_options *o, struct quern_error *err)
{
    struct calibration text;
    struct shower shower = { o, "importances" };
    struct adaptive_work work = adaptive_work(source, 1);
    struct importance_options options = { .fisher = o->fisher, .tokens = work.gather_tokens, .pool = pool, .stop = stop,
                                          .show = show_share, .show_arg = &shower };
    if (!calibration_open(&text, o->calibration, CALIBRATION_FIT, source, CHUNK, err))
        return false;
    bool ok = importance_gather(out, source, &text, &options, err);
    calibration_close(&text);
    return ok;
}

bool adaptive_imprint(const char *path, const struct quern_model *source, size_t mem_limit, struct pool *pool,
                      const volatile int *stop, const struct adaptive_options *o, struct quern_error *err)
{
    struct imprint_options options = { .calibration = o->calibration, .fisher = o->guided, .mem_limit = mem_limit, .force = true,
                                       .pool = pool, .stop = stop, .show = o->show, .show_arg = o->show_arg };
    return imprint_write(source, path, &options, err);
}

bool adaptive_plan(struct plan *p, const struct quantize_job *job, const struct quern_model *source, size_t budget, bool measure,
                   const struct adaptive_options *o, struct quern_error *err)
{
    struct calibration text;
    struct adaptive_work work = adaptive_work(source, p->count);
    struct plan_options options = { .budget = budget, .chunks = work.anchor_chunks, .search_chunks = work.search_chunks,
                                    .trials = work.trials, .show = o->show, .show_arg = o->show_arg };
    if (!calibration_open(&text, o->calibration, CALIBRATION_FIT, source, work.chunk, err))
        return false;
    bool ok = (!measure || plan_measure(p, job, source, &text, &options, err)) && plan_allocate(p, budget, err) &&
              (!o->search || plan_search(p, job, source, &text, &options, err));
    calibration_close(&text);
    return ok;
}
