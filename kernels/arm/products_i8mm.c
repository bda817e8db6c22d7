/* products_i8mm.c - each format with the i8mm micro kernels. */
#include "arm.h"

void matmul_q1_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q1_0_arm, &level_i8mm);
}

void matmul_q2_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q2_0_arm, &level_i8mm);
}

void matmul_q4_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q4_0_arm, &level_i8mm);
}

void matmul_q4_1_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q4_1_arm, &level_i8mm);
}

void matmul_q5_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q5_0_arm, &level_i8mm);
}

void matmul_q5_1_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q5_1_arm, &level_i8mm);
}

void matmul_q8_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q8_0_arm, &level_i8mm);
}

void matmul_iq4_nl_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq4_nl_arm, &level_i8mm);
}

void matmul_mxfp4_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_mxfp4_arm, &level_i8mm);
}

void matmul_nvfp4_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_nvfp4_arm, &level_i8mm);
}

void matmul_q2_k_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q2_k_arm, &level_i8mm);
}

void matmul_q3_k_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q3_k_arm, &level_i8mm);
}

void matmul_q4_k_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q4_k_arm, &level_i8mm);
}

void matmul_q5_k_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q5_k_arm, &level_i8mm);
}

void matmul_q6_k_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q6_k_arm, &level_i8mm);
}

void matmul_iq1_s_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq1_s_arm, &level_i8mm);
}

void matmul_iq1_m_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq1_m_arm, &level_i8mm);
}

void matmul_iq2_xxs_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq2_xxs_arm, &level_i8mm);
}

void matmul_iq2_xs_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq2_xs_arm, &level_i8mm);
}

void matmul_iq2_s_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq2_s_arm, &level_i8mm);
}

void matmul_iq3_xxs_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq3_xxs_arm, &level_i8mm);
}

void matmul_iq3_s_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq3_s_arm, &level_i8mm);
}

void matmul_iq4_xs_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq4_xs_arm, &level_i8mm);
}

void matmul_tq1_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_tq1_0_arm, &level_i8mm);
}

void matmul_tq2_0_i8mm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_tq2_0_arm, &level_i8mm);
}
