/* rounding.h - f32 rows to blocks of any standard tensor type, with the least weighted squared error that a search finds.
 *
 * The encoder of a type looks for the scales and codes that minimise sum over i of weight[i] * (x[i] - decoded[i])^2, where
 * `decoded` is what the file's reader will compute, half-precision scales included. A row's bytes depend on that row and its
 * weights alone, so rows may be rounded in any order by any number of threads. Values must be finite; weights finite and >= 0 (a
 * block whose weights are all zero is rounded as if they were one). Scales beyond the range of a half are cut to it. */
#ifndef QUERN_ROUNDING_H
#define QUERN_ROUNDING_H

#include "error.h"
#include "formats.h"

/* The codebooks of the i-quants, arranged for search. Immutable once open: any number of threads may share it. */
struct rounding;
struct rounding *rounding_open(struct quern_error *err);
void rounding_close(struct rounding *rounding);      /* NULL is allowed */

/* Is there an encoder for this format id? (F32, F16, BF16 and every type that llama-quantize offers.) */
bool rounding_supports(uint32_t format);

/* blocks: format_row_bytes(n) bytes, n a multiple of the format's block. weight: [n], or NULL for all one. */
void rounding_row(const struct rounding *rounding, uint32_t format, void *blocks, const float *x, const float *weight, size_t n);

/* How an importance (mean square of the input that a column meets) becomes a weight. */
enum rounding_weights {
    ROUNDING_PLAIN,        /* w = importance                                                                            */
    ROUNDING_GUARDED       /* w = importance * sqrt(mean(x^2 of the block's 256) + x^2): large weights count more, which was
                            * found (by ik_llama.cpp's author, and again here) to lower KL although it raises the plain error */
};
/* weight[i] for a row of n values; importance NULL: all one. */
void rounding_weigh(float *weight, const float *x, const float *importance, size_t n, enum rounding_weights rule);

#endif
