/* The factors of second-moment matrices against their definitions, and the same bits for any number of threads. */
#include "cholesky.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A matrix of n second moments from `samples` vectors: rank at most `samples`. Correlated, with very different scales. */
static float *moments(size_t n, size_t samples, uint64_t seed)
{
    float *h = calloc(n * n, sizeof *h), *x = calloc(n, sizeof *x);
    for (size_t s = 0; s < samples; s++) {
        float common = random_float(&seed, -1, 1);
        for (size_t i = 0; i < n; i++)
            x[i] = (random_float(&seed, -1, 1) + common) * (i % 7 ? 1 : 20);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                h[i * n + j] += x[i] * x[j] / (float)samples;
    }
    free(x);
    return h;
}

/* A permutation of n numbers; 5 must not divide n. */
static uint32_t *some_order(size_t n)
{
    uint32_t *order = malloc(n * sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)((i * 5 + 3) % n);
    return order;
}

/* U H U^T = 1 says H^-1 = U^T U. */
static void inverse_upper_is_one(void)
{
    static const size_t sizes[] = { 1, 3, 63, 64, 129, 201 };
    struct quern_error err;
    struct pool *pool = pool_open(2, &err);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s], stride = (n + 15) / 16 * 16;
        float *h = moments(n, 3 * n + 2, s), *u = malloc(n * stride * sizeof *u);
        uint32_t *order = some_order(n);
        struct cholesky_damping damping = { 0.01, 3, 0 };
        bool ok = cholesky_inverse_upper(u, stride, h, order, n, &damping, pool, &err);
        CHECK(ok, "%zu: %s", n, err.text);
        double most = 0, mean = 0;
        for (size_t i = 0; i < n; i++)
            mean += h[i * n + i] / (double)n;
        for (size_t p = 0; ok && p < n; p++)
            for (size_t q = 0; q < n; q++) {
                double sum = 0;
                for (size_t i = p; i < n; i++) {
                    double inner = 0;
                    for (size_t j = q; j < n; j++)
                        inner += ((double)h[order[i] * n + order[j]] + (i == j ? 0.01 * mean : 0)) * u[q * stride + j];
                    sum += u[p * stride + i] * inner;
                }
                most = fmax(most, fabs(sum - (p == q)));
                CHECK(q >= p || u[p * stride + q] == 0, "below the diagonal");
            }
        CHECK(most < 2e-5, "%zu: U H U^T is off by %g", n, most);
        free(h), free(u), free(order);
    }
    pool_close(pool);
}

static void same_bits_for_any_threads(void)
{
    struct quern_error err;
    size_t n = 301;
    float *h = moments(n, 500, 9), *u[3];
    uint32_t *order = some_order(n);
    for (size_t t = 0; t < 3; t++) {
        struct pool *pool = pool_open(1 + 2 * t, &err);
        struct cholesky_damping damping = { 0.01, 3, 0 };
        u[t] = malloc(n * 304 * sizeof **u);
        CHECK(cholesky_inverse_upper(u[t], 304, h, order, n, &damping, pool, &err), "%s", err.text);
        CHECK(!memcmp(u[0], u[t], n * 304 * sizeof **u), "%zu threads", 1 + 2 * t);
        pool_close(pool);
    }
    for (size_t t = 0; t < 3; t++)
        free(u[t]);
    free(h), free(order);
}

/* Rank 2 of 40, with a dead column and no damping at first: the retries must carry it through; negative ones must be refused. */
static void singular_ones_are_damped(void)
{
    struct quern_error err;
    struct pool *pool = pool_open(1, &err);
    size_t n = 41;
    float *h = moments(n, 2, 4), *u = malloc(n * 48 * sizeof *u);
    uint32_t *order = some_order(n);
    for (size_t i = 0; i < n; i++)
        h[7 * n + i] = h[i * n + 7] = 0;
    struct cholesky_damping damping = { 1e-12, 12, 0 };
    CHECK(cholesky_inverse_upper(u, 48, h, order, n, &damping, pool, &err), "%s", err.text);
    CHECK(damping.used > 1e-12, "damped by %g", damping.used);
    for (size_t p = 0; p < n; p++)
        if (order[p] == 7)
            for (size_t q = 0; q < n; q++)
                CHECK(u[p * 48 + q] == (q == p ? 1 : 0) && (q == p || u[q * 48 + p] == 0), "the dead column at %zu", q);
    for (size_t i = 0; i < n; i++)
        h[i * n + (i + 1) % n] = h[(i + 1) % n * n + i] = 1e6f;
    damping = (struct cholesky_damping){ 0.01, 3, 0 };
    CHECK(!cholesky_inverse_upper(u, 48, h, order, n, &damping, pool, &err) && err.code == QUERN_EFORMAT, "indefinite");
    h[5] = NAN;
    CHECK(!cholesky_inverse_upper(u, 48, h, order, n, &damping, pool, &err) && err.code == QUERN_EFORMAT, "not finite");
    free(h), free(u), free(order);
    pool_close(pool);
}

int main(void)
{
    TEST(inverse_upper_is_one);
    TEST(same_bits_for_any_threads);
    TEST(singular_ones_are_damped);
    return test_end();
}
