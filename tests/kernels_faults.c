/* The checker checked: kernels with one planted fault each, which the checks must find. Each runs in a process of its own, because
 * a read beyond a buffer ends it: that counts as found. */
#include "kernels_check.h"

#include "numbers.h"
#include "tile16.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The sound kernels below the faults; set in the child only. */
static const struct kernels *sound;

/* ---- products of Q8_0, written out so that each can go wrong in its own way ------------------------------------- */

enum matmul_fault {
    NO_FAULT, DROPPED_TAIL, DROPPED_ROW, WRITE_OVERRUN, READ_OVERRUN, DOUBLED_SCALE, SATURATING_ADD, BATCH_ORDER, NAN_LOST
};

static float row_times_act(const uint8_t *row, const char *act, size_t cols, enum matmul_fault fault, size_t toks)
{
    struct act_layout layout = act_layout(ACT_Q8_32, cols);
    const float *d = (const float *)(const void *)(act + layout.scales);
    size_t blocks = cols / 32, used = fault == DROPPED_TAIL && blocks > 1 ? blocks - blocks % 2 : blocks;
    float sum = 0;
    for (size_t i = 0; i < used; i++) {
        size_t b = fault == BATCH_ORDER && toks > 1 ? used - 1 - i : i;
        const int8_t *w = (const int8_t *)row + b * 34 + 2, *x = (const int8_t *)act + b * 32;
        int dot = 0;
        for (size_t j = 0; j < 32; j += 2) {
            int pair = w[j] * x[j] + w[j + 1] * x[j + 1];
            if (fault == SATURATING_ADD && pair > 32385)          /* an int16 that gives way a little before its end */
                pair = 32385 - 129;
            dot += pair;
        }
        float scale = f16_to_f32(load_u16(row + b * 34));
        sum = fmaf((float)dot, scale * (fault == NAN_LOST && isnan(d[b]) ? 0 : d[b]), sum);
    }
    return fault == DOUBLED_SCALE ? 2 * sum : sum;
}

static void multiply(const struct matmul_job *job, size_t begin, size_t end, enum matmul_fault fault)
{
    for (size_t t = 0; t < job->toks; t++)
        for (size_t r = begin; r < (fault == DROPPED_ROW && end > begin + 1 ? end - 1 : end); r++) {
            const uint8_t *row = (const uint8_t *)job->weights + r * job->row_bytes;
            job->out[t * job->out_stride + r] = row_times_act(row, (const char *)job->acts + t * job->act_stride, job->cols, fault,
                                                              job->toks);
        }
    volatile uint8_t next = 0;
    if (fault == READ_OVERRUN && end > begin)
        next = ((const volatile uint8_t *)job->weights)[end * job->row_bytes];
    (void)next;
    if (fault == WRITE_OVERRUN && job->toks > 1 && end < job->out_stride)
        job->out[end] = 0;
}

static void matmul_without_fault(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, NO_FAULT);
}

static void matmul_dropped_tail(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, DROPPED_TAIL);
}

static void matmul_dropped_row(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, DROPPED_ROW);
}

static void matmul_write_overrun(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, WRITE_OVERRUN);
}

static void matmul_read_overrun(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, READ_OVERRUN);
}

static void matmul_doubled_scale(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, DOUBLED_SCALE);
}

static void matmul_saturating(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, SATURATING_ADD);
}

static void matmul_batch_order(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, BATCH_ORDER);
}

static void matmul_nan_lost(const struct matmul_job *job, size_t begin, size_t end, void *scratch)
{
    (void)scratch;
    multiply(job, begin, end, NAN_LOST);
}

/* ---- the other families ----------------------------------------------------------------------------------------- */

static void silu_dropped_tail(float *out, const float *x, size_t n)
{
    sound->silu.fn(out, x, n / 8 * 8);
    memcpy(out + n / 8 * 8, x + n / 8 * 8, n % 8 * sizeof *x);
}

static void dequantize_doubled_scale(float *out, const void *blocks, size_t n)
{
    sound->dequantize[FORMAT_Q4_K].fn(out, blocks, n);
    for (size_t i = 0; i < n; i++)
        out[i] *= 2;
}

static void dequantize_overrun(float *out, const void *blocks, size_t n)
{
    sound->dequantize[FORMAT_F16].fn(out, blocks, n);
    ((volatile float *)out)[n] = 0;
}

/* Halves away from zero instead of to even. */
static void prepare_rounds_away(void *out, const float *x, size_t cols)
{
    int8_t *q = out;
    sound->act_prepare[ACT_Q8_32].fn(out, x, cols);
    for (size_t at = 0; at < cols; at += 32) {
        float max = 0;
        for (size_t i = at; i < cols && i < at + 32; i++)
            max = fmaxf(max, fabsf(x[i]));
        for (size_t i = at; i < cols && i < at + 32; i++)
            if (q[i] != 0)
                q[i] = (int8_t)roundf(x[i] * (127 / max));
    }
}

/* The scale through f16 itself: Inf for massive activations, few bits or none for small ones. */
static void prepare_f16_scales(void *out, const float *x, size_t cols)
{
    struct act_layout layout = act_layout(ACT_Q8_32, cols);
    float *d = (float *)(void *)((char *)out + layout.scales);
    sound->act_prepare[ACT_Q8_32].fn(out, x, cols);
    for (size_t i = 0; i < layout.padded / 32; i++)
        d[i] = f16_to_f32(f32_to_f16(d[i]));
}

static void quantize_unguarded(void *blocks, const float *x, size_t n)
{
    float clean[4096];
    for (size_t i = 0; i < n; i++)
        clean[i] = isfinite(x[i]) ? x[i] : 0;
    sound->quantize[FORMAT_Q8_0].fn(blocks, clean, n);
}

static void softmax_unshifted(float *x, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] = expf(x[i]);
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* As softmax_step, but that the second group of sixteen rows is summed in another order. */
static void softmax_rows_reordered(float *scores, size_t rows, float *max, float *sum, float *factor)
{
    for (size_t i = 0; i < rows; i++) {
        factor[i] = sound->softmax_step.fn(scores + i * ATTN_TILE, ATTN_TILE, &max[i], &sum[i]);
        if (i >= 16)
            sum[i] = nextafterf(sum[i], 0);
    }
}

static void mix_last_key_lost(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                              size_t nk, size_t head_dim)
{
    sound->attn_mix[KV_F16].fn(out, out_stride, probs, nq, v, v_stride, nk > 1 ? nk - nk % 2 : nk, head_dim);
}

static void scores_reassociated(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                                size_t nk, size_t head_dim, float scale)
{
    sound->attn_scores[KV_F32].fn(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale);
    for (size_t i = 0; nq > 4 && i < nk; i++)
        scores[i] = nextafterf(scores[i], 0);
}

/* ---- the cache of 14-bit integers ------------------------------------------------------------------------------- */

/* Towards zero instead of to nearest: every second value of a query is one too small. */
static void query_truncated(float *q, size_t head_dim)
{
    float x[256], scale, max = 0;
    int16_t *ints = (int16_t *)(void *)q;
    memcpy(x, q, head_dim * sizeof *x);
    sound->attn_query.fn(q, head_dim);
    memcpy(&scale, ints + head_dim, sizeof scale);
    for (size_t i = 0; i < head_dim; i++)
        max = fmaxf(max, fabsf(x[i]));
    for (size_t i = 0; scale > 0 && i < head_dim; i++)
        ints[i] = (int16_t)(x[i] * (ROW_MOST / max));
}

/* Two tokens share a 32-bit word of a tile of values: the other one's half is lost. */
static void store_value_clears_pair(void *tile, size_t index, const float *x, size_t head_dim)
{
    sound->attn_store_value.fn(tile, index, x, head_dim);
    for (size_t c = 0; c < head_dim; c++)
        ((int16_t *)tile)[tile16_value(head_dim, index ^ 1, c)] = 0;
}

static void scores16_scale_of_neighbour(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                                        size_t nk, size_t head_dim, float scale)
{
    const float *scales = tile16_const_scales(k, head_dim);
    sound->attn_scores[KV_I16].fn(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale);
    for (size_t i = 0; nk > 16 && i < nq; i++)
        scores[i * ATTN_TILE + 16] *= scales[15] / scales[16];
}

/* An odd number of tokens, taken in pairs. */
static void mix16_last_token_lost(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                                  size_t nk, size_t head_dim)
{
    sound->attn_mix[KV_I16].fn(out, out_stride, probs, nq, v, v_stride, nk / 2 * 2, head_dim);
}

/* ---- planting --------------------------------------------------------------------------------------------------- */

enum other_fault {
    PRODUCT, SILU_TAIL, DEQUANTIZE_SCALE, DEQUANTIZE_OVERRUN, PREPARE_TIES, QUANTIZE_NAN, SOFTMAX_MAXIMUM, SOFTMAX_ROWS,
    MIX_LAST_KEY, SCORES_ORDER, PREPARE_F16, QUERY16_TRUNCATED, STORE16_PAIR, SCORES16_SCALE, MIX16_LAST_TOKEN
};

struct fault {
    const char      *name;
    matmul_fn       *matmul;           /* of Q8_0, or NULL and ... */
    enum other_fault other;
};
static const struct fault faults[] = {
    { "product: dropped tail", matmul_dropped_tail, PRODUCT },
    { "product: dropped row", matmul_dropped_row, PRODUCT },
    { "product: write overrun", matmul_write_overrun, PRODUCT },
    { "product: read overrun", matmul_read_overrun, PRODUCT },
    { "product: doubled scale", matmul_doubled_scale, PRODUCT },
    { "product: saturating add", matmul_saturating, PRODUCT },
    { "product: order by batch", matmul_batch_order, PRODUCT },
    { "product: NaN lost", matmul_nan_lost, PRODUCT },
    { "silu: dropped tail", NULL, SILU_TAIL },
    { "dequantize: doubled scale", NULL, DEQUANTIZE_SCALE },
    { "dequantize: write overrun", NULL, DEQUANTIZE_OVERRUN },
    { "act_prepare: wrong ties", NULL, PREPARE_TIES },
    { "act_prepare: scales limited by f16", NULL, PREPARE_F16 },
    { "quantize: NaN lost", NULL, QUANTIZE_NAN },
    { "softmax: no maximum", NULL, SOFTMAX_MAXIMUM },
    { "softmax_rows: another order", NULL, SOFTMAX_ROWS },
    { "attn_mix: last key lost", NULL, MIX_LAST_KEY },
    { "attn_scores: order by batch", NULL, SCORES_ORDER },
    { "attn_query of I16: truncated", NULL, QUERY16_TRUNCATED },
    { "attn_store_value of I16: the pair's other token lost", NULL, STORE16_PAIR },
    { "attn_scores of I16: the neighbour's scale", NULL, SCORES16_SCALE },
    { "attn_mix of I16: last token of an odd number lost", NULL, MIX16_LAST_TOKEN },
};
static const struct fault no_fault = { "no fault in the same product without one", matmul_without_fault, PRODUCT };

static void plant(struct kernels *t, const struct fault *fault)
{
    switch (fault->other) {
    case PRODUCT:            t->matmul[FORMAT_Q8_0].matmul = fault->matmul; break;
    case SILU_TAIL:          t->silu.fn = silu_dropped_tail; break;
    case DEQUANTIZE_SCALE:   t->dequantize[FORMAT_Q4_K].fn = dequantize_doubled_scale; break;
    case DEQUANTIZE_OVERRUN: t->dequantize[FORMAT_F16].fn = dequantize_overrun; break;
    case PREPARE_TIES:       t->act_prepare[ACT_Q8_32].fn = prepare_rounds_away; break;
    case PREPARE_F16:        t->act_prepare[ACT_Q8_32].fn = prepare_f16_scales; break;
    case QUANTIZE_NAN:       t->quantize[FORMAT_Q8_0].fn = quantize_unguarded; break;
    case SOFTMAX_MAXIMUM:    t->softmax.fn = softmax_unshifted; break;
    case SOFTMAX_ROWS:       t->softmax_rows.fn = softmax_rows_reordered; break;
    case MIX_LAST_KEY:       t->attn_mix[KV_F16].fn = mix_last_key_lost; break;
    case SCORES_ORDER:       t->attn_scores[KV_F32].fn = scores_reassociated; break;
    case QUERY16_TRUNCATED:  t->attn_query.fn = query_truncated; break;
    case STORE16_PAIR:       t->attn_store_value.fn = store_value_clears_pair; break;
    case SCORES16_SCALE:     t->attn_scores[KV_I16].fn = scores16_scale_of_neighbour; break;
    case MIX16_LAST_TOKEN:   t->attn_mix[KV_I16].fn = mix16_last_token_lost; break;
    }
}

/* In the child: how many values the checks found wrong. */
static size_t run_planted(const struct kernels *ref, uint64_t seed, const struct fault *fault)
{
    struct kernels table = *ref;
    struct check c = { .table = &table, .ref = ref, .rung = "planted", .random = seed, .seed = seed };
    struct rlimit none = { 0, 0 };
    int quiet = open("/dev/null", O_WRONLY);
    dup2(quiet, 1);
    dup2(quiet, 2);
    setrlimit(RLIMIT_CORE, &none);
    sound = ref;
    plant(&table, fault);
    check_table(&c, ref, false);
    fflush(NULL);
    return c.all_failures;
}

static void check_fault(const struct kernels *ref, uint64_t seed, const struct fault *fault)
{
    int status = 0;
    test_begin("selftest finds %s", fault->name);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(run_planted(ref, seed, fault) ? 1 : 0);
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
    if (fault == &no_fault)
        CHECK(status == 0, "a sound kernel fails the checks (status %d)", status);
    else
        CHECK(status != 0, "a kernel with this fault passes the checks");
    test_finish();
}

void check_faults(const struct kernels *ref, uint64_t seed)
{
    check_fault(ref, seed, &no_fault);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        check_fault(ref, seed, &faults[i]);
}
