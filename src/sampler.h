/* sampler.h - from logits to one token. The public part is in quern.h; here is what the program and the tests need beside it.
 *
 * The chain, in this order: logit bias, repetition/frequency/presence penalties, DRY, top-k, typical, top-p, min-p, temperature,
 * draw. Each filter works on the softmax of what the one before it left, at temperature 1; at least one token stays. With
 * temperature 0 the largest logit after bias and penalties is taken, the smaller id of equals.
 *
 * Exponentials and random numbers are our own plain arithmetic on doubles, so the same logits and seed give the same tokens on
 * every machine. The vocabulary is never sorted as a whole unless typical sampling without top-k asks for it. */
#ifndef QUERN_SAMPLER_H
#define QUERN_SAMPLER_H

#include <stdio.h>

#include "error.h"

enum { SAMPLER_HISTORY = 1 << 20 };   /* "the whole context" (-1) means at most so many tokens */

/* As quern_open_sampler without a model: `vocabulary` logits, at most `context` tokens of history for windows of -1. `breakers`:
 * bit t of the bitmap set where token t ends a repetition for DRY; copied; NULL: none. */
struct quern_sampler *sampler_open(size_t vocabulary, size_t context, const uint8_t *breakers,
                                   const struct quern_sampler_options *options, struct quern_error *err);

/* What the draw would choose from: ids and probabilities (which sum to 1), most probable first when the chain sorts; writes at
 * most `capacity` of them and gives how many there are; 0 with the error filled. The sampler's state stays as it is. */
size_t sampler_distribution(struct quern_sampler *sampler, const float *logits, int32_t *ids, double *probs, size_t capacity,
                            struct quern_error *err);

/* The chain in one line, only what is on: "top-k 40, top-p 0.95, temperature 0.8, seed 0". Gives out. */
const char *sampler_describe(const struct quern_sampler_options *options, char *out, size_t size);

#endif
