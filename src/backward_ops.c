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
static float activation(float g, enum activation_kind kind, float *slope)
{
    if (kind == FFN_SILU || kind == FFN_SWIGLU_CLAMPED) {
        /* gpt-oss: sigmoid(1.702 g), and nothing grows above 7. */
        float a = kind == FFN_SILU ? 1 : 1.702f, limit = kind == FFN_SILU ? INFINITY : 7, x = fminf(g, limit);
        float s = 1 / (1 + expf(-a * x));
        *slope = g > limit ? 0 : s * (1 + a * x * (1 - s));
        return x * s;
    }
    if (kind == FFN_RELU2) {
        *slope = g > 0 ? 2 * g : 0;
        return g > 0 ? g * g : 0;
    }
    const float a = 0.7978845608f, c = 0.044715f;       /* sqrt(2 / pi) */
    float t = tanhf(a * (g + c * g * g * g));
    *slope = 0.5f * (1 + t) + 0.5f * g * (1 - t * t) * a * (1 + 3 * c * g * g);
    return 0.5f * g * (1 + t);
}

/* What f(gate) is multiplied with, and its derivative by up. */
static float other_factor(float up, enum activation_kind kind, float *slope)
{
    *slope = 1;
    if (kind != FFN_SWIGLU_CLAMPED)
        return up;
    *slope = fabsf(up) <= 7;
    return fmaxf(-7.0f, fminf(up, 7.0f)) + 1;
}

void gate_forth(float *out, const float *gate, const float *up, size_t n, enum activation_kind kind)
{
    float slope;
    for (size_t i = 0; i < n; i++)
        out[i] = activation(gate[i], kind, &slope) * other_factor(up[i], kind, &slope);
}

void gate_back(float *dgate, float *dup, const float *dout, const float *gate, const float *up, size_t n, enum activation_kind kind)
{
    for (size_t i = 0; i < n; i++) {
        float slope, of_up, f = activation(gate[i], kind, &slope), d = dout[i], u = other_factor(up[i], kind, &of_up);
        dgate[i] = d * u * slope;
        dup[i] = d * f * of_up;
    }
}

/* With u for the chosen weights before their factor f: w = f u, and where f = scale / sum(u) every u pulls on all w. dweight
 * becomes the gradient by u. */
static void weights_back(float *dweight, const float *weight, float sum, const struct route_shape *s)
{
    bool normalised = s->normalise && sum > s->least;
    float factor = s->normalise ? s->scale / fmaxf(sum, s->least) : s->scale;
    double along = 0;
    for (size_t i = 0; i < s->used; i++)
        along += (double)dweight[i] * weight[i];
    for (size_t i = 0; i < s->used; i++)
        dweight[i] = factor * dweight[i] - (normalised ? (float)(along / sum) : 0);
}

void route_back(float *dscore, float *dweight, const float *score, const float *weight, const uint32_t *chosen,
                const struct route_shape *s)
{
    float sum = 0;
    double mean = 0;
    memset(dscore, 0, s->experts * sizeof *dscore);
    for (size_t i = 0; i < s->used; i++)
        sum += s->gating == GATING_SOFTMAX_CHOSEN ? weight[i] / s->scale : score[chosen[i]];
    weights_back(dweight, weight, sum, s);
    switch (s->gating) {
    case GATING_SIGMOID:
        for (size_t i = 0; i < s->used; i++)
            dscore[chosen[i]] = dweight[i] * score[chosen[i]] * (1 - score[chosen[i]]);
        break;
    case GATING_SOFTMAX:             /* all logits, those of the others through the softmax's sum */
        for (size_t i = 0; i < s->used; i++) {
            dscore[chosen[i]] = dweight[i];
            mean += (double)dweight[i] * score[chosen[i]];
        }
        for (size_t e = 0; e < s->experts; e++)
            dscore[e] = score[e] * (dscore[e] - (float)mean);
        break;
    case GATING_SOFTMAX_CHOSEN:      /* probabilities that add up to 1: a factor that normalises them does nothing more */
        for (size_t i = 0; i < s->used; i++)
            mean += (double)dweight[i] * weight[i] / s->scale;
        for (size_t i = 0; i < s->used; i++)
            dscore[chosen[i]] = weight[i] / s->scale * (dweight[i] - (float)mean);
        break;
    }
}

/* Probabilities of query t of head h over keys [from, t]; `caps`: derivative of the cap per key (1 without). Gives `from`. */
static size_t probabilities(float *probs, float *caps, const float *q, const float *k, const struct attend_shape *s,
                            size_t t, size_t h)
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
    /* A sink takes its share of the probability and gives nothing. */
    if (s->sinks)
        probs[t + 1] = s->sinks[h];
    s->kernels->softmax.fn(probs + from, t + 1 - from + (s->sinks != NULL));
    return from;
}

void attend_forth(float *out, const float *q, const float *k, const float *v, const struct attend_shape *s, float *probs)
{
    for (size_t t = 0; t < s->length; t++)
        for (size_t h = 0; h < s->group; h++) {
            size_t from = probabilities(probs, probs + s->length + 1, q + t * s->q_stride + h * s->key_dim, k, s, t, h);
            float *o = out + t * s->out_stride + h * s->value_dim;
            memset(o, 0, s->value_dim * sizeof *o);
            for (size_t j = from; j <= t; j++)
                s->kernels->axpy.fn(o, v + j * s->v_stride, probs[j], s->value_dim);
        }
}

void attend_back(float *dq, float *dk, float *dv, const float *dout, const float *q, const float *k, const float *v,
                 const struct attend_shape *s, float *probs)
{
    float *caps = probs + s->length + 1;
    for (size_t t = 0; t < s->length; t++)
        for (size_t h = 0; h < s->group; h++) {
            const float *query = q + t * s->q_stride + h * s->key_dim, *d = dout + t * s->out_stride + h * s->value_dim;
            float *dquery = dq + t * s->q_stride + h * s->key_dim, mean = 0;
            size_t from = probabilities(probs, caps, query, k, s, t, h);
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
