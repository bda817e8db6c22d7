/* lanes_loops.h - the one source of the loops in lanes.h. Everything is static: each file that includes this has its own. */
#ifndef QUERN_LANES_LOOPS_H
#define QUERN_LANES_LOOPS_H

#include "lanes.h"
#include "rounding_block32_search.h"
#include "rounding_book_search.h"
#include "rounding_super_search.h"

static void add_scaled(float *out, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] += a * x[i];
}

/* Eight additions per element, in the order of the rows: add_scaled's bits. */
static void add_eight(float *restrict out, const float *restrict x, size_t stride, const float a[8], size_t n)
{
    const float *x1 = x + stride, *x2 = x1 + stride, *x3 = x2 + stride, *x4 = x3 + stride, *x5 = x4 + stride, *x6 = x5 + stride;
    const float *x7 = x6 + stride;
    float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4], a5 = a[5], a6 = a[6], a7 = a[7];
    for (size_t i = 0; i < n; i++) {
        float sum = out[i] + a0 * x[i];
        sum = sum + a1 * x1[i];
        sum = sum + a2 * x2[i];
        sum = sum + a3 * x3[i];
        sum = sum + a4 * x4[i];
        sum = sum + a5 * x5[i];
        sum = sum + a6 * x6[i];
        out[i] = sum + a7 * x7[i];
    }
}

/* The brackets are part of the result: another order of additions, another last bit. */
static void subtract_four(double *out, const double *x, const double *y, const double *z, const double *w, double a, double b,
                          double c, double d, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] -= (a * x[i] + b * y[i]) + (c * z[i] + d * w[i]);
}

static const struct lanes loops = {
    .search = {
        [FORMAT_Q4_0] = search_q4_0, [FORMAT_Q4_1] = search_q4_1, [FORMAT_Q5_0] = search_q5_0, [FORMAT_Q5_1] = search_q5_1,
        [FORMAT_Q8_0] = search_q8_0, [FORMAT_IQ4_NL] = search_iq4_nl, [FORMAT_Q2_K] = search_q2_k, [FORMAT_Q3_K] = search_q3_k,
        [FORMAT_Q4_K] = search_q4_k, [FORMAT_Q5_K] = search_q5_k, [FORMAT_Q6_K] = search_q6_k, [FORMAT_IQ4_XS] = search_iq4_xs,
    },
    .best_entry = best_entry,
    .best_flipped = best_flipped,
    .add_scaled = add_scaled,
    .add_eight = add_eight,
    .subtract_four = subtract_four,
};

#endif
