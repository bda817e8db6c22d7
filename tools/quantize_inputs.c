#include "quantize_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "cpu_words.h"
#include "output.h"
#include "receipt.h"

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
            char list[400];
            size_t n = 0, at = 0;
            for (; n < 64 && preset_at(n); n++) {
                names[n] = preset_at(n)->name;
                at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", n ? ", " : "", names[n]);
            }
            const char *meant = options_nearest(types->items[i], names, n);
            return ERR(err, QUERN_EUSAGE, "--type: unknown mix '%.40s'%s%s%s (%s; or REGEX=TYPE)", types->items[i],
                       meant ? ": did you mean '" : "", meant ? meant : "", meant ? "'?" : "", list);
        }
    }
    const struct quantize_args *a = r->args;
    int sizes = (a->size > 0) + (a->bpw > 0) + (a->ratio != NULL);
    if (!r->rules)
        return false;
    if (a->bpw < 0 || a->bpw > 64)
        return ERR(err, QUERN_EUSAGE, "--bpw: %g bits per weight, above 0 to 64 are possible", (double)a->bpw);
    if (sizes > 1 || (sizes && r->preset))
        return ERR(err, QUERN_EUSAGE, "one of --type MIX, --size, --bpw and --ratio says how large the file becomes");
    if (sizes && a->plain)
        return ERR(err, QUERN_EUSAGE, "--plain takes a mix: --type Q4_K_M, say");
    if (a->fail_if && !receipt_gate(NULL, a->fail_if, err))
        return false;
    if (!a->tune && (a->tune_tokens || a->tune_stop))
        return ERR(err, QUERN_EUSAGE, "--tune-tokens and --tune-stop say how --tune works, which is not given");
    r->adaptive = !a->plain && (!r->preset || format_find(r->preset->base)->block > 1);
    if (!r->adaptive && (a->recipe || a->save_recipe || a->stats))
        return ERR(err, QUERN_EUSAGE, "--%s is for plans that are measured; a mix of %s measures nothing",
                   a->recipe ? "recipe" : a->save_recipe ? "save-recipe" : "stats", a->plain ? "--plain" : "unquantized types");
    return r->preset || sizes || a->recipe ||
           ERR(err, QUERN_EUSAGE, "how large? --type with the name of a mix (Q4_K_M, say), --size, --bpw or --ratio");
}

/* A rule that no tensor follows is a typing error, which would show in the file only, after all the work. */
static bool check_rules(const struct run *r, struct quern_error *err)
{
    for (size_t i = 0; i < r->rule_count; i++) {
        const char *text = r->rules[i].text;
        char name[128], shown[100];
        bool used = false;
        for (size_t k = 0; !used && k < r->input.tensor_count; k++) {
            const struct gguf_tensor *t = &r->input.tensors[k];
            snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.text);
            used = preset_may_round(t) && regexec(&r->rules[i].pattern, name, 0, NULL, 0) == 0;
        }
        if (!used)
            return ERR(err, QUERN_EUSAGE,
                       "--type '%s': no tensor that is rounded has such a name ('quern show --tensors' lists all)",
                       text_escape(shown, sizeof shown, text, strlen(text)));
    }
    return true;
}

bool run_check_matrix(const struct run *r, bool lax, struct quern_error *err)
{
    const struct gguf *g = &r->input;
    /* Gathered ones lack what the model does not use: that is rounded without. */
    if (!r->args->imatrix)
        return true;
    bool *needs = mem_take(g->tensor_count, sizeof *needs, "the plan", err), ok;
    for (size_t i = 0; needs && i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        /* Calibration runs see no input of the embedding, and many leave the output out. */
        needs[i] = r->plan[i].format != t->type && !gguf_string_is(t->name, "token_embd.weight") &&
                   !gguf_string_is(t->name, "per_layer_token_embd.weight") && !gguf_string_is(t->name, "output.weight");
    }
    ok = needs && (imatrix_check(&r->matrix, g, needs, lax, err) || error_prefix(err, r->args->imatrix));
    free(needs);
    return ok;
}

bool run_check_importances(const struct run *r, struct quern_error *err)
{
    for (size_t i = 0; i < r->input.tensor_count; i++) {
        const struct gguf_tensor *t = &r->input.tensors[i];
        bool found = r->have_matrix && imatrix_find(&r->matrix, t->name);
        if (r->plan[i].needs_importance && !found && !r->args->dry_run) {
            char shown[100];
            return ERR(err, QUERN_EUSAGE, "'%s' as %s is worthless without importances: give --imatrix FILE",
                       text_escape(shown, sizeof shown, t->name.text, t->name.n), format_find(r->plan[i].format)->name);
        }
    }
    return run_check_matrix(r, r->args->lax_imatrix, err);
}

bool run_open_inputs(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    const char *output = a->args.operand_count > 1 ? a->args.operands[1] : NULL;
    if (!read_types(r, err) || (a->threads && !pool_allows(a->threads, err)) ||
        (!a->dry_run && !workplace_open(&r->work, output, err)) ||
        !source_open(&r->source, a->args.operands[0], output, r->job.stop, err) ||
        !(r->have_input = gguf_open(&r->input, r->source.path, NULL, err)) || !check_rules(r, err))
        return false;
    if (a->imatrix && !(r->have_matrix = imatrix_open(&r->matrix, a->imatrix, err)))
        return false;
    struct cpu cpu;
    if (!cpu_choose(&cpu, NULL, err))
        return false;
    kernels_init(&r->kernels, &cpu);
    snprintf(r->cpu, sizeof r->cpu, "%s %s", cpu_level_name(cpu.level), cpu.features);
    r->plan = mem_take(r->input.tensor_count, sizeof *r->plan, "the plan", err);
    r->rounding = r->plan ? rounding_open(err) : NULL;
    r->pool = r->rounding ? pool_open(a->threads ? a->threads : pool_default_threads(NULL, 0), err) : NULL;
    return r->pool != NULL;
}

bool run_check_twice(const struct run *r, struct quern_error *err)
{
    const struct gguf_tensor *twice = quantize_rounded_twice(&r->job);
    if (!twice || r->args->requantize)
        return true;
    char shown[100];
    text_escape(shown, sizeof shown, twice->name.text, twice->name.n);
    return ERR(err, QUERN_EUSAGE, "%s: tensor '%s' is %s already; rounding twice loses quality (--requantize does it)",
               r->args->args.operands[0], shown, format_find(twice->type)->name);
}

/* By doing what is done in the end, but for the file. */
static bool may_write(const char *path, const struct output_options *options, struct quern_error *err)
{
    struct output out;
    bool ok = output_open(&out, path, options, err);
    output_close(&out);
    return ok;
}

bool run_check_output(const struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    const char *const texts[] = { a->imatrix, a->calibration, a->heldout, a->stats, a->recipe, a->tune_stop };
    struct output_options options = { .force = a->force, .inputs = r->input.parts, .input_count = r->input.part_count,
                                      .texts = texts, .text_count = sizeof texts / sizeof *texts };
    if (a->save_recipe && a->args.operand_count > 1 && !strcmp(a->save_recipe, a->args.operands[1]))
        return ERR(err, QUERN_EUSAGE, "'%s' cannot be both the model and the recipe", a->save_recipe);
    if (a->save_recipe && !convert_check_output(a->args.operands[0], a->save_recipe, err))
        return error_prefix(err, "--save-recipe");
    if (a->save_recipe && !may_write(a->save_recipe, &options, err))
        return error_prefix(err, "--save-recipe");
    return a->dry_run || may_write(a->args.operands[1], &options, err);
}

/* Threads change nothing and are left out, so a run may be taken up again with fewer. */
void run_hash(const struct run *r, char key[65])
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
