/* Tuning: where formats keep their scales, gradients against numerical differentiation, and whole runs on a small model. */
#include "quantize.h"
#include "test.h"
#include "tiny.h"
#include "tune.h"
#include "tune_codes.h"
#include "tune_pass.h"
#include "numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct kernels kernels;

static const uint32_t formats[] = {
    FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q5_0, FORMAT_Q5_1, FORMAT_Q8_0, FORMAT_IQ4_NL, FORMAT_Q2_K, FORMAT_Q3_K, FORMAT_Q4_K,
    FORMAT_Q5_K, FORMAT_Q6_K, FORMAT_IQ4_XS, FORMAT_IQ2_XXS, FORMAT_IQ2_XS, FORMAT_IQ2_S, FORMAT_IQ3_XXS, FORMAT_IQ3_S,
    FORMAT_IQ1_S, FORMAT_TQ1_0, FORMAT_TQ2_0,
};

/* ---- blocks ---- */

static void put_half(uint8_t *at, float value)
{
    uint16_t half = f32_to_f16(value);
    memcpy(at, &half, sizeof half);
}

/* Any codes: the values of a row are scale * a + minimum * b. */
static void rows_are_linear_in_their_scales(void)
{
    enum { COLS = 512 };
    uint64_t seed = 5;
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        const struct format *format = format_find(formats[f]);
        size_t bytes = COLS / format->block * format->bytes, scale, minimum;
        uint8_t *data = malloc(bytes), *scratch = malloc(bytes);
        float a[COLS], b[COLS] = { 0 }, whole[COLS], off = 0, largest = 0;
        CHECK(tune_places(format->id, &scale, &minimum), "%s has no scale", format->name);
        for (size_t i = 0; i < bytes; i++)
            data[i] = (uint8_t)random_u64(&seed);
        for (size_t i = 0; i < bytes; i += format->bytes) {
            put_half(data + i + scale, 0.25f);
            if (minimum != SIZE_MAX)
                put_half(data + i + minimum, 0.125f);
        }
        struct tune_tensor t = { .format = format->id, .data = data, .rows = 1, .cols = COLS, .row_bytes = bytes,
                                 .per_row = COLS / format->block };
        kernels.dequantize[format->id].fn(whole, data, COLS);
        tune_unit_row(a, scratch, &t, 0, false, &kernels);
        if (minimum != SIZE_MAX)
            tune_unit_row(b, scratch, &t, 0, true, &kernels);
        for (size_t i = 0; i < COLS; i++) {
            off = fmaxf(off, fabsf(whole[i] - (0.25f * a[i] + 0.125f * b[i])));
            largest = fmaxf(largest, fabsf(whole[i]));
        }
        CHECK(largest > 0 && off <= 1e-6f * largest, "%s: off by %g of %g", format->name, (double)off, (double)largest);
        free(data);
        free(scratch);
    }
    size_t scale, minimum;
    CHECK(!tune_places(FORMAT_F32, &scale, &minimum) && !tune_places(FORMAT_MXFP4, &scale, &minimum), "these have no such scale");
}

/* A code that is put is the code that is got, touches no other, and the value rises with it by equal steps (not IQ4's table). */
static void codes_are_where_they_should_be(void)
{
    uint64_t seed = 6;
    size_t known = 0;
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        const struct format *format = format_find(formats[f]);
        struct code_layout layout;
        uint8_t block[256], copy[256];
        float before[256], after[256];
        size_t scale, minimum;
        if (!code_layout_of(&layout, format->id))
            continue;
        known++;
        for (size_t i = 0; i < format->bytes; i++)
            block[i] = (uint8_t)random_u64(&seed);
        tune_places(format->id, &scale, &minimum);
        put_half(block + scale, 1);
        if (minimum != SIZE_MAX)
            put_half(block + minimum, 0);
        for (size_t i = 0; i < format->block; i++) {
            float step = 0;
            bool even = true, rising = true, alone = true;
            for (unsigned code = 0; code < layout.levels; code++) {
                memcpy(copy, block, format->bytes);
                code_put(&layout, copy, i, code);
                CHECK(code_get(&layout, copy, i) == code, "%s, value %zu: code %u", format->name, i, code);
                kernels.dequantize[format->id].fn(after, copy, format->block);
                for (size_t k = 0; code && k < format->block; k++)
                    alone = alone && (k == i || after[k] == before[k]);
                if (code == 1)
                    step = after[i] - before[i];
                else if (code)
                    even = even && fabsf(after[i] - before[i] - step) <= 1e-5f * fabsf(step),
                    rising = rising && (after[i] - before[i]) * step >= 0;
                memcpy(before, after, sizeof before);
            }
            bool table = format->id == FORMAT_IQ4_NL || format->id == FORMAT_IQ4_XS;
            CHECK(alone && rising && (even || table), "%s, value %zu", format->name, i);
        }
    }
    CHECK(known == 11, "%zu formats with codes", known);
}

/* ---- a small model and its rounded image ---- */

enum { TEXT = 6000 };

struct bench {
    char  original[400], rounded[400], out[400];
    char  text[TEXT], other[TEXT];
    struct tune_text texts[2];
};

/* Every other matrix in blocks of `first`, the others of `second`; norms and what does not divide stay. */
static bool round_model(const char *from, const char *to, uint32_t first, uint32_t second, struct quern_error *err)
{
    struct gguf g;
    if (!gguf_open(&g, from, NULL, err))
        return false;
    struct plan_item *plan = calloc(g.tensor_count, sizeof *plan);
    for (size_t i = 0; i < g.tensor_count; i++)
        plan[i].format = g.tensors[i].dims == 2 ? (i % 2 ? first : second) : g.tensors[i].type;
    struct rounding *rounding = rounding_open(err);
    struct pool *pool = pool_open(2, err);
    struct quantize_job job = { .input = &g, .plan = plan, .rounding = rounding, .kernels = &kernels, .pool = pool };
    bool ok = rounding && pool && quantize_write(&job, to, true, err);
    pool_close(pool);
    rounding_close(rounding);
    free(plan);
    gguf_close(&g);
    return ok;
}

static void fill_text(char *text, uint64_t seed)
{
    static const char *const words[] = { "the ", "cat ", "sat ", "on ", "a ", "mat ", "and ", "saw ", "it. ", "Then ", "no " };
    size_t n = 0;
    while (n + 6 < TEXT) {
        const char *word = words[random_u64(&seed) % (sizeof words / sizeof *words)];
        memcpy(text + n, word, strlen(word));
        n += strlen(word);
    }
    memset(text + n, '.', TEXT - n);
}

static void bench_begin(struct bench *t)
{
    struct tiny tiny;
    struct quern_error err;
    tiny_model(&tiny, TINY_LLAMA);
    tiny_format(&tiny, FORMAT_F32);
    snprintf(t->original, sizeof t->original, "%s", temp_path("tune-original.gguf"));
    snprintf(t->rounded, sizeof t->rounded, "%s", temp_path("tune-rounded.gguf"));
    snprintf(t->out, sizeof t->out, "%s", temp_path("tune-out.gguf"));
    tiny_save(&tiny, t->original);
    CHECK(round_model(t->original, t->rounded, FORMAT_Q4_1, FORMAT_Q4_0, &err), "%s", err.text);
    fill_text(t->text, 1);
    fill_text(t->other, 2);
    t->texts[0] = (struct tune_text){ t->text, TEXT / 2 }, t->texts[1] = (struct tune_text){ t->text + TEXT / 2, TEXT / 2 };
}

static void bench_end(const struct bench *t)
{
    unlink(t->original);
    unlink(t->rounded);
    unlink(t->out);
}

static struct tune_options options_of(const struct bench *t, struct pool *pool)
{
    struct tune_options o;
    tune_default(&o);
    o.texts = t->texts, o.text_count = 2, o.held_out = (struct tune_text){ t->other, TEXT }, o.pool = pool;
    o.tokens = 64 * 4 * 30, o.length = 64, o.batch = 4, o.checks = 6, o.held_out_tokens = 512;
    o.scale_rate = o.norm_rate = 0.01;
    return o;
}

/* ---- gradients ---- */

/* The divergence between two models with different weights falls along the gradient as fast as the gradient says, for each part:
 * scales and minimums of every tensor, norms. The parts move by what the halves can hold. */
static void check_part(struct tune_pass *pass, struct tune_part *part, const float *gradient, size_t index)
{
    uint64_t seed = 9 + index;
    uint8_t *saved = malloc(part->n * part->step), *side = malloc(part->n);
    double at[2], inner = 0, size = 0;
    for (size_t i = 0; i < part->n; i++)
        side[i] = random_u64(&seed) & 1;
    for (size_t i = 0; i < part->n; i++)
        memcpy(saved + i * part->step, part->at + i * part->step, part->half ? 2 : 4);
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < part->n; i++) {
            /* A power of two's share of each value, so that halves hold it well enough. */
            float value = part->value[i] * (1 + ((s ^ side[i]) ? 0.015625f : -0.015625f)), kept = value;
            if (part->half) {
                uint16_t half = f32_to_f16(value);
                memcpy(part->at + i * part->step, &half, sizeof half);
                kept = f16_to_f32(half);
            } else {
                memcpy(part->at + i * part->step, &value, sizeof value);
            }
            inner += (s ? 1 : -1) * (double)gradient[i] * kept;
            size += (double)gradient[i] * gradient[i] * (kept - part->value[i]) * (kept - part->value[i]);
        }
        at[s] = tune_pass_run(pass, pass->most, false);
    }
    CHECK(fabs(at[1] - at[0] - inner) < 0.03 * (fabs(inner) + sqrt(size)), "part %zu (kind %d): rose by %g, gradient says %g",
          index, (int)part->kind, at[1] - at[0], inner);
    for (size_t i = 0; i < part->n; i++)
        memcpy(part->at + i * part->step, saved + i * part->step, part->half ? 2 : 4);
    free(saved);
    free(side);
}

static void gradients_are_slopes(void)
{
    struct bench t;
    struct quern_error err;
    struct tiny tiny;
    struct gguf g, h;
    struct model teacher, student;
    struct tune_parts parts;
    struct tune_pass pass;
    bench_begin(&t);
    tiny_model(&tiny, TINY_LLAMA);
    tiny_format(&tiny, FORMAT_F32);
    tiny.seed += 1;
    tiny_save(&tiny, t.original);
    size_t size;
    char *file = read_whole_file(t.rounded, &size);
    uint8_t *bytes = aligned_alloc(64, (size + 63) / 64 * 64);
    memcpy(bytes, file, size);
    free(file);
    struct pool *pool = pool_open(2, &err);
    CHECK(gguf_open(&g, t.original, NULL, &err) && gguf_view(&h, bytes, size, "image", NULL, &err), "%s", err.text);
    CHECK(model_init(&teacher, &g, &kernels, &err) && model_init(&student, &h, &kernels, &err), "%s", err.text);
    CHECK(tune_parts_init(&parts, &student, bytes, &h, true, true, &err), "%s", err.text);
    CHECK(tune_pass_open(&pass, &teacher, &student, &parts, &kernels, pool, 2, 24, 0, &err), "%s", err.text);
    uint64_t seed = 4;
    for (size_t i = 0; i < 48; i++)
        pass.tokens[i] = (int32_t)(random_u64(&seed) % student.hyper.vocab);
    double loss = tune_pass_run(&pass, 2, true);
    CHECK(loss > 0 && loss == tune_pass_run(&pass, 2, false), "loss %g", loss);
    size_t kinds[TUNE_KINDS] = { 0 };
    for (size_t i = 0; i < parts.count; i++) {
        kinds[parts.part[i].kind]++;
        check_part(&pass, &parts.part[i], parts.part[i].gradient, i);
    }
    CHECK(kinds[TUNE_SCALE] >= 14 && kinds[TUNE_MINIMUM] >= 5 && kinds[TUNE_NORM] == 5, "%zu scales, %zu minimums, %zu norms",
          kinds[TUNE_SCALE], kinds[TUNE_MINIMUM], kinds[TUNE_NORM]);
    tune_pass_close(&pass);
    tune_parts_free(&parts);
    model_free(&student), model_free(&teacher);
    gguf_close(&g), gguf_close(&h);
    pool_close(pool);
    free(bytes);
    bench_end(&t);
}

/* ---- whole runs ---- */

/* Lower divergence, the same layout, and the same bytes from one thread and from three. */
static void tuning_lowers_the_divergence(void)
{
    struct bench t;
    struct quern_error err;
    struct tune_result r[2];
    char *made[2] = { NULL };
    size_t size[2], before;
    bench_begin(&t);
    for (int run = 0; run < 2; run++) {
        struct pool *pool = pool_open(run ? 3 : 1, &err);
        struct tune_options o = options_of(&t, pool);
        CHECK(tune_file(&r[run], t.original, t.rounded, t.out, true, &o, &err), "%s", err.text);
        made[run] = read_whole_file(t.out, &size[run]);
        pool_close(pool);
    }
    CHECK(r[0].after < 0.9 * r[0].before && r[0].best_step > 0, "%g -> %g at step %zu", r[0].before, r[0].after, r[0].best_step);
    CHECK(made[0] && made[1] && size[0] == size[1] && !memcmp(made[0], made[1], size[0]), "threads change the bytes");
    free(read_whole_file(t.rounded, &before));
    CHECK(size[0] == before, "%zu bytes became %zu", before, size[0]);
    /* Measured again from the file, without a step's worth of change: it begins where the run ended. */
    struct pool *pool = pool_open(2, &err);
    struct tune_options o = options_of(&t, pool);
    struct tune_result again;
    o.scale_rate = o.norm_rate = 1e-9;
    CHECK(tune_file(&again, t.original, t.out, t.rounded, true, &o, &err), "%s", err.text);
    CHECK(fabs(again.before - r[0].after) < 1e-9, "the file's divergence is %g, said was %g", again.before, r[0].after);
    pool_close(pool);
    struct quern_model *model = quern_open_model(t.out, NULL, &err);
    CHECK(model, "%s", err.text);
    quern_close_model(model);
    free(made[0]), free(made[1]);
    bench_end(&t);
}

/* Codes move too: lower still, the same for any number of threads, and scales, layout and size as they were. */
static void codes_lower_it_further(void)
{
    struct bench t;
    struct quern_error err;
    struct tune_result r[2];
    char *made[2] = { NULL };
    size_t size[2];
    bench_begin(&t);
    CHECK(round_model(t.original, t.rounded, FORMAT_IQ4_NL, FORMAT_Q4_1, &err), "%s", err.text);
    for (int run = 0; run < 2; run++) {
        struct pool *pool = pool_open(run ? 3 : 1, &err);
        struct tune_options o = options_of(&t, pool);
        o.scale_rate = o.norm_rate = 0, o.code_rate = 0.05;
        CHECK(tune_file(&r[run], t.original, t.rounded, t.out, true, &o, &err), "%s", err.text);
        made[run] = read_whole_file(t.out, &size[run]);
        pool_close(pool);
    }
    CHECK(r[0].after < 0.8 * r[0].before && r[0].codes_changed > 0, "%g -> %g, %zu of %zu codes", r[0].before, r[0].after,
          r[0].codes_changed, r[0].codes);
    CHECK(r[0].codes_changed < r[0].codes / 2, "%zu of %zu codes", r[0].codes_changed, r[0].codes);
    CHECK(made[0] && made[1] && size[0] == size[1] && !memcmp(made[0], made[1], size[0]), "threads change the bytes");
    free(made[0]), free(made[1]);
    bench_end(&t);
}

/* The best state is the result: with wild steps that is the first, and the file is what it was. */
static void wild_steps_change_nothing(void)
{
    struct bench t;
    struct quern_error err;
    struct tune_result r;
    size_t size, before;
    bench_begin(&t);
    struct pool *pool = pool_open(2, &err);
    struct tune_options o = options_of(&t, pool);
    o.scale_rate = 3, o.norm_rate = 3, o.patience = 2;
    CHECK(tune_file(&r, t.original, t.rounded, t.out, true, &o, &err), "%s", err.text);
    CHECK(r.best_step == 0 && r.steps < 30 && r.after == r.before, "step %zu of %zu", r.best_step, r.steps);
    char *made = read_whole_file(t.out, &size), *source = read_whole_file(t.rounded, &before);
    CHECK(made && source && size == before && !memcmp(made, source, size), "bytes changed");
    free(made), free(source);
    pool_close(pool);
    bench_end(&t);
}

/* The first twentieth of the steps is the warm-up: small ones, in the direction of the others. The first of 40 must have gained, or
 * patience ends it there. */
static void first_steps_go_down(void)
{
    struct bench t;
    struct quern_error err;
    struct tune_result r;
    bench_begin(&t);
    struct pool *pool = pool_open(2, &err);
    struct tune_options o = options_of(&t, pool);
    o.batch = 8, o.tokens = 64 * 8 * 40, o.checks = 40, o.patience = 1;
    CHECK(tune_file(&r, t.original, t.rounded, t.out, true, &o, &err), "%s", err.text);
    CHECK(r.best_step >= 1 && r.after < r.before, "best after step %zu of %zu", r.best_step, r.steps);
    pool_close(pool);
    bench_end(&t);
}

static void refusals_leave_no_file(void)
{
    struct bench t;
    struct quern_error err;
    struct tune_result r;
    int stop = 1;
    bench_begin(&t);
    struct pool *pool = pool_open(2, &err);
    struct tune_options good = options_of(&t, pool), o = good;
    o.texts = &(struct tune_text){ "short", 5 }, o.text_count = 1;
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &o, &err) && err.code == QUERN_EUSAGE, "short text");
    o = good, o.tokens = 10;
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &o, &err) && err.code == QUERN_EUSAGE, "no step");
    o = good, o.scale_rate = NAN;
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &o, &err) && err.code == QUERN_EUSAGE, "rate");
    o = good, o.mem_limit = 1000;
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &o, &err) && err.code == QUERN_EMEM, "memory");
    o = good, o.stop = &stop;
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &o, &err) && err.code == QUERN_EINTERRUPT, "interrupted");
    o = good, o.norm_rate = 0;
    CHECK(!tune_file(&r, t.original, t.original, t.out, false, &o, &err) && err.code == QUERN_EUSAGE, "nothing to tune");
    struct tiny tiny;
    tiny_model(&tiny, TINY_EXPERTS);
    tiny_save(&tiny, t.original);
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &good, &err) && err.code == QUERN_EFORMAT, "another model");
    tiny_model(&tiny, TINY_EXPERTS);
    tiny_save(&tiny, t.rounded);
    CHECK(!tune_file(&r, t.original, t.rounded, t.out, false, &good, &err) && err.code == QUERN_EUNSUPPORTED, "experts");
    CHECK(access(t.out, F_OK) != 0, "a file was left behind");
    pool_close(pool);
    bench_end(&t);
}

int main(void)
{
    struct cpu cpu;
    cpu_detect(&cpu);
    kernels_init(&kernels, &cpu);
    TEST(rows_are_linear_in_their_scales);
    TEST(codes_are_where_they_should_be);
    TEST(gradients_are_slopes);
    TEST(tuning_lowers_the_divergence);
    TEST(codes_lower_it_further);
    TEST(wild_steps_change_nothing);
    TEST(first_steps_go_down);
    TEST(refusals_leave_no_file);
    return test_end();
}
