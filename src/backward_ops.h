/* backward_ops.h - single operations of the pass and their mirrors. f32 rows; gradients d... of the loss by the value named. */
#ifndef QUERN_BACKWARD_OPS_H
#define QUERN_BACKWARD_OPS_H

#include <stdbool.h>
#include <stddef.h>

#include "arch.h"
#include "kernels.h"

/* out = x / sqrt(mean(x^2) + eps) * weight, n values. */
void rms_forth(float *out, const float *x, const float *weight, size_t n, float eps);
/* dx = gradient of that by x (overwritten, may be dy); dweight += gradient by weight (NULL: not wanted). */
void rms_back(float *dx, float *dweight, const float *dy, const float *x, const float *weight, size_t n, float eps);

/* out = f(gate) * up as the activation says (GELU: its tanh form; gpt-oss clamps both and adds 1 to up). */
void gate_forth(float *out, const float *gate, const float *up, size_t n, enum activation_kind kind);
/* dgate and dup may be dout's memory or each other's inputs' (gate, up) memory. */
void gate_back(float *dgate, float *dup, const float *dout, const float *gate, const float *up, size_t n,
               enum activation_kind kind);

/* How one token's experts were weighed (moe.h: moe_choose). */
struct route_shape {
    size_t experts, used;
    enum gating_kind gating;
    bool   normalise;
    float  scale, least;           /* of the weights; the sum that they are divided by at least */
};
/* From the gradient by the weights [used], which is overwritten, to that by the router's logits, dscore [experts]. score, weight
 * and chosen are as moe_choose left them: who is chosen is taken as fixed. */
void route_back(float *dscore, float *dweight, const float *score, const float *weight, const uint32_t *chosen,
                const struct route_shape *s);

/* Attention of one sequence and one key head with its group of query heads. q, out and their gradients: row t, head h at
 * t * q_stride + h * key_dim (out: out_stride, value_dim); k, v: row t at t * kv_stride. */
struct attend_shape {
    size_t length, group, key_dim, value_dim;
    size_t q_stride, k_stride, v_stride, out_stride;
    size_t window;                 /* keys that a query sees, itself included; 0: all before it */
    float  scale, softcap;         /* softcap 0: none */
    const float *sinks;            /* [group] logits that take part without a value, or NULL */
    const struct kernels *kernels; /* dot, axpy, softmax: a third of a small model's pass is attention */
};
/* probs: scratch of 2 * (length + 1) floats. */
void attend_forth(float *out, const float *q, const float *k, const float *v, const struct attend_shape *s, float *probs);
/* dk and dv are added to; dq is overwritten. */
void attend_back(float *dq, float *dk, float *dv, const float *dout, const float *q, const float *k, const float *v,
                 const struct attend_shape *s, float *probs);

#endif
