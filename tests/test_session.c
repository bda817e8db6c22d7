/* Sessions and batches over tiny models: what must not depend on how the work is cut, and what must be refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"
#include "test.h"
#include "tiny.h"

enum { MANY = 200 };

static struct tiny tiny;
static struct quern_error err;

static struct quern_model *open_tiny(const char *path)
{
    tiny_save(&tiny, path);
    struct quern_model *model = quern_open_model(path, NULL, &err);
    CHECK(model != NULL, "%s: %s", tiny.arch, err.text);
    unlink(path);
    return model;
}

static struct quern_model *open_kind(enum tiny_kind kind, uint32_t format)
{
    tiny_model(&tiny, kind);
    if (format != FORMAT_F32)
        tiny_format(&tiny, format);
    return open_tiny(temp_path("session.gguf"));
}

static int32_t *random_tokens(size_t n, uint64_t seed)
{
    int32_t *tokens = malloc(n * sizeof *tokens);
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(random_u64(&seed) % TINY_VOCAB);
    return tokens;
}

/* Logits after each of n tokens, in pieces. NULL when something failed. */
static float *score(struct quern_model *model, const int32_t *tokens, size_t n, size_t piece, size_t threads, enum quern_kv kv)
{
    struct quern_session_options options = { .context = n, .kv = kv, .batch = piece };
    float *out = calloc(n * TINY_VOCAB, sizeof *out);
    model->threads = threads;
    struct quern_session *s = quern_open_session(model, &options, &err);
    bool ok = s && session_score(s, tokens, n, n, out, &err);
    CHECK(ok, "%s: %s", tiny.arch, err.text);
    quern_close_session(s);
    if (ok)
        return out;
    free(out);
    return NULL;
}

static size_t first_difference(const float *a, const float *b, size_t n)
{
    size_t at = 0;
    while (at < n && memcmp(&a[at], &b[at], sizeof *a) == 0)
        at++;
    return at;
}

static void check_cuts(struct quern_model *model, enum quern_kv kv, const char *what)
{
    static const size_t PIECES[] = { 1, 7, 64, 99, MANY }, THREADS[] = { 2, 3, 1, 4, 4 };
    int32_t *tokens = random_tokens(MANY, 3);
    float *whole = score(model, tokens, MANY, MANY, 1, kv);
    for (size_t i = 0; whole && i < 5; i++) {
        float *parts = score(model, tokens, MANY, PIECES[i], THREADS[i], kv);
        size_t n = MANY * TINY_VOCAB, at = parts ? first_difference(whole, parts, n) : 0;
        CHECK(at == n, "%s, %s: pieces of %zu with %zu threads differ from token %zu on", tiny.arch, what, PIECES[i], THREADS[i],
              at / TINY_VOCAB);
        free(parts);
    }
    free(whole);
    free(tokens);
}

/* A prompt in pieces, with any number of threads, gives the bits that it gives whole: every family, cache type, and formats with
 * every kind of activations. */
static void test_cuts(void)
{
    static const uint32_t FORMATS[] = { FORMAT_F32, FORMAT_BF16, FORMAT_F16, FORMAT_Q8_0, FORMAT_Q4_0 };
    static const enum quern_kv CACHES[] = { QUERN_KV_DEFAULT, QUERN_KV_F16, QUERN_KV_F32 };
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++) {
            struct quern_model *model = open_kind((enum tiny_kind)kind, FORMATS[i]);
            if (model)
                check_cuts(model, CACHES[i % 3], format_find(FORMATS[i])->name);
            quern_close_model(model);
        }
    }
}

/* So many tokens in one pass that the router is cut into more parts than there are experts. */
static void test_many_through_experts(void)
{
    enum { TOKENS = 1300 };
    struct quern_model *model = open_kind(TINY_EXPERTS, FORMAT_F32);
    int32_t *tokens = random_tokens(TOKENS, 23);
    CHECK(model && model->model.hyper.experts < TOKENS / 64, "%zu experts", model ? model->model.hyper.experts : 0);
    float *whole = model ? score(model, tokens, TOKENS, TOKENS, 2, QUERN_KV_DEFAULT) : NULL;
    float *parts = model ? score(model, tokens, TOKENS, 250, 2, QUERN_KV_DEFAULT) : NULL;
    CHECK(whole && parts && first_difference(whole, parts, TOKENS * TINY_VOCAB) == TOKENS * TINY_VOCAB, "%s", tiny.arch);
    free(whole);
    free(parts);
    free(tokens);
    quern_close_model(model);
}

static double mean_square_difference(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)(a[i] - b[i]) * (a[i] - b[i]);
    return sum / (double)n;
}

/* Each cache type keeps the promise of pieces, and loses no more than its rounding: the bounds are about 3 times what the
 * reference kernels give. */
static void test_cache_types(void)
{
    static const struct { enum quern_kv kv; const char *name; double most; } TYPES[] = {
        { QUERN_KV_F16, "F16", 1e-5 }, { QUERN_KV_BF16, "BF16", 1e-3 }, { QUERN_KV_Q8_0, "Q8_0", 1e-3 },
        { QUERN_KV_Q4_0, "Q4_0", 0.2 },
        { QUERN_KV_I16, "I16", 2e-6 },
    };
    struct quern_model *model = open_kind(TINY_LLAMA, FORMAT_F32);
    int32_t *tokens = random_tokens(MANY, 5);
    float *exact = model ? score(model, tokens, MANY, MANY, 2, QUERN_KV_F32) : NULL;
    for (size_t i = 0; exact && i < sizeof TYPES / sizeof *TYPES; i++) {
        float *rounded = score(model, tokens, MANY, MANY, 2, TYPES[i].kv);
        double loss = rounded ? mean_square_difference(exact, rounded, MANY * TINY_VOCAB) : 0;
        CHECK(loss > 0 && loss < TYPES[i].most, "%s: mean square difference %g", TYPES[i].name, loss);
        free(rounded);
        check_cuts(model, TYPES[i].kv, TYPES[i].name);
    }
    free(exact);
    free(tokens);
    quern_close_model(model);

    /* Keys of 48 values do not divide into blocks of 32. */
    model = open_kind(TINY_LATENT, FORMAT_F32);
    struct quern_session_options options = { .context = 64, .kv = QUERN_KV_Q8_0 };
    struct quern_session *s = model ? quern_open_session(model, &options, &err) : NULL;
    CHECK(!s && err.code == QUERN_EUNSUPPORTED && strstr(err.text, "q8_0"), "%s", err.text);
    quern_close_session(s);
    quern_close_model(model);
}

/* Long enough that few tokens with many threads are cut at spans of the context. */
static void check_long(enum tiny_kind kind, enum quern_kv kv)
{
    enum { LONG = 2300, TAIL = 9 };
    struct quern_model *model = open_kind(kind, FORMAT_F32);
    int32_t *tokens = random_tokens(LONG, 9);
    float *whole = calloc(TAIL * TINY_VOCAB, sizeof *whole), *steps = calloc(TAIL * TINY_VOCAB, sizeof *steps);
    for (size_t threads = 1; model && threads <= 4; threads++) {
        struct quern_session_options options = { .context = LONG, .kv = kv };
        model->threads = threads;
        struct quern_session *s = quern_open_session(model, &options, &err);
        bool ok = s != NULL;
        if (threads == 1) {
            ok = ok && session_score(s, tokens, LONG, TAIL, whole, &err);
        } else {
            ok = ok && session_score(s, tokens, LONG - TAIL, 0, NULL, &err);
            /* 1, then 2, then 3, then 3 tokens */
            static const size_t STEP[] = { 1, 2, 3, 3 };
            for (size_t i = 0, at = 0; ok && i < 4; at += STEP[i++])
                ok = session_score(s, tokens + LONG - TAIL + at, STEP[i], STEP[i], steps + at * TINY_VOCAB, &err);
            size_t at = first_difference(whole, steps, TAIL * TINY_VOCAB);
            CHECK(at == TAIL * TINY_VOCAB, "%s: %zu threads differ at token %zu of the last %d", tiny.arch, threads,
                  at / TINY_VOCAB, TAIL);
        }
        CHECK(ok, "%s", err.text);
        quern_close_session(s);
    }
    free(whole);
    free(steps);
    free(tokens);
    quern_close_model(model);
}

static void test_long_context(void)
{
    check_long(TINY_LLAMA, QUERN_KV_F16);
    check_long(TINY_LLAMA, QUERN_KV_DEFAULT);
    check_long(TINY_WINDOWS, QUERN_KV_DEFAULT);
    check_long(TINY_LATENT, QUERN_KV_DEFAULT);
}

/* Sixteen sequences of different lengths in one batch, then one token of each, as each gets alone. */
static void check_together(enum tiny_kind kind, enum quern_kv kv)
{
    enum { SEQUENCES = 16, MOST = 40 };
    struct quern_model *model = open_kind(kind, FORMAT_Q8_0);
    if (!model)
        return;
    struct kv caches[SEQUENCES] = { 0 };
    struct batch_part parts[SEQUENCES];
    struct forward f = { 0 };
    struct pool *pool = pool_open(3, &err);
    int32_t *tokens = random_tokens(SEQUENCES * (MOST + 1), 11);
    float *together = calloc(SEQUENCES * TINY_VOCAB * 2, sizeof *together);
    bool ok = pool && forward_init(&f, &model->model, &model->kernels, pool, SEQUENCES * MOST, SEQUENCES, 64, &err);
    for (size_t i = 0; ok && i < SEQUENCES; i++) {
        ok = kv_init(&caches[i], &model->model, session_kv(model, kv), 64, &err);
        parts[i] = (struct batch_part){ .kv = &caches[i], .tokens = tokens + i * (MOST + 1),
                                        .count = 1 + i * 37 % MOST, .wanted = 1 };
    }
    ok = ok && forward_run(&f, parts, SEQUENCES, together, &err);
    for (size_t i = 0; ok && i < SEQUENCES; i++)
        parts[i] = (struct batch_part){ .kv = &caches[i], .tokens = parts[i].tokens + parts[i].count, .count = 1, .wanted = 1 };
    ok = ok && forward_run(&f, parts, SEQUENCES, together + SEQUENCES * TINY_VOCAB, &err);
    CHECK(ok, "%s: %s", tiny.arch, err.text);
    for (size_t i = 0; ok && i < SEQUENCES; i++) {
        size_t n = 1 + i * 37 % MOST;
        CHECK(caches[i].used == n + 1, "sequence %zu holds %zu tokens", i, caches[i].used);
        float *alone = score(model, tokens + i * (MOST + 1), n + 1, 64, 1, kv);
        for (size_t step = 0; alone && step < 2; step++) {
            size_t at = first_difference(alone + (n - 1 + step) * TINY_VOCAB, together + (step * SEQUENCES + i) * TINY_VOCAB,
                                         TINY_VOCAB);
            CHECK(at == TINY_VOCAB, "%s: sequence %zu differs from itself alone in step %zu", tiny.arch, i, step);
        }
        free(alone);
    }
    for (size_t i = 0; i < SEQUENCES; i++)
        kv_free(&caches[i]);
    forward_free(&f);
    pool_close(pool);
    free(together);
    free(tokens);
    quern_close_model(model);
}

static void test_together(void)
{
    for (int kind = 0; kind < TINY_KINDS; kind++)
        check_together((enum tiny_kind)kind, kind % 2 ? QUERN_KV_F16 : QUERN_KV_DEFAULT);
}

/* After any way of getting there a session that holds the same tokens has the same logits. */
static void check_sync(enum tiny_kind kind)
{
    struct quern_model *model = open_kind(kind, FORMAT_F32);
    struct quern_session_options options = { .context = 200, .batch = 64 };
    struct quern_session *a = model ? quern_open_session(model, &options, &err) : NULL;
    struct quern_session *b = a ? quern_open_session(model, &options, &err) : NULL;
    int32_t *tokens = random_tokens(200, 13), *others = random_tokens(200, 17);
    CHECK(b != NULL, "%s", err.text);
    memcpy(others, tokens, 70 * sizeof *tokens);
    if (b) {
        CHECK(quern_session_logits(a) == NULL && !quern_sync_session(a, tokens, 0, &err) && err.code == QUERN_EUSAGE,
              "an empty session");
        CHECK(quern_sync_session(a, others, 190, &err) && quern_sync_session(a, tokens, 150, &err), "%s", err.text);
        CHECK(quern_step_session(b, tokens, 150, &err), "%s", err.text);
        const int32_t *held;
        CHECK(quern_session_tokens(a, &held) == 150 && !memcmp(held, tokens, 150 * sizeof *held), "tokens held");
        CHECK(first_difference(quern_session_logits(a), quern_session_logits(b), TINY_VOCAB) == TINY_VOCAB,
              "%s: after another text", tiny.arch);
        CHECK(quern_sync_session(a, tokens, 150, &err) &&
                  first_difference(quern_session_logits(a), quern_session_logits(b), TINY_VOCAB) == TINY_VOCAB, "the same again");
        bool recurrent = model->model.recurrent, went = quern_rewind_session(a, 100, &err);
        CHECK(went == !recurrent, "%s: rewind: %s", tiny.arch, err.text);
        CHECK(recurrent || quern_session_logits(a) == NULL, "logits are void after a rewind");
        CHECK(quern_rewind_session(a, 0, &err) && quern_step_session(a, tokens, 150, &err), "%s", err.text);
        CHECK(first_difference(quern_session_logits(a), quern_session_logits(b), TINY_VOCAB) == TINY_VOCAB,
              "%s: after a rewind", tiny.arch);
        CHECK(!quern_rewind_session(a, 151, &err) && err.code == QUERN_EUSAGE, "a rewind forward");
        /* As a caller makes room: the beginning and the later half. */
        memcpy(others, tokens, 10 * sizeof *others);
        memcpy(others + 10, tokens + 80, 70 * sizeof *others);
        CHECK(quern_sync_session(a, others, 80, &err) && quern_session_tokens(a, &held) == 80, "%s", err.text);
        CHECK(!memcmp(held, others, 80 * sizeof *held), "tokens after a shift");
    }
    free(tokens);
    free(others);
    quern_close_session(a);
    quern_close_session(b);
    quern_close_model(model);
}

static void test_sync(void)
{
    check_sync(TINY_LLAMA);
    check_sync(TINY_WINDOWS);
    check_sync(TINY_MAMBA);
    check_sync(TINY_DELTA);
    check_sync(TINY_CONV);
}

/* What is refused is refused before anything is computed or taken, and leaves the session as it was. */
static void test_limits(void)
{
    struct quern_model *model = open_kind(TINY_LLAMA, FORMAT_F32);
    struct quern_session_options options = { .context = 100 };
    struct quern_session *s = model ? quern_open_session(model, &options, &err) : NULL;
    int32_t *tokens = random_tokens(200, 19);
    CHECK(s != NULL, "%s", err.text);
    if (s) {
        CHECK(quern_step_session(s, tokens, 60, &err), "%s", err.text);
        CHECK(!quern_step_session(s, tokens, 41, &err) && err.code == QUERN_ELIMIT && strstr(err.text, "101") &&
                  strstr(err.text, "100"), "%s", err.text);
        CHECK(!quern_sync_session(s, tokens, 101, &err) && err.code == QUERN_ELIMIT, "%s", err.text);
        CHECK(quern_session_tokens(s, NULL) == 60 && quern_session_logits(s) != NULL, "the session has changed");
        CHECK(quern_step_session(s, tokens, 40, &err), "%s", err.text);
        tokens[0] = TINY_VOCAB;
        CHECK(quern_rewind_session(s, 0, &err) && !quern_step_session(s, tokens, 1, &err) && err.code == QUERN_EUSAGE,
              "%s", err.text);
        tokens[0] = -1;
        CHECK(!quern_step_session(s, tokens, 1, &err) && err.code == QUERN_EUSAGE, "%s", err.text);
    }
    quern_close_session(s);
    size_t cache = 0, scratch = 0;
    options.mem_limit = 1;
    CHECK(model && !quern_open_session(model, &options, &err) && err.code == QUERN_EMEM, "%s", err.text);
    CHECK(model && quern_plan_session(model, &options, &cache, &scratch, &err) && cache > 2 * 2 * 2 * 100 * 64,
          "%zu %zu", cache, scratch);
    options.mem_limit = cache + scratch;
    s = model ? quern_open_session(model, &options, &err) : NULL;
    CHECK(s != NULL, "%s", err.text);
    quern_close_session(s);
    /* Rotated positions go on beyond the training, learned ones end there. */
    const float none = 0;
    size_t trained = model ? model->model.hyper.context : 0;
    options = (struct quern_session_options){ .context = trained + 1 };
    CHECK(model && quern_plan_session(model, &options, &cache, &scratch, &err), "%s", err.text);
    if (model)
        model->model.positions = &none;
    CHECK(model && !quern_plan_session(model, &options, &cache, &scratch, &err) && err.code == QUERN_ELIMIT &&
              strstr(err.text, "learned positions"), "%s", err.text);
    options.context = trained;
    CHECK(model && quern_plan_session(model, &options, &cache, &scratch, &err), "%s", err.text);
    if (model)
        model->model.positions = NULL;
    /* C8: contexts beyond any memory are EMEM, not a crash. */
    options = (struct quern_session_options){ .context = (size_t)1 << 60 };
    CHECK(model && !quern_open_session(model, &options, &err) && err.code == QUERN_EMEM, "%s", err.text);
    options = (struct quern_session_options){ .context = (size_t)1 << 31, .batch = (size_t)1 << 31, .mem_limit = 1 << 30 };
    CHECK(model && !quern_open_session(model, &options, &err) && err.code == QUERN_EMEM, "%s", err.text);
    free(tokens);
    quern_close_model(model);
}

static void check_stop(enum tiny_kind kind)
{
    struct quern_model *model = open_kind(kind, FORMAT_F32);
    volatile int stop = 0;
    struct quern_session_options options = { .context = 100, .stop = &stop };
    struct quern_session *s = model ? quern_open_session(model, &options, &err) : NULL;
    int32_t *tokens = random_tokens(100, 23);
    float before[TINY_VOCAB];
    if (s) {
        CHECK(quern_step_session(s, tokens, 50, &err), "%s", err.text);
        memcpy(before, quern_session_logits(s), sizeof before);
        stop = 1;
        CHECK(!quern_step_session(s, tokens + 50, 10, &err) && err.code == QUERN_EINTERRUPT, "%s", err.text);
        CHECK(quern_session_logits(s) == NULL, "logits of an interrupted pass");
        stop = 0;
        CHECK(quern_sync_session(s, tokens, 50, &err), "%s", err.text);
        CHECK(first_difference(before, quern_session_logits(s), TINY_VOCAB) == TINY_VOCAB, "%s: after a stop", tiny.arch);
    }
    free(tokens);
    quern_close_session(s);
    quern_close_model(model);
}

static void test_stop(void)
{
    check_stop(TINY_LLAMA);
    check_stop(TINY_MAMBA);
}

/* Tokens 0 to 19 of which one, whose embedding is bad, makes rows of the cache that are not finite; then `count` good ones in a
 * session that had them and in one that had not. */
static void check_forgets(struct quern_model *model, enum quern_kv kv, int32_t bad, size_t count)
{
    struct quern_session_options options = { .context = 100, .kv = kv };
    struct quern_session *s = quern_open_session(model, &options, &err), *clean = quern_open_session(model, &options, &err);
    int32_t tokens[20];
    static float rows[20 * TINY_VOCAB];
    for (int32_t i = 0; i < 20; i++)
        tokens[i] = 100 + i;
    CHECK(s && clean, "%s", err.text);
    if (s && clean) {
        tokens[13] = bad;
        CHECK(!session_score(s, tokens, 20, 20, rows, &err) && err.code == QUERN_EFAIL && strstr(err.text, "after token 13 "),
              "cache %d: %s", kv, err.text);
        CHECK(quern_session_tokens(s, NULL) == 0 && quern_session_logits(s) == NULL, "tokens of a pass that failed stay");
        tokens[13] = 50;
        bool ok = quern_sync_session(s, tokens, count, &err) && quern_sync_session(clean, tokens, count, &err);
        CHECK(ok, "cache %d, %zu tokens: %s", kv, count, err.text);
        CHECK(!ok || first_difference(quern_session_logits(s), quern_session_logits(clean), TINY_VOCAB) == TINY_VOCAB,
              "cache %d, %zu tokens: the cache remembers it", kv, count);
    }
    quern_close_session(s);
    quern_close_session(clean);
}

/* E1: a weight that is not finite is reported at the first token whose logits it reaches, and the cache forgets it: also the rows
 * that the next text does not reach, but attention reads with its last tile. */
static void test_not_finite(void)
{
    static const enum quern_kv CACHES[] = { QUERN_KV_DEFAULT, QUERN_KV_F32, QUERN_KV_F16, QUERN_KV_BF16, QUERN_KV_I16 };
    tiny_model(&tiny, TINY_LLAMA);
    struct quern_model *model = open_tiny(temp_path("session.gguf"));
    if (!model)
        return;
    /* The model's embedding with two bad rows, in memory of our own. */
    float *embed = malloc(64 * TINY_VOCAB * sizeof *embed);
    memcpy(embed, model->model.embed.data, 64 * TINY_VOCAB * sizeof *embed);
    embed[7 * 64 + 5] = NAN;
    embed[8 * 64 + 5] = INFINITY;
    model->model.embed.data = (const uint8_t *)embed;
    for (size_t i = 0; i < sizeof CACHES / sizeof *CACHES; i++)
        for (int32_t bad = 7; bad <= 8; bad++) {
            check_forgets(model, CACHES[i], bad, 20);
            check_forgets(model, CACHES[i], bad, 5);
        }
    quern_close_model(model);
    free(embed);
}

/* The known beginning of what stories260K says. */
static void test_stories(void)
{
    static const char EXPECTED[] = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
                                   "One day, she saw a big, red ball.";
    const char *path = shared_path("models/stories260K/stories260K-F32.gguf");
    if (!path) {
        test_skip("test_stories", "../shared is not there");
        return;
    }
    struct quern_model *model = quern_open_model(path, NULL, &err);
    struct quern_session *s = model ? quern_open_session(model, NULL, &err) : NULL;
    char text[400] = "";
    int32_t token = 1;
    CHECK(s != NULL, "%s", err.text);
    for (size_t used = 0; s && used < sizeof EXPECTED;) {
        if (!quern_step_session(s, &token, 1, &err)) {
            CHECK(false, "%s", err.text);
            break;
        }
        const float *logits = quern_session_logits(s);
        token = 0;
        for (int32_t i = 1; (size_t)i < quern_model_vocabulary(model); i++)
            if (logits[i] > logits[token])
                token = i;
        used += quern_decode_token(model, token, text + used, sizeof text - used - 1);
    }
    const char *from = text[0] == ' ' ? text + 1 : text;
    CHECK(!strncmp(from, EXPECTED, strlen(EXPECTED)), "it says: %s", from);
    quern_close_session(s);
    quern_close_model(model);
}

int main(void)
{
    TEST(test_cuts);
    TEST(test_many_through_experts);
    TEST(test_cache_types);
    TEST(test_long_context);
    TEST(test_together);
    TEST(test_sync);
    TEST(test_limits);
    TEST(test_stop);
    TEST(test_not_finite);
    TEST(test_stories);
    return test_end();
}
