#include "x86.h"

#include "vector_avx512.h"

#include <string.h>

/* Activations to int8 (kernels.h, EXACT): the reference's float operations in the same order, 16 at a time. */

/* Bits of the largest |x|; NaN and Inf are numbers above all others. */
static ALWAYS_INLINE uint32_t largest_bits(const __m512 *x, int vectors)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_and_si512(_mm512_castps_si512(x[0]), magnitude);
    for (int i = 1; i < vectors; i++)
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(x[i]), magnitude));
    return _mm512_reduce_max_epu32(most);
}

/* Sum of sixteen int8. */
static ALWAYS_INLINE int16_t sum_of_16(__m128i q)
{
    __m128i sums = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
    return (int16_t)(_mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128);
}

/* One block of 16 * vectors values, of which n are there; writes q, the sums per 16, and gives d. */
static ALWAYS_INLINE float quantize_block(int8_t *q, int16_t *sums, const float *x, size_t n, int vectors)
{
    __m512 v[16];
    for (int i = 0; i < vectors; i++) {
        size_t at = 16 * (size_t)i;
        v[i] = n >= at + 16 ? _mm512_loadu_ps(x + at) : at < n ? _mm512_maskz_loadu_ps(lanes_16(n - at), x + at) : _mm512_setzero_ps();
    }
    uint32_t bits = largest_bits(v, vectors);
    float max, nan;
    memcpy(&max, &bits, 4);
    memcpy(&nan, &(uint32_t){ 0x7fc00000 }, 4);
    if (bits >= 0x7f800000 || max < 0x1p-100f) {
        memset(q, 0, 16 * (size_t)vectors);
        memset(sums, 0, sizeof *sums * (size_t)vectors);
        return bits >= 0x7f800000 ? nan : 0;
    }
    __m512 scale = _mm512_set1_ps(127.0f / max);
    for (int i = 0; i < vectors; i++) {
        __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v[i], scale)));
        _mm_storeu_si128((__m128i *)(q + 16 * i), bytes);
        sums[i] = sum_of_16(bytes);
    }
    return max / 127.0f;
}

static ALWAYS_INLINE void prepare_q8(void *out, const float *x, size_t cols, enum act_kind kind, int vectors)
{
    const struct act_layout layout = act_layout(kind, cols);
    const size_t block = 16 * (size_t)vectors, blocks = layout.padded / block;
    int8_t *q = out;
    float *d = (float *)(void *)((char *)out + layout.scales);
    int16_t *sums = (int16_t *)(void *)((char *)out + layout.sums);

    for (size_t i = 0; i < blocks; i++) {
        size_t at = i * block;
        d[i] = quantize_block(q + at, sums + at / 16, x + (at < cols ? at : 0), at < cols ? cols - at : 0, vectors);
    }
    memset(d + blocks, 0, layout.sums - layout.scales - blocks * sizeof *d);
    memset(sums + layout.padded / 16, 0, layout.bytes - layout.sums - layout.padded / 16 * sizeof *sums);
}

void act_prepare_q8_32_avx512(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_32, 2);
}

void act_prepare_q8_256_avx512(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_256, 16);
}
