/* log_sum.h - the denominator of a softmax. */
#ifndef QUERN_LOG_SUM_H
#define QUERN_LOG_SUM_H

#include <stddef.h>

/* Natural logarithm of the sum of exp(x[i]) over x f32 [n], n >= 1, in double, so that x[i] - log_sum is the log of a probability;
 * `top`: the first index of the largest. */
double log_sum(const float *x, size_t n, size_t *top);

#endif
