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
    .subtract_four = subtract_four,
};

#endif
