#include "hessian.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"

/* Rows of H per product: its lower triangle is made in bands of so many rows, which leaves half of the work out. */
enum { BAND = 256 };

bool hessian_work_init(struct hessian_work *w, struct dense *dense, size_t most_cols, size_t most_tokens, struct quern_error *err)
{
    *w = (struct hessian_work){ .dense = dense, .most_cols = most_cols, .most_tokens = most_tokens };
    w->scaled = mem_take_aligned(most_tokens, dense_stride(most_cols) * sizeof(float), "second moments", err);
    w->across = w->scaled ? mem_take_aligned(most_cols, dense_stride(most_tokens) * sizeof(float), "second moments", err) : NULL;
    w->block = w->across ? mem_take_aligned(BAND, dense_stride(most_cols) * sizeof(float), "second moments", err) : NULL;
    if (w->block)
        return true;
    hessian_work_free(w);
    return false;
}

void hessian_work_free(struct hessian_work *w)
{
    free(w->scaled);
    free(w->across);
    free(w->block);
    memset(w, 0, sizeof *w);
}

void hessian_add(struct hessian_work *w, float *triangle, const float *x, const float *weight, size_t cols, size_t toks)
{
    size_t stride = dense_stride(cols), across = dense_stride(toks);
    for (size_t t = 0; t < toks; t++) {
        float root = sqrtf(weight[t]);
        for (size_t i = 0; i < cols; i++)
            w->scaled[t * stride + i] = root > 0 ? root * x[t * stride + i] : 0;
    }
    memset(w->across, 0, cols * across * sizeof *w->across);
    dense_transpose(w->dense, w->across, across, w->scaled, stride, toks, cols);
    for (size_t from = 0; from < cols; from += BAND) {
        size_t to = from + BAND < cols ? from + BAND : cols;
        dense_product(w->dense, w->block, stride, w->across, across, to, w->across + from * across, across, toks, to - from);
        for (size_t i = from; i < to; i++) {
            float *out = triangle + hessian_size(i);
            for (size_t j = 0; j <= i; j++)
                out[j] += w->block[(i - from) * stride + j];
        }
    }
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

bool stats_open(struct stats *s, const char *path, struct quern_error *err)
{
    struct gguf_string type = { "", 0 };
    uint32_t version = 0;
    memset(s, 0, sizeof *s);
    if (!gguf_open(&s->file, path, NULL, err))
        return false;
    bool ok = gguf_read_string(&s->file, "general.type", &type, err) && gguf_read_u32(&s->file, "quern.stats.version", &version, err) &&
              gguf_read_bool(&s->file, "quern.stats.guided", &s->guided, err);
    if (ok && (!gguf_string_is(type, "quern.stats") || version != 1))
        ok = ERR(err, QUERN_EFORMAT, "no statistics of this version (general.type 'quern.stats', quern.stats.version 1)");
    if (!ok) {
        error_prefix(err, path);
        stats_close(s);
    }
    return ok;
}

void stats_close(struct stats *s)
{
    gguf_close(&s->file);
    memset(s, 0, sizeof *s);
}

static const struct gguf_tensor *stats_find(const struct stats *s, struct gguf_string name, const char *what, size_t values)
{
    char full[96];
    snprintf(full, sizeof full, "%.*s.%s", (int)(name.n < 70 ? name.n : 70), name.text, what);
    const struct gguf_tensor *t = gguf_find_tensor(&s->file, full);
    return t && t->type == FORMAT_F32 && t->bytes == values * sizeof(float) ? t : NULL;
}

double stats_tokens(const struct stats *s, struct gguf_string name, enum stats_part part)
{
    const struct gguf_tensor *t = stats_find(s, name, "tokens", STATS_PARTS);
    float counts[STATS_PARTS] = { 0 };
    if (t)
        memcpy(counts, t->data, sizeof counts);
    return counts[part] >= 0 ? counts[part] : 0;
}

bool stats_hessian(const struct stats *s, struct gguf_string name, enum stats_part part, bool guided, float *h, size_t n)
{
    static const char *const what[2][STATS_PARTS] = { { "h", "h_held" }, { "hg", "hg_held" } };
    const struct gguf_tensor *t = stats_find(s, name, what[guided][part], hessian_size(n));
    if (!t)
        return false;
    for (size_t i = 0; i < n; i++)
        memcpy(h + i * n, t->data + hessian_size(i) * sizeof *h, (i + 1) * sizeof *h);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            h[i * n + j] = h[j * n + i];
    return true;
}

bool stats_gradient(const struct stats *s, struct gguf_string name, float *g, size_t rows)
{
    const struct gguf_tensor *t = stats_find(s, name, "g2", rows);
    if (t)
        memcpy(g, t->data, rows * sizeof *g);
    return t != NULL;
}
