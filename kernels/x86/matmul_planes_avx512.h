/* matmul_planes_avx512.h - one to four tokens by formats whose values' lower two bits stand four to a byte: multiplied where they
 * stand, AVX-512.
 *
 * Plane p of a byte holds column 32 p of the byte's half of a run, so a half's 32 bytes are its 128 columns, and 128 bits are 16
 * columns of each of four sub-blocks. The planes are masked out, not shifted down.
 *
 * Pairs alone: in vector k dword j of each 128 bits is plane j of dword (j + k) % 4, all by one mask. So every lane of 32 bits
 * stays with one sub-block, whose 16 products it sums over the four vectors; then it is shifted down.
 *
 * With third bits (raw[1]: 32 bytes, in both halves; bit 4 half + p): vector p is plane p, and above it its third bit, turned to
 * where it belongs; values are lifted by 1, 4, 4 and 16, which the scales even out to 16. Three shifts in place of eight.
 *
 * Two rows are worked on together: their scales are made in one vector, their sums packed to words, multiplied by the scales and
 * added in one step. No more than two operations of 512 bits pass in a cycle, shuffles and shifts one, so what is shared counts:
 * Q3_K takes 18.6 cycles per 256 weights in the cache, with the rows one by one 19.8; Q2_K 12.4. */
#ifndef QUERN_MATMUL_PLANES_AVX512_H
#define QUERN_MATMUL_PLANES_AVX512_H

#include "matmul_avx512.h"

/* Two rows' scales, a byte each, the first row's in the lower half, from their run.codes. */
typedef __m256i two_scales_fn(__m256i codes);

static ALWAYS_INLINE int lift_of(int p)
{
    return p == 0 ? 1 : p == 3 ? 16 : 4;
}

static ALWAYS_INLINE __m512i own_planes(void)
{
    return _mm512_broadcast_i32x4(_mm_setr_epi32(0x03030303, 0x0c0c0c0c, 0x30303030, (int)0xc0c0c0c0));
}

static ALWAYS_INLINE __m512i two_masks(__m512i a, int mask_a, __m512i b, int mask_b)
{
    return or_masked(_mm512_and_si512(a, _mm512_set1_epi8((char)mask_a)), b, _mm512_set1_epi8((char)mask_b));
}

/* q from raw. */
static ALWAYS_INLINE void split_planes(struct run *w, const struct panel_shape shape)
{
    __m512i v = settled(w->raw[0]);
    if (shape.planes == 2) {
        w->q[0] = _mm512_and_si512(v, own_planes());
        w->q[1] = _mm512_and_si512(_mm512_shuffle_epi32(v, _MM_PERM_ADCB), own_planes());
        w->q[2] = _mm512_and_si512(_mm512_shuffle_epi32(v, _MM_PERM_BADC), own_planes());
        w->q[3] = _mm512_and_si512(_mm512_shuffle_epi32(v, _MM_PERM_CBAD), own_planes());
    } else {
        const __m512i turn = _mm512_setr_epi32(2, 2, 2, 2, 2, 2, 2, 2, 30, 30, 30, 30, 30, 30, 30, 30);
        __m512i down = _mm512_srli_epi16(v, 2), even = _mm512_rolv_epi32(w->raw[1], turn);
        __m512i odd = _mm512_rolv_epi32(w->raw[1], _mm512_add_epi32(turn, _mm512_set1_epi32(1)));
        w->q[0] = two_masks(v, 0x03, even, 0x04);
        w->q[1] = two_masks(v, 0x0c, odd, 0x10);
        w->q[2] = two_masks(down, 0x0c, even, 0x10);
        w->q[3] = two_masks(down, 0x30, odd, 0x40);
    }
}

/* Dword d of each 128 bits from plane (d - k) % 4. */
static ALWAYS_INLINE __m512i diagonal(const __m512i plane[4], int k)
{
    __m512i a = _mm512_mask_blend_epi32(0xaaaa, plane[-k & 3], plane[(1 - k) & 3]);
    __m512i b = _mm512_mask_blend_epi32(0xaaaa, plane[(2 - k) & 3], plane[(3 - k) & 3]);
    return _mm512_mask_blend_epi32(0xcccc, a, b);
}

/* A token's run in this order, and after it the dots' start values, which take the offset off. */
static ALWAYS_INLINE void load_planes(__m512i x[8], const int8_t *from, const struct panel_shape shape)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i plane[4];
    for (int p = 0; p < 4; p++)
        plane[p] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(from + 32 * p))),
                                      _mm256_loadu_si256((const __m256i *)(from + 128 + 32 * p)), 1);
    if (shape.planes == 2) {
        const __m512i offset = _mm512_and_si512(own_planes(), _mm512_set1_epi8(0x55));   /* 1 in each plane */
        x[0] = diagonal(plane, 0);
        x[1] = _mm512_shuffle_epi32(diagonal(plane, 1), _MM_PERM_ADCB);
        x[2] = _mm512_shuffle_epi32(diagonal(plane, 2), _MM_PERM_BADC);
        x[3] = _mm512_shuffle_epi32(diagonal(plane, 3), _MM_PERM_CBAD);
        x[4] = zero;
        if (shape.offset == 1)
            x[4] = dot_64(dot_64(dot_64(dot_64(zero, offset, x[0]), offset, x[1]), offset, x[2]), offset, x[3]);
        x[4] = _mm512_sub_epi32(zero, x[4]);
        return;
    }
    for (int p = 0; p < 4; p++) {
        __m512i offset = _mm512_set1_epi8((char)(lift_of(p) * (int)shape.offset));
        x[p] = plane[p];
        x[4 + p] = _mm512_sub_epi32(zero, dot_64(zero, offset, plane[p]));
    }
}

/* Two rows' scales as words, in the order in which dot_two packs their sums; with third bits each with what its plane's lift lacks
 * to 16. */
static ALWAYS_INLINE void words_of_scales(__m512i words[4], __m256i scales, const struct panel_shape shape)
{
    if (shape.planes == 2) {
        const __m256i bytes = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
        const __m256i fours = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        words[0] = _mm512_cvtepi8_epi16(_mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(scales, bytes), fours));
        return;
    }
    /* Written out as plain constants, which compilers add to, so that none is made again for each row. */
    const __m512i lift = _mm512_set_epi16(0, 0, 2, 2, 2, 2, 4, 4, 0, 0, 2, 2, 2, 2, 4, 4, 0, 0, 2, 2, 2, 2, 4, 4, 0, 0, 2, 2, 2, 2,
                                          4, 4);
    const __m512i places = _mm512_set_epi16(25, 25, 25, 25, 9, 9, 9, 9, 24, 24, 24, 24, 8, 8, 8, 8, 17, 17, 17, 17, 1, 1, 1, 1, 16,
                                            16, 16, 16, 0, 0, 0, 0);
    __m512i wide = _mm512_sllv_epi16(_mm512_cvtepi8_epi16(scales), lift);
    for (int p = 0; p < 4; p++)
        words[p] = _mm512_permutexvar_epi16(_mm512_add_epi16(places, _mm512_set1_epi16((short)(2 * p))), wide);
}

/* Sums of 16 products per sub-block, sub-block 8 half + 2 p + b in dword p of lane 2 half + b; they fit int16. */
static ALWAYS_INLINE __m512i dot_pairs(const struct run *w, const __m512i x[8])
{
    __m512i dot = x[4];
    for (int k = 0; k < 4; k++)
        dot = dot_64(dot, w->q[k], x[k]);
    return _mm512_srav_epi32(dot, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 2, 4, 6)));
}

/* Two rows' dots times scales, 16 times that with third bits: each lane of 128 bits has two parts of the first row's sum, then two
 * of the second's. With third bits the offset comes off before four products are packed: 4 * 16 * 127 * 4 = 32512 just fits
 * int16. */
static ALWAYS_INLINE __m512i dot_two(const struct run w[2], const __m512i x[8], const __m512i words[4],
                                     const struct panel_shape shape)
{
    __m512i total = _mm512_setzero_si512();
    if (shape.planes == 2)
        return _mm512_dpwssd_epi32(total, _mm512_packs_epi32(dot_pairs(&w[0], x), dot_pairs(&w[1], x)), words[0]);
    for (int p = 0; p < 4; p++) {
        __m512i first = dot_64(x[4 + p], w[0].q[p], x[p]), second = dot_64(x[4 + p], w[1].q[p], x[p]);
        total = _mm512_dpwssd_epi32(total, _mm512_packs_epi32(first, second), words[p]);
    }
    return total;
}

/* Four rows, from row 4 i on; each lane of 128 bits has a part of all four rows' sums. */
static ALWAYS_INLINE void planes_four(struct decode_run *out, size_t i, const uint8_t *from, const size_t place[PANEL_ROWS],
                                      const __m512i (*x)[8], size_t toks, run_fn *unpack, two_scales_fn *scales,
                                      const struct panel_shape shape)
{
    __m512 sums[DECODE_TOKS][2];
    UNROLL_ALL
    for (size_t two = 0; two < 2; two++) {
        struct run w[2];
        __m512i words[4];
        UNROLL_ALL
        for (size_t k = 0; k < 2; k++) {
            unpack(&w[k], from + place[4 * i + 2 * two + k]);
            split_planes(&w[k], shape);
            keep_rest(&out->rest, 4 * i + 2 * two + k, &w[k], shape);
        }
        words_of_scales(words, scales(_mm256_setr_m128i(w[0].codes, w[1].codes)), shape);
        for (size_t t = 0; t < toks; t++)
            sums[t][two] = _mm512_castsi512_ps(dot_two(w, x[t], words, shape));
    }
    for (size_t t = 0; t < toks; t++)
        out->quads[t].quad[0][i] = _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(sums[t][0], sums[t][1], 0x88)),
                                                    _mm512_castps_si512(_mm512_shuffle_ps(sums[t][0], sums[t][1], 0xdd)));
}

/* Up to 16 rows from `row` on, as decode_rows. */
static ALWAYS_INLINE void planes_rows(const struct matmul_job *job, size_t row, struct row_range all, size_t toks, run_fn *unpack,
                                      two_scales_fn *scales, const struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS, runs = job->cols / PANEL_COLS;
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    const struct ask ask = ask_of(job, row, all, shape);
    struct decode_run now;
    size_t place[PANEL_ROWS];
    __m512 acc[DECODE_TOKS];
    __m512i x[DECODE_TOKS][8];

    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    ask_first(&ask, job, row, all, rows);
    row_places(place, rows, job->row_bytes);
    for (size_t run = 0; run < runs; run++) {
        const uint8_t *from = weights + run * shape.bytes;
        for (size_t t = 0; t < toks; t++) {
            const uint8_t *act = (const uint8_t *)job->acts + t * job->act_stride;
            token_run_init(&now.token[t], act, &layout, run, shape);
            load_planes(x[t], (const int8_t *)act + run * PANEL_COLS, shape);
        }
#pragma GCC unroll 1
        for (size_t i = 0; i < 4; i++) {
            for (size_t k = 0; k < 4; k++)
                ask_own(&ask, from + place[4 * i + k], run, shape);
            ask_soon(&ask, run, i, 0, 1, shape);
            planes_four(&now, i, from, place, (const __m512i (*)[8])x, toks, unpack, scales, shape);
        }
        for (size_t t = 0; t < toks; t++) {
            const __m512i *quad = now.quads[t].quad[0];
            __m512i total = fold_four(quad[0], quad[1], quad[2], quad[3]);
            total = shape.planes == 3 ? _mm512_srai_epi32(total, 4) : total;
            acc[t] = finish_totals(acc[t], total, &now.rest, &now.token[t], shape);
        }
    }
    store_rows(job, row, rows, acc, toks);
}

static ALWAYS_INLINE void planes_format(const struct matmul_job *job, size_t row, struct row_range all, run_fn *unpack,
                                        two_scales_fn *scales, const struct panel_shape shape)
{
    if (job->toks == 1)
        planes_rows(job, row, all, 1, unpack, scales, shape);
    else if (job->toks == 2)
        planes_rows(job, row, all, 2, unpack, scales, shape);
    else if (job->toks == 3)
        planes_rows(job, row, all, 3, unpack, scales, shape);
    else
        planes_rows(job, row, all, 4, unpack, scales, shape);
}

#endif
