#include "imatrix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"

static const char SUMS[] = ".in_sum2", COUNTS[] = ".counts";

/* Length of the name before `suffix`, 0 when it does not end so. */
static size_t stem(struct gguf_string name, const char *suffix)
{
    size_t n = strlen(suffix);
    return name.n > n && !memcmp(name.text + name.n - n, suffix, n) ? name.n - n : 0;
}

static float float_at(const uint8_t *data, size_t i)
{
    float value;
    memcpy(&value, data + i * sizeof value, sizeof value);
    return value;
}

static bool read_entry(struct imatrix *m, struct imatrix_entry *e, const struct gguf_tensor *sums, const struct gguf_tensor *counts,
                       struct quern_error *err)
{
    if (sums->type != FORMAT_F32 || counts->type != FORMAT_F32)
        return ERR(err, QUERN_EFORMAT, "entry '%s': sums and counts must be F32", e->name);
    e->inputs = sums->shape[0];
    e->experts = counts->bytes / sizeof(float);
    size_t product;
    if (!e->experts || !checked_mul(&product, e->inputs, e->experts) || sums->bytes / sizeof(float) != product)
        return ERR(err, QUERN_EFORMAT, "entry '%s': %zu sums for %zu counts of %zu inputs", e->name, sums->bytes / sizeof(float),
                   e->experts, e->inputs);
    e->mean = arena_take(&m->arena, e->inputs * e->experts, sizeof *e->mean, "importances", err);
    e->tokens = arena_take(&m->arena, e->experts, sizeof *e->tokens, "importances", err);
    if (!e->mean || !e->tokens)
        return false;
    float seen = 0;
    for (size_t x = 0; x < e->experts; x++) {
        float tokens = e->tokens[x] = float_at(counts->data, x);
        if (!(tokens >= 0) || !isfinite(tokens))
            return ERR(err, QUERN_EFORMAT, "entry '%s': count %zu is %g", e->name, x, (double)tokens);
        seen = tokens > seen ? tokens : seen;
        for (size_t i = 0; i < e->inputs; i++) {
            float sum = float_at(sums->data, x * e->inputs + i);
            if (!(sum >= 0) || !isfinite(sum))
                return ERR(err, QUERN_EFORMAT, "entry '%s': sum %zu is %g, a finite number >= 0 is wanted", e->name,
                           x * e->inputs + i, (double)sum);
            e->mean[x * e->inputs + i] = tokens > 0 ? sum / tokens : 1;
        }
    }
    return seen > 0 || ERR(err, QUERN_EFORMAT, "entry '%s' saw no token at all", e->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct imatrix_entry *)a)->name, ((const struct imatrix_entry *)b)->name);
}

void imatrix_sort(struct imatrix *m)
{
    qsort(m->entries, m->count, sizeof *m->entries, by_name);
}

static bool read_entries(struct imatrix *m, const struct gguf *g, struct quern_error *err)
{
    m->entries = arena_take(&m->arena, g->tensor_count, sizeof *m->entries, "importances", err);
    for (size_t i = 0; m->entries && i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        char other[160], shown[100];
        size_t sums = stem(t->name, SUMS), counts = stem(t->name, COUNTS), n = sums ? sums : counts;
        text_escape(shown, sizeof shown, t->name.text, t->name.n);
        if (!n)
            return ERR(err, QUERN_EFORMAT, "tensor '%s' is neither a sum nor a count of an importance matrix", shown);
        snprintf(other, sizeof other, "%.*s%s", (int)n, t->name.text, sums ? COUNTS : SUMS);
        const struct gguf_tensor *pair = gguf_find_tensor(g, other);
        if (!pair)
            return ERR(err, QUERN_EFORMAT, "tensor '%s' has no %s beside it", shown, sums ? "count" : "sum");
        if (!sums)
            continue;
        struct imatrix_entry *e = &m->entries[m->count++];
        e->name = arena_text(&m->arena, t->name.text, n, err);
        if (!e->name || !read_entry(m, e, t, pair, err))
            return false;
    }
    if (!m->entries)
        return false;
    if (!m->count)
        return ERR(err, QUERN_EFORMAT, "no importances in this file");
    imatrix_sort(m);
    return true;
}

static bool read_keys(struct imatrix *m, const struct gguf *g, struct quern_error *err)
{
    struct gguf_string type = { "", 0 };
    const struct gguf_value *datasets = gguf_find(g, "imatrix.datasets");
    if (!gguf_read_string(g, "general.type", &type, err) || !gguf_read_u32(g, "imatrix.chunk_count", &m->chunks, err) ||
        !gguf_read_u32(g, "imatrix.chunk_size", &m->chunk_size, err))
        return false;
    if (!gguf_string_is(type, "imatrix"))
        return ERR(err, QUERN_EFORMAT, "no importance matrix (general.type is not 'imatrix')");
    struct gguf_string first = { "", 0 };
    size_t cursor = 0;
    if (datasets && datasets->type == GGUF_ARRAY && datasets->as.array.type == GGUF_STRING && datasets->as.array.n)
        first = gguf_array_string(datasets, &cursor);
    m->dataset = arena_text(&m->arena, first.text, first.n, err);
    return m->dataset != NULL;
}

bool imatrix_open(struct imatrix *m, const char *path, struct quern_error *err)
{
    struct gguf g;
    memset(m, 0, sizeof *m);
    if (!gguf_open(&g, path, NULL, err))
        return false;
    arena_init(&m->arena, 0);
    bool ok = read_keys(m, &g, err) && read_entries(m, &g, err);
    if (!ok) {
        error_prefix(err, path);
        arena_free(&m->arena);
    }
    gguf_close(&g);
    return ok;
}

void imatrix_close(struct imatrix *m)
{
    arena_free(&m->arena);
    memset(m, 0, sizeof *m);
}

const struct imatrix_entry *imatrix_find(const struct imatrix *m, struct gguf_string name)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *at = m->entries[middle].name;
        int order = strncmp(at, name.text, name.n);
        if (order == 0 && at[name.n])
            order = 1;
        if (order == 0)
            return &m->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const float *imatrix_row(const struct imatrix_entry *e, const struct gguf_tensor *t, size_t row)
{
    size_t expert = e && e->experts > 1 ? row / t->shape[1] % e->experts : 0;
    return e ? e->mean + expert * e->inputs : NULL;
}

bool imatrix_check(const struct imatrix *m, const struct gguf *g, const bool *needs, bool lax, struct quern_error *err)
{
    for (size_t i = 0; i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        const struct imatrix_entry *e = imatrix_find(m, t->name);
        char shown[100];
        text_escape(shown, sizeof shown, t->name.text, t->name.n);
        if (e && (e->inputs != t->shape[0] || (e->experts != t->shape[2] && e->experts != 1)))
            return ERR(err, QUERN_EFORMAT, "importances of '%s' are for %zu inputs of %zu experts, the model's tensor has %zu of "
                       "%zu: made from another model?", shown, e->inputs, e->experts, t->shape[0], t->shape[2]);
        if (!e && !lax && needs[i])
            return ERR(err, QUERN_EFORMAT,
                       "the importance matrix has no entry for '%s' (--lax-imatrix rounds such tensors without)", shown);
    }
    return true;
}

static bool write_entries(struct gguf_writer *w, const struct imatrix *m, struct quern_error *err)
{
    for (size_t i = 0; i < m->count; i++)
        for (int counts = 0; counts < 2; counts++) {
            const struct imatrix_entry *e = &m->entries[i];
            struct gguf_tensor t = { .type = FORMAT_F32, .dims = 2, .shape = { counts ? 1 : e->inputs, e->experts, 1, 1 } };
            char name[160];
            int n = snprintf(name, sizeof name, "%s%s", e->name, counts ? COUNTS : SUMS);
            t.name = (struct gguf_string){ name, (size_t)n };
            t.bytes = t.shape[0] * t.shape[1] * sizeof(float);
            if (!gguf_writer_tensor(w, &t, err))
                return false;
        }
    for (size_t i = 0; i < m->count; i++) {
        const struct imatrix_entry *e = &m->entries[i];
        float *sums = mem_take(e->inputs * e->experts, sizeof *sums, "sums", err);
        if (!sums)
            return false;
        for (size_t j = 0; j < e->inputs * e->experts; j++)
            sums[j] = e->mean[j] * e->tokens[j / e->inputs];
        bool ok = gguf_writer_data(w, sums, e->inputs * e->experts * sizeof *sums, err) &&
                  gguf_writer_data(w, e->tokens, e->experts * sizeof *e->tokens, err);
        free(sums);
        if (!ok)
            return false;
    }
    return gguf_writer_commit(w, err);
}

bool imatrix_write(const char *path, const struct imatrix *m, bool force, struct quern_error *err)
{
    struct gguf_writer_options options = { .force = force };
    struct gguf_writer *w = gguf_writer_open(path, &options, err);
    size_t n = strlen(m->dataset);
    uint8_t packed[8 + 4096];
    n = n < 4096 ? n : 4096;
    gguf_pack(packed, n, 8);
    memcpy(packed + 8, m->dataset, n);
    bool ok = w && gguf_writer_text(w, "general.type", "imatrix", err) &&
              gguf_writer_array(w, "imatrix.datasets", GGUF_STRING, packed, 1, 8 + n, err) &&
              gguf_writer_u32(w, "imatrix.chunk_count", m->chunks, err) &&
              gguf_writer_u32(w, "imatrix.chunk_size", m->chunk_size, err) && write_entries(w, m, err);
    gguf_writer_close(w);
    return ok;
}
