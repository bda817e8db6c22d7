/* tiles.h - the product that the factor of a matrix and its inverse are made of, on one tile.
 *
 * Our own loops, or OpenBLAS's dgemm in a build with `make BLAS=1`, told to run in the calling thread. Either way a tile is
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

#endif
