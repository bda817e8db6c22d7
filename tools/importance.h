/* importance.h - what llama-imatrix does, by ourselves: mean squares of every linear map's inputs over calibration text.
 *
 * With `fisher` each token counts with the squared gradient that the model's own loss has at the map's outputs (labels drawn from
 * the model): inputs of tokens that the map's errors do not matter for count little. GuidedQuant (arXiv 2505.07004) calls that one
 * group. Positions 0 are left out: their activations are huge and say nothing. */
#ifndef QUERN_IMPORTANCE_H
#define QUERN_IMPORTANCE_H

#include "calibration.h"
#include "imatrix.h"
#include "pool.h"

struct importance_options {
    bool         fisher;
    size_t       tokens;         /* at most; 0: all */
    size_t       mem_limit;      /* bytes of buffers; 0: any. Fewer sequences go through the model together */
    struct pool *pool;
    const volatile int *stop;    /* may be NULL */
    void (*show)(void *arg, double share);
    void *show_arg;
};

/* Can this model be looked into (backward.h)? */
bool importance_possible(const struct quern_model *model, struct pool *pool);
/* Bytes of buffers that importance_gather takes without a limit, in chunks of so many tokens. */
bool importance_bytes(size_t *out, const struct quern_model *model, size_t chunk, bool fisher, struct pool *pool,
                      struct quern_error *err);
/* Free with imatrix_close. QUERN_EUNSUPPORTED as backward_init, QUERN_EINTERRUPT, QUERN_EMEM (the limit is too low even for one
 * sequence: both figures are told). */
bool importance_gather(struct imatrix *out, const struct quern_model *model, const struct calibration *text,
                       const struct importance_options *options, struct quern_error *err);

#endif
