/* turned_kquants_avx2.h - products of one to four tokens with Q2_K, Q3_K, Q4_K and Q5_K on AVX2, with lanes that are rows.
 *
 * As in matmul_turned_avx2.h eight rows' bytes are turned while they are packed, but here their scales come along: twelve shuffles
 * turn the heads of eight blocks, and what row by row takes a shuffle and a multiplication for every 32 values (to bring each
 * scale beside its pairs of products) takes one multiplication for a sub-block of eight rows. Pairs of products are added as
 * int16 up to there. No sum goes across lanes, and nothing is stored by two bytes and loaded by thirty-two.
 *
 * AVX-VNNI takes the same code: with its dots and a vpmulld for each sub-block it was from 2 % faster (Q5_K, four tokens) to 17 %
 * slower (one Zen 4 core, EVEX form). */
#ifndef QUERN_TURNED_KQUANTS_AVX2_H
#define QUERN_TURNED_KQUANTS_AVX2_H

#include "matmul_turned_avx2.h"

/* Lanes are rows. */
struct turned_head {
    __m256i scale[16];      /* of each sub-block: int16, twice                                                 */
    __m256i low[8];         /* minimums, or scales where there is an offset: int16 of two sub-blocks, in low[2i] 4i and
                             * 4i + 2, in low[2i + 1] 4i + 1 and 4i + 3                                        */
    __m256i d;              /* f16 d, above it f16 dmin                                                        */
};
typedef void head_fn(struct turned_head *out, const uint8_t *block, size_t stride);
/* Dword g of plane `plane` (columns 32 * plane to 32 * plane + 31 of the run) from raw[g], in which so many planes stand as
 * turned_place says. */
typedef __m256i plane_fn(__m256i raw, __m256i high, int plane);

/* Where a block's packed bits stand: each 32 bytes from `packed` on hold `planes` times 32 columns, those at `high`, where
 * `further`, one more bit of every column. */
struct turned_place { head_fn *head; plane_fn *value; unsigned packed, high; bool further; int planes; };

/* What is read once, much later, as an operand in memory. gcc 12 would keep it in registers, to spill what is wanted at once (Q3_K,
 * one token: 8.5 ns for 256 weights instead of 7.2; four tokens 18.0 instead of 14.6). clang 14 does so unasked. */
static ALWAYS_INLINE void keep_in_memory(__m256i *v, int count)
{
#ifndef __clang__
    UNROLL_ALL
    for (int i = 0; i < count; i++)
        __asm__("" : "+m"(v[i]));
#else
    (void)v, (void)count;
#endif
}

static ALWAYS_INLINE void turn_32_bytes(__m256i raw[8], const uint8_t *bytes, size_t stride)
{
    turn_16_bytes(raw, bytes, stride);
    turn_16_bytes(raw + 4, bytes + 16, stride);
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

/* Byte i of each lane as int16, twice. */
static ALWAYS_INLINE __m256i signed_scale(__m256i bytes, int i)
{
    const __m256i from = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        -1, (char)i, -1, (char)i, -1, (char)(i + 4), -1, (char)(i + 4), -1, (char)(i + 8), -1, (char)(i + 8), -1, (char)(i + 12),
        -1, (char)(i + 12)));
    return _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, from), 8);
}

static ALWAYS_INLINE __m256i unsigned_scale(__m256i bytes, int i)
{
    const __m256i from = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        (char)i, -1, (char)i, -1, (char)(i + 4), -1, (char)(i + 4), -1, (char)(i + 8), -1, (char)(i + 8), -1, (char)(i + 12), -1,
        (char)(i + 12), -1));
    return _mm256_shuffle_epi8(bytes, from);
}

/* Four sub-blocks' bytes as two pairs of int16. */
static ALWAYS_INLINE void unsigned_pairs(__m256i pair[2], __m256i bytes)
{
    pair[0] = _mm256_and_si256(bytes, _mm256_set1_epi32(0x00ff00ff));
    pair[1] = _mm256_srli_epi16(bytes, 8);
}

/* Q4_K and Q5_K: k_scales.h describes the sixteen bytes. */
static ALWAYS_INLINE void head_q4_k(struct turned_head *out, const uint8_t *block, size_t stride)
{
    const __m256i six = _mm256_set1_epi8(0x3f), upper = _mm256_set1_epi8(0x30), nibble = _mm256_set1_epi8(15);
    __m256i raw[4], scales[2], mins[2];
    turn_16_bytes(raw, block, stride);
    out->d = raw[0];
    scales[0] = _mm256_and_si256(raw[1], six);
    mins[0] = _mm256_and_si256(raw[2], six);
    scales[1] = _mm256_or_si256(_mm256_and_si256(raw[3], nibble), _mm256_and_si256(_mm256_srli_epi16(raw[1], 2), upper));
    mins[1] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(raw[3], 4), nibble),
                              _mm256_and_si256(_mm256_srli_epi16(raw[2], 2), upper));
    UNROLL_ALL
    for (int s = 0; s < 8; s++)
        out->scale[s] = unsigned_scale(scales[s / 4], s % 4);
    unsigned_pairs(out->low, mins[0]);
    unsigned_pairs(out->low + 2, mins[1]);
}

/* Four bytes of each of eight rows. */
static ALWAYS_INLINE __m256i words_of_rows(const uint8_t *word, size_t stride)
{
    const uint8_t *upper = word + 4 * stride;
    return _mm256_setr_epi32((int)load_u32(word), (int)load_u32(word + stride), (int)load_u32(word + 2 * stride),
                             (int)load_u32(word + 3 * stride), (int)load_u32(upper), (int)load_u32(upper + stride),
                             (int)load_u32(upper + 2 * stride), (int)load_u32(upper + 3 * stride));
}

static ALWAYS_INLINE void head_q2_k(struct turned_head *out, const uint8_t *block, size_t stride)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i raw[4];
    turn_16_bytes(raw, block, stride);
    out->d = words_of_rows(block + 80, stride);
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {
        __m256i scales = _mm256_and_si256(raw[i], nibble);
        unsigned_pairs(out->low + 2 * i, _mm256_and_si256(_mm256_srli_epi16(raw[i], 4), nibble));
        UNROLL_ALL
        for (int s = 0; s < 4; s++)
            out->scale[4 * i + s] = unsigned_scale(scales, s);
    }
}

/* Sixteen bytes up to the block's end: two that are not wanted, the scales (q3_k_scales), d. */
static ALWAYS_INLINE void head_q3_k(struct turned_head *out, const uint8_t *block, size_t stride)
{
    const __m256i nibble = _mm256_set1_epi8(15), upper = _mm256_set1_epi8(0x30), offset = _mm256_set1_epi8(32);
    __m256i raw[4], low[3], scales[4];
    turn_16_bytes(raw, block + 94, stride);
    for (int i = 0; i < 3; i++)
        low[i] = _mm256_or_si256(_mm256_srli_epi32(raw[i], 16), _mm256_slli_epi32(raw[i + 1], 16));
    out->d = _mm256_srli_epi32(raw[3], 16);
    scales[0] = _mm256_or_si256(_mm256_and_si256(low[0], nibble), _mm256_and_si256(_mm256_slli_epi16(low[2], 4), upper));
    scales[1] = _mm256_or_si256(_mm256_and_si256(low[1], nibble), _mm256_and_si256(_mm256_slli_epi16(low[2], 2), upper));
    scales[2] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low[0], 4), nibble), _mm256_and_si256(low[2], upper));
    scales[3] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(low[1], 4), nibble),
                                _mm256_and_si256(_mm256_srli_epi16(low[2], 2), upper));
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {
        scales[i] = _mm256_sub_epi8(scales[i], offset);
        out->low[2 * i] = _mm256_srai_epi16(_mm256_slli_epi16(scales[i], 8), 8);
        out->low[2 * i + 1] = _mm256_srai_epi16(scales[i], 8);
        UNROLL_ALL
        for (int s = 0; s < 4; s++)
            out->scale[4 * i + s] = signed_scale(scales[i], s);
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static ALWAYS_INLINE __m256i plane_q4_k(__m256i raw, __m256i high, int plane)
{
    (void)high;
    return plane % 2 ? high_nibbles(raw) : low_nibbles(raw);
}

/* Bit `from` of each of sixteen numbers at place `to`: one shuffle instead of a shift and a mask. */
static ALWAYS_INLINE __m256i moved_bit(__m256i nibbles, int from, int to)
{
#define MOVED(i) ((char)(((i) >> from & 1) << to))
    const __m128i table = _mm_setr_epi8(MOVED(0), MOVED(1), MOVED(2), MOVED(3), MOVED(4), MOVED(5), MOVED(6), MOVED(7), MOVED(8),
                                        MOVED(9), MOVED(10), MOVED(11), MOVED(12), MOVED(13), MOVED(14), MOVED(15));
#undef MOVED
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles);
}

static ALWAYS_INLINE __m256i plane_q5_k(__m256i raw, __m256i high, int plane)
{
    return _mm256_or_si256(plane_q4_k(raw, high, plane), moved_bit(high, plane % 4, 4));
}

static ALWAYS_INLINE __m256i plane_q2_k(__m256i raw, __m256i high, int plane)
{
    (void)high;
    return _mm256_and_si256(plane % 4 ? _mm256_srli_epi16(raw, 2 * (plane % 4)) : raw, _mm256_set1_epi8(3));
}

static ALWAYS_INLINE __m256i plane_q3_k(__m256i raw, __m256i high, int plane)
{
    return _mm256_or_si256(plane_q2_k(raw, high, plane), moved_bit(high, plane % 4, 2));
}

/* ---- the product ------------------------------------------------------------------------------------------------- */

/* total[t] += 32 columns: the run's plane `plane`, whose bits are in raw[8] and high[8]. */
static ALWAYS_INLINE void turned_plane(__m256i total[DECODE_TOKS], const __m256i *raw, const __m256i *high, int plane,
                                       const struct turned_head *head, const int8_t *const *x, const int toks,
                                       const struct turned_place place, const struct panel_shape shape)
{
    const int groups = (int)shape.sub / 4, room = pairs_that_fit(shape), fit = room > groups ? groups : room;
    __m256i sum[DECODE_TOKS];
    UNROLL_ALL
    for (int g = 0; g < 8; g++) {
        const __m256i scale = head->scale[(8 * plane + g) / groups];
        __m256i q = settled(place.value(raw[g], place.further ? high[plane / 4 * 8 + g] : raw[g], plane));
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i v = broadcast_4_bytes(x[t] + 32 * plane + 4 * g);
            __m256i pairs = settled(_mm256_maddubs_epi16(q, v));
            sum[t] = settled(g % fit == 0 ? pairs : _mm256_add_epi16(sum[t], pairs));
            if (g % fit == fit - 1)
                total[t] = settled(_mm256_add_epi32(total[t], _mm256_madd_epi16(sum[t], scale)));
        }
    }
}

static ALWAYS_INLINE __m256 floats_of_halves(__m256i lower)
{
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(lower), _mm256_extracti128_si256(lower, 1)));
}

/* acc[t] += a run's totals, its minimums or its offset. */
static ALWAYS_INLINE void turned_add(__m256 acc[DECODE_TOKS], const __m256i total[DECODE_TOKS], const struct turned_head *head,
                                     const struct token_run *token, const int toks, const struct panel_shape shape)
{
    const __m256 d = floats_of_halves(_mm256_and_si256(head->d, _mm256_set1_epi32(0xffff)));
    const __m256 dmin = floats_of_halves(_mm256_srli_epi32(head->d, 16));
    const int lows = shape.sub == 32 ? 4 : 8;
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        __m256i low = _mm256_setzero_si256(), dots = total[t];
        __m256 dx = _mm256_set1_ps(token[t].dx[0]);
        UNROLL_ALL
        for (int i = 0; i < lows; i++)
            low = _mm256_add_epi32(low, _mm256_madd_epi16(head->low[i], broadcast_4_bytes(token[t].sums + 2 * i)));
        if (shape.offset)
            dots = _mm256_sub_epi32(dots, _mm256_slli_epi32(low, __builtin_ctz(shape.offset | 0x10000)));
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(d, dx), _mm256_cvtepi32_ps(dots), acc[t]);
        if (shape.mins)
            acc[t] = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, dx), _mm256_cvtepi32_ps(low), acc[t]);
    }
}

/* high[g]: of the first four planes, a nibble to a byte; high[8 + g]: of the others. */
static ALWAYS_INLINE void turn_high_bits(__m256i high[16], const uint8_t *bytes, size_t stride)
{
    turn_32_bytes(high + 8, bytes, stride);
    UNROLL_ALL
    for (int g = 0; g < 8; g++) {
        high[g] = low_nibbles(high[8 + g]);
        high[8 + g] = high_nibbles(high[8 + g]);
    }
}

/* A run of eight rows from `bytes` on. `soon`: the same run of the rows to come, asked for a few rows at a time. */
static ALWAYS_INLINE void turned_super_run(__m256 acc[DECODE_TOKS], const uint8_t *bytes, size_t stride, const uint8_t *soon,
                                           size_t soon_stride, const int8_t *const *x, const struct token_run *token,
                                           const int toks, const struct turned_place place, const struct panel_shape shape)
{
    const int parts = 8 / place.planes;
    struct turned_head head;
    __m256i high[16], total[DECODE_TOKS];
    place.head(&head, bytes, stride);
    keep_in_memory(head.scale, shape.sub == 32 ? 8 : 16);
    if (place.further) {
        turn_high_bits(high, bytes + place.high, stride);
        keep_in_memory(high, 16);
    }
    UNROLL_ALL
    for (int t = 0; t < toks; t++)
        total[t] = _mm256_setzero_si256();
    UNROLL_ALL
    for (int part = 0; part < parts; part++) {
        __m256i raw[8];
        for (size_t r = 0; r < DECODE_ROWS / (size_t)parts; r++)
            prefetch_run(soon + ((size_t)part * DECODE_ROWS / (size_t)parts + r) * soon_stride, shape.bytes, false);
        turn_32_bytes(raw, bytes + place.packed + 32 * part, stride);
        UNROLL_ALL
        for (int plane = 0; plane < place.planes; plane++)
            turned_plane(total, raw, high, part * place.planes + plane, &head, x, toks, place, shape);
    }
    turned_add(acc, total, &head, token, toks, shape);
}

/* Sums of x in the order of turned_head's low[]. */
static ALWAYS_INLINE void sums_by_two(struct token_run *token, const struct panel_shape shape)
{

    if (shape.sub == 32) {
        __m128i eight = _mm_load_si128((const __m128i *)token->sums);
        _mm_store_si128((__m128i *)token->sums, _mm_shufflehi_epi16(_mm_shufflelo_epi16(eight, 0xd8), 0xd8));
        return;
    }
    __m256i sums = _mm256_load_si256((const __m256i *)token->sums);
    _mm256_store_si256((__m256i *)token->sums, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(sums, 0xd8), 0xd8));
}

/* Up to eight rows; the last ones of a matrix go through a copy. */
static ALWAYS_INLINE void turned_super_rows(const struct matmul_job *job, size_t row, size_t rows, const int toks,
                                            const struct turned_place place, const struct panel_shape shape)
{
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const size_t row_bytes = job->row_bytes;
    const uint8_t *weights = (const uint8_t *)job->weights + row * row_bytes;
    uint8_t copy[DECODE_ROWS][176];
    struct token_run token[DECODE_TOKS];
    const int8_t *x[DECODE_TOKS];
    __m256 acc[DECODE_TOKS];

    for (int t = 0; t < toks; t++)
        acc[t] = _mm256_setzero_ps();
    if (rows < DECODE_ROWS)
        memset(copy, 0, sizeof copy);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        const uint8_t *bytes = weights + run * shape.bytes;
        size_t stride = row_bytes;
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            const uint8_t *act = (const uint8_t *)job->acts + (size_t)t * job->act_stride;
            token_run_init(&token[t], act, &layout, run, shape);
            sums_by_two(&token[t], shape);
            x[t] = (const int8_t *)act + run * PANEL_COLS;
        }
        if (rows < DECODE_ROWS) {
            for (size_t r = 0; r < rows; r++)
                memcpy(copy[r], bytes + r * row_bytes, shape.bytes);
            bytes = copy[0];
            stride = sizeof copy[0];
        }
        const uint8_t *soon = weights + DECODE_ROWS * row_bytes + run * shape.bytes;
        turned_super_run(acc, bytes, stride, soon, row_bytes, x, token, toks, place, shape);
    }
    for (int t = 0; t < toks; t++)
        store_8(job->out + (size_t)t * job->out_stride + row, acc[t], rows);
}

static ALWAYS_INLINE void turned_super(const struct matmul_job *job, size_t row, size_t rows, const struct turned_place place,
                                       const struct panel_shape shape)
{
    switch (job->toks) {
    case 1:  turned_super_rows(job, row, rows, 1, place, shape); break;
    case 2:  turned_super_rows(job, row, rows, 2, place, shape); break;
    case 3:  turned_super_rows(job, row, rows, 3, place, shape); break;
    default: turned_super_rows(job, row, rows, 4, place, shape); break;
    }
}

#define PLACE_Q2_K { .head = head_q2_k, .value = plane_q2_k, .packed = 16, .planes = 4 }
#define PLACE_Q3_K { .head = head_q3_k, .value = plane_q3_k, .packed = 32, .high = 0, .further = true, .planes = 4 }
#define PLACE_Q4_K { .head = head_q4_k, .value = plane_q4_k, .packed = 16, .planes = 2 }
#define PLACE_Q5_K { .head = head_q4_k, .value = plane_q5_k, .packed = 48, .high = 16, .further = true, .planes = 2 }

#endif
