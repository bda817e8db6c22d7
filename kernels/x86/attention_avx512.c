#include "x86.h"

#include "vector_avx512.h"

#include <string.h>

/* Attention over a tile of at most 64 keys on AVX-512, in f32.
 *
 * Scores: a piece of the keys is widened and turned once per call, column after column with the keys in the lanes, and serves
 * blocks of six queries; every score adds its columns in order by FMA, for four queries and fewer from registers. Mix: every value
 * adds the tile's keys in order by FMA; for many queries the values are widened once per call, for few on their way into
 * registers. Both are FMA-bound from six queries on.
 *
 * The bf16 dot product would do twice the work per instruction. It was measured (bench/results/2026-11-21-depth.md) and is not
 * used: rounding queries and keys to 8 bits moved the distributions of a small model by 2e-4 nats, twenty times what an F16
 * cache costs. What is twice as fast and finer than F16 is a cache of 14-bit integers: attention_i16_avx512.c. */

/* Columns that are widened at a time: with 64 keys 16 KiB, half of a first-level cache. FEW: queries up to which the mix widens on
 * the way. */
enum { PIECE = 64, FEW = 6 };

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

/* The row that stands in this one's place in the next tile, where rows follow each other closely. */
static ALWAYS_INLINE void prefetch_row(const char *row, size_t stride)
{
    for (size_t i = 0; i < stride && i < 512; i += 64)
        prefetch_line(row + i, ATTN_TILE * stride);
}

/* v[i] becomes column i of the sixteen rows: 4 by 4 within each quarter of a vector, then the quarters. */
static ALWAYS_INLINE void transpose_16(__m512 *v)
{
    __m512 t[16];
    UNROLL_ALL
    for (int i = 0; i < 16; i += 4) {
        __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1]));
        __m512d cd = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3]));
        __m512d ef = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
        __m512d gh = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ef, gh));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ef, gh));
    }
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {
        __m512 a = _mm512_shuffle_f32x4(t[i], t[4 + i], 0x88), b = _mm512_shuffle_f32x4(t[i], t[4 + i], 0xdd);
        __m512 c = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0x88), d = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0xdd);
        v[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        v[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
        v[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
        v[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

/* Columns c to c + n of the keys, n <= PIECE, as f32: keys[column * ATTN_TILE + key]. Keys from nk on to the next multiple of 16
 * repeat the last; columns to the next multiple of 16 are zero. */
static ALWAYS_INLINE void turn_keys(float *keys, const char *k, size_t k_stride, size_t nk, size_t c, size_t n, enum kv_type type)
{
    for (size_t t = 0; t < nk; t += 16)
        for (size_t at = 0; at < n; at += 16) {
            __mmask16 mask = lanes_16(n - at);
            __m512 v[16];
            for (size_t i = 0; c + at == 0 && i < 16; i++)
                prefetch_row(k + (t + i) * k_stride, k_stride);
            UNROLL_ALL
            for (size_t i = 0; i < 16; i++)
                v[i] = load_16(k + (t + i < nk ? t + i : nk - 1) * k_stride, c + at, mask, type);
            transpose_16(v);
            UNROLL_ALL
            for (size_t i = 0; i < 16; i++)
                _mm512_store_ps(keys + (at + i) * ATTN_TILE + t, v[i]);
        }
}

/* A piece of the columns by all keys, added to the sums that stand in `scores`; *scale follows the last piece. Per column 4 loads
 * of keys and a broadcast per query feed 4 FMAs per query: with six queries the FMA ports are the limit. */
static ALWAYS_INLINE void score_queries(float *scores, const float *q, size_t q_stride, const float *keys, size_t nk, size_t n,
                                        bool first, const float *scale, int queries)
{
    __m512 acc[24];
    __mmask16 mask[4];
    UNROLL_ALL
    for (size_t j = 0; j < 4; j++)
        mask[j] = 16 * j < nk ? lanes_16(nk - 16 * j) : 0;
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < 4; j++)
            acc[4 * i + j] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask[j], scores + i * ATTN_TILE + 16 * j);
    for (size_t c = 0; c < n; c++) {
        __m512 key[4];
        UNROLL_ALL
        for (size_t j = 0; j < 4; j++)
            key[j] = _mm512_load_ps(keys + c * ATTN_TILE + 16 * j);
        UNROLL_ALL
        for (int i = 0; i < queries; i++) {
            __m512 value = _mm512_set1_ps(q[(size_t)i * q_stride + c]);
            UNROLL_ALL
            for (int j = 0; j < 4; j++)
                acc[4 * i + j] = _mm512_fmadd_ps(value, key[j], acc[4 * i + j]);
        }
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < 4; j++) {
            __m512 sum = scale ? _mm512_mul_ps(acc[4 * i + j], _mm512_set1_ps(*scale)) : acc[4 * i + j];
            _mm512_mask_storeu_ps(scores + i * ATTN_TILE + 16 * j, mask[j], sum);
        }
}

static void score_piece(float *scores, const float *q, size_t q_stride, size_t nq, const float *keys, size_t nk, size_t n,
                        bool first, const float *scale)
{
    for (; nq >= 6; nq -= 6, scores += 6 * ATTN_TILE, q += 6 * q_stride)
        score_queries(scores, q, q_stride, keys, nk, n, first, scale, 6);
    if (nq >= 4) {
        score_queries(scores, q, q_stride, keys, nk, n, first, scale, 4);
        nq -= 4, scores += 4 * ATTN_TILE, q += 4 * q_stride;
    }
    for (; nq > 0; nq--, scores += ATTN_TILE, q += q_stride)
        score_queries(scores, q, q_stride, keys, nk, n, first, scale, 1);
}

/* The same sums in the same order for so few queries that the turned keys are used from registers. */
static ALWAYS_INLINE void scores_few(float *scores, const float *q, size_t q_stride, const char *k, size_t k_stride, size_t nk,
                                     size_t head_dim, float scale, int queries, enum kv_type type)
{
    for (size_t t = 0; t < nk; t += 16) {
        __m512 acc[4];
        const char *row[16];
        for (size_t i = 0; i < 16; i++) {
            row[i] = k + (t + i < nk ? t + i : nk - 1) * k_stride;
            prefetch_row(row[i], k_stride);
        }
        UNROLL_ALL
        for (int i = 0; i < queries; i++)
            acc[i] = _mm512_setzero_ps();
        for (size_t c = 0; c < head_dim; c += 16) {
            size_t n = head_dim - c < 16 ? head_dim - c : 16;
            __m512 v[16];
            UNROLL_ALL
            for (size_t i = 0; i < 16; i++)
                v[i] = load_16(row[i], c, lanes_16(n), type);
            transpose_16(v);
            UNROLL_ALL
            for (size_t j = 0; j < 16; j++) {
                if (j >= n)
                    break;
                UNROLL_ALL
                for (int i = 0; i < queries; i++)
                    acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(q[(size_t)i * q_stride + c + j]), v[j], acc[i]);
            }
        }
        UNROLL_ALL
        for (int i = 0; i < queries; i++)
            _mm512_mask_storeu_ps(scores + i * ATTN_TILE + t, lanes_16(nk - t), _mm512_mul_ps(acc[i], _mm512_set1_ps(scale)));
    }
}

static ALWAYS_INLINE void scores_of(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                                    size_t nk, size_t head_dim, float scale, enum kv_type type)
{
    _Alignas(64) float keys[PIECE * ATTN_TILE];
    switch (nq) {
    case 1: scores_few(scores, q, q_stride, k, k_stride, nk, head_dim, scale, 1, type); return;
    case 2: scores_few(scores, q, q_stride, k, k_stride, nk, head_dim, scale, 2, type); return;
    case 3: scores_few(scores, q, q_stride, k, k_stride, nk, head_dim, scale, 3, type); return;
    case 4: scores_few(scores, q, q_stride, k, k_stride, nk, head_dim, scale, 4, type); return;
    default: break;
    }
    if (nk < ATTN_TILE)                                /* lanes that no key fills are multiplied too */
        memset(keys, 0, sizeof keys);
    for (size_t c = 0; c < head_dim; c += PIECE) {
        size_t n = head_dim - c < PIECE ? head_dim - c : PIECE;
        turn_keys(keys, k, k_stride, nk, c, n, type);
        score_piece(scores, q + c, q_stride, nq, keys, nk, n, c == 0, c + n == head_dim ? &scale : NULL);
    }
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

/* `queries` queries by 16 * vectors columns from c on, all of them there but for the end of the last vector. Eight take no mask:
 * seven registers hold masks, and with one more clang moved all of them in every turn (one query, F16: 38 instead of 58 Gop/s). */
static ALWAYS_INLINE void mix_block(float *out, size_t out_stride, const float *probs, const char *v, size_t v_stride, size_t nk,
                                    size_t c, size_t head_dim, int queries, int vectors, bool ahead, enum kv_type type)
{
    __m512 acc[24];
    __mmask16 mask[8];
    UNROLL_ALL
    for (int j = 0; j < vectors; j++)
        mask[j] = vectors == 8 ? (__mmask16)0xffff : lanes_16(head_dim - c - 16 * (size_t)j);
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < vectors; j++)
            acc[i * vectors + j] = _mm512_maskz_loadu_ps(mask[j], out + (size_t)i * out_stride + c + 16 * j);
    for (size_t t = 0; t < nk; t++) {
        if (ahead)
            prefetch_row(v + t * v_stride, v_stride);
        UNROLL_ALL
        for (int j = 0; j < vectors; j++) {
            __m512 u = load_16(v + t * v_stride, c + 16 * (size_t)j, mask[j], type);
            UNROLL_ALL
            for (int i = 0; i < queries; i++)
                acc[i * vectors + j] = _mm512_fmadd_ps(_mm512_set1_ps(probs[i * ATTN_TILE + (int)t]), u, acc[i * vectors + j]);
        }
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < vectors; j++)
            _mm512_mask_storeu_ps(out + (size_t)i * out_stride + c + 16 * j, mask[j], acc[i * vectors + j]);
}

/* Eight vectors at a time where the row has them; Q8_0 and Q4_0 rows end at a multiple of 32, so pieces never cross their end. */
static ALWAYS_INLINE void mix_queries(float *out, size_t out_stride, const float *probs, const char *v, size_t v_stride, size_t nk,
                                      size_t head_dim, int queries, bool ahead, enum kv_type type)
{
    size_t c = 0;
    if (queries == 1)
        for (; c + 128 <= head_dim; c += 128)
            mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 8, ahead && c == 0, type);
    for (; c + 64 <= head_dim; c += 64)
        mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 4, ahead && c == 0, type);
    for (; c < head_dim; c += 16)
        mix_block(out, out_stride, probs, v, v_stride, nk, c, head_dim, queries, 1, ahead && c == 0, type);
}

/* All queries, the rows as they are in memory. */
static ALWAYS_INLINE void mix_rows(float *out, size_t out_stride, const float *probs, size_t nq, const char *v, size_t v_stride,
                                   size_t nk, size_t head_dim, enum kv_type type)
{
    size_t i = 0;
    bool few = nq <= FEW;
    for (; i + 6 <= nq; i += 6)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 6, few, type);
    for (; i + 4 <= nq; i += 4)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 4, few, type);
    for (; i < nq; i++)
        mix_queries(out + i * out_stride, out_stride, probs + i * ATTN_TILE, v, v_stride, nk, head_dim, 1, few && i == 0, type);
}

static void mix_f32(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                    size_t head_dim)
{
    mix_rows(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F32);
}

static ALWAYS_INLINE void mix(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                              size_t nk, size_t head_dim, enum kv_type type)
{
    _Alignas(64) float values[ATTN_TILE * PIECE];
    if (nq <= FEW) {
        mix_rows(out, out_stride, probs, nq, v, v_stride, nk, head_dim, type);
        return;
    }
    for (size_t c = 0; c < head_dim; c += PIECE) {
        size_t n = head_dim - c < PIECE ? head_dim - c : PIECE;
        for (size_t t = 0; t < nk; t++) {
            if (c == 0)
                prefetch_row((const char *)v + t * v_stride, v_stride);
            for (size_t at = 0; at < n; at += 16)
                _mm512_store_ps(values + t * PIECE + at, load_16((const char *)v + t * v_stride, c + at, lanes_16(n - at), type));
        }
        mix_f32(out + c, out_stride, probs, nq, values, PIECE * sizeof *values, nk, n);
    }
}

void attn_mix_f32_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                         size_t head_dim)
{
    mix_f32(out, out_stride, probs, nq, v, v_stride, nk, head_dim);
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
