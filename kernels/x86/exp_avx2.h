/* exp_avx2.h - e^x for eight floats, in two parts so that callers can scale last; exp_avx512.h explains the method. */
#ifndef QUERN_EXP_AVX2_H
#define QUERN_EXP_AVX2_H

#include "vector_avx2.h"

/* e^(x + low) = power * 2^n, n a whole number; `low` is a correction far below x. NaN gives NaN; x is cut to [-200, 200]. */
static ALWAYS_INLINE __m256 exp_parts(__m256 x, __m256 low, __m256 *n)
{
    __m256 cut = _mm256_min_ps(_mm256_set1_ps(200), _mm256_max_ps(_mm256_set1_ps(-200), x));
    x = _mm256_blendv_ps(cut, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    *n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(*n, _mm256_set1_ps(0x1.62ep-1f), x);
    r = _mm256_add_ps(_mm256_fnmadd_ps(*n, _mm256_set1_ps(0x1.0bfbe8p-15f), r), low);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r);
    return _mm256_add_ps(p, _mm256_set1_ps(1));
}

static ALWAYS_INLINE __m256 power_of_2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* x * 2^n for n in [-300, 300], in three steps: no single power reaches so far, and the result may be subnormal. */
static ALWAYS_INLINE __m256 scale_by_power(__m256 x, __m256 n)
{
    const __m256i most = _mm256_set1_epi32(126), least = _mm256_set1_epi32(-126);
    __m256i left = _mm256_cvtps_epi32(n);
    for (int i = 0; i < 3; i++) {
        __m256i step = _mm256_max_epi32(least, _mm256_min_epi32(most, left));
        x = _mm256_mul_ps(x, power_of_2(step));
        left = _mm256_sub_epi32(left, step);
    }
    return x;
}

/* e^(x - max), the rounding of the difference made good; 0 for -INFINITY. */
static ALWAYS_INLINE __m256 shifted_exp(__m256 x, __m256 max)
{
    __m256 n, s = _mm256_sub_ps(x, max), t = _mm256_sub_ps(s, x);
    __m256 low = _mm256_sub_ps(_mm256_sub_ps(x, _mm256_sub_ps(s, t)), _mm256_add_ps(max, t));
    low = _mm256_and_ps(low, _mm256_cmp_ps(low, low, _CMP_ORD_Q));
    __m256 e = exp_parts(s, low, &n);
    e = _mm256_blendv_ps(scale_by_power(e, n), s, _mm256_cmp_ps(s, s, _CMP_UNORD_Q));
    return _mm256_and_ps(e, _mm256_cmp_ps(x, _mm256_set1_ps(-INFINITY), _CMP_NEQ_UQ));
}

/* x / (1 + e^-v): sigmoid by e^-|v|, whose power of two, halved before, is applied last where v < 0. */
static ALWAYS_INLINE __m256 times_sigmoid(__m256 x, __m256 v)
{
    __m256 n, p = exp_parts(_mm256_or_ps(v, _mm256_set1_ps(-0.0f)), _mm256_setzero_ps(), &n);
    __m256 ordered = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
    n = _mm256_and_ps(n, ordered);
    __m256 below = _mm256_add_ps(_mm256_set1_ps(1), scale_by_power(p, n));
    __m256 negative = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ);
    __m256 above = _mm256_blendv_ps(x, _mm256_mul_ps(x, _mm256_mul_ps(p, _mm256_set1_ps(0.5f))), negative);
    __m256 y = _mm256_div_ps(above, below);
    return _mm256_blendv_ps(y, scale_by_power(y, _mm256_add_ps(n, _mm256_set1_ps(1))), negative);
}

#endif
