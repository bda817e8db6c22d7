#include "x86.h"

#include "vector_avx2.h"

#include <string.h>

/* Attention over a tile of at most 64 keys on AVX2; rows of the cache are widened to f32 on their way into
 * registers, or, blocks for many queries, once per call.
 *
 * Scores: lane l of 8 adds columns l, 8 + l, ... by FMA, then the tree of sum_8_vectors, for any number of queries: 8 keys by one
 * query or 4 by 2. Mix: every value adds the tile's keys in order by FMA. */

/* Values c to c + 7 of a row, c a multiple of 8; those from n on are zero (never in Q8_0 and Q4_0). */
static ALWAYS_INLINE __m256 load_values(const char *row, size_t c, size_t n, enum kv_type type)
{
    const uint8_t *bytes = (const uint8_t *)row;
    uint16_t half;
    __m128i q;
    switch (type) {
    case KV_F32:
        return load_8((const float *)(const void *)(bytes + 4 * c), n);
    case KV_F16:
        return _mm256_cvtph_ps(load_8_halves(bytes + 2 * c, n));
    case KV_BF16:
        return widen_bf16(load_8_halves(bytes + 2 * c, n));
    case KV_Q8_0:
        bytes += c / 32 * 34;
        memcpy(&half, bytes, 2);
        q = _mm_loadl_epi64((const __m128i *)(bytes + 2 + c % 32));
        break;
    default:
        bytes += c / 32 * 18;
        memcpy(&half, bytes, 2);
        q = _mm_loadl_epi64((const __m128i *)(bytes + 2 + c % 16));
        q = _mm_and_si128(c % 32 >= 16 ? _mm_srli_epi16(q, 4) : q, _mm_set1_epi8(15));
        q = _mm_sub_epi8(q, _mm_set1_epi8(8));
    }
    return _mm256_mul_ps(_mm256_set1_ps(_cvtsh_ss(half)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)));
}

/* The sums of keys by queries, index query * keys + key; eight in all. */
static ALWAYS_INLINE __m256 dots_8(const char *const *k, const float *const *q, size_t head_dim, int keys, int queries,
                                   enum kv_type type)
{
    __m256 acc[8];
    UNROLL_ALL
    for (int i = 0; i < 8; i++)
        acc[i] = _mm256_setzero_ps();
    for (size_t c = 0; c < head_dim; c += 8) {
        __m256 v[2];
        UNROLL_ALL
        for (int i = 0; i < queries; i++)
            v[i] = load_8(q[i] + c, head_dim - c);
        UNROLL_ALL
        for (int t = 0; t < keys; t++) {
            __m256 u = load_values(k[t], c, head_dim - c, type);
            UNROLL_ALL
            for (int i = 0; i < queries; i++)
                acc[i * keys + t] = _mm256_fmadd_ps(u, v[i], acc[i * keys + t]);
        }
    }
    return sum_8_vectors(acc);
}

static ALWAYS_INLINE void scores_one(float *scores, const float *q, const char *k, size_t k_stride, size_t nk, size_t head_dim,
                                     float scale, enum kv_type type)
{
    for (size_t t = 0; t < nk; t += 8) {
        const char *row[8];
        for (size_t i = 0; i < 8; i++)
            row[i] = k + (t + i < nk ? t + i : nk - 1) * k_stride;
        store_8(scores + t, _mm256_mul_ps(dots_8(row, &q, head_dim, 8, 1, type), _mm256_set1_ps(scale)), nk - t);
    }
}

static ALWAYS_INLINE void scores_two(float *scores, const float *q, size_t q_stride, const char *k, size_t k_stride, size_t nk,
                                     size_t head_dim, float scale, enum kv_type type)
{
    const float *query[2] = { q, q + q_stride };
    for (size_t t = 0; t < nk; t += 4) {
        const char *row[4];
        float block[8];
        for (size_t i = 0; i < 4; i++)
            row[i] = k + (t + i < nk ? t + i : nk - 1) * k_stride;
        _mm256_storeu_ps(block, _mm256_mul_ps(dots_8(row, query, head_dim, 4, 2, type), _mm256_set1_ps(scale)));
        for (size_t i = 0; i < 2; i++)
            memcpy(scores + i * ATTN_TILE + t, block + 4 * i, (nk - t < 4 ? nk - t : 4) * sizeof *block);
    }
}

static ALWAYS_INLINE void scores_rows(float *scores, const float *q, size_t q_stride, size_t nq, const char *k, size_t k_stride,
                                      size_t nk, size_t head_dim, float scale, enum kv_type type)
{
    size_t i = 0;
    for (; i + 2 <= nq; i += 2)
        scores_two(scores + i * ATTN_TILE, q + i * q_stride, q_stride, k, k_stride, nk, head_dim, scale, type);
    for (; i < nq; i++)
        scores_one(scores + i * ATTN_TILE, q + i * q_stride, k, k_stride, nk, head_dim, scale, type);
}

void attn_scores_f32_avx2(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                          size_t head_dim, float scale)
{
    scores_rows(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_F32);
}

/* Many queries would widen each row of blocks many times; then rows are widened to memory first, as many as half of a first-level
 * cache holds. It does not change a bit: no sum crosses from row to row, and the mix goes on where it was. With 64 queries scores
 * and mix of Q8_0 went from 33 and 47 to 56 and 89 Gop/s, of Q4_0 from 22 and 34 to 55 and 87 (heads of 64, FMA peak 118); below
 * MANY_Q8 and MANY_Q4 queries it loses, and so it does at any number for F16 and BF16, whose conversion is one step. */
enum { WIDE = 4096, MANY_Q8 = 8, MANY_Q4 = 4 };

static ALWAYS_INLINE bool pays_widening(size_t nq, size_t head_dim, enum kv_type type)
{
    return head_dim <= WIDE / 4 && ((type == KV_Q8_0 && nq >= MANY_Q8) || (type == KV_Q4_0 && nq >= MANY_Q4));
}

/* Rows' values as f32, `stride` floats from row to row, a multiple of 8. */
static ALWAYS_INLINE void widen_rows(float *out, size_t stride, const char *rows, size_t row_stride, size_t n, size_t head_dim,
                                     enum kv_type type)
{
    for (size_t t = 0; t < n; t++)
        for (size_t c = 0; c < head_dim; c += 8)
            _mm256_store_ps(out + t * stride + c, load_values(rows + t * row_stride, c, head_dim - c, type));
}

static ALWAYS_INLINE void scores_of(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                                    size_t nk, size_t head_dim, float scale, enum kv_type type)
{
    _Alignas(32) float wide[WIDE];
    const size_t stride = (head_dim + 7) / 8 * 8, most = WIDE / stride / 4 * 4;
    if (!pays_widening(nq, head_dim, type)) {
        scores_rows(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, type);
        return;
    }
    for (size_t t = 0; t < nk; t += most) {
        size_t n = nk - t < most ? nk - t : most;
        widen_rows(wide, stride, (const char *)k + t * k_stride, k_stride, n, head_dim, type);
        attn_scores_f32_avx2(scores + t, q, q_stride, nq, wide, stride * sizeof *wide, n, head_dim, scale);
    }
}

void attn_scores_f16_avx2(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                            size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_F16);
}

void attn_scores_bf16_avx2(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                             size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_BF16);
}

void attn_scores_q8_0_avx2(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                             size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_Q8_0);
}

void attn_scores_q4_0_avx2(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                             size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_Q4_0);
}

/* `queries` queries by 8 * vectors columns from c on; only a single vector may cross the row's end. */
static ALWAYS_INLINE void mix_block(float *out, size_t out_stride, const float *probs, const char *v, size_t v_stride, size_t nk,
                                    size_t c, size_t head_dim, int queries, int vectors, enum kv_type type)
{
    __m256 acc[8];
    const size_t n = vectors == 1 ? head_dim - c : 8;
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < vectors; j++)
            acc[i * vectors + j] = load_8(out + (size_t)i * out_stride + c + 8 * j, n);
    for (size_t t = 0; t < nk; t++) {
        UNROLL_ALL
        for (int j = 0; j < vectors; j++) {
            __m256 u = load_values(v + t * v_stride, c + 8 * (size_t)j, n, type);
            UNROLL_ALL
            for (int i = 0; i < queries; i++)
                acc[i * vectors + j] = _mm256_fmadd_ps(_mm256_set1_ps(probs[i * ATTN_TILE + (int)t]), u, acc[i * vectors + j]);
        }
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < vectors; j++)
            store_8(out + (size_t)i * out_stride + c + 8 * j, acc[i * vectors + j], n);
}

static ALWAYS_INLINE void mix_queries(float *out, size_t out_stride, const float *probs, const char *v, size_t v_stride, size_t nk,
                                      size_t head_dim, int queries, enum kv_type type)
{
    size_t c = 0;
    if (queries == 1)
        for (; c + 64 <= head_dim; c += 64)
            mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 8, type);
    for (; c + 32 <= head_dim; c += 32)
        mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 4, type);
    for (; c < head_dim; c += 8)
        mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 1, type);
}

static ALWAYS_INLINE void mix_rows(float *out, size_t out_stride, const float *probs, size_t nq, const char *v, size_t v_stride,
                                   size_t nk, size_t head_dim, enum kv_type type)
{
    size_t i = 0;
    for (; i + 2 <= nq; i += 2)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 2, type);
    for (; i < nq; i++)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 1, type);
}

void attn_mix_f32_avx2(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                       size_t head_dim)
{
    mix_rows(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F32);
}

static ALWAYS_INLINE void mix(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                              size_t nk, size_t head_dim, enum kv_type type)
{
    _Alignas(32) float wide[WIDE];
    const size_t stride = (head_dim + 7) / 8 * 8, most = WIDE / stride / 4 * 4;
    if (!pays_widening(nq, head_dim, type)) {
        mix_rows(out, out_stride, probs, nq, v, v_stride, nk, head_dim, type);
        return;
    }
    for (size_t t = 0; t < nk; t += most) {
        size_t n = nk - t < most ? nk - t : most;
        widen_rows(wide, stride, (const char *)v + t * v_stride, v_stride, n, head_dim, type);
        attn_mix_f32_avx2(out, out_stride, probs + t, nq, wide, stride * sizeof *wide, n, head_dim);
    }
}

void attn_mix_f16_avx2(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                         size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F16);
}

void attn_mix_bf16_avx2(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                          size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_BF16);
}

void attn_mix_q8_0_avx2(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                          size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_Q8_0);
}

void attn_mix_q4_0_avx2(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                          size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_Q4_0);
}
