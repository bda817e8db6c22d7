/* unpack.h - what a block of weights means, in whole numbers: the form in which every format meets the matrix products.
 *
 * A format is one function here (plain C, kernels/ref/unpack_*.c): a block becomes int8 values and the scales that they share. The
 * reference products and decoders are loops over this form, and an instruction set that has no unpacker of its own for a format
 * calls this one and goes on with its fast microkernel.
 *
 * Formats with blocks of 32, 64 or 128 values ("small") have float scales; those of 256 ("super") have integer scales per 16
 * values below one float, so that a sum over the whole block is an exact integer:
 *   small   value[i] = scale[i / 16] * q[i] - min[i / 16]
 *   super   value[i] = (d * sub[i / 16]) * q[i] - (dmin * min[i / 16])
 * Computed in float, in that order and without fused multiply-add, this is bit for bit what the format says. d * sub and dmin *
 * min are exact (11 bits by at most 8). */
#ifndef QUERN_UNPACK_H
#define QUERN_UNPACK_H

#include <stdint.h>

struct small_block {
    int8_t q[128];             /* the block's values, as many as it has */
    float  scale[8], min[8];   /* per 16 values                         */
};

/* |sum over the block of sub * q * x| <= 256 * 127 * 127 * 32 < 2^27 for x in [-127, 127]: the largest is IQ4_XS. */
struct super_block {
    int8_t  q[256];
    int16_t sub[16];           /* [-128, 127]          */
    int16_t min[16];           /* [0, 63]              */
    float   d, dmin;
};

typedef void unpack_small_fn(struct small_block *out, const void *block);
typedef void unpack_super_fn(struct super_block *out, const void *block);

unpack_small_fn unpack_q1_0_ref, unpack_q2_0_ref, unpack_q4_0_ref, unpack_q4_1_ref, unpack_q5_0_ref, unpack_q5_1_ref,
                unpack_q8_0_ref, unpack_iq4_nl_ref, unpack_mxfp4_ref, unpack_nvfp4_ref;
unpack_super_fn unpack_q2_k_ref, unpack_q3_k_ref, unpack_q4_k_ref, unpack_q5_k_ref, unpack_q6_k_ref, unpack_iq1_s_ref,
                unpack_iq1_m_ref, unpack_iq2_xxs_ref, unpack_iq2_xs_ref, unpack_iq2_s_ref, unpack_iq3_xxs_ref, unpack_iq3_s_ref,
                unpack_iq4_xs_ref, unpack_tq1_0_ref, unpack_tq2_0_ref;

/* The 16 values of IQ4_NL and IQ4_XS, and of MXFP4 and NVFP4 (doubled). */
extern const int8_t values_iq4[16], values_fp4[16];

/* The 8-bit masks of IQ2_XXS, IQ2_XS and IQ3_XXS come as 7 bits: the eighth makes the number of minus signs even. */
static inline uint8_t signs_of_7_bits(uint32_t bits)
{
    bits &= 127;
    return (uint8_t)(bits | (uint32_t)__builtin_parity(bits) << 7);
}

/* Q4_K's and Q5_K's twelve bytes: eight 6-bit scales and eight 6-bit minimums. */
static inline void unpack_k_scales(uint8_t scale[8], uint8_t min[8], const uint8_t bytes[12])
{
    for (int i = 0; i < 4; i++) {
        scale[i] = bytes[i] & 63;
        min[i] = bytes[4 + i] & 63;
        scale[4 + i] = (uint8_t)((bytes[8 + i] & 15) | bytes[i] >> 6 << 4);
        min[4 + i] = (uint8_t)(bytes[8 + i] >> 4 | bytes[4 + i] >> 6 << 4);
    }
}

/* Q3_K's twelve bytes: sixteen 6-bit scales with an offset of 32. */
static inline void unpack_q3_k_scales(int8_t scale[16], const uint8_t bytes[12])
{
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? bytes[i] & 15 : bytes[i - 8] >> 4;
        int high = bytes[8 + i % 4] >> (i / 4 * 2) & 3;
        scale[i] = (int8_t)((low | high << 4) - 32);
    }
}

#endif
