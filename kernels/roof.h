/* roof.h - loops that do nothing but read memory, or nothing but multiply: what the machine can give at most.
 *
 * The bench divides by them, so each instruction set has its own: the widest loads, and as many independent sums of its best
 * integer dot product as hide the latency. Their results only keep the compiler from dropping the work. */
#ifndef QUERN_ROOF_H
#define QUERN_ROOF_H

#include <stdint.h>

#include "cpu.h"

/* Read p[0..bytes), 64-byte aligned, bytes a multiple of 1024. */
typedef uint64_t roof_read_fn(const void *p, size_t bytes);
/* `rounds` rounds of roof.dot_ops operations (a multiplication and an addition count as two). */
typedef uint64_t roof_dot_fn(size_t rounds);

struct roof {
    const char   *isa;
    roof_read_fn *read;
    roof_dot_fn  *dot;
    double        dot_ops;     /* operations per round */
};

void roof_init(struct roof *roof, const struct cpu *cpu);

/* One pair per instruction set. */
roof_read_fn roof_read_ref, roof_read_avx2, roof_read_avx512, roof_read_neon;
roof_dot_fn  roof_dot_ref, roof_dot_avx2, roof_dot_avx512, roof_dot_amx, roof_dot_neon, roof_dot_dotprod, roof_dot_i8mm;
enum {
    ROOF_OPS_REF = 2 * 256,
    ROOF_OPS_AVX2 = 8 * 64,         /* 8 sums of vpmaddubsw, vpmaddwd, vpaddd: 32 products   */
    ROOF_OPS_AVX512 = 16 * 128,     /* 16 sums of vpdpbusd: 64 products                      */
    ROOF_OPS_AMX = 4 * 32768,       /* 4 tiles of tdpbssd: 16 x 16 x 64 products             */
    ROOF_OPS_NEON = 8 * 32,         /* 8 sums of smull, smlal2, sadalp: 16 products          */
    ROOF_OPS_DOTPROD = 16 * 32,     /* 16 sums of sdot: 16 products                          */
    ROOF_OPS_I8MM = 16 * 64         /* 16 sums of smmla: 32 products                         */
};

#endif
