/* Error feedback: what it says about the loss is what the file's reader would find, each way betters the one before on what it was
 * fitted to, and the bytes do not depend on the number of threads. */
#include "feedback.h"
#include "kernels.h"
#include "rounding_code.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 512, ROWS = 19 };

static const uint32_t formats[] = {
    FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q5_0, FORMAT_Q5_1, FORMAT_Q8_0, FORMAT_IQ4_NL, FORMAT_Q2_K, FORMAT_Q3_K, FORMAT_Q4_K,
    FORMAT_Q5_K, FORMAT_Q6_K, FORMAT_IQ4_XS, FORMAT_IQ2_XXS, FORMAT_IQ2_XS, FORMAT_IQ2_S, FORMAT_IQ3_XXS, FORMAT_IQ3_S,
    FORMAT_TQ1_0, FORMAT_TQ2_0,
};

struct bench { float h[N * N], held[N * N], w[ROWS * N]; struct rounding *rounding; struct kernels kernels; };

/* Inputs with a few strong common directions, as activations have them. */
static void moments(float *h, uint64_t seed)
{
    uint64_t directions = 77;
    static float common[8][N];
    float x[N];
    memset(h, 0, N * N * sizeof *h);
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < N; i++)
            common[k][i] = random_float(&directions, -1, 1);
    for (int s = 0; s < 1500; s++) {
        for (int i = 0; i < N; i++)
            x[i] = random_float(&seed, -1, 1);
        for (int k = 0; k < 8; k++) {
            float a = random_float(&seed, -2, 2);
            for (int i = 0; i < N; i++)
                x[i] += a * common[k][i];
        }
        for (int i = 0; i < N; i++)
            for (int j = 0; j <= i; j++)
                h[i * N + j] += x[i] * x[j] / 1500;
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++)
            h[j * N + i] = h[i * N + j];
}

static struct bench *bench_open(void)
{
    struct quern_error err;
    struct cpu cpu;
    struct bench *b = calloc(1, sizeof *b);
    uint64_t seed = 5;
    cpu_detect(&cpu);
    kernels_init(&b->kernels, &cpu);
    b->rounding = rounding_open(&err);
    moments(b->h, 1);
    moments(b->held, 2);
    for (int i = 0; i < ROWS * N; i++)
        b->w[i] = random_float(&seed, -1, 1) + random_float(&seed, -1, 1) + random_float(&seed, -1, 1);
    return b;
}

static double loss(const struct bench *b, const float *h, uint32_t format, const uint8_t *bytes, size_t row_bytes)
{
    double sum = 0;
    for (size_t r = 0; r < ROWS; r++) {
        float v[N];
        b->kernels.dequantize[format].fn(v, bytes + r * row_bytes, N);
        for (size_t i = 0; i < N; i++)
            v[i] -= b->w[r * N + i];
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < N; j++)
                sum += (double)v[i] * h[i * N + j] * v[j];
    }
    return sum;
}

static void every_format(void)
{
    struct bench *b = bench_open();
    struct quern_error err;
    for (size_t k = 0; k < sizeof formats / sizeof *formats; k++) {
        const struct format *format = format_find(formats[k]);
        uint8_t *out[2];
        struct feedback_result result, search;
        size_t row_bytes;
        format_row_bytes(&row_bytes, format, N);
        for (size_t t = 0; t < 2; t++) {
            struct pool *pool = pool_open(1 + 2 * t, &err);
            struct feedback f;
            out[t] = calloc(ROWS, row_bytes);
            CHECK(feedback_init(&f, b->h, b->held, N, feedback_group(formats[k]), 0.01, pool, &err), "%s", err.text);
            CHECK(feedback_round(&f, b->rounding, formats[k], out[t], b->w, ROWS, FEEDBACK_SEARCH, ROUNDING_PLAIN, pool,
                                 &search, &err), "%s", err.text);
            CHECK(feedback_round(&f, b->rounding, formats[k], out[t], b->w, ROWS, FEEDBACK_DESCENT, ROUNDING_PLAIN, pool,
                                 &result, &err), "%s", err.text);
            feedback_free(&f);
            pool_close(pool);
        }
        CHECK(!memcmp(out[0], out[1], ROWS * row_bytes), "%s: 1 and 3 threads", format->name);
        double read = loss(b, b->held, formats[k], out[0], row_bytes), said = result.held[result.kept];
        CHECK(fabs(read - said) <= 2e-3 * said, "%s: the loss is %g, said to be %g", format->name, read, said);
        CHECK(result.fit[FEEDBACK_CARRY] < 0.97 * search.fit[FEEDBACK_SEARCH],
              "%s: carrying gives %g of the search's %g", format->name, result.fit[FEEDBACK_CARRY], search.fit[FEEDBACK_SEARCH]);
        CHECK(result.fit[FEEDBACK_DESCENT] <= 1.0001 * result.fit[FEEDBACK_CARRY], "%s: descent ends at %g, above %g", format->name,
              result.fit[FEEDBACK_DESCENT], result.fit[FEEDBACK_CARRY]);
        for (int way = 0; way < FEEDBACK_WAYS; way++)
            CHECK(result.held[way] >= said, "%s: way %d was better", format->name, way);
        free(out[0]), free(out[1]);
    }
    rounding_close(b->rounding);
    free(b);
}

/* The search's part is rounding_row's bytes; formats without feedback are refused. */
static void search_is_the_search(void)
{
    struct bench *b = bench_open();
    struct quern_error err;
    struct pool *pool = pool_open(2, &err);
    struct feedback f;
    struct feedback_result result;
    uint8_t out[ROWS * N], row[N];
    size_t row_bytes;
    float importance[N];
    CHECK(feedback_init(&f, b->h, NULL, N, 1, 0.01, pool, &err), "%s", err.text);
    format_row_bytes(&row_bytes, format_find(FORMAT_Q4_K), N);
    CHECK(feedback_round(&f, b->rounding, FORMAT_Q4_K, out, b->w, ROWS, FEEDBACK_SEARCH, ROUNDING_PLAIN, pool, &result, &err), "%s",
          err.text);
    for (size_t i = 0; i < N; i++)
        importance[i] = b->h[i * N + i];
    for (size_t r = 0; r < ROWS; r++) {
        rounding_row(b->rounding, FORMAT_Q4_K, row, b->w + r * N, importance, N);
        CHECK(!memcmp(row, out + r * row_bytes, row_bytes), "row %zu", r);
    }
    CHECK(!feedback_round(&f, b->rounding, FORMAT_IQ1_S, out, b->w, ROWS, FEEDBACK_CARRY, ROUNDING_PLAIN, pool, &result, &err) &&
          err.code == QUERN_EUNSUPPORTED, "IQ1_S");
    feedback_free(&f);
    b->h[3] = INFINITY;
    CHECK(!feedback_init(&f, b->h, NULL, N, 1, 0.01, pool, &err) && err.code == QUERN_EFORMAT, "not finite");
    rounding_close(b->rounding);
    pool_close(pool);
    free(b);
}

int main(void)
{
    TEST(every_format);
    TEST(search_is_the_search);
    return test_end();
}
