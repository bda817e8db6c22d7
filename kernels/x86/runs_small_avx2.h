/* runs_small_avx2.h - formats with blocks of 32 values: from the file's bytes to a run in registers, for AVX2 and its additions. */
#ifndef QUERN_RUNS_SMALL_AVX2_H
#define QUERN_RUNS_SMALL_AVX2_H

#include "matmul_turned_avx2.h"

static ALWAYS_INLINE void run_q8_0_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 34);
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_loadu_si256((const __m256i *)(bytes + 34 * k + 2));
}

#define SHAPE_Q8_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 255, .bytes = 272, .factor = 1 }

static ALWAYS_INLINE void run_q4_0_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 18);
    for (int k = 0; k < 8; k++)
        out->q[k] = nibbles_of_16(bytes + 18 * k + 2);
    for (int k = 0; k < 4; k++)
        nibbles_of_2_blocks(out->pair + 2 * k, bytes + 36 * k + 2, 18);
}

#define SHAPE_Q4_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 8, .top = 15, .bytes = 144, .factor = 1, .order = ORDER_QUARTERS }

static ALWAYS_INLINE void run_q4_1_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 20);
    halves_of_8_blocks(out->file_low, bytes + 2, 20);
    for (int k = 0; k < 8; k++)
        out->q[k] = nibbles_of_16(bytes + 20 * k + 4);
}

#define SHAPE_Q4_1 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 15, .bytes = 160, .factor = 1, .mins = true }

/* 16 where bit i of the word is set. */
static ALWAYS_INLINE __m256i fifth_bits(const uint8_t *word)
{
    return _mm256_and_si256(bytes_of_bits(load_u32(word)), _mm256_set1_epi8(16));
}

static ALWAYS_INLINE void run_q5_0_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 22);
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_or_si256(nibbles_of_16(bytes + 22 * k + 6), fifth_bits(bytes + 22 * k + 2));
}

#define SHAPE_Q5_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 16, .top = 31, .bytes = 176, .factor = 1 }

static ALWAYS_INLINE void run_q5_1_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 24);
    halves_of_8_blocks(out->file_low, bytes + 2, 24);
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_or_si256(nibbles_of_16(bytes + 24 * k + 8), fifth_bits(bytes + 24 * k + 4));
}

#define SHAPE_Q5_1 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 31, .bytes = 192, .factor = 1, .mins = true }

static ALWAYS_INLINE void run_iq4_nl_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 18);
    for (int k = 0; k < 8; k++)
        out->q[k] = look_up(values_iq4, 0, nibbles_of_16(bytes + 18 * k + 2));
    for (int k = 0; k < 4; k++) {
        nibbles_of_2_blocks(out->pair + 2 * k, bytes + 36 * k + 2, 18);
        out->pair[2 * k] = look_up(values_iq4, 0, out->pair[2 * k]);
        out->pair[2 * k + 1] = look_up(values_iq4, 0, out->pair[2 * k + 1]);
    }
}

#define SHAPE_IQ4_NL { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 254, .bytes = 144, .factor = 1, .order = ORDER_QUARTERS }

static ALWAYS_INLINE void run_mxfp4_avx2(struct run *out, const uint8_t *bytes)
{
    for (int k = 0; k < 8; k++) {
        out->file_scale[k] = bytes[17 * k];
        out->q[k] = look_up(values_fp4, 16, nibbles_of_16(bytes + 17 * k + 1));
    }
    for (int k = 0; k < 4; k++) {
        nibbles_of_2_blocks(out->pair + 2 * k, bytes + 34 * k + 1, 17);
        out->pair[2 * k] = look_up(values_fp4, 16, out->pair[2 * k]);
        out->pair[2 * k + 1] = look_up(values_fp4, 16, out->pair[2 * k + 1]);
    }
}

#define SHAPE_MXFP4 \
    { .kind = PANEL_SMALL, .sub = 32, .offset = 16, .top = 31, .bytes = 136, .factor = 1, .order = ORDER_QUARTERS, \
      .exponents = true }

/* ---- turned: 16 bytes of nibbles after the block's scale (matmul_turned_avx2.h) ---------------------------------- */

static ALWAYS_INLINE void turn_after_1(__m256i *raw, const uint8_t *block, size_t stride)
{
    turn_16_bytes(raw, block + 1, stride);
}

static ALWAYS_INLINE void turn_after_2(__m256i *raw, const uint8_t *block, size_t stride)
{
    turn_16_bytes(raw, block + 2, stride);
}

static ALWAYS_INLINE void turn_after_4(__m256i *raw, const uint8_t *block, size_t stride)
{
    turn_16_bytes(raw, block + 4, stride);
}

static ALWAYS_INLINE __m256i value_nibble(const __m256i *raw, int group)
{
    return group < 4 ? low_nibbles(raw[group]) : high_nibbles(raw[group - 4]);
}

static ALWAYS_INLINE __m256i value_fp4(const __m256i *raw, int group)
{
    return look_up(values_fp4, 16, value_nibble(raw, group));
}

/* Fifth bits, a word of them per row, then the nibbles. */
static ALWAYS_INLINE void turn_fifth(__m256i *raw, const uint8_t *word, size_t stride)
{
    const uint8_t *upper = word + 4 * stride;
    turn_16_bytes(raw, word + 4, stride);
    raw[4] = _mm256_setr_epi32((int)load_u32(word), (int)load_u32(word + stride), (int)load_u32(word + 2 * stride),
                               (int)load_u32(word + 3 * stride), (int)load_u32(upper), (int)load_u32(upper + stride),
                               (int)load_u32(upper + 2 * stride), (int)load_u32(upper + 3 * stride));
}

static ALWAYS_INLINE void turn_q5_0(__m256i *raw, const uint8_t *block, size_t stride)
{
    turn_fifth(raw, block + 2, stride);
}

static ALWAYS_INLINE void turn_q5_1(__m256i *raw, const uint8_t *block, size_t stride)
{
    turn_fifth(raw, block + 4, stride);
}

/* Group g's four bits are the lower or upper ones of byte g / 2: that byte in all four places, and in each its own bit. */
static ALWAYS_INLINE __m256i value_fifth(const __m256i *raw, int group)
{
    const int byte = group / 2;
    const __m256i own = _mm256_set1_epi32(group % 2 ? (int)0x80402010 : 0x08040201);
    const __m256i from = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        (char)byte, (char)byte, (char)byte, (char)byte, (char)(byte + 4), (char)(byte + 4), (char)(byte + 4), (char)(byte + 4),
        (char)(byte + 8), (char)(byte + 8), (char)(byte + 8), (char)(byte + 8), (char)(byte + 12), (char)(byte + 12),
        (char)(byte + 12), (char)(byte + 12)));
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(raw[4], from), own), own);
    return _mm256_or_si256(value_nibble(raw, group), _mm256_and_si256(set, _mm256_set1_epi8(16)));
}

#endif
