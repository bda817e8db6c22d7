#include "prepare_q8.h"
#include "vector_avx512.h"

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

/* Sum of sixteen int8: sad against 0 adds bytes without sign, hence the offset of 128 each. */
static ALWAYS_INLINE int16_t sum_of_16(__m128i q)
{
    __m128i sums = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
    return (int16_t)(_mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128);
}

/* quantize_block_fn of prepare_q8.h. */
static ALWAYS_INLINE float quantize_block(int8_t *q, int16_t *sums, const float *x, size_t n, size_t block)
{
    const int vectors = (int)(block / 16);
    __m512 v[16];
    for (int i = 0; i < vectors; i++) {
        size_t at = 16 * (size_t)i;
        v[i] = at < n ? _mm512_maskz_loadu_ps(lanes_16(n - at), x + at) : _mm512_setzero_ps();
    }
    uint32_t bits = largest_bits(v, vectors);
    float max, nan;
    memcpy(&max, &bits, 4);
    memcpy(&nan, &(uint32_t){ 0x7fc00000 }, 4);
    if (bits >= 0x7f800000 || max < 0x1p-100f) {
        memset(q, 0, block);
        memset(sums, 0, block / 16 * sizeof *sums);
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

void act_prepare_q8_32_avx512(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_32, quantize_block);
}

void act_prepare_q8_256_avx512(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_256, quantize_block);
}

void quantize_f16_avx512(void *blocks, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m256i half = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16((char *)blocks + 2 * i, mask, half);
    }
}

/* Round to nearest even; NaN keeps its upper bits and becomes quiet. */
static ALWAYS_INLINE __m256i to_bf16(__m512 x)
{
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(rounded);
}

void quantize_bf16_avx512(void *blocks, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        _mm256_mask_storeu_epi16((char *)blocks + 2 * i, mask, to_bf16(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

/* Halves away from zero: truncate, then one step outwards where the fraction is at least a half (exact: |x| < 2^23). */
static ALWAYS_INLINE __m512i round_away(__m512 x)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_abs_ps(_mm512_sub_ps(x, whole));
    __m512 step = _mm512_or_ps(_mm512_set1_ps(1), _mm512_and_ps(x, sign));
    __mmask16 up = _mm512_cmp_ps_mask(rest, _mm512_set1_ps(0.5f), _CMP_GE_OQ);
    return _mm512_cvtps_epi32(_mm512_mask_add_ps(whole, up, whole, step));
}

/* d and the factor of a block; a reciprocal that is not finite counts as 0. */
static ALWAYS_INLINE float reciprocal(float d)
{
    float r = 1.0f / d;
    return isfinite(r) ? r : 0;
}

static ALWAYS_INLINE void put_half(uint8_t *block, float d)
{
    uint16_t half = (uint16_t)_cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(block, &half, 2);
}

void quantize_q8_0_avx512(void *blocks, const float *x, size_t n)
{
    uint8_t *block = blocks;
    for (; n >= 32; n -= 32, x += 32, block += 34) {
        __m512 v[2] = { _mm512_loadu_ps(x), _mm512_loadu_ps(x + 16) };
        uint32_t bits = largest_bits(v, 2);
        float max;
        memcpy(&max, &bits, 4);
        if (bits >= 0x7f800000) {
            memset(block, 0, 34);
            block[1] = 0x7e;
            continue;
        }
        float d = max / 127.0f;
        __m512 scale = _mm512_set1_ps(reciprocal(d));
        put_half(block, d);
        for (int i = 0; i < 2; i++)
            _mm_storeu_si128((__m128i *)(block + 2 + 16 * i), _mm512_cvtepi32_epi8(round_away(_mm512_mul_ps(v[i], scale))));
    }
}

/* The value of largest magnitude, the first of several. */
static ALWAYS_INLINE float extreme_of(const float *x, const __m512 v[2], uint32_t bits)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), most = _mm512_set1_epi32((int)bits);
    __mmask16 first = _mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_castps_si512(v[0]), magnitude), most);
    __mmask16 second = _mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_castps_si512(v[1]), magnitude), most);
    return bits ? x[__builtin_ctz(first | (uint32_t)second << 16)] : 0;
}

void quantize_q4_0_avx512(void *blocks, const float *x, size_t n)
{
    uint8_t *block = blocks;
    for (; n >= 32; n -= 32, x += 32, block += 18) {
        __m512 v[2] = { _mm512_loadu_ps(x), _mm512_loadu_ps(x + 16) };
        uint32_t bits = largest_bits(v, 2);
        if (bits >= 0x7f800000) {
            memset(block, 0, 18);
            block[1] = 0x7e;
            continue;
        }
        float d = extreme_of(x, v, bits) / -8.0f;
        __m512 scale = _mm512_set1_ps(reciprocal(d)), offset = _mm512_set1_ps(8.5f);
        __m512i low = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(v[0], scale), offset));
        __m512i high = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(v[1], scale), offset));
        low = _mm512_min_epi32(low, _mm512_set1_epi32(15));
        high = _mm512_min_epi32(high, _mm512_set1_epi32(15));
        put_half(block, d);
        _mm_storeu_si128((__m128i *)(block + 2), _mm512_cvtepi32_epi8(_mm512_or_si512(low, _mm512_slli_epi32(high, 4))));
    }
}

void dequantize_f16_avx512(float *out, const void *blocks, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        _mm512_mask_storeu_ps(out + i, mask, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const char *)blocks + 2 * i)));
    }
}

void dequantize_bf16_avx512(float *out, const void *blocks, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, (const char *)blocks + 2 * i));
        _mm512_mask_storeu_ps(out + i, mask, _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
    }
}
