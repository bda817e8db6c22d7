/* matmul_panel_avx512.h - what formats need to read their blocks, and panels made of their runs. */
#ifndef QUERN_MATMUL_PANEL_AVX512_H
#define QUERN_MATMUL_PANEL_AVX512_H

#include "matmul_avx512.h"
#include "numbers.h"

/* ---- what several formats need ---------------------------------------------------------------------------------- */

/* Eight bytes in the lower half of a vector. */
static ALWAYS_INLINE __m128i vector_of_8(uint64_t bytes)
{
    return _mm_cvtsi64_si128((long long)bytes);
}

/* The words that eight blocks of `step` bytes begin with: the i-th is word i of the 16 bytes from (step - 2) i on. */
static ALWAYS_INLINE __m128i words_of_8_blocks(const uint8_t *bytes, size_t step)
{
    __m128i v[8];
    for (size_t i = 0; i < 8; i++)
        v[i] = _mm_loadu_si128((const __m128i *)(bytes + (step - 2) * i));
    __m128i even = _mm_blend_epi32(_mm_blend_epi32(v[0], v[2], 2), _mm_blend_epi32(v[4], v[6], 8), 12);
    __m128i odd = _mm_blend_epi32(_mm_blend_epi32(v[1], v[3], 2), _mm_blend_epi32(v[5], v[7], 8), 12);
    return _mm_blend_epi16(even, odd, 0xaa);
}

static ALWAYS_INLINE __m512 eight_scales(__m256 scales)
{
    return _mm512_zextps256_ps512(scales);
}

/* Scales as F16. */
static ALWAYS_INLINE void set_codes(struct run *out, __m128i codes)
{
    out->codes = codes;
    out->scale = eight_scales(_mm256_cvtph_ps(codes));
}

/* The same where they begin eight blocks. */
static ALWAYS_INLINE void set_scales(struct run *out, const uint8_t *bytes, size_t step)
{
    set_codes(out, words_of_8_blocks(bytes, step));
}

/* What is added to eight blocks, F16; minimums are subtracted. */
static ALWAYS_INLINE void set_lows(struct run *out, const uint8_t *bytes, size_t step)
{
    out->low_codes = _mm_xor_si128(words_of_8_blocks(bytes, step), _mm_set1_epi16((short)0x8000));
    out->low = _mm256_cvtph_ps(out->low_codes);
}

/* 64 bytes' low nibbles and high nibbles. */
static ALWAYS_INLINE void nibbles(__m512i q[2], __m512i bytes)
{
    q[0] = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
    q[1] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
}

/* 16 bytes each of four blocks, `step` bytes apart. */
static ALWAYS_INLINE __m512i four_of_16(const uint8_t *bytes, size_t step)
{
    __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)bytes)),
                                          _mm_loadu_si128((const __m128i *)(bytes + step)), 1);
    __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(bytes + 2 * step))),
                                           _mm_loadu_si128((const __m128i *)(bytes + 3 * step)), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Halves or quarters from twice 64 bytes. */
static ALWAYS_INLINE void set_nibbles(struct run *out, __m512i first, __m512i second)
{
    out->raw[0] = first;
    out->raw[1] = second;
    nibbles(out->q, first);
    nibbles(out->q + 2, second);
}

/* Eight blocks of 32 nibbles, the first at `bytes`: quarters. */
static ALWAYS_INLINE void nibbles_of_8_blocks(struct run *out, const uint8_t *bytes, size_t step)
{
    set_nibbles(out, four_of_16(bytes, step), four_of_16(bytes + 4 * step, step));
}

/* 16 values, with the offset that makes them unsigned, by index. */
static ALWAYS_INLINE __m512i look_up(const int8_t values[16], int offset, __m512i index)
{
    __m128i table = _mm_add_epi8(_mm_loadu_si128((const __m128i *)values), _mm_set1_epi8((char)offset));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index);
}

/* ---- panels ----------------------------------------------------------------------------------------------------- */

/* Where the units of 64 columns that an unpacker delivers together belong. */
static ALWAYS_INLINE size_t unit_of(int k, int i, enum panel_order order)
{
    static const uint8_t halves[8] = { 0, 1, 4, 5, 2, 3, 6, 7 }, quarters[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
    int at = k % 2 * 4 + i;
    if (order == ORDER_PLANES)
        return (size_t)(8 * (i / 2) + 2 * k + i % 2);
    return (size_t)(k / 2 * 8 + (order == ORDER_PLAIN ? at : order == ORDER_HALVES ? halves[at] : quarters[at]));
}

/* Sixteen rows of 16 bytes to columns: byte column 4j + s of all rows is the 128-bit lane j of out[s]. */
static ALWAYS_INLINE void transpose_bytes(__m512i out[4], const __m128i rows[16])
{
    const __m512i dwords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i four[4];
    for (int i = 0; i < 4; i++)              /* lane j, dword s: byte 4j + s of rows 4i to 4i + 3 */
        four[i] = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(dwords, _mm512_loadu_si512(rows + 4 * i)), bytes);
    transpose_4x4(out, four);
}

static ALWAYS_INLINE __m128i lane_of(__m512i v, int lane)
{
    return lane == 0   ? _mm512_castsi512_si128(v)
           : lane == 1 ? _mm512_extracti32x4_epi32(v, 1)
           : lane == 2 ? _mm512_extracti32x4_epi32(v, 2)
                       : _mm512_extracti32x4_epi32(v, 3);
}

/* Pairs of minimums as int16: sub-blocks 2p and 2p + 1, whose bytes stand in columns from first + 2p on. */
static ALWAYS_INLINE void fill_mins(struct panel *out, const __m512i columns[4], int first, int pairs)
{
    for (int p = 0; p < pairs; p++) {
        int column = first + 2 * p;
        __m128i even = lane_of(columns[column % 4], column / 4), odd = lane_of(columns[column % 4 + 1], column / 4);
        __m256i both = _mm256_setr_m128i(_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd));
        _mm512_store_si512(out->min.i[p], _mm512_cvtepu8_epi16(both));
    }
}

/* A super format's scales and minimums to the panel. With eight of each both fit one transposition; where the values are scaled
 * already, the scales are left out. */
static ALWAYS_INLINE void fill_super(struct panel *out, const __m128i scales[16], const __m128i mins[16], const uint32_t d[16],
                                     const struct panel_shape shape)
{
    __m512i columns[4];
    if (!shape.scaled)
        transpose_bytes(columns, scales);
    for (int s = 0; !shape.scaled && s < (shape.sub == 16 ? 16 : 8); s++)
        _mm512_store_si512(out->scale.i[s], _mm512_cvtepi8_epi32(lane_of(columns[s % 4], s / 4)));
    if (shape.mins && shape.sub == 16) {
        transpose_bytes(columns, mins);
        fill_mins(out, columns, 0, 8);
    } else if (shape.mins) {
        fill_mins(out, columns, 8, 4);
    }
    _mm512_store_ps(out->d, scales_of(d, false, shape.factor));
    if (shape.mins)
        _mm512_store_ps(out->dmin, scales_of(d, true, shape.factor));
}

static ALWAYS_INLINE void fill_small(struct panel *out, const float scale[2][16][8], const float low[16][8],
                                     const struct panel_shape shape)
{
    __m512 columns[8];
    for (int half = 0; half < (shape.sub == 16 ? 2 : 1); half++) {
        transpose_16x8(columns, scale[half]);
        for (int s = 0; s < 8; s++)
            _mm512_store_ps(out->scale.f[8 * half + s], shape.exponents ? _mm512_getexp_ps(columns[s]) : columns[s]);
    }
    if (shape.mins) {
        transpose_16x8(columns, low);
        for (int s = 0; s < 8; s++)
            _mm512_store_ps(out->min.f[s], columns[s]);
    }
}

/* Sixteen rows' runs on their way to a panel. */
struct panel_rows {
    uint8_t  q[PANEL_ROWS][PANEL_COLS];               /* in the unpacker's order; nibbles: two to a byte, half of it */
    __m128i  scales[PANEL_ROWS], mins[PANEL_ROWS];    /* super; sub 32: minimums in the upper halves of scales       */
    float    scale[2][PANEL_ROWS][8], low[PANEL_ROWS][8];   /* small                                                 */
    uint32_t d[PANEL_ROWS];                           /* super                                                       */
} __attribute__((aligned(64)));

static ALWAYS_INLINE void keep_row(struct panel_rows *rows, size_t r, const uint8_t *bytes, run_fn *unpack,
                                   const struct panel_shape shape)
{
    const int vectors = shape.nibbles ? 2 : 4;
    struct run w;
    unpack(&w, bytes);
    UNROLL_ALL
    for (int k = 0; k < vectors; k++)
        _mm512_store_si512(rows->q[r] + 64 * k, shape.nibbles ? w.raw[k] : w.q[k]);
    if (shape.kind == PANEL_SUPER) {
        rows->d[r] = w.d;
        rows->scales[r] = shape.mins && shape.sub == 32 ? _mm_unpacklo_epi64(w.scales, w.mins) : w.scales;
        if (shape.mins && shape.sub == 16)
            rows->mins[r] = w.mins;
    } else {
        _mm256_store_ps(rows->scale[0][r], _mm512_castps512_ps256(w.scale));
        if (shape.sub == 16)
            _mm256_store_ps(rows->scale[1][r], _mm512_extractf32x8_ps(w.scale, 1));
        if (shape.mins)
            _mm256_store_ps(rows->low[r], w.low);
    }
}

/* 32 bytes each of sixteen rows, `stride` bytes apart, to columns of four bytes: out[c], lane r: dword c of row r. */
static ALWAYS_INLINE void turn_32(__m512i out[8], const uint8_t *rows, size_t stride)
{
    __m512i half[2][4];
    UNROLL_ALL
    for (int h = 0; h < 2; h++) {
        __m512i v[4];
        UNROLL_ALL
        for (int i = 0; i < 4; i++) {        /* rows i and 4 + i of these eight */
            const uint8_t *row = rows + (size_t)(8 * h + i) * stride;
            v[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)row)),
                                      _mm256_loadu_si256((const __m256i *)(row + 4 * stride)), 1);
        }
        transpose_4x4(half[h], v);           /* lanes: dword s of rows 0 to 3, dword 4 + s, dword s of rows 4 to 7, 4 + s */
    }
    UNROLL_ALL
    for (int s = 0; s < 4; s++) {
        out[s] = _mm512_shuffle_i32x4(half[0][s], half[1][s], 0x88);
        out[4 + s] = _mm512_shuffle_i32x4(half[0][s], half[1][s], 0xdd);
    }
}

/* 16 bytes each of sixteen rows: out[c], lane r: dword c of row r. */
static ALWAYS_INLINE void turn_16(__m512i out[4], const uint8_t *rows, size_t stride)
{
    __m512i v[4];
    UNROLL_ALL
    for (int i = 0; i < 4; i++)              /* lanes: rows i, 4 + i, 8 + i, 12 + i */
        v[i] = four_of_16(rows + (size_t)i * stride, 4 * stride);
    transpose_4x4(out, v);
}

/* Parts in which rows become a panel: 32 bytes of each. */
static ALWAYS_INLINE int panel_parts(const struct panel_shape shape)
{
    return shape.nibbles ? 4 : 8;
}

static ALWAYS_INLINE void turn_part(struct panel *out, const struct panel_rows *rows, int part, const struct panel_shape shape)
{
    const int k = part / 2 * (shape.nibbles ? 2 : 1), i = part % 2 * 2;
    __m512i v[8];
    turn_32(v, rows->q[0] + 32 * part, PANEL_COLS);
    UNROLL_ALL
    for (int c = 0; c < 8; c++) {
        size_t to = 4 * unit_of(k, i + c / 4, shape.order) + (size_t)c % 4;
        if (shape.nibbles) {                 /* half the transpositions, the split on the way to the panel */
            __m512i split[2];
            nibbles(split, v[c]);
            _mm512_store_si512(out->q[to], split[0]);
            _mm512_store_si512(out->q[4 * unit_of(k + 1, i + c / 4, shape.order) + (size_t)c % 4], split[1]);
        } else {
            _mm512_store_si512(out->q[to], v[c]);
        }
    }
}

/* Scales and minimums. */
static ALWAYS_INLINE void finish_panel(struct panel *out, const struct panel_rows *rows, const struct panel_shape shape)
{
    if (shape.kind == PANEL_SUPER)
        fill_super(out, rows->scales, rows->mins, rows->d, shape);
    else
        fill_small(out, rows->scale, rows->low, shape);
}

static ALWAYS_INLINE void fill_panel(struct panel *out, const uint8_t *bytes, size_t stride, size_t count,
                                     run_fn *unpack, const struct panel_shape shape)
{
    const int parts = panel_parts(shape);
    struct panel_rows rows;
    if (count < PANEL_ROWS)
        memset(&rows, 0, sizeof rows);
    for (size_t r = 0; r < count; r++)
        keep_row(&rows, r, bytes + r * stride, unpack, shape);
#pragma GCC unroll 1
    for (int part = 0; part < parts; part++)
        turn_part(out, &rows, part, shape);
    finish_panel(out, &rows, shape);
}

#endif
