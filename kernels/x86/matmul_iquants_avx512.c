#include "iquants_avx512.h"

#include "grid_codes.h"
#include "grids.h"
#include "matmul_subs_avx512.h"

/* The formats with codebooks on AVX-512. Eight bytes of a grid at a time are loaded by index into a vector, then negated under a
 * mask of the sign bits; 128 is added to make them unsigned. Gathers are slower than eight loads on Zen 4. IQ1 has a book of its
 * own, which needs no more than the delta's sign. */

/* Indices are made and taken apart in general registers, four of 16 bits to a register: the vector ports have the rest to do, and
 * neither small loads from a large store nor extraction is cheap. */
static ALWAYS_INLINE uint64_t four_bytes(const uint8_t *bytes)
{
    return _pdep_u64(load_u32(bytes), 0x00ff00ff00ff00ff);
}

static ALWAYS_INLINE __m256i four_entries(const uint64_t *grid, uint64_t index)
{
    return _mm256_setr_epi64x((long long)grid[index & 0xffff], (long long)grid[index >> 16 & 0xffff],
                              (long long)grid[index >> 32 & 0xffff],
                              (long long)grid[index >> 48]);
}

static ALWAYS_INLINE __m512i eight_entries(const uint64_t *grid, uint64_t low, uint64_t high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(four_entries(grid, low)), four_entries(grid, high), 1);
}

static ALWAYS_INLINE __m128i four_small_entries(const uint32_t *grid, uint64_t index)
{
    return _mm_setr_epi32((int)grid[index & 0xffff], (int)grid[index >> 16 & 0xffff], (int)grid[index >> 32 & 0xffff],
                          (int)grid[index >> 48]);
}

/* d; per 32 values 8 bytes: four indices, then four masks of signs and a scale. */
static ALWAYS_INLINE void run_iq2_xxs_avx512(struct run *out, const uint8_t *bytes)
{
    const __m512i odd_dwords = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 0, 0, 0, 0, 0, 0, 0, 0);
    __m256i words = _mm512_castsi512_si256(_mm512_permutexvar_epi32(odd_dwords, _mm512_loadu_si512(bytes + 2)));
    uint64_t signs[4];
    store_signs(signs, signs_of_8_words(words));
    out->d = load_u16(bytes);
    out->scales = odd_scales(_mm256_cvtepi32_epi8(_mm256_srli_epi32(words, 28)));
    for (int k = 0; k < 4; k++) {
        const uint8_t *index = bytes + 2 + 16 * k;
        out->q[k] = with_signs(eight_entries(grid_iq2_xxs, four_bytes(index), four_bytes(index + 8)), signs[k]);
    }
}

static void decode_iq2_xxs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq2_xxs_avx512, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void panel_iq2_xxs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xxs_avx512, (struct panel_shape)SHAPE_IQ2_XXS);
}

static void few_iq2_xxs_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_xxs_avx512, (struct panel_shape)SHAPE_IQ2_XXS);
}

const struct format_avx512 format_iq2_xxs_avx512 = {
    SHAPE_IQ2_XXS, decode_iq2_xxs_avx512, panel_iq2_xxs_avx512, few_iq2_xxs_avx512, FEW_TOKS, NULL, 0
};

void matmul_iq2_xxs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xxs_avx512);
}

/* d; 32 words with 9 bits of index and 7 of signs; scales. */
static ALWAYS_INLINE void run_iq2_xs_avx512(struct run *out, const uint8_t *bytes)
{
    __m512i words = _mm512_loadu_si512(bytes + 2);
    uint64_t signs[4];
    const uint64_t nine = 0x01ff01ff01ff01ff;
    store_signs(signs, with_parity(_mm512_cvtepi16_epi8(_mm512_srli_epi16(words, 9))));
    out->d = load_u16(bytes);
    out->scales = nibble_scales(bytes + 66);
    for (int k = 0; k < 4; k++) {
        const uint8_t *index = bytes + 2 + 16 * k;
        out->q[k] = with_signs(eight_entries(grid_iq2_xs, load_u64(index) & nine, load_u64(index + 8) & nine), signs[k]);
    }
}

static void decode_iq2_xs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq2_xs_avx512, (struct panel_shape)SHAPE_IQ2_XS);
}

static void panel_iq2_xs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_xs_avx512, (struct panel_shape)SHAPE_IQ2_XS);
}

static void few_iq2_xs_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_xs_avx512, (struct panel_shape)SHAPE_IQ2_XS);
}

const struct format_avx512 format_iq2_xs_avx512 = {
    SHAPE_IQ2_XS, decode_iq2_xs_avx512, panel_iq2_xs_avx512, few_iq2_xs_avx512, FEW_TOKS, NULL, 0
};

void matmul_iq2_xs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_xs_avx512);
}

/* d; 32 lower index bytes; 32 masks of signs; 8 bytes with two upper index bits for each of four entries; scales. */
static ALWAYS_INLINE void run_iq2_s_avx512(struct run *out, const uint8_t *bytes)
{
    const uint64_t upper = 0x0300030003000300;
    out->d = load_u16(bytes);
    out->scales = nibble_scales(bytes + 74);
    for (int k = 0; k < 4; k++) {
        const uint8_t *low = bytes + 2 + 8 * k, *high = bytes + 66 + 2 * k;
        uint64_t first = four_bytes(low) | _pdep_u64(high[0], upper), second = four_bytes(low + 4) | _pdep_u64(high[1], upper);
        out->q[k] = with_signs(eight_entries(grid_iq2_s, first, second), load_u64(bytes + 34 + 8 * k));
    }
}

static void decode_iq2_s_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq2_s_avx512, (struct panel_shape)SHAPE_IQ2_S);
}

static void panel_iq2_s_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq2_s_avx512, (struct panel_shape)SHAPE_IQ2_S);
}

static void few_iq2_s_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq2_s_avx512, (struct panel_shape)SHAPE_IQ2_S);
}

const struct format_avx512 format_iq2_s_avx512 = {
    SHAPE_IQ2_S, decode_iq2_s_avx512, panel_iq2_s_avx512, few_iq2_s_avx512, FEW_TOKS, NULL, 0
};

void matmul_iq2_s_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq2_s_avx512);
}

/* 64 values of sixteen entries of four: lower index bytes and ninth bits. */
static ALWAYS_INLINE __m512i sixteen_entries(const uint32_t *grid, const uint8_t *low, uint64_t ninth)
{
    const uint64_t upper = 0x0100010001000100;
    __m128i a = four_small_entries(grid, four_bytes(low) | _pdep_u64(ninth, upper));
    __m128i b = four_small_entries(grid, four_bytes(low + 4) | _pdep_u64(ninth >> 4, upper));
    __m128i c = four_small_entries(grid, four_bytes(low + 8) | _pdep_u64(ninth >> 8, upper));
    __m128i d = four_small_entries(grid, four_bytes(low + 12) | _pdep_u64(ninth >> 12, upper));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(a, b)), _mm256_setr_m128i(c, d), 1);
}

/* d; 64 indices of four values; per 32 values four masks of signs and a scale. */
static ALWAYS_INLINE void run_iq3_xxs_avx512(struct run *out, const uint8_t *bytes)
{
    __m256i words = _mm256_loadu_si256((const __m256i *)(bytes + 66));
    uint64_t signs[4];
    store_signs(signs, signs_of_8_words(words));
    out->d = load_u16(bytes);
    out->scales = odd_scales(_mm256_cvtepi32_epi8(_mm256_srli_epi32(words, 28)));
    for (int k = 0; k < 4; k++)
        out->q[k] = with_signs(sixteen_entries(grid_iq3_xxs, bytes + 2 + 16 * k, 0), signs[k]);
}

static void decode_iq3_xxs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq3_xxs_avx512, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void panel_iq3_xxs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_xxs_avx512, (struct panel_shape)SHAPE_IQ3_XXS);
}

static void few_iq3_xxs_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq3_xxs_avx512, (struct panel_shape)SHAPE_IQ3_XXS);
}

const struct format_avx512 format_iq3_xxs_avx512 = {
    SHAPE_IQ3_XXS, decode_iq3_xxs_avx512, panel_iq3_xxs_avx512, few_iq3_xxs_avx512, FEW_TOKS, NULL, 0
};

void matmul_iq3_xxs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_xxs_avx512);
}

/* d; 64 lower index bytes; 8 bytes of ninth bits; 32 masks of signs; 4 bytes of scales for 32 values each. */
static ALWAYS_INLINE void run_iq3_s_avx512(struct run *out, const uint8_t *bytes)
{
    out->d = load_u16(bytes);
    out->scales = odd_scales(vector_of_8(_pdep_u64(load_u32(bytes + 106), 0x0f0f0f0f0f0f0f0f)));
    for (int k = 0; k < 4; k++) {
        __m512i q = sixteen_entries(grid_iq3_s, bytes + 2 + 16 * k, load_u16(bytes + 66 + 2 * k));
        out->q[k] = with_signs(q, load_u64(bytes + 74 + 8 * k));
    }
}

static void decode_iq3_s_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq3_s_avx512, (struct panel_shape)SHAPE_IQ3_S);
}

static void panel_iq3_s_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq3_s_avx512, (struct panel_shape)SHAPE_IQ3_S);
}

static void few_iq3_s_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq3_s_avx512, (struct panel_shape)SHAPE_IQ3_S);
}

const struct format_avx512 format_iq3_s_avx512 = {
    SHAPE_IQ3_S, decode_iq3_s_avx512, panel_iq3_s_avx512, few_iq3_s_avx512, FEW_TOKS, NULL, 0
};

void matmul_iq3_s_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq3_s_avx512);
}

/* ---- IQ1 ------------------------------------------------------------------------------------------------------------ */

/* What finds a run of IQ1. Indices are made in vectors and go through memory to the registers that address the book; a small load
 * from a large store waits until the store has left the core, so that 16 rows' indices are made before the first is used. */
struct iq1_run {
    uint16_t at[32];         /* twice each entry's index                                     */
    __m128i  scales;
    uint32_t d, minus;       /* minus: entries whose delta is minus one                      */
} __attribute__((aligned(64)));
typedef void iq1_fn(struct iq1_run *out, const uint8_t *bytes);

/* Entries of eight values in eighths, plus 16, which multiply like the short values of other formats. Loads are what limits: 64 for
 * a run, of which a Zen 4 makes two or three per cycle: 36.5 of IQ1_S's 54 cycles are left, 38 of IQ1_M's 57. */
static ALWAYS_INLINE void run_of_iq1(struct run *out, const uint8_t *bytes)
{
    const struct iq1_run *from = (const struct iq1_run *)(const void *)bytes;
    const uint8_t *book = (const uint8_t *)eighths_iq1;
    uint32_t minus = from->minus;
    out->d = from->d;
    out->scales = from->scales;
    for (int k = 0; k < 4; k++, minus >>= 8) {
        __m128i v[4];
        for (int i = 0; i < 4; i++) {
            const uint16_t *two = from->at + 8 * k + 2 * i;
            __m128i low = _mm_loadl_epi64((const __m128i *)(const void *)(book + (size_t)two[0] * 4));
            v[i] = _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(low), (const __m64 *)(const void *)(book + (size_t)two[1] * 4)));
        }
        __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(v[0], v[1])), _mm256_setr_m128i(v[2], v[3]), 1);
        out->q[k] = _mm512_mask_sub_epi64(q, (__mmask8)minus, q, _mm512_set1_epi8(2));
    }
}

/* Indices' lower bytes, and upper bits as they stand in `upper` at bits 9 to 11 of its words. */
static ALWAYS_INLINE void set_index(struct iq1_run *out, const uint8_t *bytes, __m512i upper)
{
    __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)bytes));
    _mm512_store_si512(out->at, _mm512_ternarylogic_epi32(upper, _mm512_set1_epi16(0x0e00), _mm512_add_epi16(low, low), 0xea));
}

/* d; 32 lower index bytes; 8 words: four times three upper index bits, a 3-bit scale, the delta's sign. */
static ALWAYS_INLINE void find_iq1_s(struct iq1_run *out, const uint8_t *bytes)
{
    const __m512i four_times = _mm512_set_epi64(0x7000700070007, 0x6000600060006, 0x5000500050005, 0x4000400040004, 0x3000300030003,
                                                0x2000200020002, 0x1000100010001, 0);
    __m128i words = _mm_loadu_si128((const __m128i *)(bytes + 34));
    __m512i each = _mm512_permutexvar_epi16(four_times, _mm512_castsi128_si512(words));
    set_index(out, bytes + 2, _mm512_sllv_epi16(each, _mm512_set1_epi64(0x0000000300060009)));
    out->minus = _mm512_movepi16_mask(each);
    __m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(words, 11), _mm_set1_epi16(14)), _mm_set1_epi16(1));
    out->scales = _mm_cvtepi16_epi8(odd);    /* zeros above, which dot_super_narrow wants */
    out->d = load_u16(bytes);
}

/* 32 lower index bytes; 16 bytes with three upper bits and the delta's sign per entry; 4 words of four 3-bit scales, above them d's
 * nibbles. */
static ALWAYS_INLINE void find_iq1_m(struct iq1_run *out, const uint8_t *bytes)
{
    const uint64_t three_bits = 0x0707070707070707, words = load_u64(bytes + 48), scales = _pext_u64(words, 0x0fff0fff0fff0fff);
    /* the nibbles of each byte to bits 9 to 12 of two words */
    __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(bytes + 32)));
    __m512i upper = _mm512_mullo_epi32(both, _mm512_set1_epi32(1 << 9 | 1 << 21));
    set_index(out, bytes, upper);
    out->minus = _mm512_test_epi16_mask(upper, _mm512_set1_epi16(1 << 12));
    out->scales = odd_scales(_mm_unpacklo_epi64(vector_of_8(_pdep_u64(scales, three_bits)),
                                                vector_of_8(_pdep_u64(scales >> 24, three_bits))));
    out->d = (uint16_t)_pext_u64(words, 0xf000f000f000f000);
}

/* As decode_rows. */
static ALWAYS_INLINE void decode_iq1(const struct matmul_job *job, size_t row, struct row_range all, const size_t toks,
                                     iq1_fn *find, const struct panel_shape shape)
{
    const size_t rows = all.end - row < PANEL_ROWS ? all.end - row : PANEL_ROWS;
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    const struct ask ask = ask_of(job, row, all, shape);
    struct iq1_run found[PANEL_ROWS];
    __m512i dots[DECODE_TOKS][16];
    struct decode_rest rest;
    struct token_run token[DECODE_TOKS];
    __m512 acc[DECODE_TOKS];
    __m512i x[DECODE_TOKS][4];

    for (size_t t = 0; t < toks; t++)
        acc[t] = _mm512_setzero_ps();
    ask_first(&ask, job, row, all, rows);
    if (rows < PANEL_ROWS) {
        memset(dots, 0, sizeof dots);
        memset(&rest, 0, sizeof rest);
    }
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        for (size_t r = 0; r < rows; r++) {
            const uint8_t *at = weights + r * job->row_bytes + run * shape.bytes;
            if (r % 4 == 0)
                ask_soon(&ask, run, r / 4, 0, 1, shape);
            ask_own(&ask, at, run, shape);
            find(&found[r], at);
        }
        for (size_t t = 0; t < toks; t++) {
            const uint8_t *act = (const uint8_t *)job->acts + t * job->act_stride;
            token_run_init(&token[t], act, &layout, run, shape);
            load_acts(x[t], (const int8_t *)act + run * PANEL_COLS, ORDER_PLAIN);
        }
        for (size_t r = 0; r < rows; r++) {
            struct run w;
            run_of_iq1(&w, (const uint8_t *)&found[r]);
            for (size_t t = 0; t < toks; t++)
                dots[t][r] = dot_super_narrow(&w, x[t], &token[t], shape);
            rest.d[r] = w.d;
        }
        for (size_t t = 0; t < toks; t++)
            acc[t] = finish_totals(acc[t], sum_16_rows(dots[t]), &rest, &token[t], shape);
    }
    store_rows(job, row, rows, acc, toks);
}

static ALWAYS_INLINE void decode_iq1_toks(const struct matmul_job *job, size_t row, struct row_range all, iq1_fn *find,
                                          const struct panel_shape shape)
{
    if (job->toks == 1)
        decode_iq1(job, row, all, 1, find, shape);
    else if (job->toks == 2)
        decode_iq1(job, row, all, 2, find, shape);
    else if (job->toks == 3)
        decode_iq1(job, row, all, 3, find, shape);
    else
        decode_iq1(job, row, all, 4, find, shape);
}

/* For the eight rows of few_format, whose unpackers work between dots one row at a time, indices are made in general registers. */
static ALWAYS_INLINE void set_eighths(struct run *out, int k, uint64_t first, uint64_t second, uint32_t minus)
{
    __m512i q = eight_entries(eighths_iq1, first, second);
    out->q[k] = _mm512_mask_sub_epi64(q, (__mmask8)minus, q, _mm512_set1_epi8(2));
}

/* What was found of 16 rows takes the place of their runs in the file. */
static ALWAYS_INLINE void panel_iq1(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows, iq1_fn *find,
                                    const struct panel_shape shape)
{
    struct iq1_run found[PANEL_ROWS];
    for (size_t r = 0; r < rows; r++)
        find(&found[r], bytes + r * stride);
    fill_panel(out, (const uint8_t *)found, sizeof found[0], rows, run_of_iq1, shape);
}

static ALWAYS_INLINE void run_iq1_s_avx512(struct run *out, const uint8_t *bytes)
{
    const uint64_t upper = 0x0700070007000700;
    __m128i words = _mm_loadu_si128((const __m128i *)(bytes + 34));
    out->d = load_u16(bytes);
    out->scales = odd_scales(_mm_cvtepi16_epi8(_mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7))));
    for (int k = 0; k < 4; k++) {
        uint32_t first = load_u16(bytes + 34 + 4 * k), second = load_u16(bytes + 36 + 4 * k);
        set_eighths(out, k, four_bytes(bytes + 2 + 8 * k) | _pdep_u64(first & 0xfff, upper),
                    four_bytes(bytes + 6 + 8 * k) | _pdep_u64(second & 0xfff, upper),
                    (first >> 15) * 0x0f | (second >> 15) * 0xf0);
    }
}

static void decode_iq1_s_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_iq1_toks(job, row, all, find_iq1_s, (struct panel_shape)SHAPE_IQ1_S);
}

static void panel_iq1_s_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    panel_iq1(out, bytes, stride, rows, find_iq1_s, (struct panel_shape)SHAPE_IQ1_S);
}

static void few_iq1_s_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq1_s_avx512, (struct panel_shape)SHAPE_IQ1_S);
}

const struct format_avx512 format_iq1_s_avx512 = {
    SHAPE_IQ1_S, decode_iq1_s_avx512, panel_iq1_s_avx512, few_iq1_s_avx512, FEW_TOKS, NULL, 0
};

static ALWAYS_INLINE void subs_iq1_s(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_run(out, 0, first, run_iq1_s_avx512, (struct panel_shape)SHAPE_IQ1_S);
    subs_of_run(out, 1, second, run_iq1_s_avx512, (struct panel_shape)SHAPE_IQ1_S);
}

static ALWAYS_INLINE void subs_token_iq1_s(struct subs_token *to, const int8_t *x, const int16_t *sums)
{
    subs_token_in_order(to, x, sums, subs_order((struct panel_shape)SHAPE_IQ1_S), (struct panel_shape)SHAPE_IQ1_S);
}

void matmul_iq1_s_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq1_s, subs_token_iq1_s }, (struct panel_shape)SHAPE_IQ1_S);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq1_s_avx512);
}

static ALWAYS_INLINE void run_iq1_m_avx512(struct run *out, const uint8_t *bytes)
{
    struct iq1_run found;
    find_iq1_m(&found, bytes);
    out->d = found.d;
    out->scales = found.scales;
    for (int k = 0; k < 4; k++) {
        uint64_t high = _pdep_u64(load_u32(bytes + 32 + 4 * k), 0x0f0f0f0f0f0f0f0f), upper = high & 0x0707070707070707;
        set_eighths(out, k, four_bytes(bytes + 8 * k) | _pdep_u64(upper, 0xff00ff00ff00ff00),
                    four_bytes(bytes + 8 * k + 4) | _pdep_u64(upper >> 32, 0xff00ff00ff00ff00), found.minus >> 8 * k);
    }
}

static void decode_iq1_m_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_iq1_toks(job, row, all, find_iq1_m, (struct panel_shape)SHAPE_IQ1_M);
}

static void panel_iq1_m_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    panel_iq1(out, bytes, stride, rows, find_iq1_m, (struct panel_shape)SHAPE_IQ1_M);
}

static void few_iq1_m_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq1_m_avx512, (struct panel_shape)SHAPE_IQ1_M);
}

const struct format_avx512 format_iq1_m_avx512 = {
    SHAPE_IQ1_M, decode_iq1_m_avx512, panel_iq1_m_avx512, few_iq1_m_avx512, FEW_TOKS, NULL, 0
};

static ALWAYS_INLINE void subs_iq1_m(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_run(out, 0, first, run_iq1_m_avx512, (struct panel_shape)SHAPE_IQ1_M);
    subs_of_run(out, 1, second, run_iq1_m_avx512, (struct panel_shape)SHAPE_IQ1_M);
}

static ALWAYS_INLINE void subs_token_iq1_m(struct subs_token *to, const int8_t *x, const int16_t *sums)
{
    subs_token_in_order(to, x, sums, subs_order((struct panel_shape)SHAPE_IQ1_M), (struct panel_shape)SHAPE_IQ1_M);
}

void matmul_iq1_m_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq1_m, subs_token_iq1_m }, (struct panel_shape)SHAPE_IQ1_M);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq1_m_avx512);
}

/* d; a word of upper scale pairs; 4 bytes of lower scale nibbles (offset 32); 128 bytes of nibbles: indices of values_iq4. */
static ALWAYS_INLINE void run_iq4_xs_avx512(struct run *out, const uint8_t *bytes)
{
    uint64_t scales = _pdep_u64(load_u32(bytes + 4), 0x0f0f0f0f0f0f0f0f) | _pdep_u64(load_u16(bytes + 2), 0x3030303030303030);
    out->d = load_u16(bytes);
    out->scales = _mm_sub_epi8(vector_of_8(scales), _mm_set1_epi8(32));
    nibbles(out->q, _mm512_loadu_si512(bytes + 8));
    nibbles(out->q + 2, _mm512_loadu_si512(bytes + 72));
    for (int k = 0; k < 4; k++)
        out->q[k] = look_up(values_iq4, 128, out->q[k]);
}

#define SHAPE_IQ4_XS { .kind = PANEL_SUPER, .sub = 32, .offset = 128, .top = 255, .bytes = 136, .factor = 1, \
        .order = ORDER_QUARTERS }

static void decode_iq4_xs_avx512(const struct matmul_job *job, size_t row, struct row_range all)
{
    decode_format(job, row, all, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
}

static void panel_iq4_xs_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
}

static void few_iq4_xs_avx512(const struct matmul_job *job, struct row_range all, struct few_scratch *scratch)
{
    few_format(job, all, scratch, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
}

const struct format_avx512 format_iq4_xs_avx512 = {
    SHAPE_IQ4_XS, decode_iq4_xs_avx512, panel_iq4_xs_avx512, few_iq4_xs_avx512, 48, NULL, 0
};

static ALWAYS_INLINE void subs_iq4_xs(struct subs_rows *out, const uint8_t *first, const uint8_t *second)
{
    subs_of_run(out, 0, first, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
    subs_of_run(out, 1, second, run_iq4_xs_avx512, (struct panel_shape)SHAPE_IQ4_XS);
}

static ALWAYS_INLINE void subs_token_iq4_xs(struct subs_token *to, const int8_t *x, const int16_t *sums)
{
    subs_token_in_order(to, x, sums, subs_order((struct panel_shape)SHAPE_IQ4_XS), (struct panel_shape)SHAPE_IQ4_XS);
}

void matmul_iq4_xs_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    const struct row_range call = { row_begin, row_end };
    if (by_subs(job))
        subs_format(job, call, scratch, (struct subs){ subs_iq4_xs, subs_token_iq4_xs }, (struct panel_shape)SHAPE_IQ4_XS);
    else
        matmul_panels_avx512(job, row_begin, row_end, scratch, &format_iq4_xs_avx512);
}
