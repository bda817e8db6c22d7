/* measure.h - how far a changed model strays from its source: KL divergence over calibration tokens.
 *
 * The source's log probabilities are computed once and kept; each changed model then costs one forward pass. The first quarter of
 * every chunk is context only. KL is KL(source || changed) over the whole vocabulary in nats per token. */
#ifndef QUERN_MEASURE_H
#define QUERN_MEASURE_H

#include "calibration.h"
#include "pool.h"
#include "runner.h"

struct measure {
    const struct quern_model *source;
    struct pool              *pool;
    const volatile int       *stop;
    const int32_t            *tokens;      /* [chunks][chunk], the caller's */
    size_t                    chunk, chunks, first;
    size_t                    points;      /* scored positions in all */
    float                    *teacher;     /* [points][vocab] log probabilities */
};

/* Memory of the teacher's log probabilities for so many chunks. */
size_t measure_bytes(const struct quern_model *source, size_t chunk, size_t chunks);
/* The source, its tokens and the pool must outlive it. QUERN_EMEM, QUERN_EFAIL (logits that are not finite), QUERN_EINTERRUPT. */
bool measure_init(struct measure *m, const struct quern_model *source, const int32_t *tokens, size_t chunk, size_t chunks,
                  struct pool *pool, const volatile int *stop, struct quern_error *err);
void measure_free(struct measure *m);
/* Mean KL of `model`; kl: [points] each position's, may be NULL. */
bool measure_kl(const struct measure *m, const struct quern_model *model, double *kl, double *mean, struct quern_error *err);
/* Mean of b - a over n positions and its standard error. */
void measure_paired(const double *a, const double *b, size_t n, double *mean, double *error);

#endif
