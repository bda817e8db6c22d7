#include "matmul_avxvnni.h"

/* The many-token product with AVX-VNNI: panels of bytes against up to six tokens, lanes are rows.
 *
 * One vpdpbusd takes four columns of eight rows by a token and adds them up as int32. It needs about ten sums under way to be
 * issued twice in a cycle: six tokens by two vectors of rows are 12, and with two weights and one activation 15 registers. What
 * becomes of the sums after a sub-block (16 or 32 columns) goes by way of memory. Sums that fit int16 are multiplied by their
 * scale with vpdpwssd, which adds as well; larger ones with vpmulld, two operations on Intel's cores.
 *
 * Timed on a Zen 4 core in AVX-512's form only (dots_avxvnni.h). */

/* How the integer scales of super formats meet their sums: sums of 16 values up to 15 are at most 16 * 15 * 128 = 30,720. */
enum scaling { BY_WORDS, BY_LANES };

/* sum[v][t] += products of `groups` groups of four columns from group c on. */
static ALWAYS_INLINE void byte_sums(__m256i sum[2][SIX_TOKS], const struct panel *p, const int8_t (*x)[PANEL_COLS], int c,
                                    const int groups, const int toks)
{
    UNROLL_ALL
    for (int i = c; i < c + groups; i++) {
        __m256i w0 = _mm256_load_si256((const __m256i *)p->q[i]);
        __m256i w1 = _mm256_load_si256((const __m256i *)p->q[i] + 1);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i v = broadcast_4_bytes(x[t] + 4 * i);
            add_dots_of_4(&sum[0][t], w0, v);
            add_dots_of_4(&sum[1][t], w1, v);
        }
    }
}

/* low[v][t] = products of pairs of int16: minimums, or scales where there is an offset, by sums of activations. */
static ALWAYS_INLINE void low_sums(__m256i low[2][SIX_TOKS], const struct panel *p, const struct token_run *token, const int toks,
                                   const int subs)
{
    __m256i sum[2][SIX_TOKS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        sum[0][t] = sum[1][t] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (int s = 0; s < subs / 2; s++) {
        __m256i m0 = _mm256_load_si256((const __m256i *)p->min.i[s]), m1 = _mm256_load_si256((const __m256i *)p->min.i[s] + 1);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i v = broadcast_4_bytes(token[t].sums + 2 * s);
            add_dots_of_2(&sum[0][t], m0, v);
            add_dots_of_2(&sum[1][t], m1, v);
        }
    }
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        low[0][t] = sum[0][t];
        low[1][t] = sum[1][t];
    }
}

/* acc += the run's totals, less the offset's share or the minimums: every super format has one or the other here (on_vnni). */
static ALWAYS_INLINE void finish_run(float (*acc)[BLOCK_ROWS], const __m256i total[2][SIX_TOKS], const __m256i low[2][SIX_TOKS],
                                     const struct panel *p, const struct token_run *token, const int toks,
                                     const struct panel_shape *shape)
{
    const __m128i shift = _mm_cvtsi32_si128(__builtin_ctz(shape->offset | 0x10000));
    for (int half = 0; half < 2; half++) {
        __m256 d = _mm256_load_ps(p->d + 8 * half), dmin = _mm256_load_ps(p->dmin + 8 * half);
#pragma GCC unroll 1
        for (int t = 0; t < toks; t++) {
            __m256 dx = _mm256_set1_ps(token[t].dx[0]), a = _mm256_loadu_ps(acc[t] + 8 * half);
            if (shape->mins) {
                a = _mm256_fmadd_ps(_mm256_mul_ps(d, dx), _mm256_cvtepi32_ps(total[half][t]), a);
                a = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, dx), _mm256_cvtepi32_ps(low[half][t]), a);
            } else {
                __m256i sums = _mm256_sub_epi32(total[half][t], _mm256_sll_epi32(low[half][t], shift));
                a = _mm256_fmadd_ps(_mm256_mul_ps(d, dx), _mm256_cvtepi32_ps(sums), a);
            }
            _mm256_storeu_ps(acc[t] + 8 * half, a);
        }
    }
}

static ALWAYS_INLINE void six_super(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t (*x)[PANEL_COLS],
                                    const struct token_run *token, const int toks, const struct panel_shape *shape, const int sub,
                                    const enum scaling scaling)
{
    __m256i total[2][SIX_TOKS], low[2][SIX_TOKS], sum[2][SIX_TOKS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        total[0][t] = total[1][t] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (int c = 0; c < PANEL_COLS; c += sub) {
        const __m256i *scale = (const __m256i *)p->scale.i[c / sub];
        UNROLL_ALL
        for (int t = 0; t < toks; t++)
            sum[0][t] = sum[1][t] = _mm256_setzero_si256();
        byte_sums(sum, p, x, c / 4, sub / 4, toks);
        for (int half = 0; half < 2; half++) {
            __m256i twice = _mm256_load_si256(scale + half);
            __m256i factor = scaling == BY_WORDS ? _mm256_srli_epi32(twice, 16) : _mm256_srai_epi32(twice, 16);
            UNROLL_ALL
            for (int t = 0; t < toks; t++)
                if (scaling == BY_WORDS)
                    add_dots_of_2(&total[half][t], sum[half][t], factor);
                else
                    total[half][t] = _mm256_add_epi32(total[half][t], _mm256_mullo_epi32(sum[half][t], factor));
        }
    }
    low_sums(low, p, token, toks, PANEL_COLS / sub);
    finish_run(acc, (const __m256i (*)[SIX_TOKS])total, (const __m256i (*)[SIX_TOKS])low, p, token, toks, shape);
}

/* The offset's share is what the sums begin with. */
static ALWAYS_INLINE void six_small(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t (*x)[PANEL_COLS],
                                    const struct token_run *token, const int toks, const int sub, const bool mins)
{
    const int subs = PANEL_COLS / sub;      /* apart: with UBSan's check in the condition gcc would not know the loop again */
    __m256i sum[2][SIX_TOKS];
#pragma GCC unroll 1
    for (int s = 0; s < subs; s++) {
        UNROLL_ALL
        for (int t = 0; t < toks; t++)
            sum[0][t] = sum[1][t] = mins ? _mm256_setzero_si256() : _mm256_set1_epi32(token[t].init[s]);
        byte_sums(sum, p, x, s * sub / 4, sub / 4, toks);
        for (int half = 0; half < 2; half++) {
            __m256 scale = _mm256_load_ps(p->scale.f[s] + 8 * half);
            UNROLL_ALL
            for (int t = 0; t < toks; t++) {
                __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(token[t].dx[s * sub / 32]));
                __m256 a = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(sum[half][t]), _mm256_loadu_ps(acc[t] + 8 * half));
                if (mins)
                    a = _mm256_fnmadd_ps(_mm256_load_ps(p->min.f[s] + 8 * half), _mm256_set1_ps(token[t].dsum[s]), a);
                _mm256_storeu_ps(acc[t] + 8 * half, a);
            }
        }
    }
}

static ALWAYS_INLINE void small(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t (*x)[PANEL_COLS],
                                const struct token_run *token, const int toks, const struct panel_shape *shape)
{
    if (shape->mins)
        six_small(acc, p, x, token, toks, 32, true);
    else if (shape->sub == 32)
        six_small(acc, p, x, token, toks, 32, false);
    else
        six_small(acc, p, x, token, toks, 16, false);
}

static ALWAYS_INLINE void super(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t (*x)[PANEL_COLS],
                                const struct token_run *token, const int toks, const struct panel_shape *shape)
{
    if (shape->sub == 32)
        six_super(acc, p, x, token, toks, shape, 32, BY_LANES);
    else if (shape->top <= 15)
        six_super(acc, p, x, token, toks, shape, 16, BY_WORDS);
    else
        six_super(acc, p, x, token, toks, shape, 16, BY_LANES);
}

/* Small formats fare better with three tokens twice: as soon as twelve sums are ready at once, twelve conversions, multiplications
 * and stores hold up the next dots (339 against 286 Gop/s of dots in AVX-512's form, one Zen 4 core, of 470). */
void micro_six_avxvnni(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t (*x)[PANEL_COLS],
                       const struct token_run *token, size_t toks, const struct panel_shape *shape)
{
    if (toks == 6 && shape->kind == PANEL_SMALL) {
        small(acc, p, x, token, 3, shape);
        small(acc + 3, p, x + 3, token + 3, 3, shape);
    } else if (shape->kind == PANEL_SMALL) {
        for (size_t t = 0; t < toks; t += 2)
            small(acc + t, p, x + t, token + t, 2, shape);
    } else if (toks == 6) {
        super(acc, p, x, token, 6, shape);
    } else if (toks == 4) {
        super(acc, p, x, token, 4, shape);
    } else {
        super(acc, p, x, token, 2, shape);
    }
}
