#include "x86.h"

#include "vector_avx512.h"

#include <string.h>

/* Attention over a tile of at most 64 keys on AVX-512; rows of the cache are widened to f32 on their way into registers.
 *
 * Scores: lane l of 16 adds columns l, 16 + l, ... by FMA, then the tree of sum_16_vectors, for any number of queries: 16 keys by
 * one query or 4 by 4. Mix: every value adds the tile's keys in order by FMA. */

/* Values c to c + 15 of a row, c a multiple of 16; those beyond the mask are zero (never in Q8_0 and Q4_0). */
static ALWAYS_INLINE __m512 load_16(const char *row, size_t c, __mmask16 mask, enum kv_type type)
{
    const uint8_t *bytes = (const uint8_t *)row;
    uint16_t half;
    __m128i q;
    switch (type) {
    case KV_F32:
        return _mm512_maskz_loadu_ps(mask, bytes + 4 * c);
    case KV_F16:
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, bytes + 2 * c));
    case KV_BF16:
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, bytes + 2 * c)), 16));
    case KV_Q8_0:
        bytes += c / 32 * 34;
        memcpy(&half, bytes, 2);
        q = _mm_loadu_si128((const __m128i *)(bytes + 2 + c % 32));
        break;
    default:
        bytes += c / 32 * 18;
        memcpy(&half, bytes, 2);
        q = _mm_loadu_si128((const __m128i *)(bytes + 2));
        q = _mm_and_si128(c % 32 ? _mm_srli_epi16(q, 4) : q, _mm_set1_epi8(15));
        q = _mm_sub_epi8(q, _mm_set1_epi8(8));
    }
    return _mm512_mul_ps(_mm512_set1_ps(_cvtsh_ss(half)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
}

/* The sums of keys by queries, index query * keys + key; sixteen in all. */
static ALWAYS_INLINE __m512 dots_16(const char *const *k, const float *const *q, size_t head_dim, int keys, int queries, enum kv_type type)
{
    __m512 acc[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        acc[i] = _mm512_setzero_ps();
    for (size_t c = 0; c < head_dim; c += 16) {
        __mmask16 mask = lanes_16(head_dim - c);
        __m512 v[4];
#pragma GCC unroll 4
        for (int i = 0; i < queries; i++)
            v[i] = _mm512_maskz_loadu_ps(mask, q[i] + c);
#pragma GCC unroll 16
        for (int t = 0; t < keys; t++) {
            __m512 u = load_16(k[t], c, mask, type);
#pragma GCC unroll 4
            for (int i = 0; i < queries; i++)
                acc[i * keys + t] = _mm512_fmadd_ps(u, v[i], acc[i * keys + t]);
        }
    }
    return sum_16_vectors(acc);
}

static ALWAYS_INLINE void scores_one(float *scores, const float *q, const char *k, size_t k_stride, size_t nk, size_t head_dim,
                                     float scale, enum kv_type type)
{
    for (size_t t = 0; t < nk; t += 16) {
        const char *row[16];
        for (size_t i = 0; i < 16; i++)
            row[i] = k + (t + i < nk ? t + i : nk - 1) * k_stride;
        __m512 sums = dots_16(row, &q, head_dim, 16, 1, type);
        _mm512_mask_storeu_ps(scores + t, lanes_16(nk - t), _mm512_mul_ps(sums, _mm512_set1_ps(scale)));
    }
}

static ALWAYS_INLINE void scores_four(float *scores, const float *q, size_t q_stride, const char *k, size_t k_stride, size_t nk,
                                      size_t head_dim, float scale, enum kv_type type)
{
    const float *query[4] = { q, q + q_stride, q + 2 * q_stride, q + 3 * q_stride };
    for (size_t t = 0; t < nk; t += 4) {
        const char *row[4];
        for (size_t i = 0; i < 4; i++)
            row[i] = k + (t + i < nk ? t + i : nk - 1) * k_stride;
        __m512 sums = _mm512_mul_ps(dots_16(row, query, head_dim, 4, 4, type), _mm512_set1_ps(scale));
        float block[16];
        _mm512_storeu_ps(block, sums);
        for (size_t i = 0; i < 4; i++)
            memcpy(scores + i * ATTN_TILE + t, block + 4 * i, (nk - t < 4 ? nk - t : 4) * sizeof *block);
    }
}

static ALWAYS_INLINE void scores_of(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                                    size_t head_dim, float scale, enum kv_type type)
{
    size_t i = 0;
    for (; i + 4 <= nq; i += 4)
        scores_four(scores + i * ATTN_TILE, q + i * q_stride, q_stride, k, k_stride, nk, head_dim, scale, type);
    for (; i < nq; i++)
        scores_one(scores + i * ATTN_TILE, q + i * q_stride, k, k_stride, nk, head_dim, scale, type);
}

void attn_scores_f32_avx512(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                            size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_F32);
}

void attn_scores_f16_avx512(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                            size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_F16);
}

void attn_scores_bf16_avx512(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                             size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_BF16);
}

void attn_scores_q8_0_avx512(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                             size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_Q8_0);
}

void attn_scores_q4_0_avx512(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                             size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_Q4_0);
}

/* `queries` queries by 16 * vectors columns from c on. */
static ALWAYS_INLINE void mix_block(float *out, size_t out_stride, const float *probs, const char *v, size_t v_stride, size_t nk, size_t c,
                                    size_t head_dim, int queries, int vectors, enum kv_type type)
{
    __m512 acc[16];
    __mmask16 mask[8];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++)
        mask[j] = c + 16 * (size_t)j < head_dim ? lanes_16(head_dim - c - 16 * (size_t)j) : 0;
#pragma GCC unroll 4
    for (int i = 0; i < queries; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            acc[i * vectors + j] = _mm512_maskz_loadu_ps(mask[j], out + (size_t)i * out_stride + c + 16 * j);
    for (size_t t = 0; t < nk; t++) {
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) {
            __m512 u = load_16(v + t * v_stride, c + 16 * (size_t)j, mask[j], type);
#pragma GCC unroll 4
            for (int i = 0; i < queries; i++)
                acc[i * vectors + j] = _mm512_fmadd_ps(_mm512_set1_ps(probs[i * ATTN_TILE + (int)t]), u, acc[i * vectors + j]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < queries; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++)
            _mm512_mask_storeu_ps(out + (size_t)i * out_stride + c + 16 * j, mask[j], acc[i * vectors + j]);
}

/* Eight vectors at a time where the row has them; Q8_0 and Q4_0 rows end at a multiple of 32, so pieces never cross their end. */
static ALWAYS_INLINE void mix_queries(float *out, size_t out_stride, const float *probs, const char *v, size_t v_stride, size_t nk,
                                      size_t head_dim, int queries, enum kv_type type)
{
    size_t c = 0;
    if (queries == 1)
        for (; c + 128 <= head_dim; c += 128)
            mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 8, type);
    for (; c + 64 <= head_dim; c += 64)
        mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 4, type);
    for (; c < head_dim; c += 16)
        mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 1, type);
}

static ALWAYS_INLINE void mix(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                              size_t head_dim, enum kv_type type)
{
    size_t i = 0;
    for (; i + 4 <= nq; i += 4)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 4, type);
    for (; i < nq; i++)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 1, type);
}

void attn_mix_f32_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                         size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F32);
}

void attn_mix_f16_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                         size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F16);
}

void attn_mix_bf16_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                          size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_BF16);
}

void attn_mix_q8_0_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                          size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_Q8_0);
}

void attn_mix_q4_0_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                          size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_Q4_0);
}
