/* The forward pass against the formulas, written down once more in double precision, one token and one value at a time: llama, a
 * mixture of experts, mamba; and attention through windows, over more than one tile and one span of the context. It needs no files
 * from elsewhere and shares no code with the engine but the reader. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"
#include "test.h"
#include "tiny.h"

enum {
    TOKENS = 1100, WIDTH = 64, HEADS = 4, KV = 2, DIM = 32, FF = 96, EXPERTS = 6, USED = 2, EXPERT_FF = 32, INNER = 96, STATE = 16,
    RANK = 4, TAPS = 4, LAYERS = 2
};

static const struct gguf *file;

/* f32 weights of "blk.LAYER.NAME", or of NAME when layer is negative. */
static const float *weights(int layer, const char *name)
{
    char full[80];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    const struct gguf_tensor *t = gguf_find_tensor(file, full);
    if (!t)
        abort();
    return (const float *)(const void *)t->data;
}

static void multiply(double *out, const float *w, const double *x, size_t cols, size_t rows)
{
    for (size_t r = 0; r < rows; r++) {
        out[r] = 0;
        for (size_t c = 0; c < cols; c++)
            out[r] += w[r * cols + c] * x[c];
    }
}

static void add_vector(double *x, const float *bias, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += bias[i];
}

static void rms(double *out, const double *x, const float *w, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] / sqrt(sum / (double)n + (double)1e-5f) * w[i];
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void rotate(double *x, size_t heads, size_t pos, bool halves)
{
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < DIM / 2; i++) {
            double angle = (double)pos * pow(10000, -2.0 * (double)i / DIM);
            double *a = &x[h * DIM + (halves ? i : 2 * i)], *b = &x[h * DIM + (halves ? i + DIM / 2 : 2 * i + 1)];
            double turned = *a * cos(angle) - *b * sin(angle);
            *b = *a * sin(angle) + *b * cos(angle);
            *a = turned;
        }
}

static double keys[LAYERS][TOKENS][KV * DIM], values[LAYERS][TOKENS][KV * DIM];

/* What a query sees: everything before it, the last `window` positions, or its chunk of them. */
static size_t window;
static bool chunked;

static void attend_token(double *out, const double *q, size_t layer, size_t pos)
{
    size_t from = !window ? 0 : chunked ? pos / window * window : pos + 1 > window ? pos + 1 - window : 0;
    for (size_t h = 0; h < HEADS; h++) {
        double score[TOKENS], top = -1e300, sum = 0;
        size_t shared = h / (HEADS / KV) * DIM;
        for (size_t t = from; t <= pos; t++) {
            score[t] = 0;
            for (size_t i = 0; i < DIM; i++)
                score[t] += q[h * DIM + i] * keys[layer][t][shared + i] / sqrt(DIM);
            top = fmax(top, score[t]);
        }
        for (size_t t = from; t <= pos; t++)
            sum += score[t] = exp(score[t] - top);
        for (size_t i = 0; i < DIM; i++) {
            out[h * DIM + i] = 0;
            for (size_t t = from; t <= pos; t++)
                out[h * DIM + i] += score[t] / sum * values[layer][t][shared + i];
        }
    }
}

static void attention(double *x, const double *h, int layer, size_t pos, bool qwen)
{
    double q[HEADS * DIM], out[HEADS * DIM], y[WIDTH], *k = keys[layer][pos], *v = values[layer][pos];
    multiply(q, weights(layer, "attn_q.weight"), h, WIDTH, HEADS * DIM);
    multiply(k, weights(layer, "attn_k.weight"), h, WIDTH, KV * DIM);
    multiply(v, weights(layer, "attn_v.weight"), h, WIDTH, KV * DIM);
    if (qwen) {
        add_vector(q, weights(layer, "attn_q.bias"), HEADS * DIM);
        add_vector(k, weights(layer, "attn_k.bias"), KV * DIM);
        add_vector(v, weights(layer, "attn_v.bias"), KV * DIM);
    }
    rotate(q, HEADS, pos, qwen);
    rotate(k, KV, pos, qwen);
    attend_token(out, q, (size_t)layer, pos);
    multiply(y, weights(layer, "attn_output.weight"), out, HEADS * DIM, WIDTH);
    for (size_t i = 0; i < WIDTH; i++)
        x[i] += y[i];
}

/* x += factor * down(silu(gate h) * up h) */
static void gated(double *x, const double *h, const float *gate, const float *up, const float *down, size_t ff, double factor)
{
    double a[FF], b[FF], y[WIDTH];
    multiply(a, gate, h, WIDTH, ff);
    multiply(b, up, h, WIDTH, ff);
    for (size_t i = 0; i < ff; i++)
        a[i] = a[i] * sigmoid(a[i]) * b[i];
    multiply(y, down, a, ff, WIDTH);
    for (size_t i = 0; i < WIDTH; i++)
        x[i] += factor * y[i];
}

/* Softmax over all, the two best with their own weights; a shared expert behind a sigmoid. */
static void mixture(double *x, const double *h, int layer)
{
    double p[EXPERTS], sum = 0, gate;
    const size_t size = WIDTH * EXPERT_FF;
    multiply(p, weights(layer, "ffn_gate_inp.weight"), h, WIDTH, EXPERTS);
    for (size_t e = 0; e < EXPERTS; e++)
        sum += p[e] = exp(p[e]);
    multiply(&gate, weights(layer, "ffn_gate_inp_shexp.weight"), h, WIDTH, 1);
    for (size_t used = 0; used < USED; used++) {
        size_t best = 0;
        for (size_t e = 1; e < EXPERTS; e++)
            best = p[e] > p[best] ? e : best;
        gated(x, h, weights(layer, "ffn_gate_exps.weight") + best * size, weights(layer, "ffn_up_exps.weight") + best * size,
              weights(layer, "ffn_down_exps.weight") + best * size, EXPERT_FF, p[best] / sum);
        p[best] = -1;
    }
    gated(x, h, weights(layer, "ffn_gate_shexp.weight"), weights(layer, "ffn_up_shexp.weight"),
          weights(layer, "ffn_down_shexp.weight"), EXPERT_FF, sigmoid(gate));
}

static double inputs[LAYERS][TOKENS + TAPS][INNER], states[LAYERS][INNER][STATE];

static void state_space(double *x, const double *h, int layer, size_t pos)
{
    double xz[2 * INNER], u[INNER], dbc[RANK + 2 * STATE], dt[INNER], y[INNER], out[WIDTH];
    const float *conv = weights(layer, "ssm_conv1d.weight"), *a = weights(layer, "ssm_a"), *d = weights(layer, "ssm_d");
    multiply(xz, weights(layer, "ssm_in.weight"), h, WIDTH, 2 * INNER);
    for (size_t i = 0; i < INNER; i++) {
        inputs[layer][pos + TAPS - 1][i] = xz[i];
        u[i] = weights(layer, "ssm_conv1d.bias")[i];
        for (size_t j = 0; j < TAPS; j++)
            u[i] += conv[i * TAPS + j] * inputs[layer][pos + j][i];
        u[i] *= sigmoid(u[i]);
    }
    multiply(dbc, weights(layer, "ssm_x.weight"), u, INNER, RANK + 2 * STATE);
    multiply(dt, weights(layer, "ssm_dt.weight"), dbc, RANK, INNER);
    add_vector(dt, weights(layer, "ssm_dt.bias"), INNER);
    for (size_t i = 0; i < INNER; i++) {
        double step = log1p(exp(dt[i]));
        y[i] = d[i] * u[i];
        for (size_t n = 0; n < STATE; n++) {
            double *s = &states[layer][i][n];
            *s = *s * exp(step * a[i * STATE + n]) + step * u[i] * dbc[RANK + n];
            y[i] += *s * dbc[RANK + STATE + n];
        }
        y[i] *= xz[INNER + i] * sigmoid(xz[INNER + i]);
    }
    multiply(out, weights(layer, "ssm_out.weight"), y, INNER, WIDTH);
    for (size_t i = 0; i < WIDTH; i++)
        x[i] += out[i];
}

static void reference(double *logits, enum tiny_kind kind, int32_t token, size_t pos)
{
    double x[WIDTH], h[WIDTH];
    for (size_t i = 0; i < WIDTH; i++)
        x[i] = weights(-1, "token_embd.weight")[(size_t)token * WIDTH + i];
    for (int layer = 0; layer < LAYERS; layer++) {
        rms(h, x, weights(layer, "attn_norm.weight"), WIDTH);
        if (kind == TINY_MAMBA) {
            state_space(x, h, layer, pos);
            continue;
        }
        attention(x, h, layer, pos, kind == TINY_EXPERTS);
        rms(h, x, weights(layer, "ffn_norm.weight"), WIDTH);
        if (kind == TINY_EXPERTS)
            mixture(x, h, layer);
        else
            gated(x, h, weights(layer, "ffn_gate.weight"), weights(layer, "ffn_up.weight"),
                  weights(layer, "ffn_down.weight"), FF, 1);
    }
    rms(h, x, weights(-1, "output_norm.weight"), WIDTH);
    multiply(logits, weights(-1, "output.weight"), h, WIDTH, TINY_VOCAB);
}

static void check(enum tiny_kind kind, size_t tokens_n, size_t size, bool chunks)
{
    static struct tiny tiny;
    static double expected[TINY_VOCAB];
    static float got[TOKENS * TINY_VOCAB];
    struct quern_error err = { 0 };
    struct quern_session_options options = { .context = TOKENS, .kv = QUERN_KV_F32 };
    uint64_t seed = 29;
    int32_t tokens[TOKENS];
    double most = 0, scale = 0;
    window = size;
    chunked = chunks;
    memset(inputs, 0, sizeof inputs);
    memset(states, 0, sizeof states);
    tiny_model(&tiny, kind);
    tiny_save(&tiny, temp_path("reference.gguf"));
    struct quern_model *model = quern_open_model(temp_path("reference.gguf"), NULL, &err);
    struct quern_session *s = model ? quern_open_session(model, &options, &err) : NULL;
    for (size_t t = 0; t < TOKENS; t++)
        tokens[t] = (int32_t)(random_u64(&seed) % TINY_VOCAB);
    for (size_t i = 0; s && i < LAYERS; i++)
        model->model.layer[i].window = size;
    if (s)
        model->model.hyper.chunked = chunks;
    bool ok = s && session_score(s, tokens, tokens_n, tokens_n, got, &err);
    CHECK(ok, "%s", err.text);
    file = model ? &model->gguf : NULL;
    for (size_t t = 0; ok && t < tokens_n; t++) {
        reference(expected, kind, tokens[t], t);
        for (size_t i = 0; i < TINY_VOCAB; i++) {
            double difference = fabs(expected[i] - got[t * TINY_VOCAB + i]), logit = fabs(expected[i]);
            most = difference > most ? difference : most;     /* two fmax here end GCC 12 for Arm in an internal error */
            scale = logit > scale ? logit : scale;
        }
    }
    CHECK(most < 1e-4 && scale > 1, "%s, window %zu: greatest difference %g, greatest logit %g", tiny.arch, size, most, scale);
    if (getenv("QUERN_TEST_VERBOSE"))
        printf("%s, window %zu: greatest difference %.1e, greatest logit %.1f\n", tiny.arch, size, most, scale);
    quern_close_session(s);
    quern_close_model(model);
    unlink(temp_path("reference.gguf"));
}

static void test_llama(void) { check(TINY_LLAMA, TOKENS, 0, false); }
static void test_small_window(void) { check(TINY_LLAMA, 300, 40, false); }
static void test_large_window(void) { check(TINY_LLAMA, TOKENS, 300, false); }
static void test_chunks(void) { check(TINY_LLAMA, TOKENS, 200, true); }
static void test_experts(void) { check(TINY_EXPERTS, 100, 0, false); }
static void test_mamba(void) { check(TINY_MAMBA, 100, 0, false); }

int main(void)
{
    TEST(test_llama);
    TEST(test_small_window);
    TEST(test_large_window);
    TEST(test_chunks);
    TEST(test_experts);
    TEST(test_mamba);
    return test_end();
}
