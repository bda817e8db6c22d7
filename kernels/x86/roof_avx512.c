#include <immintrin.h>

#include "inline.h"
#include "roof.h"

/* Something that depends on every lane. (The compiler's own reductions add signed integers, which UBSan rightly reports.) */
static uint64_t fold(__m512i v)
{
    uint64_t lanes[8], all = 0;
    _mm512_storeu_si512(lanes, v);
    for (int i = 0; i < 8; i++)
        all ^= lanes[i];
    return all;
}

uint64_t roof_read_avx512(const void *p, size_t bytes)
{
    const __m512i *x = p;
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (size_t i = 0; i < bytes / 64; i += 4) {
        a = _mm512_xor_si512(a, _mm512_load_si512(x + i));
        b = _mm512_xor_si512(b, _mm512_load_si512(x + i + 1));
        c = _mm512_xor_si512(c, _mm512_load_si512(x + i + 2));
        d = _mm512_xor_si512(d, _mm512_load_si512(x + i + 3));
    }
    return fold(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

static ALWAYS_INLINE __m512i dot_bytes(__m512i sum, __m512i x, __m512i y) { return _mm512_dpbusd_epi32(sum, x, y); }
static ALWAYS_INLINE __m512i dot_words(__m512i sum, __m512i x, __m512i y) { return _mm512_dpwssd_epi32(sum, x, y); }

/* Two ports, latency 5 at most: 16 sums are enough. */
static ALWAYS_INLINE uint64_t dots(size_t rounds, __m512i x, __m512i y, __m512i (*dot)(__m512i, __m512i, __m512i))
{
    enum { SUMS = 16 };
    __m512i sum[SUMS], total = _mm512_setzero_si512();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(x), "+v"(y));
        for (int i = 0; i < SUMS; i++)
            sum[i] = dot(sum[i], x, y);
    }
    for (int i = 0; i < SUMS; i++)
        total = _mm512_add_epi32(total, sum[i]);
    return (uint64_t)(uint32_t)_mm512_cvtsi512_si32(total);      /* every lane is the same: folded they would be 0 */
}

uint64_t roof_dot_avx512(size_t rounds) { return dots(rounds, _mm512_set1_epi8(3), _mm512_set1_epi8(5), dot_bytes); }
uint64_t roof_words_avx512(size_t rounds) { return dots(rounds, _mm512_set1_epi16(3), _mm512_set1_epi16(5), dot_words); }

/* Two ports, latency 4: 16 sums are enough. They count rounds, up to 2^24. */
uint64_t roof_fma_avx512(size_t rounds)
{
    enum { SUMS = 16 };
    __m512 sum[SUMS], x = _mm512_set1_ps(1), y = _mm512_set1_ps(1), total = _mm512_setzero_ps();
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_setzero_ps();
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(x), "+v"(y));
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_fmadd_ps(x, y, sum[i]);
    }
    for (int i = 0; i < SUMS; i++)
        total = _mm512_add_ps(total, sum[i]);
    return (uint64_t)_mm512_cvtss_f32(total);
}
