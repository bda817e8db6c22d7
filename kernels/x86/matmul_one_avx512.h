/* matmul_one_avx512.h - the product of a super format with one token on AVX-512, in the order of the weights' addresses.
 *
 * A call's rows are two halves, and the n-th rows of both pass by together, each from its first byte to its last: two streams, far
 * apart, which is what the machine's own prefetchers follow. Q6_K on a Zen 4, share of what one core reads: two streams 95 %, one
 * row at a time 90, two or four neighbours side by side 27 and 24 (streams in one page are not told apart), with requests of ours
 * for later lines 50 to 83, decode_rows 80 (of 4096 columns; of 2048 both 88). It serves the formats that gain by it:
 * kernels/README.md says which others were measured. Two rows at a time also halve the loads of the activations.
 *
 * What a row needs from its neighbours waits in scratch until 16 have passed, eight of each half: a run's sum is left in four
 * parts, which then are turned so that lanes are rows. The sums are those of panel.h, to the bit. */
#ifndef QUERN_MATMUL_ONE_AVX512_H
#define QUERN_MATMUL_ONE_AVX512_H

#include "matmul_avx512.h"

/* The token's run, x in the format's order of columns. */
struct one_run {
    __m512i          x[4];
    struct token_run token;
};

/* What 16 rows leave in a run: row r's four parts stand at r % 4 * 4 + r / 4, so that a vector's lanes of 128 bits are rows four
 * apart, as sum_lanes wants them. */
struct one_sums {
    int32_t  total[PANEL_ROWS][4];
    uint32_t d[PANEL_ROWS];                  /* rows in order                                */
};

/* As many runs as a row has, then as many sums. */
struct one_scratch {
    uint8_t        copy[2][PANEL_COLS];      /* two rows' padded runs                        */
    struct one_run run[];
};

/* Bytes per column that this takes in scratch. The few padded runs fit the scratch of any product. */
enum { ONE_SCRATCH_PER_COL = (sizeof(struct one_run) + sizeof(struct one_sums) + PANEL_COLS - 1) / PANEL_COLS };

/* Longer rows than these are left to decode_rows where memory is the limit: with 8192 columns Q6_K reads 50 % instead of 90, with
 * 4096 it reads 91 instead of 80, with 2048 both 88 (bench/results/2026-11-21-decode-types.md). */
enum { ONE_COLS = 4096 };

/* Row r's run at `bytes`. */
static ALWAYS_INLINE void one_run_of_row(struct one_sums *out, size_t r, const uint8_t *bytes, const __m512i x[4],
                                         const struct token_run *token, run_fn *unpack, const struct panel_shape shape)
{
    struct run w;
    unpack(&w, bytes);
    __m512i total = shape.narrow ? dot_super_narrow(&w, x, token, shape) : dot_super_wide(&w, x, token, shape);
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(total), _mm512_extracti64x4_epi64(total, 1));
    __m128i quarter = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_si128((__m128i *)out->total[r % 4 * 4 + r / 4], quarter);
    out->d[r] = w.d;
}

/* Two rows, the r-th and the 8 + r-th in scratch, from end to end. */
static ALWAYS_INLINE void one_pair_of_rows(const struct matmul_job *job, const size_t rows[2], size_t r,
                                           struct one_scratch *scratch, struct one_sums *sums, size_t runs, run_fn *unpack,
                                           const struct panel_shape shape)
{
    const uint8_t *from[2] = { (const uint8_t *)job->weights + rows[0] * job->row_bytes,
                               (const uint8_t *)job->weights + rows[1] * job->row_bytes };
    for (size_t run = 0; run < runs; run++) {
        const struct one_run *x = &scratch->run[run];
        const __m512i v[4] = { x->x[0], x->x[1], x->x[2], x->x[3] };
        UNROLL_ALL
        for (size_t i = 0; i < 2; i++)
            one_run_of_row(&sums[run], r + 8 * i, whole_run(scratch->copy[i], from[i], run, job, shape.bytes), v, &x->token, unpack,
                           shape);
    }
}

static ALWAYS_INLINE __m512 one_finish(const struct one_sums *sums, const struct one_run *x, size_t runs,
                                       const struct panel_shape shape)
{
    __m512 acc = _mm512_setzero_ps();
    for (size_t run = 0; run < runs; run++) {
        const int32_t (*total)[4] = sums[run].total;
        __m512i rows = sum_lanes(_mm512_loadu_si512(total), _mm512_loadu_si512(total + 4), _mm512_loadu_si512(total + 8),
                                 _mm512_loadu_si512(total + 12));
        __m512 d = _mm512_mul_ps(scales_of(sums[run].d, false, shape.factor), _mm512_set1_ps(x[run].token.dx[0]));
        acc = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(rows), acc);
    }
    return acc;
}

/* All rows of a call with its one token; a super format without minimums. */
static ALWAYS_INLINE void one_format(const struct matmul_job *job, struct row_range all, struct one_scratch *scratch,
                                     run_fn *unpack, const struct panel_shape shape)
{
    const size_t runs = (job->cols + PANEL_COLS - 1) / PANEL_COLS, middle = all.begin + (all.end - all.begin + 1) / 2;
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    struct one_sums *sums = (struct one_sums *)(void *)(scratch->run + runs);
    for (size_t run = 0; run < runs; run++) {
        token_run_init(&scratch->run[run].token, job->acts, &layout, run, shape);
        load_acts(scratch->run[run].x, (const int8_t *)job->acts + run * PANEL_COLS, shape.order);
    }
    memset(sums, 0, runs * sizeof *sums);    /* of a last tile's missing rows, which are summed too */
    for (size_t first = all.begin, second = middle; first < middle; first += 8, second += 8) {
        const size_t firsts = middle - first < 8 ? middle - first : 8;
        const size_t seconds = second >= all.end ? 0 : all.end - second < 8 ? all.end - second : 8;
        for (size_t r = 0; r < firsts; r++) {   /* where the second half is a row shorter, one is multiplied twice */
            const size_t rows[2] = { first + r, r < seconds ? second + r : first + r };
            one_pair_of_rows(job, rows, r, scratch, sums, runs, unpack, shape);
        }
        __m512 acc = one_finish(sums, scratch->run, runs, shape);
        /* whole vectors: compilers join an extraction and a masked store to one instruction that touches what is masked out */
        _mm512_mask_storeu_ps(job->out + first, (__mmask16)(0xff >> (8 - firsts)), acc);
        if (seconds)
            _mm512_mask_storeu_ps(job->out + second, (__mmask16)(0xff >> (8 - seconds)), _mm512_shuffle_f32x4(acc, acc, 0xee));
    }
}

#endif
