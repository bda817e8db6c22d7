#include "matmul_wide_avx2.h"

/* Many tokens with formats of signed bytes on AVX2: weights and activations as int16, lanes are rows.
 *
 * As bytes, 32 products would take vpsignb, vpmaddubsw, vpmaddwd and vpaddd. As int16 they take two vpmaddwd and two vpaddd, no
 * more for the multipliers, and the super formats' scales come for nothing: IQ4_XS's largest is 32 * 127, so that a whole run is
 * added without looking at its sub-blocks. With no second set of sums, six tokens by two vectors of rows fit the registers: 12
 * sums, two weights, one activation, one product. Two multiplications in a cycle would be 234 Gop/s at 3.66 GHz; on Zen 4, where
 * the additions get in their way, IQ4_XS has 173 and Q8_0, with two conversions and six operations on floats per 32 columns, 152
 * (137 and 128 as bytes with vpsignb, three tokens). */

/* sum[v][t] = or += products of the pair of columns i. */
static ALWAYS_INLINE void wide_pair(__m256i sum[2][SIX_TOKS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS], size_t i,
                                    const bool first, const int toks)
{
    __m256i w0 = settled(_mm256_load_si256((const __m256i *)p->q[i]));
    __m256i w1 = settled(_mm256_load_si256((const __m256i *)p->q[i] + 1));
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        __m256i v = broadcast_4_bytes(x[t] + 2 * i);
        if (first) {
            sum[0][t] = settled(_mm256_madd_epi16(w0, v));
            sum[1][t] = settled(_mm256_madd_epi16(w1, v));
        } else {
            add_32(&sum[0][t], _mm256_madd_epi16(w0, v));
            add_32(&sum[1][t], _mm256_madd_epi16(w1, v));
        }
    }
}

/* sum[v][t]: products of `pairs` pairs of columns from pair c on. The first are not added to zeros. */
static ALWAYS_INLINE void wide_sums(__m256i sum[2][SIX_TOKS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS],
                                    size_t c, size_t pairs, const int toks)
{
    wide_pair(sum, p, x, c, true, toks);
#pragma GCC unroll 1
    for (size_t i = c + 1; i < c + pairs; i++)
        wide_pair(sum, p, x, i, false, toks);
}

static ALWAYS_INLINE void wide_super(float (*acc)[BLOCK_ROWS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS],
                                     const struct token_run *token, const int toks)
{
    __m256i sum[2][SIX_TOKS];
    wide_sums(sum, p, x, 0, PANEL_COLS / 2, toks);
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        UNROLL_ALL
        for (int half = 0; half < 2; half++) {
            __m256 factor = _mm256_mul_ps(_mm256_load_ps(p->d + 8 * half), _mm256_set1_ps(token[t].dx[0]));
            __m256 a = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(sum[half][t]), _mm256_loadu_ps(acc[t] + 8 * half));
            _mm256_storeu_ps(acc[t] + 8 * half, a);
        }
}

static ALWAYS_INLINE void wide_small(float (*acc)[BLOCK_ROWS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS],
                                     const struct token_run *token, const int toks, const size_t sub)
{
    __m256i sum[2][SIX_TOKS];
    for (size_t s = 0; s < PANEL_COLS / sub; s++) {
        wide_sums(sum, p, x, s * sub / 2, sub / 2, toks);
        UNROLL_ALL
        for (int t = 0; t < toks; t++)
            UNROLL_ALL
            for (int half = 0; half < 2; half++) {
                __m256 factor = _mm256_mul_ps(_mm256_load_ps(p->scale[s] + 8 * half), _mm256_set1_ps(token[t].dx[s * sub / 32]));
                __m256 a = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(sum[half][t]), _mm256_loadu_ps(acc[t] + 8 * half));
                _mm256_storeu_ps(acc[t] + 8 * half, a);
            }
    }
}

static ALWAYS_INLINE void wide(float (*acc)[BLOCK_ROWS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS],
                               const struct token_run *token, const int toks, const struct panel_shape *shape)
{
    if (shape->kind == PANEL_SUPER)
        wide_super(acc, p, x, token, toks);
    else if (shape->sub == 32)
        wide_small(acc, p, x, token, toks, 32);
    else
        wide_small(acc, p, x, token, toks, 16);
}

void micro_wide_avx2(float (*acc)[BLOCK_ROWS], const struct wide_panel *p, const int16_t (*x)[PANEL_COLS],
                     const struct token_run *token, size_t toks, const struct panel_shape *shape)
{
    if (toks == 6)
        wide(acc, p, x, token, 6, shape);
    else if (toks == 4)
        wide(acc, p, x, token, 4, shape);
    else
        wide(acc, p, x, token, 2, shape);
}
