#include "matmul_avx512.h"

#include "grids.h"

/* The formats with codebooks on AVX-512. Eight bytes of a grid at a time are loaded by index into a vector, then negated under a mask of the
 * sign bits; 128 is added to make them unsigned. Gathers are slower than eight loads on Zen 4. */

static ALWAYS_INLINE __m512i eight_entries(const uint64_t *grid, const uint16_t *index)
{
    return _mm512_setr_epi64((long long)grid[index[0]], (long long)grid[index[1]], (long long)grid[index[2]], (long long)grid[index[3]],
                             (long long)grid[index[4]], (long long)grid[index[5]], (long long)grid[index[6]], (long long)grid[index[7]]);
}

static ALWAYS_INLINE uint64_t two_entries(const uint32_t *grid, unsigned first, unsigned second)
{
    return grid[first] | (uint64_t)grid[second] << 32;
}

/* Magnitudes with signs, plus 128. */
static ALWAYS_INLINE __m512i with_signs(__m512i q, uint64_t signs)
{
    q = _mm512_mask_sub_epi8(q, signs, _mm512_setzero_si512(), q);
    return _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
}

/* Eight masks of seven bits, one per byte: the eighth bit makes the number of minus signs even. */
static ALWAYS_INLINE uint64_t with_parity(uint64_t masks)
{
    uint64_t p = masks ^ masks >> 4;
    p ^= p >> 2;
    p ^= p >> 1;
    return masks | (p & 0x0101010101010101) << 7;
}

/* Signs of 64 values from two words with four masks of seven bits each in their lower 28. */
static ALWAYS_INLINE uint64_t signs_of_two_words(uint32_t low, uint32_t high)
{
    return with_parity(_pdep_u64((low & 0x0fffffff) | (uint64_t)(high & 0x0fffffff) << 28, 0x7f7f7f7f7f7f7f7f));
}

static ALWAYS_INLINE __m128i odd_scales(__m128i s)
{
    return _mm_add_epi8(_mm_add_epi8(s, s), _mm_set1_epi8(1));
}

/* d; per 32 values 8 bytes: four indices, then four masks of signs and a scale. */
static ALWAYS_INLINE void run_iq2_xxs_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i odd_dwords = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i words = _mm512_loadu_si512(bytes + 2);
    out->d = u16_at(bytes);
    out->scales = odd_scales(_mm256_cvtepi32_epi8(_mm256_srli_epi32(_mm512_castsi512_si256(_mm512_permutexvar_epi32(odd_dwords, words)), 28)));
    for (int k = 0; k < 4; k++) {
        uint64_t a = u64_at(bytes + 2 + 16 * k), b = u64_at(bytes + 10 + 16 * k);
        const uint16_t index[8] = { a & 255, a >> 8 & 255, a >> 16 & 255, a >> 24 & 255,
                                    b & 255, b >> 8 & 255, b >> 16 & 255, b >> 24 & 255 };
        out->q[k] = with_signs(eight_entries(grid_iq2_xxs, index), signs_of_two_words((uint32_t)(a >> 32), (uint32_t)(b >> 32)));
    }
}

#define SHAPE_IQ2_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 66, .factor = 0.125f }

static void decode_iq2_xxs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq2_xxs_avx512, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void panel_iq2_xxs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xxs_avx512, (struct panel_shape)SHAPE_IQ2_XXS);
}

const struct format_avx512 format_iq2_xxs_avx512 = { SHAPE_IQ2_XXS, decode_iq2_xxs_avx512, panel_iq2_xxs_avx512 };

void matmul_iq2_xxs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xxs_avx512);
}

/* Eight bytes, each two scales of four bits for 16 values. */
static ALWAYS_INLINE __m128i nibble_scales(const uint8_t *bytes)
{
    __m128i both = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)bytes));
    return odd_scales(_mm_and_si128(_mm_or_si128(both, _mm_slli_epi16(both, 4)), _mm_set1_epi16(0x0f0f)));
}

/* d; 32 words with 9 bits of index and 7 of signs; scales. */
static ALWAYS_INLINE void run_iq2_xs_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = u16_at(bytes);
    out->scales = nibble_scales(bytes + 66);
    for (int k = 0; k < 4; k++) {
        __m128i words = _mm_loadu_si128((const __m128i *)(bytes + 2 + 16 * k));
        __m128i signs = _mm_packus_epi16(_mm_srli_epi16(words, 9), words);
        uint16_t index[8];
        _mm_storeu_si128((__m128i *)index, _mm_and_si128(words, _mm_set1_epi16(511)));
        out->q[k] = with_signs(eight_entries(grid_iq2_xs, index), with_parity((uint64_t)_mm_cvtsi128_si64(signs)));
    }
}

#define SHAPE_IQ2_XS { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 74, .factor = 0.125f }

static void decode_iq2_xs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq2_xs_avx512, (struct panel_shape)SHAPE_IQ2_XS);
}

static void panel_iq2_xs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xs_avx512, (struct panel_shape)SHAPE_IQ2_XS);
}

const struct format_avx512 format_iq2_xs_avx512 = { SHAPE_IQ2_XS, decode_iq2_xs_avx512, panel_iq2_xs_avx512 };

void matmul_iq2_xs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xs_avx512);
}

/* d; 32 lower index bytes; 32 masks of signs; 8 bytes with two upper index bits for each of four entries; scales. */
static ALWAYS_INLINE void run_iq2_s_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = u16_at(bytes);
    out->scales = nibble_scales(bytes + 74);
    for (int k = 0; k < 4; k++) {
        const uint8_t *low = bytes + 2 + 8 * k;
        uint64_t high = _pdep_u64((uint64_t)bytes[66 + 2 * k] | (uint64_t)bytes[67 + 2 * k] << 8, 0x0303030303030303);
        uint16_t index[8];
        __m128i wide = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)low), vector_of_8(high));
        _mm_storeu_si128((__m128i *)index, wide);
        out->q[k] = with_signs(eight_entries(grid_iq2_s, index), u64_at(bytes + 34 + 8 * k));
    }
}

#define SHAPE_IQ2_S { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 82, .factor = 0.125f }

static void decode_iq2_s_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq2_s_avx512, (struct panel_shape)SHAPE_IQ2_S);
}

static void panel_iq2_s_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_s_avx512, (struct panel_shape)SHAPE_IQ2_S);
}

const struct format_avx512 format_iq2_s_avx512 = { SHAPE_IQ2_S, decode_iq2_s_avx512, panel_iq2_s_avx512 };

void matmul_iq2_s_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_s_avx512);
}

/* d; 64 indices of four values; per 32 values four masks of signs and a scale. */
static ALWAYS_INLINE void run_iq3_xxs_avx512(struct run *out, const uint8_t *bytes)
{
    __m256i words = _mm256_loadu_si256((const __m256i *)(bytes + 66));
    out->d = u16_at(bytes);
    out->scales = odd_scales(_mm256_cvtepi32_epi8(_mm256_srli_epi32(words, 28)));
    for (int k = 0; k < 4; k++) {
        const uint8_t *index = bytes + 2 + 16 * k;
        uint64_t signs = u64_at(bytes + 66 + 8 * k);
        uint64_t entry[8];
        for (int i = 0; i < 8; i++)
            entry[i] = two_entries(grid_iq3_xxs, index[2 * i], index[2 * i + 1]);
        out->q[k] = with_signs(_mm512_setr_epi64((long long)entry[0], (long long)entry[1], (long long)entry[2], (long long)entry[3],
                                                 (long long)entry[4], (long long)entry[5], (long long)entry[6], (long long)entry[7]),
                               signs_of_two_words((uint32_t)signs, (uint32_t)(signs >> 32)));
    }
}

#define SHAPE_IQ3_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 98, .factor = 0.25f }

static void decode_iq3_xxs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq3_xxs_avx512, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void panel_iq3_xxs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_xxs_avx512, (struct panel_shape)SHAPE_IQ3_XXS);
}

const struct format_avx512 format_iq3_xxs_avx512 = { SHAPE_IQ3_XXS, decode_iq3_xxs_avx512, panel_iq3_xxs_avx512 };

void matmul_iq3_xxs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_xxs_avx512);
}

/* d; 64 lower index bytes; 8 bytes of ninth bits; 32 masks of signs; 4 bytes of scales for 32 values each. */
static ALWAYS_INLINE void run_iq3_s_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = u16_at(bytes);
    out->scales = odd_scales(vector_of_8(_pdep_u64(u32_at(bytes + 106), 0x0f0f0f0f0f0f0f0f)));
    for (int k = 0; k < 4; k++) {
        const uint8_t *low = bytes + 2 + 16 * k;
        unsigned high = bytes[66 + 2 * k] | (unsigned)bytes[67 + 2 * k] << 8;
        uint64_t entry[8];
        for (int i = 0; i < 8; i++)
            entry[i] = two_entries(grid_iq3_s, low[2 * i] | (high >> 2 * i & 1) << 8, low[2 * i + 1] | (high >> (2 * i + 1) & 1) << 8);
        out->q[k] = with_signs(_mm512_setr_epi64((long long)entry[0], (long long)entry[1], (long long)entry[2], (long long)entry[3],
                                                 (long long)entry[4], (long long)entry[5], (long long)entry[6], (long long)entry[7]),
                               u64_at(bytes + 74 + 8 * k));
    }
}

#define SHAPE_IQ3_S { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 110, .factor = 1 }

static void decode_iq3_s_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq3_s_avx512, (struct panel_shape)SHAPE_IQ3_S);
}

static void panel_iq3_s_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_s_avx512, (struct panel_shape)SHAPE_IQ3_S);
}

const struct format_avx512 format_iq3_s_avx512 = { SHAPE_IQ3_S, decode_iq3_s_avx512, panel_iq3_s_avx512 };

void matmul_iq3_s_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_s_avx512);
}

/* Grid values -1, 0, 1 in eighths plus or minus one, entry by entry, plus 128. */
static ALWAYS_INLINE __m512i eighths(__m512i q, __mmask8 minus)
{
    q = _mm512_and_si512(_mm512_slli_epi64(q, 3), _mm512_set1_epi8((char)0xf8));
    q = _mm512_add_epi8(q, _mm512_mask_mov_epi64(_mm512_set1_epi8(1), minus, _mm512_set1_epi8(-1)));
    return _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
}

/* d; 32 lower index bytes; 8 words: four times three upper index bits, a 3-bit scale, the delta's sign. */
static ALWAYS_INLINE void run_iq1_s_avx512(struct run *out, const uint8_t *bytes)
{
    __m128i words = _mm_loadu_si128((const __m128i *)(bytes + 34));
    out->d = u16_at(bytes);
    out->scales = odd_scales(_mm_cvtepi16_epi8(_mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7))));
    for (int k = 0; k < 4; k++) {
        uint32_t both = u32_at(bytes + 34 + 4 * k);
        uint64_t high = _pdep_u64((both & 0xfff) | (both >> 4 & 0xfff000), 0x0707070707070707);
        __mmask8 minus = (__mmask8)((both & 0x8000 ? 0x0f : 0) | (both & 0x80000000 ? 0xf0 : 0));
        uint16_t index[8];
        _mm_storeu_si128((__m128i *)index, _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(bytes + 2 + 8 * k)),
                                                             vector_of_8(high)));
        out->q[k] = eighths(eight_entries(grid_iq1_s, index), minus);
    }
}

#define SHAPE_IQ1_S { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 50, .factor = 0.125f }

static void decode_iq1_s_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq1_s_avx512, (struct panel_shape)SHAPE_IQ1_S);
}

static void panel_iq1_s_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq1_s_avx512, (struct panel_shape)SHAPE_IQ1_S);
}

const struct format_avx512 format_iq1_s_avx512 = { SHAPE_IQ1_S, decode_iq1_s_avx512, panel_iq1_s_avx512 };

void matmul_iq1_s_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq1_s_avx512);
}

/* 32 lower index bytes; 16 bytes with three upper bits and the delta's sign per entry; 4 words of four 3-bit scales, above them d's nibbles. */
static ALWAYS_INLINE void run_iq1_m_avx512(struct run *out, const uint8_t *bytes)
{
    uint64_t words = u64_at(bytes + 48);
    uint64_t scales = _pext_u64(words, 0x0fff0fff0fff0fff);
    uint16_t half = (uint16_t)_pext_u64(words, 0xf000f000f000f000);
    __m128i s = _mm_set_epi64x((long long)_pdep_u64(scales >> 24, 0x0707070707070707), (long long)_pdep_u64(scales, 0x0707070707070707));
    out->d = half;
    out->scales = odd_scales(s);
    for (int k = 0; k < 4; k++) {
        uint64_t high = _pdep_u64(u32_at(bytes + 32 + 4 * k), 0x0f0f0f0f0f0f0f0f);
        uint16_t index[8];
        _mm_storeu_si128((__m128i *)index, _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(bytes + 8 * k)),
                                                             vector_of_8(high & 0x0707070707070707)));
        out->q[k] = eighths(eight_entries(grid_iq1_s, index), (__mmask8)_pext_u64(high, 0x0808080808080808));
    }
}

#define SHAPE_IQ1_M { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 56, .factor = 0.125f }

static void decode_iq1_m_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq1_m_avx512, (struct panel_shape)SHAPE_IQ1_M);
}

static void panel_iq1_m_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq1_m_avx512, (struct panel_shape)SHAPE_IQ1_M);
}

const struct format_avx512 format_iq1_m_avx512 = { SHAPE_IQ1_M, decode_iq1_m_avx512, panel_iq1_m_avx512 };

void matmul_iq1_m_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq1_m_avx512);
}

/* d; a word of upper scale pairs; 4 bytes of lower scale nibbles (offset 32); 128 bytes of nibbles: indices of values_iq4. */
static ALWAYS_INLINE void run_iq4_xs_avx512(struct run *out, const uint8_t *bytes)
{
    uint64_t scales = _pdep_u64(u32_at(bytes + 4), 0x0f0f0f0f0f0f0f0f) | _pdep_u64(u16_at(bytes + 2), 0x3030303030303030);
    out->d = u16_at(bytes);
    out->scales = _mm_sub_epi8(vector_of_8(scales), _mm_set1_epi8(32));
    nibbles(out->q, _mm512_loadu_si512(bytes + 8));
    nibbles(out->q + 2, _mm512_loadu_si512(bytes + 72));
    for (int k = 0; k < 4; k++)
        out->q[k] = look_up(values_iq4, 128, out->q[k]);
}

#define SHAPE_IQ4_XS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 136, .factor = 1, .order = ORDER_QUARTERS }

static void decode_iq4_xs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
}

static void panel_iq4_xs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
}

const struct format_avx512 format_iq4_xs_avx512 = { SHAPE_IQ4_XS, decode_iq4_xs_avx512, panel_iq4_xs_avx512 };

void matmul_iq4_xs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq4_xs_avx512);
}
