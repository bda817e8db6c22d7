/* roof_i8mm.c - the roofs of smmla and bfmmla: as roof_dotprod.c, with 64 products (32 for bfloat16) per instruction. */
#include <arm_neon.h>

#include "roof.h"

uint64_t roof_dot_i8mm(size_t rounds)
{
    enum { SUMS = 16 };
    int32x4_t sum[SUMS], total = vdupq_n_s32(0);
    int8x16_t x = vdupq_n_s8(3), y = vdupq_n_s8(5);
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_s32(i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+w"(x), "+w"(y));
        for (int i = 0; i < SUMS; i++)
            sum[i] = vmmlaq_s32(sum[i], x, y);
    }
    for (int i = 0; i < SUMS; i++)
        total = vaddq_s32(total, sum[i]);
    return (uint64_t)(uint32_t)vaddvq_s32(total);
}

/* The level has bfmmla where cpu.bf16 says so. */
uint64_t roof_bf16_i8mm(size_t rounds)
{
    enum { SUMS = 16 };
    uint16x8_t one = vdupq_n_u16(0x3f80);
    float32x4_t sum[SUMS], total = vdupq_n_f32(0);
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_f32(0);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+w"(one));
        for (int i = 0; i < SUMS; i++)
            sum[i] = vbfmmlaq_f32(sum[i], vreinterpretq_bf16_u16(one), vreinterpretq_bf16_u16(one));
    }
    for (int i = 0; i < SUMS; i++)
        total = vaddq_f32(total, sum[i]);
    return (uint64_t)vgetq_lane_f32(total, 0);
}
