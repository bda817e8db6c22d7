#include "x86.h"

#include "apart.h"
#include "matmul_float.h"
#include "vector_avx512.h"

#include <stdbool.h>
#include <string.h>

/* Products of F32, F16 and BF16 weights with f32 activations.
 *
 * The order of sums, the same for every batch: within a run of 512 columns, lane l of 16 adds columns l, 16 + l, ... by FMA; the
 * lanes are summed by the tree of sum_16_vectors, whose shuffles take turns with the FMAs; runs are added in order. (Runs of 256,
 * twice the trees, were 7 % slower.) Sixteen accumulators are two runs of 8 rows by 1 token, or 8 rows by 2 tokens, or 4 by 4.
 *
 * Large batches go by blocks of 64 rows: their run of 512 columns, eight rows at a time, is put together in the first-level cache
 * and multiplied with all tokens, so that a long row's activations are not read again from afar for every four rows. Weights stay
 * as narrow as they are and are widened for every four tokens, which hides behind the FMAs; as floats they took more of that cache
 * than the conversions took time. Below, four rows straight from the weights for every four tokens. Zen 4, F16, Gop/s, FMA peak
 * 117, weights in cache: 108 with 8 to 32 tokens, 106 with 64 and 256 in blocks, with 64 tokens of 8192 columns 107 (straight
 * from the weights 94). */
enum { RUN = 512, BLOCK_ROWS = 64, PANEL_HEIGHT = 8, BLOCK_TOKS = 512, MANY_F32 = 17, MANY_HALVES = 33 };

struct many_scratch {
    float acc[BLOCK_TOKS / 4][BLOCK_ROWS / 4][16];        /* [token group][row group][token][row] */
    uint8_t weights[PANEL_HEIGHT * RUN * sizeof(float)];    /* rows of RUN values, as wide as they are */
};

size_t matmul_float_scratch_avx512(void)
{
    return sizeof(struct many_scratch);
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
                                  int toks, int vectors, bool part, enum width width, struct ahead ahead)
{
    __m512 v[4][8];
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        UNROLL_ALL
        for (int i = 0; i < vectors; i++)
            v[t][i] = _mm512_loadu_ps(x[t] + c + 16 * i);
    UNROLL_ALL
    for (int r = 0; r < rows; r++) {
        for (size_t i = 0; i < 16 * (size_t)vectors * value_bytes(width); i += 64) {
            if (ahead.tile)
                _mm_prefetch((const char *)w[r] + ahead.tile + c * value_bytes(width) + i, _MM_HINT_T1);
            if (ahead.run)
                _mm_prefetch((const char *)w[r] + ahead.run + c * value_bytes(width) + i, _MM_HINT_T1);
        }
        UNROLL_ALL
        for (int i = 0; i < vectors; i++) {
            __m512 u = load_16(w[r] + (c + 16 * (size_t)i) * value_bytes(width), part, part ? lanes_16(left - c) : 0, width);
            UNROLL_ALL
            for (int t = 0; t < toks; t++)
                acc[t * rows + r] = _mm512_fmadd_ps(u, v[t][i], acc[t * rows + r]);
        }
    }
}

/* Sum of one run: 16 accumulators, index token * rows + row. `left` columns from here to the row's end. Several vectors of a row
 * are taken at once: rows are often a power of two apart, so that sixteen of them share a set of the first-level cache, and a line
 * would be gone before its second half is asked for. */
static ALWAYS_INLINE __m512 run_16(const uint8_t *const *w, const float *const *x, size_t left, int rows, int toks,
                                   enum width width, struct ahead ahead)
{
    const int vectors = toks == 4 ? 1 : 4;
    __m512 acc[16];
    UNROLL_ALL
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
                                 int toks, enum width width)
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
        UNROLL_ALL
        for (int i = 0; i < 16; i++)
            parts[i] = _mm512_setzero_ps();
        UNROLL_ALL
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

/* A run of up to eight rows, one after the other; a row past the last repeats it. */
static ALWAYS_INLINE void copy_panel(uint8_t *to, const struct matmul_job *job, size_t row, size_t rows, size_t run,
                                     enum width width)
{
    const size_t left = job->cols - run;
    for (size_t r = 0; r < PANEL_HEIGHT; r++, to += RUN * value_bytes(width)) {
        const uint8_t *from = (const uint8_t *)job->weights + (row + (r < rows ? r : rows - 1)) * job->row_bytes
                              + run * value_bytes(width);
        if (left >= RUN)
#pragma GCC unroll 4
            for (size_t i = 0; i < RUN * value_bytes(width); i += 64)
                _mm512_store_si512(to + i, _mm512_loadu_si512(from + i));
        else
            memcpy(to, from, left * value_bytes(width));
    }
}

/* The panel's rows by four tokens from tok on, a token past the last repeats it. */
static ALWAYS_INLINE void multiply_panel(struct many_scratch *scratch, float (*acc)[16], const struct matmul_job *job, size_t tok,
                                         size_t run, enum width width)
{
    const float *x[4];
    for (size_t t = 0; t < 4; t++) {
        size_t which = tok + t < job->toks ? tok + t : job->toks - 1;
        x[t] = (const float *)(const void *)((const char *)job->acts + which * job->act_stride) + run;
    }
    for (size_t r = 0; r < PANEL_HEIGHT / 4; r++) {
        const uint8_t *w[4];
        for (size_t i = 0; i < 4; i++)
            w[i] = scratch->weights + (4 * r + i) * RUN * value_bytes(width);
        __m512 sums = run_16(w, x, job->cols - run, 4, 4, width, (struct ahead){ 0, 0 });
        _mm512_storeu_ps(acc[r], _mm512_add_ps(_mm512_loadu_ps(acc[r]), sums));
    }
}

/* A run of up to 64 rows by all tokens. */
static ALWAYS_INLINE void multiply_run(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                       size_t tok, size_t toks, size_t run, struct soon soon, enum width width)
{
    const size_t tok_groups = (toks + 3) / 4, calls = (rows + PANEL_HEIGHT - 1) / PANEL_HEIGHT * tok_groups;
    const size_t share = (soon.rows * soon.lines + calls - 1) / calls;
    for (size_t r = 0; r < rows; r += PANEL_HEIGHT) {
        copy_panel(scratch->weights, job, row + r, rows - r, run, width);
        for (size_t g = 0; g < tok_groups; g++) {
            ask(&soon, share);
            multiply_panel(scratch, &scratch->acc[g][r / 4], job, tok + 4 * g, run, width);
        }
    }
}

/* `more`: so many rows follow that are likely next. */
static ALWAYS_INLINE void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows,
                                         size_t tok, size_t toks, size_t more, enum width width)
{
    const uint8_t *first = (const uint8_t *)job->weights + row * job->row_bytes;
    memset(scratch->acc, 0, (toks + 3) / 4 * sizeof scratch->acc[0]);
    for (size_t run = 0; run < job->cols; run += RUN) {
        struct soon soon = { first + (run + RUN) * value_bytes(width), job->row_bytes, rows, RUN * value_bytes(width) / 64, 0 };
        if (run + RUN >= job->cols) {
            soon.row = first + rows * job->row_bytes;
            soon.rows = more < BLOCK_ROWS ? more : BLOCK_ROWS;
        }
        multiply_run(scratch, job, row, rows, tok, toks, run, soon, width);
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
            for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS) {
                const size_t rows = row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS;
                multiply_block(scratch, job, row, rows, tok, job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS,
                               row_end - row - rows + job->rows_soon, width);
            }
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
