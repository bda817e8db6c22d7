/* x86.h - the x86 kernels, for dispatch.c. */
#ifndef QUERN_X86_H
#define QUERN_X86_H

#include "kernels.h"

matmul_fn matmul_q4_0_avx512, matmul_q8_0_avx512, matmul_q4_k_avx512, matmul_q5_k_avx512, matmul_q6_k_avx512;

size_t matmul_scratch_avx512(void);

#endif
