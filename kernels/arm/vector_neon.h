/* vector_neon.h - exp and tails for the NEON files. */
#ifndef QUERN_VECTOR_NEON_H
#define QUERN_VECTOR_NEON_H

#include "arm.h"

#include <arm_neon.h>
#include <string.h>

/* Up to four floats; those that are not there are zero, so that a tail goes through the same arithmetic as the rest. */
static ALWAYS_INLINE float32x4_t load_up_to_4(const float *x, size_t n)
{
    if (n >= 4)
        return vld1q_f32(x);
    float tail[4] = { 0 };
    memcpy(tail, x, n * sizeof *x);
    return vld1q_f32(tail);
}

static ALWAYS_INLINE void store_up_to_4(float *out, float32x4_t x, size_t n)
{
    if (n >= 4) {
        vst1q_f32(out, x);
        return;
    }
    float tail[4];
    vst1q_f32(tail, x);
    memcpy(out, tail, n * sizeof *out);
}

/* a * exp(-x) for x >= 0; 0 from 170 on (a * exp(-170) < FLT_MIN for any a below 10^36). NaN in x stays.
 *
 * exp(-x) = 2^n exp(r), |r| <= ln 2 / 2; exp(r) by its series to r^7, whose rest is below 6e-9. 2^n is multiplied in two halves, so
 * that neither leaves the floats' range; a comes before them, so that a large a saves what is on its way to underflow. */
static ALWAYS_INLINE float32x4_t times_exp_minus(float32x4_t a, float32x4_t x)
{
    float32x4_t y = vnegq_f32(vminq_f32(x, vdupq_n_f32(170)));
    float32x4_t n = vrndnq_f32(vmulq_n_f32(y, 1.44269504f));
    float32x4_t r = vfmsq_f32(y, n, vdupq_n_f32(0.693359375f));    /* ln 2 in two parts, the first short: n times it is exact */
    r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.0f / 5040);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1), p, r);
    p = vfmaq_f32(vdupq_n_f32(1), p, r);
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), other = vsubq_s32(whole, half);
    float32x4_t first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, vdupq_n_s32(127)), 23));
    float32x4_t second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(other, vdupq_n_s32(127)), 23));
    float32x4_t result = vmulq_f32(vmulq_f32(vmulq_f32(a, p), first), second);
    uint32x4_t gone = vcgeq_f32(x, vdupq_n_f32(170));
    return vbslq_f32(gone, vdupq_n_f32(0), result);
}

static ALWAYS_INLINE float32x4_t exp_minus(float32x4_t x)
{
    return times_exp_minus(vdupq_n_f32(1), x);
}

#endif
