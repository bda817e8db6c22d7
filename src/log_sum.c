#include "log_sum.h"

#include <math.h>

double log_sum(const float *x, size_t n, size_t *top)
{
    double sum = 0;
    *top = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[*top])
            *top = i;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - x[*top]);
    return x[*top] + log(sum);
}
