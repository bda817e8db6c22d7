#include "quantize_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "adaptive.h"
#include "compare.h"
#include "fallbacks.h"
#include "quantize_report.h"
#include "receipt.h"
#include "recipe.h"
#include "tune_stage.h"

/* What the receipt adds to the input's header beside 4 bytes of error for each tensor: keys, texts, the list of fallbacks. */
enum { HEADER_ROOM = 2048 + FALLBACK_BYTES };

/* Second moments of this model into `path`, unless an earlier run left them there. *none: it cannot have any, as a warning says. */
static bool gather_moments(struct run *r, const char *path, const struct adaptive_options *how, bool *none, struct quern_error *err)
{
    *none = !importance_possible(r->model, r->pool);
    if (*none)
        cli_warn("no error feedback: this architecture's inputs cannot be looked at");
    if (*none || workplace_has(&r->work, "stats", path))
        return true;
    if (adaptive_imprint(path, r->model, r->args->mem_limit, r->pool, r->job.stop, how, err) &&
        workplace_finished(&r->work, "stats", path, err))
        return true;
    *none = err->code == QUERN_EUSAGE;
    if (*none) {
        progress_aside(&r->progress);
        cli_warn("no error feedback: %s", err->text);
    }
    return *none;
}

/* A dry run has no output beside which the moments could stand: a name in the folder for temporary files. */
static bool spare_file(char *path, size_t size, struct quern_error *err)
{
    const char *folder = getenv("TMPDIR");
    int n = snprintf(path, size, "%s/quern-moments-XXXXXX", folder && *folder ? folder : "/tmp");
    int file = n > 0 && (size_t)n < size ? mkstemp(path) : -1;
    if (file < 0)
        return ERR(err, QUERN_EIO, "cannot create a temporary file (TMPDIR says where)");
    close(file);
    return true;
}

/* Second moments for error feedback: the user's, or gathered now. A model or a text that gives none is rounded without. */
static bool open_moments(struct run *r, const struct adaptive_options *how, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct refine_options options = { .guided = how->guided, .mem_limit = a->mem_limit };
    bool none = a->no_feedback, spare = !none && !a->stats && a->dry_run, ok;
    const char *path = a->stats ? a->stats : r->work.stats;
    char name[256];
    if (spare && !spare_file(name, sizeof name, err))
        return false;
    if (spare)
        path = name;
    ok = none || a->stats || gather_moments(r, path, how, &none, err);
    if (ok && !none) {
        r->job.notes = mem_take(r->input.tensor_count, sizeof *r->job.notes, "notes", err);
        r->have_refine = r->job.notes && refine_open(&r->refine, path, &r->input, &r->kernels, r->pool, &options, err);
        r->job.refine = r->have_refine ? &r->refine : NULL;
        /* Whose moments they are was found by hashing all of the input, which is mapped by the model as well. */
        for (size_t i = 0; i < r->input.part_count; i++)
            map_forget(&r->input.parts[i], r->input.parts[i].data, r->input.parts[i].size);
        ok = r->have_refine;
    }
    if (spare)
        unlink(name);
    return ok;
}

/* The texts that come last are looked at first: after hours of work is no time to say that a file is missing. */
static bool check_texts(const struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct receipt_options receipt = { .calibration = a->calibration, .heldout = a->heldout };
    struct tune_stage stage = { .calibration = a->calibration, .stop_text = a->tune_stop };
    if (!r->model)
        return true;
    return receipt_possible(r->model, &receipt, err) && (!a->tune || tune_stage_texts(r->model, &stage, err));
}

/* What the types that `p` chooses may take of a file of `file` bytes. Refused when even the smallest are more. */
static bool plan_budget(const struct run *r, const struct plan *p, size_t *budget, size_t file, struct quern_error *err)
{
    size_t least = 0, fixed = run_file_bytes(r) + HEADER_ROOM + 4 * r->input.tensor_count;
    for (size_t i = 0; i < p->count; i++) {
        const struct plan_tensor *t = &p->tensors[i];
        size_t smallest = t->choice[0].bytes;
        for (size_t c = 1; c < t->count; c++)
            smallest = t->choice[c].bytes < smallest ? t->choice[c].bytes : smallest;
        fixed += run_padded_bytes(smallest) - smallest;
        fixed -= run_padded_bytes(quantize_tensor_bytes(&r->job, t->tensor));
        least += smallest;
    }
    if (fixed + least > file)
        return ERR(err, QUERN_EUSAGE, "the smallest types make a file of %zu bytes, %zu are allowed", fixed + least, file);
    *budget = file - fixed;
    return true;
}

/* A recipe of another model, or a size that no choice of types reaches: seen in a plan that nobody keeps. */
static bool check_draft(const struct run *r, bool sized, struct quern_error *err)
{
    const char *recipe = r->args->recipe;
    struct plan draft;
    size_t file, budget;
    bool measured, gathers = !r->have_matrix && importance_possible(r->model, r->pool);
    if (!run_wanted_bytes(r, &file, err) || !plan_init(&draft, &r->job, r->model, gathers, err))
        return false;
    bool ok = (!recipe || recipe_read(&draft, recipe, &measured, err)) &&
              (!draft.count || (recipe && !sized) || plan_budget(r, &draft, &budget, file, err));
    plan_free(&draft);
    return ok;
}

/* What can be refused before importances are gathered, which takes minutes: a file that is no statistics, tensors that would be
 * rounded twice, importances or a recipe of another model, too small a size. The plan is a draft: a recipe may say other types. */
static bool check_inputs(struct run *r, bool sized, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    if (a->stats) {
        struct stats stats;
        if (!stats_open(&stats, a->stats, NULL, &r->kernels, r->pool, err))
            return false;
        stats_close(&stats);
    }
    if (!r->preset && sized && !run_nearest_preset(r, err))
        return false;
    if (!r->preset)
        r->preset = preset_find("Q4_K_M");
    bool importances = r->have_matrix || importance_possible(r->model, r->pool);
    return preset_plan(r->plan, &r->input, r->preset, r->rules, r->rule_count, importances, err) && run_check_twice(r, err) &&
           run_check_matrix(r, a->lax_imatrix || a->recipe, err) && check_draft(r, sized, err);
}

bool run_decide(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    struct adaptive_options options = { .calibration = a->calibration, .fisher = a->gather == 0, .search = !a->no_search,
                                        .mem_limit = a->mem_limit,
                                        .journal = r->work.journal, .show = progress_step, .show_arg = &r->progress };
    size_t file, budget = 0;
    bool sized = r->preset || a->size || a->bpw > 0 || a->ratio, measured = false, allocates, gathers;
    if (!(r->model = source_model(r->source.path, a->threads, err)) || !check_texts(r, err) || !run_check_space(r, err) ||
        !check_inputs(r, sized, err))
        return false;
    if (!r->have_matrix && importance_possible(r->model, r->pool)) {
        if (!adaptive_gather(&r->matrix, r->model, r->pool, r->job.stop, &options, err))
            return false;
        r->have_matrix = true;
        r->job.matrix = &r->matrix, r->job.matrix_path = "gathered";
    }
    if (!preset_plan(r->plan, &r->input, r->preset, r->rules, r->rule_count, r->have_matrix, err) ||
        !run_wanted_bytes(r, &file, err) || !run_check_twice(r, err) || !plan_init(&r->choice, &r->job, r->model, false, err))
        return false;
    if (a->recipe && !recipe_read(&r->choice, a->recipe, &measured, err))
        return false;
    /* The plan is made of tensors rounded as they will be in the file; a dry run that measures nothing can do without. */
    allocates = r->choice.count && (sized || !a->recipe);
    gathers = !a->dry_run || (allocates && !measured);
    if (allocates && !plan_budget(r, &r->choice, &budget, file, err))
        return false;
    if (gathers && !open_moments(r, &options, err))
        return false;
    if (allocates && !adaptive_plan(&r->choice, &r->job, r->model, budget, !measured, &options, err))
        return false;
    plan_apply(&r->choice, r->plan);
    /* A recipe's losses may be of the other way of rounding: then nothing is predicted of this file. */
    if (gathers && r->choice.feedback != r->have_refine)
        r->choice.predicted = 0;
    return !a->save_recipe || recipe_write(&r->choice, a->save_recipe, a->args.operands[0], a->force, err);
}

bool run_open_source_model(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    if (!r->model && (a->tune || a->fail_if) && !(r->model = source_model(r->source.path, a->threads, err)))
        return false;
    return (r->adaptive || check_texts(r, err)) && (!a->tune || tune_stage_possible(r->model, r->pool, err));
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
    struct receipt_options options = { .calibration = a->calibration, .heldout = a->heldout, .pool = r->pool, .stop = r->job.stop,
                                       .show = show_progress, .show_arg = &r->progress };
    struct receipt receipt = { .source = a->args.operands[0], .predicted = r->choice.predicted };
    struct quern_model *model = NULL;
    if (a->tune && tune(r, rounded, &receipt.tuned, err))
        model = source_model(rounded, a->threads, err);
    else if (!a->tune)
        model = source_model(rounded, a->threads, err);
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

bool run_write_output(struct run *r, struct quern_error *err)
{
    const char *output = r->args->args.operands[1];
    bool receipt = r->adaptive || r->args->fail_if || r->args->tune;
    if (!round_file(r, receipt ? r->work.rounded : output, receipt || r->args->force, err))
        return false;
    report_feedback(&r->job);
    return !receipt || stamp(r, r->work.rounded, output, err);
}
