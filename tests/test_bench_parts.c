/* What the bench divides by: the costs of a pass, counted by hand for a small shape; the clock of stages; the roofs of the rows. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "cost.h"
#include "machine.h"
#include "moe.h"
#include "synthetic.h"
#include "tiny.h"

/* tiny: 2 layers, width 256, ff 512, 4 heads of 64, 2 key heads, vocabulary 512, output = embedding. */
enum { WIDTH = 256, FF = 512, HEADS = 4, KEY_HEADS = 2, DIM = 64, VOCAB = 512, LAYERS = 2 };

struct small {
    struct synthetic    random;
    struct quern_model *model;
    struct bench        bench;
};

static bool open_with_cache(struct small *t, const char *spec, size_t threads, enum kv_type kv, struct quern_error *err)
{
    struct quern_model_options choices = {.threads = 1};
    struct bench_plan plan = {.threads = threads, .sequences = 4, .pass = 32, .context = 128, .kv = kv};
    *t = (struct small){0};
    return synthetic_make(&t->random, spec, err) &&
           (t->model = quern_view_model(t->random.data, t->random.size, t->random.name, &choices, err)) != NULL &&
           bench_open(&t->bench, t->model, &plan, err);
}

static bool open_tiny(struct small *t, const char *spec, size_t threads, struct quern_error *err)
{
    return open_with_cache(t, spec, threads, KV_F16, err);
}

static void close_tiny(struct small *t)
{
    bench_close(&t->bench);
    quern_close_model(t->model);
    synthetic_free(&t->random);
}

static struct cost cost_of(struct cost stages[STAGES], const struct small *t, size_t sequences, size_t depth, size_t tokens,
                           size_t wanted)
{
    struct cost_pass pass = {.model = &t->model->model, .kernels = &t->model->kernels, .kv = &t->bench.runner.kv[0],
                             .sequences = sequences, .depth = depth, .tokens = tokens, .wanted = wanted};
    memset(stages, 0, STAGES * sizeof *stages);
    cost_add_pass(stages, &pass);
    return cost_sum(stages);
}

#define CHECK_NEAR(got, want, name)                                                                                              \
    CHECK(fabs((got) - (want)) <= 1e-9 * (want), "%s: %g, want %g", name, (double)(got), (double)(want))

static void test_costs_by_hand(void)
{
    struct quern_error err = {0};
    struct cost stages[STAGES];
    struct small t;
    CHECK(open_tiny(&t, "tiny:q8_0", 1, &err), "%s", err.text);
    const double per_weight = 34.0 / 32, tokens = 8, depth = 16;
    /* Behind the last layer's attention only the wanted token goes on. */
    struct cost all = cost_of(stages, &t, 1, (size_t)depth, (size_t)tokens, 1);
    double qkv = WIDTH * (HEADS + 2 * KEY_HEADS) * DIM, out = WIDTH * HEADS * DIM, up = 2.0 * WIDTH * FF, down = FF * WIDTH;
    CHECK_NEAR(stages[STAGE_QKV].bytes, LAYERS * qkv * per_weight, "q|k|v bytes");
    CHECK_NEAR(stages[STAGE_QKV].ops[ROOF_INT8], 2 * tokens * LAYERS * qkv, "q|k|v operations");
    CHECK_NEAR(stages[STAGE_OUT].ops[ROOF_INT8], 2 * tokens * LAYERS * out, "out operations");
    CHECK_NEAR(stages[STAGE_UP].bytes, LAYERS * up * per_weight, "gate|up bytes");
    CHECK_NEAR(stages[STAGE_UP].ops[ROOF_INT8], 2 * (tokens + 1) * up, "gate|up operations");
    CHECK_NEAR(stages[STAGE_DOWN].ops[ROOF_INT8], 2 * (tokens + 1) * down, "down operations");
    CHECK_NEAR(stages[STAGE_HEAD].ops[ROOF_INT8], 2.0 * WIDTH * VOCAB, "output operations");
    /* Keys and values in F16: 24 rows of each in the end; token i of 8 sees 16 + i. */
    CHECK_NEAR(stages[STAGE_ATTENTION].bytes, LAYERS * 2.0 * KEY_HEADS * DIM * 2 * (depth + tokens), "cache bytes");
    CHECK_NEAR(stages[STAGE_ATTENTION].ops[ROOF_F32], LAYERS * 2.0 * HEADS * 2 * DIM * (tokens * depth + tokens * (tokens + 1) / 2),
               "attention operations");
    CHECK_NEAR(cost_ops(&all), all.ops[ROOF_INT8] + all.ops[ROOF_F32], "sum");
    /* Several sequences share the weights, not the caches. */
    struct cost one = cost_of(stages, &t, 1, 16, 1, 1);
    double weights = stages[STAGE_UP].bytes, cache = stages[STAGE_ATTENTION].bytes;
    struct cost four = cost_of(stages, &t, 4, 16, 1, 1);
    CHECK_NEAR(stages[STAGE_UP].bytes, weights, "weights of four");
    CHECK_NEAR(stages[STAGE_ATTENTION].bytes, 4 * cache, "caches of four");
    CHECK_NEAR(cost_ops(&four), 4 * cost_ops(&one), "operations of four");
    /* No logits wanted: the last layer ends with its attention. */
    cost_of(stages, &t, 1, 0, 8, 0);
    CHECK(stages[STAGE_HEAD].bytes == 0, "no output");
    CHECK_NEAR(stages[STAGE_DOWN].bytes, down * per_weight, "one layer's down");
    close_tiny(&t);
}

/* A cache of integers is multiplied as integers. */
static void test_attention_kind(void)
{
    struct quern_error err = {0};
    struct cost stages[STAGES];
    struct small t;
    CHECK(open_with_cache(&t, "tiny:q8_0", 1, KV_I16, &err), "%s", err.text);
    cost_of(stages, &t, 1, 0, 1, 1);
    CHECK(stages[STAGE_ATTENTION].ops[ROOF_INT16] > 0 && stages[STAGE_ATTENTION].ops[ROOF_F32] == 0, "I16 counts as integers");
    CHECK(t.bench.used[ROOF_INT16] && !t.bench.used[ROOF_F32] && t.bench.roof.ops[ROOF_INT16] > 0, "their roof is measured");
    close_tiny(&t);
}

static void test_kinds_and_ideal(void)
{
    static const struct { const char *spec; enum roof_kind kind;
    } rows[] = {
        {"tiny:bf16", ROOF_BF16}, {"tiny:f16", ROOF_F32},    {"tiny:f32", ROOF_F32},
        {"tiny:q4_k", ROOF_INT8}, {"tiny:mxfp4", ROOF_INT8},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct quern_error err = {0};
        struct cost stages[STAGES];
        struct small t;
        CHECK(open_tiny(&t, rows[i].spec, 1, &err), "%s", err.text);
        cost_of(stages, &t, 1, 0, 1, 1);
        CHECK(stages[STAGE_UP].ops[rows[i].kind] > 0, "%s counts as kind %d", rows[i].spec, rows[i].kind);
        CHECK(t.bench.roof.ops[rows[i].kind] > 0 && t.bench.used[rows[i].kind], "%s: its roof is measured", rows[i].spec);
        close_tiny(&t);
    }
    /* 100 bytes at 10 a second; 40 int8 at 20 and 10 f32 at 5: 10 seconds against 2 + 2. */
    struct cost cost = {.bytes = 100, .ops = {[ROOF_INT8] = 40, [ROOF_F32] = 10}};
    struct rates roof = {.bytes = 10, .ops = {[ROOF_INT8] = 20, [ROOF_F32] = 5}};
    CHECK_NEAR(cost_ideal(&cost, &roof), 10.0, "memory bound");
    CHECK_NEAR(cost_peak(&cost, &roof), 50 / 4.0, "peak of the mix");
    roof.bytes = 100;
    CHECK_NEAR(cost_ideal(&cost, &roof), 4.0, "arithmetic bound");
}

/* What a repetition's passes read, from the last pass' depth on back. */
static double bytes_of(const struct small *t, size_t sequences, size_t depth, size_t n, size_t pass)
{
    struct cost stages[STAGES];
    double sum = 0;
    for (size_t at = 0; at < n; at += pass)
        sum += cost_of(stages, t, sequences, depth + at, pass, pass == 1 || at + pass == n).bytes;
    return sum;
}

/* Figures of a row follow from its times and from what each pass reads, one behind the other; tokens are those of all sequences. */
static void test_row(void)
{
    struct quern_error err = {0};
    struct bench_row decode = {.test = "decode", .n = 6, .batch = 3, .depth = 40, .reps = 2};
    struct bench_row prefill = {.test = "prefill", .n = 96, .batch = 1, .depth = 8, .reps = 3};
    struct small t;
    CHECK(open_tiny(&t, "tiny:q4_0", 1, &err), "%s", err.text);
    t.bench.plan.load = 5;
    CHECK(bench_measure(&t.bench, &decode, &err) && bench_measure(&t.bench, &prefill, &err), "%s", err.text);
    CHECK_NEAR(decode.tps_median, 18 / decode.seconds, "tokens of three sequences");
    CHECK_NEAR(prefill.tps_median, 96 / prefill.seconds, "tokens of a prompt");
    CHECK_NEAR(decode.seconds, (18 / decode.tps_min + 18 / decode.tps_max) / 2, "the median of two");
    CHECK(decode.tps_min <= decode.tps_median && decode.tps_median <= decode.tps_max, "least, median, most");
    CHECK_NEAR(decode.bytes_per_token, bytes_of(&t, 3, 40, 6, 1) / 18, "bytes of steps");
    CHECK_NEAR(prefill.bytes_per_token, bytes_of(&t, 1, 8, 96, 32) / 96, "bytes of passes");
    CHECK_NEAR(decode.gbps, decode.bytes_per_token * decode.tps_median * 1e-9, "bytes per second");
    CHECK_NEAR(decode.ttft, 5 + decode.seconds / 6, "the first token of a decode test");
    CHECK_NEAR(prefill.ttft, 5 + prefill.seconds, "the first token of a prompt");
    /* Sequences go on with tokens of their own. */
    CHECK(bench_measure(&t.bench, &decode, &err), "%s", err.text);
    for (size_t i = 1; i < 3; i++)
        CHECK(t.bench.parts[i].tokens != t.bench.parts[i - 1].tokens, "sequence %zu has the tokens of the one before", i);
    close_tiny(&t);
}

/* Makes the last of three repetitions twenty times as long as the others. */
static void prolong(void *arg, const char *what, double share)
{
    struct bench_row *row = arg;
    row->n = strcmp(what, "prefill") == 0 && share == 0.75 ? 120 : 6;
}

static void test_verdict(void)
{
    struct quern_error err = {0};
    struct bench_row row = {.test = "prefill", .n = 6, .batch = 1, .reps = 3};
    double apart = 0;
    struct small t;
    CHECK(open_tiny(&t, "tiny:q4_0", 1, &err), "%s", err.text);
    t.bench.plan.show = prolong;
    t.bench.plan.show_arg = &row;
    CHECK(bench_measure(&t.bench, &row, &err), "%s", err.text);
    CHECK(row.noisy && sscanf(row.verdict, "noisy: repetitions %lf", &apart) == 1 && apart > 10, "'%s'", row.verdict);
    close_tiny(&t);
}

/* Tokens that choose for themselves meet more of the experts the more they are; layers with windows read no more than those. */
static void test_experts_and_windows(void)
{
    struct quern_error err = {0};
    struct cost stages[STAGES];
    struct small t;
    CHECK(open_tiny(&t, "tiny-moe:q8_0", 1, &err), "%s", err.text);
    double weights = 8.0 * WIDTH * 256 * 34 / 32;
    for (size_t n = 1; n <= 3; n++) {
        cost_of(stages, &t, n, 0, 1, 1);
        CHECK_NEAR(stages[STAGE_DOWN].bytes, LAYERS * weights * (1 - pow(0.75, (double)n)), "experts of a few tokens");
        CHECK_NEAR(stages[STAGE_DOWN].ops[ROOF_INT8], LAYERS * 2.0 * (double)n * 2 * WIDTH * 256, "operations of a few tokens");
    }
    cost_of(stages, &t, 1, 100, 4, 1);
    double all = stages[STAGE_ATTENTION].bytes, ops = stages[STAGE_ATTENTION].ops[ROOF_F32];
    t.model->model.layer[0].window = 10;
    cost_of(stages, &t, 1, 100, 4, 1);
    CHECK_NEAR(stages[STAGE_ATTENTION].bytes, all / 2 + all / 2 * 14 / 104, "cache bytes of a window");
    CHECK_NEAR(stages[STAGE_ATTENTION].ops[ROOF_F32], ops / 2 + ops / 2 * 40 / (101 + 102 + 103 + 104), "operations of a window");
    close_tiny(&t);
}

/* What the loop behind the arithmetic roof does when it is called by hand. */
static double rate_by_hand(const struct roof_dot *dot)
{
    double seconds = 0;
    size_t rounds = 1;
    while (seconds < 0.01) {
        rounds *= 2;
        double begin = machine_clock();
        volatile uint64_t sink = dot->fn(rounds);
        (void)sink;
        seconds = machine_clock() - begin;
    }
    return (double)rounds * dot->ops / seconds;
}

/* The roof of one thread is that rate; others may disturb either, but not twenty times one after the other. */
static void test_roof(void)
{
    struct quern_error err = {0};
    struct bench_row row = {.test = "decode", .n = 1, .batch = 1, .reps = 1};
    double roof = 0, best = 1;
    struct small t;
    CHECK(open_tiny(&t, "tiny:q4_0", 1, &err), "%s", err.text);
    for (int i = 0; i < 20 && !(roof > 0.6 * best && roof < 1.6 * best); i++) {
        CHECK(bench_measure(&t.bench, &row, &err), "%s", err.text);
        roof = t.bench.roof.ops[ROOF_INT8];
        best = rate_by_hand(&t.bench.loops.dot[ROOF_INT8]);
    }
    CHECK(roof > 0.6 * best && roof < 1.6 * best, "%g Gop/s, by hand %g", roof * 1e-9, best * 1e-9);
    close_tiny(&t);
}

/* A state cannot be cut back to the depth of the test: it is computed anew for each repetition, and copied for each sequence. */
static void test_recurrent(void)
{
    static struct tiny file;
    struct quern_error err = {0};
    struct quern_model_options choices = {.threads = 1};
    struct bench_plan plan = {.threads = 1, .sequences = 2, .pass = 8, .context = 32, .kv = KV_F32};
    struct bench_row row = {.test = "decode", .n = 3, .batch = 2, .depth = 20, .reps = 2};
    struct bench b = {0};
    tiny_model(&file, TINY_MAMBA);
    tiny_save(&file, temp_path("bench.gguf"));
    struct quern_model *model = quern_open_model(temp_path("bench.gguf"), &choices, &err);
    bool ok = model && bench_open(&b, model, &plan, &err);
    /* Tokens that are all alike: then so are the states. */
    for (size_t i = 0; ok && i < plan.context; i++)
        b.tokens[i] = 5;
    ok = ok && bench_measure(&b, &row, &err);
    const struct kv *kv = b.runner.kv;
    CHECK(ok && kv[0].used == 23 && kv[1].used == 23, "%s", err.text);
    CHECK(ok && kv[0].state_floats && !memcmp(kv[0].state, kv[1].state, kv[0].state_floats * sizeof *kv[0].state), "one state");
    bench_close(&b);
    quern_close_model(model);
    remove(temp_path("bench.gguf"));
}

/* The stages of a pass add up to its time, no thread works longer than there was time, and the clock is gone afterwards. */
static void test_profile(void)
{
    for (size_t threads = 1; threads <= 3; threads += 2) {
        struct quern_error err = {0};
        struct bench_row row = {.test = "prefill", .n = 40, .batch = 1, .reps = 3};
        struct bench_stage stages[STAGES];
        struct small t;
        size_t count = 0;
        double sum = 0, share = 0;
        bool up = false, head = false;
        CHECK(open_tiny(&t, "tiny:q4_0", threads, &err), "%s", err.text);
        CHECK(bench_measure(&t.bench, &row, &err), "%s", err.text);
        CHECK(row.first > 0 && row.ttft >= row.seconds && row.verdict[0] && row.threads == threads, "the row is filled");
        CHECK(bench_profile(&t.bench, &row, stages, &count, &err), "%s", err.text);
        for (size_t i = 0; i < count; i++) {
            sum += stages[i].seconds, share += stages[i].share;
            up = up || stages[i].stage == STAGE_UP;
            head = head || stages[i].stage == STAGE_HEAD;
            CHECK(i == 0 || stages[i].seconds <= stages[i - 1].seconds, "largest first");
            CHECK(stages[i].waiting >= 0 && stages[i].waiting <= 1, "%s waits %g", stage_name(stages[i].stage), stages[i].waiting);
        }
        CHECK(up && head && count >= 7, "%zu stages", count);
        CHECK(sum > 0 && fabs(share - 1) < 1e-6, "shares add up to %g", share);
        for (int s = 0; s < STAGES; s++)
            CHECK(t.bench.clock.worked[s] <= (t.bench.clock.seconds[s] + 1e-4) * (double)threads, "%s works %g s of %g",
                  stage_name(s), t.bench.clock.worked[s], t.bench.clock.seconds[s]);
        CHECK(t.bench.runner.forward.clock == NULL, "off again");
        close_tiny(&t);
    }
}

/* What was shown of a row's work. */
struct shown { size_t fillings, tests; double last; bool falls; };

static void note(void *arg, const char *what, double share)
{
    struct shown *s = arg;
    bool filling = strcmp(what, "filling the cache") == 0;
    s->falls = s->falls || share < 0 || share > 1 || (filling && s->fillings && share < s->last);
    s->last = share;
    *(filling ? &s->fillings : &s->tests) += 1;
}

/* A cache of 100 tokens is filled in four passes; then each repetition tells that it begins, and the cache stays filled. */
static void test_progress(void)
{
    struct quern_error err = {0};
    struct bench_row row = {.test = "decode", .n = 2, .batch = 1, .depth = 100, .reps = 3};
    struct shown shown = {0};
    struct small t;
    CHECK(open_tiny(&t, "tiny:q4_0", 1, &err), "%s", err.text);
    t.bench.plan.show = note;
    t.bench.plan.show_arg = &shown;
    CHECK(bench_measure(&t.bench, &row, &err), "%s", err.text);
    CHECK(shown.fillings == 5 && !shown.falls, "%zu times of filling, up to %g", shown.fillings, shown.last);
    CHECK(shown.tests == 3 && shown.last == 0.75, "%zu repetitions, the last at %g", shown.tests, shown.last);
    close_tiny(&t);
}

struct nap { double seconds; };
static void nap(void *arg, size_t index, size_t thread)
{
    const struct nap *n = arg;
    double end = machine_clock() + n->seconds;
    (void)index;
    (void)thread;
    while (machine_clock() < end)
        ;
}

static void test_clock(void)
{
    struct quern_error err = {0};
    struct pool *pool = pool_open(2, &err);
    struct stage_clock clock;
    struct nap n = {1e-3};
    CHECK(pool && stages_open(&clock, pool, &err), "%s", err.text);
    stages_start(&clock);
    stages_enter(&clock, STAGE_UP);
    pool_run(pool, nap, &n, 8);
    stages_enter(&clock, STAGE_DOWN);
    pool_run(pool, nap, &n, 1);
    stages_stop(&clock);
    CHECK(clock.worked[STAGE_UP] >= 8e-3, "eight chunks of 1 ms: %g s", clock.worked[STAGE_UP]);
    CHECK(clock.worked[STAGE_DOWN] >= 1e-3 && clock.worked[STAGE_DOWN] <= clock.seconds[STAGE_DOWN], "one chunk: %g s of %g",
          clock.worked[STAGE_DOWN], clock.seconds[STAGE_DOWN]);
    CHECK(clock.seconds[STAGE_NORM] == 0 && clock.worked[STAGE_NORM] == 0, "a stage that was not entered");
    double before = clock.lanes[0].busy;
    pool_run(pool, nap, &n, 2);
    CHECK(clock.lanes[0].busy == before, "nothing is counted after stages_stop");
    stages_close(&clock);
    pool_close(pool);
}

enum { EXPERTS = 8, USED = 2, ROUTED = 32 };

/* What the model's first `layers` layers make of ROUTED tokens: the last one's choices, and `input` [ROUTED][WIDTH] of it. */
static void route(struct small *t, size_t layers, float *input)
{
    struct quern_error err = {0};
    struct forward *f = &t->bench.runner.forward;
    struct kv *kv = &t->bench.runner.kv[0];
    struct batch_part part = {.kv = kv, .tokens = t->bench.tokens, .count = ROUTED, .wanted = ROUTED};
    float *keep[LAYERS + 1] = {0};
    struct forward_trail trail = {.keep = keep, .rows = ROUTED};
    float *logits = malloc(ROUTED * t->model->model.hyper.vocab * sizeof *logits);
    keep[layers - 1] = input;
    f->trail = &trail;
    t->model->model.hyper.layers = layers;
    CHECK(logits && kv_rewind(kv, 0, &err) && forward_run(f, &part, 1, logits, &err), "%s", err.text);
    t->model->model.hyper.layers = LAYERS;
    f->trail = NULL;
    free(logits);
}

/* Random layers must not send all tokens to the same experts, nor must every layer choose as the first one does: what is measured
 * would be a dense model, or one whose experts lie in the caches already. The embedding stays the most of what the layers see, and
 * the router tells its experts apart. */
static void test_experts_are_spread(void)
{
    static float input[LAYERS][ROUTED * WIDTH];
    uint32_t best[LAYERS][ROUTED];
    struct quern_error err = {0};
    struct small t;
    CHECK(open_tiny(&t, "tiny-moe:q4_k_m", 2, &err), "%s", err.text);
    const struct moe *m = t.bench.runner.forward.moe;
    for (size_t l = 0; l < LAYERS; l++) {
        double first = 0, second = 0;
        route(&t, l + 1, input[l]);
        for (size_t e = 0; e < EXPERTS; e++) {
            size_t n = m->start[e + 1] - m->start[e];
            CHECK(n > 0 && n <= ROUTED * USED / 2, "layer %zu: expert %zu has %zu of %d slots", l, e, n, ROUTED * USED);
        }
        for (size_t i = 0; i < ROUTED; i++) {
            best[l][i] = m->chosen[i * USED];
            first += m->weights[i * USED], second += m->weights[i * USED + 1];
        }
        CHECK(first > 1.1 * second, "layer %zu: weights of %g and %g", l, first / ROUTED, second / ROUTED);
    }
    size_t same = 0;
    double all = 0, added = 0;
    for (size_t i = 0; i < ROUTED; i++)
        same += best[0][i] == best[1][i];
    CHECK(same < ROUTED / 2, "%zu of %d tokens choose as in the layer before", same, ROUTED);
    for (size_t i = 0; i < ROUTED * WIDTH; i++) {
        all += input[0][i] * input[0][i];
        added += (input[1][i] - input[0][i]) * (input[1][i] - input[0][i]);
    }
    CHECK(added > 0 && added < all / 100, "a layer adds %g to %g", added, all);
    close_tiny(&t);
}

int main(void)
{
    TEST(test_costs_by_hand);
    TEST(test_attention_kind);
    TEST(test_kinds_and_ideal);
    TEST(test_row);
    TEST(test_verdict);
    TEST(test_experts_and_windows);
    TEST(test_roof);
    TEST(test_recurrent);
    TEST(test_profile);
    TEST(test_progress);
    TEST(test_clock);
    TEST(test_experts_are_spread);
    return test_end();
}
