#include "matmul_few_avx512.h"
#include "matmul_woven_avx512.h"

/* Formats with blocks of 32, 64 and 128 values on AVX-512; a run is eight, four or two of them. */

/* ---- panels for a few tokens: matmul_woven_avx512.h ---- */

/* A step turns the values of a block of each row, and its scale goes, as it stands, where minimums would be; the last step makes
 * scales of what is there. */
enum { BLOCK_STEPS = 8 + 1 };

static ALWAYS_INLINE void turn_block_scales(struct panel *out, const struct panel_shape shape)
{
    __m512 scales[8];
    columns_of_codes(scales, (const uint16_t (*)[8])out->min.i, shape.exponents);
    for (int s = 0; s < 8; s++)
        _mm512_store_ps(out->scale.f[s], shape.exponents ? _mm512_getexp_ps(scales[s]) : scales[s]);
}

/* `head`: bytes of a scale. */
static ALWAYS_INLINE void keep_block_scales(struct panel *out, const uint8_t *block, size_t stride, int step, int head)
{
    uint16_t (*codes)[8] = (uint16_t (*)[8])out->min.i;
    UNROLL_ALL
    for (size_t r = 0; r < PANEL_ROWS; r++) {
        if (head == 2) {
            memcpy(&codes[r % 4 * 4 + r / 4][step], block + r * stride, 2);
        } else {
            const uint16_t code = block[r * stride];
            memcpy(&codes[r % 4 * 4 + r / 4][step], &code, 2);
        }
    }
}

static ALWAYS_INLINE void turn_nibble_blocks(struct panel *out, const uint8_t *rows, size_t stride, int step, int head,
                                             const struct panel_shape shape)
{
    if (step == BLOCK_STEPS - 1) {
        turn_block_scales(out, shape);
        return;
    }
    const uint8_t *block = rows + (head + 16) * step;
    __m512i v[4];
    turn_16(v, block + head, stride);
    UNROLL_ALL
    for (int c = 0; c < 4; c++)
        _mm512_store_si512(out->q[4 * step + c], v[c]);
    keep_block_scales(out, block, stride, step, head);
}

/* Nibbles: the low ones are a block's first 16 columns, the high ones its last. */
static ALWAYS_INLINE void split_blocks(__m512i w[2], const struct panel *p, int slot, int i)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (int k = 0; k < 2; k++) {
        __m512i both = _mm512_load_si512(p->q[8 * slot + 4 * k + i % 4]);
        w[k] = _mm512_and_si512(i < 4 ? both : _mm512_srli_epi16(both, 4), low);
    }
}

/* ---- the formats ---- */

/* d, 32 signed bytes; the sign bit is turned over, which adds 128. The scales are read one by one: by set_scales, which takes fewer
 * cycles in the cache (22 instead of 24 per 256 weights), memory is read at 78 % of what one core can instead of 85. */
static ALWAYS_INLINE void run_q8_0_avx512(struct run *out, const uint8_t *bytes)
{
    int16_t d[8];
    for (size_t i = 0; i < 8; i++)
        memcpy(&d[i], bytes + 34 * i, 2);
    set_codes(out, _mm_setr_epi16(d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]));
    for (int k = 0; k < 4; k++) {
        const uint8_t *pair = bytes + 68 * k;
        __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(pair + 2))),
                                       _mm256_loadu_si256((const __m256i *)(pair + 36)), 1);
        out->q[k] = _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
    }
}

#define SHAPE_Q8_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 128, .top = 255, .bytes = 272, .factor = 1, .few = 4, \
        .insist = true }

static void decode_q8_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q8_0_avx512, (struct panel_shape)SHAPE_Q8_0);
}

static void panel_q8_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q8_0_avx512, (struct panel_shape)SHAPE_Q8_0);
}

static ALWAYS_INLINE void turn_q8_0(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    if (step == BLOCK_STEPS - 1) {
        turn_block_scales(out, (struct panel_shape)SHAPE_Q8_0);
        return;
    }
    const uint8_t *block = rows + 34 * step;
    __m512i v[8];
    turn_32(v, block + 2, stride);
    UNROLL_ALL
    for (int c = 0; c < 8; c++)
        _mm512_store_si512(out->q[8 * step + c], _mm512_xor_si512(v[c], _mm512_set1_epi8((char)0x80)));
    keep_block_scales(out, block, stride, step, 2);
}

static ALWAYS_INLINE void split_q8_0(__m512i w[2], const struct panel *p, int slot, int i)
{
    w[0] = _mm512_load_si512(p->q[16 * slot + i]);
    w[1] = _mm512_load_si512(p->q[16 * slot + 8 + i]);
}

static void woven_q8_0_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_q8_0, BLOCK_STEPS, split_q8_0 }, (struct panel_shape)SHAPE_Q8_0);
}

static void few_q8_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q8_0_avx512, (struct panel_shape)SHAPE_Q8_0);
}

const struct format_avx512 format_q8_0_avx512 = {
    SHAPE_Q8_0, decode_q8_0_avx512, panel_q8_0_avx512, few_q8_0_avx512, 48, woven_q8_0_avx512, WOVEN_TOKS
};

void matmul_q8_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q8_0_avx512);
}

/* d, 16 bytes: low nibbles values 0-15, high nibbles 16-31, each with an offset of 8. */
static ALWAYS_INLINE void run_q4_0_avx512(struct run *out, const uint8_t *bytes)
{
    set_scales(out, bytes, 18);
    nibbles_of_8_blocks(out, bytes + 2, 18);
}

#define SHAPE_Q4_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 8, .top = 15, .bytes = 144, .factor = 1, .order = ORDER_QUARTERS, \
        .nibbles = true }

static void decode_q4_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q4_0_avx512, (struct panel_shape)SHAPE_Q4_0);
}

static void panel_q4_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_0_avx512, (struct panel_shape)SHAPE_Q4_0);
}

static ALWAYS_INLINE void turn_q4_0(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    turn_nibble_blocks(out, rows, stride, step, 2, (struct panel_shape)SHAPE_Q4_0);
}

static ALWAYS_INLINE void split_q4_0(__m512i w[2], const struct panel *p, int slot, int i)
{
    split_blocks(w, p, slot, i);
}

static void woven_q4_0_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_q4_0, BLOCK_STEPS, split_q4_0 }, (struct panel_shape)SHAPE_Q4_0);
}

static void few_q4_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q4_0_avx512, (struct panel_shape)SHAPE_Q4_0);
}

const struct format_avx512 format_q4_0_avx512 = {
    SHAPE_Q4_0, decode_q4_0_avx512, panel_q4_0_avx512, few_q4_0_avx512, 48, woven_q4_0_avx512, WOVEN_TOKS
};

void matmul_q4_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q4_0_avx512);
}

/* d, m (added), nibbles. */
static ALWAYS_INLINE void run_q4_1_avx512(struct run *out, const uint8_t *bytes)
{
    set_scales(out, bytes, 20);
    set_lows(out, bytes + 2, 20);
    nibbles_of_8_blocks(out, bytes + 4, 20);
}

#define SHAPE_Q4_1 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 15, .bytes = 160, .factor = 1, .mins = true, \
        .order = ORDER_QUARTERS, .nibbles = true }

static void decode_q4_1_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q4_1_avx512, (struct panel_shape)SHAPE_Q4_1);
}

static void panel_q4_1_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_1_avx512, (struct panel_shape)SHAPE_Q4_1);
}

static void few_q4_1_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q4_1_avx512, (struct panel_shape)SHAPE_Q4_1);
}

const struct format_avx512 format_q4_1_avx512 = {
    SHAPE_Q4_1, decode_q4_1_avx512, panel_q4_1_avx512, few_q4_1_avx512, 48, NULL, 0
};

void matmul_q4_1_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q4_1_avx512);
}

/* Add 16 where the fifth bit is set: the lower 16 bits of each word belong to low nibbles, the upper to high ones. */
static ALWAYS_INLINE void add_fifth_bits(__m512i q[4], const uint8_t *bits, size_t step)
{
    const __m512i sixteen = _mm512_set1_epi8(16);
    for (size_t half = 0; half < 2; half++) {
        const uint8_t *four = bits + 4 * half * step;
        uint64_t a = load_u32(four), b = load_u32(four + step), c = load_u32(four + 2 * step), d = load_u32(four + 3 * step);
        uint64_t low = (a & 0xffff) | (b & 0xffff) << 16 | (c & 0xffff) << 32 | d << 48;
        uint64_t high = a >> 16 | (b >> 16) << 16 | (c >> 16) << 32 | (d >> 16) << 48;
        q[2 * half] = _mm512_mask_add_epi8(q[2 * half], low, q[2 * half], sixteen);
        q[2 * half + 1] = _mm512_mask_add_epi8(q[2 * half + 1], high, q[2 * half + 1], sixteen);
    }
}

/* d, 32 fifth bits, nibbles; offset 16. */
static ALWAYS_INLINE void run_q5_0_avx512(struct run *out, const uint8_t *bytes)
{
    set_scales(out, bytes, 22);
    nibbles_of_8_blocks(out, bytes + 6, 22);
    add_fifth_bits(out->q, bytes + 2, 22);
}

#define SHAPE_Q5_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 16, .top = 31, .bytes = 176, .factor = 1, .order = ORDER_QUARTERS }

static void decode_q5_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q5_0_avx512, (struct panel_shape)SHAPE_Q5_0);
}

static void panel_q5_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_0_avx512, (struct panel_shape)SHAPE_Q5_0);
}

static void few_q5_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q5_0_avx512, (struct panel_shape)SHAPE_Q5_0);
}

const struct format_avx512 format_q5_0_avx512 = {
    SHAPE_Q5_0, decode_q5_0_avx512, panel_q5_0_avx512, few_q5_0_avx512, 48, NULL, 0
};

void matmul_q5_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q5_0_avx512);
}

/* d, m (added), 32 fifth bits, nibbles. */
static ALWAYS_INLINE void run_q5_1_avx512(struct run *out, const uint8_t *bytes)
{
    set_scales(out, bytes, 24);
    set_lows(out, bytes + 2, 24);
    nibbles_of_8_blocks(out, bytes + 8, 24);
    add_fifth_bits(out->q, bytes + 4, 24);
}

#define SHAPE_Q5_1 { .kind = PANEL_SMALL, .sub = 32, .offset = 0, .top = 31, .bytes = 192, .factor = 1, .mins = true, \
        .order = ORDER_QUARTERS }

static void decode_q5_1_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q5_1_avx512, (struct panel_shape)SHAPE_Q5_1);
}

static void panel_q5_1_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q5_1_avx512, (struct panel_shape)SHAPE_Q5_1);
}

static void few_q5_1_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q5_1_avx512, (struct panel_shape)SHAPE_Q5_1);
}

const struct format_avx512 format_q5_1_avx512 = {
    SHAPE_Q5_1, decode_q5_1_avx512, panel_q5_1_avx512, few_q5_1_avx512, FEW_TOKS, NULL, 0
};

void matmul_q5_1_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q5_1_avx512);
}

/* d, nibbles: indices of values_iq4. */
static ALWAYS_INLINE void run_iq4_nl_avx512(struct run *out, const uint8_t *bytes)
{
    set_scales(out, bytes, 18);
    nibbles_of_8_blocks(out, bytes + 2, 18);
    for (int k = 0; k < 4; k++)
        out->q[k] = look_up(values_iq4, 128, out->q[k]);
}

#define SHAPE_IQ4_NL { .kind = PANEL_SMALL, .sub = 32, .offset = 128, .top = 255, .bytes = 144, .factor = 1, \
        .order = ORDER_QUARTERS }

static void decode_iq4_nl_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq4_nl_avx512, (struct panel_shape)SHAPE_IQ4_NL);
}

static void panel_iq4_nl_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq4_nl_avx512, (struct panel_shape)SHAPE_IQ4_NL);
}

static ALWAYS_INLINE void turn_iq4_nl(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    turn_nibble_blocks(out, rows, stride, step, 2, (struct panel_shape)SHAPE_IQ4_NL);
}

static ALWAYS_INLINE void split_iq4_nl(__m512i w[2], const struct panel *p, int slot, int i)
{
    split_blocks(w, p, slot, i);
    w[0] = look_up(values_iq4, 128, w[0]);
    w[1] = look_up(values_iq4, 128, w[1]);
}

static void woven_iq4_nl_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_iq4_nl, BLOCK_STEPS, split_iq4_nl }, (struct panel_shape)SHAPE_IQ4_NL);
}

static void few_iq4_nl_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq4_nl_avx512, (struct panel_shape)SHAPE_IQ4_NL);
}

const struct format_avx512 format_iq4_nl_avx512 = {
    SHAPE_IQ4_NL, decode_iq4_nl_avx512, panel_iq4_nl_avx512, few_iq4_nl_avx512, 48, woven_iq4_nl_avx512, 16
};

void matmul_iq4_nl_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq4_nl_avx512);
}

/* The scale is half of 2^(e - 127): exponents 0 and 1 give subnormals. */
static ALWAYS_INLINE __m512 e8m0_halves(__m256i e)
{
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    return eight_scales(_mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e))));
}

/* The bytes that eight blocks of 17 begin with, as words; put together where the vectors' ports are not needed. */
static ALWAYS_INLINE __m128i bytes_of_8_blocks_of_17(const uint8_t *bytes)
{
    uint64_t eight = 0;
    for (int i = 0; i < 8; i++)
        eight |= (uint64_t)bytes[17 * i] << 8 * i;
    return _mm_cvtepu8_epi16(vector_of_8(eight));
}

/* e8m0 scale, nibbles: indices of values_fp4. */
static ALWAYS_INLINE void run_mxfp4_avx512(struct run *out, const uint8_t *bytes)
{
    out->codes = bytes_of_8_blocks_of_17(bytes);
    out->scale = e8m0_halves(_mm256_cvtepu16_epi32(out->codes));
    nibbles_of_8_blocks(out, bytes + 1, 17);
    for (int k = 0; k < 4; k++)
        out->q[k] = look_up(values_fp4, 16, out->q[k]);
}

#define SHAPE_MXFP4 { .kind = PANEL_SMALL, .sub = 32, .offset = 16, .top = 28, .bytes = 136, .factor = 1, .order = ORDER_QUARTERS, \
        .exponents = true }

static void decode_mxfp4_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_mxfp4_avx512, (struct panel_shape)SHAPE_MXFP4);
}

static void panel_mxfp4_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_mxfp4_avx512, (struct panel_shape)SHAPE_MXFP4);
}

static ALWAYS_INLINE void turn_mxfp4(struct panel *out, const uint8_t *rows, size_t stride, int step)
{
    turn_nibble_blocks(out, rows, stride, step, 1, (struct panel_shape)SHAPE_MXFP4);
}

static ALWAYS_INLINE void split_mxfp4(__m512i w[2], const struct panel *p, int slot, int i)
{
    split_blocks(w, p, slot, i);
    w[0] = look_up(values_fp4, 16, w[0]);
    w[1] = look_up(values_fp4, 16, w[1]);
}

static void woven_mxfp4_avx512(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch)
{
    woven_format(job, all, scratch, (struct weave){ turn_mxfp4, BLOCK_STEPS, split_mxfp4 }, (struct panel_shape)SHAPE_MXFP4);
}

static void few_mxfp4_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_mxfp4_avx512, (struct panel_shape)SHAPE_MXFP4);
}

const struct format_avx512 format_mxfp4_avx512 = {
    SHAPE_MXFP4, decode_mxfp4_avx512, panel_mxfp4_avx512, few_mxfp4_avx512, 48, woven_mxfp4_avx512, 16
};

void matmul_mxfp4_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_mxfp4_avx512);
}

/* Half of the unsigned numbers with four bits of exponent (bias 7) and three of mantissa; 0x7f is 0, the top bit is ignored. */
static ALWAYS_INLINE __m512 ue4m3_halves(__m512i bytes)
{
    __m512i low = _mm512_and_si512(bytes, _mm512_set1_epi32(0x7f));
    __m512i normal = _mm512_add_epi32(_mm512_slli_epi32(low, 20), _mm512_set1_epi32((127 - 7 - 1) << 23));
    __m512 small = _mm512_mul_ps(_mm512_cvtepi32_ps(low), _mm512_set1_ps(0x1p-10f));
    __m512i value = _mm512_mask_mov_epi32(normal, _mm512_cmplt_epu32_mask(low, _mm512_set1_epi32(8)), _mm512_castps_si512(small));
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(_mm512_cmpneq_epi32_mask(bytes, _mm512_set1_epi32(0x7f)), value));
}

/* Four scales of 16 values each; per 16 values 8 bytes, low nibbles first: indices of values_fp4. */
static ALWAYS_INLINE void run_nvfp4_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i twice = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), shift = _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4);
    int32_t scales[4];
    for (int k = 0; k < 4; k++) {
        memcpy(&scales[k], bytes + 36 * k, 4);
        __m512i nibbles = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(bytes + 36 * k + 4)));
        nibbles = _mm512_srlv_epi64(_mm512_permutexvar_epi64(twice, nibbles), shift);
        out->q[k] = look_up(values_fp4, 16, _mm512_and_si512(nibbles, _mm512_set1_epi8(15)));
    }
    out->scale = ue4m3_halves(_mm512_cvtepu8_epi32(_mm_setr_epi32(scales[0], scales[1], scales[2], scales[3])));
}

#define SHAPE_NVFP4 { .kind = PANEL_SMALL, .sub = 16, .offset = 16, .top = 28, .bytes = 144, .factor = 1, .few = 4 }

static void decode_nvfp4_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_nvfp4_avx512, (struct panel_shape)SHAPE_NVFP4);
}

static void panel_nvfp4_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_nvfp4_avx512, (struct panel_shape)SHAPE_NVFP4);
}

static void few_nvfp4_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_nvfp4_avx512, (struct panel_shape)SHAPE_NVFP4);
}

const struct format_avx512 format_nvfp4_avx512 = {
    SHAPE_NVFP4, decode_nvfp4_avx512, panel_nvfp4_avx512, few_nvfp4_avx512, FEW_TOKS, NULL, 0
};

void matmul_nvfp4_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_nvfp4_avx512);
}

/* d, 128 bits: 1 is d, 0 is -d. With the offset of 1: 2 or 0. */
static ALWAYS_INLINE void run_q1_0_avx512(struct run *out, const uint8_t *bytes)
{
    __m128i first = _mm_set1_epi16((short)load_u16(bytes)), second = _mm_set1_epi16((short)load_u16(bytes + 18));
    set_codes(out, _mm_blend_epi32(first, second, 12));
    for (int k = 0; k < 4; k++) {
        uint64_t bits;
        memcpy(&bits, bytes + 18 * (k / 2) + 2 + 8 * (k % 2), 8);
        out->q[k] = _mm512_maskz_set1_epi8(bits, 2);
    }
}

#define SHAPE_Q1_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 1, .top = 2, .bytes = 36, .factor = 1, .few = 4 }

static void decode_q1_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q1_0_avx512, (struct panel_shape)SHAPE_Q1_0);
}

static void panel_q1_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q1_0_avx512, (struct panel_shape)SHAPE_Q1_0);
}

static void few_q1_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q1_0_avx512, (struct panel_shape)SHAPE_Q1_0);
}

const struct format_avx512 format_q1_0_avx512 = {
    SHAPE_Q1_0, decode_q1_0_avx512, panel_q1_0_avx512, few_q1_0_avx512, 48, NULL, 0
};

void matmul_q1_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q1_0_avx512);
}

/* d, 64 times two bits, lowest first; offset 1. */
static ALWAYS_INLINE void run_q2_0_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i four_times = _mm512_set_epi32(0x0f0f0f0f, 0x0e0e0e0e, 0x0d0d0d0d, 0x0c0c0c0c, 0x0b0b0b0b, 0x0a0a0a0a, 0x09090909,
                                                0x08080808, 0x07070707, 0x06060606, 0x05050505, 0x04040404, 0x03030303, 0x02020202,
                                                0x01010101, 0x00000000);
    const __m512i even = _mm512_set1_epi32(0x00040000), odd = _mm512_set1_epi32(0x00060002);
    __m128i d[4];
    for (int k = 0; k < 4; k++) {
        d[k] = _mm_set1_epi16((short)load_u16(bytes + 18 * k));
        __m512i same = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(bytes + 18 * k + 2)));
        same = _mm512_shuffle_epi8(same, four_times);
        out->q[k] = _mm512_or_si512(_mm512_and_si512(_mm512_srlv_epi16(same, even), _mm512_set1_epi16(0x0003)),
                                    _mm512_and_si512(_mm512_srlv_epi16(same, odd), _mm512_set1_epi16(0x0300)));
    }
    set_codes(out, _mm_blend_epi32(_mm_blend_epi32(d[0], d[1], 2), _mm_blend_epi32(d[2], d[3], 8), 12));
}

#define SHAPE_Q2_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 1, .top = 3, .bytes = 72, .factor = 1, .few = 4 }

static void decode_q2_0_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_q2_0_avx512, (struct panel_shape)SHAPE_Q2_0);
}

static void panel_q2_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q2_0_avx512, (struct panel_shape)SHAPE_Q2_0);
}

static void few_q2_0_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_q2_0_avx512, (struct panel_shape)SHAPE_Q2_0);
}

const struct format_avx512 format_q2_0_avx512 = {
    SHAPE_Q2_0, decode_q2_0_avx512, panel_q2_0_avx512, few_q2_0_avx512, 48, NULL, 0
};

void matmul_q2_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_q2_0_avx512);
}
