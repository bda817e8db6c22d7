#include "x86.h"

#include "tile16.h"
#include "vector_avx2.h"

/* Attention over a tile of 14-bit integers (tile16.h) on AVX2: vpmaddwd and an addition for 16 products, as many as two FMAs do,
 * but nothing has to be widened or turned. Two queries at a time by the two vectors of sixteen keys, or by 32 columns of values.
 * Queries and rows are rounded by the reference: that is done once per query or row, this once per pair of them. */

static ALWAYS_INLINE __m256i pair_of(const void *at)
{
    int32_t pair;
    memcpy(&pair, at, sizeof pair);
    return _mm256_set1_epi32(pair);
}

static ALWAYS_INLINE __m256i add_products(__m256i acc, __m256i a, __m256i b)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
}

/* Ask for the line in this one's place in the next tile, which need not exist, into the second-level cache: the first queries of
 * a call do, for keys and values that come from memory or, in a prefill, from the third level. */
static ALWAYS_INLINE void ask_next(const char *at, size_t head_dim)
{
    _mm_prefetch((const char *)((uintptr_t)at + ATTN_TILE * (2 * head_dim + sizeof(float))), _MM_HINT_T1);
}

/* `queries` queries by the sixteen keys from t on, a multiple of 16. */
static ALWAYS_INLINE void score_block(float *scores, const float *q, size_t q_stride, const char *tile, size_t t, size_t nk,
                                      size_t head_dim, float scale, int queries, bool ahead)
{
    const char *keys = tile + 2 * head_dim * t;
    __m256 sum[4] = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (size_t c = 0; c < head_dim; c += RUN) {
        size_t end = head_dim - c < RUN ? head_dim : c + RUN;
        __m256i acc[4] = { _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256() };
        for (size_t at = c; at < end; at += 2) {
            __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(keys + 32 * at));
            __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(keys + 32 * at + 32));
            if (ahead)
                ask_next(keys + 32 * at, head_dim);
            UNROLL_ALL
            for (int i = 0; i < queries; i++) {
                __m256i value = pair_of((const char *)(q + (size_t)i * q_stride) + 2 * at);
                acc[2 * i] = add_products(acc[2 * i], low, value);
                acc[2 * i + 1] = add_products(acc[2 * i + 1], high, value);
            }
        }
        UNROLL_ALL
        for (int i = 0; i < 2 * queries; i++)
            sum[i] = _mm256_add_ps(sum[i], _mm256_cvtepi32_ps(acc[i]));
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++) {
        float query_scale;
        memcpy(&query_scale, (const char *)(q + (size_t)i * q_stride) + 2 * head_dim, sizeof query_scale);
        UNROLL_ALL
        for (size_t j = 0; j < 2; j++) {
            size_t key = t + 8 * j;
            __m256 key_scale = _mm256_loadu_ps(tile16_const_scales(tile, head_dim) + key);
            __m256 both = _mm256_mul_ps(_mm256_set1_ps(query_scale * scale), key_scale);
            if (key < nk)
                store_8(scores + i * ATTN_TILE + key, _mm256_mul_ps(sum[2 * i + (int)j], both), nk - key);
        }
    }
}

void attn_scores_i16_avx2(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                          size_t head_dim, float scale)
{
    size_t i = nq < 2 ? 0 : 2;
    (void)k_stride;
    for (size_t t = 0; i > 0 && t < nk; t += 16)
        score_block(scores, q, q_stride, k, t, nk, head_dim, scale, 2, true);
    for (; i + 2 <= nq; i += 2)
        for (size_t t = 0; t < nk; t += 16)
            score_block(scores + i * ATTN_TILE, q + i * q_stride, q_stride, k, t, nk, head_dim, scale, 2, false);
    for (size_t t = 0; i < nq && t < nk; t += 16)
        score_block(scores + i * ATTN_TILE, q + i * q_stride, q_stride, k, t, nk, head_dim, scale, 1, i == 0);
}

/* The weights of one query times the rows' scales as integers, two tokens beside each other; gives the factor for the sums. The
 * order of bits of |x| is that of the numbers, with Inf and NaN above all. */
static float round_weights(int16_t *to, const float *probs, const float *value_scale, size_t nk)
{
    __m256 weight[8];
    __m256i most = _mm256_setzero_si256();
    for (size_t i = 0; i < 8; i++) {
        size_t left = 8 * i < nk ? nk - 8 * i : 0;
        /* Rows beyond nk are masked off last: 0 times their scale might be NaN. */
        weight[i] = _mm256_mul_ps(load_8(probs + (left ? 8 * i : 0), left), _mm256_loadu_ps(value_scale + 8 * i));
        weight[i] = _mm256_and_ps(weight[i], _mm256_castsi256_ps(lanes_8(left)));
        __m256i bits = _mm256_and_si256(_mm256_castps_si256(weight[i]), _mm256_set1_epi32(INT32_MAX));
        most = _mm256_max_epu32(most, bits);
    }
    __m128i half = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    half = _mm_max_epu32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epu32(half, _mm_shuffle_epi32(half, 0xb1));
    uint32_t bits = (uint32_t)_mm_cvtsi128_si32(half);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    bool none = bits >= 0x7f800000 || largest < 0x1p-100f;
    float factor = none ? 0 : PROB_MOST / largest;
    for (size_t i = 0; i < 8; i += 2) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(weight[i], _mm256_set1_ps(factor)));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(weight[i + 1], _mm256_set1_ps(factor)));
        __m256i q = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(to + 8 * i), none ? _mm256_setzero_si256() : q);
    }
    return bits >= 0x7f800000 ? NAN : none ? 0 : largest / PROB_MOST;
}

/* `queries` queries by 8 * vectors columns from c on. */
static ALWAYS_INLINE void mix_block(float *out, size_t out_stride, const int16_t *weights, const float *scale, const char *tile,
                                    size_t c, size_t nk, size_t head_dim, int queries, int vectors, bool ahead)
{
    __m256i acc[8];
    UNROLL_ALL
    for (int i = 0; i < queries * vectors; i++)
        acc[i] = _mm256_setzero_si256();
    for (size_t t = 0; t < nk; t += 2) {
        const char *row = tile + 2 * t * head_dim + 4 * c;
        __m256i weight[2];
        UNROLL_ALL
        for (int i = 0; i < queries; i++)
            weight[i] = pair_of(weights + i * ATTN_TILE + (int)t);
        UNROLL_ALL
        for (int j = 0; j < vectors; j++) {
            __m256i value = _mm256_loadu_si256((const __m256i *)(const void *)(row + 32 * (size_t)j));
            if (ahead && j % 2 == 0)
                ask_next(row + 32 * (size_t)j, head_dim);
            UNROLL_ALL
            for (int i = 0; i < queries; i++)
                acc[i * vectors + j] = add_products(acc[i * vectors + j], value, weight[i]);
        }
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < vectors; j++) {
            float *to = out + (size_t)i * out_stride + c + 8 * j;
            _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[i * vectors + j]), _mm256_set1_ps(scale[i]),
                                                 _mm256_loadu_ps(to)));
        }
}

static ALWAYS_INLINE void mix_queries(float *out, size_t out_stride, const float *probs, const void *v, size_t nk, size_t head_dim,
                                      int queries, bool ahead)
{
    int16_t weights[2 * ATTN_TILE];
    float scale[2];
    size_t c = 0;
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        scale[i] = round_weights(weights + i * ATTN_TILE, probs + i * ATTN_TILE, tile16_const_scales(v, head_dim), nk);
    for (; c + 32 <= head_dim; c += 32)
        mix_block(out, out_stride, weights, scale, v, c, nk, head_dim, queries, 4, ahead);
    if (c < head_dim)
        mix_block(out, out_stride, weights, scale, v, c, nk, head_dim, queries, 2, ahead);
}

void attn_mix_i16_avx2(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                       size_t head_dim)
{
    size_t i = nq < 2 ? 0 : 2;
    (void)v_stride;
    if (i > 0)
        mix_queries(out, out_stride, probs, v, nk, head_dim, 2, true);
    for (; i + 2 <= nq; i += 2)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, nk, head_dim, 2, false);
    if (i < nq)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, nk, head_dim, 1, i == 0);
}
