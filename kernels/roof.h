/* roof.h - loops that do nothing but read memory, or nothing but multiply: what the machine can give at most.
 *
 * The bench divides by them, so each instruction set has its own: the widest loads, and for each kind of number as many
 * independent sums of its best product as hide the latency. Their results only keep the compiler from dropping the work. */
#ifndef QUERN_ROOF_H
#define QUERN_ROOF_H

#include <stdint.h>

#include "cpu.h"

/* Read p[0..bytes), 64-byte aligned, bytes a multiple of 1024. */
typedef uint64_t roof_read_fn(const void *p, size_t bytes);
/* `rounds` rounds of `ops` operations (a multiplication and an addition count as two). */
typedef uint64_t roof_dot_fn(size_t rounds);

/* What is multiplied: bytes (quantized weights), 16-bit integers (attention over a cache of type I16), bfloat16, float (F32 and F16
 * weights, attention over other caches). For a machine without a product of bfloat16, or kernels for integers, the loop of
 * floats stands. */
enum roof_kind { ROOF_INT8, ROOF_INT16, ROOF_BF16, ROOF_F32, ROOF_KINDS };

struct roof_dot {
    roof_dot_fn *fn;
    double       ops;          /* per round */
};

struct roof {
    const char     *isa;
    roof_read_fn   *read;
    struct roof_dot dot[ROOF_KINDS];
};

void roof_init(struct roof *roof, const struct cpu *cpu);

roof_read_fn roof_read_ref, roof_read_avx2, roof_read_avx512, roof_read_neon;
roof_dot_fn  roof_dot_ref, roof_dot_avx2, roof_dot_avx512, roof_dot_amx, roof_dot_neon, roof_dot_dotprod, roof_dot_i8mm;
roof_dot_fn  roof_fma_ref, roof_fma_avx2, roof_fma_avx512, roof_fma_neon;
roof_dot_fn  roof_dot_avxvnni, roof_words_avx2, roof_words_avx512;
roof_dot_fn  roof_bf16_avx512bf16, roof_bf16_amx, roof_bf16_i8mm;
enum {
    ROOF_OPS_REF = 2 * 256,
    ROOF_OPS_AVX2 = 8 * 64,         /* 8 sums of vpmaddubsw, vpmaddwd, vpaddd: 32 products   */
    ROOF_OPS_AVX512 = 16 * 128,     /* 16 sums of vpdpbusd: 64 products                      */
    ROOF_OPS_AMX = 4 * 32768,       /* 4 tiles of tdpbssd: 16 x 16 x 64 products             */
    ROOF_OPS_NEON = 8 * 32,         /* 8 sums of smull, smlal2, sadalp: 16 products          */
    ROOF_OPS_DOTPROD = 16 * 32,     /* 16 sums of sdot: 16 products                          */
    ROOF_OPS_I8MM = 16 * 64,        /* 16 sums of smmla: 32 products                         */
    ROOF_OPS_AVXVNNI = 12 * 64,     /* 12 sums of vpdpbusd: 32 products                      */
    ROOF_WORDS_OPS_AVX2 = 8 * 32,   /* 8 sums of vpmaddwd, vpaddd: 16 products               */
    ROOF_WORDS_OPS_AVX512 = 16 * 64, /* 16 sums of vpdpwssd: 32 products                     */
    ROOF_FMA_OPS_REF = 2 * 256,
    ROOF_FMA_OPS_AVX2 = 12 * 16,    /* 12 sums of 8 floats                                   */
    ROOF_FMA_OPS_AVX512 = 16 * 32,  /* 16 sums of 16 floats                                  */
    ROOF_FMA_OPS_NEON = 16 * 8,     /* 16 sums of 4 floats                                   */
    ROOF_BF16_OPS_AVX512 = 16 * 64, /* 16 sums of vdpbf16ps: 32 products                     */
    ROOF_BF16_OPS_AMX = 4 * 16384,  /* 4 tiles of tdpbf16ps: 16 x 16 x 32 products           */
    ROOF_BF16_OPS_I8MM = 16 * 32    /* 16 sums of bfmmla: 16 products                        */
};

#endif
