/* session.h - one sequence with its cache, scratch and logits; what include/quern.h hides of it.
 *
 * A session owns a pool of threads, so that sessions of one model may run in threads of their own. Programs that compute several
 * sequences at once (bench, a server) make caches of their own (kv_init) and call forward_run with a part for each. */
#ifndef QUERN_SESSION_H
#define QUERN_SESSION_H

#include "forward.h"

struct quern_session {
    struct quern_model *model;
    struct pool   *pool;
    struct kv      kv;
    struct forward forward;
    size_t   batch;
    int32_t *tokens;          /* [kv.limit]; the first kv.used are in the cache */
    float   *logits;          /* [vocab] */
    bool     has_logits;
};

/* The cache that a type of the interface stands for; DEFAULT is settled here (kv_choose) and nowhere else. */
enum kv_type session_kv(const struct quern_model *model, enum quern_kv kv);
/* The interface's word for a cache: session_kv of it is `type` for every model. */
enum quern_kv kv_asked(enum kv_type type);
/* What quern_open_session makes of options that are 0. */
void session_defaults(const struct quern_model *model, struct quern_session_options *options);

/* Append tokens; out: f32 [wanted][vocab], the logits after the last `wanted` of them. In passes of at most `batch` tokens. */
bool session_score(struct quern_session *s, const int32_t *tokens, size_t count, size_t wanted, float *out,
                   struct quern_error *err);

#endif
