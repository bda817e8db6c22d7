/* Synthetic models are valid files of every type, with weights of sensible size; the roof loops count what they say. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"
#include "kernels.h"
#include "roof.h"
#include "synthetic.h"

static void test_every_type(void)
{
    struct kernels table;
    struct cpu cpu;
    cpu_detect(&cpu);
    cpu_cap(&cpu, "ref");
    kernels_init(&table, &cpu);
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        const struct format *f = format_find(id);
        struct quern_error err = {0};
        struct synthetic s;
        struct gguf g;
        char spec[64];
        if (!f || !f->weights)
            continue;
        snprintf(spec, sizeof spec, "tiny:%s", f->name);
        CHECK(synthetic_make(&s, spec, &err), "%s", err.text);
        CHECK(gguf_view(&g, s.data, s.size, s.name, NULL, &err), "%s", err.text);
        const struct gguf_tensor *t = gguf_find_tensor(&g, "blk.1.ffn_down.weight");
        CHECK(t && t->type == id && t->shape[0] == 512 && t->shape[1] == 256, "%s: ffn_down", f->name);
        if (t) {
            size_t n = t->shape[0] * t->shape[1];
            float *x = malloc(n * sizeof *x);
            double sum = 0, squares = 0;
            table.dequantize[id].fn(x, t->data, n);
            for (size_t i = 0; i < n; i++)
                sum += x[i], squares += (double)x[i] * x[i];
            double deviation = sqrt(squares / (double)n);
            CHECK(deviation > 0.004 && deviation < 0.1 && fabs(sum / (double)n) < deviation, "%s: deviation %g, mean %g", f->name,
                  deviation, sum / (double)n);
            free(x);
        }
        gguf_close(&g);
        synthetic_free(&s);
    }
}

static void test_mix_and_shape(void)
{
    struct quern_error err = {0};
    struct synthetic s;
    struct gguf g;
    CHECK(synthetic_make(&s, "0.1b:q4_k_m", &err) && gguf_view(&g, s.data, s.size, s.name, NULL, &err), "%s", err.text);
    const struct gguf_tensor *embed = gguf_find_tensor(&g, "token_embd.weight"), *v = gguf_find_tensor(&g, "blk.0.attn_v.weight"),
                             *q = gguf_find_tensor(&g, "blk.0.attn_q.weight"), *v1 = gguf_find_tensor(&g, "blk.1.attn_v.weight");
    CHECK(embed && v && q && v1, "tensors are there");
    CHECK(embed->type == FORMAT_Q6_K && v->type == FORMAT_Q6_K && q->type == FORMAT_Q4_K && v1->type == FORMAT_Q4_K, "the mix");
    CHECK(embed->shape[0] == 768 && embed->shape[1] == 32000 && v->shape[1] == 256, "the shape");
    CHECK(g.tensor_count == 2 + 12 * 9, "%zu tensors", g.tensor_count);
    gguf_close(&g);
    const char *path = temp_path("synthetic.gguf");
    size_t size = 0;
    CHECK(synthetic_save(&s, path, true, &err), "%s", err.text);
    CHECK(!synthetic_save(&s, path, false, &err) && err.code == QUERN_EUSAGE, "a file that exists: %s", err.text);
    char *file = read_whole_file(path, &size);
    CHECK(file && size == s.size && memcmp(file, s.data, size) == 0, "%zu bytes saved, %zu in memory", size, s.size);
    free(file);
    synthetic_free(&s);
}

/* A model of experts: their matrices in stacks, the router as floats; what stands in the header is what the tensors are. */
static void test_experts(void)
{
    struct quern_error err = {0};
    struct synthetic s;
    struct gguf g;
    CHECK(synthetic_make(&s, "tiny-moe:q4_k_m", &err) && gguf_view(&g, s.data, s.size, s.name, NULL, &err), "%s", err.text);
    static const struct { const char *name; uint32_t type; size_t dims, shape[3]; } expected[] = {
        {"blk.0.ffn_gate_inp.weight", FORMAT_F32, 2, {256, 8, 1}},   {"blk.0.ffn_gate_exps.weight", FORMAT_Q4_K, 3, {256, 256, 8}},
        {"blk.1.ffn_up_exps.weight", FORMAT_Q4_K, 3, {256, 256, 8}}, {"blk.1.ffn_down_exps.weight", FORMAT_Q6_K, 3, {256, 256, 8}},
        {"blk.1.attn_q_norm.weight", FORMAT_F32, 1, {256, 1, 1}},    {"output.weight", FORMAT_Q6_K, 2, {256, 512, 1}},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const struct gguf_tensor *t = gguf_find_tensor(&g, expected[i].name);
        CHECK(t && t->type == expected[i].type && t->dims == expected[i].dims &&
              memcmp(t->shape, expected[i].shape, t->dims * sizeof *t->shape) == 0, "%s", expected[i].name);
    }
    CHECK(!gguf_find_tensor(&g, "blk.0.ffn_up.weight"), "no dense part beside the experts");
    CHECK(g.tensor_count == 3 + 2 * 12, "%zu tensors", g.tensor_count);
    gguf_close(&g);
    synthetic_free(&s);
}

/* A synthetic model is a model: its words come back, and every type gives finite logits that are not all alike. */
static void run_spec(const char *spec)
{
    static const char text[] = "hello, you there \xc3\xa9";
    struct quern_error err = {0};
    struct synthetic random;
    int32_t *ids = NULL;
    size_t count = 0;
    CHECK(synthetic_make(&random, spec, &err), "%s", err.text);
    struct quern_model_options one = {.threads = 1};
    struct quern_model *m = quern_view_model(random.data, random.size, random.name, &one, &err);
    struct quern_session *s = m ? quern_open_session(m, NULL, &err) : NULL;
    bool ok = s && quern_encode_text(m, text, sizeof text - 1, true, false, &ids, &count, &err) &&
              quern_sync_session(s, ids, count, &err);
    CHECK(ok, "%s: %s", spec, err.text);
    if (ok) {
        char back[64] = "", *end = back;
        for (size_t i = 0; i < count; i++)
            end += quern_decode_token(m, ids[i], end, (size_t)(back + sizeof back - end));
        CHECK(strcmp(back, text) == 0, "%s: '%s'", spec, back);
        const float *logits = quern_session_logits(s);
        CHECK(fabsf(logits[0] - logits[1]) > 1e-6f && fabsf(logits[0]) < 100, "%s: %g %g", spec, (double)logits[0],
              (double)logits[1]);
    }
    free(ids);
    quern_close_session(s);
    quern_close_model(m);
    synthetic_free(&random);
}

static void test_every_type_runs(void)
{
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        const struct format *f = format_find(id);
        char spec[64];
        if (!f || !f->weights)
            continue;
        snprintf(spec, sizeof spec, "tiny:%s", f->name);
        run_spec(spec);
        snprintf(spec, sizeof spec, "tiny-moe:%s", f->name);
        run_spec(spec);
    }
}

static void test_refusals(void)
{
    static const char *const bad[] = {"", "1b", "1b:", "2b:q4_0", "1b:q9", "1b:q8_k", "1b:i32", "1b:q4_0_m", "1b:q6_k_m", ":q4_0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct quern_error err = {0};
        struct synthetic s;
        CHECK(!synthetic_make(&s, bad[i], &err) && err.code == QUERN_EUSAGE, "'%s': %d %s", bad[i], err.code, err.text);
    }
}

/* Every shape that the help lists is one: what is wrong with the last word is then the type. */
static void test_listed_shapes(void)
{
    char list[] = SYNTHETIC_SHAPES;
    size_t n = 0;
    for (char *name = strtok(list, ", "); name; name = strtok(NULL, ", "), n++) {
        struct quern_error err = {0};
        struct synthetic s;
        char spec[64];
        snprintf(spec, sizeof spec, "%s:nothing", name);
        CHECK(!synthetic_make(&s, spec, &err) && strstr(err.text, "is no type"), "%s: %s", name, err.text);
    }
    CHECK(n >= 10, "%zu shapes", n);
}

/* Each level is served by its own loops; the reading loop reads every byte, the dot loops run the rounds they are asked for. */
static void test_roofs(void)
{
    static const char *const levels[] = {"ref", "avx2", "avx_vnni", "avx512", "amx", "neon", "dotprod",
                                         "i8mm"};
    static _Alignas(64) unsigned char buffer[4096];
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        struct cpu cpu;
        struct roof roof;
        cpu_detect(&cpu);
        if (!cpu_cap(&cpu, levels[i]))
            continue;
        roof_init(&roof, &cpu);
        CHECK(!strcmp(roof.isa, levels[i]), "level %s is served by %s", levels[i], roof.isa);
        memset(buffer, 0, sizeof buffer);
        uint64_t zero = roof.read(buffer, sizeof buffer);
        for (size_t at = 0; at < sizeof buffer; at += 8) {
            buffer[at] = 1;
            CHECK(roof.read(buffer, sizeof buffer) != zero, "%s does not read byte %zu", roof.isa, at);
            buffer[at] = 0;
        }
        for (int kind = 0; kind < ROOF_KINDS; kind++)
            CHECK(roof.dot[kind].ops > 0 && roof.dot[kind].fn(1000) != roof.dot[kind].fn(1),
                  "%s, kind %d: rounds are run", roof.isa, kind);
    }
}

int main(void)
{
    TEST(test_every_type);
    TEST(test_mix_and_shape);
    TEST(test_experts);
    TEST(test_every_type_runs);
    TEST(test_refusals);
    TEST(test_listed_shapes);
    TEST(test_roofs);
    return test_end();
}
