/* numbers.h - the small number formats: f16, bf16, E8M0 and UE4M3, to and from float, in plain integer arithmetic.
 *
 * Conversions down round to nearest even. NaN stays NaN and becomes quiet, with the upper bits of its payload: what F16C and
 * the Arm conversions do, so that every rung gives the same bits. */
#ifndef QUERN_NUMBERS_H
#define QUERN_NUMBERS_H

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint16_t load_u16(const void *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint32_t load_u32(const void *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline uint64_t load_u64(const void *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static inline float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00)                                   /* Inf, NaN: the quiet bit is the mantissa's highest */
        return float_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 0x400000 : 0));
    if (rest < 0x400)                                     /* zero, subnormal: rest * 2^-24, exact in float */
        return float_from_bits(sign | float_bits((float)rest * 0x1p-24f));
    return float_from_bits(sign | ((rest << 13) + ((127 - 15) << 23)));
}

static inline uint16_t f32_to_f16(float value)
{
    uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000)                               /* from 65520 on the nearest is Inf */
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000)                                /* below 2^-14: adding 0.5 leaves round(x * 2^24) in the mantissa */
        return (uint16_t)(sign | (float_bits(float_from_bits(rest) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (rest - ((127 - 15) << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
}

/* Round a scale to the 11 significant bits of an f16, to nearest even, whatever its exponent: what f16 holds where its normal
 * numbers reach (2^-14 to 65504), without Inf above or lost bits below. A carry out of the mantissa is the next power of two.
 * NaN (0x7fc00000) stays itself; a value above 2^127 * 1.9995 would become Inf. */
static inline float round_scale(float d)
{
    uint32_t bits = float_bits(d);
    return float_from_bits((bits + 0xfff + (bits >> 13 & 1)) & ~(uint32_t)0x1fff);
}

static inline float bf16_to_f32(uint16_t half)
{
    return float_from_bits((uint32_t)half << 16);
}

static inline uint16_t f32_to_bf16(float value)
{
    uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Half of 2^(e - 127): MXFP4's values are stored doubled. e = 0 and 1 give subnormals. */
static inline float e8m0_half_to_f32(uint8_t e)
{
    return float_from_bits(e < 2 ? (uint32_t)0x200000 << e : (uint32_t)(e - 1) << 23);
}

/* Half of the unsigned number with 4 bits of exponent (bias 7) and 3 of mantissa. 0x7f, its NaN, counts as 0; the top bit is no
 * part of the number and is not looked at, except that 0xff is then no NaN (as in ggml). */
static inline float ue4m3_half_to_f32(uint8_t byte)
{
    uint32_t exponent = byte >> 3 & 15, mantissa = byte & 7;
    if (byte == 0x7f)
        return 0;
    if (exponent == 0)
        return (float)mantissa * 0x1p-10f;
    return float_from_bits((exponent + 127 - 7 - 1) << 23 | mantissa << 20);
}

#endif
