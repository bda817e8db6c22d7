/* attention_i16.c - the cache of 14-bit integers (tile16.h): rounding, storing, scores and sums over a tile.
 *
 * The integers are part of the contract, so everything up to them is float arithmetic in a fixed order, here as in every other
 * level; sums of them are exact, and what follows is done in double. */
#include "ref.h"
#include "tile16.h"

#include <math.h>
#include <string.h>

/* max|x| of a row, NaN where a value is no number or infinite. */
static float largest_of(const float *x, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return NAN;
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    }
    return largest;
}

/* What x is multiplied by to become integers of at most `most`, and in *scale what gives it back; 0 where nothing is to be kept. */
static float factor_of(float *scale, float largest, float most)
{
    if (isnan(largest) || largest < 0x1p-100f) {
        *scale = isnan(largest) ? NAN : 0;
        return 0;
    }
    *scale = largest / most;
    return most / largest;
}

static int rounded(float x, float factor)
{
    return factor == 0 ? 0 : (int)rintf(x * factor);   /* 0 also for the values that made the scale NaN */
}

void attn_query_ref(float *q, size_t head_dim)
{
    float scale, factor = factor_of(&scale, largest_of(q, head_dim), ROW_MOST);
    /* In place: two bytes are written where four were read, from the first value on. */
    for (size_t c = 0; c < head_dim; c++) {
        int16_t value = (int16_t)rounded(q[c], factor);
        memcpy((char *)q + 2 * c, &value, sizeof value);
    }
    memcpy((char *)q + 2 * head_dim, &scale, sizeof scale);
}

static void store(void *tile, size_t index, const float *x, size_t head_dim, size_t (*place)(size_t, size_t, size_t))
{
    int16_t *q = tile;
    float factor = factor_of(&tile16_scales(tile, head_dim)[index], largest_of(x, head_dim), ROW_MOST);
    for (size_t c = 0; c < head_dim; c++)
        q[place(head_dim, index, c)] = (int16_t)rounded(x[c], factor);
}

void attn_store_key_ref(void *tile, size_t index, const float *x, size_t head_dim)
{
    store(tile, index, x, head_dim, tile16_key);
}

void attn_store_value_ref(void *tile, size_t index, const float *x, size_t head_dim)
{
    store(tile, index, x, head_dim, tile16_value);
}

void attn_scores_i16_ref(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                         size_t head_dim, float scale)
{
    const int16_t *keys = k;
    const float *key_scale = tile16_const_scales(k, head_dim);
    (void)k_stride;
    for (size_t i = 0; i < nq; i++) {
        const char *query = (const char *)(q + i * q_stride);
        float query_scale;
        memcpy(&query_scale, query + 2 * head_dim, sizeof query_scale);
        for (size_t t = 0; t < nk; t++) {
            int64_t sum = 0;
            for (size_t c = 0; c < head_dim; c++) {
                int16_t value;
                memcpy(&value, query + 2 * c, sizeof value);
                sum += (int64_t)value * keys[tile16_key(head_dim, t, c)];
            }
            scores[i * ATTN_TILE + t] = (float)((double)sum * query_scale * key_scale[t] * scale);
        }
    }
}

void attn_mix_i16_ref(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                      size_t head_dim)
{
    const int16_t *values = v;
    const float *value_scale = tile16_const_scales(v, head_dim);
    (void)v_stride;
    for (size_t i = 0; i < nq; i++) {
        float weight[ATTN_TILE], scale;
        for (size_t t = 0; t < nk; t++)
            weight[t] = probs[i * ATTN_TILE + t] * value_scale[t];
        float factor = factor_of(&scale, largest_of(weight, nk), PROB_MOST);
        for (size_t c = 0; c < head_dim; c++) {
            int64_t sum = 0;
            for (size_t t = 0; t < nk; t++)
                sum += (int64_t)rounded(weight[t], factor) * values[tile16_value(head_dim, t, c)];
            out[i * out_stride + c] = (float)(out[i * out_stride + c] + (double)sum * scale);
        }
    }
}
