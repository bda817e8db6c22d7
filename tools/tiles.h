/* tiles.h - the matrix products that error feedback spends its time in, on one tile: of the factor of a matrix and its inverse in
 * double, of rows with the matrix in float.
 *
 * Our own loops, or OpenBLAS's gemm in a build with `make BLAS=1`, told to run in the calling thread. Either way a tile is
 * computed by one thread, so who cuts a matrix into the same tiles gets the same bits for any number of threads. Between the two
 * the last bits differ, and OpenBLAS's differ between processors too; our own do not. */
#ifndef QUERN_TILES_H
#define QUERN_TILES_H

#include "lanes.h"

/* Before threads work on tiles: the loops that they use. */
const struct lanes *tiles_begin(void);
/* c -= a b.   c [m][n], a [m][k], b [k][n] in rows of *_stride values. Our own sums: four products at a time in order of rising k,
 * then what is left one by one. */
void tile_subtract(const struct lanes *lanes, double *c, size_t c_stride, const double *a, size_t a_stride, const double *b,
                   size_t b_stride, size_t m, size_t n, size_t k);
/* c = a b.   c, a [m][n], b [n][n] in rows of `stride` values, c apart from both. Our own sums: in order of rising rows of b. */
void tile_product(const struct lanes *lanes, float *c, const float *a, const float *b, size_t stride, size_t m, size_t n);

#endif
