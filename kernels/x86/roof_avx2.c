#include <immintrin.h>

#include "roof.h"

uint64_t roof_read_avx2(const void *p, size_t bytes)
{
    const __m256i *x = p;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < bytes / 32; i += 4) {
        a = _mm256_xor_si256(a, _mm256_load_si256(x + i));
        b = _mm256_xor_si256(b, _mm256_load_si256(x + i + 1));
        c = _mm256_xor_si256(c, _mm256_load_si256(x + i + 2));
        d = _mm256_xor_si256(d, _mm256_load_si256(x + i + 3));
    }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    return (uint64_t)_mm256_extract_epi64(a, 0) ^ (uint64_t)_mm256_extract_epi64(a, 1) ^ (uint64_t)_mm256_extract_epi64(a, 2) ^
           (uint64_t)_mm256_extract_epi64(a, 3);
}

/* Without VNNI a dot product of bytes is three instructions. */
uint64_t roof_dot_avx2(size_t rounds)
{
    enum { SUMS = 8 };
    __m256i sum[SUMS], x[SUMS], y = _mm256_set1_epi8(5), one = _mm256_set1_epi16(1), total = _mm256_setzero_si256();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i), x[i] = _mm256_set1_epi8((char)i);
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+x"(y));                /* or equal products would be made once */
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(x[i], y), one));
        }
    for (int i = 0; i < SUMS; i++)
        total = _mm256_add_epi32(total, sum[i]);
    return (uint64_t)_mm256_extract_epi64(total, 0);
}

/* A dot product of words is two. */
uint64_t roof_words_avx2(size_t rounds)
{
    enum { SUMS = 8 };
    __m256i sum[SUMS], x[SUMS], y = _mm256_set1_epi16(5), total = _mm256_setzero_si256();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i), x[i] = _mm256_set1_epi16((short)i);
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+x"(y));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(x[i], y));
        }
    for (int i = 0; i < SUMS; i++)
        total = _mm256_add_epi32(total, sum[i]);
    return (uint64_t)_mm256_extract_epi64(total, 0);
}

/* Two ports, latency 5 at most: 12 sums are enough, and leave registers for the factors. */
uint64_t roof_fma_avx2(size_t rounds)
{
    enum { SUMS = 12 };
    __m256 sum[SUMS], x = _mm256_set1_ps(1), y = _mm256_set1_ps(1), total = _mm256_setzero_ps();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_setzero_ps();
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(x), "+x"(y));
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm256_fmadd_ps(x, y, sum[i]);
    }
    for (int i = 0; i < SUMS; i++)
        total = _mm256_add_ps(total, sum[i]);
    return (uint64_t)_mm256_cvtss_f32(total);
}
