#include "iquants_avx512.h"

#include "grid_codes.h"
#include "matmul_subs_avx512.h"
#include "pairs_avx512vbmi.h"

/* IQ2 and IQ3 with AVX-512 VBMI and GFNI. A codebook's entry fits 16 bits when each value is named by its place among the few that
 * occur (grid_codes.h), so a book is two tables of bytes, and a table of 128 bytes is one vpermi2b for 64 indices: of a whole run
 * of IQ3, of two rows' runs of IQ2. Four columns' signs are put at bits 1 to 4 of a byte beside their codes; then one vpternlogd
 * and one vpermb give 64 values with sign and offset.
 *
 * For few tokens, values stay in the order in which the codes give them: a vector holds every fourth column, four of one scale's
 * in each lane of 32 bits, so that a lane's dots of all vectors belong together and one multiplication by the scales ends the run;
 * the activations are turned to that order once per call. Panels and batches want columns as they come: there the four vectors are
 * interleaved.
 *
 * On Zen 4 two instructions of 512 bits pass in a cycle, permutations one, dots one, and three operands cost up to half as much
 * again. As independent instructions, what a run of one row takes would pass in 11 cycles (IQ2_XXS), 15 (IQ2_XS), 18 (IQ2_S), 14.5
 * (IQ3_XXS), 18 (IQ3_S); with data in the cache it takes 18, 25, 31, 21, 26. Neither requests, stores, the ends of runs nor the
 * tables' loads make the difference, each left out; looking pairs up while the ones before are multiplied, from registers or
 * through memory, gained nothing (bench/results/2026-11-21-decode-types.md). */

/* The bytes that 64 indices of up to ten bits name: the lower eight in `index`, the upper two as masks. `entries` is constant. */
static ALWAYS_INLINE __m512i look_up_book(const uint8_t *table, int entries, __m512i index, __mmask64 bit_8, __mmask64 bit_9)
{
    const __mmask64 bit_7 = _mm512_movepi8_mask(index);
    __m512i part[4] = { 0 };
    for (int i = 0; i < entries / 256; i++)
        part[i] = _mm512_mask_blend_epi8(bit_7, book_of_128(table + 256 * i, index), book_of_128(table + 256 * i + 128, index));
    if (entries == 256)
        return part[0];
    __m512i low = _mm512_mask_blend_epi8(bit_8, part[0], part[1]);
    return entries == 512 ? low : _mm512_mask_blend_epi8(bit_9, low, _mm512_mask_blend_epi8(bit_8, part[2], part[3]));
}

/* Codes of 64 entries, and what turns them to values. */
struct codes { __m512i low, high; };

static ALWAYS_INLINE struct codes codes_of(const uint8_t *low, const uint8_t *high, int entries, __m512i index, __mmask64 bit_8,
                                           __mmask64 bit_9)
{
    return (struct codes){ look_up_book(low, entries, index, bit_8, bit_9), look_up_book(high, entries, index, bit_8, bit_9) };
}

/* ---- values and signs ------------------------------------------------------------------------------------------------ */

/* out[f]: the f-th of each four columns of IQ2. `signs`: at bits 1 to 4. */
static ALWAYS_INLINE void values_of_2_bits(__m512i out[4], __m512i codes, __m512i signs)
{
    __m512i index[4];
    for (int f = 0; f < 4; f++)
        index[f] = pick(_mm512_set1_epi8((char)(2 << f)), signs, codes);
    for (int f = 0; f < 3; f++)
        out[f] = _mm512_permutexvar_epi8(index[f], _mm512_load_si512(values_iq2[f]));
    out[3] = _mm512_permutexvar_epi8(_mm512_srli_epi16(index[3], 2), _mm512_load_si512(values_iq2[1]));
}

/* The same of IQ3. */
static ALWAYS_INLINE void values_of_3_bits(__m512i out[4], struct codes codes, const uint8_t values[4][64], __m512i signs)
{
    for (int f = 0; f < 4; f++) {
        __m512i index = pick(_mm512_set1_epi8((char)(2 << f)), signs, f % 2 ? codes.high : codes.low);
        out[f] = _mm512_permutexvar_epi8(index, _mm512_load_si512(values[f]));
    }
}

/* Masks of seven bits at bits 1 to 7 of each byte: the upper three and the eighth, which makes the number of minus signs even, to
 * bits 1 to 4. As vgf2p8affineqb takes it: byte 7 - i of the matrix selects the bits whose parity is bit i. */
#define UPPER_SIGNS 0x00204080fe000000
static ALWAYS_INLINE __m512i upper_signs(__m512i masks)
{
    return _mm512_gf2p8affine_epi64_epi8(masks, _mm512_set1_epi64(UPPER_SIGNS), 0);
}

/* Qwords with 28 bits of signs, seven for each entry of IQ3's: bytes for entries, in which the two parts of an eight stand. */
static ALWAYS_INLINE __m512i signs_of_28_bits(__m512i words)
{
    const __m512i masks = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x14140d0d06063f3f), words);
    return _mm512_mask_gf2p8affine_epi64_epi8(masks, 0xaaaaaaaaaaaaaaaa, masks, _mm512_set1_epi64(UPPER_SIGNS), 0);
}

/* Eight dwords of signs, four bits for each byte. */
static ALWAYS_INLINE __m512i signs_of_32_bytes(const uint8_t *bytes)
{
    __m512i words = _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)bytes));
    return _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x1b17130f0b07033f), words);
}

/* ---- up to four tokens --------------------------------------------------------------------------------------------- */

struct pair {
    __m512i q[8], scales[2];   /* PAIR_SUBS: scales[0] for all                                  */
};
typedef void pair_fn(struct pair *out, const uint8_t *first, const uint8_t *second);

/* What a token offers for the run of a pair, in its order; init as in struct token_run, for q[0..3] and q[4..7]. */
struct pair_token {
    __m512i x[8], init[2];
    float   dx;
};

struct pair_scratch {
    __m512i           sums[DECODE_TOKS][8];
    struct pair_token token[];               /* [run][token]                                    */
};
_Static_assert(DECODE_TOKS * sizeof(struct pair_token) <= sizeof(struct few_run), "fits what five tokens and more take");

/* 256 columns and their sums per 16. */
static ALWAYS_INLINE void load_pair_columns(struct pair_token *out, const int8_t *x, const void *sums_16,
                                            const enum pair_order order)
{
    __m256i sums = _mm256_loadu_si256(sums_16);
    __m512i wide = order == PAIR_SUBS ? _mm512_broadcast_i64x4(sums_32(sums)) : _mm512_cvtepi16_epi32(sums);
    __m512i init = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(wide, 7));
    load_pair_acts(out->x, x, order);
    out->init[0] = order == PAIR_UNITS ? _mm512_shuffle_i32x4(init, init, 0x88) : init;
    out->init[1] = order == PAIR_UNITS ? _mm512_shuffle_i32x4(init, init, 0xdd) : init;
}

static ALWAYS_INLINE void load_pair_token(struct pair_token *out, const uint8_t *act, const struct act_layout *layout, size_t run,
                                          const enum pair_order order)
{
    load_pair_columns(out, (const int8_t *)act + run * PANEL_COLS, act + layout->sums + run * 32, order);
    memcpy(&out->dx, act + layout->scales + run * 4, 4);
}

/* Both rows' sums: lanes of the first row in the lower 256 bits, of the second in the upper ones. */
static ALWAYS_INLINE __m512i dot_pair(const struct pair *w, const struct pair_token *token, const enum pair_order order)
{
    /* two sums even where one would do: a chain of eight dots is longer than what the core can look ahead */
    __m512i a = token->init[0], b = order == PAIR_SUBS ? _mm512_setzero_si512() : token->init[1];
    for (int f = 0; f < 4; f++) {
        a = dot_64(a, w->q[f], token->x[f]);
        b = dot_64(b, w->q[4 + f], token->x[4 + f]);
    }
    if (order == PAIR_SUBS)
        return _mm512_mullo_epi32(_mm512_add_epi32(a, b), w->scales[0]);
    a = _mm512_mullo_epi32(a, w->scales[0]);
    b = _mm512_mullo_epi32(b, w->scales[1]);
    return order == PAIR_ROWS ? fold_halves(a, b) : _mm512_add_epi32(a, b);
}

/* Up to 16 rows, as decode_rows; the sums are exact: the order within them does not matter. `soon` goes on by two rows' runs with
 * each pair, and where nothing is to be asked for, it is these rows: a branch costs more. */
static ALWAYS_INLINE void decode_pairs(const struct matmul_job *job, size_t row, struct row_range all, struct pair_scratch *scratch,
                                       const size_t toks, pair_fn *unpack, const enum pair_order order,
                                       const struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS;
    const struct ask ask = ask_of(job, row, all, shape), next = { .next = ask.next, .near = ask.near };
    const uint8_t *soon = ask.later ? ask.later : (const uint8_t *)job->weights + row * job->row_bytes;
    const uint8_t *from[PANEL_ROWS];
    uint32_t d[PANEL_ROWS];
    __m512 acc[DECODE_TOKS];

    for (size_t r = 0; r < PANEL_ROWS; r++)  /* the last row stands in for those beyond the end */
        from[r] = (const uint8_t *)job->weights + (row + (r < rows ? r : rows - 1)) * job->row_bytes;
    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    ask_first(&ask, job, row, all, rows);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        const struct pair_token *token = scratch->token + run * toks;
        for (size_t i = 0; i < 8; i++) {
            const size_t r = i / 4 * 8 + i % 4;
            const uint8_t *one = from[r] + run * shape.bytes, *two = from[r + 4] + run * shape.bytes;
            struct pair w;
            prefetch_run(soon, 2 * shape.bytes, ask.near);
            soon += 2 * shape.bytes;
            if (ask.own) {
                ask_soon(&next, run, i / 2, i % 2, 2, shape);
                prefetch_run(one + ask.own, shape.bytes, ask.near);
                prefetch_run(two + ask.own, shape.bytes, ask.near);
            }
            unpack(&w, one, two);
            for (size_t t = 0; t < toks; t++)
                scratch->sums[t][i] = dot_pair(&w, &token[t], order);
            d[r] = load_u16(one);
            d[r + 4] = load_u16(two);
        }
        for (size_t t = 0; t < toks; t++)
            acc[t] = finish_pairs(acc[t], scratch->sums[t], d, token[t].dx, shape);
    }
    store_rows(job, row, rows, acc, toks);
}

static ALWAYS_INLINE void decode_by_pairs(const struct matmul_job *job, struct row_range call, struct pair_scratch *scratch,
                                          pair_fn *unpack, const enum pair_order order, const struct panel_shape shape)
{
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const struct row_range all = rows_to_ask(job, call);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++)
        for (size_t t = 0; t < job->toks; t++)
            load_pair_token(&scratch->token[run * job->toks + t], (const uint8_t *)job->acts + t * job->act_stride, &layout, run,
                            order);
    for (size_t row = call.begin; row < call.end; row += PANEL_ROWS) {
        if (job->toks == 1)
            decode_pairs(job, row, all, scratch, 1, unpack, order, shape);
        else if (job->toks == 2)
            decode_pairs(job, row, all, scratch, 2, unpack, order, shape);
        else if (job->toks == 3)
            decode_pairs(job, row, all, scratch, 3, unpack, order, shape);
        else
            decode_pairs(job, row, all, scratch, 4, unpack, order, shape);
    }
}

/* ---- columns as they come ------------------------------------------------------------------------------------------ */

/* Every fourth column's values, lanes of 32 bits in the order 0 4 8 12, 1 5 9 13, .. of the units of 16, to columns in order. */
static ALWAYS_INLINE void interleave(__m512i out[4], const __m512i f[4])
{
    __m512i low = _mm512_unpacklo_epi8(f[0], f[1]), high = _mm512_unpackhi_epi8(f[0], f[1]);
    __m512i low_2 = _mm512_unpacklo_epi8(f[2], f[3]), high_2 = _mm512_unpackhi_epi8(f[2], f[3]);
    out[0] = _mm512_unpacklo_epi16(low, low_2);
    out[1] = _mm512_unpackhi_epi16(low, low_2);
    out[2] = _mm512_unpacklo_epi16(high, high_2);
    out[3] = _mm512_unpackhi_epi16(high, high_2);
}

/* Units of 16 columns, a dword each, to the order that interleave wants: lane i, dword k: unit 4k + i. */
static ALWAYS_INLINE __m512i units_for_interleave(__m512i v)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}

/* Codes and signs of two rows' runs of IQ2, a byte for each entry of eight: the first row's 32 and then the second's. */
struct halves {
    struct codes codes;
    __m512i      low, high;    /* signs of columns 0 to 3 and 4 to 7, at bits 1 to 4        */
};

/* A run that is both rows of `h`. */
static ALWAYS_INLINE void columns_of_halves(struct run *out, struct halves h)
{
    const int unit = 0x02020202;             /* its four bytes: both parts of two entries, the upper parts from bit 6 on */
    const __m512i first = _mm512_set1_epi32(0x41014000);
    const __m512i units = _mm512_setr_epi32(0, 4 * unit, 8 * unit, 12 * unit, unit, 5 * unit, 9 * unit, 13 * unit, 2 * unit,
                                            6 * unit, 10 * unit, 14 * unit, 3 * unit, 7 * unit, 11 * unit, 15 * unit);
    const __m512i index = _mm512_add_epi32(first, units);
    __m512i f[4];
    values_of_2_bits(f, _mm512_permutex2var_epi8(h.codes.low, index, h.codes.high), _mm512_permutex2var_epi8(h.low, index, h.high));
    interleave(out->q, f);
}

static ALWAYS_INLINE void columns_of_3_bits(struct run *out, struct codes codes, const uint8_t values[4][64], __m512i signs)
{
    __m512i f[4];
    codes = (struct codes){ units_for_interleave(codes.low), units_for_interleave(codes.high) };
    values_of_3_bits(f, codes, values, units_for_interleave(signs));
    interleave(out->q, f);
}

/* ---- the formats: where a run's indices, signs and scales stand ------------------------------------------------------ */

/* d; per 32 values 8 bytes: four indices, then four masks of signs and a scale, which go to `words`. */
static ALWAYS_INLINE struct halves halves_iq2_xxs(__m512i *words, const uint8_t *first, const uint8_t *second)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    __m512i a = load_once(first + 2), b = load_once(second + 2);
    *words = _mm512_permutex2var_epi32(a, odd, b);
    __m512i masks = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x342d261f140d063f), *words);
    struct codes codes = codes_of(codes_iq2_xxs[0], codes_iq2_xxs[1], 256, _mm512_permutex2var_epi32(a, even, b), 0, 0);
    return (struct halves){ codes, masks, upper_signs(masks) };
}

static ALWAYS_INLINE void pair_iq2_xxs(struct pair *out, const uint8_t *first, const uint8_t *second)
{
    __m512i words;
    struct halves h = halves_iq2_xxs(&words, first, second);
    values_of_2_bits(out->q, h.codes.low, h.low);
    values_of_2_bits(out->q + 4, h.codes.high, h.high);
    out->scales[0] = _mm512_or_si512(_mm512_srli_epi32(words, 27), _mm512_set1_epi32(1));
}

static ALWAYS_INLINE __m128i scales_of_words(__m256i words)
{
    return odd_scales(_mm256_cvtepi32_epi8(_mm256_srli_epi32(words, 28)));
}

static ALWAYS_INLINE void run_iq2_xxs(struct run *out, const uint8_t *bytes)
{
    __m512i words;
    columns_of_halves(out, halves_iq2_xxs(&words, bytes, bytes));
    out->scales = scales_of_words(_mm512_castsi512_si256(words));
    out->d = load_u16(bytes);
}

/* `scales`: where eight bytes with a scale of four bits for each unit of 16 columns begin in a run. */
static ALWAYS_INLINE void pair_of_halves(struct pair *out, struct halves h, const uint8_t *first, const uint8_t *second, int scales)
{
    const __m512i low = _mm512_broadcast_i64x4(_mm256_setr_epi64x(0x30000003f, 0xb00000007, 0x230000001f, 0x2b00000027));
    const __m512i high = _mm512_broadcast_i64x4(_mm256_setr_epi64x(0x130000000f, 0x1b00000017, 0x330000002f, 0x3b00000037));
    __m512i both = _mm512_set1_epi64((int64_t)load_u64(first + scales));
    both = _mm512_mask_set1_epi64(both, 0xf0, (int64_t)load_u64(second + scales));
    values_of_2_bits(out->q, _mm512_unpacklo_epi8(h.codes.low, h.codes.high), _mm512_unpacklo_epi8(h.low, h.high));
    values_of_2_bits(out->q + 4, _mm512_unpackhi_epi8(h.codes.low, h.codes.high), _mm512_unpackhi_epi8(h.low, h.high));
    out->scales[0] = odd_of_nibbles(_mm512_multishift_epi64_epi8(low, both));
    out->scales[1] = odd_of_nibbles(_mm512_multishift_epi64_epi8(high, both));
}

/* d; 32 words with 9 bits of index and 7 of signs; scales. */
static ALWAYS_INLINE struct halves halves_iq2_xs(const uint8_t *first, const uint8_t *second)
{
    const __m256i even = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46,
                                          48, 50, 52, 54, 56, 58, 60, 62);
    const __m512i evens = _mm512_inserti64x4(_mm512_castsi256_si512(even), _mm256_or_si256(even, _mm256_set1_epi8(64)), 1);
    const __m512i odds = _mm512_or_si512(evens, _mm512_set1_epi8(1));
    __m512i a = load_once(first + 2), b = load_once(second + 2);
    __m512i index = _mm512_permutex2var_epi8(a, evens, b), masks = _mm512_permutex2var_epi8(a, odds, b);
    __mmask64 bit_8 = _mm512_test_epi8_mask(masks, _mm512_set1_epi8(1));
    return (struct halves){ codes_of(codes_iq2_xs[0], codes_iq2_xs[1], 512, index, bit_8, 0), masks, upper_signs(masks) };
}

static ALWAYS_INLINE void pair_iq2_xs(struct pair *out, const uint8_t *first, const uint8_t *second)
{
    pair_of_halves(out, halves_iq2_xs(first, second), first, second, 66);
}

static ALWAYS_INLINE void run_iq2_xs(struct run *out, const uint8_t *bytes)
{
    columns_of_halves(out, halves_iq2_xs(bytes, bytes));
    out->scales = nibble_scales(bytes + 66);
    out->d = load_u16(bytes);
}

/* d; 32 lower index bytes; 32 masks of signs; 8 bytes with two upper index bits for each of four entries; scales. */
static ALWAYS_INLINE struct halves halves_iq2_s(const uint8_t *first, const uint8_t *second)
{
    const uint64_t even = 0x5555555555555555, a = load_u64(first + 66), b = load_u64(second + 66);
    __m512i signs = twice_32(first + 34, second + 34);
    struct codes codes = codes_of(codes_iq2_s[0], codes_iq2_s[1], 1024, twice_32(first + 2, second + 2),
                                  _pext_u64(a, even) | _pext_u64(b, even) << 32, _pext_u64(a, ~even) | _pext_u64(b, ~even) << 32);
    return (struct halves){ codes, _mm512_slli_epi16(signs, 1), _mm512_srli_epi16(signs, 3) };
}

static ALWAYS_INLINE void pair_iq2_s(struct pair *out, const uint8_t *first, const uint8_t *second)
{
    pair_of_halves(out, halves_iq2_s(first, second), first, second, 74);
}

static ALWAYS_INLINE void run_iq2_s(struct run *out, const uint8_t *bytes)
{
    columns_of_halves(out, halves_iq2_s(bytes, bytes));
    out->scales = nibble_scales(bytes + 74);
    out->d = load_u16(bytes);
}

/* d; 64 indices of four values; per 32 values four masks of signs and a scale. */
static ALWAYS_INLINE struct codes codes_run_iq3_xxs(const uint8_t *bytes)
{
    return codes_of(codes_iq3_xxs[0], codes_iq3_xxs[1], 256, load_once(bytes + 2), 0, 0);
}

static ALWAYS_INLINE __m256i words_iq3_xxs(const uint8_t *bytes)
{
    return _mm256_loadu_si256((const __m256i *)(bytes + 66));
}

static ALWAYS_INLINE void pair_iq3_xxs(struct pair *out, const uint8_t *first, const uint8_t *second)
{
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        __m512i words = _mm512_cvtepu32_epi64(words_iq3_xxs(bytes));
        values_of_3_bits(out->q + 4 * i, codes_run_iq3_xxs(bytes), values_iq3_xxs, signs_of_28_bits(words));
        out->scales[i] = odd_of_nibbles(_mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x1b0000001b), words));
    }
}

static ALWAYS_INLINE void run_iq3_xxs(struct run *out, const uint8_t *bytes)
{
    __m256i words = words_iq3_xxs(bytes);
    columns_of_3_bits(out, codes_run_iq3_xxs(bytes), values_iq3_xxs, signs_of_28_bits(_mm512_cvtepu32_epi64(words)));
    out->scales = scales_of_words(words);
    out->d = load_u16(bytes);
}

/* d; 64 lower index bytes; 8 bytes of ninth bits; 32 masks of signs; 4 bytes of scales for 32 values each. */
static ALWAYS_INLINE struct codes codes_run_iq3_s(const uint8_t *bytes)
{
    return codes_of(codes_iq3_s[0], codes_iq3_s[1], 512, load_once(bytes + 2), load_u64(bytes + 66), 0);
}

static ALWAYS_INLINE void pair_iq3_s(struct pair *out, const uint8_t *first, const uint8_t *second)
{
    const __m512i scales = _mm512_setr_epi64(0x3f0000003f, 0x300000003, 0x700000007, 0xb0000000b, 0xf0000000f, 0x1300000013,
                                             0x1700000017, 0x1b0000001b);
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        values_of_3_bits(out->q + 4 * i, codes_run_iq3_s(bytes), values_iq3_s, signs_of_32_bytes(bytes + 74));
        out->scales[i] = odd_of_nibbles(_mm512_multishift_epi64_epi8(scales, _mm512_set1_epi32((int)load_u32(bytes + 106))));
    }
}

static ALWAYS_INLINE void run_iq3_s(struct run *out, const uint8_t *bytes)
{
    columns_of_3_bits(out, codes_run_iq3_s(bytes), values_iq3_s, signs_of_32_bytes(bytes + 74));
    out->scales = odd_scales(vector_of_8(_pdep_u64(load_u32(bytes + 106), 0x0f0f0f0f0f0f0f0f)));
    out->d = load_u16(bytes);
}

/* ---- five to sixteen tokens, where job->wide: matmul_subs_avx512.h -------------------------------------------------- */

/* One row of what is two rows' halves: of a pair's q[f] and q[4 + f]. */
static ALWAYS_INLINE __m512i row_of_halves(__m512i a, __m512i b, bool second)
{
    return second ? _mm512_shuffle_i64x2(a, b, 0xee) : _mm512_shuffle_i64x2(a, b, 0x44);
}

static ALWAYS_INLINE void subs_of_pair(struct subs_rows *out, const uint8_t *first, const uint8_t *second, pair_fn *unpack,
                                       const enum pair_order order, const struct panel_shape shape)
{
    struct pair w;
    unpack(&w, first, second);
    for (int row = 0; row < 2; row++) {
        for (int f = 0; f < 4; f++)
            out->v[row][f] = order == PAIR_ROWS ? w.q[4 * row + f] : row_of_halves(w.q[f], w.q[4 + f], row);
        out->scales[row] = order == PAIR_ROWS ? w.scales[row] : row_of_halves(w.scales[0], w.scales[order == PAIR_UNITS], row);
        out->d[row] = _cvtsh_ss(load_u16(row ? second : first)) * shape.factor;
    }
}

static ALWAYS_INLINE void subs_token_of_pair(struct subs_token *out, const int8_t *x, const int16_t *sums,
                                             const enum pair_order order)
{
    struct pair_token token;
    load_pair_columns(&token, x, sums, order);
    for (int f = 0; f < 4; f++)
        _mm512_store_si512(out->x[f], order == PAIR_ROWS ? token.x[f] : row_of_halves(token.x[f], token.x[4 + f], false));
    _mm512_store_si512(out->init, order == PAIR_ROWS   ? token.init[0]
                                  : order == PAIR_SUBS ? _mm512_maskz_mov_epi32(0x00ff, token.init[0])
                                                       : row_of_halves(token.init[0], token.init[1], false));
}

static ALWAYS_INLINE void subs_token_rows(struct subs_token *out, const int8_t *x, const int16_t *sums)
{
    subs_token_of_pair(out, x, sums, PAIR_ROWS);
}

static ALWAYS_INLINE void subs_token_units(struct subs_token *out, const int8_t *x, const int16_t *sums)
{
    subs_token_of_pair(out, x, sums, PAIR_UNITS);
}

static ALWAYS_INLINE void subs_token_subs(struct subs_token *out, const int8_t *x, const int16_t *sums)
{
    subs_token_of_pair(out, x, sums, PAIR_SUBS);
}

static ALWAYS_INLINE void subs_iq2_xxs(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_pair(out, first, second, pair_iq2_xxs, PAIR_SUBS, (struct panel_shape)SHAPE_IQ2_XXS);
}

static ALWAYS_INLINE void subs_iq2_xs(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_pair(out, first, second, pair_iq2_xs, PAIR_UNITS, (struct panel_shape)SHAPE_IQ2_XS);
}

static ALWAYS_INLINE void subs_iq2_s(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_pair(out, first, second, pair_iq2_s, PAIR_UNITS, (struct panel_shape)SHAPE_IQ2_S);
}

static ALWAYS_INLINE void subs_iq3_xxs(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_pair(out, first, second, pair_iq3_xxs, PAIR_ROWS, (struct panel_shape)SHAPE_IQ3_XXS);
}

static ALWAYS_INLINE void subs_iq3_s(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_pair(out, first, second, pair_iq3_s, PAIR_ROWS, (struct panel_shape)SHAPE_IQ3_S);
}

/* ---- the formats' products ------------------------------------------------------------------------------------------- */

/* Where not job->wide, five to FOURS tokens of the formats of two bits as groups of four, over so few rows at a time that the later
 * groups find them in cache: their unpacker does not hide between the dots of matmul_few_avx512.h, and pairs of rows cost less here.
 * Cycles of a Zen 4 per run of 256 columns, these and those: IQ2_XXS with 5 tokens 55 and 75, with 8 71 and 75, with 11 100 and 108;
 * IQ2_XS 71 and 101, 90 and 101, 128 and 137; IQ2_S 81 and 106, 100 and 106, 143 and 147. */
enum { FOURS = 11, FOURS_ROWS = 128 };

static void multiply_fours(const struct matmul_job *job, struct row_range call, void *scratch, matmul_fn *product)
{
    for (size_t row = call.begin, stop; row < call.end; row = stop) {
        stop = call.end - row < FOURS_ROWS ? call.end : row + FOURS_ROWS;
        for (size_t tok = 0; tok < job->toks; tok += DECODE_TOKS) {
            struct matmul_job four = *job;
            four.toks = job->toks - tok < DECODE_TOKS ? job->toks - tok : DECODE_TOKS;
            four.acts = (const uint8_t *)job->acts + tok * job->act_stride;
            four.out = job->out + tok * job->out_stride;
            four.rows_soon = tok == 0 ? call.end - stop + job->rows_soon : 0;
            four.asked = tok > 0 || row > call.begin || job->asked;
            four.kept = false;      /* other tokens than the call before had */
            product(&four, row, stop, scratch);
        }
    }
}

static void panel_iq2_xxs_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xxs, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void few_iq2_xxs_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_xxs, (struct panel_shape)SHAPE_IQ2_XXS);
}

const struct format_avx512 format_iq2_xxs_avx512vbmi = {
    SHAPE_IQ2_XXS, NULL, panel_iq2_xxs_avx512vbmi, few_iq2_xxs_avx512vbmi, FEW_TOKS, NULL, 0
};

void matmul_iq2_xxs_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= DECODE_TOKS)
        decode_by_pairs(job, call, scratch, pair_iq2_xxs, PAIR_SUBS, (struct panel_shape)SHAPE_IQ2_XXS);
    else if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq2_xxs, subs_token_subs }, (struct panel_shape)SHAPE_IQ2_XXS);
    else if (job->toks <= FOURS)
        multiply_fours(job, call, scratch, matmul_iq2_xxs_avx512vbmi);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xxs_avx512vbmi);
}

static void panel_iq2_xs_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xs, (struct panel_shape)SHAPE_IQ2_XS);
}

static void few_iq2_xs_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_xs, (struct panel_shape)SHAPE_IQ2_XS);
}

const struct format_avx512 format_iq2_xs_avx512vbmi = {
    SHAPE_IQ2_XS, NULL, panel_iq2_xs_avx512vbmi, few_iq2_xs_avx512vbmi, FEW_TOKS, NULL, 0
};

void matmul_iq2_xs_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= DECODE_TOKS)
        decode_by_pairs(job, call, scratch, pair_iq2_xs, PAIR_UNITS, (struct panel_shape)SHAPE_IQ2_XS);
    else if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq2_xs, subs_token_units }, (struct panel_shape)SHAPE_IQ2_XS);
    else if (job->toks <= FOURS)
        multiply_fours(job, call, scratch, matmul_iq2_xs_avx512vbmi);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xs_avx512vbmi);
}

static void panel_iq2_s_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_s, (struct panel_shape)SHAPE_IQ2_S);
}

static void few_iq2_s_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_s, (struct panel_shape)SHAPE_IQ2_S);
}

const struct format_avx512 format_iq2_s_avx512vbmi = {
    SHAPE_IQ2_S, NULL, panel_iq2_s_avx512vbmi, few_iq2_s_avx512vbmi, FEW_TOKS, NULL, 0
};

void matmul_iq2_s_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= DECODE_TOKS)
        decode_by_pairs(job, call, scratch, pair_iq2_s, PAIR_UNITS, (struct panel_shape)SHAPE_IQ2_S);
    else if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq2_s, subs_token_units }, (struct panel_shape)SHAPE_IQ2_S);
    else if (job->toks <= FOURS)
        multiply_fours(job, call, scratch, matmul_iq2_s_avx512vbmi);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_s_avx512vbmi);
}

static void panel_iq3_xxs_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_xxs, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void few_iq3_xxs_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq3_xxs, (struct panel_shape)SHAPE_IQ3_XXS);
}

const struct format_avx512 format_iq3_xxs_avx512vbmi = {
    SHAPE_IQ3_XXS, NULL, panel_iq3_xxs_avx512vbmi, few_iq3_xxs_avx512vbmi, FEW_TOKS, NULL, 0
};

void matmul_iq3_xxs_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= DECODE_TOKS)
        decode_by_pairs(job, call, scratch, pair_iq3_xxs, PAIR_ROWS, (struct panel_shape)SHAPE_IQ3_XXS);
    else if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq3_xxs, subs_token_rows }, (struct panel_shape)SHAPE_IQ3_XXS);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_xxs_avx512vbmi);
}

static void panel_iq3_s_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_s, (struct panel_shape)SHAPE_IQ3_S);
}

static void few_iq3_s_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq3_s, (struct panel_shape)SHAPE_IQ3_S);
}

const struct format_avx512 format_iq3_s_avx512vbmi = {
    SHAPE_IQ3_S, NULL, panel_iq3_s_avx512vbmi, few_iq3_s_avx512vbmi, FEW_TOKS, NULL, 0
};

void matmul_iq3_s_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (job->toks <= DECODE_TOKS)
        decode_by_pairs(job, call, scratch, pair_iq3_s, PAIR_ROWS, (struct panel_shape)SHAPE_IQ3_S);
    else if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq3_s, subs_token_rows }, (struct panel_shape)SHAPE_IQ3_S);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_s_avx512vbmi);
}
