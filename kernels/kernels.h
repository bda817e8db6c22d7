/* kernels.h - every operation on numbers that the engine needs, and the table that says who serves it here.
 *
 * kernels_init fills the table once: plain C first (kernels/ref, the specification: double accumulation, every input
 * defined), then each instruction set that this machine has overwrites what it improves. From then on the table is const and
 * passed along. Kernels cannot fail and allocate nothing: shapes are validated before they are called.
 *
 * Words: rows = outputs, cols = inputs (contiguous), toks = tokens of a batch. All vectors are contiguous f32 unless a comment
 * says otherwise. Pointers named out may equal an input only where "in place" is said; no other aliasing.
 *
 * Contract classes (tests/check_kernels.c holds every rung to them):
 *   EXACT   the same bits as the reference
 *   ULP(n)  each result within n units in the last place of the exact value
 *   SUM     |got - exact| <= bound * sum of |terms|, bound said at the op
 * Within one rung every result for one token is bitwise independent of how many tokens are in the batch and of how rows are cut
 * into chunks: batch splits and thread counts do not change the output. The same holds for the elementwise functions (gates, axpy,
 * dequantize): a value does not depend on where its piece begins or ends; and for attention, on how many queries share a call. */
#ifndef QUERN_KERNELS_H
#define QUERN_KERNELS_H

#include "cpu.h"
#include "formats.h"

/* ---- activations ------------------------------------------------------------------------------------------------
 *
 * A matrix product takes its activations in the form that its weight format multiplies best. They are prepared once per
 * vector and used by every product that reads the vector. A prepared vector is one run of bytes, 64-byte aligned:
 *
 *   ACT_F32      float x[padded]
 *   ACT_BF16     uint16_t x[padded]                     round to nearest even; NaN stays NaN
 *   ACT_Q8_32    int8_t q[padded]; float d[padded/32];  int16_t sums[padded/16]
 *   ACT_Q8_256   int8_t q[padded]; float d[padded/256]; int16_t sums[padded/16]
 *
 * padded = cols rounded up to 256; the tail, and the gaps before an array that begins at the next multiple of 64 bytes, are zero.
 * x ~ d * q with d = max|x| / 127 over the block and q = x * (127 / max|x|), both in float, q rounded to nearest even: q in
 * [-127, 127]. sums[i] = sum of q over 16 columns. ACT_Q8_32 then rounds d to 11 significant bits, to nearest even: Q8_0 blocks,
 * which llama.cpp multiplies these weights with, hold d as an f16, and on the reference models every logit follows it only with
 * the same d (the codes come from the unrounded one there too). Where f16 has no normal number for d, below 2^-14 and above
 * 65504, the exponent is kept all the same: massive activations stay finite, small ones keep their 11 bits. ACT_Q8_256 keeps d as
 * the float it is, as Q8_K blocks do. A block with a NaN or Inf gets d = NaN and q = 0, so that it reaches the logits and is
 * reported; one whose max|x| is below 2^-100 gets d = 0 and q = 0. */
enum act_kind { ACT_F32, ACT_BF16, ACT_Q8_32, ACT_Q8_256, ACT_KINDS };

struct act_layout {
    size_t padded;             /* columns with the tail                       */
    size_t scales, sums;       /* byte offsets of d and sums, Q8 kinds only   */
    size_t bytes;              /* of the whole vector, a multiple of 64       */
};
struct act_layout act_layout(enum act_kind kind, size_t cols);

/* out: act_layout(kind, cols).bytes bytes, 64-byte aligned. x: f32 [cols]. EXACT. */
typedef void act_prepare_fn(void *out, const float *x, size_t cols);

/* ---- matrix products --------------------------------------------------------------------------------------------
 *
 * out[t * out_stride + r] = sum over c of W[r][c] * act[t][c]     for r in [row_begin, row_end), t in [0, toks)
 *
 * SUM against the decoded weights times the prepared activations: bound cols * FLT_EPSILON for float activations (where BF16 is
 * multiplied by hardware, values below FLT_MIN may count as 0); for int8 the sums inside a block are exact integers and the bound
 * is (cols / block + 4) * FLT_EPSILON, block 32 or 256. */
struct matmul_job {
    float      *out;           /* f32 [toks][out_stride]                       */
    size_t      out_stride;    /* floats from token to token                   */
    const void *weights;       /* [rows][row_bytes], blocks of the format; no alignment promised */
    size_t      row_bytes;
    size_t      cols;          /* a multiple of the format's block             */
    const void *acts;          /* [toks][act_stride] prepared vectors of the kind that matmul[format].act asks for */
    size_t      act_stride;    /* bytes from token to token, a multiple of 64  */
    size_t      toks;          /* >= 1                                         */
    size_t      rows_soon;     /* so many rows after row_end are likely this thread's next: may be asked into its cache */
    bool        wide;          /* cpu.wide: which of two orders of reading and multiplying is the faster */
    bool        asked;         /* the rows just before row_begin were this thread's last, with rows_soon */
    bool        kept;          /* scratch is as the last call left it, of the same format, cols, toks, acts and act_stride */
};

/* `scratch`: kernels_scratch bytes, 64-byte aligned, this thread's own. Reads nothing beyond the rows' last byte. */
typedef void matmul_fn(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch);

struct matmul_kernels {
    const char   *isa;         /* "ref", "avx2", "avx512" ...: who serves the slot */
    enum act_kind act;         /* what job->acts must be                          */
    size_t        tile;        /* best chunk boundaries are multiples of this many rows */
    matmul_fn    *matmul;
};

/* ---- the other families ----------------------------------------------------------------------------------------- */

/* out[i] = value i of the blocks, i in [0, n), n a multiple of the format's block. EXACT. */
typedef void dequantize_fn(float *out, const void *blocks, size_t n);
/* blocks = x rounded to the format without importance weights: F16, BF16, Q8_0, Q4_0 (KV cache, converter). EXACT. */
typedef void quantize_fn(void *blocks, const float *x, size_t n);

/* out = x / sqrt(mean(x^2) + eps) * weight. weight NULL: 1. In place allowed. SUM-like: relative error <= (n + 8) * FLT_EPSILON. */
typedef void rms_norm_fn(float *out, const float *x, const float *weight, size_t n, float eps);
/* out = (x - mean) / sqrt(var + eps) * weight + bias; weight and bias may be NULL. In place allowed. SUM: each
 * mean within (n + 8) * FLT_EPSILON of the mean of the magnitudes that it is made of. */
typedef void layer_norm_fn(float *out, const float *x, const float *weight, const float *bias, size_t n, float eps);

/* Rotate `pairs` pairs of x by the angles whose cosines and sines are given: pair i is (x[2i], x[2i+1]) when interleaved, (x[i],
 * x[i + pairs]) otherwise. In place. x: [2 * pairs], cs: [pairs][2] = cos, sin (already scaled where the model scales). ULP(2) of
 * the larger term. */
typedef void rope_fn(float *x, const float *cs, size_t pairs, bool interleaved);

/* gate-and-multiply: out = f(gate) * up, and the bare functions. In place allowed (out may be gate or up). ULP(4) and, since the
 * argument v of gelu's exp(-v) is itself rounded, ULP(4 + 4 |v|) for gelu; a result below FLT_MIN may be flushed to 0. */
typedef void gate_fn(float *out, const float *gate, const float *up, size_t n);
typedef void unary_fn(float *out, const float *x, size_t n);

/* out += a * x. ULP(1). */
typedef void axpy_fn(float *out, const float *x, float a, size_t n);
/* Sum of a[i] * b[i]. SUM, bound n * FLT_EPSILON. */
typedef float dot_fn(const float *a, const float *b, size_t n);
/* In place softmax of x[0..n): exp(x - max) / sum. -INFINITY gives 0; all -INFINITY gives all 0. Relative
 * error <= (8 + |x - max|) * FLT_EPSILON: the difference is rounded before exp. */
typedef void softmax_fn(float *x, size_t n);

/* ---- attention over a tile of keys ------------------------------------------------------------------------------
 *
 * Online softmax is driven by src/attention.c, tile by tile of at most ATTN_TILE keys; a tile's first key stands at a multiple of
 * ATTN_TILE positions, so that the order of sums does not depend on the batch. One call serves `nq` queries that share a key
 * head (the group's heads, several tokens). K and V rows are in the cache's type. */
enum { ATTN_TILE = 64 };
enum kv_type { KV_F32, KV_F16, KV_BF16, KV_Q8_0, KV_Q4_0, KV_I16, KV_TYPES };

/* KV_I16 keeps 14-bit integers in 16 bits with a float per row, tile by tile in an order of their own (tile16.h). k and v are then
 * the tile's address, strides are not looked at, whole tiles may be read, weights of a mix are not negative, and a query must have
 * been through attn_query. Products of a score are added as integers over runs of 32 columns, the runs in order by float. A mix
 * multiplies each weight by its row's scale, rounds these by their largest to integers of at most 4095 (p * (4095 / largest), in
 * float, to nearest even; nothing below 2^-100, NaN for what is not finite), and adds one exact integer sum per value to out. */

/* In place: head_dim floats become int16_t q[head_dim], then their scale as a float, by tile16.h's rule for rows. EXACT. */
typedef void attn_query_fn(float *q, size_t head_dim);
/* Write row `index` of a tile: x f32 [head_dim]. EXACT. */
typedef void attn_store_fn(void *tile, size_t index, const float *x, size_t head_dim);

/* scores[i * ATTN_TILE + t] = scale * dot(q[i], k[t]), i in [0, nq), t in [0, nk), nk <= ATTN_TILE.
 *   q       f32, query i at q + i * q_stride, head_dim values
 *   k       row t at (const char *)k + t * k_stride bytes, head_dim values in the cache's type
 * head_dim is a multiple of kv_multiple(type). SUM, bound head_dim * FLT_EPSILON. */
typedef void attn_scores_fn(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                            size_t head_dim, float scale);
/* out[i] += sum over t of probs[i * ATTN_TILE + t] * v[t]; out + i * out_stride, head_dim values. SUM, bound ATTN_TILE *
 * FLT_EPSILON, the old out counted as a term. */
typedef void attn_mix_fn(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                         size_t head_dim);
/* One step of online softmax over n <= ATTN_TILE scores: m = max(*max, scores); scores = exp(scores - m), 0 where -INFINITY;
 * *sum = *sum * exp(*max - m) + sum of scores; *max = m. Gives the factor exp(old max - m) for what was accumulated so far
 * (1 when old max and m are the same). Relative errors as softmax's. */
typedef float softmax_step_fn(float *scores, size_t n, float *max, float *sum);
/* The same, to the bit, for `rows` rows of ATTN_TILE scores that follow each other; max, sum and factor: [rows]. */
typedef void softmax_rows_fn(float *scores, size_t rows, float *max, float *sum, float *factor);

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* One slot: a function and who serves it. */
#define KERNEL_SLOT(fn_type) struct { const char *isa; fn_type *fn; }

struct kernels {
    struct cpu            cpu;                          /* what was detected, after QUERN_CPU's cap */
    struct matmul_kernels matmul[FORMAT_COUNT];         /* .matmul NULL for ids that are not weights */
    KERNEL_SLOT(dequantize_fn)   dequantize[FORMAT_COUNT];
    KERNEL_SLOT(quantize_fn)     quantize[FORMAT_COUNT];   /* NULL where there is none */
    KERNEL_SLOT(act_prepare_fn)  act_prepare[ACT_KINDS];
    KERNEL_SLOT(rms_norm_fn)     rms_norm;
    KERNEL_SLOT(layer_norm_fn)   layer_norm;
    KERNEL_SLOT(rope_fn)         rope;
    KERNEL_SLOT(gate_fn)         silu_mul;              /* silu(gate) * up                               */
    KERNEL_SLOT(gate_fn)         gelu_mul;              /* gelu, tanh form                               */
    KERNEL_SLOT(unary_fn)        silu;
    KERNEL_SLOT(unary_fn)        gelu;                  /* 0.5x(1+tanh(sqrt(2/pi)(x+0.044715x^3)))       */
    KERNEL_SLOT(axpy_fn)         axpy;
    KERNEL_SLOT(dot_fn)          dot;
    KERNEL_SLOT(softmax_fn)      softmax;
    KERNEL_SLOT(attn_scores_fn)  attn_scores[KV_TYPES];
    KERNEL_SLOT(attn_mix_fn)     attn_mix[KV_TYPES];
    KERNEL_SLOT(attn_query_fn)   attn_query;            /* these three of KV_I16 */
    KERNEL_SLOT(attn_store_fn)   attn_store_key, attn_store_value;
    KERNEL_SLOT(softmax_step_fn) softmax_step;
    KERNEL_SLOT(softmax_rows_fn) softmax_rows;          /* NULL where it gains nothing over softmax_step */
    enum kv_type          cache;                        /* the type that attention is best served with: F16, or KV_I16 from the
                                                         * levels on whose kernels were measured to be faster with it */
    /* What the slots of the table need as scratch at most: a level that needs more raises them. */
    size_t                scratch_fixed;                /* bytes */
    size_t                scratch_per_col;              /* bytes per column, rounded up to 256 columns */
};

/* Fill the table for a CPU (cpu_detect, perhaps capped by cpu_cap). */
void kernels_init(struct kernels *table, const struct cpu *cpu);

/* Bytes of scratch that a thread needs for a matmul of `cols` columns by any slot of the table, a multiple of 64. */
size_t kernels_scratch(const struct kernels *table, size_t cols);

/* The machine's features and, per slot, who serves it, as lines of text, for `quern --cpu`. Writes at most `size` bytes with the
 * NUL and gives the length that the whole text has, as snprintf does; text may be NULL when size is 0. */
size_t kernels_describe(char *text, size_t size, const struct kernels *table);

/* Bytes of a row of `n` values in the cache's type. */
size_t kv_row_bytes(enum kv_type type, size_t n);
/* The format whose blocks a cache type uses (F32, F16, BF16, Q8_0, Q4_0); KV_I16 has none. */
uint32_t kv_format(enum kv_type type);
/* Heads must have a multiple of this many values: 32 for Q8_0 and Q4_0, 16 for I16, 1 otherwise. */
size_t kv_multiple(enum kv_type type);
/* The word that --kv takes for it, "f16": what people and scripts read is what they may give. */
const char *kv_name(enum kv_type type);

#endif
