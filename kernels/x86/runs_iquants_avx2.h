/* runs_iquants_avx2.h - the formats with codebooks: from the file's bytes to a run in registers, for AVX2 and its additions.
 * ref/unpack_super.c describes the blocks.
 *
 * Indices, signs and scales of a whole block are put apart by vectors; the books' entries come by ordinary loads from the
 * first-level cache, four or eight to a vector, because vpgatherdd is no faster than its loads one by one and on many cores far
 * slower. Every book's values, with their signs, fit seven bits once an offset is added: so panels and several tokens take them,
 * and need no vpsignb. For one token the activations take over the signs (matmul_book_avx2.h). A block takes 32 (IQ1, IQ2) or 64
 * (IQ3) loads of indices and as many of entries; those are what limits. */
#ifndef QUERN_RUNS_IQUANTS_AVX2_H
#define QUERN_RUNS_IQUANTS_AVX2_H

#include "grids.h"
#include "iquant_signs.h"
#include "matmul_book_avx2.h"

/* Four entries of eight values. */
static ALWAYS_INLINE __m256i four_of_8(const uint64_t *book, const uint16_t index[4])
{
    return _mm256_setr_epi64x((long long)book[index[0]], (long long)book[index[1]], (long long)book[index[2]],
                              (long long)book[index[3]]);
}

/* Eight entries of four values. */
static ALWAYS_INLINE __m256i eight_of_4(const uint32_t *book, const uint16_t index[8])
{
    return _mm256_setr_epi32((int)book[index[0]], (int)book[index[1]], (int)book[index[2]], (int)book[index[3]],
                             (int)book[index[4]], (int)book[index[5]], (int)book[index[6]], (int)book[index[7]]);
}

/* 32 magnitudes with their signs, plus the offset. */
static ALWAYS_INLINE __m256i with_signs(__m256i q, uint32_t mask, int offset)
{
    __m256i minus = bytes_of_bits(mask);
    return _mm256_sub_epi8(_mm256_xor_si256(q, minus), _mm256_sub_epi8(minus, _mm256_set1_epi8((char)offset)));
}

/* The top four bits of eight words. */
static ALWAYS_INLINE __m128i scales_of_words(__m256i words)
{
    __m256i s = _mm256_srli_epi32(words, 28);
    __m128i eight = _mm_packus_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    return odd_scales(_mm_packus_epi16(eight, eight));
}

/* The nibbles of the low eight bytes, low ones first. */
static ALWAYS_INLINE __m128i scales_of_nibbles(__m128i bytes)
{
    const __m128i nibble = _mm_set1_epi8(15);
    return odd_scales(_mm_unpacklo_epi8(_mm_and_si128(bytes, nibble), _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble)));
}

/* 16 indices: their low bytes; their high bits stand in 16-bit lanes, brought to bits 8 and up by the lane's factor. */
static ALWAYS_INLINE __m256i indices_of(const uint8_t *low, __m256i high, __m256i factor, int mask)
{
    __m256i bits = _mm256_and_si256(_mm256_mullo_epi16(high, factor), _mm256_set1_epi16((short)mask));
    return _mm256_or_si256(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)low)), bits);
}

/* Lane i of 16: byte i / 4 of the four from `first` on. */
static ALWAYS_INLINE __m256i bytes_in_fours(const uint8_t *first)
{
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 2, -1, 2, -1, 2, -1, 2, -1, 3,
                                            -1, 3, -1, 3, -1, 3, -1);
    return _mm256_shuffle_epi8(_mm256_set1_epi32((int)load_u32(first)), spread);
}

/* Lane i of 16: word i / 4 of the four from `first` on. */
static ALWAYS_INLINE __m256i words_in_fours(const uint8_t *first)
{
    const __m256i spread = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6,
                                            7, 6, 7);
    uint64_t four;
    memcpy(&four, first, 8);
    return _mm256_shuffle_epi8(_mm256_set1_epi64x((long long)four), spread);
}

/* Multiplies lane i so that its field of three bits, at bit 3 (i % 4), comes to bit 9. */
static ALWAYS_INLINE __m256i field_factors(void)
{
    return _mm256_set1_epi64x(0x0001000800400200);
}

static ALWAYS_INLINE __m256i fields_of_words(__m256i words)
{
    return _mm256_and_si256(_mm256_srli_epi16(_mm256_mullo_epi16(words, field_factors()), 9), _mm256_set1_epi16(7));
}

static ALWAYS_INLINE void store_indices(uint16_t *to, __m256i index)
{
    _mm256_store_si256((__m256i *)to, index);
}

static ALWAYS_INLINE void store_masks(uint32_t to[8], __m256i masks)
{
    _mm256_store_si256((__m256i *)to, masks);
}

static ALWAYS_INLINE void store_scales(struct book_block *out, __m128i scales)
{
    _mm_store_si128((__m128i *)out->scales, scales);
}

/* A block's values from 32 indices, or 64, and the signs' masks. */
static ALWAYS_INLINE void values_of_8(struct run *out, const uint64_t *book, const struct book_block *w)
{
    UNROLL_ALL
    for (int k = 0; k < 8; k++)
        out->q[k] = with_signs(four_of_8(book, w->index + 4 * k), w->masks[k], 64);
}

static ALWAYS_INLINE void values_of_4(struct run *out, const uint32_t *book, const struct book_block *w, int offset)
{
    UNROLL_ALL
    for (int k = 0; k < 8; k++)
        out->q[k] = with_signs(eight_of_4(book, w->index + 8 * k), w->masks[k], offset);
}

/* Pairs of products of 32 magnitudes, of which none is above 62, with activations that take over the signs. */
static ALWAYS_INLINE __m256i pairs_with_signs(__m256i q, uint32_t mask, const int8_t *x)
{
    __m256i minus = bytes_of_bits(mask);
    return _mm256_maddubs_epi16(q, _mm256_sub_epi8(_mm256_xor_si256(_mm256_loadu_si256((const __m256i *)x), minus), minus));
}

static ALWAYS_INLINE __m256i scales_of_block(const struct book_block *w)
{
    return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)w->scales));
}

/* A block's totals by one token. */
static ALWAYS_INLINE __m256i total_of_8(const uint64_t *book, const struct book_block *w, const int8_t *x,
                                        const struct panel_shape shape)
{
    __m256i scales = scales_of_block(w), total = _mm256_setzero_si256();
    UNROLL_ALL
    for (int k = 0; k < 8; k++) {
        __m256i pairs = pairs_with_signs(four_of_8(book, w->index + 4 * k), w->masks[k], x + 32 * k);
        total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, scale_of_32(scales, k, shape)));
    }
    return total;
}

static ALWAYS_INLINE __m256i total_of_4(const uint32_t *book, const struct book_block *w, const int8_t *x,
                                        const struct panel_shape shape)
{
    __m256i scales = scales_of_block(w), total = _mm256_setzero_si256();
    UNROLL_ALL
    for (int k = 0; k < 8; k++) {
        __m256i pairs = pairs_with_signs(eight_of_4(book, w->index + 8 * k), w->masks[k], x + 32 * k);
        total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, scale_of_32(scales, k, shape)));
    }
    return total;
}

static ALWAYS_INLINE void apart_iq2_xxs_avx2(struct book_block *out, const uint8_t *bytes)
{
    __m256i first = _mm256_loadu_si256((const __m256i *)(bytes + 2)), second = _mm256_loadu_si256((const __m256i *)(bytes + 34));
    __m256 low = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second), 0x88);
    __m256 high = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second), 0xdd);
    __m256i four = _mm256_permute4x64_epi64(_mm256_castps_si256(low), 0xd8);
    __m256i words = _mm256_permute4x64_epi64(_mm256_castps_si256(high), 0xd8);
    store_indices(out->index, _mm256_cvtepu8_epi16(_mm256_castsi256_si128(four)));
    store_indices(out->index + 16, _mm256_cvtepu8_epi16(_mm256_extracti128_si256(four, 1)));
    store_masks(out->masks, signs_of_8_words(words));
    out->d = load_u16(bytes);
    store_scales(out, scales_of_words(words));
}

#define SHAPE_IQ2_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 64, .top = 107, .bytes = 66, .factor = 0.125f }

static ALWAYS_INLINE void values_iq2_xxs_avx2(struct run *out, const struct book_block *w)
{
    values_of_8(out, grid_iq2_xxs, w);
}

static ALWAYS_INLINE __m256i total_iq2_xxs_avx2(const struct book_block *w, const struct book_token *token)
{
    return total_of_8(grid_iq2_xxs, w, token->x, (struct panel_shape)SHAPE_IQ2_XXS);
}

static ALWAYS_INLINE void run_iq2_xxs_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq2_xxs_avx2, values_iq2_xxs_avx2);
}

static ALWAYS_INLINE void apart_iq2_xs_avx2(struct book_block *out, const uint8_t *bytes)
{
    const __m256i nine = _mm256_set1_epi16(511);
    __m256i first = _mm256_loadu_si256((const __m256i *)(bytes + 2)), second = _mm256_loadu_si256((const __m256i *)(bytes + 34));
    __m256i seven = _mm256_packus_epi16(_mm256_srli_epi16(first, 9), _mm256_srli_epi16(second, 9));
    store_indices(out->index, _mm256_and_si256(first, nine));
    store_indices(out->index + 16, _mm256_and_si256(second, nine));
    store_masks(out->masks, with_parity(_mm256_permute4x64_epi64(seven, 0xd8)));
    out->d = load_u16(bytes);
    store_scales(out, scales_of_nibbles(_mm_loadl_epi64((const __m128i *)(bytes + 66))));
}

#define SHAPE_IQ2_XS { .kind = PANEL_SUPER, .sub = 16, .offset = 64, .top = 107, .bytes = 74, .factor = 0.125f }

static ALWAYS_INLINE void values_iq2_xs_avx2(struct run *out, const struct book_block *w)
{
    values_of_8(out, grid_iq2_xs, w);
}

static ALWAYS_INLINE __m256i total_iq2_xs_avx2(const struct book_block *w, const struct book_token *token)
{
    return total_of_8(grid_iq2_xs, w, token->x, (struct panel_shape)SHAPE_IQ2_XS);
}

static ALWAYS_INLINE void run_iq2_xs_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq2_xs_avx2, values_iq2_xs_avx2);
}

static ALWAYS_INLINE void apart_iq2_s_avx2(struct book_block *out, const uint8_t *bytes)
{
    const __m256i factor = _mm256_set1_epi64x(0x0004001000400100);
    for (int half = 0; half < 2; half++)
        store_indices(out->index + 16 * half,
                      indices_of(bytes + 2 + 16 * half, bytes_in_fours(bytes + 66 + 4 * half), factor, 0x300));
    memcpy(out->masks, bytes + 34, 32);
    out->d = load_u16(bytes);
    store_scales(out, scales_of_nibbles(_mm_loadl_epi64((const __m128i *)(bytes + 74))));
}

#define SHAPE_IQ2_S { .kind = PANEL_SUPER, .sub = 16, .offset = 64, .top = 107, .bytes = 82, .factor = 0.125f }

static ALWAYS_INLINE void values_iq2_s_avx2(struct run *out, const struct book_block *w)
{
    values_of_8(out, grid_iq2_s, w);
}

static ALWAYS_INLINE __m256i total_iq2_s_avx2(const struct book_block *w, const struct book_token *token)
{
    return total_of_8(grid_iq2_s, w, token->x, (struct panel_shape)SHAPE_IQ2_S);
}

static ALWAYS_INLINE void run_iq2_s_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq2_s_avx2, values_iq2_s_avx2);
}

static ALWAYS_INLINE void apart_iq3_xxs_avx2(struct book_block *out, const uint8_t *bytes)
{
    __m256i words = _mm256_loadu_si256((const __m256i *)(bytes + 66));
    for (int i = 0; i < 4; i++)
        store_indices(out->index + 16 * i, _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(bytes + 2 + 16 * i))));
    store_masks(out->masks, signs_of_8_words(words));
    out->d = load_u16(bytes);
    store_scales(out, scales_of_words(words));
}

#define SHAPE_IQ3_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 64, .top = 126, .bytes = 98, .factor = 0.25f }

static ALWAYS_INLINE void values_iq3_xxs_avx2(struct run *out, const struct book_block *w)
{
    values_of_4(out, grid_iq3_xxs, w, 64);
}

static ALWAYS_INLINE __m256i total_iq3_xxs_avx2(const struct book_block *w, const struct book_token *token)
{
    return total_of_4(grid_iq3_xxs, w, token->x, (struct panel_shape)SHAPE_IQ3_XXS);
}

static ALWAYS_INLINE void run_iq3_xxs_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq3_xxs_avx2, values_iq3_xxs_avx2);
}

static ALWAYS_INLINE void apart_iq3_s_avx2(struct book_block *out, const uint8_t *bytes)
{
    const __m256i factor = _mm256_setr_epi16(256, 128, 64, 32, 16, 8, 4, 2, 256, 128, 64, 32, 16, 8, 4, 2);
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1,
                                            -1, 1, -1, 1, -1, 1, -1);
    uint32_t scales = load_u32(bytes + 106);
    for (int i = 0; i < 4; i++) {
        __m256i high = _mm256_shuffle_epi8(_mm256_set1_epi16((short)load_u16(bytes + 66 + 2 * i)), spread);
        store_indices(out->index + 16 * i, indices_of(bytes + 2 + 16 * i, high, factor, 0x100));
    }
    memcpy(out->masks, bytes + 74, 32);
    out->d = load_u16(bytes);
    store_scales(out, scales_of_nibbles(_mm_cvtsi32_si128((int)scales)));
}

#define SHAPE_IQ3_S { .kind = PANEL_SUPER, .sub = 32, .offset = 16, .top = 31, .bytes = 110, .factor = 1 }

static ALWAYS_INLINE void values_iq3_s_avx2(struct run *out, const struct book_block *w)
{
    values_of_4(out, grid_iq3_s, w, 16);
}

static ALWAYS_INLINE __m256i total_iq3_s_avx2(const struct book_block *w, const struct book_token *token)
{
    return total_of_4(grid_iq3_s, w, token->x, (struct panel_shape)SHAPE_IQ3_S);
}

static ALWAYS_INLINE void run_iq3_s_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq3_s_avx2, values_iq3_s_avx2);
}

/* Values -1, 0, 1 in eighths: with the delta and the offset of 16, all that is left of the masks. */
static ALWAYS_INLINE __m256i eighths(__m256i entries, __m256i minus)
{
    __m256i delta = _mm256_add_epi8(_mm256_add_epi8(minus, minus), _mm256_set1_epi8(17));
    return _mm256_add_epi8(_mm256_and_si256(_mm256_slli_epi16(entries, 3), _mm256_set1_epi8((char)0xf8)), delta);
}

/* A block's totals by one token but for the deltas, in eighths: entries plus one are 0, 1 or 2, and what that adds is taken off
 * with the deltas. */
static ALWAYS_INLINE __m256i total_of_iq1(const struct book_block *w, const int8_t *x, const struct panel_shape shape)
{
    __m256i scales = scales_of_block(w), total = _mm256_setzero_si256();
    UNROLL_ALL
    for (int k = 0; k < 8; k++) {
        __m256i q = _mm256_add_epi8(four_of_8(grid_iq1_s, w->index + 4 * k), _mm256_set1_epi8(1));
        __m256i pairs = _mm256_maddubs_epi16(q, _mm256_loadu_si256((const __m256i *)(x + 32 * k)));
        total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, scale_of_32(scales, k, shape)));
    }
    return _mm256_slli_epi32(total, 3);
}

/* Scale times (delta - 8): -7 or -9. minus: all ones where the delta is negative. */
static ALWAYS_INLINE __m256i factors_of_iq1(__m256i scales, __m256i minus)
{
    return _mm256_mullo_epi16(scales, _mm256_add_epi16(_mm256_add_epi16(minus, minus), _mm256_set1_epi16(-7)));
}

static ALWAYS_INLINE void apart_iq1_s_avx2(struct book_block *out, const uint8_t *bytes)
{
    __m128i words = _mm_loadu_si128((const __m128i *)(bytes + 34)), minus = _mm_srai_epi16(words, 15);
    __m128i scales = _mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7));
    scales = odd_scales(_mm_packus_epi16(scales, scales));
    for (int half = 0; half < 2; half++) {
        __m256i high = _mm256_slli_epi16(fields_of_words(words_in_fours(bytes + 34 + 8 * half)), 8);
        __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(bytes + 2 + 16 * half)));
        store_indices(out->index + 16 * half, _mm256_or_si256(low, high));
    }
    /* both sums of 16 that a delta belongs to */
    __m256i twice = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(scales, scales));
    __m256i deltas = _mm256_setr_m128i(_mm_unpacklo_epi16(minus, minus), _mm_unpackhi_epi16(minus, minus));
    _mm256_store_si256((__m256i *)out->factors, factors_of_iq1(twice, deltas));
    store_masks(out->masks, _mm256_cvtepi16_epi32(minus));
    store_scales(out, scales);
    out->d = load_u16(bytes);
}

#define SHAPE_IQ1_S { .kind = PANEL_SUPER, .sub = 32, .offset = 16, .top = 31, .bytes = 50, .factor = 0.125f }

static ALWAYS_INLINE void values_iq1_s_avx2(struct run *out, const struct book_block *w)
{
    UNROLL_ALL
    for (int k = 0; k < 8; k++)
        out->q[k] = eighths(four_of_8(grid_iq1_s, w->index + 4 * k), _mm256_set1_epi32((int)w->masks[k]));
}

static ALWAYS_INLINE __m256i total_iq1_s_avx2(const struct book_block *w, const struct book_token *token)
{
    __m256i total = total_of_iq1(w, token->x, (struct panel_shape)SHAPE_IQ1_S);
    return _mm256_add_epi32(total, _mm256_madd_epi16(_mm256_load_si256((const __m256i *)w->factors), token->sums));
}

static ALWAYS_INLINE void run_iq1_s_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq1_s_avx2, values_iq1_s_avx2);
}

static ALWAYS_INLINE void apart_iq1_m_avx2(struct book_block *out, const uint8_t *bytes)
{
    /* A byte's two nibbles: three bits of index, the delta's sign. */
    const __m256i factor = _mm256_set1_epi32(0x00100100), sign = _mm256_set1_epi16(0x800);
    const __m256i pairs = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, 4, -1, 4, -1, 5, -1, 5, -1, 6,
                                           -1, 6, -1, 7, -1, 7, -1);
    __m256i fields = fields_of_words(words_in_fours(bytes + 48)), minus[2];
    __m128i scales = odd_scales(_mm_packus_epi16(_mm256_castsi256_si128(fields), _mm256_extracti128_si256(fields, 1)));
    for (int half = 0; half < 2; half++) {
        uint64_t eight;
        memcpy(&eight, bytes + 32 + 8 * half, 8);
        __m256i high = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x((long long)eight), pairs), factor);
        __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(bytes + 16 * half)));
        store_indices(out->index + 16 * half, _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi16(0x700))));
        minus[half] = _mm256_cmpeq_epi16(_mm256_and_si256(high, sign), sign);
        /* both deltas that a scale belongs to */
        __m256i twice = _mm256_cvtepi8_epi16(half ? _mm_unpackhi_epi8(scales, scales) : _mm_unpacklo_epi8(scales, scales));
        _mm256_store_si256((__m256i *)out->factors + half, factors_of_iq1(twice, minus[half]));
    }
    store_masks(out->masks, _mm256_permute4x64_epi64(_mm256_packs_epi16(minus[0], minus[1]), 0xd8));
    store_scales(out, scales);
    out->d = (uint32_t)(load_u16(bytes + 48) >> 12 | (load_u16(bytes + 50) >> 8 & 0xf0) | (load_u16(bytes + 52) >> 4 & 0xf00) |
                        (load_u16(bytes + 54) & 0xf000));
}

#define SHAPE_IQ1_M { .kind = PANEL_SUPER, .sub = 16, .offset = 16, .top = 31, .bytes = 56, .factor = 0.125f }

static ALWAYS_INLINE void values_iq1_m_avx2(struct run *out, const struct book_block *w)
{
    const __m256i eights = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3,
                                            3, 3, 3);
    UNROLL_ALL
    for (int k = 0; k < 8; k++) {
        __m256i minus = _mm256_shuffle_epi8(_mm256_set1_epi32((int)w->masks[k]), eights);
        out->q[k] = eighths(four_of_8(grid_iq1_s, w->index + 4 * k), minus);
    }
}

static ALWAYS_INLINE __m256i total_iq1_m_avx2(const struct book_block *w, const struct book_token *token)
{
    __m256i total = total_of_iq1(w, token->x, (struct panel_shape)SHAPE_IQ1_M);
    for (int half = 0; half < 2; half++) {
        __m256i factors = _mm256_load_si256((const __m256i *)w->factors + half);
        total = _mm256_add_epi32(total, _mm256_madd_epi16(factors, token->eights[half]));
    }
    return total;
}

static ALWAYS_INLINE void run_iq1_m_avx2(struct run *out, const uint8_t *bytes)
{
    book_run(out, bytes, apart_iq1_m_avx2, values_iq1_m_avx2);
}

#endif
