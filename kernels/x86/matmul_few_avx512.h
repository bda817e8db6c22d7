/* matmul_few_avx512.h - five to sixteen tokens, in some formats four too, on AVX-512 VNNI: lanes are tokens.
 *
 * A vector of activations holds 16 / G tokens by 4 G columns (G = 1 for 9 to 16 tokens, 2 for 5 to 8, 4 for fewer); the weights
 * stay rows of bytes, of which 4 G at a time are broadcast from the first-level cache. So the weights need no transposition, which
 * for few tokens would cost as much as their dots; the activations are arranged instead, once for all rows that a thread multiplies
 * in a stage (job->kept). Four tokens go this way where that gains, in cache and from memory (shape.few; Q8_0 119 -> 157 Gop/s,
 * TQ1_0 114 -> 147); most formats do better with their sums in registers (matmul_avx512.h).
 *
 * Eight rows are multiplied at a time: 8 accumulators for the byte dots, 8 for the scaled sums, one vector of activations. On Zen
 * 4, where a dot occupies both multipliers for half a cycle each, loads that broadcast up to 8 bytes run at two per cycle and the
 * unpacker's shifts and shuffles in other ports: the next eight rows are unpacked between the dots of these, one or two in each
 * step, and cost little. What is left beside the dots is one multiplication by the scale per sub-block and vector (of 32 columns:
 * 8/9 of the peak with 16 tokens, 4/5 with 8), one per two sub-blocks where few_pairs says so, none where values are scaled. */
#ifndef QUERN_MATMUL_FEW_AVX512_H
#define QUERN_MATMUL_FEW_AVX512_H

#include "matmul_panel_avx512.h"

enum { FEW_ROWS = 8 };

/* Eight rows' runs, unpacked: bytes in the unpacker's order. */
struct few_rows {
    uint8_t q[FEW_ROWS][PANEL_COLS];
    /* super [row][sub-block]; small [sub-block][row]  */
    union { int32_t i[FEW_ROWS][16]; int16_t pairs[FEW_ROWS][16]; float f[16][FEW_ROWS]; } scale;
    union { int16_t i[FEW_ROWS][16]; float f[8][FEW_ROWS]; } min;        /* the same                                        */
    float    d[FEW_ROWS], dmin[FEW_ROWS];                                /* super                                           */
    uint32_t halves[FEW_ROWS];                                           /* super: d and dmin as they stand in the file     */
    float    scale_rows[2][FEW_ROWS][8], min_rows[FEW_ROWS][8];          /* small: before they are turned                   */
} __attribute__((aligned(64)));

/* A run of all tokens. Lane j is of token j / G; x and sums go on with lane j's next 4 G bytes in the next vector. */
struct few_run {
    int8_t  x[PANEL_COLS / 4][64];
    int32_t init[16][16];       /* [sub-block]: -offset * sum of the lane's columns of x; scaled: [0], of the run */
    int32_t sums[8][16];        /* super with minimums: pairs of sums per sub-block, as int16          */
    float   dx[8][16];          /* super: dx[0]; small: per 32 columns                                 */
    float   dsum[8][16];        /* small with minimums: dx * sum of x                                  */
} __attribute__((aligned(64)));

/* Rows that go through all runs together: few enough to begin without much waiting for memory, enough to keep a run's arranged
 * activations (5 KiB with 16 tokens, from the second-level cache) for several groups of eight. */
enum { FEW_BLOCK = 32 };

/* `run` has as many elements as a row has runs. */
struct few_scratch {
    struct few_rows rows[2];                          /* multiplied; unpacked meanwhile                       */
    float           acc[FEW_BLOCK][16];               /* [row / G][lane]: lane j is row j % G of token j / G  */
    uint8_t         copy[PANEL_COLS / 32 * 36];       /* one padded run                                       */
    struct few_run  run[];
};

/* 4 G bytes into every lane of 4 G bytes. */
static ALWAYS_INLINE __m512i spread(const void *bytes, const int G)
{
    uint32_t four;
    uint64_t eight;
    if (G == 4)
        return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
    if (G == 2) {
        memcpy(&eight, bytes, 8);
        return _mm512_set1_epi64((long long)eight);
    }
    memcpy(&four, bytes, 4);
    return _mm512_set1_epi32((int)four);
}

static ALWAYS_INLINE __m512 spread_floats(const float *values, const int G)
{
    return _mm512_castsi512_ps(spread(values, G));
}

/* The sums over a token's lanes of eight rows: out[p] lane j is row p G + j % G of token j / G. */
static ALWAYS_INLINE void fold_lanes(__m512i *out, const __m512i *v, const int G)
{
    if (G == 1) {
        UNROLL_ALL
        for (int r = 0; r < FEW_ROWS; r++)
            out[r] = v[r];
    } else if (G == 4) {
        UNROLL_ALL
        for (int p = 0; p < FEW_ROWS / 4; p++)
            out[p] = sum_lanes(v[4 * p], v[4 * p + 1], v[4 * p + 2], v[4 * p + 3]);
    } else {
        UNROLL_ALL
        for (int p = 0; p < FEW_ROWS / 2; p++) {
            __m512i even = _mm512_unpacklo_epi32(v[2 * p], v[2 * p + 1]), odd = _mm512_unpackhi_epi32(v[2 * p], v[2 * p + 1]);
            out[p] = _mm512_add_epi32(_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd));
        }
    }
}

/* Whether the dots of a sub-block in one lane, offset taken off, fit int16. Then those of two sub-blocks share a lane and one
 * multiplication by two scales, which adds as well: with 8 tokens 57 instead of 65 cycles for a run of Q6_K. Not for 32 columns to
 * a scale, where what is saved is less than the shifts cost. */
static ALWAYS_INLINE bool few_pairs(const struct panel_shape shape, const int G)
{
    const int top = (int)shape.top, below = (int)shape.offset, above = top - below;
    return shape.kind == PANEL_SUPER && !shape.scaled && shape.sub == 16 && top > 0 &&
           (above > below ? above : below) * 127 * 16 / G <= INT16_MAX;
}

/* ---- eight rows ------------------------------------------------------------------------------------------------- */

/* One row's run to its place; few_rows_finish follows the eighth. */
static ALWAYS_INLINE void few_unpack(struct few_rows *to, size_t r, const uint8_t *bytes, run_fn *unpack,
                                     const struct panel_shape shape, const int G)
{
    struct run w;
    unpack(&w, bytes);
    UNROLL_ALL
    for (int k = 0; k < 4; k++)
        _mm512_store_si512(to->q[r] + 64 * k, w.q[k]);
    if (shape.kind == PANEL_SUPER) {
        to->halves[r] = w.d;
        if (few_pairs(shape, G))
            _mm256_store_si256((__m256i *)to->scale.pairs[r], _mm256_cvtepi8_epi16(w.scales));
        else if (!shape.scaled && shape.sub == 16)
            _mm512_store_si512(to->scale.i[r], _mm512_cvtepi8_epi32(w.scales));
        else if (!shape.scaled)
            _mm256_store_si256((__m256i *)to->scale.i[r], _mm256_cvtepi8_epi32(w.scales));
        if (shape.mins && shape.sub == 16)
            _mm256_store_si256((__m256i *)to->min.i[r], _mm256_cvtepu8_epi16(w.mins));
        else if (shape.mins)
            _mm_store_si128((__m128i *)to->min.i[r], _mm_cvtepu8_epi16(w.mins));
    } else {
        _mm256_store_ps(to->scale_rows[0][r], _mm512_castps512_ps256(w.scale));
        if (shape.sub == 16)
            _mm256_store_ps(to->scale_rows[1][r], _mm512_extractf32x8_ps(w.scale, 1));
        if (shape.mins)
            _mm256_store_ps(to->min_rows[r], w.low);
    }
}

static ALWAYS_INLINE void transpose_8x8(float out[8][FEW_ROWS], const float in[FEW_ROWS][8])
{
    __m256 a[8], b[8];
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {
        __m256 x = _mm256_load_ps(in[2 * i]), y = _mm256_load_ps(in[2 * i + 1]);
        a[2 * i] = _mm256_unpacklo_ps(x, y);
        a[2 * i + 1] = _mm256_unpackhi_ps(x, y);
    }
    UNROLL_ALL
    for (int i = 0; i < 8; i += 4)           /* b[i + s]: columns s and 4 + s of rows i to i + 3 */
        UNROLL_ALL
        for (int s = 0; s < 2; s++) {
            b[i + 2 * s] = _mm256_shuffle_ps(a[i + s], a[i + 2 + s], 0x44);
            b[i + 2 * s + 1] = _mm256_shuffle_ps(a[i + s], a[i + 2 + s], 0xee);
        }
    UNROLL_ALL
    for (int s = 0; s < 4; s++) {
        _mm256_store_ps(out[s], _mm256_permute2f128_ps(b[s], b[4 + s], 0x20));
        _mm256_store_ps(out[4 + s], _mm256_permute2f128_ps(b[s], b[4 + s], 0x31));
    }
}

/* What is better done for eight rows at once. */
static ALWAYS_INLINE void few_rows_finish(struct few_rows *to, const struct panel_shape shape)
{
    if (shape.kind == PANEL_SMALL) {
        transpose_8x8(to->scale.f, (const float (*)[8])to->scale_rows[0]);
        if (shape.sub == 16)
            transpose_8x8(to->scale.f + 8, (const float (*)[8])to->scale_rows[1]);
        if (shape.mins)
            transpose_8x8(to->min.f, (const float (*)[8])to->min_rows);
        return;
    }
    __m256i both = _mm256_load_si256((const __m256i *)to->halves);
    __m256 factor = _mm256_set1_ps(shape.factor), d = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(both));
    _mm256_store_ps(to->d, shape.factor == 1 ? d : _mm256_mul_ps(d, factor));
    if (shape.mins) {
        __m256 dmin = _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srli_epi32(both, 16)));
        _mm256_store_ps(to->dmin, shape.factor == 1 ? dmin : _mm256_mul_ps(dmin, factor));
    }
}

/* ---- the microkernel -------------------------------------------------------------------------------------------- */

/* Where the bytes of sub-block s begin in a run as it was unpacked. */
static ALWAYS_INLINE size_t sub_place(size_t s, const struct panel_shape shape)
{
    size_t four = s / 4 * 128, in = s % 4;
    if (shape.order == ORDER_PLANES)
        return s / 2 % 4 * 64 + s / 8 * 32 + s % 2 * 16;
    return shape.order == ORDER_PLAIN    ? s * shape.sub
           : shape.order == ORDER_HALVES ? four + in % 2 * 64 + in / 2 * 32
                                         : four + in * 16;
}

/* The eight rows whose run is unpacked between the dots. Memory is read block by block, run by run of a block's rows; the same run
 * of the next block's rows is asked for meanwhile, be they of this call or likely the next one's; and, where nobody has asked for
 * them, the later runs of the call's first block. */
struct few_source {
    const struct matmul_job *job;
    uint8_t *copy;
    size_t   end;              /* of the call's rows; the last one stands in for those beyond it */
    size_t   unasked, soon;    /* rows before the one begin cold, rows before the other will be read */
    size_t   row, run;         /* first of the eight, and their run */
};

static ALWAYS_INLINE void few_unpack_row(struct few_rows *to, size_t r, const struct few_source *from, run_fn *unpack,
                                         const struct panel_shape shape, const int G)
{
    const struct matmul_job *job = from->job;
    size_t row = from->row + r < from->end ? from->row + r : from->end - 1;
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes + from->run * shape.bytes;
    if (row + FEW_BLOCK < from->soon)
        prefetch_run(weights + FEW_BLOCK * job->row_bytes, shape.bytes, job->wide);
    if (row < from->unasked)
        prefetch_run(weights + shape.bytes, shape.bytes, job->wide);
    /* Super blocks are whole runs; the call, though never made, would spill vectors where there are many. */
    if (!few_pairs(shape, G) && !shape.scaled)
        weights = whole_run(from->copy, weights - from->run * shape.bytes, from->run, job, shape.bytes);
    few_unpack(to, r, weights, unpack, shape, G);
}

/* Add a run's dots of small formats, sub-block s, to the sums. */
static ALWAYS_INLINE void few_scale_small(__m512 *sum, const __m512i *idot, const struct few_rows *w, const struct few_run *t,
                                          size_t s, const struct panel_shape shape, const int G)
{
    const int groups = FEW_ROWS / G;
    __m512i dot[FEW_ROWS];
    __m512 dx = _mm512_load_ps(t->dx[s * shape.sub / 32]);
    fold_lanes(dot, idot, G);
    UNROLL_ALL
    for (int p = 0; p < groups; p++) {
        __m512 scale = _mm512_mul_ps(spread_floats(&w->scale.f[s][p * G], G), dx);
        sum[p] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot[p]), sum[p]);
        if (shape.mins)
            sum[p] = _mm512_fnmadd_ps(spread_floats(&w->min.f[s][p * G], G), _mm512_load_ps(t->dsum[s]), sum[p]);
    }
}

/* Add a run's totals of super formats, and take their minimums off. */
static ALWAYS_INLINE void few_finish_super(__m512 *sum, const __m512i *total, const struct few_rows *w, const struct few_run *t,
                                           const struct panel_shape shape, const int G)
{
    const int groups = FEW_ROWS / G, pairs = PANEL_COLS / (int)shape.sub / 2 / G;
    __m512 dx = _mm512_load_ps(t->dx[0]);
    __m512i whole[FEW_ROWS];
    fold_lanes(whole, total, G);
    UNROLL_ALL
    for (int p = 0; p < groups; p++)
        sum[p] = _mm512_fmadd_ps(_mm512_mul_ps(spread_floats(w->d + p * G, G), dx), _mm512_cvtepi32_ps(whole[p]), sum[p]);
    if (!shape.mins)
        return;
    __m512i low[FEW_ROWS];
    UNROLL_ALL
    for (int r = 0; r < FEW_ROWS; r++) {
        low[r] = _mm512_setzero_si512();
        UNROLL_ALL
        for (int p = 0; p < pairs; p++)
            low[r] = _mm512_dpwssd_epi32(low[r], spread(&w->min.i[r][2 * G * p], G), _mm512_load_si512(t->sums[p]));
    }
    fold_lanes(low, low, G);
    UNROLL_ALL
    for (int p = 0; p < groups; p++)
        sum[p] = _mm512_fnmadd_ps(_mm512_mul_ps(spread_floats(w->dmin + p * G, G), dx), _mm512_cvtepi32_ps(low[p]), sum[p]);
}

/* idot: eight rows' dots of sub-block s, offset taken off. */
static ALWAYS_INLINE void few_dots(__m512i *idot, const struct few_rows *w, const struct few_run *t, size_t s,
                                   const struct panel_shape shape, const int G)
{
    const int steps = (int)shape.sub / (4 * G);
    const uint8_t *q = w->q[0] + sub_place(s, shape);
    __m512i start = shape.offset ? _mm512_load_si512(t->init[s]) : _mm512_setzero_si512();
    UNROLL_ALL
    for (int r = 0; r < FEW_ROWS; r++)
        idot[r] = start;
    UNROLL_ALL
    for (int i = 0; i < steps; i++) {
        const int at = 4 * G * i, place = shape.order == ORDER_QUARTERS && at >= 16 ? 64 + at - 16 : at;
        __m512i x = _mm512_load_si512(t->x[s * (size_t)steps + (size_t)i]);
        UNROLL_ALL
        for (int r = 0; r < FEW_ROWS; r++)
            idot[r] = _mm512_dpbusd_epi32(idot[r], spread(q + r * PANEL_COLS + place, G), x);
    }
}

/* total += dots of sub-blocks s and s + 1 times their scales. */
static ALWAYS_INLINE void few_add_pairs(__m512i *total, const __m512i *first, const struct few_rows *w, const struct few_run *t,
                                        size_t s, const struct panel_shape shape, const int G)
{
    __m512i second[FEW_ROWS];
    few_dots(second, w, t, s + 1, shape, G);
    UNROLL_ALL
    for (int r = 0; r < FEW_ROWS; r++) {
        int32_t scales;
        memcpy(&scales, &w->scale.pairs[r][s], 4);
        __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, first[r], _mm512_slli_epi32(second[r], 16));
        total[r] = _mm512_dpwssd_epi32(total[r], both, _mm512_set1_epi32(scales));
    }
}

/* total += the dots of scaled values, sub-blocks s and s + 1 of 16 columns; they are side by side in every order. */
static ALWAYS_INLINE void few_dots_scaled(__m512i *total, const struct few_rows *w, const struct few_run *t, size_t s,
                                          const struct panel_shape shape, const int G)
{
    const int steps = 8 / G;
    const uint8_t *q = w->q[0] + sub_place(s, shape);
    UNROLL_ALL
    for (int i = 0; i < steps; i++) {
        __m512i x = _mm512_load_si512(t->x[s / 2 * (size_t)steps + (size_t)i]);
        UNROLL_ALL
        for (int r = 0; r < FEW_ROWS; r++)
            total[r] = _mm512_dpbusd_epi32(total[r], spread(q + r * PANEL_COLS + 4 * G * i, G), x);
    }
}

/* The dots so far are to be done here. Clang else puts them off until their sum is needed, past the branches of the unpacker, but
 * not the loads of what they multiply, which the unpacker's stores hold back: it keeps 64 broadcasts on the stack (16 tokens: 132
 * instead of 330 Gop/s). */
static ALWAYS_INLINE void few_done(__m512i *total, __m512 *sum, const struct panel_shape shape, const int groups)
{
#ifdef __clang__
    UNROLL_ALL
    for (int r = 0; shape.kind == PANEL_SUPER && r < FEW_ROWS; r++)
        __asm__ volatile("" : "+v"(total[r]));
    UNROLL_ALL
    for (int p = 0; shape.kind == PANEL_SMALL && p < groups; p++)
        __asm__ volatile("" : "+v"(sum[p]));
#else
    (void)total, (void)sum, (void)shape, (void)groups;
#endif
}

/* acc += eight rows' run by all tokens; meanwhile the next eight are unpacked. */
static ALWAYS_INLINE void few_multiply(float (*acc)[16], const struct few_rows *w, const struct few_run *t, struct few_rows *next,
                                       const struct few_source *from, run_fn *unpack, const struct panel_shape shape, const int G)
{
    const int groups = FEW_ROWS / G;
    const size_t subs = PANEL_COLS / shape.sub, step = shape.scaled || few_pairs(shape, G) ? 2 : 1;
    __m512i total[FEW_ROWS], idot[FEW_ROWS];
    __m512 sum[FEW_ROWS];
    UNROLL_ALL
    for (int r = 0; r < FEW_ROWS; r++)
        total[r] = shape.scaled && shape.offset ? _mm512_load_si512(t->init[0]) : _mm512_setzero_si512();
    UNROLL_ALL
    for (int p = 0; p < groups; p++)
        sum[p] = _mm512_load_ps(acc[p]);
#pragma GCC unroll 1
    for (size_t s = 0; s < subs; s += step) {
        if (shape.scaled) {
            few_dots_scaled(total, w, t, s, shape, G);
            few_done(total, sum, shape, groups);
            few_unpack_row(next, s / 2, from, unpack, shape, G);
            continue;
        }
        few_dots(idot, w, t, s, shape, G);
        if (few_pairs(shape, G))
            few_add_pairs(total, idot, w, t, s, shape, G);
        else if (shape.kind == PANEL_SMALL)
            few_scale_small(sum, idot, w, t, s, shape, G);
        else
            UNROLL_ALL
            for (int r = 0; r < FEW_ROWS; r++)
                total[r] = _mm512_add_epi32(total[r], _mm512_mullo_epi32(idot[r], _mm512_set1_epi32(w->scale.i[r][s])));
        few_done(total, sum, shape, groups);
        if (step == 2 || shape.sub == 32)
            few_unpack_row(next, s / step, from, unpack, shape, G);
        else if (s % 2)
            few_unpack_row(next, s / 2, from, unpack, shape, G);
    }
    if (shape.kind == PANEL_SUPER)
        few_finish_super(sum, total, w, t, shape, G);
    few_rows_finish(next, shape);
    UNROLL_ALL
    for (int p = 0; p < groups; p++)
        _mm512_store_ps(acc[p], sum[p]);
}

/* ---- all rows of a call ----------------------------------------------------------------------------------------- */

/* Results of up to FEW_BLOCK rows: acc[row / G][lane] to out. */
void few_store_avx512(const struct matmul_job *job, size_t row, size_t rows, const float (*acc)[16], size_t G);

static ALWAYS_INLINE void few_blocks(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch,
                                     run_fn *unpack, const struct panel_shape shape, const int G)
{
    const size_t runs = (job->cols + PANEL_COLS - 1) / PANEL_COLS;
    struct few_source from = { .job = job, .copy = scratch->copy, .end = all.end, .row = all.begin,
                               .unasked = job->asked ? 0 : all.begin + FEW_BLOCK, .soon = all.end + job->rows_soon };
    size_t turn = 0;

    if (all.begin >= all.end)
        return;
    for (size_t row = all.begin; row < all.end && row < from.unasked; row++)
        prefetch_run((const uint8_t *)job->weights + row * job->row_bytes, shape.bytes, job->wide);
    for (size_t r = 0; r < FEW_ROWS; r++)
        few_unpack_row(&scratch->rows[0], r, &from, unpack, shape, G);
    few_rows_finish(&scratch->rows[0], shape);
    for (size_t block = all.begin; block < all.end; block += FEW_BLOCK) {
        size_t rows = all.end - block < FEW_BLOCK ? all.end - block : FEW_BLOCK, groups = (rows + FEW_ROWS - 1) / FEW_ROWS;
        for (size_t i = 0; i < FEW_BLOCK; i++)             /* memset becomes rep stos, which is slow to begin */
            _mm512_store_ps(scratch->acc[i], _mm512_setzero_ps());
        for (size_t run = 0; run < runs; run++)
            for (size_t g = 0; g < groups; g++, turn ^= 1) {
                bool last_group = g + 1 == groups, last = last_group && run + 1 == runs;
                from.run = last ? 0 : run + last_group;
                from.row = last ? block + FEW_BLOCK : last_group ? block : block + (g + 1) * FEW_ROWS;
                few_multiply(scratch->acc + g * FEW_ROWS / (size_t)G, &scratch->rows[turn], &scratch->run[run],
                             &scratch->rows[turn ^ 1], &from, unpack, shape, G);
            }
        few_store_avx512(job, block, rows, (const float (*)[16])scratch->acc, (size_t)G);
    }
}

/* G for a number of tokens up to FEW_TOKS. */
static ALWAYS_INLINE int few_groups(size_t toks)
{
    return toks > 8 ? 1 : toks > 4 ? 2 : 4;
}

static ALWAYS_INLINE void few_format(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch,
                                     run_fn *unpack, const struct panel_shape shape)
{
    if (few_groups(job->toks) == 1)
        few_blocks(job, all, scratch, unpack, shape, 1);
    else if (few_groups(job->toks) == 2 || few_least(&shape) > DECODE_TOKS)
        few_blocks(job, all, scratch, unpack, shape, 2);
    else
        few_blocks(job, all, scratch, unpack, shape, 4);
}

/* All runs of the tokens to scratch->run. */
void few_arrange_avx512(struct few_scratch *scratch, const struct matmul_job *job, const struct panel_shape *shape);

#endif
