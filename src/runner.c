/* Caches, a pass and rows of logits, planned before they are taken: see runner.h. */
#include "runner.h"

#include <stdlib.h>

bool runner_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct runner_shape *shape, size_t threads,
                  struct quern_error *err)
{
    size_t one, pass, logits;
    if (!kv_bytes(&one, &model->model, shape->kv, shape->context, err) ||
        !forward_bytes(&pass, &model->model, &model->kernels, threads, shape->batch, shape->sequences, shape->context, err))
        return false;
    if (!checked_mul(cache, one, shape->sequences) || !checked_mul(&logits, shape->rows, model->model.hyper.vocab) ||
        !checked_mul(&logits, logits, sizeof(float)) || !checked_add(scratch, pass, logits))
        return ERR(err, QUERN_EMEM, "%zu sequences of %zu tokens do not fit the address space", shape->sequences, shape->context);
    return true;
}

bool runner_open(struct runner *r, const struct quern_model *model, const struct runner_shape *shape, struct pool *pool,
                 const volatile int *stop, struct quern_error *err)
{
    size_t cells = 0;
    *r = (struct runner){.model = model, .shape = *shape};
    if (!forward_init(&r->forward, &model->model, &model->kernels, pool, shape->batch, shape->sequences, shape->context, err))
        return false;
    r->forward.stop = stop;
    bool ok = checked_mul(&cells, shape->rows, model->model.hyper.vocab) || ERR(err, QUERN_EMEM, "too many rows of logits");
    ok = ok && (r->logits = mem_take_aligned(cells, sizeof(float), "logits", err)) != NULL;
    ok = ok && (r->kv = mem_take(shape->sequences, sizeof *r->kv, "caches", err)) != NULL;
    /* `opened` counts as it goes, so that a failure half-way closes exactly the caches that stand. */
    for (; ok && r->opened < shape->sequences; r->opened += ok)
        ok = kv_init(&r->kv[r->opened], &model->model, shape->kv, shape->context, err);
    if (!ok)
        runner_close(r);
    return ok;
}

void runner_close(struct runner *r)
{
    for (size_t i = 0; i < r->opened; i++)
        kv_free(&r->kv[i]);
    free(r->kv);
    free(r->logits);
    forward_free(&r->forward);
    *r = (struct runner){0};
}
