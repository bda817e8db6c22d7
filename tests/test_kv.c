/* Where rows of a cache stand: spans, heads, tokens (kv.h). */
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd_engine.h"
#include "kernels.h"
#include "session.h"
#include "tiny.h"

/* A cache whose last span is a part of one. Every head and position has a place of its own, none beyond the end, and the rows of
 * a tile follow each other, which is what attention reads by. */
static void test_places(void)
{
    enum { HEADS = 3 };
    for (size_t capacity = ATTN_TILE; capacity <= 2 * KV_SPAN + 3 * ATTN_TILE; capacity += 5 * ATTN_TILE) {
        struct kv_layer l = { .heads = HEADS };
        struct kv kv = { .capacity = capacity };
        size_t rows = HEADS * capacity, wrong = 0;
        unsigned char *taken = calloc(rows, 1);
        CHECK(taken != NULL, "no memory");
        for (size_t head = 0; taken && head < HEADS; head++)
            for (size_t pos = 0; pos < capacity; pos++) {
                size_t place = kv_place(&kv, &l, head, pos);
                wrong += place >= rows || taken[place]++;
                wrong += pos % ATTN_TILE != 0 && place != kv_place(&kv, &l, head, pos - 1) + 1;
            }
        CHECK(wrong == 0, "%zu wrong places with room for %zu tokens", wrong, capacity);
        free(taken);
    }
}

/* ---- which type is taken when none is asked for ------------------------------------------------------------------- */

static struct quern_error err;

static struct quern_model *open_tiny(enum tiny_kind kind, const char *cpu)
{
    static struct tiny tiny;
    struct quern_model_options options = { .cpu = cpu, .threads = 1 };
    tiny_model(&tiny, kind);
    tiny_save(&tiny, temp_path("kv.gguf"));
    struct quern_model *model = quern_open_model(temp_path("kv.gguf"), &options, &err);
    CHECK(model != NULL, "%s", err.text);
    unlink(temp_path("kv.gguf"));
    return model;
}

/* Only levels with kernels of their own for the integers may prefer them: the reference reads them number by number. */
static void test_level(void)
{
    static const struct { const char *word; enum kv_type cache; } LEVELS[] = {
        { "ref", KV_F16 }, { "neon", KV_F16 }, { "dotprod", KV_F16 }, { "i8mm", KV_F16 }, { "avx2", KV_I16 },
        { "avx_vnni", KV_I16 }, { "avx512", KV_I16 }, { "avx512_bf16", KV_I16 }, { "amx", KV_I16 },
    };
    struct cpu best;
    cpu_detect(&best);
    for (size_t i = 0; i < sizeof LEVELS / sizeof *LEVELS; i++) {
        struct kernels table;
        struct cpu cpu = best;
        if (!cpu_cap(&cpu, LEVELS[i].word))
            continue;
        kernels_init(&table, &cpu);
        CHECK(table.cache == LEVELS[i].cache, "%s prefers %s", LEVELS[i].word, kv_name(table.cache));
        bool served = strcmp(table.attn_scores[KV_I16].isa, "ref") && strcmp(table.attn_mix[KV_I16].isa, "ref");
        CHECK(served == (table.cache == KV_I16), "%s: I16 is served by %s and %s", LEVELS[i].word, table.attn_scores[KV_I16].isa,
              table.attn_mix[KV_I16].isa);
        struct quern_model *model = open_tiny(TINY_LLAMA, LEVELS[i].word);
        struct quern_session *s = model ? quern_open_session(model, NULL, &err) : NULL;
        CHECK(s && s->kv.type == LEVELS[i].cache && quern_session_kv(s) == (enum quern_kv)(LEVELS[i].cache + 1),
              "a session by %s has %s", LEVELS[i].word, s ? kv_name(s->kv.type) : err.text);
        quern_close_session(s);
        quern_close_model(model);
    }
}

/* Heads that are no multiple of 16 values, and values that are the first part of the keys, get F16 when none is asked for, and an
 * error for an I16 that is. */
static void test_heads(void)
{
    static const struct { size_t key, value; bool fits; } HEADS[] = {
        { 64, 64, true }, { 16, 16, true }, { 80, 80, true }, { 48, 32, true }, { 72, 72, false }, { 64, 40, false },
        { 24, 64, false }, { 1, 1, false },
    };
    struct quern_model *model = open_tiny(TINY_LLAMA, NULL);
    size_t bytes;
    if (!model)
        return;
    model->kernels.cache = KV_I16;
    for (size_t i = 0; i < sizeof HEADS / sizeof *HEADS; i++) {
        model->model.hyper.key_dim = HEADS[i].key;
        model->model.hyper.value_dim = HEADS[i].value;
        enum kv_type got = session_kv(model, QUERN_KV_DEFAULT);
        CHECK(got == (HEADS[i].fits ? KV_I16 : KV_F16), "heads of %zu and %zu get %s", HEADS[i].key, HEADS[i].value, kv_name(got));
        CHECK(session_kv(model, QUERN_KV_I16) == KV_I16, "what is asked for is not replaced");
        CHECK(kv_bytes(&bytes, &model->model, got, 100, &err), "%s", err.text);
        CHECK(kv_bytes(&bytes, &model->model, KV_I16, 100, &err) == HEADS[i].fits, "heads of %zu and %zu", HEADS[i].key,
              HEADS[i].value);
    }
    quern_close_model(model);

    model = open_tiny(TINY_LATENT, NULL);
    if (!model)
        return;
    model->kernels.cache = KV_I16;
    for (int absorbed = 0; absorbed < 2; absorbed++) {
        model->model.hyper.mla_absorbed = absorbed;
        model->model.hyper.key_dim = model->model.hyper.value_dim = model->model.hyper.mla_key = model->model.hyper.mla_value = 64;
        CHECK(session_kv(model, QUERN_KV_DEFAULT) == (absorbed ? KV_F16 : KV_I16), "latent attention, absorbed %d", absorbed);
    }
    quern_close_model(model);
}

/* --kv's words are the names, in the order of the interface's enum: what is printed can be asked for. */
static void test_names(void)
{
    char words[80] = "auto";
    for (int type = 0; type < KV_TYPES; type++)
        snprintf(words + strlen(words), sizeof words - strlen(words), "|%s", kv_name((enum kv_type)type));
    CHECK(!strcmp(words, KV_CHOICES), "names %s, --kv %s", words, KV_CHOICES);
}

int main(void)
{
    TEST(test_names);
    TEST(test_places);
    TEST(test_level);
    TEST(test_heads);
    return test_end();
}
