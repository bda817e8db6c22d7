/* matmul_wide_avx2.h - panels whose values need int16 (matmul_wide_avx2.c), for the many-token product on AVX2. */
#ifndef QUERN_MATMUL_WIDE_AVX2_H
#define QUERN_MATMUL_WIDE_AVX2_H

#include "matmul_avx2.h"

/* *sum += x in its own register, which saves a copy of each sum where they fill all the registers. */
static ALWAYS_INLINE void add_32(__m256i *sum, __m256i x)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(x));
}

static ALWAYS_INLINE void widen_activations(int16_t to[PANEL_COLS], const int8_t *from)
{
    for (int i = 0; i < PANEL_COLS; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from + i))));
}

/* acc[token] [row] += a run of 16 rows by 2, 4 or 6 tokens. */
void micro_wide_avx2(float (*acc)[BLOCK_ROWS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS],
                     const struct token_run *token, size_t toks, const struct panel_shape *shape);

#endif
