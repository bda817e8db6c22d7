/* One text and its cache, the unit that most callers hold: see session.h and quern.h. */
#include "session.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 4096, DEFAULT_BATCH = 512 };

enum { KV_NAMES = QUERN_KV_I16 + 1 };      /* of enum quern_kv */

_Static_assert((int)QUERN_KV_F32 == (int)KV_F32 + 1 && (int)QUERN_KV_F16 == (int)KV_F16 + 1 &&
               (int)QUERN_KV_BF16 == (int)KV_BF16 + 1 && (int)QUERN_KV_Q8_0 == (int)KV_Q8_0 + 1 &&
               (int)QUERN_KV_Q4_0 == (int)KV_Q4_0 + 1 && (int)QUERN_KV_I16 == (int)KV_I16 + 1, "one order in both enums");

enum kv_type session_kv(const struct quern_model *model, enum quern_kv kv)
{
    return kv == QUERN_KV_DEFAULT ? kv_choose(&model->model, &model->kernels) : (enum kv_type)((int)kv - 1);
}

enum quern_kv kv_asked(enum kv_type type)
{
    return (enum quern_kv)((int)type + 1);
}

void session_defaults(const struct quern_model *model, struct quern_session_options *o)
{
    /* Models say 128 Ki tokens and more; a cache of that size for every short question would be gigabytes. */
    size_t trained = model->model.hyper.context;
    if (o->context == 0)
        o->context = trained < DEFAULT_CONTEXT ? trained : DEFAULT_CONTEXT;
    if (o->batch == 0)
        o->batch = DEFAULT_BATCH;
    if (o->batch > o->context)
        o->batch = o->context;
}

/* Learned positions end where the training ended; rotated ones only get worse. */
static bool check_options(const struct quern_model *model, const struct quern_session_options *o, struct quern_error *err)
{
    if ((unsigned)o->kv >= KV_NAMES)
        return ERR(err, QUERN_EUSAGE, "cache type %d is unknown", (int)o->kv);
    if (model->model.positions && o->context > model->model.hyper.context)
        return ERR(err, QUERN_ELIMIT, "a context of %zu tokens, the model has learned positions for %zu", o->context,
                   model->model.hyper.context);
    return true;
}

bool quern_plan_session(const struct quern_model *model, const struct quern_session_options *options, size_t *cache,
                        size_t *scratch, struct quern_error *err)
{
    struct quern_session_options o = options ? *options : (struct quern_session_options){ 0 };
    size_t more;
    session_defaults(model, &o);
    if (!check_options(model, &o, err) || !kv_bytes(cache, &model->model, session_kv(model, o.kv), o.context, err) ||
        !forward_bytes(scratch, &model->model, &model->kernels, model->threads, o.batch, 1, o.context, err))
        return false;
    /* The list of tokens and one row of logits are the session's own; they count as scratch. */
    if (!checked_mul(&more, o.context, sizeof(int32_t)) || !checked_add(scratch, *scratch, more) ||
        !checked_add(scratch, *scratch, model->model.hyper.vocab * sizeof(float)))
        return ERR(err, QUERN_EMEM, "a context of %zu tokens is larger than the address space", o.context);
    return true;
}

struct quern_session *quern_open_session(struct quern_model *model, const struct quern_session_options *options,
                                         struct quern_error *err)
{
    struct quern_session_options o = options ? *options : (struct quern_session_options){ 0 };
    size_t cache, scratch;
    session_defaults(model, &o);
    if (!quern_plan_session(model, &o, &cache, &scratch, err))
        return NULL;
    if (o.mem_limit && (cache > o.mem_limit || scratch > o.mem_limit - cache)) {
        ERR(err, QUERN_EMEM, "a context of %zu tokens needs %zu bytes of cache and %zu of scratch, the limit is %zu", o.context,
            cache, scratch, o.mem_limit);
        return NULL;
    }
    struct quern_session *s = mem_take(1, sizeof *s, "a session", err);
    if (!s)
        return NULL;
    s->model = model;
    s->batch = o.batch;
    /* Threads are the session's, not the model's: sessions in several threads of the caller never wait for each other. */
    s->pool = pool_open(model->threads, err);
    if (s->pool && kv_init(&s->kv, &model->model, session_kv(model, o.kv), o.context, err) &&
        forward_init(&s->forward, &model->model, &model->kernels, s->pool, o.batch, 1, o.context, err) &&
        (s->tokens = mem_take(o.context, sizeof *s->tokens, "a session's tokens", err)) != NULL &&
        (s->logits = mem_take(model->model.hyper.vocab, sizeof *s->logits, "logits", err)) != NULL) {
        s->forward.stop = o.stop;
        return s;
    }
    quern_close_session(s);
    return NULL;
}

void quern_close_session(struct quern_session *s)
{
    if (!s)
        return;
    forward_free(&s->forward);
    kv_free(&s->kv);
    pool_close(s->pool);
    free(s->tokens);
    free(s->logits);
    free(s);
}

/* Before any compute: a prompt that does not fit must not cost the time of the part that does. */
static bool check_room(const struct quern_session *s, size_t count, struct quern_error *err)
{
    if (count <= s->kv.limit - s->kv.used)
        return true;
    return ERR(err, QUERN_ELIMIT, "%zu tokens are needed, the context holds %zu", s->kv.used + count, s->kv.limit);
}

/* After logits that were not finite: find the first token whose own are not, one token at a time. (In a batch a bad value also
 * reaches earlier tokens of its tile, with the weight 0.) Recurrent states are gone by then; there the error stays as it is. */
static void find_fault(struct quern_session *s, const int32_t *tokens, size_t count, struct quern_error *err)
{
    size_t used = s->kv.used;
    struct quern_error ignored;
    for (size_t i = 0; i < count && !s->kv.recurrent && err->code == QUERN_EFAIL; i++) {
        struct batch_part part = { .kv = &s->kv, .tokens = tokens + i, .count = 1, .wanted = 1 };
        if (!forward_run(&s->forward, &part, 1, s->logits, err))
            break;
    }
    kv_rewind(&s->kv, s->kv.recurrent ? s->kv.used : used, &ignored);
}

bool session_score(struct quern_session *s, const int32_t *tokens, size_t count, size_t wanted, float *out, struct quern_error *err)
{
    if (!check_room(s, count, err))
        return false;
    s->has_logits = false;
    /* Batch after batch; those before the last `wanted` tokens need no logits at all. */
    for (size_t done = 0; done < count;) {
        size_t n = count - done < s->batch ? count - done : s->batch, first = count - wanted;
        struct batch_part part = { .kv = &s->kv, .tokens = tokens + done, .count = n };
        part.wanted = done + n <= first ? 0 : done >= first ? n : done + n - first;
        if (!forward_run(&s->forward, &part, 1, out, err)) {
            if (err->code == QUERN_EFAIL)
                find_fault(s, tokens + done, n, err);
            return false;
        }
        /* Only after the pass, which has moved kv.used: when a later batch fails or is interrupted, tokens and cache still agree.
         * memmove, because a caller may hand in the list that quern_session_tokens gave. */
        memmove(s->tokens + s->kv.used - n, tokens + done, n * sizeof *tokens);
        if (part.wanted)
            out += part.wanted * s->model->model.hyper.vocab;
        done += n;
    }
    return true;
}

bool quern_step_session(struct quern_session *s, const int32_t *tokens, size_t count, struct quern_error *err)
{
    if (count == 0)
        return ERR(err, QUERN_EUSAGE, "no tokens to append");
    if (!session_score(s, tokens, count, 1, s->logits, err))
        return false;
    s->has_logits = true;
    return true;
}

bool quern_sync_session(struct quern_session *s, const int32_t *tokens, size_t count, struct quern_error *err)
{
    size_t same = 0;
    if (count == 0)
        return ERR(err, QUERN_EUSAGE, "no tokens to hold");
    if (count > s->kv.limit)
        return ERR(err, QUERN_ELIMIT, "%zu tokens are needed, the context holds %zu", count, s->kv.limit);
    /* What both texts begin with stays in the cache. */
    while (same < count && same < s->kv.used && s->tokens[same] == tokens[same])
        same++;
    if (same == count && same == s->kv.used && s->has_logits)
        return true;
    if (same == count)
        same--;                       /* the last token again, for its logits */
    if (s->kv.recurrent && same < s->kv.used)
        same = 0;                     /* a state has no earlier self to go back to */
    return quern_rewind_session(s, same, err) && quern_step_session(s, tokens + same, count - same, err);
}

bool quern_rewind_session(struct quern_session *s, size_t count, struct quern_error *err)
{
    if (count != s->kv.used)
        s->has_logits = false;
    return kv_rewind(&s->kv, count, err);
}

size_t quern_session_tokens(const struct quern_session *s, const int32_t **tokens)
{
    if (tokens)
        *tokens = s->tokens;
    return s->kv.used;
}

enum quern_kv quern_session_kv(const struct quern_session *s)
{
    return kv_asked(s->kv.type);
}

const float *quern_session_logits(const struct quern_session *s)
{
    return s->has_logits ? s->logits : NULL;
}
