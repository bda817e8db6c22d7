/* Measuring a changed model: what is left out of a pass changes no bit of the result. */
#include "measure.h"
#include "variant.h"
#include "test.h"
#include "tiny.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 16, CHUNKS = 3, LONG = 400, TOKENS = LONG * CHUNKS, POINTS = (LONG - LONG / 4) * CHUNKS };

struct bench {
    struct quern_model *model;
    struct pool   *pool;
    struct measure measure;
    struct variant variant;
    int32_t tokens[TOKENS];
};

static bool open_bench(struct bench *b, enum tiny_kind kind, size_t chunk)
{
    struct tiny t;
    struct quern_error err;
    struct quern_model_options how = { .threads = 1 };
    uint64_t seed = 5;
    memset(b, 0, sizeof *b);
    tiny_model(&t, kind);
    const char *path = temp_path("measure.gguf");
    tiny_save(&t, path);
    b->model = quern_open_model(path, &how, &err);
    unlink(path);
    b->pool = b->model ? pool_open(2, &err) : NULL;
    for (size_t i = 0; i < TOKENS; i++)
        b->tokens[i] = (int32_t)(random_u64(&seed) % TINY_VOCAB);
    bool ok = b->pool && variant_init(&b->variant, b->model, &err) &&
              measure_init(&b->measure, b->model, b->tokens, chunk, CHUNKS, b->pool, NULL, &err);
    CHECK(ok, "%s: %s", tiny_names[kind], err.text);
    return ok;
}

static void close_bench(struct bench *b)
{
    measure_free(&b->measure);
    variant_free(&b->variant);
    pool_close(b->pool);
    quern_close_model(b->model);
}

/* Tensor i with other values; NULL: it is no matrix of f32. */
static float *change_tensor(struct bench *b, size_t i)
{
    const struct gguf_tensor *t = &b->model->gguf.tensors[i];
    float *data = t->dims > 1 && t->type == FORMAT_F32 ? malloc(t->bytes) : NULL;
    for (size_t k = 0; data && k < t->bytes / sizeof *data; k++) {
        memcpy(&data[k], t->data + k * sizeof *data, sizeof *data);
        data[k] *= k % 3 ? 1.25f : 0.5f;
    }
    if (data && !variant_set(&b->variant, i, FORMAT_F32, data)) {
        free(data);
        data = NULL;
    }
    return data;
}

static void measure_from(struct bench *b, size_t first, double kl[POINTS])
{
    struct quern_error err;
    double mean;
    CHECK(measure_kl(&b->measure, &b->variant.model, first, kl, &mean, &err), "%s", err.text);
}

/* Each matrix alone, from its layer on and whole. */
static void compare_tensors(struct bench *b, const char *name)
{
    size_t layers = b->model->model.hyper.layers, changed = 0, later = 0;
    double whole[POINTS], part[POINTS], blind[POINTS];
    for (size_t i = 0; i < b->model->gguf.tensor_count; i++) {
        struct gguf_string tensor = b->model->gguf.tensors[i].name;
        float *data = change_tensor(b, i);
        size_t first = variant_layer(&b->variant, i);
        if (!data)
            continue;
        measure_from(b, first, part);
        measure_from(b, 0, whole);
        CHECK(!memcmp(whole, part, b->measure.points * sizeof *whole),
              "%s: %.*s from layer %zu is not the whole pass", name, (int)tensor.n, tensor.text, first);
        /* From behind the change on nothing of it is seen: layers are left out indeed. */
        if (first < layers) {
            measure_from(b, layers, blind);
            later += memcmp(whole, blind, b->measure.points * sizeof *whole) != 0;
        }
        changed += whole[b->measure.points - 1] > 0;
        variant_set(&b->variant, i, 0, NULL);
        free(data);
    }
    CHECK(changed > 4 && later > 4, "%s: %zu matrices changed anything, %zu layers were left out", name, changed, later);
}

/* A second change while the model with the first is followed, as in the search; what is kept of it fills as passes go. */
static void compare_followed(struct bench *b, const char *name)
{
    size_t count = b->model->gguf.tensor_count, compared = 0;
    double whole[POINTS], part[POINTS];
    for (size_t i = 0; i < count; i++) {
        float *one = change_tensor(b, i);
        measure_follow(&b->measure, variant_layer(&b->variant, i));
        for (size_t k = 0; one && k < count; k += 3) {
            float *two = k != i ? change_tensor(b, k) : NULL;
            if (!two)
                continue;
            measure_from(b, variant_layer(&b->variant, k), part);
            measure_from(b, 0, whole);
            compared++;
            CHECK(!memcmp(whole, part, b->measure.points * sizeof *whole),
                  "%s: tensors %zu and %zu are not the whole pass", name, i, k);
            variant_set(&b->variant, k, 0, NULL);
            free(two);
        }
        variant_set(&b->variant, i, 0, NULL);
        measure_follow(&b->measure, variant_layer(&b->variant, i));
        free(one);
    }
    CHECK(compared > 8, "%s: %zu pairs", name, compared);
}

static void test_from_the_middle(void)
{
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        struct bench b;
        if (open_bench(&b, (enum tiny_kind)kind, CHUNK)) {
            compare_tensors(&b, tiny_names[kind]);
            compare_followed(&b, tiny_names[kind]);
        }
        close_bench(&b);
    }
}

/* Text for more than one pass: each has its own part of what is kept. The plan of its memory grows with it. */
static void test_many_passes(void)
{
    struct bench b;
    struct quern_error err;
    size_t one = 0, all = 0;
    if (open_bench(&b, TINY_LLAMA, LONG)) {
        CHECK(b.measure.together < CHUNKS, "%zu chunks in one pass", b.measure.together);
        compare_tensors(&b, "long");
        CHECK(measure_bytes(&one, b.model, LONG, 1, 2, &err) && measure_bytes(&all, b.model, LONG, CHUNKS, 2, &err) &&
              all - one >= 2 * (LONG - LONG / 4) * TINY_VOCAB * sizeof(float),
              "%zu bytes, for three times as much text %zu", one, all);
    }
    close_bench(&b);
}

int main(void)
{
    TEST(test_from_the_middle);
    TEST(test_many_passes);
    return test_end();
}
