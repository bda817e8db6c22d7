/* rounding_search.h - the scale searches, inlined into each format's encoder with its constants.
 *
 * Two kinds of block: `signed` codes times a scale (Q4_0, Q6_K, ...), and unsigned codes times a scale plus a minimum (Q4_1, Q4_K,
 * ...). In both, for given codes the best scale has a closed form, and for a given scale the best codes are the nearest; the search
 * starts from many scales and alternates between the two from the best of them. */
#ifndef QUERN_ROUNDING_SEARCH_H
#define QUERN_ROUNDING_SEARCH_H

#include "rounding_code.h"

/* Which codes a signed block has: integers in [low, high], or the non-linear table. */
struct code_set { float low, high; int nonlinear; };

LANE_INLINE void lane_nonlinear(lane_f *t)
{
    /* Nearest of the sixteen levels: begin at the lowest, add each step whose midpoint lies below. */
    static const float middle[15] = { -115.5f, -93.5f, -74, -57, -42, -28.5f, -16, -4.5f, 7, 19, 31.5f, 45.5f, 61, 79, 101 };
    static const float step[15] = { 23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24 };
    lane_f r = { -127, -127, -127, -127, -127, -127, -127, -127 };
    for (int i = 0; i < 15; i++) {
        const lane_f s = { step[i], step[i], step[i], step[i], step[i], step[i], step[i], step[i] };
        lane_i above = *t > middle[i];
        r += (lane_f)(above & (lane_i)s);
    }
    *t = r;
}

LANE_INLINE void lane_code(lane_f *t, struct code_set set)
{
    if (set.nonlinear)
        lane_nonlinear(t);
    else
        lane_round(t, set.low, set.high);
}

/* Sums of the codes nearest to x * inverse. */
LANE_INLINE void signed_sums(struct sums *a, const float *x, const float *w, size_t n, float inverse, struct code_set set)
{
    lane_f xq = { 0 }, qq = { 0 };
    for (size_t i = 0; i < n; i += LANES) {
        lane_f xi, wi, t;
        lane_load(&xi, x + i);
        lane_load(&wi, w + i);
        t = xi * inverse;
        lane_code(&t, set);
        wi *= t;
        xq += wi * xi, qq += wi * t;
    }
    a->xq = lane_sum(&xq), a->qq = lane_sum(&qq);
}

/* The codes themselves. A scale of 0 gives the codes nearest to 0. */
LANE_INLINE void signed_codes(int16_t *code, const float *x, size_t n, float scale, struct code_set set)
{
    float inverse = scale != 0 ? 1 / scale : 0, q[LANES];
    for (size_t i = 0; i < n; i += LANES) {
        lane_f t;
        lane_load(&t, x + i);
        t *= inverse;
        lane_code(&t, set);
        lane_store(q, &t);
        for (size_t l = 0; l < LANES; l++)
            code[i + l] = (int16_t)q[l];
    }
}

/* Weighted squared error of the nearest codes at this scale, summed from the differences (no cancellation). */
LANE_INLINE double signed_error(const float *x, const float *w, size_t n, float scale, struct code_set set)
{
    float inverse = scale != 0 ? 1 / scale : 0;
    lane_f sum = { 0 };
    for (size_t i = 0; i < n; i += LANES) {
        lane_f xi, wi, t;
        lane_load(&xi, x + i);
        lane_load(&wi, w + i);
        t = xi * inverse;
        lane_code(&t, set);
        t = xi - t * scale;
        sum += wi * t * t;
    }
    return lane_sum(&sum);
}

LANE_INLINE float largest(const float *x, size_t n)
{
    float best = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(best))
            best = x[i];
    return best;
}

/* What explains most: error = xx - xq^2 / qq at the best scale of given codes. */
static inline double sums_gain(const struct sums *a)
{
    return a->qq > 0 ? a->xq * a->xq / a->qq : 0;
}

/* Best scale of a signed block. The value of largest magnitude is put at `first`, first + step, ... (`count` of them) on the
 * side of the low codes, then on that of the high ones; the best start is polished. *best gets the sums of its codes. */
LANE_INLINE double signed_search(struct sums *best, const float *x, const float *w, size_t n, struct code_set set, float first,
                                 float step, int count)
{
    float top = largest(x, n);
    double gain = -1;
    best->xq = best->qq = 0;
    if (top == 0)
        return 0;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < count; i++) {
            struct sums a;
            float at = first + step * (float)i;
            signed_sums(&a, x, w, n, (side ? at : -at) / top, set);
            if (sums_gain(&a) > gain)
                gain = sums_gain(&a), best->xq = a.xq, best->qq = a.qq;
        }
    for (int i = 0; i < 4 && best->qq > 0 && best->xq != 0; i++) {
        struct sums a;
        signed_sums(&a, x, w, n, (float)(best->qq / best->xq), set);
        if (sums_gain(&a) <= gain)
            break;
        gain = sums_gain(&a), best->xq = a.xq, best->qq = a.qq;
    }
    return best->qq > 0 ? best->xq / best->qq : 0;
}

/* The half-precision scale near `scale` with the least error. */
LANE_INLINE float signed_half(const float *x, const float *w, size_t n, double scale, struct code_set set)
{
    uint16_t middle = half_bits((float)scale);
    float best = half_value(middle);
    double error = signed_error(x, w, n, best, set);
    for (int side = -1; side <= 1; side += 2) {
        uint16_t bits = (uint16_t)(middle + side);
        if ((bits & 0x7fff) > 0x7bff)
            continue;
        double e = signed_error(x, w, n, half_value(bits), set);
        if (e < error)
            error = e, best = half_value(bits);
    }
    return best;
}

/* ---- scale and minimum ---- */

/* Sums of the codes nearest to (x - minimum) * inverse in [0, high]. */
LANE_INLINE void affine_sums(struct sums *a, const float *x, const float *w, size_t n, float inverse, float minimum, float high)
{
    lane_f q = { 0 }, qq = { 0 }, xq = { 0 };
    for (size_t i = 0; i < n; i += LANES) {
        lane_f xi, wi, t;
        lane_load(&xi, x + i);
        lane_load(&wi, w + i);
        t = (xi - minimum) * inverse;
        lane_round(&t, 0, high);
        wi *= t;
        q += wi, qq += wi * t, xq += wi * xi;
    }
    a->q = lane_sum(&q), a->qq = lane_sum(&qq), a->xq = lane_sum(&xq);
}

LANE_INLINE void affine_codes(int16_t *code, const float *x, size_t n, float scale, float minimum, float high)
{
    float inverse = scale != 0 ? 1 / scale : 0, q[LANES];
    for (size_t i = 0; i < n; i += LANES) {
        lane_f t;
        lane_load(&t, x + i);
        t = (t - minimum) * inverse;
        lane_round(&t, 0, high);
        lane_store(q, &t);
        for (size_t l = 0; l < LANES; l++)
            code[i + l] = (int16_t)q[l];
    }
}

LANE_INLINE double affine_error(const float *x, const float *w, size_t n, float scale, float minimum, float high)
{
    float inverse = scale != 0 ? 1 / scale : 0;
    lane_f sum = { 0 };
    for (size_t i = 0; i < n; i += LANES) {
        lane_f xi, wi, t;
        lane_load(&xi, x + i);
        lane_load(&wi, w + i);
        t = (xi - minimum) * inverse;
        lane_round(&t, 0, high);
        t = xi - (t * scale + minimum);
        sum += wi * t * t;
    }
    return lane_sum(&sum);
}

struct affine { double s, m, error; };

/* Best scale and minimum for given codes; the minimum is held at or below `ceiling`. */
LANE_INLINE struct affine affine_fit(const struct sums *a, double ceiling)
{
    double det = a->w * a->qq - a->q * a->q;
    struct affine f = { 0, a->x / a->w, 0 };
    if (det > 1e-7 * a->w * a->qq) {
        f.s = (a->w * a->xq - a->x * a->q) / det;
        f.m = (a->qq * a->x - a->q * a->xq) / det;
    }
    if (f.m > ceiling) {
        f.m = ceiling;
        f.s = a->qq > 0 ? (a->xq - ceiling * a->q) / a->qq : 0;
    }
    f.error = sums_error(a, f.s, f.m);
    return f;
}

/* Best scale and minimum of a block with codes [0, high]. Starts: both ends of the block's range moved inwards by i and j steps of
 * `step` code widths, i and j in [-outward, inward]. *best gets the sums of its codes; `best` holds w, x, xx already. */
LANE_INLINE struct affine affine_search(struct sums *best, const float *x, const float *w, size_t n, float high, double ceiling,
                                        float step, int outward, int inward)
{
    float low = x[0], top = x[0];
    for (size_t i = 1; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        top = x[i] > top ? x[i] : top;
    }
    if (low > ceiling)
        low = (float)ceiling;
    struct sums a = *best;
    a.q = a.qq = a.xq = 0;
    struct affine found = affine_fit(&a, ceiling);
    *best = a;
    if (!(top > low))
        return found;
    float width = (top - low) / high * step;
    for (int i = -outward; i <= inward; i++)
        for (int j = -outward; j <= inward; j++) {
            float from = low + width * (float)i, to = top - width * (float)j;
            if (from > ceiling)
                continue;
            affine_sums(&a, x, w, n, high / (to - from), from, high);
            struct affine f = affine_fit(&a, ceiling);
            if (f.s > 0 && f.error < found.error)
                found = f, *best = a;
        }
    for (int i = 0; i < 4 && found.s > 0; i++) {
        affine_sums(&a, x, w, n, (float)(1 / found.s), (float)found.m, high);
        struct affine f = affine_fit(&a, ceiling);
        if (!(f.s > 0 && f.error < found.error))
            break;
        found = f, *best = a;
    }
    return found;
}

#endif
