/* rounding_block32.c - encoders of the formats whose blocks hold 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4. */
#include "rounding_search.h"

const float levels_nl[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

int16_t level_index(int16_t level)
{
    int16_t index = 0;
    while (index < 15 && levels_nl[index] < level)
        index++;
    return index;
}

/* ---- MXFP4: signed 1-2-1 floats times a power of two --------------------------------------------------------------- */

static const float levels_fp4[8] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6 };

/* Code (sign in bit 3) nearest to t. */
static int fp4_code(float t)
{
    static const float middle[7] = { 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5 };
    float a = fabsf(t);
    int code = 0;
    for (int i = 0; i < 7; i++)
        code += a > middle[i];
    return t < 0 && code ? code | 8 : code;
}

/* The exponent of the largest value says about where the scale lies; the four exponents around it are tried. Scaling by powers of
 * two is exact, so the values are brought near 1 first: squares of float's extremes neither vanish nor overflow. */
static void search_mxfp4(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    float top = fabsf(largest(x, 32));
    int middle;
    double best = INFINITY;
    (void)r, (void)effort;
    c->scale[0] = 0;
    memset(c->code, 0, 32 * sizeof *c->code);
    if (top == 0)
        return;
    frexpf(top, &middle);
    for (int e = middle - 5; e <= middle + 1; e++) {
        if (e < -127 || e > 125)              /* 6 * 2^126 is no float any more */
            continue;
        double error = 0;
        int16_t code[32];
        for (int i = 0; i < 32; i++) {
            float t = ldexpf(x[i], -e);
            code[i] = (int16_t)fp4_code(t);
            double off = ldexp(fabs((double)t) - levels_fp4[code[i] & 7], e - middle);
            error += w[i] * off * off;
        }
        if (error < best) {
            best = error;
            c->scale[0] = (int16_t)(e + 127);
            memcpy(c->code, code, sizeof code);
        }
    }
}

/* ---- packers ------------------------------------------------------------------------------------------------------- */

/* Low nibbles: value i in the low half of byte i, value 16 + i in the high half. */
static void pack_nibbles(uint8_t *out, const int16_t *code, int offset)
{
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)(((code[i] + offset) & 15) | ((code[16 + i] + offset) & 15) << 4);
}

static uint32_t fifth_bits(const int16_t *code, int offset)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)((code[i] + offset) >> 4 & 1) << i;
    return bits;
}

static void pack_q4_0(void *out, const struct block_code *c)
{
    store_u16(out, half_bits(c->d));
    pack_nibbles((uint8_t *)out + 2, c->code, 8);
}

static void pack_q4_1(void *out, const struct block_code *c)
{
    store_u16(out, half_bits(c->d));
    store_u16((uint8_t *)out + 2, half_bits(c->m));
    pack_nibbles((uint8_t *)out + 4, c->code, 0);
}

static void pack_q5_0(void *out, const struct block_code *c)
{
    store_u16(out, half_bits(c->d));
    store_u32((uint8_t *)out + 2, fifth_bits(c->code, 16));
    pack_nibbles((uint8_t *)out + 6, c->code, 16);
}

static void pack_q5_1(void *out, const struct block_code *c)
{
    store_u16(out, half_bits(c->d));
    store_u16((uint8_t *)out + 2, half_bits(c->m));
    store_u32((uint8_t *)out + 4, fifth_bits(c->code, 0));
    pack_nibbles((uint8_t *)out + 8, c->code, 0);
}

static void pack_q8_0(void *out, const struct block_code *c)
{
    store_u16(out, half_bits(c->d));
    for (int i = 0; i < 32; i++)
        ((uint8_t *)out)[2 + i] = (uint8_t)(int8_t)c->code[i];
}

static void pack_iq4_nl(void *out, const struct block_code *c)
{
    store_u16(out, half_bits(c->d));
    pack_nibbles((uint8_t *)out + 2, c->code, 0);
}

static void pack_mxfp4(void *out, const struct block_code *c)
{
    *(uint8_t *)out = (uint8_t)c->scale[0];
    pack_nibbles((uint8_t *)out + 1, c->code, 0);
}

const struct encoder encoders_block32[] = {
    { FORMAT_Q4_0, 32, NULL, pack_q4_0 },       { FORMAT_Q4_1, 32, NULL, pack_q4_1 },
    { FORMAT_Q5_0, 32, NULL, pack_q5_0 },       { FORMAT_Q5_1, 32, NULL, pack_q5_1 },
    { FORMAT_Q8_0, 32, NULL, pack_q8_0 },       { FORMAT_IQ4_NL, 32, NULL, pack_iq4_nl },
    { FORMAT_MXFP4, 32, search_mxfp4, pack_mxfp4 },
};
const size_t encoders_block32_count = sizeof encoders_block32 / sizeof *encoders_block32;
