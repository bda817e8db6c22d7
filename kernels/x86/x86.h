/* x86.h - the x86 kernels, for dispatch.c. */
#ifndef QUERN_X86_H
#define QUERN_X86_H

#include "kernels.h"

matmul_fn matmul_q1_0_avx2, matmul_q2_0_avx2, matmul_q4_0_avx2, matmul_q4_1_avx2, matmul_q5_0_avx2, matmul_q5_1_avx2,
          matmul_q8_0_avx2, matmul_iq4_nl_avx2, matmul_mxfp4_avx2, matmul_nvfp4_avx2, matmul_q2_k_avx2, matmul_q3_k_avx2,
          matmul_q4_k_avx2, matmul_q5_k_avx2, matmul_q6_k_avx2, matmul_tq1_0_avx2, matmul_tq2_0_avx2, matmul_iq1_s_avx2,
          matmul_iq1_m_avx2, matmul_iq2_xxs_avx2, matmul_iq2_xs_avx2, matmul_iq2_s_avx2, matmul_iq3_xxs_avx2,
          matmul_iq3_s_avx2, matmul_iq4_xs_avx2;

matmul_fn matmul_q8_0_avxvnni, matmul_q4_0_avxvnni, matmul_q4_1_avxvnni, matmul_q5_0_avxvnni, matmul_q5_1_avxvnni,
          matmul_iq4_nl_avxvnni, matmul_mxfp4_avxvnni, matmul_q4_k_avxvnni, matmul_q5_k_avxvnni, matmul_q6_k_avxvnni,
          matmul_q2_k_avxvnni, matmul_q3_k_avxvnni, matmul_iq4_xs_avxvnni, matmul_iq2_xxs_avxvnni, matmul_iq2_xs_avxvnni,
          matmul_iq2_s_avxvnni, matmul_iq3_xxs_avxvnni, matmul_iq3_s_avxvnni, matmul_iq1_s_avxvnni, matmul_iq1_m_avxvnni,
          matmul_tq1_0_avxvnni, matmul_tq2_0_avxvnni, matmul_q1_0_avxvnni, matmul_q2_0_avxvnni, matmul_nvfp4_avxvnni;

matmul_fn matmul_q1_0_avx512, matmul_q2_0_avx512, matmul_q4_0_avx512, matmul_q4_1_avx512, matmul_q5_0_avx512, matmul_q5_1_avx512,
          matmul_q8_0_avx512, matmul_iq4_nl_avx512, matmul_mxfp4_avx512, matmul_nvfp4_avx512;
matmul_fn matmul_q2_k_avx512, matmul_q3_k_avx512, matmul_q4_k_avx512, matmul_q5_k_avx512, matmul_q6_k_avx512, matmul_tq1_0_avx512,
          matmul_tq2_0_avx512;
matmul_fn matmul_iq1_s_avx512, matmul_iq1_m_avx512, matmul_iq2_xxs_avx512, matmul_iq2_xs_avx512, matmul_iq2_s_avx512,
          matmul_iq3_xxs_avx512, matmul_iq3_s_avx512, matmul_iq4_xs_avx512;

matmul_fn matmul_f32_avx2, matmul_f16_avx2, matmul_bf16_avx2;
act_prepare_fn act_prepare_q8_32_avx2, act_prepare_q8_256_avx2;

quantize_fn quantize_f16_avx2, quantize_bf16_avx2, quantize_q8_0_avx2;
dequantize_fn dequantize_f16_avx2, dequantize_bf16_avx2;

rms_norm_fn rms_norm_avx2;
layer_norm_fn layer_norm_avx2;
rope_fn rope_avx2;
gate_fn silu_mul_avx2, gelu_mul_avx2;
unary_fn silu_avx2, gelu_avx2;
axpy_fn axpy_avx2;
dot_fn dot_avx2;
softmax_fn softmax_avx2;
softmax_step_fn softmax_step_avx2;

attn_scores_fn attn_scores_f32_avx2, attn_scores_f16_avx2, attn_scores_bf16_avx2, attn_scores_q8_0_avx2,
               attn_scores_q4_0_avx2;
attn_mix_fn attn_mix_f32_avx2, attn_mix_f16_avx2, attn_mix_bf16_avx2, attn_mix_q8_0_avx2, attn_mix_q4_0_avx2;
attn_scores_fn attn_scores_i16_avx2;
attn_mix_fn attn_mix_i16_avx2;

matmul_fn matmul_f32_avx512, matmul_f16_avx512, matmul_bf16_avx512;
act_prepare_fn act_prepare_q8_32_avx512, act_prepare_q8_256_avx512;

quantize_fn quantize_f16_avx512, quantize_bf16_avx512, quantize_q8_0_avx512, quantize_q4_0_avx512;
dequantize_fn dequantize_f16_avx512, dequantize_bf16_avx512;

rms_norm_fn rms_norm_avx512;
layer_norm_fn layer_norm_avx512;
rope_fn rope_avx512;
gate_fn silu_mul_avx512, gelu_mul_avx512;
unary_fn silu_avx512, gelu_avx512;
axpy_fn axpy_avx512;
dot_fn dot_avx512;
softmax_fn softmax_avx512;
softmax_step_fn softmax_step_avx512;
softmax_rows_fn softmax_rows_avx512;

attn_scores_fn attn_scores_f32_avx512, attn_scores_f16_avx512, attn_scores_bf16_avx512, attn_scores_q8_0_avx512,
               attn_scores_q4_0_avx512;
attn_mix_fn attn_mix_f32_avx512, attn_mix_f16_avx512, attn_mix_bf16_avx512, attn_mix_q8_0_avx512, attn_mix_q4_0_avx512;
attn_scores_fn attn_scores_i16_avx512;
attn_mix_fn attn_mix_i16_avx512;
attn_query_fn attn_query_avx512;
attn_store_fn attn_store_key_avx512, attn_store_value_avx512;

matmul_fn matmul_q1_0_amx, matmul_q2_0_amx, matmul_q4_0_amx, matmul_q4_1_amx, matmul_q5_0_amx, matmul_q5_1_amx,
          matmul_q8_0_amx, matmul_iq4_nl_amx, matmul_mxfp4_amx, matmul_nvfp4_amx;
matmul_fn matmul_q2_k_amx, matmul_q3_k_amx, matmul_q4_k_amx, matmul_q5_k_amx, matmul_q6_k_amx, matmul_tq1_0_amx,
          matmul_tq2_0_amx;
matmul_fn matmul_iq2_xxs_avx512vbmi, matmul_iq2_xs_avx512vbmi, matmul_iq2_s_avx512vbmi, matmul_iq3_xxs_avx512vbmi,
          matmul_iq3_s_avx512vbmi, matmul_iq1_s_avx512vbmi, matmul_iq1_m_avx512vbmi;
matmul_fn matmul_iq1_s_amx, matmul_iq1_m_amx, matmul_iq2_xxs_amx, matmul_iq2_xs_amx, matmul_iq2_s_amx,
          matmul_iq3_xxs_amx, matmul_iq3_s_amx, matmul_iq4_xs_amx;

matmul_fn matmul_bf16_avx512bf16;
act_prepare_fn act_prepare_bf16_avx512bf16;

/* Bytes of scratch. */
size_t matmul_scratch_avx2(void);
size_t matmul_float_scratch_avx2(void);
size_t matmul_float_scratch_avx512(void);
size_t matmul_float_scratch_avx512bf16(void);
size_t matmul_scratch_avx512(void);
size_t matmul_few_scratch_per_col_avx512(void);      /* per column, rounded up to 256 columns */
size_t matmul_scratch_amx(void);

#endif
