/* runs_small_avx2.h - formats with blocks of 32 values: from the file's bytes to a run in registers, for AVX2 and its additions. */
#ifndef QUERN_RUNS_SMALL_AVX2_H
#define QUERN_RUNS_SMALL_AVX2_H

#include "matmul_avx2.h"

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
    for (int k = 0; k < 4; k++)
        nibbles_of_2_blocks(out->pair + 2 * k, bytes + 40 * k + 4, 20);
}

#define SHAPE_Q4_1 \
    { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 15, .bytes = 160, .factor = 1, .mins = true, .order = ORDER_QUARTERS }

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

#endif
