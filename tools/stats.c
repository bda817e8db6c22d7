#include "stats.h"

#include <stdio.h>
#include <string.h>

#include "error.h"
#include "formats.h"
#include "hessian.h"

bool stats_open(struct stats *s, const char *path, const struct gguf *model, const struct kernels *kernels, struct pool *pool,
                struct quern_error *err)
{
    (void)model, (void)kernels, (void)pool;
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

double stats_tokens(const struct stats *s, struct gguf_string name, size_t expert, enum stats_part part)
{
    const struct gguf_tensor *t = stats_find(s, name, "tokens", STATS_PARTS);
    float counts[STATS_PARTS] = { 0 };
    if (t)
        memcpy(counts, t->data, sizeof counts);
    return expert == 0 && counts[part] >= 0 ? counts[part] : 0;
}

bool stats_hessian(struct stats *s, struct gguf_string name, size_t expert, enum stats_part part, bool guided, float *h, size_t n)
{
    static const char *const what[2][STATS_PARTS] = { { "h", "h_held" }, { "hg", "hg_held" } };
    const struct gguf_tensor *t = stats_find(s, name, what[guided][part], hessian_size(n));
    if (!t || expert)
        return false;
    for (size_t i = 0; i < n; i++)
        memcpy(h + i * n, t->data + hessian_size(i) * sizeof *h, (i + 1) * sizeof *h);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            h[i * n + j] = h[j * n + i];
    return true;
}

bool stats_gradient(const struct stats *s, struct gguf_string name, size_t expert, float *g, size_t rows)
{
    const struct gguf_tensor *t = stats_find(s, name, "g2", rows);
    if (t)
        memcpy(g, t->data, rows * sizeof *g);
    return t != NULL && expert == 0;
}

size_t stats_experts(const struct stats *s, struct gguf_string name)
{
    return stats_find(s, name, "tokens", STATS_PARTS) != NULL;
}
