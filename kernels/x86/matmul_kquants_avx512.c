#include "matmul_few_avx512.h"
#include "matmul_one_avx512.h"

_Static_assert((int)ONE_SCRATCH_PER_COL <= (int)(sizeof(struct few_run) / PANEL_COLS),
               "a product's scratch is large enough for few");

/* The k-quants (and TQ, of their shape) on AVX-512: one function per format from the file's bytes to a run in registers. */

/* Q4_K and Q5_K begin with d, dmin and twelve bytes of eight 6-bit scales and minimums: 0-3 hold scales 0-3 and 4-7 minimums 0-3 in
 * their lower six bits; 8-11 the lower nibbles of scales 4-7 and, above them, of minimums 4-7, whose upper two bits are the upper
 * two of bytes 0-3 and 4-7. */
static ALWAYS_INLINE void k_scales(struct run *out, const uint8_t *bytes)
{
    __m128i head = _mm_loadu_si128((const __m128i *)bytes);
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), _mm_setr_epi32(0, 0, 0, 4));
    __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2);
    low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    high = _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
    out->d = load_u32(bytes);
    out->scales = _mm_or_si128(low, high);
    out->mins = _mm_unpackhi_epi64(out->scales, out->scales);
}

/* Then 4 x 32 bytes: low nibbles sub-block 2i, high nibbles 2i + 1. */
static ALWAYS_INLINE void run_q4_k_avx512(struct run *out, const uint8_t *bytes)
{
    k_scales(out, bytes);
    set_nibbles(out, _mm512_loadu_si512(bytes + 16), _mm512_loadu_si512(bytes + 80));
}

#define SHAPE_Q4_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 15, .bytes = 144, .factor = 1, .mins = true, \
        .order = ORDER_HALVES, .narrow = true, .nibbles = true }

static void decode_q4_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

static void panel_q4_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

static void few_q4_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q4_k_avx512, (struct panel_shape)SHAPE_Q4_K);
}

const struct format_avx512 format_q4_k_avx512 = { SHAPE_Q4_K, decode_q4_k_avx512, panel_q4_k_avx512, few_q4_k_avx512 };

void matmul_q4_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q4_k_avx512);
}

/* Q4_K with 32 bytes of fifth bits between scales and nibbles: bit s of byte i belongs to value i of sub-block s. */
static ALWAYS_INLINE void run_q5_k_avx512(struct run *out, const uint8_t *bytes)
{
    /* turns bit 0 (bit 2 in the upper half) of each byte to bit 4 */
    const __m512i turn = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2), bit = _mm512_set1_epi8(16);
    __m512i high = _mm512_rolv_epi32(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + 16))), turn);
    k_scales(out, bytes);
    nibbles(out->q, _mm512_loadu_si512(bytes + 48));
    nibbles(out->q + 2, _mm512_loadu_si512(bytes + 112));
    out->q[0] = _mm512_or_si512(out->q[0], _mm512_and_si512(high, bit));
    out->q[1] = _mm512_or_si512(out->q[1], _mm512_and_si512(_mm512_ror_epi32(high, 1), bit));
    out->q[2] = _mm512_or_si512(out->q[2], _mm512_and_si512(_mm512_ror_epi32(high, 4), bit));
    out->q[3] = _mm512_or_si512(out->q[3], _mm512_and_si512(_mm512_ror_epi32(high, 5), bit));
}

#define SHAPE_Q5_K { .kind = PANEL_SUPER, .sub = 32, .offset = 0, .top = 31, .bytes = 176, .factor = 1, .mins = true, \
        .order = ORDER_HALVES, .narrow = true }

static void decode_q5_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

static void panel_q5_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

static void few_q5_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q5_k_avx512, (struct panel_shape)SHAPE_Q5_K);
}

const struct format_avx512 format_q5_k_avx512 = { SHAPE_Q5_K, decode_q5_k_avx512, panel_q5_k_avx512, few_q5_k_avx512 };

void matmul_q5_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q5_k_avx512);
}

/* 128 bytes of lower nibbles, 64 of upper pairs, 16 signed scales, d. Per 128 values: 64 bytes, low nibbles first, and 32 bytes
 * whose pairs of bits belong to the four groups of 32. */
static ALWAYS_INLINE void run_q6_k_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i up = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i down = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
    out->d = load_u16(bytes + 208);
    out->scales = _mm_loadu_si128((const __m128i *)(bytes + 192));
    for (int half = 0; half < 2; half++) {
        __m512i low = _mm512_loadu_si512(bytes + 64 * half);
        __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(bytes + 128 + 32 * half)));
        out->q[2 * half] = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(_mm512_sllv_epi32(high, up), pair));
        out->q[2 * half + 1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(low, 4), nibble),
                                               _mm512_and_si512(_mm512_srlv_epi32(high, down), pair));
    }
}

#define SHAPE_Q6_K { .kind = PANEL_SUPER, .sub = 16, .offset = 32, .top = 63, .bytes = 210, .factor = 1, .narrow = true }

static void decode_q6_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

static void panel_q6_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

static void few_q6_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
}

const struct format_avx512 format_q6_k_avx512 = { SHAPE_Q6_K, decode_q6_k_avx512, panel_q6_k_avx512, few_q6_k_avx512 };

void matmul_q6_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1 && job->cols <= ONE_COLS)
        one_format(job, (struct row_range){ row_begin, row_end }, scratch, run_q6_k_avx512, (struct panel_shape)SHAPE_Q6_K);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q6_k_avx512);
}

/* Four planes of two bits in 32 bytes, lowest plane first: 128 values. */
static ALWAYS_INLINE void pairs_of_32(__m512i q[2], const uint8_t *bytes)
{
    const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    const __m512i second = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6);
    __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)bytes));
    q[0] = _mm512_and_si512(_mm512_srlv_epi32(twice, first), _mm512_set1_epi8(3));
    q[1] = _mm512_and_si512(_mm512_srlv_epi32(twice, second), _mm512_set1_epi8(3));
}

/* 16 bytes: scale in the low nibble, minimum in the high one; 64 bytes of pairs; d, dmin. */
static ALWAYS_INLINE void run_q2_k_avx512(struct run *out, const uint8_t *bytes)
{
    __m128i scales = _mm_loadu_si128((const __m128i *)bytes), nibble = _mm_set1_epi8(15);
    out->d = load_u32(bytes + 80);
    out->scales = _mm_and_si128(scales, nibble);
    out->mins = _mm_and_si128(_mm_srli_epi16(scales, 4), nibble);
    out->raw[0] = _mm512_loadu_si512(bytes + 16);
    pairs_of_32(out->q, bytes + 16);
    pairs_of_32(out->q + 2, bytes + 48);
}

#define SHAPE_Q2_K { .kind = PANEL_SUPER, .sub = 16, .offset = 0, .top = 3, .bytes = 84, .factor = 1, .mins = true, \
        .planes = 2 }

static void decode_q2_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q2_k_avx512, (struct panel_shape)SHAPE_Q2_K);
}

static void panel_q2_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_q2_k_avx512, (struct panel_shape)SHAPE_Q2_K);
}

static void few_q2_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q2_k_avx512, (struct panel_shape)SHAPE_Q2_K);
}

const struct format_avx512 format_q2_k_avx512 = { SHAPE_Q2_K, decode_q2_k_avx512, panel_q2_k_avx512, few_q2_k_avx512 };

void matmul_q2_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q2_k_avx512);
}

/* 32 bytes of third bits (bit s of byte i: value i of 32-value group s), 64 bytes of pairs, 12 bytes of scales, d. Scales have six
 * bits and an offset of 32: four upper-pair planes in the last four bytes above the nibbles of the first eight. */
static ALWAYS_INLINE void run_q3_k_avx512(struct run *out, const uint8_t *bytes)
{
    /* the last 16 bytes: dwords 0 to 2 are shifted to 1 to 3 by two bytes of pairs, which pshufb undoes */
    __m128i tail = _mm_loadu_si128((const __m128i *)(bytes + 94));
    __m128i low = _mm_shuffle_epi8(tail, _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    __m128i high_2 = _mm_shuffle_epi8(tail, _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13));
    low = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 4, 4)), _mm_set1_epi8(15));
    high_2 = _mm_and_si128(_mm_rolv_epi32(high_2, _mm_setr_epi32(4, 2, 0, 30)), _mm_set1_epi8(0x30));
    out->d = load_u16(bytes + 108);
    out->scales = _mm_sub_epi8(_mm_or_si128(low, high_2), _mm_set1_epi8(32));
    out->raw[0] = _mm512_loadu_si512(bytes + 32);
    pairs_of_32(out->q, bytes + 32);
    pairs_of_32(out->q + 2, bytes + 64);

    /* turns bit 0 (bit 1 in the upper half) of each byte to bit 2 */
    __m512i turn = _mm512_setr_epi32(2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1);
    __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)bytes));
    out->raw[1] = high;
    for (int k = 0; k < 4; k++) {
        out->q[k] = _mm512_or_si512(out->q[k], _mm512_and_si512(_mm512_rolv_epi32(high, turn), _mm512_set1_epi8(4)));
        turn = _mm512_sub_epi32(turn, _mm512_set1_epi32(2));
    }
}

#define SHAPE_Q3_K { .kind = PANEL_SUPER, .sub = 16, .offset = 4, .top = 7, .bytes = 110, .factor = 1, .planes = 3 }

static void decode_q3_k_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q3_k_avx512, (struct panel_shape)SHAPE_Q3_K);
}

static void panel_q3_k_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_q3_k_avx512, (struct panel_shape)SHAPE_Q3_K);
}

static void few_q3_k_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q3_k_avx512, (struct panel_shape)SHAPE_Q3_K);
}

const struct format_avx512 format_q3_k_avx512 = { SHAPE_Q3_K, decode_q3_k_avx512, panel_q3_k_avx512, few_q3_k_avx512 };

void matmul_q3_k_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q3_k_avx512);
}

/* 64 bytes of pairs, d. */
static ALWAYS_INLINE void run_tq2_0_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = load_u16(bytes + 64);
    out->scales = _mm_set1_epi8(1);
    out->raw[0] = _mm512_loadu_si512(bytes);
    pairs_of_32(out->q, bytes);
    pairs_of_32(out->q + 2, bytes + 32);
}

#define SHAPE_TQ2_0 { .kind = PANEL_SUPER, .sub = 16, .offset = 1, .top = 2, .bytes = 66, .factor = 1, .planes = 2 }

static void decode_tq2_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_tq2_0_avx512, (struct panel_shape)SHAPE_TQ2_0);
}

static void panel_tq2_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_tq2_0_avx512, (struct panel_shape)SHAPE_TQ2_0);
}

static void few_tq2_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_tq2_0_avx512, (struct panel_shape)SHAPE_TQ2_0);
}

const struct format_avx512 format_tq2_0_avx512 = { SHAPE_TQ2_0, decode_tq2_0_avx512, panel_tq2_0_avx512, few_tq2_0_avx512 };

void matmul_tq2_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_tq2_0_avx512);
}

/* Base-3 digits: byte * 3^n modulo 256, times 3, divided by 256; the last step is two comparisons. */
static ALWAYS_INLINE __m512i base3_digits(__m512i bytes, __m512i power)
{
    const __m512i low = _mm512_set1_epi16(0xff);
    __m512i even = _mm512_and_si512(_mm512_mullo_epi16(bytes, _mm512_and_si512(power, low)), low);
    __m512i odd = _mm512_slli_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(bytes, 8), _mm512_srli_epi16(power, 8)), 8);
    __m512i fraction = _mm512_or_si512(even, odd);
    __m512i one = _mm512_maskz_set1_epi8(_mm512_cmpge_epu8_mask(fraction, _mm512_set1_epi8(86)), 1);
    return _mm512_mask_set1_epi8(one, _mm512_cmpge_epu8_mask(fraction, _mm512_set1_epi8((char)171)), 2);
}

static ALWAYS_INLINE __m512i quarters(__m128i a, __m128i b, __m128i c, __m128i d)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(a, b)), _mm256_setr_m128i(c, d), 1);
}

/* 32 bytes of five digits: values 0-159; 16 of five: 160-239; 4 of four: 240-255; d. */
static ALWAYS_INLINE void run_tq1_0_avx512(struct run *out, const uint8_t *bytes)
{
    const __m128i p0 = _mm_set1_epi8(1), p1 = _mm_set1_epi8(3), p2 = _mm_set1_epi8(9), p3 = _mm_set1_epi8(27);
    const __m128i p4 = _mm_set1_epi8(81), last = _mm_set1_epi32((int)load_u32(bytes + 48));
    const __m128i rising = _mm_setr_epi8(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27);
    __m256i first = _mm256_loadu_si256((const __m256i *)bytes);
    __m128i second = _mm_loadu_si128((const __m128i *)(bytes + 32));
    __m512i whole = _mm512_broadcast_i64x4(first);
    out->d = load_u16(bytes + 52);
    out->scales = _mm_set1_epi8(1);
    out->q[0] = base3_digits(whole, quarters(p0, p0, p1, p1));
    out->q[1] = base3_digits(whole, quarters(p2, p2, p3, p3));
    out->q[2] = base3_digits(_mm512_inserti64x4(whole, _mm256_broadcastsi128_si256(second), 1), quarters(p4, p4, p0, p1));
    out->q[3] = base3_digits(quarters(second, second, second, last), quarters(p2, p3, p4, rising));
}

#define SHAPE_TQ1_0 { .kind = PANEL_SUPER, .sub = 16, .offset = 1, .top = 2, .bytes = 54, .factor = 1, .narrow = true }

static void decode_tq1_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0);
}

static void panel_tq1_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, size_t ahead)
{
    fill_panel(out, bytes, stride, rows, ahead, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0);
}

static void few_tq1_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0);
}

const struct format_avx512 format_tq1_0_avx512 = { SHAPE_TQ1_0, decode_tq1_0_avx512, panel_tq1_0_avx512, few_tq1_0_avx512 };

void matmul_tq1_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    if (job->toks == 1)
        one_format(job, (struct row_range){ row_begin, row_end }, scratch, run_tq1_0_avx512, (struct panel_shape)SHAPE_TQ1_0);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_tq1_0_avx512);
}
