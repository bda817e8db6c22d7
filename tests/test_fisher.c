/* Is what the backward pass gives the Fisher information? Small random noise d on a matrix must move the model's distribution by
 * KL = 1/2 dT F d, and dT F d is the mean of (g . d)^2 over labels drawn from the model, g the gradient of the summed loss of a
 * sequence. Labels of the data, a mean in place of the sum, or a gradient that misses a path would all be found here.
 *
 * The same d is used on both sides. With the trace of F in the place of dT F d the first layer's matrices gave ratios of 0.74 to
 * 1.31: a few directions carry most of their F, so a random d meets now more, now less of them, and the trace tells only what all
 * d give in the mean. What is left is the noise of the labels: (g . d)^2 is the square of a nearly normal number, so its mean over
 * LABELS draws, SEQUENCES sequences and DRAWS directions strays by about sqrt(2 / (LABELS * SEQUENCES * DRAWS)), 4 %. Many short
 * sequences are better than few long ones for that. */
#include "backward.h"
#include "calibration.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 32, SEQUENCES = 24, TOKENS = LENGTH * SEQUENCES, LABELS = 64, DRAWS = 2 };
/* Noise of a thousandth of the weights' size, or less: so much that a token's KL is SMALL nats. A thousandth of the first layer's
 * queries, keys and values moves KL by 4e-6 nats, where it is no parabola any more (ratio 0.4 to 0.65, and 0.73 for the last
 * layer's queries); much less than SMALL drowns in the rounding of f32 logits. */
static const double NOISE = 0.001, SMALL = 3e-9;

struct fisher {
    struct quern_model *model;
    struct pool    *pool;
    struct backward b;
    struct calibration text;
    size_t  stride, vocab;           /* of logits */
    float  *source, *chance;         /* [TOKENS][stride] logits and probabilities of the source */
    float  *logits;                  /* [TOKENS][stride] gradients of losses, then logits of changed models */
    float **weights;                 /* [linears] decoded */
    float **moved;                   /* [linears] [DRAWS][TOKENS][stride of rows]: noise times inputs */
    double (*square)[DRAWS];         /* [linears] (g . d)^2 summed over sequences, mean over labels */
    float  *head_input;              /* [TOKENS][stride of width] */
};

static size_t padded(const struct matrix *w)
{
    return dense_stride(w->cols);
}

static float *floats(size_t n)
{
    float *x = aligned_alloc(64, n * sizeof *x);
    memset(x, 0, n * sizeof *x);
    return x;
}

/* Noise number `draw` for a matrix, the same whenever it is asked for. out: [rows][padded cols]. */
static void make_noise(const struct fisher *f, size_t id, size_t draw, float *out)
{
    const struct matrix *w = backward_matrix(&f->model->model, id);
    size_t n = w->rows * padded(w);
    uint64_t seed = 1000 * id + draw;
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)f->weights[id][i] * f->weights[id][i];
    float edge = (float)(NOISE * sqrt(3 * square / (double)(w->rows * w->cols)));
    for (size_t i = 0; i < n; i++)
        out[i] = i % padded(w) < w->cols ? random_float(&seed, -edge, edge) : 0;
}

/* The way forth: noise times what each matrix is multiplied with. */
static void on_input(void *arg, size_t id, const float *x, size_t n)
{
    struct fisher *f = arg;
    const struct matrix *w = backward_matrix(&f->model->model, id);
    size_t rows = dense_stride(w->rows);
    float *noise = floats(w->rows * padded(w));
    f->moved[id] = floats(DRAWS * TOKENS * rows);
    for (size_t draw = 0; draw < DRAWS; draw++) {
        make_noise(f, id, draw, noise);
        dense_product(&f->b.dense, f->moved[id] + draw * TOKENS * rows, rows, noise, padded(w), w->rows, x, padded(w), w->cols, n);
    }
    free(noise);
}

/* The way back: g . d of each sequence is the sum over its tokens of dy . (d x). */
static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    struct fisher *f = arg;
    size_t rows = backward_matrix(&f->model->model, id)->rows, stride = dense_stride(rows);
    (void)x, (void)n;
    for (size_t draw = 0; draw < DRAWS; draw++)
        for (size_t s = 0; s < SEQUENCES; s++) {
            double along = 0;
            for (size_t t = s * LENGTH; t < (s + 1) * LENGTH; t++) {
                const float *moved = f->moved[id] + (draw * TOKENS + t) * stride;
                for (size_t r = 0; r < rows; r++)
                    along += (double)dy[t * stride + r] * moved[r];
            }
            f->square[id][draw] += along * along / LABELS;
        }
}

/* Gradient of -log p(label) by a token's logits, the label drawn from p; draw `k` of LABELS from its own part of p, the parts in
 * another order for each token. Nearly all of the last queries' KL is a single token's: labels drawn from all of p gave 0.73. */
static void draw_label(float *out, const float *p, size_t vocab, size_t k, size_t turn, uint64_t *seed)
{
    double aim = ((double)((k + turn) % LABELS) + random_float(seed, 0, 1)) / LABELS, at = p[0];
    size_t label = 0;
    while (label + 1 < vocab && at <= aim)
        at += p[++label];
    memcpy(out, p, vocab * sizeof *out);
    out[label] -= 1;
}

static void soften(float *p, const float *x, size_t n)
{
    double sum = 0;
    for (size_t v = 0; v < n; v++)
        sum += exp(x[v]);
    for (size_t v = 0; v < n; v++)
        p[v] = (float)(exp(x[v]) / sum);
}

/* KL(p || q) of logits that differ by little: with x the difference less its mean under p it is log(1 + sum p (e^x - 1 - x)),
 * where nothing cancels. */
static double row_kl(const float *p, const float *source, const float *changed, size_t n)
{
    double mean = 0, sum = 0, all = 0;
    for (size_t v = 0; v < n; v++)
        mean += p[v] * ((double)changed[v] - source[v]), all += p[v];
    for (size_t v = 0; v < n; v++) {
        double x = (double)changed[v] - source[v] - mean / all;
        sum += p[v] / all * (fabs(x) < 0.02 ? x * x * (0.5 + x * (1.0 / 6 + x / 24)) : expm1(x) - x);
    }
    return log1p(sum);
}

static void on_head_input(void *arg, size_t id, const float *x, size_t n)
{
    struct fisher *f = arg;
    if (id + 1 == f->b.linears)
        memcpy(f->head_input, x, n * dense_stride(f->model->model.hyper.width) * sizeof *x);
}

/* KL of the model with `changed` in the place of matrix `id`, summed over tokens. x: the source's residuals before the layer. */
static double measure(struct fisher *f, size_t id, const float *changed, float *x)
{
    const struct hyper *h = &f->model->model.hyper;
    struct backward_hooks hooks = { .arg = f, .input = on_head_input };
    size_t width = dense_stride(h->width), head = f->b.linears - 1;
    double kl = 0;
    f->b.weights[id] = changed;
    for (size_t l = id / LINEAR_KINDS; l < h->layers; l++)
        backward_layer(&f->b, l, x, SEQUENCES, LENGTH, NULL);
    backward_last(&f->b, x, SEQUENCES, LENGTH, &hooks);
    dense_product(&f->b.dense, f->logits, f->stride, f->b.weights[head], width, h->vocab, f->head_input, width, h->width, TOKENS);
    f->b.weights[id] = f->weights[id];
    for (size_t t = 0; t < TOKENS; t++)
        kl += row_kl(f->chance + t * f->stride, f->source + t * f->stride, f->logits + t * f->stride, f->vocab);
    return kl;
}

static void check_map(struct fisher *f, size_t id, const float *before, double *worst)
{
    static const char *const kinds[LINEAR_KINDS] = { "q", "k", "v", "out", "gate", "up", "down" };
    const struct hyper *h = &f->model->model.hyper;
    const struct matrix *w = backward_matrix(&f->model->model, id);
    size_t n = w->rows * padded(w), residuals = TOKENS * dense_stride(h->width);
    const char *kind = id + 1 == f->b.linears ? "head" : kinds[id % LINEAR_KINDS];
    float *noisy = floats(n), *x = floats(residuals);
    double measured = 0, predicted = 0, size;
    for (size_t draw = 0; draw < DRAWS; draw++)
        predicted += f->square[id][draw] / 2 / DRAWS;
    size = sqrt(SMALL * TOKENS / predicted);
    size = size > 1 ? 1 : size;
    for (size_t draw = 0; draw < DRAWS; draw++) {
        make_noise(f, id, draw, noisy);
        for (size_t i = 0; i < n; i++)
            noisy[i] = f->weights[id][i] + (float)size * noisy[i];
        memcpy(x, before, residuals * sizeof *x);
        measured += measure(f, id, noisy, x) / DRAWS;
    }
    predicted *= size * size;
    double ratio = predicted / measured;
    printf("layer %zu, %-4s: KL %.3g per token measured, ratio %.3f\n", id / LINEAR_KINDS, kind, measured / TOKENS, ratio);
    CHECK(fabs(ratio - 1) < 0.2, "layer %zu, %s: predicted %g, measured %g", id / LINEAR_KINDS, kind, predicted, measured);
    *worst = fabs(ratio - 1) > *worst ? fabs(ratio - 1) : *worst;
    free(noisy);
    free(x);
}

/* (g . d)^2 of all maps: one way forth, as many back as there are draws of labels. */
static void find_squares(struct fisher *f)
{
    struct backward_hooks forth = { .arg = f, .input = on_input }, back = { .arg = f, .linear = on_linear };
    uint64_t seed = 11;
    size_t turn[TOKENS];
    for (size_t t = 0; t < TOKENS; t++)
        turn[t] = random_u64(&seed) % LABELS;
    for (size_t id = 0; id < f->b.linears; id++) {
        const struct matrix *w = backward_matrix(&f->model->model, id);
        f->weights[id] = floats(w->rows * padded(w));
        backward_decode(&f->b, w, f->weights[id]);
        f->b.weights[id] = f->weights[id];
    }
    backward_forward(&f->b, f->text.tokens, SEQUENCES, LENGTH, f->source, &forth);
    for (size_t t = 0; t < TOKENS; t++)
        soften(f->chance + t * f->stride, f->source + t * f->stride, f->vocab);
    for (size_t k = 0; k < LABELS; k++) {
        for (size_t t = 0; t < TOKENS; t++)
            draw_label(f->logits + t * f->stride, f->chance + t * f->stride, f->vocab, k, turn[t], &seed);
        backward_run(&f->b, f->source, f->logits, &back);
    }
}

static bool open_all(struct fisher *f, struct quern_error *err)
{
    struct quern_model_options how = { .threads = 1 };
    f->model = quern_open_model(shared_path("models/tiny-books/tiny-books-BF16.gguf"), &how, err);
    f->pool = pool_open(2, err);
    if (!f->model || !f->pool || !calibration_open(&f->text, NULL, CALIBRATION_FIT, f->model, LENGTH, err) ||
        !backward_init(&f->b, &f->model->model, &f->model->kernels, f->pool, TOKENS, LENGTH, err))
        return false;
    f->vocab = f->model->model.hyper.vocab, f->stride = dense_stride(f->vocab);
    f->source = floats(TOKENS * f->stride), f->chance = floats(TOKENS * f->stride), f->logits = floats(TOKENS * f->stride);
    f->head_input = floats(TOKENS * dense_stride(f->model->model.hyper.width));
    f->weights = calloc(f->b.linears, sizeof *f->weights);
    f->moved = calloc(f->b.linears, sizeof *f->moved);
    f->square = calloc(f->b.linears, sizeof *f->square);
    return true;
}

static void close_all(struct fisher *f)
{
    for (size_t id = 0; id < f->b.linears; id++)
        free(f->weights[id]), free(f->moved[id]);
    free(f->weights), free(f->moved), free(f->square);
    free(f->source), free(f->chance), free(f->logits), free(f->head_input);
    backward_free(&f->b);
    calibration_close(&f->text);
    pool_close(f->pool);
    quern_close_model(f->model);
}

/* Every matrix of the model. */
static void predictions_are_measured(void)
{
    struct fisher f = { 0 };
    struct quern_error err;
    bool ok = open_all(&f, &err);
    CHECK(ok, "%s", err.text);
    if (!ok)
        return;
    const struct hyper *h = &f.model->model.hyper;
    size_t residuals = TOKENS * dense_stride(h->width);
    double worst = 0;
    find_squares(&f);
    /* The steps of the way forth may use what the way back has kept: copies. */
    float *before = floats((h->layers + 1) * residuals);
    for (size_t l = 0; l <= h->layers; l++)
        memcpy(before + l * residuals, f.b.kept[l], residuals * sizeof *before);
    for (size_t id = 0; id < f.b.linears; id++)
        check_map(&f, id, before + id / LINEAR_KINDS * residuals, &worst);
    printf("%zu matrices, the worst %.1f %% away\n", f.b.linears, 100 * worst);
    free(before);
    close_all(&f);
}

int main(void)
{
    if (!shared_path("models/tiny-books/tiny-books-BF16.gguf"))
        test_skip("predictions_are_measured", "shared/ is not here");
    else if (test_sanitized())
        test_skip("predictions_are_measured", "takes minutes under the sanitizers; test_backward runs the pass there");
    else
        TEST(predictions_are_measured);
    return test_end();
}
