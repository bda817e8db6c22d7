/* runner.h - a model with caches of its own, for those who want every logit (eval, logits) or many sequences (bench).
 *
 * A session (session.h) is what most callers want. A runner leaves the batches to its caller: fill `struct batch_part`s with
 * pointers into `kv` and call forward_run on `forward`; `logits` has room for `rows` rows. */
#ifndef QUERN_RUNNER_H
#define QUERN_RUNNER_H

#include "forward.h"

struct runner_shape {
    size_t       context;        /* tokens that each cache holds           */
    size_t       sequences;      /* caches                                 */
    size_t       batch;          /* tokens per pass, over all sequences    */
    size_t       rows;           /* of logits per pass                     */
    enum kv_type kv;
};

struct runner {
    const struct quern_model *model;
    struct runner_shape       shape;
    struct forward            forward;
    struct kv                *kv;        /* [sequences] */
    float                    *logits;    /* [rows][vocabulary] */
    size_t                    opened;    /* caches that stand */
};

/* Bytes that runner_open will take: caches, and everything else. */
bool runner_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct runner_shape *shape, size_t threads,
                  struct quern_error *err);
/* The pool and the model must outlive the runner. `stop` may be NULL. */
bool runner_open(struct runner *r, const struct quern_model *model, const struct runner_shape *shape, struct pool *pool,
                 const volatile int *stop, struct quern_error *err);
void runner_close(struct runner *r);

#endif
