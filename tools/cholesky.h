/* cholesky.h - factors of a second-moment matrix in double precision, as error feedback needs them.
 *
 * Every element is one sum in a fixed order whatever the number of threads, so the same matrix gives the same bits (within one
 * build: tiles.h). Cost: n^3 / 6 multiplications for the factor and as many for the inverse; memory: two matrices of doubles. On
 * four cores of a Zen 4, factor and inverse: 0.7 s of 4096 columns and 5.5 s of 8192; with OpenBLAS 0.4 s and 3.3 s. */
#ifndef QUERN_CHOLESKY_H
#define QUERN_CHOLESKY_H

#include "error.h"
#include "pool.h"

struct cholesky_damping {
    double first;        /* share of the mean diagonal that is added to the diagonal: 0.01, say  */
    int    tries;        /* at each failure the share grows fourfold; >= 1                       */
    double used;         /* out: the share that went through                                     */
};

/* The upper factor U of the inverse, H^-1 = U^T U, for columns taken in `order`: rows and columns p of U belong to column
 * order[p] of H. U[p][p]^-2 is the variance of column p given all later ones; rounding column p with the error e moves the later
 * columns by -e * U[p][q] / U[p][p].
 *   u  f32 [n][stride], zero below the diagonal and in the gap      h  f32 [n][n], symmetric
 * Columns whose diagonal is 0 (inputs that never move) get the diagonal 1 and no others. QUERN_EFORMAT: H is not finite, or not
 * positive definite after all tries; QUERN_EMEM. Source: Frantar et al. 2022 (GPTQ); Chee et al. 2023 (LDLQ). */
bool cholesky_inverse_upper(float *u, size_t stride, const float *h, const uint32_t *order, size_t n,
                            struct cholesky_damping *damping, struct pool *pool, struct quern_error *err);

#endif
