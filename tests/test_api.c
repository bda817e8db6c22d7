/* The library as its users see it: nothing but quern.h (and test.h to count), on the model that the repository carries. */
#include "quern.h"
#include "test.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char path[] = "models/tiny-books-q8_0.gguf";
static const char text[] = "It was a dark and stormy night";

static struct quern_error err;
static struct quern_model *model;
static size_t vocabulary;

static struct quern_session *open_session(size_t context)
{
    struct quern_session_options options = { .context = context };
    struct quern_session *s = quern_open_session(model, &options, &err);
    CHECK(s != NULL, "%s", err.text);
    return s;
}

/* Did a call that must fail give this code and a sentence that has `words`? */
static bool refused(bool ok, enum quern_code code, const char *words)
{
    bool as_said = !ok && err.code == code && strstr(err.text, words) && !strchr(err.text, '\n') && err.file && err.line > 0;
    if (!as_said)
        printf("expected %d with '%s', got %d: %s\n", (int)code, words, ok ? 0 : (int)err.code, ok ? "success" : err.text);
    err = (struct quern_error){ 0 };
    return as_said;
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

static void a_model_describes_itself(void)
{
    CHECK(!strcmp(quern_model_architecture(model), "llama"), "%s", quern_model_architecture(model));
    CHECK(vocabulary == 4096 && quern_model_context(model) == 512,
          "%zu tokens, context %zu", vocabulary, quern_model_context(model));
    CHECK(quern_default_threads() >= 1, "threads");
}

static void what_is_no_model_is_refused(void)
{
    CHECK(refused(quern_open_model("no/such/file", NULL, &err), QUERN_EIO, "no/such/file"), "missing file");
    CHECK(refused(quern_open_model("README.md", NULL, &err), QUERN_EFORMAT, "README.md"), "a text");
    struct quern_model_options options = { .cpu = "abacus" };
    CHECK(refused(quern_open_model(path, &options, &err), QUERN_EUSAGE, "abacus"), "an unknown instruction set");
    options = (struct quern_model_options){ .tokenizer_pre = "no-such-cut" };
    CHECK(refused(quern_open_model(path, &options, &err), QUERN_EUSAGE, "pre-tokenizer"), "a SentencePiece model has none");
    quern_close_model(NULL);
}

/* A model in memory is the model of the file, and a part of one is no model. */
static void a_model_in_memory(void)
{
    size_t bytes;
    char *data = read_whole_file(path, &bytes);
    CHECK(data != NULL, "%s", path);
    if (!data)
        return;
    for (size_t part = 0; part < bytes; part += 1 + bytes / 23)
        CHECK(refused(quern_view_model(data, part, "a part", NULL, &err), QUERN_EFORMAT, "a part"), "%zu bytes", part);
    struct quern_model *view = quern_view_model(data, bytes, "whole", NULL, &err);
    CHECK(view && quern_model_vocabulary(view) == vocabulary, "%s", err.text);
    quern_close_model(view);
    free(data);
}

static void text_comes_back_from_tokens(void)
{
    int32_t *ids;
    size_t count, used = 0;
    char out[200] = "";
    bool ok = quern_encode_text(model, text, strlen(text), true, false, &ids, &count, &err);
    CHECK(ok, "%s", err.text);
    if (!ok)
        return;
    for (size_t i = 1; i < count; i++) {
        size_t n = quern_decode_token(model, ids[i], NULL, 0);       /* the length alone */
        if (used + n < sizeof out)
            used += quern_decode_token(model, ids[i], out + used, sizeof out - used);
        CHECK(!quern_token_ends(model, ids[i]), "token %d ends the text", (int)ids[i]);
    }
    CHECK(!strcmp(out + (out[0] == ' '), text), "'%s'", out);
    free(ids);
    ok = quern_encode_text(model, "", 0, false, false, &ids, &count, &err);
    CHECK(ok && count == 0, "no text, %zu tokens", count);
    if (ok)
        free(ids);
}

/* ---- the session ------------------------------------------------------------------------------------------------ */

/* Tokens at once, one by one, and cut back and continued: the same logits, bit for bit. */
static void logits_do_not_depend_on_the_way(void)
{
    static const int32_t tokens[] = { 1, 300, 301, 500, 12, 77, 4000 };
    enum { N = sizeof tokens / sizeof *tokens, CUT = 3 };
    size_t bytes = vocabulary * sizeof(float);
    float *whole = malloc(bytes);
    struct quern_session *s = open_session(64);
    if (s && whole) {
        const int32_t *held;
        CHECK(quern_sync_session(s, tokens, N, &err), "%s", err.text);
        memcpy(whole, quern_session_logits(s), bytes);
        for (size_t i = 0; i < vocabulary; i++)
            CHECK(isfinite(whole[i]), "logit %zu", i);
        CHECK(quern_session_tokens(s, &held) == N && !memcmp(held, tokens, sizeof tokens), "tokens held");

        CHECK(quern_rewind_session(s, CUT, &err) && quern_session_tokens(s, NULL) == CUT, "%s", err.text);
        CHECK(quern_step_session(s, tokens + CUT, N - CUT, &err), "%s", err.text);
        CHECK(!memcmp(whole, quern_session_logits(s), bytes), "after a rewind to %d", CUT);

        CHECK(quern_rewind_session(s, 0, &err), "%s", err.text);
        for (size_t i = 0; i < N; i++)
            CHECK(quern_step_session(s, &tokens[i], 1, &err), "%s", err.text);
        CHECK(!memcmp(whole, quern_session_logits(s), bytes), "token by token");

        static const int32_t other[] = { 1, 300, 9 };
        CHECK(quern_sync_session(s, other, 3, &err) && quern_sync_session(s, tokens, N, &err), "%s", err.text);
        CHECK(!memcmp(whole, quern_session_logits(s), bytes), "after other tokens");
    }
    quern_close_session(s);
    free(whole);
}

/* Each refusal leaves the session as it was. */
static void a_session_refuses(void)
{
    static const int32_t good[] = { 1, 300, 301 }, many[9] = { 1 };
    int32_t wrong[] = { 1, (int32_t)vocabulary };
    struct quern_session *s = open_session(8);
    if (!s)
        return;
    CHECK(quern_sync_session(s, good, 3, &err), "%s", err.text);
    CHECK(refused(quern_sync_session(s, many, 9, &err), QUERN_ELIMIT, "9"), "more than the context");
    CHECK(refused(quern_step_session(s, many, 6, &err), QUERN_ELIMIT, "9"), "more than is left");
    CHECK(refused(quern_step_session(s, wrong, 2, &err), QUERN_EUSAGE, "4096"), "an id beyond the vocabulary");
    wrong[1] = -1;
    CHECK(refused(quern_step_session(s, wrong, 2, &err), QUERN_EUSAGE, "-1"), "a negative id");
    CHECK(refused(quern_rewind_session(s, 4, &err), QUERN_EUSAGE, "4"), "forward is not back");
    CHECK(quern_session_tokens(s, NULL) == 3, "%zu tokens", quern_session_tokens(s, NULL));
    CHECK(quern_step_session(s, good, 3, &err), "%s", err.text);
    quern_close_session(s);
    quern_close_session(NULL);
}

static void memory_is_planned(void)
{
    size_t f16, q8, scratch;
    struct quern_session_options options = { .context = 256, .kv = QUERN_KV_F16 };
    CHECK(quern_plan_session(model, &options, &f16, &scratch, &err), "%s", err.text);
    options.mem_limit = f16 + scratch - 1;
    CHECK(refused(quern_open_session(model, &options, &err), QUERN_EMEM, "limit"), "a byte too few");
    options.mem_limit++;
    struct quern_session *s = quern_open_session(model, &options, &err);
    CHECK(s != NULL, "what was planned is enough: %s", err.text);
    quern_close_session(s);
    options.kv = QUERN_KV_Q8_0;
    CHECK(quern_plan_session(model, &options, &q8, &scratch, &err) && q8 < f16, "q8_0 %zu bytes, f16 %zu", q8, f16);
    options.context = SIZE_MAX / 2;
    CHECK(refused(quern_plan_session(model, &options, &q8, &scratch, &err), QUERN_EMEM, ""), "a context beyond all memory");
}

static void a_flag_stops_it(void)
{
    static const int32_t tokens[] = { 1, 300 };
    volatile int stop = 1;
    struct quern_session_options options = { .context = 8, .stop = &stop };
    struct quern_session *s = quern_open_session(model, &options, &err);
    CHECK(s != NULL, "%s", err.text);
    if (!s)
        return;
    CHECK(refused(quern_sync_session(s, tokens, 2, &err), QUERN_EINTERRUPT, ""), "the flag is up");
    stop = 0;
    CHECK(quern_sync_session(s, tokens, 2, &err), "the flag is down: %s", err.text);
    quern_close_session(s);
}

/* ---- the sampler ------------------------------------------------------------------------------------------------ */

/* `n` tokens after the text, with this seed. */
static void write_tokens(int32_t *out, size_t n, float temperature, uint64_t seed)
{
    int32_t *ids = NULL;
    size_t count;
    struct quern_error mine;                    /* this runs in several threads */
    struct quern_sampler_options options;
    quern_default_sampler(&options);
    options.temperature = temperature;
    options.seed = seed;
    memset(out, 0xff, n * sizeof *out);
    struct quern_sampler *sampler = quern_open_sampler(model, &options, &mine);
    struct quern_session *s = quern_open_session(model, &(struct quern_session_options){ .context = 64 }, &mine);
    bool ok = sampler && s && quern_encode_text(model, text, strlen(text), true, false, &ids, &count, &mine) &&
              quern_sync_session(s, ids, count, &mine);
    for (size_t i = 0; ok && i < n; i++) {
        out[i] = quern_sample_token(sampler, quern_session_logits(s), &mine);
        ok = out[i] >= 0 && quern_step_session(s, &out[i], 1, &mine);
    }
    free(ids);
    quern_close_session(s);
    quern_close_sampler(sampler);
}

enum { MADE = 12 };

static void a_seed_is_a_text(void)
{
    int32_t a[MADE], b[MADE], c[MADE];
    write_tokens(a, MADE, 0.8f, 1);
    write_tokens(b, MADE, 0.8f, 1);
    write_tokens(c, MADE, 0.8f, 2);
    CHECK(a[MADE - 1] >= 0 && !memcmp(a, b, sizeof a), "the same seed");
    CHECK(memcmp(a, c, sizeof a), "another seed");
    write_tokens(a, MADE, 0, 1);
    write_tokens(b, MADE, 0, 2);
    CHECK(a[MADE - 1] >= 0 && !memcmp(a, b, sizeof a), "greedy needs no seed");
}

static void a_sampler_refuses(void)
{
    struct quern_sampler_options good, bad;
    quern_default_sampler(&good);
    bad = good, bad.temperature = -1;
    CHECK(refused(quern_open_sampler(model, &bad, &err), QUERN_EUSAGE, "-1"), "temperature -1");
    bad = good, bad.top_p = NAN;
    CHECK(refused(quern_open_sampler(model, &bad, &err), QUERN_EUSAGE, "nan"), "top-p NaN");
    bad = good, bad.top_k = -1;
    CHECK(refused(quern_open_sampler(model, &bad, &err), QUERN_EUSAGE, "-1"), "top-k -1");
    quern_close_sampler(NULL);
}

static void *write_in_thread(void *out)
{
    write_tokens(out, MADE, 0.8f, 7);
    return NULL;
}

/* One model, a session in each thread. */
static void threads_share_a_model(void)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    int32_t alone[MADE], made[THREADS][MADE];
    bool started[THREADS];
    write_tokens(alone, MADE, 0.8f, 7);
    for (size_t i = 0; i < THREADS; i++)
        started[i] = pthread_create(&threads[i], NULL, write_in_thread, made[i]) == 0;
    for (size_t i = 0; i < THREADS; i++)
        if (started[i]) {
            pthread_join(threads[i], NULL);
            CHECK(!memcmp(made[i], alone, sizeof alone), "thread %zu", i);
        }
}

int main(void)
{
    model = quern_open_model(path, &(struct quern_model_options){ .threads = 2 }, &err);
    if (!model) {
        printf("%s\n", err.text);
        return 1;                                /* the suite counts a missing last line as a failure */
    }
    vocabulary = quern_model_vocabulary(model);
    TEST(a_model_describes_itself);
    TEST(what_is_no_model_is_refused);
    TEST(a_model_in_memory);
    TEST(text_comes_back_from_tokens);
    TEST(logits_do_not_depend_on_the_way);
    TEST(a_session_refuses);
    TEST(memory_is_planned);
    TEST(a_flag_stops_it);
    TEST(a_seed_is_a_text);
    TEST(a_sampler_refuses);
    TEST(threads_share_a_model);
    quern_close_model(model);
    return test_end();
}
