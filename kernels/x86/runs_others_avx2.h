/* runs_others_avx2.h - formats of values in [-2, 1] and NVFP4: from the file's bytes to a run in registers, for AVX2 and its
 * additions. ref/unpack_super.c and ref/unpack_small.c describe the blocks. */
#ifndef QUERN_RUNS_OTHERS_AVX2_H
#define QUERN_RUNS_OTHERS_AVX2_H

#include "matmul_avx2.h"

/* Base-3 digits of values below 1, in 256ths: three times the value, its whole part. Two comparisons: 86 and 171 are the first that
 * reach 1 and 2. */
static ALWAYS_INLINE __m256i base3_digits(__m256i fraction)
{
    const __m256i one = _mm256_set1_epi8(1);
    __m256i first = _mm256_min_epu8(_mm256_subs_epu8(fraction, _mm256_set1_epi8(85)), one);
    __m256i second = _mm256_min_epu8(_mm256_subs_epu8(fraction, _mm256_set1_epi8((char)170)), one);
    return _mm256_add_epi8(first, second);
}

/* The next digit's fraction: what is left of three times this one. */
static ALWAYS_INLINE __m128i thrice(__m128i fraction)
{
    return _mm_add_epi8(_mm_add_epi8(fraction, fraction), fraction);
}

/* 32 bytes of five digits: values 0-159; 16 of five: 160-239; 4 of four: 240-255; d. */
static ALWAYS_INLINE void run_tq1_0_avx2(struct run *out, const uint8_t *bytes)
{
    __m256i first = _mm256_loadu_si256((const __m256i *)bytes);
    __m128i second[5], last = _mm_set1_epi32((int)load_u32(bytes + 48)), last_3 = thrice(last), last_9 = thrice(last_3);
    for (int i = 0; i < 5; i++) {
        out->q[i] = base3_digits(first);
        first = _mm256_add_epi8(_mm256_add_epi8(first, first), first);
        second[i] = i == 0 ? _mm_loadu_si128((const __m128i *)(bytes + 32)) : thrice(second[i - 1]);
    }
    out->q[5] = base3_digits(_mm256_setr_m128i(second[0], second[1]));
    out->q[6] = base3_digits(_mm256_setr_m128i(second[2], second[3]));
    last = _mm_blend_epi32(_mm_blend_epi32(last, last_3, 2), _mm_blend_epi32(last_9, thrice(last_9), 8), 12);
    out->q[7] = base3_digits(_mm256_setr_m128i(second[4], last));
    out->scales = _mm_set1_epi8(1);
    out->d = load_u16(bytes + 52);
}

#define SHAPE_TQ1_0 { .kind = PANEL_SUPER, .sub = 32, .offset = 1, .top = 3, .bytes = 54, .factor = 1 }

static ALWAYS_INLINE void run_tq2_0_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i mask = _mm256_set1_epi8(3);
    for (int half = 0; half < 2; half++) {
        __m256i all = _mm256_loadu_si256((const __m256i *)(bytes + 32 * half));
        for (int i = 0; i < 4; i++)
            out->q[4 * half + i] = _mm256_and_si256(_mm256_srli_epi16(all, 2 * i), mask);
    }
    out->scales = _mm_set1_epi8(1);
    out->d = load_u16(bytes + 64);
}

#define SHAPE_TQ2_0 { .kind = PANEL_SUPER, .sub = 32, .offset = 1, .top = 3, .bytes = 66, .factor = 1 }

/* d, 128 bits: 1 is d, 0 is -d. With the offset of 1: 2 or 0. */
static ALWAYS_INLINE void run_q1_0_avx2(struct run *out, const uint8_t *bytes)
{
    for (int k = 0; k < 8; k++) {
        const uint8_t *block = bytes + 18 * (k / 4);
        out->file_scale[k] = load_u16(block);
        out->q[k] = _mm256_and_si256(bytes_of_bits(load_u32(block + 2 + 4 * (k % 4))), _mm256_set1_epi8(2));
    }
}

#define SHAPE_Q1_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 1, .top = 3, .bytes = 36, .factor = 1 }

/* d, 64 pairs of bits, four neighbours to a byte: two blocks at a time, a half of the vectors each. */
static ALWAYS_INLINE void run_q2_0_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i mask = _mm256_set1_epi8(3);
    for (int k = 0; k < 2; k++) {
        const uint8_t *block = bytes + 36 * k;
        __m256i *q = out->q + 4 * k, pair[4], all = _mm256_setr_m128i(_mm_loadu_si128((const __m128i *)(block + 2)),
                                                                     _mm_loadu_si128((const __m128i *)(block + 20)));
        for (int i = 0; i < 4; i++) {
            pair[i] = _mm256_and_si256(_mm256_srli_epi16(all, 2 * i), mask);
            out->file_scale[4 * k + i] = load_u16(block + 18 * (i / 2));
        }
        for (int i = 0; i < 2; i++) {
            __m256i early = i ? _mm256_unpackhi_epi8(pair[0], pair[1]) : _mm256_unpacklo_epi8(pair[0], pair[1]);
            __m256i late = i ? _mm256_unpackhi_epi8(pair[2], pair[3]) : _mm256_unpacklo_epi8(pair[2], pair[3]);
            __m256i low = _mm256_unpacklo_epi16(early, late), high = _mm256_unpackhi_epi16(early, late);
            q[i] = _mm256_permute2x128_si256(low, high, 0x20);
            q[2 + i] = _mm256_permute2x128_si256(low, high, 0x31);
        }
    }
}

#define SHAPE_Q2_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 1, .top = 3, .bytes = 72, .factor = 1 }

/* Halves of eight UE4M3: as a float's exponent and mantissa; without exponent, multiples of 2^-10; 0x7f is nothing. */
static ALWAYS_INLINE __m256 ue4m3_halves(__m256i bytes)
{
    __m256i seven = _mm256_and_si256(bytes, _mm256_set1_epi32(0x7f));
    __m256i normal = _mm256_add_epi32(_mm256_slli_epi32(seven, 20), _mm256_set1_epi32((127 - 7 - 1) << 23));
    __m256 small = _mm256_mul_ps(_mm256_cvtepi32_ps(seven), _mm256_set1_ps(0x1p-10f));
    __m256i has_exponent = _mm256_cmpgt_epi32(seven, _mm256_set1_epi32(7));
    __m256 value = _mm256_blendv_ps(small, _mm256_castsi256_ps(normal), _mm256_castsi256_ps(has_exponent));
    return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(bytes, _mm256_set1_epi32(0x7f))), value);
}

/* Four scales, then eight bytes of nibbles for 16 columns: the low ones and the high ones. */
static ALWAYS_INLINE void run_nvfp4_avx2(struct run *out, const uint8_t *bytes)
{
    for (int k = 0; k < 4; k++) {
        __m256i both[2];
        nibbles_of_32(both, bytes + 36 * k + 4);
        __m256i even = _mm256_unpacklo_epi64(both[0], both[1]), odd = _mm256_unpackhi_epi64(both[0], both[1]);
        out->q[2 * k] = look_up(values_fp4, 16, _mm256_permute2x128_si256(even, odd, 0x20));
        out->q[2 * k + 1] = look_up(values_fp4, 16, _mm256_permute2x128_si256(even, odd, 0x31));
    }
    for (int k = 0; k < 2; k++) {
        __m128i eight = _mm_setr_epi32((int)load_u32(bytes + 72 * k), (int)load_u32(bytes + 72 * k + 36), 0, 0);
        out->scale[k] = ue4m3_halves(_mm256_cvtepu8_epi32(eight));
    }
}

#define SHAPE_NVFP4 { .kind = PANEL_SMALL, .sub = 16, .offset = 16, .top = 31, .bytes = 144, .factor = 1 }

#endif
