/* The mixes against llama.cpp's: tests/mixes.txt holds, for five made-up models (32 layers with shared keys; 80 layers, tied; 8 and
 * 4 experts; falcon), every mix, without and with importances, a hash over the tensors' names and the types that llama-quantize
 * (August 2026) planned for them. */
#include "bytes.h"
#include "preset.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

struct shape { const char *name, *arch; uint32_t layers, heads, kv_heads, experts; bool tied, fused; };

static const struct shape shapes[] = {
    { "s32", "llama", 32, 8, 2, 0, false, false },  { "s80", "llama", 80, 8, 1, 0, true, false },
    { "mix8", "llama", 24, 8, 4, 8, false, false }, { "mix4", "llama", 20, 8, 8, 4, false, false },
    { "falc", "falcon", 32, 8, 1, 0, false, true },
};

/* Directory rows are collected before the header, which wants their number. */
struct directory { struct bytes rows; uint64_t count, offset; };

static void add(struct directory *d, const char *name, uint64_t experts, bool matrix)
{
    uint64_t shape[3] = { 256, 2, experts };
    put_tensor(&d->rows, name, !matrix ? 1 : experts ? 3 : 2, shape, matrix ? FORMAT_F16 : FORMAT_F32, d->offset);
    d->offset += matrix ? 1024 * (experts ? experts : 1) : 1024;
    d->count++;
}

static void add_layer(struct directory *d, const struct shape *s, uint32_t layer)
{
    static const char *const plain[] = { "attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down" };
    static const char *const fused[] = { "attn_qkv", "attn_output", "ffn_up", "ffn_down" };
    static const char *const experts[] = { "ffn_up_exps", "ffn_gate_exps", "ffn_down_exps" };
    size_t n = s->fused ? 4 : s->experts ? 4 : 7;
    char name[64];
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, s->fused ? fused[i] : plain[i]);
        add(d, name, 0, true);
    }
    for (size_t i = 0; s->experts && i < 3; i++) {
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, experts[i]);
        add(d, name, s->experts, true);
    }
    if (s->experts) {
        snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", layer);
        add(d, name, 0, true);
    }
    snprintf(name, sizeof name, "blk.%u.attn_norm.weight", layer);
    add(d, name, 0, false);
    if (!s->fused && !s->experts) {
        snprintf(name, sizeof name, "blk.%u.ffn_norm.weight", layer);
        add(d, name, 0, false);
    }
}

static void build(struct bytes *b, const struct shape *s)
{
    struct directory d = { { 0 }, 0, 0 };
    char key[64];
    add(&d, "token_embd.weight", 0, true);
    if (!s->tied)
        add(&d, "output.weight", 0, true);
    add(&d, "output_norm.weight", 0, false);
    for (uint32_t layer = s->layers; layer-- > 0;)       /* backwards: the mixes must not depend on the file's order */
        add_layer(&d, s, layer);
    put_header(b, d.count, s->experts ? 5 : 4);
    put_key_text(b, "general.architecture", s->arch);
    snprintf(key, sizeof key, "%s.block_count", s->arch);
    put_key_u32(b, key, s->layers);
    snprintf(key, sizeof key, "%s.attention.head_count", s->arch);
    put_key_u32(b, key, s->heads);
    snprintf(key, sizeof key, "%s.attention.head_count_kv", s->arch);
    put_key_u32(b, key, s->kv_heads);
    snprintf(key, sizeof key, "%s.expert_count", s->arch);
    if (s->experts)
        put_key_u32(b, key, s->experts);
    put_raw(b, d.rows.data, d.rows.n);
    put_pad(b, 32);
    put_zeros(b, d.offset);
    bytes_free(&d.rows);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* FNV-1a over "NAME TYPE\n" of the tensors, sorted. */
static uint64_t hash_plan(const struct gguf *g, const struct plan_item *plan)
{
    char **lines = malloc(g->tensor_count * sizeof *lines);
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < g->tensor_count; i++) {
        lines[i] = malloc(128);
        snprintf(lines[i], 128, "%.*s %s\n", (int)g->tensors[i].name.n, g->tensors[i].name.text, format_find(plan[i].format)->name);
    }
    qsort(lines, g->tensor_count, sizeof *lines, by_text);
    for (size_t i = 0; i < g->tensor_count; i++) {
        for (const char *c = lines[i]; *c; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
        free(lines[i]);
    }
    free(lines);
    return hash;
}

static void mixes_equal_llama_cpps(void)
{
    struct bytes files[sizeof shapes / sizeof *shapes] = { { 0 } };
    struct gguf models[sizeof shapes / sizeof *shapes];
    struct quern_error err;
    size_t size, compared = 0;
    char *expected = read_whole_file("tests/mixes.txt", &size);
    CHECK(expected, "tests/mixes.txt");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        build(&files[i], &shapes[i]);
        bool open = gguf_view(&models[i], files[i].data, files[i].n, shapes[i].name, NULL, &err);
        CHECK(open, "%s", err.text);
    }
    for (char *line = expected ? strtok(expected, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        char model[16], name[16];
        int importance;
        unsigned long long hash;
        CHECK(sscanf(line, "%15s %15s %d %llx", model, name, &importance, &hash) == 4, "%s", line);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            if (!strcmp(model, shapes[i].name)) {
                struct plan_item *plan = malloc(models[i].tensor_count * sizeof *plan);
                const struct preset *preset = preset_find(name);
                bool ok = preset && preset_plan(plan, &models[i], preset, NULL, 0, importance, &err);
                CHECK(ok && hash_plan(&models[i], plan) == hash, "%s", line);
                free(plan);
                compared++;
            }
    }
    CHECK(compared == 330, "%zu mixes compared", compared);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        gguf_close(&models[i]);
        bytes_free(&files[i]);
    }
    free(expected);
}

static void rules_come_first(void)
{
    struct bytes file = { 0 };
    struct gguf g;
    struct quern_error err;
    struct type_rule rules[2];
    build(&file, &shapes[0]);
    CHECK(gguf_view(&g, file.data, file.n, "model", NULL, &err), "%s", err.text);
    CHECK(type_rule_parse(&rules[0], "blk\\.(0|3)\\.attn_v=q8_0", &err), "%s", err.text);
    CHECK(type_rule_parse(&rules[1], "attn_v=Q2_K", &err), "%s", err.text);
    struct plan_item *plan = malloc(g.tensor_count * sizeof *plan);
    CHECK(preset_plan(plan, &g, preset_find("Q4_K_M"), rules, 2, false, &err), "%s", err.text);
    for (size_t i = 0; i < g.tensor_count; i++) {
        char name[80];
        snprintf(name, sizeof name, "%.*s", (int)g.tensors[i].name.n, g.tensors[i].name.text);
        if (strstr(name, "attn_v")) {
            bool first = !strncmp(name, "blk.0.", 6) || !strncmp(name, "blk.3.", 6);
            CHECK(plan[i].format == (first ? FORMAT_Q8_0 : FORMAT_Q2_K) && plan[i].reason == PLAN_RULE, "%s", name);
        }
    }
    free(plan);
    regfree(&rules[0].pattern);
    regfree(&rules[1].pattern);
    static const char *const wrong[] = { "attn_v", "=Q4_K", "a=Q9_K", "a=I32", "a=NVFP4", "(=Q4_K" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(!type_rule_parse(&rules[0], wrong[i], &err) && err.code == QUERN_EUSAGE, "%s", wrong[i]);
    gguf_close(&g);
    bytes_free(&file);
}

static void rows_that_do_not_divide_fall_back(void)
{
    CHECK(preset_fallback(FORMAT_Q4_K, 512) == FORMAT_Q4_K, "512");
    CHECK(preset_fallback(FORMAT_Q4_K, 128) == FORMAT_Q5_0, "Q4_K");
    CHECK(preset_fallback(FORMAT_Q5_K, 896) == FORMAT_Q5_1, "Q5_K");
    CHECK(preset_fallback(FORMAT_Q6_K, 32) == FORMAT_Q8_0, "Q6_K");
    CHECK(preset_fallback(FORMAT_Q3_K, 32) == FORMAT_Q4_0, "Q3_K");
    CHECK(preset_fallback(FORMAT_IQ2_XXS, 96) == FORMAT_IQ4_NL, "IQ2_XXS");
    CHECK(preset_fallback(FORMAT_Q4_K, 100) == FORMAT_F16, "100");
    CHECK(preset_fallback(FORMAT_Q8_0, 33) == FORMAT_F16, "33");
}

int main(void)
{
    TEST(mixes_equal_llama_cpps);
    TEST(rules_come_first);
    TEST(rows_that_do_not_divide_fall_back);
    return test_end();
}
