/* The mirror of the forward pass: its logits against the reference vectors, and every gradient against numerical differentiation.
 *
 * The loss is a fixed random sum of the logits. For each weight matrix, norm and the embedding a random direction is taken; the
 * slope along it from two forward passes must be the inner product of the direction with the gradient. Where a router chooses, the
 * step must be so small that nobody is chosen anew on either side: a gradient says nothing about that. */
#include "backward.h"
#include "backward_ops.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    "llama", "llama-bias", "llama-mqa", "llama-tied", "llama-rope3", "llama-yarn", "qwen2", "qwen3", "gemma", "gemma2", "gemma3",
    "olmo2", "smollm3", "granite", "exaone4", "minicpm", "mixtral", "qwen2moe", "qwen3moe", "olmoe", "granitemoe", "gpt-oss",
};
static const char *const refused[] = { "mamba", "gpt2", "command-r", "deepseek2-mla", "llama4", "mistral3" };

enum { TOKENS = 48 };

struct bench {
    struct gguf     gguf;
    struct kernels  kernels;
    struct model    model;
    struct pool    *pool;
    struct backward b;
    int32_t         tokens[TOKENS];
    float          *logits, *dlogits, *direction;   /* loss = sum of logits * direction */
    size_t          rows;                           /* stride of the logits */
    size_t          count;                          /* tokens that the loss looks at, in 4 sequences; 2 without experts */
    uint64_t        choice;                         /* of the last pass: who was chosen, as a number */
    bool            open, ready;
    /* per id: weights as f32, gradient; the same of norms and the embedding */
    float         **weight, **gradient, **norm, **norm_gradient, *embedding, *embedding_gradient;
};

static char *vector(const char *name, const char *suffix, size_t *size)
{
    char below[200];
    snprintf(below, sizeof below, "vectors/archs/%s%s", name, suffix);
    return read_whole_file(shared_path(below), size);
}

static bool bench_open(struct bench *t, const char *name, struct quern_error *err)
{
    char below[200];
    struct cpu cpu;
    memset(t, 0, sizeof *t);
    snprintf(below, sizeof below, "vectors/archs/%s.gguf", name);
    cpu_detect(&cpu);
    kernels_init(&t->kernels, &cpu);
    t->pool = pool_open(2, err);
    if (!t->pool || !gguf_open(&t->gguf, shared_path(below), NULL, err))
        return false;
    if (!model_init(&t->model, &t->gguf, &t->kernels, err))
        return false;
    t->open = true;
    return t->ready = backward_init(&t->b, &t->model, &t->kernels, t->pool, TOKENS, TOKENS, err);
}

static void bench_close(struct bench *t)
{
    for (size_t id = 0; t->weight && id < t->b.all; id++) {
        free(t->weight[id]);
        free(t->gradient[id]);
    }
    for (size_t id = 0; t->norm && id < t->b.norm_count; id++) {
        free(t->norm[id]);
        free(t->norm_gradient[id]);
    }
    free(t->weight), free(t->gradient), free(t->norm), free(t->norm_gradient), free(t->embedding), free(t->embedding_gradient);
    free(t->logits), free(t->dlogits), free(t->direction);
    if (t->ready)
        backward_free(&t->b);
    if (t->open)
        model_free(&t->model);
    if (t->open)
        gguf_close(&t->gguf);
    pool_close(t->pool);
}

static void read_tokens(struct bench *t, const char *name)
{
    size_t size, n = 0;
    char *text = vector(name, ".tokens", &size);
    for (char *at = text ? strtok(text, " \n") : NULL; at && n < TOKENS; at = strtok(NULL, " \n"))
        t->tokens[n++] = atoi(at);
    CHECK(n == TOKENS, "%s: %zu tokens", name, n);
    free(text);
    t->rows = dense_stride(t->model.hyper.vocab);
    t->logits = aligned_alloc(64, TOKENS * t->rows * sizeof(float));
    t->dlogits = aligned_alloc(64, TOKENS * t->rows * sizeof(float));
    t->direction = calloc(TOKENS * t->rows, sizeof(float));
}

/* ---- logits ---- */

static void logits_equal_the_vectors(void)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct bench t;
        struct quern_error err;
        if (!bench_open(&t, names[i], &err)) {
            CHECK(false, "%s: %s", names[i], err.text);
            bench_close(&t);
            continue;
        }
        size_t size, vocab = t.model.hyper.vocab;
        read_tokens(&t, names[i]);
        char *exact = vector(names[i], ".exact.logits", &size), *plain = vector(names[i], ".logits", &size);
        const float *expected = (const float *)(const void *)(exact ? exact : plain);
        float most = 0;
        backward_forward(&t.b, t.tokens, 1, TOKENS, t.logits, NULL);
        for (size_t tok = 0; tok < TOKENS; tok++)
            for (size_t v = 0; v < vocab; v++)
                most = fmaxf(most, fabsf(t.logits[tok * t.rows + v] - expected[tok * vocab + v]));
        CHECK(most < 3.9e-4f, "%s: logits off by %g", names[i], (double)most);
        /* Four sequences at once are four sequences. */
        backward_forward(&t.b, t.tokens, 4, TOKENS / 4, t.logits, NULL);
        float *alone = aligned_alloc(64, TOKENS * t.rows * sizeof(float));
        backward_forward(&t.b, t.tokens + TOKENS / 4, 1, TOKENS / 4, alone, NULL);
        bool same = true;
        for (size_t tok = 0; tok < TOKENS / 4; tok++)
            same = same && !memcmp(alone + tok * t.rows, t.logits + (TOKENS / 4 + tok) * t.rows, vocab * sizeof(float));
        CHECK(same, "%s: a sequence among others", names[i]);
        free(alone);
        free(exact);
        free(plain);
        bench_close(&t);
    }
}

static void others_are_refused(void)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct bench t;
        struct quern_error err;
        bool ok = bench_open(&t, refused[i], &err);
        CHECK(t.open && !ok && err.code == QUERN_EUNSUPPORTED, "%s", refused[i]);
        bench_close(&t);
    }
}

/* ---- gradients of whole models ---- */

static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    struct bench *t = arg;
    const struct matrix *w = backward_matrix(&t->model, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    for (size_t tok = 0; tok < n; tok++)
        for (size_t r = 0; r < w->rows; r++)
            for (size_t c = 0; c < w->cols; c++)
                t->gradient[id][r * cols + c] += dy[tok * rows + r] * x[tok * cols + c];
}

static void on_expert(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    struct bench *t = arg;
    const struct matrix *w = backward_matrix(&t->model, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    for (size_t i = 0; dy && i < n; i++) {
        CHECK(slots[i] / t->model.hyper.experts_used < TOKENS && (i == 0 || slots[i] > slots[i - 1]), "slot %u", slots[i]);
        for (size_t r = 0; r < w->rows; r++)
            for (size_t c = 0; c < w->cols; c++)
                t->gradient[id][(expert * w->rows + r) * cols + c] += dy[i * rows + r] * x[i * cols + c];
    }
}

static void on_norm(void *arg, size_t id, const float *gradient)
{
    struct bench *t = arg;
    memcpy(t->norm_gradient[id], gradient, backward_norm_width(&t->model, id) * sizeof *gradient);
}

static void on_embedding(void *arg, const int32_t *tokens, const float *dx, size_t n)
{
    struct bench *t = arg;
    size_t width = t->model.hyper.width, stride = dense_stride(width);
    for (size_t tok = 0; tok < n; tok++)
        for (size_t i = 0; i < width; i++)
            t->embedding_gradient[(size_t)tokens[tok] * stride + i] += dx[tok * stride + i];
}

static void on_choice(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    struct bench *t = arg;
    (void)x, (void)dy;
    for (size_t i = 0; i < n; i++)
        t->choice = (t->choice ^ (id << 40 ^ expert << 20 ^ slots[i])) * 0x9e3779b97f4a7c15u;
}

static double loss(struct bench *t)
{
    struct backward_hooks hooks = { .arg = t, .expert = on_choice };
    size_t sequences = t->model.hyper.experts ? 4 : 2;
    double sum = 0;
    t->choice = 1;
    backward_forward(&t->b, t->tokens, sequences, t->count / sequences, t->logits, &hooks);
    for (size_t i = 0; i < t->count * t->rows; i++)
        sum += (double)t->logits[i] * t->direction[i];
    return sum;
}

struct side { const float *saved, *step; float *values; size_t n; };

/* The slope along the step; false where somebody was chosen anew. */
static bool slope_along(struct bench *t, const struct side *s, float by, double *slope)
{
    uint64_t before = t->choice;
    double at[2];
    bool same = true;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < s->n; i++)
            s->values[i] = s->saved[i] + (side ? by : -by) * s->step[i];
        at[side] = loss(t);
        same = same && t->choice == before;
    }
    memcpy(s->values, s->saved, s->n * sizeof *s->values);
    t->choice = before;
    *slope = (at[1] - at[0]) / (2 * by);
    return same;
}

/* Move `values` along a random direction, both ways. With experts the first of some directions and steps that leave the choice. */
static void check_slope(struct bench *t, const char *name, const char *what, size_t id, float *values,
                        const float *gradient, size_t n)
{
    uint64_t seed = 77 + id;
    float *step = malloc(n * sizeof *step), *saved = malloc(n * sizeof *saved);
    struct side s = { saved, step, values, n };
    double size = 0, norm, inner = 0, length = 0, slope = 0;
    bool found = false;
    memcpy(saved, values, n * sizeof *saved);
    for (size_t i = 0; i < n; i++)
        size += (double)values[i] * values[i], length += (double)gradient[i] * gradient[i];
    for (int turn = 0; turn < 24 && !found; turn++) {
        norm = inner = 0;
        for (size_t i = 0; i < n; i++) {
            step[i] = values[i] == 0 ? 0 : random_float(&seed, -1, 1);
            norm += (double)step[i] * step[i], inner += (double)gradient[i] * step[i];
        }
        found = slope_along(t, &s, (float)(4e-3 * sqrt(size / norm)) / (float)(1 << turn / 6), &slope);
    }
    double expected = sqrt(length * norm / (double)n);
    CHECK(found, "%s, %s %zu: somebody is chosen anew at every step", name, what, id);
    CHECK(fabs(slope - inner) < 0.02 * (fabs(inner) + expected), "%s, %s %zu: slope %g, gradient says %g",
          name, what, id, slope, inner);
    free(step);
    free(saved);
}

static void take_weights(struct bench *t)
{
    t->weight = calloc(t->b.all, sizeof *t->weight), t->gradient = calloc(t->b.all, sizeof *t->gradient);
    for (size_t id = 0; id < t->b.all; id++) {
        const struct matrix *w = backward_matrix(&t->model, id);
        if (!w->data)
            continue;
        t->weight[id] = calloc(w->slices * w->rows * dense_stride(w->cols), sizeof(float));
        t->gradient[id] = calloc(w->slices * w->rows * dense_stride(w->cols), sizeof(float));
        backward_decode(&t->b, w, t->weight[id]);
        t->b.weights[id] = t->weight[id];
    }
    t->norm = calloc(t->b.norm_count, sizeof *t->norm), t->norm_gradient = calloc(t->b.norm_count, sizeof *t->norm_gradient);
    for (size_t id = 0; id < t->b.norm_count; id++) {
        size_t n = backward_norm_width(&t->model, id);
        if (!n)
            continue;
        t->norm[id] = malloc(n * sizeof(float)), t->norm_gradient[id] = calloc(n, sizeof(float));
        memcpy(t->norm[id], t->b.norms[id], n * sizeof(float));
        t->b.norms[id] = t->norm[id];
    }
    size_t stride = dense_stride(t->model.hyper.width), vocab = t->model.hyper.vocab;
    t->embedding = calloc(vocab * stride, sizeof(float)), t->embedding_gradient = calloc(vocab * stride, sizeof(float));
    backward_decode(&t->b, &t->model.embed, t->embedding);
    t->b.embedding = t->embedding;
}

static void check_model(const char *name, size_t band)
{
    struct bench t;
    struct quern_error err;
    uint64_t seed = 3;
    if (!bench_open(&t, name, &err)) {
        CHECK(false, "%s: %s", name, err.text);
        bench_close(&t);
        return;
    }
    read_tokens(&t, name);
    take_weights(&t);
    t.b.band = band;
    for (size_t tok = 0; tok < TOKENS; tok++)
        for (size_t v = 0; v < t.model.hyper.vocab; v++)
            t.direction[tok * t.rows + v] = random_float(&seed, -1, 1);
    struct backward_hooks hooks = {
        .arg = &t, .linear = on_linear, .expert = on_expert, .norm = on_norm, .embedding = on_embedding
    };
    t.count = t.model.hyper.experts ? TOKENS / 3 : TOKENS;
    loss(&t);
    memcpy(t.dlogits, t.direction, t.count * t.rows * sizeof(float));
    backward_run(&t.b, t.logits, t.dlogits, &hooks);
    for (size_t id = 0; id < t.b.all; id++) {
        const struct matrix *w = backward_matrix(&t.model, id);
        if (w->data)
            check_slope(&t, name, "matrix", id, t.weight[id], t.gradient[id], w->slices * w->rows * dense_stride(w->cols));
    }
    for (size_t id = 0; id < t.b.norm_count; id++)
        if (t.norm[id])
            check_slope(&t, name, "norm", id, t.norm[id], t.norm_gradient[id], backward_norm_width(&t.model, id));
    check_slope(&t, name, "embedding", 0, t.embedding, t.embedding_gradient,
                t.model.hyper.vocab * dense_stride(t.model.hyper.width));
    bench_close(&t);
}

static void gradients_are_slopes(void)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_model(names[i], SIZE_MAX / 2);
    /* Matrices in bands of 64 rows: the head of a real model is larger than one band. */
    check_model("llama", 1);
}

/* Residuals passed on layer by layer are those of the whole pass. */
static void in_steps(void)
{
    struct bench t;
    struct quern_error err;
    CHECK(bench_open(&t, "gemma2", &err), "%s", err.text);
    read_tokens(&t, "gemma2");
    size_t n = TOKENS * dense_stride(t.model.hyper.width);
    float *x = aligned_alloc(64, n * sizeof *x);
    backward_forward(&t.b, t.tokens, 2, TOKENS / 2, t.logits, NULL);
    backward_embed(&t.b, t.tokens, 2, TOKENS / 2, x);
    for (size_t i = 0; i <= t.model.hyper.layers; i++) {
        CHECK(!memcmp(x, t.b.kept[i], n * sizeof *x), "before layer %zu", i);
        if (i < t.model.hyper.layers)
            backward_layer(&t.b, i, x, 2, TOKENS / 2, NULL);
    }
    free(x);
    bench_close(&t);
}

/* ---- single operations ---- */

enum { N = 12, LENGTH = 6 };

static double weighted(const float *y, const float *c, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)y[i] * c[i];
    return sum;
}

static void close_to(const char *what, size_t i, double slope, double gradient)
{
    CHECK(fabs(slope - gradient) < 2e-3 * (fabs(gradient) + 1), "%s, value %zu: slope %g, gradient %g", what, i, slope, gradient);
}

static void norms_and_gates(void)
{
    uint64_t seed = 21;
    float x[N], w[N], c[N], y[N], dx[N], dw[N] = { 0 }, g[N], dg[N], du[N];
    for (int i = 0; i < N; i++) {
        x[i] = random_float(&seed, -2, 2), w[i] = random_float(&seed, 0.5, 2);
        c[i] = random_float(&seed, -1, 1), g[i] = random_float(&seed, -3, 3);
    }
    rms_back(dx, dw, c, x, w, N, 1e-5f);
    for (int i = 0; i < N; i++) {
        float *moved[2] = { &x[i], &w[i] };
        for (int k = 0; k < 2; k++) {
            float saved = *moved[k], h = 1e-3f;
            *moved[k] = saved + h, rms_forth(y, x, w, N, 1e-5f);
            double up = weighted(y, c, N);
            *moved[k] = saved - h, rms_forth(y, x, w, N, 1e-5f);
            *moved[k] = saved;
            close_to(k ? "norm, weight" : "norm, input", (size_t)i, (up - weighted(y, c, N)) / (2 * h), k ? dw[i] : dx[i]);
        }
    }
    static const enum activation_kind kinds[] = { FFN_SILU, FFN_GELU, FFN_RELU2, FFN_SWIGLU_CLAMPED };
    static const char *const names_of[] = { "SiLU", "GELU", "ReLU squared", "clamped SwiGLU" };
    for (int which = 0; which < 4; which++) {
        enum activation_kind gelu = kinds[which];
        gate_back(dg, du, c, g, x, N, gelu);
        for (int i = 0; i < N; i++) {
            float *moved[2] = { &g[i], &x[i] };
            for (int k = 0; k < 2; k++) {
                float saved = *moved[k], h = 1e-3f;
                *moved[k] = saved + h, gate_forth(y, g, x, N, gelu);
                double up = weighted(y, c, N);
                *moved[k] = saved - h, gate_forth(y, g, x, N, gelu);
                *moved[k] = saved;
                close_to(names_of[which], (size_t)i, (up - weighted(y, c, N)) / (2 * h), k ? du[i] : dg[i]);
            }
        }
    }
}

static void attention_of_one_head(size_t window, float softcap)
{
    struct kernels kernels;
    struct cpu cpu;
    cpu_detect(&cpu);
    kernels_init(&kernels, &cpu);
    struct attend_shape s = { .length = LENGTH, .group = 2, .key_dim = 4, .value_dim = 4, .q_stride = 8, .k_stride = 4,
                              .v_stride = 4, .out_stride = 8, .window = window, .scale = 0.5f, .softcap = softcap,
                              .kernels = &kernels };
    enum { NQ = LENGTH * 8, NK = LENGTH * 4 };
    float q[NQ], k[NK], v[NK], out[NQ], c[NQ], dq[NQ], dk[NK] = { 0 }, dv[NK] = { 0 }, probs[2 * (LENGTH + 1)];
    uint64_t seed = 5;
    for (int i = 0; i < NQ; i++)
        q[i] = random_float(&seed, -2, 2), c[i] = random_float(&seed, -1, 1);
    for (int i = 0; i < NK; i++)
        k[i] = random_float(&seed, -2, 2), v[i] = random_float(&seed, -2, 2);
    attend_back(dq, dk, dv, c, q, k, v, &s, probs);
    float *values[3] = { q, k, v };
    const float *gradients[3] = { dq, dk, dv };
    size_t counts[3] = { NQ, NK, NK };
    for (int which = 0; which < 3; which++)
        for (size_t i = 0; i < counts[which]; i++) {
            float saved = values[which][i], h = 1e-3f;
            values[which][i] = saved + h, attend_forth(out, q, k, v, &s, probs);
            double up = weighted(out, c, NQ);
            values[which][i] = saved - h, attend_forth(out, q, k, v, &s, probs);
            values[which][i] = saved;
            close_to("attention", i + 100 * (size_t)which, (up - weighted(out, c, NQ)) / (2 * h), gradients[which][i]);
        }
}

static void attention_s_gradients(void)
{
    attention_of_one_head(0, 0);
    attention_of_one_head(3, 0);
    attention_of_one_head(0, 2);
}

int main(void)
{
    TEST(norms_and_gates);
    TEST(attention_s_gradients);
    if (shared_path("vectors/archs/llama.gguf")) {
        TEST(logits_equal_the_vectors);
        TEST(others_are_refused);
        TEST(gradients_are_slopes);
        TEST(in_steps);
    } else {
        test_skip("logits_equal_the_vectors", "shared/ is not here");
        test_skip("gradients_are_slopes", "shared/ is not here");
    }
    return test_end();
}
