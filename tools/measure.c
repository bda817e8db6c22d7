#include "measure.h"

#include <math.h>
#include <stdlib.h>

/* Rows of logits at hand at a time take at most so many bytes: with fewer than some hundred rows the head's weights are unpacked
 * too often. */
static const size_t ROW_BYTES = (size_t)128 << 20;
/* What layers read takes at most so many bytes; where it would be more, only every so many-th layer's is kept. */
static const size_t TRAIL_BYTES = (size_t)256 << 20;
/* Tokens that go through the model together: weights are unpacked once for them. */
enum { PASS_TOKENS = 1024 };

struct scoring {
    const struct measure *m;
    struct runner         runner;
    double               *kl;        /* NULL: the rows become the teacher's */
    size_t                row;       /* of the first row of logits of the pass */
    size_t                slice;     /* of the first at hand, in the pass      */
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
    float *teacher = s->m->teacher + (s->row + s->slice + index) * vocab;
    double total = log_sum(x, vocab), kl = 0;
    (void)thread;
    if (!s->kl) {
        for (size_t i = 0; i < vocab; i++)
            teacher[i] = (float)(x[i] - total);
        return;
    }
    for (size_t i = 0; i < vocab; i++)
        kl += (double)expf(teacher[i]) * ((double)teacher[i] - ((double)x[i] - total));
    s->kl[s->row + s->slice + index] = kl > 0 ? kl : 0;
}

static void score_rows(void *arg, size_t row, size_t count)
{
    struct scoring *s = arg;
    s->slice = row;
    pool_run(s->m->pool, score_row, s, count);
}

/* Tokens of chunks [0, chunk) lie before those of the next in every kept layer; the head's are the scored ones only. */
static float *trail_at(const struct measure *m, size_t layer, size_t chunk)
{
    size_t width = m->source->model.hyper.width, layers = m->source->model.hyper.layers, tokens = m->chunks * m->chunk;
    if (layer == layers)
        return m->trail + ((layers - 1) / m->every * tokens + chunk * (m->chunk - m->first)) * width;
    return layer && layer % m->every == 0 ? m->trail + ((layer / m->every - 1) * tokens + chunk * m->chunk) * width : NULL;
}

static size_t pass_chunks(size_t chunk, size_t chunks)
{
    size_t n = chunk < PASS_TOKENS ? PASS_TOKENS / chunk : 1;
    return n < chunks ? n : chunks;
}

/* Floats of all kept layers: every so many-th of those after the first, and the head. */
static size_t trail_floats(const struct quern_model *source, size_t chunk, size_t chunks, size_t *every)
{
    size_t width = source->model.hyper.width, layers = source->model.hyper.layers, tokens = chunk * chunks;
    size_t most = TRAIL_BYTES / (tokens * width * sizeof(float) + 1);
    *every = layers / (most ? most : 1) + 1;
    return ((layers - 1) / *every * tokens + measure_scored(chunk) * chunks) * width;
}

static struct runner_shape pass_shape(const struct quern_model *source, size_t chunk, size_t chunks)
{
    size_t together = pass_chunks(chunk, chunks), rows = ROW_BYTES / (source->model.hyper.vocab * sizeof(float)) + 1;
    size_t scored = together * measure_scored(chunk);
    return (struct runner_shape){ .context = chunk, .sequences = together, .batch = together * chunk,
                                  .rows = rows < scored ? rows : scored, .kv = KV_F32 };
}

/* Some chunks together, from layer `from` on, what layers up to `to` read being kept. */
static bool run_chunks(struct scoring *s, size_t chunk, size_t count, size_t from, size_t to, struct batch_part *parts,
                       float **keep, struct quern_error *err)
{
    const struct measure *m = s->m;
    size_t layers = m->source->model.hyper.layers;
    struct forward_trail trail = { .first = from, .input = from ? trail_at(m, from, chunk) : NULL, .keep = keep,
                                   .rows = s->runner.shape.rows, .see = score_rows, .arg = s };
    for (size_t i = 0; i <= layers; i++)
        keep[i] = i > from && i <= to ? trail_at(m, i, chunk) : NULL;
    for (size_t i = 0; i < count; i++) {
        if (!kv_rewind(&s->runner.kv[i], 0, err))
            return false;
        parts[i] = (struct batch_part){ .kv = &s->runner.kv[i], .tokens = m->tokens + (chunk + i) * m->chunk, .count = m->chunk,
                                        .wanted = m->chunk - m->first };
    }
    s->row = chunk * (m->chunk - m->first);
    s->runner.forward.trail = &trail;
    bool ok = forward_run(&s->runner.forward, parts, count, s->runner.logits, err);
    s->runner.forward.trail = NULL;
    return ok;
}

/* All chunks; `model` is the one that is followed before layer `first`. */
static bool run_model(struct measure *m, const struct quern_model *model, size_t first, double *kl, struct quern_error *err)
{
    struct runner_shape shape = pass_shape(model, m->chunk, m->chunks);
    struct scoring s = { .m = m, .kl = kl };
    size_t from = first < m->known ? first : m->known, layers = model->model.hyper.layers;
    while (from && !trail_at(m, from, 0))
        from--;
    struct batch_part *parts = mem_take(m->together, sizeof *parts, "a pass", err);
    float **keep = parts ? mem_take(layers + 1, sizeof *keep, "a pass", err) : NULL;
    bool ok = keep && runner_open(&s.runner, model, &shape, m->pool, m->stop, err);
    for (size_t c = 0, n; ok && c < m->chunks; c += n) {
        n = m->chunks - c < m->together ? m->chunks - c : m->together;
        ok = run_chunks(&s, c, n, from, first, parts, keep, err);
    }
    m->known = ok && first > m->known ? first : m->known;
    runner_close(&s.runner);
    free(parts);
    free(keep);
    return ok;
}

bool measure_bytes(size_t *out, const struct quern_model *source, size_t chunk, size_t chunks, size_t threads,
                   struct quern_error *err)
{
    struct runner_shape shape = pass_shape(source, chunk, chunks);
    size_t cache, scratch, every;
    if (!runner_bytes(&cache, &scratch, source, &shape, threads, err))
        return false;
    *out = cache + scratch + trail_floats(source, chunk, chunks, &every) * sizeof(float) +
           measure_scored(chunk) * chunks * source->model.hyper.vocab * sizeof(float);
    return true;
}

bool measure_init(struct measure *m, const struct quern_model *source, const int32_t *tokens, size_t chunk, size_t chunks,
                  struct pool *pool, const volatile int *stop, struct quern_error *err)
{
    *m = (struct measure){ .source = source, .pool = pool, .stop = stop, .tokens = tokens, .chunk = chunk, .chunks = chunks,
                           .first = chunk - measure_scored(chunk), .points = measure_scored(chunk) * chunks,
                           .together = pass_chunks(chunk, chunks) };
    size_t floats = trail_floats(source, chunk, chunks, &m->every);
    m->teacher = mem_take_aligned(m->points, source->model.hyper.vocab * sizeof(float), "the source's probabilities", err);
    m->trail = m->teacher ? mem_take_aligned(floats, sizeof(float), "what layers read", err) : NULL;
    if (m->trail && run_model(m, source, source->model.hyper.layers, NULL, err))
        return true;
    measure_free(m);
    return false;
}

void measure_free(struct measure *m)
{
    free(m->teacher);
    free(m->trail);
    *m = (struct measure){ 0 };
}

void measure_follow(struct measure *m, size_t first)
{
    m->known = m->known < first ? m->known : first;
}

bool measure_kl(struct measure *m, const struct quern_model *model, size_t first, double *kl, double *mean,
                struct quern_error *err)
{
    double sum = 0, *list = kl ? kl : mem_take(m->points, sizeof *list, "results", err);
    bool ok = list && run_model(m, model, first, list, err);
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
