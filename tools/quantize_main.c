/* quern-quantize: a model file or folder to a smaller one. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "adaptive.h"
#include "imprint_verb.h"
#include "quantize_report.h"
#include "quantize_run.h"
#include "tune_stage.h"

#define AT(field) offsetof(struct quantize_args, field)
static const struct option quantize_options[] = {
    { "type", 't', OPTION_TEXTS, AT(types), "TYPE|REGEX=TYPE", NULL,
      "the mix of the file (Q4_K_M, IQ3_XXS, ...); or the type of the tensors whose name matches", NULL, "type-override", NULL },
    { "imatrix", 0, OPTION_FILE, AT(imatrix), "FILE", NULL, "importances of llama-imatrix",
      NULL, NULL, NULL },
    { "lax-imatrix", 0, OPTION_SWITCH, AT(lax_imatrix), NULL, NULL, "tensors without importances are rounded without", NULL, NULL,
      NULL },
    { "size", 0, OPTION_BYTES, AT(size), "SIZE", NULL, "bytes of the file, at most: 4.5G, 900M (powers of 1024)", NULL, NULL,
      NULL },
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
      "refuse the file (exit 7) when the receipt says so: kld>0.02, kld_median, kld_999, ppl_ratio, top1, fallbacks (tensors)",
      NULL, NULL, NULL },
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
    { "dry-run", 'n', OPTION_SWITCH, AT(dry_run), NULL, NULL,
      "print the plan and write nothing; without --plain the model is run to make it, as long as planning takes", NULL, NULL,
      NULL },
    { "force", 'f', OPTION_SWITCH, AT(force), NULL, NULL,
      "replace an existing output; write one that is worse than plain rounding, too", NULL, NULL, NULL },
    { "requantize", 0, OPTION_SWITCH, AT(requantize), NULL, NULL, "accept an input that is rounded already", NULL,
      "allow-requantize", NULL },
    { "threads", 0, OPTION_COUNT, AT(threads), "N", NULL, "threads (default: the physical cores)", NULL, NULL, NULL },
    { "mem-limit", 0, OPTION_BYTES, AT(mem_limit), "SIZE", NULL, "most memory for buffers", NULL, NULL, NULL },
    { .name = NULL }
};

static int run_quantize(int argc, char **argv);

static const struct example quantize_examples[] = {
    {"quern-quantize model.gguf plain.gguf --plain --type Q4_K_M", "llama.cpp's mix, at once"},
    {"quern-quantize model.gguf small.gguf --bpw 6 --calibration text.txt --heldout other.txt --save-recipe recipe.json",
     "six bits per weight on average, more where your text needs them; the loss is measured on another text"},
    {"quern-quantize model.gguf smaller.gguf --bpw 5.5 --recipe recipe.json --calibration text.txt --heldout other.txt",
     "another size by the same measurements"},
    {"quern-quantize --dry-run model.gguf --type Q4_K_M --recipe recipe.json --calibration text.txt --heldout other.txt",
     "what would be done, in which time and memory"},
    {NULL, NULL}
};

static const struct verb verb_quantize = {
    .name = "quern-quantize",
    .summary = "round a model's weights to fewer bits",
    .operands = "MODEL OUT.gguf",
    .operands_min = 1, .operands_max = 2,
    .surplus = "a mix is given as --type Q4_K_M",          /* llama.cpp's stands behind OUT */
    .details =
        "MODEL is a GGUF or a checkpoint's folder (config.json, safetensors), which is converted beside OUT first. The file gets "
        "the bytes that --size, --bpw or --ratio say, or those of llama.cpp's mix named by --type; which tensor gets how many of "
        "them is found out by running the model on text: each tensor is rounded alone and the KL divergence from the source "
        "measured. Values are then rounded one after the other, each error made so far corrected in those still open, as second "
        "moments of the inputs over the same text say. With --plain the mix is llama.cpp's own, and nothing is measured.\n"
        "The number of threads changes nothing in the file. A program built with OpenBLAS (make BLAS=1) writes other bytes than "
        "one without, and other ones on another kind of processor.\n"
        "OUT may be left out with --dry-run. Rows that do not divide into a type's blocks get the next larger type that fits, and "
        "the plan says so.",
    .examples = quantize_examples,
    .options = quantize_options,
    .size = sizeof(struct quantize_args),
    .main = run_quantize,
};
static const struct verb *const verbs[] = { &verb_quantize, &verb_imprint };
static const struct program quantize_program = {
    .name = "quern-quantize", .summary = "round a model's weights to fewer bits", .verbs = verbs, .count = 2, .single = true,
};

static void close_run(struct run *r)
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

static bool prepare(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    char key[65];
    if (!run_open_inputs(r, err) || !run_check_output(r, err))
        return false;
    run_hash(r, key);
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
        bool decided = run_decide(r, err);
        if (r->progress.what)
            progress_end(&r->progress);
        if (!decided)
            return false;
        clock_gettime(CLOCK_MONOTONIC, &to);
        r->planned = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    } else if (!run_check_space(r, err) ||
               !preset_plan(r->plan, &r->input, r->preset, r->rules, r->rule_count, r->have_matrix, err) ||
               !run_check_twice(r, err)) {
        return false;
    }
    r->job.file_type = r->preset->file_type;
    return run_check_importances(r, err) && run_open_source_model(r, err);
}

static bool print_time(const struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    bool feedback = r->adaptive && !a->no_feedback && (a->stats || importance_possible(r->model, r->pool));
    struct report_work work = { .model = r->model, .calibration = a->calibration, .heldout = a->heldout, .planned = r->planned,
                                .moments = feedback && !a->stats && !r->have_refine, .feedback = feedback,
                                .receipt = r->adaptive || a->fail_if || a->tune };
    struct adaptive_options how = { .fisher = a->gather == 0, .search = !a->no_search };
    if (r->adaptive && !adaptive_memory(&work.planning, r->model, &r->choice, plan_bytes(&r->choice),
                                        !a->imatrix && importance_possible(r->model, r->pool), r->pool, &how, err))
        return false;
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
        if (!run_write_output(&r, &err))
            code = cli_fail(&err);
    }
    if (code > 128 && r.work.journal) {
        r.work.keep = true;
        fprintf(stderr, "interrupted; the same command goes on from here\n");
    }
    close_run(&r);
    return cli_end(&verb_quantize, &args, code);
}

int main(int argc, char **argv)
{
    return cli_main(&quantize_program, argc, argv);
}
