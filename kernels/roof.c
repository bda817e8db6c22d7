#include "roof.h"

/* The floats' loop also stands for bfloat16 and words, until a level below says better. */
static void serve(struct roof *roof, const char *isa, roof_dot_fn *dot, double dot_ops, roof_dot_fn *fma, double fma_ops)
{
    roof->isa = isa;
    roof->dot[ROOF_INT8] = (struct roof_dot){dot, dot_ops};
    roof->dot[ROOF_INT16] = roof->dot[ROOF_BF16] = roof->dot[ROOF_F32] = (struct roof_dot){fma, fma_ops};
}

void roof_init(struct roof *roof, const struct cpu *cpu)
{
    *roof = (struct roof){.read = roof_read_ref};
    serve(roof, "ref", roof_dot_ref, ROOF_OPS_REF, roof_fma_ref, ROOF_FMA_OPS_REF);
#if defined(QUERN_REFERENCE_ONLY)
    (void)cpu;
#elif defined(__x86_64__)
    if (cpu_has(cpu, CPU_AVX2)) {
        roof->read = roof_read_avx2;
        serve(roof, "avx2", roof_dot_avx2, ROOF_OPS_AVX2, roof_fma_avx2, ROOF_FMA_OPS_AVX2);
        roof->dot[ROOF_INT16] = (struct roof_dot){roof_words_avx2, ROOF_WORDS_OPS_AVX2};
        if (cpu->avx_vnni) {
            roof->isa = "avx_vnni";
            roof->dot[ROOF_INT8] = (struct roof_dot){roof_dot_avxvnni, ROOF_OPS_AVXVNNI};
        }
    }
    if (cpu_has(cpu, CPU_AVX512)) {
        roof->read = roof_read_avx512;
        serve(roof, "avx512", roof_dot_avx512, ROOF_OPS_AVX512, roof_fma_avx512, ROOF_FMA_OPS_AVX512);
        roof->dot[ROOF_INT16] = (struct roof_dot){roof_words_avx512, ROOF_WORDS_OPS_AVX512};
        if (cpu->avx512_bf16)
            roof->dot[ROOF_BF16] = (struct roof_dot){roof_bf16_avx512bf16, ROOF_BF16_OPS_AVX512};
    }
    if (cpu_has(cpu, CPU_AMX)) {
        serve(roof, "amx", roof_dot_amx, ROOF_OPS_AMX, roof_fma_avx512, ROOF_FMA_OPS_AVX512);
        roof->dot[ROOF_INT16] = (struct roof_dot){roof_words_avx512, ROOF_WORDS_OPS_AVX512};
        roof->dot[ROOF_BF16] = (struct roof_dot){roof_bf16_amx, ROOF_BF16_OPS_AMX};
    }
#elif defined(__aarch64__)
    if (cpu_has(cpu, CPU_NEON)) {
        roof->read = roof_read_neon;
        serve(roof, "neon", roof_dot_neon, ROOF_OPS_NEON, roof_fma_neon, ROOF_FMA_OPS_NEON);
    }
    if (cpu_has(cpu, CPU_DOTPROD))
        serve(roof, "dotprod", roof_dot_dotprod, ROOF_OPS_DOTPROD, roof_fma_neon, ROOF_FMA_OPS_NEON);
    if (cpu_has(cpu, CPU_I8MM)) {
        serve(roof, "i8mm", roof_dot_i8mm, ROOF_OPS_I8MM, roof_fma_neon, ROOF_FMA_OPS_NEON);
        if (cpu->bf16)
            roof->dot[ROOF_BF16] = (struct roof_dot){roof_bf16_i8mm, ROOF_BF16_OPS_I8MM};
    }
#else
    (void)cpu;
#endif
}
