/* quern bench: how fast a model runs here, against what the machine can give. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "cmd.h"
#include "cmd_engine.h"
#include "machine.h"
#include "synthetic.h"

struct bench_args {
    struct args          args;
    const char          *model, *cpu, *synthetic, *save;
    struct option_counts prompt, gen, batch, depth, threads;
    size_t               reps, mem_limit, pass;
    int                  kv, format, huge_pages;
    bool                 json;
};

enum { TABLE, MD, CSV, JSON, JSONL };

#define OFFSET(field) offsetof(struct bench_args, field)
static const struct option options[] = {
    {.name = "model", .letter = 'm', .kind = OPTION_FILE, .offset = OFFSET(model), .arg = "FILE", .help = "the model, a GGUF file"},
    {.name = "synthetic", .kind = OPTION_TEXT, .offset = OFFSET(synthetic), .arg = "SHAPE:TYPE",
     .help = "random weights instead of a file, for example 1b:q4_k_m; shapes: " SYNTHETIC_SHAPES},
    {.name = "save", .kind = OPTION_FILE, .offset = OFFSET(save), .arg = "FILE",
     .help = "only write the synthetic model to a file, so that other engines can run it"},
    {.name = "prompt", .letter = 'p', .kind = OPTION_COUNTS, .offset = OFFSET(prompt), .arg = "N,..", .fallback = "512",
     .help = "tokens to prefill; 0: no such test"},
    {.name = "gen", .letter = 'n', .kind = OPTION_COUNTS, .offset = OFFSET(gen), .arg = "N,..", .fallback = "128",
     .help = "tokens to decode; 0: no such test"},
    {.name = "batch", .letter = 'b', .kind = OPTION_COUNTS, .offset = OFFSET(batch), .arg = "N,..", .fallback = "1",
     .help = "sequences that are decoded at once"},
    {.name = "depth", .letter = 'd', .kind = OPTION_COUNTS, .offset = OFFSET(depth), .arg = "N,..", .fallback = "0",
     .help = "tokens that are in the cache already"},
    {.name = "threads", .letter = 't', .kind = OPTION_COUNTS, .offset = OFFSET(threads), .arg = "N,..", .fallback = "0",
     .help = "threads; 0: the physical fast cores within the affinity mask and the CPU quota"},
    {.name = "reps", .letter = 'r', .kind = OPTION_COUNT, .offset = OFFSET(reps), .arg = "N", .fallback = "5",
     .help = "repetitions of each test, after one that is not counted"},
    {.name = "pass", .kind = OPTION_COUNT, .offset = OFFSET(pass), .arg = "N", .fallback = "512",
     .help = "tokens per pass when prefilling"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = OFFSET(kv), .arg = "TYPE", .fallback = "f16", .choices = KV_CHOICES,
     .help = "type of the cache of keys and values"},
    {.name = "cpu", .kind = OPTION_TEXT, .offset = OFFSET(cpu), .arg = "LEVEL", .choices = "ref|avx2|avx512|amx|neon|dotprod|i8mm",
     .help = "highest instruction set to use (also: environment variable QUERN_CPU)"},
    {.name = "huge-pages", .kind = OPTION_CHOICE, .offset = OFFSET(huge_pages), .arg = "WHEN", .fallback = "auto",
     .choices = HUGE_PAGES_CHOICES, .help = "weights in huge pages before anything is timed: where memory is plentiful, always or never"},
    {.name = "mem-limit", .kind = OPTION_BYTES, .offset = OFFSET(mem_limit), .arg = "SIZE", .fallback = "0",
     .help = "refuse to take more than this for weights, caches and scratch; 0: what the system gives"},
    {.name = "format", .letter = 'o', .kind = OPTION_CHOICE, .offset = OFFSET(format), .arg = "FORMAT", .fallback = "table",
     .choices = "table|md|csv|json|jsonl", .help = "how to print"},
    {.name = "json", .kind = OPTION_SWITCH, .offset = OFFSET(json), .help = "the same as --format jsonl: one object per row"},
    {0}
};
#undef OFFSET

const struct verb verb_bench = {
    .name = "bench",
    .summary = "measure the speed of a model",
    .operands = "[MODEL]",
    .operands_max = 1,
    .options = options,
    .size = sizeof(struct bench_args),
    .main = cmd_bench,
    .details =
        "A row per test: tokens per second of all sequences together (median, least and most of the repetitions), the bytes that "
        "must be read per second (weights in use once per step, the caches' keys and values) and the operations (two per weight "
        "and token, and attention), and the share of the roof: the time that memory or arithmetic alone would need, whichever is "
        "longer, divided by the time taken. The roofs are measured in the same run with the same threads: reading a buffer larger "
        "than the caches, and 8-bit dot products of the instruction set in use. They are measured again after each row; 'noisy' "
        "says that they, or the repetitions, differ by more than a tenth: do not report such a row.",
};

/* ---- printing --------------------------------------------------------------------------------------------------- */

static void print_object(const struct bench_row *r)
{
    printf(
        "{\"test\":\"%s\",\"n\":%zu,\"batch\":%zu,\"depth\":%zu,\"threads\":%zu,\"tps_median\":%.3f,"
        "\"tps_min\":%.3f,\"tps_max\":%.3f,"
        "\"bytes_per_token\":%.0f,\"gbps\":%.3f,\"gops\":%.3f,\"roof_gbps\":%.3f,\"roof_gops\":%.3f,\"share_of_roof\":%.4f,"
        "\"ttft_seconds\":%.6f,\"load_seconds\":%.6f,\"peak_memory\":%zu,\"isa\":\"%s\",\"kv\":\"%s\",\"reps\":%zu,\"noisy\":%s}",
        r->test, r->n, r->batch, r->depth, r->threads, r->tps_median, r->tps_min, r->tps_max, r->bytes_per_token, r->gbps, r->gops,
        r->roof_gbps, r->roof_gops, r->share, r->ttft, r->load, r->peak_memory, r->isa, r->kv, r->reps,
        r->noisy ? "true" : "false");
}

static void print_head(int format)
{
    if (format == TABLE)
        printf("%-8s %6s %5s %6s %7s %10s %19s %8s %8s %7s %8s\n", "test", "n", "batch", "depth", "threads", "tokens/s",
               "least-most", "GB/s", "Gop/s", "roof", "first s");
    else if (format == MD)
        puts("| test | n | batch | depth | threads | tokens/s | least-most | GB/s | Gop/s | of roof | first token, s |\n"
             "|---|---|---|---|---|---|---|---|---|---|---|");
    else if (format == CSV)
        puts("test,n,batch,depth,threads,tps_median,tps_min,tps_max,bytes_per_token,gbps,gops,roof_gbps,roof_gops,share_of_roof,"
             "noisy");
    else if (format == JSON)
        puts("[");
}

static void print_row(int format, const struct bench_row *r, bool first)
{
    char spread[48];
    snprintf(spread, sizeof spread, "%.1f-%.1f", r->tps_min, r->tps_max);
    if (format == TABLE)
        printf("%-8s %6zu %5zu %6zu %7zu %10.2f %19s %8.1f %8.0f %5.1f %% %8.3f%s\n", r->test, r->n, r->batch, r->depth, r->threads,
               r->tps_median, spread, r->gbps, r->gops, 100 * r->share, r->ttft, r->noisy ? " noisy" : "");
    else if (format == MD)
        printf("| %s | %zu | %zu | %zu | %zu | %.2f | %s | %.1f | %.0f | %.1f %%%s | %.3f |\n", r->test, r->n, r->batch, r->depth,
               r->threads, r->tps_median, spread, r->gbps, r->gops, 100 * r->share, r->noisy ? " (noisy)" : "", r->ttft);
    else if (format == CSV)
        printf("%s,%zu,%zu,%zu,%zu,%.3f,%.3f,%.3f,%.0f,%.3f,%.3f,%.3f,%.3f,%.4f,%d\n", r->test, r->n, r->batch, r->depth,
               r->threads, r->tps_median, r->tps_min, r->tps_max, r->bytes_per_token, r->gbps, r->gops, r->roof_gbps, r->roof_gops,
               r->share, r->noisy);
    else {
        if (format == JSON && !first)
            puts(",");
        print_object(r);
        if (format == JSONL)
            putchar('\n');
    }
    fflush(stdout);
}

/* What belongs to the run and not to a row. */
static void print_foot(int format, const struct bench_row *last, const struct quern_model *model)
{
    char peak[32];
    size_t copied, huge = settle_huge(model->settle, &copied);
    double all = (double)model->model.weight_bytes / 100;
    if (format == JSON)
        puts("\n]");
    if (format == TABLE || format == MD)
        printf("%sroofs of %zu threads (%s): %.1f GB/s from huge pages, %.0f Gop/s; loaded in %.3f s; at most %s of memory\n"
               "weights in huge pages: %.0f %% of them by the page cache, %.0f %% by copies\n",
               format == MD ? "\n" : "", last->threads, last->isa, last->roof_gbps, last->roof_gops, last->load,
               cli_bytes(peak, sizeof peak, last->peak_memory), fmin(100, (double)(huge - copied) / all),
               fmin(100, (double)copied / all));
}

/* ---- the tests -------------------------------------------------------------------------------------------------- */

struct output { int format; bool any; struct bench_row last; };

static bool one(struct bench *b, const struct bench_args *a, const char *test, size_t n, size_t batch, size_t depth,
                struct output *out, struct quern_error *err)
{
    struct bench_row row = {.test = test, .n = n, .batch = batch, .depth = depth, .reps = a->reps};
    if (n == 0)
        return true;
    if (!bench_measure(b, &row, err))
        return false;
    if (!out->any)
        print_head(out->format);
    print_row(out->format, &row, !out->any);
    out->any = true;
    out->last = row;
    return true;
}

/* Everything for one number of threads. */
static bool all(struct bench *b, const struct bench_args *a, struct output *out, struct quern_error *err)
{
    bool ok = true;
    for (size_t d = 0; d < a->depth.count; d++) {
        size_t depth = a->depth.items[d];
        for (size_t i = 0; ok && i < a->prompt.count; i++)
            ok = one(b, a, "prefill", a->prompt.items[i], 1, depth, out, err);
        for (size_t k = 0; k < a->batch.count; k++)
            for (size_t i = 0; ok && i < a->gen.count; i++)
                ok = one(b, a, "decode", a->gen.items[i], a->batch.items[k], depth, out, err);
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

static struct quern_model *open_model(const struct bench_args *a, struct synthetic *random, struct quern_error *err)
{
    struct quern_model_options choices = {.cpu = a->cpu, .threads = 1};
    struct engine_args engine = {.model = a->model, .cpu = a->cpu, .threads = 1, .huge_pages = a->huge_pages};
    if (!a->synthetic)
        return engine_open(&engine, &a->args, err);
    if (a->model || a->args.operand_count) {
        ERR(err, QUERN_EUSAGE, "--synthetic and a model");
        return NULL;
    }
    if (!synthetic_make(random, a->synthetic, err))
        return NULL;
    return quern_view_model(random->data, random->size, random->name, &choices, err);
}

static bool save_only(const struct bench_args *a, struct quern_error *err)
{
    struct synthetic random;
    if (!a->synthetic)
        return ERR(err, QUERN_EUSAGE, "--save needs --synthetic");
    if (!synthetic_make(&random, a->synthetic, err))
        return false;
    bool ok = synthetic_save(&random, a->save, err);
    synthetic_free(&random);
    return ok;
}

static bool check_lists(const struct bench_args *a, struct quern_error *err)
{
    for (size_t i = 0; i < a->batch.count; i++)
        if (a->batch.items[i] < 1 || a->batch.items[i] > 256)
            return ERR(err, QUERN_EUSAGE, "--batch %zu, 1 to 256 are allowed", a->batch.items[i]);
    if (a->reps < 1 || a->pass < 1)
        return ERR(err, QUERN_EUSAGE, "--reps and --pass must be at least 1");
    return true;
}

static bool run(struct bench_args *a, struct quern_error *err)
{
    struct synthetic random = {0};
    struct output out = {.format = a->json ? JSONL : a->format};
    if (a->save)
        return save_only(a, err);
    if (!check_lists(a, err))
        return false;
    double begin = machine_clock();
    struct quern_model *model = open_model(a, &random, err);
    double load = machine_clock() - begin;
    bool ok = model != NULL;
    if (ok)
        settle_wait(model->settle);      /* not part of `load`: the model can be used meanwhile */
    for (size_t i = 0; ok && i < a->threads.count; i++) {
        struct bench bench;
        size_t tokens = most(&a->prompt) > most(&a->gen) ? most(&a->prompt) : most(&a->gen);
        struct bench_plan plan = {
            .threads = a->threads.items[i] ? a->threads.items[i] : quern_default_threads(), .sequences = most(&a->batch),
            .pass = a->pass,
            .context = most(&a->depth) + tokens, .kv = (enum kv_type)a->kv, .load = load, .stop = cli_catch_signals(),
        };
        struct engine_args engine = {.mem_limit = a->mem_limit};
        size_t cache, scratch;
        ok = bench_bytes(&cache, &scratch, model, &plan, err) && engine_plan_bytes(model, &engine, cache, scratch, err) &&
             bench_open(&bench, model, &plan, err);
        if (ok) {
            ok = all(&bench, a, &out, err);
            bench_close(&bench);
        }
    }
    if (out.any)
        print_foot(out.format, &out.last, model);
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
