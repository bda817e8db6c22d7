/* exp_avx512.h - e^x for sixteen floats, in two parts so that callers can scale last.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its series up to r^7, whose remainder is below 0.05 ulp there. ln 2 is split so that
 * n * ln2_high is exact for |n| < 2^11. Error of the product below 1.5 ulp. */
#ifndef QUERN_EXP_AVX512_H
#define QUERN_EXP_AVX512_H

#include "vector_avx512.h"

/* e^(x + low) = power * 2^n for |x| <= 200 or NaN, which gives NaN; `low` is a correction far below x. */
static ALWAYS_INLINE __m512 exp_within(__m512 x, __m512 low, __m512 *n)
{
    *n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(*n, _mm512_set1_ps(0x1.62ep-1f), x);
    r = _mm512_add_ps(_mm512_fnmadd_ps(*n, _mm512_set1_ps(0x1.0bfbe8p-15f), r), low);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
    return _mm512_add_ps(p, _mm512_set1_ps(1));
}

/* The same for any x, which is cut to [-200, 200]. */
static ALWAYS_INLINE __m512 exp_parts(__m512 x, __m512 low, __m512 *n)
{
    const __m512 limit = _mm512_set1_ps(200);
    __m512 cut = _mm512_min_ps(limit, _mm512_max_ps(_mm512_set1_ps(-200), x));
    return exp_within(_mm512_mask_mov_ps(cut, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x), low, n);
}

/* e^(x - max), the rounding of the difference made good; 0 for -INFINITY. */
static ALWAYS_INLINE __m512 shifted_exp(__m512 x, __m512 max)
{
    __m512 n, s = _mm512_sub_ps(x, max), t = _mm512_sub_ps(s, x);
    __m512 low = _mm512_sub_ps(_mm512_sub_ps(x, _mm512_sub_ps(s, t)), _mm512_add_ps(max, t));
    low = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(low, low, _CMP_ORD_Q), low);
    __m512 e = exp_parts(s, low, &n);
    e = _mm512_scalef_ps(e, n);
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ), e);
}

/* x / (1 + e^-v): sigmoid by e^-|v|, whose power of two is applied last where v < 0, so that small results keep their digits; the
 * power is halved before, so that the largest x does not overflow on the way. */
static ALWAYS_INLINE __m512 times_sigmoid(__m512 x, __m512 v)
{
    __m512 n, p = exp_parts(_mm512_or_ps(v, _mm512_set1_ps(-0.0f)), _mm512_setzero_ps(), &n);
    __m512 below = _mm512_add_ps(_mm512_set1_ps(1), _mm512_scalef_ps(p, n));
    __mmask16 negative = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
    __m512 y = _mm512_div_ps(_mm512_mask_mul_ps(x, negative, x, _mm512_mul_ps(p, _mm512_set1_ps(0.5f))), below);
    return _mm512_mask_scalef_ps(y, negative, y, _mm512_add_ps(n, _mm512_set1_ps(1)));
}

#endif
