/* quern-quantize: a model file or folder to a smaller one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "quantize.h"

struct quantize_args {
    struct args         args;
    struct option_texts types;
    const char         *imatrix;
    bool                lax_imatrix;
    bool                plain, dry_run, force, requantize;
    int                 weights;
    size_t              threads, mem_limit;
};

#define AT(field) offsetof(struct quantize_args, field)
static const struct option quantize_options[] = {
    { "type", 't', OPTION_TEXTS, AT(types), "TYPE|REGEX=TYPE", NULL,
      "the mix of the file (Q4_K_M, IQ3_XXS, ...); or the type of the tensors whose name matches", NULL, "type-override", NULL },
    { "imatrix", 0, OPTION_FILE, AT(imatrix), "FILE", NULL, "importances of llama-imatrix or `quern-quantize imprint --imatrix`", NULL, NULL,
      NULL },
    { "lax-imatrix", 0, OPTION_SWITCH, AT(lax_imatrix), NULL, NULL, "tensors without importances are rounded without", NULL, NULL, NULL },
    { "weights", 0, OPTION_CHOICE, AT(weights), "RULE", "plain", "how importances weigh errors: as they are, or large weights more",
      "plain|guarded", NULL, NULL },
    { "plain", 0, OPTION_SWITCH, AT(plain), NULL, NULL, "exactly llama.cpp's mix under the name of --type", NULL, NULL, NULL },
    { "dry-run", 'n', OPTION_SWITCH, AT(dry_run), NULL, NULL, "print the plan, write nothing", NULL, NULL, NULL },
    { "force", 'f', OPTION_SWITCH, AT(force), NULL, NULL, "replace an existing output", NULL, NULL, NULL },
    { "requantize", 0, OPTION_SWITCH, AT(requantize), NULL, NULL, "accept an input that is rounded already", NULL, "allow-requantize",
      NULL },
    { "threads", 0, OPTION_COUNT, AT(threads), "N", NULL, "threads (default: the physical cores)", NULL, NULL, NULL },
    { "mem-limit", 0, OPTION_BYTES, AT(mem_limit), "BYTES", NULL, "most memory for buffers", NULL, NULL, NULL },
    { .name = NULL }
};

static int run_quantize(int argc, char **argv);

static const struct verb verb_quantize = {
    .name = "quern-quantize",
    .summary = "round a model's weights to fewer bits",
    .operands = "IN.gguf OUT.gguf",
    .operands_min = 1, .operands_max = 2,
    .details = "OUT may be left out with --dry-run. Tensor types of the mixes are llama.cpp's; rows that do not divide into a type's\n"
               "blocks get the next larger type that fits, and the plan says so.",
    .options = quantize_options,
    .size = sizeof(struct quantize_args),
    .main = run_quantize,
};
static const struct verb *const verbs[] = { &verb_quantize };
static const struct program quantize_program = {
    .name = "quern-quantize", .summary = "round a model's weights to fewer bits", .verbs = verbs, .count = 1, .single = true,
};

/* What run_quantize holds. */
struct run {
    const struct quantize_args *args;
    struct gguf          input;
    struct imatrix       matrix;
    bool                 have_input, have_matrix;
    struct type_rule    *rules;
    size_t               rule_count;
    const struct preset *preset;
    struct plan_item    *plan;
    struct rounding     *rounding;
    struct pool         *pool;
    struct kernels       kernels;
    struct progress      progress;
    struct quantize_job  job;
};

static void run_free(struct run *r)
{
    for (size_t i = 0; i < r->rule_count; i++)
        regfree(&r->rules[i].pattern);
    free(r->rules);
    free(r->plan);
    rounding_close(r->rounding);
    pool_close(r->pool);
    if (r->have_matrix)
        imatrix_close(&r->matrix);
    if (r->have_input)
        gguf_close(&r->input);
}

/* --type is said once for the mix and any number of times as REGEX=TYPE. */
static bool read_types(struct run *r, struct quern_error *err)
{
    const struct option_texts *types = &r->args->types;
    r->rules = mem_take(types->count, sizeof *r->rules, "the rules", err);
    for (size_t i = 0; r->rules && i < types->count; i++) {
        if (strchr(types->items[i], '=')) {
            if (!type_rule_parse(&r->rules[r->rule_count], types->items[i], err))
                return false;
            r->rule_count++;
            continue;
        }
        if (r->preset)
            return ERR(err, QUERN_EUSAGE, "--type names two mixes, %s and %s", r->preset->name, types->items[i]);
        if (!(r->preset = preset_find(types->items[i]))) {
            const char *names[64];
            size_t n = 0;
            for (; n < 64 && preset_at(n); n++)
                names[n] = preset_at(n)->name;
            const char *meant = options_nearest(types->items[i], names, n);
            return ERR(err, QUERN_EUSAGE, "--type: unknown mix '%s'%s%s%s", types->items[i], meant ? ": did you mean '" : "",
                       meant ? meant : "", meant ? "'?" : "");
        }
    }
    if (!r->rules)
        return false;
    return r->preset || ERR(err, QUERN_EUSAGE, "--type with the name of a mix is missing (Q4_K_M, say)");
}

static bool check_importances(struct run *r, struct quern_error *err)
{
    const struct gguf *g = &r->input;
    bool *needs = mem_take(g->tensor_count, sizeof *needs, "the plan", err), ok = needs != NULL;
    for (size_t i = 0; ok && i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        /* Calibration runs see no input of the embedding, and many leave the output out. */
        needs[i] = r->plan[i].format != t->type && !gguf_string_is(t->name, "token_embd.weight") &&
                   !gguf_string_is(t->name, "per_layer_token_embd.weight") && !gguf_string_is(t->name, "output.weight");
        bool found = r->have_matrix && imatrix_find(&r->matrix, t->name);
        if (r->plan[i].needs_importance && !found && !r->args->dry_run) {
            char shown[100];
            text_escape(shown, sizeof shown, t->name.text, t->name.n);
            ok = ERR(err, QUERN_EUSAGE, "'%s' as %s is worthless without importances: give --imatrix FILE", shown,
                     format_find(r->plan[i].format)->name);
        }
    }
    if (ok && r->have_matrix)
        ok = imatrix_check(&r->matrix, g, needs, r->args->lax_imatrix, err) || error_prefix(err, r->args->imatrix);
    free(needs);
    return ok;
}

static bool prepare(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    if (!read_types(r, err) || !(r->have_input = gguf_open(&r->input, a->args.operands[0], NULL, err)))
        return false;
    if (a->imatrix && !(r->have_matrix = imatrix_open(&r->matrix, a->imatrix, err)))
        return false;
    struct cpu cpu;
    cpu_detect(&cpu);
    if (!cpu_cap(&cpu, getenv("QUERN_CPU")))
        return ERR(err, QUERN_EUSAGE, "QUERN_CPU: unknown or unavailable level '%s'", getenv("QUERN_CPU"));
    kernels_init(&r->kernels, &cpu);
    r->plan = mem_take(r->input.tensor_count, sizeof *r->plan, "the plan", err);
    if (!r->plan || !preset_plan(r->plan, &r->input, r->preset, r->rules, r->rule_count, r->have_matrix, err) ||
        !check_importances(r, err))
        return false;
    r->rounding = rounding_open(err);
    r->pool = r->rounding ? pool_open(a->threads ? a->threads : pool_default_threads(NULL, 0), err) : NULL;
    if (!r->pool)
        return false;
    r->job = (struct quantize_job){
        .input = &r->input, .plan = r->plan, .file_type = r->preset->file_type, .matrix = r->have_matrix ? &r->matrix : NULL,
        .matrix_path = a->imatrix, .weights = (enum rounding_weights)a->weights, .rounding = r->rounding, .kernels = &r->kernels,
        .pool = r->pool, .mem_limit = a->mem_limit,
    };
    const struct gguf_tensor *twice = quantize_rounded_twice(&r->job);
    if (twice && !a->requantize) {
        char shown[100];
        text_escape(shown, sizeof shown, twice->name.text, twice->name.n);
        return ERR(err, QUERN_EUSAGE, "%s: tensor '%s' is %s already; rounding twice loses quality (--requantize does it)",
                   a->args.operands[0], shown, format_find(twice->type)->name);
    }
    return true;
}

/* One line per tensor, and the sums. */
static void print_plan(const struct run *r)
{
    static const char *const reasons[] = { "kept", "mix", "rule", "rows do not divide" };
    size_t before = 0, after = 0, values = 0;
    for (size_t i = 0; i < r->input.tensor_count; i++) {
        const struct gguf_tensor *t = &r->input.tensors[i];
        const struct plan_item *item = &r->plan[i];
        char shown[100];
        size_t bytes = quantize_tensor_bytes(&r->job, i);
        text_escape(shown, sizeof shown, t->name.text, t->name.n);
        printf("%-40s %6zu x %-6zu  %-5s -> %-7s  %12zu bytes  %s", shown, t->shape[0], t->shape[1] * t->shape[2] * t->shape[3],
               format_find(t->type)->name, format_find(item->format)->name, bytes, reasons[item->reason]);
        if (item->reason == PLAN_FALLBACK)
            printf(" into %s's blocks", format_find(item->wanted)->name);
        if (item->needs_importance && !r->have_matrix)
            printf(", needs --imatrix");
        printf("\n");
        before += t->bytes, after += bytes, values += t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
    }
    printf("tensors: %zu bytes -> %zu bytes, %.3f bits per weight; buffers: %zu bytes\n", before, after,
           8.0 * (double)after / (double)(values ? values : 1), quantize_memory(&r->job));
}

static void show_progress(void *arg, double share)
{
    progress_show(arg, share);
}

static int run_quantize(int argc, char **argv)
{
    struct quantize_args args;
    struct quern_error err;
    int code;
    if (!cli_begin(&quantize_program, &verb_quantize, argc, argv, &args, &code))
        return code;
    struct run r = { .args = &args };
    code = 0;
    if (!args.dry_run && args.args.operand_count < 2) {
        ERR(&err, QUERN_EUSAGE, "the output file is missing (or --dry-run)");
        code = cli_fail(&err);
    } else if (!prepare(&r, &err)) {
        code = cli_fail(&err);
    } else if (args.dry_run) {
        print_plan(&r);
    } else {
        r.job.stop = cli_catch_signals();
        r.job.show = show_progress, r.job.show_arg = &r.progress;
        progress_begin(&r.progress, "rounding");
        bool ok = quantize_write(&r.job, args.args.operands[1], args.force, &err);
        progress_end(&r.progress);
        if (!ok)
            code = cli_fail(&err);
    }
    run_free(&r);
    return cli_end(&verb_quantize, &args, code);
}

int main(int argc, char **argv)
{
    return cli_main(&quantize_program, argc, argv);
}
