/* quantize.c - floats to blocks: activations for the products, and the few formats that the engine writes itself. */
#include "numbers.h"
#include "ref.h"

#include <math.h>

/* The largest |x|, as bits, so that NaN and Inf come out as numbers >= 0x7f800000 and no order of comparison matters. */
static uint32_t largest(const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = float_bits(x[i]) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

static size_t round_up(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

struct act_layout act_layout(enum act_kind kind, size_t cols)
{
    struct act_layout layout = { .padded = round_up(cols, 256) };
    size_t block = kind == ACT_Q8_32 ? 32 : 256;
    switch (kind) {
    case ACT_F32:
        layout.bytes = layout.padded * sizeof(float);
        break;
    case ACT_BF16:
        layout.bytes = layout.padded * sizeof(uint16_t);
        break;
    default:
        layout.scales = layout.padded;
        layout.sums = layout.scales + round_up(layout.padded / block * sizeof(float), 64);
        layout.bytes = layout.sums + round_up(layout.padded / 16 * sizeof(int16_t), 64);
    }
    return layout;
}

void act_prepare_f32_ref(void *out, const float *x, size_t cols)
{
    float *y = out;
    memcpy(y, x, cols * sizeof *y);
    memset(y + cols, 0, act_layout(ACT_F32, cols).bytes - cols * sizeof *y);
}

void act_prepare_bf16_ref(void *out, const float *x, size_t cols)
{
    uint16_t *y = out;
    size_t padded = act_layout(ACT_BF16, cols).padded;
    for (size_t i = 0; i < padded; i++)
        y[i] = i < cols ? f32_to_bf16(x[i]) : 0;
}

/* q = round(x * (127 / max)), d = max / 127. Below 2^-100 the reciprocal would leave the range of float: such a block, which adds
 * nothing to any sum, becomes zeros. q cannot leave [-127, 127]: max * fl(127 / max) < 127.5. */
static float quantize_block(int8_t *q, const float *x, size_t n)
{
    uint32_t bits = largest(x, n);
    if (bits >= 0x7f800000 || bits < float_bits(0x1p-100f)) {
        memset(q, 0, n);
        return bits >= 0x7f800000 ? float_from_bits(0x7fc00000) : 0;
    }
    float max = float_from_bits(bits), scale = 127.0f / max;
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)rintf(x[i] * scale);
    return max / 127.0f;
}

/* The tail of the last block counts as zeros, which neither raise its maximum nor its sums. */
static void prepare_q8(void *out, const float *x, size_t cols, enum act_kind kind, size_t block)
{
    struct act_layout layout = act_layout(kind, cols);
    int8_t *q = out;
    float *d = (float *)(void *)((char *)out + layout.scales);
    int16_t *sums = (int16_t *)(void *)((char *)out + layout.sums);
    memset(q + layout.scales, 0, layout.bytes - layout.scales);   /* the gaps between the arrays too: EXACT means every byte */
    for (size_t at = 0; at < layout.padded; at += block) {
        float tail[256] = { 0 };
        size_t n = at >= cols ? 0 : cols - at < block ? cols - at : block;
        memcpy(tail, x + (n ? at : 0), n * sizeof *x);
        float scale = quantize_block(q + at, tail, block);
        d[at / block] = kind == ACT_Q8_32 ? round_scale(scale) : scale;
    }
    for (size_t i = 0; i < layout.padded; i++)
        sums[i / 16] = (int16_t)(sums[i / 16] + q[i]);
}

void act_prepare_q8_32_ref(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_32, 32);
}

void act_prepare_q8_256_ref(void *out, const float *x, size_t cols)
{
    prepare_q8(out, x, cols, ACT_Q8_256, 256);
}

/* ---- blocks of the file format ---------------------------------------------------------------------------------- */

void quantize_f32_ref(void *blocks, const float *x, size_t n)
{
    memcpy(blocks, x, n * sizeof *x);
}

void quantize_f16_ref(void *blocks, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half = f32_to_f16(x[i]);
        memcpy((char *)blocks + 2 * i, &half, 2);
    }
}

void quantize_bf16_ref(void *blocks, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half = f32_to_bf16(x[i]);
        memcpy((char *)blocks + 2 * i, &half, 2);
    }
}

/* 1 / d, and 0 where that is no finite number: d is then far below the smallest f16, and the values with it. */
static float reciprocal(float d)
{
    float r = 1.0f / d;
    return isfinite(r) ? r : 0;
}

static bool has_nan_or_inf(const float *x, size_t n)
{
    return largest(x, n) >= 0x7f800000;
}

/* A block with NaN or Inf: d = NaN, the rest zero. */
static void write_nan(uint8_t *block, size_t bytes)
{
    memset(block, 0, bytes);
    block[1] = 0x7e;
}

static void write_scale(uint8_t *block, float d)
{
    uint16_t half = f32_to_f16(d);
    memcpy(block, &half, 2);
}

/* d = max|x| / 127, halves rounded away from zero. */
void quantize_q8_0_ref(void *blocks, const float *x, size_t n)
{
    uint8_t *block = blocks;
    for (; n >= 32; n -= 32, x += 32, block += 34) {
        if (has_nan_or_inf(x, 32)) {
            write_nan(block, 34);
            continue;
        }
        float d = float_from_bits(largest(x, 32)) / 127.0f, scale = reciprocal(d);
        write_scale(block, d);
        for (int i = 0; i < 32; i++)
            block[2 + i] = (uint8_t)(int8_t)roundf(x[i] * scale);
    }
}

/* The value of largest magnitude, the first of several, becomes -8 exactly; d takes the opposite sign. The others are rounded to
 * the nearest of 0..15 (offset 8), halves up; the opposite end, +8, has no code and becomes 15. */
void quantize_q4_0_ref(void *blocks, const float *x, size_t n)
{
    uint8_t *block = blocks;
    for (; n >= 32; n -= 32, x += 32, block += 18) {
        if (has_nan_or_inf(x, 32)) {
            write_nan(block, 18);
            continue;
        }
        float extreme = 0;
        for (int i = 0; i < 32; i++)
            if (fabsf(x[i]) > fabsf(extreme))
                extreme = x[i];
        float d = extreme / -8.0f, scale = reciprocal(d);
        write_scale(block, d);
        for (int i = 0; i < 16; i++) {
            int low = (int)(x[i] * scale + 8.5f), high = (int)(x[16 + i] * scale + 8.5f);
            block[2 + i] = (uint8_t)((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
        }
    }
}
