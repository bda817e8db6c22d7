/* stages.h - where the time of a pass goes: a clock that the forward pass moves from stage to stage while somebody measures.
 *
 * Off (a forward without a clock) it costs a test of a pointer per stage, a few dozen per layer. */
#ifndef QUERN_STAGES_H
#define QUERN_STAGES_H

#include "pool.h"

enum stage {
    STAGE_OTHER,        /* embedding, angles, the check of the logits                       */
    STAGE_NORM,         /* norms, and vectors made ready for products (quantized)           */
    STAGE_QKV,          /* products that make queries, keys and values                      */
    STAGE_POSITION,     /* norms of heads, rotation, a row of the cache                     */
    STAGE_ATTENTION,    /* scores, softmax, values                                          */
    STAGE_OUT,          /* its last product, and the residual                               */
    STAGE_RECURRENT,    /* the whole mixer of a layer without attention                     */
    STAGE_ROUTE,        /* of experts: who computes what                                    */
    STAGE_UP,           /* gate and up with the activation                                  */
    STAGE_DOWN,         /* down, and the residual                                           */
    STAGE_HEAD,         /* the output matrix, for the tokens whose logits are wanted        */
    STAGES
};

/* "q|k|v" and the like, for tables. */
const char *stage_name(enum stage stage);

struct stage_clock {
    struct pool      *pool;
    struct pool_lane *lanes;             /* [threads] */
    enum stage        now;
    double            since, busy;       /* when `now` began, and what the lanes had then */
    double            seconds[STAGES];   /* of the caller */
    double            worked[STAGES];    /* of all threads together, within chunks: the rest of seconds * threads they waited */
};

/* Take a clock for this pool. It stands until stages_start. */
bool stages_open(struct stage_clock *clock, struct pool *pool, struct quern_error *err);
void stages_close(struct stage_clock *clock);
/* Run from zero, in STAGE_OTHER; stop, with the sums as they are. */
void stages_start(struct stage_clock *clock);
void stages_stop(struct stage_clock *clock);
/* What follows belongs to `stage`. Between jobs of the pool only. */
void stages_enter(struct stage_clock *clock, enum stage stage);

#endif
