#include "matmul_avxvnni.h"
#include "runs_others_avx2.h"

/* Products of the formats that the reference unpacks on AVX-VNNI. */

static void decode_tq1_0_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_tq1_0_avx2, on_vnni((struct panel_shape)SHAPE_TQ1_0));
}

static void panel_tq1_0_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_tq1_0_avx2, on_vnni((struct panel_shape)SHAPE_TQ1_0));
}

void matmul_tq1_0_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_tq1_0_avxvnni, panel_tq1_0_avxvnni,
                          (struct panel_shape)SHAPE_TQ1_0);
}

static void decode_tq2_0_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_tq2_0_avx2, on_vnni((struct panel_shape)SHAPE_TQ2_0));
}

static void panel_tq2_0_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_tq2_0_avx2, on_vnni((struct panel_shape)SHAPE_TQ2_0));
}

void matmul_tq2_0_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_tq2_0_avxvnni, panel_tq2_0_avxvnni,
                          (struct panel_shape)SHAPE_TQ2_0);
}

static void decode_q1_0_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q1_0_avx2, on_vnni((struct panel_shape)SHAPE_Q1_0));
}

static void panel_q1_0_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q1_0_avx2, on_vnni((struct panel_shape)SHAPE_Q1_0));
}

void matmul_q1_0_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_q1_0_avxvnni, panel_q1_0_avxvnni,
                          (struct panel_shape)SHAPE_Q1_0);
}

static void decode_q2_0_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q2_0_avx2, on_vnni((struct panel_shape)SHAPE_Q2_0));
}

static void panel_q2_0_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q2_0_avx2, on_vnni((struct panel_shape)SHAPE_Q2_0));
}

void matmul_q2_0_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_q2_0_avxvnni, panel_q2_0_avxvnni,
                          (struct panel_shape)SHAPE_Q2_0);
}

static void decode_nvfp4_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_nvfp4_avx2, on_vnni((struct panel_shape)SHAPE_NVFP4));
}

static void panel_nvfp4_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_nvfp4_avx2, on_vnni((struct panel_shape)SHAPE_NVFP4));
}

void matmul_nvfp4_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_nvfp4_avxvnni, panel_nvfp4_avxvnni,
                          (struct panel_shape)SHAPE_NVFP4);
}
