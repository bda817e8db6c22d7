#include "prepare_q8.h"
#include "vector_avx2.h"

/* Conversions on AVX2 (kernels.h, EXACT): the reference's float operations in the same order, eight at a time. */

/* Bits of the largest |x|; NaN and Inf are numbers above all others. */
static ALWAYS_INLINE uint32_t largest_bits(const __m256 *x, int vectors)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < vectors; i++)
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    __m128i quad = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    quad = _mm_max_epi32(quad, _mm_shuffle_epi32(quad, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(quad, _mm_shuffle_epi32(quad, 0xb1)));
}

/* 32 values as int32 to bytes. */
static ALWAYS_INLINE __m256i to_bytes(const __m256i v[4])
{
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* quantize_block_fn of prepare_q8.h. */
static ALWAYS_INLINE float quantize_block(int8_t *q, int16_t *sums, const float *x, size_t n, size_t block)
{
    const int quads = (int)(block / 32);
    __m256 v[32];
    for (int i = 0; i < 4 * quads; i++) {
        size_t at = 8 * (size_t)i;
        v[i] = at < n ? load_8(x + at, n - at) : _mm256_setzero_ps();
    }
    uint32_t bits = largest_bits(v, 4 * quads);
    float max, nan;
    memcpy(&max, &bits, 4);
    memcpy(&nan, &(uint32_t){ 0x7fc00000 }, 4);
    if (bits >= 0x7f800000 || max < 0x1p-100f) {
        memset(q, 0, block);
        memset(sums, 0, block / 16 * sizeof *sums);
        return bits >= 0x7f800000 ? nan : 0;
    }
    /* cvtps rounds to nearest even, the mode that nobody changes. Sums of 16: sad against 0 adds bytes without sign, hence the
     * offset of 128 per byte. */
    __m256 scale = _mm256_set1_ps(127.0f / max);
    for (int i = 0; i < quads; i++) {
        __m256i whole[4];
        for (int k = 0; k < 4; k++)
            whole[k] = _mm256_cvtps_epi32(_mm256_mul_ps(v[4 * i + k], scale));
        __m256i bytes = to_bytes(whole);
        _mm256_storeu_si256((__m256i *)(q + 32 * i), bytes);
        __m256i eights = _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
        __m128i low = _mm256_castsi256_si128(eights), high = _mm256_extracti128_si256(eights, 1);
        sums[2 * i] = (int16_t)(_mm_extract_epi16(low, 0) + _mm_extract_epi16(low, 4) - 16 * 128);
        sums[2 * i + 1] = (int16_t)(_mm_extract_epi16(high, 0) + _mm_extract_epi16(high, 4) - 16 * 128);
    }
    return max / 127.0f;
}

void act_prepare_q8_32_avx2(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_32, quantize_block);
}

void act_prepare_q8_256_avx2(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_256, quantize_block);
}

void quantize_f16_avx2(void *blocks, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m128i halves = _mm256_cvtps_ph(load_8(x + i, n - i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        store_8_halves((char *)blocks + 2 * i, halves, n - i);
    }
}

/* Round to nearest even; NaN keeps its upper bits and becomes quiet. */
void quantize_bf16_avx2(void *blocks, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i);
        __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
        __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
        __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        rounded = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
        __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
        store_8_halves((char *)blocks + 2 * i, packed, n - i);
    }
}

/* Halves away from zero: truncate, then one step outwards where the fraction is at least a half (exact: |x| < 2^23). */
static ALWAYS_INLINE __m256i round_away(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m256 rest = _mm256_andnot_ps(sign, _mm256_sub_ps(x, whole));
    __m256 step = _mm256_or_ps(_mm256_set1_ps(1), _mm256_and_ps(x, sign));
    step = _mm256_and_ps(step, _mm256_cmp_ps(rest, _mm256_set1_ps(0.5f), _CMP_GE_OQ));
    return _mm256_cvtps_epi32(_mm256_add_ps(whole, step));
}

void quantize_q8_0_avx2(void *blocks, const float *x, size_t n)
{
    uint8_t *block = blocks;
    for (; n >= 32; n -= 32, x += 32, block += 34) {
        __m256 v[4] = { _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), _mm256_loadu_ps(x + 16), _mm256_loadu_ps(x + 24) };
        uint32_t bits = largest_bits(v, 4);
        float max;
        memcpy(&max, &bits, 4);
        if (bits >= 0x7f800000) {
            memset(block, 0, 34);
            block[1] = 0x7e;
            continue;
        }
        float d = max / 127.0f, reciprocal = 1.0f / d;
        uint16_t half = (uint16_t)_cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m256 scale = _mm256_set1_ps(isfinite(reciprocal) ? reciprocal : 0);
        __m256i whole[4];
        for (int k = 0; k < 4; k++)
            whole[k] = round_away(_mm256_mul_ps(v[k], scale));
        memcpy(block, &half, 2);
        _mm256_storeu_si256((__m256i *)(block + 2), to_bytes(whole));
    }
}

void dequantize_f16_avx2(float *out, const void *blocks, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        store_8(out + i, _mm256_cvtph_ps(load_8_halves((const char *)blocks + 2 * i, n - i)), n - i);
}

void dequantize_bf16_avx2(float *out, const void *blocks, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        store_8(out + i, widen_bf16(load_8_halves((const char *)blocks + 2 * i, n - i)), n - i);
}
