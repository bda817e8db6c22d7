#include "measure.h"

#include <math.h>
#include <stdlib.h>

/* Rows of logits at hand at a time take at most so many bytes. */
static const size_t ROW_BYTES = (size_t)32 << 20;

struct scoring {
    const struct measure *m;
    struct runner         runner;
    double               *kl;        /* NULL: the rows become the teacher's */
    size_t                row;       /* of the first row of logits at hand */
};

/* Log of the sum of exponentials, which is subtracted to get log probabilities. */
static double log_sum(const float *x, size_t n)
{
    float top = x[0];
    double sum = 0;
    for (size_t i = 1; i < n; i++)
        top = x[i] > top ? x[i] : top;
    for (size_t i = 0; i < n; i++)
        sum += expf(x[i] - top);
    return top + log(sum);
}

static void score_row(void *arg, size_t index, size_t thread)
{
    struct scoring *s = arg;
    size_t vocab = s->m->source->model.hyper.vocab;
    const float *x = s->runner.logits + index * vocab;
    float *teacher = s->m->teacher + (s->row + index) * vocab;
    double total = log_sum(x, vocab), kl = 0;
    (void)thread;
    if (!s->kl) {
        for (size_t i = 0; i < vocab; i++)
            teacher[i] = (float)(x[i] - total);
        return;
    }
    for (size_t i = 0; i < vocab; i++)
        kl += (double)expf(teacher[i]) * ((double)teacher[i] - ((double)x[i] - total));
    s->kl[s->row + index] = kl > 0 ? kl : 0;
}

static bool run_chunk(struct scoring *s, const int32_t *tokens, struct quern_error *err)
{
    const struct measure *m = s->m;
    if (!kv_rewind(&s->runner.kv[0], 0, err))
        return false;
    for (size_t at = 0, n; at < m->chunk; at += n) {
        size_t edge = at < m->first ? m->first : m->chunk, most = at < m->first ? s->runner.shape.batch : s->runner.shape.rows;
        n = edge - at < most ? edge - at : most;
        struct batch_part part = { .kv = &s->runner.kv[0], .tokens = tokens + at, .count = n, .wanted = at < m->first ? 0 : n };
        if (!forward_run(&s->runner.forward, &part, 1, s->runner.logits, err))
            return false;
        pool_run(m->pool, score_row, s, part.wanted);
        s->row += part.wanted;
    }
    return true;
}

static bool run_model(const struct measure *m, const struct quern_model *model, double *kl, struct quern_error *err)
{
    size_t rows = ROW_BYTES / (model->model.hyper.vocab * sizeof(float));
    struct runner_shape shape = { .context = m->chunk, .sequences = 1, .batch = m->chunk, .rows = rows < 1 ? 1 : rows, .kv =
                                  KV_F32 };
    struct scoring s = { .m = m, .kl = kl };
    if (shape.rows > m->chunk)
        shape.rows = m->chunk;
    bool ok = runner_open(&s.runner, model, &shape, m->pool, m->stop, err);
    for (size_t c = 0; ok && c < m->chunks; c++)
        ok = run_chunk(&s, m->tokens + c * m->chunk, err);
    runner_close(&s.runner);
    return ok;
}

size_t measure_bytes(const struct quern_model *source, size_t chunk, size_t chunks)
{
    return (chunk - chunk / 4) * chunks * source->model.hyper.vocab * sizeof(float);
}

bool measure_init(struct measure *m, const struct quern_model *source, const int32_t *tokens, size_t chunk, size_t chunks,
                  struct pool *pool, const volatile int *stop, struct quern_error *err)
{
    *m = (struct measure){ .source = source, .pool = pool, .stop = stop, .tokens = tokens, .chunk = chunk, .chunks = chunks,
                           .first = chunk / 4, .points = (chunk - chunk / 4) * chunks };
    m->teacher = mem_take_aligned(m->points, source->model.hyper.vocab * sizeof(float), "the source's probabilities", err);
    if (m->teacher && run_model(m, source, NULL, err))
        return true;
    measure_free(m);
    return false;
}

void measure_free(struct measure *m)
{
    free(m->teacher);
    *m = (struct measure){ 0 };
}

bool measure_kl(const struct measure *m, const struct quern_model *model, double *kl, double *mean, struct quern_error *err)
{
    double sum = 0, *list = kl ? kl : mem_take(m->points, sizeof *list, "results", err);
    bool ok = list && run_model(m, model, list, err);
    for (size_t i = 0; ok && i < m->points; i++)
        sum += list[i];
    *mean = sum / (double)m->points;
    if (!kl)
        free(list);
    return ok;
}

void measure_paired(const double *a, const double *b, size_t n, double *mean, double *error)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += b[i] - a[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (b[i] - a[i] - *mean) * (b[i] - a[i] - *mean);
    *error = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0;
}
