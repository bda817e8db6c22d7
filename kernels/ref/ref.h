/* ref.h - the reference kernels: plain C, sums in double, every input defined. Contracts are in kernels.h. */
#ifndef QUERN_REF_H
#define QUERN_REF_H

#include "kernels.h"
#include "unpack.h"

dequantize_fn dequantize_f32_ref, dequantize_f16_ref, dequantize_bf16_ref, dequantize_q1_0_ref, dequantize_q2_0_ref,
              dequantize_q4_0_ref, dequantize_q4_1_ref, dequantize_q5_0_ref, dequantize_q5_1_ref, dequantize_q8_0_ref,
              dequantize_iq4_nl_ref, dequantize_mxfp4_ref, dequantize_nvfp4_ref, dequantize_q2_k_ref, dequantize_q3_k_ref,
              dequantize_q4_k_ref, dequantize_q5_k_ref, dequantize_q6_k_ref, dequantize_iq1_s_ref, dequantize_iq1_m_ref,
              dequantize_iq2_xxs_ref, dequantize_iq2_xs_ref, dequantize_iq2_s_ref, dequantize_iq3_xxs_ref, dequantize_iq3_s_ref,
              dequantize_iq4_xs_ref, dequantize_tq1_0_ref, dequantize_tq2_0_ref;
matmul_fn matmul_f32_ref, matmul_f16_ref, matmul_bf16_ref, matmul_q1_0_ref, matmul_q2_0_ref, matmul_q4_0_ref, matmul_q4_1_ref,
          matmul_q5_0_ref, matmul_q5_1_ref, matmul_q8_0_ref, matmul_iq4_nl_ref, matmul_mxfp4_ref, matmul_nvfp4_ref, matmul_q2_k_ref,
          matmul_q3_k_ref, matmul_q4_k_ref, matmul_q5_k_ref, matmul_q6_k_ref, matmul_iq1_s_ref, matmul_iq1_m_ref,
          matmul_iq2_xxs_ref, matmul_iq2_xs_ref, matmul_iq2_s_ref, matmul_iq3_xxs_ref, matmul_iq3_s_ref, matmul_iq4_xs_ref,
          matmul_tq1_0_ref, matmul_tq2_0_ref;
quantize_fn quantize_f32_ref, quantize_f16_ref, quantize_bf16_ref, quantize_q8_0_ref, quantize_q4_0_ref;
act_prepare_fn act_prepare_f32_ref, act_prepare_bf16_ref, act_prepare_q8_32_ref, act_prepare_q8_256_ref;

rms_norm_fn rms_norm_ref;
layer_norm_fn layer_norm_ref;
rope_fn rope_ref;
gate_fn silu_mul_ref, gelu_mul_ref;
unary_fn silu_ref, gelu_ref;
axpy_fn axpy_ref;
dot_fn dot_ref;
softmax_fn softmax_ref;
softmax_step_fn softmax_step_ref;

attn_scores_fn attn_scores_f32_ref, attn_scores_f16_ref, attn_scores_bf16_ref, attn_scores_q8_0_ref, attn_scores_q4_0_ref;
attn_mix_fn attn_mix_f32_ref, attn_mix_f16_ref, attn_mix_bf16_ref, attn_mix_q8_0_ref, attn_mix_q4_0_ref;
attn_scores_fn attn_scores_i16_ref;
attn_mix_fn attn_mix_i16_ref;
attn_query_fn attn_query_ref;
attn_store_fn attn_store_key_ref, attn_store_value_ref;

#endif
