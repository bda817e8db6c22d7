/* x86.h - the x86 kernels, for dispatch.c. */
#ifndef QUERN_X86_H
#define QUERN_X86_H

#include "kernels.h"

matmul_fn matmul_q1_0_avx512, matmul_q2_0_avx512, matmul_q4_0_avx512, matmul_q4_1_avx512, matmul_q5_0_avx512, matmul_q5_1_avx512,
          matmul_q8_0_avx512, matmul_iq4_nl_avx512, matmul_mxfp4_avx512, matmul_nvfp4_avx512;
matmul_fn matmul_q2_k_avx512, matmul_q3_k_avx512, matmul_q4_k_avx512, matmul_q5_k_avx512, matmul_q6_k_avx512, matmul_tq1_0_avx512,
          matmul_tq2_0_avx512;
matmul_fn matmul_iq1_s_avx512, matmul_iq1_m_avx512, matmul_iq2_xxs_avx512, matmul_iq2_xs_avx512, matmul_iq2_s_avx512,
          matmul_iq3_xxs_avx512, matmul_iq3_s_avx512, matmul_iq4_xs_avx512;

matmul_fn matmul_f32_avx512, matmul_f16_avx512, matmul_bf16_avx512;
act_prepare_fn act_prepare_q8_32_avx512, act_prepare_q8_256_avx512;

/* Bytes of scratch. */
size_t matmul_float_scratch_avx512(void);
size_t matmul_scratch_avx512(void);

#endif
