#include "k_scales.h"
#include "matmul_few_avx512.h"
#include "matmul_halves_avx512.h"
#include "matmul_one_avx512.h"
#include "matmul_planes_avx512.h"
#include "matmul_subs_avx512.h"
#include "matmul_woven_avx512.h"

_Static_assert((int)ONE_SCRATCH_PER_COL <= (int)(sizeof(struct few_run) / PANEL_COLS),
               "a product's scratch is large enough for few");

/* The k-quants (and TQ, of their shape) on AVX-512: one function per format from the file's bytes to a run in registers. */

static ALWAYS_INLINE void k_scales(struct run *out, const uint8_t *bytes)
{
    out->d = load_u32(bytes);
    out->scales = k_scales_and_mins(bytes);
    out->mins = _mm_unpackhi_epi64(out->scales, out->scales);
}

/* After 16 bytes of d, dmin, scales and minimums (k_scales.h) 4 x 32 bytes: low nibbles sub-block 2i, high nibbles 2i + 1. */
static ALWAYS_INLINE void run_q4_k_avx512(struct run *out, const uint8_t *bytes)
{
    k_scales(out, bytes);
    set_nibbles(out, _mm512_loadu_si512(bytes + 16), _mm512_loadu_si512(bytes + 80));
}

#define SHAPE_Q4_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 15, .bytes = 144, .factor = 1, .mins = true, \
        .order = ORDER_HALVES, .narrow = true, .nibbles = true, .insist = true }

static void decode_q4_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    halves_format(job, row, all, (struct panel_shape)SHAPE_Q4_K);
}

static void panel_q4_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

/* Scales, minimums, d and dmin of sixteen rows whose blocks begin as Q4_K's do (k_scales.h). */
static ALWAYS_INLINE void turn_k_scales(struct panel *out, const uint8_t *rows, size_t stride)
{
    const __m512i low_six = _mm512_set1_epi8(63), low_four = _mm512_set1_epi8(15), next_two = _mm512_set1_epi8(48);
    const __m512i first_words = _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const __m512i last_words = _mm512_or_si512(first_words, _mm512_set1_epi16(2));
    __m512i v[4], scales[2], mins[2];
    turn_16(v, rows, stride);
    scales[0] = _mm512_and_si512(v[1], low_six);
    mins[0] = _mm512_and_si512(v[2], low_six);
    scales[1] = or_masked(_mm512_and_si512(v[3], low_four), _mm512_srli_epi32(v[1], 2), next_two);
    mins[1] = or_masked(_mm512_and_si512(_mm512_srli_epi32(v[3], 4), low_four), _mm512_srli_epi32(v[2], 2), next_two);
    UNROLL_ALL
    for (unsigned s = 0; s < 8; s++)
        _mm512_store_si512(out->scale.i[s],
                           _mm512_and_si512(_mm512_srli_epi32(scales[s / 4], 8 * (s % 4)), _mm512_set1_epi32(255)));
    UNROLL_ALL
    for (int s = 0; s < 4; s++)
        _mm512_store_si512(out->min.i[s], _mm512_shuffle_epi8(mins[s / 2], s % 2 ? last_words : first_words));
    _mm512_store_ps(out->d, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v[0])));
    _mm512_store_ps(out->dmin, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v[0], 16))));
}

/* 32 bytes of sixteen rows to eight columns of a panel. */
static ALWAYS_INLINE void turn_to(uint8_t (*to)[PANEL_ROWS][4], const uint8_t *rows, size_t stride)
{
    __m512i v[8];
    turn_32(v, rows, stride);
    UNROLL_ALL
    for (int c = 0; c < 8; c++)
        _mm512_store_si512(to[c], v[c]);
}

/* Scales; 32 bytes of nibbles, those of two sub-blocks, in a step. */
enum { Q4_K_STEPS = 1 + 4 };

static ALWAYS_INLINE void turn_q4_k(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    if (step == 4)
        turn_k_scales(out, rows, stride);
    else
        turn_to(out->q + 8 * step, rows + 16 + 32 * step, stride);
}

static ALWAYS_INLINE void split_q4_k(__m512i w[2], const struct panel *p, int slot, int i)
{
    nibbles(w, _mm512_load_si512(p->q[8 * slot + i]));
}

static void woven_q4_k_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_q4_k, Q4_K_STEPS, split_q4_k }, (struct panel_shape)SHAPE_Q4_K);
}

static void few_q4_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

const struct format_avx512 format_q4_k_avx512 = {
    SHAPE_Q4_K, decode_q4_k_avx512, panel_q4_k_avx512, few_q4_k_avx512, 48, woven_q4_k_avx512, WOVEN_TOKS
};

void matmul_q4_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q4_k_avx512);
}

/* Q4_K with 32 bytes of fifth bits between scales and nibbles: bit s of byte i belongs to value i of sub-block s. */
static ALWAYS_INLINE void run_q5_k_avx512(struct run *out, const uint8_t *bytes)
{
    /* turns bit 0 (bit 2 in the upper half) of each byte to bit 4 */
    const __m512i turn = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2), bit = _mm512_set1_epi8(16);
    __m512i high = _mm512_rolv_epi32(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + 16))), turn);
    k_scales(out, bytes);
    nibbles(out->q, _mm512_loadu_si512(bytes + 48));
    nibbles(out->q + 2, _mm512_loadu_si512(bytes + 112));
    out->q[0] = _mm512_or_si512(out->q[0], _mm512_and_si512(high, bit));
    out->q[1] = _mm512_or_si512(out->q[1], _mm512_and_si512(_mm512_ror_epi32(high, 1), bit));
    out->q[2] = _mm512_or_si512(out->q[2], _mm512_and_si512(_mm512_ror_epi32(high, 4), bit));
    out->q[3] = _mm512_or_si512(out->q[3], _mm512_and_si512(_mm512_ror_epi32(high, 5), bit));
}

#define SHAPE_Q5_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 31, .bytes = 176, .factor = 1, .mins = true, \
        .order = ORDER_HALVES, .insist = true, .narrow = true }

static void decode_q5_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    halves_format(job, row, all, (struct panel_shape)SHAPE_Q5_K);
}

static void panel_q5_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

/* After Q4_K's scales 32 bytes of fifth bits, which go behind the nibbles. */
enum { Q5_K_STEPS = 1 + 5 };

static ALWAYS_INLINE void turn_q5_k(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    if (step == 5)
        turn_k_scales(out, rows, stride);
    else
        turn_to(out->q + 8 * step, rows + (step == 4 ? 16 : 48 + 32 * step), stride);
}

static ALWAYS_INLINE void split_q5_k(__m512i w[2], const struct panel *p, int slot, int i)
{
    const __m512i bits = _mm512_load_si512(p->q[32 + i]), fifth = _mm512_set1_epi8(16);
    nibbles(w, _mm512_load_si512(p->q[8 * slot + i]));
    w[0] = or_masked(w[0], _mm512_rolv_epi32(bits, _mm512_set1_epi32(4 - 2 * slot)), fifth);
    w[1] = or_masked(w[1], _mm512_rolv_epi32(bits, _mm512_set1_epi32(3 - 2 * slot)), fifth);
}

static void woven_q5_k_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_q5_k, Q5_K_STEPS, split_q5_k }, (struct panel_shape)SHAPE_Q5_K);
}

static void few_q5_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

const struct format_avx512 format_q5_k_avx512 = {
    SHAPE_Q5_K, decode_q5_k_avx512, panel_q5_k_avx512, few_q5_k_avx512, 48, woven_q5_k_avx512, 12
};

void matmul_q5_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q5_k_avx512);
}

/* 128 bytes of lower nibbles, 64 of upper pairs, 16 signed scales, d. Per 128 values: 64 bytes, low nibbles first, and 32 bytes
 * whose pairs of bits belong to the four groups of 32. */
static ALWAYS_INLINE void run_q6_k_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i up = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i down = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
    out->d = load_u16(bytes + 208);
    out->scales = _mm_loadu_si128((const __m128i *)(bytes + 192));
    for (int half = 0; half < 2; half++) {
        __m512i low = _mm512_loadu_si512(bytes + 64 * half);
        __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + 128 + 32 * half)));
        out->q[2 * half] = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(_mm512_sllv_epi32(high, up), pair));
        out->q[2 * half + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(low, 4), nibble),
                                               _mm512_and_si512(_mm512_srlv_epi32(high, down), pair));
    }
}

#define SHAPE_Q6_K { .kind = PANEL_SUPER, .sub = 16, .offset = 32, .top = 63, .bytes = 210, .factor = 1, .narrow = true, \
        .insist = true }

static void decode_q6_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

static void panel_q6_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

static ALWAYS_INLINE void turn_q6_k_scales(struct panel *out, const uint8_t *rows, size_t stride)
{
    __m512i v[4];
    uint32_t d[PANEL_ROWS];
    turn_16(v, rows + 192, stride);
    UNROLL_ALL
    for (unsigned s = 0; s < 16; s++)        /* the byte to the top, and down again with its sign */
        _mm512_store_si512(out->scale.i[s], _mm512_srai_epi32(_mm512_slli_epi32(v[s / 4], 24 - 8 * (s % 4)), 24));
    for (size_t r = 0; r < PANEL_ROWS; r++)
        d[r] = load_u16(rows + r * stride + 208);
    _mm512_store_ps(out->d, scales_of(d, false, 1));
}

/* One half's values: twice 32 bytes of nibbles, each the values of a group of 32 and of the next but one, and 32 bytes of pairs.
 * Split at each use, which Q4_K gains by, they would take 52 and 78 cycles with 8 and 16 tokens, not 38 and 61. */
static ALWAYS_INLINE void turn_q6_k_half(struct panel *out, const uint8_t *rows, size_t stride, int half)
{
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
    __m512i low[8], high[8];
    turn_32(high, rows + 128 + 32 * half, stride);
    UNROLL_ALL
    for (int group = 0; group < 2; group++) {
        uint8_t (*to)[PANEL_ROWS][4] = out->q + 32 * half + 8 * group;
        turn_32(low, rows + 64 * half + 32 * group, stride);
        UNROLL_ALL
        for (int c = 0; c < 8; c++) {
            __m512i pairs = group ? _mm512_srli_epi16(high[c], 2) : high[c];
            __m512i first = or_masked(_mm512_and_si512(low[c], nibble), _mm512_slli_epi16(pairs, 4), pair);
            __m512i second = or_masked(_mm512_and_si512(_mm512_srli_epi16(low[c], 4), nibble), pairs, pair);
            _mm512_store_si512(to[c], first);
            _mm512_store_si512(to[16 + c], second);
        }
    }
}

enum { Q6_K_STEPS = 1 + 2 };

static ALWAYS_INLINE void turn_q6_k(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    if (step == 2)
        turn_q6_k_scales(out, rows, stride);
    else
        turn_q6_k_half(out, rows, stride, step);
}

static ALWAYS_INLINE void split_q6_k(__m512i w[2], const struct panel *p, int slot, int i)
{
    w[0] = _mm512_load_si512(p->q[8 * slot + i]);
    w[1] = _mm512_load_si512(p->q[8 * slot + 4 + i]);
}

static void woven_q6_k_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_q6_k, Q6_K_STEPS, split_q6_k }, (struct panel_shape)SHAPE_Q6_K);
}

static void few_q6_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

const struct format_avx512 format_q6_k_avx512 = {
    SHAPE_Q6_K, decode_q6_k_avx512, panel_q6_k_avx512, few_q6_k_avx512, 32, woven_q6_k_avx512, WOVEN_TOKS
};

/* Lane 4 p + i is sub-block p, 8 + p, 4 + p, 12 + p: both halves' low nibbles, then their high ones. */
static const uint8_t q6_k_order[16] = { 0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15 };

/* The low four bits of each byte of a, the high ones of b. */
static ALWAYS_INLINE __m512i low_and_high(__m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), a, b, 0xca);
}

/* Both halves' four columns are put side by side before nibbles are split: half the shuffles. A half's 32 bytes of pairs serve its
 * first and last 32 bytes of nibbles, the latter two bits further up. */
static ALWAYS_INLINE void load_sub_q6_k(struct subs_rows *out, int row, const uint8_t *bytes)
{
    const __m512i down = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2), pairs = _mm512_set1_epi8(0x33);
    const __m128i order = _mm_loadu_si128((const __m128i *)q6_k_order);
    __m512i low[2], high[2], nibbles[2], upper[2];
    for (int half = 0; half < 2; half++) {
        __m256i two = _mm256_loadu_si256((const __m256i *)(bytes + 128 + 32 * half));
        low[half] = settled(_mm512_loadu_si512(bytes + 64 * half));
        high[half] = _mm512_srlv_epi32(_mm512_broadcast_i64x4(two), down);
    }
    nibbles[0] = _mm512_unpacklo_epi32(low[0], low[1]);
    nibbles[1] = _mm512_unpackhi_epi32(low[0], low[1]);
    upper[0] = _mm512_and_si512(_mm512_unpacklo_epi32(high[0], high[1]), pairs);
    upper[1] = _mm512_and_si512(_mm512_unpackhi_epi32(high[0], high[1]), pairs);
    for (int i = 0; i < 2; i++) {
        __m512i first = low_and_high(nibbles[i], _mm512_slli_epi32(upper[i], 4));
        __m512i second = low_and_high(_mm512_srli_epi32(nibbles[i], 4), upper[i]);
        out->v[row][2 * i] = _mm512_unpacklo_epi64(first, second);
        out->v[row][2 * i + 1] = _mm512_unpackhi_epi64(first, second);
    }
    out->scales[row] = _mm512_cvtepi8_epi32(_mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(bytes + 192)), order));
    out->d[row] = _cvtsh_ss(load_u16(bytes + 208));
}

static ALWAYS_INLINE void load_subs_q6_k(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    load_sub_q6_k(out, 0, first);
    load_sub_q6_k(out, 1, second);
}

static ALWAYS_INLINE void subs_token_q6_k(struct subs_token *to, const int8_t *x, const int16_t *sums)
{
    subs_token_in_order(to, x, sums, q6_k_order, (struct panel_shape)SHAPE_Q6_K);
}

void matmul_q6_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks == 1 && job->cols <= ONE_COLS && !job->wide)
        one_format(job, call, scratch, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
    else if (by_subs(job) && (job->toks - 1) % SUBS_GROUP >= SUBS_GROUP / 2)     /* not where half a group would be idle */
        subs_format(job, call, scratch, (struct subs){ load_subs_q6_k, subs_token_q6_k }, (struct panel_shape)SHAPE_Q6_K);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q6_k_avx512);
}

/* Twice 32 bytes of four planes of two bits, lowest plane first, each half 128 values: q[p] is plane p of both. */
static ALWAYS_INLINE void split_pairs(__m512i q[4], __m512i bytes)
{
    for (unsigned p = 0; p < 4; p++)
        q[p] = _mm512_and_si512(_mm512_srli_epi16(bytes, 2 * p), _mm512_set1_epi8(3));
}

/* Two rows' scales from their codes. */
static ALWAYS_INLINE __m256i q2_k_scales(__m256i codes)
{
    return _mm256_and_si256(codes, _mm256_set1_epi8(15));
}

/* 16 bytes: scale in the low nibble, minimum in the high one; 64 bytes of pairs; d, dmin. */
static ALWAYS_INLINE void run_q2_k_avx512(struct run *out, const uint8_t *bytes)
{
    const __m128i nibble = _mm_set1_epi8(15);
    out->d = load_u32(bytes + 80);
    out->codes = _mm_loadu_si128((const __m128i *)bytes);
    out->scales = _mm_and_si128(out->codes, nibble);
    out->mins = _mm_and_si128(_mm_srli_epi16(out->codes, 4), nibble);
    out->raw[0] = _mm512_loadu_si512(bytes + 16);
}

#define SHAPE_Q2_K { .kind = PANEL_SUPER, .sub = 16, .offset = 0, .top = 3, .bytes = 84, .factor = 1, .mins = true, \
        .planes = 2 }

static void decode_q2_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    planes_format(job, row, all, run_q2_k_avx512, q2_k_scales, (struct panel_shape)SHAPE_Q2_K);
}

/* Values times scales, at most 3 * 15, looked up: in each plane a lane of 128 bits is a sub-block, 8 half + 2 p + b in lane 2 half
 * + b, and its table has four entries for each of the four planes: a scale times 0x0100 and times 0x0302 is two of them each. */
static ALWAYS_INLINE void run_q2_k_scaled_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 8, 8, 8, 8, 9, 9, 9, 9);
    const __m512i places = _mm512_or_si512(_mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16)),
                                           _mm512_broadcast_i32x4(_mm_setr_epi32((int)0x80008000, (int)0x80028002,
                                                                                 (int)0x80048004, (int)0x80068006)));
    run_q2_k_avx512(out, bytes);
    split_pairs(out->q, out->raw[0]);
    __m512i table = _mm512_mullo_epi16(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(out->scales), places),
                                       _mm512_set1_epi32(0x03020100));
    for (int p = 0; p < 4; p++)
        out->q[p] = _mm512_shuffle_epi8(table, _mm512_or_si512(out->q[p], _mm512_set1_epi8((char)(4 * p))));
}

#define SHAPE_Q2_K_SCALED { .kind = PANEL_SUPER, .sub = 16, .offset = 0, .top = 45, .bytes = 84, .factor = 1, .mins = true, \
        .order = ORDER_PLANES, .scaled = true }

static void panel_q2_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q2_k_scaled_avx512, (struct panel_shape)SHAPE_Q2_K_SCALED);
}

static void few_q2_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q2_k_scaled_avx512, (struct panel_shape)SHAPE_Q2_K_SCALED);
}

const struct format_avx512 format_q2_k_avx512 = {
    SHAPE_Q2_K_SCALED, decode_q2_k_avx512, panel_q2_k_avx512, few_q2_k_avx512, 48, NULL, 0
};

void matmul_q2_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q2_k_avx512);
}

/* Scales have six bits and an offset of 32: in the last four of 12 bytes four planes of upper pairs, in the first eight the nibbles
 * below them. The codes are the 12 bytes, after two others and before d: dwords 0 to 2 are shifted to 1 to 3 by two bytes of pairs,
 * which pshufb undoes. */
static ALWAYS_INLINE __m256i q3_k_scales(__m256i codes)
{
    const __m256i nibbles = _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    const __m256i pairs = _mm256_broadcastsi128_si256(_mm_set1_epi32(0x0d0c0b0a));
    __m256i low = _mm256_srlv_epi32(_mm256_shuffle_epi8(codes, nibbles), _mm256_setr_epi32(0, 0, 4, 4, 0, 0, 4, 4));
    __m256i high = _mm256_rolv_epi32(_mm256_shuffle_epi8(codes, pairs), _mm256_setr_epi32(4, 2, 0, 30, 4, 2, 0, 30));
    low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    return _mm256_sub_epi8(_mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(0x30))), _mm256_set1_epi8(32));
}

/* 32 bytes of third bits (bit s of byte i: value i of 32-value group s), 64 bytes of pairs, 12 bytes of scales, d. */
static ALWAYS_INLINE void run_q3_k_avx512(struct run *out, const uint8_t *bytes)
{
    out->codes = _mm_loadu_si128((const __m128i *)(bytes + 94));
    out->d = load_u16(bytes + 108);
    out->scales = _mm256_castsi256_si128(q3_k_scales(_mm256_castsi128_si256(out->codes)));
    out->raw[0] = _mm512_loadu_si512(bytes + 32);
    out->raw[1] = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)bytes));
}

#define SHAPE_Q3_K { .kind = PANEL_SUPER, .sub = 16, .offset = 4, .top = 7, .bytes = 110, .factor = 1, .planes = 3 }

static void decode_q3_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    planes_format(job, row, all, run_q3_k_avx512, q3_k_scales, (struct panel_shape)SHAPE_Q3_K);
}

/* Values times scales as in Q2_K: -4 * 31 to -4 * -32, plus 124. One table for planes 0 and 2, eight entries each, and one for 1
 * and 3, whose third bits stand beyond the bit that tells the planes apart: a turn of the third bits serves two planes. An entry is
 * a byte, but with 124 added no byte is negative, so that pairs of them come of one multiplication. */
static ALWAYS_INLINE void run_q3_k_scaled_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i turn = _mm512_setr_epi32(2, 2, 2, 2, 2, 2, 2, 2, 30, 30, 30, 30, 30, 30, 30, 30);
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 8, 8, 8, 8, 9, 9, 9, 9);
    const __m512i twice = _mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16));
    const __m512i even_places = _mm512_add_epi32(twice, _mm512_broadcast_i32x4(_mm_setr_epi16(0, 0, 0, 0, 4, 4, 4, 4)));
    const __m512i odd_places = _mm512_add_epi32(twice, _mm512_broadcast_i32x4(_mm_setr_epi16(2, 2, 6, 6, 2, 2, 6, 6)));
    enum { MINUS_4_3 = -3 * 256 - 4, MINUS_2_1 = -1 * 256 - 2, PLUS_0_1 = 256, PLUS_2_3 = 3 * 256 + 2 };
    const __m128i even_values = _mm_setr_epi16(MINUS_4_3, MINUS_2_1, PLUS_0_1, PLUS_2_3, MINUS_4_3, MINUS_2_1, PLUS_0_1, PLUS_2_3);
    const __m128i odd_values = _mm_setr_epi16(MINUS_4_3, MINUS_2_1, MINUS_4_3, MINUS_2_1, PLUS_0_1, PLUS_2_3, PLUS_0_1, PLUS_2_3);
    const __m512i four = _mm512_set1_epi8(4), eight = _mm512_set1_epi8(8), offset = _mm512_set1_epi8(124);

    run_q3_k_avx512(out, bytes);
    split_pairs(out->q, out->raw[0]);
    __m512i scales = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(out->scales));
    __m512i even = _mm512_add_epi16(offset, _mm512_mullo_epi16(_mm512_permutexvar_epi16(even_places, scales),
                                                               _mm512_broadcast_i32x4(even_values)));
    __m512i odd = _mm512_add_epi16(offset, _mm512_mullo_epi16(_mm512_permutexvar_epi16(odd_places, scales),
                                                              _mm512_broadcast_i32x4(odd_values)));
    __m512i low = _mm512_rolv_epi32(out->raw[1], turn);      /* third bits of planes 0 and 1 at bits 2 and 3 */
    __m512i high = _mm512_rolv_epi32(out->raw[1], _mm512_sub_epi32(turn, _mm512_set1_epi32(2)));
    out->q[0] = _mm512_shuffle_epi8(even, or_masked(out->q[0], low, four));
    out->q[1] = _mm512_shuffle_epi8(odd, or_masked(out->q[1], low, eight));
    out->q[2] = _mm512_shuffle_epi8(even, or_masked(_mm512_or_si512(out->q[2], eight), high, four));
    out->q[3] = _mm512_shuffle_epi8(odd, or_masked(_mm512_or_si512(out->q[3], four), high, eight));
}

#define SHAPE_Q3_K_SCALED { .kind = PANEL_SUPER, .sub = 16, .offset = 124, .top = 252, .bytes = 110, .factor = 1, \
        .order = ORDER_PLANES, .scaled = true }

static void panel_q3_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q3_k_scaled_avx512, (struct panel_shape)SHAPE_Q3_K_SCALED);
}

static void few_q3_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q3_k_scaled_avx512, (struct panel_shape)SHAPE_Q3_K_SCALED);
}

const struct format_avx512 format_q3_k_avx512 = {
    SHAPE_Q3_K_SCALED, decode_q3_k_avx512, panel_q3_k_avx512, few_q3_k_avx512, FEW_TOKS, NULL, 0
};

void matmul_q3_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q3_k_avx512);
}

static ALWAYS_INLINE __m256i tq2_0_scales(__m256i codes)
{
    (void)codes;
    return _mm256_set1_epi8(1);
}

/* 64 bytes of pairs, d. */
static ALWAYS_INLINE void run_tq2_0_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = load_u16(bytes + 64);
    out->codes = out->scales = _mm_set1_epi8(1);
    out->raw[0] = _mm512_loadu_si512(bytes);
    split_pairs(out->q, out->raw[0]);
}

/* Its scales are all one. */
#define SHAPE_TQ2_0 { .kind = PANEL_SUPER, .sub = 16, .offset = 1, .top = 2, .bytes = 66, .factor = 1, .planes = 2 }
#define SHAPE_TQ2_0_SCALED { .kind = PANEL_SUPER, .sub = 16, .offset = 1, .top = 2, .bytes = 66, .factor = 1, \
        .order = ORDER_PLANES, .scaled = true }

static void decode_tq2_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    planes_format(job, row, all, run_tq2_0_avx512, tq2_0_scales, (struct panel_shape)SHAPE_TQ2_0);
}

static void panel_tq2_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_tq2_0_avx512, (struct panel_shape)SHAPE_TQ2_0_SCALED);
}

static void few_tq2_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_tq2_0_avx512, (struct panel_shape)SHAPE_TQ2_0_SCALED);
}

const struct format_avx512 format_tq2_0_avx512 = {
    SHAPE_TQ2_0_SCALED, decode_tq2_0_avx512, panel_tq2_0_avx512, few_tq2_0_avx512, FEW_TOKS, NULL, 0
};

void matmul_tq2_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_tq2_0_avx512);
}

/* Base-3 digits: byte * 3^n modulo 256, times 3, divided by 256; the last step is two comparisons. */
static ALWAYS_INLINE __m512i base3_digits(__m512i bytes, __m512i power)
{
    const __m512i low = _mm512_set1_epi16(0xff);
    __m512i even = _mm512_and_si512(_mm512_mullo_epi16(bytes, _mm512_and_si512(power, low)), low);
    __m512i odd = _mm512_slli_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(bytes, 8), _mm512_srli_epi16(power, 8)), 8);
    __m512i fraction = _mm512_or_si512(even, odd);
    __m512i one = _mm512_maskz_set1_epi8(_mm512_cmpge_epu8_mask(fraction, _mm512_set1_epi8(86)), 1);
    return _mm512_mask_set1_epi8(one, _mm512_cmpge_epu8_mask(fraction, _mm512_set1_epi8((char)171)), 2);
}

static ALWAYS_INLINE __m512i quarters(__m128i a, __m128i b, __m128i c, __m128i d)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(a, b)), _mm256_setr_m128i(c, d), 1);
}

/* 32 bytes of five digits: values 0-159; 16 of five: 160-239; 4 of four: 240-255; d. */
static ALWAYS_INLINE void run_tq1_0_avx512(struct run *out, const uint8_t *bytes)
{
    const __m128i p0 = _mm_set1_epi8(1), p1 = _mm_set1_epi8(3), p2 = _mm_set1_epi8(9), p3 = _mm_set1_epi8(27);
    const __m128i p4 = _mm_set1_epi8(81), last = _mm_set1_epi32((int)load_u32(bytes + 48));
    const __m128i rising = _mm_setr_epi8(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27);
    __m256i first = _mm256_loadu_si256((const __m256i *)bytes);
    __m128i second = _mm_loadu_si128((const __m128i *)(bytes + 32));
    __m512i whole = _mm512_broadcast_i64x4(first);
    out->d = load_u16(bytes + 52);
    out->scales = _mm_set1_epi8(1);
    out->q[0] = base3_digits(whole, quarters(p0, p0, p1, p1));
    out->q[1] = base3_digits(whole, quarters(p2, p2, p3, p3));
    out->q[2] = base3_digits(_mm512_inserti64x4(whole, _mm256_broadcastsi128_si256(second), 1), quarters(p4, p4, p0, p1));
    out->q[3] = base3_digits(quarters(second, second, second, last), quarters(p2, p3, p4, rising));
}

#define SHAPE_TQ1_0 { .kind = PANEL_SUPER, .sub = 16, .offset = 1, .top = 2, .bytes = 54, .factor = 1, .narrow = true }
#define SHAPE_TQ1_0_SCALED { .kind = PANEL_SUPER, .sub = 16, .offset = 1, .top = 2, .bytes = 54, .factor = 1, .few = 4, \
        .scaled = true }

static void decode_tq1_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0);
}

static void panel_tq1_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0_SCALED);
}

static void few_tq1_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0_SCALED);
}

const struct format_avx512 format_tq1_0_avx512 = {
    SHAPE_TQ1_0_SCALED, decode_tq1_0_avx512, panel_tq1_0_avx512, few_tq1_0_avx512, FEW_TOKS, NULL, 0
};

void matmul_tq1_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1)
        one_format(job, (struct row_range){ row_begin, row_end }, scratch, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_tq1_0_avx512);
}
