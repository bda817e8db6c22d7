/* matmul.c - the products' specification: sums in double, whole numbers summed exactly where the format has them.
 *
 * A row's block is unpacked once and used for every token; each token's sum runs over the blocks in order, so its result depends
 * neither on the batch nor on the chunk. Outputs serve as no accumulator: sums live in a strip of TOKS_AT_ONCE doubles. */
#include "numbers.h"
#include "ref.h"

/* Both bound what stands on the stack: 256 bytes of sums, 1 KiB of decoded weights. 256 is a multiple of every format's block. */
enum { TOKS_AT_ONCE = 32, COLS_AT_ONCE = 256 };

static const char *act_of(const struct matmul_job *job, size_t tok)
{
    return (const char *)job->acts + tok * job->act_stride;
}

/* A token's results lie out_stride apart: rows are the inner dimension of `out`. */
static void store(const struct matmul_job *job, size_t row, size_t tok, size_t n, const double *sums)
{
    for (size_t t = 0; t < n; t++)
        job->out[(tok + t) * job->out_stride + row] = (float)sums[t];
}

static const char *row_of(const struct matmul_job *job, size_t row)
{
    return (const char *)job->weights + row * job->row_bytes;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Weights as floats, activations ACT_F32. */
static void multiply_float(const struct matmul_job *job, size_t row_begin, size_t row_end, dequantize_fn *decode, size_t bytes)
{
    for (size_t row = row_begin; row < row_end; row++)
        for (size_t tok = 0; tok < job->toks; tok += TOKS_AT_ONCE) {
            size_t toks = smaller(job->toks - tok, TOKS_AT_ONCE);
            double sums[TOKS_AT_ONCE] = { 0 };
            for (size_t col = 0; col < job->cols; col += COLS_AT_ONCE) {
                size_t cols = smaller(job->cols - col, COLS_AT_ONCE);
                float weights[COLS_AT_ONCE];
                decode(weights, row_of(job, row) + col * bytes, cols);
                for (size_t t = 0; t < toks; t++) {
                    const float *x = (const float *)(const void *)act_of(job, tok + t) + col;
                    for (size_t c = 0; c < cols; c++)
                        sums[t] += (double)weights[c] * x[c];
                }
            }
            store(job, row, tok, toks, sums);
        }
}

/* Sum over 16 columns of q * x: at most 16 * 128 * 127. */
static int dot_16(const int8_t *q, const int8_t *x)
{
    int sum = 0;
    for (int i = 0; i < 16; i++)
        sum += q[i] * x[i];
    return sum;
}

/* Blocks of 32, 64 or 128 values, activations ACT_Q8_32. Scales and minimums are constant over 16 columns at least, so the dot of
 * 16 is the largest whole number that every format has; the activations' scale changes with every second of them. */
static void multiply_small(const struct matmul_job *job, size_t row_begin, size_t row_end, unpack_small_fn *unpack, size_t values,
                           size_t bytes)
{
    struct act_layout layout = act_layout(ACT_Q8_32, job->cols);
    for (size_t row = row_begin; row < row_end; row++)
        for (size_t tok = 0; tok < job->toks; tok += TOKS_AT_ONCE) {
            size_t toks = smaller(job->toks - tok, TOKS_AT_ONCE);
            double sums[TOKS_AT_ONCE] = { 0 };
            for (size_t col = 0; col < job->cols; col += values) {
                struct small_block b;
                unpack(&b, row_of(job, row) + col / values * bytes);
                for (size_t t = 0; t < toks; t++) {
                    const char *act = act_of(job, tok + t);
                    const int8_t *x = (const int8_t *)act + col;
                    const float *d = (const float *)(const void *)(act + layout.scales) + col / 32;
                    const int16_t *totals = (const int16_t *)(const void *)(act + layout.sums) + col / 16;
                    for (size_t g = 0; g < values / 16; g++) {
                        int dot = dot_16(b.q + g * 16, x + g * 16);
                        sums[t] += ((double)b.scale[g] * dot - (double)b.min[g] * totals[g]) * d[g / 2];
                    }
                }
            }
            store(job, row, tok, toks, sums);
        }
}

/* Blocks of 256 values, activations ACT_Q8_256. One scale on each side: the whole block is one integer (unpack.h has its bound,
 * that of the minimums is 16 * 63 * 16 * 127 < 2^21), and the only rounding is that of two products and two sums per block. */
static void multiply_super(const struct matmul_job *job, size_t row_begin, size_t row_end, unpack_super_fn *unpack, size_t bytes)
{
    struct act_layout layout = act_layout(ACT_Q8_256, job->cols);
    for (size_t row = row_begin; row < row_end; row++)
        for (size_t tok = 0; tok < job->toks; tok += TOKS_AT_ONCE) {
            size_t toks = smaller(job->toks - tok, TOKS_AT_ONCE);
            double sums[TOKS_AT_ONCE] = { 0 };
            for (size_t block = 0; block < job->cols / 256; block++) {
                struct super_block b;
                unpack(&b, row_of(job, row) + block * bytes);
                for (size_t t = 0; t < toks; t++) {
                    const char *act = act_of(job, tok + t);
                    const int8_t *x = (const int8_t *)act + block * 256;
                    const float *d = (const float *)(const void *)(act + layout.scales);
                    const int16_t *totals = (const int16_t *)(const void *)(act + layout.sums) + block * 16;
                    int dot = 0, mins = 0;
                    for (int g = 0; g < 16; g++) {
                        dot += b.sub[g] * dot_16(b.q + g * 16, x + g * 16);
                        mins += b.min[g] * totals[g];
                    }
                    sums[t] += ((double)b.d * dot - (double)b.dmin * mins) * d[block];
                }
            }
            store(job, row, tok, toks, sums);
        }
}

void matmul_f32_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_float(job, row_begin, row_end, dequantize_f32_ref, 4);
}

void matmul_f16_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_float(job, row_begin, row_end, dequantize_f16_ref, 2);
}

void matmul_bf16_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_float(job, row_begin, row_end, dequantize_bf16_ref, 2);
}

void matmul_q1_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q1_0_ref, 128, 18);
}

void matmul_q2_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q2_0_ref, 64, 18);
}

void matmul_q4_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q4_0_ref, 32, 18);
}

void matmul_q4_1_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q4_1_ref, 32, 20);
}

void matmul_q5_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q5_0_ref, 32, 22);
}

void matmul_q5_1_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q5_1_ref, 32, 24);
}

void matmul_q8_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_q8_0_ref, 32, 34);
}

void matmul_iq4_nl_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_iq4_nl_ref, 32, 18);
}

void matmul_mxfp4_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_mxfp4_ref, 32, 17);
}

void matmul_nvfp4_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_small(job, row_begin, row_end, unpack_nvfp4_ref, 64, 36);
}

void matmul_q2_k_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_q2_k_ref, 84);
}

void matmul_q3_k_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_q3_k_ref, 110);
}

void matmul_q4_k_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_q4_k_ref, 144);
}

void matmul_q5_k_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_q5_k_ref, 176);
}

void matmul_q6_k_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_q6_k_ref, 210);
}

void matmul_iq1_s_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq1_s_ref, 50);
}

void matmul_iq1_m_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq1_m_ref, 56);
}

void matmul_iq2_xxs_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq2_xxs_ref, 66);
}

void matmul_iq2_xs_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq2_xs_ref, 74);
}

void matmul_iq2_s_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq2_s_ref, 82);
}

void matmul_iq3_xxs_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq3_xxs_ref, 98);
}

void matmul_iq3_s_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq3_s_ref, 110);
}

void matmul_iq4_xs_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_iq4_xs_ref, 136);
}

void matmul_tq1_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_tq1_0_ref, 54);
}

void matmul_tq2_0_ref(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch)
{
    (void)scratch;
    multiply_super(job, row_begin, row_end, unpack_tq2_0_ref, 66);
}
