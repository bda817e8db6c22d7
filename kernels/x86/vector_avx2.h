/* vector_avx2.h - partial loads and stores, and sums across the lanes of AVX2 vectors. */
#ifndef QUERN_VECTOR_AVX2_H
#define QUERN_VECTOR_AVX2_H

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "inline.h"

/* The value, in a register, now. Compilers that are free to add in another order keep all the products of a block and then most of
 * them on the stack, and load weights again for every product: gcc 12 gave half the speed. */
static ALWAYS_INLINE __m256i settled(__m256i value)
{
    __asm__("" : "+x"(value));
    return value;
}

/* All ones in the first n of eight lanes, n >= 8: all. */
static ALWAYS_INLINE __m256i lanes_8(size_t n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), index);
}

/* The first n (at most 8 count) of eight floats, the others zero. Tails go through memory, not through vmaskmov: emulators (QEMU
 * 7.2) let it fault on lanes that are masked off beyond the end of a page, and AMD's cores run it from microcode. */
static ALWAYS_INLINE __m256 load_8(const float *from, size_t n)
{
    float part[8] = { 0 };
    if (n >= 8)
        return _mm256_loadu_ps(from);
    memcpy(part, from, n * sizeof *from);
    return _mm256_loadu_ps(part);
}

static ALWAYS_INLINE void store_8(float *to, __m256 v, size_t n)
{
    float part[8];
    if (n >= 8) {
        _mm256_storeu_ps(to, v);
    } else {
        _mm256_storeu_ps(part, v);
        memcpy(to, part, n * sizeof *to);
    }
}

/* The first n (at most 8 count) of eight 16-bit values. */
static ALWAYS_INLINE __m128i load_8_halves(const void *from, size_t n)
{
    uint16_t part[8] = { 0 };
    if (n >= 8)
        return _mm_loadu_si128((const __m128i *)from);
    memcpy(part, from, 2 * n);
    return _mm_loadu_si128((const __m128i *)part);
}

static ALWAYS_INLINE void store_8_halves(void *to, __m128i v, size_t n)
{
    uint16_t part[8];
    if (n >= 8) {
        _mm_storeu_si128((__m128i *)to, v);
    } else {
        _mm_storeu_si128((__m128i *)part, v);
        memcpy(to, part, 2 * n);
    }
}

static ALWAYS_INLINE __m256 widen_bf16(__m128i halves)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

/* Lane i of the result is the sum of v[i]'s eight lanes, by the same tree for each i: (0 + 2) + (1 + 3) in each half, then the
 * halves. */
static ALWAYS_INLINE __m256 sum_4_vectors(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd))),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(ab), _mm256_castps_pd(cd))));
}

static ALWAYS_INLINE __m256 sum_8_vectors(const __m256 *v)
{
    __m256 low = sum_4_vectors(v[0], v[1], v[2], v[3]), high = sum_4_vectors(v[4], v[5], v[6], v[7]);
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

static ALWAYS_INLINE float sum_vector_8(__m256 v)
{
    __m128 quad = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    quad = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(quad, _mm_shuffle_ps(quad, quad, 1)));
}

static ALWAYS_INLINE double sum_doubles(__m256d v)
{
    __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

/* The same for int32. */
static ALWAYS_INLINE __m256i sum_4_rows(__m256i a, __m256i b, __m256i c, __m256i d)
{
    __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

static ALWAYS_INLINE __m256i sum_8_rows(const __m256i *v)
{
    __m256i low = sum_4_rows(v[0], v[1], v[2], v[3]), high = sum_4_rows(v[4], v[5], v[6], v[7]);
    return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

/* v[i] lane j becomes v[j] lane i. */
static ALWAYS_INLINE void transpose_8x8(__m256i v[8])
{
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x20);
        v[4 + i] = _mm256_permute2x128_si256(b[i], b[4 + i], 0x31);
    }
}

#endif
