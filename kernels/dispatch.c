/* dispatch.c - who serves which slot. The reference fills the table; each family's own dispatch file overwrites. */
#include "ref/ref.h"

void dispatch_x86(struct kernels *table);                 /* kernels/x86/dispatch.c */
void dispatch_arm(struct kernels *table);                 /* kernels/arm/dispatch.c */

/* act: the form in which a format's products want their activations. Floats keep them as they are; formats with a scale per 32 or
 * fewer values take int8 per 32, those with super-blocks int8 per 256 (kernels.h), as llama.cpp pairs them too: results compare
 * closely with its own. A tile of 1: no chunk of rows is better than another. */
static void serve(struct kernels *t, uint32_t format, enum act_kind act, matmul_fn *matmul, dequantize_fn *dequantize)
{
    t->matmul[format].isa = t->dequantize[format].isa = "ref";
    t->matmul[format].act = act;
    t->matmul[format].tile = 1;
    t->matmul[format].matmul = matmul;
    t->dequantize[format].fn = dequantize;
}

static void reference_formats(struct kernels *t)
{
    serve(t, FORMAT_F32, ACT_F32, matmul_f32_ref, dequantize_f32_ref);
    serve(t, FORMAT_F16, ACT_F32, matmul_f16_ref, dequantize_f16_ref);
    serve(t, FORMAT_BF16, ACT_F32, matmul_bf16_ref, dequantize_bf16_ref);
    serve(t, FORMAT_Q1_0, ACT_Q8_32, matmul_q1_0_ref, dequantize_q1_0_ref);
    serve(t, FORMAT_Q2_0, ACT_Q8_32, matmul_q2_0_ref, dequantize_q2_0_ref);
    serve(t, FORMAT_Q4_0, ACT_Q8_32, matmul_q4_0_ref, dequantize_q4_0_ref);
    serve(t, FORMAT_Q4_1, ACT_Q8_32, matmul_q4_1_ref, dequantize_q4_1_ref);
    serve(t, FORMAT_Q5_0, ACT_Q8_32, matmul_q5_0_ref, dequantize_q5_0_ref);
    serve(t, FORMAT_Q5_1, ACT_Q8_32, matmul_q5_1_ref, dequantize_q5_1_ref);
    serve(t, FORMAT_Q8_0, ACT_Q8_32, matmul_q8_0_ref, dequantize_q8_0_ref);
    serve(t, FORMAT_IQ4_NL, ACT_Q8_32, matmul_iq4_nl_ref, dequantize_iq4_nl_ref);
    serve(t, FORMAT_MXFP4, ACT_Q8_32, matmul_mxfp4_ref, dequantize_mxfp4_ref);
    serve(t, FORMAT_NVFP4, ACT_Q8_32, matmul_nvfp4_ref, dequantize_nvfp4_ref);
    serve(t, FORMAT_Q2_K, ACT_Q8_256, matmul_q2_k_ref, dequantize_q2_k_ref);
    serve(t, FORMAT_Q3_K, ACT_Q8_256, matmul_q3_k_ref, dequantize_q3_k_ref);
    serve(t, FORMAT_Q4_K, ACT_Q8_256, matmul_q4_k_ref, dequantize_q4_k_ref);
    serve(t, FORMAT_Q5_K, ACT_Q8_256, matmul_q5_k_ref, dequantize_q5_k_ref);
    serve(t, FORMAT_Q6_K, ACT_Q8_256, matmul_q6_k_ref, dequantize_q6_k_ref);
    serve(t, FORMAT_IQ1_S, ACT_Q8_256, matmul_iq1_s_ref, dequantize_iq1_s_ref);
    serve(t, FORMAT_IQ1_M, ACT_Q8_256, matmul_iq1_m_ref, dequantize_iq1_m_ref);
    serve(t, FORMAT_IQ2_XXS, ACT_Q8_256, matmul_iq2_xxs_ref, dequantize_iq2_xxs_ref);
    serve(t, FORMAT_IQ2_XS, ACT_Q8_256, matmul_iq2_xs_ref, dequantize_iq2_xs_ref);
    serve(t, FORMAT_IQ2_S, ACT_Q8_256, matmul_iq2_s_ref, dequantize_iq2_s_ref);
    serve(t, FORMAT_IQ3_XXS, ACT_Q8_256, matmul_iq3_xxs_ref, dequantize_iq3_xxs_ref);
    serve(t, FORMAT_IQ3_S, ACT_Q8_256, matmul_iq3_s_ref, dequantize_iq3_s_ref);
    serve(t, FORMAT_IQ4_XS, ACT_Q8_256, matmul_iq4_xs_ref, dequantize_iq4_xs_ref);
    serve(t, FORMAT_TQ1_0, ACT_Q8_256, matmul_tq1_0_ref, dequantize_tq1_0_ref);
    serve(t, FORMAT_TQ2_0, ACT_Q8_256, matmul_tq2_0_ref, dequantize_tq2_0_ref);
}

static void reference_others(struct kernels *t)
{
    t->quantize[FORMAT_F32].fn = quantize_f32_ref;
    t->quantize[FORMAT_F16].fn = quantize_f16_ref;
    t->quantize[FORMAT_BF16].fn = quantize_bf16_ref;
    t->quantize[FORMAT_Q8_0].fn = quantize_q8_0_ref;
    t->quantize[FORMAT_Q4_0].fn = quantize_q4_0_ref;
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        t->quantize[i].isa = t->quantize[i].fn ? "ref" : NULL;

    t->act_prepare[ACT_F32].fn = act_prepare_f32_ref;
    t->act_prepare[ACT_BF16].fn = act_prepare_bf16_ref;
    t->act_prepare[ACT_Q8_32].fn = act_prepare_q8_32_ref;
    t->act_prepare[ACT_Q8_256].fn = act_prepare_q8_256_ref;
    for (size_t i = 0; i < ACT_KINDS; i++)
        t->act_prepare[i].isa = "ref";

    t->rms_norm.fn = rms_norm_ref;
    t->layer_norm.fn = layer_norm_ref;
    t->rope.fn = rope_ref;
    t->silu_mul.fn = silu_mul_ref;
    t->gelu_mul.fn = gelu_mul_ref;
    t->silu.fn = silu_ref;
    t->gelu.fn = gelu_ref;
    t->axpy.fn = axpy_ref;
    t->dot.fn = dot_ref;
    t->softmax.fn = softmax_ref;
    t->softmax_step.fn = softmax_step_ref;
    t->rms_norm.isa = t->layer_norm.isa = t->rope.isa = t->silu_mul.isa = t->gelu_mul.isa = t->silu.isa = t->gelu.isa = "ref";
    t->axpy.isa = t->dot.isa = t->softmax.isa = t->softmax_step.isa = "ref";

    t->attn_scores[KV_F32].fn = attn_scores_f32_ref;
    t->attn_scores[KV_F16].fn = attn_scores_f16_ref;
    t->attn_scores[KV_BF16].fn = attn_scores_bf16_ref;
    t->attn_scores[KV_Q8_0].fn = attn_scores_q8_0_ref;
    t->attn_scores[KV_Q4_0].fn = attn_scores_q4_0_ref;
    t->attn_mix[KV_F32].fn = attn_mix_f32_ref;
    t->attn_mix[KV_F16].fn = attn_mix_f16_ref;
    t->attn_mix[KV_BF16].fn = attn_mix_bf16_ref;
    t->attn_mix[KV_Q8_0].fn = attn_mix_q8_0_ref;
    t->attn_mix[KV_Q4_0].fn = attn_mix_q4_0_ref;
    t->attn_scores[KV_I16].fn = attn_scores_i16_ref;
    t->attn_mix[KV_I16].fn = attn_mix_i16_ref;
    t->attn_query.fn = attn_query_ref;
    t->attn_store_key.fn = attn_store_key_ref;
    t->attn_store_value.fn = attn_store_value_ref;
    t->attn_query.isa = t->attn_store_key.isa = t->attn_store_value.isa = "ref";
    for (size_t i = 0; i < KV_TYPES; i++)
        t->attn_scores[i].isa = t->attn_mix[i].isa = "ref";
}

void kernels_init(struct kernels *table, const struct cpu *cpu)
{
    *table = (struct kernels){ .cpu = *cpu, .cache = KV_F16 };
    reference_formats(table);
    reference_others(table);
#if defined(QUERN_REFERENCE_ONLY)
    /* the fuzzers' build, and processors of other families */
#elif defined(__x86_64__)
    dispatch_x86(table);
#elif defined(__aarch64__)
    dispatch_arm(table);
#endif
}

/* At least 64 bytes: no caller has to provide for nothing at all. */
size_t kernels_scratch(const struct kernels *table, size_t cols)
{
    size_t padded = act_layout(ACT_F32, cols).padded;
    return (table->scratch_fixed + table->scratch_per_col * padded + 63) / 64 * 64 + 64;
}

uint32_t kv_format(enum kv_type type)
{
    static const uint32_t formats[KV_TYPES] = { FORMAT_F32, FORMAT_F16, FORMAT_BF16, FORMAT_Q8_0, FORMAT_Q4_0, FORMAT_COUNT };
    return formats[type];
}

size_t kv_multiple(enum kv_type type)
{
    return type == KV_I16 ? 16 : format_find(kv_format(type))->block;
}

const char *kv_name(enum kv_type type)
{
    static const char *const words[KV_TYPES] = { [KV_F32] = "f32",   [KV_F16] = "f16",   [KV_BF16] = "bf16",
                                                 [KV_Q8_0] = "q8_0", [KV_Q4_0] = "q4_0", [KV_I16] = "i16" };
    return words[type];
}

/* n is a multiple of kv_multiple: kv.c refuses other models, attention cuts at multiples of 32. */
size_t kv_row_bytes(enum kv_type type, size_t n)
{
    if (type == KV_I16)
        return 2 * n + sizeof(float);
    const struct format *format = format_find(kv_format(type));
    return n / format->block * format->bytes;
}
