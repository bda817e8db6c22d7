#include "lanes.h"

#include <stdlib.h>

#include "cpu.h"

const struct lanes *lanes_find(void)
{
#if defined(__x86_64__) && !defined(QUERN_REFERENCE_ONLY)
    struct cpu cpu;
    cpu_detect(&cpu);
    cpu_cap(&cpu, getenv("QUERN_CPU"));       /* a word that means nothing here was refused when the program began */
    if (cpu_has(&cpu, CPU_AVX2))
        return lanes_avx2();
#endif
    return lanes_plain();
}
