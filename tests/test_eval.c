/* Perplexity against llama-perplexity's figures, and the comparison of two models. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

static struct eval_options options(struct pool *pool, size_t chunks)
{
    return (struct eval_options){.context = 256, .chunks = chunks, .kv = KV_F16, .pool = pool};
}

/* llama.cpp of 2026-08: llama-perplexity -c 256 --chunks 100. */
static void test_figures_of_llama_perplexity(void)
{
    static const struct { const char *model; double perplexity, tolerance;
    } cases[] = {
        {"models/stories260K/stories260K-F32.gguf", 4.4296, 0.001},
        {"models/babyllama361/babyllama361-F32.gguf", 1.9791, 0.001},
        {"models/babyllama361/babyllama361-Q8_0.gguf", 1.9803, 0.003},
        {"models/babyllama361/babyllama361-Q4_0.gguf", 2.0428, 0.003},
        {"models/babyllama361/babyllama361-IQ4_NL.gguf", 2.0245, 0.003},
    };
    struct quern_error err = {0};
    size_t bytes = 0;
    char *text = read_whole_file(shared_path("text/tinystories-ppl-120k.txt"), &bytes);
    struct pool *pool = pool_open(quern_default_threads(), &err);
    CHECK(text && pool, "text and pool");
    for (size_t i = 0; text && i < sizeof cases / sizeof *cases; i++) {
        struct eval_options o = options(pool, 100);
        struct eval_result r = {0};
        struct quern_model *m = quern_open_model(shared_path(cases[i].model), NULL, &err);
        bool ok = m && eval_text(&r, m, NULL, text, bytes, &o, &err);
        CHECK(ok, "%s", err.text);
        CHECK(fabs(r.perplexity / cases[i].perplexity - 1) <= cases[i].tolerance, "%s: %.4f, llama.cpp %.4f", cases[i].model,
              r.perplexity, cases[i].perplexity);
        CHECK(r.scored == 12700 && r.chunks == 100 && r.perplexity_error > 0.01 && r.perplexity_error < 0.1, "%zu scored, error %g",
              r.scored, r.perplexity_error);
        quern_close_model(m);
    }
    pool_close(pool);
    free(text);
}

static void test_against(void)
{
    struct quern_error err = {0};
    size_t bytes = 0;
    char *text = read_whole_file(shared_path("text/tinystories-ppl-120k.txt"), &bytes);
    struct pool *pool = pool_open(2, &err);
    struct quern_model *base = quern_open_model(shared_path("models/babyllama361/babyllama361-F32.gguf"), NULL, &err);
    struct quern_model *quantized = quern_open_model(shared_path("models/babyllama361/babyllama361-Q4_0.gguf"), NULL, &err);
    struct quern_model *other = quern_open_model(shared_path("models/stories260K/stories260K-F32.gguf"), NULL, &err);
    struct eval_options o = options(pool, 6);
    struct eval_result same, differs, pieces;
    CHECK(base && quantized && other, "%s", err.text);
    CHECK(eval_text(&same, base, base, text, bytes, &o, &err), "%s", err.text);
    CHECK(same.kl_mean == 0 && same.kl_max == 0 && same.same_top == 1 && same.nll == same.base_nll, "a model against itself: %g",
          same.kl_mean);
    CHECK(eval_text(&differs, quantized, base, text, bytes, &o, &err), "%s", err.text);
    CHECK(differs.kl_mean > 0.005 && differs.kl_mean < 0.1 && differs.kl_median < differs.kl_mean &&
              differs.kl_99 < differs.kl_999 && differs.kl_999 < differs.kl_max && differs.same_top > 0.85 && differs.same_top < 1,
          "mean %g", differs.kl_mean);
    CHECK(differs.base_nll == same.nll && differs.nll > differs.base_nll, "the base is the same in both");
    o.batch = 17;
    CHECK(eval_text(&pieces, quantized, base, text, bytes, &o, &err), "%s", err.text);
    CHECK(pieces.nll == differs.nll && pieces.kl_mean == differs.kl_mean, "passes of 17 tokens change nothing");
    CHECK(!eval_text(&same, other, base, text, bytes, &o, &err) && err.code == QUERN_EUSAGE, "other vocabulary: %s", err.text);
    CHECK(!eval_text(&same, base, NULL, text, 40, &o, &err) && err.code == QUERN_EUSAGE && strstr(err.text, "at least one context"),
          "%s", err.text);
    quern_close_model(base);
    quern_close_model(quantized);
    quern_close_model(other);
    pool_close(pool);
    free(text);
}

/* Against a plain computation: perplexity of one chunk from a session's logits, token by token. */
static void test_one_chunk_by_hand(void)
{
    enum { CONTEXT = 32 };
    struct quern_error err = {0};
    struct quern_model *m = quern_open_model("models/tiny-books-q8_0.gguf", NULL, &err);
    static const char text[] =
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was the "
        "epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness";
    struct pool *pool = pool_open(2, &err);
    struct eval_options o = {.context = CONTEXT, .kv = KV_F32, .pool = pool, .chunks = 1};
    struct eval_result r = {0};
    struct quern_session_options so = {.kv = QUERN_KV_F32};
    struct quern_session *s = m ? quern_open_session(m, &so, &err) : NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    double nll = 0;
    CHECK(s && quern_encode_text(m, text, sizeof text - 1, true, false, &ids, &count, &err) && count > CONTEXT, "%s", err.text);
    for (size_t i = 0; s && ids && i + 1 < CONTEXT; i++) {
        CHECK(quern_step_session(s, &ids[i], 1, &err), "%s", err.text);
        const float *x = quern_session_logits(s);
        double sum = 0;
        for (size_t v = 0; v < quern_model_vocabulary(m); v++)
            sum += exp((double)x[v]);
        if (i >= CONTEXT / 2)
            nll += log(sum) - x[ids[i + 1]];
    }
    CHECK(m && eval_text(&r, m, NULL, text, sizeof text - 1, &o, &err), "%s", err.text);
    CHECK(r.scored == CONTEXT / 2 - 1 && fabs(r.nll - nll / (double)r.scored) < 1e-9, "%.9f, by hand %.9f", r.nll,
          nll / (CONTEXT / 2 - 1));
    free(ids);
    quern_close_session(s);
    quern_close_model(m);
    pool_close(pool);
}

int main(void)
{
    TEST(test_one_chunk_by_hand);
    if (shared_path("text/tinystories-ppl-120k.txt")) {
        TEST(test_figures_of_llama_perplexity);
        TEST(test_against);
    } else {
        test_skip("test_figures_of_llama_perplexity", "no shared folder");
        test_skip("test_against", "no shared folder");
    }
    return test_end();
}
