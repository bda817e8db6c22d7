/* Levels, their caps, and the text that says who serves what. */
#include "kernels.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

/* Every word at or below the level is accepted and lowers it; every other is refused and changes nothing. */
static void a_cap_only_lowers(void)
{
    static const struct cpu machines[] = {
        { .level = CPU_REF }, { .level = CPU_AVX2, .avx_vnni = true },
        { .level = CPU_AMX, .avx512_bf16 = true, .avx512_vbmi = true }, { .level = CPU_I8MM, .bf16 = true },
    };
    for (size_t m = 0; m < sizeof machines / sizeof *machines; m++)
        for (enum cpu_level level = CPU_REF; level < CPU_LEVELS; level++) {
            struct cpu cpu = machines[m];
            bool allowed = cpu_has(&cpu, level), done = cpu_cap(&cpu, cpu_level_name(level));
            CHECK(done == allowed, "machine %zu, %s", m, cpu_level_name(level));
            CHECK(cpu.level == (allowed ? level : machines[m].level), "machine %zu, %s", m, cpu_level_name(level));
            CHECK(!cpu.avx512_bf16 || cpu.level >= CPU_AVX512, "an addition without its level");
            CHECK(!allowed || !cpu.avx_vnni || level > CPU_AVX2, "%s with an addition", cpu_level_name(level));
        }
    struct cpu with = machines[2], without = machines[2], old = machines[1];
    CHECK(cpu_cap(&with, "avx512_bf16") && with.level == CPU_AVX512 && with.avx512_bf16, "avx512 with its additions");
    CHECK(cpu_cap(&without, "avx512") && !without.avx512_bf16 && !without.avx512_vbmi, "avx512 without them");
    CHECK(!cpu_cap(&without, "avx512_bf16") && !cpu_cap(&old, "avx512_bf16") && old.level == CPU_AVX2,
          "additions that are not there");
    struct cpu vnni = machines[1], none = { .level = CPU_AMX };
    struct cpu both = { .level = CPU_AVX512, .avx512_bf16 = true, .avx_vnni = true };
    CHECK(cpu_cap(&vnni, "avx_vnni") && vnni.level == CPU_AVX2 && vnni.avx_vnni, "avx2 with its addition");
    CHECK(cpu_cap(&both, "avx_vnni") && both.level == CPU_AVX2 && both.avx_vnni && !both.avx512_bf16, "below avx512");
    CHECK(!cpu_cap(&none, "avx_vnni") && none.level == CPU_AMX, "an addition to a level that is there is not");
    CHECK(!cpu_has(&machines[3], CPU_AVX2) && !cpu_has(&machines[2], CPU_NEON), "levels of another family");
    struct cpu cpu = machines[1];
    CHECK(cpu_cap(&cpu, NULL) && cpu.level == CPU_AVX2, "no cap");
    CHECK(!cpu_cap(&cpu, "sse9") && !cpu_cap(&cpu, "") && cpu.level == CPU_AVX2, "unknown words");
}

static void no_slot_is_empty(void)
{
    struct cpu cpu;
    static struct kernels table;
    cpu_detect(&cpu);
    kernels_init(&table, &cpu);
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        const struct format *format = format_find(id);
        bool weights = format && format->weights;
        CHECK((table.matmul[id].matmul != NULL) == weights && (table.dequantize[id].fn != NULL) == weights, "format %u", id);
        CHECK(!weights || (table.matmul[id].isa && table.matmul[id].tile > 0 && table.dequantize[id].isa), "format %u", id);
    }
    CHECK(kernels_scratch(&table, 1) % 64 == 0 && kernels_scratch(&table, 1) > 0, "scratch");
    CHECK(kv_row_bytes(KV_Q8_0, 128) == 136 && kv_row_bytes(KV_F16, 7) == 14, "rows of the cache");
}

/* The length is right at every size, and nothing is written beyond it. */
static void the_description_fits(void)
{
    struct cpu cpu;
    static struct kernels table;
    cpu_detect(&cpu);
    kernels_init(&table, &cpu);
    size_t whole = kernels_describe(NULL, 0, &table);
    char *text = malloc(whole + 2), *part = malloc(whole + 2);
    CHECK(kernels_describe(text, whole + 1, &table) == whole && strlen(text) == whole, "%zu characters", whole);
    for (size_t size = 1; size <= whole + 1; size += size < 100 ? 1 : 97) {
        memset(part, 'x', whole + 2);
        CHECK(kernels_describe(part, size, &table) == whole, "size %zu", size);
        CHECK(strlen(part) == size - 1 && !strncmp(part, text, size - 1) && part[size] == 'x', "size %zu", size);
    }
    static const char *const needs[CPU_LEVELS] = { "", "avx2", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm" };
    CHECK(strstr(cpu.features, needs[cpu.level]) && strstr(text, cpu.features), "'%s' among the features", cpu.features);
    CHECK(strstr(text, "Q4_K") && strstr(text, "softmax_step") && strstr(text, cpu_level_name(cpu.level)), "%s", text);
    free(text);
    free(part);
}

int main(void)
{
    TEST(a_cap_only_lowers);
    TEST(no_slot_is_empty);
    TEST(the_description_fits);
    return test_end();
}
