/* lanes_avx512.h - rows to lanes: vectors of several rows folded to their sums, and small matrices turned, on AVX-512. */
#ifndef QUERN_LANES_AVX512_H
#define QUERN_LANES_AVX512_H

#include <immintrin.h>

#include <stdbool.h>
#include <stdint.h>

#include "inline.h"

/* ---- sums ---- */

/* In each 128-bit lane: the sums of a, b, c, d's four dwords. */
static ALWAYS_INLINE __m512i sum_lanes(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* [a's low half + a's high half | the same of b] */
static ALWAYS_INLINE __m512i fold_halves(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
}

/* [a0 + a1, a2 + a3, b0 + b1, b2 + b3] of 128-bit lanes */
static ALWAYS_INLINE __m512i fold_pairs(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* Four rows' vectors to one, whose lanes of 128 bits are the rows. With rows i, 4 + i, 8 + i, 12 + i in quad[i], sum_lanes then
 * puts all sixteen in order. */
static ALWAYS_INLINE __m512i fold_four(__m512i a, __m512i b, __m512i c, __m512i d)
{
    return fold_pairs(fold_halves(a, b), fold_halves(c, d));
}

/* Sixteen rows' vectors to the vector of their sums. */
static ALWAYS_INLINE __m512i sum_16_rows(const __m512i *rows)
{
    __m512i quad[4];
    for (int i = 0; i < 4; i++)
        quad[i] = fold_four(rows[i], rows[4 + i], rows[8 + i], rows[12 + i]);
    return sum_lanes(quad[0], quad[1], quad[2], quad[3]);
}

/* ---- matrices ---- */

/* In each 128-bit lane: dword j of in[i] becomes dword i of out[j]. */
static ALWAYS_INLINE void transpose_4x4(__m512i out[4], const __m512i in[4])
{
    __m512i a = _mm512_unpacklo_epi32(in[0], in[1]), b = _mm512_unpackhi_epi32(in[0], in[1]);
    __m512i c = _mm512_unpacklo_epi32(in[2], in[3]), d = _mm512_unpackhi_epi32(in[2], in[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

/* v[i] lane j becomes v[j] lane i, lanes of 32 bits. */
static ALWAYS_INLINE void transpose_16x16(__m512i v[16])
{
    UNROLL_ALL
    for (int i = 0; i < 4; i++)              /* v[4i + s]: dwords s, 4 + s, 8 + s, 12 + s of rows 4i to 4i + 3 */
        transpose_4x4(v + 4 * i, v + 4 * i);
    UNROLL_ALL
    for (int s = 0; s < 4; s++) {
        __m512i p = _mm512_shuffle_i32x4(v[s], v[4 + s], 0x88), q = _mm512_shuffle_i32x4(v[s], v[4 + s], 0xdd);
        __m512i u = _mm512_shuffle_i32x4(v[8 + s], v[12 + s], 0x88), w = _mm512_shuffle_i32x4(v[8 + s], v[12 + s], 0xdd);
        v[s] = _mm512_shuffle_i32x4(p, u, 0x88);
        v[4 + s] = _mm512_shuffle_i32x4(q, w, 0x88);
        v[8 + s] = _mm512_shuffle_i32x4(p, u, 0xdd);
        v[12 + s] = _mm512_shuffle_i32x4(q, w, 0xdd);
    }
}

/* in[r]: 8 floats of row r; out[s]: lane r is in[r][s]. */
static ALWAYS_INLINE void transpose_16x8(__m512 out[8], const float in[16][8])
{
    __m512 a[8], b[8];
    for (int i = 0; i < 8; i++)              /* row i in the lower half, row 8 + i in the upper */
        a[i] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_load_ps(in[i])), _mm256_load_ps(in[8 + i]), 1);
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {            /* a[4i + s]: dwords s and 4 + s of rows 4i to 4i + 3 (and 8 more) */
        a[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[4 * i]), _mm512_castps_pd(b[4 * i + 2])));
        a[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[4 * i]), _mm512_castps_pd(b[4 * i + 2])));
        a[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[4 * i + 1]), _mm512_castps_pd(b[4 * i + 3])));
        a[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[4 * i + 1]), _mm512_castps_pd(b[4 * i + 3])));
    }
    for (int s = 0; s < 4; s++) {
        /* 128-bit lanes: a[s] = rows 0-3 s, rows 0-3 4+s, rows 8-11 s, rows 8-11 4+s; a[4 + s] the same of rows 4-7, 12-15 */
        __m512 low = _mm512_shuffle_f32x4(a[s], a[4 + s], 0x88), high = _mm512_shuffle_f32x4(a[s], a[4 + s], 0xdd);
        out[s] = _mm512_shuffle_f32x4(low, low, 0xd8);
        out[4 + s] = _mm512_shuffle_f32x4(high, high, 0xd8);
    }
}

/* Exponents e as the upper halves of floats that are half of 2^(e - 127); 0 and 1 give subnormals. */
static ALWAYS_INLINE __m512i e8m0_words(__m512i e)
{
    __m512i normal = _mm512_slli_epi16(_mm512_sub_epi16(e, _mm512_set1_epi16(1)), 7);
    return _mm512_mask_sllv_epi16(normal, _mm512_cmplt_epu16_mask(e, _mm512_set1_epi16(2)), _mm512_set1_epi16(0x20), e);
}

static ALWAYS_INLINE __m512 floats_of_words(__m256i words, bool upper_halves)
{
    return upper_halves ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)) : _mm512_cvtph_ps(words);
}

/* Sixteen rows' eight codes, row r at r % 4 * 4 + r / 4, to floats; out[s]: lane r is row r's s-th. */
static ALWAYS_INLINE void columns_of_codes(__m512 out[8], const uint16_t codes[16][8], bool exponents)
{
    const __m512i evens = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    __m512i v[4], a[4];
    for (int i = 0; i < 4; i++) {            /* lane j: row 4 j + i */
        v[i] = _mm512_load_si512(codes[4 * i]);
        v[i] = exponents ? e8m0_words(v[i]) : v[i];
    }
    for (int i = 0; i < 2; i++) {
        a[2 * i] = _mm512_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {            /* v[t]: 64 bits are the 2 t-th and (2 t + 1)-th words of four rows */
        v[2 * i] = _mm512_unpacklo_epi32(a[i], a[2 + i]);
        v[2 * i + 1] = _mm512_unpackhi_epi32(a[i], a[2 + i]);
    }
    for (int t = 0; t < 4; t++) {
        v[t] = _mm512_permutexvar_epi64(evens, v[t]);
        out[2 * t] = floats_of_words(_mm512_castsi512_si256(v[t]), exponents);
        out[2 * t + 1] = floats_of_words(_mm512_extracti64x4_epi64(v[t], 1), exponents);
    }
}

#endif
