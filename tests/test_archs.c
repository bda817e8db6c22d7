/* Every architecture against the logits that llama.cpp computes, whole and in pieces, and with 1 to 4 threads. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

enum { MAX_TOKENS = 64, CONTEXT = 256 };
static const float TOLERANCE = 3.9e-4f;
/* Twice the mean KL of the default cache against F32: at most 4.0e-6 with I16 (smollm3), 1.0e-5 with F16 (mixtral). */
static const double I16_CACHE_KL = 8e-6, F16_CACHE_KL = 2e-5;

struct vectors {
    int32_t tokens[MAX_TOKENS];
    size_t  count, vocab;
    float  *expected, *exact;      /* [count][vocab]; exact may be NULL */
};

static char *case_file(const char *name, const char *suffix, size_t *size)
{
    char below[256];
    snprintf(below, sizeof below, "vectors/archs/%s%s", name, suffix);
    return read_whole_file(shared_path(below), size);
}

static bool read_vectors(struct vectors *v, const char *name)
{
    size_t bytes = 0, size = 0;
    *v = (struct vectors){ 0 };
    char *text = case_file(name, ".tokens", &bytes);
    if (!text)
        return false;
    for (char *at = strtok(text, " \n"); at && v->count < MAX_TOKENS; at = strtok(NULL, " \n"))
        v->tokens[v->count++] = atoi(at);
    free(text);
    v->expected = (float *)(void *)case_file(name, ".logits", &bytes);
    v->exact = (float *)(void *)case_file(name, ".exact.logits", &size);
    v->vocab = bytes / sizeof(float) / v->count;
    return v->expected != NULL && bytes == v->count * v->vocab * sizeof(float) && (!v->exact || size == bytes);
}

static void free_vectors(struct vectors *v)
{
    free(v->expected);
    free(v->exact);
}

/* Logits after every token, in pieces of `piece`. */
static float *compute(struct quern_model *model, const struct vectors *v, size_t piece, size_t threads, enum quern_kv kv)
{
    struct quern_error err = { 0 };
    struct quern_session_options options = { .context = CONTEXT, .kv = kv };
    float *out = calloc(v->count * v->vocab, sizeof *out);
    model->threads = threads;
    struct quern_session *s = quern_open_session(model, &options, &err);
    CHECK(s != NULL, "%s", err.text);
    for (size_t at = 0; s && at < v->count; at += piece) {
        size_t n = v->count - at < piece ? v->count - at : piece;
        bool ok = session_score(s, v->tokens + at, n, n, out + at * v->vocab, &err);
        CHECK(ok, "%s", err.text);
        if (!ok)
            break;
    }
    quern_close_session(s);
    return out;
}

static float greatest_difference(const float *a, const float *b, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        float difference = fabsf(a[i] - b[i]);
        if (!(difference <= most))
            most = difference;
    }
    return most;
}

/* KL(a || b) and cosine of two rows of logits. */
static double divergence(const float *a, const float *b, size_t n, double *cosine)
{
    double ta = 0, tb = 0, sum = 0, ab = 0, aa = 0, bb = 0, top_a = -1e30, top_b = -1e30;
    for (size_t i = 0; i < n; i++) {
        top_a = fmax(top_a, a[i]);
        top_b = fmax(top_b, b[i]);
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    for (size_t i = 0; i < n; i++) {
        ta += exp(a[i] - top_a);
        tb += exp(b[i] - top_b);
    }
    for (size_t i = 0; i < n; i++)
        sum += exp(a[i] - top_a) / ta * ((a[i] - top_a - log(ta)) - (b[i] - top_b - log(tb)));
    *cosine = ab / sqrt(aa * bb);
    return sum;
}

static struct quern_model *open_case(const char *name)
{
    char below[256];
    struct quern_error err = { 0 };
    snprintf(below, sizeof below, "vectors/archs/%s.gguf", name);
    struct quern_model *model = quern_open_model(shared_path(below), NULL, &err);
    CHECK(model != NULL, "%s", err.text);
    return model;
}

/* Bitwise the same in pieces of 7, token by token, and for any number of threads. */
static void check_splits(struct quern_model *model, const struct vectors *v, const float *whole, enum quern_kv kv)
{
    static const size_t PIECES[] = { 7, 1, MAX_TOKENS, MAX_TOKENS, 7 }, THREADS[] = { 1, 3, 2, 4, 4 };
    size_t splits = getenv("QUERN_EMULATED") ? 1 : sizeof PIECES / sizeof *PIECES;      /* set by test_emulated.sh: time */
    for (size_t i = 0; i < splits; i++) {
        float *parts = compute(model, v, PIECES[i], THREADS[i], kv);
        size_t at = 0, n = v->count * v->vocab;
        while (at < n && memcmp(&whole[at], &parts[at], sizeof *whole) == 0)
            at++;
        CHECK(at == n, "pieces of %zu, %zu threads: token %zu differs by %g", PIECES[i], THREADS[i], at / v->vocab,
              (double)greatest_difference(whole, parts, n));
        free(parts);
    }
}

/* The cache that is taken when none is asked for: what its rounding costs against an F32 cache, and the promise of pieces. */
static void check_default_cache(struct quern_model *model, const struct vectors *v, const float *exact)
{
    float *whole = compute(model, v, MAX_TOKENS, 1, QUERN_KV_DEFAULT);
    double sum = 0, cosine;
    for (size_t t = 0; t < v->count; t++)
        sum += divergence(exact + t * v->vocab, whole + t * v->vocab, v->vocab, &cosine);
    enum kv_type kv = session_kv(model, QUERN_KV_DEFAULT);
    double mean = sum / (double)v->count, most = kv == KV_I16 ? I16_CACHE_KL : F16_CACHE_KL;
    if (getenv("QUERN_TEST_VERBOSE"))
        printf("%-22s default cache %s, mean KL %.1e\n", "", kv_name(kv), mean);
    CHECK(mean < most, "the default cache, %s, costs a mean KL of %g, allowed %g", kv_name(kv), mean, most);
    check_splits(model, v, whole, QUERN_KV_DEFAULT);
    free(whole);
}

static void check_case(const char *name)
{
    struct vectors v;
    if (!read_vectors(&v, name)) {
        CHECK(false, "vectors of '%s' cannot be read", name);
        return;
    }
    struct quern_model *model = open_case(name);
    if (model) {
        float *whole = compute(model, &v, MAX_TOKENS, 1, QUERN_KV_F32);
        float difference = greatest_difference(whole, v.exact ? v.exact : v.expected, v.count * v.vocab);
        if (getenv("QUERN_TEST_VERBOSE"))
            printf("%-22s %.1e\n", name, (double)difference);
        CHECK(difference <= TOLERANCE, "%s: greatest difference %g, allowed %g", name, (double)difference, (double)TOLERANCE);
        check_splits(model, &v, whole, QUERN_KV_F32);
        check_default_cache(model, &v, whole);
        free(whole);
    }
    quern_close_model(model);
    free_vectors(&v);
}

/* Mean and greatest KL against the exact logits, least cosine: what llama.cpp's own 8-bit activations give (the vectors' README).
 * Twice that is allowed, mean and greatest. The greatest is one position's luck with the rounding: scaling the 8-bit grid by 1e-5
 * to 3e-3 moves that of q-gemma3-q40 between 4.2e-3 and 1.5e-2, its mean between 1.28e-3 and 1.67e-3. It holds because the blocks
 * of activations are rounded exactly as llama.cpp rounds them (kernels.h). */
struct quantized {
    const char *name;
    double mean, most, cosine;
    const char *exact;         /* the case that holds the exact logits, when it is another */
};

static void check_quantized(const struct quantized *q)
{
    struct vectors v;
    bool read = read_vectors(&v, q->name);
    if (read && q->exact) {
        size_t bytes;
        v.exact = (float *)(void *)case_file(q->exact, ".logits", &bytes);
    }
    if (!read || !v.exact) {
        CHECK(false, "vectors of '%s' cannot be read", q->name);
        return;
    }
    struct quern_model *model = open_case(q->name);
    if (model) {
        float *whole = compute(model, &v, MAX_TOKENS, 1, QUERN_KV_F32);
        double sum = 0, most = 0, least = 1;
        for (size_t t = 0; t < v.count; t++) {
            double cosine, kl = divergence(v.exact + t * v.vocab, whole + t * v.vocab, v.vocab, &cosine);
            sum += kl;
            most = fmax(most, kl);
            least = fmin(least, cosine);
        }
        double mean = sum / (double)v.count;
        if (getenv("QUERN_TEST_VERBOSE"))
            printf("%-22s mean KL %.2e (%.2e), most %.2e (%.2e), cosine %.6f (%.6f), difference %.1e\n",
                   q->name, mean, q->mean, most, q->most, least, q->cosine,
                   (double)greatest_difference(whole, v.exact, v.count * v.vocab));
        CHECK(mean <= 2 * q->mean && most <= 2 * q->most, "%s: mean KL %g (llama.cpp %g), most %g (%g)", q->name, mean,
              q->mean, most, q->most);
        CHECK(1 - least <= 2 * (1 - q->cosine), "%s: least cosine %g (llama.cpp %g)", q->name, least, q->cosine);
        check_splits(model, &v, whole, QUERN_KV_F32);
        free(whole);
    }
    quern_close_model(model);
    free_vectors(&v);
}

static const char *const EXACT[] = {
    "llama", "llama-tied", "llama-rope3", "llama-linear", "llama-yarn", "llama-bias", "llama-mqa", "mistral3", "smollm3", "arcee",
    "granite", "minicpm", "command-r", "cohere2", "glm4", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi2", "phi3",
    "phi3-longrope-long", "phi3-longrope-short", "gpt2", "gptneox", "gptneox-seq", "stablelm", "stablelm-12b", "starcoder2",
    "olmo2", "olmo3", "falcon", "falcon-40b", "bitnet", "nemotron", "exaone4", "mpt", "deci",
    "mixtral", "qwen2moe", "qwen3moe", "granitemoe", "olmoe", "gpt-oss", "deepseek2-mla", "deepseek2-v3", "deepseek2-legacy",
    "llama4", "mamba", "lfm2", "qwen3next",
};

static const struct quantized QUANTIZED[] = {
    { "q-llama-q80", 4.63e-03, 2.43e-02, 0.998132, NULL }, { "q-llama-q4km", 7.79e-03, 4.34e-02, 0.997363, NULL },
    { "q-llama-iq3s", 8.37e-03, 3.37e-02, 0.996264, NULL }, { "q-gemma3-q40", 1.55e-03, 6.08e-03, 0.999254, NULL },
    { "q-gemma3-q2k", 3.37e-03, 1.35e-02, 0.998602, NULL }, { "q-gemma3-iq4xs", 3.86e-03, 2.17e-02, 0.997715, NULL },
    { "llama-f16", 2.63e-06, 1.06e-05, 0.999999, NULL }, { "qwen3-bf16", 1.89e-04, 8.58e-04, 0.999930, NULL },
    { "gpt-oss-mxfp4", 7.35e-04, 3.09e-03, 0.999753, "gpt-oss" },
};

int main(int argc, char **argv)
{
    if (!shared_path("vectors/archs")) {
        for (size_t i = 0; i < sizeof EXACT / sizeof *EXACT; i++)
            test_skip(EXACT[i], "../shared is not there");
        for (size_t i = 0; i < sizeof QUANTIZED / sizeof *QUANTIZED; i++)
            test_skip(QUANTIZED[i].name, "../shared is not there");
        return test_end();
    }
    for (size_t i = 0; i < sizeof EXACT / sizeof *EXACT; i++) {
        if (argc > 1 && strcmp(argv[1], EXACT[i]) != 0)
            continue;
        test_begin("%s", EXACT[i]);
        check_case(EXACT[i]);
        test_finish();
    }
    for (size_t i = 0; i < sizeof QUANTIZED / sizeof *QUANTIZED; i++) {
        if (argc > 1 && strcmp(argv[1], QUANTIZED[i].name) != 0)
            continue;
        test_begin("%s", QUANTIZED[i].name);
        check_quantized(&QUANTIZED[i]);
        test_finish();
    }
    return test_end();
}
