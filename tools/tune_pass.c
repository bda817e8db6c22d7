#include "tune_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Logits of one pass are held for at most so many bytes per model. */
static const size_t LOGITS_BYTES = (size_t)128 << 20;
/* Rows of a matrix whose weight gradients are made at a time. */
enum { PANEL = 1024, PANEL_CHUNK = 16, LOSS_BLOCK = 16 };

/* ---- loss ---------------------------------------------------------------------------------------------------------------- */

/* Softmax in place; the logarithm of the sum of exponentials, read off at the largest value, where it is exact to a rounding. */
static double normalize(const struct kernels *kernels, float *x, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++)
        top = x[i] > x[top] ? i : top;
    float most = x[top];
    kernels->softmax.fn(x, n);
    return most - log((double)x[top]);
}

/* KL of a block of positions; with gradients, `wanted` becomes softmax(got) - softmax(wanted). With p for the softmax of a:
 * KL(a || b) = sum p (a - b) - log sum exp a + log sum exp b. First positions count nothing: nothing stands before them, their huge
 * activations are those of no other place, and one in `length` is far more than any use gives them. */
static void loss_block(void *arg, size_t index, size_t thread)
{
    struct tune_pass *p = arg;
    size_t vocab = p->student->hyper.vocab, stride = dense_stride(vocab), n = p->forth.n;
    size_t to = (index + 1) * LOSS_BLOCK < n ? (index + 1) * LOSS_BLOCK : n;
    float *a = p->rows + thread * 2 * stride, *b = a + stride;
    for (size_t at = index * LOSS_BLOCK; at < to; at++) {
        float *wanted = p->wanted + at * stride;
        const float *got = p->got + at * stride;
        double kl = 0;
        p->loss[at] = 0;
        if (at % p->length == 0) {
            memset(wanted, 0, vocab * sizeof *wanted);
            continue;
        }
        memcpy(a, wanted, vocab * sizeof *a);
        memcpy(b, got, vocab * sizeof *b);
        double apart = normalize(p->kernels, b, vocab) - normalize(p->kernels, a, vocab);
        for (size_t i = 0; i < vocab; i++)
            kl += (double)(a[i] * (wanted[i] - got[i]));
        for (size_t i = 0; p->gradients && i < vocab; i++)
            wanted[i] = b[i] - a[i];
        p->loss[at] = kl + apart;
    }
}

/* ---- gradients ----------------------------------------------------------------------------------------------------------- */

struct panel_stage { struct tune_pass *pass; const struct tune_tensor *tensor; size_t first, rows; float factor; };

static void panel_chunk(void *arg, size_t index, size_t thread)
{
    const struct panel_stage *s = arg;
    struct tune_pass *p = s->pass;
    size_t from = index * PANEL_CHUNK, to = from + PANEL_CHUNK < s->rows ? from + PANEL_CHUNK : s->rows;
    for (size_t r = from; r < to; r++)
        tune_add_row(p->parts, s->tensor, s->first + r, p->panel + r * dense_stride(s->tensor->cols), s->factor,
                     p->blocks + thread * p->parts->widest_bytes, p->unit + thread * dense_stride(p->parts->widest), p->kernels);
}

/* Weight gradients dy^T x of a linear map, a panel of rows at a time, into those of the scales. */
static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    struct tune_pass *p = arg;
    const struct matrix *w = backward_matrix(p->student, id);
    const struct tune_tensor *tensor = &p->parts->tensor[w->tensor];
    size_t across = dense_stride(n), cols = dense_stride(w->cols), rows = dense_stride(w->rows);
    if (!tensor->rows)
        return;
    dense_transpose(&p->back.dense, p->across, across, x, cols, n, w->cols);
    for (size_t first = 0; first < w->rows; first += PANEL) {
        struct panel_stage s = { p, tensor, w->first_row + first, w->rows - first < PANEL ? w->rows - first : PANEL, w->scale };
        dense_transpose(&p->back.dense, p->down, across, dy + first, rows, n, s.rows);
        dense_product(&p->back.dense, p->panel, cols, p->across, across, w->cols, p->down, across, n, s.rows);
        pool_run(p->pool, panel_chunk, &s, (s.rows + PANEL_CHUNK - 1) / PANEL_CHUNK);
    }
}

static void on_norm(void *arg, size_t id, const float *gradient)
{
    struct tune_pass *p = arg;
    if (p->parts->norm_part[id] == SIZE_MAX)
        return;
    struct tune_part *part = &p->parts->part[p->parts->norm_part[id]];
    for (size_t i = 0; i < part->n; i++)
        part->gradient[i] += gradient[i];
}

static void on_embedding(void *arg, const int32_t *tokens, const float *dx, size_t n)
{
    struct tune_pass *p = arg;
    const struct tune_tensor *tensor = &p->parts->tensor[p->student->embed.tensor];
    for (size_t i = 0; tensor->rows && i < n; i++)
        tune_add_row(p->parts, tensor, (size_t)tokens[i], dx + i * dense_stride(p->student->hyper.width), p->student->embed.scale,
                     p->blocks, p->unit, p->kernels);
}

/* ---- the pass ------------------------------------------------------------------------------------------------------------ */

double tune_pass_run(struct tune_pass *p, size_t count, bool gradients)
{
    const struct backward_hooks hooks = { .arg = p, .linear = on_linear, .norm = on_norm, .embedding = on_embedding };
    size_t n = count * p->length;
    double sum = 0;
    p->gradients = gradients;
    backward_forward(&p->forth, p->tokens, count, p->length, p->wanted, NULL);
    backward_forward(&p->back, p->tokens, count, p->length, p->got, NULL);
    pool_run(p->pool, loss_block, p, (n + LOSS_BLOCK - 1) / LOSS_BLOCK);
    for (size_t i = 0; i < n; i++)
        sum += p->loss[i];
    if (gradients)
        backward_run(&p->back, p->got, p->wanted, &hooks);
    return sum;
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

static size_t widest_linear(const struct model *m)
{
    size_t most = m->hyper.width;
    for (size_t id = 0; id <= m->hyper.layers * LINEAR_KINDS; id++)
        most = backward_matrix(m, id)->cols > most ? backward_matrix(m, id)->cols : most;
    return most;
}

static bool take_floats(float **out, size_t rows, size_t cols, size_t *left, struct quern_error *err)
{
    size_t n, bytes;
    if (!checked_mul(&n, rows ? rows : 1, dense_stride(cols)) || !checked_mul(&bytes, n, sizeof **out) || bytes > *left)
        return ERR(err, QUERN_EMEM, "tuning needs more memory than it may take: lower the batch or the sequences' length");
    *left -= bytes;
    *out = mem_take_aligned(n, sizeof **out, "tuning", err);
    if (*out)
        memset(*out, 0, bytes);
    return *out != NULL;
}

size_t tune_pass_sequences(size_t vocab, size_t sequences, size_t length)
{
    size_t most = LOGITS_BYTES / (dense_stride(vocab) * sizeof(float)) / length;
    return most < 1 ? 1 : most > sequences ? sequences : most;
}

bool tune_pass_open(struct tune_pass *p, const struct model *teacher, const struct model *student, struct tune_parts *parts,
                    const struct kernels *kernels, struct pool *pool, size_t sequences, size_t length, size_t mem_limit,
                    struct quern_error *err)
{
    size_t vocab = student->hyper.vocab, widest = widest_linear(student), threads = pool_threads(pool);
    size_t left = mem_limit ? mem_limit : SIZE_MAX;
    *p = (struct tune_pass){ .student = student, .kernels = kernels, .pool = pool, .parts = parts, .length = length };
    p->most = tune_pass_sequences(vocab, sequences, length);
    size_t n = p->most * length;
    p->tokens = mem_take(n, sizeof *p->tokens, "tuning", err);
    p->loss = p->tokens ? mem_take(n, sizeof *p->loss, "tuning", err) : NULL;
    p->blocks = p->loss ? mem_take(threads, parts->widest_bytes + 1, "tuning", err) : NULL;
    return p->blocks && take_floats(&p->wanted, n, vocab, &left, err) && take_floats(&p->got, n, vocab, &left, err) &&
           take_floats(&p->rows, threads, 2 * dense_stride(vocab), &left, err) &&
           take_floats(&p->across, widest, n, &left, err) && take_floats(&p->down, PANEL, n, &left, err) &&
           take_floats(&p->panel, PANEL, widest, &left, err) && take_floats(&p->unit, threads, parts->widest, &left, err) &&
           backward_init(&p->forth, teacher, kernels, pool, n, length, err) &&
           backward_init(&p->back, student, kernels, pool, n, length, err);
}

void tune_pass_close(struct tune_pass *p)
{
    free(p->tokens), free(p->loss), free(p->blocks), free(p->wanted), free(p->got), free(p->across), free(p->down), free(p->panel);
    free(p->unit), free(p->rows);
    backward_free(&p->forth);
    backward_free(&p->back);
    memset(p, 0, sizeof *p);
}
