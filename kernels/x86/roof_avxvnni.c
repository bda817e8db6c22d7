#include "dots_avxvnni.h"
#include "roof.h"

/* Two ports, latency 5 at most: 12 sums are enough, as for FMAs (roof_avx2.c). The dots are assembly, so no compiler leaves them
 * out. */
uint64_t roof_dot_avxvnni(size_t rounds)
{
    enum { SUMS = 12 };
    __m256i sum[SUMS], x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5), total = _mm256_setzero_si256();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(x), "+x"(y));
        UNROLL_ALL
        for (int i = 0; i < SUMS; i++)
            add_dots_of_4(&sum[i], x, y);
    }
    for (int i = 0; i < SUMS; i++)
        total = _mm256_add_epi32(total, sum[i]);
    return (uint64_t)_mm256_extract_epi64(total, 0);
}
