/* unpack_small.c - formats with blocks of 32, 64 or 128 values; unpack.h says what comes out. */
#include "numbers.h"
#include "unpack.h"

const int8_t values_iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
const int8_t values_fp4[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* One scale and one minimum for the whole block of `n` values. */
static void set_scale(struct small_block *out, int n, float scale, float min)
{
    for (int g = 0; g < n / 16; g++) {
        out->scale[g] = scale;
        out->min[g] = min;
    }
}

/* Value i of 32 stands in the low nibble of byte i, value 16 + i in the high one. */
static void split_nibbles(int8_t q[32], const uint8_t bytes[16], int offset)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((bytes[i] & 15) - offset);
        q[16 + i] = (int8_t)((bytes[i] >> 4) - offset);
    }
}

/* f16 d; 128 bits: 1 is d, 0 is -d. */
void unpack_q1_0_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 128, f16_to_f32(load_u16(b)), 0);
    for (int i = 0; i < 128; i++)
        out->q[i] = b[2 + i / 8] >> i % 8 & 1 ? 1 : -1;
}

/* f16 d; 64 times 2 bits, low ones first, with an offset of 1. */
void unpack_q2_0_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 64, f16_to_f32(load_u16(b)), 0);
    for (int i = 0; i < 64; i++)
        out->q[i] = (int8_t)((b[2 + i / 4] >> i % 4 * 2 & 3) - 1);
}

/* f16 d; 16 bytes of nibbles with an offset of 8. */
void unpack_q4_0_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, f16_to_f32(load_u16(b)), 0);
    split_nibbles(out->q, b + 2, 8);
}

/* f16 d, f16 m (added); 16 bytes of nibbles. */
void unpack_q4_1_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, f16_to_f32(load_u16(b)), -f16_to_f32(load_u16(b + 2)));
    split_nibbles(out->q, b + 4, 0);
}

/* Add 16 where bit i of `high` is set. */
static void add_fifth_bits(int8_t q[32], uint32_t high)
{
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)(q[i] + (int)((high >> i & 1) << 4));
}

/* f16 d; 32 fifth bits; 16 bytes of nibbles; offset 16. */
void unpack_q5_0_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, f16_to_f32(load_u16(b)), 0);
    split_nibbles(out->q, b + 6, 16);
    add_fifth_bits(out->q, load_u32(b + 2));
}

/* f16 d, f16 m (added); 32 fifth bits; 16 bytes of nibbles. */
void unpack_q5_1_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, f16_to_f32(load_u16(b)), -f16_to_f32(load_u16(b + 2)));
    split_nibbles(out->q, b + 8, 0);
    add_fifth_bits(out->q, load_u32(b + 4));
}

/* f16 d; 32 int8. -128 does occur in foreign files. */
void unpack_q8_0_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, f16_to_f32(load_u16(b)), 0);
    memcpy(out->q, b + 2, 32);
}

/* f16 d; 16 bytes of nibbles, indices of values_iq4. */
void unpack_iq4_nl_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, f16_to_f32(load_u16(b)), 0);
    split_nibbles(out->q, b + 2, 0);
    for (int i = 0; i < 32; i++)
        out->q[i] = values_iq4[out->q[i]];
}

/* One byte of exponent; 16 bytes of nibbles, indices of values_fp4. */
void unpack_mxfp4_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    set_scale(out, 32, e8m0_half_to_f32(b[0]), 0);
    split_nibbles(out->q, b + 1, 0);
    for (int i = 0; i < 32; i++)
        out->q[i] = values_fp4[out->q[i]];
}

/* Four UE4M3 scales of 16 values each; 4 times 8 bytes of nibbles, indices of values_fp4. */
void unpack_nvfp4_ref(struct small_block *out, const void *block)
{
    const uint8_t *b = block;
    for (int g = 0; g < 4; g++) {
        out->scale[g] = ue4m3_half_to_f32(b[g]);
        out->min[g] = 0;
        for (int i = 0; i < 8; i++) {
            uint8_t byte = b[4 + g * 8 + i];
            out->q[g * 16 + i] = values_fp4[byte & 15];
            out->q[g * 16 + 8 + i] = values_fp4[byte >> 4];
        }
    }
}
