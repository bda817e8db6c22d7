/* pairs_avx512vbmi.h - formats with codebooks, two rows' runs of 256 columns at a time with one to four tokens: the order in which
 * values and activations meet, and the end of 16 rows' runs. */
#ifndef QUERN_PAIRS_AVX512VBMI_H
#define QUERN_PAIRS_AVX512VBMI_H

#include "matmul_avx512.h"

static ALWAYS_INLINE __m512i book_of_128(const uint8_t *table, __m512i index)
{
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
}

/* The bits of `mask` of a, the others of b. */
static ALWAYS_INLINE __m512i pick(__m512i mask, __m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

/* 2 s + 1 for a scale s that stands at bits 1 to 4, whatever is beside it. */
static ALWAYS_INLINE __m512i odd_of_nibbles(__m512i v)
{
    return _mm512_ternarylogic_epi32(v, _mm512_set1_epi32(0x1e), _mm512_set1_epi32(1), 0xea);
}

/* 64 bytes to a register: compilers would rather load them again for each use, and a load across lines takes 1.5 cycles. */
static ALWAYS_INLINE __m512i load_once(const uint8_t *bytes)
{
    return settled(_mm512_loadu_si512(bytes));
}

static ALWAYS_INLINE __m512i twice_32(const uint8_t *first, const uint8_t *second)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)first)),
                              _mm256_loadu_si256((const __m256i *)second), 1);
}

/* Two rows' runs. Where the dots and scales of which columns stand, in lanes of 32 bits:
 *   PAIR_ROWS    q[0..3] first row, q[4..7] second row; lane u is the u-th unit of 16 columns
 *   PAIR_UNITS   lower 256 bits first row, upper ones second; q[0..3] units 0 to 3 and 8 to 11, q[4..7] 4 to 7 and 12 to 15
 *   PAIR_SUBS    halves as before; lane s is the s-th 32 columns in all of q */
enum pair_order { PAIR_ROWS, PAIR_UNITS, PAIR_SUBS };

/* out[f]: the f-th of each four columns, lane u of 32 bits the u-th 16 columns. */
static ALWAYS_INLINE void load_units(__m512i out[4], const int8_t *from)
{
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    __m512i v[4];
    for (int k = 0; k < 4; k++)              /* lane i of 128 bits: unit 4k + i, dword f of it for vector f */
        v[k] = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 64 * k), bytes);
    for (int f = 0; f < 4; f += 2) {
        __m512i index = _mm512_add_epi32(low, _mm512_set1_epi32(f));
        __m512i a = _mm512_permutex2var_epi32(v[0], index, v[1]), b = _mm512_permutex2var_epi32(v[2], index, v[3]);
        out[f] = _mm512_shuffle_i64x2(a, b, 0x44);
        out[f + 1] = _mm512_shuffle_i64x2(a, b, 0xee);
    }
}

/* 256 columns of a token, to meet q[0..7] of a pair. */
static ALWAYS_INLINE void load_pair_acts(__m512i out[8], const int8_t *from, const enum pair_order order)
{
    /* IQ2's codes give columns 0 to 3 of an entry of eight in one vector, 4 to 7 in another. */
    const __m256i even = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46,
                                          48, 50, 52, 54, 56, 58, 60, 62);
    const __m512i evens = _mm512_broadcast_i64x4(even), odds = _mm512_or_si512(evens, _mm512_set1_epi8(1));
    __m512i x[4];
    load_units(x, from);
    for (int f = 0; f < 4; f++) {
        if (order == PAIR_ROWS) {
            out[f] = out[4 + f] = x[f];
        } else if (order == PAIR_UNITS) {
            out[f] = _mm512_shuffle_i32x4(x[f], x[f], 0x88);
            out[4 + f] = _mm512_shuffle_i32x4(x[f], x[f], 0xdd);
        } else {
            out[f] = _mm512_permutexvar_epi8(evens, x[f]);
            out[4 + f] = _mm512_permutexvar_epi8(odds, x[f]);
        }
    }
}

/* sums[4h + i]: rows 8h + i and 8h + 4 + i. */
static ALWAYS_INLINE __m512 finish_pairs(__m512 acc, const __m512i sums[8], const uint32_t d[16], float dx,
                                         const struct panel_shape shape)
{
    __m512i quad[4];
    for (int i = 0; i < 4; i++)
        quad[i] = fold_pairs(sums[i], sums[4 + i]);
    __m512 rows = _mm512_cvtepi32_ps(sum_lanes(quad[0], quad[1], quad[2], quad[3]));
    return _mm512_fmadd_ps(_mm512_mul_ps(scales_of(d, false, shape.factor), _mm512_set1_ps(dx)), rows, acc);
}

#endif
