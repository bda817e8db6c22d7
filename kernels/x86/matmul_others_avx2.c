#include "runs_others_avx2.h"

/* Products of the formats that the reference unpacks on AVX2. */

static void decode_tq1_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_tq1_0_avx2, (struct panel_shape)SHAPE_TQ1_0);
}

static void panel_tq1_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_tq1_0_avx2, (struct panel_shape)SHAPE_TQ1_0);
}

void matmul_tq1_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_TQ1_0, decode_tq1_0_avx2, panel_tq1_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_tq2_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_tq2_0_avx2, (struct panel_shape)SHAPE_TQ2_0);
}

static void panel_tq2_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_tq2_0_avx2, (struct panel_shape)SHAPE_TQ2_0);
}

void matmul_tq2_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_TQ2_0, decode_tq2_0_avx2, panel_tq2_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q1_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q1_0_avx2, (struct panel_shape)SHAPE_Q1_0);
}

static void panel_q1_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q1_0_avx2, (struct panel_shape)SHAPE_Q1_0);
}

void matmul_q1_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q1_0, decode_q1_0_avx2, panel_q1_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q2_0_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q2_0_avx2, (struct panel_shape)SHAPE_Q2_0);
}

static void panel_q2_0_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q2_0_avx2, (struct panel_shape)SHAPE_Q2_0);
}

void matmul_q2_0_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q2_0, decode_q2_0_avx2, panel_q2_0_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_nvfp4_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_nvfp4_avx2, (struct panel_shape)SHAPE_NVFP4);
}

static void panel_nvfp4_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_nvfp4_avx2, (struct panel_shape)SHAPE_NVFP4);
}

void matmul_nvfp4_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_NVFP4, decode_nvfp4_avx2, panel_nvfp4_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}
