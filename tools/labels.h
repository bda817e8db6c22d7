/* labels.h - the gradient of a model's loss on a label that the model itself draws: what Fisher information is made of.
 *
 * Averaged over labels the squares of such gradients are the information matrix' diagonal (Kunstner et al. 2019, against taking the
 * text's own next token for the label). */
#ifndef QUERN_LABELS_H
#define QUERN_LABELS_H

#include <stddef.h>

/* gradient[i] = p[i] - (i is the label), p = softmax(logits), the label drawn from p by `at` in [0, 1). Both f32 [vocab]; they may
 * be the same memory. */
void label_gradient(float *gradient, const float *logits, size_t vocab, double at);

#endif
