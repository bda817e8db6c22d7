/* dispatch.c - which slots the x86 kernels take over, level by level. No kernel code here: it is built for the baseline. */
#include "x86.h"

void dispatch_x86(struct kernels *table);

/* The slots' types differ, so no function can do this. */
#define SERVE(slot, who, function) ((slot).isa = (who), (slot).fn = (function))

static void serve(struct kernels *table, uint32_t format, const char *isa, size_t tile, matmul_fn *matmul)
{
    table->matmul[format].isa = isa;
    table->matmul[format].tile = tile;
    table->matmul[format].matmul = matmul;
}

static void need_scratch(struct kernels *table, size_t bytes)
{
    if (table->scratch_fixed < bytes)
        table->scratch_fixed = bytes;
}

static void add_products_avx2(struct kernels *table)
{
    static const struct { uint32_t format; matmul_fn *matmul; } products[] = {
        { FORMAT_F32, matmul_f32_avx2 }, { FORMAT_F16, matmul_f16_avx2 },
        { FORMAT_BF16, matmul_bf16_avx2 },
        { FORMAT_Q1_0, matmul_q1_0_avx2 }, { FORMAT_Q2_0, matmul_q2_0_avx2 },
        { FORMAT_Q4_0, matmul_q4_0_avx2 }, { FORMAT_Q4_1, matmul_q4_1_avx2 },
        { FORMAT_Q5_0, matmul_q5_0_avx2 }, { FORMAT_Q5_1, matmul_q5_1_avx2 },
        { FORMAT_Q8_0, matmul_q8_0_avx2 }, { FORMAT_IQ4_NL, matmul_iq4_nl_avx2 },
        { FORMAT_MXFP4, matmul_mxfp4_avx2 }, { FORMAT_NVFP4, matmul_nvfp4_avx2 },
        { FORMAT_Q2_K, matmul_q2_k_avx2 }, { FORMAT_Q3_K, matmul_q3_k_avx2 },
        { FORMAT_Q4_K, matmul_q4_k_avx2 }, { FORMAT_Q5_K, matmul_q5_k_avx2 },
        { FORMAT_Q6_K, matmul_q6_k_avx2 }, { FORMAT_TQ1_0, matmul_tq1_0_avx2 },
        { FORMAT_TQ2_0, matmul_tq2_0_avx2 }, { FORMAT_IQ1_S, matmul_iq1_s_avx2 },
        { FORMAT_IQ1_M, matmul_iq1_m_avx2 }, { FORMAT_IQ2_XXS, matmul_iq2_xxs_avx2 },
        { FORMAT_IQ2_XS, matmul_iq2_xs_avx2 }, { FORMAT_IQ2_S, matmul_iq2_s_avx2 },
        { FORMAT_IQ3_XXS, matmul_iq3_xxs_avx2 }, { FORMAT_IQ3_S, matmul_iq3_s_avx2 },
        { FORMAT_IQ4_XS, matmul_iq4_xs_avx2 },
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        serve(table, products[i].format, "avx2", 64, products[i].matmul);
    need_scratch(table, matmul_scratch_avx2());
    need_scratch(table, matmul_float_scratch_avx2());
}

/* AVX2's products with other dots; its scratch serves them. */
static void add_vnni(struct kernels *table)
{
    static const struct { uint32_t format; matmul_fn *matmul; } products[] = {
        { FORMAT_Q1_0, matmul_q1_0_avxvnni }, { FORMAT_Q2_0, matmul_q2_0_avxvnni },
        { FORMAT_Q4_0, matmul_q4_0_avxvnni }, { FORMAT_Q4_1, matmul_q4_1_avxvnni },
        { FORMAT_Q5_0, matmul_q5_0_avxvnni }, { FORMAT_Q5_1, matmul_q5_1_avxvnni },
        { FORMAT_Q8_0, matmul_q8_0_avxvnni }, { FORMAT_IQ4_NL, matmul_iq4_nl_avxvnni },
        { FORMAT_MXFP4, matmul_mxfp4_avxvnni }, { FORMAT_NVFP4, matmul_nvfp4_avxvnni },
        { FORMAT_Q2_K, matmul_q2_k_avxvnni }, { FORMAT_Q3_K, matmul_q3_k_avxvnni },
        { FORMAT_Q4_K, matmul_q4_k_avxvnni }, { FORMAT_Q5_K, matmul_q5_k_avxvnni },
        { FORMAT_Q6_K, matmul_q6_k_avxvnni }, { FORMAT_TQ1_0, matmul_tq1_0_avxvnni },
        { FORMAT_TQ2_0, matmul_tq2_0_avxvnni }, { FORMAT_IQ1_S, matmul_iq1_s_avxvnni },
        { FORMAT_IQ1_M, matmul_iq1_m_avxvnni }, { FORMAT_IQ2_XXS, matmul_iq2_xxs_avxvnni },
        { FORMAT_IQ2_XS, matmul_iq2_xs_avxvnni }, { FORMAT_IQ2_S, matmul_iq2_s_avxvnni },
        { FORMAT_IQ3_XXS, matmul_iq3_xxs_avxvnni }, { FORMAT_IQ3_S, matmul_iq3_s_avxvnni },
        { FORMAT_IQ4_XS, matmul_iq4_xs_avxvnni },
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        serve(table, products[i].format, "avx_vnni", 64, products[i].matmul);
}

static void add_products_avx512(struct kernels *table)
{
    static const struct { uint32_t format; matmul_fn *matmul; } products[] = {
        { FORMAT_F32, matmul_f32_avx512 }, { FORMAT_F16, matmul_f16_avx512 },
        { FORMAT_BF16, matmul_bf16_avx512 }, { FORMAT_Q1_0, matmul_q1_0_avx512 },
        { FORMAT_Q2_0, matmul_q2_0_avx512 }, { FORMAT_Q4_0, matmul_q4_0_avx512 },
        { FORMAT_Q4_1, matmul_q4_1_avx512 }, { FORMAT_Q5_0, matmul_q5_0_avx512 },
        { FORMAT_Q5_1, matmul_q5_1_avx512 }, { FORMAT_Q8_0, matmul_q8_0_avx512 },
        { FORMAT_IQ4_NL, matmul_iq4_nl_avx512 }, { FORMAT_MXFP4, matmul_mxfp4_avx512 },
        { FORMAT_NVFP4, matmul_nvfp4_avx512 }, { FORMAT_Q2_K, matmul_q2_k_avx512 },
        { FORMAT_Q3_K, matmul_q3_k_avx512 }, { FORMAT_Q4_K, matmul_q4_k_avx512 },
        { FORMAT_Q5_K, matmul_q5_k_avx512 }, { FORMAT_Q6_K, matmul_q6_k_avx512 },
        { FORMAT_TQ1_0, matmul_tq1_0_avx512 }, { FORMAT_TQ2_0, matmul_tq2_0_avx512 },
        { FORMAT_IQ1_S, matmul_iq1_s_avx512 }, { FORMAT_IQ1_M, matmul_iq1_m_avx512 },
        { FORMAT_IQ2_XXS, matmul_iq2_xxs_avx512 }, { FORMAT_IQ2_XS, matmul_iq2_xs_avx512 },
        { FORMAT_IQ2_S, matmul_iq2_s_avx512 }, { FORMAT_IQ3_XXS, matmul_iq3_xxs_avx512 },
        { FORMAT_IQ3_S, matmul_iq3_s_avx512 }, { FORMAT_IQ4_XS, matmul_iq4_xs_avx512 },
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        serve(table, products[i].format, "avx512", 64, products[i].matmul);
    need_scratch(table, matmul_scratch_avx512());
    if (table->scratch_per_col < matmul_few_scratch_per_col_avx512())
        table->scratch_per_col = matmul_few_scratch_per_col_avx512();
    need_scratch(table, matmul_float_scratch_avx512());
}

static void add_conversions_avx2(struct kernels *table)
{
    SERVE(table->act_prepare[ACT_Q8_32], "avx2", act_prepare_q8_32_avx2);
    SERVE(table->act_prepare[ACT_Q8_256], "avx2", act_prepare_q8_256_avx2);
    SERVE(table->quantize[FORMAT_F16], "avx2", quantize_f16_avx2);
    SERVE(table->quantize[FORMAT_BF16], "avx2", quantize_bf16_avx2);
    SERVE(table->quantize[FORMAT_Q8_0], "avx2", quantize_q8_0_avx2);
    SERVE(table->dequantize[FORMAT_F16], "avx2", dequantize_f16_avx2);
    SERVE(table->dequantize[FORMAT_BF16], "avx2", dequantize_bf16_avx2);
}

static void add_elementwise_avx2(struct kernels *table)
{
    SERVE(table->rms_norm, "avx2", rms_norm_avx2);
    SERVE(table->layer_norm, "avx2", layer_norm_avx2);
    SERVE(table->rope, "avx2", rope_avx2);
    SERVE(table->silu_mul, "avx2", silu_mul_avx2);
    SERVE(table->gelu_mul, "avx2", gelu_mul_avx2);
    SERVE(table->silu, "avx2", silu_avx2);
    SERVE(table->gelu, "avx2", gelu_avx2);
    SERVE(table->axpy, "avx2", axpy_avx2);
    SERVE(table->dot, "avx2", dot_avx2);
    SERVE(table->softmax, "avx2", softmax_avx2);
    SERVE(table->softmax_step, "avx2", softmax_step_avx2);
}

static void add_attention_avx2(struct kernels *table)
{
    SERVE(table->attn_scores[KV_F32], "avx2", attn_scores_f32_avx2);
    SERVE(table->attn_scores[KV_F16], "avx2", attn_scores_f16_avx2);
    SERVE(table->attn_scores[KV_BF16], "avx2", attn_scores_bf16_avx2);
    SERVE(table->attn_scores[KV_Q8_0], "avx2", attn_scores_q8_0_avx2);
    SERVE(table->attn_scores[KV_Q4_0], "avx2", attn_scores_q4_0_avx2);
    SERVE(table->attn_mix[KV_F32], "avx2", attn_mix_f32_avx2);
    SERVE(table->attn_mix[KV_F16], "avx2", attn_mix_f16_avx2);
    SERVE(table->attn_mix[KV_BF16], "avx2", attn_mix_bf16_avx2);
    SERVE(table->attn_mix[KV_Q8_0], "avx2", attn_mix_q8_0_avx2);
    SERVE(table->attn_mix[KV_Q4_0], "avx2", attn_mix_q4_0_avx2);
    SERVE(table->attn_scores[KV_I16], "avx2", attn_scores_i16_avx2);
    SERVE(table->attn_mix[KV_I16], "avx2", attn_mix_i16_avx2);
    table->cache = KV_I16;       /* prefill at depth 4096 22 to 29 % faster, decode 4 % slower: bench/results/2026-11-21-depth.md */
}

static void add_products_amx(struct kernels *table)
{
    static const struct { uint32_t format; matmul_fn *matmul; } products[] = {
        { FORMAT_Q1_0, matmul_q1_0_amx }, { FORMAT_Q2_0, matmul_q2_0_amx },
        { FORMAT_Q4_0, matmul_q4_0_amx }, { FORMAT_Q4_1, matmul_q4_1_amx },
        { FORMAT_Q5_0, matmul_q5_0_amx }, { FORMAT_Q5_1, matmul_q5_1_amx },
        { FORMAT_Q8_0, matmul_q8_0_amx }, { FORMAT_IQ4_NL, matmul_iq4_nl_amx },
        { FORMAT_MXFP4, matmul_mxfp4_amx }, { FORMAT_NVFP4, matmul_nvfp4_amx },
        { FORMAT_Q2_K, matmul_q2_k_amx }, { FORMAT_Q3_K, matmul_q3_k_amx },
        { FORMAT_Q4_K, matmul_q4_k_amx }, { FORMAT_Q5_K, matmul_q5_k_amx },
        { FORMAT_Q6_K, matmul_q6_k_amx }, { FORMAT_TQ1_0, matmul_tq1_0_amx },
        { FORMAT_TQ2_0, matmul_tq2_0_amx }, { FORMAT_IQ1_S, matmul_iq1_s_amx },
        { FORMAT_IQ1_M, matmul_iq1_m_amx }, { FORMAT_IQ2_XXS, matmul_iq2_xxs_amx },
        { FORMAT_IQ2_XS, matmul_iq2_xs_amx }, { FORMAT_IQ2_S, matmul_iq2_s_amx },
        { FORMAT_IQ3_XXS, matmul_iq3_xxs_amx }, { FORMAT_IQ3_S, matmul_iq3_s_amx },
        { FORMAT_IQ4_XS, matmul_iq4_xs_amx },
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        serve(table, products[i].format, "amx", 64, products[i].matmul);
    need_scratch(table, matmul_scratch_amx());
}

static void add_conversions_avx512(struct kernels *table)
{
    SERVE(table->act_prepare[ACT_Q8_32], "avx512", act_prepare_q8_32_avx512);
    SERVE(table->act_prepare[ACT_Q8_256], "avx512", act_prepare_q8_256_avx512);
    SERVE(table->quantize[FORMAT_F16], "avx512", quantize_f16_avx512);
    SERVE(table->quantize[FORMAT_BF16], "avx512", quantize_bf16_avx512);
    SERVE(table->quantize[FORMAT_Q8_0], "avx512", quantize_q8_0_avx512);
    SERVE(table->quantize[FORMAT_Q4_0], "avx512", quantize_q4_0_avx512);
    SERVE(table->dequantize[FORMAT_F16], "avx512", dequantize_f16_avx512);
    SERVE(table->dequantize[FORMAT_BF16], "avx512", dequantize_bf16_avx512);
}

static void add_elementwise_avx512(struct kernels *table)
{
    SERVE(table->rms_norm, "avx512", rms_norm_avx512);
    SERVE(table->layer_norm, "avx512", layer_norm_avx512);
    SERVE(table->rope, "avx512", rope_avx512);
    SERVE(table->silu_mul, "avx512", silu_mul_avx512);
    SERVE(table->gelu_mul, "avx512", gelu_mul_avx512);
    SERVE(table->silu, "avx512", silu_avx512);
    SERVE(table->gelu, "avx512", gelu_avx512);
    SERVE(table->axpy, "avx512", axpy_avx512);
    SERVE(table->dot, "avx512", dot_avx512);
    SERVE(table->softmax, "avx512", softmax_avx512);
    SERVE(table->softmax_step, "avx512", softmax_step_avx512);
    SERVE(table->softmax_rows, "avx512", softmax_rows_avx512);
}

static void add_attention_avx512(struct kernels *table)
{
    SERVE(table->attn_scores[KV_F32], "avx512", attn_scores_f32_avx512);
    SERVE(table->attn_scores[KV_F16], "avx512", attn_scores_f16_avx512);
    SERVE(table->attn_scores[KV_BF16], "avx512", attn_scores_bf16_avx512);
    SERVE(table->attn_scores[KV_Q8_0], "avx512", attn_scores_q8_0_avx512);
    SERVE(table->attn_scores[KV_Q4_0], "avx512", attn_scores_q4_0_avx512);
    SERVE(table->attn_mix[KV_F32], "avx512", attn_mix_f32_avx512);
    SERVE(table->attn_mix[KV_F16], "avx512", attn_mix_f16_avx512);
    SERVE(table->attn_mix[KV_BF16], "avx512", attn_mix_bf16_avx512);
    SERVE(table->attn_mix[KV_Q8_0], "avx512", attn_mix_q8_0_avx512);
    SERVE(table->attn_mix[KV_Q4_0], "avx512", attn_mix_q4_0_avx512);
    SERVE(table->attn_scores[KV_I16], "avx512", attn_scores_i16_avx512);
    SERVE(table->attn_mix[KV_I16], "avx512", attn_mix_i16_avx512);
    SERVE(table->attn_query, "avx512", attn_query_avx512);
    SERVE(table->attn_store_key, "avx512", attn_store_key_avx512);
    SERVE(table->attn_store_value, "avx512", attn_store_value_avx512);
}

/* BF16 weights take activations rounded to BF16, as llama.cpp's do: half the bytes, twice the products per step. */
static void add_bf16(struct kernels *table)
{
    serve(table, FORMAT_BF16, "avx512_bf16", 64, matmul_bf16_avx512bf16);
    table->matmul[FORMAT_BF16].act = ACT_BF16;
    SERVE(table->act_prepare[ACT_BF16], "avx512_bf16", act_prepare_bf16_avx512bf16);
    need_scratch(table, matmul_float_scratch_avx512bf16());
}

/* The books of IQ1, IQ2 and IQ3 looked up by permutations. */
static void add_vbmi(struct kernels *table)
{
    serve(table, FORMAT_IQ1_S, "avx512_vbmi", 64, matmul_iq1_s_avx512vbmi);
    serve(table, FORMAT_IQ1_M, "avx512_vbmi", 64, matmul_iq1_m_avx512vbmi);
    serve(table, FORMAT_IQ2_XXS, "avx512_vbmi", 64, matmul_iq2_xxs_avx512vbmi);
    serve(table, FORMAT_IQ2_XS, "avx512_vbmi", 64, matmul_iq2_xs_avx512vbmi);
    serve(table, FORMAT_IQ2_S, "avx512_vbmi", 64, matmul_iq2_s_avx512vbmi);
    serve(table, FORMAT_IQ3_XXS, "avx512_vbmi", 64, matmul_iq3_xxs_avx512vbmi);
    serve(table, FORMAT_IQ3_S, "avx512_vbmi", 64, matmul_iq3_s_avx512vbmi);
}

void dispatch_x86(struct kernels *table)
{
    if (table->cpu.level >= CPU_AVX2) {
        add_products_avx2(table);
        add_conversions_avx2(table);
        add_elementwise_avx2(table);
        add_attention_avx2(table);
        if (table->cpu.avx_vnni)
            add_vnni(table);
    }
    if (table->cpu.level >= CPU_AVX512) {
        add_products_avx512(table);
        add_conversions_avx512(table);
        add_elementwise_avx512(table);
        add_attention_avx512(table);
    }
    if (table->cpu.level >= CPU_AVX512 && table->cpu.avx512_bf16)
        add_bf16(table);
    if (table->cpu.level >= CPU_AVX512 && table->cpu.avx512_vbmi)
        add_vbmi(table);
    if (table->cpu.level >= CPU_AMX)
        add_products_amx(table);
}
