/* runs_iquants_avx2.h - the formats with codebooks: from the file's bytes to a run in registers, for AVX2 and its additions.
 * ref/unpack_super.c describes the blocks.
 *
 * Indices, signs and scales of a whole block are put apart by vectors; the books' entries come by ordinary loads from the
 * first-level cache, four or eight to a vector, because vpgatherdd is no faster than its loads one by one and on many cores far
 * slower. Every book's values, with their signs, fit seven bits once an offset is added, so that their dots need no vpsignb.
 * A block takes 32 (IQ1, IQ2) or 64 (IQ3) loads of indices and as many of entries; those are what limits. */
#ifndef QUERN_RUNS_IQUANTS_AVX2_H
#define QUERN_RUNS_IQUANTS_AVX2_H

#include "grids.h"
#include "iquant_signs.h"
#include "matmul_avx2.h"

typedef uint16_t indices[64] __attribute__((aligned(32)));

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
    return _mm256_shuffle_epi8(_mm256_set1_epi32((int)u32_at(first)), spread);
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

/* A block's values from 32 indices or 64, with the signs' masks. */
static ALWAYS_INLINE void values_of_8(struct run *out, const uint64_t *book, const uint16_t *index, const uint32_t *masks)
{
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++)
        out->q[k] = with_signs(four_of_8(book, index + 4 * k), masks[k], 64);
}

static ALWAYS_INLINE void values_of_4(struct run *out, const uint32_t *book, const uint16_t *index, const uint32_t *masks,
                                      int offset)
{
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++)
        out->q[k] = with_signs(eight_of_4(book, index + 8 * k), masks[k], offset);
}

static ALWAYS_INLINE void run_iq2_xxs_avx2(struct run *out, const uint8_t *bytes)
{
    indices index;
    uint32_t masks[8] __attribute__((aligned(32)));
    __m256i first = _mm256_loadu_si256((const __m256i *)(bytes + 2)), second = _mm256_loadu_si256((const __m256i *)(bytes + 34));
    __m256 low = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second), 0x88);
    __m256 high = _mm256_shuffle_ps(_mm256_castsi256_ps(first), _mm256_castsi256_ps(second), 0xdd);
    __m256i four = _mm256_permute4x64_epi64(_mm256_castps_si256(low), 0xd8);
    __m256i words = _mm256_permute4x64_epi64(_mm256_castps_si256(high), 0xd8);
    store_indices(index, _mm256_cvtepu8_epi16(_mm256_castsi256_si128(four)));
    store_indices(index + 16, _mm256_cvtepu8_epi16(_mm256_extracti128_si256(four, 1)));
    store_masks(masks, signs_of_8_words(words));
    out->d = u16_at(bytes);
    out->scales = scales_of_words(words);
    values_of_8(out, grid_iq2_xxs, index, masks);
}

#define SHAPE_IQ2_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 64, .top = 107, .bytes = 66, .factor = 0.125f }

static ALWAYS_INLINE void run_iq2_xs_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i nine = _mm256_set1_epi16(511);
    indices index;
    uint32_t masks[8] __attribute__((aligned(32)));
    __m256i first = _mm256_loadu_si256((const __m256i *)(bytes + 2)), second = _mm256_loadu_si256((const __m256i *)(bytes + 34));
    __m256i seven = _mm256_packus_epi16(_mm256_srli_epi16(first, 9), _mm256_srli_epi16(second, 9));
    store_indices(index, _mm256_and_si256(first, nine));
    store_indices(index + 16, _mm256_and_si256(second, nine));
    store_masks(masks, with_parity(_mm256_permute4x64_epi64(seven, 0xd8)));
    out->d = u16_at(bytes);
    out->scales = scales_of_nibbles(_mm_loadl_epi64((const __m128i *)(bytes + 66)));
    values_of_8(out, grid_iq2_xs, index, masks);
}

#define SHAPE_IQ2_XS { .kind = PANEL_SUPER, .sub = 16, .offset = 64, .top = 107, .bytes = 74, .factor = 0.125f }

static ALWAYS_INLINE void run_iq2_s_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i factor = _mm256_set1_epi64x(0x0004001000400100);
    indices index;
    uint32_t masks[8];
    for (int half = 0; half < 2; half++)
        store_indices(index + 16 * half, indices_of(bytes + 2 + 16 * half, bytes_in_fours(bytes + 66 + 4 * half), factor, 0x300));
    memcpy(masks, bytes + 34, 32);
    out->d = u16_at(bytes);
    out->scales = scales_of_nibbles(_mm_loadl_epi64((const __m128i *)(bytes + 74)));
    values_of_8(out, grid_iq2_s, index, masks);
}

#define SHAPE_IQ2_S { .kind = PANEL_SUPER, .sub = 16, .offset = 64, .top = 107, .bytes = 82, .factor = 0.125f }

static ALWAYS_INLINE void run_iq3_xxs_avx2(struct run *out, const uint8_t *bytes)
{
    indices index;
    uint32_t masks[8] __attribute__((aligned(32)));
    __m256i words = _mm256_loadu_si256((const __m256i *)(bytes + 66));
    for (int i = 0; i < 4; i++)
        store_indices(index + 16 * i, _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(bytes + 2 + 16 * i))));
    store_masks(masks, signs_of_8_words(words));
    out->d = u16_at(bytes);
    out->scales = scales_of_words(words);
    values_of_4(out, grid_iq3_xxs, index, masks, 64);
}

#define SHAPE_IQ3_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 64, .top = 126, .bytes = 98, .factor = 0.25f }

static ALWAYS_INLINE void run_iq3_s_avx2(struct run *out, const uint8_t *bytes)
{
    const __m256i factor = _mm256_setr_epi16(256, 128, 64, 32, 16, 8, 4, 2, 256, 128, 64, 32, 16, 8, 4, 2);
    const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1,
                                            -1, 1, -1, 1, -1, 1, -1);
    indices index;
    uint32_t masks[8], scales = u32_at(bytes + 106);
    for (int i = 0; i < 4; i++) {
        __m256i high = _mm256_shuffle_epi8(_mm256_set1_epi16((short)u16_at(bytes + 66 + 2 * i)), spread);
        store_indices(index + 16 * i, indices_of(bytes + 2 + 16 * i, high, factor, 0x100));
    }
    memcpy(masks, bytes + 74, 32);
    out->d = u16_at(bytes);
    out->scales = scales_of_nibbles(_mm_cvtsi32_si128((int)scales));
    values_of_4(out, grid_iq3_s, index, masks, 16);
}

#define SHAPE_IQ3_S { .kind = PANEL_SUPER, .sub = 32, .offset = 16, .top = 31, .bytes = 110, .factor = 1 }

/* Values -1, 0, 1 in eighths: with the delta and the offset of 16, all that is left of the masks. */
static ALWAYS_INLINE __m256i eighths(__m256i entries, __m256i delta)
{
    return _mm256_add_epi8(_mm256_and_si256(_mm256_slli_epi16(entries, 3), _mm256_set1_epi8((char)0xf8)), delta);
}

static ALWAYS_INLINE void run_iq1_s_avx2(struct run *out, const uint8_t *bytes)
{
    __m128i words = _mm_loadu_si128((const __m128i *)(bytes + 34));
    __m128i minus = _mm_or_si128(_mm_srai_epi16(words, 15), _mm_set1_epi16(1));
    __m128i scales = _mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7));
    int8_t delta[16];
    indices index;
    for (int half = 0; half < 2; half++) {
        __m256i high = _mm256_slli_epi16(fields_of_words(words_in_fours(bytes + 34 + 8 * half)), 8);
        __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(bytes + 2 + 16 * half)));
        store_indices(index + 16 * half, _mm256_or_si256(low, high));
    }
    _mm_storeu_si128((__m128i *)delta, _mm_add_epi8(_mm_packs_epi16(minus, minus), _mm_set1_epi8(16)));
    out->d = u16_at(bytes);
    out->scales = odd_scales(_mm_packus_epi16(scales, scales));
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++)
        out->q[k] = eighths(four_of_8(grid_iq1_s, index + 4 * k), _mm256_set1_epi8(delta[k]));
}

#define SHAPE_IQ1_S { .kind = PANEL_SUPER, .sub = 32, .offset = 16, .top = 31, .bytes = 50, .factor = 0.125f }

static ALWAYS_INLINE void run_iq1_m_avx2(struct run *out, const uint8_t *bytes)
{
    /* A byte's two nibbles: three bits of index, the delta's sign. */
    const __m256i factor = _mm256_set1_epi32(0x00100100), sign = _mm256_set1_epi16(0x800);
    const __m256i pairs = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, 4, -1, 4, -1, 5, -1, 5, -1, 6,
                                           -1, 6, -1, 7, -1, 7, -1);
    const __m256i eights = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3,
                                            3, 3, 3);
    __m256i scales = fields_of_words(words_in_fours(bytes + 48)), minus[2];
    uint32_t delta[8] __attribute__((aligned(32)));
    indices index;
    for (int half = 0; half < 2; half++) {
        uint64_t eight;
        memcpy(&eight, bytes + 32 + 8 * half, 8);
        __m256i high = _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x((long long)eight), pairs), factor);
        __m256i low = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(bytes + 16 * half)));
        store_indices(index + 16 * half, _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi16(0x700))));
        minus[half] = _mm256_cmpeq_epi16(_mm256_and_si256(high, sign), sign);
    }
    __m256i signs = _mm256_permute4x64_epi64(_mm256_packs_epi16(minus[0], minus[1]), 0xd8);
    store_masks(delta, _mm256_add_epi8(_mm256_or_si256(signs, _mm256_set1_epi8(1)), _mm256_set1_epi8(16)));
    out->d = u16_at(bytes + 48) >> 12 | (u16_at(bytes + 50) >> 8 & 0xf0) | (u16_at(bytes + 52) >> 4 & 0xf00) |
             (u16_at(bytes + 54) & 0xf000);
    out->scales = odd_scales(_mm_packus_epi16(_mm256_castsi256_si128(scales), _mm256_extracti128_si256(scales, 1)));
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++)
        out->q[k] = eighths(four_of_8(grid_iq1_s, index + 4 * k), _mm256_shuffle_epi8(_mm256_set1_epi32((int)delta[k]), eights));
}

#define SHAPE_IQ1_M { .kind = PANEL_SUPER, .sub = 16, .offset = 16, .top = 31, .bytes = 56, .factor = 0.125f }

#endif
