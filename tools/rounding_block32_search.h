/* rounding_block32_search.h - the searches of the formats whose blocks hold 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.
 *
 * One source for every instruction set: lanes_loops.h takes it in, once per file that is compiled for one. Arguments as in `struct
 * encoder` (rounding_code.h). */
#ifndef QUERN_ROUNDING_BLOCK32_SEARCH_H
#define QUERN_ROUNDING_BLOCK32_SEARCH_H

#include "rounding_search.h"

/* Largest magnitude at 6.8 ... 11.2 code widths: weighted optima of 4-bit blocks with one outlier lie far beyond the end. */
static void search_q4_0(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    const struct code_set set = { -8, 7, 0 };
    struct sums a;
    (void)r, (void)effort;
    c->d = signed_half(x, w, 32, signed_search(&a, x, w, 32, set, 6.8f, 0.2f, 23), set);
    signed_codes(c->code, x, 32, c->d, set);
}

/* One bit more: the same starts, in its wider codes. */
static void search_q5_0(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    const struct code_set set = { -16, 15, 0 };
    struct sums a;
    (void)r, (void)effort;
    c->d = signed_half(x, w, 32, signed_search(&a, x, w, 32, set, 14.6f, 0.2f, 23), set);
    signed_codes(c->code, x, 32, c->d, set);
}

/* -128 is left out: some readers' dot products negate codes in 8 bits. */
static void search_q8_0(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    const struct code_set set = { -127, 127, 0 };
    float top = fabsf(largest(x, 32));
    double best = INFINITY;
    (void)r, (void)effort;
    c->d = 0;
    for (int i = -2; i <= 5 && top > 0; i++) {
        float d = half_round(top / (127 + 0.25f * (float)i));
        double error = signed_error(x, w, 32, d, set);
        if (error < best)
            best = error, c->d = d;
    }
    signed_codes(c->code, x, 32, c->d, set);
}

/* Levels are searched as their values and become indices at the end. */
static void search_iq4_nl(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    const struct code_set set = { -127, 113, 1 };
    struct sums a;
    (void)r, (void)effort;
    c->d = signed_half(x, w, 32, signed_search(&a, x, w, 32, set, 100, 3.5f, 20), set);
    signed_codes(c->code, x, 32, c->d, set);
    for (int i = 0; i < 32; i++)
        c->code[i] = level_index(c->code[i]);
}

/* Scale and minimum both as halves: the neighbours of the two are tried together. */
LANE_INLINE void affine_half(struct block_code *c, const float *x, const float *w, struct affine f, float high)
{
    uint16_t s = half_bits((float)f.s), m = half_bits((float)f.m);
    double best = INFINITY;
    for (int i = -1; i <= 1; i++)
        for (int j = -1; j <= 1; j++) {
            uint16_t si = (uint16_t)(s + i), mj = (uint16_t)(m + j);
            if ((si & 0x7fff) > 0x7bff || (mj & 0x7fff) > 0x7bff)
                continue;
            double error = affine_error(x, w, 32, half_value(si), half_value(mj), high);
            if (error < best)
                best = error, c->d = half_value(si), c->m = half_value(mj);
        }
    affine_codes(c->code, x, 32, c->d, c->m, high);
}

/* EFFORT_QUICK's grid of starts is 3 x 3, the finer one's 9 x 9 (enum effort says what that gains). */
static void search_q4_1(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    struct sums a;
    (void)r;
    sums_block(&a, x, w, 32);
    if (effort == EFFORT_QUICK)
        affine_half(c, x, w, affine_search(&a, x, w, 32, 15, INFINITY, 0.35f, 0, 2), 15);
    else
        affine_half(c, x, w, affine_search(&a, x, w, 32, 15, INFINITY, 0.15f, 2, 6), 15);
}

static void search_q5_1(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    struct sums a;
    (void)r;
    sums_block(&a, x, w, 32);
    if (effort == EFFORT_QUICK)
        affine_half(c, x, w, affine_search(&a, x, w, 32, 31, INFINITY, 0.35f, 0, 2), 31);
    else
        affine_half(c, x, w, affine_search(&a, x, w, 32, 31, INFINITY, 0.15f, 2, 6), 31);
}

#endif
