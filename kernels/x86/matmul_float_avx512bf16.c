#include "matmul_avx512.h"
#include "apart.h"

/* Products of BF16 weights with BF16 activations (ACT_BF16) by vdpbf16ps: two products per lane and step at the rate of one FMA.
 *
 * Lanes are rows, so that nothing is summed across lanes and activations are broadcasts: 16 rows' columns are transposed, in
 * registers for one token, to a panel for more. The order of sums, the same for every batch: in a run of 256 columns the pairs of
 * columns are added alternately to two sums, each from 0; the run's two sums are added, then the runs in order. Two sums, because
 * one token's would else be a chain of 128 steps of latency. The instruction takes values below FLT_MIN for 0.
 *
 * One microkernel call multiplies two panels (16 KiB, which stay in the first-level cache while the tokens pass by) with up to six
 * tokens: 24 accumulators, two vectors of weights, one of activations. */
enum { PAIRS = PANEL_COLS / 2, PANELS = 2, TOKS = 6, BLOCK_ROWS = 64, BLOCK_PANELS = BLOCK_ROWS / PANEL_ROWS, BLOCK_TOKS = 512,
       FEW = 4 };

/* 16 rows by 256 columns. [c][r]: columns 2c and 2c + 1 of row r. */
struct pair_panel { uint32_t w[PAIRS][PANEL_ROWS]; } __attribute__((aligned(64)));

struct many_scratch {
    float             acc[BLOCK_TOKS + TOKS][BLOCK_ROWS];
    struct pair_panel panels[BLOCK_PANELS];
};

size_t matmul_float_scratch_avx512bf16(void)
{
    return sizeof(struct many_scratch);
}

void act_prepare_bf16_avx512bf16(void *out, const float *x, size_t cols)
{
    const size_t padded = act_layout(ACT_BF16, cols).padded;
    quantize_bf16_avx512(out, x, cols);
    memset((uint16_t *)out + cols, 0, (padded - cols) * sizeof(uint16_t));
}

/* Up to 16 rows, `stride` bytes apart; a row past the last repeats it. */
struct rows_of_16 {
    const uint8_t *first;
    size_t         stride, rows;
};

/* How far ahead of rows in work to ask for lines, in bytes; 0: not at all. The next rows, in the order of their addresses (1 to 5 %
 * better than row by row, and into the second-level cache: into the first 30 % worse), and for a call's first rows, for which
 * nobody has asked, their own later columns as well. */
struct ahead { size_t tile, run; };

/* 32 columns from column c on, `left` of them there (1 to 32 or more): v[i] is pair i of the 16 rows. */
static ALWAYS_INLINE void load_pairs(__m512i v[16], const struct rows_of_16 *from, size_t c, size_t left, struct ahead ahead)
{
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
#pragma GCC unroll 16
    for (size_t r = 0; r < 16; r++) {
        const uint8_t *at = from->first + (r < from->rows ? r : from->rows - 1) * from->stride + 2 * c;
        if (ahead.tile)
            _mm_prefetch((const char *)from->first + ahead.tile + 32 * c + 64 * r, _MM_HINT_T1);
        if (ahead.run)
            _mm_prefetch((const char *)at + ahead.run, _MM_HINT_T1);
        v[r] = _mm512_maskz_loadu_epi16(mask, at);
    }
    transpose_16x16(v);
}

static ALWAYS_INLINE __m512bh broadcast_pair(const uint8_t *x, size_t pair)
{
    int32_t value;
    memcpy(&value, x + 4 * pair, 4);
    return (__m512bh)_mm512_set1_epi32(value);
}

static struct ahead ahead_of(const struct matmul_job *job, size_t row, size_t row_begin, size_t row_end, size_t step)
{
    return (struct ahead){ .tile = row + step < row_end ? step * job->row_bytes : 0,
                           .run = row == row_begin ? 2 * PANEL_COLS : 0 };
}

/* Up to 16 rows by two to four tokens: what a panel would hold stays in registers. */
static ALWAYS_INLINE void few_tokens(const struct matmul_job *job, size_t row, size_t rows, struct ahead ahead, int toks)
{
    const struct rows_of_16 from = { (const uint8_t *)job->weights + row * job->row_bytes, job->row_bytes, rows };
    __m512 acc[FEW];
#pragma GCC unroll 4
    for (int t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();

    for (size_t run = 0; run < job->cols; run += PANEL_COLS) {
        __m512 sum[2][FEW];
#pragma GCC unroll 4
        for (int t = 0; t < toks; t++)
            sum[0][t] = sum[1][t] = _mm512_setzero_ps();
        for (size_t c = run; c < run + PANEL_COLS && c < job->cols; c += 32) {
            __m512i v[16];
            load_pairs(v, &from, c, job->cols - c, ahead);
#pragma GCC unroll 4
            for (int t = 0; t < toks; t++) {
                const uint8_t *x = (const uint8_t *)job->acts + (size_t)t * job->act_stride;
#pragma GCC unroll 16
                for (size_t i = 0; i < 16; i++)
                    sum[i % 2][t] = _mm512_dpbf16_ps(sum[i % 2][t], (__m512bh)v[i], broadcast_pair(x, c / 2 + i));
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < toks; t++)
            acc[t] = _mm512_add_ps(acc[t], _mm512_add_ps(sum[0][t], sum[1][t]));
    }
#pragma GCC unroll 4
    for (int t = 0; t < toks; t++)
        _mm512_mask_storeu_ps(job->out + (size_t)t * job->out_stride + row, lanes_16(rows), acc[t]);
}

/* v[i] lane j becomes v[j] lane i, lanes of 64 bits. */
static ALWAYS_INLINE void transpose_8x8(__m512i v[8])
{
    __m512i a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {          /* even lanes and odd lanes of two rows */
        a[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {             /* i % 2: even or odd lanes; i / 2: rows 0 to 3 or 4 to 7 */
        __m512i p = a[i / 2 * 4 + i % 2], q = a[i / 2 * 4 + 2 + i % 2];
        b[i] = _mm512_shuffle_i64x2(p, q, 0x88);
        b[4 + i] = _mm512_shuffle_i64x2(p, q, 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {             /* b[4h + i]: lanes 2h + i % 2 and 4 above */
        __m512i p = b[i / 2 * 4 + i % 2], q = b[i / 2 * 4 + 2 + i % 2];
        v[i] = _mm512_shuffle_i64x2(p, q, 0x88);
        v[4 + i] = _mm512_shuffle_i64x2(p, q, 0xdd);
    }
}

/* Load a word of each line of TOUCH_BYTES of all rows. */
enum { TOUCH_BYTES = 256 };
static ALWAYS_INLINE void touch_rows(const uint8_t *const w[APART_ROWS], size_t at)
{
#pragma GCC unroll 8
    for (size_t r = 0; r < APART_ROWS; r++)
#pragma GCC unroll 4
        for (size_t i = 0; i < TOUCH_BYTES; i += 64)
            (void)*(const volatile uint8_t *)(w[r] + at + i);
}

/* Eight rows far apart by one token (apart.h). Neighbouring lanes are the two sums of a row, so that four columns of it
 * stay together: eight rows' lines are eight lanes of 64 bits each. A line of every row at a time is less than the machine's
 * prefetchers want (83 % of what one core reads; 2 lines 84, 4 lines 92 to 96, 8 lines 65), hence the touch. */
static ALWAYS_INLINE void eight_rows(float sums[APART_ROWS], const struct matmul_job *job, const uint8_t *const w[APART_ROWS],
                                     int width)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512 acc = _mm512_setzero_ps();
    for (size_t run = 0; run < job->cols; run += PANEL_COLS) {
        __m512 sum = _mm512_setzero_ps();
        for (size_t c = run; c < run + PANEL_COLS && c < job->cols; c += 32) {
            const size_t left = job->cols - c;
            const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
            __m512i v[8];
            if (c % (TOUCH_BYTES / 2) == 0 && left >= TOUCH_BYTES / 2)
                touch_rows(w, 2 * c);
#pragma GCC unroll 8
            for (size_t r = 0; r < 8; r++)
                v[r] = _mm512_maskz_loadu_epi16(mask, w[r] + 2 * c);
            transpose_8x8(v);
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                long long x;
                memcpy(&x, (const uint8_t *)job->acts + 2 * c + 8 * i, 8);
                sum = _mm512_dpbf16_ps(sum, (__m512bh)v[i], (__m512bh)_mm512_set1_epi64(x));
            }
        }
        acc = _mm512_add_ps(acc, _mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1)));
    }
    _mm256_storeu_ps(sums, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, acc)));
    (void)width;
}

static void few(const struct matmul_job *job, size_t row, size_t rows, struct ahead ahead)
{
    if (job->toks == 2)
        few_tokens(job, row, rows, ahead, 2);
    else if (job->toks == 3)
        few_tokens(job, row, rows, ahead, 3);
    else
        few_tokens(job, row, rows, ahead, 4);
}

/* acc[t][0..32) += the two panels times token t's run. */
static ALWAYS_INLINE void micro(float (*acc)[BLOCK_ROWS], const struct pair_panel *p, const uint8_t *const *x, int toks)
{
    __m512 sum[2][PANELS][TOKS];
#pragma GCC unroll 6
    for (int t = 0; t < toks; t++)
        sum[0][0][t] = sum[0][1][t] = sum[1][0][t] = sum[1][1][t] = _mm512_setzero_ps();
#pragma GCC unroll 1
    for (size_t c = 0; c < PAIRS; c += 2)
#pragma GCC unroll 2
        for (size_t i = 0; i < 2; i++) {
            __m512bh w0 = (__m512bh)_mm512_load_si512(p[0].w[c + i]), w1 = (__m512bh)_mm512_load_si512(p[1].w[c + i]);
#pragma GCC unroll 6
            for (int t = 0; t < toks; t++) {
                __m512bh v = broadcast_pair(x[t], c + i);
                sum[i][0][t] = _mm512_dpbf16_ps(sum[i][0][t], w0, v);
                sum[i][1][t] = _mm512_dpbf16_ps(sum[i][1][t], w1, v);
            }
        }
#pragma GCC unroll 6
    for (int t = 0; t < toks; t++) {
        _mm512_storeu_ps(acc[t], _mm512_add_ps(_mm512_loadu_ps(acc[t]), _mm512_add_ps(sum[0][0][t], sum[1][0][t])));
        _mm512_storeu_ps(acc[t] + 16, _mm512_add_ps(_mm512_loadu_ps(acc[t] + 16), _mm512_add_ps(sum[0][1][t], sum[1][1][t])));
    }
}

/* A run of up to 64 rows to panels, an even number of them, the last perhaps empty; gives the number. */
static size_t fill_panels(struct pair_panel *panels, const struct matmul_job *job, size_t row, size_t rows, size_t run,
                          struct ahead ahead)
{
    const size_t count = (rows + PANELS * PANEL_ROWS - 1) / (PANELS * PANEL_ROWS) * PANELS;
    for (size_t p = 0; p < count; p++) {
        const size_t first = p * PANEL_ROWS, left = job->cols - run;
        const struct rows_of_16 from = { (const uint8_t *)job->weights + (row + first) * job->row_bytes, job->row_bytes,
                                         rows < first + PANEL_ROWS ? rows - first : PANEL_ROWS };
        if (first >= rows || left < PANEL_COLS)
            memset(&panels[p], 0, sizeof panels[p]);
        for (size_t c = 0; first < rows && c < PANEL_COLS && c < left; c += 32) {
            __m512i v[16];
            load_pairs(v, &from, run + c, left - c, ahead);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++)
                _mm512_store_si512(panels[p].w[c / 2 + i], v[i]);
        }
    }
    return count;
}

/* The panels of a run against all tokens; an odd batch repeats its last token into a spare row of acc. */
static void multiply_run(struct many_scratch *scratch, const struct matmul_job *job, size_t tok, size_t toks, size_t run,
                         size_t panels)
{
    for (size_t p = 0; p < panels; p += PANELS)
        for (size_t t = 0; t < toks; t += TOKS) {
            const size_t here = toks - t < TOKS ? toks - t : TOKS;
            const uint8_t *x[TOKS];
            for (size_t i = 0; i < TOKS; i++)
                x[i] = (const uint8_t *)job->acts + (tok + t + (i < here ? i : here - 1)) * job->act_stride + 2 * run;
            float (*acc)[BLOCK_ROWS] = (float (*)[BLOCK_ROWS])&scratch->acc[t][p * PANEL_ROWS];
            if (here > 4)
                micro(acc, &scratch->panels[p], x, 6);
            else if (here > 2)
                micro(acc, &scratch->panels[p], x, 4);
            else
                micro(acc, &scratch->panels[p], x, 2);
        }
}

static void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t tok,
                           size_t toks, struct ahead ahead)
{
    memset(scratch->acc, 0, (toks + 1) * sizeof scratch->acc[0]);
    for (size_t run = 0; run < job->cols; run += PANEL_COLS)
        multiply_run(scratch, job, tok, toks, run, fill_panels(scratch->panels, job, row, rows, run, ahead));
    for (size_t t = 0; t < toks; t++)
        memcpy(job->out + (tok + t) * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
}

void matmul_bf16_avx512bf16(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1) {
        apart_product(job, row_begin, row_end, eight_rows, 0);
        return;
    }
    if (job->toks <= FEW) {
        for (size_t row = row_begin; row < row_end; row += PANEL_ROWS)
            few(job, row, row_end - row < PANEL_ROWS ? row_end - row : PANEL_ROWS,
                ahead_of(job, row, row_begin, row_end, PANEL_ROWS));
        return;
    }
    for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
        for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS) {
            const size_t rows = row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS;
            const struct ahead ahead = ahead_of(job, row, row_begin, row_end, BLOCK_ROWS);
            multiply_block(scratch, job, row, rows, tok, job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS, ahead);
        }
}
