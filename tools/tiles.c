#include "tiles.h"

#include <string.h>

#ifdef QUERN_BLAS

#include <cblas.h>

/* OpenBLAS's own, which the cblas.h of others lacks. */
void openblas_set_num_threads(int threads);

const struct lanes *tiles_begin(void)
{
    openblas_set_num_threads(1);
    return lanes_find();
}

void tile_subtract(const struct lanes *lanes, double *c, size_t c_stride, const double *a, size_t a_stride, const double *b,
                   size_t b_stride, size_t m, size_t n, size_t k)
{
    (void)lanes;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, -1, a, (int)a_stride, b, (int)b_stride, 1, c,
                (int)c_stride);
}

void tile_product(const struct lanes *lanes, float *c, const float *a, const float *b, size_t stride, size_t m, size_t n)
{
    (void)lanes;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)n, 1, a, (int)stride, b, (int)stride, 0, c,
                (int)stride);
}

#else

/* Of c 16 KiB at a time: with four rows of b they stay in the first-level cache while k goes by. */
enum { ROWS = 16, COLS = 128 };
/* Of b in float so many columns at a time: the rows of c that are worked on together stay in the second-level cache. Of 256, 1024
 * and 4096 columns and 16 or 32 rows, more of both was faster, by 16 % from end to end (2048 inputs, Zen 4). */
enum { BAND = 2048 };

const struct lanes *tiles_begin(void)
{
    return lanes_find();
}

static void subtract_one(double *out, const double *x, double a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] -= a * x[i];
}

static void subtract_part(const struct lanes *lanes, double *c, size_t c_stride, const double *a, size_t a_stride, const double *b,
                          size_t b_stride, size_t m, size_t n, size_t k)
{
    size_t p = 0;
    for (; p + 4 <= k; p += 4)
        for (size_t i = 0; i < m; i++) {
            const double *f = a + i * a_stride + p, *x = b + p * b_stride;
            lanes->subtract_four(c + i * c_stride, x, x + b_stride, x + 2 * b_stride, x + 3 * b_stride, f[0], f[1], f[2], f[3], n);
        }
    for (; p < k; p++)
        for (size_t i = 0; i < m; i++)
            subtract_one(c + i * c_stride, b + p * b_stride, a[i * a_stride + p], n);
}

void tile_subtract(const struct lanes *lanes, double *c, size_t c_stride, const double *a, size_t a_stride, const double *b,
                   size_t b_stride, size_t m, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j += COLS)
        for (size_t i = 0; i < m; i += ROWS)
            subtract_part(lanes, c + i * c_stride + j, c_stride, a + i * a_stride, a_stride, b + j, b_stride,
                          m - i < ROWS ? m - i : ROWS, n - j < COLS ? n - j : COLS, k);
}

void tile_product(const struct lanes *lanes, float *c, const float *a, const float *b, size_t stride, size_t m, size_t n)
{
    memset(c, 0, m * stride * sizeof *c);
    for (size_t at = 0; at < n; at += BAND) {
        size_t width = n - at < BAND ? n - at : BAND, k = 0;
        for (; k + 8 <= n; k += 8)
            for (size_t i = 0; i < m; i++)
                lanes->add_eight(c + i * stride + at, b + k * stride + at, stride, a + i * stride + k, width);
        for (; k < n; k++)
            for (size_t i = 0; i < m; i++)
                lanes->add_scaled(c + i * stride + at, b + k * stride + at, a[i * stride + k], width);
    }
}

#endif
