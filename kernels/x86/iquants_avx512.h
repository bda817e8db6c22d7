/* iquants_avx512.h - what the formats with codebooks have in common, whichever way the books are looked up in. */
#ifndef QUERN_IQUANTS_AVX512_H
#define QUERN_IQUANTS_AVX512_H

#include "matmul_few_avx512.h"

#define SHAPE_IQ2_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 66, .factor = 0.125f }
#define SHAPE_IQ2_XS { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 74, .factor = 0.125f }
#define SHAPE_IQ2_S { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 82, .factor = 0.125f }
#define SHAPE_IQ3_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 98, .factor = 0.25f }
#define SHAPE_IQ3_S { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 110, .factor = 1 }

/* Magnitudes with signs, plus 128. */
static ALWAYS_INLINE __m512i with_signs(__m512i q, uint64_t signs)
{
    q = _mm512_mask_sub_epi8(q, signs, _mm512_setzero_si512(), q);
    return _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
}

/* Masks of seven bits: the eighth makes the number of minus signs even. */
static ALWAYS_INLINE __m256i with_parity(__m256i masks)
{
    const __m128i table = _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0);
    const __m256i odd = _mm256_broadcastsi128_si256(table);
    __m256i nibble = _mm256_set1_epi8(15);
    __m256i low = _mm256_shuffle_epi8(odd, _mm256_and_si256(masks, nibble));
    __m256i high = _mm256_shuffle_epi8(odd, _mm256_and_si256(_mm256_srli_epi16(masks, 4), nibble));
    return _mm256_or_si256(masks, _mm256_xor_si256(low, high));
}

/* Eight words with four masks of seven bits each in their lower 28 to 32 masks of eight. */
static ALWAYS_INLINE __m256i signs_of_8_words(__m256i words)
{
    __m256i first = _mm256_and_si256(words, _mm256_set1_epi32(0x7f));
    __m256i second = _mm256_and_si256(_mm256_slli_epi32(words, 1), _mm256_set1_epi32(0x7f00));
    __m256i third = _mm256_and_si256(_mm256_slli_epi32(words, 2), _mm256_set1_epi32(0x7f0000));
    __m256i fourth = _mm256_and_si256(_mm256_slli_epi32(words, 3), _mm256_set1_epi32(0x7f000000));
    return with_parity(_mm256_or_si256(_mm256_or_si256(first, second), _mm256_or_si256(third, fourth)));
}

static ALWAYS_INLINE __m128i odd_scales(__m128i s)
{
    return _mm_add_epi8(_mm_add_epi8(s, s), _mm_set1_epi8(1));
}

static ALWAYS_INLINE void store_signs(uint64_t to[4], __m256i signs)
{
    _mm256_storeu_si256((__m256i *)to, signs);
}

/* Eight bytes, each two scales of four bits for 16 values. */
static ALWAYS_INLINE __m128i nibble_scales(const uint8_t *bytes)
{
    __m128i both = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)bytes));
    return odd_scales(_mm_and_si128(_mm_or_si128(both, _mm_slli_epi16(both, 4)), _mm_set1_epi16(0x0f0f)));
}

#endif
