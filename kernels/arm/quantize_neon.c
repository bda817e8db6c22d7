/* quantize_neon.c - activations to int8, and the conversions of the cache's types; the same bits as kernels/ref/quantize.c. */
#include "numbers.h"
#include "vector_neon.h"

#include <math.h>

/* The largest |x| of 32 values, as bits: NaN and Inf are the largest numbers. */
static ALWAYS_INLINE uint32_t largest_32(const float *x)
{
    uint32x4_t most = vdupq_n_u32(0);
    for (int i = 0; i < 32; i += 4)
        most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), vdupq_n_u32(0x7fffffff)));
    return vmaxvq_u32(most);
}

/* Sixteen values, rounded to nearest even; their sum comes back. */
static ALWAYS_INLINE int16_t round_16(int8_t *q, const float *x, float scale)
{
    int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), scale)), b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), scale));
    int32x4_t c = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8), scale)), d = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 12), scale));
    int16x8_t low = vcombine_s16(vmovn_s32(a), vmovn_s32(b)), high = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
    vst1q_s8(q, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    return vaddvq_s16(vaddq_s16(low, high));
}

/* One division per block; the multiplications then round exactly as the reference's, which divides nowhere else either. */
static float quantize_block(int8_t *q, int16_t *sums, const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i += 32) {
        uint32_t bits = largest_32(x + i);
        most = bits > most ? bits : most;
    }
    if (most >= 0x7f800000 || most < float_bits(0x1p-100f)) {
        memset(q, 0, n);
        memset(sums, 0, n / 16 * sizeof *sums);
        return most >= 0x7f800000 ? float_from_bits(0x7fc00000) : 0;
    }
    float max = float_from_bits(most), scale = 127.0f / max;
    for (size_t i = 0; i < n; i += 16)
        sums[i / 16] = round_16(q + i, x + i, scale);
    return max / 127.0f;
}

/* Q8_0's scales are f16 (kernels.h says why it matters), Q8_K's are not. */
static float kept_scale(enum act_kind kind, float d)
{
    return kind == ACT_Q8_32 ? round_scale(d) : d;
}

static void prepare_q8(void *out, const float *x, size_t cols, enum act_kind kind, size_t block)
{
    struct act_layout layout = act_layout(kind, cols);
    int8_t *q = out;
    float *d = (float *)(void *)((char *)out + layout.scales);
    int16_t *sums = (int16_t *)(void *)((char *)out + layout.sums);
    /* Gaps and tails first: EXACT means every byte of the vector. */
    memset(q + layout.scales, 0, layout.bytes - layout.scales);
    size_t at = 0;
    for (; at + block <= cols; at += block)
        d[at / block] = kept_scale(kind, quantize_block(q + at, sums + at / 16, x + at, block));
    if (at < cols) {
        float tail[256] = { 0 };
        memcpy(tail, x + at, (cols - at) * sizeof *x);
        d[at / block] = kept_scale(kind, quantize_block(q + at, sums + at / 16, tail, block));
        at += block;
    }
    memset(q + at, 0, layout.padded - at);
}

void act_prepare_q8_32_neon(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_32, 32);
}

void act_prepare_q8_256_neon(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_256, 256);
}

/* Halves away from zero, as the file format's encoder has it. */
void quantize_q8_0_neon(void *blocks, const float *x, size_t n)
{
    uint8_t *block = blocks;
    for (; n >= 32; n -= 32, x += 32, block += 34) {
        uint32_t most = largest_32(x);
        if (most >= 0x7f800000) {
            memset(block, 0, 34);
            block[1] = 0x7e;
            continue;
        }
        float d = float_from_bits(most) / 127.0f, scale = 1 / d;
        uint16_t half = f32_to_f16(d);
        memcpy(block, &half, 2);
        if (!isfinite(scale))
            scale = 0;
        for (int i = 0; i < 32; i += 8) {
            int32x4_t a = vcvtaq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), scale));
            int32x4_t b = vcvtaq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), scale));
            vst1_s8((int8_t *)block + 2 + i, vmovn_s16(vcombine_s16(vmovn_s32(a), vmovn_s32(b))));
        }
    }
}

void quantize_f16_neon(void *blocks, const float *x, size_t n)
{
    char *out = blocks;
    for (; n >= 4; n -= 4, x += 4, out += 8)
        vst1_u8((uint8_t *)out, vreinterpret_u8_f16(vcvt_f16_f32(vld1q_f32(x))));
    for (; n; n--, x++, out += 2) {
        uint16_t half = f32_to_f16(*x);
        memcpy(out, &half, 2);
    }
}

void dequantize_f16_neon(float *out, const void *blocks, size_t n)
{
    const char *in = blocks;
    for (; n >= 4; n -= 4, out += 4, in += 8)
        vst1q_f32(out, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)in))));
    for (; n; n--, out++, in += 2)
        *out = f16_to_f32(load_u16(in));
}

void dequantize_bf16_neon(float *out, const void *blocks, size_t n)
{
    const char *in = blocks;
    for (; n >= 4; n -= 4, out += 4, in += 8)
        vst1q_f32(out, vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)in)), 16)));
    for (; n; n--, out++, in += 2)
        *out = bf16_to_f32(load_u16(in));
}
