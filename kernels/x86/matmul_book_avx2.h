/* matmul_book_avx2.h - the product of a format with a codebook with one to four tokens on AVX2.
 *
 * Two passes over eight rows. The first puts the blocks' indices, signs and scales apart, the second loads entries and multiplies.
 * In one pass a block's entries wait for their indices, which go through vectors and memory, and a core does not see far enough
 * ahead to work on another block meanwhile (IQ2_S, one Zen 4 core, 256 weights from the cache by one token: 18 ns; in two passes
 * 12). One token's activations take over the signs: two instructions a vector where weights with an offset take three, and
 * nothing to take off in the end. What limits then are the loads, two for an entry: of its index and of itself. */
#ifndef QUERN_MATMUL_BOOK_AVX2_H
#define QUERN_MATMUL_BOOK_AVX2_H

#include "matmul_avx2.h"

/* A block, its parts apart, vectors aligned. */
struct book_block {
    uint16_t index[64];     /* of entries, in order; 32 where an entry is eight values              */
    uint32_t masks[8];      /* bit i: value i of the 32 is negative; IQ1: a byte per eight, the delta is */
    int16_t  factors[32];   /* IQ1: of the sums of x, 16 or 8 columns each                          */
    int8_t   scales[16];
    uint32_t d;             /* f16                                                                  */
} __attribute__((aligned(32)));

/* What a single token offers for a run. */
struct book_token {
    const int8_t *x;
    __m256i       sums;         /* of x, int16, 16 columns each    */
    __m256i       eights[2];    /* the same, eight columns each    */
};

typedef void book_apart_fn(struct book_block *out, const uint8_t *bytes);
typedef void book_run_fn(struct run *out, const struct book_block *w);
/* Eight partial totals of a run, sub-scales and all. */
typedef __m256i book_total_fn(const struct book_block *w, const struct book_token *token);

/* Sums of eight neighbours of 128 columns: vpsadbw's of x + 128. */
static ALWAYS_INLINE __m256i sums_of_eights(const int8_t *x)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sum[4];
    for (int k = 0; k < 4; k++) {
        __m256i bytes = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(x + 32 * k)), _mm256_set1_epi8(-128));
        sum[k] = _mm256_sad_epu8(bytes, _mm256_setzero_si256());
    }
    __m256i all = _mm256_packs_epi32(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3]));
    return _mm256_sub_epi16(_mm256_permutevar8x32_epi32(all, order), _mm256_set1_epi16(8 * 128));
}

/* Blocks are runs: no row ends within one. */
static ALWAYS_INLINE void book_rows(const struct matmul_job *job, size_t row, size_t rows, const int toks, book_apart_fn *apart,
                                    book_run_fn *values, book_total_fn *total, const struct panel_shape shape)
{
    const struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    struct book_block block[DECODE_ROWS];
    struct token_run token[DECODE_TOKS];
    __m256i totals[DECODE_TOKS][DECODE_ROWS];
    struct decode_rest rest;
    const int8_t *x[DECODE_TOKS];
    __m256 acc[DECODE_TOKS];

    for (int t = 0; t < toks; t++)
        acc[t] = _mm256_setzero_ps();
    if (rows < DECODE_ROWS) {
        memset(totals, 0, sizeof totals);
        memset(rest.d, 0, sizeof rest.d);
    }
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        const uint8_t *from = weights + run * shape.bytes;
        for (int t = 0; t < toks; t++) {
            const uint8_t *act = (const uint8_t *)job->acts + (size_t)t * job->act_stride;
            x[t] = (const int8_t *)act + run * PANEL_COLS;
            token_run_init(&token[t], act, &layout, run, shape);
        }
        for (size_t r = 0; r < rows; r++) {
            prefetch_run(from + (r + DECODE_ROWS) * job->row_bytes, shape.bytes, job->wide);
            apart(&block[r], from + r * job->row_bytes);
            rest.d[r] = block[r].d;
        }
        struct book_token one = { .x = x[0] };
        one.sums = _mm256_loadu_si256((const __m256i *)((const uint8_t *)job->acts + layout.sums + run * 32));
        one.eights[0] = sums_of_eights(x[0]);
        one.eights[1] = sums_of_eights(x[0] + 128);
        for (size_t r = 0; r < rows; r++) {
            if (toks == 1) {
                totals[0][r] = total(&block[r], &one);
            } else {
                struct run w;
                __m256i sums[DECODE_TOKS];
                values(&w, &block[r]);
                w.scales = _mm_load_si128((const __m128i *)block[r].scales);
                dot_super(sums, &w, x, token, toks, shape);
                for (int t = 0; t < toks; t++)
                    totals[t][r] = sums[t];
            }
        }
        for (int t = 0; t < toks; t++)
            acc[t] = finish_super(acc[t], totals[t], &rest, &token[t], shape);
    }
    for (int t = 0; t < toks; t++)
        store_8(job->out + (size_t)t * job->out_stride + row, acc[t], rows);
}

static ALWAYS_INLINE void book_format(const struct matmul_job *job, size_t row, size_t rows, book_apart_fn *apart,
                                      book_run_fn *values, book_total_fn *total, const struct panel_shape shape)
{
    switch (job->toks) {
    case 1:  book_rows(job, row, rows, 1, apart, values, total, shape); break;
    case 2:  book_rows(job, row, rows, 2, apart, values, total, shape); break;
    case 3:  book_rows(job, row, rows, 3, apart, values, total, shape); break;
    default: book_rows(job, row, rows, 4, apart, values, total, shape); break;
    }
}

/* A block as panels take it. */
static ALWAYS_INLINE void book_run(struct run *out, const uint8_t *bytes, book_apart_fn *apart, book_run_fn *values)
{
    struct book_block block;
    apart(&block, bytes);
    values(out, &block);
    out->scales = _mm_load_si128((const __m128i *)block.scales);
    out->d = block.d;
}

#endif
