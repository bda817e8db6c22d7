/* dispatch.c - which slots the x86 kernels take over, level by level. No kernel code here: it is built for the baseline. */
#include "x86.h"

void dispatch_x86(struct kernels *table);

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

static void add_avx512(struct kernels *table)
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
    table->act_prepare[ACT_Q8_32].fn = act_prepare_q8_32_avx512;
    table->act_prepare[ACT_Q8_256].fn = act_prepare_q8_256_avx512;
    table->act_prepare[ACT_Q8_32].isa = table->act_prepare[ACT_Q8_256].isa = "avx512";
    need_scratch(table, matmul_scratch_avx512());
    need_scratch(table, matmul_float_scratch_avx512());
}

void dispatch_x86(struct kernels *table)
{
    if (table->cpu.level >= CPU_AVX512)
        add_avx512(table);
}
