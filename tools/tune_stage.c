#include "tune_stage.h"

#include <stdio.h>

#include "calibration.h"
#include "tune_pass.h"

bool tune_stage_possible(const struct quern_model *original, struct pool *pool, struct quern_error *err)
{
    struct backward b;
    if (!tune_parts_possible(&original->model, err) ||
        !backward_init(&b, &original->model, &original->kernels, pool, 2, 2, err))
        return error_prefix(err, "--tune");
    backward_free(&b);
    return true;
}

/* Codes take 16 bytes of memory each and a copy of the file: left alone above 4 GiB of that, or half of what may be taken. They
 * also stay where errors were fed back: such codes stand beyond the middle between two neighbours on purpose, and the first steps
 * would take them back (divergence of tiny-books at Q4_K_M's bytes: 0.0080 before, 0.0131 after 65,536 tokens). */
static bool codes_move(const struct quern_model *original, bool feedback, size_t mem_limit)
{
    double most = mem_limit ? (double)mem_limit / 2 : 0x1p32;
    return !feedback && 17 * (double)original->model.parameters <= most;
}

/* The divergence of 5.8 million parameters falls little more after these tokens (bench/results, 2026-11-21-tune.md); a larger model
 * gets what the same number of multiplications buys, but no fewer than show all of its scales a gradient that is not mere noise. */
size_t tune_stage_tokens(const struct quern_model *original, bool feedback, size_t asked)
{
    const double least = 65536;
    struct tune_options o;
    tune_default(&o);
    double tokens = 0x1p46 / ((double)original->model.parameters + 1);
    double most = feedback ? least : (double)o.tokens;
    return asked ? asked : (size_t)(tokens < least ? least : tokens > most ? most : tokens);
}

/* Forward through both models, back through one: 8 multiplications and additions per parameter and token. Measured on tiny-books:
 * 25 thousand million of them per second and core. */
double tune_stage_seconds(const struct quern_model *original, size_t tokens, size_t threads)
{
    return 8 * (double)original->model.parameters * (double)tokens / 25e9 / (double)(threads ? threads : 1);
}

/* The two passes' widest matrices and their transposes, logits, and one layer's values; tune_pass.c bounds the logits. */
size_t tune_stage_memory(const struct quern_model *original, bool feedback, size_t mem_limit)
{
    const struct hyper *h = &original->model.hyper;
    struct tune_options o;
    tune_default(&o);
    size_t n = tune_pass_sequences(h->vocab, o.batch, o.length) * o.length, matrix = (h->vocab > n ? h->vocab : n) * h->width;
    for (size_t i = 0; i < h->layers; i++)
        matrix = original->model.layer[i].ff * h->width > matrix ? original->model.layer[i].ff * h->width : matrix;
    size_t codes = codes_move(original, feedback, mem_limit) ? 17 * (size_t)original->model.parameters : 0;
    return codes + sizeof(float) * (4 * matrix + 2 * n * h->vocab + 2 * n * h->width * (h->layers + 20));
}

/* Tokens of a sequence. */
static size_t length_of(const struct quern_model *original)
{
    struct tune_options o;
    size_t context = original->model.hyper.context;
    tune_default(&o);
    return context && context < o.length ? context : o.length;
}

static const char SAME_TEXT[] = "the text to stop tuning by is the text that it learns from: it would never see too much";

bool tune_stage_texts(const struct quern_model *original, const struct tune_stage *stage, struct quern_error *err)
{
    return calibration_possible(stage->calibration, stage->stop_text, CALIBRATION_STOP, original, length_of(original), SAME_TEXT,
                                err);
}

bool tune_stage_run(struct tune_result *result, const struct quern_model *original, const char *rounded,
                    const struct tune_stage *stage, struct quern_error *err)
{
    struct tune_options o;
    struct calibration fit, other;
    tune_default(&o);
    o.length = length_of(original);
    o.tokens = tune_stage_tokens(original, stage->feedback, stage->tokens);
    o.code_rate = codes_move(original, stage->feedback, stage->mem_limit) ? o.code_rate : 0;
    /* What errors were fed back by is this same text: at full rates what is learned then no longer helps other texts. */
    if (stage->feedback)
        o.scale_rate = o.norm_rate = 0.0005;
    o.mem_limit = stage->mem_limit, o.pool = stage->pool, o.stop = stage->stop, o.show = stage->show, o.show_arg = stage->show_arg;
    bool ok = calibration_open_two(&fit, stage->calibration, &other, stage->stop_text, CALIBRATION_STOP, original, o.length,
                                   SAME_TEXT, err);
    if (ok) {
        struct tune_text text = { fit.text, fit.bytes };
        o.texts = &text, o.text_count = 1, o.held_out = (struct tune_text){ other.text, other.bytes };
        o.held_out_tokens = other.count < o.held_out_tokens ? other.count : o.held_out_tokens;
        ok = tune_rounded(result, original, rounded, rounded, true, &o, err);
    }
    calibration_close(&fit);
    calibration_close(&other);
    return ok;
}

void tune_stage_print(const struct tune_result *r)
{
    printf("tuned: %zu scales and norm weights, %zu of %zu codes changed, %zu tokens; KL on the text to stop by %.5f -> %.5f",
           r->parameters, r->codes_changed, r->codes, r->tokens, r->before, r->after);
    if (r->best_step)
        printf(" (best after step %zu of %zu)\n", r->best_step, r->steps);
    else
        printf(": no better, the untuned file stays\n");
}
