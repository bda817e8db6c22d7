/* runs_kquants_avx2.h - the k-quants and IQ4_XS: from the file's bytes to a run in registers, for AVX2 and its additions.
 * matmul_kquants_avx512.c describes the blocks. */
#ifndef QUERN_RUNS_KQUANTS_AVX2_H
#define QUERN_RUNS_KQUANTS_AVX2_H

#include "matmul_avx2.h"

static ALWAYS_INLINE void k_scales(struct run *out, const uint8_t *bytes)
{
    __m128i head = _mm_loadu_si128((const __m128i *)bytes);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2);
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    high = _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    out->d = load_u32(bytes);
    out->mins = _mm_srli_si128(_mm_or_si128(low, high), 8);
    out->scales = _mm_move_epi64(_mm_or_si128(low, high));
}

static ALWAYS_INLINE void run_q4_k_avx2(struct run *out, const uint8_t *bytes)
{
    k_scales(out, bytes);
    for (int k = 0; k < 4; k++)
        nibbles_of_32(out->q + 2 * k, bytes + 16 + 32 * k);
}

#define SHAPE_Q4_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 15, .bytes = 144, .factor = 1, .mins = true }

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
