#include "matmul_avx512.h"

/* Formats with blocks of 32 values on AVX-512; a run is eight blocks. */

/* d, 32 signed bytes; the sign bit is turned over, which adds 128. */
static ALWAYS_INLINE void run_q8_0_avx512(struct run *out, const uint8_t *bytes)
{
    out->scale = as_scale(halves_of_8_blocks(bytes, 34));
    for (int k = 0; k < 4; k++) {
        const uint8_t *pair = bytes + 68 * k;
        __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(pair + 2))),
                                       _mm256_loadu_si256((const __m256i *)(pair + 36)), 1);
        out->q[k] = _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
    }
}

#define SHAPE_Q8_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 7, .mins = false, .bytes = 272 }

static void decode_q8_0_avx512(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q8_0_avx512, (struct panel_shape)SHAPE_Q8_0);
}

static void panel_q8_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q8_0_avx512, (struct panel_shape)SHAPE_Q8_0);
}

void matmul_q8_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx512 format = { SHAPE_Q8_0, decode_q8_0_avx512, panel_q8_0_avx512 };
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format);
}

/* d, 16 bytes: low nibbles values 0-15, high nibbles 16-31, each with an offset of 8. */
static ALWAYS_INLINE void run_q4_0_avx512(struct run *out, const uint8_t *bytes)
{
    out->scale = as_scale(halves_of_8_blocks(bytes, 18));
    for (int k = 0; k < 4; k++)
        out->q[k] = nibbles_of_16_and_16(bytes + 36 * k + 2, bytes + 36 * k + 20);
}

#define SHAPE_Q4_0 { .kind = PANEL_SMALL, .sub = 32, .offset = 3, .mins = false, .bytes = 144 }

static void decode_q4_0_avx512(const struct matmul_job *job, size_t row, size_t rows)
{
    decode_format(job, row, rows, run_q4_0_avx512, (struct panel_shape)SHAPE_Q4_0);
}

static void panel_q4_0_avx512(struct panel *out, const uint8_t *bytes, size_t stride, size_t rows)
{
    fill_panel(out, bytes, stride, rows, run_q4_0_avx512, (struct panel_shape)SHAPE_Q4_0);
}

void matmul_q4_0_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    static const struct format_avx512 format = { SHAPE_Q4_0, decode_q4_0_avx512, panel_q4_0_avx512 };
    matmul_panels_avx512(job, row_begin, row_end, scratch, &format);
}
