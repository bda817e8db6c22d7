#include "runs_iquants_avx2.h"

/* Products of the formats with codebooks on AVX2. */

static void decode_iq2_xxs_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq2_xxs_avx2, values_iq2_xxs_avx2, total_iq2_xxs_avx2, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void panel_iq2_xxs_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xxs_avx2, (struct panel_shape)SHAPE_IQ2_XXS);
}

void matmul_iq2_xxs_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ2_XXS, decode_iq2_xxs_avx2, panel_iq2_xxs_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq2_xs_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq2_xs_avx2, values_iq2_xs_avx2, total_iq2_xs_avx2, (struct panel_shape)SHAPE_IQ2_XS);
}

static void panel_iq2_xs_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xs_avx2, (struct panel_shape)SHAPE_IQ2_XS);
}

void matmul_iq2_xs_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ2_XS, decode_iq2_xs_avx2, panel_iq2_xs_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq2_s_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq2_s_avx2, values_iq2_s_avx2, total_iq2_s_avx2, (struct panel_shape)SHAPE_IQ2_S);
}

static void panel_iq2_s_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_s_avx2, (struct panel_shape)SHAPE_IQ2_S);
}

void matmul_iq2_s_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ2_S, decode_iq2_s_avx2, panel_iq2_s_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq3_xxs_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq3_xxs_avx2, values_iq3_xxs_avx2, total_iq3_xxs_avx2, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void panel_iq3_xxs_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_xxs_avx2, (struct panel_shape)SHAPE_IQ3_XXS);
}

void matmul_iq3_xxs_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ3_XXS, decode_iq3_xxs_avx2, panel_iq3_xxs_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq3_s_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq3_s_avx2, values_iq3_s_avx2, total_iq3_s_avx2, (struct panel_shape)SHAPE_IQ3_S);
}

static void panel_iq3_s_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_s_avx2, (struct panel_shape)SHAPE_IQ3_S);
}

void matmul_iq3_s_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ3_S, decode_iq3_s_avx2, panel_iq3_s_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq1_s_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq1_s_avx2, values_iq1_s_avx2, total_iq1_s_avx2, (struct panel_shape)SHAPE_IQ1_S);
}

static void panel_iq1_s_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq1_s_avx2, (struct panel_shape)SHAPE_IQ1_S);
}

void matmul_iq1_s_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ1_S, decode_iq1_s_avx2, panel_iq1_s_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq1_m_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq1_m_avx2, values_iq1_m_avx2, total_iq1_m_avx2, (struct panel_shape)SHAPE_IQ1_M);
}

static void panel_iq1_m_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq1_m_avx2, (struct panel_shape)SHAPE_IQ1_M);
}

void matmul_iq1_m_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ1_M, decode_iq1_m_avx2, panel_iq1_m_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}
