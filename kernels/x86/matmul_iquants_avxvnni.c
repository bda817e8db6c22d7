#include "matmul_avxvnni.h"
#include "runs_iquants_avx2.h"

/* Products of the formats with codebooks on AVX-VNNI. One token's are AVX2's: its loads of entries are the limit. */

static void decode_iq2_xxs_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq2_xxs_avx2, values_iq2_xxs_avx2, total_iq2_xxs_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ2_XXS));
}

static void panel_iq2_xxs_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xxs_avx2, on_vnni((struct panel_shape)SHAPE_IQ2_XXS));
}

void matmul_iq2_xxs_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq2_xxs_avxvnni, panel_iq2_xxs_avxvnni,
                          (struct panel_shape)SHAPE_IQ2_XXS);
}

static void decode_iq2_xs_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq2_xs_avx2, values_iq2_xs_avx2, total_iq2_xs_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ2_XS));
}

static void panel_iq2_xs_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xs_avx2, on_vnni((struct panel_shape)SHAPE_IQ2_XS));
}

void matmul_iq2_xs_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq2_xs_avxvnni, panel_iq2_xs_avxvnni,
                          (struct panel_shape)SHAPE_IQ2_XS);
}

static void decode_iq2_s_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq2_s_avx2, values_iq2_s_avx2, total_iq2_s_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ2_S));
}

static void panel_iq2_s_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_s_avx2, on_vnni((struct panel_shape)SHAPE_IQ2_S));
}

void matmul_iq2_s_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq2_s_avxvnni, panel_iq2_s_avxvnni,
                          (struct panel_shape)SHAPE_IQ2_S);
}

static void decode_iq3_xxs_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq3_xxs_avx2, values_iq3_xxs_avx2, total_iq3_xxs_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ3_XXS));
}

static void panel_iq3_xxs_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_xxs_avx2, on_vnni((struct panel_shape)SHAPE_IQ3_XXS));
}

void matmul_iq3_xxs_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq3_xxs_avxvnni, panel_iq3_xxs_avxvnni,
                          (struct panel_shape)SHAPE_IQ3_XXS);
}

static void decode_iq3_s_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq3_s_avx2, values_iq3_s_avx2, total_iq3_s_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ3_S));
}

static void panel_iq3_s_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_s_avx2, on_vnni((struct panel_shape)SHAPE_IQ3_S));
}

void matmul_iq3_s_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq3_s_avxvnni, panel_iq3_s_avxvnni,
                          (struct panel_shape)SHAPE_IQ3_S);
}

static void decode_iq1_s_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq1_s_avx2, values_iq1_s_avx2, total_iq1_s_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ1_S));
}

static void panel_iq1_s_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq1_s_avx2, on_vnni((struct panel_shape)SHAPE_IQ1_S));
}

void matmul_iq1_s_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq1_s_avxvnni, panel_iq1_s_avxvnni,
                          (struct panel_shape)SHAPE_IQ1_S);
}

static void decode_iq1_m_avxvnni(const struct matmul_job *job, size_t row, size_t rows)
{
    book_format(job, row, rows, apart_iq1_m_avx2, values_iq1_m_avx2, total_iq1_m_avx2,
                on_vnni((struct panel_shape)SHAPE_IQ1_M));
}

static void panel_iq1_m_avxvnni(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq1_m_avx2, on_vnni((struct panel_shape)SHAPE_IQ1_M));
}

void matmul_iq1_m_avxvnni(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_format_avxvnni(job, row_begin, row_end, scratch, decode_iq1_m_avxvnni, panel_iq1_m_avxvnni,
                          (struct panel_shape)SHAPE_IQ1_M);
}
