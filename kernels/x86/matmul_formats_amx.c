#include "matmul_avx512.h"

/* The formats on AMX: the panels are AVX-512's, the products matmul_amx.c's. */

void matmul_q1_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q1_0_avx512);
}

void matmul_q2_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q2_0_avx512);
}

void matmul_q4_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q4_0_avx512);
}

void matmul_q4_1_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q4_1_avx512);
}

void matmul_q5_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q5_0_avx512);
}

void matmul_q5_1_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q5_1_avx512);
}

void matmul_q8_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q8_0_avx512);
}

void matmul_iq4_nl_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq4_nl_avx512);
}

void matmul_mxfp4_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_mxfp4_avx512);
}

void matmul_nvfp4_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_nvfp4_avx512);
}

void matmul_q2_k_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q2_k_avx512);
}

void matmul_q3_k_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q3_k_avx512);
}

void matmul_q4_k_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q4_k_avx512);
}

void matmul_q5_k_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_q5_k_avx512);
}

void matmul_q6_k_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1)
        matmul_q6_k_avx512(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_q6_k_avx512);
}

void matmul_tq1_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1)
        matmul_tq1_0_avx512(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_tq1_0_avx512);
}

void matmul_tq2_0_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_tq2_0_avx512);
}

void matmul_iq1_s_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq1_s_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq1_s_avx512);
}

void matmul_iq1_m_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq1_m_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq1_m_avx512);
}

void matmul_iq2_xxs_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq2_xxs_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq2_xxs_avx512vbmi);
}

void matmul_iq2_xs_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq2_xs_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq2_xs_avx512vbmi);
}

void matmul_iq2_s_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq2_s_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq2_s_avx512vbmi);
}

void matmul_iq3_xxs_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq3_xxs_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq3_xxs_avx512vbmi);
}

void matmul_iq3_s_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks <= DECODE_TOKS)
        matmul_iq3_s_avx512vbmi(job, row_begin, row_end, scratch);
    else
        matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq3_s_avx512vbmi);
}

void matmul_iq4_xs_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_amx(job, row_begin, row_end, scratch, &format_iq4_xs_avx512);
}
