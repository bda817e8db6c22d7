#include "x86.h"

#include "apart.h"
#include "vector_avx512.h"

#include <stdbool.h>
#include <string.h>

/* Products of F32, F16 and BF16 weights with f32 activations.
 *
 * The order of sums, the same for every batch: within a run of 256 columns, lane l of 16 adds columns l, 16 + l, ... by FMA; the
 * lanes are summed by the tree of sum_16_vectors; runs are added in order. Sixteen accumulators are two runs of 8 rows by 1 token,
 * or 8 rows by 2 tokens, or 4 by 4.
 *
 * Large batches go by blocks of 64 rows widened to f32 once, which no first-level cache holds: below, four rows straight from the
 * weights for every four tokens are faster, with weights of two bytes longer than with f32 (Zen 4, F16, 8, 16 and 64 tokens: 97 to
 * 101 Gop/s instead of 44, 58 and 90, FMA peak 117; F32 with 64 tokens 76 instead of 85). */
enum { RUN = 256, BLOCK_ROWS = 64, BLOCK_TOKS = 512, MANY_F32 = 17, MANY_HALVES = 65 };

struct many_scratch {
    float acc[BLOCK_TOKS / 4][BLOCK_ROWS / 4][16];        /* [token group][row group][token][row] */
    float weights[BLOCK_ROWS][RUN];
};

size_t matmul_float_scratch_avx512(void)
{
    return sizeof(struct many_scratch);
}

enum width { WIDTH_F32, WIDTH_F16, WIDTH_BF16 };

static ALWAYS_INLINE size_t value_bytes(enum width width)
{
    return width == WIDTH_F32 ? 4 : 2;
}

/* Sixteen values; with `part` those beyond the mask are zero and not read. */
static ALWAYS_INLINE __m512 load_16(const uint8_t *from, bool part, __mmask16 mask, enum width width)
{
    if (width == WIDTH_F32)
        return part ? _mm512_maskz_loadu_ps(mask, from) : _mm512_loadu_ps(from);
    __m256i half = part ? _mm256_maskz_loadu_epi16(mask, from) : _mm256_loadu_si256((const __m256i *)(const void *)from);
    if (width == WIDTH_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* How far ahead of the weights in work to ask for lines, in bytes; 0: not at all. The next rows, and for a call's first rows, for
 * which nobody has asked, their own later columns. */
struct ahead { size_t tile, run; };

/* acc += vectors * 16 columns from c on, of which `left` are there. */
static ALWAYS_INLINE void columns(__m512 acc[16], const uint8_t *const *w, const float *const *x, size_t c, size_t left, int rows,
                                  int toks,
                                  int vectors, bool part, enum width width, struct ahead ahead)
{
    __m512 v[4][8];
#pragma GCC unroll 4
    for (int t = 0; t < toks; t++)
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++)
            v[t][i] = _mm512_loadu_ps(x[t] + c + 16 * i);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        for (size_t i = 0; i < 16 * (size_t)vectors * value_bytes(width); i += 64) {
            if (ahead.tile)
                _mm_prefetch((const char *)w[r] + ahead.tile + c * value_bytes(width) + i, _MM_HINT_T1);
            if (ahead.run)
                _mm_prefetch((const char *)w[r] + ahead.run + c * value_bytes(width) + i, _MM_HINT_T1);
        }
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++) {
            __m512 u = load_16(w[r] + (c + 16 * (size_t)i) * value_bytes(width), part, part ? lanes_16(left - c) : 0, width);
#pragma GCC unroll 4
            for (int t = 0; t < toks; t++)
                acc[t * rows + r] = _mm512_fmadd_ps(u, v[t][i], acc[t * rows + r]);
        }
    }
}

/* Sum of one run: 16 accumulators, index token * rows + row. `left` columns from here to the row's end. Several vectors of a row
 * are taken at once: rows are often a power of two apart, so that sixteen of them share a set of the first-level cache, and a line
 * would be gone before its second half is asked for. */
static ALWAYS_INLINE __m512 run_16(const uint8_t *const *w, const float *const *x, size_t left, int rows, int toks,
                                   enum width width,
                                   struct ahead ahead)
{
    const int vectors = toks == 4 ? 1 : 4;
    __m512 acc[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        acc[i] = _mm512_setzero_ps();
    if (left >= RUN) {
#pragma GCC unroll 1
        for (size_t c = 0; c < RUN; c += 16 * (size_t)vectors)
            columns(acc, w, x, c, left, rows, toks, vectors, false, width, ahead);
    } else {
#pragma GCC unroll 1
        for (size_t c = 0; c < left; c += 16)
            columns(acc, w, x, c, left, rows, toks, 1, true, width, (struct ahead){ 0, 0 });
    }
    return sum_16_vectors(acc);
}

/* Up to `rows` rows (a row past the end repeats the last one) by `toks` tokens straight from the weights. */
static ALWAYS_INLINE void direct(const struct matmul_job *job, size_t row, size_t row_begin, size_t row_end, size_t tok, int rows,
                                 int toks,
                                 enum width width)
{
    const uint8_t *w[16];
    const float *x[4];
    float sums[16];
    __m512 acc = _mm512_setzero_ps();
    struct ahead ahead = { .tile = row + (size_t)rows < row_end ? (size_t)rows * job->row_bytes : 0,
                           .run = row == row_begin ? RUN * value_bytes(width) : 0 };

    for (size_t run = 0; run < job->cols; run += RUN) {
        for (size_t r = 0; r < (size_t)rows; r++) {
            size_t which = row + r < row_end ? row + r : row_end - 1;
            w[r] = (const uint8_t *)job->weights + which * job->row_bytes + run * value_bytes(width);
        }
        for (size_t t = 0; t < (size_t)toks; t++) {
            size_t which = tok + t < job->toks ? tok + t : job->toks - 1;
            x[t] = (const float *)(const void *)((const char *)job->acts + which * job->act_stride) + run;
        }
        acc = _mm512_add_ps(acc, run_16(w, x, job->cols - run, rows, toks, width, ahead));
    }
    _mm512_storeu_ps(sums, acc);
    for (size_t t = 0; t < (size_t)toks && tok + t < job->toks; t++)
        for (size_t r = 0; r < (size_t)rows && row + r < row_end; r++)
            job->out[(tok + t) * job->out_stride + row + r] = sums[t * (size_t)rows + r];
}

/* Eight rows far apart by one token (apart.h): two runs of each are the sixteen accumulators, 256 bytes of a row are
 * taken at once. Lanes: rows. */
static ALWAYS_INLINE void eight_rows(float sums[APART_ROWS], const struct matmul_job *job, const uint8_t *const w[APART_ROWS],
                                     int width)
{
    const int vectors = width == WIDTH_F32 ? 4 : 8;
    __m256 acc = _mm256_setzero_ps();
    for (size_t pair = 0; pair < job->cols; pair += 2 * RUN) {
        __m512 parts[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            parts[i] = _mm512_setzero_ps();
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            const float *x = (const float *)(const void *)job->acts;
            const size_t run = pair + half * RUN, left = run < job->cols ? job->cols - run : 0, end = left < RUN ? left : RUN;
            const struct ahead none = { 0, 0 };
            if (left >= RUN) {
#pragma GCC unroll 1
                for (size_t c = run; c < run + RUN; c += 16 * (size_t)vectors)
                    columns(parts + 8 * half, w, &x, c, job->cols, 8, 1, vectors, false, width, none);
            } else {
#pragma GCC unroll 1
                for (size_t c = run; c < run + end; c += 16)
                    columns(parts + 8 * half, w, &x, c, job->cols, 8, 1, 1, true, width, none);
            }
        }
        __m512 both = sum_16_vectors(parts);
        acc = _mm256_add_ps(acc, _mm512_castps512_ps256(both));
        if (pair + RUN < job->cols)
            acc = _mm256_add_ps(acc, _mm512_extractf32x8_ps(both, 1));
    }
    _mm256_storeu_ps(sums, acc);
}

/* A run of up to 64 rows as floats, in order of rows, zeros past the row's end. */
static ALWAYS_INLINE void widen_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                      size_t run,
                                      enum width width)
{
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *from = (const uint8_t *)job->weights + (row + r) * job->row_bytes + run * value_bytes(width);
        size_t left = job->cols - run;
        for (size_t c = 0; c < RUN; c += 16)
            {
            const uint8_t *at = from + c * value_bytes(width);
            __m512 v = c < left ? load_16(at, true, lanes_16(left - c), width) : _mm512_setzero_ps();
            _mm512_storeu_ps(&scratch->weights[r][c], v);
        }
    }
}

static ALWAYS_INLINE void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                         size_t tok,
                                         size_t toks, enum width width)
{
    size_t row_groups = (rows + 3) / 4, tok_groups = (toks + 3) / 4;

    memset(scratch->acc, 0, tok_groups * sizeof scratch->acc[0]);
    for (size_t run = 0; run < job->cols; run += RUN) {
        widen_block(scratch, job, row, rows, run, width);
        for (size_t g = 0; g < tok_groups; g++) {
            const float *x[4];
            for (size_t t = 0; t < 4; t++) {
                size_t which = tok + (4 * g + t < toks ? 4 * g + t : toks - 1);
                x[t] = (const float *)(const void *)((const char *)job->acts + which * job->act_stride) + run;
            }
            for (size_t r = 0; r < row_groups; r++) {
                const uint8_t *w[4];
                for (size_t i = 0; i < 4; i++)
                    w[i] = (const uint8_t *)scratch->weights[4 * r + i < rows ? 4 * r + i : rows - 1];
                float *acc = scratch->acc[g][r];
                __m512 sums = run_16(w, x, job->cols - run, 4, 4, WIDTH_F32, (struct ahead){ 0, 0 });
                _mm512_storeu_ps(acc, _mm512_add_ps(_mm512_loadu_ps(acc), sums));
            }
        }
    }
    for (size_t t = 0; t < toks; t++)
        for (size_t r = 0; r < rows; r++)
            job->out[(tok + t) * job->out_stride + row + r] = scratch->acc[t / 4][r / 4][t % 4 * 4 + r % 4];
}

static ALWAYS_INLINE void matmul_width(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                                       enum width width)
{
    if (job->toks == 1) {
        apart_product(job, row_begin, row_end, eight_rows, (int)width);
    } else if (job->toks == 2) {
        for (size_t row = row_begin; row < row_end; row += 8)
            direct(job, row, row_begin, row_end, 0, 8, 2, width);
    } else if (job->toks < (width == WIDTH_F32 ? MANY_F32 : MANY_HALVES)) {
        for (size_t row = row_begin; row < row_end; row += 4)
            for (size_t tok = 0; tok < job->toks; tok += 4)
                direct(job, row, row_begin, row_end, tok, 4, 4, width);
    } else {
        for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
            for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS)
                multiply_block(scratch, job, row, row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS, tok,
                               job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS, width);
    }
}

void matmul_f32_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_width(job, row_begin, row_end, scratch, WIDTH_F32);
}

void matmul_f16_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_width(job, row_begin, row_end, scratch, WIDTH_F16);
}

void matmul_bf16_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_width(job, row_begin, row_end, scratch, WIDTH_BF16);
}
