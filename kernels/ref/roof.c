/* What plain C makes of it on the baseline. */
#include "roof.h"

uint64_t roof_read_ref(const void *p, size_t bytes)
{
    const uint64_t *x = p;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < bytes / 8; i += 4) {
        a ^= x[i];
        b ^= x[i + 1];
        c ^= x[i + 2];
        d ^= x[i + 3];
    }
    return a ^ b ^ c ^ d;
}

uint64_t roof_dot_ref(size_t rounds)
{
    volatile int8_t seed = 3;
    int8_t a[256], b[256];
    int32_t sum = 0;
    for (int i = 0; i < 256; i++)
        a[i] = (int8_t)(seed + i), b[i] = (int8_t)(seed - i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" ::"r"(a), "r"(b) : "memory");      /* the arrays may have changed: no round is like another */
        for (int i = 0; i < 256; i++)
            sum += a[i] * b[i];
        sum &= 0xffffff;
    }
    return (uint64_t)sum;
}

/* The reference has no FMA of its own: a multiplication and an addition, vectorized as the compiler likes. */
uint64_t roof_fma_ref(size_t rounds)
{
    enum { LANES = 64 };
    float sum[LANES], x[LANES];
    for (int i = 0; i < LANES; i++)
        sum[i] = (float)i, x[i] = 0.5f;
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < LANES; i++) {
            float v = sum[i];
            for (int k = 0; k < 4; k++)
                v = v * x[i] + 1;
            sum[i] = v;
        }
    return (uint64_t)(sum[1] * 1e6f);
}
