/* Is what the backward pass gives the Fisher information? Small random noise d on a matrix must move the model's distribution by
 * KL = 1/2 dT F d. For independent noise of variance s^2 that is s^2 / 2 times the trace of F over the matrix: the squares of the
 * KL = 1/2 dT F d. For independent noise of variance s^2 that is s^2 / 2 times the trace of F over the matrix: the squares of the
 * Labels of the data, a mean in place of the sum, or squares token by token would all be found here. */
#include "backward.h"
#include "calibration.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 64, SEQUENCES = 40, DRAWS = 4, LABELS = 4, MAPS = 4 };

struct fisher {
    struct quern_model *model;
    struct pool    *pool;
    struct backward b;
    struct calibration text;
    size_t  stride, ids[MAPS];
    float  *logits, *dlogits, *source;      /* one sequence; source: all sequences */
    float  *gradient;                       /* of the matrix at hand, of one sequence */
    double  trace[MAPS], per_token[MAPS];   /* summed over sequences, mean over label draws */
};

static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    struct fisher *f = arg;
    size_t k = 0;
    while (k < MAPS && f->ids[k] != id)
        k++;
    if (k == MAPS)
        return;
    const struct matrix *w = backward_matrix(&f->model->model, id);
    size_t cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    memset(f->gradient, 0, w->rows * w->cols * sizeof *f->gradient);
    for (size_t t = 0; t < n; t++) {
        double g = 0, a = 0;
        for (size_t r = 0; r < w->rows; r++) {
            float d = dy[t * rows + r], *out = f->gradient + r * w->cols;
            for (size_t c = 0; c < w->cols; c++)
                out[c] += d * x[t * cols + c];
            g += (double)d * d;
        }
        for (size_t c = 0; c < w->cols; c++)
            a += (double)x[t * cols + c] * x[t * cols + c];
        f->per_token[k] += g * a / LABELS;
    }
    for (size_t i = 0; i < w->rows * w->cols; i++)
        f->trace[k] += (double)f->gradient[i] * f->gradient[i] / LABELS;
}

/* logits of one token -> gradient of -log p(label), the label drawn from p. */
static void draw(float *out, const float *x, size_t vocab, uint64_t *seed)
{
    double sum = 0, at = 0, aim = random_float(seed, 0, 1);
    size_t label = vocab - 1;
    for (size_t v = 0; v < vocab; v++)
        sum += exp(x[v]);
    for (size_t v = 0; v < vocab; v++) {
        double p = exp(x[v]) / sum;
        if (at <= aim && at + p > aim)
            label = v;
        at += p;
        out[v] = (float)p;
    }
    out[label] -= 1;
}

static double row_kl(const float *p, const float *q, size_t n)
{
    double a = 0, b = 0, kl = 0;
    for (size_t v = 0; v < n; v++)
        a += exp(p[v]), b += exp(q[v]);
    for (size_t v = 0; v < n; v++)
        kl += exp(p[v]) / a * ((p[v] - log(a)) - (q[v] - log(b)));
    return kl;
}

/* Traces of the Fisher matrix over all maps that are looked at. */
static void find_traces(struct fisher *f)
{
    size_t vocab = f->model->model.hyper.vocab, most = 0;
    struct backward_hooks hooks = { .arg = f, .linear = on_linear };
    uint64_t seed = 11;
    for (size_t k = 0; k < MAPS; k++) {
        const struct matrix *w = backward_matrix(&f->model->model, f->ids[k]);
        most = w->rows * w->cols > most ? w->rows * w->cols : most;
    }
    f->gradient = malloc(most * sizeof *f->gradient);
    for (size_t s = 0; s < SEQUENCES; s++)
        for (size_t k = 0; k < LABELS; k++) {
            backward_forward(&f->b, f->text.tokens + s * LENGTH, 1, LENGTH, f->logits, NULL);
            for (size_t t = 0; t < LENGTH; t++)
                draw(f->dlogits + t * f->stride, f->logits + t * f->stride, vocab, &seed);
            backward_run(&f->b, f->logits, f->dlogits, &hooks);
        }
    free(f->gradient);
}

static void check_map(struct fisher *f, size_t which)
{
    size_t id = f->ids[which];
    const struct matrix *w = backward_matrix(&f->model->model, id);
    size_t vocab = f->model->model.hyper.vocab, cols = dense_stride(w->cols), n = w->rows * cols;
    uint64_t seed = 11 + id;
    float *noisy = aligned_alloc(64, n * sizeof *noisy);
    double square = 0, kl = 0, variance = 0;
    backward_decode(&f->b, w, noisy);
    for (size_t i = 0; i < n; i++)
        square += (double)noisy[i] * noisy[i];
    /* A thousandth of the weights' size: with a hundredth the last queries' softmax is no longer a parabola (ratio 1.7). Several
     * draws, because a few tokens carry most of the divergence. */
    float edge = (float)(0.001 * sqrt(3 * square / (double)(w->rows * w->cols)));
    for (size_t k = 0; k < DRAWS; k++) {
        backward_decode(&f->b, w, noisy);
        for (size_t r = 0; r < w->rows; r++)
            for (size_t c = 0; c < w->cols; c++) {
                float before = noisy[r * cols + c];
                noisy[r * cols + c] += random_float(&seed, -edge, edge);
                variance += pow(noisy[r * cols + c] - before, 2) / (double)(w->rows * w->cols) / DRAWS;
            }
        f->b.weights[id] = noisy;
        for (size_t s = 0; s < SEQUENCES; s++) {
            backward_forward(&f->b, f->text.tokens + s * LENGTH, 1, LENGTH, f->logits, NULL);
            for (size_t t = 0; t < LENGTH; t++)
                kl += row_kl(f->source + (s * LENGTH + t) * f->stride, f->logits + t * f->stride, vocab) / DRAWS;
        }
        f->b.weights[id] = NULL;
    }
    double predicted = variance / 2 * f->trace[which], blind = variance / 2 * f->per_token[which];
    printf("map %zu: KL %.3g per token measured, %.3g predicted (ratio %.3f); token by token %.3f\n", id,
           kl / (SEQUENCES * LENGTH), predicted / (SEQUENCES * LENGTH), predicted / kl, blind / kl);
    CHECK(fabs(predicted / kl - 1) < 0.2, "map %zu: predicted %g, measured %g", id, predicted, kl);
    free(noisy);
}

static void predictions_are_measured(void)
{
    struct fisher f = { 0 };
    struct quern_error err;
    struct quern_model_options how = { .threads = 1 };
    f.model = quern_open_model(shared_path("models/tiny-books/tiny-books-BF16.gguf"), &how, &err);
    f.pool = pool_open(2, &err);
    CHECK(f.model && f.pool && calibration_open(&f.text, NULL, CALIBRATION_FIT, f.model, LENGTH, &err) &&
          backward_init(&f.b, &f.model->model, &f.model->kernels, f.pool, LENGTH, LENGTH, &err), "%s", err.text);
    f.stride = dense_stride(f.model->model.hyper.vocab);
    f.logits = aligned_alloc(64, LENGTH * f.stride * sizeof(float));
    f.dlogits = aligned_alloc(64, LENGTH * f.stride * sizeof(float));
    memset(f.dlogits, 0, LENGTH * f.stride * sizeof(float));
    f.source = aligned_alloc(64, SEQUENCES * LENGTH * f.stride * sizeof(float));
    for (size_t s = 0; s < SEQUENCES; s++)
        backward_forward(&f.b, f.text.tokens + s * LENGTH, 1, LENGTH, f.source + s * LENGTH * f.stride, NULL);
    size_t layers = f.model->model.hyper.layers, last = (layers - 1) * LINEAR_KINDS;
    /* Of the first layer's maps a few directions carry most of the divergence: draws there say 0.7 to 1.1, and are left out. */
    const size_t ids[MAPS] = { last / 2 / LINEAR_KINDS * LINEAR_KINDS + LINEAR_UP, last + LINEAR_OUT, last + LINEAR_Q,
                           layers * LINEAR_KINDS };
    memcpy(f.ids, ids, sizeof ids);
    find_traces(&f);
    for (size_t i = 0; i < MAPS; i++)
        check_map(&f, i);
    free(f.logits), free(f.dlogits), free(f.source);
    backward_free(&f.b);
    calibration_close(&f.text);
    pool_close(f.pool);
    quern_close_model(f.model);
}

int main(void)
{
    if (shared_path("models/tiny-books/tiny-books-BF16.gguf"))
        TEST(predictions_are_measured);
    else
        test_skip("predictions_are_measured", "shared/ is not here");
    return test_end();
}
