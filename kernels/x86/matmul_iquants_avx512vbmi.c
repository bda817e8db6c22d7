#include "iquants_avx512.h"

#include "grid_codes.h"

/* IQ2 and IQ3 with AVX-512 VBMI. A codebook's entry fits 16 bits when each value is named by its place among the few that occur
 * (grid_codes.h), so a book is two tables of bytes, and a table of 128 bytes is one vpermi2b for 64 indices: of a whole run of IQ3,
 * of two rows' runs of IQ2.
 *
 * For few tokens, values stay in the order in which the codes give them: the f-th vector holds columns f, 4 + f, 8 + f, 12 + f of
 * each unit of 16, four bytes per unit. One table lookup per 64 values gives them, a unit's dots of all four vectors fall into one
 * lane of 32 bits, and one multiplication by the scales ends the run; the activations are turned to that order once per run for all
 * rows. Panels and batches want columns as they come: there the codes are spread by three byte permutations per 64 values.
 *
 * Permutations (one per cycle on Zen 4, in whose ports the shifts go too) are the limit. IQ1's book of 2048 entries would take 64
 * of them for the lookup alone. */

static ALWAYS_INLINE __m512i book_of_128(const uint8_t *table, __m512i index)
{
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
}

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

/* Values of the codes' low two bits, of the next two, and so on, in tables for six bits of index. */
static ALWAYS_INLINE __m512i places_of_2_bits(int shift)
{
    const __m512i in_0 = _mm512_set1_epi32(0x002b1908);
    const __m512i in_2 = _mm512_set4_epi32(0, 0x2b2b2b2b, 0x19191919, 0x08080808);
    const __m512i in_4 = _mm512_set_epi64(0, 0, 0x2b2b2b2b2b2b2b2b, 0x2b2b2b2b2b2b2b2b, 0x1919191919191919, 0x1919191919191919,
                                          0x0808080808080808, 0x0808080808080808);
    return shift == 0 ? in_0 : shift == 2 ? in_2 : in_4;
}

/* ---- up to four tokens --------------------------------------------------------------------------------------------- */

/* A run in the order of units. Signs: 32 bytes, a bit per column. */
struct unit_run {
    __m512i  q[4];
    __m128i  scales;       /* int8 per unit of 16 columns */
    uint32_t d;
};
typedef void unit_pair_fn(struct unit_run out[2], const uint8_t *first, const uint8_t *second);

static ALWAYS_INLINE void set_signs(struct unit_run *out, __m256i signs)
{
    const __m512i twice = _mm512_set_epi64(0x1f1f1e1e1d1d1c1c, 0x1b1b1a1a19191818, 0x1717161615151414, 0x1313121211111010,
                                           0x0f0f0e0e0d0d0c0c, 0x0b0b0a0a09090808, 0x0707060605050404, 0x0303020201010000);
    __m512i spread = _mm512_permutexvar_epi8(twice, _mm512_castsi256_si512(signs));
    for (int f = 0; f < 4; f++) {
        __mmask64 minus = _mm512_test_epi8_mask(spread, _mm512_set1_epi16((short)(0x1001 << f)));
        __m512i q = _mm512_mask_sub_epi8(out->q[f], minus, _mm512_setzero_si512(), out->q[f]);
        out->q[f] = _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
    }
}

/* `odd`: the second row's half of the codes. */
static ALWAYS_INLINE void set_units_2_bits(struct unit_run *out, struct codes codes, bool odd, __m256i signs)
{
    const __m512i joined = _mm512_set_epi64(0x5f1f5e1e5d1d5c1c, 0x5b1b5a1a59195818, 0x5717561655155414, 0x5313521251115010,
                                            0x4f0f4e0e4d0d4c0c, 0x4b0b4a0a49094808, 0x4707460645054404, 0x4303420241014000);
    __m512i index = odd ? _mm512_or_si512(joined, _mm512_set1_epi8(0x20)) : joined;
    __m512i entry = _mm512_permutex2var_epi8(codes.low, index, codes.high);
    out->q[0] = _mm512_permutexvar_epi8(entry, places_of_2_bits(0));
    out->q[1] = _mm512_permutexvar_epi8(entry, places_of_2_bits(2));
    out->q[2] = _mm512_permutexvar_epi8(entry, places_of_2_bits(4));
    out->q[3] = _mm512_permutexvar_epi8(_mm512_srli_epi16(entry, 2), places_of_2_bits(4));
    set_signs(out, signs);
}

/* Places are below 8, so that neither nibble sets the bit that makes vpshufb give zero. */
static ALWAYS_INLINE void set_units_4_bits(struct unit_run *out, struct codes codes, int64_t values, __m256i signs)
{
    const __m512i table = _mm512_set1_epi64(values);
    out->q[0] = _mm512_shuffle_epi8(table, codes.low);
    out->q[1] = _mm512_shuffle_epi8(table, _mm512_srli_epi16(codes.low, 4));
    out->q[2] = _mm512_shuffle_epi8(table, codes.high);
    out->q[3] = _mm512_shuffle_epi8(table, _mm512_srli_epi16(codes.high, 4));
    set_signs(out, signs);
}

/* Scales per 32 columns, twice each. */
static ALWAYS_INLINE __m128i per_unit(__m128i scales) { return _mm_unpacklo_epi8(scales, scales); }

/* A token's run in the order of units. */
static ALWAYS_INLINE void load_units(__m512i x[4], const int8_t *from)
{
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    __m512i v[4];
    for (int k = 0; k < 4; k++)              /* lane i of 128 bits: unit 4k + i, dword f of it for vector f */
        v[k] = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 64 * k), bytes);
    for (int f = 0; f < 4; f += 2) {
        __m512i index = _mm512_add_epi32(low, _mm512_set1_epi32(f));
        __m512i a = _mm512_permutex2var_epi32(v[0], index, v[1]), b = _mm512_permutex2var_epi32(v[2], index, v[3]);
        x[f] = _mm512_shuffle_i64x2(a, b, 0x44);
        x[f + 1] = _mm512_shuffle_i64x2(a, b, 0xee);
    }
}

static ALWAYS_INLINE void use_units(struct decode_sums *sums, struct decode_rest *rest, size_t r, const struct unit_run *w,
                                    const __m512i (*x)[4], const struct token_run *token, size_t toks)
{
    __m512i scales = _mm512_cvtepi8_epi32(w->scales);
    for (size_t t = 0; t < toks; t++) {
        __m512i dot = _mm512_load_si512(token[t].init);
        for (int f = 0; f < 4; f++)
            dot = dot_64(dot, w->q[f], x[t][f]);
        sums[t].dot[r][0] = _mm512_mullo_epi32(dot, scales);
    }
    rest->d[r] = w->d;
}

/* As decode_rows; sums per 16 columns whatever the format's own are: they are exact, and so the order does not matter. */
static ALWAYS_INLINE void decode_units(const struct matmul_job *job, size_t row, struct row_range all, size_t toks,
                                       unit_pair_fn *unpack, struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS;
    const bool first = row == all.begin, more = row + PANEL_ROWS < all.end;
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    struct decode_sums sums[DECODE_TOKS];
    struct decode_rest rest;
    struct token_run token[DECODE_TOKS];
    __m512 acc[DECODE_TOKS];
    __m512i x[DECODE_TOKS][4];

    shape.sub = 16;
    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    for (size_t r = 0; first && r < rows; r++)
        prefetch_run(weights + r * job->row_bytes, RUNS_AHEAD * shape.bytes);
    if (rows < PANEL_ROWS) {
        memset(sums, 0, sizeof sums);
        memset(&rest, 0, sizeof rest);
    }
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        for (size_t t = 0; t < toks; t++) {
            const uint8_t *act = (const uint8_t *)job->acts + t * job->act_stride;
            token_run_init(&token[t], act, &layout, run, shape);
            load_units(x[t], (const int8_t *)act + run * PANEL_COLS);
        }
        for (size_t r = 0; r < rows; r += 2) {
            struct unit_run w[2];
            const uint8_t *at = weights + r * job->row_bytes + run * shape.bytes;
            const uint8_t *next = r + 1 < rows ? at + job->row_bytes : at;       /* a last odd row is its own partner */
            ask_ahead(at, job->row_bytes, first, more, shape);
            ask_ahead(next, job->row_bytes, first, more, shape);
            unpack(w, at, next);
            use_units(sums, &rest, r, w, (const __m512i (*)[4])x, token, toks);
            if (r + 1 < rows)
                use_units(sums, &rest, r + 1, w + 1, (const __m512i (*)[4])x, token, toks);
        }
        for (size_t t = 0; t < toks; t++)
            acc[t] = finish_super(acc[t], &sums[t], &rest, &token[t], shape);
    }
    for (size_t t = 0; t < toks; t++)
        _mm512_mask_storeu_ps(job->out + t * job->out_stride + row, (__mmask16)(0xffff >> (PANEL_ROWS - rows)), acc[t]);
}

static ALWAYS_INLINE void decode_by_units(const struct matmul_job *job, size_t row, struct row_range all, unit_pair_fn *unpack,
                                          const struct panel_shape shape)
{
    if (job->toks == 1)
        decode_units(job, row, all, 1, unpack, shape);
    else if (job->toks == 2)
        decode_units(job, row, all, 2, unpack, shape);
    else if (job->toks == 3)
        decode_units(job, row, all, 3, unpack, shape);
    else
        decode_units(job, row, all, 4, unpack, shape);
}

/* ---- columns as they come ------------------------------------------------------------------------------------------ */

/* Entries 8k to 8k + 7, eight values of two bits each. */
static ALWAYS_INLINE __m512i values_of_2_bits(struct codes codes, int k)
{
    const __m512i bytes = _mm512_set_epi64(0x4707470747074707, 0x4606460646064606, 0x4505450545054505, 0x4404440444044404,
                                           0x4303430343034303, 0x4202420242024202, 0x4101410141014101, 0x4000400040004000);
    const __m512i shifts = _mm512_set1_epi64(0x0e0c0a0806040200);
    __m512i entry = _mm512_permutex2var_epi8(codes.low, _mm512_add_epi8(bytes, _mm512_set1_epi8((char)(8 * k))), codes.high);
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(shifts, entry), places_of_2_bits(0));
}

/* Entries 16k to 16k + 15, four values each; `values`: eight bytes. */
static ALWAYS_INLINE __m512i values_of_4_bits(struct codes codes, int k, int64_t values)
{
    const __m512i bytes = _mm512_set_epi64(0x4f0f4f0f4e0e4e0e, 0x4d0d4d0d4c0c4c0c, 0x4b0b4b0b4a0a4a0a, 0x4909490948084808,
                                           0x4707470746064606, 0x4505450544044404, 0x4303430342024202, 0x4101410140004000);
    const __m512i shifts = _mm512_set1_epi64(0x2c2824200c080400);
    __m512i entry = _mm512_permutex2var_epi8(codes.low, _mm512_add_epi8(bytes, _mm512_set1_epi8((char)(16 * k))), codes.high);
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(shifts, entry), _mm512_set1_epi64(values));
}

static ALWAYS_INLINE void set_run(struct run *out, struct codes codes, bool two_bits, int64_t values, __m256i signs, __m128i scales,
                                  uint32_t d)
{
    uint64_t masks[4];
    store_signs(masks, signs);
    for (int k = 0; k < 4; k++)
        out->q[k] = with_signs(two_bits ? values_of_2_bits(codes, k) : values_of_4_bits(codes, k, values), masks[k]);
    out->scales = scales;
    out->d = d;
}

/* ---- the formats: where a run's indices, signs and scales stand ------------------------------------------------------ */

enum { VALUES_IQ2 = 0 };
#define VALUES_IQ3_XXS 0x3e342c241c140c04
#define VALUES_IQ3_S 0x0f0d0b0907050301

/* d; per 32 values 8 bytes: four indices, then four masks of signs and a scale. */
static ALWAYS_INLINE struct codes codes_pair_iq2_xxs(const uint8_t *first, const uint8_t *second)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512i index = _mm512_permutex2var_epi32(_mm512_loadu_si512(first + 2), even, _mm512_loadu_si512(second + 2));
    return codes_of(codes_iq2_xxs[0], codes_iq2_xxs[1], 256, index, 0, 0);
}

static ALWAYS_INLINE __m256i words_iq2_xxs(const uint8_t *bytes)
{
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castsi512_si256(_mm512_permutexvar_epi32(odd, _mm512_loadu_si512(bytes + 2)));
}

static ALWAYS_INLINE __m128i scales_of_words(__m256i words)
{
    return odd_scales(_mm256_cvtepi32_epi8(_mm256_srli_epi32(words, 28)));
}

static ALWAYS_INLINE void pair_iq2_xxs(struct unit_run out[2], const uint8_t *first, const uint8_t *second)
{
    struct codes codes = codes_pair_iq2_xxs(first, second);
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        __m256i words = words_iq2_xxs(bytes);
        set_units_2_bits(&out[i], codes, i == 1, signs_of_8_words(words));
        out[i].scales = per_unit(scales_of_words(words));
        out[i].d = u16_at(bytes);
    }
}

static ALWAYS_INLINE void run_iq2_xxs(struct run *out, const uint8_t *bytes)
{
    __m256i words = words_iq2_xxs(bytes);
    set_run(out, codes_pair_iq2_xxs(bytes, bytes), true, VALUES_IQ2, signs_of_8_words(words),
            scales_of_words(words), u16_at(bytes));
}

/* d; 32 words with 9 bits of index and 7 of signs; scales. */
static ALWAYS_INLINE struct codes codes_pair_iq2_xs(const uint8_t *first, const uint8_t *second)
{
    const __m512i ninth = _mm512_set1_epi16(0x100);
    __m512i a = _mm512_loadu_si512(first + 2), b = _mm512_loadu_si512(second + 2);
    __m512i index = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(a)), _mm512_cvtepi16_epi8(b), 1);
    __mmask64 bit_8 = _mm512_kunpackd(_mm512_test_epi16_mask(b, ninth), _mm512_test_epi16_mask(a, ninth));
    return codes_of(codes_iq2_xs[0], codes_iq2_xs[1], 512, index, bit_8, 0);
}

static ALWAYS_INLINE __m256i signs_iq2_xs(const uint8_t *bytes)
{
    return with_parity(_mm512_cvtepi16_epi8(_mm512_srli_epi16(_mm512_loadu_si512(bytes + 2), 9)));
}

static ALWAYS_INLINE void pair_iq2_xs(struct unit_run out[2], const uint8_t *first, const uint8_t *second)
{
    struct codes codes = codes_pair_iq2_xs(first, second);
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        set_units_2_bits(&out[i], codes, i == 1, signs_iq2_xs(bytes));
        out[i].scales = nibble_scales(bytes + 66);
        out[i].d = u16_at(bytes);
    }
}

static ALWAYS_INLINE void run_iq2_xs(struct run *out, const uint8_t *bytes)
{
    set_run(out, codes_pair_iq2_xs(bytes, bytes), true, VALUES_IQ2, signs_iq2_xs(bytes), nibble_scales(bytes + 66), u16_at(bytes));
}

/* d; 32 lower index bytes; 32 masks of signs; 8 bytes with two upper index bits for each of four entries; scales. */
static ALWAYS_INLINE struct codes codes_pair_iq2_s(const uint8_t *first, const uint8_t *second)
{
    const uint64_t even = 0x5555555555555555, a = u64_at(first + 66), b = u64_at(second + 66);
    __m512i index = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(first + 2))),
                                       _mm256_loadu_si256((const __m256i *)(second + 2)), 1);
    return codes_of(codes_iq2_s[0], codes_iq2_s[1], 1024, index, _pext_u64(a, even) | _pext_u64(b, even) << 32,
                    _pext_u64(a, ~even) | _pext_u64(b, ~even) << 32);
}

static ALWAYS_INLINE void pair_iq2_s(struct unit_run out[2], const uint8_t *first, const uint8_t *second)
{
    struct codes codes = codes_pair_iq2_s(first, second);
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        set_units_2_bits(&out[i], codes, i == 1, _mm256_loadu_si256((const __m256i *)(bytes + 34)));
        out[i].scales = nibble_scales(bytes + 74);
        out[i].d = u16_at(bytes);
    }
}

static ALWAYS_INLINE void run_iq2_s(struct run *out, const uint8_t *bytes)
{
    set_run(out, codes_pair_iq2_s(bytes, bytes), true, VALUES_IQ2, _mm256_loadu_si256((const __m256i *)(bytes + 34)),
            nibble_scales(bytes + 74), u16_at(bytes));
}

/* d; 64 indices of four values; per 32 values four masks of signs and a scale. */
static ALWAYS_INLINE struct codes codes_run_iq3_xxs(const uint8_t *bytes)
{
    return codes_of(codes_iq3_xxs[0], codes_iq3_xxs[1], 256, _mm512_loadu_si512(bytes + 2), 0, 0);
}

static ALWAYS_INLINE void pair_iq3_xxs(struct unit_run out[2], const uint8_t *first, const uint8_t *second)
{
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        __m256i words = _mm256_loadu_si256((const __m256i *)(bytes + 66));
        set_units_4_bits(&out[i], codes_run_iq3_xxs(bytes), VALUES_IQ3_XXS, signs_of_8_words(words));
        out[i].scales = per_unit(scales_of_words(words));
        out[i].d = u16_at(bytes);
    }
}

static ALWAYS_INLINE void run_iq3_xxs(struct run *out, const uint8_t *bytes)
{
    __m256i words = _mm256_loadu_si256((const __m256i *)(bytes + 66));
    set_run(out, codes_run_iq3_xxs(bytes), false, VALUES_IQ3_XXS, signs_of_8_words(words), scales_of_words(words), u16_at(bytes));
}

/* d; 64 lower index bytes; 8 bytes of ninth bits; 32 masks of signs; 4 bytes of scales for 32 values each. */
static ALWAYS_INLINE struct codes codes_run_iq3_s(const uint8_t *bytes)
{
    return codes_of(codes_iq3_s[0], codes_iq3_s[1], 512, _mm512_loadu_si512(bytes + 2), u64_at(bytes + 66), 0);
}

static ALWAYS_INLINE __m128i scales_iq3_s(const uint8_t *bytes)
{
    return odd_scales(vector_of_8(_pdep_u64(u32_at(bytes + 106), 0x0f0f0f0f0f0f0f0f)));
}

static ALWAYS_INLINE void pair_iq3_s(struct unit_run out[2], const uint8_t *first, const uint8_t *second)
{
    for (int i = 0; i < 2; i++) {
        const uint8_t *bytes = i ? second : first;
        set_units_4_bits(&out[i], codes_run_iq3_s(bytes), VALUES_IQ3_S, _mm256_loadu_si256((const __m256i *)(bytes + 74)));
        out[i].scales = per_unit(scales_iq3_s(bytes));
        out[i].d = u16_at(bytes);
    }
}

static ALWAYS_INLINE void run_iq3_s(struct run *out, const uint8_t *bytes)
{
    set_run(out, codes_run_iq3_s(bytes), false, VALUES_IQ3_S, _mm256_loadu_si256((const __m256i *)(bytes + 74)),
            scales_iq3_s(bytes), u16_at(bytes));
}

static void decode_iq2_xxs_avx512vbmi(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_by_units(job, row, all, pair_iq2_xxs, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void panel_iq2_xxs_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_iq2_xxs, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void few_iq2_xxs_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_xxs, (struct panel_shape)SHAPE_IQ2_XXS);
}

const struct format_avx512 format_iq2_xxs_avx512vbmi = {
    SHAPE_IQ2_XXS, decode_iq2_xxs_avx512vbmi, panel_iq2_xxs_avx512vbmi, few_iq2_xxs_avx512vbmi
};

void matmul_iq2_xxs_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xxs_avx512vbmi);
}

static void decode_iq2_xs_avx512vbmi(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_by_units(job, row, all, pair_iq2_xs, (struct panel_shape)SHAPE_IQ2_XS);
}

static void panel_iq2_xs_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_iq2_xs, (struct panel_shape)SHAPE_IQ2_XS);
}

static void few_iq2_xs_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_xs, (struct panel_shape)SHAPE_IQ2_XS);
}

const struct format_avx512 format_iq2_xs_avx512vbmi = {
    SHAPE_IQ2_XS, decode_iq2_xs_avx512vbmi, panel_iq2_xs_avx512vbmi, few_iq2_xs_avx512vbmi
};

void matmul_iq2_xs_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xs_avx512vbmi);
}

static void decode_iq2_s_avx512vbmi(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_by_units(job, row, all, pair_iq2_s, (struct panel_shape)SHAPE_IQ2_S);
}

static void panel_iq2_s_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_iq2_s, (struct panel_shape)SHAPE_IQ2_S);
}

static void few_iq2_s_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_s, (struct panel_shape)SHAPE_IQ2_S);
}

const struct format_avx512 format_iq2_s_avx512vbmi = {
    SHAPE_IQ2_S, decode_iq2_s_avx512vbmi, panel_iq2_s_avx512vbmi, few_iq2_s_avx512vbmi
};

void matmul_iq2_s_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_s_avx512vbmi);
}

static void decode_iq3_xxs_avx512vbmi(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_by_units(job, row, all, pair_iq3_xxs, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void panel_iq3_xxs_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_iq3_xxs, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void few_iq3_xxs_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq3_xxs, (struct panel_shape)SHAPE_IQ3_XXS);
}

const struct format_avx512 format_iq3_xxs_avx512vbmi = {
    SHAPE_IQ3_XXS, decode_iq3_xxs_avx512vbmi, panel_iq3_xxs_avx512vbmi, few_iq3_xxs_avx512vbmi
};

void matmul_iq3_xxs_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_xxs_avx512vbmi);
}

static void decode_iq3_s_avx512vbmi(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_by_units(job, row, all, pair_iq3_s, (struct panel_shape)SHAPE_IQ3_S);
}

static void panel_iq3_s_avx512vbmi(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_iq3_s, (struct panel_shape)SHAPE_IQ3_S);
}

static void few_iq3_s_avx512vbmi(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq3_s, (struct panel_shape)SHAPE_IQ3_S);
}

const struct format_avx512 format_iq3_s_avx512vbmi = {
    SHAPE_IQ3_S, decode_iq3_s_avx512vbmi, panel_iq3_s_avx512vbmi, few_iq3_s_avx512vbmi
};

void matmul_iq3_s_avx512vbmi(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_s_avx512vbmi);
}
