/* runs_kquants_avx2.h - the k-quants and IQ4_XS: from the file's bytes to a run in registers, for AVX2 and its additions.
 * Before each stands what its block looks like. */
#ifndef QUERN_RUNS_KQUANTS_AVX2_H
#define QUERN_RUNS_KQUANTS_AVX2_H

#include "k_scales.h"
#include "matmul_avx2.h"

static ALWAYS_INLINE void k_scales(struct run *out, const uint8_t *bytes)
{
    __m128i both = k_scales_and_mins(bytes);
    out->d = load_u32(bytes);
    out->mins = _mm_srli_si128(both, 8);
    out->scales = _mm_move_epi64(both);
}

/* Q4_K: d, dmin, scales and minimums (k_scales.h), 4 x 32 bytes: low nibbles sub-block 2k, high nibbles 2k + 1. */
static ALWAYS_INLINE void run_q4_k_avx2(struct run *out, const uint8_t *bytes)
{
    k_scales(out, bytes);
    for (int k = 0; k < 4; k++)
        nibbles_of_32(out->q + 2 * k, bytes + 16 + 32 * k);
}

#define SHAPE_Q4_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 15, .bytes = 144, .factor = 1, .mins = true }

/* Q5_K: as Q4_K, but 32 bytes of fifth bits before the nibbles: bit s of byte i belongs to value i of sub-block s. */
static ALWAYS_INLINE void run_q5_k_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i bit = _mm256_set1_epi8(16);
    __m256i high = _mm256_loadu_si256((const __m256i *)(bytes + 16));
    k_scales(out, bytes);
    for (int k = 0; k < 4; k++) {
        nibbles_of_32(out->q + 2 * k, bytes + 48 + 32 * k);
        /* bits 2k and 2k + 1 to bit 4 of their bytes */
        __m256i first = k < 2 ? _mm256_slli_epi16(high, 4 - 2 * k) : _mm256_srli_epi16(high, 2 * k - 4);
        __m256i second = k < 2 ? _mm256_slli_epi16(high, 3 - 2 * k) : _mm256_srli_epi16(high, 2 * k - 3);
        out->q[2 * k] = _mm256_or_si256(out->q[2 * k], _mm256_and_si256(first, bit));
        out->q[2 * k + 1] = _mm256_or_si256(out->q[2 * k + 1], _mm256_and_si256(second, bit));
    }
}

#define SHAPE_Q5_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 31, .bytes = 176, .factor = 1, .mins = true }

/* Q6_K: 128 bytes of lower nibbles, 64 of upper pairs, 16 signed scales, d. Per 128 values 64 bytes, low nibbles first, and 32
 * bytes whose pairs of bits belong to the four groups of 32. */
static ALWAYS_INLINE void run_q6_k_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i pair = _mm256_set1_epi8(0x30);
    out->d = load_u16(bytes + 208);
    out->scales = _mm_loadu_si128((const __m128i *)(bytes + 192));
    for (int half = 0; half < 2; half++) {
        __m256i *q = out->q + 4 * half, high = _mm256_loadu_si256((const __m256i *)(bytes + 128 + 32 * half)), both[2];
        nibbles_of_32(both, bytes + 64 * half);
        q[0] = _mm256_or_si256(both[0], _mm256_and_si256(_mm256_slli_epi16(high, 4), pair));
        q[2] = _mm256_or_si256(both[1], _mm256_and_si256(high, pair));
        nibbles_of_32(both, bytes + 64 * half + 32);
        q[1] = _mm256_or_si256(both[0], _mm256_and_si256(_mm256_slli_epi16(high, 2), pair));
        q[3] = _mm256_or_si256(both[1], _mm256_and_si256(_mm256_srli_epi16(high, 2), pair));
    }
}

#define SHAPE_Q6_K { .kind = PANEL_SUPER, .sub = 16, .offset = 32, .top = 63, .bytes = 210, .factor = 1 }

/* Four planes of two bits in 32 bytes: 128 values. */
static ALWAYS_INLINE void pairs_of_32(__m256i q[4], const uint8_t *bytes)
{
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i all = _mm256_loadu_si256((const __m256i *)bytes);
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_and_si256(_mm256_srli_epi16(all, 2 * i), mask);
}

/* Q2_K: 16 bytes, scale in the low nibble and minimum in the high one; 64 bytes of pairs; d, dmin. */
static ALWAYS_INLINE void run_q2_k_avx2(struct run *out, const uint8_t *bytes)
{
    __m128i scales = _mm_loadu_si128((const __m128i *)bytes), nibble = _mm_set1_epi8(15);
    out->d = load_u32(bytes + 80);
    out->scales = _mm_and_si128(scales, nibble);
    out->mins = _mm_and_si128(_mm_srli_epi16(scales, 4), nibble);
    pairs_of_32(out->q, bytes + 16);
    pairs_of_32(out->q + 4, bytes + 48);
}

#define SHAPE_Q2_K { .kind = PANEL_SUPER, .sub = 16, .offset = 0, .top = 3, .bytes = 84, .factor = 1, .mins = true }

/* Sixteen scales of 6 bits, offset 32: eight bytes of low nibbles, then of high ones; four bytes whose bits 2i and 2i + 1 belong to
 * scales 4i to 4i + 3. */
static ALWAYS_INLINE __m128i q3_k_scales(const uint8_t *bytes)
{
    const __m128i nibble = _mm_set1_epi8(15);
    __m128i both = _mm_loadl_epi64((const __m128i *)bytes);
    __m128i low = _mm_unpacklo_epi64(_mm_and_si128(both, nibble), _mm_and_si128(_mm_srli_epi16(both, 4), nibble));
    __m128i top = _mm_srlv_epi32(_mm_set1_epi32((int)load_u32(bytes + 8)), _mm_setr_epi32(0, 2, 4, 6));
    top = _mm_slli_epi16(_mm_and_si128(top, _mm_set1_epi8(3)), 4);
    return _mm_sub_epi8(_mm_or_si128(low, top), _mm_set1_epi8(32));
}

/* Q3_K: 32 bytes of third bits (bit s of byte i: value i of 32-value group s), 64 bytes of pairs, 12 bytes of scales, d. */
static ALWAYS_INLINE void run_q3_k_avx2(struct run *out, const uint8_t *bytes)
{
    __m256i high = _mm256_loadu_si256((const __m256i *)bytes);
    const __m256i bit = _mm256_set1_epi8(4);
    out->d = load_u16(bytes + 108);
    out->scales = q3_k_scales(bytes + 96);
    pairs_of_32(out->q, bytes + 32);
    pairs_of_32(out->q + 4, bytes + 64);
    for (int k = 0; k < 8; k++) {
        __m256i third = k < 2 ? _mm256_slli_epi16(high, 2 - k) : _mm256_srli_epi16(high, k - 2);
        out->q[k] = _mm256_or_si256(out->q[k], _mm256_and_si256(third, bit));
    }
}

#define SHAPE_Q3_K { .kind = PANEL_SUPER, .sub = 16, .offset = 4, .top = 7, .bytes = 110, .factor = 1 }

/* IQ4_XS: d, two bytes of upper pairs and four of lower nibbles of eight scales with an offset of 32, 8 x 16 bytes of nibbles. */
static ALWAYS_INLINE void run_iq4_xs_avx2(struct run *out, const uint8_t *bytes)
{
    uint64_t scales = _pdep_u64(load_u32(bytes + 4), 0x0f0f0f0f0f0f0f0f) | _pdep_u64(load_u16(bytes + 2), 0x3030303030303030);
    out->d = load_u16(bytes);
    out->scales = _mm_sub_epi8(_mm_cvtsi64_si128((long long)scales), _mm_set1_epi8(32));
    for (int k = 0; k < 8; k++)
        out->q[k] = look_up(values_iq4, 0, nibbles_of_16(bytes + 8 + 16 * k));
}

#define SHAPE_IQ4_XS { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 254, .bytes = 136, .factor = 1 }

#endif
