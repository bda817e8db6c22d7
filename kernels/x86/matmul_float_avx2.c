#include "x86.h"

#include "apart.h"
#include "matmul_float.h"
#include "vector_avx2.h"

#include <stdbool.h>
#include <string.h>

/* Products of F32, F16 and BF16 weights with f32 activations.
 *
 * The order of sums, the same for every batch: within a run of 512 columns, lane l of 8 adds columns l, 8 + l, ... by FMA; the
 * lanes are summed by the tree of sum_4_vectors, then the halves; runs are added in order.
 *
 * 4 rows by 3 tokens are twelve accumulators (two FMAs a cycle of latency four want eight), three vectors of activations and one
 * of weights, sixteen registers in all; seven loads for twelve FMAs. The weights of eight rows by a run are widened to f32 for them
 * once, 16 KiB, which stay in the first-level cache while the tokens pass by. Below MANY tokens that does not pay: 4 rows by 2
 * straight from the weights (by 3 there is no register left to widen in, and it is slower than by 2).
 * A Zen 4 core, FMA peak 117 Gop/s, weights in cache, F16: 88 with 4 and 8 tokens, 90 with 12, 95 with 16, 107 with 64. */
enum { RUN = 512, MICRO_ROWS = 4, MICRO_TOKS = 3, DIRECT_TOKS = 2, PANEL_HEIGHT = 8, BLOCK_ROWS = 64, BLOCK_TOKS = 512, MANY = 13,
       MANY_BF16 = 9 };

struct many_scratch {
    float acc[BLOCK_TOKS + MICRO_TOKS][BLOCK_ROWS];
    float weights[PANEL_HEIGHT][RUN];
};

size_t matmul_float_scratch_avx2(void)
{
    return sizeof(struct many_scratch);
}

/* Eight values, those from n on zero. */
static ALWAYS_INLINE __m256 load_values(const uint8_t *from, size_t n, enum width width)
{
    if (width == WIDTH_F32)
        return load_8((const float *)(const void *)from, n);
    return width == WIDTH_F16 ? _mm256_cvtph_ps(load_8_halves(from, n)) : widen_bf16(load_8_halves(from, n));
}

/* acc[t][r] += 8 columns. n: of them there, as for load_values. */
static ALWAYS_INLINE void step(__m256 acc[MICRO_TOKS][MICRO_ROWS], const uint8_t *const *w, const float *const *x, size_t c,
                               size_t n, int toks, enum width width)
{
    __m256 v[MICRO_TOKS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        v[t] = _mm256_loadu_ps(x[t] + c);
    UNROLL_ALL
    for (int r = 0; r < MICRO_ROWS; r++) {
        __m256 u = load_values(w[r] + c * value_bytes(width), n, width);
        UNROLL_ALL
        for (int t = 0; t < toks; t++)
            acc[t][r] = _mm256_fmadd_ps(u, v[t], acc[t][r]);
    }
}

/* Sums of one run, four rows of each token. `left` columns from here to the row's end. */
static ALWAYS_INLINE void micro(__m128 *sums, const uint8_t *const *w, const float *const *x, size_t left,
                                int toks, enum width width)
{
    __m256 acc[MICRO_TOKS][MICRO_ROWS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        acc[t][0] = acc[t][1] = acc[t][2] = acc[t][3] = _mm256_setzero_ps();
    if (left >= RUN)
#pragma GCC unroll 4
        for (size_t c = 0; c < RUN; c += 8)
            step(acc, w, x, c, 8, toks, width);
    else
#pragma GCC unroll 1
        for (size_t c = 0; c < left; c += 8)
            step(acc, w, x, c, left - c, toks, width);
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        __m256 four = sum_4_vectors(acc[t][0], acc[t][1], acc[t][2], acc[t][3]);
        sums[t] = _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
    }
}

/* Where the run of `toks` tokens from tok on stands: x; a token past the last repeats it. */
static ALWAYS_INLINE void tokens_at(const float **x, const struct matmul_job *job, size_t tok, size_t run, size_t toks)
{
    for (size_t t = 0; t < toks; t++) {
        size_t which = tok + t < job->toks ? tok + t : job->toks - 1;
        x[t] = (const float *)(const void *)((const char *)job->acts + which * job->act_stride) + run;
    }
}

/* Columns [from, to) of eight rows by one token; `whole`: a multiple of eight. */
static ALWAYS_INLINE void add_columns(__m256 acc[APART_ROWS], const uint8_t *const w[APART_ROWS], const float *x, size_t from,
                                      size_t to, bool whole, enum width width)
{
    UNROLL_ALL
    for (int r = 0; r < APART_ROWS; r++)
#pragma GCC unroll 4
        for (size_t c = from; c < to; c += 8)
            acc[r] = _mm256_fmadd_ps(load_values(w[r] + c * value_bytes(width), whole ? 8 : to - c, width), _mm256_loadu_ps(x + c),
                                     acc[r]);
}

/* Eight rows far apart by one token (apart.h), 256 bytes of a row at once. */
static ALWAYS_INLINE void eight_rows(float sums[APART_ROWS], const struct matmul_job *job, const uint8_t *const w[APART_ROWS],
                                     int width)
{
    const float *x = (const float *)(const void *)job->acts;
    const size_t step = 256 / value_bytes(width);
    __m256 total = _mm256_setzero_ps();
    for (size_t run = 0; run < job->cols; run += RUN) {
        __m256 acc[APART_ROWS];
        UNROLL_ALL
        for (int r = 0; r < APART_ROWS; r++)
            acc[r] = _mm256_setzero_ps();
        if (job->cols - run >= RUN)
            for (size_t c = run; c < run + RUN; c += step)
                add_columns(acc, w, x, c, c + step, true, width);
        else
            add_columns(acc, w, x, run, job->cols, false, width);
        total = _mm256_add_ps(total, sum_8_vectors(acc));
    }
    _mm256_storeu_ps(sums, total);
}

/* Up to four rows (a row past the end repeats the last one) by two tokens straight from the weights. */
static ALWAYS_INLINE void direct(const struct matmul_job *job, size_t row, size_t row_end, size_t tok, enum width width)
{
    __m128 acc[DIRECT_TOKS] = { _mm_setzero_ps(), _mm_setzero_ps() };
    for (size_t run = 0; run < job->cols; run += RUN) {
        const uint8_t *w[MICRO_ROWS];
        const float *x[DIRECT_TOKS];
        __m128 sums[DIRECT_TOKS];
        for (size_t r = 0; r < MICRO_ROWS; r++) {
            size_t which = row + r < row_end ? row + r : row_end - 1;
            w[r] = (const uint8_t *)job->weights + which * job->row_bytes + run * value_bytes(width);
            for (size_t i = 0; tok == 0 && i < RUN * value_bytes(width); i += 64)
                _mm_prefetch((const char *)w[r] + MICRO_ROWS * job->row_bytes + i, _MM_HINT_T1);
        }
        tokens_at(x, job, tok, run, DIRECT_TOKS);
        micro(sums, w, x, job->cols - run, DIRECT_TOKS, width);
        for (size_t t = 0; t < DIRECT_TOKS; t++)
            acc[t] = _mm_add_ps(acc[t], sums[t]);
    }
    for (size_t t = 0; t < DIRECT_TOKS && tok + t < job->toks; t++) {
        float four[MICRO_ROWS];
        _mm_storeu_ps(four, acc[t]);
        for (size_t r = 0; r < MICRO_ROWS && row + r < row_end; r++)
            job->out[(tok + t) * job->out_stride + row + r] = four[r];
    }
}

/* A run of up to eight rows as floats, zeros past the rows' end; a row past the last repeats it. */
static ALWAYS_INLINE void widen_panel(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                      size_t run, enum width width)
{
    const size_t left = job->cols - run;
    for (size_t r = 0; r < PANEL_HEIGHT; r++) {
        const uint8_t *from = (const uint8_t *)job->weights + (row + (r < rows ? r : rows - 1)) * job->row_bytes
                              + run * value_bytes(width);
        if (left >= RUN)
#pragma GCC unroll 4
            for (size_t c = 0; c < RUN; c += 8)
                _mm256_storeu_ps(&scratch->weights[r][c], load_values(from + c * value_bytes(width), 8, width));
        else
            for (size_t c = 0; c < left; c += 8)
                _mm256_storeu_ps(&scratch->weights[r][c], load_values(from + c * value_bytes(width), left - c, width));
    }
}

/* Three tokens at a time, and two where that leaves no single one: eight accumulators just fill the latency of two FMAs a cycle
 * (16 tokens, 87 Gop/s with 18 of them multiplied -> 95). */
static inline size_t group_of(size_t left)
{
    return left == 2 || left == 4 ? 2 : MICRO_TOKS;
}

/* acc += the panel of rows from p on by `group` tokens from tok + t on. */
static ALWAYS_INLINE void multiply_group(struct many_scratch *scratch, const struct matmul_job *job, size_t p, size_t tok, size_t t,
                                         size_t group, size_t run)
{
    const float *x[MICRO_TOKS];
    tokens_at(x, job, tok + t, run, MICRO_TOKS);
    for (size_t r = 0; r < PANEL_HEIGHT; r += MICRO_ROWS) {
        const uint8_t *w[MICRO_ROWS];
        __m128 sums[MICRO_TOKS];
        for (size_t i = 0; i < MICRO_ROWS; i++)
            w[i] = (const uint8_t *)scratch->weights[r + i];
        if (group == MICRO_TOKS)
            micro(sums, w, x, job->cols - run, MICRO_TOKS, WIDTH_F32);
        else
            micro(sums, w, x, job->cols - run, 2, WIDTH_F32);
        for (size_t i = 0; i < group; i++) {
            float *to = &scratch->acc[t + i][p + r];
            _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums[i]));
        }
    }
}

/* A run of up to 64 rows by all tokens. */
static ALWAYS_INLINE void multiply_run(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                       size_t tok, size_t toks, size_t run, struct soon soon, enum width width)
{
    const size_t calls = (rows + PANEL_HEIGHT - 1) / PANEL_HEIGHT * ((toks + MICRO_TOKS - 1) / MICRO_TOKS);   /* or one more */
    const size_t share = (soon.rows * soon.lines + calls - 1) / calls;
    for (size_t p = 0; p < rows; p += PANEL_HEIGHT) {
        widen_panel(scratch, job, row + p, rows - p, run, width);
        for (size_t t = 0, group; t < toks; t += group) {
            group = group_of(toks - t);
            ask(&soon, share);
            multiply_group(scratch, job, p, tok, t, group, run);
        }
    }
}

/* `more`: so many rows follow that are likely next. */
static ALWAYS_INLINE void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                         size_t tok, size_t toks, size_t more, enum width width)
{
    const uint8_t *first = (const uint8_t *)job->weights + row * job->row_bytes;
    memset(scratch->acc, 0, (toks + MICRO_TOKS) * sizeof scratch->acc[0]);
    for (size_t run = 0; run < job->cols; run += RUN) {
        struct soon soon = { first + (run + RUN) * value_bytes(width), job->row_bytes, rows, RUN * value_bytes(width) / 64, 0 };
        if (run + RUN >= job->cols) {
            soon.row = first + rows * job->row_bytes;
            soon.rows = more < BLOCK_ROWS ? more : BLOCK_ROWS;
        }
        multiply_run(scratch, job, row, rows, tok, toks, run, soon, width);
    }
    for (size_t t = 0; t < toks; t++)
        memcpy(job->out + (tok + t) * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
}

static ALWAYS_INLINE void matmul_width(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                                       enum width width)
{
    if (job->toks == 1) {
        apart_product(job, row_begin, row_end, eight_rows, (int)width);
    } else if (job->toks < (width == WIDTH_BF16 ? MANY_BF16 : MANY)) {
        for (size_t row = row_begin; row < row_end; row += MICRO_ROWS)
            for (size_t tok = 0; tok < job->toks; tok += DIRECT_TOKS)
                direct(job, row, row_end, tok, width);
    } else {
        for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
            for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS) {
                const size_t rows = row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS;
                multiply_block(scratch, job, row, rows, tok, job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS,
                               row_end - row - rows + job->rows_soon, width);
            }
    }
}

void matmul_f32_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_width(job, row_begin, row_end, scratch, WIDTH_F32);
}

void matmul_f16_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_width(job, row_begin, row_end, scratch, WIDTH_F16);
}

void matmul_bf16_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_width(job, row_begin, row_end, scratch, WIDTH_BF16);
}
