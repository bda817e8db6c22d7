/* Every kernel of every rung that this CPU can run, against its contract in kernels.h.
 *
 *   check_kernels              all rungs, then the selftest
 *   check_kernels --selftest   plant faults into sound kernels; each must be found
 *   check_kernels --bench      time the matrix products and attention of every rung instead
 *   --verbose                  one line per slot: values compared, worst error as a share of its bound, and where
 *   --seed N                   other random inputs
 *   --rung NAME                that rung only
 *
 * A rung is a level of the CPU or a level with its additions. A slot is compared where it differs from the rung below. */
#include "kernels_check.h"

#include <stdlib.h>
#include <string.h>

struct rung {
    const char    *name;
    enum cpu_level level;
    bool           additions;          /* bf16, vbmi, the VEX form of VNNI */
};
static const struct rung rungs[] = {
    { "ref", CPU_REF, false },
#if defined(__x86_64__)
    { "avx2", CPU_AVX2, false },       { "avx2+vnni", CPU_AVX2, true },
    { "avx512", CPU_AVX512, false },   { "avx512+bf16", CPU_AVX512, true },
    { "amx", CPU_AMX, true },
#elif defined(__aarch64__)
    { "neon", CPU_NEON, false },       { "dotprod", CPU_DOTPROD, false },
    { "i8mm", CPU_I8MM, true },
#endif
};
enum { RUNGS = sizeof rungs / sizeof *rungs };

/* The table of a rung; false when this CPU lacks it. */
static bool rung_table(struct kernels *table, const struct rung *rung, const struct cpu *found)
{
    struct cpu cpu = *found;
    if (!cpu_has(found, rung->level) || !cpu_cap(&cpu, cpu_level_name(rung->level)))
        return false;
    cpu.avx512_bf16 = rung->additions && rung->level >= CPU_AVX512 && found->avx512_bf16;
    cpu.avx512_vbmi = rung->additions && rung->level >= CPU_AVX512 && found->avx512_vbmi;
    cpu.avx_vnni = rung->additions && found->avx_vnni;
    kernels_init(table, &cpu);
    return true;
}

static bool has_additions(const struct rung *rung, const struct cpu *found)
{
    switch (rung->level) {
    case CPU_AVX2:   return found->avx_vnni;
    case CPU_AVX512: return found->avx512_bf16 || found->avx512_vbmi;
    default:         return true;
    }
}

static void check_rung(const struct rung *rung, const struct kernels *table, const struct kernels *below, const struct kernels *ref,
                       uint64_t seed, bool verbose)
{
    struct check c = { .table = table, .ref = ref, .rung = rung->name, .random = seed, .seed = seed };
    size_t slots = check_table(&c, below, verbose);
    if (slots == 0 && (rung->level == CPU_AVX2 || rung->level == CPU_AVX512) && rung->additions) {
        test_skip(rung->name, "no kernels of its own in this build");
        return;
    }
    test_begin("%s", rung->name);
    CHECK(slots > 0 && c.all_comparisons > 0, "this CPU has the level '%s', but nothing was compared", rung->name);
    test_finish();
    printf("%s: %zu slots, %zu values compared, %zu failures, seed %llu\n", rung->name, slots, c.all_comparisons,
           c.all_failures, (unsigned long long)seed);
}

int main(int argc, char **argv)
{
    bool bench = false, selftest_only = false, verbose = false;
    const char *only = NULL;
    uint64_t seed = 20260101;
    for (int i = 1; i < argc; i++) {
        bench |= !strcmp(argv[i], "--bench");
        selftest_only |= !strcmp(argv[i], "--selftest");
        verbose |= !strcmp(argv[i], "--verbose");
        if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--rung") && i + 1 < argc)
            only = argv[++i];
    }
    static struct kernels ref, tables[RUNGS];
    struct cpu found;
    const struct kernels *below = NULL;
    cpu_detect(&found);
    rung_table(&ref, &rungs[0], &found);
    for (size_t i = 0; i < RUNGS && !selftest_only; i++) {
        struct kernels *table = &tables[i];
        if (!cpu_has(&found, rungs[i].level) || (i > 0 && rungs[i].additions && !has_additions(&rungs[i], &found))) {
            test_skip(rungs[i].name, "this CPU does not have it");
            continue;
        }
        if (!rung_table(table, &rungs[i], &found))
            continue;
        if (!only || !strcmp(only, rungs[i].name)) {
            if (bench)
                bench_table(table, below, rungs[i].name);
            else
                check_rung(&rungs[i], table, below, &ref, seed, verbose);
        }
        below = table;
    }
    if (!bench && !only)
        check_faults(&ref, seed);
    return bench ? 0 : test_end();
}
