#include "matmul_avx2.h"

/* Formats with blocks of 32 values on AVX2. */

static ALWAYS_INLINE void run_q8_0_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 34);
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_loadu_si256((const __m256i *)(bytes + 34 * k + 2));
}

#define SHAPE_Q8_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 255, .bytes = 272, .factor = 1 }

static void decode_q8_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q8_0_avx2, (struct panel_shape)SHAPE_Q8_0);
}

static void panel_q8_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q8_0_avx2, (struct panel_shape)SHAPE_Q8_0);
}

void matmul_q8_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q8_0, decode_q8_0_avx2, panel_q8_0_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static ALWAYS_INLINE void run_q4_0_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 18);
    for (int k = 0; k < 8; k++)
        out->q[k] = nibbles_of_16(bytes + 18 * k + 2);
    for (int k = 0; k < 4; k++)
        nibbles_of_2_blocks(out->pair + 2 * k, bytes + 36 * k + 2, 18);
}

#define SHAPE_Q4_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 8, .top = 15, .bytes = 144, .factor = 1, .order = ORDER_QUARTERS }

static void decode_q4_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q4_0_avx2, (struct panel_shape)SHAPE_Q4_0);
}

static void panel_q4_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_0_avx2, (struct panel_shape)SHAPE_Q4_0);
}

void matmul_q4_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q4_0, decode_q4_0_avx2, panel_q4_0_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

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

static void decode_q4_1_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q4_1_avx2, (struct panel_shape)SHAPE_Q4_1);
}

static void panel_q4_1_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_1_avx2, (struct panel_shape)SHAPE_Q4_1);
}

void matmul_q4_1_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q4_1, decode_q4_1_avx2, panel_q4_1_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

/* 16 where bit i of the word is set. */
static ALWAYS_INLINE __m256i fifth_bits(const uint8_t *word)
{
    return _mm256_and_si256(bytes_of_bits(u32_at(word)), _mm256_set1_epi8(16));
}

static ALWAYS_INLINE void run_q5_0_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 22);
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_or_si256(nibbles_of_16(bytes + 22 * k + 6), fifth_bits(bytes + 22 * k + 2));
}

#define SHAPE_Q5_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 16, .top = 31, .bytes = 176, .factor = 1 }

static void decode_q5_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q5_0_avx2, (struct panel_shape)SHAPE_Q5_0);
}

static void panel_q5_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_0_avx2, (struct panel_shape)SHAPE_Q5_0);
}

void matmul_q5_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q5_0, decode_q5_0_avx2, panel_q5_0_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static ALWAYS_INLINE void run_q5_1_avx2(struct run *out, const uint8_t *bytes)
{
    halves_of_8_blocks(out->file_scale, bytes, 24);
    halves_of_8_blocks(out->file_low, bytes + 2, 24);
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_or_si256(nibbles_of_16(bytes + 24 * k + 8), fifth_bits(bytes + 24 * k + 4));
}

#define SHAPE_Q5_1 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 31, .bytes = 192, .factor = 1, .mins = true }

static void decode_q5_1_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q5_1_avx2, (struct panel_shape)SHAPE_Q5_1);
}

static void panel_q5_1_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_1_avx2, (struct panel_shape)SHAPE_Q5_1);
}

void matmul_q5_1_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q5_1, decode_q5_1_avx2, panel_q5_1_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

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

#define SHAPE_IQ4_NL { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 255, .bytes = 144, .factor = 1, .order = ORDER_QUARTERS }

static void decode_iq4_nl_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_iq4_nl_avx2, (struct panel_shape)SHAPE_IQ4_NL);
}

static void panel_iq4_nl_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq4_nl_avx2, (struct panel_shape)SHAPE_IQ4_NL);
}

void matmul_iq4_nl_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ4_NL, decode_iq4_nl_avx2, panel_iq4_nl_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

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

static void decode_mxfp4_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_mxfp4_avx2, (struct panel_shape)SHAPE_MXFP4);
}

static void panel_mxfp4_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_mxfp4_avx2, (struct panel_shape)SHAPE_MXFP4);
}

void matmul_mxfp4_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_MXFP4, decode_mxfp4_avx2, panel_mxfp4_avx2 };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}
