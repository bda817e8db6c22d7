#include "matmul_avx512.h"

/* The k-quants on AVX-512: one function per format from the file's bytes to a run in registers. */

/* The eight 6-bit scales and minimums in twelve bytes: 0-3 hold scales 0-3 and 4-7 minimums 0-3 in their lower six bits; 8-11 the lower
 * nibbles of scales 4-7 and, above them, of minimums 4-7, whose upper two bits are the upper two of bytes 0-3 and 4-7. */
static ALWAYS_INLINE void k_scales(struct run *out, const uint8_t *bytes)
{
    uint32_t a, b, c;
    memcpy(&a, bytes, 4);
    memcpy(&b, bytes + 4, 4);
    memcpy(&c, bytes + 8, 4);
    uint32_t scale_low = a & 0x3f3f3f3f, scale_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    uint32_t min_low = b & 0x3f3f3f3f, min_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    __m128i scales = _mm_cvtsi64_si128((long long)((uint64_t)scale_high << 32 | scale_low));
    __m128i mins = _mm_cvtsi64_si128((long long)((uint64_t)min_high << 32 | min_low));
    out->scale = _mm512_zextsi256_si512(_mm256_cvtepu8_epi32(scales));
    out->min = _mm256_zextsi128_si256(_mm_cvtepu8_epi16(mins));
}

/* d, dmin, 12 bytes of scales, then 4 x 32 bytes: low nibbles sub-block 2i, high nibbles 2i + 1. */
static ALWAYS_INLINE void run_q4_k_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = half_at(bytes);
    out->dmin = half_at(bytes + 2);
    k_scales(out, bytes + 4);
    for (int k = 0; k < 4; k++)
        out->q[k] = nibbles_of_32(bytes + 16 + 32 * k);
}

#define SHAPE_Q4_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .mins = true, .bytes = 144 }

static void decode_q4_k_avx512(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

static void panel_q4_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

void matmul_q4_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx512 format = { SHAPE_Q4_K, decode_q4_k_avx512, panel_q4_k_avx512 };
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format);
}

/* Q4_K with 32 bytes of fifth bits between scales and nibbles: bit s of byte i belongs to value i of sub-block s. */
static ALWAYS_INLINE void run_q5_k_avx512(struct run *out, const uint8_t *bytes)
{
    /* turns bit 0 (bit 1 in the upper half) of each byte to bit 4 */
    __m512i turn = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3);
    __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + 16)));
    out->d = half_at(bytes);
    out->dmin = half_at(bytes + 2);
    k_scales(out, bytes + 4);
    for (int k = 0; k < 4; k++) {
        __m512i bit = _mm512_and_si512(_mm512_rolv_epi32(high, turn), _mm512_set1_epi8(16));
        out->q[k] = _mm512_or_si512(nibbles_of_32(bytes + 48 + 32 * k), bit);
        turn = _mm512_sub_epi32(turn, _mm512_set1_epi32(2));
    }
}

#define SHAPE_Q5_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .mins = true, .bytes = 176 }

static void decode_q5_k_avx512(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

static void panel_q5_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

void matmul_q5_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx512 format = { SHAPE_Q5_K, decode_q5_k_avx512, panel_q5_k_avx512 };
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format);
}

/* 128 bytes of lower nibbles, 64 of upper pairs, 16 signed scales, d. Per 128 values: 64 bytes, low nibbles first, and 32 bytes whose pairs of
 * bits belong to the four groups of 32. */
static ALWAYS_INLINE void run_q6_k_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i up = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i down = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
    out->d = half_at(bytes + 208);
    out->scale = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(bytes + 192)));
    for (int half = 0; half < 2; half++) {
        __m512i low = _mm512_loadu_si512(bytes + 64 * half);
        __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + 128 + 32 * half)));
        out->q[2 * half] = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(_mm512_sllv_epi32(high, up), pair));
        out->q[2 * half + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(low, 4), nibble),
                                               _mm512_and_si512(_mm512_srlv_epi32(high, down), pair));
    }
}

#define SHAPE_Q6_K { .kind = PANEL_SUPER, .sub = 16, .offset = 5, .mins = false, .bytes = 210 }

static void decode_q6_k_avx512(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

static void panel_q6_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

void matmul_q6_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx512 format = { SHAPE_Q6_K, decode_q6_k_avx512, panel_q6_k_avx512 };
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format);
}
