/* k_scales.h - the head of Q4_K and Q5_K blocks, for every level that has AVX2. */
#ifndef QUERN_K_SCALES_H
#define QUERN_K_SCALES_H

#include <immintrin.h>

#include <stdint.h>

#include "inline.h"

/* Both begin with d, dmin (F16) and twelve bytes of eight 6-bit scales and minimums: 0-3 hold scales 0-3 and 4-7 minimums 0-3 in
 * their lower six bits; 8-11 the lower nibbles of scales 4-7 and, above them, of minimums 4-7, whose upper two bits are the upper
 * two of bytes 0-3 and 4-7. Gives the eight scales, then the eight minimums, a byte each; reads the block's first 16 bytes. */
static ALWAYS_INLINE __m128i k_scales_and_mins(const uint8_t *block)
{
    __m128i head = _mm_loadu_si128((const __m128i *)block);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2);
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    high = _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    return _mm_or_si128(low, high);
}

#endif
