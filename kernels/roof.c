#include "roof.h"

void roof_init(struct roof *roof, const struct cpu *cpu)
{
    *roof = (struct roof){"ref", roof_read_ref, roof_dot_ref, ROOF_OPS_REF};
#if defined(__x86_64__)
    if (cpu->level >= CPU_AVX2 && cpu->level <= CPU_AMX)
        *roof = (struct roof){"avx2", roof_read_avx2, roof_dot_avx2, ROOF_OPS_AVX2};
    if (cpu->level >= CPU_AVX512 && cpu->level <= CPU_AMX)
        *roof = (struct roof){"avx512", roof_read_avx512, roof_dot_avx512, ROOF_OPS_AVX512};
    if (cpu->level == CPU_AMX)
        *roof = (struct roof){"amx", roof_read_avx512, roof_dot_amx, ROOF_OPS_AMX};
#elif defined(__aarch64__)
    if (cpu->level >= CPU_NEON)
        *roof = (struct roof){"neon", roof_read_neon, roof_dot_neon, ROOF_OPS_NEON};
    if (cpu->level >= CPU_DOTPROD)
        *roof = (struct roof){"dotprod", roof_read_neon, roof_dot_dotprod, ROOF_OPS_DOTPROD};
    if (cpu->level >= CPU_I8MM)
        *roof = (struct roof){"i8mm", roof_read_neon, roof_dot_i8mm, ROOF_OPS_I8MM};
#else
    (void)cpu;
#endif
}
