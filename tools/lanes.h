/* lanes.h - the tools' inner loops that gain from wider vectors, one table of them per instruction set.
 *
 * All tables give the same bytes: the loops fix the order of their sums (rounding_lane.h) and nothing is contracted, so they are
 * one source, lanes_loops.h, which a small file per instruction set compiles with the flags that the Makefile has for its suffix.
 * AVX2 against plain SSE2, measured on Zen 4 with gcc 12: 0.49 ns per value and candidate against 2.1 ns. */
#ifndef QUERN_LANES_H
#define QUERN_LANES_H

#include "rounding_grid.h"

struct lanes {
    search_fn *search[FORMAT_COUNT];       /* of formats without codebooks, NULL for the others */
    /* codebook_best and codebook_best_flipped of rounding_grid.h. */
    int (*best_entry)(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX], float *least);
    int (*best_flipped)(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX],
                        const float flip[GROUP_MAX][LEVELS_MAX], float *least, int *flipped);
    /* out[i] += a * x[i], i in [0, n). */
    void (*add_scaled)(float *out, const float *x, float a, size_t n);
    /* The same eight times, one after the other, with rows x, x + stride, ... and a[0], a[1], ...: one load and store of out. */
    void (*add_eight)(float *out, const float *x, size_t stride, const float a[8], size_t n);
    /* out[i] -= a * x[i] + b * y[i] + c * z[i] + d * w[i], i in [0, n): four rank-one updates per load and store. */
    void (*subtract_four)(double *out, const double *x, const double *y, const double *z, const double *w, double a, double b,
                          double c, double d, size_t n);
};

/* The best of this processor, at most what QUERN_CPU names. */
const struct lanes *lanes_find(void);

/* One per file; lanes_avx2 may be called where the processor has AVX2, and only exists in builds with vector kernels for x86. */
const struct lanes *lanes_plain(void);
const struct lanes *lanes_avx2(void);

#endif
