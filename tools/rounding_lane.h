/* rounding_lane.h - what the encoders share: eight lanes of arithmetic, half precision, and the two basic evaluations.
 *
 * Sums are kept in eight lanes in a fixed order, so a search gives the same bits on every instruction set and with every compiler.
 * Everything here is inlined into the searches, which lanes_loops.h compiles once per instruction set. */
#ifndef QUERN_ROUNDING_LANE_H
#define QUERN_ROUNDING_LANE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "numbers.h"

#define LANE_INLINE static inline __attribute__((always_inline))

enum { LANES = 8 };
typedef float lane_f __attribute__((vector_size(32)));
typedef int32_t lane_i __attribute__((vector_size(32)));

LANE_INLINE void lane_load(lane_f *out, const float *p)
{
    memcpy(out, p, sizeof *out);
}

LANE_INLINE void lane_store(float *p, const lane_f *v)
{
    memcpy(p, v, sizeof *v);
}

/* Nearest integer within [low, high], ties to even. The clamp comes first, so the addition cannot overflow its 23 bits. */
LANE_INLINE void lane_round(lane_f *t, float low, float high)
{
    const lane_f lo = { low, low, low, low, low, low, low, low }, hi = { high, high, high, high, high, high, high, high };
    lane_i under = *t < lo;
    lane_i r = (under & (lane_i)lo) | (~under & (lane_i)*t);
    lane_i over = (lane_f)r > hi;
    r = (over & (lane_i)hi) | (~over & r);
    *t = ((lane_f)r + 12582912.0f) - 12582912.0f;
}

LANE_INLINE float lane_sum(const lane_f *a)
{
    return (((*a)[0] + (*a)[4]) + ((*a)[1] + (*a)[5])) + (((*a)[2] + (*a)[6]) + ((*a)[3] + (*a)[7]));
}

/* ---- half precision ---- */

static inline float half_value(uint16_t bits)
{
    return f16_to_f32(bits);
}

/* Nearest half; beyond the range the largest finite one. */
static inline uint16_t half_bits(float value)
{
    return f32_to_f16(value > 65504 ? 65504 : value < -65504 ? -65504 : value);
}

static inline float half_round(double value)
{
    return half_value(half_bits((float)value));
}

static inline void store_u16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)v, b[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(void *p, uint32_t v)
{
    store_u16(p, (uint16_t)v), store_u16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

/* ---- a block under search ---------------------------------------------------------------------------------------
 *
 * Codes q of a block x with weights w: decoded = s * q + m. All that an error or a refit needs are six sums:
 *     error(s, m) = xx - 2 s xq - 2 m x + s^2 qq + 2 s m q + m^2 w                                                   */
struct sums {
    double w, x, xx;      /* of the block     */
    double q, qq, xq;     /* of the codes     */
};

static inline double sums_error(const struct sums *a, double s, double m)
{
    return a->xx - 2 * s * a->xq - 2 * m * a->x + s * s * a->qq + 2 * s * m * a->q + m * m * a->w;
}

LANE_INLINE void sums_block(struct sums *a, const float *x, const float *w, size_t n)
{
    lane_f sw = { 0 }, sx = { 0 }, sxx = { 0 };
    for (size_t i = 0; i < n; i += LANES) {
        lane_f xi, wi, wx;
        lane_load(&xi, x + i);
        lane_load(&wi, w + i);
        wx = wi * xi;
        sw += wi, sx += wx, sxx += wx * xi;
    }
    a->w = lane_sum(&sw), a->x = lane_sum(&sx), a->xx = lane_sum(&sxx);
}

#endif
