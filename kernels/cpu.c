/* cpu.c - what this processor may run: the instructions must be there and, for vector state, the system must save their registers
 * when it switches tasks. A level needs all of its members; a machine with some of them counts as the level below. */
#include "cpu.h"

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

static const char *const names[CPU_LEVELS] = { "ref", "avx2", "avx512", "amx", "neon", "dotprod", "i8mm" };

const char *cpu_level_name(enum cpu_level level)
{
    return names[level];
}

/* The enum's order is that of the levels within a family; Arm's come after x86's. CPU_REF belongs to both. */
bool cpu_has(const struct cpu *cpu, enum cpu_level level)
{
    bool arm = cpu->level >= CPU_NEON;
    return level == CPU_REF || (level <= cpu->level && (level >= CPU_NEON) == arm);
}

bool cpu_cap(struct cpu *cpu, const char *word)
{
    if (!word)
        return true;
    if (!strcmp(word, "avx512_bf16")) {
        if (!cpu_has(cpu, CPU_AVX512) || !cpu->avx512_bf16)
            return false;
        cpu->level = CPU_AVX512;
        return true;
    }
    if (!strcmp(word, "avx_vnni")) {
        if (!cpu_has(cpu, CPU_AVX2) || !cpu->avx_vnni)
            return false;
        cpu->level = CPU_AVX2;
        cpu->avx512_bf16 = cpu->avx512_vbmi = false;
        return true;
    }
    for (enum cpu_level level = CPU_REF; level < CPU_LEVELS; level++)
        if (!strcmp(word, names[level])) {
            if (!cpu_has(cpu, level))
                return false;
            cpu->level = level;
            /* A plain level's word means the level alone; its additions have words of their own. */
            if (level <= CPU_AVX512)
                cpu->avx512_bf16 = cpu->avx512_vbmi = false;
            if (level <= CPU_AVX2)
                cpu->avx_vnni = false;
            if (level != CPU_I8MM)
                cpu->bf16 = false;
            return true;
        }
    return false;
}

#if defined(__x86_64__) || defined(__aarch64__)
struct feature { const char *word; bool there; };

/* Words that do not fit are left out whole: half a word would be another feature. */
static void list_features(struct cpu *cpu, const struct feature *list, size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(list[i].word);
        if (!list[i].there || used + n + 2 > sizeof cpu->features)
            continue;
        if (used)
            cpu->features[used++] = ' ';
        memcpy(cpu->features + used, list[i].word, n + 1);
        used += n;
    }
}
#endif

#if defined(__x86_64__)

/* Which register states the system saves (XCR0): 1-2 SSE and AVX, 5-7 the AVX-512 ones, 17-18 tiles. */
static uint64_t saved_states(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

#ifndef AMX_EMULATE
/* Linux gives a process the 8 KB of tile state only when it asks, before its threads start. */
static bool tiles_permitted(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

static bool bit(uint32_t word, int n)
{
    return word >> n & 1;
}

/* 48 bytes in three leaves of CPUID, filled up with blanks on either side. */
static void read_name(char name[64])
{
    uint32_t words[12] = { 0 };
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t *w = words + 4 * i;
        if (!__get_cpuid(0x80000002 + i, w, w + 1, w + 2, w + 3))
            return;
    }
    const char *text = (const char *)words;
    size_t begin = 0, end = strnlen(text, sizeof words);
    while (begin < end && text[begin] == ' ')
        begin++;
    while (end > begin && text[end - 1] == ' ')
        end--;
    memcpy(name, text + begin, end - begin);
    name[end - begin] = 0;
}

/* AMD's family 19h: Zen 3 and Zen 4. */
static bool is_family_19h(uint32_t signature)
{
    uint32_t highest, b, c, d, base = signature >> 8 & 15, extended = signature >> 20 & 255;
    return __get_cpuid(0, &highest, &b, &c, &d) && !memcmp(&b, "Auth", 4) && !memcmp(&d, "enti", 4) && !memcmp(&c, "cAMD", 4) &&
           base + extended == 0x19;
}

void cpu_detect(struct cpu *cpu)
{
    uint32_t a, b1, c1, d1, b7 = 0, c7 = 0, d7 = 0, a71 = 0, unused;
    *cpu = (struct cpu){ .level = CPU_REF };
    read_name(cpu->name);
    if (!__get_cpuid(1, &a, &b1, &c1, &d1) || !bit(c1, 27))       /* OSXSAVE: xgetbv exists */
        return;
    const uint32_t signature = a;
    if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) && a >= 1)
        __get_cpuid_count(7, 1, &a71, &unused, &unused, &unused);
    uint64_t saved = saved_states();
    const struct feature found[] = {
        { "avx", bit(c1, 28) }, { "f16c", bit(c1, 29) }, { "fma", bit(c1, 12) }, { "avx2", bit(b7, 5) }, { "bmi2", bit(b7, 8) },
        { "avx_vnni", bit(a71, 4) }, { "avx512f", bit(b7, 16) }, { "avx512dq", bit(b7, 17) }, { "avx512bw", bit(b7, 30) },
        { "avx512vl", bit(b7, 31) }, { "avx512_vnni", bit(c7, 11) }, { "avx512_vbmi", bit(c7, 1) },
        { "gfni", bit(c7, 8) }, { "avx512_bf16", bit(a71, 5) },
        { "amx_tile", bit(d7, 24) }, { "amx_int8", bit(d7, 25) }, { "amx_bf16", bit(d7, 22) },
    };
    list_features(cpu, found, sizeof found / sizeof *found);

    bool avx2 = bit(c1, 28) && bit(c1, 12) && bit(c1, 29) && bit(b7, 5) && bit(b7, 8);   /* AVX, FMA, F16C, AVX2, BMI2 */
    if ((saved & 0x6) != 0x6 || !avx2)
        return;
    cpu->level = CPU_AVX2;
#ifdef AVXVNNI_EVEX
    cpu->avx_vnni = (saved & 0xe6) == 0xe6 && bit(b7, 31) && bit(c7, 11);   /* AVX-512's form, VL and VNNI: dots_avxvnni.h */
#else
    cpu->avx_vnni = bit(a71, 4);
#endif

    bool avx512 = bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31) && bit(c7, 11);   /* F, DQ, BW, VL, VNNI */
    if ((saved & 0xe6) != 0xe6 || !avx512)
        return;
    cpu->level = CPU_AVX512;
    /* A Zen 4 passes 512 bits in two halves and reads a fifth slower with lines asked into its first-level cache of 32 KiB; a Zen 5
     * passes them whole and reads a third faster so, with 48 KiB (x86/matmul_avx512.h). Intel's with AVX-512, of which none was at
     * hand, have the traits of the latter; CPUs without AVX-512 those of the former. */
    cpu->wide = !is_family_19h(signature);
    cpu->avx512_bf16 = bit(a71, 5);
    cpu->avx512_vbmi = bit(c7, 1) && bit(c7, 8);             /* with GFNI, which every CPU with VBMI and VNNI has */

#ifdef AMX_EMULATE
    bool amx = cpu->avx512_bf16 && cpu->avx512_vbmi;           /* tiles are plain C in this build: kernels/x86 */
#else
    bool amx = bit(d7, 24) && bit(d7, 25) && bit(d7, 22) && cpu->avx512_bf16 && cpu->avx512_vbmi;   /* TILE, INT8, BF16 */
    amx = amx && (saved & 0x60000) == 0x60000 && tiles_permitted();
#endif
    if (amx)
        cpu->level = CPU_AMX;
}

#elif defined(__aarch64__)

void cpu_detect(struct cpu *cpu)
{
    /* Bits of the kernel's AT_HWCAP and AT_HWCAP2, spelled out for headers that lack the newer ones. */
    enum { ASIMD = 1 << 1, ASIMDHP = 1 << 10, ASIMDDP = 1 << 20, I8MM_2 = 1 << 13, BF16_2 = 1 << 14 };
    unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    const struct feature found[] = {
        { "asimd", caps & ASIMD }, { "asimdhp", caps & ASIMDHP }, { "asimddp", caps & ASIMDDP }, { "i8mm", caps2 & I8MM_2 },
        { "bf16", caps2 & BF16_2 },
    };
    *cpu = (struct cpu){ .level = CPU_REF };
    list_features(cpu, found, sizeof found / sizeof *found);
    if (!(caps & ASIMD))
        return;
    cpu->level = CPU_NEON;
    if (!(caps & ASIMDDP) || !(caps & ASIMDHP))
        return;
    cpu->level = CPU_DOTPROD;
    if (!(caps2 & I8MM_2) || !(caps2 & BF16_2))
        return;
    cpu->level = CPU_I8MM;
    cpu->bf16 = true;
}

#else

void cpu_detect(struct cpu *cpu)
{
    *cpu = (struct cpu){ .level = CPU_REF };
}

#endif
