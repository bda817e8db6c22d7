/* Scores against a tile of keys, sums over a tile of values, for each type of cache. */
#include "kernels_check.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[KV_TYPES] = { "F32", "F16", "BF16", "Q8_0", "Q4_0" };
static const size_t dims[] = { 1, 2, 7, 15, 16, 17, 31, 33, 48, 80, 100, 32, 64, 96, 128, 160, 256 };
static const size_t block_dims[] = { 32, 64, 96, 128, 160, 256 };
static const size_t lengths[] = { 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64 };

struct tile {
    size_t head_dim, nq, nk, stride;
    char  *rows;                       /* [nk][stride] bytes, the last row ends at an unmapped page */
    float *values;                     /* [nk][head_dim], decoded                                   */
};

static bool blocked(enum kv_type type)
{
    return type == KV_Q8_0 || type == KV_Q4_0;
}

static struct tile make_tile(struct check *c, enum kv_type type, size_t turn, enum fill quants, enum fill scales)
{
    struct tile t = { .nq = 1 + turn % 9, .nk = lengths[turn % 12] };
    const struct format *format = format_find(kv_format(type));
    t.head_dim = blocked(type) ? block_dims[turn % 6] : dims[turn % 17];
    size_t bytes = kv_row_bytes(type, t.head_dim);
    t.stride = bytes + turn % 4 * (format->block == 1 ? format->bytes : 2);
    t.rows = guard_alloc(c, t.nk * t.stride - (t.stride - bytes));
    t.values = malloc(t.nk * t.head_dim * sizeof *t.values);
    for (size_t k = 0; k < t.nk; k++) {
        fill_blocks(c, t.rows + k * t.stride, format, t.head_dim / format->block, quants, scales);
        c->ref->dequantize[kv_format(type)].fn(t.values + k * t.head_dim, t.rows + k * t.stride, t.head_dim);
    }
    check_shape(c, "head_dim %zu, %zu queries, %zu keys, stride %zu, quants %s, scales %s", t.head_dim, t.nq, t.nk, t.stride,
                fill_names[quants], fill_names[scales]);
    return t;
}

static void compare_scores(struct check *c, enum kv_type type, size_t turn, enum fill queries, enum fill quants, enum fill scales)
{
    struct tile t = make_tile(c, type, turn, quants, scales);
    attn_scores_fn *fn = c->table->attn_scores[type].fn;
    size_t q_stride = t.head_dim + turn % 3, q_size = (t.nq - 1) * q_stride + t.head_dim, n = (t.nq - 1) * ATTN_TILE + t.nk;
    float *q = guard_alloc(c, q_size * sizeof *q), *scores = guard_alloc(c, n * sizeof *q);
    float *single = guard_alloc(c, t.nk * sizeof *q);
    float scale = 1 / sqrtf((float)t.head_dim);
    fill_floats(c, q, q_size, queries);
    fn(scores, q, q_stride, t.nq, t.rows, t.stride, t.nk, t.head_dim, scale);
    for (size_t i = 0; i < t.nq; i++) {
        for (size_t k = 0; k < t.nk; k++) {
            double sum = 0, terms = 0;
            for (size_t j = 0; j < t.head_dim; j++) {
                double term = (double)q[i * q_stride + j] * t.values[k * t.head_dim + j];
                sum += term;
                terms += fabs(term);
            }
            check_value(c, i * ATTN_TILE + k, scores[i * ATTN_TILE + k], scale * sum,
                        scale * terms * ((double)t.head_dim + 2) * FLT_EPSILON + (double)t.head_dim * FLT_MIN);
        }
        if (i + 1 < t.nq)
            check_untouched(c, scores, i * ATTN_TILE + t.nk, (i + 1) * ATTN_TILE);
        fn(single, q + i * q_stride, q_stride, 1, t.rows, t.stride, t.nk, t.head_dim, scale);
        check_floats(c, single, scores + i * ATTN_TILE, t.nk);
    }
    free(t.values);
    guard_release(c);
}

static void compare_mix(struct check *c, enum kv_type type, size_t turn, enum fill weights, enum fill quants, enum fill scales)
{
    struct tile t = make_tile(c, type, turn, quants, scales);
    attn_mix_fn *fn = c->table->attn_mix[type].fn;
    size_t out_stride = t.head_dim + turn % 3, n = (t.nq - 1) * out_stride + t.head_dim, n_probs = (t.nq - 1) * ATTN_TILE + t.nk;
    float *probs = guard_alloc(c, n_probs * sizeof *probs), *out = guard_alloc(c, n * sizeof *out);
    float *old = guard_alloc(c, n * sizeof *out), *single = guard_alloc(c, t.head_dim * sizeof *out);
    fill_floats(c, probs, n_probs, weights);
    for (size_t i = 0; i < t.nq; i++)
        fill_floats(c, old + i * out_stride, t.head_dim, FILL_RANDOM);
    memcpy(out, old, n * sizeof *out);
    fn(out, out_stride, probs, t.nq, t.rows, t.stride, t.nk, t.head_dim);
    for (size_t i = 0; i < t.nq; i++) {
        const float *before = old + i * out_stride, *after = out + i * out_stride;
        for (size_t j = 0; j < t.head_dim; j++) {
            double sum = before[j], terms = fabs(sum);
            for (size_t k = 0; k < t.nk; k++) {
                double term = (double)probs[i * ATTN_TILE + k] * t.values[k * t.head_dim + j];
                sum += term;
                terms += fabs(term);
            }
            check_value(c, i * out_stride + j, after[j], sum, (terms + FLT_MIN) * ATTN_TILE * FLT_EPSILON + ATTN_TILE * FLT_MIN);
        }
        if (i + 1 < t.nq)
            check_untouched(c, out, i * out_stride + t.head_dim, (i + 1) * out_stride);
        memcpy(single, before, t.head_dim * sizeof *single);
        fn(single, out_stride, probs + i * ATTN_TILE, 1, t.rows, t.stride, t.nk, t.head_dim);
        check_floats(c, single, after, t.head_dim);
    }
    free(t.values);
    guard_release(c);
}

static void check_type(struct check *c, enum kv_type type, bool mix, bool verbose)
{
    check_begin(c, mix ? "attn_mix" : "attn_scores", type_names[type]);
    size_t turn = random_size(c, 0, 100);
    for (enum fill quants = 0; quants < FILL_KINDS; quants++)
        for (enum fill floats = 0; floats < FILL_KINDS; floats++, turn++) {
            enum fill scales = (enum fill)((quants + 3 * floats) % FILL_KINDS);
            mix ? compare_mix(c, type, turn, floats, quants, scales) : compare_scores(c, type, turn, floats, quants, scales);
        }
    check_finish(c, verbose);
}

size_t check_attention(struct check *c, const struct kernels *below, bool verbose)
{
    size_t slots = 0;
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        if (!below || below->attn_scores[type].fn != c->table->attn_scores[type].fn)
            slots++, check_type(c, type, false, verbose);
        if (!below || below->attn_mix[type].fn != c->table->attn_mix[type].fn)
            slots++, check_type(c, type, true, verbose);
    }
    return slots;
}
