/* matmul_halves_avx512.h - one to four tokens by Q4_K and Q5_K, two rows at a time: what a row leaves stays in registers.
 *
 * A row's 128 bytes of nibbles are four times 32 bytes whose low and high halves are two sub-blocks. Their first 16 bytes are put
 * into one vector and their last into another, so that each lane of 128 bits is a pair of sub-blocks and two dots, one into the
 * other, leave four sums of eight products per sub-block. Of one or two tokens Q4_K's high nibbles are multiplied where they stand
 * and the sums shifted down: one shift for each token instead of two for the row. Two rows' sums are packed to words, multiplied
 * by both rows' scales and added in one step; their minimums meet the sums of x where they stand beside the scales. Q4_K takes
 * fifteen instructions of 512 bits per 256 weights besides loads, and about three to add up: 14.0 cycles in the cache, where one
 * row at a time with its sums in memory took 16.6; Q5_K, with ten for fifth bits, 20.3 instead of 21.9.
 *
 * A run is finished after the next one's rows: its d are stored by four bytes and loaded by 64, which waits until the stores have
 * left the core. */
#ifndef QUERN_MATMUL_HALVES_AVX512_H
#define QUERN_MATMUL_HALVES_AVX512_H

#include "k_scales.h"
#include "matmul_avx512.h"
#include "numbers.h"

/* What a format does to have its vectors of nibbles' bytes: 16 bytes of each 32, the first or the last. */
struct half_bytes {
    __m512i first, last;
};

/* A token's run. x[0], x[1]: first and last 16 columns of sub-blocks 0, 2, 4, 6; x[2], x[3]: of 1, 3, 5, 7. sums: of x per
 * sub-block, as words, where words_of_scales_and_mins has the minimums. */
struct halves_token {
    __m512i x[4], sums;
};

/* What 16 rows leave in a run; lanes are rows. */
struct halves_sums {
    __m512i  total[DECODE_TOKS], low[DECODE_TOKS];
    float    dx[DECODE_TOKS];
    uint32_t d[PANEL_ROWS];
} __attribute__((aligned(64)));

static ALWAYS_INLINE void load_halves(struct halves_token *out, float *dx, const uint8_t *act, const struct act_layout *layout,
                                      size_t run)
{
    const uint8_t *from = act + run * PANEL_COLS;
    __m512i v[4], even[2], odd[2];                /* sub-blocks; [0]: 0 to 3 */
    for (int k = 0; k < 4; k++)
        v[k] = _mm512_loadu_si512(from + 64 * k);
    for (int k = 0; k < 2; k++) {
        even[k] = _mm512_shuffle_i32x4(v[2 * k], v[2 * k + 1], 0x44);
        odd[k] = _mm512_shuffle_i32x4(v[2 * k], v[2 * k + 1], 0xee);
    }
    for (int k = 0; k < 2; k++) {
        out->x[k] = k ? _mm512_shuffle_i32x4(even[0], even[1], 0xdd) : _mm512_shuffle_i32x4(even[0], even[1], 0x88);
        out->x[2 + k] = k ? _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd) : _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
    }
    __m256i sums = sums_32(_mm256_loadu_si256((const __m256i *)(act + layout->sums + run * 32)));
    out->sums = _mm512_maskz_broadcast_i32x4(0xf0f0, _mm256_cvtepi32_epi16(sums));
    memcpy(dx, act + layout->scales + run * 4, 4);
}

/* 16 bytes of each 32. Loaded whole and once: compilers would fold an unaligned load into both. */
static ALWAYS_INLINE struct half_bytes part_halves(const uint8_t *nibbles)
{
    __m512i a = settled(_mm512_loadu_si512(nibbles)), b = settled(_mm512_loadu_si512(nibbles + 64));
    return (struct half_bytes){ _mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd) };
}

/* 16 bytes' fifth bits to the values of lane p, bit 2 p and, for high nibbles, 2 p + 1. */
static ALWAYS_INLINE __m512i with_fifth(__m512i values, const uint8_t *bits, bool high)
{
    const __m512i turn = _mm512_setr_epi32(4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0, 30, 30, 30, 30);
    __m512i four = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bits));
    four = _mm512_rolv_epi32(four, high ? _mm512_sub_epi32(turn, _mm512_set1_epi32(1)) : turn);
    return or_masked(values, four, _mm512_set1_epi8(16));
}

/* A row's values: q[0], q[1] belong to x[0], x[1]; the high nibbles q[2], q[3] are 16 times as large unless shifted `down`, which
 * fifth bits want. */
static ALWAYS_INLINE void split_halves(__m512i q[4], const uint8_t *row, bool down, const struct panel_shape shape)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8((char)0xf0);
    const bool fifth = shape.top > 15;
    struct half_bytes raw = part_halves(row + (fifth ? 48 : 16));
    q[0] = _mm512_and_si512(raw.first, low);
    q[1] = _mm512_and_si512(raw.last, low);
    q[2] = down ? _mm512_and_si512(_mm512_srli_epi16(raw.first, 4), low) : _mm512_and_si512(raw.first, high);
    q[3] = down ? _mm512_and_si512(_mm512_srli_epi16(raw.last, 4), low) : _mm512_and_si512(raw.last, high);
    for (int k = 0; fifth && k < 4; k++)
        q[k] = with_fifth(q[k], row + 16 + 16 * (k % 2), k >= 2);
}

/* Sums of eight products, four to a sub-block: of 0, 2, 4, 6 and of 1, 3, 5, 7, shifted here unless `down`; at most 8 * 31 * 127,
 * which fits int16. */
static ALWAYS_INLINE void dot_halves(__m512i dot[2], const __m512i q[4], const __m512i x[4], bool down)
{
    const __m512i zero = _mm512_setzero_si512();
    dot[0] = dot_64(dot_64(zero, q[0], x[0]), q[1], x[1]);
    dot[1] = dot_64(dot_64(zero, q[2], x[2]), q[3], x[3]);
    if (!down)
        dot[1] = _mm512_srai_epi32(dot[1], 4);
}

/* Two rows' eight scales and eight minimums as words (k_scales.h, of which this is the wider form). */
static ALWAYS_INLINE __m512i words_of_scales_and_mins(const uint8_t *first, const uint8_t *second)
{
    const __m256i shift = _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4);
    const __m256i low_bits = _mm256_broadcastsi128_si256(_mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    const __m256i high_bits = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    __m256i head = _mm256_setr_m128i(_mm_loadu_si128((const __m128i *)first), _mm_loadu_si128((const __m128i *)second));
    __m256i low = _mm256_srlv_epi32(_mm256_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), shift);
    __m256i high = _mm256_srli_epi32(_mm256_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2);
    return _mm512_cvtepi8_epi16(_mm256_or_si256(_mm256_and_si256(low, low_bits), _mm256_and_si256(high, high_bits)));
}

/* Four rows. total: each lane of 128 bits has a part of all four rows' sums; low: each lane has four parts of a row's. */
static ALWAYS_INLINE void halves_four(__m512i *total, __m512i *low, uint32_t *d, const uint8_t *from, const size_t place[4],
                                      const struct halves_token *token, size_t toks, const struct panel_shape shape)
{
    const __m512i evens = _mm512_set_epi16(22, 22, 22, 22, 6, 6, 6, 6, 20, 20, 20, 20, 4, 4, 4, 4, 18, 18, 18, 18, 2, 2, 2, 2, 16,
                                           16, 16, 16, 0, 0, 0, 0);
    const __m512i odds = _mm512_add_epi16(evens, _mm512_set1_epi16(1));
    __m512i sums[DECODE_TOKS][2], mins[DECODE_TOKS][2];
    const bool down = shape.top > 15 || toks > 2;
    UNROLL_ALL
    for (size_t two = 0; two < 2; two++) {
        const uint8_t *row[2] = { from + place[2 * two], from + place[2 * two + 1] };
        __m512i q[2][4];
        for (size_t k = 0; k < 2; k++) {
            split_halves(q[k], row[k], down, shape);
            d[2 * two + k] = load_u32(row[k]);
        }
        __m512i words = words_of_scales_and_mins(row[0], row[1]);
        __m512i even = _mm512_permutexvar_epi16(evens, words), odd = _mm512_permutexvar_epi16(odds, words);
        for (size_t t = 0; t < toks; t++) {
            __m512i first[2], second[2];
            dot_halves(first, q[0], token[t].x, down);
            dot_halves(second, q[1], token[t].x, down);
            mins[t][two] = _mm512_madd_epi16(words, token[t].sums);
            sums[t][two] = _mm512_dpwssd_epi32(_mm512_madd_epi16(_mm512_packs_epi32(first[0], second[0]), even),
                                               _mm512_packs_epi32(first[1], second[1]), odd);
        }
    }
    for (size_t t = 0; t < toks; t++) {
        __m512 a = _mm512_castsi512_ps(sums[t][0]), b = _mm512_castsi512_ps(sums[t][1]);
        total[t] = _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88)),
                                    _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xdd)));
        low[t] = _mm512_shuffle_i32x4(mins[t][0], mins[t][1], 0xdd);
    }
}

/* All 16 rows' run. */
static ALWAYS_INLINE void halves_run(struct halves_sums *out, const uint8_t *from, const size_t place[PANEL_ROWS],
                                     const struct ask *ask, size_t run, const struct halves_token *token, size_t toks,
                                     const struct panel_shape shape)
{
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i total[4][DECODE_TOKS], low[4][DECODE_TOKS];
#pragma GCC unroll 1
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 4; k++)
            ask_own(ask, from + place[4 * i + k], run, shape);
        ask_soon(ask, run, i, 0, 1, shape);
        halves_four(total[i], low[i], out->d + 4 * i, from, place + 4 * i, token, toks, shape);
    }
    for (size_t t = 0; t < toks; t++) {
        out->total[t] = fold_four(total[0][t], total[1][t], total[2][t], total[3][t]);
        out->low[t] = _mm512_permutexvar_epi32(turn, sum_lanes(low[0][t], low[1][t], low[2][t], low[3][t]));
    }
}

static ALWAYS_INLINE __m512 halves_finish(__m512 acc, const struct halves_sums *sums, size_t t)
{
    __m512 dx = _mm512_set1_ps(sums->dx[t]);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(scales_of(sums->d, false, 1), dx), _mm512_cvtepi32_ps(sums->total[t]), acc);
    return _mm512_fnmadd_ps(_mm512_mul_ps(scales_of(sums->d, true, 1), dx), _mm512_cvtepi32_ps(sums->low[t]), acc);
}

/* Up to 16 rows from `row` on, as decode_rows. */
static ALWAYS_INLINE void halves_rows(const struct matmul_job *job, size_t row, struct row_range all, size_t toks,
                                      const struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS, runs = job->cols / PANEL_COLS;
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    const struct ask ask = ask_of(job, row, all, shape);
    struct halves_token token[DECODE_TOKS];
    struct halves_sums sums[2];
    size_t place[PANEL_ROWS];
    __m512 acc[DECODE_TOKS];

    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    ask_first(&ask, job, row, all, rows);
    row_places(place, rows, job->row_bytes);
    for (size_t run = 0; run <= runs; run++) {
        if (run < runs) {
            struct halves_sums *now = &sums[run % 2];
            for (size_t t = 0; t < toks; t++)
                load_halves(&token[t], &now->dx[t], (const uint8_t *)job->acts + t * job->act_stride, &layout, run);
            halves_run(now, weights + run * shape.bytes, place, &ask, run, token, toks, shape);
        }
        for (size_t t = 0; run && t < toks; t++)
            acc[t] = halves_finish(acc[t], &sums[(run + 1) % 2], t);
    }
    store_rows(job, row, rows, acc, toks);
}

static ALWAYS_INLINE void halves_format(const struct matmul_job *job, size_t row, struct row_range all,
                                        const struct panel_shape shape)
{
    if (job->toks == 1)
        halves_rows(job, row, all, 1, shape);
    else if (job->toks == 2)
        halves_rows(job, row, all, 2, shape);
    else if (job->toks == 3)
        halves_rows(job, row, all, 3, shape);
    else
        halves_rows(job, row, all, 4, shape);
}

#endif
