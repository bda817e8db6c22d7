#include "stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"
#include "hessian.h"
#include "sha256.h"

/* ---- which model ------------------------------------------------------------------------------------------------------- */

struct hash_stage { const struct gguf *g; char (*out)[65]; };

static void hash_tensor(void *arg, size_t index, size_t thread)
{
    const struct hash_stage *s = arg;
    const struct gguf_tensor *t = &s->g->tensors[index];
    struct sha256 h;
    (void)thread;
    sha256_begin(&h);
    sha256_add(&h, t->name.text, t->name.n);
    sha256_add(&h, t->data, t->bytes);
    sha256_end(&h, s->out[index]);
}

bool stats_model_hash(const struct gguf *g, struct pool *pool, char out[65], struct quern_error *err)
{
    struct hash_stage s = { g, mem_take(g->tensor_count, sizeof *s.out, "hashes", err) };
    struct sha256 all;
    if (!s.out)
        return false;
    pool_run(pool, hash_tensor, &s, g->tensor_count);
    sha256_begin(&all);
    for (size_t i = 0; i < g->tensor_count; i++) {
        uint8_t packed[4];
        gguf_pack(packed, g->tensors[i].type, sizeof packed);
        sha256_add(&all, packed, sizeof packed);
        sha256_add(&all, s.out[i], 64);
    }
    sha256_end(&all, out);
    free(s.out);
    return true;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

/* The file's entry for a matrix: its input's name, and its place among the maps of that input. */
struct entry { struct gguf_string input; size_t place, map; };

static bool find_entry(const struct stats *s, struct gguf_string name, struct entry *out)
{
    size_t maps = 0, inputs = 0;
    struct gguf_string before = { NULL, 0 };
    *out = (struct entry){ .map = 0 };
    for (size_t i = 0; i < s->maps->as.array.n; i++) {
        struct gguf_string map = gguf_array_string(s->maps, &maps);
        out->input = gguf_array_string(s->inputs, &inputs);
        bool same = before.text && before.n == out->input.n && !memcmp(before.text, out->input.text, before.n);
        out->place = same ? out->place + 1 : 0;
        out->map = i;
        if (map.n == name.n && !memcmp(map.text, name.text, name.n))
            return true;
        before = out->input;
    }
    return false;
}

static const struct gguf_tensor *find_piece(const struct stats *s, const struct entry *e, const char *what, bool of_map)
{
    char name[128];
    if (e->input.n > 64)
        return NULL;
    if (of_map)
        snprintf(name, sizeof name, "%.*s.%zu.%s", (int)e->input.n, e->input.text, e->place, what);
    else
        snprintf(name, sizeof name, "%.*s.%s", (int)e->input.n, e->input.text, what);
    const struct gguf_tensor *t = gguf_find_tensor(&s->file, name);
    return t && t->type == FORMAT_F32 ? t : NULL;
}

/* Sizes of one map's statistics, from the shapes of its tensors. False when they do not fit together. */
struct sizes { size_t cols, experts, held, rows, first; };

static bool find_sizes(const struct stats *s, const struct entry *e, struct sizes *out)
{
    const struct gguf_tensor *tokens = find_piece(s, e, "tokens", false), *h = find_piece(s, e, "h", false);
    const struct gguf_tensor *x = find_piece(s, e, "x_held", false), *w = find_piece(s, e, "w_held", false);
    if (!tokens || !h || !x || !w)
        return false;
    *out = (struct sizes){ .cols = x->shape[0], .experts = tokens->shape[0], .held = x->shape[1] };
    if (out->cols > UINT32_MAX || tokens->shape[1] != STATS_PARTS || h->shape[0] != hessian_size(out->cols) ||
        h->shape[1] != out->experts || w->shape[0] != out->held || w->shape[1] != out->experts)
        return false;
    for (size_t i = 0; i <= e->map; i++) {
        int64_t rows = 0, experts = 0;
        if (!gguf_array_i64(s->rows, i, &rows) || !gguf_array_i64(s->experts, i, &experts) || rows < 1 || experts < 1)
            return false;
        out->rows = (size_t)rows;
        out->first += i < e->map ? (size_t)rows * (size_t)experts : 0;
        if (i == e->map && (size_t)experts != out->experts)
            return false;
    }
    if (!s->guided)
        return true;
    const struct gguf_tensor *hg = find_piece(s, e, "hg", true), *wg = find_piece(s, e, "wg_held", true);
    return hg && wg && hg->shape[0] == h->shape[0] && hg->shape[1] == h->shape[1] && wg->shape[0] == w->shape[0] &&
           wg->shape[1] == w->shape[1];
}

static const struct gguf_tensor *find_gradients(const struct stats *s, size_t call)
{
    char name[64];
    snprintf(name, sizeof name, "call.%zu.gradients", call);
    const struct gguf_tensor *t = gguf_find_tensor(&s->file, name);
    return t && t->type == FORMAT_F32 ? t : NULL;
}

static const struct gguf_value *find_list(const struct stats *s, const char *key, bool text)
{
    const struct gguf_value *v = gguf_find(&s->file, key);
    return v && v->type == GGUF_ARRAY && (v->as.array.type == GGUF_STRING) == text ? v : NULL;
}

/* Everything that the reading functions rely on. */
static bool check_contents(struct stats *s, struct quern_error *err)
{
    size_t cursor = 0, last = 0;
    s->maps = find_list(s, "quern.stats.maps", true), s->inputs = find_list(s, "quern.stats.inputs", true);
    s->rows = find_list(s, "quern.stats.rows", false), s->experts = find_list(s, "quern.stats.experts", false);
    if (!s->maps || !s->inputs || !s->rows || !s->experts || s->maps->as.array.n != s->inputs->as.array.n ||
        s->maps->as.array.n != s->rows->as.array.n || s->maps->as.array.n != s->experts->as.array.n)
        return ERR(err, QUERN_EFORMAT,
                   "the lists of matrices, inputs, rows and experts (quern.stats.*) are missing or of unlike lengths");
    for (size_t i = 0; i < s->maps->as.array.n; i++) {
        struct gguf_string name = gguf_array_string(s->maps, &cursor);
        struct entry e;
        struct sizes z;
        char shown[100];
        text_escape(shown, sizeof shown, name.text, name.n);
        if (!find_entry(s, name, &e) || e.map != i || !find_sizes(s, &e, &z))
            return ERR(err, QUERN_EFORMAT, "the statistics of '%s' are missing or of unlike shapes", shown);
        last = z.first + z.rows * z.experts;
    }
    for (size_t c = 0; s->guided && c < s->calls; c++) {
        const struct gguf_tensor *t = find_gradients(s, c);
        if (!t || t->shape[0] != last || t->shape[1] != 1)
            return ERR(err, QUERN_EFORMAT, "the gradients of call %zu are missing or of another length than %zu", c, last);
    }
    return true;
}

static bool check_model(struct stats *s, const struct gguf *model, struct pool *pool, struct quern_error *err)
{
    struct gguf_string noted = { "", 0 };
    char hash[65];
    if (!gguf_read_string(&s->file, "quern.stats.model_sha256", &noted, err))
        return false;
    if (noted.n == 0)
        return ERR(err, QUERN_EFORMAT, "key quern.stats.model_sha256 is missing");
    if (!stats_model_hash(model, pool, hash, err))
        return false;
    return gguf_string_is(noted, hash) || ERR(err, QUERN_EFORMAT, "these are the statistics of another model than '%s'",
                                              model->path);
}

static bool check_kind(struct stats *s, struct quern_error *err)
{
    struct gguf_string type = { "", 0 };
    struct quern_error ignored;
    uint32_t version = 0, calls = 0;
    if (!gguf_read_string(&s->file, "general.type", &type, &ignored) || !gguf_string_is(type, "quern.stats"))
        return ERR(err, QUERN_EFORMAT, "no statistics (general.type is not 'quern.stats')");
    if (!gguf_read_u32(&s->file, "quern.stats.version", &version, &ignored) || version != STATS_VERSION)
        return ERR(err, QUERN_EFORMAT, "statistics of version %u, this program reads %u: make them again", version, STATS_VERSION);
    if (!gguf_find(&s->file, "quern.stats.guided") || !gguf_find(&s->file, "quern.stats.calls") ||
        !gguf_read_bool(&s->file, "quern.stats.guided", &s->guided, &ignored) ||
        !gguf_read_u32(&s->file, "quern.stats.calls", &calls, &ignored))
        return ERR(err, QUERN_EFORMAT, "key quern.stats.guided or quern.stats.calls is missing");
    s->calls = calls;
    return true;
}

bool stats_open(struct stats *s, const char *path, const struct gguf *model, const struct kernels *kernels, struct pool *pool,
                struct quern_error *err)
{
    memset(s, 0, sizeof *s);
    if (!gguf_open(&s->file, path, NULL, err))
        return false;
    bool ok = check_kind(s, err) && check_contents(s, err) && (!model || check_model(s, model, pool, err));
    if (!ok)
        error_prefix(err, path);
    if (ok && dense_init(&s->dense, kernels, pool, 4096, err))
        return true;
    stats_close(s);
    return false;
}

void stats_close(struct stats *s)
{
    if (s->dense.scratch)
        dense_free(&s->dense);
    gguf_close(&s->file);
    memset(s, 0, sizeof *s);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

size_t stats_experts(const struct stats *s, struct gguf_string name)
{
    struct entry e;
    struct sizes z;
    return find_entry(s, name, &e) && find_sizes(s, &e, &z) ? z.experts : 0;
}

double stats_tokens(const struct stats *s, struct gguf_string name, size_t expert, enum stats_part part)
{
    struct entry e;
    struct sizes z;
    float count;
    if (!find_entry(s, name, &e) || !find_sizes(s, &e, &z) || expert >= z.experts)
        return 0;
    memcpy(&count, find_piece(s, &e, "tokens", false)->data + (part * z.experts + expert) * sizeof count, sizeof count);
    return count > 0 ? count : 0;
}

/* A file of many gigabytes shall not fill the memory of its reader. */
static void forget(const struct stats *s, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < s->file.part_count; i++)
        map_forget(&s->file.parts[i], data, bytes);
}

static void expand(float *h, const uint8_t *triangle, size_t n)
{
    for (size_t i = 0; i < n; i++)
        memcpy(h + i * n, triangle + hessian_size(i) * sizeof *h, (i + 1) * sizeof *h);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++)
            h[i * n + j] = h[j * n + i];
}

/* The second moments of the held-out tokens are made from the tokens: those are fewer than the columns, as a rule. */
static bool held_moments(struct stats *s, const struct sizes *z, const uint8_t *x, const uint8_t *weights, double tokens, float *h)
{
    struct quern_error err;
    struct hessian_work work;
    size_t stride = dense_stride(z->cols), n = 0;
    float *rows = mem_take_aligned(z->held, stride * sizeof *rows, "held-out inputs", &err);
    float *weight = rows ? mem_take(z->held, sizeof *weight, "held-out inputs", &err) : NULL;
    uint8_t *triangle = weight ? mem_take(hessian_size(z->cols), sizeof(float), "second moments", &err) : NULL;
    bool ok = triangle && hessian_work_init(&work, &s->dense, z->cols, z->held, &err);
    for (size_t t = 0; ok && t < z->held; t++) {
        memcpy(&weight[n], weights + t * sizeof *weight, sizeof *weight);
        if (!(weight[n] > 0))
            continue;
        weight[n] /= (float)tokens;
        memcpy(rows + n * stride, x + t * z->cols * sizeof *rows, z->cols * sizeof *rows);
        memset(rows + n * stride + z->cols, 0, (stride - z->cols) * sizeof *rows);
        n++;
    }
    if (ok) {
        hessian_inputs(&work, rows, z->cols, n);
        hessian_add(&work, (float *)(void *)triangle, weight);
        expand(h, triangle, z->cols);
        hessian_work_free(&work);
    }
    free(rows);
    free(weight);
    free(triangle);
    return ok && n > 0;
}

bool stats_hessian(struct stats *s, struct gguf_string name, size_t expert, enum stats_part part, bool guided, float *h, size_t n)
{
    struct entry e;
    struct sizes z;
    double tokens = stats_tokens(s, name, expert, part);
    if (tokens == 0 || (guided && !s->guided) || !find_entry(s, name, &e) || !find_sizes(s, &e, &z) || z.cols != n)
        return false;
    if (part == STATS_HELD) {
        const struct gguf_tensor *x = find_piece(s, &e, "x_held", false);
        const struct gguf_tensor *w = guided ? find_piece(s, &e, "wg_held", true) : find_piece(s, &e, "w_held", false);
        bool ok = held_moments(s, &z, x->data, w->data + expert * z.held * sizeof(float), tokens, h);
        forget(s, x->data, x->bytes);
        return ok;
    }
    const struct gguf_tensor *t = guided ? find_piece(s, &e, "hg", true) : find_piece(s, &e, "h", false);
    size_t bytes = hessian_size(n) * sizeof *h;
    expand(h, t->data + expert * bytes, n);
    forget(s, t->data + expert * bytes, bytes);
    return true;
}

bool stats_diagonal(const struct stats *s, struct gguf_string name, size_t expert, bool guided, float *d, size_t n)
{
    struct entry e;
    struct sizes z;
    if (stats_tokens(s, name, expert, STATS_FIT) == 0 || (guided && !s->guided) || !find_entry(s, name, &e) ||
        !find_sizes(s, &e, &z) || z.cols != n)
        return false;
    const struct gguf_tensor *t = guided ? find_piece(s, &e, "hg", true) : find_piece(s, &e, "h", false);
    for (size_t i = 0; i < n; i++)
        memcpy(&d[i], t->data + (expert * hessian_size(n) + hessian_size(i) + i) * sizeof *d, sizeof *d);
    return true;
}

bool stats_gradient(const struct stats *s, struct gguf_string name, size_t expert, float *g, size_t rows)
{
    struct entry e;
    struct sizes z;
    double tokens = stats_tokens(s, name, expert, STATS_FIT);
    if (!s->guided || tokens == 0 || !find_entry(s, name, &e) || !find_sizes(s, &e, &z) || z.rows != rows)
        return false;
    struct quern_error err;
    double *sum = mem_take(rows, sizeof *sum, "sums", &err);
    for (size_t c = 0; sum && c < s->calls; c++) {
        const uint8_t *from = find_gradients(s, c)->data + (z.first + expert * rows) * sizeof *g;
        for (size_t r = 0; r < rows; r++) {
            float value;
            memcpy(&value, from + r * sizeof value, sizeof value);
            sum[r] += value;
        }
    }
    for (size_t r = 0; sum && r < rows; r++)
        g[r] = (float)(sum[r] / tokens);
    free(sum);
    return sum != NULL;
}
