#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

/* The buffer for the memory roof is larger than all caches together, at least READ_LEAST; chunks of it are handed out as the
 * engine's are. */
enum { READ_LEAST = 512 << 20, READ_CHUNK = 1 << 20, PROBES = 5 };
/* A dot loop of one thread runs about so long per probe: long enough for the clock to rise, short enough to fit between rows. */
#define DOT_SECONDS 0.02
/* Roofs or repetitions that differ by more than this make a row noisy. */
#define NOISE 0.1

/* ---- roofs ------------------------------------------------------------------------------------------------------ */

static void read_chunk(void *arg, size_t index, size_t thread)
{
    struct bench *b = arg;
    volatile uint64_t sink = b->loops.read(b->buffer + index * READ_CHUNK, READ_CHUNK);
    (void)sink;
    (void)thread;
}

struct dots { roof_dot_fn *fn; size_t rounds; };

static void run_dots(void *arg, size_t index, size_t thread)
{
    struct dots *d = arg;
    volatile uint64_t sink = d->fn(d->rounds);
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
static double best_of_probes(struct bench *b, pool_fn *fn, void *arg, size_t chunks)
{
    double best = INFINITY;
    for (int i = 0; i < PROBES; i++) {
        double begin = machine_clock();
        pool_run(b->pool, fn, arg, chunks);
        best = fmin(best, machine_clock() - begin);
    }
    return best;
}

/* Four pieces per thread, so that a late thread does not decide alone. */
static double probe_dots(struct bench *b, const struct roof_dot *dot)
{
    struct dots dots = {dot->fn, 1000};
    size_t pieces = 4 * pool_threads(b->pool);
    double begin = machine_clock();
    dots.fn(dots.rounds);
    double once = machine_clock() - begin;
    dots.rounds = once > 0 ? (size_t)((double)dots.rounds * DOT_SECONDS / 4 / once) + 1 : 1000000;
    return (double)pieces * (double)dots.rounds * dot->ops / best_of_probes(b, run_dots, &dots, pieces);
}

static void probe(struct bench *b)
{
    b->roof.bytes = (double)b->buffer_bytes / best_of_probes(b, read_chunk, b, b->buffer_bytes / READ_CHUNK);
    for (int kind = 0; kind < ROOF_KINDS; kind++)
        b->roof.ops[kind] = b->used[kind] ? probe_dots(b, &b->loops.dot[kind]) : 0;
}

/* ---- what must be read and computed ------------------------------------------------------------------------------ */

static bool is_decode(const struct bench_row *row) { return strcmp(row->test, "decode") == 0; }

/* A whole repetition, stage by stage. */
static void add_costs(struct cost out[STAGES], const struct bench *b, const struct bench_row *row)
{
    struct cost_pass pass = {.model = &b->model->model, .kernels = &b->model->kernels, .kv = &b->runner.kv[0]};
    size_t at_once = is_decode(row) ? 1 : b->plan.pass;
    pass.sequences = row->batch;
    for (size_t at = 0; at < row->n; at += pass.tokens) {
        pass.tokens = row->n - at < at_once ? row->n - at : at_once;
        pass.depth = row->depth + at;
        pass.wanted = is_decode(row) || at + pass.tokens == row->n;
        cost_add_pass(out, &pass);
    }
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

/* Between what is timed only: writing to a terminal is work for the kernel and for whoever draws it. */
static void show(const struct bench *b, const char *what, double share)
{
    if (b->plan.show)
        b->plan.show(b->plan.show_arg, what, share);
}

/* The first cache, from nothing; of long prompts this is most of the work. */
static bool fill(struct bench *b, size_t depth, struct quern_error *err)
{
    static const char what[] = "filling the cache";
    show(b, what, 0);
    for (size_t at = 0, now; at < depth; at += now) {
        now = depth - at < b->plan.pass ? depth - at : b->plan.pass;
        if (!prefill(b, at, now, 0, err))
            return false;
        show(b, what, (double)(at + now) / (double)depth);
    }
    return true;
}

/* Bring every sequence of the test to `depth` tokens. A recurrent state cannot be cut back, so it is computed again. */
static bool set_depth(struct bench *b, size_t depth, size_t sequences, struct quern_error *err)
{
    struct kv *first = &b->runner.kv[0];
    bool there = first->used >= depth && !first->recurrent;
    if (!kv_rewind(first, there ? depth : 0, err) || (!there && !fill(b, depth, err)))
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

/* Every sequence goes on with other tokens, or all would choose the same experts. */
static bool decode(struct bench *b, size_t depth, size_t n, size_t sequences, struct quern_error *err)
{
    for (size_t step = 0; step < n; step++) {
        for (size_t i = 0; i < sequences; i++) {
            const int32_t *token = &b->tokens[(depth + step + i) % b->plan.context];
            b->parts[i] = (struct batch_part){.kv = &b->runner.kv[i], .tokens = token, .count = 1, .wanted = 1};
        }
        if (!forward_run(&b->runner.forward, b->parts, sequences, b->runner.logits, err))
            return false;
    }
    return true;
}

/* Once through the test; what brings the caches to their depth is not timed. */
static bool repetition(struct bench *b, const struct bench_row *row, double *seconds, struct quern_error *err)
{
    if (!set_depth(b, row->depth, row->batch, err))
        return false;
    if (b->runner.forward.clock)
        stages_start(b->runner.forward.clock);
    double begin = machine_clock();
    bool ok = is_decode(row) ? decode(b, row->depth, row->n, row->batch, err) : prefill(b, row->depth, row->n, 1, err);
    *seconds = machine_clock() - begin;
    if (b->runner.forward.clock)
        stages_stop(b->runner.forward.clock);
    return ok;
}

/* ---- a row ------------------------------------------------------------------------------------------------------- */

/* Least, median and most of the counted repetitions. */
struct spread { double least, median, most; };

static bool time_repetitions(struct bench *b, struct bench_row *row, struct spread *out, struct quern_error *err)
{
    double *seconds = mem_take(row->reps, sizeof *seconds, "timings", err);
    bool ok = seconds && repetition(b, row, &row->first, err);
    for (size_t i = 0; ok && i < row->reps; i++) {
        show(b, row->test, (double)(i + 1) / (double)(row->reps + 1));
        ok = repetition(b, row, &seconds[i], err);
    }
    if (ok) {
        size_t half = row->reps / 2;
        qsort(seconds, row->reps, sizeof *seconds, ascending);
        out->median = row->reps % 2 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
        out->least = seconds[0];
        out->most = seconds[row->reps - 1];
    }
    free(seconds);
    return ok;
}

static double apart(double a, double b) { return fabs(a - b) / fmax(a, b); }

/* The roofs of the row are the means of the probes before and after; how far those are apart, and the repetitions, is the
 * verdict. */
static void judge(struct bench_row *row, const struct rates *before, const struct rates *after, const struct spread *time)
{
    double memory = apart(before->bytes, after->bytes), arithmetic = 0, repetitions = apart(time->least, time->most);
    row->roof.bytes = (before->bytes + after->bytes) / 2;
    for (int kind = 0; kind < ROOF_KINDS; kind++) {
        row->roof.ops[kind] = (before->ops[kind] + after->ops[kind]) / 2;
        if (row->roof.ops[kind] > 0)
            arithmetic = fmax(arithmetic, apart(before->ops[kind], after->ops[kind]));
    }
    row->noisy = fmax(repetitions, fmax(memory, arithmetic)) > NOISE;
    if (row->noisy)
        snprintf(row->verdict, sizeof row->verdict, "noisy: repetitions %.0f %%; memory %.0f %%; arithmetic %.0f %% apart",
                 100 * repetitions, 100 * memory, 100 * arithmetic);
    else
        snprintf(row->verdict, sizeof row->verdict, "quiet");
}

bool bench_measure(struct bench *b, struct bench_row *row, struct quern_error *err)
{
    struct cost stages[STAGES] = {0};
    struct rates before = b->roof;
    struct spread time;
    if (!time_repetitions(b, row, &time, err))
        return false;
    probe(b);
    judge(row, &before, &b->roof, &time);
    add_costs(stages, b, row);
    struct cost cost = cost_sum(stages);
    double tokens = (double)row->n * (double)row->batch;
    row->threads = pool_threads(b->pool);
    row->seconds = time.median;
    row->tps_median = tokens / time.median;
    row->tps_min = tokens / time.most;
    row->tps_max = tokens / time.least;
    row->bytes_per_token = cost.bytes / tokens;
    row->gbps = cost.bytes / time.median * 1e-9;
    row->gops = cost_ops(&cost) / time.median * 1e-9;
    row->roof_gbps = row->roof.bytes * 1e-9;
    row->roof_gops = cost_peak(&cost, &row->roof) * 1e-9;
    row->share = cost_ideal(&cost, &row->roof) / time.median;
    row->load = b->plan.load;
    row->ttft = b->plan.load + (is_decode(row) ? time.median / (double)row->n : time.median);
    size_t copied, huge = settle_huge(b->model->settle, &copied), peak = machine_peak_memory();
    row->huge = fmin(1, (double)huge / (double)b->model->model.weight_bytes);
    row->copied = fmin(1, (double)copied / (double)b->model->model.weight_bytes);
    row->peak_memory = peak > b->buffer_bytes ? peak - b->buffer_bytes : peak;
    row->isa = b->loops.isa;
    row->kv = kv_name(b->plan.kv);
    return true;
}

/* ---- stages ------------------------------------------------------------------------------------------------------- */

/* A repetition with the clock on: all of it, then the clock's sums. */
struct timed { double total, seconds[STAGES], worked[STAGES]; };

static int by_total(const void *a, const void *b)
{
    return ascending(&((const struct timed *)a)->total, &((const struct timed *)b)->total);
}
static int by_seconds(const void *a, const void *b)
{
    return ascending(&((const struct bench_stage *)b)->seconds, &((const struct bench_stage *)a)->seconds);
}

/* One repetition's stages, per step. */
static size_t list_stages(struct bench_stage *out, const struct bench *b, const struct bench_row *row, const struct timed *timed)
{
    struct cost costs[STAGES] = {0};
    size_t n = 0;
    double steps = is_decode(row) ? (double)row->n : 1, threads = (double)pool_threads(b->pool), total = 0;
    add_costs(costs, b, row);
    for (int s = 0; s < STAGES; s++)
        total += timed->seconds[s];
    for (int s = 0; s < STAGES; s++) {
        double seconds = timed->seconds[s];
        if (seconds <= 0)
            continue;
        out[n++] = (struct bench_stage){
            .stage = (enum stage)s, .seconds = seconds / steps, .share = seconds / total,
            .waiting = fmax(0, 1 - timed->worked[s] / (seconds * threads)),
            .bytes = costs[s].bytes / steps, .ops = cost_ops(&costs[s]) / steps,
            .gbps = costs[s].bytes / seconds * 1e-9, .gops = cost_ops(&costs[s]) / seconds * 1e-9,
            .roof_share = cost_ideal(&costs[s], &row->roof) / seconds,
        };
    }
    qsort(out, n, sizeof *out, by_seconds);
    return n;
}

bool bench_profile(struct bench *b, const struct bench_row *row, struct bench_stage *out, size_t *count, struct quern_error *err)
{
    struct timed *timed = mem_take(row->reps, sizeof *timed, "timings of stages", err);
    bool ok = timed != NULL;
    b->runner.forward.clock = &b->clock;
    for (size_t i = 0; ok && i < row->reps; i++) {
        show(b, "stages", (double)i / (double)row->reps);
        ok = repetition(b, row, &timed[i].total, err);
        memcpy(timed[i].seconds, b->clock.seconds, sizeof timed[i].seconds);
        memcpy(timed[i].worked, b->clock.worked, sizeof timed[i].worked);
    }
    b->runner.forward.clock = NULL;
    if (ok) {
        qsort(timed, row->reps, sizeof *timed, by_total);
        *count = list_stages(out, b, row, &timed[row->reps / 2]);
    }
    free(timed);
    return ok;
}

/* ---- open and close ----------------------------------------------------------------------------------------------- */

static struct runner_shape shape_of(const struct bench_plan *plan)
{
    size_t pass = plan->pass > plan->sequences ? plan->pass : plan->sequences;
    return (struct runner_shape){
        .context = plan->context, .sequences = plan->sequences, .batch = pass, .rows = plan->sequences, .kv = plan->kv};
}

/* Twice the caches: what is left of one reading is of no use to the next. */
static size_t buffer_bytes(void)
{
    size_t bytes = 2 * machine_cache_bytes("");
    return bytes > READ_LEAST ? bytes - bytes % READ_CHUNK : READ_LEAST;
}

bool bench_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct bench_plan *plan,
                 struct quern_error *err)
{
    struct runner_shape shape = shape_of(plan);
    return runner_bytes(cache, scratch, model, &shape, plan->threads, err) &&
           (checked_add(scratch, *scratch, buffer_bytes()) || ERR(err, QUERN_EMEM, "more than the address space"));
}

static bool open_buffer(struct bench *b, struct quern_error *err)
{
    void *p = mmap(NULL, buffer_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return ERR(err, QUERN_EMEM, "not enough memory for a buffer of %zu bytes to read", buffer_bytes());
    b->buffer = p;
    b->buffer_bytes = buffer_bytes();
#ifdef MADV_HUGEPAGE
    /* With small pages the walks of the page tables would be part of the roof. */
    madvise(p, b->buffer_bytes, MADV_HUGEPAGE);
#endif
    memset(b->buffer, 1, b->buffer_bytes);
    return true;
}

/* Random ids (all alike would choose the same experts), and which roofs matter: those of a token of this model. */
static void prepare(struct bench *b)
{
    uint64_t state = 1;
    struct cost stages[STAGES] = {0};
    struct bench_row row = {.test = "decode", .n = 1, .batch = 1};
    for (size_t i = 0; i < b->plan.context; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (int32_t)((state >> 33) % b->model->model.hyper.vocab);
    }
    add_costs(stages, b, &row);
    struct cost cost = cost_sum(stages);
    for (int kind = 0; kind < ROOF_KINDS; kind++)
        b->used[kind] = cost.ops[kind] > 0;
    probe(b);
}

bool bench_open(struct bench *b, const struct quern_model *model, const struct bench_plan *plan, struct quern_error *err)
{
    struct runner_shape shape = shape_of(plan);
    *b = (struct bench){.model = model, .plan = *plan};
    roof_init(&b->loops, &model->kernels.cpu);
    bool ok = (b->pool = pool_open(plan->threads, err)) && stages_open(&b->clock, b->pool, err) &&
              runner_open(&b->runner, model, &shape, b->pool, plan->stop, err) &&
              (b->tokens = mem_take(plan->context, sizeof *b->tokens, "tokens", err)) &&
              (b->parts = mem_take(plan->sequences, sizeof *b->parts, "a batch", err)) && open_buffer(b, err);
    if (ok)
        prepare(b);
    else
        bench_close(b);
    return ok;
}

void bench_close(struct bench *b)
{
    if (b->buffer)
        munmap(b->buffer, b->buffer_bytes);
    runner_close(&b->runner);
    stages_close(&b->clock);
    pool_close(b->pool);
    free(b->tokens);
    free(b->parts);
    *b = (struct bench){0};
}
