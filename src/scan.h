/* scan.h - look for NaN and Inf in a tensor's values.
 *
 * Every block is decoded, so a bad scale is found as well as a bad value. */
#ifndef QUERN_SCAN_H
#define QUERN_SCAN_H

#include "gguf.h"
#include "kernels.h"
#include "pool.h"

struct scan {
    bool   scanned;        /* false: integers, or a format that is no operand of anything (Q8_1, Q8_K) */
    size_t blocks;         /* in the tensor                                                            */
    size_t bad_blocks;     /* of them, with at least one value that is not finite                      */
    size_t first_block;    /* of these                                                                 */
    size_t first_value;    /* the first value that is not finite, counted from the tensor's begin      */
    float  value;          /* it: NaN or an infinity                                                   */
};

/* The same for any number of threads. QUERN_EMEM. */
bool scan_tensor(struct scan *out, const struct gguf_tensor *t, const struct kernels *kernels, struct pool *pool,
                 struct quern_error *err);

#endif
