/* iquant_signs.h - signs and scales of the formats with codebooks in vectors of 256 bits, for AVX2 and for what AVX-512 shares. */
#ifndef QUERN_IQUANT_SIGNS_H
#define QUERN_IQUANT_SIGNS_H

#include <immintrin.h>

#include "inline.h"

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

#endif
