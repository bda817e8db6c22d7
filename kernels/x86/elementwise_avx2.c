#include "x86.h"

#include "exp_avx2.h"

/* Norms, rotations, gates and softmax on AVX2 (contracts in kernels.h). Sums over whole vectors are kept in double; the last,
 * partial vector is masked. */

static ALWAYS_INLINE __m256d lower(__m256 v)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(v));
}

static ALWAYS_INLINE __m256d upper(__m256 v)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}

void rms_norm_avx2(float *out, const float *x, const float *weight, size_t n, float eps)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i);
        low = _mm256_fmadd_pd(lower(v), lower(v), low);
        high = _mm256_fmadd_pd(upper(v), upper(v), high);
    }
    double sum = sum_doubles(_mm256_add_pd(low, high));
    __m256 scale = _mm256_set1_ps((float)(1 / sqrt(sum / (double)n + eps)));
    for (size_t i = 0; i < n; i += 8) {
        __m256 y = _mm256_mul_ps(load_8(x + i, n - i), scale);
        store_8(out + i, weight ? _mm256_mul_ps(y, load_8(weight + i, n - i)) : y, n - i);
    }
}

static ALWAYS_INLINE __m256d normed(__m256d x, __m256d mean, __m256d scale, __m256d weight, __m256d bias)
{
    return _mm256_add_pd(_mm256_mul_pd(_mm256_mul_pd(_mm256_sub_pd(x, mean), scale), weight), bias);
}

void layer_norm_avx2(float *out, const float *x, const float *weight, const float *bias, size_t n, float eps)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i);
        low = _mm256_add_pd(low, lower(v));
        high = _mm256_add_pd(high, upper(v));
    }
    double mean = sum_doubles(_mm256_add_pd(low, high)) / (double)n;
    __m256d m = _mm256_set1_pd(mean);
    low = high = _mm256_setzero_pd();
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i), there = _mm256_castsi256_ps(lanes_8(n - i));
        __m256d a = _mm256_sub_pd(lower(v), m), b = _mm256_sub_pd(upper(v), m);
        __m256i wide_low = _mm256_cvtepi32_epi64(_mm_castps_si128(_mm256_castps256_ps128(there)));
        __m256i wide_high = _mm256_cvtepi32_epi64(_mm_castps_si128(_mm256_extractf128_ps(there, 1)));
        a = _mm256_and_pd(a, _mm256_castsi256_pd(wide_low));
        b = _mm256_and_pd(b, _mm256_castsi256_pd(wide_high));
        low = _mm256_fmadd_pd(a, a, low);
        high = _mm256_fmadd_pd(b, b, high);
    }
    __m256d scale = _mm256_set1_pd(1 / sqrt(sum_doubles(_mm256_add_pd(low, high)) / (double)n + eps));
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i);
        __m256 w = weight ? load_8(weight + i, n - i) : _mm256_set1_ps(1);
        __m256 b = bias ? load_8(bias + i, n - i) : _mm256_setzero_ps();
        __m128 first = _mm256_cvtpd_ps(normed(lower(v), m, scale, lower(w), lower(b)));
        __m128 second = _mm256_cvtpd_ps(normed(upper(v), m, scale, upper(w), upper(b)));
        store_8(out + i, _mm256_set_m128(second, first), n - i);
    }
}

static void rope_neighbours(float *x, const float *cs, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i), c = load_8(cs + i, n - i);
        __m256 other = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), _mm256_movehdup_ps(c));
        store_8(x + i, _mm256_fmaddsub_ps(v, _mm256_moveldup_ps(c), other), n - i);
    }
}

static void rope_halves(float *x, const float *cs, size_t pairs)
{
    for (size_t i = 0; i < pairs; i += 8) {
        size_t n = pairs - i;
        __m256 a = load_8(x + i, n), b = load_8(x + pairs + i, n);
        __m256 first = load_8(cs + 2 * i, 2 * n), second = n > 4 ? load_8(cs + 2 * i + 8, 2 * n - 8) : _mm256_setzero_ps();
        __m256 low = _mm256_permute2f128_ps(first, second, 0x20), high = _mm256_permute2f128_ps(first, second, 0x31);
        __m256 cosine = _mm256_shuffle_ps(low, high, 0x88), sine = _mm256_shuffle_ps(low, high, 0xdd);
        store_8(x + i, _mm256_fmsub_ps(a, cosine, _mm256_mul_ps(b, sine)), n);
        store_8(x + pairs + i, _mm256_fmadd_ps(a, sine, _mm256_mul_ps(b, cosine)), n);
    }
}

void rope_avx2(float *x, const float *cs, size_t pairs, bool interleaved)
{
    if (interleaved)
        rope_neighbours(x, cs, 2 * pairs);
    else
        rope_halves(x, cs, pairs);
}

/* gelu's tanh form is x / (1 + e^-v) with v = 2 sqrt(2 / pi) (x + 0.044715 x^3). */
static ALWAYS_INLINE __m256 gelu_argument(__m256 x)
{
    const __m256 linear = _mm256_set1_ps(1.5957691216057308f), cubic = _mm256_set1_ps(1.5957691216057308f * 0.044715f);
    return _mm256_mul_ps(x, _mm256_fmadd_ps(_mm256_mul_ps(x, x), cubic, linear));
}

void silu_mul_avx2(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 x = load_8(gate + i, n - i);
        store_8(out + i, _mm256_mul_ps(times_sigmoid(x, x), load_8(up + i, n - i)), n - i);
    }
}

void gelu_mul_avx2(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 x = load_8(gate + i, n - i);
        store_8(out + i, _mm256_mul_ps(times_sigmoid(x, gelu_argument(x)), load_8(up + i, n - i)), n - i);
    }
}

void silu_avx2(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i);
        store_8(out + i, times_sigmoid(v, v), n - i);
    }
}

void gelu_avx2(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = load_8(x + i, n - i);
        store_8(out + i, times_sigmoid(v, gelu_argument(v)), n - i);
    }
}

void axpy_avx2(float *out, const float *x, float a, size_t n)
{
    const __m256 factor = _mm256_set1_ps(a);
    for (size_t i = 0; i < n; i += 8)
        store_8(out + i, _mm256_fmadd_ps(factor, load_8(x + i, n - i), load_8(out + i, n - i)), n - i);
}

float dot_avx2(const float *a, const float *b, size_t n)
{
    __m256 sum[4] = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps() };
    size_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (size_t k = 0; k < 4; k++)
            sum[k] = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8 * k), _mm256_loadu_ps(b + i + 8 * k), sum[k]);
    for (; i < n; i += 8)
        sum[0] = _mm256_fmadd_ps(load_8(a + i, n - i), load_8(b + i, n - i), sum[0]);
    return sum_vector_8(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

/* Eight scores, those beyond the end -INFINITY. */
static ALWAYS_INLINE __m256 load_scores(const float *x, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), load_8(x, n), _mm256_castsi256_ps(lanes_8(n)));
}

/* The largest of x and `max`; NaN is passed over (max_ps gives its second operand then). */
static float largest(const float *x, size_t n, float max)
{
    __m256 most = _mm256_set1_ps(max);
    for (size_t i = 0; i < n; i += 8)
        most = _mm256_max_ps(load_scores(x + i, n - i), most);
    __m128 quad = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    quad = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_max_ss(quad, _mm_shuffle_ps(quad, quad, 1)));
}

/* x = e^(x - max); gives the sum. */
static double exponentials(float *x, size_t n, float max)
{
    __m256d low = _mm256_setzero_pd(), high = low;
    for (size_t i = 0; i < n; i += 8) {
        __m256 e = shifted_exp(load_scores(x + i, n - i), _mm256_set1_ps(max));
        store_8(x + i, e, n - i);
        low = _mm256_add_pd(low, lower(e));
        high = _mm256_add_pd(high, upper(e));
    }
    return sum_doubles(_mm256_add_pd(low, high));
}

void softmax_avx2(float *x, size_t n)
{
    double sum = exponentials(x, n, largest(x, n, -INFINITY));
    __m256 scale = _mm256_set1_ps(sum == 0 ? 0 : (float)(1 / sum));
    for (size_t i = 0; i < n; i += 8)
        store_8(x + i, _mm256_mul_ps(load_8(x + i, n - i), scale), n - i);
}

float softmax_step_avx2(float *scores, size_t n, float *max, float *sum)
{
    float old = *max, top = largest(scores, n, old);
    double total = exponentials(scores, n, top);
    float factor = old == top ? 1 : _mm256_cvtss_f32(shifted_exp(_mm256_set1_ps(old), _mm256_set1_ps(top)));
    *max = top;
    *sum = (float)(*sum * (double)factor + total);
    return factor;
}
