#include "x86.h"

#include "apart.h"
#include "vector_avx2.h"

#include <stdbool.h>
#include <string.h>

/* Products of F32, F16 and BF16 weights with f32 activations.
 *
 * The order of sums, the same for every batch: within a run of 256 columns, lane l of 8 adds columns l, 8 + l, ... by FMA; the
 * lanes are summed by the tree of sum_8_vectors; runs are added in order. Eight accumulators are 8 rows by 1 token or 4 by 2. */
enum { RUN = 256, BLOCK_ROWS = 64, BLOCK_TOKS = 512, MANY = 17 };

struct many_scratch {
    float acc[BLOCK_TOKS / 2][BLOCK_ROWS / 4][8];         /* [token group][row group][token][row] */
    float weights[BLOCK_ROWS][RUN];
};

size_t matmul_float_scratch_avx2(void)
{
    return sizeof(struct many_scratch);
}

enum width { WIDTH_F32, WIDTH_F16, WIDTH_BF16 };

static ALWAYS_INLINE size_t value_bytes(enum width width)
{
    return width == WIDTH_F32 ? 4 : 2;
}

/* Eight values, those from n on zero. */
static ALWAYS_INLINE __m256 load_values(const uint8_t *from, size_t n, enum width width)
{
    if (width == WIDTH_F32)
        return load_8((const float *)(const void *)from, n);
    return width == WIDTH_F16 ? _mm256_cvtph_ps(load_8_halves(from, n)) : widen_bf16(load_8_halves(from, n));
}

/* Sum of one run: eight accumulators, index token * rows + row. `left` columns from here to the row's end. */
static ALWAYS_INLINE __m256 run_8(const uint8_t *const *w, const float *const *x, size_t left, int rows, int toks, enum width width)
{
    __m256 acc[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        acc[i] = _mm256_setzero_ps();
#pragma GCC unroll 1
    for (size_t c = 0; c < RUN && c < left; c += 8) {
        __m256 v[2];
#pragma GCC unroll 2
        for (int t = 0; t < toks; t++)
            v[t] = _mm256_loadu_ps(x[t] + c);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m256 u = load_values(w[r] + c * value_bytes(width), left - c, width);
#pragma GCC unroll 2
            for (int t = 0; t < toks; t++)
                acc[t * rows + r] = _mm256_fmadd_ps(u, v[t], acc[t * rows + r]);
        }
    }
    return sum_8_vectors(acc);
}

/* Columns [from, to) of eight rows by one token; `whole`: a multiple of eight. */
static ALWAYS_INLINE void add_columns(__m256 acc[APART_ROWS], const uint8_t *const w[APART_ROWS], const float *x, size_t from,
                                      size_t to, bool whole, enum width width)
{
#pragma GCC unroll 8
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
#pragma GCC unroll 8
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

/* Up to `rows` rows (a row past the end repeats the last one) by `toks` tokens straight from the weights. */
static ALWAYS_INLINE void direct(const struct matmul_job *job, size_t row, size_t row_end, size_t tok, int rows, int toks,
                                 enum width width)
{
    const uint8_t *w[8];
    const float *x[2];
    float sums[8];
    __m256 acc = _mm256_setzero_ps();

    for (size_t run = 0; run < job->cols; run += RUN) {
        for (size_t r = 0; r < (size_t)rows; r++) {
            size_t which = row + r < row_end ? row + r : row_end - 1;
            w[r] = (const uint8_t *)job->weights + which * job->row_bytes + run * value_bytes(width);
            for (size_t i = 0; i < RUN * value_bytes(width); i += 64)
                _mm_prefetch((const char *)w[r] + (size_t)rows * job->row_bytes + i, _MM_HINT_T1);
        }
        for (size_t t = 0; t < (size_t)toks; t++) {
            size_t which = tok + t < job->toks ? tok + t : job->toks - 1;
            x[t] = (const float *)(const void *)((const char *)job->acts + which * job->act_stride) + run;
        }
        acc = _mm256_add_ps(acc, run_8(w, x, job->cols - run, rows, toks, width));
    }
    _mm256_storeu_ps(sums, acc);
    for (size_t t = 0; t < (size_t)toks && tok + t < job->toks; t++)
        for (size_t r = 0; r < (size_t)rows && row + r < row_end; r++)
            job->out[(tok + t) * job->out_stride + row + r] = sums[t * (size_t)rows + r];
}

/* A run of up to 64 rows as floats, in order of rows, zeros past the row's end. */
static ALWAYS_INLINE void widen_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                      size_t run, enum width width)
{
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *from = (const uint8_t *)job->weights + (row + r) * job->row_bytes + run * value_bytes(width);
        size_t left = job->cols - run;
        for (size_t c = 0; c < RUN; c += 8) {
            __m256 v = c < left ? load_values(from + c * value_bytes(width), left - c, width) : _mm256_setzero_ps();
            _mm256_storeu_ps(&scratch->weights[r][c], v);
        }
    }
}

static ALWAYS_INLINE void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                         size_t tok, size_t toks, enum width width)
{
    size_t row_groups = (rows + 3) / 4, tok_groups = (toks + 1) / 2;

    memset(scratch->acc, 0, tok_groups * sizeof scratch->acc[0]);
    for (size_t run = 0; run < job->cols; run += RUN) {
        widen_block(scratch, job, row, rows, run, width);
        for (size_t g = 0; g < tok_groups; g++) {
            const float *x[2];
            for (size_t t = 0; t < 2; t++) {
                size_t which = tok + (2 * g + t < toks ? 2 * g + t : toks - 1);
                x[t] = (const float *)(const void *)((const char *)job->acts + which * job->act_stride) + run;
            }
            for (size_t r = 0; r < row_groups; r++) {
                const uint8_t *w[4];
                for (size_t i = 0; i < 4; i++)
                    w[i] = (const uint8_t *)scratch->weights[4 * r + i < rows ? 4 * r + i : rows - 1];
                float *acc = scratch->acc[g][r];
                _mm256_storeu_ps(acc, _mm256_add_ps(_mm256_loadu_ps(acc), run_8(w, x, job->cols - run, 4, 2, WIDTH_F32)));
            }
        }
    }
    for (size_t t = 0; t < toks; t++)
        for (size_t r = 0; r < rows; r++)
            job->out[(tok + t) * job->out_stride + row + r] = scratch->acc[t / 2][r / 4][t % 2 * 4 + r % 4];
}

static ALWAYS_INLINE void matmul_width(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                                       enum width width)
{
    if (job->toks == 1) {
        apart_product(job, row_begin, row_end, eight_rows, (int)width);
    } else if (job->toks < MANY) {
        for (size_t row = row_begin; row < row_end; row += 4)
            for (size_t tok = 0; tok < job->toks; tok += 2)
                direct(job, row, row_end, tok, 4, 2, width);
    } else {
        for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
            for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS)
                multiply_block(scratch, job, row, row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS, tok,
                               job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS, width);
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
