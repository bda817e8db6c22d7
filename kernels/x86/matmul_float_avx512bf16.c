#include "matmul_avx512.h"
#include "apart.h"

/* Products of BF16 weights with BF16 activations (ACT_BF16) by vdpbf16ps: two products per lane and step at the rate of one FMA.
 *
 * Nothing is summed across lanes but neighbours, and activations are broadcasts: a few rows' columns are transposed, in registers
 * for up to eight tokens, to panels for more. The order of sums, the same for every batch: in a run of 256 columns the pairs of
 * columns are added alternately to two sums, each from 0; the run's two sums are added, then the runs in order. Two sums, because
 * one token's would else be a chain of 128 steps of latency, and because with both in one vector, side by side, eight rows are
 * transposed in lanes of 64 bits: three shuffles a line, where sixteen rows in lanes of 32 take four and keep the next
 * instructions waiting (weights in cache, 64 tokens: 218 and 211 Gop/s). The instruction takes values below FLT_MIN for 0.
 *
 * One microkernel call multiplies four panels (16 KiB, which stay in the first-level cache while the tokens pass by) with up to six
 * tokens: 24 accumulators, four vectors of weights, one of activations; ten loads for 24 products. A Zen 4 core, whose peak is 236
 * Gop/s, reaches 207 with 64 tokens and weights from memory, 228 with 256 and weights from the cache; activations a line apart from
 * multiples of 4 KiB are no faster. */
enum { QUADS = PANEL_COLS / 4, PANELS = 4, TOKS = 6, BLOCK_ROWS = 64, BLOCK_PANELS = BLOCK_ROWS / 8, BLOCK_TOKS = 512, FEW = 8 };

/* 8 rows by 256 columns. [c][r]: columns 4c to 4c + 3 of row r. */
struct panel_of_8 { uint64_t w[QUADS][8]; } __attribute__((aligned(64)));

struct many_scratch {
    float             acc[BLOCK_TOKS + TOKS][BLOCK_ROWS];
    struct panel_of_8 panels[BLOCK_PANELS];
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

/* Four columns of a token for all eight rows' lanes of 64 bits. */
static ALWAYS_INLINE __m512bh broadcast_quad(const uint8_t *x, size_t quad)
{
    long long value;
    memcpy(&value, x + 8 * quad, 8);
    return (__m512bh)_mm512_set1_epi64(value);
}

/* How far ahead of rows in work to ask for lines, in bytes; 0: not at all. The next rows, in the order of their addresses (1 to 5 %
 * better than row by row, and into the second-level cache: on a Zen 4 into the first 30 % worse), and for a call's first rows, for
 * which nobody has asked, their own later columns as well. */
struct ahead { size_t tile, run; };

static struct ahead ahead_of(const struct matmul_job *job, size_t row, size_t row_begin, size_t row_end)
{
    return (struct ahead){ .tile = row + 8 < row_end + job->rows_soon ? 8 * job->row_bytes : 0,
                           .run = row == row_begin && !job->asked ? 2 * PANEL_COLS : 0 };
}

/* v[i] lane j becomes v[j] lane i, lanes of 64 bits. */
static ALWAYS_INLINE void transpose_8x8(__m512i v[8])
{
    __m512i a[8], b[8];
    UNROLL_ALL
    for (int i = 0; i < 8; i += 2) {          /* even lanes and odd lanes of two rows */
        a[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
    }
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {             /* i % 2: even or odd lanes; i / 2: rows 0 to 3 or 4 to 7 */
        __m512i p = a[i / 2 * 4 + i % 2], q = a[i / 2 * 4 + 2 + i % 2];
        b[i] = _mm512_shuffle_i64x2(p, q, 0x88);
        b[4 + i] = _mm512_shuffle_i64x2(p, q, 0xdd);
    }
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {             /* b[4h + i]: lanes 2h + i % 2 and 4 above */
        __m512i p = b[i / 2 * 4 + i % 2], q = b[i / 2 * 4 + 2 + i % 2];
        v[i] = _mm512_shuffle_i64x2(p, q, 0x88);
        v[4 + i] = _mm512_shuffle_i64x2(p, q, 0xdd);
    }
}

/* v[i]: columns c + 4 i to c + 4 i + 3 of eight rows, a lane of 64 bits each; from the `left`-th on zero. */
static ALWAYS_INLINE void quads_of_8_rows(__m512i v[8], const uint8_t *const w[8], size_t c, size_t left)
{
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    UNROLL_ALL
    for (size_t r = 0; r < 8; r++)
        v[r] = _mm512_maskz_loadu_epi16(mask, w[r] + 2 * c);
    transpose_8x8(v);
}

/* Load a word of each line of TOUCH_BYTES of all rows. */
enum { TOUCH_BYTES = 256 };
static ALWAYS_INLINE void touch_rows(const uint8_t *const w[APART_ROWS], size_t at)
{
    UNROLL_ALL
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
            __m512i v[8];
            if (c % (TOUCH_BYTES / 2) == 0 && left >= TOUCH_BYTES / 2)
                touch_rows(w, 2 * c);
            quads_of_8_rows(v, w, c, left);
            UNROLL_ALL
            for (size_t i = 0; i < 8; i++)
                sum = _mm512_dpbf16_ps(sum, (__m512bh)v[i], broadcast_quad(job->acts, c / 4 + i));
        }
        acc = _mm512_add_ps(acc, _mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1)));
    }
    _mm256_storeu_ps(sums, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, acc)));
    (void)width;
}

/* Up to eight rows (a row past the last repeats it) by one to eight tokens: what a panel would hold stays in registers. One token
 * takes two runs at once (`sides`), because its sum is a chain of additions as slow as memory: on a Zen 5 a 1B gives 13.2 t/s so,
 * 10.8 by streams far apart. (One thread of a Zen 4, 2, 4, 5 and 8 sequences at once: 24, 44, 48 and 62 t/s; sixteen rows in lanes
 * of 32 bits gave 20 and 38, panels 26 and 44.) */
static ALWAYS_INLINE void few_tokens(const struct matmul_job *job, size_t row, size_t rows, struct ahead ahead, size_t sides,
                                     size_t toks)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    const uint8_t *first = (const uint8_t *)job->weights + row * job->row_bytes, *soon = first + ahead.tile;
    __m512 acc[FEW];
    UNROLL_ALL
    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();

    for (size_t run = 0; run < job->cols; run += sides * PANEL_COLS) {
        __m512 sum[2][FEW];
        UNROLL_ALL
        for (size_t k = 0; k < sides * toks; k++)
            sum[k / toks][k % toks] = _mm512_setzero_ps();
        for (size_t c = run; c < run + PANEL_COLS && c < job->cols; c += 32)
            UNROLL_ALL
            for (size_t side = 0; side < sides; side++) {
                const size_t at = c + side * PANEL_COLS, left = job->cols - at;
                __m512i v[8];
                if (side && at >= job->cols)
                    continue;
                UNROLL_ALL
                for (size_t r = 0; r < 8; r++, soon += 64) {
                    const uint8_t *line = first + (r < rows ? r : rows - 1) * job->row_bytes + 2 * at;
                    if (ahead.tile)
                        prefetch_run(soon, 1, job->wide);
                    if (ahead.run)
                        prefetch_run(line + ahead.run, 1, job->wide);
                    v[r] = _mm512_maskz_loadu_epi16(left >= 32 ? 0xffffffffu : (1u << left) - 1, line);
                }
                transpose_8x8(v);
                UNROLL_ALL
                for (size_t i = 0; i < 8; i++)
                    UNROLL_ALL
                    for (size_t t = 0; t < toks; t++) {
                        const uint8_t *x = (const uint8_t *)job->acts + t * job->act_stride;
                        sum[side][t] = _mm512_dpbf16_ps(sum[side][t], (__m512bh)v[i], broadcast_quad(x, at / 4 + i));
                    }
            }
        UNROLL_ALL
        for (size_t k = 0; k < sides * toks; k++) {
            const size_t side = k / toks, t = k % toks;
            __m512 both = _mm512_add_ps(sum[side][t], _mm512_permute_ps(sum[side][t], 0xb1));
            if (run + side * PANEL_COLS < job->cols)
                acc[t] = _mm512_add_ps(acc[t], both);
        }
    }
    UNROLL_ALL
    for (size_t t = 0; t < toks; t++)
        _mm512_mask_storeu_ps(job->out + t * job->out_stride + row, lanes_16(rows), _mm512_permutexvar_ps(even, acc[t]));
}

static void few(const struct matmul_job *job, size_t row, size_t rows, struct ahead ahead)
{
    switch (job->toks) {
    case 1: few_tokens(job, row, rows, ahead, 2, 1); break;
    case 2: few_tokens(job, row, rows, ahead, 1, 2); break;
    case 3: few_tokens(job, row, rows, ahead, 1, 3); break;
    case 4: few_tokens(job, row, rows, ahead, 1, 4); break;
    case 5: few_tokens(job, row, rows, ahead, 1, 5); break;
    case 6: few_tokens(job, row, rows, ahead, 1, 6); break;
    case 7: few_tokens(job, row, rows, ahead, 1, 7); break;
    default: few_tokens(job, row, rows, ahead, 1, 8); break;
    }
}

/* Rows to ask into the second-level cache while others are multiplied: the run's lines of `rows` rows. */
struct soon {
    const uint8_t *first;
    size_t         stride, rows;
};

/* acc[t][0..32) += the four panels times token t's run, in the order of columns that out_order undoes. The lines of `soon` are
 * asked for evenly: in a burst, as the panels are filled, they waited for each other and the multiplication for them (64 tokens,
 * weights from memory: 186 and 207 Gop/s, the transposing counted). */
static ALWAYS_INLINE void micro(float (*acc)[BLOCK_ROWS], const struct panel_of_8 *p, const uint8_t *const *x, int toks,
                                struct soon soon)
{
    __m512 sum[PANELS][TOKS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        sum[0][t] = sum[1][t] = sum[2][t] = sum[3][t] = _mm512_setzero_ps();
#pragma GCC unroll 1
    for (size_t line = 0; line < QUADS; line += 8) {
        for (size_t r = 0; r < soon.rows; r++)
            _mm_prefetch((const char *)soon.first + r * soon.stride + 8 * line, _MM_HINT_T1);
#pragma GCC unroll 1
        for (size_t c = line; c < line + 8; c += 2)
            UNROLL_ALL
            for (size_t i = c; i < c + 2; i++) {
                __m512bh w[PANELS];
                UNROLL_ALL
                for (size_t k = 0; k < PANELS; k++)
                    w[k] = (__m512bh)_mm512_load_si512(p[k].w[i]);
                UNROLL_ALL
                for (int t = 0; t < toks; t++) {
                    __m512bh v = broadcast_quad(x[t], i);
                    UNROLL_ALL
                    for (size_t k = 0; k < PANELS; k++)
                        sum[k][t] = _mm512_dpbf16_ps(sum[k][t], w[k], v);
                }
            }
    }
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        UNROLL_ALL
        for (size_t k = 0; k < PANELS; k += 2) {
            __m512 both = _mm512_add_ps(_mm512_shuffle_ps(sum[k][t], sum[k + 1][t], 0x88),
                                        _mm512_shuffle_ps(sum[k][t], sum[k + 1][t], 0xdd));
            float *to = acc[t] + 8 * k;
            _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), both));
        }
}

/* Sums of 16 rows in their order: micro leaves rows 2i, 2i + 1 of two panels side by side. */
static ALWAYS_INLINE __m512 in_order(__m512 v)
{
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15), v);
}

/* A run of up to 64 rows to panels, a multiple of PANELS of them; a row past the last repeats it. Gives the number. */
static size_t fill_panels(struct panel_of_8 *panels, const struct matmul_job *job, size_t row, size_t rows, size_t run)
{
    const size_t count = (rows + PANELS * 8 - 1) / (PANELS * 8) * PANELS, left = job->cols - run;
    for (size_t p = 0; p < count; p++) {
        const uint8_t *w[8];
        for (size_t r = 0; r < 8; r++)
            w[r] = (const uint8_t *)job->weights + (row + (8 * p + r < rows ? 8 * p + r : rows - 1)) * job->row_bytes + 2 * run;
        if (left < PANEL_COLS)
            memset(&panels[p], 0, sizeof panels[p]);
        for (size_t c = 0; c < PANEL_COLS && c < left; c += 32) {
            __m512i v[8];
            quads_of_8_rows(v, w, c, left - c);
            UNROLL_ALL
            for (size_t i = 0; i < 8; i++)
                _mm512_store_si512(panels[p].w[c / 4 + i], v[i]);
        }
    }
    return count;
}

/* The panels of a run against all tokens; an odd batch repeats its last token into a spare row of acc. */
static void multiply_run(struct many_scratch *scratch, const struct matmul_job *job, size_t tok, size_t toks, size_t run,
                         size_t panels, struct soon soon)
{
    const size_t calls = panels / PANELS * ((toks + TOKS - 1) / TOKS), share = (soon.rows + calls - 1) / calls;
    for (size_t p = 0; p < panels; p += PANELS)
        for (size_t t = 0; t < toks; t += TOKS) {
            const size_t here = toks - t < TOKS ? toks - t : TOKS;
            const struct soon now = { soon.first, soon.stride, soon.rows < share ? soon.rows : share };
            const uint8_t *x[TOKS];
            for (size_t i = 0; i < TOKS; i++)
                x[i] = (const uint8_t *)job->acts + (tok + t + (i < here ? i : here - 1)) * job->act_stride + 2 * run;
            float (*acc)[BLOCK_ROWS] = (float (*)[BLOCK_ROWS])&scratch->acc[t][p * 8];
            if (here > 4)
                micro(acc, &scratch->panels[p], x, 6, now);
            else if (here > 2)
                micro(acc, &scratch->panels[p], x, 4, now);
            else
                micro(acc, &scratch->panels[p], x, 2, now);
            soon.first += now.rows * soon.stride;
            soon.rows -= now.rows;
        }
}

/* `more`: so many rows follow that are likely next. */
static void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t tok,
                           size_t toks, size_t more)
{
    const uint8_t *first = (const uint8_t *)job->weights + row * job->row_bytes;
    memset(scratch->acc, 0, (toks + 1) * sizeof scratch->acc[0]);
    for (size_t run = 0; run < job->cols; run += PANEL_COLS) {
        const size_t panels = fill_panels(scratch->panels, job, row, rows, run);
        struct soon soon = { first + 2 * (run + PANEL_COLS), job->row_bytes, rows };
        if (run + PANEL_COLS >= job->cols)
            soon = (struct soon){ first + rows * job->row_bytes, job->row_bytes, more < BLOCK_ROWS ? more : BLOCK_ROWS };
        multiply_run(scratch, job, tok, toks, run, panels, soon);
    }
    for (size_t t = 0; t < toks; t++)
        for (size_t r = 0; r < rows; r += 16)
            _mm512_mask_storeu_ps(job->out + (tok + t) * job->out_stride + row + r, lanes_16(rows - r),
                                  in_order(_mm512_loadu_ps(&scratch->acc[t][r])));
}

void matmul_bf16_avx512bf16(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1 && !job->wide) {
        apart_product(job, row_begin, row_end, eight_rows, 0);
        return;
    }
    if (job->toks <= FEW) {
        for (size_t row = row_begin; row < row_end; row += 8)
            few(job, row, row_end - row < 8 ? row_end - row : 8, ahead_of(job, row, row_begin, row_end));
        return;
    }
    for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
        for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS) {
            const size_t rows = row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS;
            multiply_block(scratch, job, row, rows, tok, job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS,
                           row_end - row - rows + job->rows_soon);
        }
}
