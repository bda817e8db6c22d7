/* matmul_avx512.h - what every weight format shares on AVX-512 VNNI: the run in registers, the product of one to four tokens.
 *
 * A format is a function `void run_NAME_avx512(struct run *out, const uint8_t *bytes)`, a shape, and two wrappers around
 * decode_rows and fill_panel, into which that function is inlined. */
#ifndef QUERN_MATMUL_AVX512_H
#define QUERN_MATMUL_AVX512_H

#include "x86.h"
#include "lanes_avx512.h"
#include "panel.h"
#include "prefetch.h"
#include "unpack.h"
#include "vector_avx512.h"

#include <immintrin.h>
#include <string.h>

/* 256 columns of a row, in the format's order of columns. */
struct run {
    __m512i  q[4];          /* u8, value + offset                                            */
    __m512i  raw[2];        /* shape.nibbles: q two to a byte, q[0] and q[2] in the low halves; shape.planes: as they stand in the
                             * file (matmul_planes_avx512.h) */
    __m512   scale;         /* small: per sub-block                                          */
    __m128i  codes;         /* small, sub 32: what the scales are made of, words: F16 or (shape.exponents) E8M0; planes: bytes */
    __m256   low;           /* small with minimums: per 32 columns                           */
    __m128i  low_codes;     /* the same as F16                                               */
    __m128i  scales, mins;  /* super: int8 and uint8 per sub-block                           */
    uint32_t d;             /* super: f16 d, above it f16 dmin                               */
};
typedef void run_fn(struct run *out, const uint8_t *bytes);

/* What a token's activations offer for one run. */
struct token_run {
    int32_t init[16];       /* -offset * sum of x per sub-block: the dots' start values; scaled: [0], of the run */
    int16_t sums[16];       /* super: sums of x per sub-block                                   */
    float   dx[8];          /* super: dx[0]; small: per 32 columns                              */
    float   dsum[8];        /* small with minimums: dx * sum of x                               */
} __attribute__((aligned(64)));

/* Up to 16 rows of a format from `row` on, few tokens (at most DECODE_TOKS). [begin, end): all rows of this call, which is what may
 * be asked into the cache ahead. */
enum { DECODE_TOKS = 4 };
struct row_range { size_t begin, end; };

/* That range for a call: it may go beyond the call where the call ends with a full group of rows. */
static inline struct row_range rows_to_ask(const struct matmul_job *job, struct row_range call)
{
    bool whole = (call.end - call.begin) % PANEL_ROWS == 0;
    return (struct row_range){ job->asked ? SIZE_MAX : call.begin, call.end + (whole ? job->rows_soon : 0) };
}

typedef void decode_fn(const struct matmul_job *job, size_t row, struct row_range all);
/* `rows` rows' runs, `stride` bytes apart, to a panel; rows above are zero. */
typedef void panel_fn(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows);

/* All rows of a call, few_least to FEW_TOKS tokens (matmul_few_avx512.h), which few_arrange_avx512 has put in order in scratch
 * (job->kept). */
enum { FEW_TOKS = 16 };
static inline size_t few_least(const struct panel_shape *shape)
{
    return shape->few ? shape->few : DECODE_TOKS + 1;
}

struct few_scratch;
typedef void few_fn(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch);

/* All rows of a call where job->wide, by more than DECODE_TOKS tokens (matmul_woven_avx512.h), for which arrange_woven has put in
 * scratch what tokens offer (job->kept). */
enum { WOVEN_TOKS = 64 };
struct woven_scratch;
typedef void woven_fn(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch);

struct format_avx512 {
    struct panel_shape shape;
    decode_fn         *decode;       /* NULL where the format's product takes so few tokens itself */
    panel_fn          *panel;
    few_fn            *few;
    size_t             groups;       /* up to so many tokens go sixteen at a time to few, at most GROUPS_TOKS */
    woven_fn          *woven;        /* or NULL                                                               */
    size_t             woven_toks;   /* up to so many tokens, at most WOVEN_TOKS                              */
};

extern const struct format_avx512
    format_q1_0_avx512, format_q2_0_avx512, format_q4_0_avx512, format_q4_1_avx512, format_q5_0_avx512, format_q5_1_avx512,
    format_q8_0_avx512, format_iq4_nl_avx512, format_mxfp4_avx512, format_nvfp4_avx512, format_q2_k_avx512, format_q3_k_avx512,
    format_q4_k_avx512, format_q5_k_avx512, format_q6_k_avx512, format_tq1_0_avx512, format_tq2_0_avx512, format_iq1_s_avx512,
    format_iq1_m_avx512, format_iq2_xxs_avx512, format_iq2_xs_avx512, format_iq2_s_avx512, format_iq3_xxs_avx512,
    format_iq3_s_avx512, format_iq4_xs_avx512;
extern const struct format_avx512
    format_iq2_xxs_avx512vbmi, format_iq2_xs_avx512vbmi, format_iq2_s_avx512vbmi, format_iq3_xxs_avx512vbmi,
    format_iq3_s_avx512vbmi;

/* The run `run` of up to 64 rows to panels, an even number of them, the last perhaps empty; gives the number. `copy` is room for 16
 * padded runs. */
size_t fill_panels_avx512(struct panel *panels, uint8_t *copy, const struct matmul_job *job, size_t row, size_t rows, size_t run,
                          const struct format_avx512 *format);

/* The product by way of the format's two functions; scratch of matmul_scratch_avx512 bytes. On AMX the same to the bit. */
void matmul_panels_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                          const struct format_avx512 *format);
void matmul_panels_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                       const struct format_avx512 *format);

/* A token's scale times a small format's. Where all of those are powers of two, a panel holds their exponents: vscalefps leaves the
 * ports to the dots, on which a multiplication takes its turn (MXFP4 340 -> 366 Gop/s with 256 tokens). Both round once, to the
 * same bits. */
static ALWAYS_INLINE __m512 scaled_by(__m512 dx, __m512 scale, const struct panel_shape shape)
{
    return shape.exponents ? _mm512_scalef_ps(dx, scale) : _mm512_mul_ps(scale, dx);
}

/* ---- a token's side --------------------------------------------------------------------------------------------- */

/* Sums of x per 32 columns as i32, from the 16 sums per 16 columns. */
static ALWAYS_INLINE __m256i sums_32(__m256i sums)
{
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

static ALWAYS_INLINE void token_run_init(struct token_run *out, const uint8_t *act, const struct act_layout *layout, size_t run,
                                         const struct panel_shape shape)
{
    __m256i sums = _mm256_loadu_si256((const __m256i *)(act + layout->sums + run * 32));
    __m512i wide = shape.sub == 16 ? _mm512_cvtepi16_epi32(sums) : _mm512_zextsi256_si512(sums_32(sums));
    const unsigned shift = (unsigned)__builtin_ctz(shape.offset | 0x10000);
    if (shape.scaled) {
        out->init[0] = shape.offset ? -(int32_t)shape.offset * _mm512_reduce_add_epi32(wide) : 0;
    } else {
        __m512i init = shape.offset ? _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(wide, shift))
                                    : _mm512_setzero_si512();
        _mm512_store_si512(out->init, init);
    }
    if (shape.kind == PANEL_SUPER) {
        memcpy(&out->dx[0], act + layout->scales + run * 4, 4);
        if (shape.mins || shape.narrow) {
            if (shape.sub == 16)
                _mm256_store_si256((__m256i *)out->sums, sums);
            else
                _mm_store_si128((__m128i *)out->sums, _mm256_cvtepi32_epi16(_mm512_castsi512_si256(wide)));
        }
    } else {
        __m256 dx = _mm256_loadu_ps((const float *)(const void *)(act + layout->scales + run * 32));
        _mm256_store_ps(out->dx, dx);
        if (shape.mins)
            _mm256_store_ps(out->dsum, _mm256_mul_ps(dx, _mm256_cvtepi32_ps(sums_32(sums))));
    }
}

/* ---- one to four tokens ----------------------------------------------------------------------------------------- */

/* What up to 16 rows leave behind in one run: dots waiting to be summed across lanes, scales waiting to become columns. The dots of
 * four rows are folded as far as four rows can be. */
struct decode_quads {
    __m512i quad[4][4];         /* super: [0][i], lanes of 128 bits are rows i, 4 + i, 8 + i, 12 + i. Planes: lanes are parts of the
                                 * sums, their dwords rows 4 i to 4 i + 3. Small: [part][i], the same, lanes are sub-blocks */
};

struct decode_rest {
    float    scale[2][16][8];                    /* small, sub 16                             */
    uint16_t codes[16][8], low_codes[16][8];     /* small, sub 32: rows as in mins            */
    uint32_t d[16];                              /* super                                     */
    uint8_t  mins[16][16];                       /* super: row r at r % 4 * 4 + r / 4; sub 16: in the upper halves of bytes */
} __attribute__((aligned(64)));

/* A run of the tokens, and what 16 rows left in it. */
struct decode_run {
    struct token_run    token[DECODE_TOKS];
    struct decode_quads quads[DECODE_TOKS];
    struct decode_rest  rest;
};

/* In a register: what compilers would fold into several instructions as an unaligned load they load once. */
static ALWAYS_INLINE __m512i settled(__m512i value)
{
    __asm__("" : "+v"(value));
    return value;
}

static ALWAYS_INLINE __m512i or_masked(__m512i a, __m512i b, __m512i mask)
{
    enum { A_OR_B_AND_C = 0xf8 };
    return _mm512_ternarylogic_epi32(a, b, mask, A_OR_B_AND_C);
}

/* A token's run in the order of the weights. */
static ALWAYS_INLINE void load_acts(__m512i x[4], const int8_t *from, enum panel_order order)
{
    for (int k = 0; k < 4; k += 2) {
        __m512i a = _mm512_loadu_si512(from + 64 * k), b = _mm512_loadu_si512(from + 64 * k + 64);
        if (order == ORDER_PLAIN) {
            x[k] = a;
            x[k + 1] = b;
        } else if (order == ORDER_HALVES) {
            x[k] = _mm512_shuffle_i32x4(a, b, 0x44);
            x[k + 1] = _mm512_shuffle_i32x4(a, b, 0xee);
        } else {
            x[k] = _mm512_shuffle_i32x4(a, b, 0x88);
            x[k + 1] = _mm512_shuffle_i32x4(a, b, 0xdd);
        }
    }
}

static ALWAYS_INLINE __m512i dot_64(__m512i sum, __m512i q, __m512i x)
{
    return _mm512_dpbusd_epi32(sum, q, x);
}

/* The dots of four fit int16: two vectors are packed into one, in which scales as int16 are multiplied and added in one step. */
static ALWAYS_INLINE __m512i dot_super_narrow(const struct run *w, const __m512i *x, const struct token_run *token,
                                              const struct panel_shape shape)
{
    const __m512i units = _mm512_set_epi16(7, 7, 7, 7, 3, 3, 3, 3, 6, 6, 6, 6, 2, 2, 2, 2, 5, 5, 5, 5, 1, 1, 1, 1, 4, 4, 4, 4, 0,
                                           0, 0, 0);
    const __m512i halves = _mm512_set_epi16(3, 3, 3, 3, 2, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0,
                                            0, 0, 0);
    const __m512i plain = _mm512_set_epi16(3, 3, 3, 3, 1, 1, 1, 1, 3, 3, 3, 3, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0, 2, 2, 2, 2, 0,
                                           0, 0, 0);
    const __m512i zero = _mm512_setzero_si512();
    __m256i scales = _mm256_cvtepi8_epi16(w->scales);
    __m512i wide = _mm512_castsi256_si512(scales), total = zero;
    for (int k = 0; k < 4; k += 2) {
        __m512i dots = _mm512_packs_epi32(dot_64(zero, w->q[k], x[k]), dot_64(zero, w->q[k + 1], x[k + 1]));
        const __m512i base = _mm512_set1_epi16((short)(k * (shape.sub == 16 ? 4 : 2)));
        __m512i index = _mm512_add_epi16(shape.sub == 16 ? units : shape.order == ORDER_HALVES ? halves : plain, base);
        total = _mm512_dpwssd_epi32(total, dots, _mm512_permutexvar_epi16(index, wide));
    }
    if (shape.offset) {
        __m256i sums = _mm256_madd_epi16(scales, _mm256_load_si256((const __m256i *)token->sums));
        sums = _mm256_slli_epi32(sums, __builtin_ctz(shape.offset));
        total = _mm512_sub_epi32(total, _mm512_zextsi256_si512(sums));
    }
    return total;
}

static ALWAYS_INLINE __m512i dot_super_wide(const struct run *w, const __m512i *x, const struct token_run *token,
                                            const struct panel_shape shape)
{
    const __m512i zero = _mm512_setzero_si512(), scales = _mm512_cvtepi8_epi32(w->scales);
    const __m512i fours = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512i eights = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m512i total = shape.offset ? _mm512_mullo_epi32(scales, _mm512_load_si512(token->init)) : zero;
    if (shape.order == ORDER_QUARTERS) {
        for (int k = 0; k < 4; k += 2) {
            __m512i dot = dot_64(dot_64(zero, w->q[k], x[k]), w->q[k + 1], x[k + 1]);
            __m512i index = _mm512_add_epi32(fours, _mm512_set1_epi32(2 * k));
            total = _mm512_add_epi32(total, _mm512_mullo_epi32(dot, _mm512_permutexvar_epi32(index, scales)));
        }
        return total;
    }
    for (int k = 0; k < 4; k++) {
        __m512i index = _mm512_add_epi32(shape.sub == 16 ? fours : eights, _mm512_set1_epi32(k * (shape.sub == 16 ? 4 : 2)));
        __m512i dot = dot_64(zero, w->q[k], x[k]);
        total = _mm512_add_epi32(total, _mm512_mullo_epi32(dot, _mm512_permutexvar_epi32(index, scales)));
    }
    return total;
}

/* Start values of a small format's dots, which take the offset off: each sub-block's in one of its lanes. */
static ALWAYS_INLINE void small_starts(__m512i start[4], const struct token_run *token, const struct panel_shape shape)
{
    const __m512i init = _mm512_load_si512(token->init);
    const bool four = shape.order == ORDER_QUARTERS || shape.sub == 16;      /* sub-blocks in a vector, or two */
    const __m512i lane = four ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                              : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    for (int k = 0; k < (shape.order == ORDER_QUARTERS ? 2 : 4); k++)
        start[k] = _mm512_maskz_permutexvar_epi32(four ? 0x1111 : 0x0101,
                                                  _mm512_add_epi32(lane, _mm512_set1_epi32(k * (four ? 4 : 2))), init);
}

/* A small format's dots, in parts whose lanes of 128 bits are sub-blocks. */
static ALWAYS_INLINE void dot_small(__m512i part[4], const struct run *w, const __m512i x[8], const struct panel_shape shape)
{
    if (shape.order == ORDER_QUARTERS) {
        for (int k = 0; k < 2; k++)
            part[k] = dot_64(dot_64(x[4 + k], w->q[2 * k], x[2 * k]), w->q[2 * k + 1], x[2 * k + 1]);
        return;
    }
    __m512i dot[4];
    for (int k = 0; k < 4; k++)
        dot[k] = dot_64(x[4 + k], w->q[k], x[k]);
    if (shape.sub == 16) {
        for (int k = 0; k < 4; k++)
            part[k] = dot[k];
    } else {
        part[0] = fold_pairs(dot[0], dot[1]);
        part[1] = fold_pairs(dot[2], dot[3]);
    }
}

/* Sums of minimum times sum of x, lanes: rows. */
static ALWAYS_INLINE __m512i sum_mins(const struct decode_rest *rest, const struct token_run *token, const struct panel_shape shape)
{
    __m512i quad[4];
    if (shape.sub == 16) {
        /* minimums of four bits, the upper half of each byte: times the sums' lower four bits and, where they stand, times the
         * upper ones, at most 127 */
        const __m256i sums = _mm256_load_si256((const __m256i *)token->sums);
        __m512i low = _mm512_broadcast_i32x4(_mm256_cvtepi16_epi8(_mm256_and_si256(sums, _mm256_set1_epi16(15))));
        __m512i high = _mm512_broadcast_i32x4(_mm256_cvtepi16_epi8(_mm256_srai_epi16(sums, 4)));
        for (int i = 0; i < 4; i++) {
            __m512i mins = _mm512_and_si512(_mm512_load_si512(rest->mins[4 * i]), _mm512_set1_epi8((char)0xf0));
            quad[i] = dot_64(dot_64(_mm512_setzero_si512(), _mm512_srli_epi16(mins, 4), low), mins, high);
        }
    } else {
        __m512i sums = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)token->sums));
        for (int i = 0; i < 4; i++) {
            /* four rows' eight bytes */
            const uint8_t (*mins)[16] = &rest->mins[4 * i];
            __m128i a = _mm_unpacklo_epi64(_mm_load_si128((const __m128i *)mins[0]), _mm_load_si128((const __m128i *)mins[1]));
            __m128i b = _mm_unpacklo_epi64(_mm_load_si128((const __m128i *)mins[2]), _mm_load_si128((const __m128i *)mins[3]));
            quad[i] = _mm512_madd_epi16(_mm512_cvtepu8_epi16(_mm256_setr_m128i(a, b)), sums);
        }
    }
    return sum_lanes(quad[0], quad[1], quad[2], quad[3]);
}

/* d and dmin of 16 rows from their f16 pairs. */
static ALWAYS_INLINE __m512 scales_of(const uint32_t d[16], bool upper, float factor)
{
    __m512i both = _mm512_loadu_si512(d);
    __m512 scales = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(upper ? _mm512_srli_epi32(both, 16) : both));
    return factor == 1 ? scales : _mm512_mul_ps(scales, _mm512_set1_ps(factor));
}

/* Add a run to the accumulators (lanes: rows). */
static ALWAYS_INLINE __m512 finish_totals(__m512 acc, __m512i total, const struct decode_rest *rest, const struct token_run *token,
                                          const struct panel_shape shape)
{
    __m512 dx = _mm512_set1_ps(token->dx[0]);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(scales_of(rest->d, false, shape.factor), dx), _mm512_cvtepi32_ps(total), acc);
    if (shape.mins) {
        __m512 dmin = scales_of(rest->d, true, shape.factor);
        acc = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, dx), _mm512_cvtepi32_ps(sum_mins(rest, token, shape)), acc);
    }
    return acc;
}

/* scale and min: [sub-block][row], as in a panel. */
static ALWAYS_INLINE __m512 finish_small(__m512 acc, const struct decode_quads *quads, const __m512 *scale, const __m512 *min,
                                         const struct token_run *token, const struct panel_shape shape)
{
    const int per_part = 4, parts = shape.sub == 16 ? 4 : 2, per_dx = shape.sub == 16 ? 2 : 1;
    for (int part = 0; part < parts; part++) {
        const __m512i *quad = quads->quad[part];
        __m512i idot[4];
        __m512i a = _mm512_shuffle_i32x4(quad[0], quad[1], 0x44), b = _mm512_shuffle_i32x4(quad[2], quad[3], 0x44);
        __m512i c = _mm512_shuffle_i32x4(quad[0], quad[1], 0xee), d = _mm512_shuffle_i32x4(quad[2], quad[3], 0xee);
        idot[0] = _mm512_shuffle_i32x4(a, b, 0x88);
        idot[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
        idot[2] = _mm512_shuffle_i32x4(c, d, 0x88);
        idot[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
        for (int i = 0; i < per_part; i++) {
            int s = part * per_part + i;
            acc = _mm512_fmadd_ps(_mm512_mul_ps(scale[s], _mm512_set1_ps(token->dx[s / per_dx])), _mm512_cvtepi32_ps(idot[i]), acc);
            if (shape.mins)
                acc = _mm512_fnmadd_ps(min[s], _mm512_set1_ps(token->dsum[s]), acc);
        }
    }
    return acc;
}

static ALWAYS_INLINE __m512 finish_quads(__m512 acc, const struct decode_quads *quads, const struct decode_rest *rest,
                                         const __m512 *scale, const __m512 *min, const struct token_run *token,
                                         const struct panel_shape shape)
{
    const __m512i *quad = quads->quad[0];
    if (shape.kind == PANEL_SMALL)
        return finish_small(acc, quads, scale, min, token, shape);
    return finish_totals(acc, sum_lanes(quad[0], quad[1], quad[2], quad[3]), rest, token, shape);
}

/* A run's place: in the row, or copied and padded where the row ends within it. */
static ALWAYS_INLINE const uint8_t *whole_run(uint8_t *copy, const uint8_t *row, size_t run, const struct matmul_job *job,
                                              unsigned bytes)
{
    size_t left = job->row_bytes - run * bytes;
    if (left >= bytes)
        return row + run * bytes;
    memset(copy, 0, bytes);
    memcpy(copy, row + run * bytes, left);
    return copy;
}

/* What a row's run leaves besides its dots. */
static ALWAYS_INLINE void keep_rest(struct decode_rest *rest, size_t r, const struct run *w, const struct panel_shape shape)
{
    if (shape.kind == PANEL_SUPER) {
        rest->d[r] = w->d;
        if (shape.mins)
            _mm_store_si128((__m128i *)rest->mins[r % 4 * 4 + r / 4], shape.sub == 16 ? w->codes : w->mins);
    } else if (shape.sub == 16) {
        _mm256_store_ps(rest->scale[0][r], _mm512_castps512_ps256(w->scale));
        _mm256_store_ps(rest->scale[1][r], _mm512_extractf32x8_ps(w->scale, 1));
    } else {
        _mm_store_si128((__m128i *)rest->codes[r % 4 * 4 + r / 4], w->codes);
        if (shape.mins)
            _mm_store_si128((__m128i *)rest->low_codes[r % 4 * 4 + r / 4], w->low_codes);
    }
}

/* What will be read soon is asked for in the order of its addresses, a row's worth of lines per row worked on: that order the
 * machine's own prefetchers recognize and carry on, while requests for the same run of sixteen rows say nothing to them (Zen 4, one
 * core, share of its reading rate: Q4_K 92 to 94 % instead of 82, Q4_0 80 to 82 instead of 74, Q6_K of 8192 columns 90 instead of
 * 80). Two blocks of sixteen rows ahead; one: Q4_K 87; eight: 87. Streams far apart without requests, as the floats' products read
 * (apart.h, with what else was tried), are slower here: a line takes too many instructions.
 *
 * A Zen 4 drops requests that it has no room for (a loop of nothing else runs at three times the rate of memory), so formats whose
 * cycles allow it (shape.insist) ask again one block ahead, which costs little where the line has come. Whole 1B models on one
 * thread: Q8_0 93 to 95 % instead of 82 to 88, Q4_K_M 88 to 95 instead of 80 to 85, Q5_K 88 to 96 instead of 83 to 89. Those that
 * are as slow in the cache as memory lose half a percent.
 *
 * That is for the second-level cache. A Zen 5 asks into the first (job->wide), one block ahead and, where shape.insist, twice at
 * once (rows of 2048 columns, share of one core's 37 to 40 GB/s, in the order of the line above and so: Q4_K 66 and 95 %, Q8_0 74
 * and 90, Q4_0 77 and 81, Q2_K 61 and 80; two blocks ahead 85, 90, 81, 80). Where a block is more than the cache holds, the rows'
 * own next runs are better: of 8192 columns Q4_K 87 % instead of 80, Q8_0 89 instead of 83, Q6_K 90 instead of 82; of 2048 they are
 * alike. */
enum { RUNS_AHEAD = 3, BLOCKS_AHEAD = 2, NEAR_BLOCKS_AHEAD = 1, NEAR_BLOCK_BYTES = 40 << 10, NEAR_RUN_BYTES = 576 };

struct ask {
    const uint8_t *later;                    /* the block of rows that is asked for, NULL: nothing */
    const uint8_t *next;                     /* the next block: for a call's first rows; shape.insist: for all */
    size_t         own;                      /* so many bytes on, a later run of these rows, 0: not asked for */
    size_t         turn, far;                /* from that run on so many more: a first run of the next block's rows */
    bool           near;                     /* job->wide                                      */
};

static ALWAYS_INLINE struct ask ask_of(const struct matmul_job *job, size_t row, struct row_range all,
                                       const struct panel_shape shape)
{
    const size_t block = PANEL_ROWS * job->row_bytes;
    const uint8_t *rows = (const uint8_t *)job->weights + row * job->row_bytes;
    const size_t blocks = job->wide ? NEAR_BLOCKS_AHEAD : BLOCKS_AHEAD;
    const bool first = row == all.begin, more = row + PANEL_ROWS < all.end;
    if (job->wide && shape.insist && block > NEAR_BLOCK_BYTES) {
        const size_t runs = (NEAR_RUN_BYTES + shape.bytes - 1) / shape.bytes;
        return (struct ask){ .own = runs * shape.bytes, .turn = (job->cols + PANEL_COLS - 1) / PANEL_COLS - runs,
                             .far = more ? block - job->row_bytes : 0, .near = true };
    }
    return (struct ask){ .later = row + blocks * PANEL_ROWS < all.end ? rows + blocks * block : NULL,
                         .next = (first || shape.insist) && more ? rows + block : NULL,
                         .own = first ? RUNS_AHEAD * shape.bytes : 0, .near = job->wide };
}

/* A run's own later one. */
static ALWAYS_INLINE void ask_own(const struct ask *ask, const uint8_t *bytes, size_t run, const struct panel_shape shape)
{
    if (ask->own)
        prefetch_run(bytes + ask->own + (run >= ask->turn ? ask->far : 0), shape.bytes, ask->near);
}

/* A call's first rows: their first runs, which nobody has asked for either. */
static ALWAYS_INLINE void ask_first(const struct ask *ask, const struct matmul_job *job, size_t row, struct row_range all,
                                    size_t rows)
{
    for (size_t r = 0; row == all.begin && r < rows; r++)
        prefetch_run((const uint8_t *)job->weights + (row + r) * job->row_bytes, (unsigned)ask->own, ask->near);
}

/* Part k of `parts` of the lines that take the place of four rows' runs, from row 4 i of a block on. */
static ALWAYS_INLINE void ask_soon(const struct ask *ask, size_t run, size_t i, size_t k, size_t parts,
                                   const struct panel_shape shape)
{
    const size_t four = (run * PANEL_ROWS + 4 * i) * shape.bytes, lines = (4 * shape.bytes + 63) / 64;
    const size_t begin = 64 * (k * lines / parts), end = 64 * ((k + 1) * lines / parts);
    if (ask->later)
        prefetch_run(ask->later + four + begin, (unsigned)(end - begin), ask->near);
    if (ask->next)
        prefetch_run(ask->next + four + begin, (unsigned)(end - begin), ask->near);
}

/* Row r to dots[token][part][r % 4]; super: [token][r / 4][r % 4]. */
static ALWAYS_INLINE void decode_row(__m512i dots[DECODE_TOKS][4][4], struct decode_rest *rest, size_t r, const uint8_t *bytes,
                                     const __m512i (*x)[8], const struct token_run *token, size_t toks, run_fn *unpack,
                                     const struct panel_shape shape)
{
    const size_t k = r % 4;
    struct run w;
    unpack(&w, bytes);
    for (size_t t = 0; t < toks; t++) {
        if (shape.kind == PANEL_SMALL) {
            __m512i part[4];
            dot_small(part, &w, x[t], shape);
            for (size_t p = 0; p < (shape.sub == 16 ? 4 : 2); p++)
                dots[t][p][k] = part[p];
        } else {
            dots[t][r / 4][k] = shape.narrow ? dot_super_narrow(&w, x[t], &token[t], shape)
                                             : dot_super_wide(&w, x[t], &token[t], shape);
        }
    }
    keep_rest(rest, r, &w, shape);
}

static ALWAYS_INLINE void fold_small(struct decode_quads *quads, size_t i, const __m512i dots[4][4], const struct panel_shape shape)
{
    for (size_t p = 0; p < (shape.sub == 16 ? 4 : 2); p++)
        quads->quad[p][i] = sum_lanes(dots[p][0], dots[p][1], dots[p][2], dots[p][3]);
}

/* The rows' run, `from[place[r]]`, to `out`. Small formats take four rows at a time, for one token as straight code, and fold their
 * dots in registers (Q4_0 21 cycles per 256 weights instead of 24), by which super formats, with half as much, lose. */
static ALWAYS_INLINE void decode_run(struct decode_run *out, const uint8_t *from, const size_t place[PANEL_ROWS],
                                     const struct ask *ask, size_t run, const __m512i (*x)[8], size_t toks, run_fn *unpack,
                                     const struct panel_shape shape)
{
    struct decode_quads *quads = out->quads;
    struct decode_rest *rest = &out->rest;
    const struct token_run *token = out->token;
    const bool spread = toks == 1 && shape.kind == PANEL_SMALL;
    __m512i dots[DECODE_TOKS][4][4];
#pragma GCC unroll 1
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 4; k++)
            ask_own(ask, from + place[4 * i + k], run, shape);
        if (!spread)
            ask_soon(ask, run, i, 0, 1, shape);
        if (spread) {
            UNROLL_ALL
            for (size_t k = 0; k < 4; k++) {
                ask_soon(ask, run, i, k, 4, shape);
                decode_row(dots, rest, 4 * i + k, from + place[4 * i + k], x, token, 1, unpack, shape);
            }
        } else {
#pragma GCC unroll 1
            for (size_t k = 0; k < 4; k++)
                decode_row(dots, rest, 4 * i + k, from + place[4 * i + k], x, token, toks, unpack, shape);
        }
        for (size_t t = 0; shape.kind == PANEL_SMALL && t < toks; t++)
            fold_small(&quads[t], i, (const __m512i (*)[4])dots[t], shape);
    }
    for (size_t t = 0; shape.kind == PANEL_SUPER && t < toks; t++)
        for (size_t i = 0; i < 4; i++)
            quads[t].quad[0][i] = fold_four(dots[t][0][i], dots[t][1][i], dots[t][2][i], dots[t][3][i]);
}

/* Rows beyond the last are the last one again; what comes of them is not stored. */
static ALWAYS_INLINE void row_places(size_t place[PANEL_ROWS], size_t rows, size_t step)
{
    for (size_t r = 0; r < PANEL_ROWS; r++)
        place[r] = (r < rows ? r : rows - 1) * step;
}

/* Add a run to the accumulators. */
static ALWAYS_INLINE void finish_left(__m512 acc[DECODE_TOKS], const struct decode_run *done, size_t toks,
                                     const struct panel_shape shape)
{
    __m512 scales[16], lows[8];
    if (shape.kind == PANEL_SMALL && shape.sub == 16) {
        transpose_16x8(scales, (const float (*)[8])done->rest.scale[0]);
        transpose_16x8(scales + 8, (const float (*)[8])done->rest.scale[1]);
    } else if (shape.kind == PANEL_SMALL) {
        columns_of_codes(scales, (const uint16_t (*)[8])done->rest.codes, shape.exponents);
        if (shape.mins)
            columns_of_codes(lows, (const uint16_t (*)[8])done->rest.low_codes, false);
    }
    for (size_t t = 0; t < toks; t++)
        acc[t] = finish_quads(acc[t], &done->quads[t], &done->rest, scales, lows, &done->token[t], shape);
}

/* The results of up to 16 rows, from `row` on. */
static ALWAYS_INLINE void store_rows(const struct matmul_job *job, size_t row, size_t rows, const __m512 acc[DECODE_TOKS],
                                     size_t toks)
{
    for (size_t t = 0; t < toks; t++)
        _mm512_mask_storeu_ps(job->out + t * job->out_stride + row, (__mmask16)(0xffff >> (PANEL_ROWS - rows)), acc[t]);
}

/* A small format's run is finished after the next one's rows: what it left must have reached the cache before it can be read in
 * vectors of another width, and the additions to an accumulator wait for each other (Q4_0 17.9 cycles per 256 weights instead of
 * 18.6). Super formats have less to do there and lose by it; so does Q8_0, which waits for memory (74 to 79 % of the roof, not 83
 * to 85). */
static ALWAYS_INLINE void decode_rows(const struct matmul_job *job, size_t row, struct row_range all, size_t toks, run_fn *unpack,
                                      const struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS, runs = (job->cols + PANEL_COLS - 1) / PANEL_COLS;
    const struct act_layout layout = act_layout(shape.kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    const size_t wait = shape.kind == PANEL_SMALL && shape.bytes < PANEL_COLS;
    struct ask ask = ask_of(job, row, all, shape);
    struct decode_run left[2];
    size_t place[PANEL_ROWS];
    uint8_t copy[PANEL_ROWS][PANEL_COLS / 32 * 36];
    __m512 acc[DECODE_TOKS];
    __m512i x[DECODE_TOKS][8];

    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    ask_first(&ask, job, row, all, rows);
    row_places(place, rows, job->row_bytes);
    for (size_t run = 0; run < runs + wait; run++) {
        struct decode_run *now = &left[wait ? run % 2 : 0];
        if (run < runs) {
            for (size_t t = 0; t < toks; t++) {
                const uint8_t *act = (const uint8_t *)job->acts + t * job->act_stride;
                token_run_init(&now->token[t], act, &layout, run, shape);
                load_acts(x[t], (const int8_t *)act + run * PANEL_COLS, shape.order);
                if (shape.kind == PANEL_SMALL)
                    small_starts(x[t] + 4, &now->token[t], shape);
            }
            /* A run that the rows' end cuts short is padded for all rows before the loop: a call in it, though hardly ever made,
             * would keep no constant in a register. */
            const uint8_t *from = weights + run * shape.bytes;
            if (shape.kind == PANEL_SMALL && job->row_bytes - run * shape.bytes < shape.bytes) {
                for (size_t r = 0; r < rows; r++)
                    whole_run(copy[r], weights + r * job->row_bytes, run, job, shape.bytes);
                row_places(place, rows, sizeof copy[0]);
                ask.own = 0;
                from = copy[0];
            }
            decode_run(now, from, place, &ask, run, (const __m512i (*)[8])x, toks, unpack, shape);
        }
        if (run >= wait)
            finish_left(acc, &left[wait ? (run + 1) % 2 : 0], toks, shape);
    }
    store_rows(job, row, rows, acc, toks);
}

static ALWAYS_INLINE void decode_format(const struct matmul_job *job, size_t row, struct row_range all, run_fn *unpack,
                                        const struct panel_shape shape)
{
    if (job->toks == 1)
        decode_rows(job, row, all, 1, unpack, shape);
    else if (job->toks == 2)
        decode_rows(job, row, all, 2, unpack, shape);
    else if (job->toks == 3)
        decode_rows(job, row, all, 3, unpack, shape);
    else if (few_least(&shape) > DECODE_TOKS)
        decode_rows(job, row, all, 4, unpack, shape);
}

#endif
