/* prepare_q8.h - a row of activations as blocks of int8 for the dot products; the block is the instruction set's. */
#ifndef QUERN_PREPARE_Q8_H
#define QUERN_PREPARE_Q8_H

#include "x86.h"

#include "inline.h"
#include "numbers.h"

#include <string.h>

/* One block of `block` values, of which `n` are there, the rest being 0: writes q, the sums per 16, and gives d. */
typedef float quantize_block_fn(int8_t *q, int16_t *sums, const float *x, size_t n, size_t block);

/* One row of `cols` values to `out` (act_layout of kernels.h), in blocks of 32 (ACT_Q8_32) or 256 (ACT_Q8_256). */
static ALWAYS_INLINE void prepare_q8(void *out, const float *x, size_t cols, enum act_kind kind, quantize_block_fn *quantize)
{
    const struct act_layout layout = act_layout(kind, cols);
    const size_t block = kind == ACT_Q8_32 ? 32 : 256, blocks = layout.padded / block;
    int8_t *q = out;
    float *d = (float *)(void *)((char *)out + layout.scales);
    int16_t *sums = (int16_t *)(void *)((char *)out + layout.sums);

    for (size_t i = 0; i < blocks; i++) {
        size_t at = i * block;
        float scale = quantize(q + at, sums + at / 16, x + (at < cols ? at : 0), at < cols ? cols - at : 0, block);
        /* Q8_0's scales are f16, Q8_K's are not: kernels.h says why it matters. */
        d[i] = kind == ACT_Q8_32 ? round_scale(scale) : scale;
    }
    memset(d + blocks, 0, layout.sums - layout.scales - blocks * sizeof *d);
    memset(sums + layout.padded / 16, 0, layout.bytes - layout.sums - layout.padded / 16 * sizeof *sums);
}

#endif
