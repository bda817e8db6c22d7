#include "labels.h"

#include <math.h>

void label_gradient(float *gradient, const float *logits, size_t vocab, double at)
{
    float top = logits[0];
    double sum = 0;
    size_t label = 0;
    for (size_t i = 1; i < vocab; i++)
        top = logits[i] > top ? logits[i] : top;
    for (size_t i = 0; i < vocab; i++)
        sum += gradient[i] = expf(logits[i] - top);
    /* The last token takes what rounding leaves over. */
    for (at *= sum; label + 1 < vocab && at >= gradient[label]; label++)
        at -= gradient[label];
    for (size_t i = 0; i < vocab; i++)
        gradient[i] = (float)(gradient[i] / sum) - (i == label);
}
