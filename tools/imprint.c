#include "imprint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backward.h"
#include "calibration.h"
#include "formats.h"
#include "hessian.h"
#include "stats.h"
#include "tokenizer.h"

/* Tokens per call, about; every fifth call is held out. An input counts in full up to so many times the call's median square. */
enum { CALL_TOKENS = 2048, HELD_EVERY = 5 };
static const float MASSIVE = 16, GRADIENT_MOST = 16;

/* What is gathered of one linear map. */
struct gathered {
    const struct gguf_tensor *tensor;
    size_t rows, cols;
    float *h[STATS_PARTS], *hg[STATS_PARTS];   /* triangles of sums                       */
    double *g2;                                /* [rows] sums of squared gradients        */
    float  tokens[STATS_PARTS];
};

struct imprint {
    const struct imprint_options *options;
    const struct model *model;
    struct backward     b;
    struct hessian_work work;
    struct gathered    *maps;
    float  *weight, *guide, *square;           /* per token of a call */
    float  *logits;
    size_t  length;
    enum stats_part part;
    uint64_t seed;
};

/* ---- hooks ----------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Weights of a call's tokens: 0 at the first position, less than 1 where the input is massive. */
static void weigh_tokens(struct imprint *m, const float *x, size_t cols, size_t n)
{
    size_t stride = dense_stride(cols);
    for (size_t t = 0; t < n; t++) {
        double sum = 0;
        for (size_t i = 0; i < cols; i++)
            sum += (double)x[t * stride + i] * x[t * stride + i];
        m->weight[t] = m->square[t] = (float)sum;
    }
    qsort(m->square, n, sizeof *m->square, by_value);
    float most = MASSIVE * m->square[n / 2];
    for (size_t t = 0; t < n; t++)
        m->weight[t] = t % m->length == 0 ? 0 : m->weight[t] > most ? most / m->weight[t] : 1;
}

static void on_input(void *arg, size_t id, const float *x, size_t n)
{
    struct imprint *m = arg;
    struct gathered *map = &m->maps[id];
    if (!map->tensor)
        return;
    weigh_tokens(m, x, map->cols, n);
    hessian_add(&m->work, map->h[m->part], x, m->weight, map->cols, n);
    map->tokens[m->part] += (float)(n - n / m->length);
}

/* Squared gradients, summed over tokens for each output, averaged over outputs for each token. */
static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    struct imprint *m = arg;
    struct gathered *map = &m->maps[id];
    size_t stride = dense_stride(map->rows);
    double mean = 0;
    if (!map->tensor)
        return;
    weigh_tokens(m, x, map->cols, n);
    for (size_t t = 0; t < n; t++) {
        double sum = 0;
        for (size_t r = 0; m->weight[t] > 0 && r < map->rows; r++) {
            double g = (double)dy[t * stride + r] * dy[t * stride + r];
            sum += g;
            if (m->part == STATS_FIT)
                map->g2[r] += g;
        }
        m->guide[t] = (float)(sum / (double)map->rows);
        mean += m->guide[t] / (double)n;
    }
    for (size_t t = 0; t < n; t++)
        m->guide[t] = m->weight[t] * fminf(m->guide[t], GRADIENT_MOST * (float)mean);
    hessian_add(&m->work, map->hg[m->part], x, m->guide, map->cols, n);
}

static double next_unit(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* logits -> gradient of -log p(label), the label drawn from p; 0 at first positions. One number of the sequence per token. */
static void draw_labels(struct imprint *m, size_t n)
{
    size_t vocab = m->model->hyper.vocab, stride = dense_stride(vocab);
    for (size_t t = 0; t < n; t++) {
        float *p = m->logits + t * stride, top = p[0];
        double sum = 0, at = next_unit(&m->seed);
        size_t label = 0;
        for (size_t i = 1; i < vocab; i++)
            top = p[i] > top ? p[i] : top;
        for (size_t i = 0; i < vocab; i++)
            sum += p[i] = expf(p[i] - top);
        at *= sum;
        while (label + 1 < vocab && at >= p[label])
            at -= p[label++];
        for (size_t i = 0; i < vocab; i++)
            p[i] = t % m->length ? (float)(p[i] / sum) - (i == label) : 0;
    }
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

static bool take_map(struct imprint *m, const struct gguf *g, size_t id, struct quern_error *err)
{
    const struct matrix *w = backward_matrix(m->model, id);
    struct gathered *map = &m->maps[id];
    bool guided = m->options->fisher;
    /* Parts of fused tensors and slices have no row of moments of their own. */
    if (w->slices > 1 || w->first_row || g->tensors[w->tensor].shape[1] != w->rows || g->tensors[w->tensor].shape[0] != w->cols)
        return true;
    map->rows = w->rows, map->cols = w->cols;
    for (int part = 0; part < STATS_PARTS; part++) {
        if (!(map->h[part] = mem_take(hessian_size(w->cols), sizeof(float), "second moments", err)) ||
            (guided && !(map->hg[part] = mem_take(hessian_size(w->cols), sizeof(float), "second moments", err))))
            return false;
    }
    if (guided && !(map->g2 = mem_take(w->rows, sizeof *map->g2, "squared gradients", err)))
        return false;
    map->tensor = &g->tensors[w->tensor];
    return true;
}

static size_t moments_bytes(const struct imprint *m)
{
    size_t sum = 0;
    for (size_t id = 0; id < m->b.linears; id++)
        sum += hessian_size(backward_matrix(m->model, id)->cols) * sizeof(float) * STATS_PARTS * (m->options->fisher ? 2 : 1);
    return sum;
}

static bool take_all(struct imprint *m, const struct gguf *g, size_t most, struct quern_error *err)
{
    size_t widest = 0, bytes = moments_bytes(m);
    if (m->options->mem_limit && bytes > m->options->mem_limit)
        return ERR(err, QUERN_EMEM, "the second moments take %zu bytes, the limit is %zu", bytes, m->options->mem_limit);
    m->maps = mem_take(m->b.linears, sizeof *m->maps, "statistics", err);
    for (size_t id = 0; m->maps && id < m->b.linears; id++) {
        size_t cols = backward_matrix(m->model, id)->cols;
        widest = cols > widest ? cols : widest;
        if (!take_map(m, g, id, err))
            return false;
    }
    if (!m->maps || !(m->weight = mem_take(3 * most, sizeof(float), "weights of tokens", err)))
        return false;
    m->guide = m->weight + most, m->square = m->guide + most;
    if (m->options->fisher &&
        !(m->logits = mem_take_aligned(most, dense_stride(m->model->hyper.vocab) * sizeof(float), "logits", err)))
        return false;
    return hessian_work_init(&m->work, &m->b.dense, widest, most, err);
}

static void imprint_free(struct imprint *m)
{
    for (size_t id = 0; m->maps && id < m->b.linears; id++) {
        for (int part = 0; part < STATS_PARTS; part++) {
            free(m->maps[id].h[part]);
            free(m->maps[id].hg[part]);
        }
        free(m->maps[id].g2);
    }
    free(m->maps);
    free(m->weight);
    free(m->logits);
    hessian_work_free(&m->work);
    backward_free(&m->b);
}

/* ---- the pass -------------------------------------------------------------------------------------------------------- */

static bool check_tokens(const int32_t *ids, size_t count, size_t wanted, struct quern_error *err)
{
    size_t same = 1;
    while (same < count && ids[same] == ids[count - 1])
        same++;
    if (count < wanted)
        return ERR(err, QUERN_EUSAGE, "the calibration text has %zu tokens, at least %zu are needed", count, wanted);
    if (same >= count)
        return ERR(err, QUERN_EUSAGE, "the calibration text is %zu times the same token", count);
    return true;
}

static bool run_calls(struct imprint *m, int32_t *ids, size_t sequences, size_t per_call, int32_t bos, struct quern_error *err)
{
    struct backward_hooks forth = { .arg = m, .input = on_input }, back = { .arg = m, .linear = on_linear };
    for (size_t s = 0, call = 0; s < sequences; s += per_call, call++) {
        size_t n = sequences - s < per_call ? sequences - s : per_call;
        int32_t *at = ids + s * m->length;
        if (m->options->stop && *m->options->stop)
            return ERR(err, QUERN_EINTERRUPT, "interrupted");
        for (size_t i = 0; bos >= 0 && i < n; i++)
            at[i * m->length] = bos;
        m->part = call % HELD_EVERY == HELD_EVERY - 1 ? STATS_HELD : STATS_FIT;
        backward_forward(&m->b, at, n, m->length, m->logits, &forth);
        if (m->options->fisher) {
            draw_labels(m, n * m->length);
            backward_run(&m->b, NULL, m->logits, &back);
        }
        if (m->options->show)
            m->options->show(m->options->show_arg, "imprint", (double)(s + n) / (double)sequences);
    }
    return true;
}

/* ---- the file -------------------------------------------------------------------------------------------------------- */

static bool describe(struct gguf_writer *w, const struct gathered *map, const char *what, size_t values, struct quern_error *err)
{
    char name[96];
    int n = snprintf(name, sizeof name, "%.*s.%s", (int)map->tensor->name.n, map->tensor->name.text, what);
    struct gguf_tensor t = { .name = { name, (size_t)n }, .type = FORMAT_F32, .dims = 1, .shape = { values, 1, 1, 1 } };
    t.bytes = values * sizeof(float);
    return gguf_writer_tensor(w, &t, err);
}

static bool write_mean(struct gguf_writer *w, float *sums, size_t n, float tokens, struct quern_error *err)
{
    for (size_t i = 0; i < n; i++)
        sums[i] /= tokens > 0 ? tokens : 1;
    return gguf_writer_data(w, sums, n * sizeof *sums, err);
}

static bool write_map(struct gguf_writer *w, struct gathered *map, bool guided, struct quern_error *err)
{
    size_t n = hessian_size(map->cols);
    bool ok = gguf_writer_data(w, map->tokens, sizeof map->tokens, err);
    for (int part = 0; ok && part < STATS_PARTS; part++)
        ok = write_mean(w, map->h[part], n, map->tokens[part], err) &&
             (!guided || write_mean(w, map->hg[part], n, map->tokens[part], err));
    for (size_t r = 0; ok && guided && r < map->rows; r++) {
        float mean = (float)(map->g2[r] / (map->tokens[STATS_FIT] > 0 ? map->tokens[STATS_FIT] : 1));
        ok = gguf_writer_data(w, &mean, sizeof mean, err);
    }
    return ok;
}

static bool write_all(struct imprint *m, struct gguf_writer *w, size_t sequences, struct quern_error *err)
{
    bool guided = m->options->fisher;
    if (!gguf_writer_text(w, "general.type", "quern.stats", err) || !gguf_writer_u32(w, "quern.stats.version", 1, err) ||
        !gguf_writer_bool(w, "quern.stats.guided", guided, err) ||
        !gguf_writer_u32(w, "quern.stats.context", (uint32_t)m->length, err) ||
        !gguf_writer_u32(w, "quern.stats.sequences", (uint32_t)sequences, err))
        return false;
    for (size_t id = 0; id < m->b.linears; id++) {
        const struct gathered *map = &m->maps[id];
        size_t n = hessian_size(map->cols);
        if (map->tensor && !(describe(w, map, "tokens", STATS_PARTS, err) && describe(w, map, "h", n, err) &&
                             (!guided || describe(w, map, "hg", n, err)) && describe(w, map, "h_held", n, err) &&
                             (!guided || (describe(w, map, "hg_held", n, err) && describe(w, map, "g2", map->rows, err)))))
            return false;
    }
    for (size_t id = 0; id < m->b.linears; id++)
        if (m->maps[id].tensor && !write_map(w, &m->maps[id], guided, err))
            return false;
    return gguf_writer_commit(w, err);
}

static bool gather(struct imprint *m, const struct quern_model *source, struct calibration *text, const char *path, struct quern_error *err)
{
    const struct gguf *g = &source->gguf;
    int32_t bos = tokenizer_adds_bos(source->tokenizer) ? tokenizer_bos(source->tokenizer) : -1;
    size_t per_call = CALL_TOKENS / m->length ? CALL_TOKENS / m->length : 1, sequences = text->count / m->length;
    if (m->options->tokens && sequences > m->options->tokens / m->length)
        sequences = m->options->tokens / m->length;
    struct gguf_writer_options options = { .force = m->options->force, .inputs = g->parts, .input_count = g->part_count };
    struct gguf_writer *w = NULL;
    bool ok = check_tokens(text->tokens, sequences * m->length, HELD_EVERY * per_call * m->length, err) &&
              (w = gguf_writer_open(path, &options, err)) &&
              backward_init(&m->b, m->model, &source->kernels, m->options->pool, per_call * m->length, m->length, err) &&
              take_all(m, g, per_call * m->length, err) && run_calls(m, text->tokens, sequences, per_call, bos, err) &&
              write_all(m, w, sequences, err);
    gguf_writer_close(w);
    if (m->b.m)
        imprint_free(m);
    return ok;
}

bool imprint_write(const struct quern_model *model, const char *path, const struct imprint_options *options, struct quern_error *err)
{
    struct imprint m = { .options = options, .model = &model->model, .seed = options->seed };
    struct calibration text;
    size_t trained = model->model.hyper.context ? model->model.hyper.context : 512;
    m.length = options->context ? options->context : trained < 512 ? trained : 512;
    if (!calibration_open(&text, options->calibration, CALIBRATION_FIT, model, m.length, err))
        return false;
    bool ok = gather(&m, model, &text, path, err);
    calibration_close(&text);
    return ok;
}
