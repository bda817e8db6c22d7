/* roof_neon.c - the roofs of Armv8.0: bytes read, int8 products, float multiply-adds. */
#include <arm_neon.h>

#include "roof.h"

/* Exclusive-or, since it takes no time beside the loads and its result cannot be known without them. `bytes`: a multiple of 64. */
uint64_t roof_read_neon(const void *p, size_t bytes)
{
    const uint64_t *x = p;
    uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;
    for (size_t i = 0; i < bytes / 8; i += 8) {
        a = veorq_u64(a, vld1q_u64(x + i));
        b = veorq_u64(b, vld1q_u64(x + i + 2));
        c = veorq_u64(c, vld1q_u64(x + i + 4));
        d = veorq_u64(d, vld1q_u64(x + i + 6));
    }
    a = veorq_u64(veorq_u64(a, b), veorq_u64(c, d));
    return vgetq_lane_u64(a, 0) ^ vgetq_lane_u64(a, 1);
}

/* Armv8.0 has no dot product: two widening multiplications and a pairwise addition for 16 products. */
uint64_t roof_dot_neon(size_t rounds)
{
    enum { SUMS = 8 };
    int32x4_t sum[SUMS], total = vdupq_n_s32(0);
    int8x16_t x[SUMS], y = vdupq_n_s8(5);
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_s32(i), x[i] = vdupq_n_s8((int8_t)i);
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+w"(y));                /* or equal products would be made once */
            int16x8_t pairs = vmlal_high_s8(vmull_s8(vget_low_s8(x[i]), vget_low_s8(y)), x[i], y);
            sum[i] = vpadalq_s16(sum[i], pairs);
        }
    for (int i = 0; i < SUMS; i++)
        total = vaddq_s32(total, sum[i]);
    return (uint64_t)(uint32_t)vaddvq_s32(total);
}

uint64_t roof_fma_neon(size_t rounds)
{
    enum { SUMS = 16 };
    float32x4_t sum[SUMS], x = vdupq_n_f32(1), y = vdupq_n_f32(1), total = vdupq_n_f32(0);
    for (int i = 0; i < SUMS; i++)
        sum[i] = vdupq_n_f32(0);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+w"(x), "+w"(y));
        for (int i = 0; i < SUMS; i++)
            sum[i] = vfmaq_f32(sum[i], x, y);
    }
    for (int i = 0; i < SUMS; i++)
        total = vaddq_f32(total, sum[i]);
    return (uint64_t)vgetq_lane_f32(total, 0);
}
