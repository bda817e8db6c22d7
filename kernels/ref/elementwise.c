/* elementwise.c - norms, rotations, gates, softmax: the specification, in double. */
#include "ref.h"

#include <float.h>
#include <math.h>

/* eps is added before the root, inside the mean: it is a variance, not a length. */
void rms_norm_ref(float *out, const float *x, const float *weight, size_t n, float eps)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double scale = 1 / sqrt(sum / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(x[i] * scale * (weight ? weight[i] : 1));
}

/* Two passes: the mean of squares less the square of the mean would cancel where the mean is large. */
void layer_norm_ref(float *out, const float *x, const float *weight, const float *bias, size_t n, float eps)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    double scale = 1 / sqrt(squares / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((x[i] - mean) * scale * (weight ? weight[i] : 1) + (bias ? bias[i] : 0));
}

/* Both members are read before either is written: the rotation is in place. */
void rope_ref(float *x, const float *cs, size_t pairs, bool interleaved)
{
    for (size_t i = 0; i < pairs; i++) {
        float *first = interleaved ? x + 2 * i : x + i, *second = interleaved ? first + 1 : first + pairs;
        double a = *first, b = *second, cosine = cs[2 * i], sine = cs[2 * i + 1];
        *first = (float)(a * cosine - b * sine);
        *second = (float)(a * sine + b * cosine);
    }
}

/* exp overflows to Inf for very negative x, and x / Inf is the right limit, -0. */
static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)): the same function without the cancellation for negative x. */
static double gelu(double x)
{
    const double root = 0.79788456080286535588;           /* sqrt(2 / pi) */
    return x / (1 + exp(-2 * root * (x + 0.044715 * x * x * x)));
}

void silu_mul_ref(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(silu(gate[i]) * up[i]);
}

void gelu_mul_ref(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(gelu(gate[i]) * up[i]);
}

void silu_ref(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)silu(x[i]);
}

void gelu_ref(float *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)gelu(x[i]);
}

void axpy_ref(float *out, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(out[i] + (double)a * x[i]);
}

float dot_ref(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return (float)sum;
}

/* The largest of x, -INFINITY for none; NaN is passed over here and reaches the sum. */
static float largest(const float *x, size_t n, float max)
{
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* exp(x - max), 0 for -INFINITY even where max is -INFINITY too. */
static double shifted_exp(float x, float max)
{
    return x == -INFINITY ? 0 : exp((double)x - max);
}

void softmax_ref(float *x, size_t n)
{
    float max = largest(x, n, -INFINITY);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += shifted_exp(x[i], max);
    for (size_t i = 0; i < n; i++)
        x[i] = sum == 0 ? 0 : (float)(shifted_exp(x[i], max) / sum);
}

/* What was summed under the old maximum is scaled to the new one. The first step comes with max = -INFINITY and sum = 0: its factor
 * is 0, or 1 where every score is -INFINITY too, and either leaves the zeros alone. */
float softmax_step_ref(float *scores, size_t n, float *max, float *sum)
{
    float old = *max, top = largest(scores, n, old);
    double total = 0, factor = old == top ? 1 : shifted_exp(old, top);
    for (size_t i = 0; i < n; i++) {
        double e = shifted_exp(scores[i], top);
        scores[i] = (float)e;
        total += e;
    }
    *max = top;
    *sum = (float)(*sum * factor + total);
    return (float)factor;
}
