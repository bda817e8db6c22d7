/* quern bench: how fast a model runs here, against what the machine can give. */
#include <stdlib.h>

#include "cmd.h"
#include "cmd_bench.h"
#include "cmd_engine.h"
#include "cpu_words.h"
#include "machine.h"
#include "pool.h"
#include "session.h"
#include "synthetic.h"

struct bench_args {
    struct args          args;
    const char          *model, *cpu, *synthetic, *save;
    struct option_counts prompt, gen, batch, depth, threads;
    size_t               reps, mem_limit, pass;
    int                  kv, format, huge_pages;
    bool                 stages, json, force;
};

#define OFFSET(field) offsetof(struct bench_args, field)
static const struct option options[] = {
    {.name = "model",
     .letter = 'm',
     .kind = OPTION_FILE,
     .offset = OFFSET(model),
     .arg = "FILE",
     .help = "the model, a GGUF file"},
    {.name = "synthetic",
     .kind = OPTION_TEXT,
     .offset = OFFSET(synthetic),
     .arg = "SHAPE:TYPE",
     .help = "random weights instead of a file, for example 1b:q4_k_m; shapes: " SYNTHETIC_SHAPES},
    {.name = "save",
     .kind = OPTION_FILE,
     .offset = OFFSET(save),
     .arg = "FILE",
     .help = "only write the synthetic model to a file, so that other engines can run it"},
    {.name = "force", .kind = OPTION_SWITCH, .offset = OFFSET(force), .help = "--save may replace an existing file"},
    {.name = "prompt",
     .letter = 'p',
     .kind = OPTION_COUNTS,
     .offset = OFFSET(prompt),
     .arg = "N,..",
     .fallback = "512",
     .help = "tokens to prefill; 0: no such test"},
    {.name = "gen",
     .letter = 'n',
     .kind = OPTION_COUNTS,
     .offset = OFFSET(gen),
     .arg = "N,..",
     .fallback = "128",
     .help = "tokens to decode; 0: no such test"},
    {.name = "batch",
     .letter = 'b',
     .kind = OPTION_COUNTS,
     .offset = OFFSET(batch),
     .arg = "N,..",
     .fallback = "1",
     .help = "sequences that are decoded at once"},
    {.name = "depth",
     .letter = 'd',
     .kind = OPTION_COUNTS,
     .offset = OFFSET(depth),
     .arg = "N,..",
     .fallback = "0",
     .help = "tokens that are in the cache already"},
    {.name = "threads",
     .letter = 't',
     .kind = OPTION_COUNTS,
     .offset = OFFSET(threads),
     .arg = "N,..",
     .fallback = "0",
     .help = "threads; 0: the physical fast cores within the affinity mask and the CPU quota"},
    {.name = "reps",
     .letter = 'r',
     .kind = OPTION_COUNT,
     .offset = OFFSET(reps),
     .arg = "N",
     .fallback = "5",
     .help = "repetitions of each test, after one that is not counted"},
    {.name = "pass",
     .kind = OPTION_COUNT,
     .offset = OFFSET(pass),
     .arg = "N",
     .fallback = "512",
     .help = "tokens per pass when prefilling"},
    {.name = "kv",
     .kind = OPTION_CHOICE,
     .offset = OFFSET(kv),
     .arg = "TYPE",
     .fallback = "auto",
     .choices = KV_CHOICES,
     .help = KV_HELP},
    {.name = "cpu",
     .kind = OPTION_TEXT,
     .offset = OFFSET(cpu),
     .arg = "LEVEL",
     .choices = CPU_CHOICES,
     .help = "highest instruction set to use (also: environment variable QUERN_CPU)"},
    {.name = "huge-pages",
     .kind = OPTION_CHOICE,
     .offset = OFFSET(huge_pages),
     .arg = "WHEN",
     .fallback = "auto",
     .choices = HUGE_PAGES_CHOICES,
     .help = "weights in huge pages before anything is timed: where memory is plentiful, always or never"},
    {.name = "mem-limit",
     .kind = OPTION_BYTES,
     .offset = OFFSET(mem_limit),
     .arg = "SIZE",
     .fallback = "0",
     .help = "refuse to take more than this for weights, caches and scratch; 0: what the system gives"},
    {.name = "stages",
     .kind = OPTION_SWITCH,
     .offset = OFFSET(stages),
     .help = "after each row, how its time divides over the stages of the pass (measured in repetitions of its own)"},
    {.name = "format",
     .letter = 'o',
     .kind = OPTION_CHOICE,
     .offset = OFFSET(format),
     .arg = "FORMAT",
     .fallback = "table",
     .choices = "table|md|csv|json|jsonl",
     .help = "how to print"},
    {.name = "json", .kind = OPTION_SWITCH, .offset = OFFSET(json), .help = "the same as --format jsonl: one object per row"},
    {0}};
#undef OFFSET

static const struct example bench_examples[] = {
    {"quern bench model.gguf -p 256 -n 16 -b 1,4", "a prompt of 256 tokens; 16 more of one sequence, and of four at once"},
    {"quern bench --synthetic 0.1b:q4_k_m --save 0.1b.gguf", "random weights in a known shape, for other engines too"},
    {NULL, NULL}
};

const struct verb verb_bench = {
    .name = "bench",
    .summary = "measure the speed of a model",
    .operands = "[MODEL]",
    .operands_max = 1,
    .examples = bench_examples,
    .options = options,
    .size = sizeof(struct bench_args),
    .main = cmd_bench,
    .details =
        "A row per test: tokens per second of all sequences together (median, least and most of the repetitions), the bytes that "
        "must be read per second (weights in use once per step, the caches' keys and values) and the operations (two per weight "
        "and token, and attention), and the share of the roof: the time that memory or arithmetic alone would need, whichever is "
        "longer, divided by the time taken. The roofs are measured in the same run with the same threads: reading a buffer larger "
        "than the caches, and products of the instruction set in use - of bytes for quantized weights, of bfloat16 for BF16 "
        "weights where the CPU has it, of 16-bit integers for attention over an I16 cache, of floats for the rest. They are "
        "measured again after each row; a row whose roofs or repetitions differ by more than a tenth is called noisy, with what "
        "moved by how much: do not report it.\n"
        "The time to the first token is that of opening the model (mapped, not read) and of the prefill; in a file that nobody "
        "has read lately the first pass takes longer, which --json gives as first_seconds. Peak memory counts mapped pages that "
        "were touched, and not the buffer of the roof.\n"
        "--stages tells for one prefill, or one step of a decode test, where the time goes: per stage the milliseconds, its part "
        "of all, the part of the threads' time that was spent waiting (at barriers, and beside stages that one thread does), the "
        "bytes and operations that it cannot do without, and its share of its own roof.",
};

/* ---- the tests -------------------------------------------------------------------------------------------------- */

static bool one(struct bench *b, const struct bench_args *a, struct bench_row *row, struct bench_output *out,
                struct quern_error *err)
{
    struct bench_stage stages[STAGES];
    struct progress *progress = b->plan.show_arg;
    size_t count = 0;
    if (row->n == 0)
        return true;
    bool ok = bench_measure(b, row, err) && (!a->stages || bench_profile(b, row, stages, &count, err));
    if (progress->what)
        progress_end(progress);
    progress->what = NULL;           /* the next row's time counts from its own begin */
    if (ok)
        bench_print_row(out, row, stages, count);
    return ok;
}

/* Everything for one number of threads. *last: the last row that was measured. */
static bool all(struct bench *b, const struct bench_args *a, struct bench_output *out, struct bench_row *last,
                struct quern_error *err)
{
    bool ok = true;
    for (size_t d = 0; d < a->depth.count; d++) {
        struct bench_row row = {.test = "prefill", .batch = 1, .depth = a->depth.items[d], .reps = a->reps};
        for (size_t i = 0; ok && i < a->prompt.count; i++) {
            row.n = a->prompt.items[i];
            ok = one(b, a, &row, out, err);
            *last = row.n && ok ? row : *last;
        }
        row.test = "decode";
        for (size_t k = 0; k < a->batch.count; k++)
            for (size_t i = 0; ok && i < a->gen.count; i++) {
                row.n = a->gen.items[i];
                row.batch = a->batch.items[k];
                ok = one(b, a, &row, out, err);
                *last = row.n && ok ? row : *last;
            }
    }
    return ok;
}

static size_t most(const struct option_counts *list)
{
    size_t m = 0;
    for (size_t i = 0; i < list->count; i++)
        m = list->items[i] > m ? list->items[i] : m;
    return m;
}

/* *load: seconds; the making of random weights does not count. */
static struct quern_model *open_model(const struct bench_args *a, struct synthetic *random, double *load, struct quern_error *err)
{
    struct quern_model_options choices = {.cpu = a->cpu, .threads = 1};
    struct engine_args engine = {.model = a->model, .cpu = a->cpu, .threads = 1, .huge_pages = a->huge_pages};
    struct quern_model *model;
    if (a->synthetic && (a->model || a->args.operand_count)) {
        ERR(err, QUERN_EUSAGE, "--synthetic and a model");
        return NULL;
    }
    if (a->synthetic && !synthetic_make(random, a->synthetic, err))
        return NULL;
    double begin = machine_clock();
    if (a->synthetic)
        model = quern_view_model(random->data, random->size, random->name, &choices, err);
    else
        model = engine_open(&engine, &a->args, err);
    *load = machine_clock() - begin;
    if (model)
        settle_wait(model->settle);      /* not part of `load`: the model can be used meanwhile */
    return model;
}

static bool save_only(const struct bench_args *a, struct quern_error *err)
{
    struct synthetic random;
    if (!a->synthetic)
        return ERR(err, QUERN_EUSAGE, "--save needs --synthetic");
    if (!synthetic_make(&random, a->synthetic, err))
        return false;
    bool ok = synthetic_save(&random, a->save, a->force, err);
    synthetic_free(&random);
    return ok;
}

static bool check_lists(const struct bench_args *a, struct quern_error *err)
{
    for (size_t i = 0; i < a->batch.count; i++)
        if (a->batch.items[i] < 1 || a->batch.items[i] > 256)
            return ERR(err, QUERN_EUSAGE, "--batch %zu, 1 to 256 are allowed", a->batch.items[i]);
    for (size_t i = 0; i < a->threads.count; i++)
        if (a->threads.items[i] && !pool_allows(a->threads.items[i], err))
            return false;
    if (a->reps < 1 || a->pass < 1)
        return ERR(err, QUERN_EUSAGE, "--reps and --pass must be at least 1");
    if (most(&a->prompt) == 0 && most(&a->gen) == 0)
        return ERR(err, QUERN_EUSAGE, "--prompt 0 and --gen 0: no test is left");
    return true;
}

/* All tests for one number of threads (0: the default): memory is planned, taken and given back. */
static bool run_threads(const struct bench_args *a, const struct quern_model *model, double load, size_t threads,
                        struct bench_output *out, struct bench_row *last, struct quern_error *err)
{
    size_t tokens = most(&a->prompt) > most(&a->gen) ? most(&a->prompt) : most(&a->gen), cache, scratch;
    struct engine_args engine = {.mem_limit = a->mem_limit};
    struct progress progress = {0};
    struct bench bench;
    struct bench_plan plan = {
        .threads = threads ? threads : quern_default_threads(), .sequences = most(&a->batch), .pass = a->pass,
        .context = most(&a->depth) + tokens, .kv = session_kv(model, (enum quern_kv)a->kv), .load = load,
        .stop = cli_catch_signals(), .show = progress_step, .show_arg = &progress,
    };
    if (!bench_bytes(&cache, &scratch, model, &plan, err) || !engine_plan_bytes(model, &engine, plan.kv, cache, scratch, err) ||
        !bench_open(&bench, model, &plan, err))
        return false;
    bool ok = all(&bench, a, out, last, err);
    bench_close(&bench);
    return ok;
}

static bool run(struct bench_args *a, struct quern_error *err)
{
    struct synthetic random = {0};
    struct bench_output out = {.format = a->json ? BENCH_JSONL : (enum bench_format)a->format, .stages = a->stages};
    double load = 0;
    if (a->force && !a->save)
        return ERR(err, QUERN_EUSAGE, "--force is for --save");
    if (a->save)
        return save_only(a, err);
    struct bench_row *last = check_lists(a, err) ? mem_take(a->threads.count, sizeof *last, "rows", err) : NULL;
    struct quern_model *model = last ? open_model(a, &random, &load, err) : NULL;
    bool ok = model != NULL;
    size_t feet = 0;
    for (size_t i = 0; ok && i < a->threads.count; i++) {
        ok = run_threads(a, model, load, a->threads.items[i], &out, &last[feet], err);
        feet += ok && last[feet].n;
    }
    if (out.any)
        bench_print_foot(&out, last, feet);
    free(last);
    quern_close_model(model);
    synthetic_free(&random);
    return ok;
}

int cmd_bench(int argc, char **argv)
{
    struct bench_args a;
    struct quern_error err = {0};
    int code;
    if (!cli_begin(&quern_program, &verb_bench, argc, argv, &a, &code))
        return code;
    code = run(&a, &err) ? 0 : cli_fail(&err);
    return cli_end(&verb_bench, &a, code);
}
