/* iquants_avx512.h - what the formats with codebooks have in common, whichever way the books are looked up in. */
#ifndef QUERN_IQUANTS_AVX512_H
#define QUERN_IQUANTS_AVX512_H

#include "iquant_signs.h"
#include "matmul_few_avx512.h"

#define SHAPE_IQ1_S { .kind = PANEL_SUPER, .sub = 32, .offset = 16, .top = 25, .bytes = 50, .factor = 0.125f, .narrow = true }
#define SHAPE_IQ1_M { .kind = PANEL_SUPER, .sub = 16, .offset = 16, .top = 25, .bytes = 56, .factor = 0.125f, .narrow = true }
#define SHAPE_IQ2_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 66, .factor = 0.125f, .few = 4 }
#define SHAPE_IQ2_XS { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 74, .factor = 0.125f }
#define SHAPE_IQ2_S { .kind = PANEL_SUPER, .sub = 16, .offset = 128, .top = 255, .bytes = 82, .factor = 0.125f }
#define SHAPE_IQ3_XXS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 98, .factor = 0.25f, .few = 4 }
#define SHAPE_IQ3_S { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 110, .factor = 1 }

/* Magnitudes with signs, plus 128. */
static ALWAYS_INLINE __m512i with_signs(__m512i q, uint64_t signs)
{
    q = _mm512_mask_sub_epi8(q, signs, _mm512_setzero_si512(), q);
    return _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
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
