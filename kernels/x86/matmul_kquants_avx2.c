#include "runs_kquants_avx2.h"
#include "turned_kquants_avx2.h"

/* Products of the k-quants and IQ4_XS on AVX2. */

static void decode_q4_k_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_super(job, row, rows, (struct turned_place)PLACE_Q4_K, (struct panel_shape)SHAPE_Q4_K);
}

static void panel_q4_k_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_k_avx2, (struct panel_shape)SHAPE_Q4_K);
}

void matmul_q4_k_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q4_K, decode_q4_k_avx2, panel_q4_k_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q5_k_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_super(job, row, rows, (struct turned_place)PLACE_Q5_K, (struct panel_shape)SHAPE_Q5_K);
}

static void panel_q5_k_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_k_avx2, (struct panel_shape)SHAPE_Q5_K);
}

void matmul_q5_k_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q5_K, decode_q5_k_avx2, panel_q5_k_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q6_k_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q6_k_avx2, (struct panel_shape)SHAPE_Q6_K);
}

static void panel_q6_k_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q6_k_avx2, (struct panel_shape)SHAPE_Q6_K);
}

void matmul_q6_k_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q6_K, decode_q6_k_avx2, panel_q6_k_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q2_k_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_super(job, row, rows, (struct turned_place)PLACE_Q2_K, (struct panel_shape)SHAPE_Q2_K);
}

static void panel_q2_k_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q2_k_avx2, (struct panel_shape)SHAPE_Q2_K);
}

void matmul_q2_k_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q2_K, decode_q2_k_avx2, panel_q2_k_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_q3_k_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    turned_super(job, row, rows, (struct turned_place)PLACE_Q3_K, (struct panel_shape)SHAPE_Q3_K);
}

static void panel_q3_k_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q3_k_avx2, (struct panel_shape)SHAPE_Q3_K);
}

void matmul_q3_k_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_Q3_K, decode_q3_k_avx2, panel_q3_k_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}

static void decode_iq4_xs_avx2(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_iq4_xs_avx2, (struct panel_shape)SHAPE_IQ4_XS);
}

static void panel_iq4_xs_avx2(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq4_xs_avx2, (struct panel_shape)SHAPE_IQ4_XS);
}

void matmul_iq4_xs_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx2 format = { SHAPE_IQ4_XS, decode_iq4_xs_avx2, panel_iq4_xs_avx2, NULL };
    matmul_panels_avx2(job, row_begin, row_end, scratch, &format);
}
