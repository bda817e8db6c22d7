#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

/* The buffer for the memory roof: more than any cache; chunks of it are handed out as the engine's are. */
enum { READ_BYTES = 512 << 20, READ_CHUNK = 1 << 20, PROBES = 5 };
/* The dot loop of one thread runs about so long per probe. */
#define DOT_SECONDS 0.02

/* ---- roofs ------------------------------------------------------------------------------------------------------ */

static void read_chunk(void *arg, size_t index, size_t thread)
{
    struct bench *b = arg;
    volatile uint64_t sink = b->roof.read(b->buffer + index * READ_CHUNK, READ_CHUNK);
    (void)sink;
    (void)thread;
}

struct dots { struct bench *b; size_t rounds; };

static void run_dots(void *arg, size_t index, size_t thread)
{
    struct dots *d = arg;
    volatile uint64_t sink = d->b->roof.dot(d->rounds);
    (void)sink;
    (void)index;
    (void)thread;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Best of a few, since anything that disturbs makes it slower: a roof is what can be had. */
static void probe(struct bench *b)
{
    double best_read = INFINITY, best_dot = INFINITY;
    struct dots dots = {b, 1000};
    double begin = machine_clock();
    b->roof.dot(dots.rounds);
    double once = machine_clock() - begin;
    dots.rounds = once > 0 ? (size_t)((double)dots.rounds * DOT_SECONDS / once) + 1 : 1000000;
    for (int i = 0; i < PROBES; i++) {
        begin = machine_clock();
        pool_run(b->pool, read_chunk, b, b->buffer_bytes / READ_CHUNK);
        double seconds = machine_clock() - begin;
        best_read = seconds < best_read ? seconds : best_read;
        begin = machine_clock();
        /* Four pieces per thread, so that a late thread does not decide alone. */
        pool_run(b->pool, run_dots, &dots, 4 * pool_threads(b->pool));
        seconds = machine_clock() - begin;
        best_dot = seconds < best_dot ? seconds : best_dot;
    }
    b->roof_gbps = (double)b->buffer_bytes / best_read * 1e-9;
    b->roof_gops = 4.0 * (double)pool_threads(b->pool) * (double)dots.rounds * b->roof.dot_ops / best_dot * 1e-9;
}

/* ---- what must be read and computed ------------------------------------------------------------------------------ */

static double matrix_bytes(const struct matrix *m)
{
    return m->data ? (double)m->slices * (double)m->rows * (double)m->row_bytes : 0;
}
static double matrix_ops(const struct matrix *m)
{
    return m->data ? 2.0 * (double)m->slices * (double)m->rows * (double)m->cols : 0;
}

struct cost { double bytes, ops; };

/* Weights of a layer for `tokens` tokens at once: every matrix once; of the experts those that are likely to be chosen. */
static struct cost layer_cost(const struct model *m, const struct layer *l, double tokens)
{
    const struct matrix *const dense[] = {
        &l->q,    &l->k,    &l->v,       &l->out,      &l->q_a,         &l->q_b,       &l->kv_a,        &l->k_b,
        &l->v_b,  &l->kv_b, &l->in_proj, &l->out_proj, &l->ssm_x,       &l->ssm_dt,    &l->gate_proj,   &l->beta_alpha,
        &l->gate, &l->up,   &l->down,    &l->router,   &l->gate_shared, &l->up_shared, &l->down_shared, &l->shared_gate,
    };
    const struct matrix *const experts[] = {&l->gate_exps, &l->up_exps, &l->down_exps};
    struct cost cost = {0, 0};
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
        cost.bytes += matrix_bytes(dense[i]);
        cost.ops += tokens * matrix_ops(dense[i]);
    }
    if (l->experts && m->hyper.experts) {
        double share = (double)m->hyper.experts_used / (double)m->hyper.experts;
        for (size_t i = 0; i < 3; i++) {
            cost.bytes += matrix_bytes(experts[i]) * (1 - pow(1 - share, tokens));
            cost.ops += tokens * matrix_ops(experts[i]) * share;
        }
    }
    return cost;
}

/* Keys and values that tokens at positions [begin, begin + n) of one sequence read and multiply. A prefill reads each once per
 * pass, a decode step once per token. */
static struct cost cache_cost(const struct bench *b, double begin, double n, bool once)
{
    const struct kv *kv = &b->runner.kv[0];
    const struct model *m = &b->model->model;
    struct cost cost = {0, 0};
    for (size_t i = 0; i < kv->layers && i < m->hyper.layers; i++) {
        const struct kv_layer *l = &kv->layer[i];
        double window = m->layer[i].window ? (double)m->layer[i].window : INFINITY, row = (double)l->key_row,
               seen = begin + (n + 1) / 2;
        row += l->values != l->keys ? (double)l->value_row : 0;
        seen = seen < window ? seen : window;
        double rows = once ? (begin < window ? begin : window) + n : n * seen;
        cost.bytes += (double)l->heads * row * rows;
        cost.ops += 2.0 * (double)m->layer[i].heads * (double)(l->key_dim + l->value_dim) * seen * n;
    }
    return cost;
}

/* Bytes and operations of a whole test. */
static struct cost test_cost(const struct bench *b, const struct bench_row *row, bool decode)
{
    const struct model *m = &b->model->model;
    double pass = (double)(row->n < b->plan.pass ? row->n : b->plan.pass), tokens = decode ? (double)row->batch : pass;
    double passes = decode ? (double)row->n : ceil((double)row->n / pass), heads = decode ? (double)row->batch : 1;
    struct cost all = {0, 0};
    for (size_t i = 0; i < m->hyper.layers; i++) {
        struct cost l = layer_cost(m, &m->layer[i], tokens);
        all.bytes += passes * l.bytes;
        all.ops += passes * l.ops;
    }
    double outputs = decode ? passes : 1;
    all.bytes += outputs * matrix_bytes(&m->output);
    all.ops += outputs * heads * matrix_ops(&m->output);
    struct cost cache = cache_cost(b, (double)row->depth, (double)row->n, !decode);
    all.bytes += heads * cache.bytes;
    all.ops += heads * cache.ops;
    return all;
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static bool prefill(struct bench *b, size_t from, size_t n, size_t wanted, struct quern_error *err)
{
    for (size_t at = from, now; at < from + n; at += now) {
        now = from + n - at < b->plan.pass ? from + n - at : b->plan.pass;
        bool last = at + now == from + n;
        b->parts[0] =
            (struct batch_part){.kv = &b->runner.kv[0], .tokens = b->tokens + at, .count = now, .wanted = last ? wanted : 0};
        if (!forward_run(&b->runner.forward, b->parts, 1, b->runner.logits, err))
            return false;
    }
    return true;
}

/* Bring every sequence of the test to `depth` tokens. A recurrent state cannot be cut back, so it is computed again. */
static bool set_depth(struct bench *b, size_t depth, size_t sequences, struct quern_error *err)
{
    struct kv *first = &b->runner.kv[0];
    bool there = first->used >= depth && !first->recurrent;
    if (!kv_rewind(first, there ? depth : 0, err) || (!there && depth && !prefill(b, 0, depth, 0, err)))
        return false;
    for (size_t i = 1; i < sequences; i++) {
        struct kv *kv = &b->runner.kv[i];
        if (depth && (kv->used < depth || kv->recurrent)) {
            memcpy(kv->data, first->data, first->data_bytes);
            if (first->state_floats)
                memcpy(kv->state, first->state, first->state_floats * sizeof *kv->state);
            kv->used = first->used;
        } else if (!kv_rewind(kv, depth, err)) {
            return false;
        }
    }
    return true;
}

static bool decode(struct bench *b, size_t depth, size_t n, size_t sequences, struct quern_error *err)
{
    for (size_t step = 0; step < n; step++) {
        for (size_t i = 0; i < sequences; i++)
            b->parts[i] = (struct batch_part){.kv = &b->runner.kv[i], .tokens = b->tokens + depth + step, .count = 1, .wanted = 1};
        if (!forward_run(&b->runner.forward, b->parts, sequences, b->runner.logits, err))
            return false;
    }
    return true;
}

static bool repetition(struct bench *b, const struct bench_row *row, bool decoding, double *seconds, struct quern_error *err)
{
    if (!set_depth(b, row->depth, row->batch, err))
        return false;
    double begin = machine_clock();
    bool ok = decoding ? decode(b, row->depth, row->n, row->batch, err) : prefill(b, row->depth, row->n, 1, err);
    *seconds = machine_clock() - begin;
    return ok;
}

static bool differ(double a, double b) { return fabs(a - b) > 0.1 * (a > b ? a : b); }

bool bench_measure(struct bench *b, struct bench_row *row, struct quern_error *err)
{
    static const char *const kv_names[] = {"f32", "f16", "bf16", "q8_0", "q4_0"};
    bool decoding = strcmp(row->test, "decode") == 0;
    double *seconds = mem_take(row->reps, sizeof *seconds, "timings", err), warm;
    bool ok = seconds && repetition(b, row, decoding, &warm, err);
    double gbps = b->roof_gbps, gops = b->roof_gops;
    for (size_t i = 0; ok && i < row->reps; i++)
        ok = repetition(b, row, decoding, &seconds[i], err);
    if (!ok) {
        free(seconds);
        return false;
    }
    qsort(seconds, row->reps, sizeof *seconds, ascending);
    size_t half = row->reps / 2;
    double median = row->reps % 2 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2, least = seconds[0],
           most = seconds[row->reps - 1];
    free(seconds);
    probe(b);
    struct cost cost = test_cost(b, row, decoding);
    double tokens = (double)row->n * (double)row->batch;
    row->threads = pool_threads(b->pool);
    row->tps_median = tokens / median;
    row->tps_min = tokens / most;
    row->tps_max = tokens / least;
    row->bytes_per_token = cost.bytes / tokens;
    row->gbps = cost.bytes / median * 1e-9;
    row->gops = cost.ops / median * 1e-9;
    row->roof_gbps = (gbps + b->roof_gbps) / 2;
    row->roof_gops = (gops + b->roof_gops) / 2;
    double memory = cost.bytes / row->roof_gbps * 1e-9, arithmetic = cost.ops / row->roof_gops * 1e-9;
    row->share = (memory > arithmetic ? memory : arithmetic) / median;
    row->noisy = differ(gbps, b->roof_gbps) || differ(gops, b->roof_gops) || differ(least, most);
    row->load = b->plan.load;
    row->ttft = b->plan.load + (decoding ? (double)row->batch / row->tps_median : median);
    row->peak_memory = machine_peak_memory();
    row->isa = b->roof.isa;
    row->kv = kv_names[b->plan.kv];
    return true;
}

/* ---- open and close ----------------------------------------------------------------------------------------------- */

static struct runner_shape shape_of(const struct bench_plan *plan)
{
    size_t pass = plan->pass > plan->sequences ? plan->pass : plan->sequences;
    return (struct runner_shape){
        .context = plan->context, .sequences = plan->sequences, .batch = pass, .rows = plan->sequences, .kv = plan->kv};
}

bool bench_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct bench_plan *plan,
                 struct quern_error *err)
{
    struct runner_shape shape = shape_of(plan);
    return runner_bytes(cache, scratch, model, &shape, plan->threads, err) &&
           (checked_add(scratch, *scratch, READ_BYTES) || ERR(err, QUERN_EMEM, "more than the address space"));
}

bool bench_open(struct bench *b, const struct quern_model *model, const struct bench_plan *plan, struct quern_error *err)
{
    struct runner_shape shape = shape_of(plan);
    uint64_t state = 1;
    *b = (struct bench){.model = model, .plan = *plan, .buffer_bytes = READ_BYTES};
    roof_init(&b->roof, &model->kernels.cpu);
    bool ok = (b->pool = pool_open(plan->threads, err)) && runner_open(&b->runner, model, &shape, b->pool, plan->stop, err) &&
              (b->tokens = mem_take(plan->context, sizeof *b->tokens, "tokens", err)) &&
              (b->parts = mem_take(plan->sequences, sizeof *b->parts, "a batch", err));
    void *p = ok ? mmap(NULL, b->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (ok && p == MAP_FAILED)
        ok = ERR(err, QUERN_EMEM, "not enough memory for a buffer of %zu bytes to read", b->buffer_bytes);
    if (!ok) {
        bench_close(b);
        return false;
    }
    b->buffer = p;
#ifdef MADV_HUGEPAGE
    madvise(p, b->buffer_bytes, MADV_HUGEPAGE);
#endif
    memset(b->buffer, 1, b->buffer_bytes);
    for (size_t i = 0; i < plan->context; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (int32_t)((state >> 33) % model->model.hyper.vocab);
    }
    probe(b);
    return true;
}

void bench_close(struct bench *b)
{
    if (b->buffer)
        munmap(b->buffer, b->buffer_bytes);
    runner_close(&b->runner);
    pool_close(b->pool);
    free(b->tokens);
    free(b->parts);
    *b = (struct bench){0};
}
