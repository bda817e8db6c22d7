/* matmul_turned_avx2.h - products of formats with blocks of 32 nibbles on AVX2, with lanes that are rows from the start.
 *
 * Eight rows' bytes are turned while they are still packed: 16 bytes of each take twelve shuffles and are 256 values. What masks
 * and shifts make of them meets activations that a load repeats in every lane; pairs of products are added as int16 for as long as
 * they fit, and no sum goes across lanes, or to memory and back. A further token takes 8 cycles a run of 256 weights, where row
 * by row (matmul_avx2.h) it takes 14 (Q4_0, one Zen 4 core, from the cache). With one token the turning costs as much as it saves
 * where row by row goes by quarters (Q4_0, MXFP4), and values that need vpsignb (IQ4_NL) wait for the multipliers' ports.
 *
 * Every step of the sums is `settled`: left free, compilers multiply all values first and keep the products on the stack, which
 * made a further token 10 cycles instead of 8. */
#ifndef QUERN_MATMUL_TURNED_AVX2_H
#define QUERN_MATMUL_TURNED_AVX2_H

#include "matmul_avx2.h"

/* A block's packed bytes, dword i of eight rows in raw[i]. */
typedef void turn_fn(__m256i *raw, const uint8_t *block, size_t stride);
/* Values of the block's columns 4 * group to 4 * group + 3, lanes are rows. */
typedef __m256i value_fn(const __m256i *raw, int group);

/* raw[i]: the dword at byte 4 * i of 16. By vshufps, which has three ports on Zen 4, where vpunpck has two. */
static ALWAYS_INLINE void turn_16_bytes(__m256i raw[4], const uint8_t *bytes, size_t stride)
{
    const uint8_t *upper = bytes + 4 * stride;
    __m256 v[4];
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_castsi256_ps(_mm256_setr_m128i(_mm_loadu_si128((const __m128i *)(bytes + (size_t)i * stride)),
                                                     _mm_loadu_si128((const __m128i *)(upper + (size_t)i * stride))));
    __m256 even01 = _mm256_shuffle_ps(v[0], v[1], 0x88), odd01 = _mm256_shuffle_ps(v[0], v[1], 0xdd);
    __m256 even23 = _mm256_shuffle_ps(v[2], v[3], 0x88), odd23 = _mm256_shuffle_ps(v[2], v[3], 0xdd);
    raw[0] = _mm256_castps_si256(_mm256_shuffle_ps(even01, even23, 0x88));
    raw[1] = _mm256_castps_si256(_mm256_shuffle_ps(odd01, odd23, 0x88));
    raw[2] = _mm256_castps_si256(_mm256_shuffle_ps(even01, even23, 0xdd));
    raw[3] = _mm256_castps_si256(_mm256_shuffle_ps(odd01, odd23, 0xdd));
}

static ALWAYS_INLINE __m256i low_nibbles(__m256i raw)
{
    return _mm256_and_si256(raw, _mm256_set1_epi8(15));
}

static ALWAYS_INLINE __m256i high_nibbles(__m256i raw)
{
    return _mm256_and_si256(_mm256_srli_epi16(raw, 4), _mm256_set1_epi8(15));
}

/* How many vectors of pairs of products can be added as int16: a block's eight up to 15, four up to 31. */
static ALWAYS_INLINE int pairs_that_fit(const struct panel_shape shape)
{
    return 32767 / (2 * 127 * (int)shape.top);
}

/* dot[t]: of a block of 32 columns. */
static ALWAYS_INLINE void turned_dots(__m256i dot[DECODE_TOKS], const __m256i *raw, const int8_t *const *x, const int toks,
                                      value_fn *value, const struct panel_shape shape)
{
    const int fit = pairs_that_fit(shape);
    __m256i sum[DECODE_TOKS];
    UNROLL_ALL
    for (int i = 0; i < 8; i++) {
        __m256i q = settled(value(raw, i));
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i v = broadcast_4_bytes(x[t] + 4 * i);
            if (shape.vnni) {
                if (i == 0)
                    dot[t] = _mm256_setzero_si256();
                add_dots_of_4(&dot[t], q, v);
                continue;
            }
            __m256i pairs = settled(_mm256_maddubs_epi16(q, v));
            sum[t] = settled(i % fit == 0 ? pairs : _mm256_add_epi16(sum[t], pairs));
            if (i % fit == fit - 1 || i == 7)
                dot[t] = i < fit ? sums_32(sum[t]) : _mm256_add_epi32(dot[t], sums_32(sum[t]));
        }
    }
}

/* A run's scales, lanes are rows. They are put there a run ahead: they are stored by two bytes and loaded by sixteen, which waits
 * until the stores have left the core. */
struct turned_scales {
    uint16_t scale[8][DECODE_ROWS], low[8][DECODE_ROWS];
} __attribute__((aligned(32)));

/* Of a block of eight rows. Compilers would put the eight together in vector registers, at the expense of their ports. */
static ALWAYS_INLINE void keep_scales(uint16_t scale[DECODE_ROWS], uint16_t low[DECODE_ROWS], const uint8_t *block, size_t stride,
                                      const struct panel_shape shape)
{
    const uint8_t *upper = block + 4 * stride;
    UNROLL_ALL
    for (size_t r = 0; r < DECODE_ROWS; r++) {
        const uint8_t *from = (r < 4 ? block : upper) + r % 4 * stride;
        uint32_t value = shape.exponents ? *from : load_u16(from);
        __asm__("" : "+r"(value));
        scale[r] = (uint16_t)value;
        if (shape.mins) {
            value = load_u16(from + 2);
            __asm__("" : "+r"(value));
            low[r] = (uint16_t)value;
        }
    }
}

/* acc[t] += a block's. */
static ALWAYS_INLINE void add_block(__m256 acc[DECODE_TOKS], const __m256i dots[DECODE_TOKS], size_t k, const int toks,
                                    const struct turned_scales *scales, const struct token_run *token,
                                    const struct panel_shape shape)
{
    const __m256 scale = floats_of_scales(scales->scale[k], shape);
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        __m256i dot = dots[t];
        if (shape.offset)
            dot = _mm256_add_epi32(dot, _mm256_set1_epi32(token[t].init[k]));
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(token[t].dx[k])), _mm256_cvtepi32_ps(dot), acc[t]);
        if (shape.mins) {
            __m256 low = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)scales->low[k]));
            acc[t] = _mm256_fmadd_ps(low, _mm256_set1_ps(token[t].dsum[k]), acc[t]);
        }
    }
}

/* A run of eight rows from `bytes` on. `soon`: the same run of the rows to come; `next`: the run to come. */
static ALWAYS_INLINE void turned_small_run(__m256 acc[DECODE_TOKS], const struct matmul_job *job, const struct act_layout *layout,
                                           const uint8_t *bytes, size_t stride, const uint8_t *soon, size_t run,
                                           struct turned_scales *scales, bool next, const int toks, turn_fn *turn,
                                           value_fn *value, const struct panel_shape shape)
{
    const size_t block = shape.bytes / 8;
    struct turned_scales *now = &scales[run % 2], *then = &scales[(run + 1) % 2];
    struct token_run token[DECODE_TOKS];
    const int8_t *x[DECODE_TOKS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        const uint8_t *act = (const uint8_t *)job->acts + (size_t)t * job->act_stride;
        token_run_init(&token[t], act, layout, run, shape);
        x[t] = (const int8_t *)act + run * PANEL_COLS;
    }
#pragma GCC unroll 1
    for (size_t k = 0; k < 8; k++) {
        __m256i raw[5], dots[DECODE_TOKS];
        prefetch_run(soon + k * job->row_bytes, shape.bytes, job->wide);
        if (next)
            keep_scales(then->scale[k], then->low[k], bytes + shape.bytes, stride, shape);
        turn(raw, bytes, stride);
        turned_dots(dots, raw, x, toks, value, shape);
        add_block(acc, dots, k, toks, now, token, shape);
        bytes += block;
        UNROLL_ALL
        for (int t = 0; t < toks; t++)
            x[t] += 32;
    }
}

/* Up to eight rows. The last rows of a matrix and the last columns of a row go through a copy. */
static ALWAYS_INLINE void turned_small_rows(const struct matmul_job *job, size_t row, size_t rows, const int toks, turn_fn *turn,
                                            value_fn *value, const struct panel_shape shape)
{
    const struct act_layout layout = act_layout(ACT_Q8_32, job->cols);
    const size_t block = shape.bytes / 8, stride = job->row_bytes;
    const size_t whole = rows == DECODE_ROWS ? stride / shape.bytes : 0;
    const uint8_t *w = (const uint8_t *)job->weights + row * stride, *soon = w + DECODE_ROWS * stride;
    uint8_t copy[DECODE_ROWS][PANEL_COLS / 32 * 36];
    struct turned_scales scales[2];
    __m256 acc[DECODE_TOKS];

    for (int t = 0; t < toks; t++)
        acc[t] = _mm256_setzero_ps();
    for (size_t k = 0; k < 8 && whole; k++)
        keep_scales(scales[0].scale[k], scales[0].low[k], w + k * block, stride, shape);
    for (size_t run = 0; run < whole; run++)
        turned_small_run(acc, job, &layout, w + run * shape.bytes, stride, soon + run * shape.bytes, run, scales, run + 1 < whole,
                         toks, turn, value, shape);
    for (size_t run = whole; run * shape.bytes < stride; run++) {
        size_t left = stride - run * shape.bytes;
        memset(copy, 0, sizeof copy);
        for (size_t r = 0; r < rows; r++)
            memcpy(copy[r], w + r * stride + run * shape.bytes, left < shape.bytes ? left : shape.bytes);
        for (size_t k = 0; k < 8; k++)
            keep_scales(scales[run % 2].scale[k], scales[run % 2].low[k], copy[0] + k * block, sizeof copy[0], shape);
        turned_small_run(acc, job, &layout, copy[0], sizeof copy[0], soon + run * shape.bytes, run, scales, false, toks, turn,
                         value, shape);
    }
    for (int t = 0; t < toks; t++)
        store_8(job->out + (size_t)t * job->out_stride + row, acc[t], rows);
}

static ALWAYS_INLINE void turned_small(const struct matmul_job *job, size_t row, size_t rows, turn_fn *turn, value_fn *value,
                                       const struct panel_shape shape)
{
    switch (job->toks) {
    case 1:  turned_small_rows(job, row, rows, 1, turn, value, shape); break;
    case 2:  turned_small_rows(job, row, rows, 2, turn, value, shape); break;
    case 3:  turned_small_rows(job, row, rows, 3, turn, value, shape); break;
    default: turned_small_rows(job, row, rows, 4, turn, value, shape); break;
    }
}

#endif
