/* Allocation against trying everything; recipes there and back; measured plans of a small model. */
#include "adaptive.h"
#include "imprint.h"
#include "recipe.h"
#include "receipt.h"
#include "sha256.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 11;
static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53;
}

enum { ITEMS = 5, CHOICES = 4 };

/* The least loss within the budget, by trying all; HUGE_VAL when nothing fits. */
static double try_all(const struct allocate_choice choices[ITEMS][CHOICES], size_t budget)
{
    double best = HUGE_VAL;
    for (size_t code = 0; code < 1024; code++) {
        size_t bytes = 0, c = code;
        double loss = 0;
        for (size_t i = 0; i < ITEMS; i++, c /= CHOICES)
            bytes += choices[i][c % CHOICES].bytes, loss += choices[i][c % CHOICES].loss;
        if (bytes <= budget && loss < best)
            best = loss;
    }
    return best;
}

/* Never over the budget; never worse than the optimum by more than one item's largest step; on the whole close to it. */
static void test_against_all(void)
{
    double excess = 0;
    size_t cases = 0, over = 0, refused = 0;
    for (size_t round = 0; round < 300; round++) {
        struct allocate_choice choices[ITEMS][CHOICES];
        struct allocate_item items[ITEMS];
        struct quern_error err;
        for (size_t i = 0; i < ITEMS; i++) {
            double weight = exp(4 * uniform());
            for (size_t c = 0; c < CHOICES; c++)
                choices[i][c] = (struct allocate_choice){ 100 + c * 60 + (size_t)(40 * uniform()), weight * exp(-1.4 * (double)c) };
            items[i] = (struct allocate_item){ .choices = choices[i], .count = CHOICES };
        }
        size_t budget = 450 + (size_t)(1200 * uniform());
        double best = try_all((const struct allocate_choice (*)[CHOICES])choices, budget);
        bool ok = allocate(items, ITEMS, budget, NULL, &err);
        CHECK(ok == (best < HUGE_VAL), "budget %zu: %s", budget, ok ? "given" : err.text);
        refused += !ok;
        if (!ok)
            continue;
        cases++;
        over += allocate_bytes(items, ITEMS) > budget;
        excess += allocate_loss(items, ITEMS) / best - 1;
    }
    CHECK(over == 0, "%zu plans over the budget", over);
    CHECK(cases > 100 && refused > 0, "%zu cases, %zu refused", cases, refused);
    CHECK(excess / (double)cases < 0.05, "mean excess %.4f over the optimum", excess / (double)cases);
}

/* With bytes to spare everything gets its best, whatever the order of the choices. */
static void test_plenty(void)
{
    struct allocate_choice a[] = { { 30, 0.5 }, { 10, 2 }, { 90, 0.1 } }, b[] = { { 20, 0.2 }, { 40, 0.3 } };
    struct allocate_item items[] = { { a, 3, 0 }, { b, 2, 0 } };
    struct quern_error err;
    CHECK(allocate(items, 2, 1000, NULL, &err) && items[0].chosen == 2 && items[1].chosen == 0, "chosen %zu %zu", items[0].chosen,
          items[1].chosen);
    CHECK(allocate(items, 2, 30, NULL, &err) && allocate_bytes(items, 2) == 30, "%zu bytes of 30", allocate_bytes(items, 2));
    CHECK(!allocate(items, 2, 29, NULL, &err) && err.code == QUERN_EUSAGE, "29 bytes are too few");
}

static void test_paired(void)
{
    double a[] = { 1, 2, 3, 4 }, b[] = { 2, 3, 4, 7 }, mean, error;
    measure_paired(a, b, 4, &mean, &error);
    CHECK(mean == 1.5 && fabs(error - 0.5) < 1e-12, "mean %g, error %g", mean, error);
}

/* FIPS 180-4's examples, and the same bytes in pieces of every size. */
static void test_sha256(void)
{
    static const struct { const char *text, *digest; } known[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    };
    struct sha256 h;
    char whole[65], parts[65];
    for (size_t i = 0; i < 3; i++) {
        sha256_begin(&h);
        sha256_add(&h, known[i].text, strlen(known[i].text));
        sha256_end(&h, whole);
        CHECK(!strcmp(whole, known[i].digest), "'%s' gives %s", known[i].text, whole);
    }
    char text[300];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    sha256_begin(&h);
    sha256_add(&h, text, sizeof text);
    sha256_end(&h, whole);
    for (size_t step = 1; step < 130; step++) {
        sha256_begin(&h);
        for (size_t at = 0; at < sizeof text; at += step)
            sha256_add(&h, text + at, sizeof text - at < step ? sizeof text - at : step);
        sha256_end(&h, parts);
        CHECK(!strcmp(whole, parts), "pieces of %zu: %s", step, parts);
    }
}

static void test_gates(void)
{
    struct receipt r = { .result = { .kl_mean = 0.02, .kl_median = 0.01, .kl_999 = 1, .same_top = 0.9, .perplexity = 11,
                                     .base_perplexity = 10 }, .fallbacks.count = 3 };
    static const struct { const char *gate; int code; } cases[] = {
        { "kld>0.02", 0 },      { "kld>=0.02", 7 },   { "kld>0.0199", 7 }, { "kld<0.1", 7 },   { "kld_median>0.02", 0 },
        { "kld_999>0.5", 7 },   { "top1<0.95", 7 },   { "top1<0.85", 0 },  { "ppl_ratio>1.05", 7 }, { "ppl_ratio>1.2", 0 },
        { "fallbacks>2", 7 },   { "fallbacks>3", 0 },
        { "kld", 2 },           { "kld>", 2 },        { "kld>0.1x", 2 },   { "speed>1", 2 },   { "kld=1", 2 }, { "", 2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct quern_error err;
        int got = receipt_gate(&r, cases[i].gate, &err) ? 0 : (int)err.code;
        CHECK(got == cases[i].code, "'%s' gives %d, not %d", cases[i].gate, got, cases[i].code);
        got = receipt_gate(NULL, cases[i].gate, &err) ? 0 : (int)err.code;
        CHECK(got == (cases[i].code == 2 ? 2 : 0), "'%s' before the work: %d", cases[i].gate, got);
    }
}

/* ---- predictions for tensors rounded with error feedback ---------------------------------------------------------------- */

struct bench {
    struct quern_model *model;
    struct pool        *pool;
    struct rounding    *rounding;
    struct refine       refine;
    struct plan_item   *items;
    struct quantize_job job;
    struct calibration  text;
};

static bool open_bench(struct bench *b, const char *stats, struct quern_error *err)
{
    struct quern_model_options how = { .threads = 2 };
    struct refine_options refined = { .guided = false };
    *b = (struct bench){ .pool = pool_open(2, err), .rounding = rounding_open(err) };
    struct imprint_options moments = { .context = 128, .tokens = 6144, .pool = b->pool, .force = true };
    if (!b->pool || !b->rounding ||
        !(b->model = quern_open_model(shared_path("models/babyllama361/babyllama361-F32.gguf"), &how, err)))
        return false;
    const struct gguf *g = &b->model->gguf;
    if (!imprint_write(b->model, stats, &moments, err) ||
        !refine_open(&b->refine, stats, g, &b->model->kernels, b->pool, &refined, err) ||
        !calibration_open(&b->text, NULL, CALIBRATION_FIT, b->model, 64, err))
        return false;
    b->items = calloc(g->tensor_count, sizeof *b->items);
    b->job = (struct quantize_job){ .input = g, .plan = b->items, .rounding = b->rounding, .refine = &b->refine,
                                    .kernels = &b->model->kernels, .pool = b->pool };
    return preset_plan(b->items, g, preset_find("Q4_K_M"), NULL, 0, false, err);
}

static void close_bench(struct bench *b)
{
    calibration_close(&b->text);
    refine_close(&b->refine);
    free(b->items);
    quern_close_model(b->model);
    rounding_close(b->rounding);
    pool_close(b->pool);
}

/* Predicted losses of a plan; `fed` as in plan_options, `feedback` false: each value by itself. */
static bool predicted(struct plan *p, const struct bench *b, size_t fed, bool feedback, struct quern_error *err)
{
    struct quantize_job job = b->job;
    struct plan_options options = { .budget = 600000, .chunks = 8, .fed = fed };
    job.refine = feedback ? job.refine : NULL;
    return plan_init(p, &job, b->model, false, err) && plan_measure(p, &job, b->model, &b->text, &options, err);
}

/* What is predicted knows of feedback; and measuring three layers of five with it tells what the others will gain. */
static void test_feedback_is_predicted(void)
{
    struct bench b;
    struct plan all, some, plain;
    struct quern_error err;
    double logs = 0, sums[3] = { 0 };
    size_t same = 0, others = 0, lower = 0;
    bool ok = open_bench(&b, temp_path("moments"), &err) && predicted(&all, &b, 0, true, &err) &&
              predicted(&some, &b, 3, true, &err) && predicted(&plain, &b, 0, false, &err);
    CHECK(ok, "%s", err.text);
    for (size_t i = 0; ok && i < all.count; i++) {
        size_t c = all.tensors[i].anchor[1];
        double a = all.tensors[i].choice[c].loss, s = some.tensors[i].choice[c].loss, p = plain.tensors[i].choice[c].loss;
        bool is_same = some.tensors[i].fed[1] >= 0;
        CHECK(!is_same || a == s, "tensor %zu: measured %g, and %g among others", i, a, s);
        same += is_same, others += !is_same, lower += a < p;
        logs += is_same ? 0 : log(s / a);
        sums[0] += a, sums[1] += s, sums[2] += p;
    }
    CHECK(same >= 22 && others == 14, "%zu measured with feedback, %zu not", same, others);
    CHECK(lower * 10 >= (same + others) * 9, "feedback lowers %zu of %zu", lower, same + others);
    CHECK(fabs(logs) < 0.2 * (double)others, "the others are predicted %.3f times too high", exp(logs / (double)others));
    CHECK(fabs(sums[1] / sums[0] - 1) < 0.1 && sums[0] < 0.8 * sums[2], "%g with feedback, %g by some, %g without", sums[0],
          sums[1], sums[2]);
    plan_free(&all), plan_free(&some), plan_free(&plain);
    close_bench(&b);
}

int main(void)
{
    if (shared_path("models/babyllama361/babyllama361-F32.gguf"))
        TEST(test_feedback_is_predicted);
    else
        test_skip("test_feedback_is_predicted", "shared/ is not here");
    TEST(test_against_all);
    TEST(test_plenty);
    TEST(test_paired);
    TEST(test_sha256);
    TEST(test_gates);
    return test_end();
}
