#include <immintrin.h>

#include "roof.h"

/* Half the products of a byte's dot product per instruction, latency 6: 16 sums are enough. */
uint64_t roof_bf16_avx512bf16(size_t rounds)
{
    enum { SUMS = 16 };
    __m512i one = _mm512_set1_epi16(0x3f80);
    __m512 sum[SUMS], total = _mm512_setzero_ps();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_setzero_ps();
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(one));
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)one, (__m512bh)one);
    }
    for (int i = 0; i < SUMS; i++)
        total = _mm512_add_ps(total, sum[i]);
    return (uint64_t)_mm512_cvtss_f32(total);
}
