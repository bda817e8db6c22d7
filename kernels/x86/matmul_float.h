/* matmul_float.h - what the products of F32, F16 and BF16 weights share on AVX2 and AVX-512. */
#ifndef QUERN_MATMUL_FLOAT_H
#define QUERN_MATMUL_FLOAT_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "inline.h"

enum width { WIDTH_F32, WIDTH_F16, WIDTH_BF16 };

static ALWAYS_INLINE size_t value_bytes(enum width width)
{
    return width == WIDTH_F32 ? 4 : 2;
}

/* Rows to ask into the second-level cache while others are multiplied, line by line: `lines` of each of `rows` rows. */
struct soon {
    const uint8_t *row;
    size_t         stride, rows, lines, line;
};

static ALWAYS_INLINE void ask(struct soon *soon, size_t count)
{
    for (; count && soon->rows; count--) {
        _mm_prefetch((const char *)soon->row + 64 * soon->line, _MM_HINT_T1);
        if (++soon->line == soon->lines) {
            soon->line = 0;
            soon->row += soon->stride;
            soon->rows--;
        }
    }
}

#endif
