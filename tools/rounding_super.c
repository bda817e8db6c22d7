/* rounding_super.c - encoders of the formats with 256 values per block and integer scales per 16 or 32 of them: Q2_K, Q3_K, Q4_K,
 * Q5_K, Q6_K, IQ4_XS. Their searches are in rounding_super_search.h. */
#include "rounding_search.h"

/* ---- packers --------------------------------------------------------------------------------------------------------- */

/* Two-bit planes: value 128 h + 32 j + l is bits 2j of byte 32 h + l. */
static void pack_two_bits(uint8_t *out, const int16_t *code, int offset)
{
    for (int i = 0; i < 64; i++)
        out[i] = 0;
    for (int i = 0; i < SUPER; i++)
        out[i / 128 * 32 + i % 32] |= (uint8_t)(((code[i] + offset) & 3) << 2 * (i / 32 % 4));
}

/* 16 bytes of scale and minimum, a nibble each, 64 of codes, then d and the minimums' step. */
static void pack_q2_k(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    for (int b = 0; b < 16; b++)
        o[b] = (uint8_t)(c->scale[b] | c->min[b] << 4);
    pack_two_bits(o + 16, c->code, 0);
    store_u16(o + 80, half_bits(c->d));
    store_u16(o + 82, half_bits(c->m));
}

/* 32 bytes of third bits, 64 of low bits, 12 of 6-bit scales with an offset of 32 (low nibbles, then pairs of high bits), d. */
static void pack_q3_k(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    memset(o, 0, 110);
    for (int i = 0; i < SUPER; i++)
        o[i % 32] |= (uint8_t)(((c->code[i] + 4) >> 2 & 1) << i / 32);
    pack_two_bits(o + 32, c->code, 4);
    for (int b = 0; b < 16; b++) {
        int k = c->scale[b] + 32;
        o[96 + b % 8] |= (uint8_t)((k & 15) << 4 * (b / 8));
        o[104 + b % 4] |= (uint8_t)((k >> 4) << 2 * (b / 4));
    }
    store_u16(o + 108, half_bits(c->d));
}

/* Eight 6-bit scales and eight 6-bit minimums in 12 bytes: the last four of each lie in nibbles and in the top bits of the first
 * four. */
static void pack_six_bits(uint8_t *o, const struct block_code *c)
{
    for (int b = 0; b < 4; b++) {
        int hi_scale = c->scale[4 + b], hi_min = c->min[4 + b];
        o[b] = (uint8_t)(c->scale[b] | (hi_scale >> 4) << 6);
        o[4 + b] = (uint8_t)(c->min[b] | (hi_min >> 4) << 6);
        o[8 + b] = (uint8_t)((hi_scale & 15) | (hi_min & 15) << 4);
    }
}

static void pack_q4_k(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    store_u16(o, half_bits(c->d));
    store_u16(o + 2, half_bits(c->m));
    pack_six_bits(o + 4, c);
    for (int i = 0; i < 128; i++) {
        const int16_t *q = c->code + i / 32 * 64 + i % 32;
        o[16 + i] = (uint8_t)(q[0] | q[32] << 4);
    }
}

static void pack_q5_k(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    store_u16(o, half_bits(c->d));
    store_u16(o + 2, half_bits(c->m));
    pack_six_bits(o + 4, c);
    memset(o + 16, 0, 32);
    for (int i = 0; i < SUPER; i++)
        o[16 + i % 32] |= (uint8_t)((c->code[i] >> 4) << i / 32);
    for (int i = 0; i < 128; i++) {
        const int16_t *q = c->code + i / 32 * 64 + i % 32;
        o[48 + i] = (uint8_t)((q[0] & 15) | (q[32] & 15) << 4);
    }
}

/* 128 bytes of low nibbles, 64 of pairs of high bits, 16 scales, d. A byte of high bits serves four values 32 apart. */
static void pack_q6_k(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    for (int i = 0; i < 64; i++) {
        const int16_t *q = c->code + i / 32 * 128 + i % 32;
        int q0 = q[0] + 32, q1 = q[32] + 32, q2 = q[64] + 32, q3 = q[96] + 32;
        uint8_t *low = o + i / 32 * 64 + i % 32;
        low[0] = (uint8_t)((q0 & 15) | (q2 & 15) << 4);
        low[32] = (uint8_t)((q1 & 15) | (q3 & 15) << 4);
        o[128 + i] = (uint8_t)(q0 >> 4 | (q1 >> 4) << 2 | (q2 >> 4) << 4 | (q3 >> 4) << 6);
    }
    for (int b = 0; b < 16; b++)
        o[192 + b] = (uint8_t)(int8_t)c->scale[b];
    store_u16(o + 208, half_bits(c->d));
}

static void pack_iq4_xs(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    uint16_t high = 0;
    memset(o, 0, 136);
    for (int b = 0; b < 8; b++) {
        int k = c->scale[b] + 32;
        high |= (uint16_t)((k >> 4) << 2 * b);
        o[4 + b / 2] |= (uint8_t)((k & 15) << 4 * (b % 2));
        for (int i = 0; i < 16; i++)
            o[8 + 16 * b + i] = (uint8_t)(c->code[32 * b + i] | c->code[32 * b + 16 + i] << 4);
    }
    store_u16(o, half_bits(c->d));
    store_u16(o + 2, high);
}

const struct encoder encoders_super[] = {
    { FORMAT_Q2_K, SUPER, NULL, pack_q2_k }, { FORMAT_Q3_K, SUPER, NULL, pack_q3_k },
    { FORMAT_Q4_K, SUPER, NULL, pack_q4_k }, { FORMAT_Q5_K, SUPER, NULL, pack_q5_k },
    { FORMAT_Q6_K, SUPER, NULL, pack_q6_k }, { FORMAT_IQ4_XS, SUPER, NULL, pack_iq4_xs },
};
const size_t encoders_super_count = sizeof encoders_super / sizeof *encoders_super;
