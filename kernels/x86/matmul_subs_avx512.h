/* matmul_subs_avx512.h - Q6_K, IQ4_XS, IQ1 and, with VBMI, IQ2 and IQ3 by five to sixteen tokens on AVX-512 VNNI, where job->wide:
 * lanes are sub-blocks.
 *
 * A run of 256 columns is sixteen times sixteen and a vector has sixteen lanes. So a row's run becomes four vectors whose lane l
 * has four columns each of the same sixteen; four dots, one into the other, leave all sixteen sums, and one multiplication weighs
 * them by the row's scales. Nothing is turned between rows, and nothing is stored to be loaded again,
 * which is what panels (matmul_woven_avx512.h) and rows of bytes (matmul_few_avx512.h) cost. What is left is to add up lanes: the
 * vectors of two rows and eight tokens fold to one, 45 instructions for sixteen sums. Between the dots they pass beside them, and
 * `here` keeps them there; in rows of their own they take the dots' ports (in a loop by itself two rows' run by eight tokens 54
 * and 62 cycles). Two rows share each load of x: with one, or with halves of two rows in a vector, loads would be the limit.
 *
 * Cycles of a Zen 5 for a row's run by 8 and 16 tokens, data in the cache: Q6_K 32 and 56, by panels 38 and 60; dots and
 * multiplications alone would be 20 and 40, and unpacking and folding are more than the other two ports take meanwhile. From
 * memory, ns: Q6_K 8.9 and 15.0 instead of 10.9 and 16.8; IQ2_XXS 10.0 and 16.3, IQ2_XS 10.9 and 17.4, IQ2_S 12.0 and 18.6 by
 * fours of tokens and by rows of bytes 13.4 and 16.3, 17.8 and 19.3, 18.4 and 21.5; IQ3_XXS 9.3 and 15.5, IQ3_S 10.0 and 15.6 by
 * rows of bytes 11.8 and 16.7, 12.7 and 17.2. A group of tokens is eight: nine to twelve of Q6_K take less by panels. */
#ifndef QUERN_MATMUL_SUBS_AVX512_H
#define QUERN_MATMUL_SUBS_AVX512_H

#include "matmul_avx512.h"

enum { SUBS_GROUP = 8, SUBS_TOKS = 16, SUBS_ROWS = 32 };

static inline bool by_subs(const struct matmul_job *job)
{
    return job->wide && job->toks <= SUBS_TOKS && job->toks > DECODE_TOKS;
}

/* Two rows' runs: lane l of v[row][0..3] is sixteen columns that share scales[row][l], which ones is the format's to say. */
struct subs_rows {
    __m512i v[2][4], scales[2];
    float   d[2];
};

/* A token's run; x: the columns of v, init: so that all lanes' dots begin with -offset * sum of x where their scale is. */
struct subs_token {
    int8_t  x[4][64];
    int32_t init[16];
} __attribute__((aligned(64)));

/* What a format brings, inlined where all of it is constant. x, sums: the token's 256 columns and their sums per 16. */
struct subs {
    void (*load)(struct subs_rows *out, const uint8_t *first, const uint8_t *second);
    void (*token)(struct subs_token *out, const int8_t *x, const int16_t *sums);
};

/* Totals of two rows and eight tokens lie in a vector as [first row: tokens 0 to 3 | second | first row: 4 to 7 | second]. */
struct subs_group {
    struct subs_token token[SUBS_GROUP];     /* those that are missing: the last one again */
    float             dx[4][4];              /* as totals lie                              */
} __attribute__((aligned(64)));

struct subs_scratch {
    float             acc[SUBS_TOKS / SUBS_GROUP][SUBS_ROWS / 2][16];
    float             nothing[16];           /* where goes what nobody wants               */
    struct subs_group group[];               /* [run][group]                               */
};

/* ---- a token's side ---- */

/* Lane l: sixteen columns, the sub-block order[l]; vector k: their columns 4 k to 4 k + 3. */
static ALWAYS_INLINE void subs_token_in_order(struct subs_token *to, const int8_t *x, const int16_t *sums, const uint8_t order[16],
                                              const struct panel_shape shape)
{
    const __m128i *unit = (const __m128i *)x;
    const __m512i lanes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)order));
    __m512i u[4];
    for (int i = 0; i < 4; i++) {            /* lane p of 128 bits: sub-block order[4 p + i] */
        u[i] = _mm512_castsi128_si512(_mm_loadu_si128(unit + order[i]));
        u[i] = _mm512_inserti32x4(u[i], _mm_loadu_si128(unit + order[4 + i]), 1);
        u[i] = _mm512_inserti32x4(u[i], _mm_loadu_si128(unit + order[8 + i]), 2);
        u[i] = _mm512_inserti32x4(u[i], _mm_loadu_si128(unit + order[12 + i]), 3);
    }
    transpose_4x4(u, u);
    for (int k = 0; k < 4; k++)
        _mm512_store_si512(to->x[k], u[k]);
    __m512i sum = _mm512_permutexvar_epi32(lanes, _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)sums)));
    _mm512_store_si512(to->init, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-(int)shape.offset)));
}

static ALWAYS_INLINE void arrange_subs(struct subs_scratch *scratch, const struct matmul_job *job, const struct subs subs)
{
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    struct subs_group *group = scratch->group;
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++)
        for (size_t first = 0; first < job->toks; first += SUBS_GROUP, group++)
            for (size_t i = 0; i < SUBS_GROUP; i++) {
                const size_t tok = first + i < job->toks ? first + i : job->toks - 1;
                const uint8_t *act = (const uint8_t *)job->acts + tok * job->act_stride;
                const void *sums = act + layout.sums + run * 32;
                subs.token(&group->token[i], (const int8_t *)act + run * PANEL_COLS, sums);
                memcpy(&group->dx[i / 4 * 2][i % 4], act + layout.scales + run * 4, 4);
                group->dx[i / 4 * 2 + 1][i % 4] = group->dx[i / 4 * 2][i % 4];
            }
}

/* ---- rows by a format's unpacker ---- */

/* The sub-block of sixteen columns in lane 4 p + i: what an unpacker has in lane p of 128 bits of its vector i. */
static const uint8_t subs_order_plain[16] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
static const uint8_t subs_order_quarters[16] = { 0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15 };

static ALWAYS_INLINE const uint8_t *subs_order(const struct panel_shape shape)
{
    return shape.order == ORDER_QUARTERS ? subs_order_quarters : subs_order_plain;
}

static ALWAYS_INLINE void subs_of_run(struct subs_rows *out, int row, const uint8_t *bytes, run_fn *unpack,
                                      const struct panel_shape shape)
{
    struct run w;
    unpack(&w, bytes);
    transpose_4x4(out->v[row], w.q);
    __m128i scale = _mm_loadu_si128((const __m128i *)subs_order(shape));
    if (shape.sub == 32)
        scale = _mm_and_si128(_mm_srli_epi16(scale, 1), _mm_set1_epi8(7));
    out->scales[row] = _mm512_cvtepi8_epi32(_mm_shuffle_epi8(w.scales, scale));
    out->d[row] = _cvtsh_ss((unsigned short)w.d) * shape.factor;
}

/* ---- folding ---- */

/* Instructions of which compilers would make rows of their own stay where they are. */
static ALWAYS_INLINE __m512i here(__m512i value)
{
    __asm__ volatile("" : "+v"(value));
    return value;
}

/* The products of two rows and eight tokens on their way to one vector of sums, a quarter of the tokens behind the dots. */
struct subs_fold {
    __m512i      p[2][2];                    /* [row][token]: a quarter's                                     */
    __m512i      ab[2], cd[2];               /* of a row: of the first two of four tokens, of the others      */
    __m512i      half, last;                 /* of both rows: of the first four tokens, of the others         */
    __m512i      high;
    __m512       d;                          /* where `last` belongs: both rows' d as totals lie, the tokens' */
    const float *dx;
    float       *acc;
};

/* Two vectors to one with half as many parts of each sum, in three instructions. */
enum fold_how { FOLD_DWORDS, FOLD_QWORDS, FOLD_HALVES, FOLD_LANES };

static ALWAYS_INLINE void fold_third(struct subs_fold *f, __m512i *to, __m512i a, __m512i b, enum fold_how how, int third)
{
    if (third == 2)
        *to = here(_mm512_add_epi32(*to, f->high));
    else if (third == 0)
        f->high = here(how == FOLD_DWORDS   ? _mm512_unpackhi_epi32(a, b)
                       : how == FOLD_QWORDS ? _mm512_unpackhi_epi64(a, b)
                       : how == FOLD_HALVES ? _mm512_shuffle_i32x4(a, b, 0xee)
                                            : _mm512_shuffle_i32x4(a, b, 0xdd));
    else
        *to = here(how == FOLD_DWORDS   ? _mm512_unpacklo_epi32(a, b)
                   : how == FOLD_QWORDS ? _mm512_unpacklo_epi64(a, b)
                   : how == FOLD_HALVES ? _mm512_shuffle_i32x4(a, b, 0x44)
                                        : _mm512_shuffle_i32x4(a, b, 0x88));
}

/* Step i of 16 while quarter `quarter` of a group's tokens is multiplied; the quarter before it waits in p. */
static ALWAYS_INLINE void fold_step(struct subs_fold *f, int quarter, int i)
{
    const int row = i / 3 % 2, third = i % 3;
    const bool even = quarter % 2 == 0;
    if (i < 6)
        fold_third(f, even ? &f->cd[row] : &f->ab[row], f->p[row][0], f->p[row][1], FOLD_DWORDS, third);
    else if (even && i < 12)
        fold_third(f, &f->cd[row], f->ab[row], f->cd[row], FOLD_QWORDS, third);
    else if (even && i < 15)
        fold_third(f, quarter ? &f->half : &f->last, f->cd[0], f->cd[1], FOLD_HALVES, third);
    else if (quarter == 1 && i < 9)
        fold_third(f, &f->last, f->half, f->last, FOLD_LANES, third);
    else if (quarter == 1 && i == 9)
        _mm512_store_ps(f->acc, _mm512_fmadd_ps(_mm512_mul_ps(f->d, _mm512_load_ps(f->dx)), _mm512_cvtepi32_ps(f->last),
                                                _mm512_load_ps(f->acc)));
}

/* ---- products ---- */

static ALWAYS_INLINE void subs_quarter(struct subs_fold *f, int quarter, const struct subs_rows *w, const struct subs_token *token)
{
    __m512i sum[2][2];
    UNROLL_ALL
    for (int t = 0; t < 2; t++)
        sum[0][t] = sum[1][t] = settled(_mm512_load_si512(token[t].init));
    UNROLL_ALL
    for (int k = 0; k < 4; k++) {
        UNROLL_ALL
        for (int t = 0; t < 2; t++) {
            const __m512i x = here(_mm512_load_si512(token[t].x[k]));
            sum[0][t] = here(dot_64(sum[0][t], w->v[0][k], x));
            fold_step(f, quarter, 4 * k + 2 * t);
            sum[1][t] = here(dot_64(sum[1][t], w->v[1][k], x));
            fold_step(f, quarter, 4 * k + 2 * t + 1);
        }
    }
    UNROLL_ALL
    for (int t = 0; t < 2; t++) {
        f->p[0][t] = here(_mm512_mullo_epi32(sum[0][t], w->scales[0]));
        f->p[1][t] = here(_mm512_mullo_epi32(sum[1][t], w->scales[1]));
    }
}

/* A group's tokens; the group before it has then been added to where it belongs. */
static ALWAYS_INLINE void subs_eight(struct subs_fold *f, const struct subs_rows *w, __m512 d, const struct subs_group *group,
                                     float *acc)
{
    subs_quarter(f, 0, w, group->token);
    subs_quarter(f, 1, w, group->token + 2);
    f->d = d;
    f->dx = group->dx[0];
    f->acc = acc;
    subs_quarter(f, 2, w, group->token + 4);
    subs_quarter(f, 3, w, group->token + 6);
}

/* What is still on its way to its end. */
static ALWAYS_INLINE void subs_finish(struct subs_fold *f, float *nothing)
{
    UNROLL_ALL
    for (int i = 0; i < 15; i++)
        fold_step(f, 0, i);
    UNROLL_ALL
    for (int i = 6; i < 10; i++)
        fold_step(f, 1, i);
    f->acc = nothing;
}

/* Runs [begin, end) of a tile's rows, two at a time; the last one twice where it is alone. One loop, not two, between which
 * compilers would put what is folded aside. */
static ALWAYS_INLINE void subs_runs(struct subs_fold *f, struct requests *ahead, const struct matmul_job *job,
                                    struct subs_scratch *scratch, const uint8_t *first, size_t rows, struct row_range runs,
                                    const struct subs subs, const struct panel_shape shape)
{
    const size_t groups = (job->toks + SUBS_GROUP - 1) / SUBS_GROUP;
    size_t second = rows > 1 ? job->row_bytes : 0;
#pragma GCC unroll 1
    for (size_t r = 0, run = runs.begin; r < rows;) {
        const uint8_t *from = first + r * job->row_bytes + run * shape.bytes;
        const struct subs_group *group = scratch->group + run * groups;
        struct subs_rows w;
        ask_next(ahead, 2 * shape.bytes);
        subs.load(&w, from, from + second);
        const __m512 d = _mm512_mask_mov_ps(_mm512_set1_ps(w.d[0]), 0xf0f0, _mm512_set1_ps(w.d[1]));
#pragma GCC unroll 1
        for (size_t g = 0; g < groups; g++)
            subs_eight(f, &w, d, &group[g], scratch->acc[g][r / 2]);
        if (++run == runs.end) {
            run = runs.begin;
            r += 2;
            second = r + 1 < rows ? job->row_bytes : 0;
        }
    }
}

static ALWAYS_INLINE void subs_store(const struct matmul_job *job, const struct subs_scratch *scratch, size_t row, size_t rows)
{
    for (size_t first = 0; first < job->toks; first += SUBS_GROUP)
        for (size_t r = 0; r < rows; r += PANEL_ROWS) {
            __m512 v[SUBS_GROUP], out[SUBS_GROUP];
            transpose_16x8(v, (const float (*)[8])scratch->acc[first / SUBS_GROUP][r / 2]);
            for (size_t i = 0; i < 4; i++) { /* v[i]: even rows, v[4 + i]: odd ones; tokens i and 4 + i in turn */
                out[i] = _mm512_mask_moveldup_ps(v[i], 0xaaaa, v[4 + i]);
                out[4 + i] = _mm512_mask_movehdup_ps(v[4 + i], 0x5555, v[i]);
            }
            for (size_t i = 0; i < SUBS_GROUP && first + i < job->toks; i++)
                _mm512_mask_storeu_ps(job->out + (first + i) * job->out_stride + row + r, lanes_16(rows - r), out[i]);
        }
}

/* Runs that a tile's rows go through together, so that the tokens' side stays in the first-level cache beside the weights: of rows
 * of 8192 columns by 8 and 16 tokens all at once would take 23 and 31 ns, not 9.7 and 15.4. */
static inline size_t subs_chunk(size_t runs, size_t groups)
{
    const size_t bytes = runs * groups * sizeof(struct subs_group), most = 16 << 10, pieces = (bytes + most - 1) / most;
    return (runs + pieces - 1) / pieces;
}

/* All rows of a call. */
static ALWAYS_INLINE void subs_format(const struct matmul_job *job, struct row_range all, struct subs_scratch *scratch,
                                      const struct subs subs, const struct panel_shape shape)
{
    const size_t runs = job->cols / PANEL_COLS, groups = (job->toks + SUBS_GROUP - 1) / SUBS_GROUP;
    const size_t chunk = subs_chunk(runs, groups), soon = all.end + job->rows_soon;
    struct requests ahead = requests_for(job, all.begin, SUBS_ROWS, soon);
    struct subs_fold fold;

    if (!job->kept)
        arrange_subs(scratch, job, subs);
    if (!job->asked)
        ask_next(&ahead, SIZE_MAX / 2);
    memset(&fold, 0, sizeof fold);
    fold.dx = fold.acc = scratch->nothing;
    for (size_t row = all.begin; row < all.end; row += SUBS_ROWS) {
        const size_t rows = all.end - row < SUBS_ROWS ? all.end - row : SUBS_ROWS;
        const uint8_t *first = (const uint8_t *)job->weights + row * job->row_bytes;
        ahead = requests_for(job, row + SUBS_ROWS, SUBS_ROWS, soon);
        memset(scratch->acc, 0, groups * sizeof scratch->acc[0]);
        for (size_t run = 0; run < runs; run += chunk) {
            const struct row_range some = { run, run + chunk < runs ? run + chunk : runs };
            subs_runs(&fold, &ahead, job, scratch, first, rows, some, subs, shape);
        }
        subs_finish(&fold, scratch->nothing);
        subs_store(job, scratch, row, rows);
    }
}

#endif
