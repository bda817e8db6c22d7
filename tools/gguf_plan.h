/* gguf_plan.h - from one GGUF to another with its matrices in another type; what the model is does not matter. */
#ifndef QUERN_GGUF_PLAN_H
#define QUERN_GGUF_PLAN_H

#include "emit.h"

struct gguf_plan {
    struct emit_tensor *tensors;      /* [count], in the order of the input */
    const uint8_t     **slices;
    size_t              count;
    size_t              changed;      /* tensors that get another type              */
    size_t              kept;         /* that should have and could not: each named on stderr */
};

/* `type`: a format id for every "*.weight" of two or more dimensions that is not a norm, a router, a convolution or a table of
 * positions; FORMAT_COUNT: none is changed. FORMAT_F32 is given to whatever can be decoded. The rest stays as it is. The plan views
 * the input. Free with gguf_plan_free. */
bool gguf_plan(struct gguf_plan *plan, const struct gguf *in, uint32_t type, const struct kernels *kernels,
               struct quern_error *err);
void gguf_plan_free(struct gguf_plan *plan);

/* Every key of the input in its order, but general.file_type for the asked type (added if there was none), and without those that
 * say how the input was split. */
bool gguf_copy_keys(const struct gguf *in, uint32_t type, struct gguf_writer *w, struct quern_error *err);

#endif
