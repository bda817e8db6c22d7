/* measure.h - how far a changed model strays from its source: KL divergence over calibration tokens.
 *
 * The source's log probabilities are computed once and kept; each changed model then costs a forward pass, or less: models that
 * are measured after one another differ in a tensor or two, and layers before the first change are not computed again. What each
 * layer reads is kept for that (of the model that is `followed`: first the source). The first quarter of every chunk is context
 * only. KL is KL(source || changed) over the whole vocabulary in nats per token. */
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
    size_t                    together;    /* chunks that go through the model in one pass */
    float                    *trail;       /* [kept layers][chunks * chunk][width]: what they read, of the model that is followed */
    size_t                    every, known;/* every so many-th layer is kept; those up to layer `known` are true */
};

/* How many of a chunk's tokens are scored: all but its first quarter. */
static inline size_t measure_scored(size_t chunk) { return chunk - chunk / 4; }
/* Memory for so many chunks: the source's log probabilities, what layers read, and a pass. */
bool measure_bytes(size_t *out, const struct quern_model *source, size_t chunk, size_t chunks, size_t threads,
                   struct quern_error *err);
/* The source, its tokens and the pool must outlive it. QUERN_EMEM, QUERN_EFAIL (logits that are not finite), QUERN_EINTERRUPT. */
bool measure_init(struct measure *m, const struct quern_model *source, const int32_t *tokens, size_t chunk, size_t chunks,
                  struct pool *pool, const volatile int *stop, struct quern_error *err);
void measure_free(struct measure *m);
/* Mean KL of `model`, which is the model that is followed in all layers before `first` (0: not even the embedding is the same; the
 * number of layers: only the head differs). kl: [points] each position's, may be NULL. The result does not depend on `first`. */
bool measure_kl(struct measure *m, const struct quern_model *model, size_t first, double *kl, double *mean,
                struct quern_error *err);
/* From now on a model is followed that differs from layer `first` on. */
void measure_follow(struct measure *m, size_t first);
/* Mean of b - a over n positions and its standard error. */
void measure_paired(const double *a, const double *b, size_t n, double *mean, double *error);

#endif
