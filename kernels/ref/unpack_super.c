/* unpack_super.c - formats with blocks of 256 values; unpack.h says what comes out. */
#include "grids.h"
#include "numbers.h"
#include "unpack.h"

static void no_minimums(struct super_block *out)
{
    out->dmin = 0;
    memset(out->min, 0, sizeof out->min);
}

/* 16 bytes: scale in the low nibble, minimum in the high one; 64 bytes of 2 bits: value i has shift 2 * (i / 32 % 4) in byte
 * i / 128 * 32 + i % 32; f16 d, f16 dmin. */
void unpack_q2_k_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block, *bits = b + 16;
    out->d = f16_to_f32(load_u16(b + 80));
    out->dmin = f16_to_f32(load_u16(b + 82));
    for (int g = 0; g < 16; g++) {
        out->sub[g] = b[g] & 15;
        out->min[g] = b[g] >> 4;
    }
    for (int i = 0; i < 256; i++)
        out->q[i] = bits[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

/* 32 bytes of third bits: value i has bit i / 32 of byte i % 32, which takes the offset of 4 away; 64 bytes of 2 bits as Q2_K's;
 * 12 bytes of 6-bit scales; f16 d. */
void unpack_q3_k_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block, *bits = b + 32;
    int8_t scale[16];
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b + 108));
    unpack_q3_k_scales(scale, b + 96);
    for (int g = 0; g < 16; g++)
        out->sub[g] = scale[g];
    for (int i = 0; i < 256; i++) {
        int low = bits[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        out->q[i] = (int8_t)(low - (b[i % 32] >> i / 32 & 1 ? 0 : 4));
    }
}

static void set_k_scales(struct super_block *out, const uint8_t *b)
{
    uint8_t scale[8], min[8];
    out->d = f16_to_f32(load_u16(b));
    out->dmin = f16_to_f32(load_u16(b + 2));
    unpack_k_scales(scale, min, b + 4);
    for (int g = 0; g < 16; g++) {
        out->sub[g] = scale[g / 2];
        out->min[g] = min[g / 2];
    }
}

/* 4 bits: value i stands in byte i / 64 * 32 + i % 32, in the high nibble when i / 32 is odd. */
static int nibble_of_64(const uint8_t *bytes, int i)
{
    return bytes[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
}

/* f16 d, f16 dmin; 12 bytes of 6-bit scales and minimums per 32 values; 128 bytes of nibbles. */
void unpack_q4_k_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    set_k_scales(out, b);
    for (int i = 0; i < 256; i++)
        out->q[i] = (int8_t)nibble_of_64(b + 16, i);
}

/* As Q4_K with 32 bytes of fifth bits before the nibbles: value i has bit i / 32 of byte i % 32. */
void unpack_q5_k_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    set_k_scales(out, b);
    for (int i = 0; i < 256; i++)
        out->q[i] = (int8_t)(nibble_of_64(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4);
}

/* 128 bytes of low nibbles: value i in byte i / 128 * 64 + i % 64, high nibble when i / 64 is odd; 64 bytes of two high bits:
 * byte i / 128 * 32 + i % 32, shift 2 * (i / 32 % 4); offset 32; int8 scales per 16; f16 d. */
void unpack_q6_k_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b + 208));
    for (int g = 0; g < 16; g++)
        out->sub[g] = (int8_t)b[192 + g];
    for (int i = 0; i < 256; i++) {
        int low = b[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15;
        int high = b[128 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        out->q[i] = (int8_t)((low | high << 4) - 32);
    }
}

/* Eight magnitudes of a grid entry, negative where the mask says so. */
static void signed_eight(int8_t *q, uint64_t entry, uint8_t signs)
{
    for (int i = 0; i < 8; i++) {
        int value = (int)(entry >> 8 * i & 255);
        q[i] = (int8_t)(signs >> i & 1 ? -value : value);
    }
}

/* The scales of IQ2 and IQ3_XXS are (s + 1/2) / 4 or / 2: as whole numbers 2s + 1 below d / 8 or d / 4. */
static void set_odd_scales(struct super_block *out, int group, int first, int second)
{
    out->sub[2 * group] = (int16_t)(2 * first + 1);
    out->sub[2 * group + 1] = (int16_t)(2 * second + 1);
}

/* f16 d; per 32 values 8 bytes: four grid indices, then four 7-bit sign masks and a 4-bit scale. */
void unpack_iq2_xxs_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b)) * 0.125f;
    for (int g = 0; g < 8; g++) {
        const uint8_t *index = b + 2 + g * 8;
        uint32_t rest = load_u32(index + 4);
        set_odd_scales(out, g, (int)(rest >> 28), (int)(rest >> 28));
        for (int i = 0; i < 4; i++)
            signed_eight(out->q + g * 32 + i * 8, grid_iq2_xxs[index[i]], signs_of_7_bits(rest >> 7 * i));
    }
}

/* f16 d; 32 words: 9 bits of grid index, 7 bits of signs; 8 bytes: two 4-bit scales for 16 values each. */
void unpack_iq2_xs_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b)) * 0.125f;
    for (int g = 0; g < 8; g++)
        set_odd_scales(out, g, b[66 + g] & 15, b[66 + g] >> 4);
    for (int i = 0; i < 32; i++) {
        uint16_t word = load_u16(b + 2 + 2 * i);
        signed_eight(out->q + i * 8, grid_iq2_xs[word & 511], signs_of_7_bits(word >> 9));
    }
}

/* f16 d; 32 bytes of low index bits; 32 sign masks; 8 bytes with two high index bits for each of 4 entries; 8 bytes of scales. */
void unpack_iq2_s_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b)) * 0.125f;
    for (int g = 0; g < 8; g++)
        set_odd_scales(out, g, b[74 + g] & 15, b[74 + g] >> 4);
    for (int i = 0; i < 32; i++) {
        int index = b[2 + i] | (b[66 + i / 4] >> i % 4 * 2 & 3) << 8;
        signed_eight(out->q + i * 8, grid_iq2_s[index], b[34 + i]);
    }
}

/* f16 d; 64 grid indices of 4 values; per 32 values a word: four 7-bit sign masks and a 4-bit scale. */
void unpack_iq3_xxs_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block, *index = b + 2;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b)) * 0.25f;
    for (int g = 0; g < 8; g++) {
        uint32_t rest = load_u32(b + 66 + 4 * g);
        set_odd_scales(out, g, (int)(rest >> 28), (int)(rest >> 28));
        for (int i = 0; i < 4; i++, index += 2)
            signed_eight(out->q + g * 32 + i * 8, grid_iq3_xxs[index[0]] | (uint64_t)grid_iq3_xxs[index[1]] << 32,
                         signs_of_7_bits(rest >> 7 * i));
    }
}

/* f16 d; 64 bytes of low index bits; 8 bytes of ninth bits; 32 sign masks; 4 bytes: two 4-bit scales for 32 values each. */
void unpack_iq3_s_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b));
    for (int g = 0; g < 8; g++) {
        int scale = b[106 + g / 2] >> g % 2 * 4 & 15;
        set_odd_scales(out, g, scale, scale);
    }
    for (int i = 0; i < 32; i++) {
        uint64_t entry = 0;
        for (int half = 0; half < 2; half++) {
            int k = 2 * i + half, index = b[2 + k] | (b[66 + k / 8] >> k % 8 & 1) << 8;
            entry |= (uint64_t)grid_iq3_s[index] << 32 * half;
        }
        signed_eight(out->q + i * 8, entry, b[74 + i]);
    }
}

/* Eight values of IQ1's grid plus or minus 1/8, in eighths. */
static void eighths(int8_t *q, int index, int delta)
{
    for (int i = 0; i < 8; i++)
        q[i] = (int8_t)((int8_t)(grid_iq1_s[index] >> 8 * i) * 8 + delta);
}

/* f16 d; 32 bytes of low index bits; 8 words: four times 3 high index bits, a 3-bit scale, the sign of the delta. */
void unpack_iq1_s_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b)) * 0.125f;
    for (int g = 0; g < 8; g++) {
        int word = load_u16(b + 34 + 2 * g), scale = word >> 12 & 7;
        set_odd_scales(out, g, scale, scale);
        for (int i = 0; i < 4; i++)
            eighths(out->q + g * 32 + i * 8, b[2 + g * 4 + i] | (word >> 3 * i & 7) << 8, word & 0x8000 ? -1 : 1);
    }
}

/* 32 bytes of low index bits; 16 bytes with, per entry, 3 high index bits and the sign of the delta; 4 words, each with four 3-bit
 * scales for 16 values and, on top, 4 bits of the f16 d, the lowest first. */
void unpack_iq1_m_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    uint32_t half = 0;
    no_minimums(out);
    for (int w = 0; w < 4; w++) {
        uint32_t word = load_u16(b + 48 + 2 * w);
        half |= (word >> 12) << 4 * w;
        for (int i = 0; i < 4; i++)
            out->sub[4 * w + i] = (int16_t)(2 * (word >> 3 * i & 7) + 1);
    }
    out->d = f16_to_f32((uint16_t)half) * 0.125f;
    for (int i = 0; i < 32; i++) {
        int high = b[32 + i / 2] >> i % 2 * 4 & 15;
        eighths(out->q + i * 8, b[i] | (high & 7) << 8, high & 8 ? -1 : 1);
    }
}

/* f16 d; a word with two high bits of each scale; 4 bytes with the low nibbles of eight scales (offset 32); 128 bytes of nibbles,
 * per 32 values as Q4_0's, indices of values_iq4. */
void unpack_iq4_xs_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    int high = load_u16(b + 2);
    no_minimums(out);
    out->d = f16_to_f32(load_u16(b));
    for (int g = 0; g < 8; g++) {
        int scale = ((b[4 + g / 2] >> g % 2 * 4 & 15) | (high >> 2 * g & 3) << 4) - 32;
        out->sub[2 * g] = out->sub[2 * g + 1] = (int16_t)scale;
        for (int i = 0; i < 16; i++) {
            uint8_t byte = b[8 + g * 16 + i];
            out->q[g * 32 + i] = values_iq4[byte & 15];
            out->q[g * 32 + 16 + i] = values_iq4[byte >> 4];
        }
    }
}

static void unit_scales(struct super_block *out, uint16_t d)
{
    no_minimums(out);
    out->d = f16_to_f32(d);
    for (int g = 0; g < 16; g++)
        out->sub[g] = 1;
}

/* Digit n, from the top, of the five base-3 digits that a byte holds as a fraction of 256: multiplying by 3^n modulo 256 leaves
 * the digits behind the point, three times that puts the next one before it. */
static int8_t base3_digit(uint8_t byte, int n)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    uint8_t fraction = (uint8_t)(byte * power[n]);
    return (int8_t)((fraction * 3 >> 8) - 1);
}

/* 48 bytes of five digits each: the first 32 hold values 0..159 (digit i / 32 of byte i % 32), the other 16 values 160..239; 4
 * bytes of four digits: values 240..255; f16 d. */
void unpack_tq1_0_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    unit_scales(out, load_u16(b + 52));
    for (int i = 0; i < 160; i++)
        out->q[i] = base3_digit(b[i % 32], i / 32);
    for (int i = 0; i < 80; i++)
        out->q[160 + i] = base3_digit(b[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++)
        out->q[240 + i] = base3_digit(b[48 + i % 4], i / 4);
}

/* 64 bytes of 2 bits as Q2_K's, offset 1; f16 d. */
void unpack_tq2_0_ref(struct super_block *out, const void *block)
{
    const uint8_t *b = block;
    unit_scales(out, load_u16(b + 64));
    for (int i = 0; i < 256; i++)
        out->q[i] = (int8_t)((b[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) - 1);
}
