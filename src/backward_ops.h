/* backward_ops.h - single operations of the pass and their mirrors. f32 rows; gradients d... of the loss by the value named. */
#ifndef QUERN_BACKWARD_OPS_H
#define QUERN_BACKWARD_OPS_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels.h"

/* out = x / sqrt(mean(x^2) + eps) * weight, n values. */
void rms_forth(float *out, const float *x, const float *weight, size_t n, float eps);
/* dx = gradient of that by x (overwritten, may be dy); dweight += gradient by weight (NULL: not wanted). */
void rms_back(float *dx, float *dweight, const float *dy, const float *x, const float *weight, size_t n, float eps);

/* out = f(gate) * up; f: SiLU or the tanh form of GELU. */
void gate_forth(float *out, const float *gate, const float *up, size_t n, bool gelu);
/* dgate and dup may be dout's memory or each other's inputs' (gate, up) memory. */
void gate_back(float *dgate, float *dup, const float *dout, const float *gate, const float *up, size_t n, bool gelu);

/* Attention of one sequence and one key head with its group of query heads. q, out and their gradients: row t, head h at
 * t * q_stride + h * key_dim (out: out_stride, value_dim); k, v: row t at t * kv_stride. */
struct attend_shape {
    size_t length, group, key_dim, value_dim;
    size_t q_stride, k_stride, v_stride, out_stride;
    size_t window;                 /* keys that a query sees, itself included; 0: all before it */
    float  scale, softcap;         /* softcap 0: none */
    const struct kernels *kernels; /* dot, axpy, softmax: a third of a small model's pass is attention */
};
/* probs: scratch of 2 * length floats. */
void attend_forth(float *out, const float *q, const float *k, const float *v, const struct attend_shape *s, float *probs);
/* dk and dv are added to; dq is overwritten. */
void attend_back(float *dq, float *dk, float *dv, const float *dout, const float *q, const float *k, const float *v,
                 const struct attend_shape *s, float *probs);

#endif
