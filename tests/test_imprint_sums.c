/* Calibration's file against the same sums made the plain way, in double precision and a token at a time: weights of tokens,
 * guides, second moments, held-out rows and squared gradients, of small random models in which both limits are met. */
#include "backward.h"
#include "calibration.h"
#include "hessian.h"
#include "imprint.h"
#include "stats.h"
#include "test.h"
#include "tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sequences of 16 tokens. 320 of them are five calls of 64, of which the last is held out: 1024 tokens, one more than are kept
 * without leaving out every other. 600 are ten calls, the last of 24 sequences, and two of the ten are held out. */
enum { LENGTH = 16, FIVE_CALLS = 320, TEN_CALLS = 600, PER_CALL = 64, MOST = PER_CALL * LENGTH, HELD_EVERY = 2, MAPS = 32 };

/* Of FORMAT.md: a square counts up to so many times the median, a guide up to so many times the mean. */
static const double MASSIVE = 16, GUIDE_MOST = 16;

/* A tensor of the model and its sums, in the order in which the file lists them. */
struct plain {
    size_t tensor, cols, rows, experts, per_token, guide;     /* guide: the first of its guides of a token */
    struct gguf_string name, input;
    double *guides;                             /* [per_token][tokens of the call] mean squared gradient        */
    double *h[STATS_PARTS], *hg[STATS_PARTS];   /* [experts][cols][cols] sums over tokens, lower triangles      */
    double *tokens[STATS_PARTS], *gradient;     /* [experts], [experts][rows]                                   */
};

struct sums {
    struct quern_model *model;
    struct pool        *pool;
    struct stats        stats;
    struct backward     b;
    struct calibration  text;
    struct plain        map[MAPS];
    size_t maps, calls, sequences, guides;
    size_t call, call_tokens, held_before;      /* at hand; held-out tokens of the calls before it */
    size_t massive, guided_most;                /* how often the limits were met                   */
    double head, head_variance;                 /* squared gradients at the head that its probabilities let expect */
};

static bool call_is_held(const struct sums *s)
{
    return s->call % 5 == 4;
}

/* ---- weights of tokens ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The token of row i. */
static size_t token_of(const struct plain *p, const uint32_t *slots, size_t i)
{
    return slots ? slots[i] / p->per_token : i;
}

static void weigh(struct sums *s, const struct plain *p, const uint32_t *slots, const float *x, size_t n, double *weight)
{
    static double sorted[2 * MOST];
    for (size_t i = 0; i < n; i++) {
        weight[i] = 0;
        for (size_t c = 0; c < p->cols; c++)
            weight[i] += pow(x[i * dense_stride(p->cols) + c], 2);
        sorted[i] = weight[i];
    }
    qsort(sorted, n, sizeof *sorted, by_value);
    double most = MASSIVE * sorted[n / 2];
    for (size_t i = 0; i < n; i++) {
        s->massive += weight[i] > most;
        weight[i] = token_of(p, slots, i) % LENGTH == 0 ? 0 : fmin(1, most / weight[i]);
    }
}

static struct plain *map_of(struct sums *s, size_t id)
{
    size_t tensor = backward_matrix(&s->model->model, id)->tensor;
    for (size_t k = 0; k < s->maps; k++)
        if (s->map[k].tensor == tensor)
            return &s->map[k];
    CHECK(false, "linear map %zu is not in the file", id);
    return NULL;
}

/* ---- the way back: guides and gradients ---- */

static void on_expert_back(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    static double weight[2 * MOST];
    struct sums *s = arg;
    struct plain *p = map_of(s, id);
    const struct matrix *w = backward_matrix(&s->model->model, id);
    if (!p || !dy)
        return;
    weigh(s, p, slots, x, n, weight);
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < w->rows; r++) {
            double g = pow(dy[i * dense_stride(w->rows) + r], 2);
            p->guides[slots ? slots[i] : i] += g / (double)p->rows;
            p->gradient[expert * p->rows + w->first_row + r] += call_is_held(s) ? 0 : weight[i] * g;
        }
}

static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    on_expert_back(arg, id, 0, NULL, x, dy, n);
}

/* A label drawn by the seed's rule, and the gradient of -log p(label) by the logits. In floats as there: a label that is chosen
 * by the last bit must be the same one. */
static void draw_labels(const struct sums *s, const float *logits, float *gradient)
{
    size_t vocab = s->model->model.hyper.vocab, stride = dense_stride(vocab);
    for (size_t t = 0; t < s->call_tokens; t++) {
        const float *x = logits + t * stride;
        float *p = gradient + t * stride, top = x[0];
        uint64_t seed = 0x9e3779b97f4a7c15u ^ (uint64_t)(s->call * MOST + t) << 20;
        double sum = 0, at = (double)(random_u64(&seed) >> 11) * 0x1p-53;
        size_t label = 0;
        for (size_t v = 1; v < vocab; v++)
            top = fmaxf(top, x[v]);
        for (size_t v = 0; v < vocab; v++)
            sum += p[v] = expf(x[v] - top);
        for (at *= sum; label + 1 < vocab && at >= p[label]; label++)
            at -= p[label];
        for (size_t v = 0; v < vocab; v++)
            p[v] = t % LENGTH ? (float)(p[v] / sum) - (v == label) : 0;
    }
}

/* What drawn labels give in the mean: label l makes the sum over outputs v of (p_v - [v = l])^2 slope_v^2, the slope that of the
 * cap. It knows nothing of how labels are drawn, only how often each should be. */
static void expect_head(struct sums *s, const float *logits)
{
    const struct hyper *h = &s->model->model.hyper;
    for (size_t t = 0; t < s->call_tokens; t++) {
        const float *x = logits + t * dense_stride(h->vocab);
        double sum = 0, all = 0, mean = 0, square = 0;
        if (t % LENGTH == 0 || call_is_held(s))
            continue;
        for (size_t v = 0; v < h->vocab; v++)
            sum += exp(x[v]);
        for (int pass = 0; pass < 2; pass++)
            for (size_t v = 0; v < h->vocab; v++) {
                double slope = h->logit_softcap != 0 ? 1 - pow(x[v] / h->logit_softcap, 2) : 1, p = exp(x[v]) / sum;
                double label = all + (1 - 2 * p) * slope * slope;
                all += pass ? 0 : pow(p * slope, 2);
                mean += pass ? p * label : 0, square += pass ? p * label * label : 0;
            }
        s->head += mean, s->head_variance += square - mean * mean;
    }
}

static void check_head(struct sums *s)
{
    const struct plain *p = map_of(s, s->model->model.hyper.layers * LINEAR_KINDS);
    double got = 0;
    for (size_t r = 0; p && r < p->rows; r++)
        got += p->gradient[r];
    CHECK(fabs(got - s->head) < 4 * sqrt(s->head_variance), "squared gradients of the head %g, expected %g +- %g", got, s->head,
          sqrt(s->head_variance));
}

/* ---- the way forth: second moments ---- */

static void add_square(double *h, double weight, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            h[i * n + j] += weight * x[i] * x[j];
}

/* The held-out row of the file is the token's own input. */
static void check_held_row(struct sums *s, const struct plain *p, size_t row, const float *x)
{
    char name[100];
    snprintf(name, sizeof name, "%.*s.x_held", (int)p->input.n, p->input.text);
    const struct gguf_tensor *t = gguf_find_tensor(&s->stats.file, name);
    CHECK(t && t->shape[0] == p->cols && row < t->shape[1] &&
          !memcmp(t->data + row * p->cols * sizeof *x, x, p->cols * sizeof *x), "%s: row %zu", name, row);
}

static void on_expert(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    static double weight[2 * MOST];
    struct sums *s = arg;
    struct plain *p = map_of(s, id);
    enum stats_part part = call_is_held(s) ? STATS_HELD : STATS_FIT;
    double mean = 0;
    /* Parts of a fused tensor have one input, which counts once. */
    if (dy || !p || backward_matrix(&s->model->model, id)->first_row)
        return;
    weigh(s, p, slots, x, n, weight);
    for (size_t i = 0; i < n; i++)
        mean += p->guides[slots ? slots[i] : i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        size_t slot = slots ? slots[i] : i, token = s->held_before + token_of(p, slots, i), at = expert * p->cols * p->cols;
        const float *row = x + i * dense_stride(p->cols);
        if (part == STATS_HELD && token % HELD_EVERY)
            continue;
        if (part == STATS_HELD)
            check_held_row(s, p, token / HELD_EVERY * p->per_token + slot % p->per_token, row);
        s->guided_most += p->guides[slot] > GUIDE_MOST * mean;
        p->tokens[part][expert] += weight[i] > 0;
        add_square(p->h[part] + at, weight[i], row, p->cols);
        add_square(p->hg[part] + at, weight[i] * fmin(p->guides[slot], GUIDE_MOST * mean), row, p->cols);
    }
}

static void on_input(void *arg, size_t id, const float *x, size_t n)
{
    on_expert(arg, id, 0, NULL, x, NULL, n);
}

/* ---- the file against them ---- */

/* f32 against f64, as a share of the largest. */
static double off(const float *a, const double *b, size_t n, double scale)
{
    double most = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(a[i] - b[i] / scale));
        size = fmax(size, fabs(b[i] / scale));
    }
    return most / (size + 1e-30);
}

/* Guides stand matrix after matrix, in the order of the file's list. */
static void check_guides(struct sums *s)
{
    char name[40];
    snprintf(name, sizeof name, "call.%zu.guides", s->call);
    const struct gguf_tensor *t = gguf_find_tensor(&s->stats.file, name);
    CHECK(t && t->shape[0] == s->call_tokens && t->shape[1] == s->guides, "%s", name);
    for (size_t k = 0; t && k < s->maps; k++) {
        const struct plain *p = &s->map[k];
        size_t n = p->per_token * s->call_tokens;
        double wrong = off((const float *)(const void *)t->data + p->guide * s->call_tokens, p->guides, n, 1);
        CHECK(wrong < 1e-5, "%s of %.*s: off by %g of the largest", name, (int)p->name.n, p->name.text, wrong);
    }
}

static void check_moments(struct sums *s, const struct plain *p, size_t expert, enum stats_part part, bool guided)
{
    size_t n = p->cols;
    double tokens = p->tokens[part][expert], *sum = (guided ? p->hg : p->h)[part] + expert * n * n;
    float *h = malloc(n * n * sizeof *h);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            sum[j * n + i] = sum[i * n + j];
    bool there = stats_hessian(&s->stats, p->name, expert, part, guided, h, n);
    double wrong = there && tokens > 0 ? off(h, sum, n * n, tokens) : 1;
    CHECK(there && wrong < 1e-5, "%.*s, expert %zu, part %d%s: moments off by %g of the largest", (int)p->name.n, p->name.text,
          expert, part, guided ? ", guided" : "", wrong);
    if (part == STATS_FIT) {
        float *d = malloc(n * sizeof *d);
        CHECK(stats_diagonal(&s->stats, p->name, expert, guided, d, n), "a diagonal");
        for (size_t i = 0; i < n; i++)
            CHECK(d[i] == h[i * n + i], "diagonal %zu", i);
        free(d);
    }
    CHECK(!stats_hessian(&s->stats, p->name, p->experts, part, guided, h, n) &&
          !stats_hessian(&s->stats, p->name, expert, part, guided, h, n - 1), "no such expert, no such width");
    free(h);
}

static void check_map(struct sums *s, const struct plain *p)
{
    float *g = malloc(p->rows * sizeof *g);
    CHECK(stats_experts(&s->stats, p->name) == p->experts, "%.*s: experts", (int)p->name.n, p->name.text);
    for (size_t e = 0; e < p->experts; e++) {
        for (int part = 0; part < STATS_PARTS; part++) {
            double tokens = stats_tokens(&s->stats, p->name, e, (enum stats_part)part);
            CHECK(tokens == p->tokens[part][e], "%.*s, expert %zu, part %d: %g tokens, %g", (int)p->name.n, p->name.text, e, part,
                  tokens, p->tokens[part][e]);
            check_moments(s, p, e, (enum stats_part)part, false);
            check_moments(s, p, e, (enum stats_part)part, true);
        }
        CHECK(stats_gradient(&s->stats, p->name, e, g, p->rows), "%.*s: gradients", (int)p->name.n, p->name.text);
        double wrong = off(g, p->gradient + e * p->rows, p->rows, p->tokens[STATS_FIT][e]);
        CHECK(wrong < 1e-5, "%.*s, expert %zu: gradients off by %g of the largest", (int)p->name.n, p->name.text, e, wrong);
    }
    CHECK(!stats_gradient(&s->stats, p->name, 0, g, p->rows - 1) &&
          !stats_gradient(&s->stats, p->name, p->experts, g, p->rows), "no such rows, no such expert");
    free(g);
}

/* ---- one model ---- */

static void open_maps(struct sums *s)
{
    size_t names = 0, inputs = 0;
    const struct model *m = &s->model->model;
    for (size_t k = 0; k < s->stats.maps->as.array.n && k < MAPS; k++) {
        struct plain *p = &s->map[s->maps++];
        p->name = gguf_array_string(s->stats.maps, &names), p->input = gguf_array_string(s->stats.inputs, &inputs);
        for (p->tensor = 0; p->tensor < s->model->gguf.tensor_count; p->tensor++) {
            struct gguf_string name = s->model->gguf.tensors[p->tensor].name;
            if (name.n == p->name.n && !memcmp(name.text, p->name.text, name.n))
                break;
        }
        CHECK(p->tensor < s->model->gguf.tensor_count, "%.*s is in the model", (int)p->name.n, p->name.text);
        const struct gguf_tensor *t = &s->model->gguf.tensors[p->tensor];
        bool stack = t->shape[2] > 1;
        p->cols = t->shape[0], p->rows = t->shape[1], p->experts = t->shape[2];
        p->per_token = stack ? m->hyper.experts_used : 1;
        p->guide = s->guides, s->guides += p->per_token;
        p->guides = malloc(p->per_token * MOST * sizeof *p->guides);
        p->gradient = calloc(p->experts * p->rows, sizeof *p->gradient);
        for (int part = 0; part < STATS_PARTS; part++) {
            p->h[part] = calloc(p->experts * p->cols * p->cols, sizeof *p->h[part]);
            p->hg[part] = calloc(p->experts * p->cols * p->cols, sizeof *p->hg[part]);
            p->tokens[part] = calloc(p->experts, sizeof *p->tokens[part]);
        }
    }
}

static bool open_sums(struct sums *s, const struct tiny *t, size_t sequences)
{
    struct quern_error err;
    struct quern_model_options how = { .threads = 1 };
    char path[300];
    snprintf(path, sizeof path, "%s", temp_path("sums.stats"));
    *s = (struct sums){ .sequences = sequences, .calls = (sequences + PER_CALL - 1) / PER_CALL };
    tiny_save(t, temp_path("sums.gguf"));
    s->model = quern_open_model(temp_path("sums.gguf"), &how, &err);
    s->pool = s->model ? pool_open(2, &err) : NULL;
    struct imprint_options o = { .context = LENGTH, .tokens = sequences * LENGTH, .fisher = true, .force = true, .pool = s->pool };
    bool ok = s->pool && imprint_write(s->model, path, &o, &err) &&
              stats_open(&s->stats, path, &s->model->gguf, &s->model->kernels, s->pool, &err) &&
              calibration_open(&s->text, NULL, CALIBRATION_FIT, s->model, LENGTH, &err) &&
              backward_init(&s->b, &s->model->model, &s->model->kernels, s->pool, MOST, LENGTH, &err);
    CHECK(ok, "%s", err.text);
    CHECK(!ok || s->stats.calls == s->calls, "%zu calls, %zu expected", s->stats.calls, s->calls);
    return ok && s->stats.calls == s->calls;
}

static void close_sums(struct sums *s)
{
    for (size_t k = 0; k < s->maps; k++) {
        struct plain *p = &s->map[k];
        free(p->guides), free(p->gradient);
        for (int part = 0; part < STATS_PARTS; part++)
            free(p->h[part]), free(p->hg[part]), free(p->tokens[part]);
    }
    backward_free(&s->b);
    calibration_close(&s->text);
    stats_close(&s->stats);
    pool_close(s->pool);
    quern_close_model(s->model);
}

static void add_call(struct sums *s, size_t call, float *logits, float *gradient)
{
    struct backward_hooks back = { .arg = s, .linear = on_linear, .expert = on_expert_back };
    struct backward_hooks forth = { .arg = s, .input = on_input, .expert = on_expert };
    size_t left = s->sequences - call * PER_CALL, sequences = left < PER_CALL ? left : PER_CALL;
    const int32_t *tokens = s->text.tokens + call * MOST;
    s->call = call, s->call_tokens = sequences * LENGTH;
    for (size_t k = 0; k < s->maps; k++)
        memset(s->map[k].guides, 0, s->map[k].per_token * s->call_tokens * sizeof *s->map[k].guides);
    backward_forward(&s->b, tokens, sequences, LENGTH, logits, NULL);
    expect_head(s, logits);
    draw_labels(s, logits, gradient);
    backward_run(&s->b, logits, gradient, &back);
    check_guides(s);
    backward_forward(&s->b, tokens, sequences, LENGTH, logits, &forth);
    s->held_before += call_is_held(s) ? s->call_tokens : 0;
}

static void check_sums(const struct tiny *t, size_t sequences)
{
    static struct sums s;
    if (!open_sums(&s, t, sequences))
        return;
    size_t row = dense_stride(s.model->model.hyper.vocab);
    float *logits = aligned_alloc(64, MOST * row * sizeof *logits), *gradient = aligned_alloc(64, MOST * row * sizeof *gradient);
    memset(gradient, 0, MOST * row * sizeof *gradient);
    open_maps(&s);
    for (size_t c = 0; c < s.calls; c++)
        add_call(&s, c, logits, gradient);
    for (size_t k = 0; k < s.maps; k++)
        check_map(&s, &s.map[k]);
    check_head(&s);
    /* Else nothing is said of the limits. */
    CHECK(s.massive > 50 && s.guided_most > 50, "%zu massive inputs, %zu guides above the limit", s.massive, s.guided_most);
    free(logits), free(gradient);
    close_sums(&s);
}

/* Rows of gate and up that have a mean in common make the input of `down` massive where the sum of the inputs is large and
 * positive: about every third token. A head of large weights is sure of most labels, so that few tokens have nearly all of the
 * gradient. */
static void make_uneven(struct tiny *t, const char *gate, const char *up, const char *head)
{
    tiny_find(t, gate)->mean = tiny_find(t, up)->mean = 0.3f;
    tiny_find(t, head)->spread = 3;
}

/* One layer's queries, keys and values fused in one tensor. */
static void a_dense_model(void)
{
    struct tiny t;
    tiny_model(&t, TINY_LLAMA);
    uint64_t rows = 0;
    const char *const parts[] = { "blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_v.weight" };
    for (size_t i = 0; i < 3; i++) {
        rows += tiny_find(&t, parts[i])->shape[1];
        tiny_drop_tensor(&t, parts[i]);
    }
    tiny_add(&t, "blk.1.attn_qkv.weight", tiny_find(&t, "blk.0.attn_q.weight")->shape[0], rows, 1, 0, 0.25f);
    make_uneven(&t, "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "output.weight");
    check_sums(&t, TEN_CALLS);
}

static void a_mixture_of_experts(void)
{
    struct tiny t;
    tiny_model(&t, TINY_EXPERTS);
    make_uneven(&t, "blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight", "output.weight");
    check_sums(&t, FIVE_CALLS);
}

/* gemma3: the head is the embedding's tensor; its logits are capped here. */
static void capped_logits(void)
{
    struct tiny t;
    tiny_model(&t, TINY_WINDOWS);
    tiny_number(&t, "final_logit_softcapping", GGUF_F32, 12);
    make_uneven(&t, "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "token_embd.weight");
    check_sums(&t, FIVE_CALLS);
}

int main(void)
{
    TEST(a_dense_model);
    TEST(a_mixture_of_experts);
    TEST(capped_logits);
    return test_end();
}
