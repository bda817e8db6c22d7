/* micro_arm.h - the micro kernel that takes four rows as they stand, inlined around an instruction set's dot product of 16 bytes.
 *
 * Lanes of a dot are parts of one row's sum; a super run multiplies them by the whole scale and adds, exactly; four rows' vectors
 * become one of row sums by three pairwise adds. */
#ifndef QUERN_MICRO_ARM_H
#define QUERN_MICRO_ARM_H

#include "arm.h"

#include <arm_neon.h>

typedef int32x4_t dot_16_fn(int32x4_t acc, int8x16_t w, int8x16_t x);

static ALWAYS_INLINE int32x4_t sum_rows(const int32x4_t row[QUAD])
{
    return vpaddq_s32(vpaddq_s32(row[0], row[1]), vpaddq_s32(row[2], row[3]));
}

/* The end of a super run: acc += d dx total - dmin dx low, lanes are rows. */
static ALWAYS_INLINE float32x4_t add_super(float32x4_t acc, int32x4_t total, const struct quad *quad, const struct token_arm *token,
                                           const struct shape_arm *shape)
{
    float32x4_t dx = vdupq_n_f32(token->dx[0]);
    acc = vfmaq_f32(acc, vmulq_f32(vld1q_f32(quad->d), dx), vcvtq_f32_s32(total));
    if (shape->mins) {
        int32x4_t low = vdupq_n_s32(0);
        for (unsigned s = 0; s < 256 / shape->sub; s++)
            low = vmlaq_n_s32(low, vld1q_s32(quad->low[s]), token->sums[s]);
        acc = vfmsq_f32(acc, vmulq_f32(vld1q_f32(quad->dmin), dx), vcvtq_f32_s32(low));
    }
    return acc;
}

/* One sub-block of a small run. */
static ALWAYS_INLINE float32x4_t add_small(float32x4_t acc, int32x4_t dot, unsigned s, const struct quad *quad,
                                           const struct token_arm *token, const struct shape_arm *shape)
{
    float32x4_t dx = vdupq_n_f32(token->dx[shape->sub == 16 ? s / 2 : s]);
    acc = vfmaq_f32(acc, vmulq_f32(vld1q_f32(quad->scale[s]), dx), vcvtq_f32_s32(dot));
    if (shape->mins)
        acc = vfmsq_f32(acc, vld1q_f32(quad->min[s]), vdupq_n_f32(token->dsum[s]));
    return acc;
}

/* One token's dots with the four rows over sub-block s. */
static ALWAYS_INLINE void dot_sub(int32x4_t dot[QUAD], const struct quad *quad, const int8_t *x, unsigned s, unsigned sub,
                                  dot_16_fn *dot_16)
{
    int8x16_t first = vld1q_s8(x + s * sub), second = sub == 32 ? vld1q_s8(x + s * sub + 16) : first;
    for (int r = 0; r < QUAD; r++) {
        const int8_t *q = quad->run[r].q + s * sub;
        dot[r] = dot_16(vdupq_n_s32(0), vld1q_s8(q), first);
        if (sub == 32)
            dot[r] = dot_16(dot[r], vld1q_s8(q + 16), second);
    }
}

static ALWAYS_INLINE void micro_few(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                                    const struct shape_arm *shape, unsigned sub, dot_16_fn *dot_16)
{
    for (int t = 0; t < toks; t++) {
        float32x4_t sums = vld1q_f32(acc + (size_t)t * stride);
        int32x4_t dot[QUAD], total[QUAD] = { vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0) };
        for (unsigned s = 0; s < 256 / sub; s++) {
            dot_sub(dot, quad, token[t].x, s, sub, dot_16);
            if (shape->kind == PANEL_SUPER) {
                int32x4_t scale = vld1q_s32(quad->sub[s]);
                total[0] = vmlaq_laneq_s32(total[0], dot[0], scale, 0);
                total[1] = vmlaq_laneq_s32(total[1], dot[1], scale, 1);
                total[2] = vmlaq_laneq_s32(total[2], dot[2], scale, 2);
                total[3] = vmlaq_laneq_s32(total[3], dot[3], scale, 3);
            } else {
                sums = add_small(sums, sum_rows(dot), s, quad, &token[t], shape);
            }
        }
        if (shape->kind == PANEL_SUPER)
            sums = add_super(sums, sum_rows(total), quad, &token[t], shape);
        vst1q_f32(acc + (size_t)t * stride, sums);
    }
}

#endif
