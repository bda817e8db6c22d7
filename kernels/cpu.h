/* cpu.h - what the machine's instruction set offers. */
#ifndef QUERN_CPU_H
#define QUERN_CPU_H

#include <stdbool.h>
#include <stddef.h>

/* Levels are real machines' sets; each includes those before it of the same family.
 *   avx2     AVX2, FMA, F16C, BMI2 (Haswell, Zen 1)
 *   avx512   F, BW, VL, DQ and VNNI (Ice Lake, Zen 4)
 *   amx      avx512 and AMX-TILE, AMX-INT8, AMX-BF16 with the kernel's permission (Sapphire Rapids)
 *   neon     Armv8.0 Advanced SIMD;  dotprod  Armv8.2 sdot;  i8mm  Armv8.6 smmla */
enum cpu_level { CPU_REF, CPU_AVX2, CPU_AVX512, CPU_AMX, CPU_NEON, CPU_DOTPROD, CPU_I8MM, CPU_LEVELS };

struct cpu {
    enum cpu_level level;        /* the best level that may be used */
    bool avx512_bf16;            /* additions to avx512 */
    bool avx512_vbmi;
    bool avx_vnni;               /* an addition to avx2: the VEX form (Alder Lake; Zen 5 has it besides AVX-512) */
    bool bf16;                   /* Arm bfdot/bfmmla */
    bool wide;                   /* AVX-512, not AMD's family 19h: kernels go as is best on a Zen 5, not a Zen 4 */
    char name[64];               /* the processor's brand string, "" when unknown */
    char features[192];          /* what was found, whatever the level: words like "avx2", blanks between */
};

/* Detect; on x86 checks that the system saves the registers (XCR0), for AMX asks for permission, so call it before any
 * thread starts. */
void cpu_detect(struct cpu *cpu);
/* Lower the level to the one called `word` ("ref", "avx2", ...; NULL: no cap), without its additions: avx512 with them is called
 * "avx512_bf16", avx2 with its one "avx_vnni". False for an unknown word or a level of another family or above what is there; cpu
 * is untouched then. */
bool cpu_cap(struct cpu *cpu, const char *word);
/* Whether kernels of `level` may run: it is of the CPU's family and not above its (capped) level. CPU_REF always may. */
bool cpu_has(const struct cpu *cpu, enum cpu_level level);
const char *cpu_level_name(enum cpu_level level);

#endif
