/* matmul_avx2.h - what every weight format shares on AVX2: the run in registers, the product of one to four tokens, the panel. A
 * shape's `vnni` chooses the dots of AVX-VNNI (matmul_avxvnni.c).
 *
 * Without VNNI a byte dot is vpmaddubsw, unsigned times signed, whose pairs of products saturate at int16. Values up to 127 are
 * safe (2 * 127 * 127 = 32,258); formats with larger ones deliver signed bytes. Their magnitudes are multiplied by activations
 * that take over the signs (2 * 128 * 127 = 32,512), or, where values end at -127, the other way round, so that magnitudes are
 * taken once for all rows (takes_signs); panels of them are int16 (matmul_wide_avx2.c). Sums of pairs are multiplied by the
 * integer scale as they are added (vpmaddwd), so the scale costs nothing. */
#ifndef QUERN_MATMUL_AVX2_H
#define QUERN_MATMUL_AVX2_H

#include "dots_avxvnni.h"
#include "numbers.h"
#include "panel.h"
#include "prefetch.h"
#include "unpack.h"
#include "vector_avx2.h"
#include "x86.h"

/* 256 columns of a row, in the file's order. Blocks of 32 nibbles come in quarters as well (ORDER_QUARTERS): of two blocks the low
 * nibbles are one vector and the high ones another, which one token takes as they are. An unpacker sets both forms of the values;
 * what its caller does not read is not computed. */
struct run {
    __m256i  q[8];          /* u8, value + offset; int8 where the shape has no room for an offset (top > 127) */
    __m256i  pair[8];       /* quarters: q of two blocks at a time, their columns 0 to 15 and then 16 to 31 */
    uint16_t file_scale[8]; /* small, 32 columns to a scale: as in the file, F16 or E8M0     */
    uint16_t file_low[8];   /* the same with minimums: F16, to be added                      */
    __m256   scale[2];      /* small, 16 columns to a scale                                  */
    __m128i  scales, mins;  /* super: int8 and uint8 per sub-block                           */
    uint32_t d;             /* super: f16 d, above it f16 dmin                               */
};
typedef void run_fn(struct run *out, const uint8_t *bytes);

/* What a token's activations offer for one run. */
struct token_run {
    int32_t init[16];       /* small: -offset * sum of x per sub-block                       */
    int16_t sums[16];       /* super: sums of x per sub-block                                */
    float   dx[8];          /* super: dx[0]; small: per 32 columns                           */
    float   dsum[8];        /* small with minimums: dx * sum of x                            */
} __attribute__((aligned(32)));

/* 16 rows by 256 columns of signed values. q[c][r]: columns 2c and 2c + 1 of row r. */
struct wide_panel {
    int16_t q[PANEL_COLS / 2][PANEL_ROWS][2];      /* super: times the sub-block's scale */
    float   scale[16][PANEL_ROWS];                 /* small: [sub-block][row]            */
    float   d[PANEL_ROWS];                         /* super                              */
};

union any_panel {
    struct panel      bytes;
    struct wide_panel wide;
} __attribute__((aligned(64)));

enum { DECODE_ROWS = 8, DECODE_TOKS = 4 };
typedef void decode_fn(const struct matmul_job *job, size_t row, size_t rows);
typedef void panel_fn(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows);

/* Rows that are multiplied together; tokens that pass by a panel at a time, where that many sums fit the registers. */
enum { BLOCK_ROWS = 64, SIX_TOKS = 6 };
/* acc[token][row] += a panel by 2, 4 or 6 tokens. */
typedef void six_fn(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t (*x)[PANEL_COLS], const struct token_run *token,
                    size_t toks, const struct panel_shape *shape);

struct format_avx2 {
    struct panel_shape shape;
    decode_fn         *decode;
    panel_fn          *panel;
    six_fn            *micro;       /* AVX-VNNI's; NULL: one of AVX2's, by the shape */
};

void matmul_panels_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                        const struct format_avx2 *format);

/* Values that do not fit seven bits come signed, but for VNNI, whose dots do not saturate. */
static ALWAYS_INLINE bool comes_signed(const struct panel_shape shape)
{
    return shape.top > 127 && !shape.offset;
}

/* A run, and for VNNI signed bytes plus 128. */
static ALWAYS_INLINE void unpack_run(struct run *w, const uint8_t *bytes, run_fn *unpack, const struct panel_shape shape)
{
    unpack(w, bytes);
    if (shape.vnni && shape.offset == 128)
        for (int k = 0; k < 8; k++) {
            w->q[k] = _mm256_xor_si256(w->q[k], _mm256_set1_epi8((char)128));
            if (shape.order == ORDER_QUARTERS)
                w->pair[k] = _mm256_xor_si256(w->pair[k], _mm256_set1_epi8((char)128));
        }
}

static ALWAYS_INLINE __m256i broadcast_4_bytes(const void *bytes)
{
    int32_t value;
    memcpy(&value, bytes, 4);
    return _mm256_set1_epi32(value);
}

static ALWAYS_INLINE __m256i sums_32(__m256i sums)
{
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

static ALWAYS_INLINE void token_run_init(struct token_run *out, const uint8_t *act, const struct act_layout *layout, size_t run,
                                         const struct panel_shape shape)
{
    __m256i sums = _mm256_loadu_si256((const __m256i *)(act + layout->sums + run * 32)), pairs = sums_32(sums);
    if (shape.kind == PANEL_SUPER) {
        memcpy(&out->dx[0], act + layout->scales + run * 4, 4);
        if (shape.sub == 16) {
            _mm256_store_si256((__m256i *)out->sums, sums);
        } else {
            __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
            _mm_store_si128((__m128i *)out->sums, packed);
        }
        return;
    }
    __m256 dx = _mm256_loadu_ps((const float *)(const void *)(act + layout->scales + run * 32));
    _mm256_store_ps(out->dx, dx);
    if (shape.mins)
        _mm256_store_ps(out->dsum, _mm256_mul_ps(dx, _mm256_cvtepi32_ps(pairs)));
    if (shape.offset && !comes_signed(shape)) {
        const int shift = __builtin_ctz(shape.offset);
        __m256i zero = _mm256_setzero_si256();
        if (shape.sub == 32) {
            _mm256_store_si256((__m256i *)out->init, _mm256_sub_epi32(zero, _mm256_slli_epi32(pairs, shift)));
        } else {
            __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums));
            __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1));
            _mm256_store_si256((__m256i *)out->init, _mm256_sub_epi32(zero, _mm256_slli_epi32(low, shift)));
            _mm256_store_si256((__m256i *)(out->init + 8), _mm256_sub_epi32(zero, _mm256_slli_epi32(high, shift)));
        }
    }
}

/* Pairs of products as int16. */
static ALWAYS_INLINE __m256i pairs_of(__m256i q, __m256i x, const struct panel_shape shape)
{
    if (comes_signed(shape))
        return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
    return _mm256_maddubs_epi16(q, x);
}

/* Values in [-127, 127]: they can take over the activations' signs, and then magnitudes are taken once for all rows. */
static ALWAYS_INLINE bool takes_signs(const struct panel_shape shape)
{
    return shape.top == 254 && comes_signed(shape);
}

/* pairs_of activations in memory; where weights take signs, the magnitudes stand PANEL_COLS further on. */
static ALWAYS_INLINE __m256i pairs_at(__m256i q, const int8_t *x, const struct panel_shape shape)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)x);
    if (takes_signs(shape))
        return _mm256_maddubs_epi16(_mm256_load_si256((const __m256i *)(x + PANEL_COLS)), _mm256_sign_epi8(q, v));
    return pairs_of(q, v, shape);
}

/* ---- one to four tokens ----------------------------------------------------------------------------------------- */

struct decode_rest {
    float    scale[2][8][8];                     /* small by 16 columns: [half][row]          */
    uint16_t file_scale[8][8], file_low[8][8];   /* small by 32: [sub-block][row]             */
    uint32_t d[8];                               /* super                                     */
    __m256i  mins[8];                            /* super: as int16                           */
} __attribute__((aligned(32)));

/* Scales of the columns of q[k], each beside its columns' sums of pairs. */
static ALWAYS_INLINE __m256i scale_of_32(__m256i scales, int k, const struct panel_shape shape)
{
    if (shape.sub == 32)
        return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(scales, 0x44), _mm256_set1_epi16((short)(k * 0x202 + 0x100)));
    __m256i eight = k < 4 ? _mm256_permute4x64_epi64(scales, 0x44) : _mm256_permute4x64_epi64(scales, 0xee);
    __m256i index = _mm256_setr_m128i(_mm_set1_epi16((short)(k % 4 * 0x404 + 0x100)),
                                      _mm_set1_epi16((short)(k % 4 * 0x404 + 0x302)));
    return _mm256_shuffle_epi8(eight, index);
}

/* Scales of the columns of q[k] and q[k + 1], whose dots of four were packed to int16. */
static ALWAYS_INLINE __m256i scale_of_64(__m256i scales, int k, const struct panel_shape shape)
{
    const long long four = 0x0001000100010001;
    const long long here = (k % 4 * 0x404 + 0x100) * four, next = here + 0x404 * four;
    if (shape.sub == 32)
        return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(scales, 0x44), _mm256_broadcastsi128_si256(
            _mm_set_epi64x(((k + 1) * 0x202 + 0x100) * four, (k * 0x202 + 0x100) * four)));
    __m256i eight = k < 4 ? _mm256_permute4x64_epi64(scales, 0x44) : _mm256_permute4x64_epi64(scales, 0xee);
    return _mm256_shuffle_epi8(eight, _mm256_setr_epi64x(here, next, here + 0x202 * four, next + 0x202 * four));
}

/* dot_super's sums with VNNI. Dots of four fit int16 up to 63 (4 * 63 * 127 = 32,004): those of 64 columns are packed and
 * multiplied by their scales at once. Of seven bits and of signed bytes dots of two fit. */
static ALWAYS_INLINE void dot_super_vnni(__m256i total[DECODE_TOKS], const struct run *w, const int8_t *const *x, const int toks,
                                         const struct panel_shape shape)
{
    __m256i scales = _mm256_cvtepi8_epi16(w->scales);
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        total[t] = _mm256_setzero_si256();
    UNROLL_ALL
    for (int k = 0; k < 8; k += shape.top <= 63 ? 2 : 1) {
        __m256i scale = shape.top <= 63 ? scale_of_64(scales, k, shape) : scale_of_32(scales, k, shape);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            const int8_t *v = x[t] + 32 * k;
            if (shape.top <= 63) {
                __m256i a = _mm256_setzero_si256(), b = _mm256_setzero_si256();
                add_dots_of_4(&a, w->q[k], _mm256_loadu_si256((const __m256i *)v));
                add_dots_of_4(&b, w->q[k + 1], _mm256_loadu_si256((const __m256i *)(v + 32)));
                add_dots_of_2(&total[t], _mm256_packs_epi32(a, b), scale);
            } else {
                add_dots_of_2(&total[t], pairs_at(w->q[k], v, shape), scale);
            }
        }
    }
}

/* Its sums without: the scales come with the widening of the pairs. Values, scales and sums of several tokens are settled (Q4_K,
 * four tokens, one Zen 4 core, 256 weights from the cache: 16.8 -> 14.7 ns). */
static ALWAYS_INLINE void dot_super_avx2(__m256i total[DECODE_TOKS], const struct run *w, const int8_t *const *x, const int toks,
                                         const struct panel_shape shape)
{
    __m256i scales = _mm256_cvtepi8_epi16(w->scales);
    UNROLL_ALL
    for (int k = 0; k < 8; k++) {
        __m256i scale = scale_of_32(scales, k, shape), q = w->q[k];
        if (toks > 1) {
            scale = settled(scale);
            q = settled(q);
        }
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i pairs = pairs_at(q, x[t] + 32 * k, shape);
            __m256i product = _mm256_madd_epi16(pairs, scale);
            total[t] = k == 0 ? product : _mm256_add_epi32(total[t], product);
            if (toks > 1)
                total[t] = settled(total[t]);
        }
    }
}

/* A row's run by `toks` tokens: eight partial totals of each. Values and scales are made once for all. */
static ALWAYS_INLINE void dot_super(__m256i total[DECODE_TOKS], const struct run *w, const int8_t *const *x,
                                    const struct token_run *token, const int toks, const struct panel_shape shape)
{
    __m256i scales = _mm256_cvtepi8_epi16(w->scales);
    if (shape.vnni)
        dot_super_vnni(total, w, x, toks, shape);
    else
        dot_super_avx2(total, w, x, toks, shape);
    if (shape.offset && !comes_signed(shape))
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i sums = _mm256_load_si256((const __m256i *)token[t].sums);
            if (shape.sub == 32)
                sums = _mm256_zextsi128_si256(_mm256_castsi256_si128(sums));
            sums = _mm256_slli_epi32(_mm256_madd_epi16(scales, sums), __builtin_ctz(shape.offset | 0x10000));
            total[t] = _mm256_sub_epi32(total[t], sums);
        }
}

/* A token's run in the order of pair[]. */
static ALWAYS_INLINE void x_in_quarters(int8_t *to, const int8_t *from)
{
    for (int k = 0; k < 4; k++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(from + 64 * k));
        __m256i b = _mm256_loadu_si256((const __m256i *)(from + 64 * k + 32));
        _mm256_store_si256((__m256i *)(to + 64 * k), _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_store_si256((__m256i *)(to + 64 * k + 32), _mm256_permute2x128_si256(a, b, 0x31));
    }
}

/* For takes_signs. */
static ALWAYS_INLINE void magnitudes_of(int8_t *to, const int8_t *x)
{
    for (int k = 0; k < 8; k++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(x + 32 * k));
        _mm256_store_si256((__m256i *)(to + 32 * k), v);
        _mm256_store_si256((__m256i *)(to + PANEL_COLS + 32 * k), _mm256_abs_epi8(v));
    }
}

/* Dots of the lanes' four bytes. */
static ALWAYS_INLINE __m256i dots_of_4(__m256i q, __m256i x, const struct panel_shape shape)
{
    __m256i dots = _mm256_setzero_si256();
    if (!shape.vnni)
        return _mm256_madd_epi16(pairs_of(q, x, shape), _mm256_set1_epi16(1));
    add_dots_of_4(&dots, q, x);
    return dots;
}

/* The same of two vectors, added. Two pairs of products of up to five bits fit int16: 4 * 31 * 127 = 15,748. */
static ALWAYS_INLINE __m256i dots_of_8(const __m256i q[2], const int8_t *x, const struct panel_shape shape)
{
    __m256i first = _mm256_load_si256((const __m256i *)x), second = _mm256_load_si256((const __m256i *)(x + 32));
    __m256i dots = dots_of_4(q[0], first, shape);
    if (shape.vnni)
        add_dots_of_4(&dots, q[1], second);
    else if (comes_signed(shape))
        dots = _mm256_add_epi32(sums_32(pairs_at(q[0], x, shape)), sums_32(pairs_at(q[1], x + 32, shape)));
    else
        dots = sums_32(_mm256_add_epi16(pairs_of(q[0], first, shape), pairs_of(q[1], second, shape)));
    return dots;
}

/* Integer dots of eight blocks of 32. A vector's halves are two blocks, so half as many sums across lanes are left as with one
 * block to a vector (Q4_0, one token, one Zen 4 core: 21 against 17 GB/s from the cache). */
static ALWAYS_INLINE __m256i dot_quarters(const struct run *w, const int8_t *x, const struct panel_shape shape)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i dot[4];
    for (int k = 0; k < 4; k++)
        dot[k] = dots_of_8(w->pair + 2 * k, x + 64 * k, shape);
    return _mm256_permutevar8x32_epi32(sum_4_rows(dot[0], dot[1], dot[2], dot[3]), order);
}

/* Integer dots of the run's sub-blocks, in order. */
static ALWAYS_INLINE void dot_small(__m256i idot[2], const struct run *w, const int8_t *x, const struct token_run *token,
                                    const struct panel_shape shape)
{
    __m256i dot[8];
    if (shape.order == ORDER_QUARTERS) {
        idot[0] = dot_quarters(w, x, shape);
        if (shape.offset && !comes_signed(shape))
            idot[0] = _mm256_add_epi32(idot[0], _mm256_load_si256((const __m256i *)token->init));
        return;
    }
    for (int k = 0; k < 8; k++)
        dot[k] = dots_of_4(w->q[k], _mm256_loadu_si256((const __m256i *)(x + 32 * k)), shape);
    if (shape.sub == 32) {
        idot[0] = sum_8_rows(dot);
    } else {
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        idot[0] = _mm256_permutevar8x32_epi32(sum_4_rows(dot[0], dot[1], dot[2], dot[3]), order);
        idot[1] = _mm256_permutevar8x32_epi32(sum_4_rows(dot[4], dot[5], dot[6], dot[7]), order);
    }
    if (shape.offset && !comes_signed(shape))
        for (unsigned i = 0; i < 32 / shape.sub; i++)
            idot[i] = _mm256_add_epi32(idot[i], _mm256_load_si256((const __m256i *)(token->init + 8 * i)));
}

/* d or dmin of eight rows from their f16 pairs. */
static ALWAYS_INLINE __m256 scales_of(const uint32_t d[8], bool upper, float factor)
{
    __m256i both = _mm256_loadu_si256((const __m256i *)d);
    both = upper ? _mm256_srli_epi32(both, 16) : _mm256_and_si256(both, _mm256_set1_epi32(0xffff));
    __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    return _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(factor));
}

static ALWAYS_INLINE __m256 finish_super(__m256 acc, const __m256i totals[8], const struct decode_rest *rest,
                                         const struct token_run *token,
                                         const struct panel_shape shape)
{
    __m256 dx = _mm256_set1_ps(token->dx[0]);
    acc = _mm256_fmadd_ps(_mm256_mul_ps(scales_of(rest->d, false, shape.factor), dx), _mm256_cvtepi32_ps(sum_8_rows(totals)), acc);
    if (shape.mins) {
        __m256i low[8];
        for (int r = 0; r < 8; r++)
            low[r] = _mm256_madd_epi16(rest->mins[r], _mm256_load_si256((const __m256i *)token->sums));
        __m256 dmin = scales_of(rest->d, true, shape.factor);
        acc = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, dx), _mm256_cvtepi32_ps(sum_8_rows(low)), acc);
    }
    return acc;
}

static ALWAYS_INLINE void load_columns(__m256i v[8], const void *rows)
{
    for (int r = 0; r < 8; r++)
        v[r] = _mm256_load_si256((const __m256i *)rows + r);
    transpose_8x8(v);
}

/* Eight scales as the file has them. An E8M0 e is 2^(e - 128): exponents of 1 and less are subnormal as floats. */
static ALWAYS_INLINE __m256 floats_of_scales(const uint16_t file[8], const struct panel_shape shape)
{
    __m128i eight = _mm_load_si128((const __m128i *)file);
    if (!shape.exponents)
        return _mm256_cvtph_ps(eight);
    __m256i e = _mm256_cvtepu16_epi32(eight), small = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(small, normal, _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1))));
}

/* idots: [8 rows][8] per half. */
static ALWAYS_INLINE __m256 finish_small(__m256 acc, const __m256i idots[2][8], const struct decode_rest *rest,
                                         const struct token_run *token,
                                         const struct panel_shape shape)
{
    const int halves = shape.sub == 16 ? 2 : 1, per_dx = 32 / (int)shape.sub;
    for (int half = 0; half < halves; half++) {
        __m256i dot[8], scale[8];
        load_columns(dot, idots[half]);
        if (shape.sub == 16)
            load_columns(scale, rest->scale[half]);
        for (int i = 0; i < 8; i++) {
            __m256 value = shape.sub == 16 ? _mm256_castsi256_ps(scale[i]) : floats_of_scales(rest->file_scale[i], shape);
            __m256 factor = _mm256_mul_ps(value, _mm256_set1_ps(token->dx[(8 * half + i) / per_dx]));
            acc = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(dot[i]), acc);
            if (shape.mins) {
                __m256 low = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)rest->file_low[i]));
                acc = _mm256_fmadd_ps(low, _mm256_set1_ps(token->dsum[i]), acc);
            }
        }
    }
    return acc;
}

/* The scales of small blocks go by two-byte moves to where their columns of eight rows are wanted: transposed as floats they cost
 * as much as the dots. */
static ALWAYS_INLINE void keep_rest(struct decode_rest *rest, size_t r, const struct run *w, const struct panel_shape shape)
{
    if (shape.kind == PANEL_SUPER) {
        rest->d[r] = w->d;
        if (shape.mins)
            rest->mins[r] = _mm256_cvtepu8_epi16(w->mins);
    } else if (shape.sub == 16) {
        _mm256_store_ps(rest->scale[0][r], w->scale[0]);
        _mm256_store_ps(rest->scale[1][r], w->scale[1]);
    } else {
        for (int k = 0; k < 8; k++) {
            rest->file_scale[k][r] = w->file_scale[k];
            if (shape.mins)
                rest->file_low[k][r] = w->file_low[k];
        }
    }
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

/* What a run of eight rows leaves to be added. */
struct decode_sums {
    __m256i            dots[DECODE_TOKS][2][8];   /* super: totals in [0] */
    struct decode_rest rest;
    struct token_run   token[DECODE_TOKS];
};

static ALWAYS_INLINE void decode_tokens(struct token_run *token, int8_t (*arranged)[2 * PANEL_COLS], const int8_t **x,
                                        const struct matmul_job *job, const struct act_layout *layout, size_t run, const int toks,
                                        const struct panel_shape shape)
{
    for (int t = 0; t < toks; t++) {
        const uint8_t *act = (const uint8_t *)job->acts + (size_t)t * job->act_stride;
        x[t] = (const int8_t *)act + run * PANEL_COLS;
        token_run_init(&token[t], act, layout, run, shape);
        if (shape.order == ORDER_QUARTERS) {
            x_in_quarters(arranged[t], x[t]);
            x[t] = arranged[t];
        }
        if (takes_signs(shape)) {
            magnitudes_of(arranged[t], x[t]);
            x[t] = arranged[t];
        }
    }
}

static ALWAYS_INLINE void decode_add(__m256 acc[DECODE_TOKS], const struct decode_sums *sums, const int toks,
                                     const struct panel_shape shape)
{
    for (int t = 0; t < toks; t++)
        acc[t] = shape.kind == PANEL_SUPER
                     ? finish_super(acc[t], sums->dots[t][0], &sums->rest, &sums->token[t], shape)
                     : finish_small(acc[t], (const __m256i (*)[8])sums->dots[t], &sums->rest, &sums->token[t], shape);
}

/* A run's sums are added when the next run has been multiplied: scales are stored by two or four bytes and loaded by sixteen or
 * more, which waits until the stores have left the core (one token, 256 weights from the cache, Zen 4: Q4_0 6.5 -> 5.9 ns, Q4_K 6.1
 * -> 5.7).
 * Super formats' few scales are not worth a second set of totals for several tokens. */
static ALWAYS_INLINE void decode_rows(const struct matmul_job *job, size_t row, size_t rows, const int toks, run_fn *unpack,
                                      const struct panel_shape shape)
{
    const struct act_layout layout = act_layout(shape.kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    const bool late = toks == 1 || shape.kind == PANEL_SMALL;
    struct decode_sums both[2];
    int8_t arranged[DECODE_TOKS][2 * PANEL_COLS] __attribute__((aligned(32)));
    const int8_t *x[DECODE_TOKS];
    uint8_t copy[PANEL_COLS / 32 * 36];
    __m256 acc[DECODE_TOKS];
    size_t run;

    for (int t = 0; t < toks; t++)
        acc[t] = _mm256_setzero_ps();
    if (rows < DECODE_ROWS)
        memset(both, 0, sizeof both);
    for (run = 0; run * PANEL_COLS < job->cols; run++) {
        struct decode_sums *sums = &both[late ? run % 2 : 0];
        decode_tokens(sums->token, arranged, x, job, &layout, run, toks, shape);
        for (size_t r = 0; r < rows; r++) {
            struct run w;
            prefetch_run(weights + (r + DECODE_ROWS) * job->row_bytes + run * shape.bytes, shape.bytes, job->wide);
            unpack_run(&w, whole_run(copy, weights + r * job->row_bytes, run, job, shape.bytes), unpack, shape);
            if (shape.kind == PANEL_SUPER) {
                __m256i total[DECODE_TOKS];
                dot_super(total, &w, x, sums->token, toks, shape);
                for (int t = 0; t < toks; t++)
                    sums->dots[t][0][r] = total[t];
            } else {
                for (int t = 0; t < toks; t++) {
                    __m256i idot[2];
                    dot_small(idot, &w, x[t], &sums->token[t], shape);
                    sums->dots[t][0][r] = idot[0];
                    if (shape.sub == 16)
                        sums->dots[t][1][r] = idot[1];
                }
            }
            keep_rest(&sums->rest, r, &w, shape);
        }
        if (!late)
            decode_add(acc, sums, toks, shape);
        else if (run)
            decode_add(acc, &both[(run - 1) % 2], toks, shape);
    }
    if (late)
        decode_add(acc, &both[(run - 1) % 2], toks, shape);
    for (int t = 0; t < toks; t++)
        store_8(job->out + (size_t)t * job->out_stride + row, acc[t], rows);
}

/* One piece of code per number of tokens: with the number in a variable two tokens took longer than twice one. */
static ALWAYS_INLINE void decode_format(const struct matmul_job *job, size_t row, size_t rows, run_fn *unpack,
                                        const struct panel_shape shape)
{
    /* A super format's signed bytes: with VNNI too they are multiplied as pairs, whose widening brings the scales; 128 to be taken
     * off and vpmulld cost more, and for one token a chain of eight vpdpwssd does. Several tokens: the weights' magnitudes are
     * taken once for all of them. */
    struct panel_shape one = shape, several;
    if (shape.kind == PANEL_SUPER && shape.offset == 128)
        one.offset = 0;
    several = one;
    if (shape.kind == PANEL_SUPER && takes_signs(one)) {
        one.vnni = false;
        several.top = 255;
    }
    switch (job->toks) {
    case 1:  decode_rows(job, row, rows, 1, unpack, one); break;
    case 2:  decode_rows(job, row, rows, 2, unpack, several); break;
    case 3:  decode_rows(job, row, rows, 3, unpack, several); break;
    default: decode_rows(job, row, rows, 4, unpack, several); break;
    }
}

/* ---- panels ----------------------------------------------------------------------------------------------------- */

/* Natural rows on their way to a panel. */
struct natural_avx2 {
    uint8_t  q[PANEL_ROWS][PANEL_COLS];
    int32_t  scale[PANEL_ROWS][16];        /* super: int16 twice; small by 16 columns: a float's  */
    int32_t  min[PANEL_ROWS][8];           /* super: pairs of int16, the scales' for an offset    */
    uint16_t file_scale[8][PANEL_ROWS], file_low[8][PANEL_ROWS];   /* small                       */
    uint32_t d[PANEL_ROWS];
} __attribute__((aligned(64)));

/* Sixteen rows of 4 * 8 * groups bytes to [8 * groups][16 rows] dwords. */
void columns_of_16_avx2(void *out, const void *rows, size_t stride, size_t groups);

static ALWAYS_INLINE void panel_scales(float out[8][PANEL_ROWS], uint16_t file[8][PANEL_ROWS], const struct panel_shape shape)
{
    for (int k = 0; k < 8; k++)
        for (int half = 0; half < 2; half++)
            _mm256_store_ps(out[k] + 8 * half, floats_of_scales(file[k] + 8 * half, shape));
}

/* The file's minimums are added, the panel's taken off. */
static ALWAYS_INLINE void panel_lows(float out[8][PANEL_ROWS], uint16_t file[8][PANEL_ROWS])
{
    for (int k = 0; k < 8; k++)
        for (int half = 0; half < 2; half++) {
            __m256 low = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(file[k] + 8 * half)));
            _mm256_store_ps(out[k] + 8 * half, _mm256_xor_ps(low, _mm256_set1_ps(-0.0f)));
        }
}

static ALWAYS_INLINE void fill_byte_panel(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, run_fn *unpack,
                                          const struct panel_shape shape)
{
    struct natural_avx2 n;
    const bool pairs = shape.mins || shape.offset;

    if (rows < PANEL_ROWS)
        memset(&n, 0, sizeof n);
    for (size_t r = 0; r < rows; r++) {
        struct run w;
        prefetch_run(bytes + r * stride + 2 * shape.bytes, shape.bytes, false);
        unpack_run(&w, bytes + r * stride, unpack, shape);
        for (int k = 0; k < 8; k++)
            _mm256_store_si256((__m256i *)(n.q[r] + 32 * k), w.q[k]);
        if (shape.kind == PANEL_SUPER) {
            __m256i scales = _mm256_cvtepi8_epi16(w.scales);
            __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(scales));
            __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(scales, 1));
            const __m256i mask = _mm256_set1_epi32(0xffff);
            low = _mm256_or_si256(_mm256_and_si256(low, mask), _mm256_slli_epi32(low, 16));
            high = _mm256_or_si256(_mm256_and_si256(high, mask), _mm256_slli_epi32(high, 16));
            _mm256_store_si256((__m256i *)n.scale[r], low);
            _mm256_store_si256((__m256i *)(n.scale[r] + 8), high);
            if (pairs)
                _mm256_store_si256((__m256i *)n.min[r], shape.mins ? _mm256_cvtepu8_epi16(w.mins) : scales);
            n.d[r] = w.d;
        } else if (shape.sub == 16) {
            _mm256_store_si256((__m256i *)n.scale[r], _mm256_castps_si256(w.scale[0]));
            _mm256_store_si256((__m256i *)(n.scale[r] + 8), _mm256_castps_si256(w.scale[1]));
        } else {
            for (int k = 0; k < 8; k++) {
                n.file_scale[k][r] = w.file_scale[k];
                if (shape.mins)
                    n.file_low[k][r] = w.file_low[k];
            }
        }
    }
    columns_of_16_avx2(out->q, n.q, sizeof n.q[0], 8);
    if (shape.kind == PANEL_SUPER) {
        columns_of_16_avx2(out->scale.i, n.scale, sizeof n.scale[0], shape.sub == 16 ? 2 : 1);
        if (pairs)
            columns_of_16_avx2(out->min.i, n.min, sizeof n.min[0], 1);
        for (int half = 0; half < 2; half++) {
            _mm256_store_ps(out->d + 8 * half, scales_of(n.d + 8 * half, false, shape.factor));
            _mm256_store_ps(out->dmin + 8 * half, scales_of(n.d + 8 * half, true, shape.factor));
        }
    } else if (shape.sub == 16) {
        columns_of_16_avx2(out->scale.f, n.scale, sizeof n.scale[0], 2);
    } else {
        panel_scales(out->scale.f, n.file_scale, shape);
        if (shape.mins)
            panel_lows(out->min.f, n.file_low);
    }
}

struct natural_wide {
    int16_t  q[PANEL_ROWS][PANEL_COLS];
    float    scale[PANEL_ROWS][16];                /* small by 16 columns */
    uint16_t file_scale[8][PANEL_ROWS];            /* small by 32         */
    uint32_t d[PANEL_ROWS];                        /* super               */
} __attribute__((aligned(64)));

/* A row's values as int16, super formats' times their scales. */
static ALWAYS_INLINE void widen_row(int16_t q[PANEL_COLS], const struct run *w, const struct panel_shape shape)
{
    int16_t scale[16] __attribute__((aligned(32)));
    if (shape.kind == PANEL_SUPER)
        _mm256_store_si256((__m256i *)scale, _mm256_cvtepi8_epi16(w->scales));
    for (unsigned k = 0; k < 8; k++) {
        __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(w->q[k]));
        __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(w->q[k], 1));
        if (shape.kind == PANEL_SUPER) {
            low = _mm256_mullo_epi16(low, _mm256_set1_epi16(scale[32 * k / shape.sub]));
            high = _mm256_mullo_epi16(high, _mm256_set1_epi16(scale[(32 * k + 16) / shape.sub]));
        }
        _mm256_store_si256((__m256i *)(q + 32 * k), low);
        _mm256_store_si256((__m256i *)(q + 32 * k + 16), high);
    }
}

static ALWAYS_INLINE void fill_wide_panel(struct wide_panel *out, const uint8_t *bytes, size_t stride, size_t rows, run_fn *unpack,
                                          const struct panel_shape shape)
{
    struct natural_wide n;
    if (rows < PANEL_ROWS)
        memset(&n, 0, sizeof n);
    for (size_t r = 0; r < rows; r++) {
        struct run w;
        prefetch_run(bytes + r * stride + 2 * shape.bytes, shape.bytes, false);
        unpack(&w, bytes + r * stride);
        widen_row(n.q[r], &w, shape);
        if (shape.kind == PANEL_SUPER) {
            n.d[r] = w.d;
        } else if (shape.sub == 16) {
            _mm256_store_ps(n.scale[r], w.scale[0]);
            _mm256_store_ps(n.scale[r] + 8, w.scale[1]);
        } else {
            for (int k = 0; k < 8; k++)
                n.file_scale[k][r] = w.file_scale[k];
        }
    }
    columns_of_16_avx2(out->q, n.q, sizeof n.q[0], 16);
    if (shape.kind == PANEL_SMALL && shape.sub == 16)
        columns_of_16_avx2(out->scale, n.scale, sizeof n.scale[0], 2);
    else if (shape.kind == PANEL_SMALL)
        panel_scales(out->scale, n.file_scale, shape);
    for (int half = 0; half < 2 && shape.kind == PANEL_SUPER; half++)
        _mm256_store_ps(out->d + 8 * half, scales_of(n.d + 8 * half, false, shape.factor));
}

static ALWAYS_INLINE void fill_panel(union any_panel *out, const uint8_t *bytes, size_t stride, size_t rows, run_fn *unpack,
                                     const struct panel_shape shape)
{
    if (comes_signed(shape))
        fill_wide_panel(&out->wide, bytes, stride, rows, unpack, shape);
    else
        fill_byte_panel(&out->bytes, bytes, stride, rows, unpack, shape);
}

/* ---- what several formats need ---------------------------------------------------------------------------------- */

/* The eight f16 that begin blocks of `bytes` bytes. */
static ALWAYS_INLINE void halves_of_8_blocks(uint16_t out[8], const uint8_t *block, size_t bytes)
{
    for (size_t i = 0; i < 8; i++)
        memcpy(&out[i], block + i * bytes, 2);
}

/* 32 bytes' low nibbles and high nibbles: 64 columns of the k-quants. */
static ALWAYS_INLINE void nibbles_of_32(__m256i q[2], const uint8_t *bytes)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i both = _mm256_loadu_si256((const __m256i *)bytes);
    q[0] = _mm256_and_si256(both, mask);
    q[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
}

/* 16 bytes' low nibbles, then their high nibbles. */
static ALWAYS_INLINE __m256i nibbles_of_16(const uint8_t *bytes)
{
    __m128i both = _mm_loadu_si128((const __m128i *)bytes);
    return _mm256_and_si256(_mm256_setr_m128i(both, _mm_srli_epi16(both, 4)), _mm256_set1_epi8(15));
}

/* The nibbles of two blocks of 32, `step` bytes apart, in quarters. */
static ALWAYS_INLINE void nibbles_of_2_blocks(__m256i pair[2], const uint8_t *bytes, size_t step)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i both = _mm256_setr_m128i(_mm_loadu_si128((const __m128i *)bytes), _mm_loadu_si128((const __m128i *)(bytes + step)));
    pair[0] = _mm256_and_si256(both, mask);
    pair[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
}

/* 255 in byte i where bit i is set, else 0: the byte that holds it is copied to lane i and tested. */
static ALWAYS_INLINE __m256i bytes_of_bits(uint32_t bits)
{
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3,
                                            3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), spread), bit);
    return _mm256_cmpeq_epi8(bytes, bit);
}

/* 16 values, with an offset, by index. */
static ALWAYS_INLINE __m256i look_up(const int8_t values[16], int offset, __m256i index)
{
    __m128i table = _mm_add_epi8(_mm_loadu_si128((const __m128i *)values), _mm_set1_epi8((char)offset));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index);
}

#endif
