/* roof_dotprod.c - how many int8 products per second this core can do with sdot, and nothing else to do. */
#include <arm_neon.h>

#include "roof.h"

/* Sixteen sums: more than latency (4) times units (4) of the widest cores; x and y stay in registers. The empty assembly keeps the
 * compiler from computing the loop in advance. */
uint64_t roof_dot_dotprod(size_t rounds)
{
    enum { SUMS = 16 };
    int32x4_t sum[SUMS], total = vdupq_n_s32(0);
    int8x16_t x = vdupq_n_s8(3), y = vdupq_n_s8(5);
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_s32(i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+w"(x), "+w"(y));
        for (int i = 0; i < SUMS; i++)
            sum[i] = vdotq_s32(sum[i], x, y);
    }
    for (int i = 0; i < SUMS; i++)
        total = vaddq_s32(total, sum[i]);
    return (uint64_t)(uint32_t)vaddvq_s32(total);
}
