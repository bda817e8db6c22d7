/* dispatch.c - which slots the Arm kernels take over, level by level. No kernel code here: it is built for the baseline. */
#include "arm.h"

void dispatch_arm(struct kernels *table);

struct product {
    uint32_t   format;
    matmul_fn *matmul;
};

static void add_products(struct kernels *table, const struct product *products, size_t n, const char *isa)
{
    for (size_t i = 0; i < n; i++) {
        struct matmul_kernels *slot = &table->matmul[products[i].format];
        slot->isa = isa;
        slot->tile = 16;
        slot->matmul = products[i].matmul;
    }
}

static void add_neon_products(struct kernels *table)
{
    static const struct product products[] = {
        { FORMAT_F32, matmul_f32_neon }, { FORMAT_F16, matmul_f16_neon },
        { FORMAT_BF16, matmul_bf16_neon }, { FORMAT_Q1_0, matmul_q1_0_neon },
        { FORMAT_Q2_0, matmul_q2_0_neon }, { FORMAT_Q4_0, matmul_q4_0_neon },
        { FORMAT_Q4_1, matmul_q4_1_neon }, { FORMAT_Q5_0, matmul_q5_0_neon },
        { FORMAT_Q5_1, matmul_q5_1_neon }, { FORMAT_Q8_0, matmul_q8_0_neon },
        { FORMAT_IQ4_NL, matmul_iq4_nl_neon }, { FORMAT_MXFP4, matmul_mxfp4_neon },
        { FORMAT_NVFP4, matmul_nvfp4_neon }, { FORMAT_Q2_K, matmul_q2_k_neon },
        { FORMAT_Q3_K, matmul_q3_k_neon }, { FORMAT_Q4_K, matmul_q4_k_neon },
        { FORMAT_Q5_K, matmul_q5_k_neon }, { FORMAT_Q6_K, matmul_q6_k_neon },
        { FORMAT_IQ1_S, matmul_iq1_s_neon }, { FORMAT_IQ1_M, matmul_iq1_m_neon },
        { FORMAT_IQ2_XXS, matmul_iq2_xxs_neon }, { FORMAT_IQ2_XS, matmul_iq2_xs_neon },
        { FORMAT_IQ2_S, matmul_iq2_s_neon }, { FORMAT_IQ3_XXS, matmul_iq3_xxs_neon },
        { FORMAT_IQ3_S, matmul_iq3_s_neon }, { FORMAT_IQ4_XS, matmul_iq4_xs_neon },
        { FORMAT_TQ1_0, matmul_tq1_0_neon }, { FORMAT_TQ2_0, matmul_tq2_0_neon },
    };
    add_products(table, products, sizeof products / sizeof *products, "neon");
    if (table->scratch_fixed < matmul_scratch_arm())
        table->scratch_fixed = matmul_scratch_arm();
}

static void add_dotprod_products(struct kernels *table)
{
    static const struct product products[] = {
        { FORMAT_Q1_0, matmul_q1_0_dotprod }, { FORMAT_Q2_0, matmul_q2_0_dotprod },
        { FORMAT_Q4_0, matmul_q4_0_dotprod }, { FORMAT_Q4_1, matmul_q4_1_dotprod },
        { FORMAT_Q5_0, matmul_q5_0_dotprod }, { FORMAT_Q5_1, matmul_q5_1_dotprod },
        { FORMAT_Q8_0, matmul_q8_0_dotprod }, { FORMAT_IQ4_NL, matmul_iq4_nl_dotprod },
        { FORMAT_MXFP4, matmul_mxfp4_dotprod }, { FORMAT_NVFP4, matmul_nvfp4_dotprod },
        { FORMAT_Q2_K, matmul_q2_k_dotprod }, { FORMAT_Q3_K, matmul_q3_k_dotprod },
        { FORMAT_Q4_K, matmul_q4_k_dotprod }, { FORMAT_Q5_K, matmul_q5_k_dotprod },
        { FORMAT_Q6_K, matmul_q6_k_dotprod }, { FORMAT_IQ1_S, matmul_iq1_s_dotprod },
        { FORMAT_IQ1_M, matmul_iq1_m_dotprod }, { FORMAT_IQ2_XXS, matmul_iq2_xxs_dotprod },
        { FORMAT_IQ2_XS, matmul_iq2_xs_dotprod }, { FORMAT_IQ2_S, matmul_iq2_s_dotprod },
        { FORMAT_IQ3_XXS, matmul_iq3_xxs_dotprod }, { FORMAT_IQ3_S, matmul_iq3_s_dotprod },
        { FORMAT_IQ4_XS, matmul_iq4_xs_dotprod }, { FORMAT_TQ1_0, matmul_tq1_0_dotprod },
        { FORMAT_TQ2_0, matmul_tq2_0_dotprod },
    };
    add_products(table, products, sizeof products / sizeof *products, "dotprod");
}

static void add_i8mm_products(struct kernels *table)
{
    static const struct product products[] = {
        { FORMAT_Q1_0, matmul_q1_0_i8mm }, { FORMAT_Q2_0, matmul_q2_0_i8mm },
        { FORMAT_Q4_0, matmul_q4_0_i8mm }, { FORMAT_Q4_1, matmul_q4_1_i8mm },
        { FORMAT_Q5_0, matmul_q5_0_i8mm }, { FORMAT_Q5_1, matmul_q5_1_i8mm },
        { FORMAT_Q8_0, matmul_q8_0_i8mm }, { FORMAT_IQ4_NL, matmul_iq4_nl_i8mm },
        { FORMAT_MXFP4, matmul_mxfp4_i8mm }, { FORMAT_NVFP4, matmul_nvfp4_i8mm },
        { FORMAT_Q2_K, matmul_q2_k_i8mm }, { FORMAT_Q3_K, matmul_q3_k_i8mm },
        { FORMAT_Q4_K, matmul_q4_k_i8mm }, { FORMAT_Q5_K, matmul_q5_k_i8mm },
        { FORMAT_Q6_K, matmul_q6_k_i8mm }, { FORMAT_IQ1_S, matmul_iq1_s_i8mm },
        { FORMAT_IQ1_M, matmul_iq1_m_i8mm }, { FORMAT_IQ2_XXS, matmul_iq2_xxs_i8mm },
        { FORMAT_IQ2_XS, matmul_iq2_xs_i8mm }, { FORMAT_IQ2_S, matmul_iq2_s_i8mm },
        { FORMAT_IQ3_XXS, matmul_iq3_xxs_i8mm }, { FORMAT_IQ3_S, matmul_iq3_s_i8mm },
        { FORMAT_IQ4_XS, matmul_iq4_xs_i8mm }, { FORMAT_TQ1_0, matmul_tq1_0_i8mm },
        { FORMAT_TQ2_0, matmul_tq2_0_i8mm },
    };
    add_products(table, products, sizeof products / sizeof *products, "i8mm");
}

static void add_neon_others(struct kernels *table)
{
    table->rms_norm.fn = rms_norm_neon;
    table->layer_norm.fn = layer_norm_neon;
    table->rope.fn = rope_neon;
    table->silu_mul.fn = silu_mul_neon;
    table->gelu_mul.fn = gelu_mul_neon;
    table->silu.fn = silu_neon;
    table->gelu.fn = gelu_neon;
    table->axpy.fn = axpy_neon;
    table->dot.fn = dot_neon;
    table->softmax.fn = softmax_neon;
    table->softmax_step.fn = softmax_step_neon;
    table->rms_norm.isa = table->layer_norm.isa = table->rope.isa = table->silu_mul.isa = table->gelu_mul.isa = "neon";
    table->silu.isa = table->gelu.isa = table->axpy.isa = table->dot.isa = table->softmax.isa = table->softmax_step.isa = "neon";

    table->attn_scores[KV_F32].fn = attn_scores_f32_neon;
    table->attn_mix[KV_F32].fn = attn_mix_f32_neon;
    table->attn_scores[KV_F16].fn = attn_scores_f16_neon;
    table->attn_mix[KV_F16].fn = attn_mix_f16_neon;
    table->attn_scores[KV_BF16].fn = attn_scores_bf16_neon;
    table->attn_mix[KV_BF16].fn = attn_mix_bf16_neon;
    table->attn_scores[KV_Q8_0].fn = attn_scores_q8_0_neon;
    table->attn_mix[KV_Q8_0].fn = attn_mix_q8_0_neon;
    for (size_t i = 0; i < KV_TYPES; i++)
        if (i != KV_Q4_0 && i != KV_I16)
            table->attn_scores[i].isa = table->attn_mix[i].isa = "neon";

    table->act_prepare[ACT_Q8_32].fn = act_prepare_q8_32_neon;
    table->act_prepare[ACT_Q8_256].fn = act_prepare_q8_256_neon;
    table->act_prepare[ACT_Q8_32].isa = table->act_prepare[ACT_Q8_256].isa = "neon";
    table->quantize[FORMAT_F16].fn = quantize_f16_neon;
    table->quantize[FORMAT_Q8_0].fn = quantize_q8_0_neon;
    table->dequantize[FORMAT_F16].fn = dequantize_f16_neon;
    table->dequantize[FORMAT_BF16].fn = dequantize_bf16_neon;
    table->quantize[FORMAT_F16].isa = table->quantize[FORMAT_Q8_0].isa = "neon";
    table->dequantize[FORMAT_F16].isa = table->dequantize[FORMAT_BF16].isa = "neon";
}

void dispatch_arm(struct kernels *table)
{
    if (table->cpu.level >= CPU_NEON) {
        add_neon_products(table);
        add_neon_others(table);
    }
    if (table->cpu.level >= CPU_DOTPROD)
        add_dotprod_products(table);
    if (table->cpu.level >= CPU_I8MM)
        add_i8mm_products(table);
}
