/* rounding_ternary.c - encoders of TQ1_0 and TQ2_0: 256 codes of -1, 0, 1 and one scale.
 *
 * For a given scale s a value is 0 exactly when |x| < s / 2, whatever its weight. So the codes that are not 0 are always the k
 * largest magnitudes, and trying every k finds the optimum. */
#include <stdlib.h>

#include "rounding_search.h"

struct magnitude { float value, weight; int at; };

static int by_magnitude(const void *a, const void *b)
{
    const struct magnitude *l = a, *r = b;
    return l->value != r->value ? (l->value < r->value) - (l->value > r->value) : (l->at > r->at) - (l->at < r->at);
}

static void search_ternary(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    const struct code_set set = { -1, 1, 0 };
    struct magnitude sorted[SUPER];
    double wx = 0, ww = 0, best = 0, scale = 0;
    (void)r, (void)effort;
    for (int i = 0; i < SUPER; i++)
        sorted[i] = (struct magnitude){ fabsf(x[i]), w[i], i };
    qsort(sorted, SUPER, sizeof *sorted, by_magnitude);
    for (int i = 0; i < SUPER; i++) {
        wx += (double)sorted[i].weight * sorted[i].value;
        ww += sorted[i].weight;
        if (wx * wx > best * ww)
            best = wx * wx / ww, scale = wx / ww;
    }
    c->d = signed_half(x, w, SUPER, scale, set);
    signed_codes(c->code, x, SUPER, c->d, set);
}

/* Value 128 h + 32 j + l is bits 2j of byte 32 h + l. */
static void pack_tq2_0(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    memset(o, 0, 64);
    for (int i = 0; i < SUPER; i++)
        o[i / 128 * 32 + i % 32] |= (uint8_t)((c->code[i] + 1) << 2 * (i / 32 % 4));
    store_u16(o + 64, half_bits(c->d));
}

/* Five digits of base 3, `stride` values apart, as the fraction 0.abcde scaled to 256 and rounded up: a reader takes the digits off
 * at the top by multiplying by 3. `digits` may be 4: the last is then 0. */
static uint8_t ternary_byte(const int16_t *code, size_t stride, int digits)
{
    int number = 0;
    for (int i = 0; i < 5; i++)
        number = number * 3 + (i < digits ? code[(size_t)i * stride] + 1 : 0);
    return (uint8_t)((number * 256 + 242) / 243);
}

static void pack_tq1_0(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    for (int i = 0; i < 32; i++)
        o[i] = ternary_byte(c->code + i, 32, 5);
    for (int i = 0; i < 16; i++)
        o[32 + i] = ternary_byte(c->code + 160 + i, 16, 5);
    for (int i = 0; i < 4; i++)
        o[48 + i] = ternary_byte(c->code + 240 + i, 4, 4);
    store_u16(o + 52, half_bits(c->d));
}

const struct encoder encoders_ternary[] = {
    { FORMAT_TQ1_0, SUPER, search_ternary, pack_tq1_0 },
    { FORMAT_TQ2_0, SUPER, search_ternary, pack_tq2_0 },
};
const size_t encoders_ternary_count = sizeof encoders_ternary / sizeof *encoders_ternary;
