/* formats_neon.c - from the file's bytes to a run, for each format. Common formats have vector code; the others go through their
 * reference unpacker (unpack.h), whose cost a batch of tokens shares. */
#include "arm.h"
#include "numbers.h"
#include "unpack.h"

#include <arm_neon.h>
#include <string.h>

/* ---- through the reference's unpackers -------------------------------------------------------------------------- */

/* Scales come per 16 values; a format with one per 32 has each twice, and every second is taken. Minimums: none of the formats that
 * come this way has them. */
static void run_small(struct run_arm *out, const uint8_t *bytes, size_t blocks, unpack_small_fn *unpack,
                      const struct format_arm *format)
{
    unsigned sub = format->shape.sub, subs = (unsigned)format->values / sub;
    for (size_t b = 0; b < blocks; b++) {
        struct small_block block;
        unpack(&block, bytes + b * format->shape.bytes);
        memcpy(out->q + b * format->values, block.q, format->values);
        for (unsigned s = 0; s < subs; s++)
            out->scale[b * subs + s] = block.scale[s * sub / 16];
    }
}

/* A run is exactly one block of 256 here, so `blocks` is always 1 for the formats below. */
static void run_super(struct run_arm *out, const uint8_t *bytes, unpack_super_fn *unpack, unsigned sub)
{
    struct super_block block;
    unpack(&block, bytes);
    memcpy(out->q, block.q, 256);
    out->d = block.d;
    out->dmin = block.dmin;
    for (unsigned s = 0; s < 256 / sub; s++) {
        out->sub[s] = block.sub[s * sub / 16];
        out->low[s] = block.min[s * sub / 16];
    }
}

static void run_q1_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    run_small(out, bytes, blocks, unpack_q1_0_ref, &format_q1_0_arm);
}
const struct format_arm format_q1_0_arm = { { PANEL_SMALL, 32, false, 18 }, 128, run_q1_0 };

static void run_q2_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    run_small(out, bytes, blocks, unpack_q2_0_ref, &format_q2_0_arm);
}
const struct format_arm format_q2_0_arm = { { PANEL_SMALL, 32, false, 18 }, 64, run_q2_0 };

static void run_nvfp4(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    run_small(out, bytes, blocks, unpack_nvfp4_ref, &format_nvfp4_arm);
}
const struct format_arm format_nvfp4_arm = { { PANEL_SMALL, 16, false, 36 }, 64, run_nvfp4 };

static void run_iq1_s(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq1_s_ref, 32);
}
const struct format_arm format_iq1_s_arm = { { PANEL_SUPER, 32, false, 50 }, 256, run_iq1_s };

static void run_iq1_m(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq1_m_ref, 16);
}
const struct format_arm format_iq1_m_arm = { { PANEL_SUPER, 16, false, 56 }, 256, run_iq1_m };

static void run_iq2_xxs(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq2_xxs_ref, 32);
}
const struct format_arm format_iq2_xxs_arm = { { PANEL_SUPER, 32, false, 66 }, 256, run_iq2_xxs };

static void run_iq2_xs(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq2_xs_ref, 16);
}
const struct format_arm format_iq2_xs_arm = { { PANEL_SUPER, 16, false, 74 }, 256, run_iq2_xs };

static void run_iq2_s(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq2_s_ref, 16);
}
const struct format_arm format_iq2_s_arm = { { PANEL_SUPER, 16, false, 82 }, 256, run_iq2_s };

static void run_iq3_xxs(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq3_xxs_ref, 32);
}
const struct format_arm format_iq3_xxs_arm = { { PANEL_SUPER, 32, false, 98 }, 256, run_iq3_xxs };

static void run_iq3_s(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_iq3_s_ref, 32);
}
const struct format_arm format_iq3_s_arm = { { PANEL_SUPER, 32, false, 110 }, 256, run_iq3_s };

static void run_tq1_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_super(out, bytes, unpack_tq1_0_ref, 32);
}
const struct format_arm format_tq1_0_arm = { { PANEL_SUPER, 32, false, 54 }, 256, run_tq1_0 };

/* ---- blocks of 32 ----------------------------------------------------------------------------------------------- */

/* 16 bytes to 32 values: low nibbles, then high ones. */
static ALWAYS_INLINE void split_16(int8x16_t q[2], const uint8_t *bytes)
{
    uint8x16_t both = vld1q_u8(bytes);
    q[0] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
    q[1] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
}

static void run_q4_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 18) {
        int8x16_t q[2];
        split_16(q, bytes + 2);
        out->scale[b] = f16_to_f32(load_u16(bytes));
        vst1q_s8(out->q + 32 * b, vsubq_s8(q[0], vdupq_n_s8(8)));
        vst1q_s8(out->q + 32 * b + 16, vsubq_s8(q[1], vdupq_n_s8(8)));
    }
}
const struct format_arm format_q4_0_arm = { { PANEL_SMALL, 32, false, 18 }, 32, run_q4_0 };

static void run_q4_1(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 20) {
        int8x16_t q[2];
        split_16(q, bytes + 4);
        out->scale[b] = f16_to_f32(load_u16(bytes));
        out->min[b] = -f16_to_f32(load_u16(bytes + 2));
        vst1q_s8(out->q + 32 * b, q[0]);
        vst1q_s8(out->q + 32 * b + 16, q[1]);
    }
}
const struct format_arm format_q4_1_arm = { { PANEL_SMALL, 32, true, 20 }, 32, run_q4_1 };

/* 16 where bit i of `bits` is set. */
static ALWAYS_INLINE int8x16_t sixteens(uint32_t bits)
{
    static const uint8_t masks[16] = { 1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128 };
    uint8x16_t spread = vcombine_u8(vdup_n_u8((uint8_t)bits), vdup_n_u8((uint8_t)(bits >> 8)));
    return vreinterpretq_s8_u8(vandq_u8(vtstq_u8(spread, vld1q_u8(masks)), vdupq_n_u8(16)));
}

static void run_q5_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 22) {
        int8x16_t q[2];
        uint32_t high = load_u32(bytes + 2);
        split_16(q, bytes + 6);
        out->scale[b] = f16_to_f32(load_u16(bytes));
        vst1q_s8(out->q + 32 * b, vsubq_s8(vorrq_s8(q[0], sixteens(high)), vdupq_n_s8(16)));
        vst1q_s8(out->q + 32 * b + 16, vsubq_s8(vorrq_s8(q[1], sixteens(high >> 16)), vdupq_n_s8(16)));
    }
}
const struct format_arm format_q5_0_arm = { { PANEL_SMALL, 32, false, 22 }, 32, run_q5_0 };

static void run_q5_1(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 24) {
        int8x16_t q[2];
        uint32_t high = load_u32(bytes + 4);
        split_16(q, bytes + 8);
        out->scale[b] = f16_to_f32(load_u16(bytes));
        out->min[b] = -f16_to_f32(load_u16(bytes + 2));
        vst1q_s8(out->q + 32 * b, vorrq_s8(q[0], sixteens(high)));
        vst1q_s8(out->q + 32 * b + 16, vorrq_s8(q[1], sixteens(high >> 16)));
    }
}
const struct format_arm format_q5_1_arm = { { PANEL_SMALL, 32, true, 24 }, 32, run_q5_1 };

static void run_q8_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 34) {
        out->scale[b] = f16_to_f32(load_u16(bytes));
        memcpy(out->q + 32 * b, bytes + 2, 32);
    }
}
const struct format_arm format_q8_0_arm = { { PANEL_SMALL, 32, false, 34 }, 32, run_q8_0 };

/* Nibbles that stand for 16 values. */
static ALWAYS_INLINE void look_up_16(int8_t q[32], const uint8_t *bytes, const int8_t values[16])
{
    uint8x16_t both = vld1q_u8(bytes);
    int8x16_t table = vld1q_s8(values);
    vst1q_s8(q, vqtbl1q_s8(table, vandq_u8(both, vdupq_n_u8(15))));
    vst1q_s8(q + 16, vqtbl1q_s8(table, vshrq_n_u8(both, 4)));
}

static void run_iq4_nl(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 18) {
        out->scale[b] = f16_to_f32(load_u16(bytes));
        look_up_16(out->q + 32 * b, bytes + 2, values_iq4);
    }
}
const struct format_arm format_iq4_nl_arm = { { PANEL_SMALL, 32, false, 18 }, 32, run_iq4_nl };

static void run_mxfp4(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, bytes += 17) {
        out->scale[b] = e8m0_half_to_f32(bytes[0]);
        look_up_16(out->q + 32 * b, bytes + 1, values_fp4);
    }
}
const struct format_arm format_mxfp4_arm = { { PANEL_SMALL, 32, false, 17 }, 32, run_mxfp4 };

/* ---- blocks of 256 ---------------------------------------------------------------------------------------------- */

/* 32 bytes to 64 values: the low nibbles, then the high ones. */
static ALWAYS_INLINE void split_32(uint8x16_t q[4], const uint8_t *bytes)
{
    uint8x16_t a = vld1q_u8(bytes), b = vld1q_u8(bytes + 16), nibble = vdupq_n_u8(15);
    q[0] = vandq_u8(a, nibble);
    q[1] = vandq_u8(b, nibble);
    q[2] = vshrq_n_u8(a, 4);
    q[3] = vshrq_n_u8(b, 4);
}

static void run_k_scales(struct run_arm *out, const uint8_t *bytes)
{
    uint8_t scale[8], min[8];
    out->d = f16_to_f32(load_u16(bytes));
    out->dmin = f16_to_f32(load_u16(bytes + 2));
    unpack_k_scales(scale, min, bytes + 4);
    for (int s = 0; s < 8; s++) {
        out->sub[s] = scale[s];
        out->low[s] = min[s];
    }
}

static void run_q4_k(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    run_k_scales(out, bytes);
    for (int i = 0; i < 4; i++) {
        uint8x16_t q[4];
        split_32(q, bytes + 16 + 32 * i);
        for (int k = 0; k < 4; k++)
            vst1q_u8((uint8_t *)out->q + 64 * i + 16 * k, q[k]);
    }
}
const struct format_arm format_q4_k_arm = { { PANEL_SUPER, 32, true, 144 }, 256, run_q4_k };

static void run_q5_k(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    uint8x16_t high[2] = { vld1q_u8(bytes + 16), vld1q_u8(bytes + 32) };
    (void)blocks;
    run_k_scales(out, bytes);
    for (int i = 0; i < 4; i++) {
        uint8x16_t q[4];
        split_32(q, bytes + 48 + 32 * i);
        for (int k = 0; k < 4; k++) {
            uint8x16_t bit = vandq_u8(vtstq_u8(high[k % 2], vdupq_n_u8((uint8_t)(1 << (2 * i + k / 2)))), vdupq_n_u8(16));
            vst1q_u8((uint8_t *)out->q + 64 * i + 16 * k, vorrq_u8(q[k], bit));
        }
    }
}
const struct format_arm format_q5_k_arm = { { PANEL_SUPER, 32, true, 176 }, 256, run_q5_k };

static void run_q6_k(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    out->d = f16_to_f32(load_u16(bytes + 208));
    for (int s = 0; s < 16; s++)
        out->sub[s] = (int8_t)bytes[192 + s];
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 2; i++) {                     /* 16 of the 32 columns of each of four groups */
            uint8x16_t a = vld1q_u8(bytes + 64 * half + 16 * i), b = vld1q_u8(bytes + 64 * half + 32 + 16 * i);
            uint8x16_t high = vld1q_u8(bytes + 128 + 32 * half + 16 * i), pair = vdupq_n_u8(0x30), nibble = vdupq_n_u8(15);
            uint8x16_t q[4] = { vorrq_u8(vandq_u8(a, nibble), vandq_u8(vshlq_n_u8(high, 4), pair)),
                                vorrq_u8(vandq_u8(b, nibble), vandq_u8(vshlq_n_u8(high, 2), pair)),
                                vorrq_u8(vshrq_n_u8(a, 4), vandq_u8(high, pair)),
                                vorrq_u8(vshrq_n_u8(b, 4), vandq_u8(vshrq_n_u8(high, 2), pair)) };
            for (int g = 0; g < 4; g++)
                vst1q_s8(out->q + 128 * half + 32 * g + 16 * i, vsubq_s8(vreinterpretq_s8_u8(q[g]), vdupq_n_s8(32)));
        }
}
const struct format_arm format_q6_k_arm = { { PANEL_SUPER, 16, false, 210 }, 256, run_q6_k };

/* 16 bytes of four planes of two bits. */
static ALWAYS_INLINE void planes(uint8x16_t q[4], const uint8_t *bytes)
{
    uint8x16_t all = vld1q_u8(bytes), pair = vdupq_n_u8(3);
    q[0] = vandq_u8(all, pair);
    q[1] = vandq_u8(vshrq_n_u8(all, 2), pair);
    q[2] = vandq_u8(vshrq_n_u8(all, 4), pair);
    q[3] = vshrq_n_u8(all, 6);
}

static void run_q2_k(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    out->d = f16_to_f32(load_u16(bytes + 80));
    out->dmin = f16_to_f32(load_u16(bytes + 82));
    for (int s = 0; s < 16; s++) {
        out->sub[s] = bytes[s] & 15;
        out->low[s] = bytes[s] >> 4;
    }
    for (int i = 0; i < 4; i++) {
        uint8x16_t q[4];
        planes(q, bytes + 16 + 16 * i);
        for (int g = 0; g < 4; g++)
            vst1q_u8((uint8_t *)out->q + i / 2 * 128 + 32 * g + i % 2 * 16, q[g]);
    }
}
const struct format_arm format_q2_k_arm = { { PANEL_SUPER, 16, true, 84 }, 256, run_q2_k };

static void run_q3_k(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    int8_t scale[16];
    (void)blocks;
    out->d = f16_to_f32(load_u16(bytes + 108));
    unpack_q3_k_scales(scale, bytes + 96);
    for (int s = 0; s < 16; s++)
        out->sub[s] = scale[s];
    for (int i = 0; i < 4; i++) {
        uint8x16_t q[4], high = vld1q_u8(bytes + i % 2 * 16);
        planes(q, bytes + 32 + 16 * i);
        for (int g = 0; g < 4; g++) {                     /* a third bit that is not set takes 4 away */
            uint8x16_t missing = vceqq_u8(vandq_u8(high, vdupq_n_u8((uint8_t)(1 << (i / 2 * 4 + g)))), vdupq_n_u8(0));
            uint8x16_t value = vsubq_u8(q[g], vandq_u8(missing, vdupq_n_u8(4)));
            vst1q_u8((uint8_t *)out->q + i / 2 * 128 + 32 * g + i % 2 * 16, value);
        }
    }
}
const struct format_arm format_q3_k_arm = { { PANEL_SUPER, 16, false, 110 }, 256, run_q3_k };

static void run_tq2_0(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    (void)blocks;
    out->d = f16_to_f32(load_u16(bytes + 64));
    for (int s = 0; s < 8; s++)
        out->sub[s] = 1;
    for (int i = 0; i < 4; i++) {
        uint8x16_t q[4];
        planes(q, bytes + 16 * i);
        for (int g = 0; g < 4; g++)
            vst1q_u8((uint8_t *)out->q + i / 2 * 128 + 32 * g + i % 2 * 16, vsubq_u8(q[g], vdupq_n_u8(1)));
    }
}
const struct format_arm format_tq2_0_arm = { { PANEL_SUPER, 32, false, 66 }, 256, run_tq2_0 };

static void run_iq4_xs(struct run_arm *out, const uint8_t *bytes, size_t blocks)
{
    int high = load_u16(bytes + 2);
    (void)blocks;
    out->d = f16_to_f32(load_u16(bytes));
    for (int s = 0; s < 8; s++) {
        out->sub[s] = ((bytes[4 + s / 2] >> s % 2 * 4 & 15) | (high >> 2 * s & 3) << 4) - 32;
        look_up_16(out->q + 32 * s, bytes + 8 + 16 * s, values_iq4);
    }
}
const struct format_arm format_iq4_xs_arm = { { PANEL_SUPER, 32, false, 136 }, 256, run_iq4_xs };
