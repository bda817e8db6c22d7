/* matmul_micro_avx512.h - two panels by up to six tokens in one run of 256 columns, lanes are rows, on AVX-512 VNNI.
 *
 * 12 accumulators for the byte dots, 12 for the scaled sums, two vectors of weights, two of scales and a broadcast fill 29 of 32
 * registers. Per 32 columns and accumulator there are eight dots and one multiplication by the scale, all on the same two ports of
 * Zen 4 and 5, so 8/9 of the dot peak is the ceiling (4/5 for scales per 16 columns and for float scales, which need two
 * multiplications, one of them done elsewhere if scales are powers of two: 8/9). Where a value times its scale fits a byte
 * (shape.scaled: Q2_K, Q3_K, TQ1_0, TQ2_0), panels hold that, and a run has nothing but dots: 90 % of the peak with 512 tokens and
 * weights in the cache instead of 73; Q2_K, whose minimums are an eighth of its dots, 79 instead of 66. From the first-level cache
 * the microkernels take 0 to 1.5 % more cycles than this count, with activations and sums beyond it 3 %. */
#ifndef QUERN_MATMUL_MICRO_AVX512_H
#define QUERN_MATMUL_MICRO_AVX512_H

#include "matmul_avx512.h"

enum { PANELS = 2, TOKS = 6, BLOCK_ROWS = 64 };

static ALWAYS_INLINE __m512i broadcast_4_bytes(const int8_t *bytes)
{
    int32_t value;
    memcpy(&value, bytes, 4);
    return _mm512_set1_epi32(value);
}

/* idot += 4 * steps columns' products, beginning at column 4 * c. */
static ALWAYS_INLINE void dots(__m512i idot[PANELS][TOKS], const struct panel *p, const int8_t *const *x, int c, int steps,
                               int toks)
{
    UNROLL_ALL
    for (int i = 0; i < steps; i++) {
        __m512i w0 = _mm512_load_si512(p[0].q[c + i]), w1 = _mm512_load_si512(p[1].q[c + i]);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m512i v = broadcast_4_bytes(x[t] + 4 * (c + i));
            idot[0][t] = _mm512_dpbusd_epi32(idot[0][t], w0, v);
            idot[1][t] = _mm512_dpbusd_epi32(idot[1][t], w1, v);
        }
    }
}

/* Sums of minimum times sum of x. Each vector of minimums is loaded once for all tokens. */
static ALWAYS_INLINE void sum_minimums(__m512i low[PANELS][TOKS], const struct panel *p, const struct token_run *token, int toks,
                                       const struct panel_shape shape)
{
    const int pairs = PANEL_COLS / (int)shape.sub / 2;
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        low[0][t] = low[1][t] = _mm512_setzero_si512();
#pragma GCC unroll 1
    for (int s = 0; s < pairs; s++) {
        __m512i m0 = _mm512_load_si512(p[0].min.i[s]), m1 = _mm512_load_si512(p[1].min.i[s]);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m512i pair = broadcast_4_bytes((const int8_t *)(token[t].sums + 2 * s));
            low[0][t] = _mm512_dpwssd_epi32(low[0][t], m0, pair);
            low[1][t] = _mm512_dpwssd_epi32(low[1][t], m1, pair);
        }
    }
}

/* acc[t][0..32) += a run's totals and, with minimums, what they take off. */
static ALWAYS_INLINE void add_run(float (*acc)[BLOCK_ROWS], const struct panel *p, __m512i total[PANELS][TOKS],
                                  __m512i low[PANELS][TOKS], const struct token_run *token, int toks,
                                  const struct panel_shape shape)
{
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        __m512 dx = _mm512_set1_ps(token[t].dx[0]);
        UNROLL_ALL
        for (int i = 0; i < PANELS; i++) {
            __m512 sum = _mm512_loadu_ps(acc[t] + PANEL_ROWS * i);
            sum = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(p[i].d), dx), _mm512_cvtepi32_ps(total[i][t]), sum);
            if (shape.mins)
                sum = _mm512_fnmadd_ps(_mm512_mul_ps(_mm512_load_ps(p[i].dmin), dx), _mm512_cvtepi32_ps(low[i][t]), sum);
            _mm512_storeu_ps(acc[t] + PANEL_ROWS * i, sum);
        }
    }
}

/* Where a run's totals of super formats begin: what takes the offset off scaled values, or nothing. */
static ALWAYS_INLINE void begin_totals(__m512i total[PANELS][TOKS], const struct token_run *token, int toks,
                                       const struct panel_shape shape)
{
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        total[0][t] = total[1][t] = shape.scaled ? _mm512_set1_epi32(token[t].init[0]) : _mm512_setzero_si512();
}

/* The dots of sub-block s, offset taken off. */
static ALWAYS_INLINE void sub_dots(__m512i idot[PANELS][TOKS], const struct panel *p, const int8_t *const *x,
                                   const struct token_run *token, int s, int toks, const struct panel_shape shape)
{
    const int steps = (int)shape.sub / 4;
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        idot[0][t] = idot[1][t] = _mm512_set1_epi32(token[t].init[s]);
    dots(idot, p, x, s * steps, steps, toks);
}

/* total += the dots of a super format's sub-block s times its scales. */
static ALWAYS_INLINE void add_super(__m512i total[PANELS][TOKS], __m512i idot[PANELS][TOKS], const struct panel *p, int s, int toks)
{
    __m512i s0 = _mm512_load_si512(p[0].scale.i[s]), s1 = _mm512_load_si512(p[1].scale.i[s]);
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        total[0][t] = _mm512_add_epi32(total[0][t], _mm512_mullo_epi32(idot[0][t], s0));
        total[1][t] = _mm512_add_epi32(total[1][t], _mm512_mullo_epi32(idot[1][t], s1));
    }
}

/* sum += the dots of a small format's sub-block s times its scales, and its minimums. */
static ALWAYS_INLINE void add_small(__m512 sum[PANELS][TOKS], __m512i idot[PANELS][TOKS], const struct panel *p,
                                    const struct token_run *token, int s, int toks, const struct panel_shape shape)
{
    const int per_dx = 32 / (int)shape.sub;
    __m512 s0 = _mm512_load_ps(p[0].scale.f[s]), s1 = _mm512_load_ps(p[1].scale.f[s]);
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        __m512 dx = _mm512_set1_ps(token[t].dx[s / per_dx]);
        sum[0][t] = _mm512_fmadd_ps(scaled_by(dx, s0, shape), _mm512_cvtepi32_ps(idot[0][t]), sum[0][t]);
        sum[1][t] = _mm512_fmadd_ps(scaled_by(dx, s1, shape), _mm512_cvtepi32_ps(idot[1][t]), sum[1][t]);
    }
    if (shape.mins) {
        __m512 m0 = _mm512_load_ps(p[0].min.f[s]), m1 = _mm512_load_ps(p[1].min.f[s]);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m512 dsum = _mm512_set1_ps(token[t].dsum[s]);
            sum[0][t] = _mm512_fnmadd_ps(m0, dsum, sum[0][t]);
            sum[1][t] = _mm512_fnmadd_ps(m1, dsum, sum[1][t]);
        }
    }
}

#endif
