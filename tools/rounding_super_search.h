/* rounding_super_search.h - the searches of the formats with 256 values per block and integer scales per 16 or 32 of them: Q2_K,
 * Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS.
 *
 * Each sub-block is searched alone first. The common step d (and that of the minimums) is then chosen so that the sub-blocks'
 * wishes round well, every sub-block is settled anew on the scales that can really be stored (its neighbours included), and d is
 * refitted to the codes; the last two alternate while the error falls.
 *
 * One source for every instruction set, as rounding_block32_search.h. */
#ifndef QUERN_ROUNDING_SUPER_SEARCH_H
#define QUERN_ROUNDING_SUPER_SEARCH_H

#include "rounding_search.h"

/* The step d, of all that are tried, whose multiples k in [low, high] come nearest to the targets, weighted by the curvatures.
 * The target of largest magnitude is put at first, first + by, ... (`count` places); each start is refitted once. */
static double common_step(const double *target, const double *curvature, int n, int low, int high, double first, double by,
                          int count)
{
    double top = 0, best = 0, least = INFINITY;
    for (int b = 0; b < n; b++)
        if (fabs(target[b]) > fabs(top))
            top = target[b];
    if (top == 0)
        return 0;
    for (int i = 0; i < count; i++) {
        double d = top / (first + by * i), tk = 0, kk = 0, error = 0;
        int k[16];
        for (int b = 0; b < n; b++) {
            double t = target[b] / d;
            k[b] = (int)(t < low ? low : t > high ? high : rint(t));
            tk += curvature[b] * target[b] * k[b];
            kk += curvature[b] * k[b] * k[b];
        }
        if (kk > 0 && tk != 0)
            d = tk / kk;
        for (int b = 0; b < n; b++) {
            double off = target[b] - d * k[b];
            error += curvature[b] * off * off;
        }
        if (error < least)
            least = error, best = d;
    }
    return best;
}

static int clamp_int(double v, int low, int high)
{
    return (int)(v < low ? low : v > high ? high : rint(v));
}

/* ---- scale and minimum: Q2_K, Q4_K, Q5_K ---------------------------------------------------------------------------- */

struct affine_shape {
    int   subs, length;          /* sub-blocks, values of each           */
    float high;                  /* largest code                         */
    int   limit;                 /* largest integer scale and minimum    */
    float step;                  /* affine_search's grid                 */
    int   outward, inward;
    int   reach;                 /* neighbouring scales tried after a refit */
};

struct affine_super {
    float       d, m;
    int         scale[16], min[16];
    struct sums sums[16];
    double      error;
};

/* The best storable scale and minimum of sub-block b, up to `reach` from its present scale, given the steps. `a` brings the sums of
 * some good codes. */
LANE_INLINE double affine_settle(struct affine_super *s, int b, const float *x, const float *w, struct sums a,
                                 const struct affine_shape shape, int reach)
{
    double least = INFINITY;
    int wish = s->scale[b];
    for (int k = wish - reach; k <= wish + reach; k++) {
        if (k < 0 || k > shape.limit)
            continue;
        float scale = s->d * (float)k;
        /* Codes and minimum each follow from the other: a few turns, and mostly the second one changes nothing. */
        int last = -1;
        for (int turn = 0; turn < 3; turn++) {
            double minimum = (a.x - scale * a.q) / a.w;
            int l = s->m > 0 ? clamp_int(-minimum / s->m, 0, shape.limit) : 0;
            if (l == last)
                break;
            last = l;
            float m = -(s->m * (float)l);
            affine_sums(&a, x, w, (size_t)shape.length, k ? 1 / scale : 0, m, shape.high);
            double error = sums_error(&a, scale, m);
            if (error < least)
                least = error, s->scale[b] = k, s->min[b] = l, s->sums[b] = a;
        }
    }
    return least;
}

LANE_INLINE double affine_settle_all(struct affine_super *s, const float *x, const float *w, const struct affine_shape shape,
                                     int reach)
{
    s->error = 0;
    for (int b = 0; b < shape.subs; b++) {
        size_t at = (size_t)(b * shape.length);
        s->error += affine_settle(s, b, x + at, w + at, s->sums[b], shape, reach);
    }
    return s->error;
}

/* Steps that fit best to the codes, scales and minimums as they are. */
static void affine_refit(struct affine_super *s, int subs)
{
    double dd = 0, dm = 0, mm = 0, dx = 0, mx = 0;
    for (int b = 0; b < subs; b++) {
        double k = s->scale[b], l = s->min[b];
        const struct sums *a = &s->sums[b];
        dd += k * k * a->qq, dm -= k * l * a->q, mm += l * l * a->w;
        dx += k * a->xq, mx -= l * a->x;
    }
    /* Normal equations of the two steps; where the codes cannot tell scale from minimum (one of them unused), d alone is fitted. */
    double det = dd * mm - dm * dm;
    if (det > 1e-9 * dd * mm && det > 0) {
        double d = (dx * mm - mx * dm) / det, m = (mx * dd - dx * dm) / det;
        if (d > 0 && m >= 0)
            s->d = half_round(d), s->m = half_round(m);
    } else if (dd > 0) {
        s->d = half_round((dx - s->m * dm) / dd);
    }
}

LANE_INLINE void affine_super_search(struct block_code *c, const float *x, const float *w, const struct affine_shape shape)
{
    struct affine_super s, next;
    double scale[16], minimum[16], scale_curve[16], minimum_curve[16];
    for (int b = 0; b < shape.subs; b++) {
        size_t at = (size_t)(b * shape.length), n = (size_t)shape.length;
        struct sums *a = &s.sums[b];
        sums_block(a, x + at, w + at, n);
        struct affine f = affine_search(a, x + at, w + at, n, shape.high, 0, shape.step, shape.outward, shape.inward);
        scale[b] = f.s > 0 ? f.s : 0, minimum[b] = f.m < 0 ? -f.m : 0;
        scale_curve[b] = a->qq - a->q * a->q / a->w;
        minimum_curve[b] = a->w;
    }
    /* The largest wish at limit + 0.6 (cut to the limit) down to a few steps below it, where the others may round better. */
    int starts = shape.limit > 15 ? 24 : 16;
    s.d = half_round(common_step(scale, scale_curve, shape.subs, 0, shape.limit, shape.limit + 0.6, -0.2, starts));
    s.m = half_round(common_step(minimum, minimum_curve, shape.subs, 0, shape.limit, shape.limit + 0.6, -0.2, starts));
    for (int b = 0; b < shape.subs; b++)
        s.scale[b] = s.d > 0 ? clamp_int(scale[b] / s.d, 0, shape.limit) : 0;
    affine_settle_all(&s, x, w, shape, 1);
    for (int turn = 0; turn < 3; turn++) {
        next = s;
        affine_refit(&next, shape.subs);
        if (next.d == s.d && next.m == s.m)
            break;
        if (affine_settle_all(&next, x, w, shape, shape.reach) >= s.error)
            break;
        s = next;
    }
    c->d = s.d, c->m = s.m;
    for (int b = 0; b < shape.subs; b++) {
        size_t at = (size_t)(b * shape.length);
        c->scale[b] = (int16_t)s.scale[b], c->min[b] = (int16_t)s.min[b];
        affine_codes(c->code + at, x + at, (size_t)shape.length, s.d * (float)s.scale[b], -(s.m * (float)s.min[b]), shape.high);
    }
}

static void search_q2_k(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    (void)r, (void)effort;
    affine_super_search(c, x, w, (struct affine_shape){ 16, 16, 3, 15, 0.1f, 1, 6, 1 });
}

static void search_q4_k(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    (void)r;
    if (effort == EFFORT_QUICK)
        affine_super_search(c, x, w, (struct affine_shape){ 8, 32, 15, 63, 0.35f, 0, 2, 0 });
    else
        affine_super_search(c, x, w, (struct affine_shape){ 8, 32, 15, 63, 0.2f, 0, 4, 1 });
}

static void search_q5_k(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    (void)r;
    if (effort == EFFORT_QUICK)
        affine_super_search(c, x, w, (struct affine_shape){ 8, 32, 31, 63, 0.35f, 0, 2, 0 });
    else
        affine_super_search(c, x, w, (struct affine_shape){ 8, 32, 31, 63, 0.2f, 0, 4, 1 });
}

/* ---- scale alone, signed: Q3_K, Q6_K, IQ4_XS ------------------------------------------------------------------------- */

struct signed_shape {
    int             subs, length;
    struct code_set set;
    int             low, high;        /* integer scales                          */
    float           first, step;      /* signed_search's starts                  */
    int             count;
};

struct signed_super {
    float       d;
    int         scale[16];
    struct sums sums[16];
    double      error;
};

LANE_INLINE double signed_settle_all(struct signed_super *s, const float *x, const float *w, const double *xx,
                                     const struct signed_shape shape, int reach)
{
    s->error = 0;
    for (int b = 0; b < shape.subs; b++) {
        size_t at = (size_t)(b * shape.length);
        double least = INFINITY;
        int wish = s->scale[b];
        for (int k = wish - reach; k <= wish + reach; k++) {
            if (k < shape.low || k > shape.high)
                continue;
            struct sums a;
            float scale = s->d * (float)k;
            signed_sums(&a, x + at, w + at, (size_t)shape.length, scale != 0 ? 1 / scale : 0, shape.set);
            double error = xx[b] - 2 * scale * a.xq + (double)scale * scale * a.qq;
            if (error < least)
                least = error, s->scale[b] = k, s->sums[b] = a;
        }
        s->error += least;
    }
    return s->error;
}

LANE_INLINE void signed_super_search(struct block_code *c, const float *x, const float *w, const struct signed_shape shape)
{
    struct signed_super s, next;
    double target[16], curve[16], xx[16];
    for (int b = 0; b < shape.subs; b++) {
        size_t at = (size_t)(b * shape.length), n = (size_t)shape.length;
        struct sums a;
        sums_block(&a, x + at, w + at, n);
        xx[b] = a.xx;
        target[b] = signed_search(&a, x + at, w + at, n, shape.set, shape.first, shape.step, shape.count);
        curve[b] = a.qq;
    }
    /* One more scale fits below zero than above, so the largest is put there; d has the sign that this needs. */
    s.d = half_round(common_step(target, curve, shape.subs, shape.low, shape.high, shape.low - 0.6 * (shape.high / 31),
                                 0.2 * (shape.high / 31), 20));
    for (int b = 0; b < shape.subs; b++)
        s.scale[b] = s.d != 0 ? clamp_int(target[b] / s.d, shape.low, shape.high) : 0;
    signed_settle_all(&s, x, w, xx, shape, 1);
    for (int turn = 0; turn < 3; turn++) {
        next = s;
        double kq = 0, kk = 0;
        for (int b = 0; b < shape.subs; b++) {
            double k = s.scale[b];
            kq += k * s.sums[b].xq, kk += k * k * s.sums[b].qq;
        }
        if (!(kk > 0))
            break;
        next.d = half_round(kq / kk);
        if (next.d == s.d || signed_settle_all(&next, x, w, xx, shape, 1) >= s.error)
            break;
        s = next;
    }
    c->d = s.d;
    for (int b = 0; b < shape.subs; b++) {
        size_t at = (size_t)(b * shape.length);
        c->scale[b] = (int16_t)s.scale[b];
        signed_codes(c->code + at, x + at, (size_t)shape.length, s.d * (float)s.scale[b], shape.set);
    }
}

static void search_q3_k(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    (void)r, (void)effort;
    signed_super_search(c, x, w, (struct signed_shape){ 16, 16, { -4, 3, 0 }, -32, 31, 2.8f, 0.2f, 20 });
}

static void search_q6_k(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    (void)r;
    if (effort == EFFORT_QUICK)
        signed_super_search(c, x, w, (struct signed_shape){ 16, 16, { -32, 31, 0 }, -128, 127, 30.4f, 0.6f, 4 });
    else
        signed_super_search(c, x, w, (struct signed_shape){ 16, 16, { -32, 31, 0 }, -128, 127, 30.2f, 0.3f, 9 });
}

static void search_iq4_xs(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    (void)r, (void)effort;
    signed_super_search(c, x, w, (struct signed_shape){ 8, 32, { -127, 113, 1 }, -32, 31, 100, 4.5f, 14 });
    for (int i = 0; i < SUPER; i++)
        c->code[i] = level_index(c->code[i]);
}

#endif
