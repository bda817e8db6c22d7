#include "runs_small_avx2.h"

/* Products of formats with blocks of 32 values on AVX2. */

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
    static const struct format_avx2 format = { SHAPE_Q8_0, decode_q8_0_avx2, panel_q8_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q4_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    if (job->toks == 1)
        decode_rows(job, row, rows, 1, run_q4_0_avx2, (struct panel_shape)SHAPE_Q4_0);
    else
        turned_small(job, row, rows, turn_after_2, value_nibble, (struct panel_shape)SHAPE_Q4_0);
}

static void panel_q4_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_0_avx2, (struct panel_shape)SHAPE_Q4_0);
}

void matmul_q4_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q4_0, decode_q4_0_avx2, panel_q4_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q4_1_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_small(job, row, rows, turn_after_4, value_nibble, (struct panel_shape)SHAPE_Q4_1);
}

static void panel_q4_1_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_1_avx2, (struct panel_shape)SHAPE_Q4_1);
}

void matmul_q4_1_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q4_1, decode_q4_1_avx2, panel_q4_1_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q5_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_small(job, row, rows, turn_q5_0, value_fifth, (struct panel_shape)SHAPE_Q5_0);
}

static void panel_q5_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_0_avx2, (struct panel_shape)SHAPE_Q5_0);
}

void matmul_q5_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q5_0, decode_q5_0_avx2, panel_q5_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q5_1_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_small(job, row, rows, turn_q5_1, value_fifth, (struct panel_shape)SHAPE_Q5_1);
}

static void panel_q5_1_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_1_avx2, (struct panel_shape)SHAPE_Q5_1);
}

void matmul_q5_1_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q5_1, decode_q5_1_avx2, panel_q5_1_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

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
    static const struct format_avx2 format = { SHAPE_IQ4_NL, decode_iq4_nl_avx2, panel_iq4_nl_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

/* Apart: within the function below it made gcc's code for one token 5 % slower. */
static __attribute__((noinline)) void several_mxfp4(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_small(job, row, rows, turn_after_1, value_fp4, (struct panel_shape)SHAPE_MXFP4);
}

static void decode_mxfp4_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    if (job->toks == 1)
        decode_rows(job, row, rows, 1, run_mxfp4_avx2, (struct panel_shape)SHAPE_MXFP4);
    else
        several_mxfp4(job, row, rows);
}

static void panel_mxfp4_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_mxfp4_avx2, (struct panel_shape)SHAPE_MXFP4);
}

void matmul_mxfp4_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_MXFP4, decode_mxfp4_avx2, panel_mxfp4_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}
