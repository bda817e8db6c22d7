#include "x86.h"

#include "exp_avx512.h"

/* Norms, rotations, gates and softmax on AVX-512 (contracts in kernels.h). Sums over whole vectors are kept in double: they are
 * few, and no length or size of input then needs a thought. The last, partial vector is masked. */

static ALWAYS_INLINE __m512d lower(__m512 v)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(v));
}

static ALWAYS_INLINE __m512d upper(__m512 v)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
}

static ALWAYS_INLINE __m512 joined(__m512d low, __m512d high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}

void rms_norm_avx512(float *out, const float *x, const float *weight, size_t n, float eps)
{
    __m512d low = _mm512_setzero_pd(), high = low;
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_16(n - i), x + i);
        low = _mm512_fmadd_pd(lower(v), lower(v), low);
        high = _mm512_fmadd_pd(upper(v), upper(v), high);
    }
    double sum = _mm512_reduce_add_pd(_mm512_add_pd(low, high));
    __m512 scale = _mm512_set1_ps((float)(1 / sqrt(sum / (double)n + eps)));
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 y = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale);
        _mm512_mask_storeu_ps(out + i, mask, weight ? _mm512_mul_ps(y, _mm512_maskz_loadu_ps(mask, weight + i)) : y);
    }
}

void layer_norm_avx512(float *out, const float *x, const float *weight, const float *bias, size_t n, float eps)
{
    __m512d low = _mm512_setzero_pd(), high = low;
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_16(n - i), x + i);
        low = _mm512_add_pd(low, lower(v));
        high = _mm512_add_pd(high, upper(v));
    }
    double mean = _mm512_reduce_add_pd(_mm512_add_pd(low, high)) / (double)n;
    __m512d m = _mm512_set1_pd(mean);
    low = high = _mm512_setzero_pd();
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        __m512d a = _mm512_maskz_sub_pd((__mmask8)mask, lower(v), m), b = _mm512_maskz_sub_pd((__mmask8)(mask >> 8), upper(v), m);
        low = _mm512_fmadd_pd(a, a, low);
        high = _mm512_fmadd_pd(b, b, high);
    }
    __m512d scale = _mm512_set1_pd(1 / sqrt(_mm512_reduce_add_pd(_mm512_add_pd(low, high)) / (double)n + eps));
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        __m512 w = weight ? _mm512_maskz_loadu_ps(mask, weight + i) : _mm512_set1_ps(1);
        __m512 b = bias ? _mm512_maskz_loadu_ps(mask, bias + i) : _mm512_setzero_ps();
        __m512d first = _mm512_mul_pd(_mm512_mul_pd(_mm512_sub_pd(lower(v), m), scale), lower(w));
        __m512d second = _mm512_mul_pd(_mm512_mul_pd(_mm512_sub_pd(upper(v), m), scale), upper(w));
        _mm512_mask_storeu_ps(out + i, mask, joined(_mm512_add_pd(first, lower(b)), _mm512_add_pd(second, upper(b))));
    }
}

static void rope_neighbours(float *x, const float *cs, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i), c = _mm512_maskz_loadu_ps(mask, cs + i);
        __m512 other = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), _mm512_movehdup_ps(c));
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmaddsub_ps(v, _mm512_moveldup_ps(c), other));
    }
}

static void rope_halves(float *x, const float *cs, size_t pairs)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    for (size_t i = 0; i < pairs; i += 16) {
        __mmask16 mask = lanes_16(pairs - i);
        __m512 a = _mm512_maskz_loadu_ps(mask, x + i), b = _mm512_maskz_loadu_ps(mask, x + pairs + i);
        __m512 first = _mm512_maskz_loadu_ps(lanes_16(2 * (pairs - i)), cs + 2 * i), second = _mm512_setzero_ps();
        if (pairs - i > 8)
            second = _mm512_maskz_loadu_ps(lanes_16(2 * (pairs - i) - 16), cs + 2 * i + 16);
        __m512 cosine = _mm512_permutex2var_ps(first, even, second), sine = _mm512_permutex2var_ps(first, odd, second);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmsub_ps(a, cosine, _mm512_mul_ps(b, sine)));
        _mm512_mask_storeu_ps(x + pairs + i, mask, _mm512_fmadd_ps(a, sine, _mm512_mul_ps(b, cosine)));
    }
}

void rope_avx512(float *x, const float *cs, size_t pairs, bool interleaved)
{
    if (interleaved)
        rope_neighbours(x, cs, 2 * pairs);
    else
        rope_halves(x, cs, pairs);
}

/* gelu's tanh form is x / (1 + e^-v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3). */
static ALWAYS_INLINE __m512 gelu_argument(__m512 x)
{
    const __m512 linear = _mm512_set1_ps(1.5957691216057308f), cubic = _mm512_set1_ps(1.5957691216057308f * 0.044715f);
    return _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(x, x), cubic, linear));
}

void silu_mul_avx512(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(times_sigmoid(x, x), _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

void gelu_mul_avx512(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 y = times_sigmoid(x, gelu_argument(x));
        _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(y, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

void silu_avx512(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        _mm512_mask_storeu_ps(out + i, mask, times_sigmoid(v, v));
    }
}

void gelu_avx512(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        _mm512_mask_storeu_ps(out + i, mask, times_sigmoid(v, gelu_argument(v)));
    }
}

void axpy_avx512(float *out, const float *x, float a, size_t n)
{
    const __m512 factor = _mm512_set1_ps(a);
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 y = _mm512_fmadd_ps(factor, _mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, out + i));
        _mm512_mask_storeu_ps(out + i, mask, y);
    }
}

float dot_avx512(const float *a, const float *b, size_t n)
{
    __m512 sum[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };
    size_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (size_t k = 0; k < 4; k++)
            sum[k] = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16 * k), _mm512_loadu_ps(b + i + 16 * k), sum[k]);
    for (; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        sum[0] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + i), _mm512_maskz_loadu_ps(mask, b + i), sum[0]);
    }
    return sum_vector(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

/* The largest of x and `max`; NaN is passed over (max_ps gives its second operand then). */
static float largest(const float *x, size_t n, float max)
{
    __m512 most = _mm512_set1_ps(max);
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        most = _mm512_mask_max_ps(most, mask, _mm512_maskz_loadu_ps(mask, x + i), most);
    }
    return _mm512_reduce_max_ps(most);
}

/* x = e^(x - max); gives the sum. */
static double exponentials(float *x, size_t n, float max)
{
    __m512d low = _mm512_setzero_pd(), high = low;
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        __m512 e = _mm512_maskz_mov_ps(mask, shifted_exp(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(max)));
        _mm512_mask_storeu_ps(x + i, mask, e);
        low = _mm512_add_pd(low, lower(e));
        high = _mm512_add_pd(high, upper(e));
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

void softmax_avx512(float *x, size_t n)
{
    double sum = exponentials(x, n, largest(x, n, -INFINITY));
    __m512 scale = _mm512_set1_ps(sum == 0 ? 0 : (float)(1 / sum));
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_16(n - i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale));
    }
}

static float softmax_any(float *scores, size_t n, float *max, float *sum)
{
    float old = *max, top = largest(scores, n, old);
    double total = exponentials(scores, n, top);
    float factor = old == top ? 1 : _mm512_cvtss_f32(shifted_exp(_mm512_set1_ps(old), _mm512_set1_ps(top)));
    *max = top;
    *sum = (float)(*sum * (double)factor + total);
    return factor;
}

/* e^x for x <= 0 and -infinity; NaN passes. In powers of two, y = x / ln 2: 2^(y - floor y) by a polynomial of relative error
 * 8e-8 on [0, 1] (1 at 0, fitted to the least largest error), then times 2^floor(y), which is what scalef does with y itself;
 * reduce gives 0 for infinity. Ten instructions where exp_within takes sixteen. The rounding of y, |x| * 2^-24 at most, and that of
 * x - max are the contract's |x - max|. */
static ALWAYS_INLINE __m512 falling_exp(__m512 x)
{
    const __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f));
    const __m512 r = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.e974fap-10f), r, _mm512_set1_ps(0x1.277856p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c91ce6p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebdb56p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e4bap-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    return _mm512_scalef_ps(p, y);
}

/* softmax_step for a whole tile, which stays in registers; the rounding of x - max is within the contract. It stands beside 512
 * FMAs per query and tile for a head of 64, so every five instructions here cost a percent of the attention. */
static float softmax_tile(float *scores, float *max, float *sum)
{
    __m512 v[4];
    UNROLL_ALL
    for (int i = 0; i < 4; i++)
        v[i] = _mm512_loadu_ps(scores + 16 * i);
    const __m512 old = _mm512_set1_ps(*max);
    __m512 most = _mm512_max_ps(v[0], _mm512_max_ps(v[1], old)), rest = _mm512_max_ps(v[2], _mm512_max_ps(v[3], old));
    const float top = _mm512_reduce_max_ps(_mm512_max_ps(most, rest));
    float factor = 1;
    if (top == -INFINITY)                              /* nothing is seen so far: x - max would be NaN */
        return softmax_any(scores, ATTN_TILE, max, sum);
    if (*max != top)
        factor = _mm512_cvtss_f32(falling_exp(_mm512_sub_ps(old, _mm512_set1_ps(top))));
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {
        v[i] = falling_exp(_mm512_sub_ps(v[i], _mm512_set1_ps(top)));
        _mm512_storeu_ps(scores + 16 * i, v[i]);
    }
    *max = top;
    *sum = *sum * factor + sum_vector(_mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3])));
    return factor;
}

float softmax_step_avx512(float *scores, size_t n, float *max, float *sum)
{
    return n == ATTN_TILE ? softmax_tile(scores, max, sum) : softmax_any(scores, n, max, sum);
}

/* The same for n <= most rows of a tile, most 4 or 16, phase by phase: largest scores, exponentials, sums. In softmax_tile each
 * phase waits for the one before, and with its hundred instructions only a few rows fit the processor's window. Attention of a
 * prefill at depth 4096 takes 3 % less time so, of 16 sequences at once 9 % less (bench/results/2026-11-21-depth.md). */
static ALWAYS_INLINE void softmax_some(float *scores, size_t n, float *max, float *sum, float *factor, size_t most)
{
    const __mmask16 rows = lanes_16(n);
    const __m512 old = _mm512_maskz_loadu_ps(rows, max);
    _Alignas(64) float shift[16];
    __m512 part[16];
    for (size_t i = 0; i < most; i++) {
        const float *row = scores + i * ATTN_TILE;
        part[i] = _mm512_setzero_ps();
        if (i >= n)
            continue;
        const __m512 floor = _mm512_set1_ps(max[i]);
        part[i] = _mm512_max_ps(_mm512_max_ps(_mm512_loadu_ps(row), _mm512_max_ps(_mm512_loadu_ps(row + 16), floor)),
                                _mm512_max_ps(_mm512_loadu_ps(row + 32), _mm512_max_ps(_mm512_loadu_ps(row + 48), floor)));
    }
    const __m512 tops = most == 4 ? fold_4_vectors(part, FOLD_MAX) : fold_16_vectors(part, FOLD_MAX);
    const __mmask16 moved = _mm512_cmp_ps_mask(old, tops, _CMP_NEQ_UQ);
    const __m512 scale = _mm512_mask_mov_ps(_mm512_set1_ps(1), moved, falling_exp(_mm512_sub_ps(old, tops)));
    /* Where nothing is seen so far x - max would be NaN. */
    const __mmask16 blind = _mm512_cmp_ps_mask(tops, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ);
    _mm512_store_ps(shift, _mm512_maskz_mov_ps((__mmask16)~blind, tops));
    for (size_t i = 0; i < n; i++) {
        float *row = scores + i * ATTN_TILE;
        __m512 v[4];
        UNROLL_ALL
        for (size_t j = 0; j < 4; j++) {
            v[j] = falling_exp(_mm512_sub_ps(_mm512_loadu_ps(row + 16 * j), _mm512_set1_ps(shift[i])));
            _mm512_storeu_ps(row + 16 * j, v[j]);
        }
        part[i] = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
    }
    const __m512 sums = most == 4 ? fold_4_vectors(part, FOLD_SUM) : fold_16_vectors(part, FOLD_SUM);
    const __m512 after = _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(rows, sum), scale), sums);
    _mm512_mask_storeu_ps(sum, rows, after);
    _mm512_mask_storeu_ps(max, rows, tops);
    _mm512_mask_storeu_ps(factor, rows, scale);
}

void softmax_rows_avx512(float *scores, size_t rows, float *max, float *sum, float *factor)
{
    size_t i = 0;
    for (; i + 16 <= rows; i += 16)
        softmax_some(scores + i * ATTN_TILE, 16, max + i, sum + i, factor + i, 16);
    for (; i + 4 < rows; i += 16)
        softmax_some(scores + i * ATTN_TILE, rows - i < 16 ? rows - i : 16, max + i, sum + i, factor + i, 16);
    if (i < rows)
        softmax_some(scores + i * ATTN_TILE, rows - i, max + i, sum + i, factor + i, 4);
}
