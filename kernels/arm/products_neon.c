/* products_neon.c - each format with the neon micro kernels. Written out, one name per function: a search for matmul_q4_k_neon ends
 * here, and from here leads to the format's run (formats_neon.c) and the level's micro kernels (micro_neon.c). */
#include "arm.h"

void matmul_q1_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q1_0_arm, &level_neon);
}

void matmul_q2_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q2_0_arm, &level_neon);
}

void matmul_q4_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q4_0_arm, &level_neon);
}

void matmul_q4_1_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q4_1_arm, &level_neon);
}

void matmul_q5_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q5_0_arm, &level_neon);
}

void matmul_q5_1_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q5_1_arm, &level_neon);
}

void matmul_q8_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q8_0_arm, &level_neon);
}

void matmul_iq4_nl_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq4_nl_arm, &level_neon);
}

void matmul_mxfp4_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_mxfp4_arm, &level_neon);
}

void matmul_nvfp4_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_nvfp4_arm, &level_neon);
}

void matmul_q2_k_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q2_k_arm, &level_neon);
}

void matmul_q3_k_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q3_k_arm, &level_neon);
}

void matmul_q4_k_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q4_k_arm, &level_neon);
}

void matmul_q5_k_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q5_k_arm, &level_neon);
}

void matmul_q6_k_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_q6_k_arm, &level_neon);
}

void matmul_iq1_s_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq1_s_arm, &level_neon);
}

void matmul_iq1_m_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq1_m_arm, &level_neon);
}

void matmul_iq2_xxs_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq2_xxs_arm, &level_neon);
}

void matmul_iq2_xs_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq2_xs_arm, &level_neon);
}

void matmul_iq2_s_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq2_s_arm, &level_neon);
}

void matmul_iq3_xxs_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq3_xxs_arm, &level_neon);
}

void matmul_iq3_s_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq3_s_arm, &level_neon);
}

void matmul_iq4_xs_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_iq4_xs_arm, &level_neon);
}

void matmul_tq1_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_tq1_0_arm, &level_neon);
}

void matmul_tq2_0_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_rows_arm(job, row_begin, row_end, scratch, &format_tq2_0_arm, &level_neon);
}
