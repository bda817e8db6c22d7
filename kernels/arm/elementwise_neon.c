/* elementwise_neon.c - norms, rotations, gates, softmax.
 *
 * Floats where the reference has doubles: the contracts in kernels.h leave room for it. Tails go through load_up_to_4, the same
 * operations on padded lanes, because a value may not depend on where its piece of a vector ends. */
#include "vector_neon.h"

#include <math.h>

/* Sixteen lanes in flight; the sum's order depends on n alone. */
static float sum_of_products(const float *a, const float *b, size_t n)
{
    float32x4_t acc[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t k = 0; k < 4; k++)
            acc[k] = vfmaq_f32(acc[k], vld1q_f32(a + i + 4 * k), vld1q_f32(b + i + 4 * k));
    for (; i < n; i += 4)
        acc[0] = vfmaq_f32(acc[0], load_up_to_4(a + i, n - i), load_up_to_4(b + i, n - i));
    return vaddvq_f32(vaddq_f32(vaddq_f32(acc[0], acc[1]), vaddq_f32(acc[2], acc[3])));
}

float dot_neon(const float *a, const float *b, size_t n)
{
    return sum_of_products(a, b, n);
}

void rms_norm_neon(float *out, const float *x, const float *weight, size_t n, float eps)
{
    float scale = 1 / sqrtf(sum_of_products(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i += 4) {
        float32x4_t y = vmulq_n_f32(load_up_to_4(x + i, n - i), scale);
        store_up_to_4(out + i, weight ? vmulq_f32(y, load_up_to_4(weight + i, n - i)) : y, n - i);
    }
}

/* Sum of x - mean, and of its square when asked for. */
static float sum_shifted(const float *x, size_t n, float mean, bool squared)
{
    float32x4_t acc = vdupq_n_f32(0), other = acc;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        float32x4_t a = vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(mean)), b = vsubq_f32(vld1q_f32(x + i + 4), vdupq_n_f32(mean));
        acc = squared ? vfmaq_f32(acc, a, a) : vaddq_f32(acc, a);
        other = squared ? vfmaq_f32(other, b, b) : vaddq_f32(other, b);
    }
    float sum = vaddvq_f32(vaddq_f32(acc, other));
    for (; i < n; i++) {
        float a = x[i] - mean;
        sum += squared ? a * a : a;
    }
    return sum;
}

void layer_norm_neon(float *out, const float *x, const float *weight, const float *bias, size_t n, float eps)
{
    float mean = sum_shifted(x, n, 0, false) / (float)n;
    float scale = 1 / sqrtf(sum_shifted(x, n, mean, true) / (float)n + eps);
    for (size_t i = 0; i < n; i += 4) {
        float32x4_t y = vmulq_n_f32(vsubq_f32(load_up_to_4(x + i, n - i), vdupq_n_f32(mean)), scale);
        if (weight)
            y = vmulq_f32(y, load_up_to_4(weight + i, n - i));
        if (bias)
            y = vaddq_f32(y, load_up_to_4(bias + i, n - i));
        store_up_to_4(out + i, y, n - i);
    }
}

/* a cos - b sin and a sin + b cos of four pairs. */
static ALWAYS_INLINE void rotate(float32x4_t *a, float32x4_t *b, float32x4x2_t cs)
{
    float32x4_t first = vfmsq_f32(vmulq_f32(*a, cs.val[0]), *b, cs.val[1]);
    *b = vfmaq_f32(vmulq_f32(*a, cs.val[1]), *b, cs.val[0]);
    *a = first;
}

void rope_neon(float *x, const float *cs, size_t pairs, bool interleaved)
{
    size_t i = 0, second = interleaved ? 1 : pairs, step = interleaved ? 2 : 1;
    for (; i + 4 <= pairs; i += 4) {
        float32x4x2_t angle = vld2q_f32(cs + 2 * i);
        if (interleaved) {
            float32x4x2_t pair = vld2q_f32(x + 2 * i);
            rotate(&pair.val[0], &pair.val[1], angle);
            vst2q_f32(x + 2 * i, pair);
        } else {
            float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + pairs);
            rotate(&a, &b, angle);
            vst1q_f32(x + i, a);
            vst1q_f32(x + i + pairs, b);
        }
    }
    /* The tail with the same fused operations: a head_dim that is no multiple of 8 must not rotate its last pairs differently. */
    for (; i < pairs; i++) {
        float *a = x + i * step, *b = a + second, first = fmaf(-*b, cs[2 * i + 1], *a * cs[2 * i]);
        *b = fmaf(*b, cs[2 * i], *a * cs[2 * i + 1]);
        *a = first;
    }
}

/* x / (1 + exp(-v)), v of x's sign: for negative x as x exp(v) / (1 + exp(v)), so that no exp overflows. */
static ALWAYS_INLINE float32x4_t gated(float32x4_t x, float32x4_t v)
{
    float32x4_t size = vabsq_f32(v), below = vaddq_f32(vdupq_n_f32(1), exp_minus(size));
    uint32x4_t negative = vcltq_f32(x, vdupq_n_f32(0));
    return vdivq_f32(vbslq_f32(negative, times_exp_minus(x, size), x), below);
}

static ALWAYS_INLINE float32x4_t silu_4(float32x4_t x)
{
    return gated(x, x);
}

/* v = 2 sqrt(2 / pi) (x + 0.044715 x^3) */
static ALWAYS_INLINE float32x4_t gelu_4(float32x4_t x)
{
    float32x4_t cubic = vfmaq_f32(vdupq_n_f32(1.59576912f), vmulq_f32(x, x), vdupq_n_f32(0.0713548163f));
    return gated(x, vmulq_f32(x, cubic));
}

void silu_neon(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        store_up_to_4(out + i, silu_4(load_up_to_4(x + i, n - i)), n - i);
}

void gelu_neon(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        store_up_to_4(out + i, gelu_4(load_up_to_4(x + i, n - i)), n - i);
}

void silu_mul_neon(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        store_up_to_4(out + i, vmulq_f32(silu_4(load_up_to_4(gate + i, n - i)), load_up_to_4(up + i, n - i)), n - i);
}

void gelu_mul_neon(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        store_up_to_4(out + i, vmulq_f32(gelu_4(load_up_to_4(gate + i, n - i)), load_up_to_4(up + i, n - i)), n - i);
}

void axpy_neon(float *out, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        store_up_to_4(out + i, vfmaq_f32(load_up_to_4(out + i, n - i), load_up_to_4(x + i, n - i), vdupq_n_f32(a)), n - i);
}

/* The largest of x and max; NaN is passed over here and comes back through exp. */
static float largest(const float *x, size_t n, float max)
{
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* x = exp(x - max), max finite; gives the sum. In double: thousands of like terms would otherwise cost float ten ulps. */
static double exp_shifted(float *x, size_t n, float max)
{
    float64x2_t acc = vdupq_n_f64(0), other = acc;
    double sum = 0;
    for (size_t i = 0; i < n; i += 4) {
        float32x4_t e = exp_minus(vsubq_f32(vdupq_n_f32(max), load_up_to_4(x + i, n - i)));
        store_up_to_4(x + i, e, n - i);
        if (n - i >= 4) {
            acc = vaddq_f64(acc, vcvt_f64_f32(vget_low_f32(e)));
            other = vaddq_f64(other, vcvt_high_f64_f32(e));
        } else {
            for (size_t k = i; k < n; k++)
                sum += x[k];
        }
    }
    return vaddvq_f64(vaddq_f64(acc, other)) + sum;
}

void softmax_neon(float *x, size_t n)
{
    float max = largest(x, n, -INFINITY);
    if (max == -INFINITY) {
        for (size_t i = 0; i < n; i++)
            x[i] = x[i] == -INFINITY ? 0 : NAN;           /* no maximum: only -Inf and NaN */
        return;
    }
    float scale = (float)(1 / exp_shifted(x, n, max));
    for (size_t i = 0; i < n; i += 4)
        store_up_to_4(x + i, vmulq_n_f32(load_up_to_4(x + i, n - i), scale), n - i);
}

float softmax_step_neon(float *scores, size_t n, float *max, float *sum)
{
    float old = *max, top = largest(scores, n, old), factor = 1;
    if (top == -INFINITY) {
        for (size_t i = 0; i < n; i++) {
            scores[i] = scores[i] == -INFINITY ? 0 : NAN;
            *sum += scores[i];
        }
        return 1;
    }
    double total = exp_shifted(scores, n, top);
    if (old != top) {
        factor = old;
        exp_shifted(&factor, 1, top);
    }
    *max = top;
    *sum = (float)(*sum * (double)factor + total);
    return factor;
}
