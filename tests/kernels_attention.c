/* Scores against a tile of keys, sums over a tile of values, for each type of cache. */
#include "kernels_check.h"
#include "tile16.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    check_begin(c, mix ? "attn_mix" : "attn_scores", kv_name(type));
    size_t turn = random_size(c, 0, 100);
    for (enum fill quants = 0; quants < FILL_KINDS; quants++)
        for (enum fill floats = 0; floats < FILL_KINDS; floats++, turn++) {
            enum fill scales = (enum fill)((quants + 3 * floats) % FILL_KINDS);
            mix ? compare_mix(c, type, turn, floats, quants, scales) : compare_scores(c, type, turn, floats, quants, scales);
        }
    check_finish(c, verbose);
}

/* ---- the cache of 14-bit integers -------------------------------------------------------------------------------- */

static const size_t dims_16[] = { 16, 32, 48, 64, 80, 96, 112, 128, 160, 256 };

/* A tile of keys or values whose rows the reference has stored, every seventh time with a row that is no number. */
static void *make_tile16(struct check *c, attn_store_fn *store, size_t head_dim, size_t turn, enum fill fill)
{
    void *tile = guard_alloc(c, ATTN_TILE * kv_row_bytes(KV_I16, head_dim));
    float *x = malloc(head_dim * sizeof *x);
    for (size_t t = 0; t < ATTN_TILE; t++) {
        fill_floats(c, x, head_dim, t % 3 ? FILL_RANDOM : fill);
        if (turn % 7 == 6 && t == turn % ATTN_TILE)
            x[turn % head_dim] = turn % 2 ? NAN : INFINITY;
        store(tile, t, x, head_dim);
    }
    free(x);
    return tile;
}

/* Rounding a query and storing rows, byte for byte; what belongs to other rows of the tile stays. */
static void compare_rounding(struct check *c, size_t turn, enum fill fill)
{
    const struct kernels *k = c->table;
    size_t head_dim = dims_16[turn % 10], bytes = ATTN_TILE * kv_row_bytes(KV_I16, head_dim), index = turn * 5 % ATTN_TILE;
    float *x = guard_alloc(c, head_dim * sizeof *x), *q = guard_alloc(c, head_dim * sizeof *q);
    float *expected = guard_alloc(c, head_dim * sizeof *q);
    void *got = guard_alloc(c, bytes), *tile = guard_alloc(c, bytes);
    check_shape(c, "head_dim %zu, row %zu, values %s", head_dim, index, fill_names[fill]);
    fill_floats(c, x, head_dim, fill);
    if (turn % 7 == 6)
        x[turn % head_dim] = turn % 2 ? NAN : -INFINITY;
    memcpy(q, x, head_dim * sizeof *q);
    memcpy(expected, x, head_dim * sizeof *q);
    k->attn_query.fn(q, head_dim);
    c->ref->attn_query.fn(expected, head_dim);
    check_bytes(c, q, expected, 2 * head_dim);
    check_floats(c, q + head_dim / 2, expected + head_dim / 2, 1);
    k->attn_store_key.fn(got, index, x, head_dim);
    c->ref->attn_store_key.fn(tile, index, x, head_dim);
    check_bytes(c, got, tile, 2 * ATTN_TILE * head_dim);
    check_floats(c, tile16_scales(got, head_dim), tile16_scales(tile, head_dim), ATTN_TILE);
    k->attn_store_value.fn(got, index, x, head_dim);
    c->ref->attn_store_value.fn(tile, index, x, head_dim);
    check_bytes(c, got, tile, 2 * ATTN_TILE * head_dim);
    check_floats(c, tile16_scales(got, head_dim), tile16_scales(tile, head_dim), ATTN_TILE);
    guard_release(c);
}

static void compare_scores16(struct check *c, size_t turn, enum fill fill, enum fill queries)
{
    size_t head_dim = dims_16[turn % 10], nq = 1 + turn % 19, nk = lengths[turn % 12], q_stride = head_dim + turn % 3;
    float *q = guard_alloc(c, ((nq - 1) * q_stride + head_dim) * sizeof *q), scale = 1 / sqrtf((float)head_dim);
    float *scores = guard_alloc(c, ((nq - 1) * ATTN_TILE + nk) * sizeof *q), *single = guard_alloc(c, nk * sizeof *q);
    const int16_t *keys = make_tile16(c, c->ref->attn_store_key.fn, head_dim, turn, fill);
    check_shape(c, "head_dim %zu, %zu queries %s, %zu keys %s", head_dim, nq, fill_names[queries], nk, fill_names[fill]);
    for (size_t i = 0; i < nq; i++) {
        fill_floats(c, q + i * q_stride, head_dim, queries);
        c->ref->attn_query.fn(q + i * q_stride, head_dim);
    }
    c->table->attn_scores[KV_I16].fn(scores, q, q_stride, nq, keys, 0, nk, head_dim, scale);
    for (size_t i = 0; i < nq; i++) {
        const char *query = (const char *)(q + i * q_stride);
        for (size_t t = 0; t < nk; t++) {
            float query_scale, key_scale = tile16_const_scales(keys, head_dim)[t];
            memcpy(&query_scale, query + 2 * head_dim, sizeof query_scale);
            double sum = 0, terms = 0, unit = (double)query_scale * key_scale * scale;
            for (size_t j = 0; j < head_dim; j++) {
                int16_t value;
                memcpy(&value, query + 2 * j, sizeof value);
                sum += (double)value * keys[tile16_key(head_dim, t, j)];
                terms += fabs((double)value * keys[tile16_key(head_dim, t, j)]);
            }
            check_value(c, i * ATTN_TILE + t, scores[i * ATTN_TILE + t], unit * sum,
                        fabs(unit) * terms * (double)head_dim * FLT_EPSILON + (double)head_dim * FLT_MIN);
        }
        c->table->attn_scores[KV_I16].fn(single, q + i * q_stride, q_stride, 1, keys, 0, nk, head_dim, scale);
        check_floats(c, single, scores + i * ATTN_TILE, nk);
        if (i + 1 < nq)
            check_untouched(c, scores, i * ATTN_TILE + nk, (i + 1) * ATTN_TILE);
    }
    guard_release(c);
}

/* Against the reference, whose integers must be met exactly: beside the weights' rounding that of the sums is small. */
static void compare_mix16(struct check *c, size_t turn, enum fill fill, enum fill weights)
{
    size_t head_dim = dims_16[turn % 10], nq = 1 + turn % 19, nk = lengths[turn % 12], stride = head_dim + turn % 3;
    size_t n = (nq - 1) * stride + head_dim, n_probs = (nq - 1) * ATTN_TILE + nk;
    float *probs = guard_alloc(c, n_probs * sizeof *probs), *out = guard_alloc(c, n * sizeof *out);
    float *expected = guard_alloc(c, n * sizeof *out), *old = guard_alloc(c, n * sizeof *out);
    float *single = guard_alloc(c, head_dim * sizeof *out), *alone = guard_alloc(c, head_dim * sizeof *out);
    const void *values = make_tile16(c, c->ref->attn_store_value.fn, head_dim, turn, fill);
    check_shape(c, "head_dim %zu, %zu queries, %zu values %s, weights %s", head_dim, nq, nk, fill_names[fill], fill_names[weights]);
    fill_floats(c, probs, n_probs, weights);
    for (size_t i = 0; i < n_probs; i++)
        probs[i] = fabsf(probs[i]);
    for (size_t i = 0; i < nq; i++)
        fill_floats(c, old + i * stride, head_dim, FILL_RANDOM);
    memcpy(out, old, n * sizeof *out);
    memcpy(expected, old, n * sizeof *out);
    c->table->attn_mix[KV_I16].fn(out, stride, probs, nq, values, 0, nk, head_dim);
    c->ref->attn_mix[KV_I16].fn(expected, stride, probs, nq, values, 0, nk, head_dim);
    for (size_t i = 0; i < nq; i++) {
        /* What the tile alone adds: its magnitude is the sums' own. */
        memset(alone, 0, head_dim * sizeof *alone);
        c->ref->attn_mix[KV_I16].fn(alone, stride, probs + i * ATTN_TILE, 1, values, 0, nk, head_dim);
        for (size_t j = 0; j < head_dim; j++)
            check_value(c, i * stride + j, out[i * stride + j], expected[i * stride + j],
                        2 * FLT_EPSILON * (fabs((double)alone[j]) + fabs((double)old[i * stride + j])) + FLT_MIN);
        if (i + 1 < nq)
            check_untouched(c, out, i * stride + head_dim, (i + 1) * stride);
        memcpy(single, old + i * stride, head_dim * sizeof *single);
        c->table->attn_mix[KV_I16].fn(single, stride, probs + i * ATTN_TILE, 1, values, 0, nk, head_dim);
        check_floats(c, single, out + i * stride, head_dim);
    }
    guard_release(c);
}

enum part16 { ROUNDING, SCORES, MIX };

static void check_tile16(struct check *c, enum part16 part, bool verbose)
{
    static const char *const names[] = { "attn_query, attn_store", "attn_scores", "attn_mix" };
    check_begin(c, names[part], "I16");
    size_t turn = random_size(c, 0, 100);
    for (enum fill rows = 0; rows < FILL_KINDS; rows++)
        for (enum fill other = 0; other < FILL_KINDS; other++, turn++) {
            if (part == ROUNDING)
                compare_rounding(c, turn, rows);
            else
                part == MIX ? compare_mix16(c, turn, rows, other) : compare_scores16(c, turn, rows, other);
        }
    check_finish(c, verbose);
}

size_t check_attention(struct check *c, const struct kernels *below, bool verbose)
{
    size_t slots = 0;
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        if (!below || below->attn_scores[type].fn != c->table->attn_scores[type].fn)
            slots++, type == KV_I16 ? check_tile16(c, SCORES, verbose) : check_type(c, type, false, verbose);
        if (!below || below->attn_mix[type].fn != c->table->attn_mix[type].fn)
            slots++, type == KV_I16 ? check_tile16(c, MIX, verbose) : check_type(c, type, true, verbose);
    }
    size_t rounding = !below ? 3 : (below->attn_query.fn != c->table->attn_query.fn) +
                                   (below->attn_store_key.fn != c->table->attn_store_key.fn) +
                                   (below->attn_store_value.fn != c->table->attn_store_value.fn);
    if (rounding)
        check_tile16(c, ROUNDING, verbose);
    return slots + rounding;
}
