/* variant.h - a model that stands, with some of its tensors in other blocks.
 *
 * What a rounded tensor does to the model is measured by running the model with it: nothing is copied but the description of the
 * layers. The engine's own kernels run it, so what is measured is what the file will do. */
#ifndef QUERN_VARIANT_H
#define QUERN_VARIANT_H

#include "model.h"

struct variant {
    struct quern_model        model;     /* the source's, with its own layers; never closed */
    const struct quern_model *source;
    struct layer             *layers;
};

/* The source must outlive it. */
bool variant_init(struct variant *v, const struct quern_model *source, struct quern_error *err);
void variant_free(struct variant *v);
/* Tensor i of the source's file now lies at `data`, in blocks of `format`; NULL: where it lay. False: the model has no matrix made
 * of this tensor, nothing has changed. */
bool variant_set(struct variant *v, size_t tensor, uint32_t format, const void *data);
/* The first layer that multiplies with tensor i: 0 for the embedding too, the number of layers when only the head does. */
size_t variant_layer(const struct variant *v, size_t tensor);

#endif
