#include "backward_ops.h"

#include <math.h>
#include <string.h>

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
    for (size_t j = from; j <= t; j++) {
        float x = s->scale * s->kernels->dot.fn(q, k + j * s->k_stride, s->key_dim);
        caps[j] = 1;
        if (s->softcap != 0) {
            float c = tanhf(x / s->softcap);
            x = s->softcap * c;
            caps[j] = 1 - c * c;
        }
        probs[j] = x;
    }
    s->kernels->softmax.fn(probs + from, t + 1 - from);
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
                s->kernels->axpy.fn(o, v + j * s->v_stride, probs[j], s->value_dim);
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
                float dp = s->kernels->dot.fn(d, v + j * s->v_stride, s->value_dim);
                s->kernels->axpy.fn(dv + j * s->v_stride, d, probs[j], s->value_dim);
                mean += probs[j] * dp;
                caps[j] *= s->scale * probs[j];
                probs[j] = dp;
            }
            memset(dquery, 0, s->key_dim * sizeof *dquery);
            for (size_t j = from; j <= t; j++) {
                float ds = caps[j] * (probs[j] - mean);
                s->kernels->axpy.fn(dquery, k + j * s->k_stride, ds, s->key_dim);
                s->kernels->axpy.fn(dk + j * s->k_stride, query, ds, s->key_dim);
            }
        }
}
