#include "backward_ops.h"

#include <math.h>
#include <string.h>

/* Sums in eight lanes in a fixed order: the compiler may use vectors, and the result is the same everywhere. */
typedef float lanes __attribute__((vector_size(32)));

static float lanes_sum(const lanes *a)
{
    return (((*a)[0] + (*a)[4]) + ((*a)[1] + (*a)[5])) + (((*a)[2] + (*a)[6]) + ((*a)[3] + (*a)[7]));
}

static float dot(const float *a, const float *b, size_t n)
{
    lanes sum = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        lanes x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        sum += x * y;
    }
    float s = lanes_sum(&sum);
    for (; i < n; i++)
        s += a[i] * b[i];
    return s;
}

static void add_scaled(float *out, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] += a * x[i];
}

static double mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum / (double)n;
}

void rms_forth(float *out, const float *x, const float *weight, size_t n, float eps)
{
    float inverse = (float)(1 / sqrt(mean_square(x, n) + eps));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * inverse * weight[i];
}

void rms_back(float *dx, float *dweight, const float *dy, const float *x, const float *weight, size_t n, float eps)
{
    double r = 1 / sqrt(mean_square(x, n) + eps), along = 0;
    for (size_t i = 0; i < n; i++)
        along += (double)dy[i] * weight[i] * x[i];
    float inverse = (float)r, pull = (float)(along * r * r * r / (double)n);
    for (size_t i = 0; i < n; i++) {
        float d = dy[i];
        if (dweight)
            dweight[i] += d * x[i] * inverse;
        dx[i] = d * weight[i] * inverse - x[i] * pull;
    }
}

/* f and its derivative at g. */
static float activation(float g, bool gelu, float *slope)
{
    if (!gelu) {
        float s = 1 / (1 + expf(-g));
        *slope = s * (1 + g * (1 - s));
        return g * s;
    }
    const float a = 0.7978845608f, c = 0.044715f;       /* sqrt(2 / pi) */
    float t = tanhf(a * (g + c * g * g * g));
    *slope = 0.5f * (1 + t) + 0.5f * g * (1 - t * t) * a * (1 + 3 * c * g * g);
    return 0.5f * g * (1 + t);
}

void gate_forth(float *out, const float *gate, const float *up, size_t n, bool gelu)
{
    float slope;
    for (size_t i = 0; i < n; i++)
        out[i] = activation(gate[i], gelu, &slope) * up[i];
}

void gate_back(float *dgate, float *dup, const float *dout, const float *gate, const float *up, size_t n, bool gelu)
{
    for (size_t i = 0; i < n; i++) {
        float slope, f = activation(gate[i], gelu, &slope), d = dout[i], u = up[i];
        dgate[i] = d * u * slope;
        dup[i] = d * f;
    }
}

/* Probabilities of query t over keys [from, t]; `caps`: derivative of the cap per key (1 without). Gives `from`. */
static size_t probabilities(float *probs, float *caps, const float *q, const float *k, const struct attend_shape *s, size_t t)
{
    size_t from = s->window && t + 1 > s->window ? t + 1 - s->window : 0;
    float top = -INFINITY, sum = 0;
    for (size_t j = from; j <= t; j++) {
        float x = s->scale * dot(q, k + j * s->k_stride, s->key_dim);
        caps[j] = 1;
        if (s->softcap != 0) {
            float c = tanhf(x / s->softcap);
            x = s->softcap * c;
            caps[j] = 1 - c * c;
        }
        probs[j] = x;
        top = x > top ? x : top;
    }
    for (size_t j = from; j <= t; j++)
        sum += probs[j] = expf(probs[j] - top);
    for (size_t j = from; j <= t; j++)
        probs[j] /= sum;
    return from;
}

void attend_forth(float *out, const float *q, const float *k, const float *v, const struct attend_shape *s, float *probs)
{
    for (size_t t = 0; t < s->length; t++)
        for (size_t h = 0; h < s->group; h++) {
            size_t from = probabilities(probs, probs + s->length, q + t * s->q_stride + h * s->key_dim, k, s, t);
            float *o = out + t * s->out_stride + h * s->value_dim;
            memset(o, 0, s->value_dim * sizeof *o);
            for (size_t j = from; j <= t; j++)
                add_scaled(o, v + j * s->v_stride, probs[j], s->value_dim);
        }
}

void attend_back(float *dq, float *dk, float *dv, const float *dout, const float *q, const float *k, const float *v,
                 const struct attend_shape *s, float *probs)
{
    float *caps = probs + s->length;
    for (size_t t = 0; t < s->length; t++)
        for (size_t h = 0; h < s->group; h++) {
            const float *query = q + t * s->q_stride + h * s->key_dim, *d = dout + t * s->out_stride + h * s->value_dim;
            float *dquery = dq + t * s->q_stride + h * s->key_dim, mean = 0;
            size_t from = probabilities(probs, caps, query, k, s, t);
            /* caps[j] becomes p * (dp - mean) * cap * scale: the gradient of the raw score. */
            for (size_t j = from; j <= t; j++) {
                float dp = dot(d, v + j * s->v_stride, s->value_dim);
                add_scaled(dv + j * s->v_stride, d, probs[j], s->value_dim);
                mean += probs[j] * dp;
                caps[j] *= s->scale * probs[j];
                probs[j] = dp;
            }
            memset(dquery, 0, s->key_dim * sizeof *dquery);
            for (size_t j = from; j <= t; j++) {
                float ds = caps[j] * (probs[j] - mean);
                add_scaled(dquery, k + j * s->k_stride, ds, s->key_dim);
                add_scaled(dk + j * s->k_stride, query, ds, s->key_dim);
            }
        }
}
