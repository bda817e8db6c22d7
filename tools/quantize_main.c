/* quern-quantize: a model file or folder to a smaller one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "adaptive.h"
#include "cli.h"
#include "compare.h"
#include "fallbacks.h"
#include "imprint_verb.h"
#include "quantize.h"
#include "quantize_report.h"
#include "receipt.h"
#include "recipe.h"
#include "source.h"
#include "workplace.h"
#include "tune_stage.h"

struct quantize_args {
    struct args         args;
    struct option_texts types;
    const char         *imatrix;
    bool                lax_imatrix;
    bool                plain, dry_run, force, requantize;
    int                 weights, gather;
    size_t              threads, mem_limit;
    size_t              size;
    float               bpw;
    const char         *ratio, *calibration, *heldout, *recipe, *save_recipe, *fail_if;
    const char         *stats;
    bool                no_search, no_feedback;
    bool                tune;
    size_t              tune_tokens;
    const char         *tune_stop;
};

#define AT(field) offsetof(struct quantize_args, field)
static const struct option quantize_options[] = {
    { "type", 't', OPTION_TEXTS, AT(types), "TYPE|REGEX=TYPE", NULL,
      "the mix of the file (Q4_K_M, IQ3_XXS, ...); or the type of the tensors whose name matches", NULL, "type-override", NULL },
    { "imatrix", 0, OPTION_FILE, AT(imatrix), "FILE", NULL, "importances of llama-imatrix",
      NULL, NULL, NULL },
    { "lax-imatrix", 0, OPTION_SWITCH, AT(lax_imatrix), NULL, NULL, "tensors without importances are rounded without", NULL, NULL,
      NULL },
    { "size", 0, OPTION_BYTES, AT(size), "BYTES", NULL, "bytes of the file, at most", NULL, NULL, NULL },
    { "bpw", 0, OPTION_REAL, AT(bpw), "BITS", NULL, "bits per weight over the whole file, at most", NULL, NULL, NULL },
    { "ratio", 0, OPTION_TEXT, AT(ratio), "Nx", NULL, "how many times smaller than the input", NULL, NULL, NULL },
    { "calibration", 0, OPTION_FILE, AT(calibration), "FILE", NULL,
      "text that shows what the weights do (default: quern's own mix)", NULL, "calib", NULL },
    { "stats", 0, OPTION_FILE, AT(stats), "FILE", NULL, "second moments gathered before, for error feedback", NULL, NULL, NULL },
    { "no-feedback", 0, OPTION_SWITCH, AT(no_feedback), NULL, NULL,
      "round each value by itself, without carrying errors into the values still open", NULL, NULL, NULL },
    { "heldout", 0, OPTION_FILE, AT(heldout), "FILE", NULL, "text that the receipt is measured on (default: quern's own)", NULL,
      NULL, NULL },
    { "fail-if", 0, OPTION_TEXT, AT(fail_if), "GATE", NULL,
      "refuse the file (exit 7) when the receipt says so: kld>0.02, kld_median, kld_999, ppl_ratio, top1", NULL, NULL, NULL },
    { "gather", 0, OPTION_CHOICE, AT(gather), "RULE", "fisher",
      "how importances are gathered: mean squares of inputs, each token weighed by the squared gradient of the loss, or not",
      "fisher|diagonal", NULL, NULL },
    { "no-search", 0, OPTION_SWITCH, AT(no_search), NULL, NULL, "take the predicted plan as it is, without trying swaps", NULL,
      NULL, NULL },
    { "recipe", 0, OPTION_FILE, AT(recipe), "FILE", NULL,
      "types of a saved recipe; with a size, its measurements, for another plan", NULL, NULL, NULL },
    { "save-recipe", 0, OPTION_FILE, AT(save_recipe), "FILE", NULL,
      "write types and measurements as JSON, to read, edit and use again",
      NULL, NULL, NULL },
    { "tune", 0, OPTION_SWITCH, AT(tune), NULL, NULL,
      "after rounding, train block scales, norms and near ties until the logits are nearest to the source's", NULL, NULL, NULL },
    { "tune-tokens", 0, OPTION_COUNT, AT(tune_tokens), "N", NULL, "tokens that tuning learns from (default: by the model's size)",
      NULL, NULL, NULL },
    { "tune-stop", 0, OPTION_FILE, AT(tune_stop), "FILE", NULL,
      "text of another kind than the calibration, by which tuning stops (default: quern's own)", NULL, NULL, NULL },
    { "weights", 0, OPTION_CHOICE, AT(weights), "RULE", "plain", "how importances weigh errors: as they are, or large weights more",
      "plain|guarded", NULL, NULL },
    { "plain", 0, OPTION_SWITCH, AT(plain), NULL, NULL, "exactly llama.cpp's mix under the name of --type", NULL, NULL, NULL },
    { "dry-run", 'n', OPTION_SWITCH, AT(dry_run), NULL, NULL, "print the plan, write nothing", NULL, NULL, NULL },
    { "force", 'f', OPTION_SWITCH, AT(force), NULL, NULL,
      "replace an existing output; write one that is worse than plain rounding, too", NULL, NULL, NULL },
    { "requantize", 0, OPTION_SWITCH, AT(requantize), NULL, NULL, "accept an input that is rounded already", NULL,
      "allow-requantize", NULL },
    { "threads", 0, OPTION_COUNT, AT(threads), "N", NULL, "threads (default: the physical cores)", NULL, NULL, NULL },
    { "mem-limit", 0, OPTION_BYTES, AT(mem_limit), "BYTES", NULL, "most memory for buffers", NULL, NULL, NULL },
    { .name = NULL }
};

static int run_quantize(int argc, char **argv);

static const struct verb verb_quantize = {
    .name = "quern-quantize",
    .summary = "round a model's weights to fewer bits",
    .operands = "MODEL OUT.gguf",
    .operands_min = 1, .operands_max = 2,
    .details =
        "MODEL is a GGUF or a checkpoint's folder (config.json, safetensors), which is converted beside OUT first. The file gets "
        "the bytes that --size, --bpw or --ratio say, or those of llama.cpp's mix named by --type; which tensor gets how many of "
        "them is found out by running the model on text: each tensor is rounded alone and the KL divergence from the source "
        "measured. "
        "Values are then rounded one after the other, each error made so far corrected in those still open, as second moments of "
        "the inputs over the same text say. With --plain the mix is llama.cpp's own, and nothing is measured.\n"
        "The number of threads changes nothing in the file. A program built with OpenBLAS (make BLAS=1) writes other bytes than one "
        "without, and other ones on another kind of processor.\n"
        "OUT may be left out with --dry-run. Rows that do not divide into a type's blocks get the next larger type that fits, and "
        "the plan says so.",
    .options = quantize_options,
    .size = sizeof(struct quantize_args),
    .main = run_quantize,
};
static const struct verb *const verbs[] = { &verb_quantize, &verb_imprint };
static const struct program quantize_program = {
    .name = "quern-quantize", .summary = "round a model's weights to fewer bits", .verbs = verbs, .count = 2, .single = true,
};

/* What run_quantize holds. */
struct run {
    const struct quantize_args *args;
    struct source        source;
    struct quern_model  *model;          /* NULL with --plain */
    struct plan          choice;
    bool                 adaptive;
    double               planned;        /* seconds that deciding took */
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
    struct refine        refine;
    bool                 have_refine;
    struct workplace     work;           /* empty with --dry-run */
    char                 cpu[sizeof ((struct cpu *)0)->features + 32];
};

static void run_free(struct run *r)
{
    for (size_t i = 0; i < r->rule_count; i++)
        regfree(&r->rules[i].pattern);
    free(r->rules);
    free(r->plan);
    free(r->job.notes);
    if (r->have_refine)
        refine_close(&r->refine);
    rounding_close(r->rounding);
    pool_close(r->pool);
    if (r->have_matrix)
        imatrix_close(&r->matrix);
    plan_free(&r->choice);
    quern_close_model(r->model);
    if (r->have_input)
        gguf_close(&r->input);
    source_close(&r->source);
    workplace_close(&r->work);
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
    const struct quantize_args *a = r->args;
    int sizes = (a->size > 0) + (a->bpw > 0) + (a->ratio != NULL);
    if (!r->rules)
        return false;
    if (sizes > 1 || (sizes && r->preset))
        return ERR(err, QUERN_EUSAGE, "one of --type MIX, --size, --bpw and --ratio says how large the file becomes");
    if (sizes && a->plain)
        return ERR(err, QUERN_EUSAGE, "--plain takes a mix: --type Q4_K_M, say");
    if (a->fail_if && !receipt_gate(NULL, a->fail_if, err))
        return false;
    if (!a->tune && (a->tune_tokens || a->tune_stop))
        return ERR(err, QUERN_EUSAGE, "--tune-tokens and --tune-stop say how --tune works, which is not given");
    r->adaptive = !a->plain && (!r->preset || format_find(r->preset->base)->block > 1);
    return r->preset || sizes || a->recipe ||
           ERR(err, QUERN_EUSAGE, "how large? --type with the name of a mix (Q4_K_M, say), --size, --bpw or --ratio");
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

static bool open_inputs(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    const char *output = a->args.operand_count > 1 ? a->args.operands[1] : NULL;
    if (!read_types(r, err) || (!a->dry_run && !workplace_open(&r->work, output, err)) ||
        !source_open(&r->source, a->args.operands[0], output, r->job.stop, err) ||
        !(r->have_input = gguf_open(&r->input, r->source.path, NULL, err)))
        return false;
    if (a->imatrix && !(r->have_matrix = imatrix_open(&r->matrix, a->imatrix, err)))
        return false;
    struct cpu cpu;
    cpu_detect(&cpu);
    if (!cpu_cap(&cpu, getenv("QUERN_CPU")))
        return ERR(err, QUERN_EUSAGE, "QUERN_CPU: unknown or unavailable level '%s'", getenv("QUERN_CPU"));
    kernels_init(&r->kernels, &cpu);
    snprintf(r->cpu, sizeof r->cpu, "%s %s", cpu_level_name(cpu.level), cpu.features);
    r->plan = mem_take(r->input.tensor_count, sizeof *r->plan, "the plan", err);
    r->rounding = r->plan ? rounding_open(err) : NULL;
    r->pool = r->rounding ? pool_open(a->threads ? a->threads : pool_default_threads(NULL, 0), err) : NULL;
    return r->pool != NULL;
}

static bool check_twice(const struct run *r, struct quern_error *err)
{
    const struct gguf_tensor *twice = quantize_rounded_twice(&r->job);
    if (!twice || r->args->requantize)
        return true;
    char shown[100];
    text_escape(shown, sizeof shown, twice->name.text, twice->name.n);
    return ERR(err, QUERN_EUSAGE, "%s: tensor '%s' is %s already; rounding twice loses quality (--requantize does it)",
               r->args->args.operands[0], shown, format_find(twice->type)->name);
}

/* Bytes of the file with the types that the plan has now, the header as the input's and room for what will be added to it: keys and
 * texts of the receipt, its list of fallbacks, and 4 bytes of error for each tensor. */
enum { HEADER_ROOM = 2048 + FALLBACK_BYTES };

static size_t file_bytes(const struct run *r)
{
    size_t sum = r->input.data_offset;
    for (size_t i = 0; i < r->input.tensor_count; i++)
        sum += (quantize_tensor_bytes(&r->job, i) + 31) / 32 * 32;
    return sum;
}

/* How many bytes the file may have: as asked, or as many as the mix has. */
static bool wanted_bytes(const struct run *r, size_t *out, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    double values = 0, ratio;
    size_t before = 0;
    char *end;
    for (size_t i = 0; i < r->input.tensor_count; i++) {
        const size_t *s = r->input.tensors[i].shape;
        values += (double)s[0] * (double)s[1] * (double)s[2] * (double)s[3];
    }
    for (size_t i = 0; i < r->input.part_count; i++)
        before += r->input.parts[i].size;
    *out = file_bytes(r);
    if (a->size)
        *out = a->size;
    if (a->bpw > 0)
        *out = (size_t)(a->bpw * values / 8);
    if (a->ratio) {
        ratio = strtod(a->ratio, &end);
        if (end == a->ratio || (*end && strcmp(end, "x")) || !(ratio > 1 && ratio < 1000))
            return ERR(err, QUERN_EUSAGE, "--ratio: '%s' is no number above 1 (4x, say)", a->ratio);
        *out = (size_t)((double)before / ratio);
    }
    return true;
}

/* Without --type the mix whose size is nearest lends its name to general.file_type and its types to what is not measured. */
static bool nearest_preset(struct run *r, struct quern_error *err)
{
    static const char *const names[] = { "IQ2_XS", "IQ2_M", "IQ3_XXS", "IQ3_S", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K",
                                         "Q8_0" };
    double nearest = 0;
    const struct preset *best = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct preset *preset = preset_find(names[i]);
        size_t wanted;
        if (!preset_plan(r->plan, &r->input, preset, r->rules, r->rule_count, true, err) || !wanted_bytes(r, &wanted, err))
            return false;
        double away = (double)file_bytes(r) - (double)wanted;
        away = away < 0 ? -away : away;
        if (!best || away < nearest)
            best = preset, nearest = away;
    }
    r->preset = best;
    return true;
}

static void show_step(void *arg, const char *what, double share)
{
    struct progress *p = arg;
    if (p->what != what) {
        if (p->what)
            progress_end(p);
        progress_begin(p, what);
    }
    progress_show(p, share);
}

/* Second moments for error feedback: the user's, or gathered now. A model or a text that gives none is rounded without. */
static bool open_moments(struct run *r, const struct adaptive_options *how, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct refine_options options = { .guided = how->guided, .mem_limit = a->mem_limit };
    const char *path = a->stats;
    if (a->no_feedback || a->dry_run)
        return true;
    if (!path) {
        if (!importance_possible(r->model, r->pool)) {
            cli_warn("no error feedback: this architecture's inputs cannot be looked at");
            return true;
        }
        path = r->work.stats;
        if (!workplace_has(&r->work, "stats", path) &&
            !(adaptive_imprint(path, r->model, a->mem_limit, r->pool, r->job.stop, how, err) &&
              workplace_finished(&r->work, "stats", path, err))) {
            if (err->code != QUERN_EUSAGE)
                return false;
            cli_warn("no error feedback: %s", err->text);
            return true;
        }
    }
    r->job.notes = mem_take(r->input.tensor_count, sizeof *r->job.notes, "notes", err);
    r->have_refine = r->job.notes && refine_open(&r->refine, path, &r->input, &r->kernels, r->pool, &options, err);
    return r->have_refine;
}

/* Room on the disk, before hours of work: the file, the same before its receipt, second moments, the journal. */
static bool check_space(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    size_t file, before = 0, more = 0;
    bool staged = r->adaptive || a->fail_if || a->tune;
    if (a->dry_run)
        return true;
    if (!preset_plan(r->plan, &r->input, r->preset ? r->preset : preset_find("Q4_K_M"), r->rules, r->rule_count, true, err) ||
        !wanted_bytes(r, &file, err))
        return false;
    for (size_t i = 0; i < r->input.part_count; i++)
        before += r->input.parts[i].size;
    /* More than everything as it is, is never written. */
    file = file < before ? file : before;
    if (r->adaptive)
        more = adaptive_disk(r->model, !a->no_search, !a->no_feedback && !a->stats);
    return workplace_space(&r->work, a->args.operands[1], file + (staged ? file + more : 0), err);
}

/* Find out what each tensor needs. */
static bool decide(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct quern_model_options how = { .threads = a->threads };
    struct adaptive_options options = { .calibration = a->calibration, .fisher = a->gather == 0, .search = !a->no_search,
                                        .mem_limit = a->mem_limit,
                                        .journal = r->work.journal, .show = show_step, .show_arg = &r->progress };
    size_t file, budget, fixed;
    bool sized = r->preset || a->size || a->bpw > 0 || a->ratio, measured = false;
    if (!(r->model = quern_open_model(r->source.path, &how, err)) || !check_space(r, err))
        return false;
    if (!r->have_matrix && importance_possible(r->model, r->pool)) {
        if (!adaptive_gather(&r->matrix, r->model, r->pool, r->job.stop, &options, err))
            return false;
        r->have_matrix = true;
        r->job.matrix = &r->matrix, r->job.matrix_path = "gathered";
    }
    if (!r->preset && sized && !nearest_preset(r, err))
        return false;
    if (!r->preset)
        r->preset = preset_find("Q4_K_M");
    if (!preset_plan(r->plan, &r->input, r->preset, r->rules, r->rule_count, r->have_matrix, err) || !wanted_bytes(r, &file, err) ||
        !check_twice(r, err) || !plan_init(&r->choice, &r->job, r->model, err))
        return false;
    if (a->recipe && !recipe_read(&r->choice, a->recipe, &measured, err))
        return false;
    if (r->choice.count && (sized || !a->recipe)) {
        for (size_t i = 0; i < r->choice.count; i++)
            r->choice.items[i].chosen = 0;
        plan_apply(&r->choice, r->plan);
        fixed = file_bytes(r) - plan_bytes(&r->choice) + HEADER_ROOM + 4 * r->input.tensor_count;
        budget = file > fixed ? file - fixed : 0;
        if (!adaptive_plan(&r->choice, &r->job, r->model, budget, !measured, &options, err))
            return false;
    }
    plan_apply(&r->choice, r->plan);
    if (!open_moments(r, &options, err))
        return false;
    r->job.refine = r->have_refine ? &r->refine : NULL;
    if (r->progress.what)
        progress_end(&r->progress);
    return !a->save_recipe || recipe_write(&r->choice, a->save_recipe, a->args.operands[0], a->force, err);
}

/* What would be found out only after the work: the output exists, or is the input. */
static bool check_output(const struct run *r, struct quern_error *err)
{
    struct gguf_writer_options options = { .force = r->args->force, .inputs = r->input.parts, .input_count = r->input.part_count };
    if (r->args->dry_run)
        return true;
    struct gguf_writer *w = gguf_writer_open(r->args->args.operands[1], &options, err);
    gguf_writer_close(w);
    return w != NULL;
}

/* The receipt and the tuning run the source too. Whether it can be tuned is found out before it is rounded. */
static bool open_source_model(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct quern_model_options how = { .threads = a->threads };
    if (!r->model && (a->tune || a->fail_if) && !(r->model = quern_open_model(r->source.path, &how, err)))
        return false;
    return !a->tune || tune_stage_possible(r->model, r->pool, err);
}

/* Everything that the rounded file depends on: program, processor, command, files. Threads change nothing and are left out, so a
 * run may be taken up again with fewer. */
static void hash_run(const struct run *r, char key[65])
{
    const struct quantize_args *a = r->args;
    const char *files[] = { a->imatrix, a->calibration, a->recipe, a->stats, r->source.converted ? NULL : a->args.operands[0] };
    struct sha256 h;
    char text[200];
    int n = snprintf(text, sizeof text, "%d%d%d%d%d %d %d %zu %zu %a %.60s", a->lax_imatrix, a->plain, a->requantize, a->no_search,
                     a->no_feedback, a->weights, a->gather, a->size, a->mem_limit, (double)a->bpw, a->ratio ? a->ratio : "");
    sha256_begin(&h);
    workplace_hash_file(&h, "/proc/self/exe");
    sha256_add(&h, r->cpu, strlen(r->cpu) + 1);
    sha256_add(&h, text, (size_t)n + 1);
    for (size_t i = 0; i < a->types.count; i++)
        sha256_add(&h, a->types.items[i], strlen(a->types.items[i]) + 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        workplace_hash_file(&h, files[i]);
    if (r->source.converted)
        workplace_hash_folder(&h, a->args.operands[0]);
    /* Parts of a split file are known by their inodes and their ends. */
    for (size_t i = 0; !r->source.converted && i < r->input.part_count; i++) {
        const struct map *part = &r->input.parts[i];
        size_t end = part->size < 65536 ? part->size : 65536;
        sha256_add(&h, &part->inode, sizeof part->inode);
        sha256_add(&h, &part->size, sizeof part->size);
        sha256_add(&h, part->data, end);
        sha256_add(&h, part->data + part->size - end, end);
    }
    sha256_end(&h, key);
}

static bool prepare(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    char key[65];
    if (!open_inputs(r, err) || !check_output(r, err))
        return false;
    hash_run(r, key);
    if (!a->dry_run && !workplace_begin(&r->work, key, err))
        return false;
    if (r->work.again)
        fprintf(stderr, "going on where an earlier run of this command ended\n");
    r->job = (struct quantize_job){
        .input = &r->input, .plan = r->plan, .matrix = r->have_matrix ? &r->matrix : NULL, .matrix_path = a->imatrix,
        .weights = (enum rounding_weights)a->weights, .rounding = r->rounding, .kernels = &r->kernels, .pool = r->pool,
        .journal = r->work.journal, .mem_limit = a->mem_limit, .stop = r->job.stop,
    };
    if (r->adaptive) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        if (!decide(r, err))
            return false;
        clock_gettime(CLOCK_MONOTONIC, &to);
        r->planned = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    } else if (!check_space(r, err) ||
               !preset_plan(r->plan, &r->input, r->preset, r->rules, r->rule_count, r->have_matrix, err) || !check_twice(r, err)) {
        return false;
    }
    r->job.file_type = r->preset->file_type;
    return check_importances(r, err) && open_source_model(r, err);
}

static bool print_time(const struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    bool feedback = r->adaptive && !a->no_feedback && (a->stats || importance_possible(r->model, r->pool));
    struct report_work work = { .model = r->model, .calibration = a->calibration, .heldout = a->heldout, .planned = r->planned,
                                .moments = feedback && !a->stats, .feedback = feedback,
                                .receipt = r->adaptive || a->fail_if || a->tune };
    return report_time(&r->job, &work, err);
}

/* What tuning will take, beside the plan. */
static void print_tuning(const struct run *r)
{
    bool feedback = r->adaptive && !r->args->no_feedback;
    size_t tokens = tune_stage_tokens(r->model, feedback, r->args->tune_tokens);
    printf("tuning: %zu tokens, about %.0f s, %zu bytes beside the files\n", tokens,
           tune_stage_seconds(r->model, tokens, pool_threads(r->pool)), tune_stage_memory(r->model, feedback, r->args->mem_limit));
}

static void show_progress(void *arg, double share)
{
    progress_show(arg, share);
}

/* What is trained and on what; the rounded file is replaced when that made it better. */
static bool tune(struct run *r, const char *rounded, struct tune_result *result, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct tune_stage stage = { .calibration = a->calibration, .stop_text = a->tune_stop, .tokens = a->tune_tokens,
                                .feedback = r->have_refine, .mem_limit = a->mem_limit, .pool = r->pool, .stop = r->job.stop,
                                .show = show_progress, .show_arg = &r->progress };
    progress_begin(&r->progress, "tuning");
    bool ok = tune_stage_run(result, r->model, rounded, &stage, err);
    progress_end(&r->progress);
    if (ok)
        tune_stage_print(result);
    return ok;
}

/* A result that is worse than what no effort gives is refused too. */
static bool compare(struct run *r, const struct receipt *receipt, const struct receipt_options *options, struct quern_error *err)
{
    if (!compare_needed(&r->job, receipt))
        return true;
    progress_begin(&r->progress, "comparing");
    bool ok = compare_with_plain(receipt, &r->job, r->model, r->work.plain, r->args->force, options, err);
    progress_end(&r->progress);
    return ok;
}

/* Measure the rounded file on held-out text and, when no gate refuses it, write it again with the receipt. */
static bool stamp(struct run *r, const char *rounded, const char *output, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct quern_model_options how = { .threads = a->threads };
    struct receipt_options options = { .calibration = a->calibration, .heldout = a->heldout, .pool = r->pool, .stop = r->job.stop,
                                       .show = show_progress, .show_arg = &r->progress };
    struct receipt receipt = { .source = a->args.operands[0], .predicted = r->choice.predicted };
    struct quern_model *model = NULL;
    if (a->tune && tune(r, rounded, &receipt.tuned, err))
        model = quern_open_model(rounded, &how, err);
    else if (!a->tune)
        model = quern_open_model(rounded, &how, err);
    progress_begin(&r->progress, "receipt");
    bool ok = model && receipt_make(&receipt, &r->job, model, r->model, &options, err);
    progress_end(&r->progress);
    if (ok)
        receipt_print(&receipt);
    ok = ok && (!a->fail_if || receipt_gate(&receipt, a->fail_if, err)) &&
         compare(r, &receipt, &options, err) &&
         receipt_stamp(&receipt, &model->gguf, &r->input, output, a->force, err);
    receipt_free(&receipt);
    quern_close_model(model);
    return ok;
}

/* Round to `path`, or find there what an earlier run rounded. */
static bool round_file(struct run *r, const char *path, bool force, struct quern_error *err)
{
    if (path == r->work.rounded && workplace_has(&r->work, "rounded", path))
        return quantize_recall(&r->job, err);
    r->job.show = show_progress, r->job.show_arg = &r->progress;
    progress_begin(&r->progress, "rounding");
    bool ok = quantize_write(&r->job, path, force, err);
    progress_end(&r->progress);
    return ok && (path != r->work.rounded || workplace_finished(&r->work, "rounded", path, err));
}

static bool write_output(struct run *r, struct quern_error *err)
{
    const char *output = r->args->args.operands[1];
    bool receipt = r->adaptive || r->args->fail_if || r->args->tune;
    if (!round_file(r, receipt ? r->work.rounded : output, receipt || r->args->force, err))
        return false;
    report_feedback(&r->job);
    return !receipt || stamp(r, r->work.rounded, output, err);
}

static int run_quantize(int argc, char **argv)
{
    struct quantize_args args;
    struct quern_error err;
    int code;
    if (!cli_begin(&quantize_program, &verb_quantize, argc, argv, &args, &code))
        return code;
    struct run r = { .args = &args, .job.stop = cli_catch_signals() };
    code = 0;
    if (!args.dry_run && args.args.operand_count < 2) {
        ERR(&err, QUERN_EUSAGE, "the output file is missing (or --dry-run)");
        code = cli_fail(&err);
    } else if (!prepare(&r, &err)) {
        code = cli_fail(&err);
    } else if (args.dry_run) {
        report_plan(&r.job, &r.choice);
        if (!print_time(&r, &err))
            code = cli_fail(&err);
        else if (args.tune)
            print_tuning(&r);
    } else {
        if (!write_output(&r, &err))
            code = cli_fail(&err);
    }
    if (code > 128 && r.work.journal) {
        r.work.keep = true;
        fprintf(stderr, "interrupted; the same command goes on from here\n");
    }
    run_free(&r);
    return cli_end(&verb_quantize, &args, code);
}

int main(int argc, char **argv)
{
    return cli_main(&quantize_program, argc, argv);
}
