/* float_neon.c - products of F32, F16 and BF16 weights with f32 activations.
 *
 * Lane l of 4 adds columns l, 4 + l, ... by FMA; the lanes are then added in pairs. The order is the same for one token and for
 * many. Eight rows by one token, or two rows by four, keep the multipliers' latency covered. */
#include "arm.h"
#include "numbers.h"

#include <arm_neon.h>
#include <string.h>

enum width { WIDTH_F32, WIDTH_F16, WIDTH_BF16 };

static ALWAYS_INLINE size_t bytes_of(enum width width)
{
    return width == WIDTH_F32 ? 4 : 2;
}

static ALWAYS_INLINE float32x4_t widen(const void *from, enum width width)
{
    if (width == WIDTH_F32)
        return vreinterpretq_f32_u8(vld1q_u8(from));
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(from));
    if (width == WIDTH_BF16)
        return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
    return vcvt_f32_f16(vreinterpret_f16_u16(half));
}

/* The last one to three columns, zeros after them. */
static ALWAYS_INLINE float32x4_t widen_tail(const uint8_t *from, size_t n, enum width width)
{
    uint8_t bytes[16] = { 0 };
    memcpy(bytes, from, n * bytes_of(width));
    return widen(bytes, width);
}

/* `rows` rows by `toks` tokens; activations are padded with zeros, weights are not. */
static ALWAYS_INLINE void tile(const struct matmul_job *job, size_t row, size_t tok, int rows, int toks, enum width width)
{
    const uint8_t *w[8];
    const float *x[4];
    float32x4_t acc[8];
    for (int r = 0; r < rows; r++)
        w[r] = (const uint8_t *)job->weights + (row + (size_t)r) * job->row_bytes;
    for (int t = 0; t < toks; t++)
        x[t] = (const float *)(const void *)((const char *)job->acts + (tok + (size_t)t) * job->act_stride);
    for (int i = 0; i < rows * toks; i++)
        acc[i] = vdupq_n_f32(0);
    size_t whole = job->cols / 4 * 4, rest = job->cols - whole;
    for (size_t c = 0; c < whole; c += 4)
        for (int r = 0; r < rows; r++) {
            float32x4_t weights = widen(w[r] + c * bytes_of(width), width);
            for (int t = 0; t < toks; t++)
                acc[t * rows + r] = vfmaq_f32(acc[t * rows + r], weights, vld1q_f32(x[t] + c));
        }
    for (int r = 0; rest && r < rows; r++) {
        float32x4_t weights = widen_tail(w[r] + whole * bytes_of(width), rest, width);
        for (int t = 0; t < toks; t++)
            acc[t * rows + r] = vfmaq_f32(acc[t * rows + r], weights, vld1q_f32(x[t] + whole));
    }
    for (int t = 0; t < toks; t++)
        for (int r = 0; r < rows; r++)
            job->out[(tok + (size_t)t) * job->out_stride + row + (size_t)r] = vaddvq_f32(acc[t * rows + r]);
}

static ALWAYS_INLINE void multiply(const struct matmul_job *job, size_t row_begin, size_t row_end, enum width width)
{
    size_t row = row_begin;
    for (; row + 2 <= row_end && job->toks >= 4; row += 2) {
        size_t tok = 0;
        for (; tok + 4 <= job->toks; tok += 4)
            tile(job, row, tok, 2, 4, width);
        for (; tok < job->toks; tok++)
            tile(job, row, tok, 2, 1, width);
    }
    for (; row + 8 <= row_end; row += 8)
        for (size_t tok = 0; tok < job->toks; tok++)
            tile(job, row, tok, 8, 1, width);
    for (; row < row_end; row++)
        for (size_t tok = 0; tok < job->toks; tok++)
            tile(job, row, tok, 1, 1, width);
}

void matmul_f32_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply(job, row_begin, row_end, WIDTH_F32);
}

void matmul_f16_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply(job, row_begin, row_end, WIDTH_F16);
}

void matmul_bf16_neon(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply(job, row_begin, row_end, WIDTH_BF16);
}
